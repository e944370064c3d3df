// One run: first safety under faults, then liveness without them.

import Core
public import Model

/// Runs of the simulated cluster.
public enum Simulation {
  /// How a run is to be made.
  public struct Options: Sendable {
    /// Keep the trace as text (many times slower).
    public var trace = false
    /// Lines of the trace that are kept for the report.
    public var traceLimit = 20_000
    package var defect: Defect?
    package init(trace: Bool, defect: Defect?) {
      self.trace = trace
      self.defect = defect
    }
    public init(trace: Bool = false) { self.trace = trace }
  }

  /// A run with a seed. The same seed gives the same run on every machine.
  ///
  /// - Parameter print: called with each line of the trace, if that is asked for.
  public static func run(
    seed: UInt64, options: Options = Options(), print: ((String) -> Void)? = nil
  ) -> SimulationResult {
    let run = Run(seed: seed, options: options, print: print)
    defer { run.world.tearDown() }
    run.go()
    return run.result
  }
}

/// What a run came to.
public struct SimulationResult: Sendable {
  public var seed: UInt64
  /// Covers every step and every byte sent.
  public var traceHash: UInt64
  /// Nil if all went as it must.
  public var violation: Violation?
  /// The time that passed in the simulated world.
  public var simulated: Interval
  public var steps: Int
  public var faults: Int
  /// Events in the log at the end.
  public var events: Int
  /// Posts that were shown in watched timelines.
  public var delivered: Int
  public var answered: Int
  package var situations: Situations
  /// The trace's last lines about the parties concerned, if it was kept.
  public var lastEvents: [String]
}

final class Run {
  let seed: UInt64
  let world: World
  private let faults: FaultInjector
  private let people: People
  private var random: SplitMix64

  init(seed: UInt64, options: Simulation.Options, print: ((String) -> Void)?) {
    self.seed = seed
    var random = SplitMix64(seed: seed)
    let settings = Settings(random: &random)
    var trace = Trace(keepsText: options.trace, limit: options.traceLimit)
    trace.print = print
    world = World(settings: settings, defect: options.defect, random: SplitMix64(seed: random.next()), trace: trace)
    people = People(world: world, random: SplitMix64(seed: random.next()))
    faults = FaultInjector(world: world, people: people, random: SplitMix64(seed: random.next()))
    self.random = random
  }

  func go() {
    world.onUnsupervisedDeath = { [unowned self] process in restart(process) }
    for host in 0..<world.settings.hosts { world.startLauncher(on: host) }
    people.start()
    // The cluster comes up undisturbed in most runs.
    if random.percent(80) { world.run(until: .zero + .seconds(2)) }
    faults.start()
    storm()
    guard world.violation == nil else { return }
    faults.heal()
    people.stop()
    converge()
    guard world.violation == nil else { return }
    greet()
  }

  /// Launchers are started again by hand, and so are clients.
  private func restart(_ process: Process) {
    let pause = random.interval(.milliseconds(200) ... .seconds(3))
    if let client = process as? ClientProcess {
      guard !client.isIntruder else { return }
      let cursor = client.watches.compactMap { client.core.cursor(of: $0) }.first ?? .zero
      world.after(pause) { [unowned self] in people.restart(client.name, user: client.user, after: cursor) }
    } else {
      let host = process.host
      world.after(pause) { [unowned self] in
        if world.locks[world.launcherName(host)] == nil { world.startLauncher(on: host) }
      }
    }
  }

  // MARK: Safety, under faults

  private func storm() {
    let end = world.now + world.settings.stormy
    world.run(until: end) { [unowned self] in
      look()
      return false
    }
  }

  private func look() {
    for client in world.clients { world.checkers.requests.onLook(client) }
  }

  // MARK: Liveness, without faults

  /// How long a healed cluster may take until everything is as it should be.
  private var bound: Interval {
    // A master may just have died: its slave may have to be started again and to find out, and waits before the respawn.
    world.settings.timing.respawnDelay + world.settings.timing.hangTimeout * 6 + .seconds(20)
  }

  /// How much longer, where a crowd has used up the attempts at an account whose password has changed: each of its clients may have to
  /// wait for one to be refused and one to be let in.
  private var boundOfLogins: Interval {
    Limits.attemptsPerNameEvery * Int64(2 * world.settings.clients)
  }

