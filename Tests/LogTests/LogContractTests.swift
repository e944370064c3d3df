// What every log does, whatever it is made of. MemoryLog's derived reads are the model; SQLiteLog is held to the same.

import Log
import Model
import SQLiteLog
import Testing

@Suite final class LogContractTests {
  /// Kept until the test is over.
  private var places: [Place] = []

  private func makePlace(_ backend: Backend) throws -> Place {
    let place = try Place(backend)
    places.append(place)
    return place
  }

  // MARK: Append, read, head

  @Test(arguments: Backend.allCases)
  func anEmptyLogHasNothing(_ backend: Backend) throws {
    let log = try makePlace(backend).open()
    #expect(try log.head() == .zero)
    #expect(try log.read(after: .zero, limit: 10).isEmpty)
    #expect(try log.index(limit: 10) == false)
    #expect(try log.posts(withIDs: [.zero, EventID(1), .max]).isEmpty)
    let (posts, more) = try log.posts(by: [AccountID(0)], in: .before(.max), upTo: .max, limit: 5)
    #expect(posts.isEmpty && !more)
    expectEqual(try log.snapshot(), DerivedState())
  }

  @Test(arguments: Backend.allCases)
  func readsBackWhatWasAppended(_ backend: Backend) throws {
    let place = try makePlace(backend)
    let log = try place.open()
    var history = History(seed: 1)
    history.addMixed(700)
    try log.append(history)
    #expect(try log.head() == history.head)
    #expect(try log.read(after: .zero, limit: 10_000) == history.events)
    #expect(try log.read(after: EventID(300), limit: 50) == Array(history.events[300..<350]))
    #expect(try log.read(after: history.head, limit: 50).isEmpty)
    #expect(try log.read(after: .max, limit: 50).isEmpty)
    #expect(try log.read(after: .zero, limit: 0).isEmpty)
    #expect(try place.open().read(after: .zero, limit: 10_000) == history.events)
  }

  @Test(arguments: Backend.allCases)
  func keepsTheExtremesOfEveryField(_ backend: Backend) throws {
    let log = try makePlace(backend).open()
    let account = AccountID(.max)
    let events = [
      Event(
        id: EventID(1), time: Timestamp(milliseconds: .max),
        request: RequestID(client: ClientID(.max), number: .max), change: .followed(account, account)),
      Event(
        id: EventID(2), time: Timestamp(milliseconds: .min), request: RequestID(client: ClientID(0), number: 0),
        change: .posted(AccountID(0), text: "")),
      Event(id: EventID(3), time: .zero, request: nil, change: .accountCreated(AccountID(0), name: "")),
    ]
    #expect(try log.append(events, after: .zero) == .appended)
    #expect(try log.read(after: .zero, limit: 3) == events)
  }

  @Test(arguments: Backend.allCases)
  func writesNothingWhenBehind(_ backend: Backend) throws {
    let place = try makePlace(backend)
    let first = try place.open()
    let second = try place.open()
    var history = History(seed: 2)
    history.addMixed(20)
    #expect(try first.append(Array(history.events[..<10]), after: .zero) == .appended)

    #expect(try second.append(Array(history.events[..<5]), after: .zero) == .behind)
    #expect(try second.append([], after: .zero) == .behind)
    #expect(try second.head() == EventID(10))

    let missed = try second.read(after: .zero, limit: 100)
    #expect(missed == Array(history.events[..<10]))
    #expect(try second.append(Array(history.events[10...]), after: EventID(10)) == .appended)
    #expect(try first.append([], after: EventID(20)) == .appended)
    #expect(try first.read(after: .zero, limit: 100) == history.events)
  }

