// log.db: the log itself. Append and read; nothing derived.

import GRDB
import GRDBSQLite
import Glibc
import Log
import Model

/// The file `log.db` with its one append-only table, and the turns of those who append to it.
///
/// In WAL mode with `synchronous=FULL`, COMMIT writes the events to the WAL and syncs that, and only then shows them to readers: whoever
/// reads an event may tell the world of it. One case needs care. A process killed between write and sync leaves its events in
/// the WAL, and if all others are dead, too, SQLite's recovery finds them, unsynced, when the next process opens the file. So opening syncs the WAL.
final class LogFile {
  /// 1: until there were passwords. 2: with events of kinds 5 to 7; the rest is as it was, so that a log of version 1 is
  /// taken over as it is.
  static let version = 2
  let path: String
  private let file: DatabaseFile
  private let turnstile: Turnstile
  private let wal: WALWatch
  private var writer = EventWriter()

  init(folder: String, options: SQLiteLog.Options) throws(LogError) {
    path = folder + "/log.db"
    turnstile = try Turnstile(folder: folder)
    wal = WALWatch(due: options.checkpointPages, limit: 4 * options.checkpointPages)
    let opening = DatabaseFile.Options(
      synchronous: "FULL", checkpointPages: 0, cacheKiB: 512, pagesMax: options.pagesMax)
    var file: DatabaseFile
    if (sizeOfFile(path) ?? 0) == 0 {
      file = try Self.create(folder: folder, path: path, options: opening)
    } else {
      file = try DatabaseFile(path: path, options: opening)
      // Whoever was creating it may have died half-way.
      if try file.isEmpty() { file = try Self.create(folder: folder, path: path, options: opening) }
    }
    self.file = file
    let (application, version) = try file.identity()
    guard application == DatabaseFile.applicationID else {
      throw LogError.corrupt("\(path): a SQLite database, but not a log of Tiny SNS")
    }
    guard version <= Self.version else { throw LogError.newer(found: version, supported: Self.version) }
    switch version {
    case Self.version: break
    case 1:
      // From here on, programs that know no passwords keep their hands off.
      try file.access { database in
        try database.writing { try database.execute(sql: "PRAGMA user_version = \(Self.version)") }
      }
    default: throw LogError.corrupt("\(path): has the unknown version \(version)")
    }
    _ = try head()
    try syncWAL()
    try file.access { wal.watch($0) }
  }

  /// Creates the file, unless another process is faster.
  private static func create(
    folder: String, path: String, options: DatabaseFile.Options
  ) throws(LogError) -> DatabaseFile {
    let creation = try FileLock(path: folder + "/log.create.lock")
    try creation.lock()
    defer { creation.unlock() }
    if sizeOfFile(path) == nil {
      // Created here for its mode, which its WAL inherits. Nobody has it open, so no lock of SQLite's is lost by the close.
      let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
      guard descriptor >= 0 else { throw LogError(path: path, doing: "create", errno: errno) }
      close(descriptor)
    }
    let file = try DatabaseFile(path: path, options: options)
    try file.access { database in
      guard try Int.fetchOne(database, sql: "PRAGMA user_version") == 0 else { return }
      try database.execute(sql: "PRAGMA journal_mode = WAL")
      try database.writing {
        try database.execute(
          sql: """
            \(EventRow.schema);
            PRAGMA application_id = \(DatabaseFile.applicationID);
            PRAGMA user_version = \(version);
            """)
      }
    }
    try syncFolder(folder)
    return file
  }

  func releaseMemory() { file.releaseMemory() }

  // MARK: Appending

  /// Appends `events`, or nothing.
  func append(_ events: [Event], after head: EventID) throws(LogError) -> AppendResult {
    for (offset, event) in events.enumerated() {
      precondition(event.id == head.advanced(by: offset + 1), "event \(event.id) is not the next after \(head)")
    }
    guard let last = events.last else { return try self.head() == head ? .appended : .behind }
    try turnstile.enter()
    var isBehind = false
    defer { turnstile.leave(reserving: isBehind) }
    do {
      isBehind = try !file.access { database in
        try database.beginTransaction(.immediate)
        let found = try Self.head(database)
        guard found == head else {
          try database.rollback()
          if found > head { return false }
          throw LogError.corrupt("\(self.path): ends at event \(found), although event \(head) was read from it")
        }
        try self.writer.insert(events, into: database)
        try database.commit()
        return true
      }
      return isBehind ? .behind : .appended
    } catch {
      // A commit can fail after its events have reached the disk. Nobody else has had a turn, so if they are there (and readers see
      // only what is synced), they are ours.
      if let found = try? self.head(), found == last.id { return .appended }
      throw error
    }
  }

  // MARK: The WAL

  /// Whether the WAL was too long after this instance's last commit, and has grown by a quarter since that was last said.
  func takeCheckpointDue() -> Bool { wal.takeDue() }

