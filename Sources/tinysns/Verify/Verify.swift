// `tinysns verify`: load, random faults on real processes, and the checker's verdict.

import ArgumentParser
import Core
import Foundation
import Model
import Node
import Runtime
import TinySNSClient
import Topology

struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Torment a cluster, and check that nothing acknowledged is lost, doubled or out of order.",
    discussion: """
      Starts a cluster of its own in a temporary folder, puts load on it (people who follow, post and watch), and meanwhile \
      kills and freezes its processes at random: masters, slaves, the router, the launcher, several, all. Some people begin \
      and cease to follow others all the time, read and list, and check what they get. In the end everything is healed, \
      restarted and read back, and compared with what was acknowledged and with what each watcher saw. Exit code 1 at any \
      violation; the folder with logs and database is kept then, and beside them (in verify/) the report, all that was \
      acknowledged, shown to each watcher and read back, and each fault with its time.
      """)
  @Option(help: "How long to torment it.") var seconds = 60
  @Option(help: "Which faults happen when.") var seed: UInt64 = 1
  @Option(help: "Masters of the cluster.") var masters = 8
  @Option(help: "available or spread.") var assignment = "available"
  @Option(help: "How many people, unless --graph says.") var users = 24
  @Option(help: "A file with a friendship a line (two numbers).", completion: .file()) var graph: String?
  @Option(help: "A file with a text to post a line.", completion: .file()) var posts: String?
  @Option(help: "Posts a second, of everybody together.") var rate = 200
  @Option(help: "Faults a minute.") var faults = 30
  @Flag(help: "Give the cluster a small disk of its own (a tmpfs: needs root), and fill it now and then.")
  var smallDisk = false
  @Option(help: "Let some people watch through Examples/python/watch.py: its path.", completion: .file())
  var python: String?
  @Flag(help: "Keep all processors busy with something else meanwhile: two processes each that only compute.")
  var busy = false
  @Flag(help: "Torment the running cluster of the topology instead of one of its own.") var running = false
  @Flag(help: "Print the report as one JSON object.") var json = false
  @OptionGroup var topology: TopologyOption

  func validate() throws {
    guard (1...86_400).contains(seconds) else { throw ValidationError("--seconds takes 1 to 86400") }
    guard (1...64).contains(masters) else { throw ValidationError("--masters takes 1 to 64") }
    guard (2...5_000).contains(users) else { throw ValidationError("--users takes 2 to 5000") }
    guard (1...10_000).contains(rate) else { throw ValidationError("--rate takes 1 to 10000") }
    guard (0...600).contains(faults) else { throw ValidationError("--faults takes 0 to 600") }
    guard !(running && smallDisk) else { throw ValidationError("--small-disk is for a cluster of verify's own") }
    guard ["available", "spread"].contains(assignment) else {
      throw ValidationError("--assignment takes available or spread")
    }
  }

  func run() throws {
    var random = RandomSource.seeded(seed)
    var people = try graph.map(VerifyGraph.read) ?? VerifyGraph.generated(users, using: &random)
    // In a cluster with a past: people whom nobody has heard of.
    if running { people = people.named(with: "v\(String(Clock.wall().milliseconds, radix: 36))-") }
    let texts = try posts.map { path -> [String] in
      guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { throw Failure("can't read \(path)") }
      return text.split(separator: "\n").map(String.init)
    }
    let deployment = running ? try topology.loadAsStarted() : try makeCluster()
    let run = VerifyRun(
      deployment: deployment, graph: people, texts: texts ?? [], rate: rate, seconds: seconds, faults: faults,
      seed: seed,
      ownsCluster: !running, hasSmallDisk: smallDisk, python: python)
    let burners = busy ? try Burners() : nil
    Self.stopAtInterrupts(run)
    Main.run { [json] in
      defer { burners?.stop() }
      let report: VerifyReport
      do {
        report = try await run.run()
      } catch {
        run.stopCluster()
        throw Failure("\(Failure(error).message); see \(deployment.folder.path)")
      }
      Terminal.print(json ? report.json : report.text)
      if !report.verdict.isGood {
        try? (report.text + "\n").write(toFile: run.evidence + "/report.txt", atomically: true, encoding: .utf8)
        throw Failure("\(report.violations) violations; see \(deployment.folder.path)")
      }
      if run.hasSmallDisk { umount2(deployment.folder.path, 2) }  // MNT_DETACH
      if run.ownsCluster {
        try? FileManager.default.removeItem(atPath: (deployment.path as NSString).deletingLastPathComponent)
      }
    }
  }

  /// Ctrl-C ends the cluster, too, if it is its own.
  private static func stopAtInterrupts(_ run: VerifyRun) {
    // A handler, because processes started from here would inherit it if the signals were ignored.
    for number in [SIGINT, SIGTERM] { signal(number) { interruption = $0 } }
    _ = WorkerThread {
      while interruption == 0 { usleep(100_000) }
      run.stopCluster()
      Foundation.exit(128 + interruption)
    }
  }

  /// A topology of its own on free ports, with a short respawn delay: there is more to torment then.
  private func makeCluster() throws -> Deployment {
    let folder = NSTemporaryDirectory() + "tinysns-verify-\(getpid())"
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    let path = folder + "/topology.yaml"
    let text = """
      router: { host: local, port: \(try PortCheck.freePort()) }
      hosts:
        local: { address: 127.0.0.1, masters: \(masters), first_port: 0 }
      assignment: \(assignment)
      respawn_delay: 2s
      password_memory: 8KiB
      state: var
      """
    try text.write(toFile: path, atomically: true, encoding: .utf8)
    if smallDisk {
      try FileManager.default.createDirectory(atPath: folder + "/var", withIntermediateDirectories: true)
      guard mount("tmpfs", folder + "/var", "tmpfs", 0, "size=256m,mode=700") == 0 else {
        throw Failure("--small-disk can't mount a tmpfs: \(String(cString: strerror(errno)))")
      }
    }
    return try Deployment(path: path)
  }
}

