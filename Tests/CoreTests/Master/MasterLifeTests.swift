// A master's start, its place in the mesh and in the chair, its beats, and its end.

import Core
import Model
import Testing

@Suite struct MasterLifeTests {
  private func filledLog(posts: Int = 10) -> ModelLog {
    let log = ModelLog()
    log.commit(.accountCreated(AccountID(0), name: "alice"))
    for number in 0..<posts { log.commit(.posted(AccountID(0), text: "post \(number)")) }
    return log
  }

  // MARK: Start

  @Test func startsFromTheSnapshotAndReadsTheRestInPieces() {
    let log = filledLog(posts: 20)
    let master = TestMaster(log: log)
    master.turn { $0.start(at: $1, into: &$2) }
    #expect(master.beats.count == 1, "the slave sees a living loop at once")
    #expect(master.toRouter.isEmpty)
    master.turn { $0.onSnapshot(log.snapshot(upTo: EventID(7)), at: $1, into: &$2) }
    #expect(master.catchUp == EventID(7))
    master.finishCatchUp(limit: 5)
    #expect(master.catchUp == EventID(12))
    #expect(!master.core.isServing && master.toRouter.isEmpty)
    master.finishCatchUp(limit: 5)
    master.finishCatchUp(limit: 5)
    #expect(master.core.isServing)
    #expect(master.core.head == log.head)
    #expect(master.notes == [.ready(head: log.head)])
    guard case .register(let registration) = master.toRouter.last else {
      Issue.record("not registered")
      return
    }
    #expect(registration.beat.head == log.head)
    #expect(registration.pid == 77)
  }

  @Test func refusesClientsUntilItHasReadTheLog() {
    let master = TestMaster(log: filledLog())
    master.turn { $0.start(at: $1, into: &$2) }
    master.send(.hello(Hello(client: ClientID(1), user: "alice", register: false, newest: .zero)), from: 1)
    #expect(code(master.told(1)[0]) == .unavailable)
    master.send(.ping, from: 1)
    #expect(code(master.told(1)[1]) == .noSession)
    master.expectAllAnswered()
  }

  @Test func aFailedReadingAtTheStartIsRepeated() {
    let master = TestMaster(log: filledLog())
    master.turn { $0.start(at: $1, into: &$2) }
    master.turn { $0.onSnapshot(Snapshot(), at: $1, into: &$2) }
    master.failCatchUp()
    #expect(!master.core.isServing)
    #expect(master.notes == [.storageFailed("disk error")])
    master.pass(.seconds(1))
    #expect(master.core.isServing)
    #expect(master.notes == [.storageFailed("disk error"), .storageWorksAgain, .ready(head: master.log.head)])
  }

  @Test func routersAndMastersAreNotHeardBeforeItServes() {
    let log = filledLog()
    let master = TestMaster(log: log)
    master.turn { $0.start(at: $1, into: &$2) }
    master.turn { $0.onSnapshot(Snapshot(), at: $1, into: &$2) }
    master.hear(.roster(TestMaster.roster(1, ["master-2"])))
    master.hear(.registerAgain)
    master.hear(.probe(nonce: 1))
    master.hear(log.commit(.posted(AccountID(0), text: "x")))
    #expect(master.toRouter.isEmpty && master.mesh.isEmpty)
    master.finishCatchUp()
    #expect(master.core.head == log.head)
  }

  // MARK: Beats

