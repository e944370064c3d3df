// A master: sessions, requests, commits, pushes. No I/O: methods take what happened, actions say what to do.

import DequeModule
public import Model

/// The logic of a master server.
///
/// The shell's duties, in order, at each turn: `onTimers`, then what arrived (`on…`), then `flush`, then the actions.
/// Timers come first so that a master that was frozen drops its expired sessions before it reads what they once sent.
///
/// Three kinds of what can go wrong: a peer's bad input is answered with a refusal; what comes too late or twice is
/// ignored; what can't be (an event out of order from our own log) stops the process.
public struct MasterCore: Sendable {
  enum Phase: Sendable {
    /// Reading the log. Not registered, serves nobody.
    case starting
    case serving
    /// Told to stop: finishes the commits under way, takes nothing new.
    case stopping
    case stopped
  }

  struct Session: Sendable {
    var client: ClientID
    var account: AccountID
    /// What its connections prove.
    var key: PeerKey?
    var lastHeard: Instant
    /// Of the login.
    var address: PeerAddress
    var topics: [Topic] = []
    /// The token that it was opened with, or got; nil of an operator's.
    var token: TokenID?
    var tokenExpires = Timestamp.zero
    /// May set a new password and log out, and do nothing else.
    var isOperators = false
    /// Its client understands `doneEach`.
    var takesDoneEach = false
  }

  /// A request that needs the log.
  struct Waiting: Sendable {
    enum Work: Sendable {
      // The rare and large ones lie outside, so that a queue of posts stays small.
      indirect case register(Login, PasswordHash)
      case post(String)
      case follow(String)
      case unfollow(String)
      case setPassword(PasswordHash)
      /// Ends the token, which expires then; nil: all. `lifetime` is a token's.
      indirect case logout(TokenID?, expires: Timestamp, lifetime: Int64)

      /// Events that it may become.
      var eventsMax: Int { if case .register = self { 2 } else { 1 } }
    }
    var peer: PeerID
    /// It may be acknowledged together with others.
    var takesDoneEach = false
    var number: UInt64
    var client: ClientID
    /// `AccountID(.max)` of a registration: there is no account yet.
    var account: AccountID
    var work: Work
  }

  /// The unanswered requests of a connection.
  struct InFlight: Sendable {
    var count: Int
    /// The last group of acknowledgements that was begun for it; see `Together`.
    var group: UInt64 = 0
  }

  /// What acknowledges requests of one connection together, once there are two of them.
  struct Together {
    /// Of the first one's own acknowledgement among the actions: theirs takes its place.
    var place: Int
    var peer: PeerID
    var first: Done
    var all: [Done] = []

    /// - Parameter most: no more will there be.
    mutating func add(_ done: Done, ofAtMost most: Int) {
      if all.isEmpty {
        all.reserveCapacity(most)
        all.append(first)
      }
      all.append(done)
    }
  }

  struct Commit: Sendable {
    var events: [Event]
    /// Who waits for it and for what answer, in the order of arrival.
    var waiting: [(request: Waiting, answer: Batch.Answer)]
    /// The head before it.
    var after: EventID
    /// When it was begun or, if others were before it, when the last of those ended.
    var since: Instant
  }

  /// A key whose session watches a topic.
  struct Hearer: Hashable, Sendable {
    var key: PeerKey
    var topic: Topic
  }

  /// A request that took effect: one that is repeated waits until the log has told as which event.
  struct Repeat: Sendable {
    var peer: PeerID
    var request: RequestID
    /// It ends its session.
    var isLogout = false
  }

  /// A read of older posts under way.
  struct PendingRead: Sendable {
    var peer: PeerID
    var number: UInt64
    var upTo: EventID
    var more: Bool
    var limit: Int
    var isForward: Bool
  }

  enum Timer: Int, CaseIterable, Sendable {
    /// To the router; every few times, to the supervisor as well.
    case beat
    case sweep
    /// Look whether the log has what nobody announced.
    case check
    /// The other masters are told of commits that were held back.
    case broadcast
    /// What waits has waited for others long enough.
    case gathering
  }

  /// The least time between two broadcasts where nobody waits for them, because the masters that hear them have no clients. A commit
  /// costs each of them two wake-ups, and under load there are hundreds a second.
  static let broadcastPause = Interval.milliseconds(20)

  public let master: MasterIdentity
  public let pid: Int32
  let registration: Registration
  let timing: Timing
  let assignment: Assignment
  let rules: AccountRules
  let limits: OperatorLimits

