// Who is alive, who has the chair, and where clients are sent.

import Model
import Testing

@testable import Core

@Suite struct RouterMembershipTests {
  @Test func mastersRegisterAndAreToldOfEachOther() {
    let router = TestRouter()
    router.fill(3)
    #expect(router.lastRoster?.members.map(\.master.name) == ["master-1", "master-2", "master-3"])
    #expect(router.lastRoster?.members[0].log == "tcp://master-1/l")
    #expect(router.notes.first == .registered(TestRouter.identity("master-1", 1_001), requests: "tcp://master-1/r"))
    #expect(router.core.status.pid == 3)
    #expect(router.core.status.masters.map(\.state) == [.available, .standby, .standby])
    let first = router.core.status.masters[0]
    #expect(first.head == EventID(9) && first.sessions == 4 && first.pid == 50)
  }

  @Test func aBeatOfNobodyKnownIsToldToRegister() {
    let router = TestRouter()
    router.beating["master-1"] = (TestRouter.identity("master-1"), 1)
    router.beat("master-1")
    #expect(router.actions == [.send(.registerAgain, to: 1)])
  }

  @Test func beatsKeepAMasterAlive() {
    let router = TestRouter()
    router.fill(2)
    router.pass(.seconds(20))
    #expect(!router.notes.contains { if case .lost = $0 { true } else { false } })
    #expect(router.located() == "master-1")
  }

  @Test func silenceEndsALease() {
    let router = TestRouter()
    router.fill(2)
    let lost = router.beating.removeValue(forKey: "master-1")!
    router.pass(.milliseconds(499))
    #expect(router.located() == "master-1")
    router.pass(.milliseconds(10))
    #expect(router.notes.contains(.lost(lost.master, .silent)))
    #expect(router.located() == "master-2")
    #expect(router.lastRoster?.members.map(\.master.name) == ["master-2"])
  }

  @Test func aMasterLeaves() {
    let router = TestRouter()
    router.fill(2)
    router.request(.leave(TestRouter.identity("master-1", 999)), from: 1)
    #expect(router.located() == "master-1", "an earlier life's goodbye means nothing")
    router.request(.leave(TestRouter.identity("master-1", 1_001)), from: 1)
    router.beating["master-1"] = nil
    #expect(router.notes.contains(.lost(TestRouter.identity("master-1", 1_001), .left)))
    #expect(router.located() == "master-2")
    #expect(router.core.status.masters.map(\.state) == [.down, .available])
    router.request(.leave(TestRouter.identity("nobody")), from: 1)
  }

