// Watched timelines at a client: without gap or repeat, whatever is lost.

import Model
import Testing

@testable import Core

private let topic = Topic(high: 1, low: 1)
private let other = Topic(high: 2, low: 2)
private let two = TestClient.contact("master-2")

private func post(_ id: UInt64) -> Post { TestClient.post(id) }

@Suite struct ClientTimelineTests {
  /// One that watches, live, having seen posts 1 and 2; the next update has number 3.
  private func watching() -> (TestClient, ClientToken) {
    let client = TestClient.serving()
    let token = client.watch()
    client.begin(topic, sequence: 3)
    client.givePage([post(1), post(2)], upTo: EventID(2))
    #expect(client.ids(token) == [1, 2])
    return (client, token)
  }

  private var reads: (Request.Body) -> Bool { { if case .timeline = $0 { true } else { false } } }

  private func readCount(_ client: TestClient) -> Int { client.sent.filter { reads($0.body) }.count }

  private func cursorAsked(_ client: TestClient) -> UInt64? {
    guard case .timeline(let query) = client.last(reads)?.body, case .after(let cursor) = query.range else {
      return nil
    }
    return cursor.rawValue
  }

  @Test func subscribesFirstAndReadsSecond() {
    let client = TestClient.serving()
    let token = client.watch(.home, after: EventID(5))
    #expect(client.sent.last?.body == .watch(.home))
    client.reply(client.sent.last!.number, .watching(Watching(topic: topic, sequence: 9)))
    #expect(client.subscribed == [topic])
    #expect(readCount(client) == 0, "not before the subscription is heard of")
    client.update(topic, 9)
    #expect(cursorAsked(client) == 5)
    client.givePage([post(6), post(8)], upTo: EventID(9))
    #expect(client.ids(token) == [6, 8])
    #expect(client.core.cursor(of: token) == EventID(9) && client.core.newest == EventID(9))
    client.update(topic, 9, post(10))
    #expect(client.ids(token) == [6, 8, 10])
  }

  @Test func watchingStartsAfterTheLogin() {
    let client = TestClient()
    let token = client.watch()
    client.start()
    client.locate()
    client.welcome()
    #expect(client.sent.last?.body == .watch(.home))
    client.begin(topic)
    client.givePage([post(1)], upTo: EventID(1))
    #expect(client.ids(token) == [1])
  }

  @Test func manyPages() {
    let client = TestClient.serving()
    let token = client.watch()
    client.begin(topic)
    client.givePage([post(1), post(2)], upTo: EventID(2), more: true)
    #expect(cursorAsked(client) == 2)
    client.givePage([post(4)], upTo: EventID(4), more: true)
    client.update(topic, 1, post(7))
    client.givePage([post(6)], upTo: EventID(6))
    #expect(client.ids(token) == [1, 2, 4, 6, 7])
  }

  @Test func whatComesDuringARepairIsShownAfterIt() {
    let client = TestClient.serving()
    let token = client.watch()
    client.begin(topic)
    client.update(topic, 1, post(5))
    client.update(topic, 2, post(6))
    client.givePage([post(1), post(5)], upTo: EventID(5))
    #expect(client.ids(token) == [1, 5, 6])
    #expect(readCount(client) == 1)
  }

  /// Found by fuzzing: a master that pushes a post twice, or an older one behind a newer, has it shown once, and in order.
  @Test func whatIsHeldBackIsShownOnce() {
    let client = TestClient.serving()
    let token = client.watch()
    client.begin(topic)
    for (sequence, id) in zip(UInt64(1)..., [5, 5, 6, 4, 7] as [UInt64]) { client.update(topic, sequence, post(id)) }
    client.givePage([post(1)], upTo: EventID(3))
    #expect(client.ids(token) == [1, 5, 6, 7])
    client.update(topic, 6, post(7))
    client.update(topic, 7, post(8))
    #expect(client.ids(token) == [1, 5, 6, 7, 8])
  }

