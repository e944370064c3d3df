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
    #expect(gathering.wait(with: 1, at: start) == nil, "14 of 16")
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

  /// Three quarters of what syncing took, less what sleeping costs.
  @Test func itIsShortBesideASync() {
    var gathering = gathering(answering: [1, 1])
    let syncing = Interval.milliseconds(2) - Gathering.eventCost * 2
    #expect(gathering.wait(with: 1, at: start) == start + (syncing * 3 / 4 - Gathering.sleepCost))
    #expect(gathering.wait(with: 1, at: start + .milliseconds(2)) == nil)
    for took in [Interval.zero, .microseconds(150), .milliseconds(-1)] {
      var gathering = self.gathering(answering: [1], after: took)
      #expect(gathering.wait(with: 1, at: start) == nil, "a disk so fast")
    }
    gathering = self.gathering(answering: [1], after: .seconds(10))
    #expect(gathering.wait(with: 1, at: start) == start + Gathering.waitMax)
  }

  @Test func nobodyWaitsBehindManyRequests() {
    let most = Array(repeating: 1, count: Gathering.requestsMax) as [PeerID]
    var gathering = gathering(answering: most)
    #expect(gathering.wait(with: 1, at: start) != nil)
    gathering = self.gathering(answering: most + [1])
    #expect(gathering.wait(with: 1, at: start) == nil)
    gathering = self.gathering(answering: [1])
    #expect(gathering.wait(with: most.count, at: start) != nil)
    #expect(gathering.wait(with: most.count + 1, at: start) == nil, "enough for a commit")
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
    finishCommit(master)
    master.expectAllAnswered()
  }

  @Test func whoDoesNotComeBackIsNotWaitedForLong() {
    let master = gathers()
    master.pass(.milliseconds(1))
    #expect(master.commit?.events.count == 1)
    finishCommit(master)
    // The next ones don't wait.
    master.send(.post(text: "3"), from: 1)
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
