// Bytes that nobody should send: refused with the right error, never a crash.

import Model
import Testing
import Wire

@testable import Fuzzing

@Suite struct MalformedTests {
  // MARK: Whatever the bytes

  @Test(arguments: Codec.all) func cutShortAtEachByte(codec: Codec) {
    var generator = MessageGenerator(seed: 5)
    for _ in 0..<40 {
      let (bytes, _) = codec.roundTrip(&generator)
      for count in 0..<bytes.count { expectStableOrError(Array(bytes[..<count]), codec) }
    }
  }

  /// 100,000 messages with random bytes changed, inserted, removed or repeated.
  @Test(arguments: Codec.all) func mutated(codec: Codec) {
    var generator = MessageGenerator(seed: 6)
    for _ in 0..<100_000 / Codec.all.count + 1 {
      var (bytes, _) = codec.roundTrip(&generator)
      for _ in 0...generator.below(4) { mutate(&bytes, with: &generator) }
      expectStableOrError(bytes, codec)
    }
  }

  @Test(arguments: Codec.all) func noise(codec: Codec) {
    var generator = MessageGenerator(seed: 7)
    for _ in 0..<5_000 { expectStableOrError(generator.list(60) { UInt8($0.below(256)) }, codec) }
  }

  /// A decoder's message must satisfy its encoder, and decode to itself.
  private func expectStableOrError(_ bytes: [UInt8], _ codec: Codec) {
    do {
      if try !codec.isStable(bytes) { Issue.record("not stable: \(hex(bytes))") }
    } catch {
      if error.explanation.isEmpty { Issue.record("no explanation of \(error)") }
    }
  }

  private func mutate(_ bytes: inout [UInt8], with generator: inout MessageGenerator) {
    guard !bytes.isEmpty else { return bytes.append(UInt8(generator.below(256))) }
    // Mostly near the start, where tags and lengths are.
    let index = generator.below(min(bytes.count, generator.flag() ? 12 : bytes.count))
    switch generator.below(5) {
    case 0: bytes[index] ^= 1 << UInt8(generator.below(8))
    case 1: bytes[index] = [0, 0x7f, 0x80, 0xff, UInt8(generator.below(256))][generator.below(5)]
    case 2: bytes.insert(UInt8(generator.below(256)), at: index)
    case 3: bytes.remove(at: index)
    default: bytes.insert(contentsOf: bytes[index...].prefix(1 + generator.below(40)), at: index)
    }
  }

  // MARK: Sizes

  @Test(arguments: Codec.all) func tooLargeIsNotLookedAt(codec: Codec) {
    // Zeros are no protobuf: an error other than `tooLarge` would tell that they were decoded.
    let bytes = [UInt8](repeating: 0, count: codec.limit + 1)
    #expect(throws: WireError.tooLarge(limit: codec.limit)) { try codec.isStable(bytes) }
  }

  @Test func exactlyTheLimitIsDecoded() throws {
    let overhead = 5
    let text = String(repeating: "x", count: Limits.requestBytes - overhead)
    let request = Request(number: 1, body: .post(text: text))
    #expect(Wire.encode(request).count == Limits.requestBytes)
    #expect(try Wire.decodeRequest(Wire.encode(request)) == request)
  }

  // MARK: Kinds and growth

