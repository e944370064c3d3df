// One thread with the sockets of any number of sessions: the shell of the client core.

import CSpawn
public import Core
import HeapModule
import Model
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
  /// - Parameter sessions: how many sessions there may be, for libzmq's limit of sockets.
  public init(sessions: Int = 16) throws(ClientError) {
    // Each has two sockets to its master, one now and then to the router, and four that watch two of these connections.
    _ = tinysns_set_limit_nofile_max()
    let bell = tinysns_eventfd()
    guard bell >= 0 else { throw .failed("no event descriptor") }
    self.bell = bell
    let jobs = Mailbox<Job>(bell: bell)
    self.jobs = jobs
    let context: Context
    do throws(ZMQError) {
      context = try Context(maxSockets: min(65_535, 64 + sessions * 8))
    } catch {
      throw .failed("\(error)")
    }
    let box = ContextBox(context)
    thread = WorkerThread {
      let state = LoopState(box)
      state.run(jobs, bell)
    }
  }

  deinit { close() }

  /// Ends the thread; sessions still open are dropped without a word.
  public func close() { jobs.close() }

  func perform(_ job: @escaping Job) { jobs.put(job) }
}

final class ContextBox: Sendable {
  let context: Context
  init(_ context: consuming Context) { self.context = context }
}

/// How a session talks to the program. Called on the loop's thread; must not block it.
public struct SessionHandlers: Sendable {
  public var note: @Sendable (ClientNote) -> Void

  public init(note: @escaping @Sendable (ClientNote) -> Void = { _ in }) { self.note = note }
}

/// What the loop's thread owns.
final class LoopState {
  final class Session {
    var core: ClientCore
    let router: String
    /// What the cluster has to prove; nil: nothing, and nothing is encrypted.
    let serverKey: ServerKey?
    /// What it has proved.
    var provedKey: CurveKey?
    /// This session's own, on all its connections.
    var keys: CurveKeypair?
    let handlers: SessionHandlers
    var actions: [ClientAction] = []
    var finishes: [ClientToken: (ClientOutcome) -> Void] = [:]
    var shows: [ClientToken: ([Post]) -> Void] = [:]
    var lastToken: UInt64 = 0
    /// Open while an answer of the router is awaited. Each question has its own.
    var routerSocket: SocketBox?
    var routerMonitor: MonitorBox?
    /// How often in a row the router was asked and did not answer, and how often the handshake was why.
    var askedInVain = 0
    var failedHandshakes = 0
    var requests: SocketBox?
    var monitor: MonitorBox?
    var updates: SocketBox?
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

  final class MonitorBox {
    let monitor: Monitor
    init(_ monitor: consuming Monitor) { self.monitor = monitor }
  }

  private enum Kind: Int {
    case router, routerMonitor, requests, monitor, updates
    static let room = 8
  }

  private struct Wake: Comparable {
    var at: Instant
    var session: Int
    static func < (left: Wake, right: Wake) -> Bool { (left.at, left.session) < (right.at, right.session) }
  }

  private static let bellToken = -1
  private static let messagesPerTurn = 1_000
  private static let failedHandshakesMax = 4

  private let context: ContextBox
  private var poller: EpollPoller
  private var sessions: [Int: Session] = [:]
  private var nextSession = 0
  private var wakes = Heap<Wake>()
  private var message = Message()
  /// An update: header and posts.
  private var frames = Multipart(maxFrames: 1 + Limits.postsInUpdate)
  private var ready: [Ready] = []

  init(_ context: ContextBox) {
    self.context = context
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
      session.core.onTimers(at: now, into: &session.actions)
      settle(wake.session, session)
    }
    for item in ready {
      if item.token == Self.bellToken {
        _ = tinysns_eventfd_clear(bell)
        for job in jobs.takeNow() { job(self) }
        continue
      }
      let id = item.token / Kind.room
      guard let session = sessions[id], let kind = Kind(rawValue: item.token % Kind.room) else { continue }
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
    dropRouter(id, session)
    sessions[id] = nil
  }

