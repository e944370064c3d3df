// A supervisor core in a shell with pretended processes, that fails at every order that makes no sense.

import Core
import Model
import Testing

/// A supervisor under test. What it holds the core to: nothing is spawned that was not looked for, or that runs; nothing is
/// killed or told to stop that does not run; `exit` comes once, and last, when nothing runs.
final class TestSupervisor {
  private(set) var core: SupervisorCore
  var now = Instant(nanoseconds: 10_000_000_000)
  private(set) var planned: Instant?
  let timing = Timing()

  private(set) var actions: [SupervisorAction] = []
  private(set) var notes: [SupervisorNote] = []
  /// The processes that live, by child.
  private(set) var processes: [String: Int32] = [:]
  private(set) var spawns: [(name: String, at: Instant)] = []
  private(set) var kills: [String] = []
  private(set) var terminations: [String] = []
  private(set) var inspections = 0
  private(set) var hasExited = false

  /// Looks and spawns stay unanswered until the test answers them.
  var holdsLooks = false
  var holdsSpawns = false
  var failsSpawns = false
  /// A terminated process ends at once; else when the test says so.
  var obeys = true
  /// A killed process is gone at once; else when the test says so.
  var diesAtOnce = true
  /// Children that beat by themselves as time passes.
  var beating: Set<String> = []

  /// What is written down of deaths; a next life may be given it.
  var deaths: [String: Instant] = [:]

  private var looked: Set<String> = []
  private var nextPid: Int32 = 100

  static let slavePolicy = ChildPolicy(
    respawn: .after(.seconds(25)), beats: true, hangTimeout: .seconds(5), grace: .seconds(3), takesTurns: true)
  static let launcherPolicy = ChildPolicy(
    respawn: .backoff(initial: .milliseconds(500), max: .seconds(30)), beats: true, hangTimeout: .seconds(5),
    grace: .seconds(3))

  init(_ children: [(key: String, value: ChildPolicy)] = [("master-1", slavePolicy)]) {
    core = SupervisorCore(name: "slave-1", pid: 9, timing: timing, children: children)
  }

  /// One whose children run and beat.
  static func running(
    _ children: [(key: String, value: ChildPolicy)] = [("master-1", slavePolicy)]
  ) -> TestSupervisor {
    let supervisor = TestSupervisor(children)
    supervisor.start()
    for (name, policy) in children where policy.beats { supervisor.beating.insert(name) }
    supervisor.pass(.milliseconds(200))
    return supervisor
  }

  func start() { turn { core, _, actions in core.start(into: &actions) } }

  func stop() { turn { $0.stop(at: $1, into: &$2) } }

  func turn(_ body: (inout SupervisorCore, Instant, inout [SupervisorAction]) -> Void = { _, _, _ in }) {
    #expect(!hasExited, "a turn after exit")
    actions = []
    core.onTimers(at: now, planned: planned, into: &actions)
    body(&core, now, &actions)
    let orders = actions
    planned = core.nextWake
    if let planned { #expect(planned > now, "the core would be woken at once, again and again") }
    for action in orders { carryOut(action) }
  }

  func pass(_ interval: Interval) {
    let end = now + interval
    var nextBeat = now + timing.heartbeat
    while !hasExited {
      let next = min(planned ?? .distantFuture, beating.isEmpty ? .distantFuture : nextBeat)
      guard next <= end else { break }
      now = max(now, next)
      if now >= nextBeat {
        nextBeat = now + timing.heartbeat
        for name in beating.sorted() { beat(name) }
      } else {
        turn()
      }
    }
    now = end
  }

  func beat(_ name: String, pid: Int32? = nil, commitAge: UInt32 = 0) {
    guard let pid = pid ?? processes[name] else { return }
    turn {
      $0.onBeat(
        ChildBeat(name: name, pid: pid, incarnation: Incarnation(1), commitAge: commitAge), at: $1, into: &$2)
    }
  }

  /// An inspection finds that it is stopped in the log's turn.
  func blocks(_ name: String = "master-1", pid: Int32 = 101) {
    turn { $0.onBlocking(name, pid: pid, at: $1, into: &$2) }
  }

  /// Somebody else has started it.
  func pretend(_ name: String, runsAs pid: Int32) { processes[name] = pid }

  func die(_ name: String, _ exit: ChildExit = .signalled(9)) {
    guard let pid = processes.removeValue(forKey: name) else { return }
    beating.remove(name)
    turn { $0.onDeath(name, pid: pid, exit, at: $1, into: &$2) }
  }

  func answerLook(_ name: String) {
    if let pid = processes[name] {
      turn { $0.onFound(name, pid: pid, at: $1, into: &$2) }
    } else {
      let deadFor = deaths[name].map { now - $0 }
      turn { $0.onNotFound(name, deadFor: deadFor, at: $1, into: &$2) }
    }
  }

  func answerSpawn(_ name: String) {
    if failsSpawns {
      turn { $0.onSpawnFailed(name, "no such file", at: $1, into: &$2) }
    } else {
      nextPid += 1
      processes[name] = nextPid
      turn { $0.onSpawned(name, pid: self.nextPid, at: $1, into: &$2) }
    }
  }

  func status(_ name: String) -> ChildStatus { core.status(at: now).children.first { $0.name == name }! }

  private func carryOut(_ action: SupervisorAction) {
    #expect(!hasExited, "an order after exit: \(action)")
    switch action {
    case .look(let name):
      looked.insert(name)
      if !holdsLooks { answerLook(name) }
    case .spawn(let name):
      #expect(processes[name] == nil, "two under one name: \(name) runs")
      #expect(looked.remove(name) != nil, "\(name) is spawned without a look whether it runs")
      spawns.append((name, now))
      if !holdsSpawns { answerSpawn(name) }
    case .kill(let name):
      #expect(processes[name] != nil, "\(name) is killed and does not run")
      kills.append(name)
      if diesAtOnce { die(name) }
    case .terminate(let name):
      #expect(processes[name] != nil, "\(name) is told to stop and does not run")
      #expect(!terminations.contains(name), "told to stop twice")
      terminations.append(name)
      if obeys { die(name, .exited(0)) }
    case .inspect(let name):
      #expect(processes[name] != nil)
      inspections += 1
    case .record(let name):
      #expect(processes[name] == nil, "\(name) is said to be dead and runs")
      deaths[name] = now
    case .forget(let name): deaths[name] = nil
    case .note(let note): notes.append(note)
    case .exit:
      #expect(processes.isEmpty, "exit while a child runs")
      hasExited = true
    }
  }
}