  /// Moves the WAL into the database: most of it while others append, and the rest while nobody does, without which it would never be
  /// done, and the WAL would grow for as long as somebody appends.
  func checkpoint() throws(LogError) {
    let isDone = try file.access { database in
      if try database.moveWAL() { return true }
      // SQLite syncs what it has moved when nothing is left to move: in the turn, while all wait.
      try database.syncFile()
      return false
    }
    guard !isDone, try turnstile.enter(within: Self.turnNanoseconds) else { return }
    defer { turnstile.leave(reserving: false) }
    _ = try file.access { try $0.moveWAL() }
  }

  /// How long a checkpoint waits for its turn. Whoever reads waits for the checkpoint, and somebody may be frozen in his turn.
  private static let turnNanoseconds: Int64 = 100_000_000

  // MARK: Reading

  func head() throws(LogError) -> EventID {
    try file.access { try Self.head($0) }
  }

  private static func head(_ database: Database) throws -> EventID {
    let rows = try database.rows("SELECT max(id) FROM events")
    defer { rows.reset() }
    return try rows.step() ? EventID(stored: rows.integer(0)) : .zero
  }

  func read(after position: EventID, limit: Int) throws(LogError) -> [Event] {
    var events: [Event] = []
    try scan(after: position, limit: limit) { rows in
      events.append(try EventRow.event(in: rows, path: path))
    }
    return events
  }

  /// Visits up to `limit` rows after `position`, and sees to it that there is no hole. The rows are not verified.
  func scan(after position: EventID, limit: Int, visit: (Rows) throws -> Void) throws(LogError) {
    guard limit > 0, position < .max else { return }
    try file.access { database in
      let rows = try database.rows("SELECT \(EventRow.columns) FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")
      defer { rows.reset() }
      rows.bind(position, at: 1)
      rows.bind(Int64(limit), at: 2)
      var expected = position.stored + 1
      while try rows.step() {
        guard rows.integer(0) == expected else { throw LogError.corrupt("\(path): event \(expected) is missing") }
        try visit(rows)
        expected += 1
      }
    }
  }

  /// The ids of posts by `authors` (ascending) in `low` < id ≤ `high`: the newest `limit` of them, or the oldest ones, in that order.
  func postIDs(
    by authors: [AccountID], after low: EventID, upTo high: EventID, newestFirst: Bool, limit: Int
  ) throws(LogError) -> [EventID] {
    guard low < high else { return [] }
    return try file.access { database in
      let rows = try database.rows(
        """
        SELECT id, account FROM events WHERE id > ?1 AND id <= ?2 AND kind = \(EventRow.Kind.posted)
        ORDER BY id \(newestFirst ? "DESC" : "ASC")
        """)
      defer { rows.reset() }
      rows.bind(low, at: 1)
      rows.bind(high, at: 2)
      var ids: [EventID] = []
      while ids.count < limit, try rows.step() {
        let author = AccountID(UInt32(truncatingIfNeeded: rows.integer(1)))
        if authors.containsSorted(author) { ids.append(EventID(stored: rows.integer(0))) }
      }
      return ids
    }
  }

  /// The posts with these ids, in their order; ids that are no posts are left out.
  func posts(withIDs ids: [EventID]) throws(LogError) -> [StoredPost] {
    try file.access { database in
      let rows = try database.rows("SELECT \(EventRow.columns) FROM events WHERE id = ?1")
      defer { rows.reset() }
      var posts: [StoredPost] = []
      posts.reserveCapacity(ids.count)
      for id in ids {
        rows.reset()
        rows.bind(id, at: 1)
        guard try rows.step(), rows.integer(4) == EventRow.Kind.posted else { continue }
        posts.append(try EventRow.post(in: rows, path: path))
      }
      return posts
    }
  }

  /// The newest `limit` posts that are no newer than `position`, ascending.
  func newestPosts(upTo position: EventID, limit: Int) throws(LogError) -> [StoredPost] {
    try file.access { database in
      let rows = try database.rows(
        """
        SELECT \(EventRow.columns) FROM events WHERE id <= ?1 AND kind = \(EventRow.Kind.posted) ORDER BY id DESC LIMIT ?2
        """)
      defer { rows.reset() }
      rows.bind(position, at: 1)
      rows.bind(Int64(limit), at: 2)
      var posts: [StoredPost] = []
      while try rows.step() { posts.append(try EventRow.post(in: rows, path: path)) }
      posts.reverse()
      return posts
    }
  }

