// Supervision: a slave watches its master with it, the launcher watches the router, the slaves and the demo clients.

import OrderedCollections
public import Model

/// How a child is supervised.
public struct ChildPolicy: Hashable, Sendable {
  public enum Respawn: Hashable, Sendable {
    /// Always so long after the death.
    case after(Interval)
    /// At first so long after it; twice as long each time it dies young, up to `max`.
    case backoff(initial: Interval, max: Interval)
  }

  public var respawn: Respawn
  /// Whether it sends beats; if not, only its death is noticed.
  public var beats: Bool
  /// Silence after which it is killed.
  public var hangTimeout: Interval
  /// How long it has to stop when told to; then it is killed.
  public var grace: Interval
  /// Whether it takes turns at the log. One that the kernel has stopped in its turn does not get the whole `hangTimeout`.
  public var takesTurns: Bool

  public init(
    respawn: Respawn, beats: Bool, hangTimeout: Interval, grace: Interval, takesTurns: Bool = false
  ) {
    self.respawn = respawn
    self.beats = beats
    self.hangTimeout = hangTimeout
    self.grace = grace
    self.takesTurns = takesTurns
  }
}

/// How a process ended.
public enum ChildExit: Hashable, Sendable {
  case exited(Int32)
  case signalled(Int32)
  /// It was adopted, not spawned here, so nobody tells.
  case unknown
}

/// An order to a supervisor's shell.
public enum SupervisorAction: Hashable, Sendable {
  /// Look whether the child runs already (its lock is held): answer with `onFound` or `onNotFound`.
  case look(String)
  /// Start it: answer with `onSpawned` or `onSpawnFailed`.
  case spawn(String)
  case kill(String)
  case terminate(String)
  /// See whether the kernel has stopped the process while it holds the log's turn; if so call `onBlocking`. Asked regularly, and must
  /// cost little.
  case inspect(String)
  /// Write down, where it outlives this supervisor, that the child has just died: `onNotFound` of the next life is told.
  case record(String)
  /// Forget what was written down.
  case forget(String)
  case note(SupervisorNote)
  /// All children are gone: the process may end.
  case exit
}

/// Something worth a line in a supervisor's log.
public enum SupervisorNote: Hashable, Sendable {
  case spawned(String, pid: Int32)
  case adopted(String, pid: Int32)
  case crashed(String, pid: Int32, ChildExit, respawnIn: Interval)
  /// An earlier life of this supervisor saw it die, and did not live to start it again.
  case foundDead(String, respawnIn: Interval)
  case hung(String, pid: Int32, silence: Interval)
  /// Stopped by a signal while it holds the log's turn: nobody else can commit.
  case blocking(String, pid: Int32)
  case stopped(String, pid: Int32)
  case killedAtStop(String, pid: Int32)
  case spawnFailed(String, String, retryIn: Interval)
}

/// The logic of slave and launcher. Whatever it does not start it adopts; it never starts what runs.
public struct SupervisorCore: Sendable {
  enum Phase: Hashable, Sendable {
    /// The shell is looking whether it runs.
    case looking
    case running(pid: Int32)
    /// Killed; it is not gone before the kernel says so.
    case dying(pid: Int32)
    case waiting(until: Instant)
    case stopping(pid: Int32, killAt: Instant)
    case stopped
  }

  struct Child: Sendable {
    var policy: ChildPolicy
    var phase: Phase
    /// The last sign of life, or the start.
    var lastBeat: Instant
    var hasBeaten = false
    /// Its time is over, and what waits in the socket is heard before it is killed: who was away oneself may wake just then.
    var doubtedUntil: Instant?
    var startedAt = Instant.zero
    var isAdopted = false
    /// When to look next whether it blocks the log.
    var inspectAt = Instant.distantFuture
    /// It was seen blocking at the last look, and at the one before.
    var isBlocking = false
    var wasBlocking = false
    var youngDeaths: Int64 = 0
    /// It was told to stop in order to be started again.
    var comesBackAtOnce = false
    /// It ran under this supervisor before.
    var hasRun = false
    var respawns: UInt32 = 0
  }

  let name: String
  let pid: Int32
  let timing: Timing
  var children: OrderedDictionary<String, Child>
  var isStopping = false
  var hasExited = false
  var absence: AbsenceMeter

