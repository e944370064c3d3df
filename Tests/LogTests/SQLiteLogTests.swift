// What only a log on a disk does: files that are damaged, newer, missing or full.

import Foundation
import GRDB
import GRDBSQLite
import Log
import Model
import Synchronization
import Testing

@testable import SQLiteLog

@Suite final class SQLiteLogTests {
  private let folder: TemporaryFolder
  private var history = History(seed: 11)

  init() throws {
    folder = try TemporaryFolder()
    history.addMixed(400)
  }

  private func path(_ name: String) -> String { folder.path + "/" + name }

  /// Appends the history and indexes it, and closes everything.
  private func fill(indexing: Bool = true) throws {
    let log = try SQLiteLog(folder: folder.path)
    try log.append(history)
    if indexing { try log.indexAll() }
  }

  /// Works on a database of a closed log behind its back.
  private func tamper(_ name: String, _ sql: String) throws {
    try DatabaseQueue(path: path(name)).writeWithoutTransaction { try $0.execute(sql: sql) }
  }

  private func overwrite(_ name: String, at offset: UInt64, with bytes: [UInt8]) throws {
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: path(name)))
    try file.seek(toOffset: offset)
    try file.write(contentsOf: Data(bytes))
    try file.close()
  }

  private func failure(_ body: () throws -> Void) -> LogError? {
    do {
      try body()
      return nil
    } catch { return error as? LogError }
  }

  // MARK: Opening

  @Test func keepsEverythingWhenReopened() throws {
    try fill()
    let log = try SQLiteLog(folder: folder.path)
    #expect(try log.head() == history.head)
    #expect(try log.read(after: .zero, limit: 1_000) == history.events)
    expectEqual(try log.snapshot(), history.state(at: 400))
    #expect(try log.index(limit: 10) == false)
  }

  @Test func filesAreTheOwnersAlone() throws {
    let log = try SQLiteLog(folder: folder.path)
    try log.append(history)
    try log.indexAll()
    let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    #expect(names.contains("log.db-wal") && names.contains("index.db-wal"))
    for name in names {
      let mode = try FileManager.default.attributesOfItem(atPath: path(name))[.posixPermissions] as? Int
      #expect(mode == 0o600, "\(name)")
    }
  }

  @Test func aNewerLogIsRefusedAndLeftAlone() throws {
    try fill(indexing: false)
    try tamper("log.db", "PRAGMA user_version = 7")
    let before = try Data(contentsOf: URL(fileURLWithPath: path("log.db")))
    #expect(failure { _ = try SQLiteLog(folder: folder.path) } == .newer(found: 7, supported: 3))
    #expect(try Data(contentsOf: URL(fileURLWithPath: path("log.db"))) == before)
  }

  /// A log of the time when each event had its own row is taken over as it is, and hidden from the programs of that time.
  @Test(arguments: [1, 2])
  func anOlderLogIsReadAsItIs(version: Int) throws {
    do {
      let log = try SQLiteLog(folder: folder.path)
      for event in history.events {
        #expect(try log.append([event], after: EventID(event.id.rawValue - 1)) == .appended)
      }
    }
    try tamper(
      "log.db",
      "ALTER TABLE entries DROP COLUMN packed; ALTER TABLE entries RENAME TO events; PRAGMA user_version = \(version)")
    let former = try DatabaseQueue(path: path("log.db"))
    #expect(try former.read { try Int.fetchOne($0, sql: "SELECT max(id) FROM events") } == 400)
    let log = try SQLiteLog(folder: folder.path)
    // A program of that time that has the log open must not pass over what it can't read.
    #expect(throws: DatabaseError.self) { try former.read { try Int.fetchOne($0, sql: "SELECT max(id) FROM events") } }
    #expect(try log.read(after: .zero, limit: 1_000) == history.events)
    let other = try SQLiteLog(folder: folder.path)
    let hash = PasswordHash(phc: "$argon2id$x")
    history.add(.credentialSet(AccountID(0), hash), request: nil)
    history.addPost(by: 0, "shares a row")
    #expect(try log.append(Array(history.events.suffix(2)), after: EventID(400)) == .appended)
    try log.indexAll()
    #expect(try log.snapshot().credentials[0] == Credential(hash: hash, generation: EventID(401)))
    #expect(try other.read(after: .zero, limit: 1_000) == history.events)
    #expect(try log.read(after: EventID(400), limit: 1_000) == Array(history.events.suffix(2)))
    let database = try DatabaseQueue(path: path("log.db"))
    #expect(try database.read { try Int.fetchOne($0, sql: "PRAGMA user_version") } == 3)
  }

  /// Wherever a read begins and ends within rows.
  @Test func eventsThatShareRowsAreReadOneByOne() throws {
    for number in 0..<200 { history.addPost(by: 0, String(repeating: "x", count: number * 5)) }
    let log = try SQLiteLog(folder: folder.path)
    #expect(try log.append(history.events, after: .zero) == .appended)
    let rows = try DatabaseQueue(path: path("log.db")).read {
      try Int.fetchOne($0, sql: "SELECT count(*) FROM entries")!
    }
    #expect(rows < history.events.count / 2)
    for start in 0...600 {
      for limit in [1, 2, 11, 1_000] {
        let events = try log.read(after: EventID(UInt64(start)), limit: limit)
        #expect(events == Array(history.events.dropFirst(start).prefix(limit)))
      }
    }
    let posts = history.events.compactMap(\.storedPost)
    #expect(try log.posts(withIDs: history.events.map(\.id)) == posts)
    let authors = Set(posts.map(\.author)).sorted()
    for edge in stride(from: 0, through: 600, by: 7).map({ EventID(UInt64($0)) }) {
      let older = posts.filter { $0.id < edge }.suffix(9)
      #expect(try log.posts(by: authors, in: .before(edge), upTo: .max, limit: 9).posts == Array(older))
      let newer = posts.filter { $0.id > edge && $0.id.rawValue <= 555 }.prefix(9)
      #expect(try log.posts(by: authors, in: .after(edge), upTo: EventID(555), limit: 9).posts == Array(newer))
    }
    // An index that ends within a row.
    while try log.snapshot().upTo < EventID(300) { _ = try log.index(limit: 13) }
    expectEqual(try log.snapshot(), history.state(at: Int(try log.snapshot().upTo.rawValue)))
  }

  @Test func aFileThatIsNoDatabaseIsRefused() throws {
    try Data("This is a letter, and by no means a database.".utf8).write(to: URL(fileURLWithPath: path("log.db")))
    #expect(failure { _ = try SQLiteLog(folder: folder.path) } == .corrupt("\(path("log.db")): file is not a database"))
  }

  @Test func aDamagedHeaderIsFound() throws {
    try fill(indexing: false)
    try overwrite("log.db", at: 0, with: Array(repeating: 0xff, count: 100))
    #expect(failure { _ = try SQLiteLog(folder: folder.path) } == .corrupt("\(path("log.db")): file is not a database"))
  }

  @Test func aDatabaseOfSomebodyElseIsRefused() throws {
    try tamper("log.db", "CREATE TABLE recipes (name TEXT)")
    let expected = LogError.corrupt("\(path("log.db")): a SQLite database, but not a log of Tiny SNS")
    #expect(failure { _ = try SQLiteLog(folder: folder.path) } == expected)
  }

  @Test func aCreationThatWasCutShortIsTakenUp() throws {
    try tamper("log.db", "PRAGMA journal_mode = WAL")
    let log = try SQLiteLog(folder: folder.path)
    try log.append(history)
    #expect(try log.head() == history.head)
  }

  @Test func aFolderThatIsMissingOrNotWritableIsNamed() throws {
    #expect(
      failure { _ = try SQLiteLog(folder: path("nowhere")) }
        == .failed("\(path("nowhere"))/log.queue.lock: can't open it: No such file or directory"))
    // Nobody can create files there, root neither.
    guard case .failed(let said) = failure({ _ = try SQLiteLog(folder: "/proc/self") }) else {
      Issue.record("a log in /proc")
      return
    }
    #expect(said.hasPrefix("/proc/self/log.queue.lock: can't open it: "))
  }

  // MARK: Damage

  @Test(arguments: [
    "text = text || '!'", "time = time + 1", "client = client + 1", "number = NULL, client = NULL",
    "account = account + 1",
    "kind = 1", "other = 1", "checksum = checksum + 1", "text = NULL",
  ])
  func aDamagedEventIsFound(change: String) throws {
    try fill()
    history.addPost(by: 0, "intact", request: RequestID(client: ClientID(1), number: 1))
    try fill()
    try tamper("log.db", "UPDATE entries SET \(change) WHERE id = 401")
    let log = try SQLiteLog(folder: folder.path)
    let expected = LogError.corrupt("\(path("log.db")): event 401 is damaged (its checksum does not match)")
    #expect(failure { _ = try log.read(after: .zero, limit: 1_000) } == expected)
    #expect(try log.read(after: .zero, limit: 400).count == 400)
  }

  /// The events of a commit share rows.
  @Test(arguments: [
    "packed = zeroblob(length(packed))", "packed = substr(packed, 1, 20)", "packed = NULL",
    "packed = CAST(packed || x'00' AS BLOB)", "time = time + 1",
    "account = account + 1", "account = account - 1", "account = 0", "account = -1", "kind = 2",
    "other = 1", "text = ''", "client = 1, number = 1", "checksum = checksum + 1",
  ])
  func aDamagedRowOfSeveralEventsIsFound(change: String) throws {
    try fill()
    for number in 1...3 { history.addPost(by: 0, "\(number)") }
    let log = try SQLiteLog(folder: folder.path)
    #expect(try log.append(Array(history.events.suffix(3)), after: EventID(400)) == .appended)
    try tamper("log.db", "UPDATE entries SET \(change) WHERE id = 403")
    #expect(try log.read(after: .zero, limit: 400).count == 400)
    for id in 401...403 as ClosedRange<UInt64> {
      for found in [
        failure { _ = try log.read(after: EventID(id - 1), limit: 1) },
        failure { _ = try log.posts(withIDs: [EventID(id)]) },
        failure { _ = try log.index(limit: 1) },
      ] {
        guard case .corrupt(let said) = found else {
          Issue.record("not noticed: \(String(describing: found))")
          continue
        }
        #expect(said.hasPrefix("\(path("log.db")): event") && said.contains("damaged"), "\(said)")
      }
    }
  }

  /// One event alone is never packed: a row that says so is damaged, though its checksum be right.
  @Test func aRowOfSeveralEventsHasTwoAtLeast() throws {
    try fill()
    for text in ["one", "two"] { history.addPost(by: 0, text) }
    let log = try SQLiteLog(folder: folder.path)
    #expect(try log.append(Array(history.events.suffix(2)), after: EventID(400)) == .appended)
    let database = try DatabaseQueue(path: path("log.db"))
    try database.write { database in
      let row = try #require(
        try Row.fetchOne(database, sql: "SELECT time, packed, checksum FROM entries WHERE id = 402 AND kind = 0"))
      let packed = [UInt8](row["packed"] as Data)
      func checksum(id: Int64, count: Int) -> Int64 {
        packed.prefix(packed.count / 2 * count).withUnsafeBufferPointer {
          EventRow.checksum(id: id, time: row["time"], count: Int64(count), packed: $0)
        }
      }
      #expect(checksum(id: 402, count: 2) == row["checksum"])
      try database.execute(
        sql: "UPDATE entries SET id = 401, account = 1, packed = ?, checksum = ? WHERE id = 402",
        arguments: [Data(packed.prefix(packed.count / 2)), checksum(id: 401, count: 1)])
    }
    let expected = LogError.corrupt("\(path("log.db")): event 401 is damaged (its checksum does not match)")
    #expect(failure { _ = try log.read(after: EventID(400), limit: 10) } == expected)
  }

  @Test func aFlippedBitOnTheDiskIsFound() throws {
    try fill()
    history.addPost(by: 0, "the needle in the haystack")
    try fill()
    let bytes = try Data(contentsOf: URL(fileURLWithPath: path("log.db")))
    let place = try #require(bytes.range(of: Data("needle".utf8))).lowerBound
    try overwrite("log.db", at: UInt64(place), with: [bytes[place] ^ 4])
    let log = try SQLiteLog(folder: folder.path)
    #expect(
      failure { _ = try log.posts(withIDs: [EventID(401)]) }
        == .corrupt("\(path("log.db")): event 401 is damaged (its checksum does not match)"))
  }

  @Test func aHoleIsFound() throws {
    try fill(indexing: false)
    let last = try DatabaseQueue(path: path("log.db")).read {
      try Int.fetchOne($0, sql: "SELECT max(id) FROM entries WHERE id < 200")!
    }
    try tamper("log.db", "DELETE FROM entries WHERE id = (SELECT min(id) FROM entries WHERE id >= 200)")
    let log = try SQLiteLog(folder: folder.path)
    let expected = LogError.corrupt("\(path("log.db")): event \(last + 1) is missing")
    #expect(failure { _ = try log.read(after: .zero, limit: 1_000) } == expected)
    #expect(failure { try log.indexAll() } == expected)
    let someone = history.events.compactMap(\.storedPost).map(\.author)[0]
    for range in [PostRange.before(.max), .after(.zero)] {
      guard case .corrupt = failure({ _ = try log.posts(by: [someone], in: range, upTo: .max, limit: 1_000) }) else {
        Issue.record("a hole is passed over")
        continue
      }
    }
    #expect(failure { _ = try log.posts(withIDs: [EventID(UInt64(last + 1))]) } == expected)
  }

  // MARK: The index

  /// Ways to lose the index while the log is closed.
  enum Loss: CaseIterable {
    case deleted, garbage, damagedPages, newer, older, ahead, ofAnotherLog
    case unknownAccount, missingAccount, impossibleTime, negativeCount
  }

  @Test(arguments: Loss.allCases)
  func anIndexThatCannotBeUsedIsRebuilt(_ loss: Loss) throws {
    try fill()
    switch loss {
    case .deleted: try FileManager.default.removeItem(atPath: path("index.db"))
    case .garbage: try Data("no index".utf8).write(to: URL(fileURLWithPath: path("index.db")))
    case .damagedPages:
      let size = try #require(sizeOfFile(path("index.db")))
      try overwrite("index.db", at: 4_096, with: Array(repeating: 0xee, count: size - 4_096))
    case .newer: try tamper("index.db", "PRAGMA user_version = 9")
    case .older: try tamper("index.db", "PRAGMA user_version = 0")
    case .ahead: try tamper("index.db", "UPDATE watermark SET upTo = upTo + 1000")
    case .ofAnotherLog: try tamper("index.db", "UPDATE watermark SET checksum = checksum + 1")
    case .unknownAccount: try tamper("index.db", "UPDATE follows SET followed = 4000000000 WHERE followed = 1")
    case .missingAccount: try tamper("index.db", "DELETE FROM accounts WHERE id = (SELECT max(id) FROM accounts)")
    case .impossibleTime: try tamper("index.db", "UPDATE watermark SET sweep = 9223372036854775807")
    case .negativeCount: try tamper("index.db", "UPDATE watermark SET clients = -1")
    }
    let log = try SQLiteLog(folder: folder.path)
    let authors = (0..<UInt32(10)).map { AccountID($0) }
    let wanted = history.events.compactMap(\.storedPost).filter { authors.contains($0.author) }
    var requests: [RequestID: EventID] = [:]
    for event in history.events { if let request = event.request { requests[request] = event.id } }
    // Until it is there again, the log itself answers.
    #expect(try log.events(of: Array(requests.keys), upTo: history.head) == requests)
    #expect(try log.posts(by: authors, in: .after(.zero), upTo: .max, limit: 1_000).posts == wanted)
    #expect(try log.snapshot().upTo == .zero)
    try log.indexAll()
    expectEqual(try log.snapshot(), history.state(at: 400))
    #expect(try log.posts(by: authors, in: .after(.zero), upTo: .max, limit: 1_000).posts == wanted)
    expectEqual(try SQLiteLog(folder: folder.path).snapshot(), history.state(at: 400))
  }

  /// Rows of the index have no checksums: what they say of requests is held to the log.
  @Test(arguments: [
    "DELETE FROM clients", "UPDATE clients SET entries = x'80'", "UPDATE clients SET entries = x''",
    "UPDATE clients SET entries = x'0102'",
  ])
  func requestsThatTheIndexHasLostAreFound(change: String) throws {
    try fill()
    try tamper("index.db", change)
    let log = try SQLiteLog(folder: folder.path)
    var requests: [RequestID: EventID] = [:]
    for event in history.events { if let request = event.request { requests[request] = event.id } }
    #expect(try log.events(of: Array(requests.keys), upTo: history.head) == requests)
    try log.indexAll()
    expectEqual(try log.snapshot(), history.state(at: 400))
  }

  /// What has left a client's window is not looked for in all of the log, and the index is not blamed for it.
  @Test func whatHasLeftItsWindowIsNotLost() throws {
    let client = ClientID(.max)
    for number in 1...Limits.repeatWindow + 10 {
      history.addPost(by: 0, "x", request: RequestID(client: client, number: number))
    }
    try fill()
    let log = try SQLiteLog(folder: folder.path)
    let left = RequestID(client: client, number: 10)
    #expect(try log.events(of: [left], upTo: history.head).isEmpty)
    let before = try FileManager.default.attributesOfItem(atPath: path("index.db"))[.systemFileNumber] as? Int
    history.addPost(by: 0, "one more")
    try log.append(history)
    try log.indexAll()
    #expect(try FileManager.default.attributesOfItem(atPath: path("index.db"))[.systemFileNumber] as? Int == before)
  }

  /// Nobody is told that a request took effect by a damaged event.
  @Test(arguments: [false, true])
  func aDamagedEventIsNoRequests(isIndexed: Bool) throws {
    try fill(indexing: isIndexed)
    let request = RequestID(client: ClientID(1), number: 1)
    history.addPost(by: 0, "intact", request: request)
    try fill(indexing: isIndexed)
    try tamper("log.db", "UPDATE entries SET text = text || '!' WHERE id = 401")
    let log = try SQLiteLog(folder: folder.path)
    let expected = LogError.corrupt("\(path("log.db")): event 401 is damaged (its checksum does not match)")
    #expect(failure { _ = try log.events(of: [request], upTo: .max) } == expected)
  }

  @Test func othersNoticeThatTheIndexWasReplaced() throws {
    try fill()
    let reader = try SQLiteLog(folder: folder.path)
    expectEqual(try reader.snapshot(), history.state(at: 400))
    for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path("index.db" + suffix)) }
    history.addMixed(100)
    try fill()
    expectEqual(try reader.snapshot(), history.state(at: 500))
  }

  @Test func onlyOneProcessIndexesAtATime() throws {
    try fill(indexing: false)
    let other = try FileLock(path: path("index.lock"))
    #expect(try other.tryLock())
    let log = try SQLiteLog(folder: folder.path)
    #expect(try log.index(limit: 100) == false)
    #expect(try log.snapshot().upTo == .zero)
    other.unlock()
    #expect(try log.index(limit: 100) == true)
    #expect(try log.snapshot().upTo == EventID(100))
  }

  // MARK: A full disk

  @Test func aFullLogRefusesWholeBatchesAndGoesOnLater() throws {
    let text = String(repeating: "x", count: Limits.postBytes)
    var history = History(seed: 12)
    history.addAccount()
    for _ in 0..<400 { history.addPost(by: 0, text) }
    var options = SQLiteLog.Options()
    options.pagesMax = 50
    var log = try SQLiteLog(folder: folder.path, options: options)
    var head = EventID.zero
    var refusal: LogError?
    while refusal == nil, head < history.head {
      let batch = Array(history.events[Int(head.rawValue)...].prefix(30))
      refusal = failure { _ = try log.append(batch, after: head) }
      if refusal == nil { head = batch.last!.id }
    }
    #expect(refusal == .full("\(path("log.db")): no room on the disk"))
    #expect(head > EventID(60) && head < EventID(250))
    #expect(try log.head() == head)
    #expect(try log.read(after: .zero, limit: 1_000) == Array(history.events[..<Int(head.rawValue)]))

    log = try SQLiteLog(folder: folder.path)
    try log.append(history)
    #expect(try log.read(after: .zero, limit: 1_000) == history.events)
  }

  // MARK: The WAL

  /// Appends 3,000 events in small commits, to a log whose WAL is too long from 50 pages on, while somebody reads all the time, but never for
  /// long. Gives the WAL's greatest length in pages.
  private func appendMuch(_ afterEach: (SQLiteLog) throws -> Void) throws -> Int {
    var options = SQLiteLog.Options()
    options.checkpointPages = 50
    options.checkpointPagesUnderLoad = 50
    let log = try SQLiteLog(folder: folder.path, options: options)
    let reader = try SQLiteLog(folder: folder.path)
    var history = history
    history.addMixed(3_000)
    var largest = 0
    for start in stride(from: 0, to: history.events.count, by: 4) {
      let batch = Array(history.events[start..<min(start + 4, history.events.count)])
      #expect(try log.append(batch, after: EventID(UInt64(start))) == .appended)
      if start % 40 == 0 { #expect(try reader.read(after: EventID(UInt64(start)), limit: 10) == batch) }
      largest = max(largest, sizeOfFile(path("log.db-wal")) ?? 0)
      try afterEach(log)
    }
    #expect((sizeOfFile(path("log.db")) ?? 0) > 400_000)
    return largest / 4_120
  }

  @Test func theWALStaysShortIfItIsCheckpointed() throws {
    let other = try SQLiteLog(folder: folder.path)
    var count = 0
    let largest = try appendMuch { log in
      guard let due = log.takeUpkeepDue(isQuiet: false) else { return }
      #expect(due == .checkpoint)
      try other.checkpoint()
      count += 1
    }
    #expect(count > 5 && largest < 60)
  }

  /// A number in the WAL's header that is one higher each time the WAL begins anew (its salt; sqlite.org/walformat.html).
  private func beginningsOfTheWAL() throws -> UInt32 {
    let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path("log.db-wal")))
    defer { try? file.close() }
    let header = try #require(try file.read(upToCount: 20))
    return header.dropFirst(16).reduce(0) { $0 << 8 | UInt32($1) }
  }

  /// A checkpoint beside appends must not begin while all is moved, since any append may then begin the WAL anew (a fault of SQLite's; see
  /// `LogFile.checkpoint`). So it begins it anew itself.
  @Test func aCheckpointNeverBeginsWhereAllIsMoved() throws {
    let log = try SQLiteLog(folder: folder.path)
    let other = try SQLiteLog(folder: folder.path)
    try log.append(history)
    try log.checkpoint()
    for checkpointer in [log, other, log] {
      let before = try beginningsOfTheWAL()
      try checkpointer.checkpoint()
      #expect(try beginningsOfTheWAL() == before &+ 1)
    }
    #expect(try other.read(after: .zero, limit: 1_000) == history.events)
    #expect(try SQLiteLog(folder: folder.path).head() == history.head)
  }

  /// One at a time, whoever it is: what a commit does that finds the WAL too long, too.
  @Test func nobodyCheckpointsBesideAnother() throws {
    var options = SQLiteLog.Options()
    options.checkpointPages = 2
    let log = try SQLiteLog(folder: folder.path, options: options)
    let checkpointing = try FileLock(path: path("log.checkpoint.lock"))
    try checkpointing.lock()
    let size = sizeOfFile(path("log.db"))
    let before = try beginningsOfTheWAL()
    var start = 0
    for end in [200, 300, 350] {
      #expect(try log.append(Array(history.events[start..<end]), after: EventID(UInt64(start))) == .appended)
      try log.checkpoint()
      start = end
    }
    #expect(try beginningsOfTheWAL() == before && sizeOfFile(path("log.db")) == size)
    checkpointing.unlock()
    #expect(try log.append(Array(history.events[start...]), after: EventID(UInt64(start))) == .appended)
    #expect(try #require(sizeOfFile(path("log.db"))) > #require(size))
  }

  /// What is appended while the WAL is being moved must not keep it from ever beginning anew.
  @Test func theWALBeginsAnewAlthoughSomebodyAppends() throws {
    let progress = Mutex((appended: 0, isOver: false))
    let done = DispatchSemaphore(value: 0)
    let (folder, event) = (folder.path, history.events[0])
    Thread.detachNewThread {
      defer { done.signal() }
      guard let log = try? SQLiteLog(folder: folder) else { return }
      var head = EventID.zero
      while !progress.withLock({ $0.isOver }) {
        var next = event
        next.id = head.next
        guard (try? log.append([next], after: head)) == .appended else { return }
        head = next.id
        progress.withLock { $0.appended += 1 }
      }
    }
    /// Waits until so many have been appended.
    func wait(for count: Int) throws {
      let deadline = ContinuousClock.now + .seconds(20)
      while progress.withLock({ $0.appended }) < count {
        try #require(ContinuousClock.now < deadline, "nobody appends")
        usleep(100)
      }
    }
    defer {
      progress.withLock { $0.isOver = true }
      done.wait()
    }
    try wait(for: 100)
    let log = try SQLiteLog(folder: folder)
    var beginnings = 0
    let rounds = 10
    for _ in 1...rounds {
      let before = try beginningsOfTheWAL()
      try log.checkpoint()
      try wait(for: progress.withLock { $0.appended } + 100)
      if try beginningsOfTheWAL() != before { beginnings += 1 }
    }
    // One or the other may have had to wait for its turn for too long.
    #expect(beginnings >= rounds - 2)
  }

  /// The kernel tells once of what it could not write, and takes it for written from then on. So all that was moved since the WAL began must be
  /// written anew, not only what was not moved yet.
  @Test func whatCouldNotBeSyncedIsMovedAgain() throws {
    let log = try SQLiteLog(folder: folder.path)
    let other = try SQLiteLog(folder: folder.path)
    var history = history
    history.addMixed(2_000)
    let half = history.events.count / 2
    #expect(try log.append(Array(history.events[..<half]), after: .zero) == .appended)
    // Whoever reads keeps what comes from now on from being moved, so that SQLite itself does not sync.
    var configuration = Configuration()
    configuration.allowsUnsafeTransactions = true
    let reader = try DatabaseQueue(path: path("log.db"), configuration: configuration)
    try reader.inDatabase { database in
      try database.beginTransaction(.deferred)
      _ = try Int.fetchOne(database, sql: "SELECT count(*) FROM sqlite_master")
    }
    #expect(try log.append(Array(history.events[half...]), after: EventID(UInt64(half))) == .appended)

    let disk = try ObservedDisk(of: log)
    disk.failsSyncs = true
    #expect(throws: LogError.self) { try log.checkpoint() }
    disk.failsSyncs = false
    let lost = disk.takeWritten()
    #expect(lost.count > 5)
    try reader.inDatabase { try $0.rollback() }
    try log.checkpoint()
    #expect(disk.takeWritten().isSuperset(of: lost))
    try log.checkpoint()
    #expect(disk.takeWritten().count < 3)  // all has been moved, once
    #expect(try other.read(after: .zero, limit: 5_000) == history.events)
    #expect(try other.append([], after: history.head) == .appended)
  }

  /// The WAL has its length from the start, and what is read from it is what was written, also by who finds it as it is after a crash.
  @Test func aNewWALIsAsLongAsItWillBe() throws {
    var options = SQLiteLog.Options()
    options.checkpointPages = 300
    let log = try SQLiteLog(folder: folder.path, options: options)
    let other = try SQLiteLog(folder: folder.path, options: options)
    #expect(try log.append(Array(history.events[..<50]), after: .zero) == .appended)
    try other.prepare()
    let length = 32 + 300 * 4_120
    #expect(sizeOfFile(path("log.db-wal")) == length)
    #expect(try log.append(Array(history.events[50...]), after: EventID(50)) == .appended)
    try log.prepare()
    #expect(sizeOfFile(path("log.db-wal")) == length)
    #expect(try other.read(after: .zero, limit: 1_000) == history.events)

    // By another process: to close the database here would drop its locks.
    let copy = try TemporaryFolder()
    let copying = try Process.run(
      URL(fileURLWithPath: "/bin/cp"), arguments: [path("log.db"), path("log.db-wal"), copy.path])
    copying.waitUntilExit()
    #expect(copying.terminationStatus == 0)
    #expect(try SQLiteLog(folder: copy.path).read(after: .zero, limit: 1_000) == history.events)
  }

  /// Nobody has appended anything yet.
  @Test func anEmptyWALCanBeAsLongToo() throws {
    var options = SQLiteLog.Options()
    options.checkpointPages = 300
    try SQLiteLog(folder: folder.path, options: options).prepare()
    let log = try SQLiteLog(folder: folder.path, options: options)
    try log.prepare()
    #expect(sizeOfFile(path("log.db-wal")) == 32 + 300 * 4_120)
    try log.append(history)
    #expect(try SQLiteLog(folder: folder.path).read(after: .zero, limit: 1_000) == history.events)
  }

  /// What is appended to a file without a name is gone with the process.
  @Test(arguments: ["log.db", "log.db-wal", "log.db-shm"])
  func nothingIsAppendedToWhatWasDeleted(name: String) throws {
    let log = try SQLiteLog(folder: folder.path)
    var head = EventID.zero
    func append() throws -> AppendResult {
      var next = history.events[0]
      next.id = head.next
      let result = try log.append([next], after: head)
      if result == .appended { head = next.id }
      return result
    }
    #expect(try append() == .appended)
    let file = "\(folder.path)/\(name)"
    try FileManager.default.moveItem(atPath: file, toPath: file + ".away")
    var failure: LogError?
    let deadline = ContinuousClock.now + .seconds(20)
    while failure == nil, ContinuousClock.now < deadline {
      do { #expect(try append() == .appended) } catch let error as LogError { failure = error }
    }
    guard case .failed(let reason) = failure else {
      Issue.record("\(String(describing: failure))")
      return
    }
    #expect(reason.contains("deleted, moved or replaced"))
    #expect(throws: LogError.self) { try log.checkpoint() }
    // All is as it was: what was read is there, and more can be appended.
    try FileManager.default.moveItem(atPath: file + ".away", toPath: file)
    #expect(try append() == .appended)
    #expect(try log.head() == head)
  }

  @Test func noNewLogIsBegunBesideOneThatIsOpen() throws {
    let log = try SQLiteLog(folder: folder.path)
    #expect(try log.append([history.events[0]], after: .zero) == .appended)
    for suffix in ["", "-wal", "-shm"] { try FileManager.default.removeItem(atPath: "\(folder.path)/log.db\(suffix)") }
    #expect {
      _ = try SQLiteLog(folder: folder.path)
    } throws: { error in
      guard case .failed(let reason) = error as? LogError else { return false }
      return reason.contains("while others have it open")
    }
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/log.db"))
    #expect(try log.head() == history.events[0].id)
  }

  @Test(arguments: [["-wal"], ["-shm"], ["-wal", "-shm"], [""]])
  func anotherFileIsNotOpenedBesideOneThatIsOpen(suffixes: [String]) throws {
    let log = try SQLiteLog(folder: folder.path)
    #expect(try log.append([history.events[0]], after: .zero) == .appended)
    for suffix in suffixes {
      let file = "\(folder.path)/log.db\(suffix)"
      try FileManager.default.copyItem(atPath: file, toPath: file + ".copy")
      try FileManager.default.removeItem(atPath: file)
      // Those of SQLite it makes itself.
      if suffix.isEmpty { try FileManager.default.moveItem(atPath: file + ".copy", toPath: file) }
    }
    #expect {
      _ = try SQLiteLog(folder: folder.path)
    } throws: { error in
      guard case .failed(let reason) = error as? LogError else { return false }
      return reason.contains("while others have it open")
    }
    #expect(try log.head() == history.events[0].id)
  }

  /// Whoever was the last to have it open may have died because of that.
  @Test func aLogThatIsGoneIsMissedUntilItIsForgotten() throws {
    #expect(try SQLiteLog(folder: folder.path).append([history.events[0]], after: .zero) == .appended)
    try FileManager.default.removeItem(atPath: folder.path + "/log.db")
    for _ in 0..<2 {
      #expect {
        _ = try SQLiteLog(folder: folder.path)
      } throws: { error in
        guard case .failed(let reason) = error as? LogError else { return false }
        return reason.contains("there was one, and it is gone")
      }
    }
    try SQLiteLog.forgetDeleted(in: folder.path)
    let log = try SQLiteLog(folder: folder.path)
    #expect(try log.append([history.events[0]], after: .zero) == .appended)
    try SQLiteLog.forgetDeleted(in: folder.path)
    #expect(try SQLiteLog(folder: folder.path).head() == history.events[0].id)
  }

  /// The last one to close it deletes its WAL, just when another opens it.
  @Test func whoOpensAndClosesItAtOnceIsNotTakenForAStranger() throws {
    let failures = Mutex<[String]>([])
    let path = folder.path
    DispatchQueue.concurrentPerform(iterations: 4) { _ in
      for _ in 0..<25 {
        do { _ = try SQLiteLog(folder: path).head() } catch { failures.withLock { $0.append("\(error)") } }
      }
    }
    #expect(failures.withLock { $0 } == [])
  }

  @Test func anEmptiedLogIsNotBegunAnew() throws {
    let log = try SQLiteLog(folder: folder.path)
    #expect(try log.append([history.events[0]], after: .zero) == .appended)
    let before = LogPlace(of: folder.path + "/log.db")
    truncate(folder.path + "/log.db", 0)
    #expect(throws: LogError.self) { try SQLiteLog(folder: folder.path) }
    #expect(LogPlace(of: folder.path + "/log.db") == before)
  }

  /// As after a backup: nobody has it open, so it may be any.
  @Test func aLogMayBeReplacedWhileNobodyHasItOpen() throws {
    #expect(try SQLiteLog(folder: folder.path).append([history.events[0]], after: .zero) == .appended)
    let file = folder.path + "/log.db"
    try FileManager.default.copyItem(atPath: file, toPath: file + ".copy")
    try FileManager.default.removeItem(atPath: file)
    try FileManager.default.moveItem(atPath: file + ".copy", toPath: file)
    #expect(try SQLiteLog(folder: folder.path).head() == history.events[0].id)
  }

  /// An idle master must not make one checkpoint after the other.
  @Test func aCheckpointIsDueOnce() throws {
    var options = SQLiteLog.Options()
    options.checkpointPages = 10
    options.loadSeconds = 0
    let log = try SQLiteLog(folder: folder.path, options: options)
    #expect(log.takeUpkeepDue(isQuiet: false) == nil)
    #expect(log.takeUpkeepDue(isQuiet: true) == nil)
    let half = history.events.count / 2
    #expect(try log.append(Array(history.events[..<half]), after: .zero) == .appended)
    #expect(try log.append(Array(history.events[half...]), after: EventID(UInt64(half))) == .appended)
    #expect(log.takeUpkeepDue(isQuiet: false) == .checkpoint)
    #expect(log.takeUpkeepDue(isQuiet: false) == nil)
    #expect(log.takeUpkeepDue(isQuiet: true) == .checkpoint)
    #expect(log.takeUpkeepDue(isQuiet: true) == nil)
  }

  /// The pages in the WAL since it began: those with its salts (sqlite.org/walformat.html).
  private func pagesInTheWAL() throws -> Int {
    let wal = try Data(contentsOf: URL(fileURLWithPath: path("log.db-wal")))
    let salts = wal[16..<24]
    return stride(from: 32, to: wal.count - 4_119, by: 4_120).prefix { wal[($0 + 8)..<($0 + 16)] == salts }.count
  }

  /// Appends so many new events to the log's end, in one commit.
  private func appendMore(_ count: Int, to log: SQLiteLog) throws {
    let (head, before) = (history.head, history.events.count)
    history.addMixed(count)
    #expect(try log.append(Array(history.events[before...]), after: head) == .appended)
  }

  /// Appends to the log's end in small commits until something is due. Gives it, and how many pages the WAL has then.
  private func appendUntilDue(_ log: SQLiteLog) throws -> (due: LogUpkeep, pages: Int) {
    for _ in 1...10_000 {
      try appendMore(4, to: log)
      if let due = log.takeUpkeepDue(isQuiet: false) { return (due, try pagesInTheWAL()) }
    }
    throw LogError.failed("nothing is due")
  }

  /// A log with a short WAL that has the whole history.
  private func logUnderLoad(loadSeconds: Double = 3_600) throws -> SQLiteLog {
    var options = SQLiteLog.Options()
    options.checkpointPages = 40
    options.checkpointPagesUnderLoad = 400
    options.loadSeconds = loadSeconds
    let log = try SQLiteLog(folder: folder.path, options: options)
    if try log.head() == .zero { try log.append(history) }
    return log
  }

  /// Appends until a checkpoint is due, which is to be when the file for a load is nearly full, and nothing has been moved before; makes it.
  private func expectCheckpointAtTheEnd(
    _ log: SQLiteLog, by other: SQLiteLog, before: () throws -> Void = {}
  ) throws {
    let size = sizeOfFile(path("log.db"))
    let (due, pages) = try appendUntilDue(log)
    #expect(due == .checkpoint && (360..<380).contains(pages))
    try before()
    #expect(sizeOfFile(path("log.db")) == size)
    try other.checkpoint()
  }

  /// What is moved is written twice, and while it is, commits wait longer. So that is done when there is no load; under one, when the WAL has become
  /// as long as it is to be. Whoever opens the log meanwhile has the same idea of it.
  @Test func underALoadTheWALBecomesAsLongAsItsFile() throws {
    let log = try logUnderLoad()
    let other = try logUnderLoad()
    let late = try logUnderLoad()
    let (asked, pages) = try appendUntilDue(log)
    #expect(asked == .prepareForLoad && (40..<60).contains(pages))
    // Somebody's first commit finds a long WAL: that alone does not tell how fast others append.
    try appendMore(1, to: late)
    #expect(late.takeUpkeepDue(isQuiet: false) == nil)
    try prepareForLoad(other)
    #expect(sizeOfFile(path("log.db-wal")) == 32 + 400 * 4_120)
    for _ in 1...3 {
      // A commit of one who has not looked at the file since it was short.
      try expectCheckpointAtTheEnd(log, by: other) { try appendMore(1, to: late) }
    }
    #expect(sizeOfFile(path("log.db-wal")) == 32 + 400 * 4_120)
    #expect(try other.read(after: .zero, limit: 100_000) == history.events)
  }

  private func prepareForLoad(_ log: SQLiteLog) throws {
    var goes = 1
    while try log.prepareForLoad() { goes += 1 }
    #expect(goes < 10)
  }

  /// Who makes the file longer is killed half-way, or nobody checkpoints in time: the next one goes by what was meant, not by what there is.
  @Test(arguments: [200, 600])
  func aWALOfAnotherLengthIsNoReasonForAnotherOne(pagesOfFile: Int) throws {
    let log = try logUnderLoad()
    let other = try logUnderLoad()
    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path("log.db-wal")))
    try handle.truncate(atOffset: UInt64(32 + pagesOfFile * 4_120))
    try handle.close()
    if pagesOfFile < 400 {
      let (due, pages) = try appendUntilDue(log)
      #expect(due == .prepareForLoad && (40..<60).contains(pages))
      try prepareForLoad(other)
      #expect(sizeOfFile(path("log.db-wal")) == 32 + 400 * 4_120)
    }
    for _ in 1...2 { try expectCheckpointAtTheEnd(log, by: other) }
    #expect(try other.read(after: .zero, limit: 100_000) == history.events)
  }

  /// Nobody makes the file longer: the disk may have no room for it.
  @Test func aWALWhoseFileStaysShortIsMovedAsUsual() throws {
    let log = try logUnderLoad()
    let other = try SQLiteLog(folder: folder.path)
    var dues: [LogUpkeep] = []
    for _ in 1...4 {
      let (due, pages) = try appendUntilDue(log)
      #expect(pages < 80)
      dues.append(due)
      if due == .checkpoint { try other.checkpoint() }
    }
    #expect(dues == [.prepareForLoad, .checkpoint, .prepareForLoad, .checkpoint])
  }

  @Test func whatComesSlowlyIsNoLoad() throws {
    let log = try logUnderLoad(loadSeconds: 0)
    #expect(try appendUntilDue(log).due == .checkpoint)
    // In a file that is long because there was a load, too.
    try prepareForLoad(log)
    try SQLiteLog(folder: folder.path).checkpoint()
    let (due, pages) = try appendUntilDue(log)
    #expect(due == .checkpoint && (40..<60).contains(pages))
  }

  /// When nobody appends any more, what was put off is done; not if there is little.
  @Test func whatIsInTheWALAfterALoadIsMovedWhenItIsQuiet() throws {
    let log = try logUnderLoad()
    #expect(try appendUntilDue(log).due == .prepareForLoad)
    #expect(log.takeUpkeepDue(isQuiet: true) == .checkpoint)
    try SQLiteLog(folder: folder.path).checkpoint()
    #expect(log.takeUpkeepDue(isQuiet: true) == nil)
    try appendMore(4, to: log)
    #expect(log.takeUpkeepDue(isQuiet: true) == nil)
    // The WAL has begun anew, and so has what is told of it.
    let (due, pages) = try appendUntilDue(log)
    #expect(due == .prepareForLoad && (40..<60).contains(pages))
  }

  /// Written in pieces, for which SQLite's own descriptor is found. Another is not opened: to close it would drop SQLite's locks.
  @Test func theDatabaseIsFoundAmongTheOpenFiles() throws {
    let file = path("log.db")
    #expect(openDescriptors(of: file) == [])
    let logs = try (1...3).map { _ in try SQLiteLog(folder: folder.path) }
    let descriptors = logs.compactMap(\.log.descriptor)
    #expect(Set(descriptors).count == 3 && Set(descriptors) == openDescriptors(of: file))
    let descriptor = try #require(descriptors.first)
    let link = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(descriptor)")
    #expect(link == URL(fileURLWithPath: file).standardizedFileURL.path)
    #expect(openDescriptors(of: path("none")) == [])
  }

  /// Somebody is frozen in his turn: whoever reads must not wait for him, and nothing is lost.
  @Test func aCheckpointDoesNotWaitForATurnForEver() throws {
    let log = try SQLiteLog(folder: folder.path)
    try log.append(history)
    let frozen = try Turnstile(folder: folder.path)
    try frozen.enter()
    let reader = try SQLiteLog(folder: folder.path)
    try reader.checkpoint()
    #expect(try reader.read(after: .zero, limit: 1_000) == history.events)
    frozen.leave(reserving: true)
    #expect(try !Turnstile(folder: folder.path).enter(within: 1_000_000), "it is reserved")
    try reader.checkpoint()
  }

  @Test func theWALStaysBoundedIfNobodyCheckpointsIt() throws {
    #expect(try appendMuch { _ in } < 4 * 50 + 10)
  }
}

