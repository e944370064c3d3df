// The router's shell: one ROUTER socket, the core, the loop.

import Core
import Glibc
import Logging
import Runtime
public import Model
import Wire
import ZeroMQ

/// What a router process needs to know.
public struct RouterOptions: Sendable {
  /// Where to listen: `tcp://ADDRESS:PORT`.
  public var endpoint: String
  public var timing: Timing
  public var assignment: Assignment
  public var folder: StateFolder
  /// The supervisor that wants its beats.
  public var supervisor: String
  public var security: TransportSecurity
  public var limits: OperatorLimits

  public init(
    endpoint: String, timing: Timing, assignment: Assignment, folder: StateFolder, supervisor: String,
    security: TransportSecurity, limits: OperatorLimits
  ) {
    self.endpoint = endpoint
    self.timing = timing
    self.assignment = assignment
    self.folder = folder
    self.supervisor = supervisor
    self.security = security
    self.limits = limits
  }
}

/// The routing server as a process.
public struct RouterServer: ~Copyable {
  private enum Token: Int { case signals, requests, handshakes, supervisor }

  /// Messages handled before the loop looks at its timers and signals again.
  private static let messagesPerTurn = 500

  private struct Sockets: ~Copyable {
    let context: Context
    let gatekeeper: Gatekeeper?
    var requests: ServerSocket
    let supervisor: Outlet

    init(
      _ options: RouterOptions, _ keys: ClusterKeys?, _ files: OpenFiles, _ logger: Logger
    ) throws(ZMQError) {
      let context = try Context(maxSockets: 64)
      let connections = ConnectionBook(limits: options.limits, connectionsMax: files.connectionsMax)
      let keeper = try keys.map { keys throws(ZMQError) in
        try Gatekeeper(context, keys: keys, connections: connections, logger: logger)
      }
      let requests = try ServerSocket(
        context, endpoint: options.endpoint, queued: 1_000, maxBytes: Limits.requestBytes,
        gate: Gate(port: .router, connections: connections, keeper: keeper))
      let supervisor = try Outlet(
        context, endpoint: options.folder.endpoint(of: options.supervisor), maxBytes: Limits.messageBytes)
      self.context = context
      gatekeeper = keeper
      self.requests = requests
      self.supervisor = supervisor
    }
  }

  private let options: RouterOptions
  private let signals: StopSignals
  private var sockets: Sockets
  private var core: RouterCore
  private var actions: [RouterAction] = []
  private var complaints = ComplaintBook()
  private let log: Logger
  private let incarnation: Incarnation
  /// The last one, so that it goes last: who waits for the name to be free finds the sockets' ports free as well.
  private let lock: NameLock

  /// Takes the name, and binds the port.
  public init(_ options: RouterOptions) throws(NodeError) {
    umask(0o077)  // whatever it makes, sockets too, is its owner's alone
    try options.folder.create()
    let lock = try NameLock("router", in: options.folder)
    let signals = try StopSignals()
    let log = Logger(label: "router") { _ in ProcessLogHandler(name: "router") }
    let keys = try options.security.keys(in: options.folder)
    let files = try OpenFiles.raiseLimit(of: "the router")
    let sockets: Sockets
    do throws(ZMQError) {
      sockets = try Sockets(options, keys, files, log)
    } catch {
      throw NodeError("the router can't listen at \(options.endpoint): \(error.text)")
    }
    self.options = options
    self.log = log
    incarnation = Incarnation(Clock.sinceBoot())
    self.sockets = sockets
    self.lock = lock
    self.signals = signals
    core = RouterCore(
      pid: getpid(), incarnation: incarnation, timing: options.timing, assignment: options.assignment,
      at: Clock.now())
  }

  /// Serves until told to stop.
  public mutating func run() throws(NodeError) {
    log.info("listening at \(sockets.requests.boundEndpoint) as process \(getpid())")
    do throws(ZMQError) {
      try loop()
    } catch {
      throw NodeError("the router failed: \(error)")
    }
    log.info("stopped")
  }