  private func converge() {
    let healed = world.now
    for bound in [bound, bound + boundOfLogins] {
      world.run(until: healed + bound) { [unowned self] in
        look()
        return whatIsMissing() == nil
      }
      guard world.violation == nil else { return }
      guard let missing = whatIsMissing() else { break }
      if bound > self.bound || world.attemptsRefused < healed || whatIsMissingOfServers() != nil {
        return world.fail("a healed cluster converges", "after \(bound.milliseconds) ms: \(missing)", partiesMissing())
      }
    }
    // What has converged stays so.
    world.run(until: world.now + .seconds(2)) { [unowned self] in
      look()
      return false
    }
    guard world.violation == nil else { return }
    if let missing = whatIsMissing() {
      return world.fail("a healed cluster converges", "and then: \(missing)", partiesMissing())
    }
    checkRest()
  }

  private func checkRest() {
    for master in world.masters { world.checkers.log.onRest(master) }
    world.checkers.requests.onRest()
  }

  private func partiesMissing() -> [Process] {
    world.clients.filter { !$0.core.isServing || !$0.asked.isEmpty } + [world.router].compactMap { $0 }
  }

  /// What is not yet as it is in a healthy cluster at rest.
  private func whatIsMissing() -> String? { whatIsMissingOfServers() ?? whatIsMissingOfClients() }

  private func whatIsMissingOfServers() -> String? {
    guard let router = world.router else { return "no router" }
    let status = router.core.status.masters
    for number in 1...world.settings.masters {
      let name = "master-\(number)"
      guard let master = world.locks[name] as? MasterProcess else { return "\(name) does not run" }
      guard let known = status.first(where: { $0.master == master.identity }), known.state != .down else {
        return "the router has lost \(name)"
      }
      guard master.core.head == world.checkers.model.head else {
        return "\(name) is at \(master.core.head) of \(world.checkers.model.head)"
      }
    }
    if world.settings.assignment == .available {
      let available = status.filter { $0.state == .available }
      if available.count != 1 { return "\(available.count) masters have the chair" }
    }
    return nil
  }

  private func whatIsMissingOfClients() -> String? {
    if world.clients.count != world.settings.clients { return "clients are missing" }
    for client in world.clients {
      if !client.core.isServing { return "\(client.name) has no master" }
      // Else it is about to find out, and may have to log in with another password.
      guard world.masters.contains(where: { $0.core.hasSession(of: client.core.client) }) else {
        return "\(client.name) has no session, and does not know it"
      }
      if !client.asked.isEmpty { return "\(client.name) waits for an answer" }
    }
    if let link = world.network.firstUnnoticed {
      return "\(link.dialer.name) believes in a connection (\(link.kind)) that is gone"
    }
    return world.checkers.timelines.firstBehind()
  }

  /// Everybody posts, thrice: all is answered, and pushed at once to all who watch.
  private func greet() {
    world.checkers.timelines.promptFrom = world.now
    for _ in 0..<3 where world.violation == nil {
      var refused: String?
      for client in world.clients {
        client.onFinish = { [unowned client] asked, outcome in
          if case .reply(.done(_)) = outcome { return }
          refused = "\(client.name): \(asked.body) ended with \(outcome)"
        }
        client.submit(.post(text: "greeting \(world.now.nanoseconds) by \(client.name)"), within: .seconds(3))
        // One after the other, so that nobody's queue is full.
        world.run(until: world.now + .milliseconds(60))
      }
      world.run(until: world.now + .milliseconds(1_300)) { [unowned self] in
        look()
        return false
      }
      for client in world.clients { client.onFinish = nil }
      guard world.violation == nil else { return }
      if let refused { return world.fail("a calm cluster serves", refused, []) }
    }
    if let missing = whatIsMissing() { return world.fail("a calm cluster serves", missing, partiesMissing()) }
    checkRest()
  }

  var result: SimulationResult {
    SimulationResult(
      seed: seed, traceHash: world.trace.hash.value, violation: world.violation, simulated: world.now - .zero,
      steps: world.step, faults: faults.injected, events: world.checkers.model.events.count,
      delivered: world.checkers.timelines.delivered, answered: world.checkers.requests.answered,
      situations: world.situations,
      lastEvents: world.violation.map { world.trace.last(40, about: $0.parties) } ?? [])
  }
}
