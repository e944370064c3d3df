import CSpawn
import Foundation
import Glibc
import Synchronization
import Testing

@Suite(.serialized) struct SpawnTests {
  @Test func reportsTheExitCode() throws {
    #expect(try run(["/bin/true"]) == End(exitCode: 0))
    #expect(try run(["/bin/sh", "-c", "exit 42"]) == End(exitCode: 42))
  }

  @Test func reportsTheSignalThatKilled() throws {
    let child = try spawn(["/bin/sleep", "1000"])
    #expect(isReadable(child.pidfd, within: 0) == false)
    var (code, signal): (Int32, Int32) = (7, 7)
    #expect(tinysns_pidfd_wait(child.pidfd, &code, &signal) == 0)
    #expect(tinysns_pidfd_send_signal(child.pidfd, 0) == 0)
    #expect(tinysns_pidfd_send_signal(child.pidfd, SIGKILL) == 0)
    #expect(try child.end() == End(signal: SIGKILL))
    #expect(tinysns_pidfd_send_signal(child.pidfd, 0) == -ESRCH)
    #expect(tinysns_pidfd_wait(child.pidfd, &code, &signal) == -ECHILD)
  }

  @Test func reportsAProgramThatCannotStart() throws {
    let before = openPipesAndPidfds()
    for _ in 0..<20 {
      #expect(throws: SpawnFailure(errno: ENOENT)) { try spawn(["/no/such/program"]) }
      #expect(throws: SpawnFailure(errno: EACCES)) { try spawn(["/etc/passwd"]) }
      #expect(throws: SpawnFailure(errno: EACCES)) { try spawn(["/tmp"]) }
    }
    #expect(openPipesAndPidfds() < before + 20)  // other tests open a few, too
  }

  @Test func passesArgumentsAndEnvironment() throws {
    let script = "echo \"$0 $1 $NAME\"; echo oops >&2; pwd"
    let (end, output) = try capture(["/bin/sh", "-c", script, "zero", "one two"], environment: ["NAME=value"])
    #expect(end == End(exitCode: 0))
    let path = getcwd(nil, 0)!
    defer { free(path) }
    let directory = String(cString: path)
    #expect(output == "zero one two value\noops\n\(directory)\n")
  }

  @Test func inheritsNothingButStandardDescriptors() throws {
    let leaky = open("/dev/zero", O_RDONLY)  // not close-on-exec
    defer { close(leaky) }
    let (_, output) = try capture(["/bin/ls", "/proc/self/fd"])
    #expect(output.split(separator: "\n") == ["0", "1", "2", "3"])  // 3: ls reads the folder with it
    let (_, null) = try capture(["/bin/readlink", "/proc/self/fd/0"])
    #expect(null == "/dev/null\n")
    #expect(fcntl(leaky, F_GETFD) == 0)  // the marks are the child's only
  }

  @Test func hasNullOutputsIfAskedTo() throws {
    let script = "[ /dev/null -ef /proc/self/fd/1 ] && [ /dev/null -ef /proc/self/fd/2 ]"
    #expect(try run(["/bin/sh", "-c", script]) == End(exitCode: 0))
  }

