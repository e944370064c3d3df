// index.db: what reads need beyond memory, derived from the log and written behind it. May be deleted at any time.

import GRDB
import Glibc
import Log
import Model

/// One open `index.db`: derived tables, and the watermark that says up to which event.
///
/// Every failure here means "no index": the caller then reads the log instead, or builds a new one.
final class IndexFile {
  static let version = 2
  private let file: DatabaseFile
  /// Tells whether the path still leads to this file.
  private let inode: UInt64

  /// How far the tables are.
  struct Watermark {
    var upTo: EventID
    var time: Timestamp
    /// The checksum of the event at `upTo`: an index of another log does not have it.
    var checksum: Int64
    /// Rows of `clients`, with those that have expired since the last sweep.
    var clients: Int
    /// When expired clients are deleted next.
    var sweep: Timestamp

    static let start = Watermark(upTo: .zero, time: .zero, checksum: 0, clients: 0, sweep: .zero)
  }

  private static let schema = """
    CREATE TABLE watermark (
      id INTEGER PRIMARY KEY CHECK (id = 1), upTo INTEGER NOT NULL, time INTEGER NOT NULL, checksum INTEGER NOT NULL,
      clients INTEGER NOT NULL, sweep INTEGER NOT NULL
    ) STRICT;
    INSERT INTO watermark VALUES (1, 0, 0, 0, 0, 0);
    CREATE TABLE accounts (
      id INTEGER PRIMARY KEY, name TEXT NOT NULL, hash TEXT, generation INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE revocations (
      account INTEGER NOT NULL, token TEXT NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (account, token)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE follows (
      follower INTEGER NOT NULL, followed INTEGER NOT NULL, PRIMARY KEY (follower, followed)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE posts (
      author INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (author, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE clients (
      client INTEGER PRIMARY KEY, account INTEGER NOT NULL, lastEvent INTEGER NOT NULL, lastTime INTEGER NOT NULL,
      entries BLOB NOT NULL
    ) STRICT;
    """

  // MARK: Opening

  /// The files that make up an index.
  private static func paths(_ path: String) -> [String] { [path, path + "-wal", path + "-shm"] }

  private static func inode(of path: String) -> UInt64? {
    var status = stat()
    return stat(path, &status) == 0 ? UInt64(status.st_ino) : nil
  }

  /// Opens the index; throws `.corrupt` if it is missing, damaged, of another version, or may not be written to.
  ///
  /// `opening` keeps others from replacing the file between the opening of its parts.
  init(path: String, opening: FileLock) throws(LogError) {
    try opening.lock(.shared)
    defer { opening.unlock() }
    guard let inode = Self.inode(of: path) else { throw LogError.corrupt("\(path): there is none") }
    self.inode = inode
    // Then it is made anew.
    do { try DatabaseFile.checkWritable(path) } catch { throw LogError.corrupt("\(path): can't be written to") }
    file = try DatabaseFile(
      path: path,
      options: DatabaseFile.Options(synchronous: "NORMAL", checkpointPages: 1_000, cacheKiB: 1_024))
    let (application, version) = try file.identity()
    guard application == DatabaseFile.applicationID, version == Self.version else {
      throw LogError.corrupt("\(path): not an index of version \(Self.version)")
    }
    _ = try watermark()
  }

