// A client's way from master to master, and what becomes of its requests on the way.

import Model
import Testing

@testable import Core

private let one = TestClient.contact("master-1")
private let two = TestClient.contact("master-2")

private func refusal(_ code: Refusal.Code, retryAfter: UInt32 = 0) -> Reply.Body {
  .refused(Refusal(code, "no", retryAfter: retryAfter))
}

@Suite struct ClientLoginTests {
  @Test func findsAMasterAndLogsIn() {
    let client = TestClient()
    client.start()
    #expect(client.locates == [Locate(number: 1, user: "alice", suspect: nil, failures: 0)])
    client.locate()
    #expect(client.connected == one)
    #expect(client.hello?.register == true && client.hello?.user == "alice" && client.hello?.newest == .zero)
    #expect(client.hello?.client == client.core.client)
    client.welcome(head: EventID(7), isNew: true)
    #expect(client.notes == [.serving(master: "master-1", isNew: true, pause: nil)])
    #expect(client.core.newest == EventID(7))
    client.start()
    #expect(client.actions.isEmpty)
  }

  @Test func aRouterThatDoesNotAnswerIsAskedAgain() {
    let client = TestClient()
    client.start()
    client.pass(.milliseconds(249))
    #expect(client.locates.count == 1)
    client.pass(.milliseconds(100))
    #expect(client.locates.count == 2)
    client.hear(.located(number: 1, one))
    #expect(client.connected == nil, "an answer to an earlier question")
    client.locate()
    #expect(client.connected == one)
    client.hear(.located(number: 2, two))
    #expect(client.connected == one, "the same answer again")
  }

  @Test func waitsAsLongAsTheRouterSays() {
    let client = TestClient()
    client.start()
    client.unavailable(retryAfter: 400)
    client.pass(.milliseconds(399))
    #expect(client.locates.count == 1)
    client.pass(.milliseconds(30))
    #expect(client.locates.count == 2)
  }

  @Test func waitsLongerEachTimeAndSaysSo() {
    let client = TestClient()
    client.start()
    var waits: [Int64] = []
    for _ in 0..<12 {
      let asked = client.now
      client.unavailable(retryAfter: 1)
      let count = client.locates.count
      while client.locates.count == count { client.pass(.milliseconds(1)) }
      waits.append((client.now - asked).milliseconds)
    }
    #expect(waits[0] <= 41 && waits.allSatisfy { $0 <= 2_001 })
    #expect(waits[11] >= 1_000)
    let told = client.notes.filter { if case .waiting = $0 { true } else { false } }
    #expect((1...3).contains(told.count), "not each time")
  }

  @Test func waitsDifferFromClientToClient() {
    let wakes = (0..<20 as Range<UInt64>).map { seed -> Instant? in
      let client = TestClient(seed: seed)
      client.start()
      client.unavailable()
      return client.core.nextWake
    }
    #expect(Set(wakes).count > 15)
  }

  @Test func aRouterThatRefusesIsAskedLater() {
    let client = TestClient()
    client.start()
    client.hear(.refused(number: 1, Refusal(.limit, "busy", retryAfter: 300)))
    client.pass(.milliseconds(299))
    #expect(client.locates.count == 1)
    client.pass(.milliseconds(50))
    #expect(client.locates.count == 2)
  }

  @Test func aGreetingHasItsTime() {
    let client = TestClient(token: SessionToken(bytes: [1]))
    client.start()
    client.locate()
    client.pass(.milliseconds(501))
    #expect(client.locates.last?.suspect == one.master && client.locates.last?.failures == 0)
    #expect(client.connected == one, "it may only be slow")
    client.locate(two)
    client.hearLateWelcome()
    client.welcome()
    #expect(client.core.isServing && client.core.master == two)
  }

  @Test func aPasswordIsSlowToCheck() {
    let client = TestClient()
    client.start()
    client.locate()
    client.pass(.milliseconds(1_999))
    #expect(client.locates.count == 1)
    client.pass(.milliseconds(2))
    #expect(client.locates.count == 2)
  }