  public init(
    name: String, pid: Int32, timing: Timing, children: KeyValuePairs<String, ChildPolicy>
  ) {
    self.init(name: name, pid: pid, timing: timing, children: Array(children))
  }

  public init(name: String, pid: Int32, timing: Timing, children: [(key: String, value: ChildPolicy)]) {
    self.name = name
    self.pid = pid
    self.timing = timing
    self.children = [:]
    for (name, policy) in children {
      self.children[name] = Child(policy: policy, phase: .looking, lastBeat: .zero)
    }
    absence = AbsenceMeter(tolerance: timing.heartbeat)
  }

  /// The next point in time at which `onTimers` has something to do.
  public var nextWake: Instant? {
    var earliest = Instant.distantFuture
    for child in children.values {
      switch child.phase {
      case .looking, .stopped, .dying: break
      case .running:
        guard child.policy.beats else { continue }
        earliest = min(earliest, child.doubtedUntil ?? hangAt(child), child.inspectAt)
        // Whoever sleeps for long does not notice that it was frozen meanwhile.
        earliest = min(earliest, (absence.lastTurn ?? child.startedAt) + timing.liveness)
      case .waiting(let until): earliest = min(earliest, until)
      case .stopping(_, let killAt): earliest = min(earliest, killAt)
      }
    }
    return earliest == .distantFuture ? nil : earliest
  }

  /// A process that has not beaten yet is starting, and may take longer.
  private func hangAt(_ child: Child) -> Instant {
    child.lastBeat + (child.hasBeaten ? child.policy.hangTimeout : child.policy.hangTimeout * 3)
  }

  // MARK: Life

  public mutating func start(into actions: inout [SupervisorAction]) {
    for name in children.keys { actions.append(.look(name)) }
  }

  /// Stops all children gracefully, then ends.
  public mutating func stop(at now: Instant, into actions: inout [SupervisorAction]) {
    guard !isStopping else { return }
    isStopping = true
    for (name, child) in children {
      switch child.phase {
      case .running(let pid):
        children[name]!.phase = .stopping(pid: pid, killAt: now + child.policy.grace)
        actions.append(.terminate(name))
      case .waiting:
        children[name]!.phase = .stopped
        forget(name, into: &actions)
      case .looking, .dying, .stopping, .stopped: break
      }
    }
    exitIfDone(into: &actions)
  }

  /// Stops the children that are servers, and starts each again as soon as it is gone; what waits for its start is started now.
  public mutating func restart(at now: Instant, into actions: inout [SupervisorAction]) {
    guard !isStopping else { return }
    for (name, child) in children where child.policy.beats {
      switch child.phase {
      case .running(let pid):
        children[name]!.phase = .stopping(pid: pid, killAt: now + child.policy.grace)
        children[name]!.comesBackAtOnce = true
        actions.append(.terminate(name))
      case .waiting:
        children[name]!.phase = .looking
        forget(name, into: &actions)
        actions.append(.look(name))
      case .looking, .dying, .stopping, .stopped: break
      }
    }
  }

  private mutating func exitIfDone(into actions: inout [SupervisorAction]) {
    guard isStopping, !hasExited, children.values.allSatisfy({ $0.phase == .stopped }) else { return }
    hasExited = true
    actions.append(.exit)
  }

