// One thread with the sockets of any number of sessions: the shell of the client core.

import CSpawn
public import Core
import HeapModule
public import Model
import Runtime
import Wire
import ZeroMQ

/// Runs sessions. A program needs one, for one session or for thousands.
///
/// `@unchecked Sendable`: what other threads use is the mailbox; all else belongs to the loop's thread.
public final class ClientLoop: @unchecked Sendable {
  typealias Job = @Sendable (LoopState) -> Void

  private let bell: Int32
  private let jobs: Mailbox<Job>
  private let thread: WorkerThread

  /// Starts the thread.
  ///
  /// - Parameter sessions: how many sessions there will be, more or less.
  public init(sessions: Int = 16) throws(ClientError) {
    _ = tinysns_set_limit_nofile_max()
    let bell = tinysns_eventfd()
    guard bell >= 0 else { throw .failed("no event descriptor") }
    self.bell = bell
    let jobs = Mailbox<Job>(bell: bell)
    self.jobs = jobs
    thread = WorkerThread {
      let state = LoopState(ContextPool(sessions: sessions))
      state.run(jobs, bell)
    }
  }

  deinit { close() }

  /// Ends the thread; sessions still open are dropped without a word.
  public func close() { jobs.close() }

  func perform(_ job: @escaping Job) { jobs.put(job) }
}

/// A libzmq context, for the sockets of some sessions.
final class ContextShare {
  let context: Context
  var sessions = 0
  init(_ context: consuming Context) { self.context = context }
}

/// The libzmq contexts of a loop. Whenever a socket is closed, libzmq searches all names of its context for those of that socket, and
/// each monitor has a name: with thousands of sessions in one context, a failover of all of them would take seconds for that alone.
/// So there is one for each few sessions.
struct ContextPool {
  private static let sessionsMax = 256

  private let sessionsEach: Int
  private let maxSockets: Int
  private var shares: [ContextShare] = []

  /// - Parameter sessions: how many are expected; there may be more.
  init(sessions: Int) {
    sessionsEach = min(max(sessions, 16), Self.sessionsMax)
    // A session has two sockets to its master, two that watch the connection, and a share of three for the router. Twice as many,
    // for closed ones are gone a moment later.
    maxSockets = 64 + sessionsEach * 14
  }

  /// The context for one more session.
  mutating func share() throws(ZMQError) -> ContextShare {
    let free = shares.first { $0.sessions < sessionsEach }
    if free == nil { shares.append(ContextShare(try Context(maxSockets: maxSockets))) }
    let share = free ?? shares[shares.count - 1]
    share.sessions += 1
    return share
  }
}

/// How a session talks to the program. Called on the loop's thread; must not block it.
public struct SessionHandlers: Sendable {
  public var note: @Sendable (ClientNote) -> Void
  /// A token for later logins.
  public var keep: @Sendable (SessionToken) -> Void

  public init(
    note: @escaping @Sendable (ClientNote) -> Void = { _ in },
    keep: @escaping @Sendable (SessionToken) -> Void = { _ in }
  ) {
    self.note = note
    self.keep = keep
  }
}

/// What the loop's thread owns.
final class LoopState {
  final class Session {
    var core: ClientCore
    let router: String
    /// What the cluster has to prove; nil: nothing, and nothing is encrypted.
    let serverKey: ServerKey?
    /// What the router of the last question had to prove, and so the master that it names.
    var clusterKey: CurveKey?
    /// This session's own, on its connections to masters.
    var keys: CurveKeypair?
    let handlers: SessionHandlers
    var actions: [ClientAction] = []
    var finishes: [ClientToken: (ClientOutcome) -> Void] = [:]
    var shows: [ClientToken: ([Post]) -> Void] = [:]
    var lastToken: UInt64 = 0
    /// Its share of a connection to the router, while an answer of the router is awaited.
    var routerLink: RouterLink?
    /// The number of its question there.
    var routerNumber: UInt64 = 0
    /// It has been told that the router does not prove its key, or refuses the connection.
    var isWarned = false
    /// Where its sockets are.
    var context: ContextShare?
    /// Its connections to a master.
    var master: MasterLink?
    /// The earliest entry of this session in the heap of wake-ups.
    var queuedWake = Instant.distantFuture