  var phase = Phase.starting
  public internal(set) var state = ServiceState()
  var sessions: [PeerID: Session] = [:]
  var peersByClient: [ClientID: PeerID] = [:]
  var sessionsByAccount: [AccountID: Int] = [:]
  /// Unanswered requests by connection: those that wait for the log. Whatever becomes of the session, they are counted until answered.
  var inFlight: [PeerID: InFlight] = [:]
  /// How many groups of acknowledgements were begun: numbers them.
  private var groupsBegun: UInt64 = 0
  var watches = WatchTable()
  /// Who may subscribe to what, and how many sessions say so.
  var hearers: [Hearer: Int] = [:]
  var waiting = Deque<Waiting>()
  /// Those that the log has been given, in order. Each was validated on top of the ones before.
  var commits = Deque<Commit>()
  /// How many requests wait for those.
  private var requestsUnderWay = 0
  private var gathering = Gathering()
  /// Repeated requests whose events the log has to tell, in the order of arrival: the first `repeatsUnderWay` are being looked up.
  var repeats: [Repeat] = []
  private var repeatsUnderWay = 0
  /// What they will have changed.
  var ahead = Ahead(ServiceState())
  /// Numbers the commits that belong together: see `Append.series`.
  private var series: UInt64 = 1
  var isCatchingUp = false
  /// How many catch-ups were begun. What was learnt before one began is in the log when that one reads it.
  var catchUpsBegun = 0
  /// What is to be read at least, because another master announced it.
  var wanted = EventID.zero
  var wantedSince = 0
  /// Logins that need a newer state than this master may have, and how many catch-ups had begun when they were held.
  var held: [(login: Login, since: Int)] = []
  var hashing: [PasswordJobID: Hashing] = [:]
  var lastPasswordJob: UInt64 = 0
  var attemptsByName: KeyedBuckets<String>
  var attemptsByAddress: KeyedBuckets<String>
  var attemptsByLoopback: KeyedBuckets<String>
  /// Attempts whose outcome is not known yet, by name and by place.
  var attemptsUnderWay: [String: Int] = [:]
  var rates: AccountRates
  var reads: [ReadID: PendingRead] = [:]
  var lastRead: UInt64 = 0
  /// Commits that the other masters are still to be told of: contiguous.
  private var untold: [Event] = []
  private var lastBroadcast = Instant.zero
  var storageFails = false
  var roster: Roster?
  var random: RandomSource
  var timers = TimerTable<Timer>()
  var nextSupervisionBeat = Instant.zero

  /// - Parameters:
  ///   - registration: who this master is and where it listens; its beat is filled in.
  ///   - random: must be the system's in production: topics have to be unguessable.
  public init(
    registration: Registration, timing: Timing, assignment: Assignment, rules: AccountRules = AccountRules(),
    limits: OperatorLimits = OperatorLimits(), random: RandomSource
  ) {
    master = registration.master
    pid = registration.pid
    self.registration = registration
    self.timing = timing
    self.assignment = assignment
    self.rules = rules
    self.limits = limits
    func attempts(_ burst: Int, every pause: Interval) -> KeyedBuckets<String> {
      KeyedBuckets(burst: burst, every: pause, keysMax: Limits.attemptsTracked)
    }
    attemptsByName = attempts(limits.attemptsPerName, every: Limits.attemptsPerNameEvery)
    attemptsByAddress = attempts(limits.attemptsPerAddress, every: Limits.attemptsPerAddressEvery)
    attemptsByLoopback = attempts(limits.attemptsPerLoopback, every: Limits.attemptsPerLoopbackEvery)
    rates = AccountRates(perSecond: rules.requestsPerSecond)
    self.random = random
  }

  /// The next point in time at which `onTimers` has something to do.
  public var nextWake: Instant? { timers.next }

  public var sessionCount: Int { sessions.count }
  public var head: EventID { state.head }
  public var isServing: Bool { if case .serving = phase { return true } else { return false } }

  // MARK: Life

  /// The process runs; the shell is loading the snapshot. Beats begin, so that the slave sees a living loop.
  public mutating func start(at now: Instant, into actions: inout [MasterAction]) {
    timers[.beat] = now
    onTimers(at: now, into: &actions)
  }

  /// The derived tables are loaded; what comes after them is read from the log.
  public mutating func onSnapshot(_ snapshot: Snapshot, at now: Instant, into actions: inout [MasterAction]) {
    state = ServiceState(snapshot: snapshot)
    catchUp(into: &actions)
  }

  /// Stop gracefully: finish the commits, tell everyone, end.
  public mutating func stop(at now: Instant, into actions: inout [MasterAction]) {
    switch phase {
    case .stopping, .stopped: return
    case .starting, .serving: break
    }
    phase = .stopping
    actions.append(.note(.stopping))
    actions.append(.toRouter(.leave(master)))
    for request in waiting { refuseToServe(request.number, request.peer, into: &actions) }
    waiting.removeAll()
    for known in repeats { refuseToServe(known.request.number, known.peer, into: &actions) }
    repeats = []
    repeatsUnderWay = 0
    refuseLogins("the server stops", at: now, into: &actions)
    finishStoppingIfDone(at: now, into: &actions)
  }

  private mutating func finishStoppingIfDone(at now: Instant, into actions: inout [MasterAction]) {
    guard case .stopping = phase, commits.isEmpty else { return }
    phase = .stopped
    broadcast(at: now, into: &actions)
    sayGoodbyeToAll(into: &actions)
    actions.append(.exit)
  }

  /// Deadlines that have come. To be called before anything that arrived is handled.
  public mutating func onTimers(at now: Instant, into actions: inout [MasterAction]) {
    if timers.expire(.beat, at: now) {
      timers[.beat] = now.next(timing.heartbeat)
      sendBeats(at: now, into: &actions)
    }
    if timers.expire(.broadcast, at: now) { broadcast(at: now, into: &actions) }
    _ = timers.expire(.gathering, at: now)  // `flush`, at the turn's end, orders what waits
    if timers.expire(.sweep, at: now) {
      timers[.sweep] = now.next(.seconds(1))
      closeSilentSessions(at: now, into: &actions)
    }
    if timers.expire(.check, at: now) {
      timers[.check] = now.next(.seconds(1))
      if commits.isEmpty { catchUp(into: &actions) }
    }
  }

