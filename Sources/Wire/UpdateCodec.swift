// Updates of watched timelines: a header, and a body with the posts. A post is encoded once, as an entry of such a body; a body is
// entries one after the other, so it can be put together from bytes. As protobuf it is a TimelinePage with nothing but posts.

import Model

extension Wire {
  /// The bytes of a post alone.
  public static func encode(_ post: Post) -> [UInt8] { serialize(Tinysns_Post(post)) }

  /// The bytes of a post as an entry of an update's body. Never empty, because a post's id is never 0.
  public static func encodeUpdateEntry(_ post: Post) -> [UInt8] {
    var page = Tinysns_TimelinePage()
    page.posts = [Tinysns_Post(post)]
    return serialize(page)
  }

  /// The header of an update, as a frame of its own.
  public static func encodeUpdateHeader(topic: Topic, sequence: UInt64) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: updateHeaderBytes) { buffer, count in
      writeUpdateHeader(topic: topic, sequence: sequence, to: UnsafeMutableRawBufferPointer(buffer))
      count = updateHeaderBytes
    }
  }

  /// An update in one frame: header and body.
  public static func encode(_ update: Update) -> [UInt8] {
    let header = encodeUpdateHeader(topic: update.topic, sequence: update.sequence)
    return update.posts.reduce(into: header) { $0 += encodeUpdateEntry($1) }
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
      header: frame.extracting(first: updateHeaderBytes), body: frame.extracting(droppingFirst: updateHeaderBytes))
  }

  /// Reads an update that came in one frame.
  public static func decodeUpdate(_ frame: [UInt8]) throws(WireError) -> Update { try decodeUpdate(frame.span.bytes) }

  /// Reads an update that came in two frames.
  public static func decodeUpdate(header: RawSpan, body: RawSpan) throws(WireError) -> Update {
    guard header.byteCount == updateHeaderBytes else { throw .malformed }
    let (topic, sequence) = try updateHeader(in: header)
    guard !body.isEmpty else { return Update(topic: topic, sequence: sequence, posts: []) }
    let page = try parse(body, as: Tinysns_TimelinePage.self, limit: FrameLimit.message)
    guard !page.posts.isEmpty else { throw .malformed }
    try check(page.posts.count, atMost: Limits.postsInUpdate, .posts)
    _ = try counter(sequence + UInt64(page.posts.count), .sequence)
    return Update(topic: topic, sequence: sequence, posts: try page.posts.map(Post.init(_:)))
  }

  /// Reads an update that came in two frames.
  public static func decodeUpdate(header: [UInt8], body: [UInt8]) throws(WireError) -> Update {
    try decodeUpdate(header: header.span.bytes, body: body.span.bytes)
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