    init(core: ClientCore, router: String, serverKey: ServerKey?, handlers: SessionHandlers) {
      self.core = core
      self.router = router
      self.serverKey = serverKey
      self.handlers = handlers
    }

    func makeToken() -> ClientToken {
      lastToken += 1
      return ClientToken(lastToken)
    }
  }

  /// A connection to a router, for the sessions of this loop that ask it at the same time: when a master dies, all do.
  final class RouterLink {
    /// Fewer than a router queues for one client.
    static let sessionsMax = 256
    /// A router that dies in the middle of a handshake is no impostor; one that fails so many is.
    static let failedHandshakesMax = 4

    let id: Int
    let endpoint: String
    /// What the router has to prove; nil: nothing.
    let key: CurveKey?
    let socket: SocketBox
    /// Tells of handshakes that fail, if anything is to be proved.
    let monitor: MonitorBox?
    /// Since the last answer.
    var failedHandshakes = 0
    /// Those that failed only after the router had proved its key.
    var refusedHandshakes = 0
    /// How many sessions have it.
    var sessions = 0
    /// Whose questions are unanswered, and their numbers there, by their numbers here.
    var questions: [UInt64: (session: Int, number: UInt64)] = [:]
    var lastNumber: UInt64 = 0

    init(id: Int, endpoint: String, key: CurveKey?, socket: SocketBox, monitor: MonitorBox?) {
      self.id = id
      self.endpoint = endpoint
      self.key = key
      self.socket = socket
      self.monitor = monitor
    }
  }

  final class MonitorBox {
    let monitor: Monitor
    init(_ monitor: consuming Monitor) { self.monitor = monitor }
  }

  private enum Kind: Int { case requests, monitor, updates }

  private struct Wake: Comparable {
    var at: Instant
    var session: Int
    static func < (left: Wake, right: Wake) -> Bool { (left.at, left.session) < (right.at, right.session) }
  }

  private static let bellToken = -1
  /// Links have two tokens each, this one and lower ones: for their sockets and for their monitors.
  private static let linkToken = -2
  private static let messagesPerTurn = 1_000

  private var contexts: ContextPool
  private var poller: EpollPoller
  private var sessions: [Int: Session] = [:]
  private var nextSession = 0
  private var links: [Int: RouterLink] = [:]
  private var nextLink = 0
  private var wakes = Heap<Wake>()
  private var message = Message()
  /// An update: header and body.
  private var frames = Multipart(maxFrames: 2)
  private var ready: [Ready] = []

  init(_ contexts: ContextPool) {
    self.contexts = contexts
    do { poller = try EpollPoller() } catch { fatalError("no epoll descriptor: \(error)") }
  }

  func run(_ jobs: Mailbox<ClientLoop.Job>, _ bell: Int32) {
    defer { _ = tinysns_eventfd_clear(bell) }
    do {
      try poller.add(fileDescriptor: bell, token: Self.bellToken, interest: .readable)
      while !jobs.isFinished {
        let pause = wakes.min.map { max(0, ($0.at - Clock.now()).nanoseconds) }
        try poller.wait(nanoseconds: pause, into: &ready)
        turn(jobs, bell)
      }
    } catch {
      // libzmq can't go on: nothing can be told to anyone but the callers who wait.
      for session in sessions.values { for finish in session.finishes.values { finish(.closed) } }
    }
  }