  private mutating func sendBeats(at now: Instant, into actions: inout [MasterAction]) {
    let age = commitAge(at: now)
    if case .serving = phase { actions.append(.toRouter(.beat(beat(at: now)))) }
    guard nextSupervisionBeat <= now else { return }
    nextSupervisionBeat = now.next(timing.supervisionBeat)
    actions.append(
      .toSupervisor(ChildBeat(name: master.name, pid: pid, incarnation: master.incarnation, commitAge: age)))
  }

  private func commitAge(at now: Instant) -> UInt32 {
    commits.first.map { UInt32(clamping: max(1, (now - $0.since).milliseconds)) } ?? 0
  }

  private func beat(at now: Instant) -> MasterBeat {
    MasterBeat(
      master: master, head: state.head, sessions: UInt32(clamping: sessions.count), commitAge: commitAge(at: now),
      term: isAvailable ? roster?.term ?? 0 : 0, roster: roster?.version ?? 0)
  }

  // MARK: Router and mesh

  var isAvailable: Bool { roster?.available == master }

  /// Something came from the router.
  public mutating func onRouter(_ message: RouterReply, at now: Instant, into actions: inout [MasterAction]) {
    switch message {
    case .registerAgain:
      if case .serving = phase { register(at: now, into: &actions) }
    case .probe(let nonce):
      if case .serving = phase { actions.append(.toRouter(.alive(master, nonce: nonce))) }
    case .roster(let roster):
      onRoster(roster, into: &actions)
    case .located, .unavailable, .status, .refused:
      break  // answers to what a master never asks
    }
  }

  private func register(at now: Instant, into actions: inout [MasterAction]) {
    var registration = registration
    registration.beat = beat(at: now)
    actions.append(.toRouter(.register(registration)))
  }

  private mutating func onRoster(_ new: Roster, into actions: inout [MasterAction]) {
    // A router names nobody twice.
    guard case .serving = phase, Set(new.members.map(\.master)).count == new.members.count else { return }
    let old = roster
    let wasAvailable = isAvailable
    roster = new
    let known = old?.members.filter { $0.master != master } ?? []
    let others = new.members.filter { $0.master != master }
    for member in known where !others.contains(member) {
      actions.append(.leaveMesh(member))
      actions.append(.note(.left(member.master.name)))
    }
    for member in others where !known.contains(member) {
      actions.append(.joinMesh(member))
      actions.append(.note(.joined(member.master.name)))
    }
    // Whoever is gone may have committed what it could not tell; whoever is new may have before we heard it.
    if known != others { catchUp(into: &actions) }
    guard assignment == .available else { return }
    if isAvailable, !wasAvailable { actions.append(.note(.becameAvailable(term: new.term))) }
    if !isAvailable, wasAvailable || old == nil { actions.append(.note(.becameStandby)) }
    if !isAvailable, wasAvailable, new.available != nil { sayGoodbyeToAll(into: &actions) }
  }

  /// Another master published a commit.
  public mutating func onLogBatch(_ batch: LogBatch, at now: Instant, into actions: inout [MasterAction]) {
    guard case .serving = phase, let last = batch.events.last else { return }
    guard batch.events[0].id <= state.head.next else {
      // A hole: read it before this. The reading reaches at least up to here.
      if last.id > wanted {
        wanted = last.id
        wantedSince = catchUpsBegun
      }
      catchUp(into: &actions)
      return
    }
    guard state.accepts(batch.events) else {
      // It can't be so. The log says what is.
      catchUp(into: &actions)
      return
    }
    apply(batch.events, into: &actions)
  }

  /// The log was read after the position asked for. `more`: there may be more.
  public mutating func onCatchUp(
    _ outcome: ReadOutcome<[Event]>, more: Bool, at now: Instant, into actions: inout [MasterAction]
  ) {
    isCatchingUp = false
    switch outcome {
    case .failed(let reason):
      noteStorageFailure(reason, into: &actions)
      timers[.check] = now + timing.liveness
      refuseHeld("the log can't be read", at: now, into: &actions)
      return
    case .read(let events):
      noteStorageWorks(into: &actions)
      if let first = events.first, let last = events.last, last.id > state.head {
        if case .serving = phase { actions.append(.note(.holeRead(from: first.id, to: last.id))) }
        apply(events, into: &actions)
      }
    }
    if more {
      catchUp(into: &actions)
      return
    }
    if case .starting = phase {
      phase = .serving
      timers[.sweep] = now.next(.seconds(1))
      timers[.check] = now.next(.seconds(1))
      actions.append(.note(.ready(head: state.head)))
      register(at: now, into: &actions)
    }
    releaseHeld(at: now, into: &actions)
    if !held.isEmpty || wanted > state.head && wantedSince == catchUpsBegun { catchUp(into: &actions) }
  }

  mutating func catchUp(into actions: inout [MasterAction]) {
    guard !isCatchingUp else { return }
    isCatchingUp = true
    catchUpsBegun += 1
    actions.append(.catchUp(after: state.head))
  }

  /// Applies what the state has not seen of contiguous events, and pushes to watchers.
  private mutating func apply(_ events: [Event], into actions: inout [MasterAction]) {
    // Events are lent, not copied.
    let events = events.span
    for index in events.indices where events[index].id > state.head {
      state.apply(events[index])
      switch events[index].change {
      case .accountCreated: break
      case .posted(let author, _):
        let targets = watches.publish(by: author)
        if !targets.isEmpty { actions.append(.publish(post(events[index]), to: targets)) }
      case .followed(let follower, let followed): watches.followed(followed, by: follower)
      case .unfollowed(let follower, let followed): watches.unfollowed(followed, by: follower)
      case .credentialSet, .sessionRevoked, .sessionsRevoked: endRevokedSessions(events[index], into: &actions)
      }
    }
  }

