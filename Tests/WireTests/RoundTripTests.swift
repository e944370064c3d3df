// What is encoded decodes to the same message.

import Model
import Testing
import Wire

@testable import Fuzzing

@Suite struct RoundTripTests {
  @Test(arguments: Codec.all) func randomMessages(codec: Codec) {
    var generator = MessageGenerator(seed: 20_260)
    for index in 0..<10_000 {
      let (bytes, same) = codec.roundTrip(&generator)
      guard same, bytes.count <= codec.limit else {
        Issue.record("message \(index): \(hex(bytes))")
        return
      }
    }
  }

  @Test func everyChoiceOfEveryEnum() throws {
    for kind in ListQuery.Kind.allCases {
      let request = Request(number: 1, body: .list(ListQuery(kind: kind)))
      #expect(try Wire.decodeRequest(Wire.encode(request)) == request)
    }
    for code in Refusal.Code.allCases {
      let reply = Reply(number: 0, body: .refused(Refusal(code, "")))
      #expect(try Wire.decodeReply(Wire.encode(reply)) == reply)
    }
    for state in MasterStatus.State.allCases {
      let master = MasterStatus(
        master: MasterIdentity(name: "", incarnation: Incarnation(0)), pid: 0, state: state, requests: "",
        timelines: "", head: .zero, sessions: 0)
      let reply = RouterReply.status(number: 0, RouterStatus(pid: 0, masters: [master]))
      #expect(try Wire.decodeRouterReply(Wire.encode(reply)) == reply)
    }
    for state in ChildStatus.State.allCases {
      let child = ChildStatus(name: "", pid: 0, state: state, respawnIn: 0, respawns: 0)
      let reply = SupervisorReply.status(number: 0, SupervisorStatus(name: "", pid: 0, children: [child]))
      #expect(try Wire.decodeSupervisorReply(Wire.encode(reply)) == reply)
    }
  }

  /// Each limit's message fits into its frame, and one more than the limit is refused.
  @Test func theLargestOfEach() throws {
    let text = String(repeating: "😀", count: Limits.postBytes / 4)
    let name = String(repeating: "ß", count: Limits.nameBytes / 2)
    let number = UInt64(Int64.max)

    let longest = Request(number: number, body: .post(text: text))
    #expect(try Wire.decodeRequest(Wire.encode(longest)) == longest)

    func page(_ count: Int) -> Reply {
      let post = Post(id: .max, author: name, text: text, time: Timestamp(milliseconds: .max))
      return Reply(
        number: number, body: .page(TimelinePage(posts: Array(repeating: post, count: count), upTo: .max, more: true)))
    }
    #expect(try Wire.decodeReply(Wire.encode(page(Limits.pagePosts))) == page(Limits.pagePosts))
    #expect(throws: WireError.outOfRange(.posts)) { try Wire.decodeReply(Wire.encode(page(Limits.pagePosts + 1))) }

    func names(_ count: Int) -> Reply {
      Reply(number: 1, body: .names(NamesPage(names: Array(repeating: name, count: count), more: false)))
    }
    #expect(try Wire.decodeReply(Wire.encode(names(Limits.pageNames))) == names(Limits.pageNames))
    #expect(throws: WireError.outOfRange(.names)) { try Wire.decodeReply(Wire.encode(names(Limits.pageNames + 1))) }

    func pong(_ count: Int) -> Reply {
      let watching = Watching(topic: Topic(high: .max, low: .max), sequence: number)
      return Reply(number: 1, body: .pong(Pong(head: .max, topics: Array(repeating: watching, count: count))))
    }
    #expect(try Wire.decodeReply(Wire.encode(pong(Limits.topicsPerSessionMost))) == pong(Limits.topicsPerSessionMost))
    #expect(throws: WireError.outOfRange(.topics)) {
      try Wire.decodeReply(Wire.encode(pong(Limits.topicsPerSessionMost + 1)))
    }

    func done(_ count: Int) -> Reply {
      Reply(number: 0, body: .doneEach(Array(repeating: Done(number: number, event: .max), count: count)))
    }
    #expect(
      try Wire.decodeReply(Wire.encode(done(Limits.acknowledgedTogether))) == done(Limits.acknowledgedTogether))
    #expect(throws: WireError.outOfRange(.events)) {
      try Wire.decodeReply(Wire.encode(done(Limits.acknowledgedTogether + 1)))
    }

    func roster(_ count: Int) -> RouterReply {
      let member = RosterMember(master: MasterIdentity(name: name, incarnation: Incarnation(number)), log: name)
      return .roster(Roster(version: 1, available: nil, term: 1, members: Array(repeating: member, count: count)))
    }
    #expect(try Wire.decodeRouterReply(Wire.encode(roster(Limits.masters))) == roster(Limits.masters))
    #expect(throws: WireError.outOfRange(.members)) {
      try Wire.decodeRouterReply(Wire.encode(roster(Limits.masters + 1)))
    }

    func batch(_ count: Int, text: String) -> LogBatch {
      let last = EventID.max.rawValue
      return LogBatch(
        events: (0..<count).map {
          Event(
            id: EventID(last - UInt64(count - 1 - $0)), time: Timestamp(milliseconds: .min),
            request: RequestID(client: ClientID(.max), number: number), change: .posted(AccountID(.max), text: text))
        })
    }
    let commit = batch(Limits.batchEvents, text: text)
    #expect(try Wire.decodeLogBatch(Wire.encode(commit)) == commit)
    let events = 16 * Limits.batchEvents
    #expect(try Wire.decodeLogBatch(Wire.encode(batch(events, text: ""))).events.count == events)
    #expect(throws: WireError.outOfRange(.events)) {
      try Wire.decodeLogBatch(Wire.encode(batch(events + 1, text: "")))
    }
  }
}
