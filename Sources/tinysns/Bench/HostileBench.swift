// hostile: the same load without and with people who mean harm.

import ArgumentParser
import Core
import Foundation
import Model
import Node
import Runtime
import Synchronization
import TinySNSClient
import Topology

extension Bench {
  /// A login of a benchmark's user.
  static func hello(_ user: String) -> Hello {
    Hello(
      client: ClientID(.random(in: .min ... .max)), user: user, register: true, newest: .zero,
      proof: .password(Bench.password(of: user)))
  }
}

struct BenchHostile: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hostile",
    abstract: "A steady load, half of the time alone and half of it amid attackers at every port.",
    discussion: """
      The attackers throw garbage, break off handshakes, send byte by byte, hold connections open, claim huge lengths, and with valid \
      sessions mutate, replay and reorder requests, miscount frames and subscribe to anything. Exit code 1 if no post was acknowledged \
      for longer than --stall-max, if a post was lost, doubled or came out of order, or if a process needed more than --memory-max.
      """)
  @OptionGroup var options: BenchOptions
  @Option(help: "Posts a second.") var rate = 100.0
  @Option(help: "Watchers, of all authors.") var watchers = 20
  @Option(help: "The longest time without an acknowledged post, in milliseconds.") var stallMax = 2_000.0
  @Option(help: "The most memory that a process of the cluster may ever have needed, in MiB.") var memoryMax = 512.0

  func run() throws {
    var options = options
    options.masters = max(options.masters, 2)
    let cluster = try options.cluster()
    defer { cluster.remove() }
    let (bench, configured) = (self, options)
    try Bench.wait { try await bench.measure(cluster, configured) }
  }

  private func measure(_ cluster: BenchCluster, _ options: BenchOptions) async throws {
    var wrong: [String] = []
    let load = try await SteadyLoad(cluster, watchers: watchers)
    for isAttacked in [false, true] {
      let half = options.seconds / 2
      Progress.show("hostile: \(Int(half)) s \(isAttacked ? "amid attackers" : "alone")")
      async let attack: AttackReport? = isAttacked ? Self.attack(cluster, seconds: half) : nil
      let figures = try await load.run(rate: rate, seconds: half)
      let report = try await attack
      var more = [
        ("posts", Double(figures.acknowledged)), ("failed", Double(figures.failed)), ("lost", Double(figures.lost)),
        ("doubled_or_disordered", Double(figures.disordered)), ("longest_stall_ms", figures.stall * 1e3),
        ("delivery_p50_us", figures.deliveries.p50_us), ("delivery_p99_us", figures.deliveries.p99_us),
      ]
      for (name, pid) in cluster.pids().sorted(by: { $0.name < $1.name }) where name != Deployment.launcher {
        let peak = ProcessFigures.peakMemory(pid) / 1_048_576
        more.append(("peak_mib_\(name)", peak))
        if peak > memoryMax { wrong.append("\(name) needed \(Int(peak)) MiB") }
      }
      for (kind, count) in (report?.counts ?? [:]).sorted(by: { $0.key < $1.key }) {
        more.append((kind.replacing(" ", with: "_"), Double(count)))
        if count == 0 { wrong.append("there were no \(kind)") }
      }
      options.report(
        BenchLine(
          bench: "hostile", name: isAttacked ? "attacked" : "alone", ratePerSecond: Double(figures.acknowledged) / half,
          times: figures.posts, more: more))
      let when = isAttacked ? "amid attackers" : "alone"
      if figures.lost > 0 { wrong.append("\(figures.lost) posts lost \(when)") }
      if figures.disordered > 0 { wrong.append("\(figures.disordered) posts doubled or out of order \(when)") }
      if figures.failed > 0 { wrong.append("\(figures.failed) posts failed \(when)") }
      if figures.stall * 1e3 > stallMax { wrong.append("no post for \(Int(figures.stall * 1e3)) ms \(when)") }
    }
    await load.close()
    if !wrong.isEmpty { throw Failure(wrong.joined(separator: "; ")) }
  }

  private static func attack(_ cluster: BenchCluster, seconds: Double) async throws -> AttackReport {
    let master = try cluster.available()
    let plan = AttackPlan(
      ports: ListeningPorts.of(cluster.pids().map(\.pid)), requests: master.requests, timelines: master.timelines,
      router: cluster.deployment.routerEndpoint,
      serverKey: cluster.deployment.topology.security == .curve
        ? try String(contentsOfFile: cluster.deployment.folder.key("cluster.pub"), encoding: .utf8)
          .trimmingCharacters(in: .whitespacesAndNewlines) : nil,
      label: Bench.freshLabel("h"), seconds: seconds)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try Bench.program())
    process.arguments = ["bench", "attackers", String(decoding: try JSONEncoder().encode(plan), as: UTF8.self)]
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    return try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread {
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        continuation.resume(
          with: Result {
            guard process.terminationStatus == 0 else { throw Failure("the attackers failed") }
            return try JSONDecoder().decode(AttackReport.self, from: data)
          })
      }
    }
  }
}

/// Authors who post at a fixed rate, and watchers who must see it all.
private final class SteadyLoad: Sendable {
  struct Figures: Sendable {
    var acknowledged = 0
    var failed = 0
    var lost = 0
    var disordered = 0
    /// The longest time between two acknowledgements, in seconds.
    var stall = 0.0
    var posts = LoadTimes(count: 0, p50_us: 0, p99_us: 0, max_us: 0)
    var deliveries = LoadTimes(count: 0, p50_us: 0, p99_us: 0, max_us: 0)
  }