  @Test func theFirstThingHeardMayBeAPost() {
    let client = TestClient.serving()
    let token = client.watch()
    client.reply(client.sent.last!.number, .watching(Watching(topic: topic, sequence: 1)))
    client.update(topic, 4, post(9))
    client.givePage([post(3)], upTo: EventID(8))
    #expect(client.ids(token) == [3, 9])
    client.update(topic, 5, post(10))
    #expect(client.ids(token) == [3, 9, 10])
  }

  @Test func aGapIsRead() {
    let (client, token) = watching()
    client.update(topic, 3, post(3))
    client.update(topic, 5, post(5))
    #expect(client.ids(token) == [1, 2, 3], "held back until the gap is read")
    #expect(cursorAsked(client) == 3)
    client.givePage([post(4), post(5)], upTo: EventID(5))
    #expect(client.ids(token) == [1, 2, 3, 4, 5])
    client.update(topic, 6, post(6))
    #expect(client.ids(token).last == 6)
  }

  @Test func aMarkerThatIsAheadIsAGap() {
    let (client, token) = watching()
    client.update(topic, 3)
    #expect(client.actions.isEmpty, "a marker in sequence")
    client.update(topic, 4)
    #expect(cursorAsked(client) == 2)
    client.givePage([post(3)], upTo: EventID(3))
    client.update(topic, 4, post(4))
    #expect(client.ids(token) == [1, 2, 3, 4])
  }

  @Test func aGapWithinARepairIsReadOnceMore() {
    let (client, token) = watching()
    client.update(topic, 4, post(4))
    client.update(topic, 6, post(6))
    client.givePage([post(3), post(4)], upTo: EventID(4))
    #expect(readCount(client) == 3)
    client.givePage([post(5), post(6)], upTo: EventID(6))
    #expect(client.ids(token) == [1, 2, 3, 4, 5, 6])
  }

  @Test func oldUpdatesAreDropped() {
    let (client, token) = watching()
    client.update(topic, 2, post(2))
    client.update(topic, 1, post(1))
    client.update(topic, 1)
    client.update(other, 3, post(3))
    #expect(client.actions.isEmpty && client.ids(token) == [1, 2])
  }

  @Test func moreThanCanBeHeldBackIsReadAgain() {
    let (client, token) = watching()
    client.update(topic, 4, post(4))
    let end = UInt64(5 + Limits.updatesHeldBack + 10)
    for number in 5...end { client.update(topic, number, post(number)) }
    client.givePage([post(3)], upTo: EventID(4))
    #expect(readCount(client) == 3, "what was dropped is read")
    client.givePage((5...end).map(post), upTo: EventID(end))
    #expect(client.ids(token) == (1...end).filter { $0 != 4 })
    client.update(topic, end + 1, post(end + 1))
    #expect(client.ids(token).last == end + 1)
  }

  // MARK: The tail

  @Test func aLostTailIsFoundByAPong() {
    let (client, token) = watching()
    client.pass(.milliseconds(1_001))
    #expect(client.pings == 1)
    client.pong(topics: [Watching(topic: topic, sequence: 4)])
    #expect(readCount(client) == 1, "it may still be on its way")
    client.pass(.milliseconds(151))
    #expect(cursorAsked(client) == 2)
    client.givePage([post(3)], upTo: EventID(3))
    #expect(client.ids(token) == [1, 2, 3])
  }

  @Test func aTailThatIsLateIsNoGap() {
    let (client, token) = watching()
    client.pass(.milliseconds(1_001))
    client.pong(topics: [Watching(topic: topic, sequence: 4)])
    client.update(topic, 3, post(3))
    client.pass(.milliseconds(500))
    #expect(readCount(client) == 1 && client.ids(token) == [1, 2, 3])
  }

