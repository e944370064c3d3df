// Messages byte by byte: PROTOCOL.md shows the same ones, and other programs rely on them. The protobuf bytes were made with
// `protoc --encode` from text, not with our own encoder.

import Model
import Testing
import Wire

@Suite struct GoldenTests {
  let master = MasterIdentity(name: "master-1", incarnation: Incarnation(1_750_000_000_000))
  let topic = Topic(high: 0x0011_2233_4455_6677, low: 0x8899_aabb_ccdd_eeff)
  let post = Post(id: EventID(42), author: "alice", text: "Grüße!", time: Timestamp(milliseconds: 1_750_000_000_123))

  @Test func hello() {
    var hello = Hello(
      client: ClientID(0x0123_4567_89ab_cdef), user: "alice", register: true, newest: EventID(41),
      proof: .password(Password("correct horse")))
    #expect(
      hex(Wire.encode(Request(number: 1, body: .hello(hello)))) == """
        08 01 12 25 08 02 11 ef cd ab 89 67 45 23 01 1a 05 61 6c 69 63 65 20 01 28 29 32 0d 63 6f 72 72 \
        65 63 74 20 68 6f 72 73 65
        """)
    hello.register = false
    hello.proof = .token(SessionToken(bytes: [1, 2, 3]))
    #expect(
      hex(Wire.encode(Request(number: 1, body: .hello(hello)))) == """
        08 01 12 19 08 02 11 ef cd ab 89 67 45 23 01 1a 05 61 6c 69 63 65 28 29 3a 03 01 02 03
        """)
    hello.takesDoneEach = true
    #expect(
      hex(Wire.encode(Request(number: 1, body: .hello(hello)))) == """
        08 01 12 1b 08 02 11 ef cd ab 89 67 45 23 01 1a 05 61 6c 69 63 65 28 29 3a 03 01 02 03 40 01
        """)
  }

  @Test func newPasswordAndLogout() {
    let change = PasswordChange(old: Password("correct horse"), new: Password("battery staple"))
    #expect(
      hex(Wire.encode(Request(number: 7, body: .changePassword(change)))) == """
        08 07 62 1f 0a 0d 63 6f 72 72 65 63 74 20 68 6f 72 73 65 12 0e 62 61 74 74 65 72 79 20 73 74 61 \
        70 6c 65
        """)
    #expect(hex(Wire.encode(Request(number: 8, body: .logout(everywhere: true)))) == "08 08 6a 02 08 01")
  }

  @Test func welcome() {
    let welcome = Welcome(
      master: master, account: AccountID(0), isNew: true, head: EventID(41), token: SessionToken(bytes: [1, 2, 3]))
    #expect(
      hex(Wire.encode(Reply(number: 1, body: .welcome(welcome)))) == """
        08 01 12 1c 0a 11 0a 08 6d 61 73 74 65 72 2d 31 10 80 b8 83 a1 f7 32 18 01 20 29 2a 03 01 02 03
        """)
  }

  @Test func postAndDone() {
    #expect(hex(Wire.encode(Request(number: 2, body: .post(text: "Grüße!")))) == "08 02 1a 08 47 72 c3 bc c3 9f 65 21")
    #expect(hex(Wire.encode(Reply(number: 2, body: .done(EventID(42))))) == "08 02 18 2a")
    let all = [(2, 42), (3, 43), (5, 300)].map { Done(number: $0.0, event: EventID($0.1)) }
    #expect(hex(Wire.encode(Reply(number: 0, body: .doneEach(all)))) == "5a 0b 0a 03 02 03 05 12 04 2a 2b ac 02")
  }

  @Test func watchAndWatching() {
    #expect(hex(Wire.encode(Request(number: 3, body: .watch(.home)))) == "08 03 42 02 0a 00")
    #expect(
      hex(Wire.encode(Reply(number: 3, body: .watching(Watching(topic: topic, sequence: 7))))) == """
        08 03 32 14 0a 10 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 10 07
        """)
  }

  @Test func subscription() {
    #expect(hex(Wire.encodeSubscription(true, topic: topic)) == "01 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff")
  }

  @Test func updates() {
    #expect(
      hex(Wire.encodeUpdateHeader(topic: topic, sequence: 7)) == """
        00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 00 00 00 00 00 00 00 07
        """)
    #expect(
      hex(Wire.encodeUpdateEntry(post)) == """
        0a 1a 08 2a 12 05 61 6c 69 63 65 1a 08 47 72 c3 bc c3 9f 65 21 20 fb b8 83 a1 f7 32
        """)
  }

  @Test func timeline() {
    let query = TimelineQuery(timeline: .home, range: .after(EventID(40)), limit: 20)
    #expect(hex(Wire.encode(Request(number: 4, body: .timeline(query)))) == "08 04 3a 08 0a 02 0a 00 20 28 28 14")
    let page = TimelinePage(posts: [post], upTo: EventID(42), more: false)
    #expect(
      hex(Wire.encode(Reply(number: 4, body: .page(page)))) == """
        08 04 2a 1e 0a 1a 08 2a 12 05 61 6c 69 63 65 1a 08 47 72 c3 bc c3 9f 65 21 20 fb b8 83 a1 f7 32 \
        10 2a
        """)
  }

  @Test func pingAndPong() {
    #expect(hex(Wire.encode(Request(number: 5, body: .ping))) == "08 05 52 00")
    let pong = Pong(head: EventID(42), topics: [Watching(topic: topic, sequence: 8)])
    #expect(
      hex(Wire.encode(Reply(number: 5, body: .pong(pong)))) == """
        08 05 42 18 08 2a 12 14 0a 10 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 10 08
        """)
  }

  @Test func refused() {
    let refusal = Refusal(.limit, "too many requests", retryAfter: 200)
    #expect(
      hex(Wire.encode(Reply(number: 6, body: .refused(refusal)))) == """
        08 06 4a 18 08 07 12 11 74 6f 6f 20 6d 61 6e 79 20 72 65 71 75 65 73 74 73 18 c8 01
        """)
  }

  @Test func locateAndLocated() {
    #expect(
      hex(Wire.encode(RouterRequest.locate(Locate(number: 1, user: "alice", suspect: nil)))) == """
        0a 09 08 01 12 05 61 6c 69 63 65
        """)
    #expect(
      hex(Wire.encode(RouterRequest.locate(Locate(number: 2, user: "alice", suspect: master)))) == """
        0a 1c 08 02 12 05 61 6c 69 63 65 1a 11 0a 08 6d 61 73 74 65 72 2d 31 10 80 b8 83 a1 f7 32
        """)
    let contact = MasterContact(master: master, requests: "tcp://127.0.0.1:3020", timelines: "tcp://127.0.0.1:3021")
    #expect(
      hex(Wire.encode(RouterReply.located(number: 1, contact))) == """
        0a 41 08 01 12 11 0a 08 6d 61 73 74 65 72 2d 31 10 80 b8 83 a1 f7 32 1a 14 74 63 70 3a 2f 2f 31 \
        32 37 2e 30 2e 30 2e 31 3a 33 30 32 30 22 14 74 63 70 3a 2f 2f 31 32 37 2e 30 2e 30 2e 31 3a 33 \
        30 32 31
        """)
    #expect(hex(Wire.encode(RouterReply.unavailable(number: 2, retryAfter: 250))) == "12 05 08 02 10 fa 01")
  }

  @Test func logBatch() {
    let time = Timestamp(milliseconds: 1_750_000_000_123)
    let request = RequestID(client: ClientID(0x0123_4567_89ab_cdef), number: 2)
    let batch = LogBatch(events: [
      Event(id: EventID(41), time: time, request: nil, change: .accountCreated(AccountID(0), name: "alice")),
      Event(id: EventID(42), time: time, request: request, change: .posted(AccountID(0), text: "Grüße!")),
    ])
    #expect(
      hex(Wire.encode(batch)) == """
        08 29 1a 01 00 22 25 0a 06 f6 f1 86 c2 ee 65 12 08 ef cd ab 89 67 45 23 01 1a 01 02 22 01 00 2a \
        01 08 32 08 47 72 c3 bc c3 9f 65 21 2a 0e 08 fb b8 83 a1 f7 32 2a 05 61 6c 69 63 65
        """)
  }

  @Test func logBatchOfCredentials() {
    let time = Timestamp(milliseconds: 1_750_000_000_123)
    let token = TokenID(high: 0x0001_0203_0405_0607, low: 0x0809_0a0b_0c0d_0e0f)
    let expires = Timestamp(milliseconds: 1_750_000_009_999)
    let batch = LogBatch(events: [
      Event(
        id: EventID(41), time: time, request: nil,
        change: .credentialSet(AccountID(0), PasswordHash(phc: "$argon2id$x"))),
      Event(
        id: EventID(42), time: time, request: RequestID(client: ClientID(7), number: 9),
        change: .sessionRevoked(AccountID(0), token, expires: expires)),
      Event(id: EventID(43), time: time, request: nil, change: .sessionsRevoked(AccountID(0))),
    ])
    #expect(
      hex(Wire.encode(batch)) == """
        08 29 12 14 08 fb b8 83 a1 f7 32 4a 0b 24 61 72 67 6f 6e 32 69 64 24 78 12 2d 08 fb b8 83 a1 f7 \
        32 11 07 00 00 00 00 00 00 00 18 09 52 19 0a 10 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f \
        10 8f 86 84 a1 f7 32 12 09 08 fb b8 83 a1 f7 32 5a 00
        """)
  }
}
