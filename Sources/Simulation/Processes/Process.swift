// A simulated process: a loop that turns when something arrives or is due, and that can be killed, frozen and slowed down.

import Model

/// Reads something of a core without copying the core, which has many parts.
@inline(__always) func peek<Core, Value>(_ core: inout Core, _ body: (borrowing Core) -> Value) -> Value { body(core) }

/// What arrived at a process and waits for its loop's next turn.
enum Input {
  case frame(Frame, PeerID)
  /// A connection that the process dialled is lost, or could not be made.
  case lost(Link)
  /// Something that another thread of the process, or the kernel, has to say.
  case callback(() -> Void)
}

class Process {
  enum Life {
    case running, frozen, dead
  }

  /// Outlives all its processes; they count no references to it, because they look at it all the time.
  unowned(unsafe) let world: World
  let name: String
  let host: Int
  let pid: Int32
  let incarnation: Incarnation
  private(set) final var life = Life.running

  /// The process's own clock differs from everybody else's.
  private let clockOrigin: Interval
  private final var inbox: [Input] = []
  /// When the loop turns next; one of the scheduled turns is for that time.
  private final var turnAt: Instant?
  /// The wake-up that the loop planned, by its own clock.
  private final var planned: Instant?
  private final var busyUntil = Instant.zero
  /// What other threads were about to do when the process was frozen.
  private final var deferred: [() -> Void] = []

  // What goes wrong with it.
  private final var troubles = 0
  /// Since when nothing is wrong with the process itself; `.distantFuture` while something is.
  final var wellSince: Instant
  /// Since when its connection to the router stands, at least.
  final var reachableSince = Instant.zero
  final var isSlow = false
  /// When something for it last found no room in a PUB socket's queue.
  final var lossAt = Instant.zero
  /// After so many more actions, something happens to it.
  final var trap: (actions: Int, spring: () -> Void)?

  /// By the peer's number; connections at a ROUTER socket.
  final var peers: [PeerID: Link] = [:]
  final var subscribers: [Link] = []
  private final var lastPeer: UInt32 = 0
  final var onDeath: [(Process) -> Void] = []

  init(world: World, name: String, host: Int, pid: Int32) {
    self.world = world
    self.name = name
    self.host = host
    self.pid = pid
    // Real ones count from the machine's start; a host's wall clock is never set here, so that it orders them as well.
    incarnation = Incarnation(UInt64(world.wall(ofHost: host).milliseconds))
    clockOrigin = .microseconds(Int64(world.random.below(1_000_000_000)))
    wellSince = world.now
  }

  /// The process's monotonic clock.
  final var clock: Instant { world.now + clockOrigin }
  final var wall: Timestamp { world.wall(ofHost: host) }

  // MARK: To be overridden

  /// The process has been started.
  func start() {}
  /// Carries out what the loop had not done yet when it was frozen.
  func finishActions() {}
  func onTimers(at now: Instant, planned: Instant?) {}
  func handle(_ input: Input, at now: Instant) {}
  /// The end of a turn: carries out what the cores ordered.
  func endTurn(at now: Instant) {}
  var nextWake: Instant? { nil }
  /// A connection that this process dialled is lost, or could not be made.
  func onLinkLost(_ link: Link) {}
  /// SIGTERM.
  func terminate() { world.exit(self) }
  /// It has died; called once.
  func onDied() {}

  // MARK: The loop

  final func enqueue(_ input: Input) {
    inbox.append(input)
    wake(at: world.now)
  }

  private final func wake(at time: Instant) {
    guard life == .running else { return }
    let time = max(time, busyUntil)
    if let turnAt, turnAt <= time { return }
    turnAt = time
    world.queue.push(.turn(self), at: time)
  }

  /// A scheduled turn has come.
  final func turn() {
    guard life == .running, turnAt == world.now else { return }
    turnAt = nil
    let now = clock
    world.trace.mix(world.now, 0x7, Int(pid), inbox.count)
    finishActions()
    guard life == .running else { return }
    onTimers(at: now, planned: planned)
    let arrived = inbox
    inbox.removeAll(keepingCapacity: true)
    for input in arrived {
      if case .frame(let frame, _) = input { frame.link.read(frame) }
      handle(input, at: now)
    }
    endTurn(at: now)
    guard life == .running else { return }
    planNext()
  }

  final func planNext() {
    guard life == .running else { return }
    let cost = world.settings.turnCost
    busyUntil =
      world.now
      + (isSlow ? world.random.interval(.milliseconds(5) ... .milliseconds(120)) : world.random.interval(cost))
    planned = nextWake
    if !inbox.isEmpty { return wake(at: busyUntil) }
    guard let planned else { return }
    // Sleeping processes wake a little late.
    let late = Interval.microseconds(Int64(world.random.below(300)))
    wake(at: Instant(nanoseconds: max(world.now.nanoseconds, planned.nanoseconds - clockOrigin.nanoseconds)) + late)
  }

  /// Does something on another thread of this process, after a while.
  final func onThread(after delay: Interval, _ body: @escaping () -> Void) {
    world.after(isSlow ? delay * 4 : delay) { [self] in
      switch life {
      case .running: body()
      case .frozen: deferred.append(body)
      case .dead: break
      }
    }
  }

  /// Before each action: whether the process is still there to carry it out.
  final func mayAct() -> Bool {
    if let trap {
      self.trap?.actions -= 1
      if trap.actions <= 1 {
        self.trap = nil
        trap.spring()
      }
    }
    return life == .running
  }

  // MARK: Life and death

  final func freeze() {
    guard life == .running else { return }
    life = .frozen
    turnAt = nil
    beginTrouble()
  }

  final func thaw() {
    guard life == .frozen else { return }
    life = .running
    endTrouble()
    wake(at: world.now)
    let waiting = deferred
    deferred = []
    for body in waiting { onThread(after: .microseconds(10), body) }
  }

  final func die() {
    precondition(life != .dead)
    life = .dead
    turnAt = nil
    inbox = []
    deferred = []
    wellSince = .distantFuture
    onDied()
    for notify in onDeath { notify(self) }
    onDeath = []
    peers = [:]
    subscribers = []
  }

  /// The run is over.
  func abandon() {
    life = .dead
    inbox = []
    deferred = []
    onDeath = []
    peers = [:]
    subscribers = []
    trap = nil
  }

  final func beginTrouble() {
    troubles += 1
    wellSince = .distantFuture
  }

  final func endTrouble() {
    guard life != .dead else { return }
    troubles -= 1
    if troubles == 0 { wellSince = world.now }
  }

  // MARK: Connections that others dialled

  final func accept(_ link: Link) {
    lastPeer += 1
    link.peer = PeerID(lastPeer)
    peers[link.peer] = link
    // It may be here already, if this side has not learnt that the connection before was lost.
    if link.kind == .timelines || link.kind == .mesh, !subscribers.contains(where: { $0 === link }) {
      subscribers.append(link)
    }
  }

  /// This side learns that a peer is gone.
  final func forget(_ peer: PeerID, _ link: Link) {
    guard peers.removeValue(forKey: peer) != nil else { return }
    if link.peer == peer { subscribers.removeAll { $0 === link } }
  }
}