  @Test func aPongInSequenceIsNoGap() {
    let (client, _) = watching()
    client.pass(.milliseconds(1_001))
    client.pong(topics: [Watching(topic: topic, sequence: 3), Watching(topic: other, sequence: 99)])
    client.pass(.milliseconds(500))
    #expect(readCount(client) == 1)
  }

  @Test func aLostSubscriptionIsFoundByAPong() {
    let client = TestClient.serving()
    let token = client.watch()
    client.reply(client.sent.last!.number, .watching(Watching(topic: topic, sequence: 1)))
    client.pass(.milliseconds(1_001))
    client.pong(topics: [Watching(topic: topic, sequence: 1)])
    client.pass(.milliseconds(151))
    #expect(readCount(client) == 1)
    client.givePage([post(1)], upTo: EventID(1))
    #expect(client.ids(token) == [1])
  }

  /// A client that is busy with other things hears from its master all the time; the lost tail of a timeline is found anyway.
  @Test func aLostTailIsFoundAmongOtherTraffic() {
    let (client, token) = watching()
    var elapsed: Int64 = 0
    var answered = 0
    while client.ids(token).last != 3, elapsed < 10_000 {
      client.submit(.list(ListQuery(kind: .users)))
      client.reply(
        client.sent.last { if case .list = $0.body { true } else { false } }!.number,
        .names(NamesPage(names: [], more: false)))
      client.pass(.milliseconds(100))
      elapsed += 100
      if client.pings > answered {
        answered = client.pings
        client.pong(topics: [Watching(topic: topic, sequence: 4)])
      }
      if readCount(client) == 2 { client.givePage([post(3)], upTo: EventID(3)) }
    }
    #expect(client.ids(token).last == 3)
    #expect(elapsed <= 2_000)
    #expect(answered <= 3, "a ping a second is enough")
  }

  /// The master hears nothing of what the client hears: without a ping it would close the session.
  @Test func whoWatchesABusyTimelineKeepsItsSession() {
    let (client, token) = watching()
    var answered = 0
    for number in 3..<303 as Range<UInt64> {
      client.update(topic, number, post(number))
      client.pass(.milliseconds(100))
      if client.pings > answered { client.pong(topics: [Watching(topic: topic, sequence: number + 1)]) }
      answered = client.pings
    }
    #expect(client.ids(token).last == 302)
    #expect((25...31).contains(client.pings), "30 s, a ping a second")
  }

  // MARK: Refusals and losses

  @Test func aPageThatIsRefusedForNowIsAskedAgain() {
    let client = TestClient.serving()
    let token = client.watch()
    client.begin(topic)
    client.reply(client.last(reads)!.number, .refused(Refusal(.storage, "no", retryAfter: 300)))
    #expect(readCount(client) == 1)
    client.pass(.milliseconds(301))
    #expect(readCount(client) == 2)
    client.givePage([post(1)], upTo: EventID(1))
    #expect(client.ids(token) == [1])
  }

  @Test func aWatchThatIsRefusedForNowIsAskedAgain() {
    let client = TestClient.serving()
    _ = client.watch()
    client.reply(client.sent.last!.number, .refused(Refusal(.limit, "no", retryAfter: 300)))
    client.pass(.milliseconds(301))
    #expect(client.sent.filter { $0.body == .watch(.home) }.count == 2)
  }

  @Test func aWatchThatIsRefusedForGoodEnds() {
    let client = TestClient.serving()
    let token = client.watch(.author("nobody"))
    let refused = Reply.Body.refused(Refusal(.unknownUser, "no"))
    client.reply(client.sent.last!.number, refused)
    #expect(client.outcomes[token] == .reply(refused))
    #expect(client.core.cursor(of: token) == nil)
    client.disconnect()
    client.locate(two)
    client.welcome()
    #expect(client.sent.count == 1, "and stays so")
  }

