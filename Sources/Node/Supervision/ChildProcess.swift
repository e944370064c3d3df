// Processes: starting, finding, signalling.

import CSpawn
import Glibc

/// How a child is started: this program again, with other arguments.
public struct ChildCommand: Hashable, Sendable {
  public var name: String
  public var arguments: [String]

  public init(name: String, arguments: [String]) {
    self.name = name
    self.arguments = arguments
  }
}

/// A process that is watched.
struct ChildProcess: ~Copyable {
  let pid: Int32
  /// Readable when the process has ended.
  let descriptor: Int32

  private init(pid: Int32, descriptor: Int32) {
    self.pid = pid
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  /// Starts it, in a session of its own, its output appended to its log file.
  static func spawn(_ command: ChildCommand, in folder: StateFolder) throws(NodeError) -> ChildProcess {
    let path = folder.log(of: command.name)
    rotate(path)
    let output = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard output >= 0 else { throw .system("can't open \(path)") }
    defer { close(output) }
    let program = try Program.path()
    var pid: pid_t = 0
    var descriptor: Int32 = -1
    let arguments = ([program] + command.arguments).map { strdup($0) } + [nil]
    defer { for argument in arguments { free(argument) } }
    let code = arguments.withUnsafeBufferPointer {
      tinysns_spawn(
        program, $0.baseAddress!, environ, output, output, TINYSNS_SPAWN_NEW_SESSION, &pid, &descriptor)
    }
    guard code == 0 else { throw .system("can't start \(program)", code) }
    return ChildProcess(pid: pid, descriptor: descriptor)
  }

  /// One that runs already under this name; nil if none does.
  static func find(_ name: String, in folder: StateFolder) -> ChildProcess? {
    guard let pid = folder.owner(of: name) else { return nil }
    let descriptor = tinysns_pidfd_open(pid)
    guard descriptor >= 0 else { return nil }
    let child = ChildProcess(pid: pid, descriptor: descriptor)
    // The descriptor may be that of another process that got the pid since; then the lock has another owner.
    guard folder.owner(of: name) == pid else { return nil }
    return child
  }

  borrowing func send(signal: Int32) {
    _ = tinysns_pidfd_send_signal(descriptor, signal)
  }

  /// Whether it has ended, if it is a child of this process. It is gone afterwards.
  borrowing func collect() -> (hasEnded: Bool, code: Int32, signal: Int32, isChild: Bool) {
    var code: Int32 = 0
    var signal: Int32 = 0
    let result = tinysns_pidfd_wait(descriptor, &code, &signal)
    return (result == 1, code, signal, result != -ECHILD)
  }

  borrowing func isStopped() -> Bool { Node.isStopped(pid) }

  /// Keeps one older log file, so that logs don't grow forever.
  private static func rotate(_ path: String) {
    var status = stat()
    if stat(path, &status) == 0, status.st_size > 8 << 20 { rename(path, path + ".old") }
  }
}

/// Whether the kernel has stopped a process (SIGSTOP, a debugger).
public func isStopped(_ pid: Int32) -> Bool {
  let file = open("/proc/\(pid)/stat", O_RDONLY | O_CLOEXEC)
  guard file >= 0 else { return false }
  defer { close(file) }
  return withUnsafeTemporaryAllocation(byteCount: 128, alignment: 1) { buffer in
    // "pid (name) S …": the name, 16 bytes at most, may hold anything, so look behind the last parenthesis.
    let start = buffer[..<max(0, read(file, buffer.baseAddress, buffer.count))]
    guard let end = start.lastIndex(of: UInt8(ascii: ")")), end + 2 < start.endIndex else { return false }
    return start[end + 2] == UInt8(ascii: "T") || start[end + 2] == UInt8(ascii: "t")
  }
}

/// This program's file.
public enum Program {
  public static func path() throws(NodeError) -> String {
    let path = withUnsafeTemporaryAllocation(byteCount: Int(PATH_MAX), alignment: 1) { buffer -> String? in
      let count = readlink("/proc/self/exe", buffer.baseAddress!.assumingMemoryBound(to: CChar.self), buffer.count)
      return count > 0 ? String(decoding: UnsafeRawBufferPointer(buffer)[..<count], as: UTF8.self) : nil
    }
    // The file may have been replaced by a newer build; then the name it had is the one to start.
    guard let path else { throw .system("can't find this program's own file") }
    return path.hasSuffix(" (deleted)") ? String(path.dropLast(10)) : path
  }
}

/// A process that is started and left to itself.
public struct BackgroundProcess: ~Copyable {
  private let child: ChildProcess

  /// Starts it, in a session of its own, its output appended to its log file.
  public init(_ command: ChildCommand, in folder: StateFolder) throws(NodeError) {
    child = try ChildProcess.spawn(command, in: folder)
  }

  public var pid: Int32 { child.pid }

  /// Whether it has ended; to be asked no more once it has.
  public var hasEnded: Bool { child.collect().hasEnded }
}
