// How a commit's events get into the log's table: many rows a statement.

import GRDB
import Model

/// Inserts events into the log's table.
///
/// What SQLite does for a row is less than what it does for a statement: 16 rows of a statement take 1.0 µs each, a row of its own
/// takes 1.6 (SQLite 3.40, 160 posts a commit, without the sync).
struct EventWriter {
  /// How many rows a statement inserts: as many as there are events for.
  private static let statements = [16, 4, 1].map { (count: $0, sql: insertion(of: $0)) }

  private static func insertion(of count: Int) -> String {
    let row = "(" + Array(repeating: "?", count: EventRow.columnCount).joined(separator: ", ") + ")"
    return "INSERT INTO events (\(EventRow.columns)) VALUES "
      + Array(repeating: row, count: count).joined(separator: ", ")
  }

  /// The texts of a statement's rows, one behind the other: SQLite reads them where they are.
  private var texts: [UInt8] = []
  /// Where each row's text ends; nil if it has none.
  private var ends: [Int?] = []

  /// Inserts `events` in the transaction under way.
  mutating func insert(_ events: [Event], into database: Database) throws {
    var next = 0
    for (count, sql) in Self.statements where events.count - next >= count {
      let rows = try database.rows(sql)
      while events.count - next >= count {
        try insert(events, from: next, count: count, through: rows)
        next += count
      }
    }
  }

  private mutating func insert(_ events: [Event], from start: Int, count: Int, through rows: Rows) throws {
    texts.removeAll(keepingCapacity: true)
    ends.removeAll(keepingCapacity: true)
    for index in start..<start + count { add(textOf: events[index].change) }
    try texts.withUnsafeBufferPointer { texts in
      var begin = 0
      for index in 0..<count {
        let text = ends[index].map { UnsafeBufferPointer(rebasing: texts[begin..<$0]) }
        begin = ends[index] ?? begin
        Self.bind(events[start + index], text, to: rows, after: Int32(index * EventRow.columnCount))
      }
      try rows.run()
    }
  }

  private mutating func add(textOf change: Change) {
    switch change {
    case .accountCreated(_, let name): add(name)
    case .posted(_, let text): add(text)
    case .credentialSet(_, let hash): add(hash.phc)
    case .sessionRevoked(_, let token, _): add(token.hexadecimal)
    case .followed, .unfollowed, .sessionsRevoked: ends.append(nil)
    }
  }

  private mutating func add(_ text: consuming String) {
    text.withUTF8 { texts.append(contentsOf: $0) }
    ends.append(texts.count)
  }

  /// Binds a row's values to the parameters after the first `offset` ones.
  @inline(__always)
  private static func bind(_ event: Event, _ text: UnsafeBufferPointer<UInt8>?, to rows: Rows, after offset: Int32) {
    let kind: Int64
    var other: Int64?
    switch event.change {
    case .accountCreated: kind = EventRow.Kind.accountCreated
    case .posted: kind = EventRow.Kind.posted
    case .followed(_, let followed): (kind, other) = (EventRow.Kind.followed, Int64(followed.rawValue))
    case .unfollowed(_, let followed): (kind, other) = (EventRow.Kind.unfollowed, Int64(followed.rawValue))
    case .credentialSet: kind = EventRow.Kind.credentialSet
    case .sessionRevoked(_, _, let expires): (kind, other) = (EventRow.Kind.sessionRevoked, expires.milliseconds)
    case .sessionsRevoked: kind = EventRow.Kind.sessionsRevoked
    }
    let id = event.id.stored
    let time = event.time.milliseconds
    let account = Int64(event.change.actor.rawValue)
    rows.bind(id, at: offset + 1)
    rows.bind(time, at: offset + 2)
    var client: Int64 = 0
    var number: Int64 = 0
    if let request = event.request {
      client = Int64(bitPattern: request.client.rawValue)
      number = Int64(bitPattern: request.number)
      rows.bind(client, at: offset + 3)
      rows.bind(number, at: offset + 4)
    } else {
      rows.bindNull(at: offset + 3)
      rows.bindNull(at: offset + 4)
    }
    rows.bind(kind, at: offset + 5)
    rows.bind(account, at: offset + 6)
    if let other { rows.bind(other, at: offset + 7) } else { rows.bindNull(at: offset + 7) }
    if let text { rows.bind(text, at: offset + 8) } else { rows.bindNull(at: offset + 8) }
    let checksum = EventRow.checksum(
      id: id, time: time, client: client, number: number, hasRequest: event.request != nil, kind: kind,
      account: account, other: other ?? 0, text: text)
    rows.bind(checksum, at: offset + 9)
  }
}
