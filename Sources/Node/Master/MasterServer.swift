// The master's shell: its sockets, its threads, the core, the loop.

import CEpoll
import CSpawn
import Core
import DequeModule
import Glibc
import Log
import Logging
import Runtime
public import Model
import Wire
import ZeroMQ

/// What a master process needs to know.
public struct MasterOptions: Sendable {
  public var name: String
  /// Where to listen, `tcp://ADDRESS:PORT` or `tcp://ADDRESS:*`.
  public var requests: String
  public var timelines: String
  public var log: String
  /// Where the router listens.
  public var router: String
  public var timing: Timing
  public var assignment: Assignment
  public var rules: AccountRules
  /// Bytes of memory that it takes to hash a password.
  public var passwordMemory: Int
  public var folder: StateFolder
  /// The supervisor that wants its beats.
  public var supervisor: String
  public var security: TransportSecurity
  public var limits: OperatorLimits

  public init(
    name: String, requests: String, timelines: String, log: String, router: String, timing: Timing,
    assignment: Assignment, rules: AccountRules, passwordMemory: Int, folder: StateFolder, supervisor: String,
    security: TransportSecurity, limits: OperatorLimits
  ) {
    self.name = name
    self.requests = requests
    self.timelines = timelines
    self.log = log
    self.router = router
    self.timing = timing
    self.assignment = assignment
    self.rules = rules
    self.passwordMemory = passwordMemory
    self.folder = folder
    self.supervisor = supervisor
    self.security = security
    self.limits = limits
  }
}

/// A master server as a process.
///
/// Five threads: this loop; a commit thread, which takes the loop's place should the disk hold it up (`LoopWatchdog`); a
/// reader of older posts; one that hashes passwords; the gatekeeper. libzmq has six I/O threads of its own: one for the cluster, one for
/// the clients' requests, and four share the updates
/// (a thread gets the connections when it has fewer than the others, so one that has requests, too, would get hardly any).
/// A thousand clients that come at once, each with a handshake of half a millisecond, would else keep the beats
/// waiting for so long that the router gives the master up, and they go on to the next. None of the six interrupts the loop, the one for
/// beats neither: on a machine with much to do a beat may be a time slice late. With two for the updates, one of two processors often slept
/// while one thread sent what was left on the other, beside those whom it woke: the scheduler moves a thread that waits when a processor
/// has nothing left to do, and with four there mostly is one. The four give way to the loop, and to whom they wake.
public struct MasterServer: ~Copyable {
  private enum Token: Int {
    case signals, bell, requests, timelines, mesh, router, supervisor
    case requestsHandshakes, timelinesHandshakes, meshHandshakes
  }

  /// How long messages of one socket are handled before the others, and above all the beats, have their turn: a master with much
  /// to do on a machine with much to do must not look like one that hangs.
  private static let turn = Interval.milliseconds(5)
  /// Messages of a push before everything else has its turn.
  private static let pushesPerTurn = 128
  /// The least time between two messages of a push, on the average over a turn. The system takes 5 to 10 µs to send one (a profile), so
  /// who waits his turn here would else wait in libzmq's queue, and could not be given what has come in the meantime.
  private static let pushNanoseconds: Int64 = 3_000

  /// Events of a commit that the loop appends itself, at most: writing more takes so long that it had better read and answer meanwhile.
  private static let ownEventsMax = 64
  /// The same if hardly anybody is there to be read or answered meanwhile: about what a commit has at the most that others were waited for
  /// (`Gathering.requestsMax`).
  private static let ownEventsMaxIfAllWait = 128
  /// For how long nobody must have asked for anything but posts (pings apart) before the loop goes to the disk: who reads one page after the
  /// other is not to wait for that each time.
  private static let calm = Interval.milliseconds(10)
  /// After a commit of its own that took longer than `ownCommitMax`, the loop leaves them to the commit thread for a while: a disk that is
  /// always slower has it for a third of the time at the most, 10 ms before it is taken over and 20 ms of pause.
  private static let ownCommitMax = Interval.milliseconds(5)
  private static let ownCommitPause = Interval.milliseconds(20)

  private struct Sockets: ~Copyable {
    /// libzmq's I/O threads, as `SocketOption.affinity` names them.
    private static let requests: UInt64 = 0b000001
    private static let updates: UInt64 = 0b011110
    private static let cluster: UInt64 = 0b100000
    /// What those for updates have to send is what keeps the processors busy, and would else keep waiting who commits the next post, or reads.
    private static let updatesNice: Int32 = 5

