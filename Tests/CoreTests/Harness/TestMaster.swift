// A master core in a shell that carries out its orders, and fails at every order that makes no sense.

import Model
import Testing

@testable import Core

/// A master under test. Each method is a turn as the shell takes it: timers, what arrived, flush, then the orders.
///
/// What it holds the core to, whatever the test is about: a request is answered once, and only if it was asked; no
/// catch-up while one is under way; events are appended after the head and what is under way, contiguous and in time's order; only what is durable
/// is acknowledged, told to the masters and pushed, in this order; updates of a topic are numbered without a hole; the mesh
/// is joined once and left once; nothing follows `exit`.
final class TestMaster {
  let log: ModelLog
  private(set) var core: MasterCore
  var now = Instant(nanoseconds: 10_000_000_000)
  var wall = Timestamp(milliseconds: 1_700_000_000_000)

  /// All orders of the last turn.
  private(set) var actions: [MasterAction] = []
  private(set) var notes: [MasterNote] = []
  private(set) var toRouter: [RouterRequest] = []
  private(set) var beats: [ChildBeat] = []
  private(set) var broadcasts: [[Event]] = []
  private(set) var replies: [(peer: PeerID, reply: Reply)] = []
  private(set) var updates: [Update] = []
  /// What the commit thread is at, and what waits for it.
  private(set) var commit: Append?
  private(set) var appends = AppendQueue()
  /// The last event that was ordered to be appended, in the present series.
  private(set) var ordered = (head: EventID.zero, time: Timestamp.zero, series: UInt64(0))
  private var lastCommitted = EventID.zero
  private(set) var catchUp: EventID?
  private(set) var reads: [(id: ReadID, query: LogQuery)] = []
  private(set) var lookUp: (requests: [RequestID: EventID], upTo: EventID)?
  private(set) var mesh: [RosterMember] = []
  /// Passwords that are to be hashed or looked at.
  private(set) var passwords: [(id: PasswordJobID, job: PasswordJob)] = []
  /// What the masters' shells would have sealed, by token; tests make some up.
  private(set) var claims: [SessionToken: TokenClaims] = [:]
  /// The last token that each peer got.
  private(set) var tokens: [PeerID: SessionToken] = [:]
  private(set) var hasExited = false

  /// Passwords wait until the test has them hashed.
  var holdsPasswords = false
  /// A Hello without a proof gets one.
  var addsProofs = true
  /// From where peers connect.
  var addresses: [PeerID: PeerAddress] = [:]

  private struct Asked: Hashable {
    var peer: PeerID
    var number: UInt64
  }
  private var owed: [Asked: Int] = [:]
  private var nextOnTopic: [Topic: UInt64] = [:]
  private var newestOnTopic: [Topic: EventID] = [:]
  private var lastNumber: [PeerID: UInt64] = [:]

  init(
    _ name: String = "master-1", log: ModelLog = ModelLog(), assignment: Assignment = .available,
    rules: AccountRules = AccountRules(requestsPerSecond: 1_000_000), limits: OperatorLimits = OperatorLimits(),
    seed: UInt64 = 1
  ) {
    self.log = log
    let identity = MasterIdentity(name: name, incarnation: Incarnation(1_000))
    let beat = MasterBeat(master: identity, head: .zero, sessions: 0, commitAge: 0, term: 0, roster: 0)
    core = MasterCore(
      registration: Registration(
        master: identity, pid: 77, requests: "tcp://r", timelines: "tcp://t", log: "tcp://l/\(name)", beat: beat),
      timing: Timing(), assignment: assignment, rules: rules, limits: limits, random: .seeded(seed))
  }

