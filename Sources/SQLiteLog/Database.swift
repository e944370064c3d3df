// One SQLite file: how it is opened, how its errors are told, and how rows are moved without a copy.

import GRDB
import GRDBSQLite
import Glibc
import Log
import Model

/// One connection to one SQLite file. GRDB opens it and keeps its statements; where a row's cost counts, rows are bound and
/// read through the statement's own handle.
struct DatabaseFile {
  let path: String
  let queue: DatabaseQueue

  /// "TSNS": stands in the header of our databases.
  static let applicationID: Int32 = 0x5453_4e53

  struct Options {
    /// How a commit is synced: FULL waits for the disk at every commit, NORMAL only at a checkpoint.
    var synchronous: String
    /// The WAL's length in pages at which a commit also moves it into the database; 0: none does.
    var checkpointPages: Int
    /// Pages kept in memory, in KiB.
    var cacheKiB: Int
    /// For tests: a database that is full at this many pages.
    var pagesMax: Int?
  }

  /// Opens the file, which must exist and be writable.
  init(path: String, options: Options) throws(LogError) {
    try Self.checkWritable(path)
    var configuration = Configuration()
    configuration.foreignKeysEnabled = false
    // Appending processes take turns by themselves. Others hold SQLite's locks only for moments: who recovers the WAL, and who
    // closes the file as the last one.
    configuration.busyMode = .timeout(5)
    configuration.prepareDatabase { database in
      try database.execute(
        sql: """
          PRAGMA synchronous = \(options.synchronous);
          PRAGMA wal_autocheckpoint = \(options.checkpointPages);
          PRAGMA cache_size = -\(options.cacheKiB);
          """)
      if let pages = options.pagesMax { _ = try Int.fetchOne(database, sql: "PRAGMA max_page_count = \(pages)") }
    }
    self.path = path
    do { queue = try DatabaseQueue(path: path, configuration: configuration) } catch {
      throw LogError(error, path: path, database: nil)
    }
  }

  /// Throws if the database or a file beside it may not be written to. SQLite would open it for reading alone, and say so at the
  /// first commit.
  static func checkWritable(_ path: String) throws(LogError) {
    for file in [path, path + "-wal", path + "-shm"] where Glibc.access(file, W_OK) != 0 && errno != ENOENT {
      throw LogError(path: file, doing: "write to", errno: errno)
    }
  }

  /// Runs `body` on the connection, outside of a transaction.
  func access<Value>(_ body: (Database) throws -> Value) throws(LogError) -> Value {
    do {
      return try queue.writeWithoutTransaction { database in
        do { return try body(database) } catch {
          // Before anything else runs on the connection: the system's error number is that of its last failure.
          let told = LogError(error, path: path, database: database)
          if database.isInsideTransaction { try? database.rollback() }
          throw told
        }
      }
    } catch {
      throw LogError(error, path: path, database: nil)
    }
  }

  /// Drops the connection's cache of pages.
  func releaseMemory() {
    try? access { _ = sqlite3_db_release_memory($0.sqliteConnection) }
  }

  /// Whether nobody has put anything into the file yet.
  func isEmpty() throws(LogError) -> Bool {
    try access { try Int.fetchOne($0, sql: "SELECT count(*) FROM sqlite_master") == 0 }
  }

  /// What the header says of the file's contents: 0 and 0 in a new one.
  func identity() throws(LogError) -> (application: Int32, version: Int) {
    try access { database in
      let application = try Int32.fetchOne(database, sql: "PRAGMA application_id") ?? 0
      let version = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
      return (application, version)
    }
  }
}

extension Database {
  /// Runs `body` in a transaction that has the write lock from its start.
  func writing<Value>(_ body: () throws -> Value) throws -> Value {
    try beginTransaction(.immediate)
    let value = try body()
    try commit()
    return value
  }

  /// A statement that this connection keeps.
  func rows(_ sql: String) throws -> Rows {
    let rows = Rows(handle: try cachedStatement(sql: sql).sqliteStatement)
    rows.reset()
    return rows
  }
}

/// A prepared statement, through its own handle. Whoever steps one resets it: a statement in the middle of its rows holds a read
/// transaction open, and with it the WAL.
struct Rows {
  let handle: OpaquePointer

  @inline(__always)
  func bind(_ value: Int64, at index: Int32) { sqlite3_bind_int64(handle, index, value) }

  @inline(__always)
  func bind(_ id: EventID, at index: Int32) { bind(id.stored, at: index) }

  @inline(__always)
  func bind(_ value: Int64?, at index: Int32) {
    if let value { bind(value, at: index) } else { bindNull(at: index) }
  }

  @inline(__always)
  func bindNull(at index: Int32) { sqlite3_bind_null(handle, index) }

