// Injects faults: which, where, when and for how long is drawn from the seed.

import Core
import Log
import Model

final class FaultInjector {
  private unowned(unsafe) let world: World
  private unowned(unsafe) let people: People
  private var random: SplitMix64
  private(set) var injected = 0
  private var isActive = false

  init(world: World, people: People, random: SplitMix64) {
    self.world = world
    self.people = people
    self.random = random
  }

  func start() {
    isActive = true
    next()
  }

  private func next() {
    guard !world.settings.faults.isEmpty else { return }
    world.after(random.gap(around: world.settings.faultEvery)) { [self] in
      guard isActive else { return }
      if let kind = random.pick(world.settings.faults) {
        injected += 1
        inject(kind)
      }
      next()
    }
  }

  /// No more faults, and what they did is undone: everybody thaws, every way is open, the disk works.
  func heal() {
    isActive = false
    world.note([], 60) { "the faults end" }
    world.network.heal()
    world.disk.heal()
    for process in world.processes {
      process.trap = nil
      (process as? MasterProcess)?.beforeAcknowledging = nil
      world.thaw(process)
      world.quicken(process)
    }
  }

  // MARK: Targets

  private var servers: [Process] { world.processes.filter { !($0 is ClientProcess) } }

  /// Any server, masters and above all the available one more often than others.
  private func server() -> Process? {
    if random.percent(50) {
      if let available = world.available, random.percent(60), let process = world.locks[available] { return process }
      return random.pick(world.masters)
    }
    return random.pick(servers)
  }

  /// Whoever may be struck in the middle of what it does.
  private func actor() -> Process? {
    if random.percent(15), let client = random.pick(world.clients) { return client }
    return server()
  }

  /// A master, of which one that commits is struck just before its acknowledgement.
  private func committer() -> MasterProcess? {
    if random.percent(70), let available = world.available, let process = world.locks[available] as? MasterProcess {
      return process
    }
    return random.pick(world.masters)
  }

  private func several() -> [Process] {
    var candidates = servers
    var chosen: [Process] = []
    for _ in 0..<random.int(2...4) where !candidates.isEmpty {
      chosen.append(candidates.remove(at: random.below(candidates.count)))
    }
    return chosen
  }

  private func duration() -> Interval {
    switch random.below(4) {
    case 0: return random.interval(.milliseconds(10) ... .milliseconds(600))
    case 1: return random.interval(.milliseconds(300) ... .seconds(2))
    case 2: return random.interval(.seconds(1) ... .seconds(8))
    default: return random.interval(.seconds(3) ... .seconds(20))
    }
  }

  private func hosts() -> (Int, Int) {
    let count = world.settings.hosts + 1
    let one = random.below(count)
    return (one, (one + 1 + random.below(count - 1)) % count)
  }

  // MARK: Faults