  private mutating func loop() throws(ZMQError) {
    var poller = try EpollPoller()
    try poller.add(fileDescriptor: signals.fileDescriptor, token: Token.signals.rawValue, interest: .readable)
    try poller.add(sockets.requests.socket, token: Token.requests.rawValue, interest: .readable)
    try poller.add(
      sockets.requests.handshakes.monitor.socket, token: Token.handshakes.rawValue, interest: .readable)
    try poller.add(sockets.supervisor.socket, token: Token.supervisor.rawValue, interest: .readable)
    var ready: [Ready] = []
    var nextBeat = Clock.now()
    while true {
      let wake = min(core.nextWake ?? .distantFuture, nextBeat)
      try poller.wait(nanoseconds: max(0, (wake - Clock.now()).nanoseconds), into: &ready)
      let now = Clock.now()
      core.onTimers(at: now, planned: wake, into: &actions)
      if nextBeat <= now {
        nextBeat = now.next(options.timing.supervisionBeat)
        let beat = ChildBeat(name: "router", pid: getpid(), incarnation: incarnation, commitAge: 0)
        try sockets.supervisor.send(Wire.encode(.beat(beat)))
      }
      for item in ready {
        switch Token(rawValue: item.token)! {
        case .signals: if signals.take() != nil { return }
        case .requests: try receive(at: now)
        case .handshakes: for what in try sockets.requests.handshakes.read() { refuse(what, at: now) }
        case .supervisor: try drain(sockets.supervisor.socket)
        }
      }
      try carryOut(at: now)
    }
  }

  private mutating func receive(at now: Instant) throws(ZMQError) {
    for _ in 0..<Self.messagesPerTurn {
      switch try sockets.requests.receive() {
      case .nothing: return
      case .garbage(_, let what): complain(what, at: now)
      case .message(let peer):
        do throws(WireError) {
          let request = try sockets.requests.payload.withBytes { bytes throws(WireError) in
            try Wire.decodeRouterRequest(bytes)
          }
          guard Authority.isForEverybody(request) || Authority.maySend(request, as: sockets.requests.standing) else {
            sockets.requests.shutOutPeer(peer)
            refuse("a peer that is no member and sent \(request.kind)", at: now)
            continue
          }
          core.onRequest(request, from: peer, at: now, into: &actions)
        } catch {
          sockets.requests.shutOutPeer(peer)
          complain("a message is \(error.explanation)", at: now)
        }
      }
      if actions.count > 1_000 { try carryOut(at: now) }
    }
  }

  private mutating func complain(_ what: String, at now: Instant) {
    warn("bad input on the router's port, the peer is shut out: \(what)", at: now)
  }

  private mutating func refuse(_ what: String, at now: Instant) {
    warn("refused at the router's port: \(what)", at: now)
  }

  private mutating func warn(_ text: String, at now: Instant) {
    let (isAdmitted, heldBack) = complaints.admit(text, at: now)
    if heldBack > 0 { log.warning("\(heldBack) more such warnings in the minute before") }
    if isAdmitted { log.warning("\(text)") }
  }

  private mutating func carryOut(at now: Instant) throws(ZMQError) {
    while !actions.isEmpty {
      let orders = actions
      actions.removeAll(keepingCapacity: true)
      for order in orders {
        switch order {
        case .send(let reply, let peer):
          if try sockets.requests.send(Wire.encode(reply), to: peer) == .unroutable {
            core.onUnroutable(peer, at: now, into: &actions)
          }
        case .note(let note): log.log(level: note.level, "\(note.text)")
        }
      }
    }
  }
}

extension RouterRequest {
  /// For a log line: a member's message by its name.
  fileprivate var kind: String {
    switch self {
    case .locate: return "Locate"
    case .status: return "Status"
    case .register: return "Register"
    case .beat: return "Beat"
    case .leave: return "Leave"
    case .alive: return "Alive"
    }
  }
}

/// Reads and drops what waits at a socket that nothing is expected from.
func drain(_ socket: borrowing Socket) throws(ZMQError) {
  var message = Message()
  while try socket.receive(into: &message) == .received {}
}

extension RouterNote {
  var level: Logger.Level {
    switch self {
    case .registered, .returned, .chosen: return .info
    case .lost(_, .left): return .info
    case .lost, .refused: return .warning
    case .nobodyAvailable: return .error
    }
  }

  var text: String {
    switch self {
    case .registered(let master, let requests): return "\(master.name) registered at \(requests)"
    case .lost(let master, .left): return "\(master.name) left"
    case .lost(let master, let cause): return "\(master.name) is lost: \(cause.rawValue)"
    case .returned(let master): return "\(master.name) is back"
    case .chosen(let master, let term): return "\(master.name) is the available server now (term \(term))"
    case .nobodyAvailable: return "no master is available"
    case .refused(let name, let reason): return "\(name) is refused: \(reason)"
    }
  }
}
