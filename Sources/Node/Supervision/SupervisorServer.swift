// The shell of a slave and of the launcher: processes, their heartbeat socket, the core, the loop.

import Core
import CSpawn
import Glibc
public import Logging
import Runtime
public import Model
import Wire
import ZeroMQ

/// What a supervisor process needs to know.
public struct SupervisorOptions: Sendable {
  public var name: String
  public var timing: Timing
  public var folder: StateFolder
  public var children: [(command: ChildCommand, policy: ChildPolicy)]
  /// The supervisor that wants this one's beats, if any.
  public var supervisor: String?
  /// Whether this process holds the log's turn; asked only about one that the kernel has stopped.
  public var holdsTurn: @Sendable (_ pid: Int32) -> Bool
  public var logger: Logger

  public init(
    name: String, timing: Timing, folder: StateFolder, children: [(command: ChildCommand, policy: ChildPolicy)],
    supervisor: String?, holdsTurn: @escaping @Sendable (_ pid: Int32) -> Bool = { _ in false }, logger: Logger? = nil
  ) {
    self.name = name
    self.timing = timing
    self.folder = folder
    self.children = children
    self.supervisor = supervisor
    self.holdsTurn = holdsTurn
    self.logger = logger ?? Logger(label: name) { _ in ProcessLogHandler(name: name) }
  }
}

public typealias ChildPolicy = Core.ChildPolicy

/// A supervisor as a process: a slave or the launcher.
public struct SupervisorServer: ~Copyable {
  private enum Token {
    static let signals = 0
    static let beats = 1
    static let supervisor = 2
    static let handshakes = 3
    /// Children's process descriptors: this and up, in order.
    static let firstChild = 16
  }

  private struct Sockets: ~Copyable {
    let context: Context
    var beats: ServerSocket
    let supervisor: Outlet

    init(_ options: SupervisorOptions) throws(ZMQError) {
      let context = try Context(maxSockets: 64)
      let beats = try ServerSocket(
        context, endpoint: options.folder.endpoint(of: options.name), queued: 100, maxBytes: Limits.requestBytes)
      let supervisor = try Outlet(
        context, endpoint: options.supervisor.map(options.folder.endpoint), maxBytes: Limits.messageBytes)
      self.context = context
      self.beats = beats
      self.supervisor = supervisor
    }
  }

  private struct Process: ~Copyable {
    var child: ChildProcess?
  }

  private let options: SupervisorOptions
  private let signals: StopSignals
  private var sockets: Sockets
  private var core: SupervisorCore
  /// In the order of `options.children`.
  private let processes: UnsafeMutableBufferPointer<Process>
  private var poller: EpollPoller
  private var actions: [SupervisorAction] = []
  private var hasExited = false
  private let incarnation: Incarnation
  /// The last one, so that it goes last: who waits for the name to be free finds the sockets' ports free as well.
  private let lock: NameLock

  /// Takes the name and listens for beats.
  public init(_ options: SupervisorOptions) throws(NodeError) {
    umask(0o077)  // whatever it makes, sockets too, is its owner's alone
    try options.folder.create()
    let lock = try NameLock(options.name, in: options.folder)
    let signals = try StopSignals(and: [StopSignals.restart])
    let poller: EpollPoller
    do throws(ZMQError) { poller = try EpollPoller() } catch { throw NodeError("no epoll descriptor: \(error)") }
    let sockets: Sockets
    do throws(ZMQError) {
      sockets = try Sockets(options)
    } catch {
      throw NodeError("\(options.name) can't listen at \(options.folder.socket(of: options.name)): \(error.text)")
    }
    self.options = options
    self.lock = lock
    self.signals = signals
    self.sockets = sockets
    self.poller = poller
    incarnation = Incarnation(Clock.sinceBoot())
    core = SupervisorCore(
      name: options.name, pid: getpid(), timing: options.timing,
      children: options.children.map { (key: $0.command.name, value: $0.policy) })
    processes = .allocate(capacity: options.children.count)
    for index in options.children.indices { processes.initializeElement(at: index, to: Process()) }
  }

  deinit {
    processes.deinitialize()
    processes.deallocate()
  }

