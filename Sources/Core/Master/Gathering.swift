// How long requests wait for others, so that one sync does for all of them.

import Model

/// The wait between the end of a commit and the beginning of the next.
///
/// Whoever is answered often asks again at once. If a commit is begun for whoever is there already, the clients are in two groups that
/// take turns: each sync serves a half of them, while the other half waits for it in vain. Where syncing takes longer than answers and new
/// requests do, less time is lost by waiting for those whom the last commit answered: for three quarters of what syncing took then, at the
/// most, less what it costs to sleep meanwhile. (PostgreSQL's `commit_delay` is a fixed time; this wait ends as soon as nearly all are back.)
///
/// Where they don't come back in time, because the disk is fast, they are far away, or they have nothing more to say, there is no wait for a
/// while, and for twice as long after each further one in vain.
///
/// They are told apart by their connections: of one that had more under way, what it had asked before it was answered counts as well.
struct Gathering: Sendable {
  /// What a commit takes besides syncing, an event (measured: 1 to 2 µs).
  static let eventCost = Interval.microseconds(2)
  /// To sleep and to wake up, on a machine with much to do.
  static let sleepCost = Interval.microseconds(125)
  /// Behind a commit of more requests, and with more that could begin, there is no wait: while those are synced, as many others are read and
  /// answered, and that takes long, too.
  static let requestsMax = 64
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

  /// The last ones come while the others are read: to sleep until they are there costs more than a sync for them alone.
  private var isComplete: Bool { 8 * returned >= 7 * answered }

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
    let syncing = took - Self.eventCost * Int64(count)
    deadline = now + min(syncing * 3 / 4 - Self.sleepCost, Self.waitMax)
    return true
  }

  /// One of those who are answered.
  mutating func add(_ peer: PeerID) { awaited[peer, default: 0] += 1 }

  /// A request that will be in the next commit, or is answered when that is made up.
  mutating func onRequest(from peer: PeerID) {
    guard returned < answered, let index = awaited.index(forKey: peer), awaited.values[index] > 0 else { return }
    awaited.values[index] -= 1
    returned += 1
  }

  /// Until when the next commit, of so many requests as yet, is to wait for others, as far as one knows now; nil: no longer. Asked whenever
  /// one could be begun.
  mutating func wait(with waiting: Int, at now: Instant) -> Instant? {
    guard answered > 0 else { return nil }
    if !isComplete, waiting <= Self.requestsMax {
      if now < deadline {
        hasWaited = true
        return deadline
      }
      pause = min(max(1, 2 * pause), Self.pauseMax)
      withoutWait = pause
    } else if hasWaited {
      // Where nobody had to be waited for, nothing was learnt.
      pause /= 2
    }
    answered = 0
    return nil
  }
}
