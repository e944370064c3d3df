// The simulated world: the clock, what is to happen, and all that there is.

import Core
import Log
import Model
import Wire

/// What went wrong.
public struct Violation: Sendable {
  /// The rule that was broken.
  public var invariant: String
  /// What was seen.
  public var message: String
  /// The step of the run at which it was seen.
  public var step: Int
  public var time: Instant
  /// The processes concerned.
  public var parties: [String]
}

/// One run's world. Single-threaded and deterministic: nothing in it depends on the machine, the time or a hash's seed.
final class World {
  let settings: Settings
  let defect: Defect?
  private(set) var now = Instant.zero
  private(set) var step = 0
  var queue = EventQueue()
  var trace: Trace
  var random: SplitMix64
  private(set) var network: Network!
  private(set) var disk: Disk!
  private(set) var checkers: Checkers!
  /// Who holds the lock of each name: the processes that run.
  private(set) var locks: [String: Process] = [:]
  /// Living processes in the order of their start.
  private(set) var processes: [Process] = []
  /// And the dead.
  private(set) var everyProcess: [Process] = []
  private(set) var violation: Violation?
  private(set) var situations = Situations()
  /// What supervisors have written down of deaths; it outlives them.
  var deaths: [String: Instant] = [:]
  /// When somebody was last told to wait with his password.
  var attemptsRefused = Instant.zero
  private var lastPid: Int32 = 100
  private var strangers = 0
  private var frozenInTheChair: Set<Int32> = []
  private var hostOfName: [String: Int] = [:]
  /// What clients have put by, to log in with after their death.
  var savedTokens: [String: SessionToken] = [:]
  /// All that were ever given.
  var everyToken: [SessionToken] = []
  /// Is told in prose what processes say; for scenarios.
  var witness: ((String, String) -> Void)?
  /// Decides when a launcher or a client is started again.
  var onUnsupervisedDeath: ((Process) -> Void)?

  init(settings: Settings, defect: Defect?, random: SplitMix64, trace: Trace) {
    self.settings = settings
    self.defect = defect
    self.trace = trace
    var random = random
    let networkRandom = SplitMix64(seed: random.next())
    let diskRandom = SplitMix64(seed: random.next())
    self.random = random
    network = Network(world: self, hosts: settings.hosts + 1, random: networkRandom)
    disk = Disk(world: self, random: diskRandom)
    checkers = Checkers(world: self)
  }

  /// Where the clients are.
  var clientHost: Int { settings.hosts }

  /// A host's wall clock.
  func wall(ofHost host: Int) -> Timestamp {
    Timestamp(milliseconds: 1_700_000_000_000 + now.nanoseconds / 1_000_000 + settings.skews[host])
  }

  // MARK: Time

  func at(_ time: Instant, _ body: @escaping () -> Void) { queue.push(.call(body), at: max(time, now)) }
  func after(_ interval: Interval, _ body: @escaping () -> Void) { queue.push(.call(body), at: now + interval) }

  /// Lets happen what is next, if it is before `end`; false if there is nothing.
  func stepOnce(until end: Instant) -> Bool {
    guard violation == nil, let (time, happening) = queue.pop() else { return false }
    if time > end {
      queue.push(happening, at: time)
      return false
    }
    now = time
    step += 1
    switch happening {
    case .turn(let process): process.turn()
    case .arrival(let frame): network.arrive(frame)
    case .call(let body): body()
    }
    return true
  }

  /// Runs until `end`, or until `isDone` (looked at now and then).
  func run(until end: Instant, isDone: (() -> Bool)? = nil) {
    let lookEvery = Interval.milliseconds(100)
    while violation == nil, now < end {
      let target = isDone == nil ? end : min(end, now + lookEvery)
      while stepOnce(until: target) {}
      if violation != nil { return }
      now = target
      if let isDone, isDone() { return }
    }
  }

  // MARK: What is seen

  func meet(_ situation: Situation) { situations.meet(situation) }