/// The signal that is to end the run. Written by its handler, and read until it is not 0.
private nonisolated(unsafe) var interruption: Int32 = 0

/// One run of the verifier.
struct VerifyRun: Sendable {
  let deployment: Deployment
  let graph: VerifyGraph
  let texts: [String]
  let rate: Int
  let seconds: Int
  let faults: Int
  let seed: UInt64
  let ownsCluster: Bool
  let hasSmallDisk: Bool
  let python: String?

  /// Where it is kept what is needed to look into a violation.
  var evidence: String { deployment.folder.path + "/verify" }

  /// Stops the cluster if it is this run's own.
  func stopCluster() {
    if ownsCluster { _ = ClusterStop(folder: deployment.folder).stop(within: .milliseconds(2_800)) }
  }

  /// People who watch through the Python client.
  private static let pythonWatchers = 4
  /// People who follow and unfollow.
  private static let wanderers = 8

  private func progress(_ text: String) {
    if isatty(STDERR_FILENO) == 1 {
      Terminal.write("\r\u{1B}[K\(text)", to: STDERR_FILENO)
    } else {
      Terminal.write(text + "\n", to: STDERR_FILENO)
    }
  }

  func run() async throws -> VerifyReport {
    Terminal.write("seed \(seed), \(graph.users.count) people, state in \(deployment.folder.path)\n", to: STDERR_FILENO)
    let injector = FaultInjector(deployment, random: .seeded(seed ^ 0xfa17)) { [deployment] text in
      let line = "\(LogTime.now()) \(text)\n"
      if let handle = FileHandle(forWritingAtPath: deployment.folder.log(of: "verify")) {
        handle.seekToEndOfFile()
        handle.write(Data(line.utf8))
        try? handle.close()
      }
    }
    if ownsCluster { injector.startAgain() }
    _ = FileManager.default.createFile(atPath: deployment.folder.log(of: "verify"), contents: nil)
    guard deployment.folder.owner(of: Deployment.router) != nil else {
      throw Failure("the cluster does not run; see \(deployment.folder.logFolder)")
    }

    // People log in, follow, and watch.
    let ledger = Ledger()
    let loop = try ClientLoop(sessions: graph.users.count + 8)
    // Of all of them; kept, so that the next run at the same cluster finds its people again.
    let password = try DemoPasswords(in: deployment.folder).makePassword(of: "verify")
    var clients: [String: TinySNSClient] = [:]
    var losses: [String: LossCounter] = [:]
    for user in graph.users {
      let counter = LossCounter()
      losses[user] = counter
      clients[user] = try TinySNSClient(
        router: deployment.routerEndpoint, serverKey: deployment.serverKey(), user: user, password: password,
        register: true, timing: deployment.timing, loop: loop
      ) { note in
        if case .lost = note { counter.add() }
      }
    }
    progress("logging in and following")
    try await inParallel(graph.users) { [clients] user in try await clients[user]!.ready(timeout: .seconds(120)) }
    try await inParallel(graph.users) { [clients, graph] user in
      for followed in graph.following[user, default: []] {
        do { try await clients[user]!.follow(followed, timeout: .seconds(120)) } catch ClientError.refused(let refusal)
        {
          guard refusal.code == .alreadyExists else { throw ClientError.refused(refusal) }
        }
      }
    }
    var watchers: [Task<Void, any Error>] = []
    for user in graph.users {
      let watch = ledger.addWatch(of: user)
      let client = clients[user]!
      watchers.append(Task { for try await posts in client.watch() { ledger.show(posts, at: watch) } })
    }

    let others = try startPythonWatchers(ledger, password)
    // They show the newest 20 first, which must be none yet: nobody posts before they are there.
    let deadline = Clock.now() + .seconds(30)
    while !others.isEmpty, sessionCount < graph.users.count + others.count {
      guard others.allSatisfy(\.isRunning) else {
        throw Failure("\(python ?? "") ends at once; has Python the modules zmq and google.protobuf?")
      }
      guard Clock.now() < deadline else { throw Failure("the Python clients do not log in") }
      try await Task.sleep(for: .milliseconds(100))
    }
    defer { for process in others where process.isRunning { process.terminate() } }

    // Load, and faults meanwhile.
    let stop = StopFlag()
    let started = Clock.now()
    let end = started + .seconds(Int64(seconds))
    let posters = startPosters(clients, losses, ledger, stop) + startWanderers(clients, ledger, stop)
    let tormenting = Task.detached { [self] in torment(injector, until: end, ledger) }
    await tormenting.value
    progress("healing")
    stop.set()
    injector.heal()
    for poster in posters { await poster.value }

    // Everything heals, and everyone converges.
    let patience = Clock.now() + .seconds(60)
    while !ledger.isComplete(graph), Clock.now() < patience { try await Task.sleep(for: .milliseconds(50)) }
    try await Task.sleep(for: .milliseconds(500))
    for watcher in watchers { watcher.cancel() }
    for process in others { process.terminate() }

    // What is on disk: after a kill of everything, when the cluster is our own.
    if ownsCluster { injector.inject(.killEverything) }
    progress("reading everything back")
    let stored = try await readBack(clients)
    var verdict = ledger.judge(graph, stored: stored)
    let deaths = injector.unexplainedDeaths()
    verdict.falseRespawns = deaths.count
    for death in deaths { verdict.note("nobody tormented it: \(death)") }
    try await checkGraph(clients, ledger, &verdict)
    progress("")

    for client in clients.values { await client.close() }
    stopCluster()
    let report = VerifyReport(
      verdict: verdict, faults: injector.injected, pauses: pauses(injector, ledger), slowest: ledger.slowest,
      longestCommit: ledger.longestCommit, reads: ledger.counts.reads, changes: ledger.counts.changes, seed: seed,
      isSpread: deployment.topology.assignment == .spread)
    if !report.verdict.isGood { ledger.save(to: evidence, stored: stored) }
    return report
  }

