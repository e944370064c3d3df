// How an event lies in the log's table, and the checksum that guards it.

import GRDB
import GRDBSQLite
import Log
import Model

/// The table of the log: one row an event, appended and never changed. No other index, no trigger: a commit costs the pages that
/// its events fill, and nothing else.
enum EventRow {
  static let schema = """
    CREATE TABLE events (
      id       INTEGER PRIMARY KEY,  -- contiguous from 1
      time     INTEGER NOT NULL,     -- milliseconds since 1970
      client   INTEGER,              -- the request that caused it: client, as a signed number,
      number   INTEGER,              --   and number; both NULL if none
      kind     INTEGER NOT NULL,     -- 1 account created, 2 posted, 3 followed, 4 unfollowed, 5 credential set,
                                     --   6 session revoked, 7 all of them revoked
      account  INTEGER NOT NULL,     -- who acts
      other    INTEGER,              -- who is followed or unfollowed; when a revoked token would have expired
      text     TEXT,                 -- the name, the post, the password's hash, the revoked token's id
      checksum INTEGER NOT NULL      -- CRC-32C over all the others
    ) STRICT
    """

  static let columns = "id, time, client, number, kind, account, other, text, checksum"
  static let columnCount = columns.split(separator: ",").count

  enum Kind {
    static let accountCreated: Int64 = 1
    static let posted: Int64 = 2
    static let followed: Int64 = 3
    static let unfollowed: Int64 = 4
    static let credentialSet: Int64 = 5
    static let sessionRevoked: Int64 = 6
    static let sessionsRevoked: Int64 = 7
  }

  /// Guards an event against what happens to it on the disk.
  @inline(__always)
  static func checksum(
    id: Int64, time: Int64, client: Int64, number: Int64, hasRequest: Bool, kind: Int64, account: Int64, other: Int64,
    text: UnsafeBufferPointer<UInt8>?
  ) -> Int64 {
    var checksum = CRC32C()
    checksum.add(UInt64(bitPattern: id))
    checksum.add(UInt64(bitPattern: time))
    checksum.add(UInt64(bitPattern: client))
    checksum.add(UInt64(bitPattern: number))
    checksum.add(UInt64(bitPattern: account))
    checksum.add(UInt64(bitPattern: other))
    let shape = UInt64(bitPattern: kind) | (hasRequest ? 1 << 8 : 0) | (text == nil ? 0 : 1 << 9)
    checksum.add(shape | UInt64(text?.count ?? 0) << 16)
    if let text { checksum.add(text) }
    return Int64(checksum.value)
  }

  // MARK: Reading

  /// Reads the current row of a statement that selects `columns`.
  static func event(in rows: Rows, path: String) throws -> Event {
    try verify(rows, path: path)
    let id = EventID(stored: rows.integer(0))
    let account = AccountID(UInt32(truncatingIfNeeded: rows.integer(5)))
    let other = AccountID(UInt32(truncatingIfNeeded: rows.integer(6)))
    let change: Change
    switch rows.integer(4) {
    case Kind.accountCreated: change = .accountCreated(account, name: text(of: rows))
    case Kind.posted: change = .posted(account, text: text(of: rows))
    case Kind.followed: change = .followed(account, other)
    case Kind.unfollowed: change = .unfollowed(account, other)
    case Kind.credentialSet: change = .credentialSet(account, PasswordHash(phc: text(of: rows)))
    case Kind.sessionRevoked:
      change = .sessionRevoked(account, try token(in: rows, path: path), expires: expiry(in: rows))
    case Kind.sessionsRevoked: change = .sessionsRevoked(account)
    case let kind: throw LogError.corrupt("\(path): event \(id) is of unknown kind \(kind)")
    }
    return Event(
      id: id, time: Timestamp(milliseconds: rows.integer(1)), request: request(in: rows), change: change)
  }

  /// The post in the current row, which is one.
  static func post(in rows: Rows, path: String) throws -> StoredPost {
    try verify(rows, path: path)
    return StoredPost(
      id: EventID(stored: rows.integer(0)), author: AccountID(UInt32(truncatingIfNeeded: rows.integer(5))),
      time: Timestamp(milliseconds: rows.integer(1)), text: text(of: rows))
  }

  /// The request of the event in the current row.
  @inline(__always)
  static func request(in rows: Rows) -> RequestID? {
    guard !rows.isNull(2) else { return nil }
    return RequestID(
      client: ClientID(UInt64(bitPattern: rows.integer(2))), number: UInt64(bitPattern: rows.integer(3)))
  }

  /// The id of the token that the event in the current row revokes.
  static func token(in rows: Rows, path: String) throws -> TokenID {
    guard let token = TokenID(hexadecimal: text(of: rows)) else {
      throw LogError.corrupt("\(path): event \(rows.integer(0)) revokes what is no token")
    }
    return token
  }

  /// When that token would have expired.
  static func expiry(in rows: Rows) -> Timestamp { Timestamp(milliseconds: rows.integer(6)) }

  static func text(of rows: Rows) -> String { String(decoding: rows.bytes(7), as: UTF8.self) }

  /// Holds the current row to its checksum.
  @inline(__always)
  static func verify(_ rows: Rows, path: String) throws {
    let expected = checksum(
      id: rows.integer(0), time: rows.integer(1), client: rows.integer(2), number: rows.integer(3),
      hasRequest: !rows.isNull(2), kind: rows.integer(4), account: rows.integer(5), other: rows.integer(6),
      text: rows.isNull(7) ? nil : rows.bytes(7))
    guard rows.integer(8) == expected else {
      throw LogError.corrupt("\(path): event \(rows.integer(0)) is damaged (its checksum does not match)")
    }
  }
}

extension TokenID {
  /// 32 digits.
  var hexadecimal: String {
    [high, low].map { half in
      let digits = String(half, radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }.joined()
  }

  init?(hexadecimal text: String) {
    guard text.utf8.count == 32, let high = UInt64(text.prefix(16), radix: 16),
      let low = UInt64(text.suffix(16), radix: 16)
    else { return nil }
    self.init(high: high, low: low)
  }
}
