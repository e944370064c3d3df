// The frames that are not protobuf alone: updates and subscriptions.

import Model
import Testing
import Wire

@Suite struct FramesTests {
  let topic = Topic(high: 0x0001_0203_0405_0607, low: 0x0809_0a0b_0c0d_0e0f)
  let post = Post(id: EventID(7), author: "alice", text: "hello", time: Timestamp(milliseconds: 1))

  @Test func anUpdateInOneFrame() throws {
    let update = Update(topic: topic, sequence: 3, post: post)
    #expect(try Wire.decodeUpdate(Wire.encode(update)) == update)
    #expect(Wire.encode(update) == Wire.encodeUpdateHeader(topic: topic, sequence: 3) + Wire.encode(post))
    let marker = Update(topic: topic, sequence: 3, post: nil)
    #expect(try Wire.decodeUpdate(Wire.encode(marker)) == marker)
  }

  @Test func anUpdateInTwoFrames() throws {
    let header = Wire.encodeUpdateHeader(topic: topic, sequence: 3)
    #expect(
      try Wire.decodeUpdate(header: header, post: Wire.encode(post)) == Update(topic: topic, sequence: 3, post: post))
    #expect(try Wire.decodeUpdate(header: header, post: []) == Update(topic: topic, sequence: 3, post: nil))
    #expect(throws: WireError.malformed) { try Wire.decodeUpdate(header: header + [0], post: []) }
    #expect(throws: WireError.malformed) { try Wire.decodeUpdate(header: [], post: []) }
  }

  @Test func writingIntoABufferWritesNoMore() {
    let bytes = Wire.encode(post)
    let size = Wire.updateHeaderBytes + bytes.count
    var buffer = [UInt8](repeating: 0xee, count: size + 1)
    buffer.withUnsafeMutableBytes { Wire.writeUpdate(topic: topic, sequence: 3, post: bytes.span.bytes, to: $0) }
    #expect(Array(buffer[..<size]) == Wire.encode(Update(topic: topic, sequence: 3, post: post)))
    #expect(buffer[size] == 0xee)

    var header = [UInt8](repeating: 0xee, count: Wire.updateHeaderBytes)
    header.withUnsafeMutableBytes { Wire.writeUpdate(topic: topic, sequence: 3, post: [UInt8]().span.bytes, to: $0) }
    #expect(header == Wire.encodeUpdateHeader(topic: topic, sequence: 3))
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