  /// Deadlines that have come, before anything that arrived is handled; `planned` is the wake-up planned before.
  public mutating func onTimers(at now: Instant, planned: Instant?, into actions: inout [SupervisorAction]) {
    let away = absence.turn(at: now, planned: planned)
    for (name, child) in children {
      switch child.phase {
      case .looking, .stopped, .dying: break
      case .running(let pid):
        guard child.policy.beats else { continue }
        if away > .zero {
          // Beats may be waiting behind this: the silence was one's own. And who could not connect meanwhile needs time for that.
          let silence = hangAt(child) - child.lastBeat
          children[name]!.lastBeat = max(child.lastBeat + away, now + timing.liveness - silence)
          children[name]!.doubtedUntil = nil
          children[name]!.wasBlocking = false
          children[name]!.isBlocking = false
          if child.policy.takesTurns { children[name]!.inspectAt = now.next(inspectionInterval) }
          continue
        }
        if let doubtedUntil = child.doubtedUntil, doubtedUntil <= now {
          children[name]!.phase = .dying(pid: pid)
          actions.append(.note(.hung(name, pid: pid, silence: now - child.lastBeat)))
          actions.append(.kill(name))
          continue
        }
        if child.doubtedUntil == nil, hangAt(child) <= now { children[name]!.doubtedUntil = now + Self.lastLook }
        if child.inspectAt <= now {
          children[name]!.inspectAt = now.next(inspectionInterval)
          children[name]!.wasBlocking = child.isBlocking
          children[name]!.isBlocking = false
          actions.append(.inspect(name))
        }
      case .waiting(let until):
        // Looked for first: somebody else may have started it meanwhile.
        if until <= now {
          children[name]!.phase = .looking
          actions.append(.look(name))
        }
      case .stopping(let pid, let killAt):
        if killAt <= now {
          children[name]!.phase = .dying(pid: pid)
          actions.append(.note(.killedAtStop(name, pid: pid)))
          actions.append(.kill(name))
        }
      }
    }
  }

  // MARK: What happens to a child

  /// It runs already, started by somebody else or by an earlier life of this supervisor.
  public mutating func onFound(_ name: String, pid: Int32, at now: Instant, into actions: inout [SupervisorAction]) {
    guard let child = children[name], child.phase == .looking else { return }
    if isStopping {
      children[name]!.phase = .stopping(pid: pid, killAt: now + child.policy.grace)
      actions.append(.terminate(name))
      return
    }
    run(name, pid: pid, at: now)
    children[name]!.isAdopted = true
    actions.append(.note(.adopted(name, pid: pid)))
  }

  /// It does not run. `deadFor`: how long ago an earlier life of this supervisor wrote down its death, if one did. Its wait goes
  /// on then, instead of beginning anew or being forgotten.
  public mutating func onNotFound(
    _ name: String, deadFor: Interval? = nil, at now: Instant, into actions: inout [SupervisorAction]
  ) {
    guard let child = children[name], child.phase == .looking else { return }
    if isStopping {
      children[name]!.phase = .stopped
      forget(name, into: &actions)
      exitIfDone(into: &actions)
    } else if !child.hasRun, case .after(let delay) = child.policy.respawn, let deadFor, deadFor < delay {
      // The wall clock tells how long ago it was, and may have been set back.
      let rest = min(delay, delay - deadFor)
      children[name]!.phase = .waiting(until: now + rest)
      actions.append(.note(.foundDead(name, respawnIn: rest)))
    } else {
      actions.append(.spawn(name))
    }
  }

  /// Only a long wait is worth remembering.
  private func forget(_ name: String, into actions: inout [SupervisorAction]) {
    if case .after = children[name]!.policy.respawn { actions.append(.forget(name)) }
  }

  public mutating func onSpawned(_ name: String, pid: Int32, at now: Instant, into actions: inout [SupervisorAction]) {
    guard let child = children[name] else { return }
    actions.append(.note(.spawned(name, pid: pid)))
    if child.hasRun { children[name]!.respawns += 1 }
    run(name, pid: pid, at: now)
    children[name]!.isAdopted = false
    forget(name, into: &actions)
    guard isStopping else { return }
    // Told to stop while the spawn was under way.
    children[name]!.phase = .stopping(pid: pid, killAt: now + child.policy.grace)
    actions.append(.terminate(name))
  }

  private mutating func run(_ name: String, pid: Int32, at now: Instant) {
    children[name]!.phase = .running(pid: pid)
    children[name]!.hasRun = true
    children[name]!.lastBeat = now
    children[name]!.startedAt = now
    children[name]!.hasBeaten = false
    children[name]!.doubtedUntil = nil
    children[name]!.inspectAt = children[name]!.policy.takesTurns ? now.next(inspectionInterval) : .distantFuture
    children[name]!.isBlocking = false
    children[name]!.wasBlocking = false
  }

  /// Between the end of a child's time and its end.
  private static let lastLook = Interval.milliseconds(1)

  private var inspectionInterval: Interval { timing.heartbeat * 3 }

