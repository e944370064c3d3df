// How events lie in the log's table, and the checksums that guard them.

import GRDB
import GRDBSQLite
import Log
import Model

/// The table of the log: a row holds one event, or several that follow each other, of one commit. Rows are appended and never changed. No
/// other index, no trigger: a commit costs the pages that its events fill, and nothing else.
enum EventRow {
  static let schema = """
    CREATE TABLE \(table) (
      id       INTEGER PRIMARY KEY,  -- of the row's last event; those of all events are contiguous from 1
      time     INTEGER NOT NULL,     -- milliseconds since 1970
      client   INTEGER,              -- the request that caused it: client, as a signed number,
      number   INTEGER,              --   and number; both NULL if none
      kind     INTEGER NOT NULL,     -- 1 account created, 2 posted, 3 followed, 4 unfollowed, 5 credential set,
                                     --   6 session revoked, 7 all of them revoked; 0 several events
      account  INTEGER NOT NULL,     -- who acts; of several events, how many they are
      other    INTEGER,              -- who is followed or unfollowed; when a revoked token would have expired
      text     TEXT,                 -- the name, the post, the password's hash, the revoked token's id
      checksum INTEGER NOT NULL,     -- CRC-32C over all the others
      \(packedColumn)
    ) STRICT
    """

  static let table = "entries"
  /// What version 3 has changed: `packed`, and the name, so that a program of before that has the log open fails at once, instead of passing over
  /// what it does not know.
  static let formerTable = "events"
  static let packedColumn = "packed BLOB"

  static let columns = "id, time, client, number, kind, account, other, text, checksum, packed"
  static let columnCount = columns.split(separator: ",").count

  /// A row of several events is full at so many bytes: three fit on a page of 4 KiB, and to find one event among them takes a microsecond or two.
  static let packedBytesMax = 1_300
  /// Events of a row, at most: as many of the smallest ones as fit. Part of the format: it may grow, but not become less.
  static let eventsMax = 81
  /// An event that is alone has a row of its own.
  private static let countsOfSeveral = 2...Int64(eventsMax)

  enum Kind {
    static let several: Int64 = 0
    static let accountCreated: Int64 = 1
    static let posted: Int64 = 2
    static let followed: Int64 = 3
    static let unfollowed: Int64 = 4
    static let credentialSet: Int64 = 5
    static let sessionRevoked: Int64 = 6
    static let sessionsRevoked: Int64 = 7
  }

  /// Guards a row of several events against what happens to it on the disk.
  static func checksum(id: Int64, time: Int64, count: Int64, packed: UnsafeBufferPointer<UInt8>) -> Int64 {
    var checksum = CRC32C()
    checksum.add(UInt64(bitPattern: id))
    checksum.add(UInt64(bitPattern: time))
    checksum.add(UInt64(bitPattern: count))
    checksum.add(packed)
    return Int64(checksum.value)
  }

  // MARK: Reading

  /// Puts the events of the current row of a statement that selects `columns` into `events`, and holds them to the row's checksum. Their texts
  /// are valid until the statement goes on.
  static func read(_ rows: Rows, path: String, into events: inout [StoredEvent]) throws {
    events.removeAll(keepingCapacity: true)
    guard rows.integer(4) == Kind.several else {
      let event = StoredEvent(
        id: rows.integer(0), time: rows.integer(1), kind: rows.integer(4), account: rows.integer(5),
        request: rows.isNull(2) ? nil : (rows.integer(2), rows.integer(3)),
        other: rows.isNull(6) ? nil : rows.integer(6), text: rows.isNull(7) ? nil : rows.bytes(7))
      guard rows.integer(8) == event.checksum, rows.isNull(9) else { throw damaged(rows, path) }
      events.append(event)
      return
    }
    let (last, count, packed) = (rows.integer(0), rows.integer(5), rows.bytes(9))
    let isWhole =
      rows.integer(8) == checksum(id: last, time: rows.integer(1), count: count, packed: packed)
      && rows.isNull(2) && rows.isNull(3) && rows.isNull(6) && rows.isNull(7)
    guard isWhole, countsOfSeveral.contains(count), last >= count else { throw damaged(rows, path) }
    var rest = packed[...]
    for id in last - count + 1...last {
      guard let event = StoredEvent(id: id, unpacking: &rest) else { throw damaged(rows, path) }
      events.append(event)
    }
    guard rest.isEmpty else { throw damaged(rows, path) }
  }