  @Test func aSlowMasterIsWaitedFor() {
    let client = TestClient(token: SessionToken(bytes: [1]))
    client.start()
    client.locate()
    client.pass(.milliseconds(501))
    client.locate(one)
    #expect(client.connects == 1, "the router finds it healthy")
    client.welcome()
    #expect(client.core.isServing)
    client.pass(.milliseconds(600))
    #expect(client.locates.count == 2, "no suspicion is left")
  }

  @Test func aConnectionThatLeadsNowhereIsMadeAnew() {
    let client = TestClient(token: SessionToken(bytes: [1]))
    client.start()
    client.locate()
    client.pass(.milliseconds(501))
    client.locate(one)
    client.pass(.milliseconds(510))
    #expect(client.locates.last?.suspect == one.master && client.locates.last?.failures == 0)
    client.locate(one)
    client.pass(.milliseconds(900))
    #expect(client.locates.count == 3, "patience grows")
    client.pass(.milliseconds(200))
    #expect(client.locates.last?.suspect == one.master && client.locates.last?.failures == 1)
    client.locate(one)
    client.pass(.milliseconds(2_100))
    #expect(client.locates.last?.suspect == one.master && client.locates.last?.failures == 2)
    #expect(client.connects == 1)
    client.locate(one)
    #expect(client.connects == 2)
    client.pass(.milliseconds(3_900))
    #expect(client.locates.count == 5)
    client.pass(.milliseconds(200))
    #expect(client.locates.count == 6)
    client.unavailable()
    #expect(client.connected == nil)
  }

