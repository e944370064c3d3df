// `tinysns bench compare`: ours and its peer's figures in turn in one run, several times; writes BENCHMARKS.md.

import ArgumentParser
import Foundation
import Model
import Node
import Runtime
import Topology

struct BenchCompare: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare",
    abstract: "Measure the service and its peers in turn, several times, and write the table of BENCHMARKS.md.",
    discussion: """
      Peers: libzmq's sockets alone, Redis and NATS, each if it is installed. Loads, receivers, message sizes, connections and \
      windows are the same for all. Every other round goes through ours and the peers in the opposite order.
      """)
  @Option(help: "Rounds; medians are told.") var runs = 3
  @Option(help: "Seconds of each measurement.") var seconds = 5.0
  @Option(help: "The file to write; its text above the first table is kept.", completion: .file()) var output =
    "BENCHMARKS.md"
  @Option(help: "Only these: fanout, post, latency, security, timeline, failover, start, storm, idle.") var only:
    [String] = []
  @Option(help: "Where clusters and peers keep their files.") var folder: String?
  @Option(help: "Posts in the long log.") var posts = 1_000_000
  @Option(help: "Kills of the failover benchmark.") var kills = 100

  func validate() throws {
    guard runs > 0 else { throw ValidationError("--runs: at least 1") }
    guard seconds > 0 else { throw ValidationError("--seconds: more than 0") }
    guard posts >= 10_000 else { throw ValidationError("--posts: at least 10000, with which a long log is compared") }
    guard kills > 0 else { throw ValidationError("--kills: at least 1") }
  }

  func run() throws {
    var comparison = Comparison(
      runs: runs, seconds: seconds, folder: folder ?? FileManager.default.temporaryDirectory.path, posts: posts,
      kills: kills)
    try comparison.measure(only.isEmpty ? Comparison.parts : only)
    try comparison.write(to: output)
    Progress.clear()
    Terminal.print(comparison.table())
  }
}

/// All figures by name, and the table made of them.
struct Comparison {
  static let parts = ["fanout", "post", "latency", "security", "timeline", "failover", "start", "storm", "idle"]

  /// A case of the fan-out benchmark: how many watch, and how many posts are under way.
  private struct FanOut: Equatable {
    let watchers: Int
    var inFlight = 10

    /// What its figures' names begin with.
    var name: String { inFlight == 10 ? "fanout \(watchers)" : "fanout \(watchers) in_flight=\(inFlight)" }
  }

  /// The one that has goals. What has goals is measured once more in a round, in another minute and in the opposite order.
  private static let fanOutWithGoals = FanOut(watchers: 1_000)
  private static let fanOuts = [
    FanOut(watchers: 100), fanOutWithGoals, FanOut(watchers: 1_000, inFlight: 50), FanOut(watchers: 5_000),
  ]

  /// How many posts are in flight where there are goals.
  private static let postsWithGoals = [50, 800]

  let runs: Int
  let seconds: Double
  let folder: String
  let posts: Int
  let kills: Int
  private var figures: [String: [Double]] = [:]
  private var missing: [String] = []
  /// Measures what is compared in the opposite order: what the machine can do changes with what it has just done.
  private var isReversed = false
  private let began = Date()

  init(runs: Int, seconds: Double, folder: String, posts: Int, kills: Int) {
    self.runs = runs
    self.seconds = seconds
    self.folder = folder
    self.posts = posts
    self.kills = kills
  }

  private mutating func note(_ name: String, _ value: Double) {
    figures[name, default: []].append(value)
    Progress.clear()
    Terminal.write("\(name): \(BenchLine.short(value))\n", to: STDERR_FILENO)
  }

  /// A part of a run that fails is left out of the table, and says so.
  private mutating func attempt(_ what: String, _ body: (inout Comparison) throws -> Void) {
    do { try body(&self) } catch {
      Progress.clear()
      Terminal.complain("\(what): \(Failure(error).message)")
      missing.append("\(what): \(Failure(error).message)")
    }
  }

  private typealias Measurement = (what: String, measure: (inout Comparison) throws -> Void)

  /// What is compared with each other, in this round's order.
  private mutating func inTurn(_ measurements: [Measurement]) {
    for (what, measure) in isReversed ? measurements.reversed() : measurements { attempt(what, measure) }
  }

  mutating func measure(_ parts: [String]) throws {
    for part in parts where !Self.parts.contains(part) { throw Failure("there is no part \(part)") }
    for (name, path) in [("Redis", Peer.redisPath), ("NATS", Peer.natsPath)] where path == nil {
      Terminal.complain("\(name) is not installed: left out")
      missing.append("\(name) is not installed")
    }
    Terminal.write(
      "About \(Int((estimate(parts) / 60).rounded(.up))) minutes.\n", to: STDERR_FILENO)
    for round in 1...runs {
      isReversed = round % 2 == 0
      measure(parts, fanOuts: Self.fanOuts, posts: [1] + Self.postsWithGoals)
      isReversed.toggle()
      measure(parts, fanOuts: [Self.fanOutWithGoals], posts: Self.postsWithGoals)
      if parts.contains("security") { for security in Self.securities { encrypted(security) } }
    }
    if parts.contains("security") { for security in Self.securities { encryptedLives(security) } }
    if parts.contains("timeline") {
      attempt("timeline") { try $0.timeline() }
      memory()
    }
    if parts.contains("start") { attempt("start") { try $0.start() } }
    if parts.contains("failover") { attempt("failover") { try $0.failover() } }
    if parts.contains("storm") { for _ in 1...storms { attempt("storm") { try $0.storm() } } }
    if parts.contains("idle") { for _ in 1...storms { attempt("idle") { try $0.idle() } } }
  }

