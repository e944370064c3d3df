// Hello, sessions and their limits.

import Core
import Model
import Testing

@Suite struct MasterSessionTests {
  // MARK: Hello

  @Test func aNewNameIsRegisteredAndWelcomed() {
    let master = TestMaster.serving()
    let answer = master.login("alice", from: 1)
    #expect(
      answer
        == .welcome(
          Welcome(
            master: master.core.master, account: AccountID(0), isNew: true, head: EventID(2), token: master.tokens[1])))
    #expect(master.log.names == ["alice"])
    #expect(master.notes.last == .loggedIn("alice", isNew: true))
  }

  @Test func aKnownNameIsWelcomedBack() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    let answer = master.login("alice", from: 2)
    guard case .welcome(let welcome) = answer else {
      Issue.record("\(answer)")
      return
    }
    #expect(!welcome.isNew && welcome.account == AccountID(0))
    #expect(master.log.names == ["alice"])
    #expect(master.core.sessionCount == 2)
  }

  @Test func anUnknownNameIsRefusedUnlessItRegisters() {
    let master = TestMaster.serving()
    #expect(code(master.login("alice", register: false, from: 1)) == .credentials)
    #expect(master.log.names.isEmpty)
    #expect(code(master.ask(.ping, from: 1)) == .noSession)
  }

  @Test(arguments: ["", "../x", "a b", "a\n", "-x", String(repeating: "a", count: 65), "a\u{202e}"])
  func badNamesAreRefused(name: String) {
    let master = TestMaster.serving()
    #expect(code(master.login(name, from: 1)) == .invalidText)
    #expect(code(master.login(name, register: false, from: 1)) == .invalidText)
    #expect(master.log.names.isEmpty)
    master.expectAllAnswered()
  }

  @Test func otherVersionsAreRefused() {
    let master = TestMaster.serving()
    let hello = Hello(version: 1, client: ClientID(1), user: "alice", register: true, newest: .zero)
    #expect(code(master.ask(.hello(hello), from: 1)) == .version)
  }

  /// A name is written in one way: two that look the same are the same.
  @Test func aNameHasOneWayOfWritingIt() {
    let master = TestMaster.serving()
    #expect(code(master.login("e\u{301}mile", from: 1)) == .invalidText)
    master.login("\u{e9}mile", from: 1)
    #expect(code(master.login("e\u{301}mile", from: 2)) == .invalidText)
    #expect(master.log.names == ["\u{e9}mile"])
  }

  @Test func aClientOnANewConnectionLeavesItsOldOne() {
    let master = TestMaster.serving()
    master.login("alice", client: 9, from: 1)
    master.login("alice", client: 9, from: 2)
    #expect(master.core.sessionCount == 1)
    #expect(code(master.ask(.ping, from: 1)) == .noSession)
    #expect(code(master.ask(.ping, from: 2)) == nil)
    // The old connection's end does not end the new session.
    master.turn { core, _, actions in core.onUnreachable(1, into: &actions) }
    #expect(master.core.sessionCount == 1)
  }

  @Test func anotherLoginOnTheSameConnectionReplacesTheFirst() {
    let master = TestMaster.serving()
    master.login("alice", client: 9, from: 1)
    master.login("bob", client: 10, from: 1)
    #expect(master.core.sessionCount == 1)
    master.ask(.post(text: "x"), from: 1)
    #expect(master.log.posts(by: [AccountID(1)]).count == 1)
  }

  @Test func aClientIdIsItsAccountsAlone() {
    let master = TestMaster.serving()
    master.login("bob", from: 3)
    master.login("alice", client: 9, from: 1)
    #expect(code(master.login("bob", client: 9, from: 2)) == .invalid)
    #expect(master.core.sessionCount == 2)
    // Also when its first owner is gone, as long as its requests are remembered.
    master.ask(.post(text: "x"), from: 1)
    master.send(.bye, from: 1)
    #expect(code(master.login("bob", client: 9, from: 2)) == .invalid)
    #expect(isWelcome(master.login("alice", client: 9, from: 2)))
  }

  /// A refused login leaves nothing behind, no account either.
  @Test func aForeignClientIdRegistersNobody() {
    let master = TestMaster.serving()
    master.login("alice", client: 9, from: 1)
    #expect(code(master.login("mallory", client: 9, from: 2)) == .invalid)
    #expect(master.log.names == ["alice"])
    master.ask(.post(text: "x"), from: 1)
    master.send(.bye, from: 1)
    #expect(code(master.login("mallory", client: 9, from: 2)) == .invalid)
    #expect(master.log.names == ["alice"])
  }

  /// A session that is fine stays when its connection asks for something that is refused.
  @Test func aRefusedLoginLeavesTheSessionAlone() {
    let master = TestMaster.serving()
    master.login("alice", client: 9, from: 1)
    master.login("bob", client: 10, from: 2)
    #expect(code(master.login("bob", client: 9, from: 2)) == .invalid)
    #expect(done(master.ask(.post(text: "still here"), from: 2)) != nil)
  }

  @Test func twoRegisterOneNameAtOnce() {
    let master = TestMaster.serving()
    master.login("busy", from: 9)
    master.send(.post(text: "keeps the log busy"), from: 9)
    master.send(.hello(Hello(client: ClientID(1), user: "alice", register: true, newest: .zero)), from: 1)
    master.send(.hello(Hello(client: ClientID(2), user: "alice", register: true, newest: .zero)), from: 2)
    master.settle()
    #expect(master.log.names == ["busy", "alice"])
    let answers = [master.told(1).last, master.told(2).last].compactMap { body -> Bool? in
      if case .welcome(let welcome) = body { welcome.isNew } else { nil }
    }
    #expect(answers == [true, false], "one of them created it")
    master.expectAllAnswered()
  }

  @Test func aNameThatAnotherMasterRegisteredMeanwhile() {
    let master = TestMaster.serving()
    master.send(.hello(Hello(client: ClientID(1), user: "alice", register: true, newest: .zero)), from: 1)
    master.log.commit(
      .accountCreated(AccountID(0), name: "alice"),
      .credentialSet(AccountID(0), TestMaster.hash(TestMaster.password(of: "alice"))))
    master.settle()
    guard case .welcome(let welcome) = master.told(1).last else {
      Issue.record("refused")
      return
    }
    #expect(!welcome.isNew && welcome.account == AccountID(0))
    #expect(master.log.names == ["alice"])
  }

  // MARK: The client knows more than the master

  @Test func aClientThatKnowsANewerEventWaitsUntilItIsRead() {
    let log = ModelLog()
    let master = TestMaster.serving(log: log)
    log.commit(.accountCreated(AccountID(0), name: "alice"), .posted(AccountID(0), text: "at another master"))
    master.send(.hello(Hello(client: ClientID(1), user: "alice", register: false, newest: EventID(2))), from: 1)
    #expect(master.told(1).isEmpty)
    #expect(master.catchUp == .zero)
    master.finishCatchUp()
    #expect(isWelcome(master.told(1).last))
    master.expectAllAnswered()
  }

  /// A reading that is under way may have begun too early for it.
  @Test func aLoginDuringAReadingNeedsAFreshOne() {
    let log = ModelLog()
    let master = TestMaster.serving(log: log)
    master.hear(.roster(TestMaster.roster(1, ["master-1", "master-2"])))
    #expect(master.catchUp == .zero)
    log.commit(.accountCreated(AccountID(0), name: "alice"), .posted(AccountID(0), text: "newer than the reading"))
    master.send(.hello(Hello(client: ClientID(1), user: "alice", register: false, newest: EventID(2))), from: 1)
    master.finishCatchUp(upTo: .zero)
    #expect(master.told(1).isEmpty)
    #expect(master.catchUp == .zero, "read once more")
    master.finishCatchUp()
    #expect(isWelcome(master.told(1).last))
  }

  @Test func whoClaimsToKnowTheFutureIsAnsweredAfterOneReading() {
    let master = TestMaster.serving()
    master.send(
      .hello(Hello(client: ClientID(1), user: "alice", register: true, newest: EventID(rawValue: .max))), from: 1)
    master.settle()
    #expect(isWelcome(master.told(1).last))
  }

  @Test func aLogThatCannotBeReadSendsItElsewhere() {
    let master = TestMaster.serving()
    master.send(.hello(Hello(client: ClientID(1), user: "alice", register: true, newest: EventID(5))), from: 1)
    master.failCatchUp()
    #expect(code(master.told(1).last!) == .unavailable)
    master.expectAllAnswered()
  }

  @Test func aHeldLoginIsReadInPieces() {
    let log = ModelLog()
    let master = TestMaster.serving(log: log)
    log.commit(.accountCreated(AccountID(0), name: "alice"))
    for _ in 0..<9 { log.commit(.posted(AccountID(0), text: "x")) }
    master.send(.hello(Hello(client: ClientID(1), user: "alice", register: false, newest: EventID(10))), from: 1)
    master.finishCatchUp(limit: 5)
    #expect(master.told(1).isEmpty)
    master.finishCatchUp(limit: 5)
    master.settle()
    #expect(isWelcome(master.told(1).last))
  }

  // MARK: Ends

  @Test func aByeEndsTheSessionWithoutAWord() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    let told = master.told(1).count
    master.send(.bye, from: 1)
    #expect(master.told(1).count == told)
    #expect(master.core.sessionCount == 0)
    #expect(master.notes.last == .loggedOut("alice"))
    master.send(.bye, from: 1)
    #expect(master.notes.filter { $0 == .loggedOut("alice") }.count == 1)
  }

  @Test func whatCannotBeUnderstoodEndsTheSession() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.turn { core, _, actions in core.onMalformed(from: 1, into: &actions) }
    #expect(code(master.ask(.ping, from: 1)) == .noSession)
    master.turn { core, _, actions in core.onMalformed(from: 2, into: &actions) }
  }

  @Test func aSilentSessionIsClosed() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.login("bob", from: 2)
    for _ in 0..<12 {
      master.pass(.seconds(1))
      master.ask(.ping, from: 2)
    }
    #expect(master.core.sessionCount == 1)
    #expect(master.notes.contains(.sessionLost("alice")))
    #expect(!master.notes.contains(.sessionLost("bob")))
  }

  /// Timers come first: what a frozen master reads when it goes on is from sessions that it has closed.
  @Test func aFrozenMasterForgetsItsSessionsBeforeItReads() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    let watched = master.ask(.watch(.home), from: 1)
    master.freeze(.seconds(60))
    #expect(code(master.ask(.post(text: "sent long ago"), from: 1)) == .noSession)
    #expect(master.log.posts(by: [AccountID(0)]).isEmpty)
    guard case .watching(let watching) = watched else { return }
    master.subscribe(watching.topic)
    #expect(!master.actions.contains(.mark(watching)))
  }

  @Test func everythingButHelloNeedsASession() {
    let master = TestMaster.serving()
    let bodies: [Request.Body] = [
      .post(text: "x"), .follow(name: "a"), .unfollow(name: "a"), .list(ListQuery(kind: .users)), .ping,
      .timeline(TimelineQuery(timeline: .home, range: .newest)), .watch(.home), .unwatch(Topic(high: 1, low: 2)),
    ]
    for body in bodies { #expect(code(master.ask(body, from: 1)) == .noSession) }
    master.expectAllAnswered()
  }

  // MARK: Limits

  @Test func anOperatorsLimitsHoldInsteadOfTheUsualOnes() {
    var limits = OperatorLimits()
    (limits.sessions, limits.sessionsPerAccount, limits.topicsPerSession, limits.requestsInFlight) = (4, 2, 1, 3)
    limits.attemptsPerName = 2
    let master = TestMaster.serving(limits: limits)
    #expect(isWelcome(master.login("alice", from: 1)))
    #expect(isWelcome(master.login("alice", from: 2)))
    #expect(code(master.login("alice", from: 3)) == .limit)
    #expect(isWelcome(master.login("bob", from: 4)))
    #expect(isWelcome(master.login("carol", from: 5)))
    #expect(code(master.login("dave", from: 6)) == .limit)
    guard case .watching = master.ask(.watch(.home), from: 1) else {
      Issue.record("not watching")
      return
    }
    #expect(code(master.ask(.watch(.author("alice")), from: 1)) == .limit)
    for _ in 0..<4 { master.send(.post(text: "x"), from: 1) }
    #expect(master.told(1).last.flatMap(code) == .limit)
    master.settle()
    let wrong = Proof.password(Password("a wrong password"))
    for peer in 10..<12 as Range<UInt32> {
      #expect(code(master.login("alice", register: false, proof: wrong, from: PeerID(peer))) == .credentials)
    }
    #expect(code(master.login("alice", register: false, proof: wrong, from: 12)) == .tooManyAttempts)
  }

  @Test func sessionsOfOneAccountAreLimited() {
    let master = TestMaster.serving()
    for peer in 0..<UInt32(Limits.sessionsPerAccount) { #expect(isWelcome(master.login("alice", from: PeerID(peer)))) }
    let answer = master.login("alice", from: 100_000)
    #expect(code(answer) == .limit)
    #expect(isWelcome(master.login("bob", from: 100_001)))
    // A client that comes again is no session more.
    #expect(isWelcome(master.login("alice", client: 1_000, from: 100_002)))
    master.send(.bye, from: 100_002)
    #expect(isWelcome(master.login("alice", from: 100_003)))
  }

  @Test func requestsInFlightAreLimited() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    for _ in 0..<Limits.requestsInFlight { master.send(.post(text: "x"), from: 1) }
    #expect(master.told(1).count == 1)
    master.send(.post(text: "one too many"), from: 1)
    #expect(code(master.told(1).last!) == .limit)
    master.settle()
    #expect(done(master.ask(.post(text: "again"), from: 1)) != nil)
    master.expectAllAnswered()
  }

  /// Saying Hello again does not forget what is under way, in either direction.
  @Test func anotherHelloGivesNoMoreRequestsInFlight() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    for round in 0..<3 {
      for _ in 0..<Limits.requestsInFlight { master.send(.post(text: "round \(round)"), from: 1) }
      master.send(.hello(Hello(client: ClientID(1_001), user: "alice", register: false, newest: .zero)), from: 1)
    }
    let refused = master.told(1).filter { code($0) == .limit }.count
    // The Hellos, too: each was one too many.
    #expect(refused == 2 * Limits.requestsInFlight + 3)
    master.settle()
    // All answered: exactly so many may be under way again.
    for _ in 0..<Limits.requestsInFlight + 5 { master.send(.post(text: "y"), from: 1) }
    #expect(master.told(1).filter { code($0) == .limit }.count == refused + 5)
    master.settle()
    master.expectAllAnswered()
  }

  @Test func loginsInFlightAreLimitedToo() {
    let master = TestMaster.serving()
    master.login("busy", from: 9)
    master.send(.post(text: "keeps the log busy"), from: 9)
    for number in 0..<UInt64(Limits.requestsInFlight + 10) {
      master.send(.hello(Hello(client: ClientID(1), user: "name\(number)", register: true, newest: .zero)), from: 1)
    }
    #expect(master.told(1).filter { code($0) == .limit }.count == 10)
    master.settle()
    master.expectAllAnswered()
  }

  @Test func readsInFlightAreLimitedToo() {
    let log = ModelLog()
    log.commit(.accountCreated(AccountID(0), name: "alice"))
    let master = TestMaster(log: log)
    // A state whose memory reaches back nowhere: everything older is asked of the log.
    for _ in 0..<Limits.postsInMemory + 5 { log.commit(.posted(AccountID(0), text: "x")) }
    master.turn { $0.start(at: $1, into: &$2) }
    master.turn { $0.onSnapshot(log.snapshot(), at: $1, into: &$2) }
    master.finishCatchUp()
    master.login("alice", from: 1)
    let query = TimelineQuery(timeline: .home, range: .after(.zero))
    for _ in 0..<Limits.requestsInFlight { master.send(.timeline(query), from: 1) }
    #expect(master.reads.count == Limits.requestsInFlight)
    master.send(.timeline(query), from: 1)
    #expect(code(master.told(1).last!) == .limit)
    master.finish(master.reads[0].id)
    master.send(.timeline(query), from: 1)
    #expect(code(master.told(1).last!) != .limit)
  }

  @Test func requestsWaitingAreLimited() {
    let master = TestMaster.serving()
    let peers = UInt32(Limits.requestsWaiting / Limits.requestsInFlight) + 2
    for peer in 1...peers { master.login("user\(peer)", from: PeerID(peer)) }
    var refused = 0
    master.turn { core, now, actions in
      // In one turn: nothing is taken off the queue meanwhile.
      for peer in 1...peers {
        for number in 1...UInt64(Limits.requestsInFlight) {
          core.onRequest(Request(number: number, body: .post(text: "x")), from: PeerID(peer), at: now, into: &actions)
        }
      }
      refused = actions.filter { if case .reply(let reply, _) = $0 { code(reply.body) == .limit } else { false } }.count
      actions = []
    }
    #expect(refused == 2 * Limits.requestsInFlight)
  }
}
