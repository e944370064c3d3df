// A log in memory, for tests and for the simulation: with a disk that crashes, fills up, fails and loses what was not synced.

public import Model

/// A simulated disk with one log on it. What stands here outlives the processes that opened it; `MemoryLog`s are their handles.
///
/// Not thread-safe: a disk and its handles belong to one thread.
public final class MemoryDisk {
  /// Events that are on the disk for good, ascending and contiguous from 1. Readers see these and no others.
  public private(set) var durable: [Event] = []
  /// Events of the append that is under way: written, not yet synced.
  public private(set) var unsynced: [Event] = []
  /// The derived tables. They lag behind the log until `index(limit:)` is called.
  public private(set) var indexed = DerivedState()
  /// How many events there is room for. At this many an append throws `LogError.full`.
  public var capacity = Int.max

  /// The handle whose append is under way.
  fileprivate weak var writer: MemoryLog?
  /// Counts power cuts: handles opened before the last one are dead.
  fileprivate var life = 0
  private var failures: [LogError] = []

  public init() {}

  /// Makes the next `times` operations of any handle throw `error`.
  public func fail(_ error: LogError, times: Int = 1) {
    failures.append(contentsOf: repeatElement(error, count: times))
  }

  /// Cuts the power. All handles are dead afterwards; open new ones.
  ///
  /// - Parameters:
  ///   - survivors: how many of the unsynced events had reached the disk by themselves. An append that got there in part is
  ///     torn, and recovery drops all of it; one that got there whole counts, although nobody was told so.
  ///   - kept: up to which event the derived tables are kept; what they had beyond is lost, for they are never synced.
  public func cutPower(keepingUnsynced survivors: Int = 0, keepingIndexed kept: Int = .max) {
    settle(keep: survivors >= unsynced.count)
    if kept < Int(indexed.upTo.rawValue) {
      indexed = DerivedState()
      advanceIndex(by: kept)
    }
    life += 1
  }

  fileprivate func checkForFailure() throws(LogError) {
    if !failures.isEmpty { throw failures.removeFirst() }
  }

  fileprivate func write(_ events: [Event], by handle: MemoryLog) {
    unsynced = events
    writer = handle
  }

  /// Ends the append that is under way, whole or not at all.
  fileprivate func settle(keep: Bool) {
    if keep { durable.append(contentsOf: unsynced) }
    unsynced = []
    writer = nil
  }

  fileprivate func advanceIndex(by count: Int) {
    let from = Int(indexed.upTo.rawValue)
    for event in durable[from..<min(durable.count, from + count)] { indexed.apply(event) }
  }
}

/// One process's handle on the log of a `MemoryDisk`.
public final class MemoryLog: EventLog {
  /// What became of the first half of an append.
  public enum BeginResult: Hashable, Sendable {
    /// Written. `sync()` makes it durable.
    case begun
    /// The head was not where the events were to go; nothing was written.
    case behind
    /// Another handle's append is under way: try again when that is over. (A real log waits for its turn here.)
    case busy
  }

  private let disk: MemoryDisk
  private let life: Int
  private var isCrashed = false

  public init(disk: MemoryDisk) {
    self.disk = disk
    life = disk.life
  }

  // MARK: Appending

  public func append(_ events: [Event], after head: EventID) throws(LogError) -> AppendResult {
    switch try begin(events, after: head) {
    case .behind: return .behind
    case .busy: throw LogError.failed("another append is under way")
    case .begun:
      try sync()
      return .appended
    }
  }

  /// Everything is in its place at once.
  public func takeUpkeepDue(isQuiet: Bool) -> LogUpkeep? { nil }
  public func checkpoint() throws(LogError) { try check() }

  public func prepare() throws(LogError) { try check() }
  public func prepareForLoad() throws(LogError) -> Bool {
    try check()
    return false
  }
  public func releaseMemory() {}