  /// Something worth a line of the trace; the numbers go into its hash.
  func note(_ parties: [Process], _ kind: UInt64, _ value: Int = 0, _ text: () -> String) {
    trace.mix(now, kind, Int(parties.first?.pid ?? 0), value)
    if trace.keepsText { trace.write(step, now, parties.map(\.name), text()) }
  }

  func fail(_ invariant: String, _ message: String, _ parties: [Process]) {
    guard violation == nil else { return }
    violation = Violation(
      invariant: invariant, message: message, step: step, time: now, parties: parties.map(\.name))
    if trace.keepsText { trace.write(step, now, parties.map(\.name), "VIOLATION of \"\(invariant)\": \(message)") }
  }

  /// Every frame in the simulation was encoded by our own encoder, so our decoder must read it.
  func decoded<Message>(_ decode: () throws(WireError) -> Message) -> Message? {
    do throws(WireError) { return try decode() } catch {
      fail("what is encoded can be decoded", error.explanation, [])
      return nil
    }
  }

  /// Tells the checkers of events that have become durable.
  func observeLog() {
    let known = Int(checkers.model.head.rawValue)
    let durable = disk.memory.durable
    if durable.count < known { checkers.log.onLost(known - durable.count) }
    guard durable.count > known else { return }
    for event in durable[known...] {
      trace.mix(now, 0x10, Int(event.id.rawValue))
      if trace.keepsText { trace.write(step, now, ["log"], "event \(event.id): \(event.change)") }
      checkers.log.onDurable(event)
    }
  }

  // MARK: Processes

  func host(ofAddress address: String) -> Int? {
    let name = address.drop { $0 != "/" }.dropFirst(2).prefix { $0 != ":" && $0 != "/" }
    return hostOfName[String(name)]
  }

  private func nextPid() -> Int32 {
    lastPid += 1
    return lastPid
  }

  /// Fork and exec of one of the cluster's roles. A moment later the process takes its name's lock, or ends.
  func spawn(_ name: String, on host: Int, supervisor: String) -> Process {
    let pid = nextPid()
    let process: Process
    if name == "router" {
      if everyProcess.contains(where: { $0.name == name }) { meet(.routerRestarted) }
      process = RouterProcess(world: self, name: name, host: host, pid: pid, supervisor: supervisor)
    } else if name.hasPrefix("slave-") {
      let master = "master-" + name.dropFirst("slave-".count)
      hostOfName[master] = host
      let policy = ChildPolicy(
        respawn: .after(settings.timing.respawnDelay), beats: true, hangTimeout: settings.timing.hangTimeout,
        grace: .seconds(5), takesTurns: true)
      process = SupervisorProcess(
        world: self, name: name, host: host, pid: pid, superior: supervisor, children: [(key: master, value: policy)])
    } else {
      process = MasterProcess(world: self, name: name, host: host, pid: pid, supervisor: supervisor)
    }
    launch(process)
    return process
  }

  /// Starts a host's launcher, which starts or adopts the rest.
  @discardableResult
  func startLauncher(on host: Int) -> Process {
    var children: [(key: String, value: ChildPolicy)] = []
    let policy = ChildPolicy(
      respawn: .backoff(initial: .milliseconds(500), max: .seconds(10)), beats: true,
      hangTimeout: settings.timing.hangTimeout, grace: .seconds(10))
    if host == 0 { children.append((key: "router", value: policy)) }
    for number in 1...settings.masters where (number - 1) % settings.hosts == host {
      children.append((key: "slave-\(number)", value: policy))
    }
    if everyProcess.contains(where: { $0.name == launcherName(host) }) { meet(.launcherRestarted) }
    let process = SupervisorProcess(
      world: self, name: launcherName(host), host: host, pid: nextPid(), superior: nil, children: children)
    launch(process)
    return process
  }

  func launcherName(_ host: Int) -> String { settings.hosts == 1 ? "launcher" : "launcher-\(host + 1)" }

