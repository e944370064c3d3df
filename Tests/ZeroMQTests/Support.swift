// What the tests share: waiting with a deadline, never by sleeping for luck.
import Glibc
import Synchronization
import Testing
import ZeroMQ

/// How long a test waits for what must happen. Long, since it costs nothing when it does.
let patience: Duration = .seconds(20)

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Bytes that a shift or a mix-up would not leave equal.
func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ 7) } }

/// The next message of a socket; the test fails if none comes.
func receive(
  _ socket: borrowing Socket, maxFrames: Int = 8, within limit: Duration = patience,
  sourceLocation: SourceLocation = #_sourceLocation
) throws -> [[UInt8]] {
  try wait(for: .readable, on: socket, within: limit, sourceLocation: sourceLocation)
  var message = Multipart(maxFrames: maxFrames)
  #expect(try socket.receive(into: &message) == .received, sourceLocation: sourceLocation)
  return message.copyFrames()
}

/// Waits until a socket is ready for something; the test fails if it does not get ready.
func wait(
  for events: PollEvents, on socket: borrowing Socket, within limit: Duration = patience,
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  var poller = Poller()
  var ready: [Ready] = []
  try poller.add(socket, token: 1, interest: events)
  try poller.wait(limit, into: &ready)
  try #require(ready == [Ready(token: 1, events: events)], sourceLocation: sourceLocation)
}

/// Waits until a monitor tells of a kind of event, and returns all events up to it.
func events(
  of monitor: borrowing Monitor, until isLast: (MonitorEvent.Kind) -> Bool,
  sourceLocation: SourceLocation = #_sourceLocation
) throws -> [MonitorEvent] {
  var events: [MonitorEvent] = []
  while true {
    try wait(for: .readable, on: monitor.socket, sourceLocation: sourceLocation)
    while let event = try monitor.next() {
      events.append(event)
      if isLast(event.kind) { return events }
    }
  }
}

/// An ipc endpoint that nobody else uses, and that is no file, which libzmq would leave (Linux's abstract names: unix(7)).
func uniqueIPCEndpoint() -> String { "ipc://@tinysns-test-\(UInt64.random(in: .min ... .max))" }

/// The endpoints that every kind of transport is tested with.
func endpoint(_ transport: String) -> String {
  switch transport {
  case "tcp": "tcp://127.0.0.1:*"
  case "ipc": uniqueIPCEndpoint()
  default: "inproc://\(UInt64.random(in: .min ... .max))"
  }
}

/// A context that several threads use.
final class SharedContext: Sendable {
  let context: Context
  init() throws { context = try Context() }
}

/// A thread of its own; tasks would wait for each other on a machine with few cores.
final class OtherThread: Sendable {
  private final class Work: Sendable {
    let body: @Sendable () throws -> Void
    let failure = Mutex<(any Error)?>(nil)
    init(_ body: @escaping @Sendable () throws -> Void) { self.body = body }
  }

  private let work: Work
  private let thread: pthread_t

  init(_ body: @escaping @Sendable () throws -> Void) {
    work = Work(body)
    var thread = pthread_t()
    let code = pthread_create(
      &thread, nil,
      { argument in
        let work = Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue()
        do {
          try work.body()
        } catch {
          work.failure.withLock { $0 = error }
        }
        return nil
      }, Unmanaged.passRetained(work).toOpaque())
    precondition(code == 0, "pthread_create: \(code)")
    self.thread = thread
  }

  /// Waits for its end and throws what it threw.
  func join() throws {
    pthread_join(thread, nil)
    if let failure = work.failure.withLock({ $0 }) { throw failure }
  }
}