@Suite struct ChecksumTests {
  /// Vectors of RFC 3720, appendix B.4, and the usual check value.
  @Test(
    arguments: [
      (Array("123456789".utf8), 0xe306_9283), (Array(repeating: 0, count: 32), 0x8a91_36aa),
      (Array(repeating: 0xff, count: 32), 0x62a8_ab43), (Array(0..<32), 0x46dd_794e),
      (Array((0..<32).reversed()), 0x113f_db5c), ([], 0),
    ] as [([UInt8], UInt32)])
  func isCRC32C(bytes: [UInt8], expected: UInt32) {
    var checksum = CRC32C()
    bytes.withUnsafeBufferPointer { checksum.add($0) }
    #expect(checksum.value == expected)
  }

  @Test func wordsAreBytesLowestFirst() {
    var words = CRC32C()
    words.add(0x0706_0504_0302_0100)
    var bytes = CRC32C()
    (0..<8 as Range<UInt8>).map { $0 }.withUnsafeBufferPointer { bytes.add($0) }
    #expect(words.value == bytes.value)
  }
}

@Suite struct WindowCodecTests {
  @Test func decodesWhatItEncodes() {
    let entries = [(1, 500), (2, 3), (900, 901), (UInt64.max, UInt64(Int64.max))].map {
      RequestWindow.Entry(number: $0.0, event: EventID($0.1))
    }
    let bytes = WindowCodec.encode(entries)
    #expect(bytes.withUnsafeBufferPointer { WindowCodec.decode($0) } == entries)
    #expect(WindowCodec.encode([]).isEmpty)
  }