  /// What is measured beside a peer or the disk.
  private mutating func measure(_ parts: [String], fanOuts: [FanOut], posts: [Int]) {
    if parts.contains("fanout") { for fanOut in fanOuts { measure(fanOut) } }
    attempt("fdatasync") { try $0.disk() }
    if parts.contains("post") { for count in posts { post(count) } }
    if parts.contains("latency") { latency() }
  }

  private func cluster(_ masters: Int = 1, security: Topology.Security = .none) throws -> BenchCluster {
    try BenchCluster(masters: masters, in: folder, security: security)
  }

  /// About how many seconds these parts take: what is measured, and for each measurement what it took to start, log in and stop on two
  /// cores.
  private func estimate(_ parts: [String]) -> Double {
    let measurement = seconds + 3
    let round = measurement * Double(runs)
    let storm = 20 * Double(storms)
    func time(_ part: String) -> Double {
      switch part {
      case "fanout": round * 6 * Double(Self.fanOuts.count + 1)
      case "post": round * 4 * Double(1 + 2 * Self.postsWithGoals.count)
      case "latency": round * 4
      case "security": round * 8 + 2 * (Double(securityKills) * 1.2 + storm)
      case "timeline": round * 4 + Double(runs) * (Double(posts) / 30_000 + 60)
      case "start": 2 * Double(runs)
      case "failover": Double(kills) * 1.2
      case "storm": storm
      case "idle": 60 * Double(storms)
      default: 0
      }
    }
    return parts.reduce(4 * Double(runs)) { $0 + time($1) }
  }

  private var storms: Int { min(runs, 3) }
  private var securityKills: Int { min(kills, 30) }
  private static let securities = [Topology.Security.none, .curve]

  // MARK: Parts

  private mutating func measure(_ fanOut: FanOut) {
    let seconds = seconds
    func plan(_ server: LoadPlan.Server, _ port: UInt16, pid: Int32 = 0) -> LoadPlan {
      var plan = LoadPlan(server: server, scenario: .fanout, port: port, label: "c")
      plan.watchers = fanOut.watchers
      plan.inFlight = fanOut.inFlight
      plan.seconds = seconds
      plan.serverPid = pid
      return plan
    }
    func note(_ report: LoadReport, _ name: String, _ me: inout Comparison) {
      me.note("\(fanOut.name) \(name)", report.deliveryRate)
      me.note(
        "\(fanOut.name) \(name) cpu",
        (report.serverCPU + report.ownCPU) * 1e6 / Double(max(report.deliveries, 1)))
    }
    func ours(_ name: String, watchesAuthor: Bool) -> Measurement {
      (
        "fan-out of Tiny SNS",
        { me in
          let cluster = try me.cluster()
          var plan = try cluster.plan(.fanout, label: Bench.freshLabel("f"), seconds: me.seconds)
          plan.watchers = fanOut.watchers
          plan.watchesAuthor = watchesAuthor
          plan.inFlight = fanOut.inFlight
          let report = try Bench.run(plan)
          note(report, name, &me)
          me.note("\(fanOut.name) \(name) gaps", Double(report.gaps))
        }
      )
    }
    func libzmq(_ name: String, topicEach: Bool) -> Measurement {
      (
        "fan-out of libzmq",
        { me in
          var plan = plan(.zmq, try PortCheck.freePort())
          plan.topicEach = topicEach
          note(try Bench.run(plan), name, &me)
        }
      )
    }
    func peer(
      _ name: String, _ server: LoadPlan.Server, _ open: @escaping (String) throws -> Peer
    ) -> Measurement {
      (
        "fan-out of \(name)",
        { me in
          let peer = try open(me.folder)
          note(try Bench.run(plan(server, peer.port, pid: peer.pid)), name, &me)
        }
      )
    }
    var measurements = [
      ours("ours each", watchesAuthor: false), ours("ours", watchesAuthor: true), libzmq("zmq", topicEach: false),
      libzmq("zmq each", topicEach: true),
    ]
    if Peer.redisPath != nil {
      measurements.append(peer("redis", .redis) { try Peer.redis(in: $0, append: false) })
    }
    if Peer.natsPath != nil { measurements.append(peer("nats", .nats) { try Peer.nats(in: $0) }) }
    inTurn(measurements)
  }