  private func inParallel(_ users: [String], _ body: @escaping @Sendable (String) async throws -> Void) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for user in users { group.addTask { try await body(user) } }
      try await group.waitForAll()
    }
  }

  private var sessionCount: Int {
    let status = ClusterQuery.router(of: deployment, timeout: .milliseconds(300))
    return status?.masters.reduce(0) { $0 + Int($1.sessions) } ?? 0
  }

  /// Some people watch a second time, through the client in another language.
  private func startPythonWatchers(_ ledger: Ledger, _ password: Password) throws -> [Process] {
    guard let python else { return [] }
    guard ownsCluster else { throw Failure("--python is for a cluster of verify's own") }
    return try graph.users.prefix(Self.pythonWatchers).map { user in
      let watch = ledger.addWatch(of: user)
      let process = Process()
      process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
      process.arguments = [
        "python3", python, user, "--json", "--router", deployment.routerEndpoint, "--server-key-file",
        deployment.folder.key("cluster.pub"),
      ]
      process.environment = ProcessInfo.processInfo.environment.merging(["TINYSNS_PASSWORD": password.text]) { $1 }
      process.standardInput = FileHandle.nullDevice
      process.standardError = FileHandle.nullDevice
      let output = Pipe()
      process.standardOutput = output
      try process.run()
      let handle = output.fileHandleForReading
      _ = WorkerThread {
        var rest = Data()
        while true {
          let data = handle.availableData
          if data.isEmpty { return }
          rest += data
          while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            if let post = PostLine.parse(rest[..<end]) { ledger.show([post], at: watch) }
            rest = Data(rest[(end + 1)...])
          }
        }
      }
      return process
    }
  }

  /// Everybody posts now and then; and one person, the pulse, as fast as answers come, to measure pauses.
  private func startPosters(
    _ clients: [String: TinySNSClient], _ losses: [String: LossCounter], _ ledger: Ledger, _ stop: StopFlag
  ) -> [Task<Void, Never>] {
    let pause = Double(graph.users.count) / Double(max(1, rate))
    return graph.users.enumerated().map { index, user in
      let client = clients[user]!
      let isPulse = index == 0
      let lost = losses[user]!
      return Task { [texts] in
        var count = 0
        while !stop.isSet {
          count += 1
          let body = texts.isEmpty ? "" : texts[(index * 7_919 + count) % texts.count].filter { !$0.isNewline }
          let text = String("\(user) \(count) \(body)".prefix(280))
          let asked = Clock.now()
          let former = lost.count
          do {
            let id = try await client.post(text, timeout: .seconds(120))
            ledger.acknowledge(text, as: id, asked: asked, isUndisturbed: lost.count == former)
          } catch ClientError.refused(let refusal) {
            // Refused is refused: it must not be there. A limit or a full disk is told apart from a lost answer.
            if refusal.code == .tooOld { ledger.lose(text) }
          } catch {
            ledger.lose(text)
          }
          let rest = isPulse ? 0.002 : Double.random(in: 0...(2 * pause))
          try? await Task.sleep(for: .seconds(rest))
        }
      }
    }
  }

  /// Some people begin and cease to follow others all the time; they list and read in between, and know what they have to find:
  /// what they did themselves.
  private func startWanderers(
    _ clients: [String: TinySNSClient], _ ledger: Ledger, _ stop: StopFlag
  ) -> [Task<Void, Never>] {
    graph.users.prefix(Self.wanderers).enumerated().map { index, user in
      let client = clients[user]!
      let constant = Set(graph.timeline(of: user))
      let others = graph.users.filter { !constant.contains($0) }
      let random = RandomSource.seeded(seed ^ UInt64(index) << 32 ^ 0x3a_7de5)
      return Task {
        var random = random
        var followed: Set<String> = []
        var isCertain = true
        while !stop.isSet {
          try? await Task.sleep(for: .milliseconds(Int.random(in: 50...400, using: &random)))
          if let other = others.randomElement(using: &random) {
            let relation = Relation(follower: user, followed: other)
            let follows = !followed.contains(other)
            do {
              let id =
                try await follows
                ? client.follow(other, timeout: .seconds(120)) : client.unfollow(other, timeout: .seconds(120))
              if follows { followed.insert(other) } else { followed.remove(other) }
              ledger.change(relation, follows: follows, at: id)
            } catch ClientError.refused(let refusal) where [.storage, .unavailable, .limit].contains(refusal.code) {
              // It did not happen; but a disk that fails can't promise that.
              if refusal.code == .storage {
                ledger.doubt(relation)
                isCertain = false
              }
            } catch {
              if isCertain, case ClientError.refused(let refusal) = error {
                ledger.blame("\(user) can't \(follows ? "follow" : "unfollow") \(other): \(refusal.message)")
              }
              ledger.doubt(relation)
              isCertain = false
            }
          }
          await read(client, of: user, constant.union(followed), isCertain: isCertain, ledger)
        }
      }
    }
  }

  /// One's own list and newest posts, at whatever master serves: never older than what one has done before.
  private func read(
    _ client: TinySNSClient, of user: String, _ authors: Set<String>, isCertain: Bool, _ ledger: Ledger
  ) async {
    do {
      let listed = try await client.list(.following, timeout: .seconds(120))
      if isCertain, Set(listed) != authors.subtracting([user]) {
        ledger.blame("\(user) follows \(authors.count - 1) people, and LIST tells \(listed.count)")
      }
      let own = ledger.newest(of: user)
      let page = try await client.timeline(timeout: .seconds(120))
      ledger.countRead()
      let ids = page.posts.map(\.id)
      if ids != ids.sorted() || Set(ids).count != ids.count {
        ledger.blame("\(user) reads a page out of order: \(ids)")
      }
      if let stranger = page.posts.first(where: { isCertain && !authors.contains($0.author) }) {
        ledger.blame("\(user) reads post \(stranger.id) of \(stranger.author), whom it does not follow")
      }
      if let own, page.upTo < own || (ids.first.map { $0 <= own } ?? true) && !ids.contains(own) {
        ledger.blame("\(user) does not read its own post \(own) in a page up to \(page.upTo): \(ids)")
      }
    } catch {
      // No answer in two minutes, or the disk does not read: told by the pauses, and no wrong answer.
    }
  }

  private func torment(_ injector: FaultInjector, until end: Instant, _ ledger: Ledger) {
    var random = RandomSource.seeded(seed ^ 0x5eed)
    var lastProgress = Clock.now()
    let interval = faults == 0 ? Interval.seconds(86_400) : Interval(nanoseconds: 60_000_000_000 / Int64(faults))
    var next = Clock.now() + .milliseconds(500)
    while Clock.now() < end {
      if Clock.now() >= next {
        injector.inject(Fault.random(smallDisk: hasSmallDisk, using: &random))
        next = max(
          Clock.now(),
          next
            + Interval(
              nanoseconds: Int64.random(in: interval.nanoseconds / 2...interval.nanoseconds * 3 / 2, using: &random)))
      }
      usleep(10_000)
      let wait: Interval = isatty(STDERR_FILENO) == 1 ? .seconds(1) : .seconds(10)
      if Clock.now() - lastProgress >= wait {
        lastProgress = Clock.now()
        let counts = ledger.counts
        let left = max(0, (end - Clock.now()).milliseconds / 1_000)
        progress(
          "\(left) s left: \(injector.injected.count) faults, \(counts.acknowledged) posts acknowledged, "
            + "\(counts.delivered) delivered, \(counts.changes) follows and unfollows, \(counts.reads) pages read"
        )
      }
    }
  }

  /// Each user's whole timeline, page by page.
  private func readBack(_ clients: [String: TinySNSClient]) async throws -> [String: [Post]] {
    try await withThrowingTaskGroup(of: (String, [Post]).self) { group in
      for user in graph.users {
        group.addTask {
          var posts: [Post] = []
          var position = EventID.zero
          while true {
            let page = try await clients[user]!.timeline(
              range: .after(position), limit: Limits.pagePosts, timeout: .seconds(120))
            posts += page.posts
            position = page.upTo
            if !page.more { return (user, posts) }
          }
        }
      }
      var all: [String: [Post]] = [:]
      for try await (user, posts) in group { all[user] = posts }
      return all
    }
  }

  private func checkGraph(
    _ clients: [String: TinySNSClient], _ ledger: Ledger, _ verdict: inout Verdict
  ) async throws {
    var followers: [String: Set<String>] = [:]
    var doubted: [String: Set<String>] = [:]
    for user in graph.users {
      let (certain, doubtful) = ledger.followed(by: user)
      for other in graph.following[user, default: []] + certain { followers[other, default: []].insert(user) }
      for other in doubtful { doubted[other, default: []].insert(user) }
    }
    for user in graph.users {
      let following = try await clients[user]!.list(.following, timeout: .seconds(120))
      let (certain, doubtful) = ledger.followed(by: user)
      let expected = Set(graph.following[user, default: []]).union(certain)
      if Set(following).subtracting(doubtful) != expected.subtracting(doubtful) {
        verdict.violate("\(user) follows \(following.count) people, and should follow \(expected.count)")
      }
      let listed = try await clients[user]!.list(.followers, timeout: .seconds(120))
      if Set(listed).subtracting(doubted[user, default: []])
        != followers[user, default: []].subtracting(doubted[user, default: []])
      {
        verdict.violate("\(user) has \(listed.count) followers, and should have \(followers[user, default: []].count)")
      }
    }
  }

  private func pauses(_ injector: FaultInjector, _ ledger: Ledger) -> [String: [Interval]] {
    var pauses: [String: [Interval]] = [:]
    for (index, (fault, instant)) in injector.injected.enumerated() {
      let next = index + 1 < injector.injected.count ? injector.injected[index + 1].at : .distantFuture
      // Whoever is frozen for good is killed after the hang timeout; what comes later is not this fault's.
      let end = min(next, instant + deployment.timing.hangTimeout)
      let former = index > 0 ? injector.injected[index - 1].at : nil
      if let pause = ledger.pause(from: instant, to: end, former: former) {
        pauses[fault.rawValue, default: []].append(pause)
      }
    }
    return pauses
  }
}