  @Test func aLaterLifeReplacesAnEarlierOne() {
    let router = TestRouter()
    router.fill(2)
    router.register("master-1", incarnation: 9_000, peer: 11)
    #expect(router.located() == "master-2", "a master that was started again does not get the chair back")
    router.beating["old"] = (TestRouter.identity("master-1", 1_001), 1)
    router.beat("old")
    #expect(router.actions.isEmpty, "the earlier life is not asked to register")
    router.beating["old"] = nil
    router.register("master-1", incarnation: 1_001, peer: 1, beats: false)
    #expect(
      router.notes.last == .refused(name: "master-1", reason: "an earlier life of a master that has been started again")
    )
    #expect(router.core.status.masters[0].master == TestRouter.identity("master-1", 9_000))
  }

  @Test func aMasterThatComesBackFromAnotherConnection() {
    let router = TestRouter()
    router.fill(1)
    router.register("master-1", incarnation: 1_001, peer: 31)
    #expect(router.core.status.masters[0].state == .available)
    router.locate(suspect: TestRouter.identity("master-1", 1_001))
    #expect(router.probes(to: 31).count == 1)
  }

  @Test func mastersAreLimited() {
    let router = TestRouter()
    for number in 0..<Limits.masters { router.register("m\(number)", peer: PeerID(UInt32(number)), beats: false) }
    router.register("one-more", peer: 500, beats: false)
    #expect(router.sent.contains { $0.peer == 500 && { if case .refused = $0 { true } else { false } }($0.reply) })
    #expect(router.core.status.masters.count == Limits.masters)
    router.register("m1", incarnation: 2_000, peer: 501, beats: false)
    #expect(router.core.status.masters[1].master.incarnation == Incarnation(2_000))
  }

  /// A master that missed a roster gets it with its next beat.
  @Test func anOldRosterIsAnsweredWithTheNewOne() throws {
    let router = TestRouter()
    router.fill(2)
    router.turn {
      $0.onRequest(
        .beat(
          MasterBeat(
            master: TestRouter.identity("master-2", 1_002), head: .zero, sessions: 0, commitAge: 0, term: 0, roster: 1)),
        from: 2, at: $1, into: &$2)
    }
    let roster = try #require(router.lastRoster)
    #expect(router.actions == [.send(.roster(roster), to: 2)])
    router.beat("master-2")
    #expect(router.actions.isEmpty)
  }

  @Test func rostersOfALaterLifeAreNewer() throws {
    let before = TestRouter(incarnation: 5_000)
    before.fill(4)
    let after = TestRouter(incarnation: 6_000)
    after.fill(1)
    let (earlier, later) = (try #require(before.lastRoster), try #require(after.lastRoster))
    #expect(later.version > earlier.version)
  }

  @Test func aStalledDiskIsRoutedAround() {
    let router = TestRouter()
    router.fill(3)
    router.beat("master-1", commitAge: 2_001)
    #expect(router.notes.contains(.lost(TestRouter.identity("master-1", 1_001), .diskStalls)))
    #expect(router.located() == "master-2")
    router.beat("master-1", commitAge: 2_500)
    #expect(router.core.status.masters[0].state == .down)
    router.beat("master-1")
    #expect(router.notes.last == .returned(TestRouter.identity("master-1", 1_001)))
    #expect(router.located() == "master-2", "it does not get the chair back")
  }

  /// When every disk stalls there is nobody better.
  @Test func allDisksStall() {
    let router = TestRouter()
    router.fill(2)
    router.beat("master-2", commitAge: 100)
    router.beat("master-1", commitAge: 2_001)
    #expect(router.located() == "master-1")
    router.beat("master-2", commitAge: 2_001)
    #expect(router.core.status.masters.map(\.state) == [.available, .standby])
  }

  // MARK: The router itself was away

  /// Frozen, suspended or starved: whatever the length, what waits in the sockets is heard before anybody is given up.
  @Test(arguments: [90, 350, 400, 450, 490, 499, 500, 510, 550, 590, 600, 650, 1_000, 5_000, 60_000] as [Int64])
  func aFrozenRouterEvictsNobody(milliseconds: Int64) {
    let router = TestRouter()
    router.fill(3)
    router.now = router.now + .milliseconds(milliseconds)
    router.turn()
    // The beats that came meanwhile.
    for name in ["master-1", "master-2", "master-3"] { router.beat(name) }
    router.pass(.seconds(1))
    #expect(!router.notes.contains { if case .lost = $0 { true } else { false } })
    #expect(router.located() == "master-1")
  }

  @Test(arguments: [50, 95, 100, 104, 110, 150, 250, 3_000] as [Int64])
  func aFrozenRouterFailsNoProbe(milliseconds: Int64) {
    let router = TestRouter()
    router.fill(2)
    router.locate(suspect: TestRouter.identity("master-1", 1_001))
    let nonce = router.probes(to: 1).last!
    router.now = router.now + .milliseconds(milliseconds)
    router.turn()
    router.request(.alive(TestRouter.identity("master-1", 1_001), nonce: nonce), from: 1)
    #expect(router.answers[900].flatMap(router.name) == "master-1")
    router.expectAllAnswered()
  }

  /// After its absence a master that is really gone is still given up.
  @Test func theDeadAreFoundAfterAnAbsence() {
    let router = TestRouter()
    router.fill(2)
    router.beating["master-1"] = nil
    router.now = router.now + .seconds(10)
    router.turn()
    router.beat("master-2")
    router.pass(.seconds(11))
    #expect(router.located() == "master-2")
  }
}

@Suite struct RouterChairTests {
  @Test func theChairGoesToTheLongestLived() {
    let router = TestRouter()
    router.register("b", incarnation: 20, peer: 1)
    router.register("c", incarnation: 10, peer: 2)
    router.register("a", incarnation: 20, peer: 3)
    #expect(router.locate() != nil && router.located() == nil, "not before everybody had time to come")
    router.pass(.milliseconds(300))
    #expect(router.located() == "c")
    #expect(router.lastRoster?.term == 1)
    #expect(router.notes.last == .chosen(TestRouter.identity("c", 10), term: 1))
  }

