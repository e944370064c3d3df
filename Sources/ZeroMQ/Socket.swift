// Sockets: open, bind and connect, send and receive. Every send and receive returns at once; who wants to wait polls.
internal import CZMQ
import Glibc

/// The kinds of sockets in use here; see zmq_socket(3).
public enum SocketKind: Int32, Sendable {
  case pair = 0
  case pub = 1
  case sub = 2
  case dealer = 5
  case router = 6
  case xpub = 9
  case xsub = 10
}

/// What became of a frame.
public enum SendResult: Equatable, Sendable {
  /// libzmq has taken it over. That it arrives is another question.
  case sent
  /// A queue is full or there is no peer yet; nothing was taken.
  case wouldBlock
  /// A router with `routerMandatory` has no peer of that routing id; nothing was taken. A peer that has just died may
  /// still be `sent` to, and one whose queue was full at its death stays `wouldBlock`, until the router is polled or
  /// receives: only then it takes note.
  case unroutable
}

/// What a receive found.
public enum ReceiveResult: Equatable, Sendable {
  case received
  /// Nothing is there.
  case wouldBlock
}

/// What a receive of a whole multipart message found.
public enum MultipartResult: Equatable, Sendable {
  /// A message with all its frames.
  case received
  /// A message with more frames than there was room for. The first ones were kept, these many dropped.
  case tooManyFrames(dropped: Int)
  /// Nothing is there.
  case wouldBlock
}

/// A ZeroMQ socket. One thread at a time uses it, another one after a full memory fence; it is closed when it goes out of scope,
/// without lingering unless `.linger` was set.
///
/// Sends and receives never block, whatever the kind. An interruption by a signal is retried.
/// To keep sockets in arrays and dictionaries, which take no noncopyable elements, put them into `SocketBox`es.
public struct Socket: ~Copyable {
  let handle: SocketHandle

  /// The kind of socket.
  public let kind: SocketKind

  init(_ kind: SocketKind, in context: ContextHandle) throws(ZMQError) {
    self.kind = kind
    handle = try SocketHandle(kind, context)
  }

  /// Whether there is a message to receive now.
  public var hasMessage: Bool {
    get throws(ZMQError) {
      _ = handle.touched()  // asking, too, may swallow the wake-up of its descriptor
      return try handle.events().contains(.readable)
    }
  }

  deinit { handle.close() }

  // MARK: Endpoints

  /// Listens on an endpoint: `tcp://127.0.0.1:3010`, `tcp://127.0.0.1:*` (any free port), `ipc:///path`
  /// (up to 107 bytes of path), `inproc://name`.
  ///
  /// - Returns: the endpoint with the port that was chosen.
  /// - Throws: EADDRINUSE, EADDRNOTAVAIL, EINVAL (no such form), ENODEV (no such interface), ENAMETOOLONG, …
  @discardableResult
  public borrowing func bind(_ endpoint: String) throws(ZMQError) -> String {
    let socket = handle.touched()
    if retryingInterrupted({ zmq_bind(socket, endpoint) }) != 0 { throw .last("zmq_bind") }
    return try lastEndpoint
  }

  /// Stops listening on an endpoint, spelt as `bind` returned it. Connections made through it are closed.
  ///
  /// - Throws: ENOENT if it is not bound.
  public borrowing func unbind(_ endpoint: String) throws(ZMQError) {
    let socket = handle.touched()
    if retryingInterrupted({ zmq_unbind(socket, endpoint) }) != 0 { throw .last("zmq_unbind") }
  }

  /// Starts to connect, and to reconnect after every loss, in the background. That nobody listens there is no error.
  ///
  /// - Throws: EINVAL for an endpoint of no known form. A host name that has no address yet is retried.
  public borrowing func connect(_ endpoint: String) throws(ZMQError) {
    let socket = handle.touched()
    if retryingInterrupted({ zmq_connect(socket, endpoint) }) != 0 { throw .last("zmq_connect") }
  }