  private static func damaged(_ rows: Rows, _ path: String) -> LogError {
    let (last, count) = (rows.integer(0), rows.integer(5))
    guard rows.integer(4) == Kind.several, countsOfSeveral.contains(count), last >= count else {
      return .corrupt("\(path): event \(last) is damaged (its checksum does not match)")
    }
    return .corrupt("\(path): events \(last - count + 1) to \(last) are damaged (their checksum does not match)")
  }
}

/// An event as it is stored, in a row of its own or with others.
struct StoredEvent {
  var id: Int64
  var time: Int64
  var kind: Int64
  var account: Int64
  var request: (client: Int64, number: Int64)?
  var other: Int64?
  var text: UnsafeBufferPointer<UInt8>?

  /// Tells the event from any other. In a row of its own it is the row's.
  @inline(__always)
  var checksum: Int64 {
    var checksum = CRC32C()
    checksum.add(UInt64(bitPattern: id))
    checksum.add(UInt64(bitPattern: time))
    checksum.add(UInt64(bitPattern: request?.client ?? 0))
    checksum.add(UInt64(bitPattern: request?.number ?? 0))
    checksum.add(UInt64(bitPattern: account))
    checksum.add(UInt64(bitPattern: other ?? 0))
    let shape = UInt64(bitPattern: kind) | (request == nil ? 0 : 1 << 8) | (text == nil ? 0 : 1 << 9)
    checksum.add(shape | UInt64(text?.count ?? 0) << 16)
    if let text { checksum.add(text) }
    return Int64(checksum.value)
  }

  // MARK: What it says

  @inline(__always)
  var eventID: EventID { EventID(stored: id) }
  @inline(__always)
  var actor: AccountID { AccountID(UInt32(truncatingIfNeeded: account)) }
  /// The account that it is about, besides the one that acts.
  var otherAccount: AccountID { AccountID(UInt32(truncatingIfNeeded: other ?? 0)) }
  var timestamp: Timestamp { Timestamp(milliseconds: time) }
  /// When the token that it revokes would have expired.
  var expiry: Timestamp { Timestamp(milliseconds: other ?? 0) }

  /// The request that caused it.
  @inline(__always)
  var requestID: RequestID? {
    request.map { RequestID(client: ClientID(UInt64(bitPattern: $0.client)), number: UInt64(bitPattern: $0.number)) }
  }

  var string: String { text.map { String(decoding: $0, as: UTF8.self) } ?? "" }

  /// The id of the token that it revokes.
  func token(path: String) throws -> TokenID {
    guard let token = TokenID(hexadecimal: string) else {
      throw LogError.corrupt("\(path): event \(id) revokes what is no token")
    }
    return token
  }

  func event(path: String) throws -> Event {
    let change: Change
    switch kind {
    case EventRow.Kind.accountCreated: change = .accountCreated(actor, name: string)
    case EventRow.Kind.posted: change = .posted(actor, text: string)
    case EventRow.Kind.followed: change = .followed(actor, otherAccount)
    case EventRow.Kind.unfollowed: change = .unfollowed(actor, otherAccount)
    case EventRow.Kind.credentialSet: change = .credentialSet(actor, PasswordHash(phc: string))
    case EventRow.Kind.sessionRevoked: change = .sessionRevoked(actor, try token(path: path), expires: expiry)
    case EventRow.Kind.sessionsRevoked: change = .sessionsRevoked(actor)
    default: throw LogError.corrupt("\(path): event \(id) is of unknown kind \(kind)")
    }
    return Event(id: eventID, time: timestamp, request: requestID, change: change)
  }

  /// The post that it is.
  var post: StoredPost { StoredPost(id: eventID, author: actor, time: timestamp, text: string) }

  // MARK: With others in a row