/// How often a client has lost its master.
final class LossCounter: @unchecked Sendable {
  private let lock = NSLock()
  private var value = 0

  var count: Int { lock.withLock { value } }
  func add() { lock.withLock { value += 1 } }
}

/// Set once, read by many.
final class StopFlag: @unchecked Sendable {
  private let lock = NSLock()
  private var value = false

  var isSet: Bool { lock.withLock { value } }
  func set() { lock.withLock { value = true } }
}

/// What a run found, for people and programs.
struct VerifyReport: Sendable {
  var verdict: Verdict
  var faults: [(fault: Fault, at: Instant)]
  var pauses: [String: [Interval]]
  var slowest: Interval
  var longestCommit: Interval
  var reads: Int
  /// Follows and unfollows.
  var changes: Int
  var seed: UInt64
  /// People are at every master.
  var isSpread: Bool

  var violations: Int {
    verdict.lost + verdict.duplicated + verdict.outOfOrder + verdict.wrongTimelines + verdict.falseRespawns
      + verdict.otherViolations
  }

  private struct Pause: Encodable {
    var p50: Double
    var p99: Double
    var max: Double
    var count: Int
  }

  private struct Fields: Encodable {
    var seed: UInt64
    var acknowledged: Int
    var delivered: Int
    var unanswered: Int
    var lost: Int
    var duplicated: Int
    var out_of_order: Int
    var wrong_timelines: Int
    var faults: Int
    var false_respawns: Int
    var follows_and_unfollows: Int
    var pages_read: Int
    var longest_commit_ms: Double
    var slowest_answer_ms: Double
    var pause_ms: [String: Pause]
    var violations: [String]
  }