  // MARK: What arrives

  private func receive(_ kind: Kind, _ id: Int, _ session: Session, at now: Instant) {
    // What can't be decoded is dropped: a server that is newer or broken must not crash its clients.
    do throws(ZMQError) {
      for _ in 0..<Self.messagesPerTurn {
        switch kind {
        case .router:
          guard let box = session.routerSocket, try box.socket.receive(into: &message) == .received else { return }
          let reply = message.withBytes { bytes in try? Wire.decodeRouterReply(bytes) }
          (session.askedInVain, session.failedHandshakes) = (0, 0)
          if let reply { session.core.onRouter(reply, at: now, into: &session.actions) }
        case .routerMonitor:
          guard let box = session.routerMonitor, let event = try box.monitor.next() else { return }
          onRouterEvent(event.kind, session)
        case .requests:
          guard let box = session.requests, try box.socket.receive(into: &message) == .received else { return }
          let reply = message.withBytes { bytes in try? Wire.decodeReply(bytes) }
          if let reply { session.core.onReply(reply, at: now, into: &session.actions) }
        case .updates:
          guard let box = session.updates else { return }
          let result = try box.socket.receive(into: &frames)
          if result == .wouldBlock { return }
          guard result == .received, frames.count >= 2 else { continue }
          for place in 1..<frames.count {
            let update = frames[0].withBytes { header in
              frames[place].withBytes { post in try? Wire.decodeUpdate(header: header, post: post) }
            }
            guard var update else { break }
            update.sequence += UInt64(place - 1)
            session.core.onUpdate(update, at: now, into: &session.actions)
          }
        case .monitor:
          guard let box = session.monitor, let event = try box.monitor.next() else { return }
          switch event.kind {
          case .disconnected, .closed, .connectRetried, .handshakeFailedNoDetail, .handshakeFailedProtocol,
            .handshakeFailedAuthentication:
            session.core.onDisconnected(at: now, into: &session.actions)
          default: break
          }
        }
        if session.actions.count > 256 { settle(id, session) }
      }
    } catch {
      session.core.onDisconnected(at: now, into: &session.actions)
    }
  }

  /// A router that dies in the middle of a handshake is no impostor; one that fails all of them is.
  private func onRouterEvent(_ event: MonitorEvent.Kind, _ session: Session) {
    switch event {
    case .handshakeFailedNoDetail, .handshakeFailedProtocol, .handshakeFailedAuthentication:
      session.failedHandshakes += 1
      if session.failedHandshakes == Self.failedHandshakesMax { session.handlers.note(.routerNotProved) }
    default: break
    }
  }

  // MARK: What is to be done

  private func carryOut(_ action: ClientAction, _ id: Int, _ session: Session) {
    do throws(ZMQError) {
      switch action {
      case .toRouter(let request):
        // A question without an answer is asked anew on a new connection: it may be the key that was wrong.
        dropRouter(id, session)
        try connectRouter(id, session)
        _ = try session.routerSocket?.socket.send(Wire.encode(request))
      case .connect(let contact):
        dropRouter(id, session)
        disconnect(id, session)
        try connect(contact, id, session)
      case .disconnect:
        disconnect(id, session)
      case .send(let request):
        guard let box = session.requests else { return }
        _ = try box.socket.send(Wire.encode(request))
      case .subscribe(let topic): try session.updates?.socket.set(.subscribe(Wire.encode(topic)))
      case .unsubscribe(let topic): try session.updates?.socket.set(.unsubscribe(Wire.encode(topic)))
      case .finish(let token, let outcome):
        session.shows[token] = nil
        session.finishes.removeValue(forKey: token)?(outcome)
      case .show(let token, let posts): session.shows[token]?(posts)
      case .note(let note): session.handlers.note(note)
      }
    } catch {
      session.core.onDisconnected(at: Clock.now(), into: &session.actions)
    }
  }