  @Test func beatsSayHowItIs() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.send(.post(text: "hi"), from: 1)
    master.pass(.milliseconds(1_050))
    guard case .beat(let beat) = master.toRouter.last else {
      Issue.record("no beat")
      return
    }
    #expect(beat.head == EventID(2) && beat.sessions == 1)
    #expect((901...1_050).contains(beat.commitAge))
    #expect((1...1_050).contains(master.beats.last?.commitAge ?? 0))
    master.settle()
    master.pass(.milliseconds(1_000))
    #expect(master.beats.last?.commitAge == 0)
  }

  /// Found by seed 5998: a disk that had hung for five seconds came back, and the slave killed the master before its next beat.
  @Test func theEndOfALongCommitIsToldAtOnce() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.send(.post(text: "hi"), from: 1)
    master.pass(.milliseconds(4_300))
    #expect(master.beats.last!.commitAge > 3_000)
    let beats = (master.beats.count, master.toRouter.count)
    master.settle()
    #expect(master.beats.count == beats.0 + 1 && master.beats.last!.commitAge == 0)
    #expect(master.toRouter.count == beats.1 + 1)
    // The others go on as before.
    master.pass(.milliseconds(1_000))
    #expect(master.beats.count == beats.0 + 2)
    // One that took no time is told with the next beat.
    master.send(.post(text: "ho"), from: 1)
    master.settle()
    #expect(master.beats.count == beats.0 + 2)
  }

  @Test func beatsEveryHeartbeat() {
    let master = TestMaster.serving()
    let before = master.toRouter.count
    master.pass(.seconds(1))
    #expect(master.toRouter.count - before == 10)
  }

  /// Who kills after five seconds of silence need not hear ten times a second.
  @Test func beatsToItsSupervisorAreRarer() {
    let master = TestMaster.serving()
    let before = master.beats.count
    master.pass(.seconds(5))
    #expect(master.beats.count - before == 5)
  }

  @Test func answersProbesAndRegistersAgain() {
    let master = TestMaster.serving()
    master.hear(.probe(nonce: 99))
    #expect(master.toRouter.last == .alive(master.core.master, nonce: 99))
    master.hear(.registerAgain)
    guard case .register = master.toRouter.last else {
      Issue.record("not registered again")
      return
    }
  }

  @Test func repliesMeantForClientsAreIgnored() {
    let master = TestMaster.serving()
    let before = master.toRouter.count
    master.hear(.unavailable(number: 1, retryAfter: 5))
    master.hear(.refused(number: 0, Refusal(.limit, "too many masters")))
    #expect(master.toRouter.count == before && master.actions.isEmpty)
  }

  // MARK: Mesh

  @Test func joinsAndLeavesAsTheRosterSays() {
    let master = TestMaster.serving()
    master.hear(.roster(TestMaster.roster(1, ["master-1", "master-2", "master-3"], available: "master-2")))
    #expect(master.mesh.map(\.master.name) == ["master-2", "master-3"])
    #expect(master.catchUp != nil, "what they committed before they were heard is read")
    #expect(master.notes.suffix(3) == [.joined("master-2"), .joined("master-3"), .becameStandby])
    master.finishCatchUp()
    // The same again: nothing to do.
    master.hear(.roster(TestMaster.roster(2, ["master-1", "master-2", "master-3"], available: "master-2")))
    #expect(master.catchUp == nil && master.actions.isEmpty)
    master.hear(.roster(TestMaster.roster(3, ["master-1", "master-3"], available: "master-3")))
    #expect(master.mesh.map(\.master.name) == ["master-3"])
    #expect(master.catchUp != nil, "what the lost one could not tell is read")
  }

  /// No router of ours says so; and a shell can't join the same twice.
  @Test func aRosterThatNamesAMemberTwiceIsIgnored() {
    let master = TestMaster.serving()
    var roster = TestMaster.roster(1, ["master-1", "master-2"], available: "master-2")
    roster.members.append(roster.members[1])
    master.hear(.roster(roster))
    #expect(master.mesh.isEmpty && master.actions.isEmpty)
  }

  /// Accounts that there are not, or not the next one.
  @Test(arguments: [
    Change.posted(AccountID(7), text: "a"), .followed(AccountID(0), AccountID(7)),
    .unfollowed(AccountID(7), AccountID(0)),
    .accountCreated(AccountID(3), name: "x"), .accountCreated(AccountID(0), name: "x"),
  ])
  func whatCannotFollowTheLogIsReadThere(change: Change) {
    let log = filledLog()
    let master = TestMaster.serving(log: log)
    let head = log.head
    master.hear([Event(id: head.next, time: Timestamp(milliseconds: .max), request: nil, change: change)])
    #expect(master.core.head == head)
    #expect(master.catchUp == head)
    master.finishCatchUp()
    master.hear(log.commit(.posted(AccountID(0), text: "b")))
    #expect(master.core.head == log.head)
  }

  @Test func aLaterLifeOfAMasterIsJoinedAnew() {
    let master = TestMaster.serving()
    master.hear(.roster(TestMaster.roster(1, ["master-1", "master-2"])))
    master.finishCatchUp()
    master.hear(.roster(TestMaster.roster(2, ["master-1", "master-2"], incarnation: 2_000)))
    #expect(master.mesh.map(\.master.incarnation) == [Incarnation(2_000)])
    let order = master.actions.compactMap { action -> String? in
      switch action {
      case .joinMesh: "join"
      case .leaveMesh: "leave"
      default: nil
      }
    }
    #expect(order == ["leave", "join"])
  }

  @Test func appliesWhatAnotherMasterPublishes() {
    let log = filledLog()
    let master = TestMaster.serving(log: log)
    master.hear(log.commit(.accountCreated(AccountID(1), name: "bob"), .posted(AccountID(1), text: "a")))
    #expect(master.core.head == log.head)
    #expect(master.catchUp == nil)
    #expect(master.core.state.account(named: "bob") == AccountID(1))
  }

  @Test func whatIsHeardTwiceOrOverlapsIsAppliedOnce() {
    let log = filledLog()
    let master = TestMaster.serving(log: log)
    let one = log.commit(.posted(AccountID(0), text: "a"), .posted(AccountID(0), text: "b"))
    let two = log.commit(.posted(AccountID(0), text: "c"))
    master.hear(one)
    master.hear(one)
    master.hear(one + two)
    master.hear(Array(one.suffix(1)))
    #expect(master.core.head == log.head)
    #expect(master.catchUp == nil)
    master.hear([])
  }

  @Test func aHoleIsReadBeforeWhatFollows() {
    let log = filledLog()
    let master = TestMaster.serving(log: log)
    let head = log.head
    log.commit(.posted(AccountID(0), text: "not heard"))
    master.hear(log.commit(.posted(AccountID(0), text: "heard")))
    #expect(master.catchUp == head)
    #expect(master.core.head == head)
    master.finishCatchUp()
    #expect(master.core.head == log.head)
    #expect(master.catchUp == nil)
  }

  /// The reading under way may have begun before what was announced was committed.
  @Test func aHoleFoundWhileReadingIsReadOnceMore() {
    let log = filledLog()
    let master = TestMaster.serving(log: log)
    log.commit(.posted(AccountID(0), text: "not heard"))
    master.hear(log.commit(.posted(AccountID(0), text: "heard")))
    let seen = log.head
    log.commit(.posted(AccountID(0), text: "not heard either"))
    master.hear(log.commit(.posted(AccountID(0), text: "heard too")))
    master.finishCatchUp(upTo: seen)
    #expect(master.catchUp == seen)
    master.finishCatchUp()
    #expect(master.core.head == log.head)
    #expect(master.catchUp == nil)
  }

  @Test func aBatchThatFitsIsAppliedWhileAReadingIsUnderWay() {
    let log = filledLog()
    let master = TestMaster.serving(log: log)
    master.hear(.roster(TestMaster.roster(1, ["master-1", "master-2"])))
    #expect(master.catchUp != nil)
    master.hear(log.commit(.posted(AccountID(0), text: "x")))
    #expect(master.core.head == log.head)
    master.finishCatchUp()
    #expect(master.core.head == log.head)
  }

  @Test func looksForWhatNobodyAnnounced() {
    let log = filledLog()
    let master = TestMaster.serving(log: log)
    log.commit(.posted(AccountID(0), text: "its master died before it could tell"))
    master.pass(.seconds(2))
    #expect(master.core.head == log.head)
    #expect(master.notes.contains(.holeRead(from: log.head, to: log.head)))
  }

  // MARK: The chair

  @Test func gainsAndLosesTheChair() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.login("bob", from: 2)
    master.hear(.roster(TestMaster.roster(1, ["master-1"], available: "master-1", term: 4)))
    #expect(master.notes.last == .becameAvailable(term: 4))
    master.pass(.milliseconds(100))
    guard case .beat(let beat) = master.toRouter.last else {
      Issue.record("no beat")
      return
    }
    #expect(beat.term == 4 && beat.roster == 1)
    master.hear(.roster(TestMaster.roster(2, ["master-1", "master-2"], available: "master-2", term: 5)))
    #expect(master.notes.last == .becameStandby)
    #expect(master.told(1).last == .goodbye && master.told(2).last == .goodbye)
    #expect(master.core.sessionCount == 0)
    master.settle()
    master.pass(.milliseconds(100))
    guard case .beat(let later) = master.toRouter.last else {
      Issue.record("no beat")
      return
    }
    #expect(later.term == 0 && later.roster == 2)
  }

  @Test func anEmptyChairSendsNobodyAway() {
    let master = TestMaster.serving()
    master.hear(.roster(TestMaster.roster(1, ["master-1"], available: "master-1")))
    master.login("alice", from: 1)
    master.hear(.roster(TestMaster.roster(2, [], available: nil)))
    #expect(master.notes.last == .becameStandby)
    #expect(master.core.sessionCount == 1)
    #expect(done(master.ask(.post(text: "still served"), from: 1)) != nil)
  }

  @Test func aStandbyServesWhoeverIsSentToIt() {
    let master = TestMaster.serving()
    master.hear(.roster(TestMaster.roster(1, ["master-1", "master-2"], available: "master-2")))
    master.settle()
    #expect(isWelcome(master.login("alice", from: 1)))
    master.hear(.roster(TestMaster.roster(2, ["master-1", "master-2", "master-3"], available: "master-2")))
    #expect(master.core.sessionCount == 1)
  }

  @Test func thereIsNoChairWhenAllServe() {
    let master = TestMaster.serving(assignment: .spread)
    master.login("alice", from: 1)
    master.hear(.roster(TestMaster.roster(1, ["master-1", "master-2"])))
    master.hear(.roster(TestMaster.roster(2, ["master-1"])))
    #expect(master.core.sessionCount == 1)
    #expect(!master.notes.contains(.becameStandby))
  }

  // MARK: End

  @Test func stopsAtOnceWhenNothingIsUnderWay() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(master.toRouter.last == .leave(master.core.master))
    #expect(master.told(1).last == .goodbye)
    #expect(master.hasExited)
    master.expectAllAnswered()
  }

  @Test func stopsAfterTheCommitUnderWay() throws {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.login("bob", from: 2)
    master.send(.post(text: "under way"), from: 1)
    master.send(.post(text: "behind it"), from: 2)
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(!master.hasExited)
    master.send(.post(text: "too late"), from: 1)
    #expect(code(master.told(1).last!) == .unavailable)
    master.send(.hello(Hello(client: ClientID(5), user: "carol", register: true, newest: .zero)), from: 3)
    #expect(code(master.told(3).last!) == .unavailable)
    master.send(.ping, from: 1)
    let head = master.log.head
    master.finishCommit()
    #expect(!master.hasExited)
    master.finishCommit()
    #expect(master.hasExited)
    let last = head.advanced(by: 2)
    #expect(master.told(1).suffix(2) == [.done(head.next), .goodbye])
    #expect(master.told(2).suffix(2) == [.done(last), .goodbye])
    #expect(master.broadcasts.last?.last?.id == last)
    #expect(master.log.head == last, "nothing new was committed")
    master.expectAllAnswered()
  }

  @Test func whatWaitsIsRefusedAtAStop() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.log.commit(.posted(AccountID(0), text: "not heard"))
    master.hear(master.log.commit(.posted(AccountID(0), text: "heard")))
    master.send(.post(text: "waits until the hole is read"), from: 1)
    #expect(master.commit == nil)
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(master.hasExited)
    #expect(code(master.told(1).dropLast().last!) == .unavailable, "repeated elsewhere")
    master.expectAllAnswered()
  }

  @Test func stopsWhenTheCommitUnderWayComesTooLate() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.send(.post(text: "mine"), from: 1)
    master.log.commit(.posted(AccountID(0), text: "another master's"))
    master.turn { $0.stop(at: $1, into: &$2) }
    master.finishCommit()
    #expect(master.hasExited)
    #expect(code(master.told(1).dropLast().last!) == .unavailable)
    master.expectAllAnswered()
  }

  @Test func stopsWhenTheCommitUnderWayFails() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.send(.post(text: "mine"), from: 1)
    master.turn { $0.stop(at: $1, into: &$2) }
    master.failCommit()
    #expect(master.hasExited)
    master.expectAllAnswered()
  }

  @Test func beatsItsSlaveWhileItStops() {
    let master = TestMaster.serving()
    master.login("alice", from: 1)
    master.send(.post(text: "slow"), from: 1)
    master.turn { $0.stop(at: $1, into: &$2) }
    let count = master.toRouter.count
    let beats = master.beats.count
    master.pass(.milliseconds(1_100))
    #expect(master.toRouter.count == count, "the router has been told to leave it alone")
    #expect(master.beats.count > beats)
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(!master.hasExited)
  }

  @Test func stopsBeforeItServes() {
    let master = TestMaster()
    master.turn { $0.start(at: $1, into: &$2) }
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(master.hasExited)
  }

  @Test func aHeldLoginIsRefusedAtTheStop() {
    let master = TestMaster.serving()
    master.send(.hello(Hello(client: ClientID(1), user: "a", register: true, newest: EventID(9))), from: 1)
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(code(master.told(1).last!) == .unavailable)
    master.expectAllAnswered()
  }
}
