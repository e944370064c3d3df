// How a commit's events get into the log's table: many events a row, many rows a statement.

import GRDB
import Model

/// Inserts events into the log's table.
///
/// SQLite takes 1.6 µs for a row with a statement of its own, and 1.0 where 16 rows share one (SQLite 3.40, 160 posts a commit, without the
/// sync). So events that follow each other share rows, too, as many as fit (`EventRow.packedBytesMax`).
struct EventWriter {
  /// How many rows a statement inserts: as many as there are.
  private static let statements = [16, 4, 1].map { (count: $0, sql: insertion(of: $0)) }

  private static func insertion(of count: Int) -> String {
    let row = "(" + Array(repeating: "?", count: EventRow.columnCount).joined(separator: ", ") + ")"
    return "INSERT INTO \(EventRow.table) (\(EventRow.columns)) VALUES "
      + Array(repeating: row, count: count).joined(separator: ", ")
  }

  /// A row to be inserted: so many events up to the last one, packed, in these of the `bytes`.
  private struct Row {
    var last: Int64
    var time: Int64
    var count: Int
    var bytes: Range<Int>
  }

  private var rows: [Row] = []
  /// The events of all rows, packed, one behind the other: SQLite reads them where they are.
  private var bytes: [UInt8] = []

  /// More is not kept from one commit to the next: a full one of 100 bytes a post.
  private static let bytesKept = 1 << 19

  /// Inserts `events` in the transaction under way.
  mutating func insert(_ events: [Event], into database: Database) throws {
    pack(events)
    try bytes.withUnsafeBufferPointer { bytes in
      var next = 0
      for (count, sql) in Self.statements where rows.count - next >= count {
        let statement = try database.rows(sql)
        while rows.count - next >= count {
          for index in 0..<count {
            Self.bind(rows[next + index], bytes, to: statement, after: Int32(index * EventRow.columnCount))
          }
          try statement.run()
          next += count
        }
      }
    }
    if bytes.count > Self.bytesKept { self = EventWriter() }
  }

  private mutating func pack(_ events: [Event]) {
    rows.removeAll(keepingCapacity: true)
    var end = 0
    for event in events {
      event.withStored { event in
        let start = end
        end += event.packedCount
        if end > bytes.count { bytes += repeatElement(0, count: max(end, 4_096)) }
        bytes.withUnsafeMutableBytes { event.pack(into: UnsafeMutableRawBufferPointer(rebasing: $0[start..<end])) }
        var row = Row(last: event.id, time: event.time, count: 1, bytes: start..<end)
        if let last = rows.last, end - last.bytes.lowerBound <= EventRow.packedBytesMax {
          row.count += last.count
          row.bytes = last.bytes.lowerBound..<end
          rows.removeLast()
        }
        rows.append(row)
      }
    }
  }

  /// Binds a row's values to the parameters after the first `offset` ones. An event that is alone has its row to itself.
  @inline(__always)
  private static func bind(
    _ row: Row, _ bytes: UnsafeBufferPointer<UInt8>, to statement: Rows, after offset: Int32
  ) {
    var packed = bytes[row.bytes]
    statement.bind(row.last, at: offset + 1)
    statement.bind(row.time, at: offset + 2)
    guard row.count == 1, let event = StoredEvent(id: row.last, unpacking: &packed) else {
      let (count, packed) = (Int64(row.count), UnsafeBufferPointer(rebasing: packed))
      statement.bindNull(at: offset + 3)
      statement.bindNull(at: offset + 4)
      statement.bind(EventRow.Kind.several, at: offset + 5)
      statement.bind(count, at: offset + 6)
      statement.bindNull(at: offset + 7)
      statement.bindNull(at: offset + 8)
      statement.bind(
        EventRow.checksum(id: row.last, time: row.time, count: count, packed: packed), at: offset + 9)
      statement.bind(blob: UnsafeRawBufferPointer(packed), at: offset + 10)
      return
    }
    statement.bind(event.request?.client, at: offset + 3)
    statement.bind(event.request?.number, at: offset + 4)
    statement.bind(event.kind, at: offset + 5)
    statement.bind(event.account, at: offset + 6)
    statement.bind(event.other, at: offset + 7)
    if let text = event.text { statement.bind(text, at: offset + 8) } else { statement.bindNull(at: offset + 8) }
    statement.bind(event.checksum, at: offset + 9)
    statement.bindNull(at: offset + 10)
  }
}

extension Event {
  /// Calls `body` with the event as it is stored.
  @inline(__always)
  fileprivate func withStored(_ body: (StoredEvent) -> Void) {
    var stored = StoredEvent(
      id: id.stored, time: time.milliseconds, kind: EventRow.Kind.posted, account: Int64(change.actor.rawValue),
      request: request.map { (Int64(bitPattern: $0.client.rawValue), Int64(bitPattern: $0.number)) },
      other: nil, text: nil)
    var text: String?
    switch change {
    case .posted(_, let post): text = post
    case .accountCreated(_, let name): (stored.kind, text) = (EventRow.Kind.accountCreated, name)
    case .followed(_, let other): (stored.kind, stored.other) = (EventRow.Kind.followed, Int64(other.rawValue))
    case .unfollowed(_, let other): (stored.kind, stored.other) = (EventRow.Kind.unfollowed, Int64(other.rawValue))
    case .credentialSet(_, let hash): (stored.kind, text) = (EventRow.Kind.credentialSet, hash.phc)
    case .sessionRevoked(_, let token, let expires):
      (stored.kind, stored.other, text) = (EventRow.Kind.sessionRevoked, expires.milliseconds, token.hexadecimal)
    case .sessionsRevoked: stored.kind = EventRow.Kind.sessionsRevoked
    }
    guard var text else { return body(stored) }
    text.withUTF8 {
      stored.text = $0
      body(stored)
    }
  }
}