  private var pauseStatistics: [String: Pause] {
    pauses.mapValues { intervals in
      let sorted = intervals.map { Double($0.nanoseconds) / 1_000_000 }.sorted()
      func percentile(_ part: Double) -> Double {
        (sorted[min(sorted.count - 1, Int((Double(sorted.count) * part).rounded(.up)) - 1)] * 10).rounded() / 10
      }
      return Pause(p50: percentile(0.5), p99: percentile(0.99), max: percentile(1), count: sorted.count)
    }
  }

  var json: String {
    JSON.line(
      Fields(
        seed: seed, acknowledged: verdict.acknowledged, delivered: verdict.delivered, unanswered: verdict.unanswered,
        lost: verdict.lost, duplicated: verdict.duplicated, out_of_order: verdict.outOfOrder,
        wrong_timelines: verdict.wrongTimelines, faults: faults.count, false_respawns: verdict.falseRespawns,
        follows_and_unfollows: changes, pages_read: reads, longest_commit_ms: Double(longestCommit.milliseconds),
        slowest_answer_ms: Double(slowest.milliseconds), pause_ms: pauseStatistics, violations: verdict.findings))
  }

  var text: String {
    var lines = [
      "acknowledged \(verdict.acknowledged) posts, delivered \(verdict.delivered); without an answer \(verdict.unanswered)",
      "lost \(verdict.lost), duplicated \(verdict.duplicated), out of order \(verdict.outOfOrder), wrong timelines \(verdict.wrongTimelines)",
      "follows and unfollows \(changes), pages read \(reads)",
      "faults \(faults.count), false respawns \(verdict.falseRespawns)",
      "longest commit (request to acknowledgement, no failover in between) \(longestCommit.milliseconds) ms, "
        + "slowest answer \(slowest.milliseconds) ms",
      "the longest time without an acknowledgement after a fault, in ms:",
    ]
    for (kind, pause) in pauseStatistics.sorted(by: { $0.key < $1.key }) {
      let name = kind + String(repeating: " ", count: max(0, 22 - kind.count))
      lines.append("  \(name) \(pause.count) times   p50 \(pause.p50)   p99 \(pause.p99)   max \(pause.max)")
    }
    if isSpread { lines.append("  (with people at every master: the others' acknowledgements go on meanwhile)") }
    lines += verdict.findings.map { "VIOLATION \($0)" }
    return lines.joined(separator: "\n")
  }
}