  /// Makes a socket, before it is connected, one that talks to the cluster alone.
  private func protect(_ socket: borrowing Socket, _ session: Session) throws(ZMQError) {
    guard let key = session.provedKey else { return }
    if session.keys == nil { session.keys = try CurveKeypair.generate() }
    try socket.set(.curveClient(serverKey: key, keys: session.keys!))
  }

  /// Opens no socket as long as it is not known what the router has to prove: the core will try again.
  private func connectRouter(_ id: Int, _ session: Session) throws(ZMQError) {
    if let serverKey = session.serverKey {
      session.provedKey = serverKey.current()
      if session.provedKey == nil { return }
    }
    let socket = try context.context.makeSocket(.dealer)
    try socket.set(
      .sendHighWaterMark(8), .maxMessageSize(Limits.messageBytes),
      .reconnect(every: .milliseconds(20), atMost: .milliseconds(200)))
    if session.router.contains("[") { try socket.set(.ipv6(true)) }
    try protect(socket, session)
    session.askedInVain += 1
    if session.provedKey != nil, session.askedInVain > 1 {
      let monitor = MonitorBox(try socket.makeMonitor())
      try poller.add(
        monitor.monitor.socket, token: id * Kind.room + Kind.routerMonitor.rawValue, interest: .readable)
      session.routerMonitor = monitor
    }
    try socket.connect(session.router)
    let box = SocketBox(socket)
    try poller.add(box.socket, token: id * Kind.room + Kind.router.rawValue, interest: .readable)
    session.routerSocket = box
  }

  private func dropRouter(_ id: Int, _ session: Session) {
    for kind in [Kind.router, .routerMonitor] { poller.remove(token: id * Kind.room + kind.rawValue) }
    session.routerMonitor = nil
    session.routerSocket = nil
  }

  private func connect(_ contact: MasterContact, _ id: Int, _ session: Session) throws(ZMQError) {
    let requests = try context.context.makeSocket(.dealer)
    try requests.set(
      .sendHighWaterMark(Limits.requestsInFlight * 2), .receiveHighWaterMark(0),
      .maxMessageSize(Limits.messageBytes), .linger(.milliseconds(100)))
    if contact.requests.contains("[") { try requests.set(.ipv6(true)) }
    try protect(requests, session)
    let monitor = try requests.makeMonitor()
    try requests.connect(contact.requests)
    let updates = try context.context.makeSocket(.sub)
    // Subscriptions leave through SUB's send queue: at a mark they would be lost silently.
    try updates.set(
      .sendHighWaterMark(0), .receiveHighWaterMark(Limits.updatesHeldBack), .maxMessageSize(Limits.messageBytes),
      .keepAlive,
      .reconnect(every: .milliseconds(20), atMost: .milliseconds(200)))
    if contact.timelines.contains("[") { try updates.set(.ipv6(true)) }
    try protect(updates, session)
    try updates.connect(contact.timelines)

    let requestsBox = SocketBox(requests)
    let monitorBox = MonitorBox(monitor)
    let updatesBox = SocketBox(updates)
    try poller.add(requestsBox.socket, token: id * Kind.room + Kind.requests.rawValue, interest: .readable)
    try poller.add(monitorBox.monitor.socket, token: id * Kind.room + Kind.monitor.rawValue, interest: .readable)
    try poller.add(updatesBox.socket, token: id * Kind.room + Kind.updates.rawValue, interest: .readable)
    session.requests = requestsBox
    session.monitor = monitorBox
    session.updates = updatesBox
  }

  private func disconnect(_ id: Int, _ session: Session) {
    guard session.requests != nil else { return }
    for kind in [Kind.requests, .monitor, .updates] { poller.remove(token: id * Kind.room + kind.rawValue) }
    session.monitor = nil
    session.requests = nil
    session.updates = nil
  }
}
