// Counting what somebody may do per time.

import Model
import Testing

@testable import Core

@Suite struct TokenBucketsTests {
  private let start = Instant(nanoseconds: 5_000_000_000)

  @Test func aBurstThenOneAtATime() {
    var buckets = KeyedBuckets<String>(burst: 3, every: .seconds(10), keysMax: 10)
    for _ in 0..<3 { #expect(buckets.take("a", at: start) == nil) }
    #expect(buckets.take("a", at: start) == .seconds(10))
    #expect(buckets.take("a", at: start + .seconds(4)) == .seconds(6))
    #expect(buckets.take("b", at: start) == nil)
    #expect(buckets.take("a", at: start + .seconds(10)) == nil)
    #expect(buckets.take("a", at: start + .seconds(11)) == .seconds(9))
    for _ in 0..<3 { #expect(buckets.take("a", at: start + .seconds(60)) == nil) }
    #expect(buckets.take("a", at: start + .seconds(60)) != nil)
  }

  @Test func whatIsGivenBackCanBeTakenAgain() {
    var buckets = KeyedBuckets<String>(burst: 2, every: .seconds(10), keysMax: 10)
    for _ in 0..<50 {
      #expect(buckets.take("a", at: start) == nil)
      buckets.giveBack("a", at: start)
    }
    buckets.giveBack("a", at: start)
    for _ in 0..<2 { #expect(buckets.take("a", at: start) == nil) }
    #expect(buckets.take("a", at: start) != nil)
  }

  /// A flood of keys makes room for itself by what has been taken from least.
  @Test func theKeysAreLimited() {
    var buckets = KeyedBuckets<Int>(burst: 3, every: .seconds(10), keysMax: 100)
    for _ in 0..<3 { #expect(buckets.take(-1, at: start) == nil) }
    for key in 0..<1_000 { #expect(buckets.take(key, at: start) == nil) }
    #expect(buckets.take(-1, at: start) != nil, "who has used it up is not forgotten")
    for key in 0..<1_000 { for _ in 0..<3 { _ = buckets.take(key, at: start) } }
    #expect(buckets.take(5_000, at: start) != nil, "no room")
    #expect(buckets.take(5_000, at: start + .seconds(60)) == nil)
  }

  @Test func anAccountsRate() {
    var rates = AccountRates(perSecond: 100)
    let account = AccountID(1_000)
    for _ in 0..<200 { #expect(rates.take(account, at: start) == nil) }
    #expect(rates.take(account, at: start) == .milliseconds(10))
    #expect(rates.take(AccountID(0), at: start) == nil)
    var taken = 0
    for millisecond in 1...1_000 as ClosedRange<Int64> {
      if rates.take(account, at: start + .milliseconds(millisecond)) == nil { taken += 1 }
    }
    #expect(taken == 100)
  }
}
