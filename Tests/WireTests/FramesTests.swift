// The frames that are not protobuf alone: updates and subscriptions.

import Model
import Testing
import Wire

@Suite struct FramesTests {
  let topic = Topic(high: 0x0001_0203_0405_0607, low: 0x0809_0a0b_0c0d_0e0f)
  let post = Post(id: EventID(7), author: "alice", text: "hello", time: Timestamp(milliseconds: 1))

  @Test func anUpdateInOneFrame() throws {
    let later = Post(id: EventID(9), author: "bob", text: "hello, alice", time: Timestamp(milliseconds: 2))
    let update = Update(topic: topic, sequence: 3, posts: [post, later])
    #expect(try Wire.decodeUpdate(Wire.encode(update)) == update)
    #expect(
      Wire.encode(update) == Wire.encodeUpdateHeader(topic: topic, sequence: 3) + Wire.encodeUpdateEntry(post)
        + Wire.encodeUpdateEntry(later))
    let marker = Update(topic: topic, sequence: 3, posts: [])
    #expect(try Wire.decodeUpdate(Wire.encode(marker)) == marker)
  }

  @Test func anUpdateInTwoFrames() throws {
    let header = Wire.encodeUpdateHeader(topic: topic, sequence: 3)
    let entry = Wire.encodeUpdateEntry(post)
    #expect(
      try Wire.decodeUpdate(header: header, body: entry) == Update(topic: topic, sequence: 3, posts: [post]))
    #expect(try Wire.decodeUpdate(header: header, body: []) == Update(topic: topic, sequence: 3, posts: []))
    #expect(throws: WireError.malformed) { try Wire.decodeUpdate(header: header + [0], body: []) }
    #expect(throws: WireError.malformed) { try Wire.decodeUpdate(header: [], body: []) }
  }

  @Test("a body has posts, and no more than fit")
  func bodies() throws {
    let header = Wire.encodeUpdateHeader(topic: topic, sequence: 3)
    let entry = Wire.encodeUpdateEntry(post)
    // Field 2 of the page, which a body has no use for.
    #expect(throws: WireError.malformed) { try Wire.decodeUpdate(header: header, body: [0x10, 1]) }
    let full = Array(repeating: entry, count: Limits.postsInUpdate).flatMap { $0 }
    #expect(try Wire.decodeUpdate(header: header, body: full).posts.count == Limits.postsInUpdate)
    #expect(throws: WireError.outOfRange(.posts)) { try Wire.decodeUpdate(header: header, body: full + entry) }
  }

  @Test func aShortUpdateIsMalformed() {
    let header = Wire.encodeUpdateHeader(topic: topic, sequence: 3)
    for count in 0..<header.count {
      #expect(throws: WireError.malformed) { try Wire.decodeUpdate(Array(header[..<count])) }
    }
  }

  @Test func anUpdatesSequenceIsACounter() {
    #expect(throws: WireError.outOfRange(.sequence)) {
      try Wire.decodeUpdate(Wire.encodeUpdateHeader(topic: topic, sequence: 1 << 63))
    }
  }

  @Test func subscriptions() throws {
    for subscribe in [true, false] {
      let decoded = try #require(Wire.decodeSubscription(Wire.encodeSubscription(subscribe, topic: topic)))
      #expect(decoded == (subscribe, topic))
    }
    #expect(Wire.encodeSubscription(true, topic: topic).dropFirst() == Wire.encode(topic)[...])
    for other: [UInt8] in [[], [1], [1] + Array(repeating: 0, count: 15), [0] + Array(repeating: 0, count: 17)] {
      #expect(Wire.decodeSubscription(other) == nil)
    }
    #expect(Wire.decodeSubscription([2] + Array(repeating: 0, count: 16)) == nil)
  }
}
