// Between masters: LogBatch, a commit. Posts travel in columns, since every master reads every one of them.

import Model
internal import SwiftProtobuf

/// Events that a batch may have: a commit's, and room for commits of a later version that are larger.
private let batchEventsMax = 16 * Limits.batchEvents

extension Wire {
  /// The bytes of a commit for the other masters. The events must be contiguous, and not none.
  public static func encode(_ batch: LogBatch) -> [UInt8] { serialize(Tinysns_LogBatch(batch)) }

  /// Reads a commit of another master.
  public static func decodeLogBatch(_ bytes: RawSpan) throws(WireError) -> LogBatch {
    try LogBatch(parse(bytes, as: Tinysns_LogBatch.self, limit: FrameLimit.message))
  }

  /// Reads a commit of another master.
  public static func decodeLogBatch(_ bytes: [UInt8]) throws(WireError) -> LogBatch {
    try decodeLogBatch(bytes.span.bytes)
  }
}

extension Tinysns_LogBatch {
  fileprivate init(_ batch: LogBatch) {
    precondition(!batch.events.isEmpty, "a batch without events")
    self.init()
    firstID = batch.events[0].id.rawValue
    var expected = batch.events[0].id
    var columns = PostColumns(capacity: batch.events.count)
    var places: [UInt32] = []
    for (place, event) in batch.events.enumerated() {
      precondition(event.id == expected, "a batch has event \(event.id) where \(expected) belongs")
      expected = expected.next
      if case .posted(let author, let text) = event.change {
        columns.append(event, by: author, text)
      } else {
        events.append(Tinysns_Event(event))
        places.append(UInt32(place))
      }
    }
    if columns.accounts.isEmpty { return }
    (others, events) = (events, [])
    self.places = places
    posts = Tinysns_Posts(columns)
  }
}

extension LogBatch {
  fileprivate init(_ wire: Tinysns_LogBatch) throws(WireError) {
    let columns = try PostColumns(wire.posts)
    let postCount = columns.accounts.count
    guard postCount == 0 ? wire.others.isEmpty && wire.places.isEmpty : wire.events.isEmpty else {
      throw .outOfRange(.events)
    }
    let others = postCount == 0 ? wire.events : wire.others
    let places = wire.places
    try check(others.count, atMost: batchEventsMax, .events)
    try check(postCount, atMost: batchEventsMax - others.count, .events)
    let count = others.count + postCount
    guard count > 0 else { throw .missing(.events) }
    guard postCount == 0 || places.count == others.count else { throw .outOfRange(.events) }
    let first = try eventID(wire.firstID)
    guard EventID.max.rawValue - first.rawValue >= UInt64(count - 1) else { throw .outOfRange(.eventID) }

    var events: [Event] = []
    events.reserveCapacity(count)
    var reader = PostColumns.Reader(columns)
    var othersRead = 0
    while events.count < count {
      let id = first.advanced(by: events.count)
      if othersRead < others.count, postCount == 0 || Int(places[othersRead]) == events.count {
        events.append(try Event(others[othersRead], id: id))
        othersRead += 1
      } else {
        events.append(try reader.next(id: id))
      }
    }
    try reader.finish()
    self.init(events: events)
  }
}

/// Posts as columns, all of the same length but for the texts.
private struct PostColumns {
  var timeSteps: [Int64] = []
  var clients: [UInt64] = []
  var numbers: [UInt64] = []
  var accounts: [UInt32] = []
  var lengths: [UInt32] = []
  var texts: [UInt8] = []
  private var lastTime: Int64 = 0

  init(capacity: Int) {
    timeSteps.reserveCapacity(capacity)
    clients.reserveCapacity(capacity)
    numbers.reserveCapacity(capacity)
    accounts.reserveCapacity(capacity)
    lengths.reserveCapacity(capacity)
  }

  init(_ wire: Tinysns_Posts) throws(WireError) {
    timeSteps = wire.timeSteps
    clients = wire.clients
    numbers = wire.numbers
    accounts = wire.accounts
    lengths = wire.lengths
    texts = [UInt8](wire.texts)
    let count = accounts.count
    guard timeSteps.count == count, clients.count == count, numbers.count == count, lengths.count == count else {
      throw .outOfRange(.posts)
    }
  }

