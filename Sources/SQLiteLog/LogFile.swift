// log.db: the log itself. Append and read; nothing derived.

import CSpawn
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
  /// 1: until there were passwords. 2: with events of kinds 5 to 7. 3: with rows of several events. What is there stays as it was, so that an
  /// older log is taken over as it is.
  static let version = 3
  let path: String
  let file: DatabaseFile  // private but for tests
  private let turnstile: Turnstile
  /// Held by whoever checkpoints, or gives the WAL its length.
  private let checkpointing: FileLock
  private let register: LogRegister
  private let place: LogPlace
  private var nextLook: Int64 = 0
  private let wal: WALWatch
  /// SQLite's own of the database's file, if it could be found.
  let descriptor: CInt?  // private but for tests
  /// Whether a move has failed, and what had been moved until then could not be forgotten (`move`).
  private var isMoveDoubtful = false
  private var writer = EventWriter()

  init(folder: String, options: SQLiteLog.Options) throws(LogError) {
    path = folder + "/log.db"
    turnstile = try Turnstile(folder: folder)
    let creation = try FileLock(path: folder + "/log.create.lock")
    checkpointing = try FileLock(path: folder + "/log.checkpoint.lock")
    register = try LogRegister(folder: folder)
    wal = WALWatch(path: path + "-wal", options: options)
    let opening = DatabaseFile.Options(
      synchronous: "FULL", checkpointPages: 0, cacheKiB: 512, pagesMax: options.pagesMax)
    try creation.lock()
    defer { creation.unlock() }
    try register.checkOpening(of: path)
    // Nobody else in this process opens it meanwhile.
    let formerDescriptors = openDescriptors(of: path)
    var file: DatabaseFile
    if (sizeOfFile(path) ?? 0) == 0 {
      file = try Self.create(folder: folder, path: path, options: opening)
    } else {
      file = try DatabaseFile(path: path, options: opening)
      // Whoever was creating it may have died half-way.
      if try file.isEmpty() { file = try Self.create(folder: folder, path: path, options: opening) }
    }
    self.file = file
    let descriptors = openDescriptors(of: path).subtracting(formerDescriptors)
    descriptor = descriptors.count == 1 ? descriptors.first : nil
    let (application, version) = try file.identity()
    guard application == DatabaseFile.applicationID else {
      throw LogError.corrupt("\(path): a SQLite database, but not a log of Tiny SNS")
    }
    guard version <= Self.version else { throw LogError.newer(found: version, supported: Self.version) }
    // A copy that was made otherwise than by SQLite's backup may have another mode.
    if LogPlace(of: path) == nil { try file.access { try $0.execute(sql: "PRAGMA journal_mode = WAL") } }
    place = try register.enter(path)
    switch version {
    case Self.version: break
    case 1..<Self.version: try upgrade()
    default: throw LogError.corrupt("\(path): has the unknown version \(version)")
    }
    _ = try head()
    try syncWAL()
    try file.access { wal.watch($0) }
  }

  /// Makes an older log one of this version, unless another process is faster. From here on, programs that can't read all of it keep their hands
  /// off.
  private func upgrade() throws(LogError) {
    try turnstile.enter()
    defer { turnstile.leave(reserving: false) }
    try file.access { database in
      try database.writing {
        guard try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0 < Self.version else { return }
        if try !database.tableExists(EventRow.table) {
          try database.execute(
            sql: """
              ALTER TABLE \(EventRow.formerTable) RENAME TO \(EventRow.table);
              ALTER TABLE \(EventRow.table) ADD COLUMN \(EventRow.packedColumn);
              """)
        }
        try database.execute(sql: "PRAGMA user_version = \(Self.version)")
      }
    }
  }

  /// Creates the file. For the holder of `creation`.
  private static func create(
    folder: String, path: String, options: DatabaseFile.Options
  ) throws(LogError) -> DatabaseFile {
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

  /// If the log has been replaced, its register is left with its descriptor, which is closed behind the database: another process would else open the
  /// new one, and find its WAL deleted by this one's close.
  deinit { if LogPlace(of: path) == place { register.leave() } }

  func releaseMemory() {
    file.releaseMemory()
    try? file.access { $0.releaseWALIndex() }
    writer = EventWriter()
  }

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
    try checkPlace()
    do {
      isBehind = try !file.access { database in
        try database.rows("BEGIN IMMEDIATE").run()
        let found = try Self.head(database)
        guard found == head else {
          try database.rollback()
          if found > head { return false }
          throw LogError.corrupt("\(self.path): ends at event \(found), although event \(head) was read from it")
        }
        try self.writer.insert(events, into: database)
        try database.rows("COMMIT").run()
        self.moveWALThatIsTooLong(in: database)
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

  /// In the turn, after a commit. Should it fail, the commit has not: the next one tries again.
  private func moveWALThatIsTooLong(in database: Database) {
    guard wal.isTooLong(), (try? checkpointing.tryLock()) == true else { return }
    defer { checkpointing.unlock() }
    try? move(in: database)
  }

  /// What is appended to files that were deleted, or that others have taken the place of, is gone with this process. Looks at most ten
  /// times a second, which is as good as always: what was appended before they went is lost as well.
  private func checkPlace() throws(LogError) {
    let now = monotonicNanoseconds()
    guard now >= nextLook else { return }
    guard LogPlace(of: path) == place else {
      throw LogError.failed("\(path): it, its -wal or its -shm was deleted, moved or replaced while it was open")
    }
    nextLook = now + Self.lookNanoseconds
  }

  private static let lookNanoseconds: Int64 = 100_000_000

  // MARK: The WAL

  /// What the WAL needs by its length after this instance's last commit. Told again when it has grown by a quarter of what is moved at least.
  func takeUpkeepDue(isQuiet: Bool) -> LogUpkeep? { wal.takeDue(isQuiet: isQuiet) }

  /// Moves the WAL into the database: most of it while others append, and the rest while nobody does, without which it would never be
  /// done, and the WAL would grow for as long as somebody appends. Does nothing if another process is at it, or if it gets no turn.
  ///
  /// Whoever checkpoints holds `checkpointing`, and does it in a turn, or while something in the WAL has not been moved. For SQLite before 3.51.3 has a
  /// fault (sqlite.org/wal.html#walresetbug): once all is moved, the WAL begins anew with the next commit, and a checkpoint that has begun just
  /// before takes the new frames for moved, so that they are lost.
  func checkpoint() throws(LogError) {
    try checkPlace()
    guard try checkpointing.tryLock() else { return }
    defer { checkpointing.unlock() }
    // What comes while much is moved is much, too, and all would wait for it in the turn.
    var moved = 0
    for _ in 1...Self.movesMax {
      guard try beginCheckpoint() else { return }
      let pages = wal.pages
      // SQLite syncs what it has moved when nothing is left to move: in the turn, while all wait.
      try file.access { try move(in: $0, syncing: true) }
      guard pages - moved > 2 * wal.due else { break }
      moved = pages
    }
    // That all was moved which was there when SQLite looked does not mean that all is moved now: only in the turn can that be told.
    guard try turnstile.enter(within: Self.turnNanoseconds) else { return }
    defer { turnstile.leave(reserving: false) }
    try file.access { try move(in: $0) }
  }

  /// Moves into the database what of its WAL nobody reads any more. For the holder of `checkpointing`.
  ///
  /// Should the disk fail, all of the WAL is moved again the next time. For the kernel tells each who has the file open once of what it could not
  /// write, and takes it for written from then on (lwn.net/Articles/752063); SQLite takes what it has moved for moved even before it is
  /// synced. So the next sync would succeed without it, and the WAL, which has it, begin anew.
  private func move(in database: Database, syncing: Bool = false) throws {
    do {
      if isMoveDoubtful { try database.forgetMoved() }
      let size = sizeOfFile(path) ?? 0
      try database.moveWAL()
      if syncing {
        try writeBack(from: size)
        try database.syncFile()
      }
      isMoveDoubtful = false
    } catch {
      isMoveDoubtful = (try? database.forgetMoved()) == nil
      throw error
    }
  }

  /// Puts something into the WAL that has not been moved: a page that stays as it is. From here on only the caller can bring it about that all is
  /// moved. Whether that is to be done beside appends now.
  private func beginCheckpoint() throws(LogError) -> Bool {
    guard try turnstile.enter(within: Self.turnNanoseconds) else { return false }
    defer { turnstile.leave(reserving: false) }
    do {
      try file.access { database in
        // What is there in every version.
        try database.writing {
          try database.execute(sql: "PRAGMA application_id = \(DatabaseFile.applicationID)")
        }
      }
      return true
    } catch .full {
      // Not even a page: then all that is there is moved in the turn, and the WAL can begin anew where it is.
      try file.access { try move(in: $0) }
      return false
    }
  }

  /// Has the kernel write what a long move has made of the database's file beyond `start`, in pieces. If all of it were left to the sync, a commit
  /// that comes meanwhile would wait for all of it.
  ///
  /// - Throws: what could not be written, which the sync would not tell again.
  private func writeBack(from start: Int) throws(LogError) {
    let end = sizeOfFile(path) ?? 0
    guard end - start > wal.due * Self.pageBytes, let descriptor else { return }
    for piece in stride(from: start, to: end, by: Self.pieceBytes) {
      let result = tinysns_write_back(descriptor, off_t(piece), off_t(Self.pieceBytes))
      guard result >= 0 else { throw LogError(path: path, doing: "write to", errno: -result) }
      // The sync that follows does all of it.
      guard result > 0 else { return }
    }
  }

  private static let pageBytes = 4_096
  /// A disk takes a few hundred microseconds for it, as for a commit.
  private static let pieceBytes = 256 << 10

  /// Gives a WAL the length which it has at its checkpoints: a commit that makes the file longer has the file system write down the new length,
  /// too, before it is synced. (PostgreSQL does the same to its WAL, `wal_init_zero`.) Does nothing where that would take a noticeable part of
  /// what is free on the disk, or if another process is at it.
  ///
  /// SQLite reads a WAL up to the first frame that is none, and zeros are none. They are appended to the file, wherever it ends at
  /// that moment, so that they never take the place of what others write.
  func lengthenWAL() throws(LogError) { _ = try lengthenWAL(to: wal.due, atMost: .max) }

  /// The same for a load, a few MiB in one go. Returns whether there is more to do.
  func lengthenWALForLoad() throws(LogError) -> Bool { try lengthenWAL(to: wal.dueUnderLoad, atMost: 4) }

  private func lengthenWAL(to pages: Int, atMost piecesMax: Int) throws(LogError) -> Bool {
    try checkPlace()
    let path = path + "-wal"
    let wanted = Self.walHeaderBytes + pages * Self.frameBytes
    guard let size = sizeOfFile(path), size < wanted, let free = bytesFree(at: path), free / 100 > wanted,
      try checkpointing.tryLock()
    else { return false }
    defer { checkpointing.unlock() }
    // As in `syncWAL`, no lock is lost by the close.
    let descriptor = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)
    guard descriptor >= 0 else { throw LogError(path: path, doing: "open", errno: errno) }
    defer { close(descriptor) }
    let zeros = [UInt8](repeating: 0, count: 1 << 20)
    var status = stat()
    var pieces = 0
    while fstat(descriptor, &status) == 0, status.st_size < wanted {
      if pieces == piecesMax { return true }
      pieces += 1
      guard write(descriptor, zeros, min(zeros.count, wanted - Int(status.st_size))) > 0 else {
        throw LogError(path: path, doing: "lengthen", errno: errno)
      }
      // Each time: a commit's sync waits for all of the file that has not been written.
      guard fdatasync(descriptor) == 0 else { throw LogError(path: path, doing: "sync", errno: errno) }
    }
    return false
  }

  fileprivate static let walHeaderBytes = 32
  /// A page of 4 KiB in the WAL, with its header.
  fileprivate static let frameBytes = 4_120

  /// How often a checkpoint moves what has come beside appends. A load may be faster than the disk.
  private static let movesMax = 4

  /// How long a checkpoint waits for its turn. Whoever reads waits for the checkpoint, and somebody may be frozen in his turn.
  private static let turnNanoseconds: Int64 = 100_000_000

  // MARK: Reading

  func head() throws(LogError) -> EventID {
    try file.access { try Self.head($0) }
  }

  private static func head(_ database: Database) throws -> EventID {
    let rows = try database.rows("SELECT max(id) FROM \(EventRow.table)")
    defer { rows.reset() }
    return try rows.step() ? EventID(stored: rows.integer(0)) : .zero
  }

  func read(after position: EventID, limit: Int) throws(LogError) -> [Event] {
    var events: [Event] = []
    try scan(after: position, limit: limit) { events.append(try $0.event(path: path)) }
    return events
  }

  /// Visits up to `limit` events after `position`, and sees to it that there is no hole.
  func scan(after position: EventID, limit: Int, visit: (StoredEvent) throws -> Void) throws(LogError) {
    guard limit > 0, position.stored < .max else { return }
    try file.access { database in
      let rows = try database.rows("SELECT \(EventRow.columns) FROM \(EventRow.table) WHERE id > ?1 ORDER BY id")
      defer { rows.reset() }
      rows.bind(position, at: 1)
      var events: [StoredEvent] = []
      var last = position.stored
      var left = limit
      while left > 0, try rows.step() {
        try EventRow.read(rows, path: path, into: &events)
        for event in events.drop(while: { $0.id <= position.stored }).prefix(left) {
          guard event.id == last + 1 else { throw missing(last + 1) }
          try visit(event)
          last += 1
          left -= 1
        }
      }
    }
  }

  /// Visits the events in `low` < id ≤ `high`, ascending or descending, until `visit` says that it has enough.
  private func scan(
    after low: EventID, upTo high: EventID, newestFirst: Bool, in database: Database,
    visit: (StoredEvent) throws -> Bool
  ) throws {
    guard low.stored < high.stored else { return }
    // The row that has the last of them may end with later ones.
    let rows = try database.rows(
      """
      SELECT \(EventRow.columns) FROM \(EventRow.table) WHERE id > ?1 AND id < ?2 ORDER BY id \(newestFirst ? "DESC" : "ASC")
      """)
    defer { rows.reset() }
    rows.bind(low, at: 1)
    rows.bind(Int64(clamping: UInt64(high.stored) + UInt64(EventRow.eventsMax)), at: 2)
    var events: [StoredEvent] = []
    var next: Int64? = newestFirst ? nil : low.stored + 1
    while try rows.step() {
      try EventRow.read(rows, path: path, into: &events)
      if newestFirst { events.reverse() }
      for event in events where event.id > low.stored && event.id <= high.stored {
        guard event.id == next ?? event.id else { throw missing(next!) }
        guard try visit(event) else { return }
        next = newestFirst ? event.id - 1 : event.id + 1
      }
    }
    if newestFirst, let next, next > low.stored { throw missing(next) }
  }

  private func missing(_ id: Int64) -> LogError { .corrupt("\(path): event \(id) is missing") }

  private static let finding = "SELECT \(EventRow.columns) FROM \(EventRow.table) WHERE id >= ?1 ORDER BY id LIMIT 1"

  /// Puts the event and those that share its row into `events`, unless it is there already. Gives it; nil if it is beyond the log's end.
  private func find(_ id: EventID, through rows: Rows, in events: inout [StoredEvent]) throws -> StoredEvent? {
    if let event = events.first(where: { $0.id == id.stored }) { return event }
    rows.reset()
    rows.bind(id, at: 1)
    guard id > .zero, try rows.step() else {
      events = []
      return nil
    }
    try EventRow.read(rows, path: path, into: &events)
    guard let event = events.first(where: { $0.id == id.stored }) else { throw missing(id.stored) }
    return event
  }

  /// Calls `body` with an event; gives nil if there is no such event.
  private func withEvent<Value>(
    _ id: EventID, in database: Database, _ body: (StoredEvent) throws -> Value
  ) throws -> Value? {
    let rows = try database.rows(Self.finding)
    defer { rows.reset() }
    var events: [StoredEvent] = []
    return try find(id, through: rows, in: &events).map(body)
  }

  /// The ids of posts by `authors` (ascending) in `low` < id ≤ `high`: the newest `limit` of them, or the oldest ones, in that order.
  func postIDs(
    by authors: [AccountID], after low: EventID, upTo high: EventID, newestFirst: Bool, limit: Int
  ) throws(LogError) -> [EventID] {
    guard limit > 0 else { return [] }
    var ids: [EventID] = []
    try file.access { database in
      try scan(after: low, upTo: high, newestFirst: newestFirst, in: database) { event in
        if event.kind == EventRow.Kind.posted, authors.containsSorted(event.actor) { ids.append(event.eventID) }
        return ids.count < limit
      }
    }
    return ids
  }

  /// The posts with these ids, in their order; ids that are no posts are left out.
  func posts(withIDs ids: [EventID]) throws(LogError) -> [StoredPost] {
    try file.access { database in
      let rows = try database.rows(Self.finding)
      defer { rows.reset() }
      var events: [StoredEvent] = []
      return try ids.compactMap { id in
        let event = try find(id, through: rows, in: &events)
        return event?.kind == EventRow.Kind.posted ? event?.post : nil
      }
    }
  }

  /// The newest `limit` posts that are no newer than `position`, ascending.
  func newestPosts(upTo position: EventID, limit: Int) throws(LogError) -> [StoredPost] {
    guard limit > 0 else { return [] }
    var posts: [StoredPost] = []
    try file.access { database in
      try scan(after: .zero, upTo: position, newestFirst: true, in: database) { event in
        if event.kind == EventRow.Kind.posted { posts.append(event.post) }
        return posts.count < limit
      }
    }
    posts.reverse()
    return posts
  }

  /// The newest events in `low` < id ≤ `high` that these requests took effect as, none before the given one, of those that have one there.
  func events(
    of requests: [RequestID: EventID], after low: EventID, upTo high: EventID
  ) throws(LogError) -> [RequestID: EventID] {
    guard let first = requests.values.min(), max(first, low.next) <= high else { return [:] }
    var events: [RequestID: EventID] = [:]
    try file.access { database in
      let start = EventID(stored: max(first.stored - 1, low.stored))
      try scan(after: start, upTo: high, newestFirst: true, in: database) { event in
        if let request = event.requestID, let first = requests[request], event.eventID >= first,
          events[request] == nil
        {
          events[request] = event.eventID
        }
        return events.count < requests.count
      }
    }
    return events
  }

  /// The request that caused an event; nil if none did, or there is no such event.
  func request(of id: EventID) throws(LogError) -> RequestID? {
    try file.access { try withEvent(id, in: $0) { $0.requestID } ?? nil }
  }

  /// The checksum of one event; nil if there is no such event.
  func checksum(of id: EventID) throws(LogError) -> Int64? {
    try file.access { try withEvent(id, in: $0) { $0.checksum } }
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

/// How long the WAL has become, as each commit of a connection tells, and what is to be done about it.
///
/// All that is moved is written twice, and commits wait for the disk longer while it is. So under a load the WAL is not moved before it is nearly
/// as long as it may be then, and its file is given that length.
private final class WALWatch {
  let due: Int
  let dueUnderLoad: Int
  private let path: String
  private let loadNanoseconds: Int64
  private(set) var pages = 0
  /// From where on it is reckoned whether there is a load; nil before the first commit, and the first after it was quiet.
  private var mark: (pages: Int, time: Int64)?
  /// The pages that fit into the file, when that was last looked at.
  private var room = 0
  /// The length at which something may be due next. What was due may have had no success: a reader keeps a checkpoint from moving what he reads.
  private var nextLook: Int
  /// A longer file was asked for since the WAL began, or since it was quiet.
  private var hasAskedForRoom = false

  init(path: String, options: SQLiteLog.Options) {
    self.path = path
    due = options.checkpointPages
    dueUnderLoad = max(options.checkpointPages, options.checkpointPagesUnderLoad)
    loadNanoseconds = Int64(options.loadSeconds * 1e9)
    nextLook = due
  }

  func takeDue(isQuiet: Bool) -> LogUpkeep? {
    if isQuiet {
      mark = nil
      guard pages >= due else { return nil }
      // Only the next commit tells what has become of it.
      pages = 0
      return .checkpoint
    }
    guard pages >= nextLook else { return nil }
    nextLook = pages + max(1, due / 4)
    guard dueUnderLoad > due else { return .checkpoint }
    // By a first commit that finds a WAL of others this can't be told: the next look will.
    guard let isUnderLoad = isUnderLoad() else { return nil }
    guard isUnderLoad else { return .checkpoint }
    lookForRoom()
    if room >= dueUnderLoad { return pages > dueUnderLoad - due ? .checkpoint : nil }
    // What comes while the file is made longer does not fit in yet.
    guard !hasAskedForRoom else { return .checkpoint }
    hasAskedForRoom = true
    return .prepareForLoad
  }

  /// Whether what has come since this was last asked came fast; nil if nothing has.
  private func isUnderLoad() -> Bool? {
    let now = monotonicNanoseconds()
    defer { mark = (pages, now) }
    guard let mark, pages > mark.pages else { return nil }
    return Double(now - mark.time) * Double(due) < Double(loadNanoseconds) * Double(pages - mark.pages)
  }

  /// Whether the connection's last commit should have checkpointed, since nobody else has.
  func isTooLong() -> Bool {
    guard pages >= limit else { return false }
    lookForRoom()
    return pages >= limit
  }

  private var limit: Int { room < dueUnderLoad ? 4 * due : max(4 * due, 2 * dueUnderLoad) }

  private func lookForRoom() {
    room = ((sizeOfFile(path) ?? 0) - LogFile.walHeaderBytes) / LogFile.frameBytes
  }

  private func note(pages: Int) {
    if pages < self.pages || mark == nil {
      mark = (pages, monotonicNanoseconds())
      nextLook = due
      hasAskedForRoom = false
    }
    self.pages = pages
  }

  /// Has the connection's commits told. The watch must outlive the connection's last commit.
  func watch(_ database: Database) {
    sqlite3_wal_hook(
      database.sqliteConnection,
      { context, _, _, pages in
        Unmanaged<WALWatch>.fromOpaque(context!).takeUnretainedValue().note(pages: Int(pages))
        return SQLITE_OK
      }, Unmanaged.passUnretained(self).toOpaque())
  }
}

extension Database {
  /// Moves into the database what of its WAL nobody reads any more.
  fileprivate func moveWAL() throws {
    let code = sqlite3_wal_checkpoint_v2(sqliteConnection, "main", SQLITE_CHECKPOINT_PASSIVE, nil, nil)
    guard code == SQLITE_OK || code & 0xff == SQLITE_BUSY else {
      throw DatabaseError(
        resultCode: ResultCode(rawValue: code), message: String(cString: sqlite3_errmsg(sqliteConnection)))
    }
  }

  /// Syncs the database's file, through SQLite's own handle: closing another drops its locks.
  fileprivate func syncFile() throws {
    guard let file = mainFile, let methods = file.pointee.pMethods else { return }
    let code = methods.pointee.xSync(file, SQLITE_SYNC_NORMAL)
    guard code != SQLITE_OK else { return }
    var errno: Int32 = 0
    if methods.pointee.xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &errno) == SQLITE_OK, errno != 0 {
      throw LogError(
        path: sqlite3_db_filename(sqliteConnection, "main").map { String(cString: $0) } ?? "", doing: "sync",
        errno: errno)
    }
    throw DatabaseError(resultCode: ResultCode(rawValue: code), message: String(cString: sqlite3_errstr(code)))
  }

  /// Has SQLite know of nothing in the WAL that it is in the database. For the only one who checkpoints; who reads, or appends, may go on.
  ///
  /// The number of frames that are (`nBackfill`) is in the WAL's index, which all processes share (sqlite.org/walformat.html, 2.1). SQLite makes it
  /// 0 by itself when a first process opens the log, and may always find it too low.
  fileprivate func forgetMoved() throws {
    func check(_ code: Int32) throws {
      if code != SQLITE_OK { throw DatabaseError(resultCode: ResultCode(rawValue: code)) }
    }
    let checkpointLock: Int32 = 1
    let (version, offsetOfMoved): (UInt32, Int) = (3_007_000, 96)
    guard let file = mainFile, let methods = file.pointee.pMethods, methods.pointee.iVersion >= 2,
      let lock = methods.pointee.xShmLock, let map = methods.pointee.xShmMap
    else { throw LogError.failed("log.db: SQLite has no shared memory for its WAL") }
    try check(lock(file, checkpointLock, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE))
    defer { _ = lock(file, checkpointLock, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE) }
    var index: UnsafeMutableRawPointer?
    try check(map(file, 0, Self.walIndexRegionBytes, 0, &index))
    guard let index, index.load(as: UInt32.self) == version else {
      throw LogError.failed("log.db-shm: is of an unknown version")
    }
    index.storeBytes(of: 0, toByteOffset: offsetOfMoved, as: UInt32.self)
  }

  /// Gives back the pages of the WAL's index, of which a long WAL has many. They come back from the file that they are a map of.
  fileprivate func releaseWALIndex() {
    guard let file = mainFile, let methods = file.pointee.pMethods, methods.pointee.iVersion >= 2,
      let map = methods.pointee.xShmMap
    else { return }
    var (number, region): (CInt, UnsafeMutableRawPointer?) = (0, nil)
    while map(file, number, Self.walIndexRegionBytes, 0, &region) == SQLITE_OK, let start = region {
      madvise(start, Int(Self.walIndexRegionBytes), MADV_DONTNEED)
      number += 1
    }
  }

  /// In which pieces SQLite maps the WAL's index (sqlite.org/walformat.html, 2).
  private static let walIndexRegionBytes: CInt = 32_768

  /// The database's file as SQLite has it open.
  var mainFile: UnsafeMutablePointer<sqlite3_file>? {
    var file: UnsafeMutablePointer<sqlite3_file>?
    let code = sqlite3_file_control(sqliteConnection, "main", SQLITE_FCNTL_FILE_POINTER, &file)
    return code == SQLITE_OK ? file : nil
  }
}

/// The size of a file in bytes, without opening it; nil if there is none.
func sizeOfFile(_ path: String) -> Int? {
  var status = stat()
  return stat(path, &status) == 0 ? Int(status.st_size) : nil
}

/// The descriptors of a file that this process has open.
func openDescriptors(of path: String) -> Set<CInt> {
  var wanted = stat()
  guard stat(path, &wanted) == 0, let folder = opendir("/proc/self/fd") else { return [] }
  defer { closedir(folder) }
  var descriptors: Set<CInt> = []
  while let entry = readdir(folder) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    var status = stat()
    if let descriptor = CInt(name), fstat(descriptor, &status) == 0, status.st_dev == wanted.st_dev,
      status.st_ino == wanted.st_ino
    {
      descriptors.insert(descriptor)
    }
  }
  return descriptors
}

/// What an ordinary user may still write to the file system that has this file, in bytes; nil if it can't be told.
private func bytesFree(at path: String) -> Int? {
  var status = statvfs()
  guard statvfs(path, &status) == 0 else { return nil }
  let (bytes, isMore) = status.f_bavail.multipliedReportingOverflow(by: status.f_frsize)
  return isMore ? .max : Int(clamping: bytes)
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