  /// A session is not given up because the router knows no other master, or no master yet.
  @Test func aSilentMasterIsBetterThanNone() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.pass(.milliseconds(510))
    for _ in 0..<3 {
      let count = client.locates.count
      client.unavailable()
      #expect(client.core.isServing && client.connected == one)
      client.pass(.milliseconds(1_100))
      #expect(client.locates.count > count)
    }
    client.locate(two)
    #expect(client.connected == two)
  }

  /// What the master says meanwhile ends the suspicion, and the question with it.
  @Test func aSuspectThatAnswersIsTrusted() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.pass(.milliseconds(510))
    #expect(client.locates.count == 2)
    client.reply(client.sent.last { if case .post = $0.body { true } else { false } }!.number, .done(EventID(5)))
    client.pass(.milliseconds(700))
    #expect(client.locates.count == 2)
    client.unavailable()
    #expect(client.core.isServing && client.connected == one)
  }

  /// The router asks a suspect for up to `liveness`: the client waits for that, and asks again in the same words, for the router may
  /// have been started anew meanwhile.
  @Test func aQuestionAboutASuspectStaysTheSame() {
    let client = TestClient()
    client.start()
    client.locate()
    client.disconnect()
    let question = client.locates.last!
    #expect(question.suspect == one.master)
    client.pass(.milliseconds(740))
    #expect(client.locates.suffix(3) == [question, question, question])
    client.hear(.located(number: question.number, two))
    #expect(client.connected == two)
    client.disconnect()
    client.pass(.seconds(1))
    #expect(client.locates.last!.number > question.number, "at last it begins anew")
  }

  /// So does one whose session goes on meanwhile.
  @Test func aSuspicionAskedAboutAgainStaysTheSame() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.pass(.milliseconds(510))
    let question = client.locates.last!
    #expect(question.suspect == one.master)
    client.pass(.milliseconds(255))
    #expect(client.locates.suffix(2) == [question, question])
  }

  @Test func aMasterThatStopsIsNoFailure() {
    let client = TestClient()
    client.start()
    client.locate()
    client.disconnect()
    client.locate(two)
    client.reply(0, .goodbye)
    #expect(client.locates.last?.suspect == nil && client.locates.last?.failures == 0)
  }

  @Test func aConnectionThatFailsIsReported() {
    let client = TestClient()
    client.start()
    client.locate()
    client.disconnect()
    #expect(client.locates.last?.suspect == one.master && client.locates.last?.failures == 1)
    client.locate(one)
    client.disconnect()
    // The second time in a row it waits, so as not to hammer, and then says that it was twice.
    #expect(client.locates.count == 2)
    client.pass(.milliseconds(100))
    #expect(client.locates.last?.suspect == one.master && client.locates.last?.failures == 2)
    client.locate(two)
    client.disconnect()
    #expect(client.locates.last?.suspect == two.master && client.locates.last?.failures == 1)
  }

  @Test(arguments: [Refusal.Code.unknownUser, .invalidText, .invalid, .version])
  func aLoginRefusedForGood(code: Refusal.Code) {
    let client = TestClient()
    client.start()
    let early = client.submit(.post(text: "x"))
    let watched = client.watch()
    client.locate()
    client.reply(client.sent[0].number, refusal(code))
    let expected = ClientOutcome.loginRefused(Refusal(code, "no"))
    #expect(client.outcomes[early] == expected)
    #expect(client.outcomes[watched] == expected, "whoever waits for posts is told too")
    #expect(client.notes.last == .loginRefused(Refusal(code, "no")))
    #expect(client.connected == nil)
    let (late, lateWatch) = (client.submit(.ping), client.watch())
    #expect(client.outcomes[late] == expected && client.outcomes[lateWatch] == expected)
    client.disconnect()
    client.hear(.located(number: client.locates.last!.number, one))
    #expect(client.actions.isEmpty && client.core.nextWake == nil)
    client.close()
    let last = client.submit(.ping)
    #expect(client.outcomes[last] == .closed)
  }

  @Test(arguments: [Refusal.Code.unavailable, .limit, .storage])
  func aLoginRefusedForNow(code: Refusal.Code) {
    let client = TestClient()
    client.start()
    let early = client.submit(.post(text: "x"))
    client.locate()
    client.reply(client.sent[0].number, refusal(code))
    #expect(client.connected == nil && client.outcomes[early] == nil)
    #expect(client.locates.count == 1, "not at once")
    client.pass(.milliseconds(100))
    #expect(client.locates.count == 2)
  }

  @Test func whatIsNoAnswerToHelloIsIgnored() {
    let client = TestClient()
    client.start()
    client.locate()
    client.reply(77, .done(EventID(1)))
    client.reply(77, refusal(.noSession))
    #expect(client.actions.isEmpty)
    client.reply(0, .goodbye)
    #expect(client.connected == nil && client.locates.count == 2)
  }

  @Test func itRegistersOnce() {
    let client = TestClient.serving()
    client.disconnect()
    client.locate(two)
    #expect(client.hello?.register == false, "the account exists; if not, something is badly wrong")
  }

  @Test func whatIsForMastersIsIgnored() {
    let client = TestClient.serving()
    client.hear(.probe(nonce: 1))
    client.hear(.registerAgain)
    client.hear(.unavailable(number: 1, retryAfter: 1))
    client.hear(.located(number: 1, two))
    client.hear(.refused(number: 1, Refusal(.limit, "x")))
    #expect(client.actions.isEmpty && client.core.isServing)
  }
}

extension TestClient {
  /// A late Welcome of a master given up.
  fileprivate func hearLateWelcome() {
    reply(
      1, .welcome(Welcome(master: one.master, account: AccountID(0), isNew: false, head: .zero)))
    #expect(actions.isEmpty && !core.isServing)
  }
}

@Suite struct ClientRequestTests {
  @Test func aRequestIsSentAndAnswered() {
    let client = TestClient.serving()
    let token = client.submit(.post(text: "x"))
    #expect(client.sent.last == Request(number: 2, body: .post(text: "x")))
    client.reply(2, .done(EventID(9)))
    #expect(client.outcomes[token] == .reply(.done(EventID(9))))
    #expect(client.core.newest == EventID(9) && client.core.pendingCount == 0)
    client.reply(2, .done(EventID(9)))
    #expect(client.actions.isEmpty, "a repeated answer")
  }