  /// Kind, which of the optional parts there are, two bytes without a meaning, account (32 bits), time. Then client and number; the other number;
  /// the text behind its length (32 bits). The lowest byte is the first.
  private enum Part {
    static let request: UInt8 = 1
    static let other: UInt8 = 2
    static let text: UInt8 = 4
    static let all: UInt8 = 7
  }

  static let bytesMin = 16

  /// The bytes that it takes in a row of several.
  @inline(__always)
  var packedCount: Int {
    Self.bytesMin + (request == nil ? 0 : 16) + (other == nil ? 0 : 8) + (text.map { 4 + $0.count } ?? 0)
  }

  /// Writes it into as many bytes as it takes.
  @inline(__always)
  func pack(into bytes: UnsafeMutableRawBufferPointer) {
    let parts = (request == nil ? 0 : Part.request) | (other == nil ? 0 : Part.other) | (text == nil ? 0 : Part.text)
    bytes.storeBytes(of: (UInt32(kind) | UInt32(parts) << 8).littleEndian, toByteOffset: 0, as: UInt32.self)
    bytes.storeBytes(of: UInt32(account).littleEndian, toByteOffset: 4, as: UInt32.self)
    bytes.storeBytes(of: time.littleEndian, toByteOffset: 8, as: Int64.self)
    var end = Self.bytesMin
    if let request {
      bytes.storeBytes(of: request.client.littleEndian, toByteOffset: end, as: Int64.self)
      bytes.storeBytes(of: request.number.littleEndian, toByteOffset: end + 8, as: Int64.self)
      end += 16
    }
    if let other {
      bytes.storeBytes(of: other.littleEndian, toByteOffset: end, as: Int64.self)
      end += 8
    }
    if let text {
      bytes.storeBytes(of: UInt32(text.count).littleEndian, toByteOffset: end, as: UInt32.self)
      UnsafeMutableRawBufferPointer(rebasing: bytes[(end + 4)...]).copyMemory(from: UnsafeRawBufferPointer(text))
    }
  }

  /// Reads the first event in `bytes`, and takes it away from them; nil if they do not begin with one.
  @inline(__always)
  init?(id: Int64, unpacking bytes: inout Slice<UnsafeBufferPointer<UInt8>>) {
    let all = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes.base)[bytes.startIndex..<bytes.endIndex])
    guard all.count >= Self.bytesMin else { return nil }
    let head = UInt32(littleEndian: all.loadUnaligned(fromByteOffset: 0, as: UInt32.self))
    let parts = UInt8(truncatingIfNeeded: head >> 8)
    guard head >> 16 == 0, parts & ~Part.all == 0 else { return nil }
    self.id = id
    kind = Int64(head & 0xff)
    account = Int64(UInt32(littleEndian: all.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
    time = Int64(littleEndian: all.loadUnaligned(fromByteOffset: 8, as: Int64.self))
    var end = Self.bytesMin
    if parts & Part.request != 0 {
      guard all.count >= end + 16 else { return nil }
      request = (
        Int64(littleEndian: all.loadUnaligned(fromByteOffset: end, as: Int64.self)),
        Int64(littleEndian: all.loadUnaligned(fromByteOffset: end + 8, as: Int64.self))
      )
      end += 16
    }
    if parts & Part.other != 0 {
      guard all.count >= end + 8 else { return nil }
      other = Int64(littleEndian: all.loadUnaligned(fromByteOffset: end, as: Int64.self))
      end += 8
    }
    if parts & Part.text != 0 {
      guard all.count >= end + 4 else { return nil }
      let count = Int(UInt32(littleEndian: all.loadUnaligned(fromByteOffset: end, as: UInt32.self)))
      end += 4
      guard all.count - end >= count else { return nil }
      text = UnsafeBufferPointer(rebasing: bytes[bytes.startIndex + end..<bytes.startIndex + end + count])
      end += count
    }
    bytes = bytes.dropFirst(end)
  }

  @inline(__always)
  init(
    id: Int64, time: Int64, kind: Int64, account: Int64, request: (client: Int64, number: Int64)?, other: Int64?,
    text: UnsafeBufferPointer<UInt8>?
  ) {
    self.id = id
    self.time = time
    self.kind = kind
    self.account = account
    self.request = request
    self.other = other
    self.text = text
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
