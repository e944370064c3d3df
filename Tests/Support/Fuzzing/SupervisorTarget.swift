// A supervisor's core under any beats, deaths and failures.

import Core
import Model
import Wire

extension FuzzTarget {
  static let supervisor = FuzzTarget(
    "core-supervisor",
    "a supervisor whose children may say anything and die anyhow: never two of one name, never killed but what runs, always an end",
    inputBytesMax: 8_192, tokens: protobufTokens
  ) { random in
    coreSeed(&random, stepKinds: FuzzedSupervisor.stepKinds) { generator, kind in
      kind == 0 ? Wire.encode(generator.supervisorRequest()) : nil
    }
  } body: { input throws(Finding) in
    var supervisor = FuzzedSupervisor(input)
    try supervisor.run()
  }
}

private struct FuzzedSupervisor {
  static let stepKinds = 10
  private static let stepsMax = 300
  private static let names = ["master-1", "router"]

  /// What the shell is to do about a child; in the order in which it was asked.
  private enum Duty { case look(String), spawn(String), inspect(String) }

  private var draw: Draw
  private var core: SupervisorCore
  private var now = Instant(nanoseconds: 10_000_000_000)
  private var planned: Instant?
  private var duties: [Duty] = []
  private var running: [String: Int32] = [:]
  private var lastPID: Int32 = 100
  private var hasExited = false
  private var isStopping = false
  private var wakesAtOnce = 0

  init(_ input: [UInt8]) {
    draw = Draw(input)
    core = SupervisorCore(
      name: "slave-1", pid: 77, timing: Timing(),
      children: [
        "master-1": ChildPolicy(
          respawn: .after(.seconds(25)), beats: true, hangTimeout: .seconds(5), grace: .seconds(1), takesTurns: true),
        "router": ChildPolicy(
          respawn: .backoff(initial: .milliseconds(500), max: .seconds(10)), beats: true, hangTimeout: .seconds(5),
          grace: .seconds(1)),
      ])
  }

  mutating func run() throws(Finding) {
    try turn { core, _, actions in core.start(into: &actions) }
    var steps = 0
    while !draw.isAtEnd, !hasExited, steps < Self.stepsMax {
      try step()
      steps += 1
    }
    // Told to stop, it ends: whatever does not by itself is killed.
    if !hasExited { try stop() }
    var rounds = 0
    while !hasExited {
      while !duties.isEmpty { try carryOut(duties.removeFirst(), succeeding: true) }
      try pass(.seconds(3))
      rounds += 1
      try hold(rounds < 20, "does not end")
    }
    try hold(running.isEmpty, "ends while \(running.keys.sorted()) run")
  }

  private mutating func step() throws(Finding) {
    let name = Self.names[draw.below(Self.names.count)]
    switch draw.below(Self.stepKinds) {
    case 0:
      _ = draw.byte()
      guard let request = try? Wire.decodeSupervisorRequest(draw.chunk()) else { return }
      guard case .beat(let beat) = request else { return }
      try turn { $0.onBeat(beat, at: $1, into: &$2) }
    case 1, 2:
      let pid = draw.below(4) == 0 ? max(1, Int32(truncatingIfNeeded: draw.number())) : running[name] ?? 5
      let beat = ChildBeat(name: name, pid: pid, incarnation: Incarnation(draw.number()), commitAge: draw.number32())
      try turn { $0.onBeat(beat, at: $1, into: &$2) }
    case 3, 4:
      if !duties.isEmpty { try carryOut(duties.removeFirst(), succeeding: draw.below(4) != 0) }
    case 5:
      guard let pid = running[name] else { return }
      try die(name, pid)
    case 6:
      // Somebody else's death, or one long ago.
      let pid = Int32(draw.byte())
      guard running[name] != pid else { return }
      try turn { $0.onDeath(name, pid: pid, .unknown, at: $1, into: &$2) }
    case 7, 8: try pass(.milliseconds(Int64(draw.number() % 40_000)))
    default:
      if draw.below(32) == 0 { try stop() } else if draw.below(8) == 0 { try turn { $0.restart(at: $1, into: &$2) } }
    }
    let status = core.status(at: now)
    let reply = SupervisorReply.status(number: 1, status)
    try hold(
      (try? Wire.decodeSupervisorReply(Wire.encode(reply))) == reply, "a status that nobody understands: \(status)")
  }

  private mutating func stop() throws(Finding) {
    isStopping = true
    try turn { $0.stop(at: $1, into: &$2) }
  }

  private mutating func die(_ name: String, _ pid: Int32) throws(Finding) {
    running[name] = nil
    let exit: ChildExit = draw.flag() ? .exited(1) : .signalled(9)
    try turn { $0.onDeath(name, pid: pid, exit, at: $1, into: &$2) }
  }

  private mutating func carryOut(_ duty: Duty, succeeding: Bool) throws(Finding) {
    switch duty {
    case .look(let name):
      if let pid = running[name] {
        try turn { $0.onFound(name, pid: pid, at: $1, into: &$2) }
      } else if !succeeding {
        lastPID += 1
        let pid = lastPID
        running[name] = pid
        try turn { $0.onFound(name, pid: pid, at: $1, into: &$2) }
      } else {
        let deadFor: Interval? = draw.flag() ? .milliseconds(Int64(bitPattern: draw.number()) >> 24) : nil
        try turn { $0.onNotFound(name, deadFor: deadFor, at: $1, into: &$2) }
      }
    case .spawn(let name):
      try hold(running[name] == nil, "\(name) is started while it runs")
      guard succeeding else { return try turn { $0.onSpawnFailed(name, "no memory", at: $1, into: &$2) } }
      lastPID += 1
      let pid = lastPID
      running[name] = pid
      try turn { $0.onSpawned(name, pid: pid, at: $1, into: &$2) }
    case .inspect(let name):
      guard let pid = running[name], !succeeding else { return }
      try turn { $0.onBlocking(name, pid: pid, at: $1, into: &$2) }
    }
  }

  private mutating func turn(_ body: (inout SupervisorCore, Instant, inout [SupervisorAction]) -> Void) throws(Finding)
  {
    guard !hasExited else { return }
    var actions: [SupervisorAction] = []
    core.onTimers(at: now, planned: planned, into: &actions)
    body(&core, now, &actions)
    planned = core.nextWake
    for action in actions {
      try hold(!hasExited, "\(action) after exit")
      switch action {
      case .look(let name): duties.append(.look(name))
      case .spawn(let name): duties.append(.spawn(name))
      case .inspect(let name): duties.append(.inspect(name))
      case .kill(let name):
        guard let pid = running[name] else { throw Finding("\(name) is to be killed and does not run") }
        try die(name, pid)
      case .terminate(let name): try hold(running[name] != nil, "\(name) is told to stop and does not run")
      case .record, .forget, .note: break
      case .exit:
        try hold(isStopping, "exits by itself")
        hasExited = true
      }
    }
    // Two things may be due at once: the shell comes again for the other, and that is enough.
    guard let planned, planned <= now, !hasExited else { return }
    wakesAtOnce += 1
    defer { wakesAtOnce -= 1 }
    try hold(wakesAtOnce < 8, "would be woken at once, again and again")
    try turn { _, _, _ in }
  }

  private mutating func pass(_ interval: Interval) throws(Finding) {
    let end = now + interval
    var wakes = 0
    while !hasExited, let wake = planned, wake <= end {
      now = max(now, wake)
      try turn { _, _, _ in }
      wakes += 1
      try hold(wakes < 20_000, "woken 20,000 times in \(interval)")
    }
    now = end
  }
}
