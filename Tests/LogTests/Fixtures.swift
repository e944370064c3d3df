// What the tests of the log share: both implementations behind one face, temporary folders, and histories to append.

import Foundation
import Log
import Model
import SQLiteLog
import Testing

/// The implementations that the contract suite runs against.
enum Backend: String, CaseIterable, CustomTestStringConvertible {
  case memory, sqlite

  var testDescription: String { rawValue }
}

/// A log's place: handles opened on it share the log. Deleted at the end.
final class Place {
  let backend: Backend
  let disk = MemoryDisk()
  let folder: TemporaryFolder

  init(_ backend: Backend) throws {
    self.backend = backend
    folder = try TemporaryFolder()
  }

  func open() throws -> any EventLog {
    switch backend {
    case .memory: return MemoryLog(disk: disk)
    case .sqlite: return try SQLiteLog(folder: folder.path)
    }
  }
}

final class TemporaryFolder {
  let path: String

  init() throws {
    var template = Array((NSTemporaryDirectory() + "/tinysns-log-XXXXXX").utf8CString)
    guard mkdtemp(&template) != nil else { throw CocoaError(.fileWriteUnknown) }
    path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// Makes valid events of every kind, the same ones for the same seed.
struct History {
  private(set) var events: [Event] = []
  private var random: RandomSource
  private var accounts = 0
  private var follows: [(AccountID, AccountID)] = []
  private var time: Int64 = 1_700_000_000_000
  private var numbers: [ClientID: UInt64] = [:]

  static let texts = [
    "hello", "", " ", "zwei Wörter", "日本語のテキスト", "👩‍👩‍👧‍👦 🇩🇪", "nul\u{0}inside", "e\u{301} and é", "'; DROP TABLE events; --",
    String(repeating: "x", count: Limits.postBytes), String(repeating: "ß", count: Limits.postBytes / 2),
  ]

  init(seed: UInt64) { random = .seeded(seed) }

  var head: EventID { events.last?.id ?? .zero }

  mutating func add(_ change: Change, request: RequestID? = nil, after milliseconds: Int64 = 1) {
    time += milliseconds
    events.append(
      Event(id: head.next, time: Timestamp(milliseconds: time), request: request, change: change))
  }

  mutating func addAccount(_ name: String? = nil) {
    add(.accountCreated(AccountID(UInt32(accounts)), name: name ?? "user\(accounts)"))
    accounts += 1
  }

  mutating func addPost(by author: Int, _ text: String, request: RequestID? = nil, after milliseconds: Int64 = 1) {
    add(.posted(AccountID(UInt32(author)), text: text), request: request, after: milliseconds)
  }

  /// Adds `count` events of mixed kinds.
  mutating func addMixed(_ count: Int) {
    for _ in 0..<count {
      if accounts < 3 || Int.random(in: 0..<40, using: &random) == 0 {
        addAccount(Int.random(in: 0..<4, using: &random) == 0 ? "ünï\(accounts)" : nil)
        continue
      }
      let actor = AccountID(UInt32.random(in: 0..<UInt32(accounts), using: &random))
      let request = nextRequest(of: actor)
      let pause = Int64.random(in: 0..<20, using: &random)
      switch Int.random(in: 0..<13, using: &random) {
      case 10:
        add(.credentialSet(actor, PasswordHash(phc: "$argon2id$\(count)$\(head)")), request: request, after: pause)
      case 11:
        // Some expire soon, and some are revoked twice.
        let token = TokenID(high: UInt64.random(in: 0...2, using: &random), low: .max)
        let expires = Timestamp(milliseconds: time + Int64.random(in: -10...3_000, using: &random))
        add(.sessionRevoked(actor, token, expires: expires), request: request, after: pause)
      case 12: add(.sessionsRevoked(actor), request: request, after: pause)
      case 0, 1:
        let other = AccountID(UInt32.random(in: 0..<UInt32(accounts), using: &random))
        follows.append((actor, other))
        add(.followed(actor, other), request: request, after: pause)
      case 2 where !follows.isEmpty:
        let (follower, followed) = follows.remove(at: Int.random(in: 0..<follows.count, using: &random))
        add(.unfollowed(follower, followed), request: nextRequest(of: follower), after: pause)
      default:
        add(.posted(actor, text: Self.texts.randomElement(using: &random)!), request: request, after: pause)
      }
    }
  }

  /// Mostly the account's next number, at times one that comes late.
  private mutating func nextRequest(of account: AccountID) -> RequestID {
    let client = ClientID(SplitMix64.mix(UInt64(account.rawValue) * 2 + UInt64.random(in: 0...1, using: &random)))
    let number = (numbers[client] ?? 0) + UInt64.random(in: 1...3, using: &random)
    numbers[client] = number
    return RequestID(client: client, number: number > 4 && Bool.random(using: &random) ? number - 2 : number)
  }

  /// The state that follows from the first `count` events.
  func state(at count: Int) -> DerivedState {
    var state = DerivedState()
    for event in events.prefix(count) { state.apply(event) }
    return state
  }
}

extension EventLog {
  /// Appends all that the log does not have yet, in batches of uneven sizes.
  func append(_ history: History) throws {
    var position = try head()
    var size = 1
    while position < history.head {
      let batch = Array(history.events[Int(position.rawValue)...].prefix(size))
      #expect(try append(batch, after: position) == .appended)
      position = batch.last!.id
      size = size % 97 * 2 + 1
    }
  }

  /// Events of requests that may have taken effect at any time.
  func events(of requests: some Sequence<RequestID>, upTo: EventID) throws(LogError) -> [RequestID: EventID] {
    try events(of: Dictionary(requests.map { ($0, .zero) }) { first, _ in first }, upTo: upTo)
  }

  func indexAll(limit: Int = 1_000) throws {
    while try index(limit: limit) {}
  }
}

/// Holds a snapshot to the state that it should be.
func expectEqual(_ snapshot: Snapshot, _ state: DerivedState, sourceLocation: SourceLocation = #_sourceLocation) {
  let expected = state.snapshot
  #expect(snapshot.upTo == expected.upTo, sourceLocation: sourceLocation)
  #expect(snapshot.time == expected.time, sourceLocation: sourceLocation)
  #expect(snapshot.names == expected.names, sourceLocation: sourceLocation)
  #expect(snapshot.credentials == expected.credentials, sourceLocation: sourceLocation)
  #expect(snapshot.revocations == expected.revocations, sourceLocation: sourceLocation)
  #expect(snapshot.following == expected.following, sourceLocation: sourceLocation)
  #expect(snapshot.posts == expected.posts, sourceLocation: sourceLocation)
  #expect(snapshot.newestByAuthor == expected.newestByAuthor, sourceLocation: sourceLocation)
  #expect(snapshot.windows.map(\.client) == expected.windows.map(\.client), sourceLocation: sourceLocation)
  for (found, wanted) in zip(snapshot.windows, expected.windows) {
    #expect(Meaning(found.window) == Meaning(wanted.window), sourceLocation: sourceLocation)
  }
}

/// What a window says. (Two windows that say the same may differ in their room for more.)
struct Meaning: Equatable {
  var account: AccountID
  var lastEvent: EventID
  var lastTime: Timestamp
  var newest: UInt64
  var entries: [RequestWindow.Entry]

  init(_ window: RequestWindow) {
    account = window.account
    lastEvent = window.lastEvent
    lastTime = window.lastTime
    newest = window.newest
    entries = window.entries
  }
}