  @Test func theFirstAfterTheGraceGetsItAtOnce() {
    let router = TestRouter()
    router.pass(.seconds(2))
    #expect(router.located() == nil)
    router.register("a", peer: 1)
    #expect(router.located() == "a")
  }

  @Test func theChairIsSticky() {
    let router = TestRouter()
    router.fill(3)
    router.beating["master-1"] = nil
    router.pass(.seconds(1))
    #expect(router.located() == "master-2")
    router.register("master-1", incarnation: 1_001, peer: 1)
    router.pass(.seconds(5))
    #expect(router.located() == "master-2")
    #expect(router.lastRoster?.term == 2)
  }

  @Test func nobodyIsLeft() {
    let router = TestRouter()
    router.fill(1)
    router.beating["master-1"] = nil
    router.pass(.seconds(1))
    #expect(router.notes.last == .nobodyAvailable)
    guard case .unavailable(_, let retryAfter) = router.locate() else {
      Issue.record("not refused")
      return
    }
    #expect(retryAfter == 200)
    router.register("master-1", incarnation: 1_001, peer: 1)
    #expect(router.located() == "master-1")
    #expect(router.lastRoster?.term == 2)
    #expect(router.core.nextWake != nil)
  }

  @Test func anUnknownClientOfAnEmptyRouterIsToldWhenToAsk() {
    let router = TestRouter()
    guard case .unavailable(_, let retryAfter) = router.locate() else {
      Issue.record("not refused")
      return
    }
    #expect((1...300).contains(retryAfter))
    #expect(router.locate(suspect: TestRouter.identity("gone")) != nil)
    #expect(router.core.nextWake == nil, "an idle router sleeps")
    router.expectAllAnswered()
  }

  // MARK: After a restart

  /// Beyond 2⁶³−1 nobody would understand a roster.
  @Test func aClaimAtTheLimitLeavesRoomForTheNextTerms() {
    let router = TestRouter()
    router.register("master-1", incarnation: 1, peer: 1)
    router.register("master-2", incarnation: 2, peer: 2, term: UInt64(Int64.max))
    router.pass(.seconds(1))
    router.beating["master-2"] = nil
    router.pass(.seconds(1))
    #expect(router.located() == "master-1")
    #expect(router.lastRoster!.term < UInt64(Int64.max))
  }

  @Test func aRestartedRouterKeepsTheChairAsItWas() {
    let router = TestRouter()
    router.register("master-1", incarnation: 1, peer: 1)
    router.register("master-2", incarnation: 2, peer: 2, term: 7)
    #expect(router.located() == "master-2", "its claim is enough")
    router.pass(.seconds(1))
    #expect(router.located() == "master-2")
    #expect(router.lastRoster?.term == 7)
    router.beating["master-2"] = nil
    router.pass(.seconds(1))
    #expect(router.located() == "master-1" && router.lastRoster?.term == 8)
  }

  /// A master that was frozen when the chair passed on still believes that it has it.
  @Test func theLatestClaimCounts() {
    let router = TestRouter()
    router.register("master-1", incarnation: 1, peer: 1, term: 6)
    router.register("master-2", incarnation: 2, peer: 2, term: 7)
    #expect(router.located() == "master-2")
    router.register("master-3", incarnation: 3, peer: 3, term: 5)
    router.pass(.seconds(1))
    #expect(router.located() == "master-2")
    #expect(router.lastRoster?.available?.name == "master-2")
  }

  /// It came after the grace: the chair is taken, and the term says who is right from now on.
  @Test func aClaimThatComesTooLate() throws {
    let router = TestRouter()
    router.register("master-1", incarnation: 1, peer: 1)
    router.pass(.seconds(1))
    #expect(router.located() == "master-1")
    router.register("master-2", incarnation: 2, peer: 2, term: 7)
    #expect(router.located() == "master-1")
    let roster = try #require(router.lastRoster)
    #expect(roster.term > 7, "it would be believed again after the next restart")
  }

  @Test func noTermIsTooGreat() {
    let router = TestRouter()
    router.register("master-1", incarnation: 1, peer: 1, term: .max)
    router.register("master-2", incarnation: 2, peer: 2, term: .max)
    router.pass(.seconds(1))
    router.beating["master-1"] = nil
    router.pass(.seconds(1))
    #expect(router.located() == "master-2")
  }