  @Test func unknownFieldsAreIgnored() throws {
    let unknown = field(100, 5) + field(101, "from a later version")
    #expect(
      try Wire.decodeRequest(unknown + field(1, 9) + unknown + field(3, "hi") + unknown)
        == Request(number: 9, body: .post(text: "hi")))
    let post = field(1, 4) + unknown
    #expect(
      try Wire.decodeReply(field(1, 9) + field(5, field(1, post)))
        == Reply(
          number: 9,
          body: .page(
            TimelinePage(
              posts: [Post(id: EventID(4), author: "", text: "", time: .zero)], upTo: .zero, more: false))))
  }

  @Test func unknownKinds() {
    let unknown = field(1, 9) + field(99, field(1, 1))
    #expect(throws: WireError.unknownKind) { try Wire.decodeRequest(unknown) }
    #expect(throws: WireError.unknownKind) { try Wire.decodeReply(unknown) }
    let later = field(99, field(1, 1))
    #expect(throws: WireError.unknownKind) { try Wire.decodeRouterRequest(later) }
    #expect(throws: WireError.unknownKind) { try Wire.decodeRouterReply(later) }
    #expect(throws: WireError.unknownKind) { try Wire.decodeSupervisorRequest(later) }
    #expect(throws: WireError.unknownKind) { try Wire.decodeSupervisorReply(later) }
    #expect(throws: WireError.unknownKind) { try Wire.decodeLogBatch(field(1, 1) + field(2, later)) }
    #expect(throws: WireError.unknownKind) { try Wire.decodeRequest(field(1, 9) + field(8, later)) }
    #expect(throws: WireError.unknownKind) { try Wire.decodeRequest([UInt8]()) }
    #expect(throws: WireError.outOfRange(.kind)) { try Wire.decodeRequest(field(1, 9) + field(6, field(1, 3))) }
    #expect(throws: WireError.outOfRange(.state)) {
      try Wire.decodeRouterReply(field(3, field(3, field(1, []) + field(3, 4))))
    }
    #expect(throws: WireError.outOfRange(.state)) {
      try Wire.decodeSupervisorReply(field(2, field(4, field(3, 5))))
    }
  }

  @Test func aNewerRefusalStillAnswers() throws {
    let refusal = field(1, 4_000) + field(2, "later") + field(3, 70)
    #expect(
      try Wire.decodeReply(field(1, 9) + field(9, refusal))
        == Reply(number: 9, body: .refused(Refusal(.invalid, "later", retryAfter: 70))))
    #expect(throws: WireError.outOfRange(.code)) { try Wire.decodeReply(field(1, 9) + field(9, field(2, "none"))) }
  }

  // MARK: Values

  @Test(
    arguments: [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0x61, 0xe2, 0x82]] as [[UInt8]])
  func textThatIsNotUTF8(text: [UInt8]) {
    #expect(throws: WireError.badText) { try Wire.decodeRequest(field(1, 1) + field(3, text)) }
    #expect(throws: WireError.badText) { try Wire.decodePost(field(1, 1) + field(2, text)) }
    #expect(throws: WireError.badText) { try Wire.decodeLogBatch(field(1, 1) + field(2, field(5, text))) }
  }

  @Test func requestNumbers() throws {
    let ping = field(10, [])
    #expect(throws: WireError.outOfRange(.number)) { try Wire.decodeRequest(ping) }
    #expect(throws: WireError.outOfRange(.number)) { try Wire.decodeRequest(field(1, 1 << 63) + ping) }
    #expect(throws: WireError.outOfRange(.number)) { try Wire.decodeRequest(field(1, .max) + ping) }
    #expect(try Wire.decodeRequest(field(1, 1 << 63 - 1) + ping).number == UInt64(Int64.max))
  }

  @Test func positions() {
    let tooFar: UInt64 = 1 << 63
    let error = WireError.outOfRange(.eventID)
    #expect(throws: error) { try Wire.decodeRequest(field(1, 1) + field(2, field(5, tooFar))) }
    let query = field(1, field(1, []))
    #expect(throws: error) { try Wire.decodeRequest(field(1, 1) + field(7, query + field(3, tooFar))) }
    #expect(throws: error) { try Wire.decodeRequest(field(1, 1) + field(7, query + field(4, tooFar))) }
    #expect(throws: error) { try Wire.decodeReply(field(1, 1) + field(3, tooFar)) }
    #expect(throws: error) { try Wire.decodeReply(field(1, 1) + field(3, 0)) }
    #expect(throws: error) { try Wire.decodePost(field(2, "alice")) }
  }

  @Test func acknowledgements() throws {
    func reply(_ numbers: [UInt64], _ events: [UInt64]) -> [UInt8] {
      field(11, field(1, numbers.flatMap(varint)) + field(2, events.flatMap(varint)))
    }
    let all = [Done(number: 7, event: EventID(300)), Done(number: 300, event: EventID(7))]
    let expected = Reply(number: 0, body: .doneEach(all))
    #expect(try Wire.decodeReply(reply([7, 300], [300, 7])) == expected)
    let loose = field(1, 7) + field(2, 300) + field(1, 300) + field(2, 7)
    #expect(try Wire.decodeReply(field(11, loose)) == expected, "numbers may be fields of their own")
    let error = WireError.outOfRange(.events)
    for (numbers, events) in [([7, 8], [1]), ([7], [1, 2]), ([], [1]), ([7], [])] as [([UInt64], [UInt64])] {
      #expect(throws: error) { try Wire.decodeReply(reply(numbers, events)) }
    }
    #expect(throws: WireError.missing(.events)) { try Wire.decodeReply(reply([], [])) }
    #expect(throws: WireError.missing(.events)) { try Wire.decodeReply(field(11, [])) }
    let many = [UInt64](1...UInt64(Limits.acknowledgedTogether + 1))
    #expect(throws: error) { try Wire.decodeReply(reply(many, many)) }
    #expect(throws: WireError.outOfRange(.number)) { try Wire.decodeReply(reply([7, 1 << 63], [1, 2])) }
    #expect(throws: WireError.outOfRange(.eventID)) { try Wire.decodeReply(reply([7, 8], [1, 0])) }
    #expect(throws: WireError.outOfRange(.eventID)) { try Wire.decodeReply(reply([7, 8], [1 << 63, 2])) }
    #expect(throws: WireError.malformed) { try Wire.decodeReply(field(11, field(1, [0x80]) + field(2, [1]))) }
  }

  @Test func batches() {
    let event = field(2, field(7, 1))
    #expect(throws: WireError.missing(.events)) { try Wire.decodeLogBatch(field(1, 1)) }
    #expect(throws: WireError.outOfRange(.eventID)) { try Wire.decodeLogBatch(event) }
    #expect(throws: WireError.outOfRange(.eventID)) { try Wire.decodeLogBatch(field(1, 1 << 63 - 1) + event + event) }
    #expect(throws: WireError.outOfRange(.eventID)) { try Wire.decodeLogBatch(field(1, .max) + event) }
    #expect(throws: WireError.outOfRange(.number)) {
      try Wire.decodeLogBatch(field(1, 1) + field(2, field(3, .max) + field(7, 1)))
    }
  }

  /// Columns of posts, packed: with one post of the text "ab", but for what is said.
  private func posts(
    steps: [UInt8] = [0], clients: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0], numbers: [UInt8] = [1], accounts: [UInt8] = [0],
    lengths: [UInt8] = [2], texts: [UInt8] = [0x61, 0x62]
  ) -> [UInt8] {
    let columns = field(1, steps) + field(2, clients) + field(3, numbers) + field(4, accounts)
    return field(4, columns + field(5, lengths) + field(6, texts))
  }

  @Test func columnsOfPosts() throws {
    let first = field(1, 1)
    let other = field(5, field(7, 1))
    let post = try Wire.decodeLogBatch(first + posts()).events
    #expect(post.map(\.change) == [.posted(AccountID(0), text: "ab")])
    #expect(post[0].request == RequestID(client: ClientID(1), number: 1))
    #expect(try Wire.decodeLogBatch(first + posts(numbers: [0])).events[0].request == nil)
    let mixed = try Wire.decodeLogBatch(first + other + field(3, [1]) + posts()).events
    #expect(mixed.map(\.change) == [.posted(AccountID(0), text: "ab"), .followed(AccountID(0), AccountID(1))])

    // Columns of unequal lengths, texts that are too short or too long or end within a character.
    for bad in [
      posts(steps: []), posts(clients: []), posts(numbers: [1, 2]), posts(accounts: [0, 0]), posts(lengths: []),
      posts(lengths: [3]), posts(lengths: [1]), posts(lengths: [0]), posts(texts: []),
    ] {
      #expect(throws: WireError.outOfRange(.posts)) { try Wire.decodeLogBatch(first + bad) }
    }
    let split = posts(
      steps: [0, 0], clients: [UInt8](repeating: 0, count: 16), numbers: [0, 0], accounts: [0, 0], lengths: [1, 1],
      texts: [0xc3, 0xbc])
    #expect(throws: WireError.badText) { try Wire.decodeLogBatch(first + split) }
    #expect(throws: WireError.outOfRange(.number)) {
      try Wire.decodeLogBatch(first + posts(numbers: [UInt8](repeating: 0xff, count: 9) + [1]))
    }
    // Places that are missing, twice, beyond the end, or not needed.
    for places in [[], [0, 1], [2], [0xff, 0xff, 0xff, 0xff, 0x0f]] as [[UInt8]] {
      let bytes = first + other + field(3, places) + posts()
      #expect(throws: WireError.outOfRange(.events)) { try Wire.decodeLogBatch(bytes) }
    }
    #expect(throws: WireError.outOfRange(.events)) {
      try Wire.decodeLogBatch(first + other + other + field(3, [1, 1]) + posts())
    }
    #expect(throws: WireError.outOfRange(.events)) {
      try Wire.decodeLogBatch(first + other + other + field(3, [1, 0]) + posts())
    }
    #expect(throws: WireError.outOfRange(.events)) { try Wire.decodeLogBatch(first + other + field(3, [0])) }
    let event = field(2, field(7, 1))
    #expect(throws: WireError.outOfRange(.events)) { try Wire.decodeLogBatch(first + event + field(3, [0])) }
    #expect(throws: WireError.outOfRange(.events)) { try Wire.decodeLogBatch(first + event + other) }
    // A reader who knows no columns must not take the rest for all.
    #expect(throws: WireError.outOfRange(.events)) { try Wire.decodeLogBatch(first + event + posts()) }
  }

  @Test func topicsHaveSixteenBytes() {
    for count in [0, 15, 17] {
      let topic = [UInt8](repeating: 1, count: count)
      #expect(throws: WireError.outOfRange(.topic)) { try Wire.decodeRequest(field(1, 1) + field(9, topic)) }
      #expect(throws: WireError.outOfRange(.topic)) { try Wire.decodeReply(field(1, 1) + field(6, field(1, topic))) }
    }
  }

  @Test(arguments: [0, -1, .min] as [Int32]) func aBeatNamesOneProcess(pid: Int32) {
    let beat = field(1, "master-1") + field(2, UInt64(bitPattern: Int64(pid)))
    #expect(throws: WireError.outOfRange(.pid)) { try Wire.decodeSupervisorRequest(field(1, beat)) }
  }

  @Test func whatMustBeThere() {
    #expect(throws: WireError.missing(.master)) { try Wire.decodeReply(field(1, 1) + field(2, [])) }
    #expect(throws: WireError.missing(.timeline)) { try Wire.decodeRequest(field(1, 1) + field(7, [])) }
    #expect(throws: WireError.missing(.range)) {
      try Wire.decodeRequest(field(1, 1) + field(7, field(1, field(1, []))))
    }
    #expect(throws: WireError.missing(.master)) { try Wire.decodeRouterRequest(field(3, [])) }
    #expect(throws: WireError.missing(.beat)) { try Wire.decodeRouterRequest(field(3, field(1, []))) }
    #expect(throws: WireError.missing(.master)) { try Wire.decodeRouterRequest(field(4, [])) }
    #expect(throws: WireError.missing(.master)) { try Wire.decodeRouterRequest(field(6, [])) }
    #expect(throws: WireError.missing(.master)) { try Wire.decodeRouterReply(field(1, [])) }
    #expect(throws: WireError.missing(.refusal)) { try Wire.decodeRouterReply(field(7, [])) }
    #expect(throws: WireError.missing(.master)) { try Wire.decodeRouterReply(field(4, field(4, []))) }
  }

  // MARK: Nesting

  @Test func deepNesting() {
    let groupStart: UInt8 = 15 << 3 | 3
    let groups = [UInt8](repeating: groupStart, count: Limits.messageBytes)
    #expect(throws: WireError.malformed) { try Wire.decodeReply(groups) }
    #expect(throws: WireError.malformed) { try Wire.decodeLogBatch(field(2, Array(groups.prefix(1 << 20)))) }
    #expect(throws: WireError.malformed) { try Wire.decodeRequest(Array(groups.prefix(Limits.requestBytes))) }
  }

  // MARK: A refused request's number

  @Test func theNumberOfARefusedRequest() {
    #expect(Wire.requestNumber(in: (field(1, 9) + field(99, 1)).span.bytes) == 9)
    #expect(Wire.requestNumber(in: (field(1, 9) + field(3, [0xff])).span.bytes) == 9)
    #expect(Wire.requestNumber(in: (field(1, .max) + field(3, "x")).span.bytes) == 0)
    #expect(Wire.requestNumber(in: [0xff].span.bytes) == 0)
    #expect(Wire.requestNumber(in: [UInt8](repeating: 8, count: Limits.requestBytes + 1).span.bytes) == 0)
  }
}