  private mutating func post(_ inFlight: Int) {
    let seconds = seconds
    func prepare(_ plan: inout LoadPlan) {
      plan.sessions = min(8, inFlight)
      plan.inFlight = inFlight
      plan.seconds = seconds
    }
    func note(_ report: LoadReport, _ name: String, _ me: inout Comparison) {
      me.note("post \(inFlight) \(name)", report.requestRate)
      me.note(
        "post \(inFlight) \(name) cpu", (report.serverCPU + report.ownCPU) * 1e6 / Double(max(report.requests, 1)))
      me.note("post \(inFlight) \(name) p50", report.times[0]?.p50_us ?? 0)
      me.note("post \(inFlight) \(name) p99", report.times[0]?.p99_us ?? 0)
    }
    func ours(_ masters: Int) -> Measurement {
      (
        "posts of Tiny SNS",
        { me in
          let cluster = try me.cluster(masters)
          var plan = try cluster.plan(.post, label: Bench.freshLabel("p"), seconds: me.seconds)
          prepare(&plan)
          let before = cluster.standbysTime
          let report = try Bench.run(plan)
          note(report, "ours \(masters)", &me)
          guard masters > 1 else { return }
          // Over the whole run, warming up included.
          let posts = report.requestRate * (plan.warmup + report.seconds)
          me.note(
            "post \(inFlight) ours \(masters) standbys cpu", (cluster.standbysTime - before) * 1e6 / max(posts, 1))
        }
      )
    }
    func peer(
      _ name: String, _ server: LoadPlan.Server, _ open: @escaping (String) throws -> Peer
    ) -> Measurement {
      (
        "posts of \(name)",
        { me in
          let peer = try open(me.folder)
          var plan = LoadPlan(server: server, scenario: .post, port: peer.port, label: "c")
          prepare(&plan)
          plan.serverPid = peer.pid
          note(try Bench.run(plan), name, &me)
        }
      )
    }
    // Whom a goal compares are neighbours.
    var measurements = [ours(8), ours(1)]
    if Peer.redisPath != nil {
      measurements.append(peer("redis", .redis) { try Peer.redis(in: $0, append: true) })
    }
    // It understands the same requests.
    measurements.append(peer("zmq", .tinysns) { try Peer.zmqLog(in: $0) })
    inTurn(measurements)
  }

  private mutating func latency() {
    inTurn([
      ("latency", { try $0.latency(.none, "latency") }),
      (
        "latency of libzmq",
        { me in
          let log = "\(me.folder)/tinysns-bench-published-\(getpid())"
          BenchCleanup.note(folder: log)
          defer { unlink(log) }
          var plan = LoadPlan(server: .zmq, scenario: .fanout, port: try PortCheck.freePort(), label: "c")
          plan.topicEach = true
          plan.log = log
          plan.seconds = me.seconds
          try me.latency(plan, "latency zmq")
        }
      ),
    ])
  }

  private mutating func latency(_ security: Topology.Security, _ name: String) throws {
    let cluster = try cluster(security: security)
    try latency(cluster.plan(.fanout, label: Bench.freshLabel("l"), seconds: seconds), name)
  }

  /// From when a post was due until it is at a watcher.
  private mutating func latency(_ plan: LoadPlan, _ name: String) throws {
    var plan = plan
    plan.watchers = 100
    plan.rate = 1_000
    plan.inFlight = 1_000
    let times = try Bench.run(plan).times[7]
    note("\(name) p50", times?.p50_us ?? 0)
    note("\(name) p99", times?.p99_us ?? 0)
  }

  /// What is measured with and without encryption, in turn.
  private mutating func encrypted(_ security: Topology.Security) {
    let name = "security \(security.rawValue)"
    for count in [50, 800] {
      attempt("posts, security: \(security.rawValue)") { me in
        let cluster = try me.cluster(security: security)
        var plan = try cluster.plan(.post, label: Bench.freshLabel("p"), seconds: me.seconds)
        (plan.sessions, plan.inFlight) = (8, count)
        let report = try Bench.run(plan)
        me.note("\(name) post \(count)", report.requestRate)
        me.note("\(name) post \(count) p50", report.times[0]?.p50_us ?? 0)
      }
    }
    attempt("fan-out, security: \(security.rawValue)") { me in
      let cluster = try me.cluster(security: security)
      var plan = try cluster.plan(.fanout, label: Bench.freshLabel("f"), seconds: me.seconds)
      (plan.watchers, plan.inFlight) = (1_000, 10)
      me.note("\(name) fanout", try Bench.run(plan).deliveryRate)
    }
    attempt("latency, security: \(security.rawValue)") { try $0.latency(security, "\(name) latency") }
  }

  private mutating func encryptedLives(_ security: Topology.Security) {
    let name = "security \(security.rawValue)"
    attempt("failover, security: \(security.rawValue)") { me in
      for line in try me.lines(["failover", "--kills", "\(me.securityKills)", "--security", security.rawValue]) {
        me.note("\(name) failover p50", line["p50_us"] as? Double ?? 0)
        me.note("\(name) failover p99", line["p99_us"] as? Double ?? 0)
      }
    }
    for _ in 1...storms {
      attempt("storm, security: \(security.rawValue)") { me in
        for line in try me.lines(["storm", "--security", security.rawValue]) {
          me.note("\(name) storm", line["max_us"] as? Double ?? 0)
        }
      }
    }
  }