  private func turn(_ jobs: Mailbox<ClientLoop.Job>, _ bell: Int32) {
    let now = Clock.now()
    while let wake = wakes.min, wake.at <= now {
      wakes.removeMin()
      guard let session = sessions[wake.session] else { continue }
      if session.queuedWake == wake.at { session.queuedWake = .distantFuture }
      // With thousands of sessions this thread may be late itself. Silent is only who has sent nothing until now.
      receive(.requests, wake.session, session, at: now)
      if let link = session.routerLink { receive(from: link, at: now) }
      session.core.onTimers(at: now, into: &session.actions)
      settle(wake.session, session)
    }
    for item in ready {
      if item.token == Self.bellToken {
        _ = tinysns_eventfd_clear(bell)
        for job in jobs.takeNow() { job(self) }
        continue
      }
      if item.token <= Self.linkToken {
        let (id, what) = (Self.linkToken - item.token).quotientAndRemainder(dividingBy: 2)
        guard let link = links[id] else { continue }
        if what == 0 { receive(from: link, at: now) } else { watch(link) }
        continue
      }
      let id = item.token / 4
      guard let session = sessions[id], let kind = Kind(rawValue: item.token % 4) else { continue }
      receive(kind, id, session, at: now)
      settle(id, session)
    }
  }

  // MARK: Sessions

  func open(_ core: ClientCore, router: String, serverKey: ServerKey?, handlers: SessionHandlers) -> Int {
    let id = nextSession
    nextSession += 1
    let session = Session(core: core, router: router, serverKey: serverKey, handlers: handlers)
    sessions[id] = session
    session.core.start(at: Clock.now(), into: &session.actions)
    settle(id, session)
    return id
  }

  func session(_ id: Int) -> Session? { sessions[id] }

  /// Carries out what a session wants, and notes when it wants to be woken.
  func settle(_ id: Int, _ session: Session) {
    while !session.actions.isEmpty {
      let actions = session.actions
      session.actions.removeAll(keepingCapacity: true)
      for action in actions { carryOut(action, id, session) }
    }
    if let wake = session.core.nextWake, wake < session.queuedWake {
      session.queuedWake = wake
      wakes.insert(Wake(at: wake, session: id))
    }
  }

  func close(_ id: Int) {
    guard let session = sessions[id] else { return }
    session.core.close(into: &session.actions)
    settle(id, session)
    dropRouter(session)
    session.context?.sessions -= 1
    sessions[id] = nil
  }

  // MARK: What arrives

  private func receive(_ kind: Kind, _ id: Int, _ session: Session, at now: Instant) {
    // What can't be decoded is dropped: a server that is newer or broken must not crash its clients.
    do throws(ZMQError) {
      for _ in 0..<Self.messagesPerTurn {
        switch kind {
        case .requests:
          guard try session.master?.receiveReply(into: &message) == true else { return }
          let reply = message.withBytes { bytes in try? Wire.decodeReply(bytes) }
          if let reply { session.core.onReply(reply, at: now, into: &session.actions) }
        case .updates:
          guard try session.master?.receiveUpdate(into: &frames) == true else { return }
          guard frames.count == 2, !frames[1].hasMore else { continue }
          let update = frames[0].withBytes { header in
            frames[1].withBytes { body in try? Wire.decodeUpdate(header: header, body: body) }
          }
          if let update { session.core.onUpdate(update, at: now, into: &session.actions) }
        case .monitor:
          guard try session.master?.findLoss() == true else { return }
          // What came before the end comes first: acknowledgements, or a Goodbye.
          receive(.requests, id, session, at: now)
          session.core.onDisconnected(at: now, into: &session.actions)
        }
        if session.actions.count > 256 { settle(id, session) }
      }
    } catch {
      session.core.onDisconnected(at: now, into: &session.actions)
    }
  }

