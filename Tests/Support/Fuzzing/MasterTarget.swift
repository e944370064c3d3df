// A master's core under any sequence of messages and outcomes.

import Core
import Log
import Model
import Wire

extension FuzzTarget {
  static let master = FuzzTarget(
    "core-master",
    "a master among clients, masters, a router and a log of whom any may say anything: orders make sense, and silence frees all",
    inputBytesMax: 8_192, tokens: WireTokens.requests
  ) { random in
    coreSeed(&random, stepKinds: FuzzedMaster.stepKinds) { generator, kind in
      switch kind {
      case 5: Wire.encode(generator.request())
      case 9: Wire.encode(generator.logBatch())
      case 11: Wire.encode(generator.routerReply())
      default: nil
      }
    }
  } body: { input throws(Finding) in
    var master = FuzzedMaster(input)
    try master.run()
  }
}

enum WireTokens {
  /// Steps of a script, with a whole message each.
  static let requests: [[UInt8]] =
    FuzzTarget.protobufTokens
    + [Request.Body.ping, .bye, .watch(.home), .post(text: "x"), .follow(name: "bob"), .list(ListQuery(kind: .users))]
    .map { [5, 0] + Draw.chunk(Wire.encode(Request(number: 1, body: $0))) }
}

/// A script for a core: steps, some with a whole message in them.
func coreSeed(
  _ random: inout SplitMix64, stepKinds: Int, message: (inout MessageGenerator, Int) -> [UInt8]?
) -> [UInt8] {
  var generator = MessageGenerator(random: random)
  var script: [UInt8] = []
  for _ in 0..<generator.below(60) {
    let kind = generator.below(stepKinds)
    script.append(UInt8(kind))
    if let bytes = message(&generator, kind) {
      script += [UInt8(generator.below(8))] + Draw.chunk(bytes)
    } else {
      script += (0..<generator.below(8)).map { _ in UInt8(generator.below(generator.flag() ? 256 : 8)) }
    }
  }
  random = generator.random
  return script
}

/// The shell of a master whose world is a script.
private struct FuzzedMaster {
  static let stepKinds = 20
  private static let stepsMax = 300

  private var draw: Draw
  private var core: MasterCore
  private var now = Instant(nanoseconds: 10_000_000_000)
  private var wall = Timestamp(milliseconds: 1_700_000_000_000)
  private let disk = MemoryDisk()
  private let log: MemoryLog

  private var append: Append?
  private var appends = AppendQueue()
  /// The last event that was ordered to be appended.
  private var ordered = EventID.zero
  private var catchUp: EventID?
  private var passwords: [(id: PasswordJobID, job: PasswordJob)] = []
  private var reads: [(id: ReadID, query: LogQuery)] = []
  private var lookUp: (requests: [RequestID: EventID], upTo: EventID)?
  private var topics: [Topic: UInt64] = [:]
  private var mesh: Set<RosterMember> = []
  private var hasExited = false
  /// A master of this cluster said what is not in the log.
  private var isMisled = false

  init(_ input: [UInt8]) {
    draw = Draw(input)
    log = MemoryLog(disk: disk)
    let identity = MasterIdentity(name: "master-1", incarnation: Incarnation(1_000))
    let beat = MasterBeat(master: identity, head: .zero, sessions: 0, commitAge: 0, term: 0, roster: 0)
    core = MasterCore(
      registration: Registration(
        master: identity, pid: 77, requests: "tcp://r", timelines: "tcp://t", log: "tcp://l", beat: beat),
      timing: Timing(heartbeat: .seconds(1), liveness: .seconds(3)), assignment: draw.flag() ? .available : .spread,
      random: .seeded(7))
  }

  mutating func run() throws(Finding) {
    try turn { $0.start(at: $1, into: &$2) }
    try turn { $0.onSnapshot(Snapshot(), at: $1, into: &$2) }
    if draw.below(8) != 0 { try finishCatchUp(failing: false) }
    var steps = 0
    while !draw.isAtEnd, !hasExited, !isMisled, steps < Self.stepsMax {
      try step()
      steps += 1
    }
    try fallSilent()
  }

  // MARK: Steps