  /// fdatasync of a write of 4 KB at the end of a file.
  private mutating func disk() throws {
    let path = "\(folder)/tinysns-bench-sync-\(getpid())"
    let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw Failure("can't write to \(folder)") }
    BenchCleanup.note(folder: path)
    defer {
      close(descriptor)
      unlink(path)
    }
    let page = [UInt8](repeating: 7, count: 4_096)
    var times: [Interval] = []
    let deadline = Clock.now() + .seconds(2)
    while Clock.now() < deadline {
      let started = Clock.now()
      guard Foundation.write(descriptor, page, page.count) == page.count, fdatasync(descriptor) == 0 else {
        throw Failure("can't sync in \(folder)")
      }
      times.append(Clock.now() - started)
    }
    let found = Bench.times(times)
    note("fdatasync p50", found.p50_us)
    note("fdatasync p99", found.p99_us)
  }

  /// What depends on the log's length. What is compared between lengths is measured in turn, since the machine is faster in one
  /// minute than in another.
  private mutating func timeline() throws {
    var clusters: [(posts: Int, cluster: BenchCluster, reader: String)] = []
    for count in Set([10_000, posts]).sorted() {
      let cluster = try cluster()
      let authors = Bench.freshLabel("a")
      let started = Clock.now()
      try BenchTimeline.fill(cluster, posts: count, authors: authors)
      note("fill \(count)", Double(count) / Double((Clock.now() - started).milliseconds) * 1e3)
      var reader = ""
      for _ in 1...runs {
        var plan = try cluster.plan(.timeline, label: Bench.freshLabel("r"), seconds: seconds)
        plan.followees = 1_000
        plan.authors = authors
        let report = try Bench.run(plan)
        note("timeline \(count) p99", report.times[0]?.p99_us ?? 0)
        note("timeline \(count) p50", report.times[0]?.p50_us ?? 0)
        note("timeline \(count) cpu", report.serverCPU / Double(max(report.requests, 1)) * 1e6)
        reader = plan.label + "-reader"
      }
      for _ in 1...runs where count == posts {
        cluster.stop()
        try cluster.start()
        note("start long", Double(cluster.startTime!.nanoseconds) / 1e6)
      }
      cluster.stop()
      clusters.append((count, cluster, reader))
    }
    for _ in 1...runs {
      var benches = try clusters.map { try PageBench(folder: $0.cluster.deployment.topology.state, user: $0.reader) }
      for ((count, _, _), times) in zip(clusters, try PageBench.newest(&benches)) {
        note("timeline \(count) master p50", times.p50_us)
        note("timeline \(count) master p99", times.p99_us)
      }
    }
    let logs = try clusters.map { try KeptLog($0.cluster.deployment.topology.state) }
    for _ in 1...runs {
      for (log, (count, cluster, _)) in zip(logs, clusters) {
        // What the last run has appended is taken away again.
        try log.restore()
        try cluster.start()
        var plan = try cluster.plan(.post, label: Bench.freshLabel("p"), seconds: seconds)
        (plan.sessions, plan.inFlight) = (8, 50)
        let report = try Bench.run(plan)
        note("post on \(count) cpu", report.serverCPU / Double(max(report.requests, 1)) * 1e6)
        note("post on \(count) p50", report.times[0]?.p50_us ?? 0)
        cluster.stop()
      }
    }
  }

  /// A copy of the log of a cluster that is stopped.
  private struct KeptLog {
    private let folder: String
    private var copy: String { folder + "/kept" }
    private static let suffixes = ["", "-wal", "-shm"]
    private static let files = ["log.db", "index.db"].flatMap { file in suffixes.map { file + $0 } }

    init(_ folder: String) throws {
      self.folder = folder
      try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: false)
      try Self.copy(from: folder, to: copy)
    }

    func restore() throws {
      for file in Self.files { try? FileManager.default.removeItem(atPath: "\(folder)/\(file)") }
      try Self.copy(from: copy, to: folder)
      // What was copied is not to be written out while something is measured.
      sync()
    }

    private static func copy(from source: String, to target: String) throws {
      for file in files where FileManager.default.fileExists(atPath: "\(source)/\(file)") {
        try FileManager.default.copyItem(atPath: "\(source)/\(file)", toPath: "\(target)/\(file)")
      }
    }
  }

  /// Memory as the log grows. The length between the two shows whether it goes on growing.
  private mutating func memory() {
    for _ in 1...runs {
      for count in Set([10_000, 100_000, posts]).sorted() where count <= posts {
        attempt("memory with \(count) posts") { try $0.memory(after: count) }
      }
    }
  }

  /// What a master has that was given so many posts, and once it has started anew.
  private mutating func memory(after count: Int) throws {
    let cluster = try cluster()
    try BenchTimeline.fill(cluster, posts: count, authors: Bench.freshLabel("a"))
    note("memory \(count)", settledMemory(of: try cluster.available().pid))
    cluster.stop()
    try cluster.start()
    sleep(2)
    note("memory \(count) fresh", ProcessFigures.memory(try cluster.available().pid))
  }

  /// What a process needs when the load is over: the derived tables are written behind the log, for half a minute perhaps, and only
  /// then is memory given back. Waits until neither it nor what was written has changed for three seconds, at most two minutes.
  private func settledMemory(of pid: Int32) -> Double {
    var last = ProcessFigures.memory(pid)
    var lastWritten = ProcessFigures.written(pid)
    var calm = 0
    for _ in 0..<120 where calm < 3 {
      sleep(1)
      let (now, written) = (ProcessFigures.memory(pid), ProcessFigures.written(pid))
      calm = abs(now - last) < last / 100 && written == lastWritten ? calm + 1 : 0
      (last, lastWritten) = (now, written)
    }
    return last
  }

  private mutating func start() throws {
    for _ in 1...runs { note("start", Double(try cluster(8).startTime!.nanoseconds) / 1e6) }
  }

  /// Runs another benchmark of this program, and reads its lines.
  private func lines(_ arguments: [String]) throws -> [[String: Any]] {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try Bench.program())
    process.arguments = ["bench"] + arguments + ["--json", "--folder", folder]
    let output = Pipe()
    process.standardOutput = output
    BenchCleanup.begin()
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    BenchCleanup.begin()
    guard process.terminationStatus == 0 else { throw Failure("bench \(arguments[0]) failed") }
    return try data.split(separator: UInt8(ascii: "\n")).map {
      try JSONSerialization.jsonObject(with: Data($0)) as? [String: Any] ?? [:]
    }
  }

  private mutating func failover() throws {
    for line in try lines(["failover", "--kills", "\(kills)"]) {
      note("failover p50", line["p50_us"] as? Double ?? 0)
      note("failover p99", line["p99_us"] as? Double ?? 0)
    }
  }

  private mutating func storm() throws {
    for line in try lines(["storm"]) {
      note("storm", line["max_us"] as? Double ?? 0)
      note("storm gaps", line["gaps"] as? Double ?? 0)
    }
  }

  private mutating func idle() throws {
    for line in try lines(["idle"]) {
      if let percent = line["core_percent"] as? Double {
        note("idle", percent)
        note("idle memory", line["master_memory_mib"] as? Double ?? 0)
      } else {
        note("client memory", line["memory_kib_each"] as? Double ?? 0)
        note("client memory libzmq", line["libzmq_memory_kib_each"] as? Double ?? 0)
      }
    }
  }

  // MARK: The table

  private func median(_ name: String) -> Double? {
    guard let values = figures[name]?.sorted(), !values.isEmpty else { return nil }
    let middle = values.count / 2
    return values.count % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2
  }

  private struct Row {
    var what: String
    var goal: String
    var ours: Double?
    var peer: String
    var theirs: Double?
    /// Whether the goal is reached, of ours and the ratio.
    var holds: (Double, Double) -> Bool
    var unit = ""
    /// What is known of where it must end: by a calculation or a profile (BENCHMARKS.md, "Where the time goes").
    var limit = ""
  }

  private func rows() -> [Row] {
    var rows: [Row] = []
    let sync = median("fdatasync p50")
    let gaps = figures["storm gaps"]?.max() ?? 0
    /// So many a second, if so many share each sync.
    func perSync(_ number: Int) -> String { sync.map { "\(BenchLine.short(Double(number) * 1e6 / $0))/s" } ?? "" }
    /// What all processors together can do, if one costs them so many microseconds.
    func processorLimit(_ time: Double) -> String {
      let cores = ProcessInfo.processInfo.activeProcessorCount
      return "\(BenchLine.short(time)) µs of processor time each, the load's included: "
        + "\(BenchLine.short(Double(cores) * 1e6 / time))/s if \(cores) cores did this alone and never waited"
    }
    /// What the other masters' share makes of the rate where processors are all that counts.
    func standbysLimit(_ count: Int) -> String? {
      guard let one = median("post \(count) ours 1 cpu"), let others = median("post \(count) ours 8 standbys cpu")
      else { return nil }
      return "\(BenchLine.short(one)) µs of processor time a post with one master, \(BenchLine.short(others)) more at "
        + "seven others: \(String(format: "%.2f", one / (one + others))) × if processors are all that counts"
    }
    var plainLatency: String {
      guard let theirs = median("latency zmq p50"), let sync else { return "" }
      return "libzmq alone, with a file and fdatasync: \(BenchLine.short(theirs)) µs, "
        + String(format: "%.1f × (100,000 deliveries a second)", theirs / sync)
    }
    for fanOut in Self.fanOuts {
      let watchers = fanOut.watchers.formatted(.number.grouping(.automatic).locale(Locale(identifier: "en_US")))
      let unit = "\(fanOut.inFlight) posts in flight, deliveries/s"
      let kinds: [(what: String, ours: String, peers: [(name: String, key: String, least: Double)])] = [
        (
          "fan-out to \(watchers) watchers of one author, \(unit)", "ours",
          [
            ("raw libzmq PUB, one topic", "zmq", 0.8), ("Redis PUBLISH, one channel", "redis", 1),
            ("NATS, one subject", "nats", 1),
          ]
        ),
        (
          "fan-out to \(watchers) followers, a timeline and topic each, \(unit)", "ours each",
          [
            ("raw libzmq PUB, a topic each", "zmq each", 0), ("raw libzmq PUB, one topic", "zmq", 0.8),
            ("Redis PUBLISH, one channel", "redis", 1), ("NATS, one subject", "nats", 1),
          ]
        ),
      ]
      for kind in kinds {
        let time = median("\(fanOut.name) \(kind.ours) cpu")
        for (index, peer) in kind.peers.enumerated() {
          let theirTime = median("\(fanOut.name) \(peer.key) cpu")
          let notes = [
            index > 0 ? nil : time.map(processorLimit),
            theirTime.map { "\(peer.name): \(BenchLine.short($0)) µs each" },
          ]
          rows.append(
            Row(
              what: kind.what, goal: fanOut == Self.fanOutWithGoals && peer.least > 0 ? "≥ \(peer.least) ×" : "",
              ours: median("\(fanOut.name) \(kind.ours)"), peer: peer.name,
              theirs: median("\(fanOut.name) \(peer.key)"), holds: { $1 >= peer.least },
              limit: notes.compactMap { $0 }.joined(separator: "; ")))
        }
      }
    }
    for count in [1] + Self.postsWithGoals {
      let hasGoals = Self.postsWithGoals.contains(count)
      rows.append(
        Row(
          what: "durable posts/s, \(count) in flight", goal: hasGoals ? "≥ 1.0 ×" : "",
          ours: median("post \(count) ours 1"),
          peer: "Redis XADD, appendfsync always", theirs: median("post \(count) redis"), holds: { $1 >= 1 },
          limit: sync == nil
            ? ""
            : "about \(perSync(count)), if \(count) share each sync and it takes its p50"
              + (median("post \(count) ours 1 cpu").map { "; " + processorLimit($0) } ?? "")))
      rows.append(
        Row(
          what: "the same, p50", goal: count == 50 ? "≤ 1.0 ×" : "", ours: median("post \(count) ours 1 p50"),
          peer: "the same, p50", theirs: median("post \(count) redis p50"), holds: { $1 <= 1 }, unit: "µs"))
      rows.append(
        Row(
          what: "durable posts/s, \(count) in flight", goal: "", ours: median("post \(count) ours 1"),
          peer: "raw libzmq ROUTER, a file and fdatasync", theirs: median("post \(count) zmq"),
          holds: { _, _ in true },
          limit: median("post \(count) zmq cpu").map { "no service: \(BenchLine.short($0)) µs each" } ?? ""))
      rows.append(
        Row(
          what: "the same with 8 masters, \(count) in flight", goal: hasGoals ? "≥ 0.8 ×" : "",
          ours: median("post \(count) ours 8"), peer: "with 1 master", theirs: median("post \(count) ours 1"),
          holds: { $1 >= 0.8 },
          limit: standbysLimit(count) ?? ""))
    }
    rows += [
      Row(
        what: "one post alone: acknowledged, p50", goal: "≤ 3 ×", ours: median("post 1 ours 1 p50"),
        peer: "fdatasync p50",
        theirs: sync, holds: { $1 <= 3 }, unit: "µs", limit: "one sync: 1.0 ×"),
      Row(
        what: "post → follower at 1,000 posts/s, 100 watchers, p50", goal: "≤ 4 ×", ours: median("latency p50"),
        peer: "fdatasync p50", theirs: sync, holds: { $1 <= 4 }, unit: "µs",
        limit: plainLatency),
      Row(
        what: "the same", goal: "", ours: median("latency p50"), peer: "raw libzmq, a file and fdatasync, p50",
        theirs: median("latency zmq p50"), holds: { _, _ in true }, unit: "µs"),
      Row(
        what: "the same, p99", goal: "≤ 20,000 µs", ours: median("latency p99"), peer: "fdatasync p99",
        theirs: median("fdatasync p99"), holds: { ours, _ in ours <= 20_000 }, unit: "µs",
        limit: "the disk: a sync of its p99 holds up all posts that come meanwhile"),
      Row(
        what: "newest 20 of 1,000 followees, \(posts) posts, at the master, p99", goal: "≤ 200 µs",
        ours: median("timeline \(posts) master p99"), peer: "", theirs: nil, holds: { ours, _ in ours <= 200 },
        unit: "µs"),
      Row(
        what: "the same, p50", goal: "≤ 1.2 ×", ours: median("timeline \(posts) master p50"),
        peer: "with 10,000 posts", theirs: median("timeline 10000 master p50"), holds: { $1 <= 1.2 }, unit: "µs"),
      Row(
        what: "the same, round trip, p50", goal: "", ours: median("timeline \(posts) p50"), peer: "with 10,000 posts",
        theirs: median("timeline 10000 p50"), holds: { _, _ in true }, unit: "µs"),
      Row(
        what: "processor time of a post, 50 in flight, \(posts) posts", goal: "≤ 1.1 ×",
        ours: median("post on \(posts) cpu"), peer: "with 10,000 posts", theirs: median("post on 10000 cpu"),
        holds: { $1 <= 1.1 }, unit: "µs"),
      Row(
        what: "failover, \(kills) × SIGKILL, p50", goal: "≤ 50,000 µs", ours: median("failover p50"), peer: "",
        theirs: nil,
        holds: { ours, _ in ours <= 50_000 }, unit: "µs"),
      Row(
        what: "the same, p99", goal: "≤ 250,000 µs", ours: median("failover p99"), peer: "", theirs: nil,
        holds: { ours, _ in ours <= 250_000 }, unit: "µs"),
      Row(
        what: "`up --detach`, 8 masters", goal: "≤ 1,000 ms", ours: median("start"), peer: "", theirs: nil,
        holds: { ours, _ in ours <= 1_000 }, unit: "ms"),
      Row(
        what: "`up --detach`, 1 master on \(posts) posts", goal: "≤ 1,000 ms", ours: median("start long"), peer: "",
        theirs: nil, holds: { ours, _ in ours <= 1_000 }, unit: "ms"),
      Row(
        what: "2,000 watching clients fail over at once", goal: "≤ 2,000,000 µs", ours: median("storm"), peer: "",
        theirs: nil, holds: { ours, _ in ours <= 2_000_000 && gaps == 0 },
        unit: "µs", limit: "4,000 connections and handshakes on all cores"),
      Row(
        what: "idle cluster of 8, of one core", goal: "≤ 3 %", ours: median("idle"), peer: "", theirs: nil,
        holds: { ours, _ in ours <= 3 }, unit: "%",
        limit: "80 beats a second to the router, each two wake-ups: 1.5 %"),
      Row(
        what: "an idle master's memory", goal: "≤ 25 MiB", ours: median("idle memory"), peer: "", theirs: nil,
        holds: { ours, _ in ours <= 25 }, unit: "MiB"),
      Row(
        what: "memory of an idle watching client", goal: "≤ 1.2 ×", ours: median("client memory"),
        peer: "raw libzmq, ROUTER and XPUB", theirs: median("client memory libzmq"), holds: { $1 <= 1.2 }, unit: "KiB"),
    ]
    for count in Set([100_000, posts]).sorted() where count <= posts {
      let isGoal = count == posts
      rows += [
        Row(
          what: "a master's memory with \(count) posts, after the load", goal: isGoal ? "≤ 1.1 ×" : "",
          ours: median("memory \(count)"), peer: "with 10,000", theirs: median("memory 10000"), holds: { $1 <= 1.1 },
          unit: "B"),
        Row(
          what: "the same, freshly started", goal: isGoal ? "≤ 1.1 ×" : "", ours: median("memory \(count) fresh"),
          peer: "with 10,000", theirs: median("memory 10000 fresh"), holds: { $1 <= 1.1 }, unit: "B"),
      ]
    }
    for (what, key, unit) in [
      ("durable posts/s, 50 in flight", "post 50", ""), ("durable posts/s, 50 in flight, p50", "post 50 p50", "µs"),
      ("durable posts/s, 800 in flight", "post 800", ""), ("durable posts/s, 800 in flight, p50", "post 800 p50", "µs"),
      ("fan-out to 1,000 followers, 10 posts in flight, deliveries/s", "fanout", ""),
      ("post → follower at 1,000 posts/s, 100 watchers, p50", "latency p50", "µs"),
      ("post → follower at 1,000 posts/s, 100 watchers, p99", "latency p99", "µs"),
      ("failover, \(securityKills) × SIGKILL, p50", "failover p50", "µs"),
      ("failover, \(securityKills) × SIGKILL, p99", "failover p99", "µs"),
      ("2,000 watching clients fail over at once", "storm", "µs"),
    ] {
      rows.append(
        Row(
          what: "with CURVE: \(what)", goal: "", ours: median("security curve \(key)"), peer: "ours, `security: none`",
          theirs: median("security none \(key)"), holds: { _, _ in true }, unit: unit))
    }
    return rows.filter { $0.ours != nil }
  }

  func table() -> String {
    var lines = ["| what | goal | ours | peer | its figure | ratio | | limit |", "|---|---|---|---|---|---|---|---|"]
    for row in rows() {
      guard let ours = row.ours else { continue }
      let ratio = row.theirs.map { $0 == 0 ? 0 : ours / $0 } ?? 0
      let unit = row.unit.isEmpty ? "" : " \(row.unit)"
      lines.append(
        "| \(row.what) | \(row.goal) | \(BenchLine.short(ours))\(unit) | \(row.peer) | "
          + "\(row.theirs.map { BenchLine.short($0) + unit } ?? "") | "
          + "\(row.theirs == nil ? "" : String(format: "%.2f", ratio)) | "
          + "\(verdict(on: row, ours, ratio)) | \(row.limit) |")
    }
    return lines.joined(separator: "\n")
  }

  /// Nothing without a goal, or without the peer that it names.
  private func verdict(on row: Row, _ ours: Double, _ ratio: Double) -> String {
    guard !row.goal.isEmpty, row.peer.isEmpty || row.theirs != nil else { return "" }
    return row.holds(ours, ratio) ? "reached" : "**missed**"
  }

  private var spread: String {
    figures.keys.sorted().map { name in
      let values = figures[name]!.sorted()
      return
        "| \(name) | \(BenchLine.short(values.first!)) | \(BenchLine.short(median(name)!)) | \(BenchLine.short(values.last!)) | \(values.count) |"
    }.joined(separator: "\n")
  }

  /// Writes the tables under the heading "Figures"; what stands above and after is kept.
  func write(to path: String) throws {
    let begin = "<!-- figures -->"
    let end = "<!-- /figures -->"
    let former = (try? String(contentsOfFile: path, encoding: .utf8)) ?? "# Benchmarks\n\n\(begin)\n\(end)\n"
    guard let first = former.range(of: begin), let last = former.range(of: end) else {
      throw Failure("\(path) has no place for the figures: \(begin) and \(end)")
    }
    let text = """
      \(begin)
      ## Figures

      \(machine). Medians of \(runs) rounds, \(BenchLine.short(seconds)) s a measurement (how many there are of each is told below the table), \
      \(ISO8601DateFormatter().string(from: began).prefix(10)). Load average of the last minute at the end: \(load).

      \(table())

      \(missing.map { "- Left out: \($0)" }.joined(separator: "\n"))

      <details><summary>All figures: least, median, greatest, how many</summary>

      | figure | least | median | greatest | runs |
      |---|---|---|---|---|
      \(spread)

      </details>
      \(end)
      """
    try (former[..<first.lowerBound] + text + former[last.upperBound...]).write(
      toFile: path, atomically: true, encoding: .utf8)
  }

  private var load: String {
    ((try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8)) ?? "?").split(separator: " ").first.map(
      String.init) ?? "?"
  }

  private var machine: String {
    let cpu = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n")
      .first { $0.hasPrefix("model name") }?.split(separator: ":").last?.trimmingCharacters(in: .whitespaces)
    var name = utsname()
    uname(&name)
    let release = withUnsafePointer(to: &name.release) {
      $0.withMemoryRebound(to: CChar.self, capacity: 65) { String(cString: $0) }
    }
    return "\(ProcessInfo.processInfo.activeProcessorCount) cores of \(cpu ?? "an unknown processor"), Linux \(release)"
  }
}

