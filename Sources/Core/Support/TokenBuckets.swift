// Two ways of counting what somebody may do per time. Both are the generic cell rate algorithm (ITU-T I.371), which is a token
// bucket that remembers one point in time: when the bucket will be full again.

import Model

/// Buckets by key, in bounded memory: a bucket that is full again is forgotten.
struct KeyedBuckets<Key: Hashable & Sendable>: Sendable {
  let burst: Int
  /// For one token to come back.
  let every: Interval
  private let keysMax: Int
  private var fullAt: [Key: Instant] = [:]

  init(burst: Int, every: Interval, keysMax: Int) {
    self.burst = burst
    self.every = every
    self.keysMax = keysMax
  }

  /// Takes a token; if there is none, returns how long it will be until there is.
  mutating func take(_ key: Key, at now: Instant) -> Interval? {
    let before = max(fullAt[key] ?? now, now)
    let wait = before + every - now - every * Int64(burst)
    guard wait <= .zero else { return wait }
    if fullAt[key] == nil, fullAt.count >= keysMax {
      // Those that have taken a token or less lose least.
      fullAt = fullAt.filter { $0.value > now + every }
      guard fullAt.count < keysMax else { return every }
    }
    fullAt[key] = before + every
    return nil
  }

  /// A token taken was not used.
  mutating func giveBack(_ key: Key, at now: Instant) {
    guard let time = fullAt[key] else { return }
    fullAt[key] = time - every > now ? time - every : nil
  }
}

/// A bucket an account, in an array: looked at for each request.
struct AccountRates: Sendable {
  private let every: Int64
  private let burst: Int64
  private var fullAt: [Int64] = []

  init(perSecond: Int) {
    every = max(1, 1_000_000_000 / Int64(max(1, perSecond)))
    burst = every * Int64(max(1, perSecond)) * 2
  }

  /// Takes a token of the account; if there is none, returns how long it will be until there is.
  mutating func take(_ account: AccountID, at now: Instant) -> Interval? {
    let index = account.index
    if index >= fullAt.count { fullAt.append(contentsOf: repeatElement(0, count: index + 64 - fullAt.count)) }
    let after = max(fullAt[index], now.nanoseconds) + every
    let wait = after - now.nanoseconds - burst
    guard wait <= 0 else { return Interval(nanoseconds: wait) }
    fullAt[index] = after
    return nil
  }
}