  /// What people see of a post's event.
  private func post(_ event: Event) -> Post {
    guard case .posted(let author, let text) = event.change else { preconditionFailure("\(event.id) is no post") }
    return Post(id: event.id, author: state.name(of: author), text: text, time: event.time)
  }

  // MARK: Requests

  /// A client's message that is no Hello.
  public mutating func onRequest(
    _ request: Request, from peer: PeerID, at now: Instant, into actions: inout [MasterAction]
  ) {
    if case .bye = request.body {
      close(peer, into: &actions) { .loggedOut($0) }
      return
    }
    guard let place = sessions.index(forKey: peer) else {
      refuse(request.number, peer, .noSession, "say Hello first", into: &actions)
      return
    }
    sessions.values[place].lastHeard = now
    let session = sessions.values[place]
    if let refusal = refusal(of: request.body, session, at: now) {
      reply(.refused(refusal), request.number, peer, into: &actions)
      return
    }
    switch request.body {
    case .hello: preconditionFailure("a Hello comes through onHello")
    case .bye: break
    case .changePassword(let change):
      changePassword(change, request.number, peer, session, at: now, into: &actions)
    case .logout(let everywhere):
      enqueue(
        .logout(
          everywhere ? nil : session.token, expires: session.tokenExpires, lifetime: rules.sessionLifetime),
        request.number, peer, session, into: &actions)
    case .ping:
      let topics = session.topics.compactMap(watches.position)
      reply(.pong(Pong(head: state.head, topics: topics)), request.number, peer, into: &actions)
    case .post(let text):
      if let fault = TextRules.fault(inPost: text) {
        refuse(request.number, peer, .invalidText, "the post is refused: \(fault.explanation)", into: &actions)
      } else {
        enqueue(.post(text), request.number, peer, session, into: &actions)
      }
    case .follow(let name): enqueue(.follow(name), request.number, peer, session, into: &actions)
    case .unfollow(let name): enqueue(.unfollow(name), request.number, peer, session, into: &actions)
    case .list(let query): list(query, request.number, peer, session, into: &actions)
    case .timeline(let query): timeline(query, request.number, peer, session, into: &actions)
    case .watch(let name): watch(name, request.number, peer, session, into: &actions)
    case .unwatch(let topic):
      if let index = session.topics.firstIndex(of: topic) {
        sessions[peer]!.topics.remove(at: index)
        watches.unwatch(topic)
        noteHearer(session.key, of: topic, -1)
      }
      reply(.unwatched, request.number, peer, into: &actions)
    }
  }

  /// What this session may not ask, or not so fast.
  private mutating func refusal(of body: Request.Body, _ session: Session, at now: Instant) -> Refusal? {
    switch body {
    case .ping, .bye: return nil
    case .changePassword, .logout: break
    default: if session.isOperators { return Refusal(.invalid, "an operator's session is for a new password only") }
    }
    guard let wait = rates.take(session.account, at: now) else { return nil }
    return Refusal(.limit, "too many requests a second", retryAfter: UInt32(clamping: wait.milliseconds))
  }

  /// What came from this peer could not be understood; it gets no further.
  public mutating func onMalformed(from peer: PeerID, into actions: inout [MasterAction]) {
    close(peer, into: &actions) { .sessionLost($0) }
  }

  /// A reply could not be delivered: the peer is gone.
  public mutating func onUnreachable(_ peer: PeerID, into actions: inout [MasterAction]) {
    close(peer, into: &actions) { .sessionLost($0) }
  }

  /// Whether a subscription to a topic counts: a session watches a timeline under it, and it is the subscriber's own.
  public func mayHear(_ topic: Topic, _ peer: Standing) -> Bool {
    switch peer {
    case .unproved: return isWatched(topic)
    case .client(let key): return hearers[Hearer(key: key, topic: topic)] != nil
    case .member: return false
    }
  }

  /// Whether this client has a session here.
  public func hasSession(of client: ClientID) -> Bool { peersByClient[client] != nil }

  /// Whether some session watches a timeline under this topic.
  public func isWatched(_ topic: Topic) -> Bool { watches.position(of: topic) != nil }

  private mutating func noteHearer(_ key: PeerKey?, of topic: Topic, _ change: Int) {
    guard let key else { return }
    let hearer = Hearer(key: key, topic: topic)
    let count = hearers[hearer, default: 0] + change
    hearers[hearer] = count == 0 ? nil : count
  }

  /// A topic's subscribers can't be relied on: nothing is published on it from now on. Whoever watches it begins anew.
  public mutating func abandon(_ topics: Set<Topic>, into actions: inout [MasterAction]) {
    let watchers = sessions.filter { !topics.isDisjoint(with: $0.value.topics) }
    for peer in watchers.keys.sorted() {
      reply(.goodbye, 0, peer, into: &actions)
      closeQuietly(peer)
    }
  }

  /// Somebody subscribed to a topic: it learns the topic's next number.
  public mutating func onSubscribed(_ topic: Topic, into actions: inout [MasterAction]) {
    if let position = watches.position(of: topic) { actions.append(.mark(position)) }
  }