  /// Puts an empty index in the place of whatever is there. Only for the holder of the index's lock.
  static func recreate(path: String, opening: FileLock) throws(LogError) {
    try opening.lock(.exclusive)
    defer { opening.unlock() }
    for path in paths(path).reversed() where unlink(path) != 0 && errno != ENOENT {
      throw LogError(path: path, doing: "delete", errno: errno)
    }
    let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw LogError(path: path, doing: "create", errno: errno) }
    close(descriptor)
    let file = try DatabaseFile(
      path: path, options: DatabaseFile.Options(synchronous: "NORMAL", checkpointPages: 1_000, cacheKiB: 1_024))
    try file.access { database in
      try database.execute(sql: "PRAGMA journal_mode = WAL")
      try database.writing {
        try database.execute(
          sql: """
            \(schema)
            PRAGMA application_id = \(DatabaseFile.applicationID);
            PRAGMA user_version = \(version);
            """)
      }
    }
  }

  /// Whether another process has put a new index in this one's place.
  var isReplaced: Bool { Self.inode(of: file.path) != inode }

  func releaseMemory() { file.releaseMemory() }

  // MARK: Reading

  func watermark() throws(LogError) -> Watermark {
    try file.access { try self.watermark($0) }
  }

  private func watermark(_ database: Database) throws -> Watermark {
    let rows = try database.rows("SELECT upTo, time, checksum, clients, sweep FROM watermark WHERE id = 1")
    defer { rows.reset() }
    guard try rows.step() else { throw damaged("no watermark") }
    // Numbers that only damage can make, and with which one could not count on.
    let isPossible =
      rows.integer(0) >= 0 && (0...Int64(Int32.max)).contains(rows.integer(3))
      && Self.possibleTimes.contains(rows.integer(1)) && Self.possibleTimes.contains(rows.integer(4))
    guard isPossible else { throw damaged("the watermark is unreadable") }
    return Watermark(
      upTo: EventID(stored: rows.integer(0)), time: Timestamp(milliseconds: rows.integer(1)),
      checksum: rows.integer(2), clients: Int(rows.integer(3)), sweep: Timestamp(milliseconds: rows.integer(4)))
  }

  private static let possibleTimes = -(Int64(1) << 60)...Int64(1) << 60

  private func damaged(_ what: String) -> LogError { .corrupt("\(file.path): \(what)") }

  /// The ids of posts by `authors` in `low` < id ≤ `high`: the newest `limit` of them, or the oldest ones, in that order.
  ///
  /// A merge of the authors' own sequences: one seek for each author's first, and one for each id that is taken.
  func postIDs(
    by authors: [AccountID], after low: EventID, upTo high: EventID, newestFirst: Bool, limit: Int
  ) throws(LogError) -> [EventID] {
    guard low < high, limit > 0 else { return [] }
    return try file.access { database in
      let rows = try database.rows(
        newestFirst
          ? "SELECT id FROM posts WHERE author = ?1 AND id > ?2 AND id <= ?3 ORDER BY id DESC LIMIT 1"
          : "SELECT id FROM posts WHERE author = ?1 AND id > ?2 AND id <= ?3 ORDER BY id LIMIT 1")
      // One snapshot for all seeks, and one lock.
      try database.beginTransaction(.deferred)
      defer {
        rows.reset()
        try? database.commit()
      }
      func first(of author: AccountID, after low: Int64, upTo high: Int64) throws -> Int64? {
        rows.reset()
        rows.bind(Int64(author.rawValue), at: 1)
        rows.bind(low, at: 2)
        rows.bind(high, at: 3)
        return try rows.step() ? rows.integer(0) : nil
      }
      var front = Front(newestFirst: newestFirst, capacity: limit)
      for author in authors {
        // Beyond the last one that the front keeps, nothing is of interest.
        let (low, high) = front.narrowed(low: low.stored, high: high.stored)
        if let id = try first(of: author, after: low, upTo: high) { front.insert(id, by: author) }
      }
      var ids: [EventID] = []
      while ids.count < limit, let (id, author) = front.removeFirst() {
        ids.append(EventID(stored: id))
        let (low, high) = front.narrowed(
          low: newestFirst ? low.stored : id, high: newestFirst ? id - 1 : high.stored, taken: ids.count)
        if low < high, let id = try first(of: author, after: low, upTo: high) { front.insert(id, by: author) }
      }
      return ids
    }
  }

  /// What the clients' windows at the watermark tell of these requests.
  func outcomes(
    of requests: some Sequence<RequestID>
  ) throws(LogError) -> (watermark: EventID, outcomes: [RequestID: RequestWindow.Outcome]) {
    try file.access { database in
      try database.beginTransaction(.deferred)
      defer { try? database.commit() }
      let watermark = try watermark(database).upTo
      let rows = try database.rows(
        "SELECT client, account, lastEvent, lastTime, entries FROM clients WHERE client = ?1")
      defer { rows.reset() }
      var outcomes: [RequestID: RequestWindow.Outcome] = [:]
      for (client, numbers) in Dictionary(grouping: requests, by: \.client) {
        rows.reset()
        rows.bind(Int64(bitPattern: client.rawValue), at: 1)
        guard try rows.step() else { continue }
        let window = try window(in: rows)
        for request in numbers { outcomes[request] = window.outcome(of: request.number) }
      }
      return (watermark, outcomes)
    }
  }

  /// All of the state at the watermark except for the posts' texts.
  func snapshot() throws(LogError) -> Snapshot {
    try file.access { database in
      try database.beginTransaction(.deferred)
      defer { try? database.commit() }
      let watermark = try watermark(database)
      var snapshot = Snapshot(upTo: watermark.upTo, time: watermark.time)

      var rows = try database.rows("SELECT id, name, hash, generation FROM accounts ORDER BY id")
      defer { rows.reset() }
      while try rows.step() {
        guard rows.integer(0) == snapshot.names.count else {
          throw damaged("account \(snapshot.names.count) is missing")
        }
        snapshot.names.append(String(decoding: rows.bytes(1), as: UTF8.self))
        let hash = rows.isNull(2) ? nil : PasswordHash(phc: String(decoding: rows.bytes(2), as: UTF8.self))
        snapshot.credentials.append(Credential(hash: hash, generation: EventID(stored: rows.integer(3))))
      }
      rows.reset()

      rows = try database.rows("SELECT account, token, expires FROM revocations ORDER BY account, token")
      while try rows.step() {
        guard let token = TokenID(hexadecimal: String(decoding: rows.bytes(1), as: UTF8.self)) else {
          throw damaged("a revoked token is unreadable")
        }
        let revocation = Revocation(
          account: AccountID(UInt32(truncatingIfNeeded: rows.integer(0))), token: token,
          expires: Timestamp(milliseconds: rows.integer(2)))
        if !revocation.hasExpired(at: watermark.time) { snapshot.revocations.append(revocation) }
      }
      rows.reset()

      snapshot.following = Array(repeating: [], count: snapshot.names.count)
      rows = try database.rows("SELECT follower, followed FROM follows ORDER BY follower, followed")
      while try rows.step() {
        let follower = Int(rows.integer(0))
        guard snapshot.following.indices.contains(follower) else {
          throw damaged("unknown account \(follower) follows")
        }
        snapshot.following[follower].append(AccountID(UInt32(truncatingIfNeeded: rows.integer(1))))
      }
      rows.reset()

      snapshot.newestByAuthor.reserveCapacity(snapshot.names.count)
      rows = try database.rows(
        "SELECT id FROM posts WHERE author = ?1 ORDER BY id DESC LIMIT \(Limits.newestPerAuthor)")
      for author in snapshot.names.indices {
        rows.reset()
        rows.bind(Int64(author), at: 1)
        var ids: [EventID] = []
        while try rows.step() { ids.append(EventID(stored: rows.integer(0))) }
        ids.reverse()
        snapshot.newestByAuthor.append(ids)
      }
      rows.reset()

      snapshot.windows.reserveCapacity(watermark.clients)
      rows = try database.rows("SELECT client, account, lastEvent, lastTime, entries FROM clients")
      while try rows.step() {
        let window = try window(in: rows)
        guard !RequestTable.hasExpired(last: window.lastTime, at: watermark.time) else { continue }
        snapshot.windows.append((client: ClientID(UInt64(bitPattern: rows.integer(0))), window: window))
      }
      snapshot.windows.sort { $0.client < $1.client }
      return snapshot
    }
  }

  /// Reads account, lastEvent, lastTime, entries from columns 1 to 4.
  private func window(in rows: Rows) throws -> RequestWindow {
    guard let entries = WindowCodec.decode(rows.bytes(4)) else {
      throw damaged("the requests of client \(rows.integer(0)) are unreadable")
    }
    return RequestWindow(
      account: AccountID(UInt32(truncatingIfNeeded: rows.integer(1))), lastEvent: EventID(stored: rows.integer(2)),
      lastTime: Timestamp(milliseconds: rows.integer(3)), entries: entries)
  }

  // MARK: Writing

  /// Applies what `batch` collected, and moves the watermark.
  func apply(_ batch: IndexBatch, from watermark: Watermark) throws(LogError) {
    try file.access { database in
      try database.writing {
        guard try self.watermark(database).upTo == watermark.upTo else {
          throw damaged("two processes write it at once")
        }
        try writeAccounts(batch, database)
        try writeCredentials(batch, database)
        try writeFollows(batch, database)
        try writePosts(batch, database)
        var after = watermark
        after.upTo = batch.upTo
        after.time = batch.time
        after.checksum = batch.checksum
        try writeClients(batch, from: watermark, to: &after, database)
        let rows = try database.rows(
          "UPDATE watermark SET upTo = ?1, time = ?2, checksum = ?3, clients = ?4, sweep = ?5 WHERE id = 1")
        rows.bind(after.upTo, at: 1)
        rows.bind(after.time.milliseconds, at: 2)
        rows.bind(after.checksum, at: 3)
        rows.bind(Int64(after.clients), at: 4)
        rows.bind(after.sweep.milliseconds, at: 5)
        try rows.run()
      }
    }
  }

  private func writeAccounts(_ batch: IndexBatch, _ database: Database) throws {
    let rows = try database.rows("INSERT INTO accounts (id, name) VALUES (?1, ?2)")
    for (account, name) in batch.accounts {
      var name = name
      try name.withUTF8 { name in
        rows.bind(Int64(account.rawValue), at: 1)
        rows.bind(name, at: 2)
        try rows.run()
      }
    }
  }

  private func writeCredentials(_ batch: IndexBatch, _ database: Database) throws {
    guard !batch.credentials.isEmpty else { return }
    let setting = try database.rows("UPDATE accounts SET hash = ?2, generation = ?3 WHERE id = ?1")
    let revokingAll = try database.rows("UPDATE accounts SET generation = ?2 WHERE id = ?1")
    let forgetting = try database.rows("DELETE FROM revocations WHERE account = ?1")
    let revoking = try database.rows("INSERT OR REPLACE INTO revocations VALUES (?1, ?2, ?3)")
    for (event, change) in batch.credentials {
      let account = Int64(change.actor.rawValue)
      switch change {
      case .credentialSet(_, var hash):
        try hash.phc.withUTF8 { phc in
          setting.bind(account, at: 1)
          setting.bind(phc, at: 2)
          setting.bind(event, at: 3)
          try setting.run()
        }
        forgetting.bind(account, at: 1)
        try forgetting.run()
      case .sessionsRevoked:
        revokingAll.bind(account, at: 1)
        revokingAll.bind(event, at: 2)
        try revokingAll.run()
        forgetting.bind(account, at: 1)
        try forgetting.run()
      case .sessionRevoked(_, let token, let expires):
        var text = token.hexadecimal
        try text.withUTF8 { text in
          revoking.bind(account, at: 1)
          revoking.bind(text, at: 2)
          revoking.bind(expires.milliseconds, at: 3)
          try revoking.run()
        }
      case .accountCreated, .posted, .followed, .unfollowed: break
      }
    }
    let sweeping = try database.rows("DELETE FROM revocations WHERE expires < ?1")
    sweeping.bind(batch.time.milliseconds, at: 1)
    try sweeping.run()
  }

  private func writeFollows(_ batch: IndexBatch, _ database: Database) throws {
    let adding = try database.rows("INSERT OR IGNORE INTO follows VALUES (?1, ?2)")
    let removing = try database.rows("DELETE FROM follows WHERE follower = ?1 AND followed = ?2")
    for follow in batch.follows {
      let rows = follow.isNew ? adding : removing
      rows.bind(Int64(follow.follower.rawValue), at: 1)
      rows.bind(Int64(follow.followed.rawValue), at: 2)
      try rows.run()
    }
  }

  /// In the table's own order: each page is visited once.
  private func writePosts(_ batch: IndexBatch, _ database: Database) throws {
    let rows = try database.rows("INSERT INTO posts VALUES (?1, ?2)")
    for post in batch.posts.sorted(by: { ($0.author, $0.id) < ($1.author, $1.id) }) {
      rows.bind(Int64(post.author), at: 1)
      rows.bind(post.id, at: 2)
      try rows.run()
    }
  }

  /// Applies the batch's requests to the clients' windows, exactly as `RequestTable` does event by event. Most of its work can wait:
  /// expired rows count as absent, wherever they are read, and are swept now and then.
  private func writeClients(
    _ batch: IndexBatch, from before: Watermark, to after: inout Watermark, _ database: Database
  ) throws {
    var windows: [ClientID: RequestWindow] = [:]
    var hasRow = Set<ClientID>()
    let loading = try database.rows(
      "SELECT client, account, lastEvent, lastTime, entries FROM clients WHERE client = ?1")
    defer { loading.reset() }
    for request in batch.requests where windows[request.id.client] == nil {
      loading.reset()
      loading.bind(Int64(bitPattern: request.id.client.rawValue), at: 1)
      let isKnown = try loading.step()
      if isKnown { hasRow.insert(request.id.client) }
      windows[request.id.client] = isKnown ? try window(in: loading) : RequestWindow(account: request.account)
    }
    loading.reset()

    var dropped: [ClientID] = []
    if after.clients + windows.count - hasRow.count <= Limits.repeatClients {
      for request in batch.requests {
        // The event's time has let go an idle client's window before the event.
        if let last = windows[request.id.client]?.lastTime, RequestTable.hasExpired(last: last, at: request.time) {
          windows[request.id.client] = RequestWindow(account: request.account)
        }
        windows[request.id.client]!.record(request.id.number, as: request.event, at: request.time)
      }
    } else {
      dropped = try recordCrowded(batch, &windows, database)
      for client in dropped { windows[client] = nil }
    }

    let deleting = try database.rows("DELETE FROM clients WHERE client = ?1")
    for client in dropped {
      deleting.bind(Int64(bitPattern: client.rawValue), at: 1)
      try deleting.run()
    }
    let storing = try database.rows("INSERT OR REPLACE INTO clients VALUES (?1, ?2, ?3, ?4, ?5)")
    for (client, window) in windows.sorted(by: {
      Int64(bitPattern: $0.key.rawValue) < Int64(bitPattern: $1.key.rawValue)
    }) {
      storing.bind(Int64(bitPattern: client.rawValue), at: 1)
      storing.bind(Int64(window.account.rawValue), at: 2)
      storing.bind(window.lastEvent, at: 3)
      storing.bind(window.lastTime.milliseconds, at: 4)
      try WindowCodec.encode(window.entries).withUnsafeBytes { bytes in
        storing.bind(blob: bytes, at: 5)
        try storing.run()
      }
    }

    after.clients += windows.keys.count { !hasRow.contains($0) }
    if !dropped.isEmpty || after.time >= before.sweep {
      let sweeping = try database.rows("DELETE FROM clients WHERE lastTime < ?1")
      sweeping.bind(after.time.milliseconds - Limits.repeatMilliseconds, at: 1)
      try sweeping.run()
      after.clients = try Int.fetchOne(database, sql: "SELECT count(*) FROM clients") ?? 0
      after.sweep = Timestamp(milliseconds: after.time.milliseconds + Limits.repeatMilliseconds / 4)
    }
  }

  /// The same when clients may be too many: finds out in the order of events which ones are idle for longest. Returns those to be
  /// deleted; a client among `windows` that was let go and came back has a window from then on.
  private func recordCrowded(
    _ batch: IndexBatch, _ windows: inout [ClientID: RequestWindow], _ database: Database
  ) throws -> [ClientID] {
    var lastTimes = RecencyTable<ClientID, Timestamp>()
    let rows = try database.rows("SELECT client, lastTime FROM clients ORDER BY lastEvent")
    defer { rows.reset() }
    while try rows.step() {
      lastTimes.touch(
        ClientID(UInt64(bitPattern: rows.integer(0))), default: Timestamp(milliseconds: rows.integer(1))
      ) { _ in }
    }
    rows.reset()

    var dropped = Set<ClientID>()
    func dropOldest() {
      if let client = lastTimes.removeOldest() { dropped.insert(client) }
    }
    for request in batch.requests {
      while let last = lastTimes.oldest({ $0 }), RequestTable.hasExpired(last: last, at: request.time) { dropOldest() }
      let client = request.id.client
      if dropped.remove(client) != nil { windows[client] = RequestWindow(account: request.account) }
      windows[client]!.record(request.id.number, as: request.event, at: request.time)
      lastTimes.touch(client, default: request.time) { $0 = request.time }
      if lastTimes.count > Limits.repeatClients { dropOldest() }
    }
    return dropped.sorted()
  }
}

