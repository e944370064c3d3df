// The files of the log, damaged.

import Core
import Glibc
import Log
import Model
import SQLiteLog
import Synchronization

extension FuzzTarget {
  static let log = FuzzTarget(
    "log-files",
    "opens, reads, indexes and appends to a log whose files are damaged: one clear error, or events that are those written",
    inputBytesMax: 4_096,
    tokens: [Array("SQLite format 3\u{0}".utf8), [0, 0, 0, 0], [0x0D, 0x05, 0x0A, 0x02], [0xFF, 0xFF]]
  ) { random in
    (0..<Int.random(in: 0...24, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
  } body: { input throws(Finding) in
    try DamagedLog.shared.withLock { damaged throws(Finding) in try damaged.check(input) }
  }
}

/// A small log with its index, of which copies are damaged.
private struct DamagedLog: ~Copyable {
  static let shared = Mutex(DamagedLog())

  /// What is in the log.
  private let events: [Event]
  /// The files' contents, undamaged.
  private let files: [(name: String, bytes: [UInt8])]
  private let folder: String

  init() {
    var template = Array("/dev/shm/tinysns-fuzz-XXXXXX".utf8CString)
    if mkdtemp(&template) == nil {
      template = Array("/tmp/tinysns-fuzz-XXXXXX".utf8CString)
      precondition(mkdtemp(&template) != nil, "no temporary folder")
    }
    folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    events = Self.someEvents
    do {
      // A part is in the files themselves, with an index; the rest is in the WAL, which is copied before the log is closed.
      let indexed = 40
      var log = try SQLiteLog(folder: folder)
      _ = try log.append(Array(events[..<indexed]), after: .zero)
      while try log.index(limit: 100) {}
      log = try SQLiteLog(folder: folder)
      _ = try log.append(Array(events[indexed...]), after: EventID(UInt64(indexed)))
      var files: [(String, [UInt8])] = []
      for name in ["log.db", "index.db", "log.db-wal", "index.db-wal"] {
        if let bytes = Self.contents("\(folder)/\(name)") { files.append((name, bytes)) }
      }
      self.files = files
    } catch { preconditionFailure("no log to damage: \(error)") }
    Self.empty(folder)
    let path = folder
    atExit.withLock { $0.append(path) }
    atexit {
      for folder in atExit.withLock({ $0 }) {
        DamagedLog.empty(folder)
        rmdir(folder)
      }
    }
  }

  private static let someEvents: [Event] = {
    var events: [Event] = []
    func add(_ change: Change, _ number: UInt64?) {
      let id = EventID(UInt64(events.count + 1))
      let request = number.map { RequestID(client: ClientID(UInt64(change.actor.rawValue) + 9), number: $0) }
      events.append(
        Event(
          id: id, time: Timestamp(milliseconds: 1_700_000_000_000 + Int64(events.count)), request: request,
          change: change))
    }
    for (index, name) in ["alice", "bob", "carol", "dave"].enumerated() {
      add(.accountCreated(AccountID(UInt32(index)), name: name), nil)
    }
    for index in 0..<56 {
      let account = AccountID(UInt32(index % 4))
      let other = AccountID(UInt32((index + 1) % 4))
      switch index {
      case 3, 11, 23: add(.followed(account, other), UInt64(index + 1))
      case 50: add(.unfollowed(AccountID(3), AccountID(3)), UInt64(index + 1))
      default:
        add(.posted(account, text: "post \(index) " + String(repeating: "x", count: index * 7)), UInt64(index + 1))
      }
    }
    return events
  }()

  // MARK: One damage

  func check(_ input: [UInt8]) throws(Finding) {
    defer { Self.empty(folder) }
    var draw = Draw(input)
    for file in damaged(&draw) { Self.write(file.bytes, "\(folder)/\(file.name)") }
    do { try use() } catch let finding as Finding { throw finding } catch let error as LogError {
      let message: String =
        switch error {
        case .full(let what), .failed(let what), .corrupt(let what): what
        case .newer(let found, _): "\(folder): version \(found)"
        }
      try hold(message.contains(folder), "an error that names no file: \(message)")
      try hold(!message.contains("\n") && message.utf8.count < 1_000, "no clear line: \(message)")
    } catch { throw Finding("another error: \(error)") }
  }

  /// The files with the damages that an input tells: each a file, a place in it, and what happens there.
  private func damaged(_ draw: inout Draw) -> [(name: String, bytes: [UInt8])] {
    var files = self.files
    while !draw.isAtEnd {
      let index = draw.below(files.count)
      let count = files[index].bytes.count
      let page = draw.below(max(1, count / 4_096 + 1))
      guard count > 0 else { continue }
      let offset = min(
        count - 1, page * 4_096 + (draw.flag() ? Int(draw.byte()) : Int(draw.byte()) << 4 | Int(draw.byte()) & 15))
      switch draw.below(9) {
      case 0: files[index].bytes[offset] ^= 1 << UInt8(draw.below(8))
      case 1: files[index].bytes[offset] = draw.byte()
      case 2: files[index].bytes.removeSubrange(offset...)
      case 3: files[index].bytes.removeSubrange(offset..<min(count, offset + 1 + draw.below(64)))
      case 4: files[index].bytes.insert(contentsOf: draw.chunk().prefix(512), at: offset)
      case 5:
        let bytes = draw.chunk().prefix(count - offset)
        files[index].bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes)
      case 6:
        // A page of one file where a page of another belongs, or an empty one.
        let from = files[draw.below(files.count)].bytes
        let start = min(from.count, draw.below(8) * 4_096)
        let bytes = draw.flag() ? [UInt8](repeating: 0, count: 4_096) : Array(from[start...].prefix(4_096))
        let end = min(count, page * 4_096 + bytes.count)
        guard page * 4_096 < end else { continue }
        files[index].bytes.replaceSubrange(page * 4_096..<end, with: bytes.prefix(end - page * 4_096))
      case 7: files[index].bytes = draw.flag() ? [] : draw.rest()
      default: if draw.below(4) == 0 { files[index].bytes = files[draw.below(files.count)].bytes }
      }
    }
    return files
  }

  /// What master and tools do with a log.
  private func use() throws {
    let log = try SQLiteLog(folder: folder)
    let head = try log.head()
    let read = try log.read(after: .zero, limit: 1_000)
    try hold(
      read.count <= events.count && read.elementsEqual(events[..<read.count]), "reads events that were not written")
    try hold(Int(clamping: head.rawValue) == read.count, "reads \(read.count) events with the head at \(head)")

    var state = ServiceState(snapshot: try log.snapshot())
    let rest = try log.read(after: state.head, limit: 1_000)
    for event in rest { state.apply(event) }
    for (index, name) in state.names.enumerated() {
      let account = AccountID(UInt32(index))
      _ = state.account(named: name)
      for range in [TimelineQuery.Range.newest, .after(.zero), .before(EventID(30))] {
        _ = state.page(of: .home(account), range: range, limit: 20)
        _ = state.page(of: .author(account), range: range, limit: 100)
      }
    }
    let authors = state.names.indices.map { AccountID(UInt32($0)) }
    _ = try log.posts(by: authors, in: .before(.max), upTo: .max, limit: 10)
    _ = try log.posts(by: authors, in: .after(.zero), upTo: .max, limit: 100)
    _ = try log.posts(withIDs: [EventID(5), EventID(50)])

    var rounds = 0
    while try log.index(limit: 25) {
      rounds += 1
      try hold(rounds < 100, "the index is never done")
    }
    if let last = read.last {
      let event = Event(id: head.next, time: last.time, request: nil, change: .posted(AccountID(0), text: "afterwards"))
      try hold(try log.append([event], after: head) == .appended, "behind, and nobody else is there")
      try hold(try log.read(after: head, limit: 10) == [event], "what was appended is not there")
    }
    // The next start.
    var next = ServiceState(snapshot: try SQLiteLog(folder: folder).snapshot())
    for event in try log.read(after: next.head, limit: 1_000) { next.apply(event) }
  }

  // MARK: Files

  private static func contents(_ path: String) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = Glibc.read(descriptor, &bytes, bytes.count)
    return count <= 0 ? nil : Array(bytes[..<count])
  }

  private static func write(_ bytes: [UInt8], _ path: String) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    precondition(descriptor >= 0, "can't write \(path)")
    defer { close(descriptor) }
    precondition(Glibc.write(descriptor, bytes, bytes.count) == bytes.count, "can't write \(path)")
  }

  private static func empty(_ folder: String) {
    for name in [
      "log.db", "log.db-wal", "log.db-shm", "log.db-journal", "index.db", "index.db-wal", "index.db-shm",
      "index.db-journal",
      "log.queue.lock", "log.commit.lock", "log.create.lock", "log.open.lock", "log.checkpoint.lock",
      "index.lock", "index.open.lock",
    ] { unlink("\(folder)/\(name)") }
  }
}

/// Folders to be removed at the end.
private let atExit = Mutex<[String]>([])
