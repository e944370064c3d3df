// The log as the rest of the system sees it. Implementations: MemoryLog here, SQLiteLog in a target of its own.

public import Model

/// What became of an append.
public enum AppendResult: Hashable, Sendable {
  /// All events are in the log and on the disk.
  case appended
  /// The head was not where the events were to go; nothing was written. Another master committed first: read, then try again.
  case behind
}

/// Why the log could not serve.
public enum LogError: Error, Hashable, Sendable {
  /// No room on the disk. Nothing was written; the same may succeed later.
  case full(String)
  /// The disk or the file system failed. Nothing was acknowledged.
  case failed(String)
  /// The file is not a log, or is damaged. Names the file and what was found.
  case corrupt(String)
  /// The log was written by a newer version of the program.
  case newer(found: Int, supported: Int)
}

/// Which posts to read, by position.
public enum PostRange: Hashable, Sendable {
  /// The newest ones older than this event.
  case before(EventID)
  /// The oldest ones newer than this event.
  case after(EventID)
}

/// What a log needs from time to time beside appends, of another instance best, so that appending need not wait for it.
public enum LogUpkeep: Hashable, Sendable {
  /// `prepareForLoad()`
  case prepareForLoad
  /// `checkpoint()`
  case checkpoint
}

/// One totally ordered log of events (the shared log of Corfu, Balakrishnan et al. 2012, and Tango 2013).
///
/// Calls are synchronous and may wait for the disk. One thread at a time uses an instance; who needs the log while others do
/// opens one of their own.
public protocol EventLog: AnyObject {
  /// Appends `events`, whose ids go on from `head` without a hole, in one transaction with one sync.
  ///
  /// After `.appended` the events survive a crash of the process and a power cut. All or nothing is written; nothing if the
  /// log's head is not `head`.
  func append(_ events: [Event], after head: EventID) throws(LogError) -> AppendResult

  /// What is to be done before long because of what was appended. Told once, and again when much more has been appended.
  ///
  /// - Parameter isQuiet: nobody appends now, so that what can wait under a load is due.
  func takeUpkeepDue(isQuiet: Bool) -> LogUpkeep?

  /// Moves what was appended to its place. Takes a while, during which other instances append, but for moments at its beginning, at its end and in between.
  func checkpoint() throws(LogError)

  /// Does beforehand what would else make the first appends to a new log slower. Not needed for anything else, nor does an error matter.
  func prepare() throws(LogError)

  /// The same for a load that goes on, some of it in one go, while other instances append. Returns whether there is more to do here.
  func prepareForLoad() throws(LogError) -> Bool

  /// Up to `limit` events after `position`, ascending and contiguous; empty at the head.
  func read(after position: EventID, limit: Int) throws(LogError) -> [Event]

  /// The newest event's id; `.zero` in an empty log.
  func head() throws(LogError) -> EventID

  /// Posts by any of `authors` (ascending, without repeats) in `range` and no newer than `upTo`: at most `limit`, ascending, and
  /// whether there are more in the range's direction. Costs the number of authors, not the length of the log.
  func posts(
    by authors: [AccountID], in range: PostRange, upTo: EventID, limit: Int
  ) throws(LogError) -> (posts: [StoredPost], more: Bool)

  /// The posts with these ids, in their order; ids that are no posts are left out.
  func posts(withIDs ids: [EventID]) throws(LogError) -> [StoredPost]

  /// As which events these requests took effect: each as the given event or a later one, and no newer than `upTo`. Told of each that is within
  /// its client's window at `upTo`, and not necessarily of others. Costs the number of requests; and for what the derived tables do not
  /// have yet, the events back to the oldest of those asked for.
  func events(of requests: [RequestID: EventID], upTo: EventID) throws(LogError) -> [RequestID: EventID]

  /// The newest state that the derived tables have. A master replays from there.
  func snapshot() throws(LogError) -> Snapshot

  /// Brings the derived tables up to the head, at most `limit` events in one go, unless another process is at it.
  /// Returns whether there is more to do here.
  func index(limit: Int) throws(LogError) -> Bool

  /// Lets go of what is kept only to be faster: for an instance that has nothing to do. The next call costs a little more.
  func releaseMemory()
}
