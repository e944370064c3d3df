// Random messages that keep the documented rules, extremes among them: the same ones for the same seed.

import Model

struct MessageGenerator {
  var random: SplitMix64

  init(seed: UInt64) { random = SplitMix64(seed: seed) }
  init(random: SplitMix64) { self.random = random }

  // MARK: Values

  mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &random) }
  mutating func flag() -> Bool { below(2) == 0 }
  mutating func any64() -> UInt64 { [0, 1, .max, random.next(), random.next() >> 40][below(5)] }
  mutating func any32() -> UInt32 { [0, 1, .max, UInt32(truncatingIfNeeded: random.next())][below(4)] }
  mutating func counter() -> UInt64 { any64() & UInt64(Int64.max) }
  mutating func position() -> EventID { EventID(counter()) }
  mutating func eventID() -> EventID { EventID(max(1, counter())) }
  mutating func time() -> Timestamp { Timestamp(milliseconds: Int64(bitPattern: any64())) }
  mutating func pid(least: Int32 = 0) -> Int32 { max(least, Int32(bitPattern: any32()) & .max) }
  mutating func account() -> AccountID { AccountID(any32()) }
  mutating func topic() -> Topic { Topic(high: any64(), low: any64()) }
  mutating func master() -> MasterIdentity { MasterIdentity(name: text(64), incarnation: Incarnation(counter())) }
  mutating func list<T>(_ atMost: Int, _ make: (inout Self) -> T) -> [T] {
    (0..<below(atMost + 1)).map { _ in make(&self) }
  }

  /// A text of at most `limit` bytes: often empty, or as long as it may be.
  mutating func text(_ limit: Int) -> String {
    let length = [0, limit, below(limit + 1), min(limit, below(20))][below(4)]
    var text = ""
    var room = length
    while room > 0 {
      let scalar = scalar()
      guard scalar.utf8.count <= room else {
        text += String(repeating: "x", count: room)
        break
      }
      text.unicodeScalars.append(scalar)
      room -= scalar.utf8.count
    }
    return text
  }

  private mutating func scalar() -> Unicode.Scalar {
    let top: [UInt32] = [0x80, 0x800, 0x1_0000, 0x11_0000]
    return Unicode.Scalar(UInt32.random(in: 0..<top[below(4)], using: &random)) ?? "\u{fffd}"
  }

  // MARK: Client and master

  mutating func request() -> Request {
    let body: Request.Body
    switch below(12) {
    case 0:
      let proof: Proof? = [nil, .password(Password(text(Limits.passwordBytesMax))), .token(token())][below(3)]
      body = .hello(
        Hello(
          version: any32(), client: ClientID(any64()), user: text(64), register: flag(), newest: position(),
          proof: proof, takesDoneEach: flag()))
    case 1: body = .post(text: text(Limits.postBytes))
    case 2: body = .follow(name: text(64))
    case 3: body = .unfollow(name: text(64))
    case 4: body = .list(ListQuery(kind: ListQuery.Kind.allCases[below(3)], offset: any32(), limit: any32()))
    case 5:
      let range: TimelineQuery.Range = [.newest, .before(position()), .after(position())][below(3)]
      body = .timeline(TimelineQuery(timeline: timelineName(), range: range, limit: any32()))
    case 6: body = .watch(timelineName())
    case 7: body = .unwatch(topic())
    case 8: body = .ping
    case 9: body = .changePassword(PasswordChange(old: Password(text(256)), new: Password(text(256))))
    case 10: body = .logout(everywhere: flag())
    default: body = .bye
    }
    return Request(number: max(1, counter()), body: body)
  }

  mutating func token() -> SessionToken {
    SessionToken(bytes: (0..<1 + below(Limits.tokenBytes)).map { _ in UInt8(below(256)) })
  }

  mutating func timelineName() -> TimelineName { flag() ? .home : .author(text(64)) }

  mutating func reply() -> Reply {
    let body: Reply.Body
    switch below(10) {
    case 0:
      body = .welcome(
        Welcome(
          master: master(), account: account(), isNew: flag(), head: position(), token: flag() ? nil : token()))
    case 1: body = .done(eventID())
    case 2: body = .names(NamesPage(names: list(9) { $0.text(64) }, more: flag()))
    case 3: body = .page(TimelinePage(posts: list(5) { $0.post() }, upTo: position(), more: flag()))
    case 4: body = .watching(watching())
    case 5: body = .unwatched
    case 6: body = .pong(Pong(head: position(), topics: list(Limits.topicsPerSession) { $0.watching() }))
    case 7: body = .refused(refusal())
    case 8: body = .doneEach((0...below(9)).map { _ in Done(number: counter(), event: eventID()) })
    default: body = .goodbye
    }
    return Reply(number: counter(), body: body)
  }

  mutating func watching() -> Watching { Watching(topic: topic(), sequence: counter()) }
  mutating func refusal() -> Refusal {
    let codes = Refusal.Code.allCases
    return Refusal(codes[below(codes.count)], text(200), retryAfter: any32())
  }
  mutating func post() -> Post { Post(id: eventID(), author: text(64), text: text(Limits.postBytes), time: time()) }
  mutating func update() -> Update {
    // The numbers of all its posts are counters.
    Update(topic: topic(), sequence: counter() / 2, posts: (0..<below(4)).map { _ in post() })
  }

  // MARK: The router

  mutating func routerRequest() -> RouterRequest {
    switch below(6) {
    case 0: return .locate(Locate(number: counter(), user: text(64), suspect: flag() ? nil : master()))
    case 1: return .status(number: counter())
    case 2:
      return .register(
        Registration(
          master: master(), pid: pid(), requests: text(64), timelines: text(64), log: text(64), beat: beat()))
    case 3: return .beat(beat())
    case 4: return .leave(master())
    default: return .alive(master(), nonce: any64())
    }
  }

  mutating func beat() -> MasterBeat {
    MasterBeat(
      master: master(), head: position(), sessions: any32(), commitAge: any32(), term: counter(), roster: counter())
  }

  mutating func routerReply() -> RouterReply {
    switch below(7) {
    case 0:
      return .located(
        number: counter(), MasterContact(master: master(), requests: text(64), timelines: text(64)))
    case 1: return .unavailable(number: counter(), retryAfter: any32())
    case 2: return .status(number: counter(), RouterStatus(pid: pid(), masters: list(9) { $0.masterStatus() }))
    case 3:
      let members = list(9) { RosterMember(master: $0.master(), log: $0.text(64)) }
      return .roster(
        Roster(version: counter(), available: flag() ? nil : master(), term: counter(), members: members))
    case 4: return .probe(nonce: any64())
    case 5: return .registerAgain
    default: return .refused(number: counter(), refusal())
    }
  }

  mutating func masterStatus() -> MasterStatus {
    MasterStatus(
      master: master(), pid: pid(), state: MasterStatus.State.allCases[below(4)], requests: text(64),
      timelines: text(64), head: position(), sessions: any32())
  }

  // MARK: The cluster

  mutating func logBatch() -> LogBatch {
    let count = 1 + below(9)
    let first = flag() ? EventID.max.rawValue - UInt64(count - 1) : max(1, counter() >> 1)
    return LogBatch(events: (0..<count).map { event(id: EventID(first + UInt64($0))) })
  }

  mutating func event(id: EventID) -> Event {
    let change: Change
    switch below(7) {
    case 4: change = .credentialSet(account(), PasswordHash(phc: text(128)))
    case 5: change = .sessionRevoked(account(), TokenID(high: any64(), low: any64()), expires: time())
    case 6: change = .sessionsRevoked(account())
    case 0: change = .accountCreated(account(), name: text(64))
    case 1: change = .posted(account(), text: text(Limits.postBytes))
    case 2: change = .followed(account(), account())
    default: change = .unfollowed(account(), account())
    }
    let request = RequestID(client: ClientID(any64()), number: max(1, counter()))
    return Event(id: id, time: time(), request: flag() ? nil : request, change: change)
  }

  mutating func supervisorRequest() -> SupervisorRequest {
    if flag() { return .status(number: counter()) }
    return .beat(
      ChildBeat(name: text(64), pid: pid(least: 1), incarnation: Incarnation(counter()), commitAge: any32()))
  }

  mutating func supervisorReply() -> SupervisorReply {
    if flag() { return .pong }
    let children = list(9) {
      ChildStatus(
        name: $0.text(64), pid: $0.pid(), state: ChildStatus.State.allCases[$0.below(5)], respawnIn: $0.any32(),
        respawns: $0.any32())
    }
    return .status(number: counter(), SupervisorStatus(name: text(64), pid: pid(), children: children))
  }
}