  private func receive(from link: RouterLink, at now: Instant) {
    for _ in 0..<Self.messagesPerTurn {
      guard (try? link.socket.socket.receive(into: &message)) == .received else { return }
      link.failedHandshakes = 0
      link.refusedHandshakes = 0
      guard var reply = message.withBytes({ bytes in try? Wire.decodeRouterReply(bytes) }),
        let number = reply.number, let question = link.questions.removeValue(forKey: number),
        let session = sessions[question.session]
      else { continue }
      reply.number = question.number
      session.isWarned = false
      session.core.onRouter(reply, at: now, into: &session.actions)
      settle(question.session, session)
      if session.core.isServing { dropRouter(session) }
    }
  }

  /// Counts a link's failed handshakes. Whoever waits there is told of an impostor, or that there is no room; but not if the key has
  /// changed meanwhile: the next question goes to a link with the new one.
  private func watch(_ link: RouterLink) {
    while let event = try? link.monitor?.monitor.next() {
      switch event.kind {
      case .handshakeFailedNoDetail, .handshakeFailedProtocol: link.failedHandshakes += 1
      case .handshakeFailedAuthentication: link.refusedHandshakes += 1
      default: break
      }
    }
    let isImpostor = link.failedHandshakes >= RouterLink.failedHandshakesMax
    guard isImpostor || link.refusedHandshakes >= RouterLink.failedHandshakesMax else { return }
    for question in link.questions.values {
      guard let session = sessions[question.session], !session.isWarned,
        session.serverKey?.current() == link.key
      else { continue }
      session.isWarned = true
      session.handlers.note(isImpostor ? .routerNotProved : .tooManyConnections)
    }
  }

  // MARK: What is to be done

  private func carryOut(_ action: ClientAction, _ id: Int, _ session: Session) {
    do throws(ZMQError) {
      switch action {
      case .toRouter(let request):
        guard case .locate(var locate) = request, let link = try connectRouter(session) else { return }
        // A question asked again keeps its number.
        if link.questions[session.routerNumber]?.number != locate.number {
          link.questions[session.routerNumber] = nil
          link.lastNumber += 1
          link.questions[link.lastNumber] = (id, locate.number)
          session.routerNumber = link.lastNumber
        }
        locate.number = session.routerNumber
        _ = try link.socket.socket.send(Wire.encode(RouterRequest.locate(locate)))
      case .connect(let contact):
        dropRouter(session)
        leaveMaster(id, session)
        try connect(contact, id, session)
      case .disconnect: leaveMaster(id, session)
      case .send(let request): try session.master?.send(request)
      case .subscribe(let topic): try session.master?.subscribe(topic)
      case .unsubscribe(let topic): try session.master?.unsubscribe(topic)
      case .finish(let token, let outcome):
        session.shows[token] = nil
        session.finishes.removeValue(forKey: token)?(outcome)
      case .show(let token, let posts): session.shows[token]?(posts)
      case .keep(let token): session.handlers.keep(token)
      case .note(let note): session.handlers.note(note)
      }
    } catch {
      session.core.onDisconnected(at: Clock.now(), into: &session.actions)
    }
  }

  private func context(of session: Session) throws(ZMQError) -> ContextShare {
    if let context = session.context { return context }
    let context = try contexts.share()
    session.context = context
    return context
  }

  /// The session's share of a connection to its router. Each question looks anew what the router has to prove, for that may have
  /// changed; nil as long as it is not known: the core will ask again.
  private func connectRouter(_ session: Session) throws(ZMQError) -> RouterLink? {
    let key = session.serverKey?.current()
    if session.serverKey != nil, key == nil { return nil }
    if let link = session.routerLink {
      if link.key == key { return link }
      dropRouter(session)
    }
    let shared = links.values.first {
      $0.endpoint == session.router && $0.key == key && $0.sessions < RouterLink.sessionsMax
    }
    let link = if let shared { shared } else { try makeRouterLink(session.router, key, in: context(of: session)) }
    link.sessions += 1
    session.routerLink = link
    session.routerNumber = 0
    session.clusterKey = key
    return link
  }

