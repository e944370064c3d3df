// The simulated shell of a slave and of a launcher.

import Core
import Model
import Wire

final class SupervisorProcess: Process {
  static func address(of name: String) -> String { "ipc://\(name)" }

  private var core: SupervisorCore
  private var actions: [SupervisorAction] = []
  private var next = 0
  private let children: [(key: String, value: ChildPolicy)]
  /// Who supervises this one; nobody supervises a launcher.
  private let superior: String?
  private var superiorLink: Link?
  private var nextBeat = Instant.distantFuture
  /// The processes that are watched, by the child's name.
  private(set) var watched: [String: Process] = [:]
  private var isTerminated = false
  /// When the core heard of deaths.
  private var noticed: [String: Instant] = [:]

  init(
    world: World, name: String, host: Int, pid: Int32, superior: String?, children: [(key: String, value: ChildPolicy)]
  ) {
    self.children = children
    self.superior = superior
    core = SupervisorCore(name: name, pid: pid, timing: world.settings.timing, children: children)
    super.init(world: world, name: name, host: host, pid: pid)
  }

  override func start() {
    world.network.listen(self, on: Self.address(of: name))
    if superior == nil {
      // As `tinysns up` does: whoever starts a cluster wants it now.
      for (slave, _) in children where world.locks[slave] == nil {
        world.deaths["master-" + slave.dropFirst("slave-".count)] = nil
        world.checkers.processes.onWantedNow("master-" + slave.dropFirst("slave-".count))
      }
    }
    if let superior {
      superiorLink = world.network.dial(.supervision, from: self, to: Self.address(of: superior))
      nextBeat = clock
    }
    core.start(into: &actions)
    finishActions()
    planNext()
  }

  override var nextWake: Instant? {
    let earliest = min(peek(&core) { $0.nextWake } ?? .distantFuture, nextBeat)
    return earliest == .distantFuture ? nil : earliest
  }

  override func terminate() {
    enqueue(
      .callback { [self] in
        core.stop(at: clock, into: &actions)
        // A graceful stop reaches what is watched, too.
      })
  }

  override func onTimers(at now: Instant, planned: Instant?) {
    let planned = world.defect == .takeOwnAbsenceForSilence ? nil : planned
    core.onTimers(at: now, planned: planned, into: &actions)
    if nextBeat <= now {
      nextBeat = now.next(world.settings.timing.supervisionBeat)
      let beat = ChildBeat(name: name, pid: pid, incarnation: incarnation, commitAge: 0)
      if let superiorLink { world.network.send(Wire.encode(SupervisorRequest.beat(beat)), on: superiorLink) }
    }
  }

  override func handle(_ input: Input, at now: Instant) {
    switch input {
    case .callback(let body): body()
    case .lost: break
    case .frame(let frame, _):
      guard
        let request = world.decoded({ () throws(WireError) in
          try Wire.decodeSupervisorRequest(frame.bytes)
        })
      else { return }
      if case .beat(let beat) = request { core.onBeat(beat, at: now, into: &actions) }
    }
  }

  override func abandon() {
    super.abandon()
    superiorLink = nil
    watched = [:]
  }

  override func endTurn(at now: Instant) { finishActions() }

  override func finishActions() {
    while next < actions.count {
      guard mayAct() else { return }
      let action = actions[next]
      next += 1
      carryOut(action)
    }
    actions.removeAll(keepingCapacity: true)
    next = 0
  }

  private func carryOut(_ action: SupervisorAction) {
    switch action {
    case .look(let child):
      if let running = world.locks[child],
        world.defect != .respawnWithoutKilling || running.life != .frozen
      {
        watch(running, as: child)
        core.onFound(child, pid: running.pid, at: clock, into: &actions)
      } else {
        var deadFor = world.deaths[child].map { world.now - $0 }
        if world.defect == .forgetTheDeath { deadFor = nil }
        core.onNotFound(child, deadFor: deadFor, at: clock, into: &actions)
      }
    case .spawn(let child):
      world.checkers.processes.onSpawn(child, by: self)
      let process = world.spawn(child, on: host, supervisor: name)
      watch(process, as: child)
      core.onSpawned(child, pid: process.pid, at: clock, into: &actions)
    case .kill(let child):
      guard let process = watched[child], process.life != .dead else { return }
      if world.defect == .respawnWithoutKilling {
        watched[child] = nil
        core.onDeath(child, pid: process.pid, .unknown, at: clock, into: &actions)
        return
      }
      world.checkers.processes.onKill(process, by: self, isStopping: isStoppingChild(child))
      world.note([self, process], 21, Int(process.pid)) { "kills it" }
      world.kill(process)
    case .terminate(let child):
      guard let process = watched[child], process.life != .dead else { return }
      world.note([self, process], 22, Int(process.pid)) { "tells it to stop" }
      world.terminate(process)
    case .inspect(let child):
      // What /proc says: stopped, and the lock is its own.
      guard let process = watched[child], process.life == .frozen, world.disk.holder === process else { return }
      core.onBlocking(child, pid: process.pid, at: clock, into: &actions)
    case .record(let child):
      world.deaths[child] = world.now
      // From when its core knew: it may have been frozen since.
      world.checkers.processes.onDeath(child, at: noticed[child] ?? world.now)
    case .forget(let child):
      world.deaths[child] = nil
    case .note(let note):
      switch note {
      case .hung: world.meet(.hungAndKilled)
      case .blocking: world.meet(.killedForHoldingTheTurn)
      case .foundDead: world.meet(.waitOutlivedItsSlave)
      default: break
      }
      world.note([self], 20, 0) { note.told }
      world.witness?(name, note.told)
      if case .killedAtStop(let child, _) = note { stopping.insert(child) }
      if case .hung(let child, let pid, let silence) = note {
        world.checkers.processes.onHung(child, pid: pid, silence: silence, by: self)
      }
    case .exit:
      world.exit(self)
    }
  }

  private var stopping: Set<String> = []
  private func isStoppingChild(_ child: String) -> Bool { stopping.contains(child) }

  private func watch(_ process: Process, as child: String) {
    watched[child] = process
    process.onDeath.append { [weak self] process in
      guard let self, life != .dead else { return }
      onThreadSafe { [weak self] in
        guard let self else { return }
        noticed[child] = world.now
        core.onDeath(child, pid: process.pid, .unknown, at: clock, into: &actions)
      }
    }
  }

  /// The kernel says so: it is read at a turn, also if the process is frozen now.
  private func onThreadSafe(_ body: @escaping () -> Void) {
    world.after(.microseconds(Int64(50 + world.random.below(500)))) { [weak self] in
      guard let self, life != .dead else { return }
      enqueue(.callback(body))
    }
  }
}