  // MARK: All serve

  @Test func usersAreSpreadAndOnlyTheDeadOnesMove() {
    let router = TestRouter(assignment: .spread)
    router.fill(8)
    let users = (0..<400).map { "user\($0)" }
    let before = users.map { router.located($0)! }
    for name in Set(before) {
      #expect((20...90).contains(before.filter { $0 == name }.count), "\(name) has too few or many")
    }
    #expect(Set(before).count == 8)
    #expect(users.map { router.located($0)! } == before)
    router.beating["master-3"] = nil
    router.pass(.seconds(1))
    let after = users.map { router.located($0)! }
    for (old, new) in zip(before, after) {
      if old != "master-3" { #expect(new == old) } else { #expect(new != "master-3") }
    }
    router.register("master-3", incarnation: 1_003, peer: 3)
    #expect(users.map { router.located($0)! } == before)
    #expect(router.core.status.masters.allSatisfy { $0.state == .serving })
    #expect(router.lastRoster?.available == nil && router.lastRoster?.term == 0)
  }

  /// The same on every machine, for as long as there are clusters: golden values.
  @Test func weightsAreStable() {
    #expect(RouterCore.weight(of: "master-1", for: "alice") != RouterCore.weight(of: "master-2", for: "alice"))
    #expect(RouterCore.weight(of: "ab", for: "c") != RouterCore.weight(of: "a", for: "bc"))
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in Array("m".utf8) + [0xff] + Array("u".utf8) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    #expect(RouterCore.weight(of: "m", for: "u") == SplitMix64.mix(hash))
  }
}

@Suite struct RouterSuspectTests {
  private let suspect = TestRouter.identity("master-1", 1_001)

  @Test func aHealthySuspectIsKept() {
    let router = TestRouter()
    router.fill(2)
    router.answering = ["master-1"]
    #expect(router.located(suspect: suspect, failures: 1) == "master-1")
    #expect(router.core.status.masters[0].state == .available)
    router.expectAllAnswered()
  }

  @Test func whoFailsAgainAndAgainAtAHealthyMasterIsSentToAnother() {
    let router = TestRouter()
    router.fill(2)
    router.answering = ["master-1"]
    #expect(router.located(suspect: suspect, failures: Limits.failuresAtMaster - 1) == "master-1")
    #expect(router.located(suspect: suspect, failures: Limits.failuresAtMaster) == "master-2")
    #expect(router.located("bob") == "master-1", "the others stay")
  }

  @Test func whoFailsAgainAndAgainAtTheOnlyMasterIsSentThereAgain() {
    let router = TestRouter()
    router.fill(1)
    router.answering = ["master-1"]
    #expect(router.located(suspect: suspect, failures: 5) == "master-1")
  }

  @Test func anUnroutableSuspectIsGivenUpAtOnce() {
    let router = TestRouter()
    router.fill(2)
    router.beating["master-1"] = nil
    #expect(router.locate(suspect: suspect, failures: 1) == nil)
    router.unroutable(1)
    #expect(router.answers[900].flatMap(router.name) == "master-2")
    #expect(router.notes.contains(.lost(suspect, .unreachable)))
    router.expectAllAnswered()
  }

  @Test func anUnroutableMasterThatNobodySuspectsHasItsLease() {
    let router = TestRouter()
    router.fill(2)
    router.unroutable(1)
    router.unroutable(777)
    #expect(router.located() == "master-1")
  }

  @Test func aHungSuspectMissesItsProbe() {
    let router = TestRouter()
    router.fill(2)
    router.beating["master-1"] = nil
    router.locate(suspect: suspect, failures: 1)
    router.pass(.milliseconds(350))
    #expect(router.answers[900] == nil)
    #expect(router.probes(to: 1).count > 2, "a dead peer's connection may take a moment to be noticed")
    #expect(Set(router.probes(to: 1)).count == 1)
    router.pass(.milliseconds(160))
    #expect(router.answers[900].flatMap(router.name) == "master-2")
    #expect(router.notes.contains { if case .lost(suspect, _) = $0 { true } else { false } })
    router.expectAllAnswered()
  }