  mutating func append(_ event: Event, by author: AccountID, _ text: String) {
    timeSteps.append(event.time.milliseconds &- lastTime)
    lastTime = event.time.milliseconds
    clients.append(event.request?.client.rawValue ?? 0)
    numbers.append(event.request?.number ?? 0)
    accounts.append(author.rawValue)
    lengths.append(UInt32(text.utf8.count))
    texts.append(contentsOf: text.utf8)
  }

  /// Takes post after post out of columns.
  struct Reader {
    private let columns: PostColumns
    private var index = 0
    private var offset = 0
    private var time: Int64 = 0

    init(_ columns: PostColumns) { self.columns = columns }

    /// The next post, as the event `id`.
    mutating func next(id: EventID) throws(WireError) -> Event {
      guard index < columns.accounts.count else { throw .outOfRange(.events) }
      let length = Int(columns.lengths[index])
      guard length <= columns.texts.count - offset else { throw .outOfRange(.posts) }
      let (start, end) = (offset, offset + length)
      let text = columns.texts.withUnsafeBufferPointer { String(validating: $0[start..<end], as: UTF8.self) }
      guard let text else { throw .badText }
      time &+= columns.timeSteps[index]
      let number = try counter(columns.numbers[index], .number)
      let client = ClientID(columns.clients[index])
      let account = AccountID(columns.accounts[index])
      offset = end
      index += 1
      return Event(
        id: id, time: Timestamp(milliseconds: time),
        request: number == 0 ? nil : RequestID(client: client, number: number), change: .posted(account, text: text))
    }

    /// Nothing may be left.
    func finish() throws(WireError) {
      guard index == columns.accounts.count, offset == columns.texts.count else { throw .outOfRange(.posts) }
    }
  }
}

extension Tinysns_Posts {
  fileprivate init(_ columns: PostColumns) {
    self.init()
    timeSteps = columns.timeSteps
    clients = columns.clients
    numbers = columns.numbers
    accounts = columns.accounts
    lengths = columns.lengths
    texts = contiguous(columns.texts)
  }
}

/// As the type in which swift-protobuf keeps bytes.
private func contiguous<Bytes: SwiftProtobufContiguousBytes>(_ source: [UInt8]) -> Bytes {
  var bytes = Bytes(repeating: 0, count: source.count)
  bytes.withUnsafeMutableBytes { $0.copyBytes(from: source) }
  return bytes
}

extension Tinysns_Event {
  fileprivate init(_ event: Event) {
    self.init()
    timeMs = event.time.milliseconds
    if let request = event.request {
      client = request.client.rawValue
      number = request.number
    }
    account = event.change.actor.rawValue
    switch event.change {
    case .accountCreated(_, let name): change = .accountCreated(name)
    case .posted(_, let text): change = .posted(text)
    case .followed(_, let whom): change = .followed(whom.rawValue)
    case .unfollowed(_, let whom): change = .unfollowed(whom.rawValue)
    case .credentialSet(_, let hash): change = .credentialSet(hash.phc)
    case .sessionRevoked(_, let token, let expires):
      change = .sessionRevoked(Tinysns_SessionRevocation(token, expires: expires))
    case .sessionsRevoked: change = .sessionsRevoked(Tinysns_Empty())
    }
  }
}

extension Event {
  fileprivate init(_ wire: Tinysns_Event, id: EventID) throws(WireError) {
    let account = AccountID(wire.account)
    let change: Change
    switch wire.change {
    case .accountCreated(let name): change = .accountCreated(account, name: name)
    case .posted(let text): change = .posted(account, text: text)
    case .followed(let whom): change = .followed(account, AccountID(whom))
    case .unfollowed(let whom): change = .unfollowed(account, AccountID(whom))
    case .credentialSet(let phc): change = .credentialSet(account, PasswordHash(phc: phc))
    case .sessionRevoked(let revocation):
      change = .sessionRevoked(
        account, try TokenID(revocation), expires: Timestamp(milliseconds: revocation.expiresMs))
    case .sessionsRevoked: change = .sessionsRevoked(account)
    case nil: throw .unknownKind
    }
    let number = try counter(wire.number, .number)
    self.init(
      id: id, time: Timestamp(milliseconds: wire.timeMs),
      request: number == 0 ? nil : RequestID(client: ClientID(wire.client), number: number), change: change)
  }
}