  private mutating func enqueue(
    _ work: Waiting.Work, _ number: UInt64, _ peer: PeerID, _ session: Session, into actions: inout [MasterAction]
  ) {
    guard case .serving = phase else {
      refuse(number, peer, .unavailable, "not serving", into: &actions)
      return
    }
    guard number > 0 else {
      refuse(number, peer, .invalid, "requests are numbered from 1", into: &actions)
      return
    }
    guard requestsWaiting < Limits.requestsWaiting else {
      refuse(number, peer, .limit, "too many requests are waiting", retryAfter: 100, into: &actions)
      return
    }
    guard beginRequest(number, of: peer, into: &actions) else { return }
    // The answer to a logout ends the session: it goes alone.
    var takesDoneEach = session.takesDoneEach
    if case .logout = work { takesDoneEach = false }
    waiting.append(
      Waiting(
        peer: peer, takesDoneEach: takesDoneEach, number: number, client: session.client, account: session.account,
        work: work))
    gathering.onRequest(from: peer)
  }

  /// Counts a request that can't be answered at once; refuses it if its connection has too many of them.
  mutating func beginRequest(_ number: UInt64, of peer: PeerID, into actions: inout [MasterAction]) -> Bool {
    guard let place = inFlight.index(forKey: peer) else {
      inFlight[peer] = InFlight(count: 1)
      return true
    }
    guard inFlight.values[place].count < limits.requestsInFlight else {
      refuse(number, peer, .limit, "too many requests under way in this session", retryAfter: 50, into: &actions)
      return false
    }
    inFlight.values[place].count += 1
    return true
  }

  mutating func endRequest(of peer: PeerID) {
    endRequest(at: placeInFlight(of: peer))
  }

  private func placeInFlight(of peer: PeerID) -> [PeerID: InFlight].Index {
    guard let place = inFlight.index(forKey: peer) else {
      preconditionFailure("an answer to a request that is not under way")
    }
    return place
  }

  private mutating func endRequest(at place: [PeerID: InFlight].Index) {
    if inFlight.values[place].count == 1 { inFlight.remove(at: place) } else { inFlight.values[place].count -= 1 }
  }

  private func list(
    _ query: ListQuery, _ number: UInt64, _ peer: PeerID, _ session: Session, into actions: inout [MasterAction]
  ) {
    let limit = pageSize(query.limit, max: Limits.pageNames)
    let offset = Int(query.offset)
    let page: ArraySlice<String>
    let total: Int
    switch query.kind {
    case .users:
      total = state.names.count
      page = state.names.dropFirst(offset).prefix(limit)
    case .followers, .following:
      let accounts =
        query.kind == .followers
        ? state.graph.followers(of: session.account) : state.graph.following(of: session.account)
      total = accounts.count
      page = ArraySlice(accounts.dropFirst(offset).prefix(limit).map(state.name))
    }
    reply(
      .names(NamesPage(names: Array(page), more: offset + page.count < total)), number, peer, into: &actions)
  }

  private func pageSize(_ wanted: UInt32, max limit: Int) -> Int {
    wanted == 0 ? limit : min(Int(wanted), limit)
  }

  private func key(of name: TimelineName, for session: Session) -> TimelineKey? {
    switch name {
    case .home: return .home(session.account)
    case .author(let name): return state.account(named: name).map { .author($0) }
    }
  }

  private mutating func timeline(
    _ query: TimelineQuery, _ number: UInt64, _ peer: PeerID, _ session: Session, into actions: inout [MasterAction]
  ) {
    guard let key = key(of: query.timeline, for: session) else {
      refuse(number, peer, .unknownUser, "there is no user of that name", into: &actions)
      return
    }
    let limit = pageSize(query.limit, max: Limits.pagePosts)
    switch state.page(of: key, range: query.range, limit: limit) {
    case .page(let page):
      reply(.page(page), number, peer, into: &actions)
    case .ask(let logQuery, let upTo, let more):
      guard reads.count < Limits.readsWaiting else {
        refuse(number, peer, .limit, "too many reads are waiting", retryAfter: 100, into: &actions)
        return
      }
      guard beginRequest(number, of: peer, into: &actions) else { return }
      lastRead += 1
      var isForward = false
      if case .after = query.range { isForward = true }
      reads[ReadID(lastRead)] = PendingRead(
        peer: peer, number: number, upTo: upTo, more: more, limit: limit, isForward: isForward)
      actions.append(.read(ReadID(lastRead), logQuery))
    }
  }

  /// Older posts were read. `more`: there are more in the direction asked for.
  public mutating func onRead(
    _ id: ReadID, _ outcome: ReadOutcome<[StoredPost]>, more: Bool, into actions: inout [MasterAction]
  ) {
    guard let read = reads.removeValue(forKey: id) else { return }
    endRequest(of: read.peer)
    switch outcome {
    case .failed(let reason): reply(.refused(.unreadable(reason)), read.number, read.peer, into: &actions)
    case .read(let posts):
      let more = more || read.more
      let upTo = read.isForward && more ? posts.last?.id ?? read.upTo : read.upTo
      reply(.page(state.page(posts, upTo: upTo, more: more)), read.number, read.peer, into: &actions)
    }
  }