  @Test func aPageThatNeverComesIsAskedAgain() {
    let (client, token) = watching()
    client.update(topic, 4, post(4))
    for _ in 0..<45 {
      client.pass(.milliseconds(100))
      if client.last({ $0 == .ping }) != nil { client.pong(topics: [Watching(topic: topic, sequence: 5)]) }
      if client.locates.count > 1 { client.locate() }
    }
    #expect(client.connects == 1 && readCount(client) >= 3)
    client.givePage([post(3), post(4)], upTo: EventID(4))
    #expect(client.ids(token) == [1, 2, 3, 4])
  }

  @Test func aFailoverGoesOnFromTheCursor() {
    let (client, token) = watching()
    client.update(topic, 3, post(3))
    client.disconnect()
    client.update(topic, 4, post(4))
    client.locate(two)
    #expect(client.hello?.newest == EventID(3))
    client.update(topic, 4, post(4))
    client.welcome()
    client.begin(other, sequence: 1)
    #expect(cursorAsked(client) == 3)
    client.update(topic, 4, post(4))
    client.givePage([post(4), post(5)], upTo: EventID(5))
    client.update(other, 1, post(6))
    #expect(client.ids(token) == [1, 2, 3, 4, 5, 6])
  }

  @Test func aFailoverDuringARepair() {
    let (client, token) = watching()
    client.update(topic, 4, post(4))
    let asked = client.last(reads)!.number
    client.reply(0, .goodbye)
    client.locate(two)
    client.welcome()
    #expect(!client.sent.contains { $0.number == asked }, "reading is asked anew")
    client.begin(other)
    client.givePage([post(3), post(4)], upTo: EventID(4))
    #expect(client.ids(token) == [1, 2, 3, 4])
  }

  // MARK: No longer

  @Test func unwatchingEndsIt() {
    let (client, token) = watching()
    client.unwatch(token)
    #expect(client.subscribed.isEmpty)
    #expect(client.sent.last?.body == .unwatch(topic))
    client.reply(client.sent.last!.number, .unwatched)
    client.update(topic, 3, post(3))
    #expect(client.ids(token) == [1, 2] && client.core.pendingCount == 0)
    client.unwatch(token)
    #expect(client.actions.isEmpty)
  }

  @Test func unwatchingDuringARepair() {
    let (client, token) = watching()
    client.update(topic, 4, post(4))
    let asked = client.last(reads)!.number
    client.unwatch(token)
    client.reply(asked, .page(TimelinePage(posts: [post(3)], upTo: EventID(4), more: false)))
    #expect(client.ids(token) == [1, 2])
  }

  /// The master would go on counting it among the session's timelines.
  @Test func unwatchingBeforeTheTopicIsKnown() {
    let client = TestClient.serving()
    let token = client.watch()
    let number = client.sent.last!.number
    client.unwatch(token)
    client.reply(number, .watching(Watching(topic: topic, sequence: 1)))
    #expect(client.sent.last?.body == .unwatch(topic))
    #expect(client.subscribed.isEmpty)
    client.reply(client.sent.last!.number, .unwatched)
    #expect(client.core.pendingCount == 0)
  }

  @Test func watchingAgainBeforeTheFirstTopicIsKnown() {
    let client = TestClient.serving()
    let first = client.watch()
    let number = client.sent.last!.number
    client.unwatch(first)
    let second = client.watch()
    let again = client.sent.last!.number
    client.reply(number, .watching(Watching(topic: topic, sequence: 1)))
    client.reply(again, .watching(Watching(topic: topic, sequence: 1)))
    client.update(topic, 1)
    client.givePage([post(1)], upTo: EventID(1))
    client.update(topic, 2, post(3))
    #expect(client.ids(second).first == 1)
    #expect(!client.sent.contains { $0.body == .unwatch(topic) }, "it is watched")
  }