  /// Drops the connection and stops reconnecting. Messages queued for it are lost unless `.linger` is set.
  ///
  /// - Throws: ENOENT if the endpoint was never connected.
  public borrowing func disconnect(_ endpoint: String) throws(ZMQError) {
    let socket = handle.touched()
    if retryingInterrupted({ zmq_disconnect(socket, endpoint) }) != 0 { throw .last("zmq_disconnect") }
  }

  // MARK: Send

  /// Sends a copy of the bytes as one frame. The result of a multipart message is that of its first frame: libzmq
  /// takes the later ones always.
  ///
  /// - Parameter more: whether further frames of the same message follow.
  /// - Throws: ENOTSUP on a sub; terminated.
  public borrowing func send(_ bytes: UnsafeRawBufferPointer, more: Bool = false) throws(ZMQError) -> SendResult {
    let socket = handle.touched()
    let flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)
    return try sendResult(retryingInterrupted { zmq_send(socket, bytes.baseAddress, bytes.count, flags) })
  }

  /// Sends a copy of the bytes as one frame; otherwise as `send(_:more:)` of a buffer.
  public borrowing func send(_ bytes: [UInt8], more: Bool = false) throws(ZMQError) -> SendResult {
    try send(bytes.span.bytes, more: more)
  }

  /// Sends a copy of the bytes as one frame; otherwise as `send(_:more:)` of a buffer.
  public borrowing func send(_ bytes: RawSpan, more: Bool = false) throws(ZMQError) -> SendResult {
    try bytes.withUnsafeBytes { buffer throws(ZMQError) in try send(buffer, more: more) }
  }

  /// Sends a frame and uses it up, whatever the result.
  public borrowing func send(_ message: consuming Message, more: Bool = false) throws(ZMQError) -> SendResult {
    try send(moving: &message, more: more)
  }

  /// Sends a frame without copying it: afterwards `message` is empty if it was sent, and unchanged if not.
  public borrowing func send(moving message: inout Message, more: Bool = false) throws(ZMQError) -> SendResult {
    let socket = handle.touched()
    let flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)
    return try sendResult(retryingInterrupted { zmq_msg_send(&message.raw, socket, flags) })
  }

  /// Sends a frame and keeps it, to be sent again: frames above 33 bytes are shared, not copied. `inout` because
  /// libzmq notes in the frame that it is shared; the bytes stay.
  public borrowing func send(sharing message: inout Message, more: Bool = false) throws(ZMQError) -> SendResult {
    let socket = handle.touched()
    let flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)
    var reference = zmq_msg_t()
    zmq_msg_init(&reference)
    guard zmq_msg_copy(&reference, &message.raw) == 0 else { throw .last("zmq_msg_copy") }
    let code = retryingInterrupted { zmq_msg_send(&reference, socket, flags) }
    if code >= 0 { return .sent }
    let failure = zmq_errno()
    zmq_msg_close(&reference)
    return try unsent(failure)
  }

  /// Sends copies of these frames as one message, all or none. An empty array sends nothing.
  public borrowing func send(frames: [[UInt8]]) throws(ZMQError) -> SendResult {
    for (index, frame) in frames.enumerated() {
      let result = try send(frame, more: index < frames.count - 1)
      if result != .sent { return result }
    }
    return .sent
  }

  // MARK: Receive

  /// Receives one frame into `message`, whose former content is released. With nothing there it becomes empty.
  ///
  /// - Throws: ENOTSUP on a pub; terminated.
  public borrowing func receive(into message: inout Message) throws(ZMQError) -> ReceiveResult {
    let socket = handle.touched()
    if retryingInterrupted({ zmq_msg_recv(&message.raw, socket, ZMQ_DONTWAIT) }) >= 0 { return .received }
    let failure = zmq_errno()
    message.clear()
    if failure == EAGAIN {
      handle.isDrained = true
      return .wouldBlock
    }
    throw ZMQError(code: failure, call: "zmq_msg_recv")
  }

  /// Receives one whole message. Frames beyond `message.maxFrames` are read and dropped one by one.
  ///
  /// libzmq delivers all frames of a message or none, and holds them in memory until the last one has come:
  /// `.maxMessageSize` limits each frame, nothing limits their number before they are here.
  ///
  /// - Throws: as `receive(into:)` for a frame.
  public borrowing func receive(into message: inout Multipart) throws(ZMQError) -> MultipartResult {
    message.removeAll()
    repeat {
      let result = try message.append { frame throws(ZMQError) in try receive(into: &frame) }
      guard let result else { return .tooManyFrames(dropped: try dropRestOfMessage()) }
      if result == .wouldBlock { return .wouldBlock }
    } while message.hasMore
    return .received
  }

  /// Reads and drops the frames up to the end of a message that has been received in part; how many there were.
  private borrowing func dropRestOfMessage() throws(ZMQError) -> Int {
    var dropped = 0
    var frame = Message()
    repeat {
      guard try receive(into: &frame) == .received else { break }
      dropped += 1
    } while frame.hasMore
    return dropped
  }

  // MARK: Results

  @inline(__always)
  private borrowing func sendResult(_ code: Int32) throws(ZMQError) -> SendResult {
    code >= 0 ? .sent : try unsent(zmq_errno())
  }

  private borrowing func unsent(_ failure: Int32) throws(ZMQError) -> SendResult {
    switch failure {
    case EAGAIN: return .wouldBlock
    case EHOSTUNREACH: return .unroutable
    default: throw ZMQError(code: failure, call: "zmq_send")
    }
  }
}