    let context: Context
    let gatekeeper: Gatekeeper?
    let isGuarded: Bool
    var requests: ServerSocket
    /// Timeline updates to watchers.
    let timelines: Socket
    let timelinesEndpoint: String
    let timelinesHandshakes: HandshakeWatch
    /// This master's commits to the others.
    let mesh: Socket
    let meshEndpoint: String
    let meshHandshakes: HandshakeWatch
    /// The others' commits.
    let peers: Socket
    let router: Outlet
    let supervisor: Outlet

    init(_ options: MasterOptions, _ keys: ClusterKeys?, _ files: OpenFiles, _ logger: Logger) throws(NodeError) {
      var endpoint = options.requests
      do throws(ZMQError) {
        let context = try Context(
          ioThreads: (Self.requests | Self.updates | Self.cluster).nonzeroBitCount, maxSockets: 256, sendsInBulk: true)
        do {
          tinysns_epoll_adopt(true)  // the I/O threads ask the kernel less (CEpoll.h)
          defer { tinysns_epoll_adopt(false) }
          try context.start()
        }
        if tinysns_epoll_adopted() == 0 {
          logger.info("libzmq is linked so that it asks the kernel before each message")
        }
        let connections = ConnectionBook(limits: options.limits, connectionsMax: files.connectionsMax)
        let keeper = try keys.map { keys throws(ZMQError) in
          try Gatekeeper(context, keys: keys, connections: connections, logger: logger)
        }
        func gate(_ port: Entrance) -> Gate { Gate(port: port, connections: connections, keeper: keeper) }
        let requests = try ServerSocket(
          context, endpoint: endpoint, queued: options.limits.repliesQueued, maxBytes: Limits.requestBytes,
          gate: gate(.requests), ioThreads: Self.requests)

        endpoint = options.timelines
        let timelines = try context.makeSocket(.xpub)
        try timelines.set(
          .affinity(Self.updates), .xpubManual(true), .sendHighWaterMark(options.limits.updatesQueued),
          .receiveHighWaterMark(0),
          .maxMessageSize(Limits.subscriptionBytes), .backlog(Limits.connectionsPending),
          .handshakeInterval(.milliseconds(Limits.handshake.milliseconds)),
          .ipv6(endpoint.contains("[")))
        try keeper?.guardSocket(timelines, as: .timelines)
        let timelinesHandshakes = try HandshakeWatch(of: timelines, gate: gate(.timelines))
        let timelinesEndpoint = try timelines.bind(endpoint)

        endpoint = options.log
        let mesh = try context.makeSocket(.pub)
        try mesh.set(
          .affinity(Self.cluster), .linger(.milliseconds(200)), .sendHighWaterMark(1_000),
          .maxMessageSize(Limits.requestBytes),
          .handshakeInterval(.milliseconds(Limits.handshake.milliseconds)),
          .ipv6(endpoint.contains("[")))
        try keeper?.guardSocket(mesh, as: .log)
        let meshHandshakes = try HandshakeWatch(of: mesh, gate: gate(.log))
        let meshEndpoint = try mesh.bind(endpoint)

        let peers = try context.makeSocket(.sub)
        try peers.set(
          .affinity(Self.cluster), .subscribe([]), .receiveHighWaterMark(1_000), .maxMessageSize(Limits.messageBytes),
          .keepAlive,
          .reconnect(every: .milliseconds(50), atMost: .seconds(1)), .ipv6(endpoint.contains("[")))
        try keeper?.introduce(peers)

        let router = try Outlet(
          context, endpoint: options.router, maxBytes: Limits.messageBytes, keeper: keeper, ioThreads: Self.cluster)
        let supervisor = try Outlet(
          context, endpoint: options.folder.endpoint(of: options.supervisor), maxBytes: Limits.messageBytes,
          ioThreads: Self.cluster)
        context.lowerPriority(ofThreads: Self.updates, by: Self.updatesNice)
        self.context = context
        gatekeeper = keeper
        self.requests = requests
        self.timelines = timelines
        self.timelinesEndpoint = timelinesEndpoint
        self.timelinesHandshakes = timelinesHandshakes
        self.mesh = mesh
        self.meshEndpoint = meshEndpoint
        self.meshHandshakes = meshHandshakes
        self.peers = peers
        isGuarded = keeper != nil
        self.router = router
        self.supervisor = supervisor
      } catch {
        throw NodeError("\(options.name) can't listen at \(endpoint): \(error.text)")
      }
    }
  }

