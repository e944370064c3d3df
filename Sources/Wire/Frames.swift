// The layout of ZeroMQ frames, link by link, and what a frame may weigh. PROTOCOL.md tells the same to others.
//
//   link                              frames (a ROUTER's identity frame not counted)     limit of a frame
//   client -> master, anyone -> router  one: protobuf                                    Limits.requestBytes
//   master -> client, router -> anyone  one: protobuf                                    Limits.messageBytes
//   master -> master                    one: protobuf                                    Limits.messageBytes
//   child <-> supervisor                one: protobuf                                    Limits.messageBytes
//   master -> watchers (XPUB)           two: a header and a body                          Limits.messageBytes
//   watcher -> master (XPUB's reading)  one: 1 or 0, and the topic                       17 bytes
//
// An update's header is the topic (16 bytes: high half, low half) and the sequence number (8 bytes), big-endian all. It
// comes first because ZeroMQ compares subscriptions with a message's first bytes. The body is protobuf, the posts; or
// nothing: then the update is a marker.

import Model
internal import SwiftProtobuf

/// What a frame may weigh, in bytes.
enum FrameLimit {
  /// What anyone may send to a master or to the router.
  static let request = Limits.requestBytes
  /// What the cluster's processes say.
  static let message = Limits.messageBytes
}

extension Wire {
  /// The size of an update's header: the topic and the sequence number.
  public static let updateHeaderBytes = Topic.byteCount + 8
  /// The size of an XPUB's message about a subscription: one byte and the topic.
  public static let subscriptionBytes = 1 + Topic.byteCount

  /// Writes an update's header to the first `updateHeaderBytes` bytes of `buffer`, which must have room.
  @inlinable public static func writeUpdateHeader(
    topic: Topic, sequence: UInt64, to buffer: UnsafeMutableRawBufferPointer
  ) {
    write(topic, to: buffer)
    buffer.storeBytes(of: sequence.bigEndian, toByteOffset: Topic.byteCount, as: UInt64.self)
  }

  /// Writes a topic to the first `Topic.byteCount` bytes of `buffer`, which must have room.
  @inlinable public static func write(_ topic: Topic, to buffer: UnsafeMutableRawBufferPointer) {
    buffer.storeBytes(of: topic.high.bigEndian, toByteOffset: 0, as: UInt64.self)
    buffer.storeBytes(of: topic.low.bigEndian, toByteOffset: 8, as: UInt64.self)
  }

  /// A topic's bytes: what a SUB socket subscribes to.
  public static func encode(_ topic: Topic) -> [UInt8] { topicBytes(topic) }

  /// The message that an XPUB receives when somebody subscribes to `topic`, or no longer does.
  public static func encodeSubscription(_ subscribe: Bool, topic: Topic) -> [UInt8] {
    [subscribe ? 1 : 0] + encode(topic)
  }

  /// Reads a message that an XPUB received; nil if it is not about a topic.
  public static func decodeSubscription(_ frame: RawSpan) -> (subscribe: Bool, topic: Topic)? {
    guard frame.byteCount == subscriptionBytes else { return nil }
    let first = frame.unsafeLoad(as: UInt8.self)
    guard first <= 1 else { return nil }
    return (first == 1, topic(at: 1, in: frame))
  }

  /// Reads a message that an XPUB received; nil if it is not about a topic.
  public static func decodeSubscription(_ frame: [UInt8]) -> (subscribe: Bool, topic: Topic)? {
    decodeSubscription(frame.span.bytes)
  }

  /// The topic and sequence number of an update's header; the caller has checked the size.
  static func updateHeader(in bytes: RawSpan) throws(WireError) -> (topic: Topic, sequence: UInt64) {
    let sequence = bigEndian(at: Topic.byteCount, in: bytes)
    return (topic(at: 0, in: bytes), try counter(sequence, .sequence))
  }

  private static func topic(at offset: Int, in bytes: RawSpan) -> Topic {
    Topic(high: bigEndian(at: offset, in: bytes), low: bigEndian(at: offset + 8, in: bytes))
  }

  private static func bigEndian(at offset: Int, in bytes: RawSpan) -> UInt64 {
    UInt64(bigEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
}

// Generic, so that Foundation's Data, in which swift-protobuf keeps bytes, need not be named.

/// These bytes as a protobuf field's.
func fieldBytes<Bytes: SwiftProtobufContiguousBytes>(_ source: [UInt8]) -> Bytes {
  var bytes = Bytes(repeating: 0, count: source.count)
  bytes.withUnsafeMutableBytes { $0.copyBytes(from: source) }
  return bytes
}

/// A topic as a protobuf field's bytes.
func topicBytes<Bytes: SwiftProtobufContiguousBytes>(_ topic: Topic) -> Bytes {
  var bytes = Bytes(repeating: 0, count: Topic.byteCount)
  bytes.withUnsafeMutableBytes { Wire.write(topic, to: $0) }
  return bytes
}

/// The topic that a protobuf field holds.
func decodeTopic<Bytes: SwiftProtobufContiguousBytes>(_ bytes: Bytes) throws(WireError) -> Topic {
  guard bytes.count == Topic.byteCount else { throw .outOfRange(.topic) }
  return bytes.withUnsafeBytes { buffer in
    Topic(
      high: UInt64(bigEndian: buffer.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
      low: UInt64(bigEndian: buffer.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
  }
}
