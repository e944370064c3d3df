// How long a commit waits for those whom the last one answered.

import Model
import Testing

@testable import Core

@Suite struct GatheringTests {
  private let start = Instant(nanoseconds: 1_000_000_000)

  private func gathering(answering peers: [PeerID], after took: Interval = .milliseconds(2)) -> Gathering {
    var gathering = Gathering()
    begin(&gathering, peers, took)
    return gathering
  }

  private func begin(_ gathering: inout Gathering, _ peers: [PeerID], _ took: Interval = .milliseconds(2)) {
    if gathering.begin(answering: peers.count, after: took, at: start) {
      for peer in peers { gathering.add(peer) }
    }
  }

  @Test func itEndsWhenNearlyAllAreBack() {
    let peers = Array(repeating: 1, count: 8) + Array(repeating: 2, count: 8) as [PeerID]
    var gathering = gathering(answering: peers)
    for peer in peers.dropFirst(2).dropLast() {
      gathering.onRequest(from: peer)
      #expect(gathering.wait(with: 1, at: start) != nil)
    }
    gathering.onRequest(from: 2)
    #expect(gathering.wait(with: 14, at: start) == nil, "14 of 16")
    #expect(gathering.nearlyAllAreBack)
    #expect(gathering.wait(with: 1, at: start) == nil)
  }

  @Test func onlyThoseWhoWereAnsweredCount() {
    var gathering = gathering(answering: [1, 2])
    for _ in 0..<100 { gathering.onRequest(from: 3) }
    for _ in 0..<100 { gathering.onRequest(from: 1) }
    #expect(gathering.wait(with: 1, at: start) != nil)
    gathering.onRequest(from: 2)
    #expect(gathering.wait(with: 1, at: start) == nil)
  }

  /// One and a half times what the commit took, its requests apart.
  @Test func itIsShortBesideACommit() {
    var gathering = gathering(answering: [1, 1])
    let cost = Interval.milliseconds(2) - Gathering.requestCost * 2
    let deadline = start + cost * 3 / 2
    #expect(gathering.wait(with: 1, at: start) == deadline)
    #expect(gathering.wait(with: 1, at: deadline - Interval(nanoseconds: 1)) == deadline)
    #expect(gathering.wait(with: 1, at: deadline) == nil)
    for took in [Interval.zero, .microseconds(2), .milliseconds(-1)] {
      var gathering = self.gathering(answering: [1], after: took)
      #expect(gathering.wait(with: 1, at: start) == nil, "a disk so fast")
    }
    gathering = self.gathering(answering: [1], after: .seconds(10))
    #expect(gathering.wait(with: 1, at: start) == start + Gathering.waitMax)
  }

  @Test func nobodyWaitsForManyRequests() {
    let most = Array(repeating: 1, count: Gathering.requestsMax) as [PeerID]
    var gathering = gathering(answering: most.dropLast())
    #expect(gathering.wait(with: 1, at: start) != nil)
    #expect(gathering.wait(with: 2, at: start) == nil, "another one has come")
    begin(&gathering, most)
    gathering.onRequest(from: 1)
    #expect(gathering.wait(with: 1, at: start) != nil, "whoever comes back makes it no more, and nothing was in vain")
    gathering = self.gathering(answering: most + [1])
    for _ in 0...most.count { gathering.onRequest(from: 1) }
    #expect(gathering.wait(with: 1, at: start) == nil)
  }

  @Test func itTellsWhetherNearlyAllAreBackAndFewOthersCame() {
    var gathering = gathering(answering: [1, 2, 3, 4])
    #expect(gathering.wait(with: 1, at: start) != nil)
    #expect(!gathering.nearlyAllAreBack)
    for peer in [1, 2, 3, 4] as [PeerID] { gathering.onRequest(from: peer) }
    #expect(gathering.wait(with: 5, at: start) == nil)
    #expect(gathering.nearlyAllAreBack)
    #expect(gathering.wait(with: 1, at: start) == nil)
    #expect(!gathering.nearlyAllAreBack, "nobody was waited for")

    begin(&gathering, [1])
    gathering.onRequest(from: 1)
    #expect(gathering.wait(with: 100, at: start) == nil)
    #expect(!gathering.nearlyAllAreBack, "a crowd has come")

    begin(&gathering, [1, 2])
    #expect(gathering.wait(with: 1, at: start + .seconds(1)) == nil)
    #expect(!gathering.nearlyAllAreBack, "in vain")
  }