  private func inject(_ kind: FaultKind) {
    world.note([], 61, kind.rawValue) { "fault: \(kind)" }
    switch kind {
    case .kill: if let process = server() { world.kill(process) }
    case .killWhileActing:
      if let process = actor() {
        process.trap = (
          random.int(1...30),
          { [world] in
            world.meet(.killedWhileActing)
            world.kill(process)
          }
        )
      }
    case .killBeforeAcknowledging:
      if let process = committer() {
        process.beforeAcknowledging = { [world] in
          world.meet(.killedBetweenCommitAndAcknowledgement)
          world.kill(process)
        }
      }
    case .freeze: if let process = server() { world.freeze(process, for: duration()) }
    case .freezeWhileActing:
      if let process = actor() {
        let time = duration()
        process.trap = (
          random.int(1...30),
          { [world] in
            world.meet(.frozenWhileActing)
            world.freeze(process, for: time)
          }
        )
      }
    case .freezeBeforeAcknowledging:
      if let process = committer() {
        let time = duration()
        process.beforeAcknowledging = { [world] in
          world.meet(.frozenBetweenCommitAndAcknowledgement)
          world.freeze(process, for: time)
        }
      }
    case .slow: if let process = server() { world.slow(process, for: duration()) }
    case .killSeveral:
      world.meet(.severalKilledAtOnce)
      for process in several() { world.kill(process) }
    case .freezeSeveral: for process in several() { world.freeze(process, for: duration()) }
    case .killHost:
      // All that runs there dies; or the machine does, and says goodbye to nobody.
      let host = random.below(world.settings.hosts)
      let losesPower = random.percent(50)
      world.meet(.hostLost)
      for process in world.processes where process.host == host { world.kill(process, withoutAWord: losesPower) }
    case .freezeHost:
      let host = random.below(world.settings.hosts)
      let time = duration()
      world.meet(.hostFrozen)
      for process in world.processes where process.host == host { world.freeze(process, for: time) }
    case .killEverything:
      world.meet(.everythingKilled)
      for process in servers { world.kill(process) }
    case .terminateMaster: if let process = random.pick(world.masters) { world.terminate(process) }
    case .disconnect: for _ in 0..<random.int(1...4) { world.network.cutOne() }
    case .partition:
      let (one, other) = hosts()
      world.meet(.twoWayPartition)
      block([(one, other), (other, one)])
    case .partitionOneWay:
      world.meet(.oneWayPartition)
      block([hosts()])
    case .isolateHost:
      world.meet(.hostCutOff)
      let host = random.below(world.settings.hosts + 1)
      let others = (0...world.settings.hosts).filter { $0 != host }
      block(others.map { ($0, host) } + others.map { (host, $0) })
    case .congestion:
      world.network.isCongested = true
      world.after(duration()) { [world] in
        if world.network.isCongested {
          world.network.isCongested = false
          world.network.congestionEnded = world.now
        }
      }
    case .diskStall: world.disk.stalledUntil = max(world.disk.stalledUntil, world.now + duration())
    case .diskFull:
      world.disk.fill(leaving: random.below(3))
      world.after(duration()) { [world] in world.disk.heal() }
    case .diskErrors:
      world.disk.memory.fail(.failed("input/output error"), times: random.int(1...4))
      world.disk.troubleUntil = max(world.disk.troubleUntil, world.now)
    case .powerCut:
      // The log's host goes, and with it everything on it; here that is the whole cluster.
      let cut = { [self] in
        world.disk.cutPower()
        for process in servers { world.kill(process, withoutAWord: true) }
      }
      if random.percent(30) { return cut() }
      // Just while something is written.
      let share = Int64(random.below(100))
      world.disk.onPowerCut = { [world] in
        world.after(world.settings.disk.commit.lowerBound * share / 100, cut)
      }
      world.disk.isCutDuringAppend = true
    case .killClient: if let client = random.pick(world.clients) { world.kill(client) }
    case .freezeClient: if let client = random.pick(world.clients) { world.freeze(client, for: duration()) }
    case .slowClient:
      if let client = random.pick(world.clients) {
        world.meet(.slowReader)
        world.slow(client, for: duration())
      }
    case .reconnectStorm:
      world.meet(.everybodyReconnected)
      world.network.cutSessions()
    case .visitors:
      world.meet(.visitorsCame)
      people.sendVisitors(random.int(3...25))
    case .garbage:
      for _ in 0..<random.int(1...3) { throwGarbage() }
    case .storm:
      // Now and then more than a client may have under way.
      let most = random.percent(3) ? Limits.requestsInFlight + 100 : 60
      for client in world.clients where random.percent(most > 60 ? 15 : 50) {
        for number in 0..<random.int(5...most) {
          client.submit(
            .post(text: "storm \(number) at \(world.now.nanoseconds) by \(client.pid)"), within: .seconds(20))
        }
      }
    }
  }

  /// To the router's port or one of a master's.
  private func throwGarbage() {
    var messages: [[UInt8]] = []
    for _ in 0..<random.int(1...4) {
      let length = random.percent(10) ? Limits.requestBytes + 1 : random.below(200)
      messages.append((0..<length).map { _ in UInt8(random.below(256)) })
    }
    if random.percent(40) { return world.startStranger(messages, to: RouterProcess.address, .clientRouter) }
    guard let master = random.pick(world.masters) else { return }
    if random.percent(50) {
      world.startStranger(messages, to: master.registration.requests, .session)
    } else {
      world.startStranger(messages, to: master.registration.timelines, .timelines)
    }
  }

  private func block(_ ways: [(Int, Int)]) {
    for (from, to) in ways { world.network.block(from, to) }
    world.after(duration()) { [world] in for (from, to) in ways { world.network.unblock(from, to) } }
  }
}
