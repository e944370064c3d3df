// A libzmq context: the I/O threads and the inproc namespace that its sockets share.
internal import CZMQ
import Glibc

/// A libzmq context.
///
/// It may be shared between threads; a socket is used by one thread at a time. It is terminated when the `Context` *and* all its sockets are
/// gone, in whatever order a class or a struct happens to destroy them: each socket keeps the context alive, so
/// termination never waits for a socket of the same thread. It may wait for undelivered messages as long as the
/// sockets' `linger` says (0 unless set).
///
/// Build contexts after `fork`, never before: I/O threads do not survive it.
public struct Context: ~Copyable, Sendable {
  let handle: ContextHandle

  /// Starts a context.
  ///
  /// - Parameters:
  ///   - ioThreads: threads that move bytes; one suffices for about a gigabyte a second.
  ///   - maxSockets: how many sockets may be open at the same time, 1 … 65,535. A monitored socket counts three.
  ///   - sendsInBulk: the I/O threads do not interrupt the one that gives them something to do, but come when a processor is free or its time
  ///     is over (`SCHED_BATCH`, where the system lets them). What a thread sends in a burst goes out with few system calls then;
  ///     else each message may cost two changes of threads.
  /// - Throws: EINVAL for a value out of range, EMFILE without free descriptors.
  public init(ioThreads: Int = 1, maxSockets: Int = 1023, sendsInBulk: Bool = false) throws(ZMQError) {
    handle = try ContextHandle(ioThreads: ioThreads, maxSockets: maxSockets, sendsInBulk: sendsInBulk)
  }

  /// Starts the I/O threads, which otherwise start with the first socket. Takes one of `maxSockets` for a moment.
  ///
  /// - Throws: EMFILE beyond `maxSockets` or without free descriptors; terminated after `shutdown()`.
  public borrowing func start() throws(ZMQError) {
    _ = try makeSocket(.pair)
  }

  /// Opens a socket, with `linger` 0.
  ///
  /// - Throws: EMFILE beyond `maxSockets` or without free descriptors; terminated after `shutdown()`.
  public borrowing func makeSocket(_ kind: SocketKind) throws(ZMQError) -> Socket {
    try Socket(kind, in: handle)
  }

  /// Has some of the I/O threads give way to other threads where processors are short.
  ///
  /// Call it once a socket has been made, which starts them. libzmq tells nothing of them but their names: so the same threads of
  /// the process's other contexts give way, too, and where libzmq names them otherwise, none.
  ///
  /// - Parameters:
  ///   - threads: which ones, a bit each, as in `SocketOption.affinity`.
  ///   - nice: how much higher than the caller's their `nice` value shall be, 0 … 39; with 5 more they get a third of what
  ///     another thread gets that wants the same processor (sched(7)).
  /// - Returns: whether all were found. A thread takes its name when it begins; that is waited for, up to 100 ms.
  @discardableResult
  public borrowing func lowerPriority(ofThreads threads: UInt64, by nice: Int32) -> Bool {
    let process = __priority_which_t(PRIO_PROCESS.rawValue)
    let nice = min(getpriority(process, 0) + nice, 19)
    var missing = Set((0..<64).filter { threads >> $0 & 1 != 0 }.map { "ZMQbg/IO/\($0)" })
    for attempt in 0..<100 where !missing.isEmpty {
      if attempt > 0 { usleep(1_000) }
      let found = namedThreads().filter { missing.contains($0.name) }
      for (id, name) in found {
        setpriority(process, id, nice)
        missing.remove(name)
      }
    }
    return missing.isEmpty
  }

  /// Makes every operation on every socket of this context fail as terminated, from any thread: the way to tell
  /// other threads to close their sockets and end.
  public borrowing func shutdown() throws(ZMQError) {
    if retryingInterrupted({ zmq_ctx_shutdown(handle.pointer) }) != 0 { throw .last("zmq_ctx_shutdown") }
  }
}

/// Owns the libzmq context; terminates it when the last of its users (the `Context`, its sockets) is gone.
///
/// `@unchecked Sendable`: one constant pointer to an object that libzmq documents as thread safe.
final class ContextHandle: @unchecked Sendable {
  let pointer: UnsafeMutableRawPointer

  init(ioThreads: Int, maxSockets: Int, sendsInBulk: Bool) throws(ZMQError) {
    guard let pointer = zmq_ctx_new() else { throw .last("zmq_ctx_new") }
    self.pointer = pointer
    try set(ZMQ_IO_THREADS, Int32(clamping: ioThreads), "zmq_ctx_set(ZMQ_IO_THREADS)")
    try set(ZMQ_MAX_SOCKETS, Int32(clamping: maxSockets), "zmq_ctx_set(ZMQ_MAX_SOCKETS)")
    try set(ZMQ_BLOCKY, 0, "zmq_ctx_set(ZMQ_BLOCKY)")  // sockets linger 0 from birth
    if sendsInBulk, Self.mayUseBatchScheduling {
      try set(ZMQ_THREAD_SCHED_POLICY, Int32(TINYSNS_SCHED_BATCH), "zmq_ctx_set(ZMQ_THREAD_SCHED_POLICY)")
    }
  }

  /// Tries it on the calling thread, and takes it back: libzmq aborts the process if the system refuses, as some sandboxes do.
  private static var mayUseBatchScheduling: Bool {
    var policy: Int32 = 0
    var parameters = sched_param()
    guard pthread_getschedparam(pthread_self(), &policy, &parameters) == 0, policy == SCHED_OTHER else { return false }
    guard pthread_setschedparam(pthread_self(), Int32(TINYSNS_SCHED_BATCH), &parameters) == 0 else { return false }
    return pthread_setschedparam(pthread_self(), policy, &parameters) == 0
  }

  deinit {
    // Interrupted means not yet terminated; there is nobody left who could call again.
    _ = retryingInterrupted { zmq_ctx_term(pointer) }
  }

  private func set(_ option: Int32, _ value: Int32, _ call: String) throws(ZMQError) {
    if zmq_ctx_set(pointer, option, value) != 0 { throw .last(call) }
  }
}

/// The threads of this process and their names (proc(5), `/proc/pid/task/tid/comm`).
private func namedThreads() -> [(id: id_t, name: String)] {
  guard let folder = opendir("/proc/self/task") else { return [] }
  defer { closedir(folder) }
  var threads: [(id: id_t, name: String)] = []
  while let entry = readdir(folder) {
    let id = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    guard let number = id_t(id) else { continue }
    let file = open("/proc/self/task/\(id)/comm", O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { continue }
    defer { close(file) }
    var name = [UInt8](repeating: 0, count: 32)
    let count = max(read(file, &name, name.count), 0)
    threads.append((number, String(decoding: name[..<count].prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)))
  }
  return threads
}
