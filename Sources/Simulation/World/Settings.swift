// What a run is like: all of it drawn from the seed.

import Model

/// The kinds of faults.
enum FaultKind: Int, CaseIterable {
  case kill, killWhileActing, killBeforeAcknowledging, freeze, freezeWhileActing, freezeBeforeAcknowledging, slow
  case killSeveral, freezeSeveral, killHost, freezeHost, killEverything
  case terminateMaster
  case disconnect, partition, partitionOneWay, isolateHost, congestion
  case diskStall, diskFull, diskErrors, powerCut
  case killClient, freezeClient, slowClient, storm, reconnectStorm, visitors, garbage
}

/// The dimensions of a run.
struct Settings {
  struct Network {
    /// Between hosts; within one, an eighth.
    var latency: Interval
    var jitter: Interval
    /// Whether each link has a latency and a jitter of its own, around these.
    var differs: Bool
    /// What a message from one master to the others takes longer: a master that somebody comes to knows less than the one he came from.
    var meshLag = Interval.zero
    /// Updates queued for a subscriber; then they are dropped.
    var updatesQueued: Int
    /// Replies queued for a peer; then it counts as unreachable.
    var repliesQueued: Int
  }

  struct DiskTimes {
    var commit: ClosedRange<Interval>
    var read: ClosedRange<Interval>
    var indexEvery: Interval
    /// Events read at a time.
    var readEvents: Int
  }

  var masters: Int
  /// Hosts of the cluster; clients are on one more.
  var hosts: Int
  var users: Int
  var clients: Int
  var timing: Timing
  var assignment: Assignment
  var usesFreshPorts: Bool
  /// How long faults are injected.
  var stormy: Interval
  var network: Network
  var disk: DiskTimes
  var turnCost: ClosedRange<Interval>
  /// What it takes to hash a password.
  var passwordCost: ClosedRange<Interval>
  /// From one fault to the next, on average.
  var faultEvery: Interval
  var faults: [FaultKind]
  /// From one of a person's requests to the next, on average.
  var requestEvery: Interval
  /// From one intruder to the next, on average; zero: none come.
  var intrudeEvery = Interval.zero
  /// How many of a hundred requests are about passwords and logouts.
  var changesPercent = 0
  /// How many of a hundred requests are sent twice.
  var repeatsPercent: Int

  /// What each of the hosts' wall clocks is ahead of the true time, in milliseconds.
  var skews: [Int64]

  /// The calm world of a scenario, with the default times.
  init(masters: Int, hosts: Int, assignment: Assignment) {
    self.masters = masters
    self.hosts = hosts
    self.assignment = assignment
    users = 0
    clients = 0
    timing = Timing()
    usesFreshPorts = false
    stormy = .zero
    network = Network(
      latency: .microseconds(500), jitter: .microseconds(20), differs: false, updatesQueued: 1_000, repliesQueued: 4_096
    )
    disk = DiskTimes(
      commit: .milliseconds(1) ... .milliseconds(2), read: .microseconds(100) ... .microseconds(200),
      indexEvery: .seconds(1), readEvents: Limits.readEvents)
    turnCost = .microseconds(10) ... .microseconds(20)
    passwordCost = .milliseconds(15) ... .milliseconds(25)
    faultEvery = .seconds(1)
    faults = []
    requestEvery = .seconds(1)
    repeatsPercent = 0
    skews = Array(repeating: 0, count: hosts + 1)
  }

  init(random: inout SplitMix64) {
    masters = random.int(2...5)
    hosts = random.percent(50) ? 1 : random.int(2...3)
    // A crowd now and then.
    users = random.percent(4) ? random.int(10...People.names.count) : random.int(2...6)
    clients = users + random.below(5)
    let heartbeat = Interval.milliseconds([100, 100, 150, 200][random.below(4)])
    timing = Timing(
      heartbeat: heartbeat, liveness: heartbeat * 5,
      hangTimeout: .milliseconds([2_000, 3_000, 5_000][random.below(3)]),
      respawnDelay: .milliseconds([500, 2_000, 5_000, 25_000][random.below(4)]),
      requestTimeout: .milliseconds([1_000, 2_000][random.below(2)]))
    assignment = random.percent(30) ? .spread : .available
    usesFreshPorts = random.percent(40)
    stormy = .seconds(Int64(random.int(8...40)))
    network = Network(
      latency: .microseconds(Int64(random.int(40...3_000))),
      jitter: .microseconds(Int64([50, 500, 5_000][random.below(3)])), differs: random.percent(70),
      updatesQueued: [4, 16, 1_000][random.below(3)], repliesQueued: [64, 4_096][random.below(2)])
    let slowest = Int64([1, 5, 25][random.below(3)])
    disk = DiskTimes(
      commit: .microseconds(200) ... .milliseconds(slowest), read: .microseconds(50) ... .milliseconds(slowest),
      indexEvery: .milliseconds(Int64(random.int(500...8_000))), readEvents: random.percent(30) ? 7 : Limits.readEvents)
    turnCost = .microseconds(10) ... .microseconds([60, 400][random.below(2)])
    faultEvery = .milliseconds([200, 600, 1_500, 4_000, 8_000][random.below(5)])
    // Each run has its own mix: some faults often, others never.
    var enabled: [FaultKind] = []
    for kind in FaultKind.allCases {
      for _ in 0..<[0, 0, 1, 1, 2, 5][random.below(6)] { enabled.append(kind) }
    }
    faults = enabled
    requestEvery = .milliseconds([100, 300, 1_000, 2_500][random.below(4)])
    repeatsPercent = random.percent(25) ? 5 : 0
    skews = []
    for _ in 0...hosts { skews.append(Int64(random.int(-2_000...2_000))) }
    passwordCost = .milliseconds(1) ... .milliseconds([2, 30, 90][random.below(3)])
    if random.percent(60) { intrudeEvery = .seconds(Int64(random.int(2...8))) }
    if random.percent(50) { changesPercent = random.int(1...3) }
    if random.percent(20) { network.meshLag = .milliseconds(Int64(random.int(20...400))) }
  }
}
