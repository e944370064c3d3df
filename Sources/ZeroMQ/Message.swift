// Frames: one (`Message`) and the frames of one multipart message (`Multipart`).
// A frame of up to 33 bytes lies inside the zmq_msg_t itself. The struct moves in memory as Swift likes, so its bytes
// are reachable only through closures, on storage that stays in place while the closure runs.
internal import CZMQ
import Glibc

/// One frame: received from a socket, or built to be sent.
///
/// Longer frames (above 33 bytes) are reference counted by libzmq: `send(sharing:)` gives the same bytes to many
/// sockets and topics without copying them. Not Sendable, but may be handed over to another thread.
public struct Message: ~Copyable {
  // libzmq moves a zmq_msg_t by plain assignment (zmq_msg_move), so Swift may move it too. Only calls that change it
  // need its one true address; for reading, a bitwise copy that lives as long as the closure is as good.
  var raw = zmq_msg_t()

  /// An empty frame, also the thing to receive into.
  public init() {
    zmq_msg_init(&raw)
  }

  /// A frame of `count` bytes that `fill` writes. The bytes hold arbitrary values before.
  ///
  /// - Throws: ENOMEM.
  public init(count: Int, fill: (UnsafeMutableRawBufferPointer) -> Void) throws(ZMQError) {
    precondition(count >= 0, "A frame of \(count) bytes")
    if zmq_msg_init_size(&raw, count) != 0 { throw .last("zmq_msg_init_size") }
    if count > 0 { fill(UnsafeMutableRawBufferPointer(start: zmq_msg_data(&raw), count: count)) }
  }

  /// A frame with a copy of these bytes.
  ///
  /// - Throws: ENOMEM.
  public init(copying bytes: UnsafeRawBufferPointer) throws(ZMQError) {
    try self.init(count: bytes.count) { $0.copyMemory(from: bytes) }
  }

  /// A frame with a copy of these bytes.
  ///
  /// - Throws: ENOMEM.
  public init(copying bytes: [UInt8]) throws(ZMQError) {
    try self.init(count: bytes.count) { $0.copyBytes(from: bytes) }
  }

  /// A frame with a copy of these bytes.
  ///
  /// - Throws: ENOMEM.
  public init(copying bytes: RawSpan) throws(ZMQError) {
    try self.init(count: bytes.byteCount) { target in
      bytes.withUnsafeBytes { target.copyMemory(from: $0) }
    }
  }

  deinit {
    var last = raw  // the struct is going away: this copy is the one that is closed
    zmq_msg_close(&last)
  }

  /// Its length in bytes.
  public var count: Int {
    withUnsafePointer(to: raw) { zmq_msg_size($0) }
  }

  /// Whether the frame is empty.
  public var isEmpty: Bool { count == 0 }

  /// Whether more frames of the same multipart message follow this received one.
  public var hasMore: Bool {
    withUnsafePointer(to: raw) { zmq_msg_more($0) != 0 }
  }

  /// Lends the bytes to `body`. The span and pointers into it must not leave the closure.
  public borrowing func withBytes<Result: ~Copyable, Failure: Error>(
    _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try withUnsafeBytes { buffer throws(Failure) in try body(buffer.bytes) }
  }

  /// Lends the bytes to `body`. The pointer must not leave the closure.
  public borrowing func withUnsafeBytes<Result: ~Copyable, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try withUnsafePointer(to: raw) { pointer throws(Failure) in
      let bytes = zmq_msg_data(UnsafeMutablePointer(mutating: pointer))
      return try body(UnsafeRawBufferPointer(start: bytes, count: zmq_msg_size(pointer)))
    }
  }

  /// A copy of the bytes.
  public borrowing func copyBytes() -> [UInt8] {
    withUnsafeBytes { [UInt8]($0) }
  }

  /// What libzmq knows of the sender of a received frame: `"Peer-Address"`, `"Socket-Type"`, `"User-Id"` (given by
  /// a ZAP handler), or a property of the peer's handshake. Nil if it knows nothing of that name.
  public borrowing func metadata(_ property: String) -> String? {
    withUnsafePointer(to: raw) { pointer in
      zmq_msg_gets(pointer, property).map { String(cString: $0) }
    }
  }

  /// Makes it an empty frame again and gives its memory back.
  public mutating func clear() {
    zmq_msg_close(&raw)
    zmq_msg_init(&raw)
  }
}

@available(*, unavailable)
extension Message: Sendable {}

/// Room for the frames of one multipart message, to be used again for the next one.
///
/// Its size is fixed: a hostile message with thousands of frames fills no more than `maxFrames` of them.
public struct Multipart: ~Copyable {
  /// How many frames fit.
  public let maxFrames: Int
  /// How many frames the last received message left here.
  public private(set) var count = 0

  private let frames: UnsafeMutablePointer<Message>

  /// Room for messages of up to `maxFrames` frames (at least 1).
  public init(maxFrames: Int) {
    precondition(maxFrames > 0, "Room for \(maxFrames) frames")
    self.maxFrames = maxFrames
    frames = .allocate(capacity: maxFrames)
    for index in 0..<maxFrames { (frames + index).initialize(to: Message()) }
  }

  deinit {
    frames.deinitialize(count: maxFrames)
    frames.deallocate()
  }

  /// The frame at `index`, 0 ..< `count`.
  public subscript(index: Int) -> Message {
    _read {
      precondition(index >= 0 && index < count, "Frame \(index) of \(count)")
      yield frames[index]
    }
    _modify {
      precondition(index >= 0 && index < count, "Frame \(index) of \(count)")
      yield &frames[index]
    }
  }

  /// Copies of all frames; for tests and tools.
  public borrowing func copyFrames() -> [[UInt8]] {
    (0..<count).map { frames[$0].copyBytes() }
  }

  /// Gives the memory of the frames back.
  public mutating func removeAll() {
    for index in 0..<count { frames[index].clear() }
    count = 0
  }

  /// Makes the next free place one of the frames and lends it to `body`; nil if all places are taken.
  mutating func append<Failure: Error>(
    _ body: (inout Message) throws(Failure) -> ReceiveResult
  ) throws(Failure) -> ReceiveResult? {
    guard count < maxFrames else { return nil }
    let result = try body(&frames[count])
    if result == .received { count += 1 }
    return result
  }

  /// Whether the message goes on after the last frame here.
  var hasMore: Bool { count > 0 && frames[count - 1].hasMore }
}

@available(*, unavailable)
extension Multipart: Sendable {}