  /// Whoever has seen events that the log does not have must not go on.
  @Test(arguments: Backend.allCases)
  func tellsWhenEventsAreGone(_ backend: Backend) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 2)
    history.addMixed(10)
    #expect(try log.append(Array(history.events[..<5]), after: .zero) == .appended)
    let error = #expect(throws: LogError.self) { try log.append(Array(history.events[8...]), after: EventID(8)) }
    guard case .corrupt = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(try log.append(Array(history.events[5...]), after: EventID(5)) == .appended)
  }

  // MARK: Posts

  @Test(arguments: Backend.allCases)
  func findsPostsByIDInTheGivenOrder(_ backend: Backend) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 3)
    history.addAccount()
    history.addPost(by: 0, "one")
    history.addPost(by: 0, "two")
    try log.append(history)
    let posts = try log.posts(withIDs: [EventID(3), EventID(1), EventID(2), EventID(9), EventID(3)])
    #expect(posts.map(\.text) == ["two", "one", "two"])
    #expect(posts.first == history.events[2].storedPost)
  }

  /// Wherever the watermark is: nothing indexed, a part, all.
  @Test(arguments: Backend.allCases, [0, 500, 900])
  func findsPostsByAuthors(_ backend: Backend, indexed: Int) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 4)
    history.addMixed(900)
    try log.append(Array(history.events[..<500]))
    if indexed > 0 { try log.indexAll() }
    try log.append(Array(history.events[500...]))
    if indexed > 500 { try log.indexAll() }

    var random = RandomSource.seeded(5)
    for _ in 0..<300 {
      let authors = (0..<UInt32(30)).filter { _ in Int.random(in: 0..<4, using: &random) == 0 }.map { AccountID($0) }
      let upTo = Bool.random(using: &random) ? history.head : EventID(UInt64.random(in: 0...901, using: &random))
      let position = EventID(UInt64.random(in: 0...910, using: &random))
      let limit = [1, 2, 7, 100, 2_000].randomElement(using: &random)!
      for range in [PostRange.before(position), .after(position), .before(.max), .after(.zero)] {
        let found = try log.posts(by: authors, in: range, upTo: upTo, limit: limit)
        let wanted = expectedPosts(history, by: authors, in: range, upTo: upTo, limit: limit)
        #expect(found.posts == wanted.posts, "\(range), up to \(upTo), limit \(limit)")
        #expect(found.more == wanted.more, "\(range), up to \(upTo), limit \(limit)")
      }
    }
    #expect(try log.posts(by: [], in: .before(.max), upTo: .max, limit: 3).posts.isEmpty)
    #expect(try log.posts(by: [AccountID(.max)], in: .before(.max), upTo: .max, limit: 3).posts.isEmpty)
    #expect(try log.posts(by: [AccountID(0)], in: .before(.zero), upTo: .max, limit: 3).posts.isEmpty)
    #expect(try log.posts(by: [AccountID(0)], in: .before(.max), upTo: .max, limit: 0).posts.isEmpty)
  }

  private func expectedPosts(
    _ history: History, by authors: [AccountID], in range: PostRange, upTo: EventID, limit: Int
  ) -> (posts: [StoredPost], more: Bool) {
    let posts = history.events.compactMap(\.storedPost).filter { authors.contains($0.author) && $0.id <= upTo }
    switch range {
    case .before(let end):
      let older = posts.filter { $0.id < end }
      return (Array(older.suffix(limit)), older.count > limit)
    case .after(let start):
      let newer = posts.filter { $0.id > start }
      return (Array(newer.prefix(limit)), newer.count > limit)
    }
  }

  // MARK: Requests

  /// Wherever the watermark is: nothing indexed, a part, all.
  @Test(arguments: Backend.allCases, [0, 2_000, 3_000])
  func findsTheEventsOfRequests(_ backend: Backend, indexed: Int) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 14)
    history.addMixed(3_000)
    try log.append(Array(history.events[..<2_000]))
    if indexed > 0 { try log.indexAll() }
    try log.append(Array(history.events[2_000...]))
    if indexed > 2_000 { try log.indexAll() }

    var random = RandomSource.seeded(15)
    let all = history.events.compactMap(\.request)
    #expect(try log.events(of: [:], upTo: .max).isEmpty)
    for count in [1, 2, 40, all.count] {
      // Some numbers were used twice: the later event counts.
      let events = expectedEvents(history, of: all.shuffled(using: &random).prefix(count), upTo: history.head)
      for upTo in [history.head, .max] {
        #expect(try log.events(of: events, upTo: upTo) == events)
        var asked = events
        asked[RequestID(client: all[0].client, number: 1_000_000)] = .zero
        #expect(try log.events(of: asked, upTo: upTo) == events)
        #expect(try log.events(of: events.mapValues(\.next), upTo: upTo).isEmpty)
      }
    }
    // Where the index is ahead, it knows the later event alone.
    let once = Dictionary(grouping: all, by: \.self).filter { $0.value.count == 1 }.map(\.key)
    for upTo in [0, 1, 700, 1_999, 2_000, 2_001, 2_999].map({ EventID($0) }) {
      #expect(try log.events(of: once, upTo: upTo) == expectedEvents(history, of: once, upTo: upTo))
    }
  }

  private func expectedEvents(
    _ history: History, of requests: some Sequence<RequestID>, upTo: EventID
  ) -> [RequestID: EventID] {
    let asked = Set(requests)
    var events: [RequestID: EventID] = [:]
    for event in history.events where event.id <= upTo {
      if let request = event.request, asked.contains(request) { events[request] = event.id }
    }
    return events
  }

  /// All of the window is found, also by who has not got as far as the index; only what has left it there need not be.
  @Test(arguments: Backend.allCases)
  func findsAllOfAWindow(_ backend: Backend) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 16)
    history.addAccount()
    let client = ClientID(.max)
    for number in 1...Limits.repeatWindow + 500 {
      history.addPost(by: 0, "", request: RequestID(client: client, number: number))
    }
    try log.append(history)
    try log.indexAll(limit: 400)
    let inside = (501...Limits.repeatWindow + 500).map { RequestID(client: client, number: $0) }
    #expect(try log.events(of: inside, upTo: history.head) == expectedEvents(history, of: inside, upTo: history.head))
    let before = EventID(1_025)
    #expect(try log.events(of: inside, upTo: before) == expectedEvents(history, of: inside, upTo: before))
    let left = RequestID(client: client, number: 2)
    #expect([nil, EventID(3)].contains(try log.events(of: [left], upTo: before)[left]))
  }

  /// A client that was let go is a stranger, and may count from the beginning.
  @Test(arguments: Backend.allCases, [false, true])
  func theNewestEventOfANumberCounts(_ backend: Backend, indexesAll: Bool) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 17)
    history.addAccount()
    let request = RequestID(client: ClientID(7), number: 1)
    history.addPost(by: 0, "first", request: request)
    try log.append(history)
    try log.indexAll()
    history.addPost(by: 0, "anew", request: request, after: Limits.repeatMilliseconds + 1)
    try log.append(history)
    if indexesAll { try log.indexAll() }
    #expect(try log.events(of: [request: history.head], upTo: history.head) == [request: history.head])
  }

  @Test(arguments: Backend.allCases)
  func goesOnWithoutItsCaches(_ backend: Backend) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 18)
    for _ in 0..<3 {
      history.addMixed(300)
      try log.append(history)
      log.releaseMemory()
      #expect(try log.read(after: .zero, limit: 1_000) == history.events)
      try log.indexAll()
      log.releaseMemory()
      expectEqual(try log.snapshot(), history.state(at: history.events.count))
    }
  }

  // MARK: The derived tables

  @Test(arguments: Backend.allCases, [1, 7, 333, 10_000])
  func theSnapshotIsTheStateAtTheWatermark(_ backend: Backend, limit: Int) throws {
    let place = try makePlace(backend)
    let log = try place.open()
    var history = History(seed: 6)
    history.addMixed(600)
    try log.append(history)
    var watermark = 0
    while true {
      let isMore = try log.index(limit: limit)
      watermark = min(watermark + limit, 600)
      #expect(isMore == (watermark < 600))
      if limit > 1 || watermark % 50 == 0 { expectEqual(try log.snapshot(), history.state(at: watermark)) }
      if !isMore { break }
    }
    expectEqual(try place.open().snapshot(), history.state(at: 600))
    #expect(try log.index(limit: limit) == false)

    history.addMixed(100)
    try log.append(history)
    expectEqual(try log.snapshot(), history.state(at: 600))
    try log.indexAll(limit: limit)
    expectEqual(try log.snapshot(), history.state(at: 700))
  }

  @Test(arguments: Backend.allCases)
  func keepsTheNewestPostsOnly(_ backend: Backend) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 7)
    for _ in 0..<3 { history.addAccount() }
    for index in 0..<Limits.postsInMemory + 100 { history.addPost(by: index % 100 == 0 ? 0 : 1, "post \(index)") }
    try log.append(history)
    try log.indexAll(limit: 5_000)
    let snapshot = try log.snapshot()
    expectEqual(snapshot, history.state(at: history.events.count))
    #expect(snapshot.posts.count == Limits.postsInMemory)
    #expect(snapshot.newestByAuthor.map(\.count) == [Limits.newestPerAuthor, Limits.newestPerAuthor, 0])
  }

  @Test(arguments: Backend.allCases)
  func keepsAWindowOfRequestsAClient(_ backend: Backend) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 8)
    history.addAccount()
    let client = ClientID(.max)
    for number in 1...Limits.repeatWindow + 500 where number % 7 != 0 {
      history.addPost(by: 0, "", request: RequestID(client: client, number: number))
    }
    history.addPost(by: 0, "", request: RequestID(client: client, number: 1_400))
    try log.append(history)
    try log.indexAll(limit: 400)
    let snapshot = try log.snapshot()
    expectEqual(snapshot, history.state(at: history.events.count))
    let window = try #require(snapshot.windows.first?.window)
    #expect(window.outcome(of: 500) == .tooOld)
    #expect(window.outcome(of: 1_400) == .done(history.head))
    #expect(window.outcome(of: 1_407) == .unknown)
  }

  @Test(arguments: Backend.allCases, [1, 4, 100])
  func letsGoOfIdleClients(_ backend: Backend, limit: Int) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 9)
    history.addAccount()
    func request(_ client: UInt64, _ number: UInt64) -> RequestID {
      RequestID(client: ClientID(client), number: number)
    }
    history.addPost(by: 0, "a", request: request(1, 1))
    history.addPost(by: 0, "b", request: request(2, 1))
    history.addPost(by: 0, "c", request: request(1, 2), after: Limits.repeatMilliseconds)
    // Client 2's time is up in one millisecond.
    history.addPost(by: 0, "d", request: request(3, 1), after: 0)
    history.addPost(by: 0, "e", after: 1)
    // It comes back, and is a stranger.
    history.addPost(by: 0, "f", request: request(2, 2), after: 1)
    history.addPost(by: 0, "g", request: request(3, 2), after: Limits.repeatMilliseconds + 1)
    try log.append(history)
    for position in stride(from: min(limit, history.events.count), through: history.events.count, by: limit) {
      _ = try log.index(limit: limit)
      expectEqual(try log.snapshot(), history.state(at: position))
    }
    try log.indexAll()
    #expect(try log.snapshot().windows.map(\.client) == [ClientID(3)])
    #expect(try log.snapshot().windows.first?.window.outcome(of: 1) == .unknown)
  }

  @Test(arguments: Backend.allCases)
  func keepsNoMoreClientsThanTheLimit(_ backend: Backend) throws {
    let log = try makePlace(backend).open()
    var history = History(seed: 10)
    history.addAccount()
    func add(_ client: UInt64, _ number: UInt64) {
      history.addPost(by: 0, "", request: RequestID(client: ClientID(SplitMix64.mix(client)), number: number), after: 0)
    }
    let count = UInt64(Limits.repeatClients)
    for client in 1...count { add(client, 1) }
    try log.append(history)
    try log.indexAll(limit: 50_000)
    add(1, 2)  // Stays by this.
    for client in count + 1...count + 50 { add(client, 1) }  // Client 2 to 51 go.
    add(2, 2)  // Comes back as a stranger; 52 goes.
    for client in 40...60 { add(UInt64(client), 3) }  // Some that went, some that are next to go.
    try log.append(history)
    try log.indexAll(limit: 50_000)
    let snapshot = try log.snapshot()
    #expect(snapshot.windows.count == Limits.repeatClients)
    let expected = history.state(at: history.events.count).snapshot
    #expect(snapshot.windows.map { Meaning($0.window) } == expected.windows.map { Meaning($0.window) })
    #expect(snapshot.windows.map(\.client) == expected.windows.map(\.client))
  }
}

extension EventLog {
  fileprivate func append(_ events: [Event]) throws {
    #expect(try append(events, after: EventID(events[0].id.rawValue - 1)) == .appended)
  }
}
