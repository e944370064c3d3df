// What a run is expected to come across, counted: a simulation that never meets a situation proves nothing about it.

/// Something that has to be survived. Each run counts what it met; a test demands that a few hundred seeds meet everything.
package enum Situation: Int, CaseIterable, Sendable {
  // Processes
  case killedBetweenCommitAndAcknowledgement, frozenBetweenCommitAndAcknowledgement
  case killedWhileActing, frozenWhileActing
  case severalKilledAtOnce, hostLost, hostFrozen, everythingKilled
  case thawedAfterItsSuccessorTookOver, hungAndKilled, killedForHoldingTheTurn
  case routerRestarted, launcherRestarted, waitOutlivedItsSlave
  // The network
  case connectionLostUnnoticed, oneWayPartition, twoWayPartition, hostCutOff
  case updateDroppedAtTheMark, postBeforeTheSubscription, meshBatchLost
  // The disk
  case powerCutLostACommit, powerCutToreACommit, powerCutKeptACommit, indexLost, indexSetBack
  case diskFull, diskFailed, appendWasBehind, commitsBecameOne, commitsGivenUp
  // Clients
  case repeatedAtAnotherMaster, oldRepeatLookedUp, limitReached, slowReader, everybodyReconnected, visitorsCame
  case strangersGarbage, acknowledgedTogether
}

/// How often each situation was met.
package struct Situations: Sendable {
  package private(set) var counts = [Int](repeating: 0, count: Situation.allCases.count)

  package subscript(situation: Situation) -> Int { counts[situation.rawValue] }
  mutating func meet(_ situation: Situation) { counts[situation.rawValue] += 1 }
  mutating func add(_ other: Situations) { for index in counts.indices { counts[index] += other.counts[index] } }

  package var missing: [Situation] { Situation.allCases.filter { self[$0] == 0 } }
}