  @Test func severalAreAnsweredTogether() {
    let client = TestClient.serving()
    let tokens = (0..<3).map { client.submit(.post(text: "\($0)")) }
    let numbers = client.sent.suffix(3).map(\.number)
    // One more than once, and one that nobody has asked.
    let all = [(numbers[0], 7), (numbers[2], 9), (numbers[0], 8), (77, 5)].map {
      Done(number: $0.0, event: EventID($0.1))
    }
    client.reply(0, .doneEach(all))
    #expect(client.outcomes[tokens[0]] == .reply(.done(EventID(7))))
    #expect(client.outcomes[tokens[1]] == nil)
    #expect(client.outcomes[tokens[2]] == .reply(.done(EventID(9))))
    #expect(client.core.newest == EventID(9) && client.core.pendingCount == 1)
    client.reply(0, .doneEach(all))
    #expect(client.actions.isEmpty, "repeated answers")
    client.disconnect()
    client.locate(two)
    #expect(client.hello?.takesDoneEach == true)
    client.reply(0, .doneEach([Done(number: numbers[1], event: EventID(8))]))
    #expect(client.outcomes[tokens[1]] == nil, "an answer before the Welcome")
  }

  @Test func requestsWaitForTheLogin() {
    let client = TestClient()
    let before = client.submit(.post(text: "1"))
    client.start()
    client.submit(.post(text: "2"))
    client.locate()
    client.submit(.post(text: "3"))
    client.welcome()
    #expect(client.sent.dropFirst().map(\.body) == ["1", "2", "3"].map { .post(text: $0) })
    #expect(client.sent.dropFirst().map(\.number).sorted() == client.sent.dropFirst().map(\.number))
    client.reply(client.sent[1].number, .done(EventID(1)))
    #expect(client.outcomes[before] == .reply(.done(EventID(1))))
  }

  @Test func unansweredRequestsAreRepeatedWithTheirNumbers() {
    let client = TestClient.serving()
    let tokens = (0..<5).map { client.submit(.post(text: "\($0)")) }
    let before = Array(client.sent.dropFirst())
    client.reply(before[1].number, .done(EventID(4)))
    client.disconnect()
    client.locate(two)
    #expect(client.hello?.newest == EventID(4), "no master may answer older state")
    #expect(client.hello?.client == client.core.client)
    client.welcome()
    #expect(Array(client.sent.dropFirst()) == [before[0], before[2], before[3], before[4]])
    for request in client.sent.dropFirst() { client.reply(request.number, .done(EventID(request.number + 100))) }
    #expect(tokens.allSatisfy { client.outcomes[$0] != nil })
    #expect(client.notes.contains(.lost(master: "master-1", .connectionLost)))
  }

  @Test func aPauseIsMeasured() {
    let client = TestClient.serving()
    client.disconnect()
    client.now = client.now + .milliseconds(30)
    client.locate(two)
    client.now = client.now + .milliseconds(12)
    client.welcome()
    #expect(client.notes.last == .serving(master: "master-2", isNew: false, pause: .milliseconds(42)))
  }

  @Test func refusalsOfARequestAreItsAnswer() {
    let client = TestClient.serving()
    for code in [
      Refusal.Code.alreadyExists, .notExists, .unknownUser, .invalidText, .limit, .storage, .tooOld, .invalid,
    ] {
      let token = client.submit(.follow(name: "bob"))
      client.reply(client.sent.last!.number, refusal(code))
      #expect(client.outcomes[token] == .reply(refusal(code)))
    }
    #expect(client.core.isServing)
  }

  // MARK: Deadlines