  @Test func resetsSignals() throws {
    signal(SIGPIPE, SIG_IGN)
    defer { signal(SIGPIPE, SIG_DFL) }
    var blocked = sigset_t()
    var before = sigset_t()
    sigemptyset(&blocked)
    sigaddset(&blocked, SIGTERM)
    sigaddset(&blocked, SIGUSR1)
    pthread_sigmask(SIG_BLOCK, &blocked, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    var during = sigset_t()
    pthread_sigmask(SIG_BLOCK, nil, &during)

    let (_, output) = try capture(["/bin/cat", "/proc/self/status"])
    var masks: [Substring: UInt64] = [:]
    for line in output.split(separator: "\n") where line.hasPrefix("Sig") {
      let words = line.split(separator: "\t")
      masks[words[0]] = UInt64(words[1], radix: 16)
    }
    #expect(masks["SigBlk:"] == 0)
    #expect(masks["SigIgn:"].map { $0 & 0x7FFF_FFFF } == 0)  // without libc's own signals 32 and 33
    #expect(masks["SigCgt:"] == 0)

    var after = sigset_t()
    pthread_sigmask(SIG_BLOCK, nil, &after)
    #expect((1..<64).allSatisfy { sigismember(&during, $0) == sigismember(&after, $0) })  // the parent's stay
    #expect(sigismember(&after, SIGTERM) == 1)
  }

  @Test func startsASessionIfAskedTo() throws {
    let sleep = ["/bin/sleep", "1000"]
    for (flags, isLeader) in [(UInt32(0), false), (UInt32(TINYSNS_SPAWN_NEW_SESSION), true)] {
      let child = try spawn(sleep, flags: flags)
      #expect((getsid(child.pid) == child.pid) == isLeader)
      #expect(kill(child.pid, SIGKILL) == 0)
      #expect(try child.end() == End(signal: SIGKILL))
    }
  }

  @Test func watchesAProcessThatItDidNotStart() throws {
    // A shell starts a sleeper and tells its pid; the sleeper is no child of this process.
    let (_, output) = try capture(["/bin/sh", "-c", "/bin/sleep 1000 >/dev/null 2>&1 & echo $!"])
    let pid = try #require(pid_t(output.dropLast()))
    let pidfd = tinysns_pidfd_open(pid)
    try #require(pidfd >= 0)
    defer { close(pidfd) }
    #expect(fcntl(pidfd, F_GETFD) == FD_CLOEXEC)
    #expect(!isReadable(pidfd, within: 0))
    #expect(tinysns_pidfd_send_signal(pidfd, SIGTERM) == 0)
    #expect(isReadable(pidfd, within: 20_000))
    var (code, signal): (Int32, Int32) = (0, 0)
    #expect(tinysns_pidfd_wait(pidfd, &code, &signal) == -ECHILD)
    #expect(tinysns_pidfd_open(pid_t.max) < 0)
  }

  @Test func manyThreadsMaySpawn() async throws {
    try await withThrowingTaskGroup(of: End.self) { group in
      for index in 0..<40 {
        group.addTask { try run(["/bin/sh", "-c", "exit \(index)"]) }
      }
      var codes: [Int32] = []
      for try await end in group { codes.append(end.exitCode) }
      #expect(codes.sorted() == Array(0..<40))
    }
  }

  /// malloc keeps what is free at the end of a thread's arena, unless that is much; here it is 1 MiB.
  @Test func givesBackWhatAThreadKeeps() throws {
    tinysns_keep_free_memory()
    // Another thread may have the arena, too, and something at its end: then nothing is given back. As long as a thread is there, the next one
    // mostly gets another arena.
    let mayEnd = DispatchSemaphore(value: 0)
    var threads = 0
    defer { for _ in 0..<threads { mayEnd.signal() } }
    func attempts(_ givesBack: Bool) -> some Sequence<Int> {
      (1...50).lazy.map { _ in
        threads += 1
        return onAThread(that: mayEnd) { residentBlocks(afterGivingBack: givesBack) }
      }
    }
    #expect(attempts(true).contains { $0 < 100 })
    #expect(attempts(false).contains { $0 > 900 })
  }

}

@Suite struct WakeUpTests {
  @Test func aSignalfdTellsOfSignals() throws {
    var before = sigset_t()
    pthread_sigmask(SIG_BLOCK, nil, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    let descriptor = tinysns_signalfd([SIGUSR2, SIGWINCH], 2)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    #expect(fcntl(descriptor, F_GETFD) == FD_CLOEXEC)
    #expect(tinysns_signalfd_read(descriptor, nil) == 0)
    pthread_kill(pthread_self(), SIGUSR2)
    #expect(isReadable(descriptor, within: 20_000))
    var sender: pid_t = 0
    #expect(tinysns_signalfd_read(descriptor, &sender) == SIGUSR2)
    #expect(sender == getpid())
    #expect(tinysns_signalfd_read(descriptor, nil) == 0)
    #expect(tinysns_signalfd([4711], 1) == -EINVAL)
  }

  @Test func anEventfdRings() throws {
    let descriptor = tinysns_eventfd()
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    #expect(fcntl(descriptor, F_GETFD) == FD_CLOEXEC)
    #expect(tinysns_eventfd_clear(descriptor) == 0)
    #expect(!isReadable(descriptor, within: 0))
    for _ in 0..<3 { #expect(tinysns_eventfd_ring(descriptor) == 0) }
    #expect(isReadable(descriptor, within: 0))
    #expect(tinysns_eventfd_clear(descriptor) == 1)
    #expect(!isReadable(descriptor, within: 0))
    #expect(tinysns_eventfd_ring(-1) == -EBADF)
  }
}

@Suite struct LockTests {
  private static let python = "/usr/bin/python3"

  @Test(.enabled(if: access(python, X_OK) == 0)) func anotherProcessSeesTheOwner() throws {
    let path = "/tmp/tinysns-lock-test-\(UInt64.random(in: .min ... .max))"
    let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    try #require(descriptor >= 0)
    defer {
      close(descriptor)
      unlink(path)
    }
    #expect(tinysns_lock_owner(descriptor) == 0)
    #expect(tinysns_lock_try(descriptor) == 0)
    #expect(tinysns_lock_try(descriptor) == 0)  // held already
    #expect(tinysns_lock_owner(descriptor) == 0)  // by this process itself
    let tryToLock = "import fcntl; f = open('\(path)', 'r+'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    #expect(try run([Self.python, "-c", tryToLock]) == End(exitCode: 1))
  }

  @Test(.enabled(if: access(python, X_OK) == 0)) func aDeadOwnerOwnsNothing() throws {
    let path = "/tmp/tinysns-lock-test-\(UInt64.random(in: .min ... .max))"
    let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    try #require(descriptor >= 0)
    defer {
      close(descriptor)
      unlink(path)
    }
    var pipe: [Int32] = [0, 0]
    #expect(Glibc.pipe(&pipe) == 0)
    defer { close(pipe[0]) }
    let lock = """
      import fcntl, time
      f = open('\(path)', 'r+')
      fcntl.lockf(f, fcntl.LOCK_EX)
      print('locked', flush=True)
      time.sleep(1000)
      """
    let child = try spawn([Self.python, "-c", lock], output: pipe[1])
    close(pipe[1])
    #expect(isReadable(pipe[0], within: 20_000))
    #expect(tinysns_lock_try(descriptor) == -EAGAIN)
    #expect(tinysns_lock_owner(descriptor) == child.pid)
    #expect(tinysns_pidfd_send_signal(child.pidfd, SIGKILL) == 0)
    #expect(try child.end() == End(signal: SIGKILL))
    #expect(tinysns_lock_owner(descriptor) == 0)
    #expect(tinysns_lock_try(descriptor) == 0)
  }

  @Test func raisesTheLimitOfDescriptors() {
    var limit = rlimit()
    let reached = tinysns_set_limit_nofile_max()
    #expect(getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
    #expect(limit.rlim_cur == limit.rlim_max)
    #expect(reached == Int(limit.rlim_max))
  }
}

// MARK: Support

private struct SpawnFailure: Error, Equatable {
  let errno: Int32
}

private struct End: Equatable {
  var exitCode: Int32 = -1
  var signal: Int32 = 0
}

private struct Child {
  let pid: pid_t
  let pidfd: Int32

  /// Waits for its end.
  func end() throws -> End {
    try #require(isReadable(pidfd, within: 20_000))
    var end = End()
    #expect(tinysns_pidfd_wait(pidfd, &end.exitCode, &end.signal) == 1)
    return end
  }
}

/// How many of 1,024 blocks of 1 KiB, which were allocated and freed, lie in pages that are still there.
private func residentBlocks(afterGivingBack givesBack: Bool) -> Int {
  let page = UInt(getpagesize())
  let blocks = (0..<1_024).map { _ in
    let block = malloc(1_024 - 16)!
    memset(block, 1, 1_024 - 16)
    return UInt(bitPattern: block)
  }
  for block in blocks { free(UnsafeMutableRawPointer(bitPattern: block)) }
  if givesBack { tinysns_give_back_own_memory() }
  return blocks.count { block in
    var state: UInt8 = 0
    return mincore(UnsafeMutableRawPointer(bitPattern: block / page * page), Int(page), &state) == 0 && state & 1 != 0
  }
}

/// What a thread of its own found, which stays until it may end.
private func onAThread(that mayEnd: DispatchSemaphore, _ body: @escaping @Sendable () -> Int) -> Int {
  final class Found: Sendable { let value = Mutex(0) }
  let found = Found()
  let hasFound = DispatchSemaphore(value: 0)
  Thread {
    let value = body()
    found.value.withLock { $0 = value }
    hasFound.signal()
    mayEnd.wait()
  }.start()
  hasFound.wait()
  return found.value.withLock { $0 }
}

private func spawn(
  _ arguments: [String], environment: [String] = [], output: Int32 = -1, flags: UInt32 = 0
) throws -> Child {
  let argv = arguments.map { strdup($0) } + [nil]
  let envp = environment.map { strdup($0) } + [nil]
  defer { for string in argv + envp { free(string) } }
  var (pid, pidfd): (pid_t, Int32) = (0, -1)
  let code = tinysns_spawn(arguments[0], argv, envp, output, output, flags, &pid, &pidfd)
  if code != 0 { throw SpawnFailure(errno: -code) }
  #expect(fcntl(pidfd, F_GETFD) == FD_CLOEXEC)
  return Child(pid: pid, pidfd: pidfd)
}

private func run(_ arguments: [String]) throws -> End {
  let child = try spawn(arguments)
  defer { close(child.pidfd) }
  return try child.end()
}

/// Runs a program and returns what it wrote to its outputs.
private func capture(_ arguments: [String], environment: [String] = []) throws -> (End, String) {
  var pipe: [Int32] = [0, 0]
  try #require(Glibc.pipe(&pipe) == 0)
  defer { close(pipe[0]) }
  let child: Child
  do {
    defer { close(pipe[1]) }
    child = try spawn(arguments, environment: environment, output: pipe[1])
  }
  defer { close(child.pidfd) }
  var output: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = read(pipe[0], &buffer, buffer.count)
    if count <= 0 { break }
    output += buffer[..<count]
  }
  return (try child.end(), String(decoding: output, as: UTF8.self))
}

private func isReadable(_ descriptor: Int32, within milliseconds: Int32) -> Bool {
  var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  return poll(&item, 1, milliseconds) == 1
}

private func openPipesAndPidfds() -> Int {
  var name = [CChar](repeating: 0, count: 64)
  return (0..<4096).count { descriptor in
    let length = readlink("/proc/self/fd/\(descriptor)", &name, name.count)
    guard length > 0 else { return false }
    let text = String(decoding: name[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return text.hasPrefix("pipe:") || text.contains("pidfd")
  }
}