  private mutating func watch(
    _ name: TimelineName, _ number: UInt64, _ peer: PeerID, _ session: Session, into actions: inout [MasterAction]
  ) {
    guard let key = key(of: name, for: session) else {
      refuse(number, peer, .unknownUser, "there is no user of that name", into: &actions)
      return
    }
    if let topic = watches.topic(of: key), session.topics.contains(topic) {
      reply(.watching(watches.position(of: topic)!), number, peer, into: &actions)
      return
    }
    guard session.topics.count < limits.topicsPerSession else {
      refuse(number, peer, .limit, "this session watches too many timelines", into: &actions)
      return
    }
    let fresh = Topic(high: random.next(), low: random.next())
    let watching = watches.watch(key, authors: state.authors(of: key), freshTopic: fresh)
    sessions[peer]!.topics.append(watching.topic)
    noteHearer(session.key, of: watching.topic, 1)
    reply(.watching(watching), number, peer, into: &actions)
  }

  // MARK: Sessions' ends

  private mutating func closeSilentSessions(at now: Instant, into actions: inout [MasterAction]) {
    let silent = sessions.filter { $0.value.lastHeard + Limits.sessionSilence < now }
    for peer in silent.keys.sorted() { close(peer, into: &actions) { .sessionLost($0) } }
  }

  private mutating func close(
    _ peer: PeerID, into actions: inout [MasterAction], _ note: (String) -> MasterNote
  ) {
    guard let session = sessions[peer] else { return }
    actions.append(.note(note(state.name(of: session.account))))
    closeQuietly(peer)
  }

  mutating func closeQuietly(_ peer: PeerID) {
    guard let session = sessions.removeValue(forKey: peer) else { return }
    if peersByClient[session.client] == peer { peersByClient[session.client] = nil }
    gathering.forget(peer)
    let left = sessionsByAccount[session.account, default: 1] - 1
    sessionsByAccount[session.account] = left == 0 ? nil : left
    for topic in session.topics {
      watches.unwatch(topic)
      noteHearer(session.key, of: topic, -1)
    }
  }

  /// Sends every client to the router. Their unanswered requests are repeated where they go.
  private mutating func sayGoodbyeToAll(into actions: inout [MasterAction]) {
    for peer in sessions.keys.sorted() {
      actions.append(.reply(Reply(number: 0, body: .goodbye), to: peer))
      closeQuietly(peer)
    }
  }

  // MARK: Commits

  /// How many requests wait for the log, ordered or not.
  var requestsWaiting: Int { waiting.count + requestsUnderWay }

  /// The end of a turn: all that waits goes to the log, unless it is to wait for others (`Gathering`).
  ///
  /// It may have commits to do already: those that it has not begun become one (`AppendQueue`), so that the disk is never idle between
  /// them. There are never more than two full ones. Nothing is begun that would come too late for sure, because
  /// others' events are known to be in the log.
  public mutating func flush(at now: Instant, wall: Timestamp, into actions: inout [MasterAction]) {
    order(at: now, wall: wall, into: &actions)
    lookUp(into: &actions)
  }

  private mutating func order(at now: Instant, wall: Timestamp, into actions: inout [MasterAction]) {
    guard case .serving = phase, !waiting.isEmpty, state.head >= wanted || !isCatchingUp else { return }
    if let first = commits.first {
      guard first.after == state.head else { return }
    } else {
      timers[.gathering] = gathering.wait(with: waiting.count, at: now)
      guard timers[.gathering] == nil else { return }
      ahead = Ahead(state)
    }
    while !waiting.isEmpty {
      let room = min(Limits.appendEvents, 2 * Limits.batchEvents - Int(ahead.head.rawValue - state.head.rawValue))
      let after = ahead.head
      // Moved there and back: a copy's tables would be copied at the first change.
      var batch = Batch(state: state, ahead: exchange(&ahead, with: Ahead(state)), wall: wall)
      while let request = waiting.first, batch.events.count + request.work.eventsMax <= room {
        waiting.removeFirst()
        if let answer = batch.add(request) { finish(request, answer, at: now, into: &actions) }
      }
      ahead = batch.ahead
      requestsUnderWay += batch.waiting.count
      if !batch.events.isEmpty {
        commits.append(Commit(events: batch.events, waiting: batch.waiting, after: after, since: now))
        actions.append(.append(Append(events: batch.events, after: after, series: series)))
      } else {
        // They rest on what is under way.
        if !batch.waiting.isEmpty { commits[commits.count - 1].waiting += batch.waiting }
        if !waiting.isEmpty { return }
      }
    }
  }

  /// Whether the log has been asked for one commit, and for nothing else.
  public var awaitsOneCommit: Bool { commits.count == 1 && !isCatchingUp }

  /// Whether it has been asked for one commit, in which there are requests of nearly all who are at work: hardly anybody will ask for anything
  /// before it ends.
  public var allAwaitOneCommit: Bool { awaitsOneCommit && gathering.nearlyAllAreBack }

  /// Has a repeat that was counted wait for a look-up, unless too many do. They are not counted among those that wait for commits: a log that
  /// is slow to read refuses no post.
  mutating func addRepeat(_ known: Repeat, into actions: inout [MasterAction]) {
    guard repeats.count < Limits.repeatsWaiting else {
      endRequest(of: known.peer)
      refuse(
        known.request.number, known.peer, .limit, "too many requests are waiting", retryAfter: 100, into: &actions)
      return
    }
    repeats.append(known)
  }