  @Test func whoIsGoneIsNotWaitedFor() {
    var gathering = gathering(answering: [1, 2, 2])
    gathering.onRequest(from: 1)
    #expect(gathering.wait(with: 1, at: start) != nil)
    gathering.forget(3)
    #expect(gathering.wait(with: 1, at: start) != nil)
    gathering.forget(2)
    #expect(gathering.wait(with: 1, at: start) == nil)
  }

  /// One who is always back, and one who is there now and then.
  @Test func whoNeedsNoWaitDoesNotBringOthersIntoOne() {
    var gathering = Gathering()
    var waits = 0
    for commit in 0..<3_000 {
      begin(&gathering, commit % 2 == 0 ? [1, 2] : [1])
      gathering.onRequest(from: 1)
      if gathering.wait(with: 1, at: start) != nil {
        waits += 1
        #expect(gathering.wait(with: 1, at: start + .seconds(1)) == nil)
      }
    }
    #expect(waits > 0 && waits < 30)
  }

  @Test func whatIsInVainIsTriedMoreAndMoreRarely() {
    var gathering = Gathering()
    var waits: [Int] = []
    for commit in 0..<2_000 {
      begin(&gathering, [1, 2])
      if gathering.wait(with: 1, at: start) != nil {
        waits.append(commit)
        #expect(gathering.wait(with: 1, at: start + .seconds(1)) == nil)
      }
    }
    let gaps = zip(waits.dropFirst(), waits).map { $0 - $1 }
    #expect(gaps.prefix(9) == [2, 3, 5, 9, 17, 33, 65, 129, 257])
    #expect(gaps.dropFirst(9).allSatisfy { $0 == Gathering.pauseMax + 1 })

    // Once they are back, it is waited for them each time.
    var isBack = false
    for _ in 0..<1_000 {
      begin(&gathering, [1, 2])
      let waits = gathering.wait(with: 1, at: start) != nil
      if isBack { #expect(waits) }
      for peer in [1, 2] as [PeerID] { gathering.onRequest(from: peer) }
      #expect(gathering.wait(with: 1, at: start) == nil)
      isBack = isBack || waits
    }
    #expect(isBack)
  }

  // MARK: In a master

  /// Alice, at peer 1, has been answered; a post of bob's, at peer 2, waits for her.
  private func gathers() -> TestMaster {
    let master = TestMaster.serving()
    for (name, peer) in [("alice", 1), ("bob", 2)] as [(String, PeerID)] { master.login(name, from: peer) }
    master.pass(.milliseconds(100))
    master.send(.post(text: "1"), from: 1)
    finishCommit(master)
    master.send(.post(text: "2"), from: 2)
    #expect(master.commit == nil, "alice may be back at once")
    return master
  }

  /// A disk that takes a millisecond.
  private func finishCommit(_ master: TestMaster) {
    master.pass(.milliseconds(1))
    master.finishCommit()
  }

  @Test func thoseWhoAreAnsweredShareTheNextCommit() {
    let master = gathers()
    master.send(.post(text: "3"), from: 1)
    #expect(master.commit?.events.count == 2)
    #expect(!master.core.allAwaitOneCommit, "bob has not been waited for")
    finishCommit(master)
    master.send(.post(text: "4"), from: 2)
    #expect(master.commit == nil)
    master.send(.post(text: "5"), from: 1)
    #expect(master.commit?.events.count == 2)
    #expect(master.core.allAwaitOneCommit)
    finishCommit(master)
    master.expectAllAnswered()
  }

  @Test func whoDoesNotComeBackIsNotWaitedForLong() {
    let master = gathers()
    master.pass(.milliseconds(1))
    #expect(master.commit == nil)
    master.pass(.microseconds(500))
    #expect(master.commit?.events.count == 1)
    #expect(!master.core.allAwaitOneCommit)
    finishCommit(master)
    // The next ones don't wait.
    master.send(.post(text: "3"), from: 1)
    #expect(master.commit?.events.count == 1)
    finishCommit(master)
    master.expectAllAnswered()
  }

  @Test func whoLogsOutIsNotWaitedFor() {
    let master = gathers()
    master.send(.bye, from: 1)
    #expect(master.commit?.events.count == 1)
    finishCommit(master)
    master.expectAllAnswered()
  }

  @Test func whatWaitsForOthersIsRefusedByAMasterThatStops() {
    let master = gathers()
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(master.hasExited)
    master.expectAllAnswered()
  }
}