  public mutating func onSpawnFailed(
    _ name: String, _ reason: String, at now: Instant, into actions: inout [SupervisorAction]
  ) {
    guard children[name] != nil else { return }
    guard !isStopping else {
      children[name]!.phase = .stopped
      exitIfDone(into: &actions)
      return
    }
    let delay = delay(name, livedLong: false)
    children[name]!.phase = .waiting(until: now + delay)
    actions.append(.note(.spawnFailed(name, reason, retryIn: delay)))
  }

  /// The kernel says that the process is gone.
  public mutating func onDeath(
    _ name: String, pid: Int32, _ exit: ChildExit, at now: Instant, into actions: inout [SupervisorAction]
  ) {
    guard let child = children[name] else { return }
    switch child.phase {
    case .running(let known), .dying(let known), .stopping(let known, _):
      guard known == pid else { return }
    case .looking, .waiting, .stopped: return
    }
    if isStopping {
      children[name]!.phase = .stopped
      actions.append(.note(.stopped(name, pid: pid)))
      exitIfDone(into: &actions)
      return
    }
    if child.comesBackAtOnce {
      children[name]!.comesBackAtOnce = false
      children[name]!.phase = .looking
      actions.append(.note(.stopped(name, pid: pid)))
      actions.append(.look(name))
      return
    }
    let delay = delay(name, livedLong: livedLong(child, at: now))
    children[name]!.phase = .waiting(until: now + delay)
    if case .after = child.policy.respawn { actions.append(.record(name)) }
    actions.append(.note(.crashed(name, pid: pid, exit, respawnIn: delay)))
  }

  private func livedLong(_ child: Child, at now: Instant) -> Bool {
    guard case .backoff(_, let longest) = child.policy.respawn else { return false }
    return now - child.startedAt > longest
  }

  private mutating func delay(_ name: String, livedLong: Bool) -> Interval {
    switch children[name]!.policy.respawn {
    case .after(let delay): return delay
    case .backoff(let initial, let longest):
      let deaths = livedLong ? 0 : children[name]!.youngDeaths
      children[name]!.youngDeaths = deaths + 1
      return min(longest, initial * (1 << min(deaths, 16)))
    }
  }

  /// A child's sign of life.
  public mutating func onBeat(_ beat: ChildBeat, at now: Instant, into actions: inout [SupervisorAction]) {
    guard let child = children[beat.name], case .running(let pid) = child.phase, pid == beat.pid else { return }
    // A disk that hangs is as bad as a loop that hangs: such a beat is no sign of life.
    guard Int64(beat.commitAge) <= child.policy.hangTimeout.milliseconds else { return }
    children[beat.name]!.lastBeat = now
    children[beat.name]!.hasBeaten = true
    children[beat.name]!.doubtedUntil = nil
    children[beat.name]!.isBlocking = false
    children[beat.name]!.wasBlocking = false
  }

  /// The kernel has stopped the process while it holds the log's turn. That is no matter of a busy machine, and nobody can
  /// commit meanwhile: it does not get the whole `hangTimeout`, but two heartbeats to go on.
  public mutating func onBlocking(
    _ name: String, pid: Int32, at now: Instant, into actions: inout [SupervisorAction]
  ) {
    guard let child = children[name], child.phase == .running(pid: pid) else { return }
    guard child.wasBlocking else {
      children[name]!.isBlocking = true
      children[name]!.inspectAt = now + timing.heartbeat * 2
      return
    }
    children[name]!.phase = .dying(pid: pid)
    actions.append(.note(.blocking(name, pid: pid)))
    actions.append(.kill(name))
  }

  // MARK: Status

  public func status(at now: Instant) -> SupervisorStatus {
    SupervisorStatus(
      name: name, pid: pid,
      children: children.map { name, child in
        var status = ChildStatus(name: name, pid: 0, state: .stopped, respawnIn: 0, respawns: child.respawns)
        switch child.phase {
        case .looking, .stopped: break
        case .running(let pid): (status.pid, status.state) = (pid, .running)
        case .dying(let pid): (status.pid, status.state) = (pid, .dying)
        case .stopping(let pid, _): (status.pid, status.state) = (pid, .stopping)
        case .waiting(let until):
          status.state = .waiting
          status.respawnIn = UInt32(clamping: max(0, (until - now).milliseconds))
        }
        return status
      })
  }
}