  private mutating func step() throws(Finding) {
    let kind = draw.below(Self.stepKinds)
    switch kind {
    case 0...4:
      let peer = PeerID(UInt32(draw.below(6)))
      let request = Request(number: max(1, draw.number()), body: requestBody())
      // Only what a decoder lets through is heard.
      guard let heard = try? Wire.decodeRequest(Wire.encode(request)) else { return }
      try hear(heard, from: peer)
    case 5:
      let peer = PeerID(UInt32(draw.below(6)))
      guard let request = try? Wire.decodeRequest(draw.chunk()) else {
        return try turn { core, _, actions in core.onMalformed(from: peer, into: &actions) }
      }
      try hear(request, from: peer)
    case 6:
      let peer = PeerID(UInt32(draw.below(6)))
      try turn { core, _, actions in core.onUnreachable(peer, into: &actions) }
    case 7:
      let topic = topic()
      try turn { core, _, actions in core.onSubscribed(topic, into: &actions) }
      _ = core.mayHear(topic, draw.pick([.unproved, .member, .client(PeerKey("k"))]))
    case 8: try commitElsewhere(tells: draw.flag())
    case 9:
      _ = draw.byte()
      guard let batch = try? Wire.decodeLogBatch(draw.chunk()) else { return }
      try mislead(batch)
    case 10:
      let first = core.head.rawValue + UInt64(draw.below(3))
      let events = (0..<1 + draw.below(3)).map { event(EventID(first + UInt64($0))) }
      guard first > 0, let batch = try? Wire.decodeLogBatch(Wire.encode(LogBatch(events: events))) else { return }
      try mislead(batch)
    case 11:
      _ = draw.byte()
      guard let reply = try? Wire.decodeRouterReply(draw.chunk()) else { return }
      try turn { $0.onRouter(reply, at: $1, into: &$2) }
    case 12:
      let reply: RouterReply =
        switch draw.below(4) {
        case 0: .registerAgain
        case 1: .probe(nonce: draw.number())
        default: .roster(draw.roster(including: core.master))
        }
      guard let heard = try? Wire.decodeRouterReply(Wire.encode(reply)) else { return }
      try turn { $0.onRouter(heard, at: $1, into: &$2) }
    case 13: try pass(.milliseconds(Int64(draw.number() % 20_000)))
    case 14, 15: try finishAppend(failing: draw.below(8) == 0)
    case 16: try finishCatchUp(failing: draw.below(8) == 0)
    case 17:
      try finishRead(failing: draw.below(8) == 0)
      if lookUp != nil { try finishLookUp(failing: draw.below(8) == 0) }
      try finishPassword()
    case 18:
      let topic = topic()
      try turn { core, _, actions in core.abandon([topic], into: &actions) }
    default:
      if draw.below(16) == 0 { try turn { $0.stop(at: $1, into: &$2) } }
    }
  }

  private mutating func hear(_ request: Request, from peer: PeerID) throws(Finding) {
    guard case .hello(var hello) = request.body else {
      return try turn { $0.onRequest(request, from: peer, at: $1, into: &$2) }
    }
    if draw.flag() { hello.key = PeerKey("k\(draw.below(2))") }
    let holder: TokenClaims.Holder =
      draw.below(16) == 0
      ? .operatorOfCluster : .account(AccountID(UInt32(draw.below(4))), generation: EventID(draw.number()))
    let expires = draw.below(8) == 0 ? Int64(bitPattern: draw.number()) : wall.milliseconds + Int64(draw.byte())
    // What a token says, if it is one that this cluster has sealed.
    let claims =
      draw.flag()
      ? nil
      : TokenClaims(
        id: TokenID(high: 0, low: UInt64(draw.below(4))), holder: holder, expires: Timestamp(milliseconds: expires))
    let address = PeerAddress(network: draw.pick(["127.0.0.1", "10.0.0.1", "10.0.0.2"]), isLoopback: draw.flag())
    let (said, now) = (hello, wall)
    try turn {
      $0.onHello(
        said, number: request.number, from: peer, address: address, claims: claims, at: $1, wall: now, into: &$2)
    }
  }