  @discardableResult
  func startClient(_ name: String, user: String, proof: Proof? = nil) -> ClientProcess {
    let process = ClientProcess(world: self, name: name, user: user, host: clientHost, pid: nextPid(), proof: proof)
    launch(process)
    return process
  }

  /// What a person logs in with: the newest that the log knows, or what a new name is registered with.
  func password(of user: String) -> Password {
    guard let account = checkers.model.accounts[user], let hash = checkers.model.credentials[account.index].hash else {
      return Password("the password of \(user)")
    }
    return SimulatedCrypto.password(of: hash)
  }

  /// Somebody who speaks another protocol.
  func startStranger(_ bytes: [[UInt8]], to address: String, _ kind: Link.Kind) {
    strangers += 1
    launch(
      StrangerProcess(
        world: self, name: "stranger-\(strangers)", host: clientHost, pid: nextPid(), bytes: bytes, address: address,
        kind: kind))
  }

  private func launch(_ process: Process) {
    processes.append(process)
    everyProcess.append(process)
    hostOfName[process.name] = process.host
    note([process], 50, Int(process.pid)) { "process \(process.pid) starts" }
    process.onThread(after: .milliseconds(Int64(random.int(2...40)))) { [self] in
      if let running = locks[process.name], running.life != .dead {
        note([process], 51, Int(process.pid)) { "\(running.pid) runs under this name already" }
        exit(process)
        return
      }
      locks[process.name] = process
      process.start()
    }
  }

  func kill(_ process: Process, withoutAWord: Bool = false) {
    guard process.life != .dead else { return }
    note([process], 52, Int(process.pid)) { "process \(process.pid) is dead" }
    if locks[process.name] === process { locks[process.name] = nil }
    processes.removeAll { $0 === process }
    network.died(process, withoutAWord: withoutAWord)
    process.die()
    if process is ClientProcess && !process.name.hasPrefix("visitor") || process.name.hasPrefix("launcher") {
      onUnsupervisedDeath?(process)
    }
  }

  func exit(_ process: Process) { kill(process) }

  func terminate(_ process: Process) { process.terminate() }

  func freeze(_ process: Process, for time: Interval) {
    guard process.life == .running else { return }
    note([process], 53, Int(process.pid)) { "is frozen" }
    if process is MasterProcess, available == process.name { frozenInTheChair.insert(process.pid) }
    process.freeze()
    after(time) { [self] in thaw(process) }
  }

  func thaw(_ process: Process) {
    guard process.life == .frozen else { return }
    note([process], 54, Int(process.pid)) { "thaws" }
    if frozenInTheChair.remove(process.pid) != nil, let available, available != process.name {
      meet(.thawedAfterItsSuccessorTookOver)
    }
    if disk.holder === process { disk.troubleUntil = now }
    process.thaw()
    disk.grant()
  }

  func slow(_ process: Process, for time: Interval) {
    guard process.life == .running, !process.isSlow else { return }
    note([process], 55, Int(process.pid)) { "becomes slow" }
    process.isSlow = true
    process.beginTrouble()
    after(time) { [self] in quicken(process) }
  }

  func quicken(_ process: Process) {
    guard process.isSlow, process.life != .dead else { return }
    process.isSlow = false
    process.endTrouble()
  }

  /// Who has the chair, as the router sees it.
  var available: String? { router?.core.status.masters.first { $0.state == .available }?.master.name }
  var masters: [MasterProcess] { processes.compactMap { $0 as? MasterProcess } }
  var clients: [ClientProcess] { processes.compactMap { $0 as? ClientProcess }.filter { !$0.isIntruder } }
  var router: RouterProcess? { locks["router"] as? RouterProcess }

  /// Undoes the references between processes and links, so that the world's memory is freed.
  func tearDown() {
    queue = EventQueue()
    for process in everyProcess { process.abandon() }
    network.tearDown()
    disk.onPowerCut = nil
    onUnsupervisedDeath = nil
    witness = nil
    locks = [:]
    processes = []
    everyProcess = []
  }
}