  /// Writes `events` without syncing them. Nobody reads them yet, and a power cut may lose them.
  public func begin(_ events: [Event], after head: EventID) throws(LogError) -> BeginResult {
    try check()
    for (offset, event) in events.enumerated() {
      precondition(event.id == head.advanced(by: offset + 1), "event \(event.id) is not the next after \(head)")
    }
    guard disk.writer == nil else { return .busy }
    guard head.rawValue <= UInt64(disk.durable.count) || events.isEmpty else {
      throw LogError.corrupt("the log ends at event \(disk.durable.count), although event \(head) was read from it")
    }
    guard disk.durable.count == Int(clamping: head.rawValue) else { return .behind }
    guard disk.durable.count + events.count <= disk.capacity else {
      throw LogError.full("the disk has room for \(disk.capacity) events")
    }
    disk.write(events, by: self)
    return .begun
  }

  /// Makes durable what `begin` wrote. After an error it is gone.
  public func sync() throws(LogError) {
    precondition(disk.writer === self, "sync without an append under way")
    do { try check() } catch {
      disk.settle(keep: false)
      throw error
    }
    disk.settle(keep: true)
  }

  /// The process dies. What it has begun to append survives if it had reached the file (`keepingUnsynced`), whole or not at all.
  public func crash(keepingUnsynced: Bool = false) {
    if disk.writer === self { disk.settle(keep: keepingUnsynced) }
    isCrashed = true
  }

  // MARK: Reading

  public func read(after position: EventID, limit: Int) throws(LogError) -> [Event] {
    try check()
    let from = Int(clamping: position.rawValue)
    guard from < disk.durable.count, limit > 0 else { return [] }
    return Array(disk.durable[from...].prefix(limit))
  }

  public func head() throws(LogError) -> EventID {
    try check()
    return EventID(UInt64(disk.durable.count))
  }

  public func posts(
    by authors: [AccountID], in range: PostRange, upTo: EventID, limit: Int
  ) throws(LogError) -> (posts: [StoredPost], more: Bool) {
    try check()
    guard limit > 0 else { return ([], false) }
    let wanted = Set(authors)
    let posts = disk.durable.prefix(Int(clamping: upTo.rawValue)).compactMap(\.storedPost)
      .filter { wanted.contains($0.author) }
    switch range {
    case .before(let end):
      let matching = posts.filter { $0.id < end }
      return (matching.suffix(limit), matching.count > limit)
    case .after(let start):
      let matching = posts.filter { $0.id > start }
      return (Array(matching.prefix(limit)), matching.count > limit)
    }
  }

  public func posts(withIDs ids: [EventID]) throws(LogError) -> [StoredPost] {
    try check()
    return ids.compactMap { id in
      id == .zero || id.rawValue > UInt64(disk.durable.count) ? nil : disk.durable[Int(id.rawValue) - 1].storedPost
    }
  }

  public func events(of requests: [RequestID: EventID], upTo: EventID) throws(LogError) -> [RequestID: EventID] {
    try check()
    var events: [RequestID: EventID] = [:]
    for event in disk.durable.prefix(Int(clamping: upTo.rawValue)) {
      if let request = event.request, let first = requests[request], event.id >= first { events[request] = event.id }
    }
    return events
  }

  // MARK: The derived tables

  public func snapshot() throws(LogError) -> Snapshot {
    try check()
    return disk.indexed.snapshot
  }

  public func index(limit: Int) throws(LogError) -> Bool {
    try check()
    disk.advanceIndex(by: max(limit, 0))
    return Int(disk.indexed.upTo.rawValue) < disk.durable.count
  }

  private func check() throws(LogError) {
    guard !isCrashed, life == disk.life else { throw LogError.failed("the process is dead") }
    try disk.checkForFailure()
  }
}

extension Event {
  /// The event as a post; nil if it is none.
  public var storedPost: StoredPost? {
    guard case .posted(let author, let text) = change else { return nil }
    return StoredPost(id: id, author: author, time: time, text: text)
  }
}