  private mutating func finishPassword() throws(Finding) {
    guard !passwords.isEmpty else { return }
    let (id, job) = passwords.removeFirst()
    let outcome: PasswordOutcome
    switch (draw.below(8), job) {
    case (0, _): outcome = .failed("no memory")
    case (_, .hash): outcome = .hashed(PasswordHash(phc: "hash"))
    case (let choice, .verify): outcome = choice < 4 ? .right : .wrong
    }
    try turn { $0.onPassword(id, outcome, at: $1, into: &$2) }
  }

  private mutating func proof() -> Proof? {
    switch draw.below(4) {
    case 0: nil
    case 1: .token(SessionToken(bytes: draw.chunk()))
    default: .password(Password(draw.pick(["the password", "short", ""])))
    }
  }

  private mutating func requestBody() -> Request.Body {
    switch draw.below(14) {
    case 0, 1:
      var hello = Hello(
        version: draw.below(8) == 0 ? draw.number32() : Hello.currentVersion, client: ClientID(draw.number()),
        user: draw.name(), register: draw.below(4) != 0, newest: EventID(draw.below(4) == 0 ? draw.number() : 0),
        proof: proof())
      // Not drawn: the inputs that were kept go on to mean what they meant.
      hello.takesDoneEach = hello.client.rawValue % 4 != 0
      return .hello(hello)
    case 2, 3: return .post(text: draw.text())
    case 4: return .follow(name: draw.name())
    case 5: return .unfollow(name: draw.name())
    case 6:
      return .list(ListQuery(kind: draw.pick(ListQuery.Kind.allCases), offset: draw.number32(), limit: draw.number32()))
    case 7: return .timeline(draw.query(near: core.head))
    case 8, 9: return .watch(draw.timeline())
    case 10: return .unwatch(topic())
    case 11:
      return .changePassword(
        PasswordChange(old: Password("the password"), new: Password(draw.pick(["another one", "", "x"]))))
    case 12: return .logout(everywhere: draw.flag())
    default: return draw.below(4) == 0 ? .bye : .ping
    }
  }

  private mutating func topic() -> Topic {
    let known = topics.keys.sorted()
    guard !known.isEmpty, draw.below(8) != 0 else { return Topic(high: draw.number(), low: 1) }
    return known[draw.below(known.count)]
  }

  private mutating func event(_ id: EventID) -> Event {
    let account = AccountID(draw.below(4) == 0 ? draw.number32() : UInt32(draw.below(3)))
    let change: Change =
      switch draw.below(4) {
      case 0: .accountCreated(account, name: draw.name())
      case 1: .posted(account, text: draw.text())
      case 2: .followed(account, AccountID(draw.number32()))
      default: .unfollowed(account, AccountID(draw.number32()))
      }
    return Event(
      id: id, time: Timestamp(milliseconds: Int64(bitPattern: draw.number())),
      request: draw.flag() ? nil : RequestID(client: ClientID(draw.number()), number: max(1, draw.number())),
      change: change)
  }

  /// Another master commits what makes sense.
  private mutating func commitElsewhere(tells: Bool) throws(Finding) {
    var state = DerivedState()
    for event in disk.durable { state.apply(event) }
    let id = state.upTo.next
    let account = AccountID(UInt32(state.names.isEmpty ? 0 : draw.below(state.names.count)))
    let other = AccountID(UInt32(state.names.isEmpty ? 0 : draw.below(state.names.count)))
    let change: Change =
      switch draw.below(4) {
      case 1 where !state.names.isEmpty: .posted(account, text: "elsewhere")
      case 2 where account != other && !state.following[account.index].contains(other): .followed(account, other)
      case 3 where !state.names.isEmpty && state.following[account.index].contains(other): .unfollowed(account, other)
      default: .accountCreated(AccountID(UInt32(state.names.count)), name: "elsewhere-\(state.names.count)")
      }
    let event = Event(
      id: id, time: Timestamp(milliseconds: max(state.time.milliseconds, wall.milliseconds)),
      request: draw.flag() ? nil : RequestID(client: ClientID(draw.number()), number: max(1, draw.number())),
      change: change)
    guard (try? log.append([event], after: state.upTo)) == .appended, tells else { return }
    try turn { $0.onLogBatch(LogBatch(events: [event]), at: $1, into: &$2) }
  }