  /// Supervises until told to stop and all children are gone.
  ///
  /// - Parameters:
  ///   - tickInterval: how often `onTick` is called, at least; nil: never.
  ///   - onTick: returns whether to stop.
  public mutating func run(tickInterval: Interval? = nil, onTick: () -> Bool = { false }) throws(NodeError) {
    options.logger.info("started as process \(getpid())")
    do throws(ZMQError) {
      try loop(tickInterval, onTick)
    } catch {
      throw NodeError("\(options.name) failed: \(error)")
    }
    options.logger.info("stopped")
  }

  private mutating func loop(_ tickInterval: Interval?, _ onTick: () -> Bool) throws(ZMQError) {
    try poller.add(fileDescriptor: signals.fileDescriptor, token: Token.signals, interest: .readable)
    try poller.add(sockets.beats.socket, token: Token.beats, interest: .readable)
    try poller.add(sockets.supervisor.socket, token: Token.supervisor, interest: .readable)
    try poller.add(sockets.beats.handshakes.monitor.socket, token: Token.handshakes, interest: .readable)
    var ready: [Ready] = []
    var nextBeat = options.supervisor == nil ? Instant.distantFuture : Clock.now()
    var nextTick = tickInterval == nil ? Instant.distantFuture : Clock.now()
    core.start(into: &actions)
    try carryOut()
    while !hasExited {
      let wake = min(core.nextWake ?? .distantFuture, min(nextBeat, nextTick))
      let pause = wake == .distantFuture ? nil : (wake - Clock.now()).nanoseconds
      try poller.wait(nanoseconds: pause, into: &ready)
      let now = Clock.now()
      core.onTimers(at: now, planned: wake, into: &actions)
      if nextBeat <= now {
        nextBeat = now.next(options.timing.supervisionBeat)
        let beat = ChildBeat(name: options.name, pid: getpid(), incarnation: incarnation, commitAge: 0)
        try sockets.supervisor.send(Wire.encode(.beat(beat)))
      }
      if nextTick <= now, let tickInterval {
        nextTick = now + tickInterval
        if onTick() { core.stop(at: now, into: &actions) }
      }
      for item in ready {
        switch item.token {
        case Token.signals:
          switch signals.take() {
          case nil: break
          case StopSignals.restart: core.restart(at: now, into: &actions)
          default: core.stop(at: now, into: &actions)
          }
        case Token.beats: try receive(at: now)
        case Token.supervisor: try drain(sockets.supervisor.socket)
        case Token.handshakes:
          for what in try sockets.beats.handshakes.read() {
            options.logger.warning("refused at the heartbeat socket: \(what)")
          }
        default: collect(item.token - Token.firstChild, at: now)
        }
      }
      try carryOut()
      if getpid() == 1 { collectOrphans() }
    }
    _ = onTick()
  }

  /// The first process of a container inherits the children of whoever dies before them: a slave's master, say.
  private func collectOrphans() {
    while case let pid = tinysns_dead_child(), pid > 0,
      !processes.indices.contains(where: { processes[$0].child?.pid == pid })
    {
      waitpid(pid, nil, WNOHANG)
    }
  }

  private mutating func receive(at now: Instant) throws(ZMQError) {
    while true {
      switch try sockets.beats.receive() {
      case .nothing: return
      case .garbage(_, let what): options.logger.warning("bad input on the heartbeat socket: \(what)")
      case .message(let peer):
        do throws(WireError) {
          let request = try sockets.beats.payload.withBytes { bytes throws(WireError) in
            try Wire.decodeSupervisorRequest(bytes)
          }
          switch request {
          case .beat(let beat): core.onBeat(beat, at: now, into: &actions)
          case .status(let number):
            _ = try? sockets.beats.send(Wire.encode(.status(number: number, core.status(at: now))), to: peer)
          }
        } catch {
          sockets.beats.shutOutPeer(peer)
          options.logger.warning("bad input on the heartbeat socket: a message is \(error.explanation)")
        }
      }
    }
  }

  /// A process descriptor is readable: the child is gone.
  private mutating func collect(_ index: Int, at now: Instant) {
    guard let (hasEnded, code, signal, isChild) = processes[index].child?.collect(),
      let pid = processes[index].child?.pid, hasEnded || !isChild
    else { return }
    poller.remove(token: Token.firstChild + index)
    processes[index].child = nil
    let exit: ChildExit = !isChild ? .unknown : signal != 0 ? .signalled(signal) : .exited(code)
    core.onDeath(options.children[index].command.name, pid: pid, exit, at: now, into: &actions)
  }