  /// It is slow to answer, as on a busy machine; but it can't be hung.
  @Test func aSuspectThatGoesOnBeatingIsKept() {
    let router = TestRouter()
    router.fill(2)
    router.locate(suspect: suspect, failures: 1)
    router.pass(.milliseconds(90))
    #expect(router.answers[900] == nil, "a beat so early may have been sent before it hung")
    router.pass(.milliseconds(120))
    #expect(router.answers[900].flatMap(router.name) == "master-1")
    router.pass(.seconds(2))
    #expect(router.core.status.masters[0].state == .available)
    router.expectAllAnswered()
  }

  /// Its loop lives, its disk does not: who waits for the probe is not sent there.
  @Test func aSuspectWhoseDiskStallsIsNotTakenForHealthy() {
    let router = TestRouter()
    router.fill(2)
    router.beating["master-1"] = nil
    router.locate(suspect: suspect, failures: 1)
    router.pass(.milliseconds(150))
    let last = MasterBeat(
      master: suspect, head: EventID(9), sessions: 4, commitAge: 2_001, term: 0, roster: 0)
    router.request(.beat(last), from: 1)
    #expect(router.answers[900].flatMap(router.name) == "master-2")
    router.expectAllAnswered()
  }

  @Test func manyWaitForOneProbe() {
    let router = TestRouter()
    router.fill(2)
    for peer in 901...950 as ClosedRange<UInt32> { router.locate(suspect: suspect, failures: 1, from: PeerID(peer)) }
    #expect(router.probes(to: 1).count == 1)
    router.request(.alive(suspect, nonce: router.probes(to: 1)[0]), from: 1)
    #expect(
      (901...950 as ClosedRange<UInt32>).allSatisfy { router.answers[PeerID($0)].flatMap(router.name) == "master-1" })
    let order = router.actions.compactMap { if case .send(.located, let peer) = $0 { peer.rawValue } else { nil } }
    #expect(order == Array(901...950), "in the order in which they asked")
    router.expectAllAnswered()
  }

  /// A client that has no answer yet asks again: it keeps its place and gets one answer.
  @Test func aQuestionAskedAgainWaitsInItsPlace() {
    let router = TestRouter()
    router.fill(2)
    router.beating["master-1"] = nil
    func ask(_ number: UInt64, from peer: PeerID) {
      router.request(.locate(Locate(number: number, user: "alice", suspect: suspect, failures: 1)), from: peer)
    }
    ask(7, from: 901)
    ask(7, from: 902)
    router.pass(.milliseconds(250))
    ask(7, from: 901)
    ask(8, from: 902)
    router.pass(.milliseconds(300))
    let answered = router.sent.compactMap { peer, reply -> [UInt64]? in
      if case .located(let number, _) = reply { [UInt64(peer.rawValue), number] } else { nil }
    }
    #expect(answered == [[901, 7], [902, 7], [902, 8]])
  }

  @Test func aNameThatNobodyCanHaveIsRefused() {
    let router = TestRouter()
    router.fill(1)
    guard case .refused(_, let refusal) = router.locate(String(repeating: "a", count: Limits.nameBytes + 1)) else {
      Issue.record("not refused")
      return
    }
    #expect(refusal.code == .invalidText)
  }

  @Test func onlyTheRightAnswerCounts() {
    let router = TestRouter()
    router.fill(2)
    router.locate(suspect: suspect, failures: 1)
    let nonce = router.probes(to: 1)[0]
    router.request(.alive(suspect, nonce: nonce + 1), from: 1)
    router.request(.alive(TestRouter.identity("master-1", 999), nonce: nonce), from: 1)
    router.request(.alive(TestRouter.identity("master-2", 1_002), nonce: nonce), from: 2)
    #expect(router.answers[900] == nil)
    router.request(.alive(suspect, nonce: nonce), from: 1)
    #expect(router.answers[900] != nil)
    router.request(.alive(suspect, nonce: nonce), from: 1)
    router.expectAllAnswered()
  }

  @Test func aSuspectThatIsKnownToBeDownIsNotAsked() {
    let router = TestRouter()
    router.fill(2)
    router.request(.leave(suspect), from: 1)
    router.beating["master-1"] = nil
    #expect(router.located(suspect: suspect, failures: 1) == "master-2")
    #expect(router.located(suspect: TestRouter.identity("master-2", 1)) == "master-2", "an earlier life's failure")
    #expect(router.located(suspect: TestRouter.identity("nobody")) == "master-2")
    #expect(router.probes(to: 1).isEmpty && router.probes(to: 2).isEmpty)
  }