  /// A member says what may not be so. It is believed if it can be so; then this master knows what the log does not, and has no future.
  private mutating func mislead(_ batch: LogBatch) throws(Finding) {
    let head = core.head
    let isTrue = batch.events.allSatisfy { event in
      let index = Int(clamping: event.id.rawValue) - 1
      return disk.durable.indices.contains(index) && disk.durable[index] == event
    }
    try turn { $0.onLogBatch(batch, at: $1, into: &$2) }
    isMisled = !isTrue && core.head != head
  }

  // MARK: The log

  private mutating func finishAppend(failing: Bool) throws(Finding) {
    guard let done = append else { return }
    let (events, after) = (done.events, done.after)
    let outcome: CommitOutcome
    if failing {
      outcome = .failed("the disk is full")
    } else {
      switch try? log.append(events, after: after) {
      case .appended: outcome = .appended
      case .behind: outcome = .behind((try? log.read(after: after, limit: draw.flag() ? 1 : 100)) ?? [])
      case nil: outcome = .failed("the log is shorter than was thought")
      }
    }
    if outcome != .appended { appends.drop(after: done) }
    append = appends.take()
    let wall = wall
    try turn { $0.onCommit(outcome, of: done.commits, at: $1, wall: wall, into: &$2) }
  }

  private mutating func finishCatchUp(failing: Bool) throws(Finding) {
    guard let after = catchUp else { return }
    catchUp = nil
    if failing { return try turn { $0.onCatchUp(.failed("no disk"), more: false, at: $1, into: &$2) } }
    let limit = draw.flag() ? 2 : 100
    let events = (try? log.read(after: after, limit: limit)) ?? []
    try turn { $0.onCatchUp(.read(events), more: events.count == limit, at: $1, into: &$2) }
  }

  private mutating func finishRead(failing: Bool) throws(Finding) {
    guard !reads.isEmpty else { return }
    let (id, query) = reads.removeFirst()
    if failing {
      return try turn { core, _, actions in core.onRead(id, .failed("no disk"), more: false, into: &actions) }
    }
    var found: (posts: [StoredPost], more: Bool) = ([], false)
    switch query {
    case .posts(let ids): found.posts = (try? log.posts(withIDs: ids)) ?? []
    case .range(let authors, let range, let upTo, let limit):
      let range: PostRange =
        switch range {
        case .before(let position): .before(position)
        case .after(let position): .after(position)
        }
      found = (try? log.posts(by: authors, in: range, upTo: upTo, limit: limit)) ?? found
    }
    let answer = found
    try turn { core, _, actions in core.onRead(id, .read(answer.posts), more: answer.more, into: &actions) }
  }

  private mutating func finishLookUp(failing: Bool) throws(Finding) {
    guard let asked = lookUp else { return }
    lookUp = nil
    let found = failing ? nil : try? log.events(of: asked.requests, upTo: asked.upTo)
    let outcome = found.map { ReadOutcome.read($0) } ?? .failed("no disk")
    try turn { core, _, actions in core.onLookUp(outcome, into: &actions) }
  }

  // MARK: Turns

  private mutating func turn(_ body: (inout MasterCore, Instant, inout [MasterAction]) -> Void) throws(Finding) {
    guard !hasExited else { return }
    var actions: [MasterAction] = []
    core.onTimers(at: now, into: &actions)
    body(&core, now, &actions)
    core.flush(at: now, wall: wall, into: &actions)
    for action in actions { try carryOut(action) }
    if let wake = core.nextWake, !hasExited { try hold(wake > now, "would be woken at once, again and again") }
    try hold(core.sessionCount <= 6, "\(core.sessionCount) sessions of 6 peers")
  }

  private mutating func pass(_ interval: Interval) throws(Finding) {
    let end = now + interval
    var wakes = 0
    while !hasExited, let wake = core.nextWake, wake <= end {
      now = max(now, wake)
      try turn { _, _, _ in }
      wakes += 1
      try hold(wakes < 1_000, "woken a thousand times in \(interval)")
    }
    now = end
    wall = Timestamp(milliseconds: wall.milliseconds + 1)
  }