/// What a run of events changes in the index.
struct IndexBatch {
  struct Follow {
    var follower: AccountID
    var followed: AccountID
    var isNew: Bool
  }

  struct Request {
    var id: RequestID
    var account: AccountID
    var event: EventID
    var time: Timestamp
  }

  var accounts: [(AccountID, String)] = []
  /// Changes of credentials and revocations, with their events.
  var credentials: [(EventID, Change)] = []
  var follows: [Follow] = []
  var posts: [(author: UInt32, id: Int64)] = []
  var requests: [Request] = []
  var upTo: EventID = .zero
  var time: Timestamp = .zero
  /// The checksum of the event at `upTo`.
  var checksum: Int64 = 0

  mutating func add(_ event: StoredEvent, path: String) throws {
    upTo = event.eventID
    time = event.timestamp
    let account = event.actor
    switch event.kind {
    case EventRow.Kind.posted: posts.append((author: account.rawValue, id: event.id))
    case EventRow.Kind.accountCreated: accounts.append((account, event.string))
    case EventRow.Kind.credentialSet:
      credentials.append((upTo, .credentialSet(account, PasswordHash(phc: event.string))))
    case EventRow.Kind.sessionRevoked:
      let token = try event.token(path: path)
      credentials.append((upTo, .sessionRevoked(account, token, expires: event.expiry)))
    case EventRow.Kind.sessionsRevoked: credentials.append((upTo, .sessionsRevoked(account)))
    case let kind:
      follows.append(
        Follow(follower: account, followed: event.otherAccount, isNew: kind == EventRow.Kind.followed))
    }
    if let request = event.requestID {
      requests.append(Request(id: request, account: account, event: upTo, time: time))
    }
  }
}

/// The next id of each author, best first, and no more of them than are wanted.
private struct Front {
  let newestFirst: Bool
  let capacity: Int
  /// Worst first, so that the best one is removed at the end.
  private var entries: [(id: Int64, author: AccountID)] = []

  init(newestFirst: Bool, capacity: Int) {
    self.newestFirst = newestFirst
    self.capacity = capacity
  }

  private func isBetter(_ left: Int64, than right: Int64) -> Bool { newestFirst ? left > right : left < right }

  /// The part of `low` < id ≤ `high` where an id can still be among the wanted, of which `taken` are taken already.
  func narrowed(low: Int64, high: Int64, taken: Int = 0) -> (low: Int64, high: Int64) {
    guard let worst = entries.first, entries.count >= capacity - taken else { return (low, high) }
    return newestFirst ? (max(low, worst.id), high) : (low, min(high, worst.id - 1))
  }

  mutating func insert(_ id: Int64, by author: AccountID) {
    var place = entries.count
    while place > 0, isBetter(entries[place - 1].id, than: id) { place -= 1 }
    entries.insert((id, author), at: place)
    if entries.count > capacity { entries.removeFirst() }
  }

  mutating func removeFirst() -> (id: Int64, author: AccountID)? { entries.popLast() }
}