  @Test(arguments: [[0x01], [0x80], [0x00, 0x02], [0x01, 0x01], Array(repeating: 0xff, count: 30)] as [[UInt8]])
  func refusesOtherBytes(bytes: [UInt8]) {
    #expect(bytes.withUnsafeBufferPointer { WindowCodec.decode($0) } == nil)
  }
}

/// What SQLite writes to the file `log.db` of one log, and syncs that fail if so asked. One at a time.
private final class ObservedDisk {
  private struct State {
    var original: sqlite3_io_methods
    var failsSyncs = false
    var written: Set<Int64> = []
  }

  /// C functions have no context.
  private static let state = Mutex<State?>(nil)

  init(of log: SQLiteLog) throws {
    let file = try #require(try log.log.file.access { $0.mainFile })
    let original = file.pointee.pMethods.pointee
    Self.state.withLock { $0 = State(original: original) }
    let methods = UnsafeMutablePointer<sqlite3_io_methods>.allocate(capacity: 1)  // for as long as the file is open
    methods.initialize(to: original)
    methods.pointee.xWrite = { file, bytes, count, offset in
      let original = ObservedDisk.state.withLock {
        $0!.written.insert(offset)
        return $0!.original
      }
      return original.xWrite(file, bytes, count, offset)
    }
    methods.pointee.xSync = { file, flags in
      let state = ObservedDisk.state.withLock { $0! }
      return state.failsSyncs ? ResultCode.SQLITE_IOERR_FSYNC.rawValue : state.original.xSync(file, flags)
    }
    file.pointee.pMethods = UnsafePointer(methods)
  }

  var failsSyncs: Bool {
    get { Self.state.withLock { $0!.failsSyncs } }
    set { Self.state.withLock { $0!.failsSyncs = newValue } }
  }

  /// Where something has been written since the last call.
  func takeWritten() -> Set<Int64> {
    Self.state.withLock { state in
      defer { state!.written = [] }
      return state!.written
    }
  }
}