  /// The newest events in `low` < id ≤ `high` that these requests took effect as, none before the given one, of those that have one there.
  func events(
    of requests: [RequestID: EventID], after low: EventID, upTo high: EventID
  ) throws(LogError) -> [RequestID: EventID] {
    guard let first = requests.values.min(), max(first, low.next) <= high else { return [:] }
    return try file.access { database in
      let rows = try database.rows(
        """
        SELECT \(EventRow.columns) FROM events WHERE id > ?1 AND id <= ?2 AND client IS NOT NULL ORDER BY id DESC
        """)
      defer { rows.reset() }
      rows.bind(max(first.stored - 1, low.stored), at: 1)
      rows.bind(high, at: 2)
      var events: [RequestID: EventID] = [:]
      while events.count < requests.count, try rows.step() {
        let event = EventID(stored: rows.integer(0))
        guard let request = EventRow.request(in: rows), let first = requests[request], event >= first,
          events[request] == nil
        else { continue }
        try EventRow.verify(rows, path: path)
        events[request] = event
      }
      return events
    }
  }

  /// The request that caused an event; nil if none did, or there is no such event.
  func request(of id: EventID) throws(LogError) -> RequestID? {
    try file.access { database in
      let rows = try database.rows("SELECT \(EventRow.columns) FROM events WHERE id = ?1")
      defer { rows.reset() }
      rows.bind(id, at: 1)
      guard try rows.step() else { return nil }
      try EventRow.verify(rows, path: path)
      return EventRow.request(in: rows)
    }
  }

  /// The checksum of one event; nil if there is no such event.
  func checksum(of id: EventID) throws(LogError) -> Int64? {
    try file.access { database in
      let rows = try database.rows("SELECT checksum FROM events WHERE id = ?1")
      defer { rows.reset() }
      rows.bind(id, at: 1)
      return try rows.step() ? rows.integer(0) : nil
    }
  }

  // MARK: Syncing

  /// Syncs what recovery may have found in the WAL.
  private func syncWAL() throws(LogError) {
    // Closing this descriptor drops no lock: SQLite's are on the database and the shared memory.
    let descriptor = open(path + "-wal", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    guard fdatasync(descriptor) == 0 else { throw LogError(path: path + "-wal", doing: "sync", errno: errno) }
  }

  private static func syncFolder(_ folder: String) throws(LogError) {
    let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw LogError(path: folder, doing: "open", errno: errno) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw LogError(path: folder, doing: "sync", errno: errno) }
  }
}

/// How long the WAL has become, as each commit of a connection tells.
private final class WALWatch {
  private let due: Int
  private let limit: Int
  private var pages = 0
  /// The length at which the next checkpoint is due. A reader may keep one from moving anything.
  private var nextDue: Int

  init(due: Int, limit: Int) {
    self.due = due
    self.limit = limit
    nextDue = due
  }

  func takeDue() -> Bool {
    if pages < due { nextDue = due }
    guard pages >= nextDue else { return false }
    nextDue = pages + max(1, due / 4)
    return true
  }

  /// Has the connection's commits told. They checkpoint themselves from `limit` on. The watch must outlive the connection's last commit.
  func watch(_ database: Database) {
    sqlite3_wal_hook(
      database.sqliteConnection,
      { context, connection, name, pages in
        let watch = Unmanaged<WALWatch>.fromOpaque(context!).takeUnretainedValue()
        watch.pages = Int(pages)
        // Should it fail, the commit has not: the next one tries again.
        if watch.pages >= watch.limit {
          sqlite3_wal_checkpoint_v2(connection, name, SQLITE_CHECKPOINT_PASSIVE, nil, nil)
        }
        return SQLITE_OK
      }, Unmanaged.passUnretained(self).toOpaque())
  }
}

extension Database {
  /// Moves into the database what of its WAL nobody reads any more, or does nothing if somebody else is at it. Whether all has been moved.
  fileprivate func moveWAL() throws -> Bool {
    var all: Int32 = 0
    var moved: Int32 = 0
    try check(sqlite3_wal_checkpoint_v2(sqliteConnection, "main", SQLITE_CHECKPOINT_PASSIVE, &all, &moved))
    return all == moved
  }

  /// Syncs the database's file, through SQLite's own handle: closing another drops its locks.
  fileprivate func syncFile() throws {
    var file: UnsafeMutablePointer<sqlite3_file>?
    try check(sqlite3_file_control(sqliteConnection, "main", SQLITE_FCNTL_FILE_POINTER, &file))
    if let file, let methods = file.pointee.pMethods { try check(methods.pointee.xSync(file, SQLITE_SYNC_NORMAL)) }
  }

  private func check(_ code: Int32) throws {
    guard code == SQLITE_OK || code == SQLITE_BUSY else {
      throw DatabaseError(
        resultCode: ResultCode(rawValue: code), message: String(cString: sqlite3_errmsg(sqliteConnection)))
    }
  }
}

/// The size of a file in bytes, without opening it; nil if there is none.
func sizeOfFile(_ path: String) -> Int? {
  var status = stat()
  return stat(path, &status) == 0 ? Int(status.st_size) : nil
}

extension Array where Element: Comparable {
  /// Whether this ascending array has `element`.
  func containsSorted(_ element: Element) -> Bool {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if self[middle] < element { low = middle + 1 } else { high = middle }
    }
    return low < count && self[low] == element
  }
}