  @Test func aSuspectThatIsStartedAgainMeanwhile() {
    let router = TestRouter()
    router.fill(2)
    router.locate(suspect: suspect, failures: 1)
    router.register("master-1", incarnation: 9_000, peer: 41)
    #expect(router.answers[900].flatMap(router.name) == "master-2")
    router.expectAllAnswered()
  }

  /// The chair became empty while the only other master was being asked whether it lives.
  @Test func theChairIsFilledWhenAProbeEndsWell() {
    let router = TestRouter()
    router.fill(2)
    router.locate(suspect: TestRouter.identity("master-2", 1_002), failures: 1)
    router.request(.leave(suspect), from: 1)
    router.beating["master-1"] = nil
    router.request(
      .alive(TestRouter.identity("master-2", 1_002), nonce: router.probes(to: 2).last!), from: 2)
    #expect(router.answers[900].flatMap(router.name) == "master-2")
    router.pass(.seconds(1))
    #expect(router.located() == "master-2")
    #expect(router.core.status.masters.map(\.state) == [.down, .available])
  }

  /// Both are suspected, and one is dead: the other is not lost for good.
  @Test func theChairIsFilledAfterADoubleSuspicion() {
    let router = TestRouter()
    router.fill(2)
    router.beating["master-1"] = nil
    router.answering = ["master-2"]
    router.locate(suspect: suspect, failures: 1, from: 901)
    router.locate(suspect: TestRouter.identity("master-2", 1_002), failures: 1, from: 902)
    router.pass(.seconds(1))
    #expect(router.located() == "master-2")
    router.expectAllAnswered()
  }

  /// Whatever happens in whatever order, every Locate is answered and the survivors serve.
  @Test(arguments: UInt64(0)..<20, [Assignment.available, .spread])
  func randomLives(seed: UInt64, assignment: Assignment) {
    var random = RandomSource.seeded(seed)
    let router = TestRouter(assignment: assignment)
    router.fill(4)
    router.answering = ["master-1", "master-2", "master-3", "master-4"]
    var incarnation: UInt64 = 2_000
    for _ in 0..<150 {
      let number = Int.random(in: 1...4, using: &random)
      let name = "master-\(number)"
      switch Int.random(in: 0..<7, using: &random) {
      case 0:
        router.beating[name] = nil
        if Bool.random(using: &random) { router.unroutable(PeerID(UInt32(number))) }
      case 1:
        incarnation += 1
        router.register(name, incarnation: incarnation, peer: PeerID(UInt32(number)))
      case 2, 3:
        let known = router.core.status.masters.randomElement(using: &random)!.master
        router.locate(
          "user\(number)", suspect: known, failures: UInt32.random(in: 0...3, using: &random),
          from: PeerID(UInt32.random(in: 900..<905, using: &random)))
      case 4: router.beat(name, commitAge: Bool.random(using: &random) ? 2_500 : 0)
      case 5:
        router.now = router.now + .milliseconds(Int64.random(in: 0...700, using: &random))
        router.turn()
      default: router.pass(.milliseconds(Int64.random(in: 0...300, using: &random)))
      }
    }
    incarnation += 1
    router.register("master-1", incarnation: incarnation, peer: 1)
    router.pass(.seconds(30))
    router.expectAllAnswered()
    #expect(router.located() != nil)
    let alive = router.core.status.masters.filter { $0.state != .down }.map(\.master.name)
    #expect(Set(alive) == Set(router.beating.keys))
  }

  /// The same events give the same orders in the same order, in every process.
  @Test func ordersAreDeterministic() {
    func orders() -> [[RouterAction]] {
      let router = TestRouter()
      var all: [[RouterAction]] = []
      for number in [5, 3, 9, 1] as [UInt32] {
        router.register("master-\(number)", incarnation: UInt64(number), peer: PeerID(number))
        all.append(router.actions)
      }
      router.pass(.milliseconds(300))
      all.append(router.actions)
      router.beating = [:]
      router.pass(.seconds(1))
      all.append(router.actions)
      return all
    }
    let one = orders()
    #expect(one == orders())
    let told = one[3].compactMap { if case .send(.roster, let peer) = $0 { peer.rawValue } else { nil } }
    #expect(told == [5, 3, 9, 1], "in the order of registration")
  }
}
