// The log in a folder: log.db, which is the truth, and index.db, which follows from it.

public import Log
public import Model

/// A log on one machine's disk, shared by any number of processes.
///
/// One thread at a time uses an instance. Opening one costs a few milliseconds; `index.db` is opened when it is first needed, so who
/// only appends never opens it.
public final class SQLiteLog: EventLog {
  public struct Options: Sendable {
    /// The WAL's length, in pages of 4 KiB, at which it is to be moved into the database (`takeUpkeepDue`), but for a load. If nobody does, the
    /// commit does that finds it four times as long, and takes tens of milliseconds for it.
    public var checkpointPages = 2_000
    /// How long the WAL may become under a load, in pages: 128 MiB. Only if its file has been given that length (`prepareForLoad`); if nobody
    /// checkpoints then, the commit does that finds it twice as long.
    public var checkpointPagesUnderLoad = 32_768
    /// A load: as much is appended in this time, in seconds, as is moved at least.
    public var loadSeconds = 10.0
    /// For tests: the log is full at this many pages.
    public var pagesMax: Int?

    public init() {}
  }

  private let folder: String
  let log: LogFile  // private but for tests
  /// Held by whoever brings the index up to date.
  private let indexing: FileLock
  /// Held by whoever opens the index (shared) or replaces it.
  private let indexOpening: FileLock
  private var openIndex: IndexFile?
  /// The index was found damaged: rebuild it when we are the ones to write it.
  private var isIndexDamaged = false

  /// Opens the log in `folder`, and creates it if there is none. The folder must exist.
  ///
  /// Throws `.newer` if a newer version of the program wrote it (nothing is changed), `.corrupt` if it is no log or damaged, `.failed` if
  /// the folder can't be written, if there was a log and its file is gone, or if others have one open that is another file by now.
  public init(folder: String, options: Options = Options()) throws(LogError) {
    self.folder = folder
    log = try LogFile(folder: folder, options: options)
    indexing = try FileLock(path: folder + "/index.lock")
    indexOpening = try FileLock(path: folder + "/index.open.lock")
  }

  /// A log that was in `folder`, and was deleted, is not missed any more: the next one to open it may begin a new one. Does nothing while somebody
  /// has it open.
  public static func forgetDeleted(in folder: String) throws(LogError) { try LogRegister.forget(in: folder) }

  /// Events after the index's watermark that are held against it when it is loaded.
  private static let eventsCompared = 256

  private var indexPath: String { folder + "/index.db" }

  // MARK: The log

  /// Appends, when it is this instance's turn among the processes that want to.
  ///
  /// After `.behind`, the next turn is reserved for this instance for 25 ms: time to read what is new, validate again and append again.
  /// When it throws, the events are not in the log; but after an error of the disk itself, they may turn up when the log is opened again.
  public func append(_ events: [Event], after head: EventID) throws(LogError) -> AppendResult {
    try log.append(events, after: head)
  }

  public func takeUpkeepDue(isQuiet: Bool) -> LogUpkeep? { log.takeUpkeepDue(isQuiet: isQuiet) }

  /// Moves the WAL into the database, so that it begins anew with the next commit. For its beginning, where much is moved for each part of it, and
  /// for its end a turn to append is taken, if there is one within 0.1 s; what is missed then, or because another process is at it, the next
  /// checkpoint does.
  public func checkpoint() throws(LogError) { try log.checkpoint() }

  public func prepare() throws(LogError) { try log.lengthenWAL() }

  public func prepareForLoad() throws(LogError) -> Bool { try log.lengthenWALForLoad() }

  public func read(after position: EventID, limit: Int) throws(LogError) -> [Event] {
    try log.read(after: position, limit: limit)
  }

  public func head() throws(LogError) -> EventID { try log.head() }

  public func releaseMemory() {
    log.releaseMemory()
    openIndex?.releaseMemory()
  }

  // MARK: Posts

  public func posts(
    by authors: [AccountID], in range: PostRange, upTo: EventID, limit: Int
  ) throws(LogError) -> (posts: [StoredPost], more: Bool) {
    guard limit > 0, !authors.isEmpty else { return ([], false) }
    let low: EventID
    let high: EventID
    let newestFirst: Bool
    switch range {
    case .before(let end):
      guard end > .zero else { return ([], false) }
      (low, high, newestFirst) = (.zero, min(upTo, EventID(end.rawValue - 1)), true)
    case .after(let start): (low, high, newestFirst) = (start, upTo, false)
    }
    var ids = try postIDs(by: authors, after: low, upTo: high, newestFirst: newestFirst, limit: limit + 1)
    let more = ids.count > limit
    if more { ids.removeLast() }
    if newestFirst { ids.reverse() }
    let posts = try log.posts(withIDs: ids)
    guard posts.count == ids.count, posts.allSatisfy({ authors.containsSorted($0.author) }) else {
      // The index named a post that the log does not have.
      isIndexDamaged = true
      return try self.posts(by: authors, in: range, upTo: upTo, limit: limit)
    }
    return (posts, more)
  }

