// Times and spans of time, at their edges too.

import Model
import Testing

@Suite struct TimeTests {
  @Test func instantsSaturateInsteadOfOverflowing() {
    #expect(Instant(nanoseconds: .max - 5) + Interval(nanoseconds: 10) == .distantFuture)
    #expect(Instant.distantFuture + .seconds(1) == .distantFuture)
    #expect(Instant.distantFuture + .zero == .distantFuture)
    #expect(Instant.zero + Interval(nanoseconds: .max) == .distantFuture)
  }

  @Test func instantsSubtract() {
    #expect(Instant(nanoseconds: 7) - Instant(nanoseconds: 10) == Interval(nanoseconds: -3))
    #expect(Instant(nanoseconds: 7) - Interval(nanoseconds: 10) == Instant(nanoseconds: -3))
    #expect(Instant.distantFuture - Instant.zero == Interval(nanoseconds: .max))
  }

  @Test func millisecondsAreRoundedUp() {
    #expect(Interval(nanoseconds: 0).milliseconds == 0)
    #expect(Interval(nanoseconds: 1).milliseconds == 1)
    #expect(Interval(nanoseconds: 1_000_000).milliseconds == 1)
    #expect(Interval(nanoseconds: 1_000_001).milliseconds == 2)
    #expect(Interval(nanoseconds: -1).milliseconds == 0)
    #expect(Interval(nanoseconds: -1_000_001).milliseconds == -1)
  }

  /// A deadline in the distant future is told in milliseconds too.
  @Test func theLongestIntervalHasMilliseconds() {
    #expect((Instant.distantFuture - .zero).milliseconds == Int64.max / 1_000_000 + 1)
  }

  @Test func durationsConvert() {
    #expect(Interval(.milliseconds(1_500)) == .milliseconds(1_500))
    #expect(Interval(.nanoseconds(1)) == Interval(nanoseconds: 1))
    #expect(Interval(.milliseconds(-20)) == .milliseconds(-20))
  }

  @Test func intervalsCalculate() {
    #expect(Interval.seconds(1) / 4 == .milliseconds(250))
    #expect(Interval.milliseconds(3) * 4 == .microseconds(12_000))
    #expect(Interval.seconds(1) - .milliseconds(1) == .milliseconds(999))
    #expect(Interval.milliseconds(1) < .seconds(1))
  }

  @Test func theDefaultsAreTheDesigns() {
    let timing = Timing()
    #expect(timing.heartbeat == .milliseconds(100))
    #expect(timing.liveness == .milliseconds(500))
    #expect(timing.hangTimeout == .seconds(5))
    #expect(timing.respawnDelay == .seconds(25))
    #expect(timing.requestTimeout == .seconds(2))
  }
}