extension BenchLine {
  /// Three digits that matter, and thousands apart.
  static func short(_ value: Double) -> String {
    guard value != 0 else { return "0" }
    if abs(value) < 100 { return String(format: "%.3g", value) }
    let scale = pow(10, (log10(abs(value))).rounded(.down) - 2)
    return Int((value / scale).rounded() * scale).formatted(
      .number.grouping(.automatic).locale(Locale(identifier: "en_US")))
  }
}

/// A server that we are compared with, on a port and in a folder of its own.
final class Peer {
  let port: UInt16
  let pid: Int32
  private let process: Process
  private let folder: String

  static let redisPath = find("redis-server")
  static let natsPath = find("nats-server")

  private static func find(_ name: String) -> String? {
    let path = getenv("PATH").map { String(cString: $0) } ?? ""
    let folders =
      path.split(separator: ":").map(String.init) + ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]
    return folders.map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
  }

  static func redis(in parent: String, append: Bool) throws -> Peer {
    try Peer(redisPath!, in: parent) { port, folder in
      ["--port", "\(port)", "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--tcp-backlog", "4096"]
        + ["--maxclients", "10000", "--client-output-buffer-limit", "pubsub 0 0 0"]
        + (append ? ["--appendonly", "yes", "--appendfsync", "always"] : ["--appendonly", "no"])
    }
  }

  static func nats(in parent: String) throws -> Peer {
    try Peer(natsPath!, in: parent) { port, _ in ["-a", "127.0.0.1", "-p", "\(port)"] }
  }

  /// libzmq and a file: `load_zmq_log`.
  static func zmqLog(in parent: String) throws -> Peer {
    try Peer(try Bench.program(), in: parent) { port, folder in
      ["bench", "zmq-publisher", "--port", "\(port)", "--log", folder + "/log"]
    }
  }

  private init(_ path: String, in parent: String, _ arguments: (UInt16, String) -> [String]) throws {
    port = try PortCheck.freePort()
    folder = "\(parent)/tinysns-peer-\(getpid())-\(port)"
    BenchCleanup.note(folder: folder)
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments(port, folder)
    process.standardInput = Pipe()
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    pid = process.processIdentifier
    guard PortCheck.awaitListener(at: port) else { throw Failure("\(path) does not listen") }
  }

  deinit {
    process.terminate()
    process.waitUntilExit()
    try? FileManager.default.removeItem(atPath: folder)
  }
}

extension PortCheck {
  /// Waits until somebody listens on this port here, at most ten seconds; false if nobody does.
  static func awaitListener(at port: UInt16) -> Bool {
    for _ in 0..<500 {
      if isListening(port) { return true }
      usleep(20_000)
    }
    return false
  }

  private static func isListening(_ port: UInt16) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
  }
}