@available(*, unavailable)
extension Socket: Sendable {}

/// A socket for arrays, dictionaries and other places that take copyable values only. Closed with the last reference.
public final class SocketBox {
  public let socket: Socket

  public init(_ socket: consuming Socket) {
    self.socket = socket
  }
}

@available(*, unavailable)
extension SocketBox: Sendable {}

/// The open libzmq socket of a `Socket`, known also to what works with the socket without owning it: its monitor and
/// the pollers. They learn here that the socket was closed. Used by whoever uses the socket.
final class SocketHandle {
  private let pointer: UnsafeMutableRawPointer
  private let context: ContextHandle
  private(set) var isOpen = true

  /// Where to note that the socket was used; see `EpollPoller`.
  var watcher: EpollCore?
  var watcherSlot = 0
  /// Whether the watcher knows already that the socket was used.
  var isTouched = false
  /// Its last use was a receive that found nothing: then libzmq has taken note of everything, and the next message will be
  /// signalled by the descriptor.
  var isDrained = false
  /// Whether a `Monitor` listens to it.
  var isMonitored = false

  init(_ kind: SocketKind, _ context: ContextHandle) throws(ZMQError) {
    guard let pointer = zmq_socket(context.pointer, kind.rawValue) else { throw .last("zmq_socket") }
    self.pointer = pointer
    self.context = context
  }

  /// The socket, for an operation that may make libzmq swallow the wake-up of its descriptor: all but `events`.
  @inline(__always)
  func touched() -> UnsafeMutableRawPointer {
    if !isTouched, let watcher { watcher.touch(self) }
    isDrained = false
    return pointer
  }

  /// ZMQ_EVENTS: what the socket is ready for now, as ZMQ_POLLIN and ZMQ_POLLOUT.
  func events() throws(ZMQError) -> PollEvents {
    isDrained = false
    var events: Int32 = 0
    var size = MemoryLayout<Int32>.size
    let code = retryingInterrupted { zmq_getsockopt(pointer, ZMQ_EVENTS, &events, &size) }
    if code != 0 { throw .last("zmq_getsockopt(ZMQ_EVENTS)") }
    return PollEvents(rawValue: events)
  }

  /// Opens the reading end of a monitor in the same context.
  func makeSibling(_ kind: SocketKind) throws(ZMQError) -> Socket {
    try Socket(kind, in: context)
  }

  /// Ends the monitoring of this socket, if it is open and monitored. libzmq says so to the monitor as its last event.
  func stopMonitoring() {
    guard isOpen, isMonitored else { return }
    isMonitored = false
    zmq_socket_monitor(pointer, nil, 0)
  }

  func close() {
    guard isOpen else { return }
    stopMonitoring()
    watcher?.remove(self)
    isOpen = false
    zmq_close(pointer)
  }
}