  @Test func aDeadlineBeforeAnythingWasSent() {
    let client = TestClient()
    client.start()
    let token = client.submit(.post(text: "x"), deadline: .milliseconds(100))
    client.pass(.milliseconds(101))
    #expect(client.outcomes[token] == .timedOut(mayHaveHappened: false))
    client.locate(two)
    #expect(client.core.pendingCount == 0)
  }

  @Test func aDeadlineAfterItWasSent() {
    let client = TestClient.serving()
    let token = client.submit(.post(text: "x"), deadline: .milliseconds(100))
    let other = client.submit(.post(text: "y"), deadline: .milliseconds(150))
    let number = client.sent[1].number
    client.pass(.milliseconds(100))
    #expect(client.outcomes[token] == .timedOut(mayHaveHappened: true))
    #expect(client.outcomes[other] == nil)
    client.reply(number, .done(EventID(1)))
    #expect(client.actions.isEmpty, "it has ended")
    client.pass(.milliseconds(51))
    #expect(client.outcomes[other] != nil)
  }

  @Test func noDeadlineIsLongerThanRepeatsAreKnown() {
    let client = TestClient()
    let token = client.submit(.post(text: "x"), deadline: .seconds(100_000))
    client.pass(Limits.requestLifetime)
    #expect(client.outcomes[token] == .timedOut(mayHaveHappened: false))
  }

  @Test func theRestOfADeadlineCountsAfterAFailover() {
    let client = TestClient.serving()
    let token = client.submit(.post(text: "x"), deadline: .milliseconds(300))
    client.disconnect()
    client.pass(.milliseconds(200))
    client.locate(two)
    client.welcome()
    client.pass(.milliseconds(101))
    #expect(client.outcomes[token] == .timedOut(mayHaveHappened: true))
  }

  // MARK: Limits

  /// A master drops whoever sends too much at once; such a request would end every connection it is repeated on.
  @Test func whatNoMasterWouldTakeIsNotSent() {
    let client = TestClient.serving()
    let long = String(repeating: "x", count: 10_000)
    let bodies: [Request.Body] = [
      .post(text: long), .post(text: "a\nb"), .follow(name: long), .unfollow(name: ""), .watch(.author(long)),
      .timeline(TimelineQuery(timeline: .author(long), range: .newest)),
    ]
    for body in bodies {
      let token = client.submit(body)
      guard case .reply(.refused) = client.outcomes[token] else {
        Issue.record("not refused: \(body)")
        continue
      }
    }
    let watched = client.watch(.author(long))
    #expect(client.outcomes[watched] != nil)
    #expect(client.sent.count == 1)
  }

  @Test func aNameThatNoMasterWouldTakeEndsTheClient() {
    let client = TestClient(user: "../x")
    let token = client.submit(.post(text: "x"))
    client.start()
    guard case .loginRefused(let refusal) = client.outcomes[token] else {
      Issue.record("not refused")
      return
    }
    #expect(refusal.code == .invalidText && client.locates.isEmpty)
  }

  /// A request with it may be more than a master takes, which drops the connection then.
  @Test func aPasswordThatNoAccountCanHaveEndsTheClient() {
    for (count, isTaken) in [(Limits.passwordBytesMax, true), (Limits.passwordBytesMax + 1, false), (10_000, false)] {
      let client = TestClient(password: Password(String(repeating: "x", count: count)))
      let token = client.submit(.post(text: "x"))
      client.start()
      #expect(client.locates.isEmpty != isTaken)
      guard !isTaken else { continue }
      guard case .loginRefused(let refusal) = client.outcomes[token] else {
        Issue.record("not refused")
        continue
      }
      #expect(refusal == Refusal(.invalidText, "the password is refused: longer than 256 bytes"))
    }
  }

