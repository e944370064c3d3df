// How long requests wait for others, so that one sync does for all of them.

import Model

/// The wait between the end of a commit and the beginning of the next.
///
/// Whoever is answered often asks again at once. If a commit is begun for whoever is there already, the clients are in two groups that
/// take turns: each pays for a sync, and for all else that a commit costs whatever its size, while the other half waits for it in vain. Less
/// time is lost, and fewer processors are, by waiting for those whom the last commit answered: for one and a half times what that took,
/// its requests apart, at the most. (PostgreSQL's `commit_delay` is a fixed time; this wait ends as soon as nearly all are back.)
///
/// Where they don't come back in time, because they are far away or have nothing more to say, there is no wait for a
/// while, and for twice as long after each further one in vain.
///
/// They are told apart by their connections: of one that had more under way, what it had asked before it was answered counts as well. So a few
/// connections on which much comes, whatever is answered, are waited for, too.
struct Gathering: Sendable {
  /// What a request more costs a commit, besides what it costs without one (measured: 1 to 2 µs).
  static let requestCost = Interval.microseconds(2)
  /// A commit that would have more waits for nobody: while the log writes half of them, the others are read and answered, and that takes as long.
  static let requestsMax = 128
  /// Nobody waits longer, however slow the disk is.
  static let waitMax = Interval.milliseconds(5)
  /// Commits without a wait after one in vain: one at first, twice as many after each further one in a row, up to this.
  static let pauseMax = 256

  /// Whom the last commit answered, with the number of requests that they have not made since.
  private var awaited: [PeerID: Int] = [:]
  private var answered = 0
  private var returned = 0
  private var deadline = Instant.zero
  private var hasWaited = false
  private var pause = 0
  private var withoutWait = 0

  /// Whether the commit that `wait` let go has requests of nearly all whom the last one answered, and of few others: then hardly anybody will
  /// ask for anything before it ends.
  private(set) var nearlyAllAreBack = false

  /// A commit of so many requests, which took so long, has ended, and no other one is under way. Returns whether `add` is to be told who
  /// is answered.
  mutating func begin(answering count: Int, after took: Interval, at now: Instant) -> Bool {
    (answered, returned, hasWaited) = (0, 0, false)
    guard count <= Self.requestsMax else { return false }
    guard withoutWait == 0 else {
      withoutWait -= 1
      return false
    }
    awaited.removeAll(keepingCapacity: true)
    answered = count
    deadline = now + min((took - Self.requestCost * Int64(count)) * 3 / 2, Self.waitMax)
    return true
  }

  /// One of those who are answered.
  mutating func add(_ peer: PeerID) { awaited[peer, default: 0] += 1 }

  /// Nothing more will come from this peer.
  mutating func forget(_ peer: PeerID) {
    if returned < answered { answered -= awaited.removeValue(forKey: peer) ?? 0 }
  }

  /// A request that will be in the next commit, or is answered when that is made up.
  mutating func onRequest(from peer: PeerID) {
    guard returned < answered, let index = awaited.index(forKey: peer), awaited.values[index] > 0 else { return }
    awaited.values[index] -= 1
    returned += 1
  }

  /// Until when the next commit, of so many requests as yet, is to wait for others, as far as one knows now; nil: no longer. Asked whenever
  /// one could be begun.
  mutating func wait(with waiting: Int, at now: Instant) -> Instant? {
    nearlyAllAreBack = false
    guard answered > 0 else { return nil }
    // The last ones come while the others are read: to sleep until they are there takes longer than to leave them to the commit after this one.
    if 8 * returned >= 7 * answered {
      nearlyAllAreBack = 4 * waiting <= 5 * answered
      // Where nobody had to be waited for, nothing was learnt.
      if hasWaited { pause /= 2 }
    } else if waiting + answered - returned <= Self.requestsMax {
      if now < deadline {
        hasWaited = true
        return deadline
      }
      pause = min(max(1, 2 * pause), Self.pauseMax)
      withoutWait = pause
    }
    answered = 0
    return nil
  }
}
