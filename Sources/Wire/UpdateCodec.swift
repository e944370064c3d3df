// Updates of watched timelines: a post is encoded once, and goes out behind the header of every topic it belongs to.

import Model

extension Wire {
  /// The bytes of a post, as they follow an update's header. Never empty, because a post's id is never 0.
  public static func encode(_ post: Post) -> [UInt8] { serialize(Tinysns_Post(post)) }

  /// The header of an update, as a frame of its own.
  public static func encodeUpdateHeader(topic: Topic, sequence: UInt64) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: updateHeaderBytes) { buffer, count in
      writeUpdateHeader(topic: topic, sequence: sequence, to: UnsafeMutableRawBufferPointer(buffer))
      count = updateHeaderBytes
    }
  }

  /// An update in one frame: header and post.
  public static func encode(_ update: Update) -> [UInt8] {
    let header = encodeUpdateHeader(topic: update.topic, sequence: update.sequence)
    return update.post.map { header + encode($0) } ?? header
  }

  /// An update in one frame, of a post's bytes that `encode` made; none for a marker. Writes to the first
  /// `updateHeaderBytes + post.byteCount` bytes of `buffer`, which must have room.
  public static func writeUpdate(
    topic: Topic, sequence: UInt64, post: RawSpan, to buffer: UnsafeMutableRawBufferPointer
  ) {
    writeUpdateHeader(topic: topic, sequence: sequence, to: buffer)
    let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[updateHeaderBytes...])
    post.withUnsafeBytes { rest.copyMemory(from: $0) }
  }

  /// Reads the bytes of a post.
  public static func decodePost(_ bytes: RawSpan) throws(WireError) -> Post {
    try Post(parse(bytes, as: Tinysns_Post.self, limit: FrameLimit.message))
  }

  /// Reads the bytes of a post.
  public static func decodePost(_ bytes: [UInt8]) throws(WireError) -> Post { try decodePost(bytes.span.bytes) }

  /// Reads an update that came in one frame.
  public static func decodeUpdate(_ frame: RawSpan) throws(WireError) -> Update {
    guard frame.byteCount <= FrameLimit.message else { throw .tooLarge(limit: FrameLimit.message) }
    guard frame.byteCount >= updateHeaderBytes else { throw .malformed }
    return try decodeUpdate(
      header: frame.extracting(first: updateHeaderBytes), post: frame.extracting(droppingFirst: updateHeaderBytes))
  }

  /// Reads an update that came in one frame.
  public static func decodeUpdate(_ frame: [UInt8]) throws(WireError) -> Update { try decodeUpdate(frame.span.bytes) }

  /// Reads an update that came in two frames.
  public static func decodeUpdate(header: RawSpan, post: RawSpan) throws(WireError) -> Update {
    guard header.byteCount == updateHeaderBytes else { throw .malformed }
    let (topic, sequence) = try updateHeader(in: header)
    return Update(topic: topic, sequence: sequence, post: post.isEmpty ? nil : try decodePost(post))
  }

  /// Reads an update that came in two frames.
  public static func decodeUpdate(header: [UInt8], post: [UInt8]) throws(WireError) -> Update {
    try decodeUpdate(header: header.span.bytes, post: post.span.bytes)
  }
}

extension Tinysns_Post {
  init(_ post: Post) {
    self.init()
    id = post.id.rawValue
    author = post.author
    text = post.text
    timeMs = post.time.milliseconds
  }
}

extension Post {
  init(_ wire: Tinysns_Post) throws(WireError) {
    self.init(
      id: try eventID(wire.id), author: wire.author, text: wire.text, time: Timestamp(milliseconds: wire.timeMs))
  }
}