  /// Repeats that wait are looked up together: one reading of the log's newest part serves all that came while it was done. What has left its
  /// client's window while it waited is not asked for: the log may have let go of it.
  private mutating func lookUp(into actions: inout [MasterAction]) {
    while repeatsUnderWay == 0, !repeats.isEmpty {
      let next = repeats.prefix(Limits.readEvents)
      repeats.removeFirst(next.count)
      var asked: [Repeat] = []
      var firstEvents: [RequestID: EventID] = [:]
      for known in next {
        if state.requests.outcome(of: known.request) == .doneEarlier,
          let window = state.requests[known.request.client]
        {
          asked.append(known)
          firstEvents[known.request] = window.firstEvent
        } else {
          endRequest(of: known.peer)
          reply(.refused(.tooOld(known.request.number)), known.request.number, known.peer, into: &actions)
        }
      }
      guard !asked.isEmpty else { continue }
      repeats.insert(contentsOf: asked, at: 0)
      repeatsUnderWay = asked.count
      actions.append(.lookUp(firstEvents, upTo: state.head))
    }
  }

  /// The log was asked as which events requests took effect. What it does not tell has left the client's window meanwhile: a master that has
  /// got further than this one has let go of it in the derived tables.
  public mutating func onLookUp(_ outcome: ReadOutcome<[RequestID: EventID]>, into actions: inout [MasterAction]) {
    // When the server was told to stop, they were answered.
    let asked = repeats.prefix(repeatsUnderWay)
    repeats.removeFirst(repeatsUnderWay)
    repeatsUnderWay = 0
    for known in asked {
      endRequest(of: known.peer)
      switch outcome {
      case .failed(let reason): reply(.refused(.unreadable(reason)), known.request.number, known.peer, into: &actions)
      case .read(let events):
        if let event = events[known.request] {
          acknowledge(known, as: event, into: &actions)
        } else {
          reply(.refused(.tooOld(known.request.number)), known.request.number, known.peer, into: &actions)
        }
      }
    }
  }

  /// What became of the oldest commits under way, `count` of them. What has come meanwhile goes to the log at once (or waits, `Gathering`), before anybody is
  /// told of anything, so that the disk does not wait for the loop.
  public mutating func onCommit(
    _ outcome: CommitOutcome, of count: Int = 1, at now: Instant, wall: Timestamp, into actions: inout [MasterAction]
  ) {
    precondition(count > 0 && count <= commits.count, "a commit ended that was not begun")
    let done = Array(commits.prefix(count))
    commits.removeFirst(count)
    for commit in done { requestsUnderWay -= commit.waiting.count }
    if !commits.isEmpty { commits[0].since = now }
    if now - done[0].since >= timing.liveness {
      // Router and slave have heard that it takes long: the slave kills whose commit takes too long, and its next beat is a second away.
      nextSupervisionBeat = now
      sendBeats(at: now, into: &actions)
    }
    switch outcome {
    case .appended:
      noteStorageWorks(into: &actions)
      // Acknowledge, tell the masters (unless that is held back), push: in this order. The events may have been applied already, when another
      // master's later commit made us read the log.
      var pushes: [MasterAction] = []
      for commit in done {
        apply(commit.events, into: &pushes)
        for event in commit.events { ahead.remove(event) }
      }
      if commits.isEmpty { gather(behind: done, at: now) }
      flush(at: now, wall: wall, into: &actions)
      answer(done, at: now, into: &actions)
      for commit in done { tellMasters(of: commit.events, at: now, into: &actions) }
      actions.append(contentsOf: pushes)
    case .behind(let events):
      apply(events, into: &actions)
      giveUp(done.flatMap { $0.waiting.map(\.request) })
    case .failed(let reason):
      noteStorageFailure(reason, into: &actions)
      let refusal = Refusal(.storage, "the log can't take it now: \(reason)", retryAfter: 1_000)
      var others: [Waiting] = []
      for (request, answer) in done.flatMap(\.waiting) {
        if case .done(let id) = answer, id > done[0].after {
          finish(request, .refused(refusal), at: now, into: &actions)
        } else {
          // It may rest on an earlier commit, which is durable.
          others.append(request)
        }
      }
      giveUp(others)
    }
    if case .stopping = phase {
      for request in waiting { refuseToServe(request.number, request.peer, into: &actions) }
      waiting.removeAll()
      finishStoppingIfDone(at: now, into: &actions)
    }
  }

  /// All that the log still has comes to nothing. These requests and those of what it has are validated again, against what is in the log
  /// then, and before everything that came later.
  private mutating func giveUp(_ requests: [Waiting]) {
    waiting.prepend(contentsOf: requests + commits.flatMap { $0.waiting.map(\.request) })
    commits.removeAll()
    requestsUnderWay = 0
    series += 1
  }

  private mutating func tellMasters(of events: [Event], at now: Instant, into actions: inout [MasterAction]) {
    // Alone: whoever comes reads the log first, and whom the router has forgotten for a moment looks there within a second.
    guard roster?.members.allSatisfy({ $0.master == master }) != true else { return }
    if let last = untold.last, last.id.next != events[0].id || untold.count + events.count > Limits.batchEvents {
      broadcast(at: now, into: &actions)
    }
    untold += events
    let next = lastBroadcast + Self.broadcastPause
    if assignment == .available, now < next { timers[.broadcast] = next } else { broadcast(at: now, into: &actions) }
  }

  private mutating func broadcast(at now: Instant, into actions: inout [MasterAction]) {
    timers[.broadcast] = nil
    guard !untold.isEmpty else { return }
    lastBroadcast = now
    actions.append(.broadcast(untold))
    untold = []
  }