  private struct Ledger {
    var acknowledged: Set<EventID> = []
    var failed = 0
    var lastAcknowledged: Instant?
    var stall = Interval.zero
    var posts: [Interval] = []
    var deliveries: [Interval] = []
    /// By watcher: what it has seen, and the last of it.
    var seen: [Set<EventID>]
    var last: [EventID]
    var disordered = 0
    /// When each post was due, by its text.
    var due: [String: Instant] = [:]
  }

  private static let authorCount = 4

  private let authors: [TinySNSClient]
  private let watchers: [TinySNSClient]
  private let ledger: Mutex<Ledger>
  private let tasks = Mutex<[Task<Void, any Error>]>([])

  init(_ cluster: BenchCluster, watchers count: Int) async throws {
    let router = cluster.deployment.routerEndpoint
    let key = try cluster.deployment.serverKey()
    let label = Bench.freshLabel("l")
    let loop = try ClientLoop(sessions: count + Self.authorCount)
    func client(_ name: String) throws -> TinySNSClient {
      try TinySNSClient(
        router: router, serverKey: key, user: "\(label)-\(name)", password: Bench.password(of: "\(label)-\(name)"),
        register: true, loop: loop)
    }
    authors = try (0..<Self.authorCount).map { try client("author-\($0)") }
    watchers = try (0..<count).map { try client("watcher-\($0)") }
    ledger = Mutex(
      Ledger(seen: Array(repeating: [], count: count), last: Array(repeating: .zero, count: count)))
    for author in authors { try await author.ready() }
    for (index, watcher) in watchers.enumerated() {
      for author in authors { _ = try await watcher.follow(author.user) }
      tasks.withLock {
        $0.append(Task { for try await posts in watcher.watch() { self.saw(posts, at: index) } })
      }
    }
  }

  func close() async {
    for task in tasks.withLock({ $0 }) { task.cancel() }
    for client in authors + watchers { await client.close() }
  }

  private func saw(_ posts: [Post], at index: Int) {
    let now = Clock.now()
    ledger.withLock { ledger in
      for post in posts {
        if post.id <= ledger.last[index] { ledger.disordered += 1 }
        ledger.last[index] = max(ledger.last[index], post.id)
        ledger.seen[index].insert(post.id)
        if let due = ledger.due[post.text] { ledger.deliveries.append(now - due) }
      }
    }
  }

  func run(rate: Double, seconds: Double) async throws -> Figures {
    let start = Clock.now()
    let before = ledger.withLock { ledger in
      ledger.failed = 0
      ledger.stall = .zero
      ledger.lastAcknowledged = start
      ledger.posts = []
      ledger.deliveries = []
      ledger.due = [:]
      ledger.disordered = 0
      return ledger.acknowledged
    }
    await withTaskGroup(of: Void.self) { group in
      for number in 0..<Int(rate * seconds) {
        let due = start + .microseconds(Int64(Double(number) * 1e6 / rate))
        let wait = due - Clock.now()
        if wait > .zero { try? await Task.sleep(for: .nanoseconds(wait.nanoseconds)) }
        let author = authors[number % authors.count]
        let text = "\(start.nanoseconds) \(number)"
        ledger.withLock { $0.due[text] = due }
        group.addTask { await self.post(text, by: author, due: due) }
      }
    }
    let end = Clock.now()
    // What was acknowledged has to come, be it by repair.
    let deadline = end + .seconds(20)
    while missing() > 0, Clock.now() < deadline { try await Task.sleep(for: .milliseconds(20)) }
    let lost = missing()
    return ledger.withLock { ledger in
      Figures(
        acknowledged: ledger.acknowledged.count - before.count, failed: ledger.failed, lost: lost,
        disordered: ledger.disordered,
        stall: Double(max(ledger.stall, end - (ledger.lastAcknowledged ?? end)).nanoseconds) / 1e9,
        posts: Bench.times(ledger.posts), deliveries: Bench.times(ledger.deliveries))
    }
  }

  private func post(_ text: String, by author: TinySNSClient, due: Instant) async {
    do throws(ClientError) {
      let id = try await author.post(text)
      let now = Clock.now()
      ledger.withLock { ledger in
        ledger.acknowledged.insert(id)
        ledger.posts.append(now - due)
        if let last = ledger.lastAcknowledged { ledger.stall = max(ledger.stall, now - last) }
        ledger.lastAcknowledged = now
      }
    } catch {
      ledger.withLock { $0.failed += 1 }
    }
  }

  /// Acknowledged posts that a watcher has not seen, over all watchers.
  private func missing() -> Int {
    ledger.withLock { ledger in ledger.seen.reduce(0) { $0 + ledger.acknowledged.subtracting($1).count } }
  }
}

/// Which TCP ports processes listen at, as the kernel tells.
enum ListeningPorts {
  static func of(_ pids: [Int32]) -> [UInt16] {
    var inodes: Set<Substring> = []
    for pid in pids {
      for name in (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd")) ?? [] {
        guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/fd/\(name)"),
          target.hasPrefix("socket:[")
        else { continue }
        inodes.insert(target.dropFirst(8).dropLast())
      }
    }
    var ports: Set<UInt16> = []
    let table = (try? String(contentsOfFile: "/proc/net/tcp", encoding: .utf8)) ?? ""
    for line in table.split(separator: "\n").dropFirst() {
      // sl, local address, remote address, state (0A: listens), …, inode.
      let fields = line.split(separator: " ")
      guard fields.count > 9, fields[3] == "0A", inodes.contains(fields[9]),
        let port = UInt16(fields[1].suffix(4), radix: 16)
      else { continue }
      ports.insert(port)
    }
    return ports.sorted()
  }
}