  /// It sends no more than a master takes, also after a failover.
  @Test func requestsUnderWayAreLimited() {
    let client = TestClient.serving()
    let tokens = (0..<Limits.requestsInFlight + 3).map { _ in client.submit(.post(text: "x")) }
    #expect(client.sent.count == 1 + Limits.requestsInFlight)
    for token in tokens.suffix(3) {
      guard case .reply(.refused(let refusal)) = client.outcomes[token] else {
        Issue.record("not refused")
        continue
      }
      #expect(refusal.code == .limit && refusal.retryAfter > 0)
    }
    client.reply(client.sent[1].number, .done(EventID(1)))
    let next = client.submit(.post(text: "y"))
    #expect(client.outcomes[next] == nil)
  }

  // MARK: End

  @Test func closingEndsEverything() {
    let client = TestClient.serving()
    let token = client.submit(.post(text: "x"))
    let watched = client.watch()
    client.close()
    #expect(client.outcomes[token] == .closed && client.outcomes[watched] == .closed)
    #expect(client.connected == nil)
    #expect(client.actions.contains { if case .send(let request) = $0 { request.body == .bye } else { false } })
    #expect(client.core.nextWake == nil)
    client.close()
    client.disconnect()
    client.reply(1, .done(EventID(1)))
    #expect(client.actions.isEmpty)
    let (late, lateWatch) = (client.submit(.ping), client.watch())
    #expect(client.outcomes[late] == .closed && client.outcomes[lateWatch] == .closed)
  }

  @Test func closingBeforeTheLogin() {
    let client = TestClient()
    client.start()
    let token = client.submit(.post(text: "x"))
    client.close()
    #expect(client.outcomes[token] == .closed)
    client.hear(.located(number: 1, one))
    #expect(client.connected == nil)
  }
}