  private mutating func carryOut() throws(ZMQError) {
    while !actions.isEmpty {
      let orders = actions
      actions.removeAll(keepingCapacity: true)
      for order in orders { try carryOut(order, at: Clock.now()) }
    }
  }

  private func index(of name: String) -> Int {
    options.children.firstIndex { $0.command.name == name }!
  }

  private mutating func carryOut(_ action: SupervisorAction, at now: Instant) throws(ZMQError) {
    switch action {
    case .look(let name):
      if let child = ChildProcess.find(name, in: options.folder) {
        let pid = child.pid
        try watch(child, at: index(of: name))
        core.onFound(name, pid: pid, at: now, into: &actions)
      } else {
        core.onNotFound(name, deadFor: options.folder.timeSinceDeath(of: name), at: now, into: &actions)
      }
    case .spawn(let name):
      let index = index(of: name)
      let child: ChildProcess
      do throws(NodeError) {
        child = try ChildProcess.spawn(options.children[index].command, in: options.folder)
      } catch {
        core.onSpawnFailed(name, error.description, at: now, into: &actions)
        return
      }
      let pid = child.pid
      try watch(child, at: index)
      core.onSpawned(name, pid: pid, at: now, into: &actions)
    case .kill(let name): processes[index(of: name)].child?.send(signal: SIGKILL)
    case .terminate(let name): processes[index(of: name)].child?.send(signal: SIGTERM)
    case .inspect(let name):
      let index = index(of: name)
      guard processes[index].child?.isStopped() == true, let pid = processes[index].child?.pid,
        options.holdsTurn(pid)
      else { return }
      core.onBlocking(name, pid: pid, at: now, into: &actions)
    case .record(let name): options.folder.recordDeath(of: name)
    case .forget(let name): options.folder.forgetDeath(of: name)
    case .note(let note): options.logger.log(level: note.level, "\(note.text)")
    case .exit: hasExited = true
    }
  }

  private mutating func watch(_ child: consuming ChildProcess, at index: Int) throws(ZMQError) {
    try poller.add(fileDescriptor: child.descriptor, token: Token.firstChild + index, interest: .readable)
    processes[index].child = consume child
  }
}

extension SupervisorNote {
  var level: Logger.Level {
    switch self {
    case .spawned, .adopted, .stopped: return .info
    case .crashed, .foundDead, .hung, .blocking, .killedAtStop: return .warning
    case .spawnFailed: return .error
    }
  }

  var text: String {
    switch self {
    case .spawned(let name, let pid): return "started \(name) as process \(pid)"
    case .adopted(let name, let pid): return "found \(name) running as process \(pid), and watches it"
    case .crashed(let name, let pid, let exit, let delay):
      return "\(name) (process \(pid)) crashed: \(exit.text); starting it again in \(seconds(delay))"
    case .foundDead(let name, let delay):
      return "\(name) is dead since before this process began; starting it again in \(seconds(delay))"
    case .hung(let name, let pid, let silence):
      return "\(name) (process \(pid)) hangs: silent for \(seconds(silence)); killing it"
    case .blocking(let name, let pid):
      return "\(name) (process \(pid)) is frozen while it holds the log's turn; killing it"
    case .stopped(let name, let pid): return "\(name) (process \(pid)) stopped"
    case .killedAtStop(let name, let pid): return "\(name) (process \(pid)) did not stop in time; killing it"
    case .spawnFailed(let name, let reason, let delay):
      return "can't start \(name): \(reason); trying again in \(seconds(delay))"
    }
  }
}

extension ChildExit {
  var text: String {
    switch self {
    case .exited(let code): return "exit code \(code)"
    case .signalled(let number): return "signal \(number) (\(String(cString: strsignal(number))))"
    case .unknown: return "gone"
    }
  }
}

/// "25 s", "0.5 s".
func seconds(_ interval: Interval) -> String {
  let tenths = (interval.milliseconds + 50) / 100
  return tenths % 10 == 0 ? "\(tenths / 10) s" : "\(tenths / 10).\(tenths % 10) s"
}