  @Test func twoWatchersOfOneTimeline() {
    let (client, first) = watching()
    let second = client.watch(.home, after: EventID(2))
    client.begin(topic, sequence: 3)
    client.givePage([], upTo: EventID(2))
    client.update(topic, 3, post(3))
    #expect(client.ids(first) == [1, 2, 3] && client.ids(second) == [3])
    client.unwatch(first)
    #expect(client.subscribed.contains(topic), "the other still watches")
    client.update(topic, 4, post(4))
    #expect(client.ids(second) == [3, 4] && client.ids(first) == [1, 2, 3])
    client.unwatch(second)
    #expect(client.subscribed.isEmpty)
  }

  // MARK: All of it

  /// A model of masters and a network that loses updates and connections. Whatever is lost, every post is shown once, in order.
  @Test(arguments: UInt64(0)..<40)
  func whateverIsLostEveryPostIsShownOnce(seed: UInt64) {
    var random = RandomSource.seeded(seed)
    let client = TestClient(seed: seed)
    var log: [Post] = []
    var head: UInt64 = 0
    var topics: [TimelineName: Watching] = [:]
    var answered = 0
    var isHealed = false
    var incarnation: UInt64 = 1_000
    let loss = Int.random(in: 0...60, using: &random)

    func isLost() -> Bool { !isHealed && Int.random(in: 0..<100, using: &random) < loss }

    /// Router and master answer what is new; some answers are late, none are lost: connections lose nothing but all.
    func serve() {
      if client.connected == nil {
        if let locate = client.locates.last, case .locating = client.core.phase {
          topics = [:]
          answered = 0
          incarnation += 1
          client.hear(.located(number: locate.number, TestClient.contact("master-\(seed)", incarnation)))
        }
        return
      }
      if client.core.suspectSince != nil {
        client.hear(.located(number: client.locates.last!.number, client.connected!))
      }
      while answered < client.sent.count, isHealed || Int.random(in: 0..<4, using: &random) > 0 {
        let request = client.sent[answered]
        answered += 1
        let connects = client.connects
        switch request.body {
        case .hello: client.welcome(head: EventID(head))
        case .watch(let name):
          if topics[name] == nil {
            topics[name] = Watching(
              topic: Topic(high: random.next(), low: 1), sequence: UInt64.random(in: 1...9, using: &random))
          }
          client.reply(request.number, .watching(topics[name]!))
          if !isLost() { client.update(topics[name]!.topic, topics[name]!.sequence) }
        case .timeline(let query):
          guard case .after(let cursor) = query.range else { continue }
          let newer = log.filter { $0.id > cursor }
          let size = Int.random(in: 1...8, using: &random)
          let part = Array(newer.prefix(size))
          let more = newer.count > size
          client.reply(
            request.number,
            .page(TimelinePage(posts: part, upTo: more ? part.last!.id : EventID(head), more: more)))
        case .ping: client.reply(request.number, .pong(Pong(head: EventID(head), topics: Array(topics.values))))
        default: client.reply(request.number, .unwatched)
        }
        if client.connects != connects { return }
      }
    }

    func publish() {
      head += UInt64.random(in: 1...3, using: &random)
      log.append(post(head))
      for (name, watching) in topics {
        topics[name]!.sequence += 1
        if !isLost() { client.update(watching.topic, watching.sequence, log.last!) }
      }
    }

    client.start()
    for _ in 0..<3 { publish() }
    let token = client.watch()
    for _ in 0..<300 {
      switch Int.random(in: 0..<20, using: &random) {
      case 0: client.disconnect()
      case 1 where client.core.isServing: client.reply(0, .goodbye)
      case 2..<9: publish()
      case 9..<12: client.pass(.milliseconds(Int64.random(in: 0...600, using: &random)))
      default: serve()
      }
    }
    isHealed = true
    for _ in 0..<100 {
      client.pass(.milliseconds(100))
      for _ in 0..<4 { serve() }
    }
    #expect(client.shown[token] == log)
    publish()
    #expect(client.shown[token] == log, "live again")
  }
}