@Suite struct ClientSuspicionTests {
  @Test func aSilentMasterIsPingedAndThenSuspected() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.pass(.milliseconds(199))
    #expect(client.pings == 0)
    client.pass(.milliseconds(2))
    #expect(client.pings == 1)
    client.pass(.milliseconds(298))
    #expect(client.locates.count == 1)
    client.pass(.milliseconds(2))
    #expect(client.locates.last == Locate(number: 2, user: "alice", suspect: one.master, failures: 0))
    #expect(client.core.isServing, "a suspicion ends nothing")
  }

  @Test func anAnswerEndsTheSuspicion() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.pass(.milliseconds(250))
    client.pong()
    client.pass(.milliseconds(199))
    #expect(client.pings == 1 && client.locates.count == 1)
    client.pass(.milliseconds(2))
    #expect(client.pings == 2)
  }

  @Test func theRouterSaysStay() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.pass(.milliseconds(502))
    client.locate(one)
    #expect(client.core.isServing && client.connects == 1)
    let asked = client.now
    while client.locates.count == 2 { client.pass(.milliseconds(10)) }
    #expect((client.now - asked).milliseconds >= 490, "not at once again")
    #expect(client.locates.last?.failures == 0)
    client.locate(one)
    while client.locates.count == 3 { client.pass(.milliseconds(10)) }
    #expect(client.locates.last?.failures == 1)
    client.locate(one)
    #expect(client.connects == 1)
    while client.locates.count == 4 { client.pass(.milliseconds(10)) }
    #expect(client.locates.last?.failures == 2, "now it is sent to another")
    client.locate(two)
    #expect(client.connected == two && client.connects == 2)
    #expect(client.notes.last == .lost(master: "master-1", .noAnswer))
    client.welcome()
    #expect(client.sent.last?.body == .post(text: "x"))
  }

  /// Seed 8101: the way to the only master was lost without a word, and the client stayed on it.
  @Test func theOnlyMasterIsComeToAnew() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    for silence in 1...3 {
      while client.locates.count == silence { client.pass(.milliseconds(10)) }
      client.locate(one)
      #expect(client.core.isServing && client.connects == 1)
    }
    while client.locates.count == 4 { client.pass(.milliseconds(10)) }
    client.locate(one)
    #expect(client.connected == one && client.connects == 2)
    client.welcome()
    #expect(client.sent.last?.body == .post(text: "x"))
  }

  @Test func theRouterSaysAnother() {
    let client = TestClient.serving()
    let token = client.submit(.post(text: "x"))
    let number = client.sent.last!.number
    client.pass(.milliseconds(502))
    client.locate(two)
    #expect(client.connected == two)
    client.welcome()
    client.reply(number, .done(EventID(3)))
    #expect(client.outcomes[token] == .reply(.done(EventID(3))))
  }

  @Test func theRouterHasNobody() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.pass(.milliseconds(502))
    client.unavailable(retryAfter: 300)
    #expect(client.connected == one, "a session is not given up for nobody")
    client.pass(.milliseconds(299))
    #expect(client.locates.count == 2, "not before the router says")
    client.pass(.milliseconds(2))
    #expect(client.locates.count == 3)
  }

  @Test func aRouterThatIsDownDoesNotEndASession() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.pass(.seconds(3))
    #expect(client.core.isServing && client.connects == 1)
    #expect(client.locates.count > 5, "it asks on")
    client.pong()
    #expect(client.core.isServing)
  }

  @Test func aRequestWithoutAnAnswerForLongIsSuspicious() {
    let client = TestClient.serving()
    client.submit(.post(text: "slow"))
    for _ in 0..<19 {
      client.pass(.milliseconds(100))
      if client.pings > 0 { client.pong() }
    }
    #expect(client.locates.count == 1)
    client.pass(.milliseconds(200))
    #expect(client.locates.last?.suspect == one.master)
  }

  /// Silences in a row are a reason to go; one today and one next week are not.
  @Test func failuresAreCountedInARow() {
    let client = TestClient.serving()
    for _ in 0..<3 {
      client.submit(.post(text: "slow"))
      client.pass(.milliseconds(502))
      #expect(client.locates.last?.failures == 0)
      client.locate(one)
      client.reply(client.sent.last { $0.body == .post(text: "slow") }!.number, .done(EventID(1)))
      client.pass(.seconds(1))
    }
    #expect(client.connects == 1)
  }

  @Test func idleClientsKeepTheirSession() {
    let client = TestClient.serving()
    var answered = 0
    for _ in 0..<300 {
      client.pass(.milliseconds(100))
      if client.pings > answered { client.pong() }
      answered = client.pings
    }
    #expect((10...13).contains(client.pings))
    #expect(client.locates.count == 1)
  }

  @Test func aGoodbyeSendsItToTheRouter() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.reply(0, .goodbye)
    #expect(client.connected == nil)
    #expect(client.locates.last == Locate(number: 2, user: "alice", suspect: nil, failures: 0))
    #expect(client.notes.last == .lost(master: "master-1", .goodbye))
    client.locate(two)
    client.welcome()
    #expect(client.sent.last?.body == .post(text: "x"))
  }

  @Test func aForgottenSessionIsOpenedAgain() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    client.reply(client.sent.last!.number, refusal(.noSession))
    #expect(client.locates.count == 2)
    client.locate(one)
    client.welcome()
    #expect(client.sent.last?.body == .post(text: "x"))
  }

  @Test func aStoppingMasterIsLeft() {
    let client = TestClient.serving()
    let token = client.submit(.post(text: "x"))
    client.reply(client.sent.last!.number, refusal(.unavailable))
    #expect(client.outcomes[token] == nil, "no planned restart fails a request")
    client.pass(.milliseconds(100))
    client.locate(two)
    client.welcome()
    #expect(client.sent.last?.body == .post(text: "x"))
  }

  @Test func aPingOfTheProgramIsAnswered() {
    let client = TestClient.serving()
    let token = client.submit(.ping)
    client.reply(client.sent.last!.number, .pong(Pong(head: EventID(3), topics: [])))
    #expect(client.outcomes[token] == .reply(.pong(Pong(head: EventID(3), topics: []))))
  }
}
