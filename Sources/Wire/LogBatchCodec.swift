// Between masters: LogBatch, a commit. Posts travel in columns, since every master reads every one of them.

import Model

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
    var posts = Tinysns_Posts()
    var texts: [UInt8] = []
    var lastTime: Int64 = 0
    var others: [Tinysns_Event] = []
    var places: [UInt32] = []
    for (place, event) in batch.events.enumerated() {
      precondition(event.id == expected, "a batch has event \(event.id) where \(expected) belongs")
      expected = expected.next
      if case .posted(let author, let text) = event.change {
        posts.timeSteps.append(event.time.milliseconds &- lastTime)
        lastTime = event.time.milliseconds
        posts.clients.append(event.request?.client.rawValue ?? 0)
        posts.numbers.append(event.request?.number ?? 0)
        posts.accounts.append(author.rawValue)
        posts.lengths.append(UInt32(text.utf8.count))
        texts.append(contentsOf: text.utf8)
      } else {
        others.append(Tinysns_Event(event))
        places.append(UInt32(place))
      }
    }
    guard !posts.accounts.isEmpty else {
      events = others
      return
    }
    posts.texts = fieldBytes(texts)
    self.posts = posts
    self.others = others
    self.places = places
  }
}

extension LogBatch {
  fileprivate init(_ wire: Tinysns_LogBatch) throws(WireError) {
    var posts = try PostReader(wire.posts)
    let postCount = posts.count
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
    var othersRead = 0
    while events.count < count {
      let id = first.advanced(by: events.count)
      if othersRead < others.count, postCount == 0 || Int(places[othersRead]) == events.count {
        events.append(try Event(others[othersRead], id: id))
        othersRead += 1
      } else {
        events.append(try posts.next(id: id))
      }
    }
    try posts.finish()
    self.init(events: events)
  }
}

/// Takes post after post out of columns, which are all of the same length but for the texts.
private struct PostReader {
  private let posts: Tinysns_Posts
  private let texts: [UInt8]
  private var index = 0
  private var offset = 0
  private var time: Int64 = 0

  init(_ posts: Tinysns_Posts) throws(WireError) {
    self.posts = posts
    texts = [UInt8](posts.texts)
    let lengths = [posts.timeSteps.count, posts.clients.count, posts.numbers.count, posts.lengths.count]
    guard lengths.allSatisfy({ $0 == posts.accounts.count }) else { throw .outOfRange(.posts) }
  }

  var count: Int { posts.accounts.count }

  /// The next post, as the event `id`.
  mutating func next(id: EventID) throws(WireError) -> Event {
    guard index < count else { throw .outOfRange(.events) }
    let length = Int(posts.lengths[index])
    guard length <= texts.count - offset else { throw .outOfRange(.posts) }
    let end = offset + length
    let text: String
    do throws(UTF8.ValidationError) {
      text = String(copying: try UTF8Span(validating: texts.span.extracting(offset..<end)))
    } catch {
      throw .badText
    }
    time &+= posts.timeSteps[index]
    let number = try counter(posts.numbers[index], .number)
    let client = ClientID(posts.clients[index])
    let account = AccountID(posts.accounts[index])
    offset = end
    index += 1
    return Event(
      id: id, time: Timestamp(milliseconds: time),
      request: number == 0 ? nil : RequestID(client: client, number: number), change: .posted(account, text: text))
  }

  /// Nothing may be left.
  func finish() throws(WireError) {
    guard index == count, offset == texts.count else { throw .outOfRange(.posts) }
  }
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
