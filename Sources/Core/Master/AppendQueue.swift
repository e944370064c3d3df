// The commits that wait for the log: those that wait together become one.

public import Model

/// A commit on its way to the log.
public struct Append: Hashable, Sendable {
  /// Contiguous; the first is the next after `after`.
  public var events: [Event]
  public var after: EventID
  /// Each commit of a series was validated on top of the one before: if one comes to nothing, so do those that follow it. Series are
  /// numbered in their order.
  public var series: UInt64
  /// How many of the core's commits these are.
  public var commits = 1

  public init(events: [Event], after: EventID, series: UInt64) {
    self.events = events
    self.after = after
    self.series = series
  }
}

/// What a master's shell has to append, in order.
///
/// The log syncs once, whatever it is given. So what has come while it was busy goes to it together; but not all that there may be: while it
/// writes one part, the loop answers the one before, and takes in the next. A commit is so large that writing its events takes as long as
/// syncing them.
public struct AppendQueue: Sendable {
  /// What an event more costs a commit, in nanoseconds (measured: 700 to 1,000).
  private static let eventNanoseconds: Int64 = 1_000

  private var waiting: [Append] = []
  /// The last series of which a commit came to nothing.
  private var ended: UInt64 = 0
  /// Events in the next commit, at most.
  private var limit = Limits.appendEvents

  public init() {}

  public mutating func put(_ append: Append) { waiting.append(append) }

  public var isEmpty: Bool { waiting.isEmpty }

  /// Takes what goes to the log next; nil if nothing waits.
  public mutating func take() -> Append? {
    waiting.removeAll { $0.series <= ended }
    guard var next = waiting.first else { return nil }
    var count = 1
    for other in waiting.dropFirst() {
      guard other.series == next.series, next.events.count + other.events.count <= limit else { break }
      next.events += other.events
      count += 1
    }
    next.commits = count
    waiting.removeFirst(count)
    return next
  }

  /// What was taken has been appended, which took so long: writing, syncing, and waiting for a turn, which a larger commit makes up for, too.
  public mutating func noteAppended(_ append: Append, after time: Interval) {
    let syncing = max(0, time.nanoseconds / Self.eventNanoseconds - Int64(append.events.count))
    limit = min(max(Int(syncing), Limits.appendEvents), Limits.batchEvents)
  }

  /// What was taken has not been appended. What follows it in its series is dropped, now or when it comes: the core orders it anew.
  public mutating func drop(after append: Append) { ended = append.series }
}