  /// Binds text that stays where it is until the statement has been stepped and reset or bound again.
  @inline(__always)
  func bind(_ text: UnsafeBufferPointer<UInt8>, at index: Int32) {
    // SQLite takes a null pointer for NULL, and an empty string's may be null.
    guard let start = text.baseAddress else {
      sqlite3_bind_text(handle, index, "", 0, nil)
      return
    }
    start.withMemoryRebound(to: CChar.self, capacity: text.count) { start in
      _ = sqlite3_bind_text(handle, index, start, Int32(text.count), nil)
    }
  }

  /// Binds bytes that stay where they are until the statement has been stepped and reset or bound again.
  @inline(__always)
  func bind(blob: UnsafeRawBufferPointer, at index: Int32) {
    if blob.count == 0 {
      sqlite3_bind_zeroblob(handle, index, 0)
    } else {
      sqlite3_bind_blob(handle, index, blob.baseAddress, Int32(blob.count), nil)
    }
  }

  /// Goes to the next row; false after the last one.
  @inline(__always)
  func step() throws -> Bool {
    switch sqlite3_step(handle) {
    case SQLITE_ROW: return true
    case SQLITE_DONE: return false
    case let code: throw failure(code)
    }
  }

  /// Runs a statement without rows, and makes it ready for the next time.
  @inline(__always)
  func run() throws {
    let code = sqlite3_step(handle)
    guard code == SQLITE_DONE else {
      let failure = failure(code)
      reset()
      throw failure
    }
    reset()
  }

  @inline(__always)
  func reset() { sqlite3_reset(handle) }

  private func failure(_ code: Int32) -> DatabaseError {
    DatabaseError(
      resultCode: ResultCode(rawValue: code), message: String(cString: sqlite3_errmsg(sqlite3_db_handle(handle))))
  }

  @inline(__always)
  func integer(_ column: Int32) -> Int64 { sqlite3_column_int64(handle, column) }

  @inline(__always)
  func isNull(_ column: Int32) -> Bool { sqlite3_column_type(handle, column) == SQLITE_NULL }

  /// The bytes of a text or blob, valid until the next step or reset.
  @inline(__always)
  func bytes(_ column: Int32) -> UnsafeBufferPointer<UInt8> {
    guard let start = sqlite3_column_blob(handle, column) else { return UnsafeBufferPointer(start: nil, count: 0) }
    let count = Int(sqlite3_column_bytes(handle, column))
    return UnsafeBufferPointer(start: start.assumingMemoryBound(to: UInt8.self), count: count)
  }
}

extension EventID {
  /// As SQLite keeps it. Positions beyond its range are all "after every event".
  var stored: Int64 { Int64(clamping: rawValue) }

  init(stored: Int64) { self.init(UInt64(bitPattern: stored)) }
}

// MARK: - Errors

extension LogError {
  /// What went wrong in SQLite, for whoever must repair it.
  init(_ error: any Error, path: String, database: Database?) {
    if let error = error as? LogError {
      self = error
      return
    }
    guard let error = error as? DatabaseError else {
      self = .failed("\(path): \(error)")
      return
    }
    let said = "\(path): \(error.message ?? error.resultCode.description)"
    switch error.resultCode {
    case .SQLITE_FULL: self = .full("\(path): no room on the disk")
    case .SQLITE_CORRUPT, .SQLITE_NOTADB: self = .corrupt(said)
    case .SQLITE_IOERR:
      // SQLite says FULL for ENOSPC alone, and that not everywhere.
      let code = database.flatMap { errnoOfLastWrite($0) } ?? 0
      let isWrite = [.SQLITE_IOERR_WRITE, .SQLITE_IOERR_FSYNC].contains(error.extendedResultCode)
      if error.extendedResultCode == .SQLITE_IOERR_SHMSIZE || isWrite && [ENOSPC, EDQUOT, EFBIG].contains(code) {
        self = .full("\(path): no room on the disk")
      } else {
        self = .failed(isWrite && code != 0 ? "\(said) (\(name(of: code)))" : said)
      }
    default: self = .failed(said)
    }
  }

  /// A system call that failed.
  init(path: String, doing what: String, errno code: Int32) {
    let said = "\(path): can't \(what) it: \(name(of: code))"
    self = code == ENOSPC || code == EDQUOT ? .full(said) : .failed(said)
  }
}

/// The system's error number for the last write to the connection's WAL that failed. (`sqlite3_system_errno` does not
/// have those of a COMMIT.)
private func errnoOfLastWrite(_ database: Database) -> Int32? {
  var file: UnsafeMutablePointer<sqlite3_file>?
  var code: Int32 = 0
  guard sqlite3_file_control(database.sqliteConnection, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file) == SQLITE_OK,
    let file, let methods = file.pointee.pMethods,
    methods.pointee.xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &code) == SQLITE_OK
  else { return nil }
  return code
}

private func name(of code: Int32) -> String { String(cString: strerror(code)) }