  /// Nobody says anything any more, and the log works: all is answered, and no session is left.
  private mutating func fallSilent() throws(Finding) {
    guard !isMisled else { return }
    var rounds = 0
    while !hasExited, append != nil || catchUp != nil || lookUp != nil || !reads.isEmpty || !passwords.isEmpty {
      try finishAppend(failing: false)
      try finishCatchUp(failing: false)
      try finishRead(failing: false)
      try finishLookUp(failing: false)
      try finishPassword()
      rounds += 1
      try hold(rounds < 10_000, "the log is asked for ever")
    }
    for _ in 0..<3 {
      try pass(.seconds(10))
      try finishAppend(failing: false)
      try finishCatchUp(failing: false)
      try finishRead(failing: false)
      try finishLookUp(failing: false)
      try finishPassword()
    }
    guard !hasExited else { return }
    try hold(!core.isServing || core.sessionCount == 0, "\(core.sessionCount) sessions after 30 s of silence")
  }

  private mutating func carryOut(_ action: MasterAction) throws(Finding) {
    try hold(!hasExited, "\(action) after exit")
    switch action {
    case .reply(let reply, _):
      try hold((try? Wire.decodeReply(Wire.encode(reply))) == reply, "a reply that no client understands: \(reply)")
      if case .watching(let watching) = reply.body, topics[watching.topic] == nil {
        topics[watching.topic] = watching.sequence
      }
    case .welcome(let welcome, _, let number, _):
      let reply = Reply(number: number, body: .welcome(welcome))
      try hold((try? Wire.decodeReply(Wire.encode(reply))) == reply, "a welcome that no client understands: \(reply)")
    case .password(let id, let job):
      try hold(!passwords.contains { $0.id == id }, "two passwords to look at under one number")
      passwords.append((id, job))
    case .publish(let post, let positions):
      let entry = Wire.encodeUpdateEntry(post)
      for position in positions {
        try hold(
          topics[position.topic] == position.sequence, "update \(position.sequence) of \(position.topic) out of order")
        topics[position.topic] = position.sequence + 1
        let header = Wire.encodeUpdateHeader(topic: position.topic, sequence: position.sequence)
        let update = try? Wire.decodeUpdate(header: header, body: entry)
        try hold(update?.posts == [post], "an update that no client understands: \(post)")
      }
    case .mark(let position):
      try hold(
        topics[position.topic] == position.sequence, "marker \(position.sequence) of \(position.topic) out of order")
    case .append(let next):
      let (events, after) = (next.events, next.after)
      try hold(
        after == (append == nil ? core.head : ordered) || isMisled, "appends after \(after) at head \(core.head)")
      try hold(events.count <= Limits.batchEvents && !events.isEmpty, "\(events.count) events in a commit")
      ordered = events.last!.id
      appends.put(next)
      if append == nil { append = appends.take() }
    case .catchUp(let after):
      try hold(catchUp == nil, "two catch-ups at once")
      catchUp = after
    case .read(let id, let query):
      try hold(!reads.contains { $0.id == id }, "two reads under one number")
      reads.append((id, query))
    case .lookUp(let requests, let upTo):
      try hold(lookUp == nil && !requests.isEmpty, "two look-ups at once, or one of nothing")
      lookUp = (requests, upTo)
    case .broadcast(let events):
      let batch = LogBatch(events: events)
      try hold((try? Wire.decodeLogBatch(Wire.encode(batch))) == batch, "a commit that no master understands")
    case .toRouter(let request):
      try hold(
        (try? Wire.decodeRouterRequest(Wire.encode(request))) == request, "what no router understands: \(request)")
    case .toSupervisor(let beat):
      let request = SupervisorRequest.beat(beat)
      try hold((try? Wire.decodeSupervisorRequest(Wire.encode(request))) == request, "a beat that no slave understands")
    case .joinMesh(let member): try hold(mesh.insert(member).inserted, "joins \(member) twice")
    case .leaveMesh(let member): try hold(mesh.remove(member) != nil, "leaves \(member), which it has not joined")
    case .note: break
    case .exit: hasExited = true
    }
  }
}