  /// The index up to its watermark, the log itself after that. The log never changes and the watermark only rises, so that the two
  /// fit together without a transaction over both.
  private func postIDs(
    by authors: [AccountID], after low: EventID, upTo high: EventID, newestFirst: Bool, limit: Int
  ) throws(LogError) -> [EventID] {
    guard low < high else { return [] }
    guard let index = readableIndex() else {
      return try log.postIDs(by: authors, after: low, upTo: high, newestFirst: newestFirst, limit: limit)
    }
    // What fails in the log is not the index's fault.
    func indexed<Value>(_ read: () throws(LogError) -> Value) -> Value? {
      do { return try read() } catch {
        isIndexDamaged = true
        return nil
      }
    }
    if let watermark = indexed({ () throws(LogError) in try index.watermark().upTo }) {
      if newestFirst {
        let newer = try log.postIDs(
          by: authors, after: max(low, watermark), upTo: high, newestFirst: true, limit: limit)
        let older = indexed { () throws(LogError) in
          try index.postIDs(
            by: authors, after: low, upTo: min(high, watermark), newestFirst: true, limit: limit - newer.count)
        }
        if let older { return newer + older }
      } else {
        let older = indexed { () throws(LogError) in
          try index.postIDs(by: authors, after: low, upTo: min(high, watermark), newestFirst: false, limit: limit)
        }
        if let older {
          return try older
            + log.postIDs(
              by: authors, after: max(low, watermark), upTo: high, newestFirst: false, limit: limit - older.count)
        }
      }
    }
    return try log.postIDs(by: authors, after: low, upTo: high, newestFirst: newestFirst, limit: limit)
  }

  public func posts(withIDs ids: [EventID]) throws(LogError) -> [StoredPost] { try log.posts(withIDs: ids) }

  // MARK: Requests

  public func events(of requests: [RequestID: EventID], upTo: EventID) throws(LogError) -> [RequestID: EventID] {
    guard !requests.isEmpty else { return [:] }
    guard let index = readableIndex() else { return try log.events(of: requests, after: .zero, upTo: upTo) }
    let watermark: EventID
    let outcomes: [RequestID: RequestWindow.Outcome]
    do { (watermark, outcomes) = try index.outcomes(of: requests.keys) } catch {
      isIndexDamaged = true
      return try log.events(of: requests, after: .zero, upTo: upTo)
    }
    var events: [RequestID: EventID] = [:]
    for (request, outcome) in outcomes {
      // An earlier event is one of a client that was let go since, and may have used the number anew.
      guard case .done(let event) = outcome, event <= upTo, event >= requests[request]! else { continue }
      // Rows of the index have no checksums; those of the log have.
      if try log.request(of: event) == request { events[request] = event } else { isIndexDamaged = true }
    }
    var missing = requests.filter { events[$0.key] == nil }
    let newer = try log.events(of: missing, after: watermark, upTo: upTo)
    events.merge(newer) { event, _ in event }
    // An index that is ahead of `upTo` may have let go of them; one that is not has lost them, but for those that had left their window.
    missing = missing.filter { newer[$0.key] == nil && outcomes[$0.key] != .tooOld }
    if isIndexDamaged || watermark <= upTo {
      let lost = try log.events(of: missing, after: .zero, upTo: min(watermark, upTo))
      if !lost.isEmpty { isIndexDamaged = true }
      events.merge(lost) { event, _ in event }
    }
    return events
  }

  // MARK: The index

  /// The state at the index's watermark; at the log's beginning if there is no index.
  public func snapshot() throws(LogError) -> Snapshot {
    guard let index = readableIndex() else { return Snapshot() }
    var snapshot: Snapshot
    do {
      snapshot = try index.snapshot()
    } catch {
      isIndexDamaged = true
      return Snapshot()
    }
    snapshot.posts = try log.newestPosts(upTo: snapshot.upTo, limit: Limits.postsInMemory)
    // Rows of the index have no checksums. What is lost or changed there shows, if it would do harm, in what does not fit together.
    guard snapshot.isSound,
      try log.read(after: snapshot.upTo, limit: Self.eventsCompared)
        .accounts(after: snapshot.names.count, from: snapshot.upTo) != nil
    else {
      isIndexDamaged = true
      return Snapshot()
    }
    // Whoever loads the state goes on with appending and needs no index: its connection and cache are a megabyte.
    openIndex = nil
    return snapshot
  }

  /// Brings the index up to date, at most `limit` events in one transaction; tens of thousands at a time are best. Creates the index,
  /// and replaces one that is damaged, of another version or of another log.
  public func index(limit: Int) throws(LogError) -> Bool {
    guard limit > 0, try indexing.tryLock() else { return false }
    defer { indexing.unlock() }
    let index: IndexFile
    if let usable = try usableIndex() {
      index = usable
    } else {
      openIndex = nil
      try IndexFile.recreate(path: indexPath, opening: indexOpening)
      index = try IndexFile(path: indexPath, opening: indexOpening)
      openIndex = index
      isIndexDamaged = false
    }
    do {
      let watermark = try index.watermark()
      guard try watermark.upTo < log.head() else { return false }
      var batch = IndexBatch()
      try log.scan(after: watermark.upTo, limit: limit) { try batch.add($0, path: log.path) }
      batch.checksum = try log.checksum(of: batch.upTo) ?? 0
      try index.apply(batch, from: watermark)
      return try batch.upTo < log.head()
    } catch .corrupt(let what) where what.hasPrefix(indexPath) {
      isIndexDamaged = true
      return true
    }
  }

  /// The index as it can be read now; nil if there is none.
  private func readableIndex() -> IndexFile? { (try? usableIndex()) ?? nil }

  /// The index; nil if it is missing, damaged, of another version or of another log. Throws if it can't be told.
  private func usableIndex() throws(LogError) -> IndexFile? {
    if let openIndex {
      if !openIndex.isReplaced { return isIndexDamaged ? nil : openIndex }
      self.openIndex = nil
      isIndexDamaged = false
    }
    do {
      let index = try IndexFile(path: indexPath, opening: indexOpening)
      let watermark = try index.watermark()
      if watermark.upTo > .zero, try log.checksum(of: watermark.upTo) != watermark.checksum { return nil }
      openIndex = index
      return index
    } catch .corrupt(let what) where what.hasPrefix(indexPath) {
      return nil
    }
  }
}
