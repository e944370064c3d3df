// Timer tables, and one's own absence.

import Core
import Model
import Testing

@Suite struct TimerTableTests {
  enum Purpose: Int, CaseIterable, Sendable {
    case one
    case two
  }

  private func at(_ milliseconds: Int64) -> Instant { .zero + .milliseconds(milliseconds) }

  @Test func theEarliestComesFirst() {
    var timers = TimerTable<Purpose>()
    #expect(timers.next == nil && timers[.one] == nil)
    timers[.one] = at(20)
    timers[.two] = at(10)
    #expect(timers.next == at(10))
    // Not before its time, and once.
    let expired = [9, 10, 11].map { timers.expire(.two, at: at($0)) }
    #expect(expired == [false, true, false])
    #expect(timers.next == at(20))
    timers[.one] = nil
    #expect(timers.next == nil)
    let isExpired = timers.expire(.one, at: at(100))
    #expect(!isExpired)
  }
}

@Suite struct AbsenceMeterTests {
  private func at(_ milliseconds: Int64) -> Instant { .zero + .milliseconds(milliseconds) }

  @Test func aLateWakeUpIsAbsence() {
    var meter = AbsenceMeter(tolerance: .milliseconds(100))
    // The first turn; woken by input; a little late; late; nothing was planned.
    let turns: [(at: Int64, planned: Int64?)] = [(0, nil), (50, 60), (160, 60), (500, 200), (9_000, nil)]
    let away = turns.map { turn in meter.turn(at: at(turn.at), planned: turn.planned.map(at)) }
    #expect(away == [.zero, .zero, .zero, .milliseconds(340), .zero])
  }
}