  private let options: MasterOptions
  private let signals: StopSignals
  private var sockets: Sockets
  private let bell: Int32
  private let results: Mailbox<LogResult>
  private let committer: Committer
  private let reader: ReaderThread
  private let passwords: PasswordThread
  private let seal: TokenSeal
  private var core: MasterCore
  private var actions: [MasterAction] = []
  private var pushes = Pushes()
  /// When the next turn of pushes is due.
  private var nextPush = Instant.zero
  /// What tells positions of topics, and must not overtake the pushes that came before it: behind so many of them.
  private var behindPushes: Deque<(turns: Int, action: MasterAction)> = []
  private var message = Message()
  /// Subscriptions are being read, and more of them wait; see `receiveSubscriptions`. Nothing is pushed meanwhile, so it must not
  /// outlast them: the poller calls again for what waits, and for nothing else.
  private var subscribing: (read: Int, counted: Set<Topic>)?
  /// libzmq mistakes subscribers for each other; see `receiveSubscriptions`.
  private var isMisled = false
  private let headerBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Wire.updateHeaderBytes, alignment: 8)
  private var poller: EpollPoller
  private var ready: [Ready] = []
  /// What the loop is to append itself at the end of its turn.
  private var ownAppend: Append?
  /// Nothing more will come in this turn.
  private var isTurnsEnd = false
  /// The last append that the commit thread got belongs to this series.
  private var orderedSeries: UInt64?
  /// When the loop last went to the disk, if nothing has come of it yet.
  private var ownCommitBegan: Instant?
  /// Before this it does not go there again.
  private var nextOwnCommit = Instant.zero
  /// When somebody last asked for anything but posts.
  private var lastQuery = Instant.zero
  private var hasExited = false
  private var failure: String?
  private var complaints = ComplaintBook()
  private let logger: Logger
  /// The last one, so that it goes last: who waits for the name to be free finds the sockets' ports free as well.
  private let lock: NameLock

  /// Takes the name, binds the ports, starts the threads.
  public init(_ options: MasterOptions, openLog: @escaping LogOpener) throws(NodeError) {
    umask(0o077)  // whatever it makes, sockets too, is its owner's alone
    try options.folder.create()
    let lock = try NameLock(options.name, in: options.folder)
    let signals = try StopSignals()
    tinysns_keep_free_memory()
    let logger = Logger(label: options.name) { [name = options.name] _ in ProcessLogHandler(name: name) }
    let files = try OpenFiles.raiseLimit(of: options.name)
    let sessionsWanted = options.limits.sessions
    var options = options
    options.limits.sessions = min(sessionsWanted, files.sessionsMax)
    let keys = try options.security.keys(in: options.folder)
    let seal: TokenSeal
    if let keys {
      seal = TokenSeal(key: keys.token)
    } else {
      seal = TokenSeal(key: try ClusterKeys.token(in: options.folder))
    }
    let sockets = try Sockets(options, keys, files, logger)
    if options.limits.sessions < sessionsWanted {
      logger.info(
        "serves \(files.sessionsMax) sessions at most, not \(sessionsWanted): the system lets it open \(files.limit) files (ulimit -n)"
      )
    }
    let poller: EpollPoller
    do throws(ZMQError) { poller = try EpollPoller() } catch {
      throw NodeError("\(options.name) can't wait for sockets: \(error.text)")
    }
    let bell = tinysns_eventfd()
    guard bell >= 0 else { throw .system("no event descriptor", bell) }
    self.bell = bell
    self.options = options
    self.logger = logger
    results = Mailbox(bell: bell)
    reader = ReaderThread(open: openLog, results: results)
    committer = Committer(
      open: openLog, results: results, upkeep: reader, mayTakeOver: options.assignment == .available)
    passwords = PasswordThread(PasswordHasher(memory: options.passwordMemory), results: results)
    let identity = MasterIdentity(
      name: options.name, incarnation: Incarnation(Clock.sinceBoot()))
    let beat = MasterBeat(master: identity, head: .zero, sessions: 0, commitAge: 0, term: 0, roster: 0)
    let registration = Registration(
      master: identity, pid: getpid(), requests: sockets.requests.boundEndpoint,
      timelines: sockets.timelinesEndpoint, log: sockets.meshEndpoint, beat: beat)
    core = MasterCore(
      registration: registration, timing: options.timing, assignment: options.assignment, rules: options.rules,
      limits: options.limits, random: .system)
    self.seal = seal
    self.lock = lock
    self.signals = signals
    self.sockets = sockets
    self.poller = poller
  }

  deinit {
    close(bell)
    headerBuffer.deallocate()
  }

  /// Serves until told to stop; throws what keeps it from serving.
  public mutating func run() throws(NodeError) {
    logger.info("started as process \(getpid()), requests at \(sockets.requests.boundEndpoint)")
    let committer = committer
    withUnsafeMutablePointer(to: &self) { server in
      let place = Place(server: server)
      let other = WorkerThread { Self.work(startingAtLog: true, committer, place) }
      Self.work(startingAtLog: false, committer, place)
      other.join()
    }
    committer.closeLog()
    reader.close()
    passwords.close()
    if let failure { throw NodeError("\(options.name) can't go on: \(failure)") }
    logger.info("stopped")
  }

  // MARK: The loop

  /// Where the server lies, for the two threads that take turns at being its loop.
  ///
  /// `@unchecked Sendable`: whoever is the loop by `LoopWatchdog` uses it, and nobody else.
  private struct Place: @unchecked Sendable {
    let server: UnsafeMutablePointer<MasterServer>
  }

  /// The life of either thread: it is the loop, or at the log's service.
  private static func work(startingAtLog: Bool, _ committer: Committer, _ place: Place) {
    var isLoop = !startingAtLog
    if isLoop { place.server.pointee.start() }
    while true {
      if isLoop {
        guard serve(committer, place) == .takenOver else { break }
        isLoop = false
      } else {
        guard committer.work() == .takesOver else { break }
        isLoop = true
      }
    }
    committer.close()
  }

  private enum LoopEnding {
    /// The server has exited, or can't go on.
    case over
    /// The other thread has become the loop.
    case takenOver
  }

  /// The loop, until it ends or another thread has it.
  ///
  /// Nothing of the server is in use while this thread appends: it is the other thread's then, should that take over.
  private static func serve(_ committer: Committer, _ place: Place) -> LoopEnding {
    while place.server.pointee.goesOn {
      guard let append = place.server.pointee.turn() else { continue }
      guard let blocking = committer.watchdog.beginBlocking() else {
        place.server.pointee.ownCommitBegan = nil
        place.server.pointee.order(append)
        continue
      }
      do throws(LogError) {
        let outcome = try committer.append(append)
        guard committer.watchdog.endBlocking(blocking) else {
          committer.report(outcome, of: append)
          return .takenOver
        }
        place.server.pointee.takeOutcome(outcome, of: append)
      } catch {
        // There is nothing to go on from: no more is ordered, which would rest on this.
        if committer.watchdog.endBlocking(blocking) {
          place.server.pointee.failure = error.explanation
        } else {
          committer.report(error)
        }
        return .over
      }
    }
    return .over
  }

  private var goesOn: Bool { !hasExited && failure == nil }

  private mutating func start() {
    attempt { server throws(ZMQError) in
      try server.poller.add(
        fileDescriptor: server.signals.fileDescriptor, token: Token.signals.rawValue, interest: .readable)
      try server.poller.add(fileDescriptor: server.bell, token: Token.bell.rawValue, interest: .readable)
      func add(_ socket: borrowing Socket, _ token: Token) throws(ZMQError) {
        try server.poller.add(socket, token: token.rawValue, interest: .readable)
      }
      try add(server.sockets.requests.socket, .requests)
      try add(server.sockets.timelines, .timelines)
      try add(server.sockets.peers, .mesh)
      try add(server.sockets.router.socket, .router)
      try add(server.sockets.supervisor.socket, .supervisor)
      try add(server.sockets.requests.handshakes.monitor.socket, .requestsHandshakes)
      try add(server.sockets.timelinesHandshakes.monitor.socket, .timelinesHandshakes)
      try add(server.sockets.meshHandshakes.monitor.socket, .meshHandshakes)
      server.core.start(at: Clock.now(), into: &server.actions)
      try server.carryOut()
    }
  }

  /// What has come, and what follows from it; returns what the loop is to append itself.
  private mutating func turn() -> Append? {
    attempt { server throws(ZMQError) in
      let wake =
        server.pushes.isEmpty && server.behindPushes.isEmpty
        ? server.core.nextWake : min(server.nextPush, server.core.nextWake ?? server.nextPush)
      var ready = exchange(&server.ready, with: [])
      try server.poller.wait(nanoseconds: wake.map { ($0 - Clock.now()).nanoseconds }, into: &ready)
      let now = Clock.now()
      server.core.onTimers(at: now, into: &server.actions)
      for item in ready {
        try server.take(Token(rawValue: item.token)!, at: now)
        try server.carryOut()
      }
      server.ready = ready
      server.isTurnsEnd = true
      server.core.flush(at: now, wall: Clock.wall(), into: &server.actions)
      try server.finishTurn()
      server.isTurnsEnd = false
    }
    if ownAppend != nil { ownCommitBegan = Clock.now() }
    return exchange(&ownAppend, with: nil)
  }

  /// What became of what the loop appended itself.
  private mutating func takeOutcome(_ outcome: CommitOutcome, of append: Append) {
    attempt { server throws(ZMQError) in
      let now = Clock.now()
      server.core.onTimers(at: now, into: &server.actions)
      server.onCommit(outcome, of: append.commits, at: now)
      // What has to be ordered anew goes to the other thread: there may be more to read first.
      server.core.flush(at: now, wall: Clock.wall(), into: &server.actions)
      try server.finishTurn()
    }
  }

  private mutating func finishTurn() throws(ZMQError) {
    try carryOut()
    try push()
    try carryOut()
  }

  /// A socket that fails ends the server.
  private mutating func attempt(_ body: (inout MasterServer) throws(ZMQError) -> Void) {
    do throws(ZMQError) { try body(&self) } catch { failure = "\(error)" }
  }

  // MARK: What arrives

  private mutating func take(_ token: Token, at now: Instant) throws(ZMQError) {
    switch token {
    case .signals: if signals.take() != nil { core.stop(at: now, into: &actions) }
    case .bell: takeResults(at: now)
    case .requests: try receiveRequests(at: now)
    case .timelines: try receiveSubscriptions(at: now)
    case .mesh: try receiveMesh(at: now)
    case .router: try receiveRouter(at: now)
    case .supervisor: try drain(sockets.supervisor.socket)
    case .requestsHandshakes: refuse(try sockets.requests.handshakes.read(), "requests", at: now)
    case .timelinesHandshakes: refuse(try sockets.timelinesHandshakes.read(), "timelines", at: now)
    case .meshHandshakes: refuse(try sockets.meshHandshakes.read(), "log", at: now)
    }
  }

  private mutating func takeResults(at now: Instant) {
    _ = tinysns_eventfd_clear(bell)
    for result in results.takeNow() {
      switch result {
      case .loaded(let snapshot): core.onSnapshot(snapshot, at: now, into: &actions)
      case .committed(let outcome, let count): onCommit(outcome, of: count, at: now)
      case .caughtUp(let outcome, let more): core.onCatchUp(outcome, more: more, at: now, into: &actions)
      case .read(let id, let outcome, let more): core.onRead(id, outcome, more: more, into: &actions)
      case .lookedUp(let outcome): core.onLookUp(outcome, into: &actions)
      case .password(let id, let outcome): core.onPassword(id, outcome, at: now, into: &actions)
      case .checkpointFailed(let reason):
        warn("a checkpoint of the log failed and will be tried again: \(reason)", at: now)
      case .calm:
        if committer.watchdog.isArmed { continue }  // a load has begun meanwhile
        if actions.isEmpty { actions = [] }  // it has room for the largest turn
        tinysns_give_back_own_memory()
        committer.put(.giveBackMemory)
      case .unusable(let reason):
        failure = reason
        return
      }
    }
  }

  private mutating func onCommit(_ outcome: CommitOutcome, of count: Int, at now: Instant) {
    if let began = exchange(&ownCommitBegan, with: nil), now - began > Self.ownCommitMax {
      nextOwnCommit = now + Self.ownCommitPause
    }
    core.onCommit(outcome, of: count, at: now, wall: Clock.wall(), into: &actions)
    reader.noteGrowth()
  }

  private mutating func receiveRequests(at now: Instant) throws(ZMQError) {
    var turn = Turn(Self.turn)
    while turn.goesOn() {
      switch try sockets.requests.receive() {
      case .nothing: return
      case .garbage(let peer, let what):
        complain(what, "requests", "the peer is shut out", at: now)
        if let peer { core.onMalformed(from: peer, into: &actions) }
      case .message(let peer):
        do throws(WireError) {
          let request = try sockets.requests.payload.withBytes { bytes throws(WireError) in
            try Wire.decodeRequest(bytes)
          }
          noteQuery(request, at: now)
          if case .hello(let hello) = request.body {
            onHello(hello, number: request.number, from: peer, at: now)
          } else {
            core.onRequest(request, from: peer, at: now, into: &actions)
          }
        } catch {
          onBadRequest(error, from: peer, at: now)
        }
      }
    }
  }

  private mutating func noteQuery(_ request: Request, at now: Instant) {
    switch request.body {
    case .post, .ping: break
    default: lastQuery = now
    }
  }

  /// What the connection proves goes with the Hello: its key, and the place that it comes from.
  private mutating func onHello(_ hello: Hello, number: UInt64, from peer: PeerID, at now: Instant) {
    var hello = hello
    if case .client(let key) = sockets.requests.standing { hello.key = key }
    var claims: TokenClaims?
    if case .token(let token) = hello.proof { claims = seal.open(token) }
    let address = PeerAddress(peerAddress: sockets.requests.payload.metadata("Peer-Address"))
    core.onHello(
      hello, number: number, from: peer, address: address, claims: claims, at: now, wall: Clock.wall(), into: &actions)
  }

  /// The sender learns why, if its message has a number; then it is shut out.
  private mutating func onBadRequest(_ error: WireError, from peer: PeerID, at now: Instant) {
    let number = sockets.requests.payload.withBytes { Wire.requestNumber(in: $0) }
    actions.append(
      .reply(Reply(number: number, body: .refused(Refusal(.invalid, "the message is \(error.explanation)"))), to: peer))
    core.onMalformed(from: peer, into: &actions)
    sockets.requests.shutOutPeer(peer)
    complain("a message is \(error.explanation)", "requests", "the peer is shut out", at: now)
  }

  /// A subscription counts if it is to a topic that the subscriber's own session watches: whoever asks for less (every prefix would
  /// match), guesses, or has a topic from somebody else, hears nothing.
  ///
  /// libzmq 4.3.4 has two faults here, both open to any peer. A subscription whose connection has ended meanwhile is still handed up,
  /// and to let it count is to send to freed memory. But then its cancellation, which no peer has sent, waits behind it: so what is
  /// there is read to its end before anything is sent (over several turns if need be), and a topic that was cancelled after it was let
  /// count is given up for good.
  /// And a message that is no subscription makes libzmq take the next ones for those of their neighbours: until all is read, none
  /// counts.
  private mutating func receiveSubscriptions(at now: Instant) throws(ZMQError) {
    var (read, counted) = subscribing ?? (0, [])
    subscribing = nil
    var turn = Turn(Self.turn)
    // As many as all sessions could have to say at once: more, without an end in between, is a flood.
    while read < options.limits.sessions * options.limits.topicsPerSession {
      if try turn.isOver(before: sockets.timelines) {
        subscribing = (read, counted)
        return
      }
      guard try sockets.timelines.receive(into: &message) == .received else {
        isMisled = false
        return
      }
      read += 1
      if message.withBytes({ $0.isEmpty || $0.unsafeLoad(as: UInt8.self) > 1 }) {
        isMisled = true
        complain("a message that is no subscription", "timelines", "it is ignored", at: now)
        continue
      }
      guard let (subscribe, topic) = message.withBytes({ Wire.decodeSubscription($0) }) else {
        complain("a subscription to what is no topic", "timelines", "it does not count", at: now)
        continue
      }
      if isMisled { continue }
      if !subscribe {
        try sockets.timelines.set(.unsubscribe(Wire.encode(topic)))
        if counted.contains(topic), message.metadata("Socket-Type") == nil { core.abandon([topic], into: &actions) }
      } else if core.mayHear(topic, sockets.isGuarded ? Gatekeeper.standing(of: message) : .unproved) {
        try sockets.timelines.set(.subscribe(Wire.encode(topic)))
        counted.insert(topic)
        core.onSubscribed(topic, into: &actions)
      }
    }
    // What is still unread may cancel what was let count.
    core.abandon(counted, into: &actions)
  }

  private mutating func receiveMesh(at now: Instant) throws(ZMQError) {
    var turn = Turn(Self.turn)
    while turn.goesOn() {
      guard try sockets.peers.receive(into: &message) == .received else { return }
      do throws(WireError) {
        let batch = try message.withBytes { bytes throws(WireError) in try Wire.decodeLogBatch(bytes) }
        core.onLogBatch(batch, at: now, into: &actions)
        reader.noteGrowth()
      } catch {
        complain("an event is \(error.explanation)", "log", "it is ignored", at: now)
      }
    }
  }

  private mutating func receiveRouter(at now: Instant) throws(ZMQError) {
    while try sockets.router.socket.receive(into: &message) == .received {
      do throws(WireError) {
        let reply = try message.withBytes { bytes throws(WireError) in try Wire.decodeRouterReply(bytes) }
        core.onRouter(reply, at: now, into: &actions)
      } catch {
        complain("the router's message is \(error.explanation)", "router", "it is ignored", at: now)
      }
    }
  }

  private mutating func refuse(_ connections: [String], _ port: String, at now: Instant) {
    for what in connections { warn("refused at the \(port) port: \(what)", at: now) }
  }

  private mutating func complain(_ what: String, _ port: String, _ consequence: String, at now: Instant) {
    warn("bad input on the \(port) port, \(consequence): \(what)", at: now)
  }

  private mutating func warn(_ text: String, at now: Instant) {
    let (isAdmitted, heldBack) = complaints.admit(text, at: now)
    if heldBack > 0 { logger.warning("\(heldBack) more such warnings in the minute before") }
    if isAdmitted { logger.warning("\(text)") }
  }

  // MARK: What is to be done

  private mutating func carryOut() throws(ZMQError) {
    while !actions.isEmpty {
      // Carrying out an action may add others, behind all of these.
      var orders: [MasterAction] = []
      swap(&orders, &actions)
      for order in orders {
        switch order {
        case .publish(let post, let targets):
          pushes.add(Wire.encodeUpdateEntry(post), to: targets)
        case .mark where !pushes.isEmpty || subscribing != nil: behindPushes.append((pushes.end, order))
        case .reply(let reply, _) where !pushes.isEmpty && reply.tellsPositions:
          behindPushes.append((pushes.end, order))
        case .exit:
          while !pushes.isEmpty, subscribing == nil { try pushTurn() }
          try carryOut(order)
        default: try carryOut(order)
        }
      }
      orders.removeAll(keepingCapacity: true)
      if actions.isEmpty { swap(&orders, &actions) }
    }
  }

  private mutating func carryOut(_ action: MasterAction) throws(ZMQError) {
    switch action {
    case .reply(let reply, let peer): try send(reply, to: peer)
    case .welcome(var welcome, let claims, let number, let peer):
      welcome.token = claims.map(seal.seal)
      try send(Reply(number: number, body: .welcome(welcome)), to: peer)
    case .password(let id, let job): passwords.put(id, job)
    case .publish:
      preconditionFailure("posts are pushed together")
    case .mark(let position):
      guard try sendHeader(position) else { return }
      _ = try sockets.timelines.send([])
    case .append(let append):
      orderOwnAppend()
      if mayAppendItself(append) { ownAppend = append } else { order(append) }
    case .catchUp(let position):
      orderOwnAppend()
      committer.put(.catchUp(after: position))
    case .read(let id, let query):
      reader.read(id, query)
    case .lookUp(let requests, let upTo):
      reader.lookUp(requests, upTo: upTo)
    case .broadcast(let events):
      _ = try sockets.mesh.send(Wire.encode(LogBatch(events: events)))
    case .toRouter(let request):
      try sockets.router.send(Wire.encode(request))
    case .toSupervisor(let beat):
      try sockets.supervisor.send(Wire.encode(.beat(beat)))
    case .joinMesh(let member):
      try sockets.peers.connect(member.log)
    case .leaveMesh(let member):
      // It may never have been connected, if its endpoint was taken over by its successor.
      try? sockets.peers.disconnect(member.log)
    case .note(let note):
      logger.log(level: note.level, "\(note.text)")
    case .exit:
      hasExited = true
    }
  }

  /// Whether the loop appends this itself, at the end of its turn: if it is small, the log has nothing else to do, nothing is to
  /// be pushed, and nobody is about who would wait for the disk without having to; and if the commit thread checks, and the disk is not slow.
  ///
  /// A series' first append goes to the commit thread, behind what that may still have of earlier series. Once its outcome is known, there is
  /// nothing left of them.
  private func mayAppendItself(_ append: Append) -> Bool {
    guard
      isTurnsEnd, core.awaitsOneCommit,
      append.events.count <= (core.allAwaitOneCommit ? Self.ownEventsMaxIfAllWait : Self.ownEventsMax),
      append.series == orderedSeries,
      committer.watchdog.isArmed, pushes.isEmpty, behindPushes.isEmpty, subscribing == nil
    else { return false }
    let now = Clock.now()
    return now - lastQuery > Self.calm && now >= nextOwnCommit
  }

  private mutating func order(_ append: Append) {
    orderedSeries = append.series
    committer.put(.append(append))
  }

  /// Something else has come up: the other thread appends it, in its place.
  private mutating func orderOwnAppend() {
    if let append = exchange(&ownAppend, with: nil) { order(append) }
  }

  private mutating func send(_ reply: Reply, to peer: PeerID) throws(ZMQError) {
    // A peer that is gone, or lets its replies pile up, loses its session; it comes back if it wants.
    if try sockets.requests.send(Wire.encode(reply), to: peer) != .sent { core.onUnreachable(peer, into: &actions) }
  }

  /// Pushes to the topics whose turn it is, if the next turn has come.
  private mutating func push() throws(ZMQError) {
    guard !pushes.isEmpty || !behindPushes.isEmpty, subscribing == nil else { return }
    let now = Clock.now()
    guard now >= nextPush else { return }
    let taken = pushes.taken
    try pushTurn()
    nextPush = now + Interval(nanoseconds: Int64(pushes.taken - taken) * Self.pushNanoseconds)
  }

  /// To each topic one message: a header of its own, which libzmq keeps within the frame, and a body, shared by all topics that get the
  /// same posts.
  private mutating func pushTurn() throws(ZMQError) {
    for _ in 0..<Self.pushesPerTurn {
      guard let turn = pushes.takeTurn() else { break }
      guard try sendHeader(turn.position) else { continue }
      try turn.body.withFrame { frame throws(ZMQError) in _ = try sockets.timelines.send(sharing: &frame) }
    }
    while let next = behindPushes.first, next.turns <= pushes.taken {
      behindPushes.removeFirst()
      try carryOut(next.action)
    }
  }

  /// Sends the first frame of an update; its posts are to follow. Nothing is sent that nobody watches any more: what waited when
  /// its topic was given up must not go out.
  private func sendHeader(_ position: Watching) throws(ZMQError) -> Bool {
    guard core.isWatched(position.topic) else { return false }
    Wire.writeUpdateHeader(topic: position.topic, sequence: position.sequence, to: headerBuffer)
    return try sockets.timelines.send(UnsafeRawBufferPointer(headerBuffer), more: true) == .sent
  }
}