  /// The next commit may wait for those whom these answer. Not where others append to the log, too: whoever waits loses his turn there.
  private mutating func gather(behind done: [Commit], at now: Instant) {
    guard assignment == .available else { return }
    let count = done.reduce(0) { $0 + $1.waiting.count }
    guard gathering.begin(answering: count, after: now - done[0].since, at: now) else { return }
    for commit in done {
      let waiting = commit.waiting.span
      for index in waiting.indices { gathering.add(waiting[index].request.peer) }
    }
  }

  /// Answers those who waited for these commits, in order: who takes `doneEach` gets all of a connection's acknowledgements where its first
  /// one would have been.
  private mutating func answer(_ commits: [Commit], at now: Instant, into actions: inout [MasterAction]) {
    var groups: [Together] = []
    for commit in commits {
      // Requests are lent, not copied.
      let waiting = commit.waiting.span
      for index in waiting.indices {
        if waiting[index].request.takesDoneEach, case .done(let event) = waiting[index].answer {
          let done = Done(number: waiting[index].request.number, event: event)
          acknowledge(done, to: waiting[index].request.peer, in: &groups, into: &actions)
        } else {
          finish(waiting[index].request, waiting[index].answer, at: now, into: &actions)
        }
      }
    }
    for group in groups where !group.all.isEmpty {
      actions[group.place] = .reply(Reply(number: 0, body: .doneEach(group.all)), to: group.peer)
    }
  }

  /// Puts an acknowledgement into its connection's group, or begins one: then it is an answer of its own as yet.
  private mutating func acknowledge(
    _ done: Done, to peer: PeerID, in groups: inout [Together], into actions: inout [MasterAction]
  ) {
    let place = placeInFlight(of: peer)
    let begunBefore = groupsBegun - UInt64(groups.count)
    let group = inFlight.values[place].group
    if group > begunBefore {
      groups[Int(group - begunBefore) - 1].add(done, ofAtMost: inFlight.values[place].count + 1)
    } else {
      groupsBegun += 1
      inFlight.values[place].group = groupsBegun
      groups.append(Together(place: actions.count, peer: peer, first: done))
      reply(.done(done.event), done.number, peer, into: &actions)
    }
    endRequest(at: place)
  }

  /// Answers a request that needed the log.
  private mutating func finish(
    _ request: Waiting, _ answer: Batch.Answer, at now: Instant, into actions: inout [MasterAction]
  ) {
    if case .register(let login, _) = request.work {
      finishRegistration(login, answer, at: now, into: &actions)
      return
    }
    if case .lookUp = answer {
      addRepeat(Repeat(request), into: &actions)
      return
    }
    endRequest(of: request.peer)
    switch answer {
    case .done(let id): acknowledge(Repeat(request), as: id, into: &actions)
    case .refused(let refusal): reply(.refused(refusal), request.number, request.peer, into: &actions)
    case .exists, .lookUp: preconditionFailure("only a registration is answered by an account")
    }
  }

  private mutating func acknowledge(_ done: Repeat, as event: EventID, into actions: inout [MasterAction]) {
    reply(.done(event), done.request.number, done.peer, into: &actions)
    if done.isLogout, sessions[done.peer]?.client == done.request.client {
      close(done.peer, into: &actions) { .loggedOut($0) }
    }
  }

  private mutating func refuseToServe(_ number: UInt64, _ peer: PeerID, into actions: inout [MasterAction]) {
    endRequest(of: peer)
    refuse(number, peer, .unavailable, "the server stops", into: &actions)
  }

  private mutating func noteStorageFailure(_ reason: String, into actions: inout [MasterAction]) {
    if !storageFails { actions.append(.note(.storageFailed(reason))) }
    storageFails = true
  }

  private mutating func noteStorageWorks(into actions: inout [MasterAction]) {
    if storageFails { actions.append(.note(.storageWorksAgain)) }
    storageFails = false
  }

  // MARK: Answers

  func reply(_ body: Reply.Body, _ number: UInt64, _ peer: PeerID, into actions: inout [MasterAction]) {
    actions.append(.reply(Reply(number: number, body: body), to: peer))
  }

  func refuse(
    _ number: UInt64, _ peer: PeerID, _ code: Refusal.Code, _ message: String, retryAfter: UInt32 = 0,
    into actions: inout [MasterAction]
  ) {
    reply(.refused(Refusal(code, message, retryAfter: retryAfter)), number, peer, into: &actions)
  }
}

extension MasterCore.Repeat {
  init(_ request: MasterCore.Waiting) {
    self.init(peer: request.peer, request: RequestID(client: request.client, number: request.number))
    if case .logout = request.work { isLogout = true }
  }
}

extension Refusal {
  /// Of a request below the client's window.
  static func tooOld(_ number: UInt64) -> Refusal {
    Refusal(.tooOld, "request \(number) is too old to tell whether it took effect")
  }

  static func unreadable(_ reason: String) -> Refusal {
    Refusal(.storage, "the log can't be read: \(reason)", retryAfter: 1_000)
  }
}

/// A name from outside as it may stand in a message: shortened, and without control characters.
func quoted(_ name: String) -> String {
  let shown = name.unicodeScalars.prefix(Limits.nameBytes).map { scalar -> Character in
    scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format
      ? "\u{FFFD}" : Character(scalar)
  }
  return "'\(String(shown))'"
}
