// Bytes read as decisions: so that whatever the bytes, something sensible is tried, and small changes of them are small changes of it.

import Model

/// A sequence of decisions, made by the bytes of a fuzzer's input. When they are used up, all decisions are 0.
struct Draw {
  private let bytes: [UInt8]
  private var position = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var isAtEnd: Bool { position >= bytes.count }

  mutating func byte() -> UInt8 {
    guard position < bytes.count else { return 0 }
    defer { position += 1 }
    return bytes[position]
  }

  /// Less than `bound`, which is at most 256.
  mutating func below(_ bound: Int) -> Int { Int(byte()) % bound }
  mutating func flag() -> Bool { byte() & 1 == 1 }
  mutating func pick<T>(_ choices: [T]) -> T { choices[below(choices.count)] }

  /// Small mostly, or an extreme.
  mutating func number() -> UInt64 {
    let first = byte()
    guard first >= 0xE0 else { return UInt64(first) }
    switch first {
    case 0xE0: return UInt64(Int64.max)
    case 0xE1: return UInt64(Int64.max) - UInt64(byte())
    case 0xE2: return UInt64(UInt32.max)
    case 0xE3: return 1 << UInt64(byte() & 63) & UInt64(Int64.max)
    default: return (0..<Int(first & 7)).reduce(0) { value, _ in value << 8 | UInt64(byte()) }
    }
  }

  mutating func number32() -> UInt32 { UInt32(truncatingIfNeeded: number()) }

  /// A length, and so many bytes.
  mutating func chunk() -> [UInt8] {
    let count = Int(byte()) | Int(byte() & 0x0F) << 8
    let chunk = bytes[min(position, bytes.count)...].prefix(count)
    position += chunk.count
    return Array(chunk)
  }

  mutating func rest() -> [UInt8] {
    defer { position = bytes.count }
    return Array(bytes[min(position, bytes.count)...])
  }

  /// What `chunk` reads.
  static func chunk(_ bytes: [UInt8]) -> [UInt8] {
    let bytes = bytes.prefix(0xFFF)
    return [UInt8(bytes.count & 0xFF), UInt8(bytes.count >> 8)] + bytes
  }
}

// MARK: Values that mean something to the cores

extension Draw {
  mutating func name() -> String {
    switch below(10) {
    case 0: "alice"
    case 1: "bob"
    case 2: "carol"
    case 3: "dave"
    case 4: "é"
    case 5: "e\u{301}"
    case 6: ""
    case 7: String(repeating: "x", count: Int(byte()))
    case 8: "bob\u{202E}"
    default: String(decoding: chunk().prefix(70), as: UTF8.self)
    }
  }

  mutating func text() -> String {
    switch below(5) {
    case 0: "hello"
    case 1: String(repeating: "x", count: Limits.postBytes - 1 + below(3))
    case 2: "a\u{1B}[2J\u{85}\u{2028}"
    default: String(decoding: chunk(), as: UTF8.self)
    }
  }

  mutating func master() -> MasterIdentity {
    MasterIdentity(name: pick(["master-1", "master-2", "master-3", "", "m"]), incarnation: Incarnation(number()))
  }

  mutating func timeline() -> TimelineName { flag() ? .home : .author(name()) }

  mutating func range(near head: EventID) -> TimelineQuery.Range {
    switch below(4) {
    case 0: .newest
    case 1: .before(EventID(number()))
    case 2: .after(EventID(number()))
    default: .after(head)
    }
  }

  mutating func query(near head: EventID) -> TimelineQuery {
    TimelineQuery(timeline: timeline(), range: range(near: head), limit: number32())
  }

  mutating func endpoint() -> String { pick(["tcp://127.0.0.1:3020", "tcp://127.0.0.1:3021", "", "ipc://x"]) }

  mutating func beat(of master: MasterIdentity) -> MasterBeat {
    MasterBeat(
      master: master, head: EventID(number()), sessions: number32(), commitAge: number32(), term: number(),
      roster: number())
  }

  mutating func roster(including own: MasterIdentity? = nil) -> Roster {
    var members = (0..<below(5)).map { _ in RosterMember(master: master(), log: endpoint()) }
    if let own, flag() { members.append(RosterMember(master: own, log: "tcp://own")) }
    let available: MasterIdentity? = [nil, own, members.first?.master][below(3)]
    return Roster(version: number(), available: available, term: number(), members: members)
  }

  mutating func refusal() -> Refusal {
    Refusal(pick(Refusal.Code.allCases), pick(["no", "", "\u{1B}[2J"]), retryAfter: number32())
  }

  mutating func post(_ id: EventID) -> Post {
    Post(id: id, author: name(), text: text(), time: Timestamp(milliseconds: Int64(bitPattern: number())))
  }
}