extension Reply {
  /// Whether it tells the next numbers of topics: whoever reads it expects to have been sent everything before.
  fileprivate var tellsPositions: Bool {
    if case .pong(let pong) = body { return !pong.topics.isEmpty }
    return false
  }
}

extension MasterNote {
  var level: Logger.Level {
    switch self {
    case .loggedIn, .loggedOut, .sessionLost, .sessionRevoked, .joined, .left, .holeRead: return .debug
    case .storageFailed: return .error
    default: return .info
    }
  }

  var text: String {
    switch self {
    case .ready(let head): return "ready at event \(head)"
    case .becameAvailable(let term): return "serves all clients now (term \(term))"
    case .becameStandby: return "stands by"
    case .loggedIn(let user, let isNew): return isNew ? "\(user) is new here" : "\(user) logged in"
    case .loggedOut(let user): return "\(user) logged out"
    case .sessionLost(let user): return "\(user) is gone"
    case .sessionRevoked(let user): return "a session of \(user) was ended from elsewhere"
    case .storageFailed(let reason): return "the log can't take anything: \(reason)"
    case .storageWorksAgain: return "the log works again"
    case .holeRead(let from, let to): return "read events \(from) to \(to) from the log"
    case .joined(let name): return "hears \(name)"
    case .left(let name): return "no longer hears \(name)"
    case .stopping: return "stopping"
    }
  }
}