  /// A link has a keypair of its own: it is no session's.
  private func makeRouterLink(
    _ endpoint: String, _ key: CurveKey?, in context: ContextShare
  ) throws(ZMQError) -> RouterLink {
    let socket = try context.context.makeSocket(.dealer)
    // While the router is away, questions are asked again and again; the newest are those that count, and they come again.
    try socket.set(
      .sendHighWaterMark(RouterLink.sessionsMax * 2), .maxMessageSize(Limits.messageBytes),
      .reconnect(every: .milliseconds(20), atMost: .milliseconds(200)))
    if endpoint.contains("[") { try socket.set(.ipv6(true)) }
    var monitor: MonitorBox?
    if let key {
      try socket.set(.curveClient(serverKey: key, keys: .generate()))
      monitor = MonitorBox(try socket.makeMonitor(of: .failedHandshakes))
    }
    try socket.connect(endpoint)
    let link = RouterLink(id: nextLink, endpoint: endpoint, key: key, socket: SocketBox(socket), monitor: monitor)
    let token = Self.linkToken - link.id * 2
    try poller.add(link.socket.socket, token: token, interest: .readable)
    if let monitor { try poller.add(monitor.monitor.socket, token: token - 1, interest: .readable) }
    nextLink += 1
    links[link.id] = link
    return link
  }

  private func dropRouter(_ session: Session) {
    guard let link = session.routerLink else { return }
    session.routerLink = nil
    link.questions[session.routerNumber] = nil
    link.sessions -= 1
    guard link.sessions == 0 else { return }
    for token in [Self.linkToken - link.id * 2, Self.linkToken - link.id * 2 - 1] { poller.remove(token: token) }
    links[link.id] = nil
  }

  /// Connects a session that is connected to no master.
  private func connect(_ contact: MasterContact, _ id: Int, _ session: Session) throws(ZMQError) {
    let link = if let kept = session.master { kept } else { try makeMasterLink(id, session) }
    try link.connect(contact, security(of: session))
  }

  private func makeMasterLink(_ id: Int, _ session: Session) throws(ZMQError) -> MasterLink {
    let link = try MasterLink(in: context(of: session).context)
    session.master = link
    try poller.add(link.requests, token: id * 4 + Kind.requests.rawValue, interest: .readable)
    try poller.add(link.monitor.socket, token: id * 4 + Kind.monitor.rawValue, interest: .readable)
    try poller.add(link.updates, token: id * 4 + Kind.updates.rawValue, interest: .readable)
    return link
  }

  /// What makes a socket talk to the cluster alone.
  private func security(of session: Session) throws(ZMQError) -> SocketOption? {
    guard let key = session.clusterKey else { return nil }
    let keys = if let keys = session.keys { keys } else { try CurveKeypair.generate() }
    session.keys = keys
    return .curveClient(serverKey: key, keys: keys)
  }

  /// Ends the connections to a master, if there are any. The sockets are kept for the next one if they can be.
  private func leaveMaster(_ id: Int, _ session: Session) {
    guard let link = session.master, !link.leave() else { return }
    for kind in [Kind.requests, .monitor, .updates] { poller.remove(token: id * 4 + kind.rawValue) }
    session.master = nil
  }
}

extension RouterReply {
  /// The number of the question that this answers; nil for what is no answer to a client. The number can be changed only where there is
  /// one.
  fileprivate var number: UInt64? {
    get {
      switch self {
      case .located(let number, _), .unavailable(let number, _), .refused(let number, _): return number
      case .status, .roster, .probe, .registerAgain: return nil
      }
    }
    set {
      guard let newValue else { return }
      switch self {
      case .located(_, let contact): self = .located(number: newValue, contact)
      case .unavailable(_, let retryAfter): self = .unavailable(number: newValue, retryAfter: retryAfter)
      case .refused(_, let refusal): self = .refused(number: newValue, refusal)
      case .status, .roster, .probe, .registerAgain: break
      }
    }
  }
}