  /// One that serves, having read the log.
  static func serving(
    _ name: String = "master-1", log: ModelLog = ModelLog(), assignment: Assignment = .available,
    rules: AccountRules = AccountRules(requestsPerSecond: 1_000_000), limits: OperatorLimits = OperatorLimits(),
    seed: UInt64 = 1
  ) -> TestMaster {
    let master = TestMaster(name, log: log, assignment: assignment, rules: rules, limits: limits, seed: seed)
    master.turn { $0.start(at: $1, into: &$2) }
    master.turn { $0.onSnapshot(Snapshot(), at: $1, into: &$2) }
    master.finishCatchUp()
    #expect(master.core.isServing)
    return master
  }

  // MARK: Turns

  func turn(_ body: (inout MasterCore, Instant, inout [MasterAction]) -> Void) {
    #expect(!hasExited, "a turn after exit")
    actions = []
    core.onTimers(at: now, into: &actions)
    body(&core, now, &actions)
    core.flush(at: now, wall: wall, into: &actions)
    for action in actions { carryOut(action) }
    if !holdsPasswords { hashPasswords() }
    if let wake = core.nextWake { #expect(wake > now, "the core would be woken at once, again and again") }
  }

  /// Time passes; timers fire at each wake-up on the way, as a shell would have it.
  func pass(_ interval: Interval) {
    let end = now + interval
    while !hasExited, let wake = core.nextWake, wake <= end {
      now = max(now, wake)
      turn { _, _, _ in }
      if catchUp != nil { finishCatchUp() }
    }
    now = end
  }

  /// The process is not scheduled for a while.
  func freeze(_ interval: Interval) { now = now + interval }

  // MARK: Clients

  @discardableResult
  func send(_ body: Request.Body, number: UInt64? = nil, from peer: PeerID) -> UInt64 {
    let number = number ?? lastNumber[peer, default: 0] + 1
    lastNumber[peer] = max(lastNumber[peer, default: 0], number)
    if body != .bye { owed[Asked(peer: peer, number: number), default: 0] += 1 }
    if case .hello(let hello) = body {
      greet(hello, number: number, from: peer)
    } else {
      turn { $0.onRequest(Request(number: number, body: body), from: peer, at: $1, into: &$2) }
    }
    return number
  }

  /// A Hello without a proof gets one that is right: the user's password; or a token, of an account that has none.
  private func greet(_ hello: Hello, number: UInt64, from peer: PeerID) {
    var hello = hello
    if hello.proof == nil, addsProofs {
      if let index = log.names.firstIndex(of: hello.user), log.credentials[index].hash == nil {
        hello.proof = .token(token(of: AccountID(UInt32(index))))
      } else {
        hello.proof = .password(Self.password(of: hello.user))
      }
    }
    var claims: TokenClaims?
    if case .token(let token) = hello.proof { claims = self.claims[token] }
    turn {
      $0.onHello(
        hello, number: number, from: peer, address: self.addresses[peer] ?? .loopback, claims: claims, at: $1,
        wall: self.wall, into: &$2)
    }
  }

  static func password(of user: String) -> Password { Password("the password of \(user)") }
  static func hash(_ password: Password) -> PasswordHash { PasswordHash(phc: "hash of \(password.text)") }

  /// Makes a token as a master's shell would; good unless told otherwise.
  func token(of account: AccountID, generation: EventID? = nil, expires: Int64? = nil) -> SessionToken {
    let generation = generation ?? log.credentials[account.index].generation
    return seal(
      TokenClaims(
        id: TokenID(high: 7, low: UInt64(claims.count)), holder: .account(account, generation: generation),
        expires: Timestamp(milliseconds: expires ?? wall.milliseconds + 1_000_000_000)))
  }

  func seal(_ claims: TokenClaims) -> SessionToken {
    let token = SessionToken(bytes: Array("token \(self.claims.count) of \(core.master.name)".utf8))
    self.claims[token] = claims
    return token
  }

  /// Another master's token opens here, too: they have one key.
  func adopt(_ token: SessionToken, from other: TestMaster) { claims[token] = other.claims[token] }

  /// The test answers this one itself.
  func forgetPassword(_ id: PasswordJobID) { passwords.removeAll { $0.id == id } }

  /// The thread that hashes does what it is told.
  func hashPasswords() {
    while let (id, job) = passwords.first {
      passwords.removeFirst()
      let outcome: PasswordOutcome
      switch job {
      case .hash(let password): outcome = .hashed(Self.hash(password))
      case .verify(let password, let hash): outcome = hash == Self.hash(password) ? .right : .wrong
      }
      answer(id, outcome)
    }
  }

  func answer(_ id: PasswordJobID, _ outcome: PasswordOutcome) {
    let before = actions
    turn { $0.onPassword(id, outcome, at: $1, into: &$2) }
    actions = before + actions
  }

  /// Sends, lets the log do its work, and gives the answer.
  @discardableResult
  func ask(
    _ body: Request.Body, number: UInt64? = nil, from peer: PeerID, sourceLocation: SourceLocation = #_sourceLocation
  ) -> Reply.Body {
    let before = replies.count
    let number = send(body, number: number, from: peer)
    settle()
    guard let answer = replies[before...].last(where: { $0.peer == peer && $0.reply.number == number }) else {
      Issue.record("no answer to \(body)", sourceLocation: sourceLocation)
      return .unwatched
    }
    return answer.reply.body
  }

  @discardableResult
  func login(
    _ user: String, client: UInt64? = nil, register: Bool = true, newest: EventID = .zero, proof: Proof? = nil,
    takesDoneEach: Bool = false, from peer: PeerID, sourceLocation: SourceLocation = #_sourceLocation
  ) -> Reply.Body {
    let client = ClientID(client ?? UInt64(peer.rawValue) + 1_000)
    return ask(
      .hello(
        Hello(
          client: client, user: user, register: register, newest: newest, proof: proof, takesDoneEach: takesDoneEach)),
      from: peer, sourceLocation: sourceLocation)
  }

  /// The shell no longer trusts a topic's subscriptions.
  func abandon(_ topic: Topic) { turn { core, _, actions in core.abandon([topic], into: &actions) } }

  /// What a peer was told since the beginning.
  func told(_ peer: PeerID) -> [Reply.Body] { replies.filter { $0.peer == peer }.map(\.reply.body) }

  // MARK: The log

  /// Does all that is under way at the log, until nothing is.
  func settle() {
    while !hasExited {
      if commit != nil {
        finishCommit()
      } else if catchUp != nil {
        finishCatchUp()
      } else if let read = reads.first {
        finish(read.id)
      } else if lookUp != nil {
        finishLookUp()
      } else {
        return
      }
    }
  }

  /// The commit thread does what it is told.
  func finishCommit() {
    guard let done = commit else {
      Issue.record("no commit is under way")
      return
    }
    if log.append(done.events, after: done.after) {
      end(done, .appended)
    } else {
      end(done, .behind(log.read(after: done.after)))
    }
  }

  /// The events are in the log, but the loop has not heard of it yet.
  func writeCommit() {
    guard let commit else {
      Issue.record("no commit is under way")
      return
    }
    #expect(log.append(commit.events, after: commit.after))
  }

  /// The loop hears that the commit was written (`writeCommit`).
  func reportCommit() {
    guard let commit else {
      Issue.record("no commit is under way")
      return
    }
    end(commit, .appended)
  }

  func failCommit(_ reason: String = "disk full") {
    guard let commit else {
      Issue.record("no commit is under way")
      return
    }
    end(commit, .failed(reason))
  }

  /// The commit thread goes on with what waits, and then the loop hears of what it has done.
  private func end(_ done: Append, _ outcome: CommitOutcome) {
    if outcome != .appended { appends.drop(after: done) }
    commit = appends.take()
    turn { $0.onCommit(outcome, of: done.commits, at: $1, wall: self.wall, into: &$2) }
    if outcome == .appended { checkOrder(of: done.events) }
  }

  func finishCatchUp(limit: Int = Limits.readEvents) {
    guard let after = catchUp else {
      Issue.record("no catch-up is under way")
      return
    }
    catchUp = nil
    let events = log.read(after: after, limit: limit)
    turn { $0.onCatchUp(.read(events), more: events.count == limit, at: $1, into: &$2) }
  }

  /// A catch-up that read only up to `position`: what came later came after the reading.
  func finishCatchUp(upTo position: EventID) {
    guard let after = catchUp else {
      Issue.record("no catch-up is under way")
      return
    }
    catchUp = nil
    let events = log.read(after: after).filter { $0.id <= position }
    turn { $0.onCatchUp(.read(events), more: false, at: $1, into: &$2) }
  }

  func failCatchUp(_ reason: String = "disk error") {
    #expect(catchUp != nil)
    catchUp = nil
    turn { $0.onCatchUp(.failed(reason), more: false, at: $1, into: &$2) }
  }

  func finish(_ id: ReadID) {
    guard let index = reads.firstIndex(where: { $0.id == id }) else {
      Issue.record("no such read")
      return
    }
    let (posts, more) = log.answer(reads.remove(at: index).query)
    turn { core, _, actions in core.onRead(id, .read(posts), more: more, into: &actions) }
  }

  func failRead(_ id: ReadID) {
    reads.removeAll { $0.id == id }
    turn { core, _, actions in core.onRead(id, .failed("disk error"), more: false, into: &actions) }
  }

  /// Answers the look-up under way: with what the log says, or with something else.
  func finishLookUp(_ outcome: ReadOutcome<[RequestID: EventID]>? = nil) {
    guard let asked = lookUp else {
      Issue.record("no look-up is under way")
      return
    }
    lookUp = nil
    let outcome = outcome ?? .read(log.events(of: asked.requests, upTo: asked.upTo))
    turn { core, _, actions in core.onLookUp(outcome, into: &actions) }
  }

  // MARK: Others

  func subscribe(_ topic: Topic) { turn { core, _, actions in core.onSubscribed(topic, into: &actions) } }

  func hear(_ events: [Event]) { turn { $0.onLogBatch(LogBatch(events: events), at: $1, into: &$2) } }

  func hear(_ reply: RouterReply) { turn { $0.onRouter(reply, at: $1, into: &$2) } }

  /// Makes a roster of masters by name; all in incarnation 1000 unless told otherwise.
  static func roster(
    _ version: UInt64, _ names: [String], available: String? = nil, term: UInt64 = 1, incarnation: UInt64 = 1_000
  ) -> Roster {
    func identity(_ name: String) -> MasterIdentity {
      MasterIdentity(name: name, incarnation: Incarnation(name == "master-1" ? 1_000 : incarnation))
    }
    return Roster(
      version: version, available: available.map(identity), term: term,
      members: names.sorted().map { RosterMember(master: identity($0), log: "tcp://l/\($0)") })
  }

  // MARK: What the orders are held to

  private func carryOut(_ action: MasterAction) {
    #expect(!hasExited, "an order after exit: \(action)")
    switch action {
    case .reply(let reply, let peer): check(reply, to: peer)
    case .welcome(var welcome, let granted, let number, let peer):
      #expect(welcome.token == nil, "only a shell can seal a token")
      if let granted {
        tokens[peer] = seal(granted)
        welcome.token = tokens[peer]
      }
      check(Reply(number: number, body: .welcome(welcome)), to: peer)
    case .password(let id, let job):
      #expect(!passwords.contains { $0.id == id }, "a password job's id is used twice")
      passwords.append((id, job))
    case .publish(let post, let targets):
      #expect(!targets.isEmpty, "a post is published to nobody")
      #expect(Set(targets.map(\.topic)).count == targets.count, "a post is published twice on a topic")
      #expect(post.id <= log.head, "post \(post.id) is published and not durable")
      for target in targets {
        if let expected = nextOnTopic[target.topic] {
          #expect(target.sequence == expected, "a topic's numbers have a hole or a repeat")
        }
        nextOnTopic[target.topic] = target.sequence + 1
        #expect(newestOnTopic[target.topic, default: .zero] < post.id, "a topic's posts are out of order")
        newestOnTopic[target.topic] = post.id
        updates.append(Update(topic: target.topic, sequence: target.sequence, posts: [post]))
      }
    case .mark(let watching):
      checkPosition(watching)
      updates.append(Update(topic: watching.topic, sequence: watching.sequence, posts: []))
    case .append(let append):
      let (events, after) = (append.events, append.after)
      #expect(!events.isEmpty && events.count <= Limits.appendEvents && append.commits == 1)
      #expect(append.series >= ordered.series)
      let isFirst = core.commits.first?.after == after
      if isFirst || append.series > ordered.series { ordered = (core.head, core.state.time, append.series) }
      #expect(after == ordered.head, "an append that is not after the head and what is under way")
      #expect(events.map(\.id) == (1...max(1, events.count)).map { after.advanced(by: $0) }, "ids have a hole")
      #expect(events.allSatisfy { $0.time >= ordered.time }, "the log's time goes back")
      ordered = (events.last!.id, events.last!.time, append.series)
      appends.put(append)
      if commit == nil { commit = appends.take() }
    case .catchUp(let after):
      #expect(catchUp == nil, "a catch-up while one is under way")
      #expect(after == core.head, "a catch-up that is not after the head")
      catchUp = after
    case .read(let id, let query):
      #expect(!reads.contains { $0.id == id }, "a read's id is used twice")
      if case .range(let authors, _, let upTo, let limit) = query {
        #expect(authors == Set(authors).sorted(), "authors are to be ascending")
        #expect(upTo <= log.head && (1...Limits.pagePosts).contains(limit))
      }
      reads.append((id, query))
    case .lookUp(let requests, let upTo):
      #expect(lookUp == nil, "a look-up while one is under way")
      #expect(!requests.isEmpty && requests.count <= Limits.readEvents && upTo == core.head && upTo <= log.head)
      lookUp = (requests, upTo)
    case .broadcast(let events):
      #expect(!events.isEmpty)
      for event in events {
        #expect(event.id <= log.head && log.events[Int(event.id.rawValue) - 1] == event, "told to masters, not durable")
      }
      for (one, next) in zip(events, events.dropFirst()) { #expect(next.id == one.id.next, "a broadcast has a hole") }
      #expect(events[0].id > broadcasts.last?.last?.id ?? .zero, "a commit is told twice")
      broadcasts.append(events)
    case .toRouter(let request): toRouter.append(request)
    case .toSupervisor(let beat): beats.append(beat)
    case .joinMesh(let member):
      #expect(member.master != core.master, "a master listens to itself")
      #expect(!mesh.contains(member), "joined twice")
      mesh.append(member)
    case .leaveMesh(let member):
      #expect(mesh.contains(member), "left without having joined")
      mesh.removeAll { $0 == member }
    case .note(let note): notes.append(note)
    case .exit:
      #expect(commit == nil, "exit while a commit is under way")
      hasExited = true
    }
  }

  private func check(_ reply: Reply, to peer: PeerID) {
    replies.append((peer, reply))
    guard case .doneEach(let all) = reply.body else { return checkAnswer(reply, to: peer) }
    #expect(reply.number == 0 && all.count > 1 && all.count <= Limits.acknowledgedTogether)
    for done in all { checkAnswer(Reply(number: done.number, body: .done(done.event)), to: peer) }
  }

  private func checkAnswer(_ reply: Reply, to peer: PeerID) {
    guard reply.body != .goodbye else {
      #expect(reply.number == 0, "nobody asks for a goodbye")
      return
    }
    let asked = Asked(peer: peer, number: reply.number)
    let count = owed[asked, default: 0]
    #expect(count > 0, "\(peer) is answered and did not ask, or for the second time: \(reply)")
    owed[asked] = count == 1 ? nil : count - 1
    switch reply.body {
    case .done(let id): #expect(id <= log.head, "event \(id) is acknowledged and not durable")
    case .welcome(let welcome):
      #expect(welcome.head <= log.head)
      #expect(log.names.count > welcome.account.index, "the account is not durable")
    case .watching(let watching): checkPosition(watching)
    case .pong(let pong): for topic in pong.topics { checkPosition(topic) }
    case .page(let page): #expect(page.upTo <= log.head && page.posts.count <= Limits.pagePosts)
    case .names(let page): #expect(page.names.count <= Limits.pageNames)
    case .refused(let refusal):
      #expect(!refusal.message.isEmpty && !refusal.message.contains { $0.isNewline }, "a refusal is one line")
    case .unwatched, .doneEach, .goodbye: break
    }
  }

  private func checkPosition(_ watching: Watching) {
    if let expected = nextOnTopic[watching.topic] {
      #expect(watching.sequence == expected, "a topic's next number is told wrong")
    } else {
      nextOnTopic[watching.topic] = watching.sequence
    }
  }

  /// Acknowledge, tell the masters, push: of one commit in this order.
  private func checkOrder(of events: [Event]) {
    lastCommitted = events.last!.id
    let ids = events[0].id...events.last!.id
    let told = actions.firstIndex { action in
      if case .broadcast(let told) = action { told.last == events.last } else { false }
    }
    // Held back; that it comes is looked at in the end (`expectAllAnswered`).
    guard let broadcast = told else { return }
    var acknowledged: Set<EventID> = []
    for (index, action) in actions.enumerated() {
      switch action {
      case .reply(let reply, _):
        // A repeat that waited for the commit is answered later; the first answer counts.
        for id in reply.body.events where ids.contains(id) && acknowledged.insert(id).inserted {
          #expect(index < broadcast, "told to the masters before acknowledged")
        }
      case .publish(let post, _):
        if ids.contains(post.id) { #expect(index > broadcast, "pushed before told to the masters") }
      default: break
      }
    }
  }

  /// At the end of a test: nobody waits for an answer.
  func expectAllAnswered(sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(owed.isEmpty, "requests without an answer: \(owed)", sourceLocation: sourceLocation)
    if !hasExited { pass(MasterCore.broadcastPause) }
    #expect(broadcasts.last?.last?.id ?? .zero >= lastCommitted, "a commit is not told to the others")
  }
}

extension Reply.Body {
  /// What it acknowledges.
  fileprivate var events: [EventID] {
    switch self {
    case .done(let id): [id]
    case .doneEach(let all): all.map(\.event)
    default: []
    }
  }
}

extension PeerID: ExpressibleByIntegerLiteral {
  public init(integerLiteral value: UInt32) { self.init(value) }
}

/// What a refusal says, without its text.
func code(_ body: Reply.Body) -> Refusal.Code? {
  if case .refused(let refusal) = body { refusal.code } else { nil }
}

func isWelcome(_ body: Reply.Body?) -> Bool {
  if case .welcome = body { true } else { false }
}

/// The event that a request took effect as.
func done(_ body: Reply.Body) -> EventID? {
  if case .done(let id) = body { id } else { nil }
}

func watching(_ body: Reply.Body, sourceLocation: SourceLocation = #_sourceLocation) throws -> Watching {
  guard case .watching(let watching) = body else {
    Issue.record("\(body) is no Watching", sourceLocation: sourceLocation)
    throw NotThat()
  }
  return watching
}

func page(_ body: Reply.Body, sourceLocation: SourceLocation = #_sourceLocation) throws -> TimelinePage {
  guard case .page(let page) = body else {
    Issue.record("\(body) is no page", sourceLocation: sourceLocation)
    throw NotThat()
  }
  return page
}

struct NotThat: Error {}
