// failover, start, storm, idle: what it takes to be there.

import ArgumentParser
import Core
import Foundation
import Model
import Runtime
import Synchronization
import TinySNSClient
import Topology

struct BenchFailover: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "failover",
    abstract: "The pause of a user when the master is killed: from SIGKILL to the next acknowledged post.")
  @OptionGroup var options: BenchOptions
  @Option(help: "How often.") var kills = 100

  func run() throws {
    var options = options
    options.topologyLine += ["respawn_delay: 1s"]
    let cluster = try options.cluster(masters: max(options.masters, 4))
    defer { cluster.remove() }
    let (kills, measured) = (kills, options)
    try Bench.wait { try await Self.measure(cluster, kills, measured) }
  }

  static func measure(_ cluster: BenchCluster, _ kills: Int, _ options: BenchOptions) async throws {
    let user = Bench.freshLabel("k")
    let client = try TinySNSClient(
      router: cluster.deployment.routerEndpoint, serverKey: cluster.deployment.serverKey(), user: user,
      password: Bench.password(of: user), register: true)
    _ = try await client.post("first")
    var pauses: [Interval] = []
    for number in 1...kills {
      Progress.show("failover: \(number) of \(kills)")
      // Kill a master that has others behind it.
      let wanted = max(2, cluster.deployment.topology.masters.count / 2)
      while (cluster.status()?.masters.filter { $0.state == .standby }.count ?? 0) < wanted {
        try await Task.sleep(for: .milliseconds(20))
      }
      let master = try cluster.available()
      _ = try await client.post("before \(number)")
      let killed = Clock.now()
      kill(master.pid, SIGKILL)
      _ = try await client.post("after \(number)")
      pauses.append(Clock.now() - killed)
    }
    await client.close()
    options.report(
      BenchLine(
        bench: "failover", name: "kills=\(kills)", ratePerSecond: 0, times: Bench.times(pauses),
        more: [("masters", Double(cluster.deployment.topology.masters.count))]))
  }
}

struct BenchStart: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "start", abstract: "The start of a cluster, and of a master on a long log.")
  @OptionGroup var options: BenchOptions
  @Option(help: "Posts in the long log; 0: leave it out.") var posts = 1_000_000
  @Option(help: "How often.") var runs = 5

  func run() throws {
    let count = max(options.masters, 8)
    var times: [Interval] = []
    for _ in 0..<runs {
      let cluster = try BenchCluster(masters: count, in: options.folder, security: options.security)
      times.append(cluster.startTime!)
    }
    options.report(BenchLine(bench: "start", name: "masters=\(count)", ratePerSecond: 0, times: Bench.times(times)))
    guard posts > 0 else { return }
    let cluster = try BenchCluster(masters: 1, in: options.folder, security: options.security)
    try BenchTimeline.fill(cluster, posts: posts, authors: Bench.freshLabel("a"))
    sleep(3)  // the derived tables are written behind the log
    times = []
    for _ in 0..<runs {
      cluster.stop()
      try cluster.start()
      times.append(cluster.startTime!)
    }
    let memory = ProcessFigures.memory(try cluster.available().pid)
    options.report(
      BenchLine(
        bench: "start", name: "posts=\(posts)", ratePerSecond: 0, times: Bench.times(times),
        more: [("master_memory_mib", memory / 1_048_576)]))
  }
}

struct BenchStorm: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "storm",
    abstract:
      "All clients fail over at once: from SIGKILL until the last watcher has seen the next post, without a gap.")
  @OptionGroup var options: BenchOptions
  @Option(help: "Watching clients.") var clients = 2_000

  func run() throws {
    let cluster = try options.cluster(masters: max(options.masters, 3))
    defer { cluster.remove() }
    let (options, clients) = (options, clients)
    try Bench.wait { try await Self.measure(cluster, clients, options) }
  }

  private final class Watchers: Sendable {
    /// From the loss of the master to the next login, and how often a master was lost.
    let pauses = Mutex<[Interval]>([])
    let losses = Mutex<[ClientNote.LossCause: Int]>([:])
    /// The last that each session told.
    let news: Mutex<[ClientNote?]>

    /// The last post that each watcher has seen, and how many were not the next.
    let seen: Mutex<[Int]>
    let gaps = Mutex(0)
    init(_ count: Int) {
      seen = Mutex(Array(repeating: -1, count: count))
      news = Mutex(Array(repeating: nil, count: count))
    }

    /// What is known of those who have not seen a post.
    func report(missing number: Int) -> String {
      let behind = seen.withLock { $0.indices(where: { $0 < number }) }
      let losses = losses.withLock { $0 }
      let news = news.withLock { news in
        behind.ranges.joined().prefix(3).map { news[$0].map { "\($0)" } ?? "nothing" }
      }
      return "connections lost: \(losses); the last news of some: \(news.joined(separator: ", "))"
    }

    func saw(_ number: Int, at watcher: Int) {
      seen.withLock { seen in
        if seen[watcher] >= 0, number != seen[watcher] + 1 { gaps.withLock { $0 += 1 } }
        seen[watcher] = number
      }
    }

    func behind(_ number: Int) -> Int { seen.withLock { $0.count { $0 < number } } }
  }

  static func measure(_ cluster: BenchCluster, _ count: Int, _ options: BenchOptions) async throws {
    let router = cluster.deployment.routerEndpoint
    let key = try cluster.deployment.serverKey()
    let label = Bench.freshLabel("s")
    func client(_ user: String, _ loop: ClientLoop? = nil) throws -> TinySNSClient {
      try TinySNSClient(
        router: router, serverKey: key, user: user, password: Bench.password(of: user), register: true, loop: loop)
    }
    let author = try client(label + "-author")
    _ = try await author.post("0")
    let loop = try ClientLoop(sessions: count)
    let watchers = Watchers(count)
    var clients: [TinySNSClient] = []
    for index in 0..<count {
      let user = "\(label)-\(index)"
      let client = try TinySNSClient(
        router: router, serverKey: key, user: user, password: Bench.password(of: user), register: true, loop: loop
      ) { (note: TinySNSClient.Note) in
        watchers.news.withLock { $0[index] = note }
        switch note {
        case .lost(_, let cause): watchers.losses.withLock { $0[cause, default: 0] += 1 }
        case .serving(_, _, let pause?): watchers.pauses.withLock { $0.append(pause) }
        default: break
        }
      }
      clients.append(client)
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for client in clients { group.addTask { try await client.follow(label + "-author", timeout: .seconds(60)) } }
      try await group.waitForAll()
    }
    let tasks = clients.enumerated().map { index, client in
      Task {
        for try await posts in client.watch() {
          for post in posts { watchers.saw(Int(post.text) ?? -1, at: index) }
        }
      }
    }
    func wait(for number: Int, within time: Interval) async throws {
      let deadline = Clock.now() + time
      while watchers.behind(number) > 0 {
        guard Clock.now() < deadline else {
          throw Failure(
            "\(watchers.behind(number)) of \(count) watchers missed post \(number); \(watchers.report(missing: number))"
          )
        }
        try await Task.sleep(for: .milliseconds(2))
      }
    }
    var number = 1
    _ = try await author.post("\(number)")
    Progress.show("storm: \(count) clients log in")
    try await wait(for: number, within: .seconds(60))
    Progress.show("storm: \(count) clients fail over")
    let master = try cluster.available()
    let killed = Clock.now()
    kill(master.pid, SIGKILL)
    number += 1
    _ = try await author.post("\(number)")
    let posted = Clock.now() - killed
    try await wait(for: number, within: .seconds(60))
    let all = Clock.now() - killed
    // What was missed would show as a gap at the next one.
    number += 1
    _ = try await author.post("\(number)")
    try await wait(for: number, within: .seconds(60))
    let logins = Bench.times(watchers.pauses.withLock { $0 })
    options.report(
      BenchLine(
        bench: "storm", name: "clients=\(count)", ratePerSecond: 0, times: Bench.times([all]),
        more: [
          ("gaps", Double(watchers.gaps.withLock { $0 })), ("first_ack_ms", Double(posted.milliseconds)),
          ("losses", Double(watchers.losses.withLock { $0.values.reduce(0, +) })),
          ("goodbyes", Double(watchers.losses.withLock { $0[.goodbye, default: 0] })),
          ("login_p50_ms", logins.p50_us / 1e3), ("login_max_ms", logins.max_us / 1e3),
        ]))
    for task in tasks { task.cancel() }
  }
}

struct BenchIdle: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "idle",
    abstract: "What a cluster costs that does nothing: processor time, memory, memory a connected client.")
  @OptionGroup var options: BenchOptions
  @Option(
    help:
      "Connected clients that watch, 10 at least or none; their memory is what is needed beyond that with a tenth of them."
  )
  var clients = 1_000

  func validate() throws {
    guard clients == 0 || clients >= 10 else { throw ValidationError("--clients: at least 10, or 0 for none") }
  }

  func run() throws {
    let count = max(options.masters, 8)
    let cluster = try options.cluster(masters: count)
    sleep(3)
    Progress.show("idle: \(count) masters")
    func cpu() -> [String: Double] {
      Dictionary(uniqueKeysWithValues: cluster.pids().map { ($0.name, ProcessFigures.cpuSeconds($0.pid)) })
    }
    let seconds = max(options.seconds, 20)
    let before = cpu()
    usleep(UInt32(seconds * 1e6))
    let after = cpu()
    var byRole: [String: Double] = [:]
    for (name, time) in after {
      byRole[String(name.prefix { $0 != "-" }), default: 0] += (time - (before[name] ?? 0)) / seconds * 100
    }
    let master = try cluster.available()
    let idle = ProcessFigures.memory(master.pid)
    var more = [("core_percent", byRole.values.reduce(0, +))]
    for role in byRole.keys.sorted() { more.append(("\(role)_percent", byRole[role]!)) }
    more.append(("master_memory_mib", idle / 1_048_576))
    options.report(BenchLine(bench: "idle", name: "masters=\(count)", ratePerSecond: 0, times: nil, more: more))
    guard clients > 0 else { return }

    Progress.show("idle: \(clients) clients")
    let plan = try cluster.plan(.fanout, label: "", seconds: 4)
    let ours = try memoryOfClients(plan)
    Progress.show("idle: \(clients) clients of libzmq alone")
    let peer = try ZeroMQServer()
    var peerPlan = plan
    (peerPlan.port, peerPlan.updatesPort, peerPlan.serverPid) = (peer.port, peer.updatesPort, peer.pid)
    let theirs = try memoryOfClients(peerPlan)
    options.report(
      BenchLine(
        bench: "idle", name: "clients=\(clients)", ratePerSecond: 0, times: nil,
        more: [
          ("memory_kib_each", ours.each), ("master_memory_mib", ours.most), ("libzmq_memory_kib_each", theirs.each),
          ("libzmq_memory_mib", theirs.most),
        ]))
  }

  /// What the clients of a plan cost its server: KiB each, and MiB of the process with them. What the process needs once it has any, code
  /// above all, is no client's share: so this is how much greater its greatest memory is with all of them than with a tenth of them before.
  /// Those are gone by then; a master still knows their accounts, which counts as the others' memory.
  private func memoryOfClients(_ plan: LoadPlan) throws -> (each: Double, most: Double) {
    let few = clients / 10
    let before = try memory(with: few, of: plan)
    let most = try memory(with: clients, of: plan)
    return ((most - before) / 1024 / Double(clients - few), most / 1_048_576)
  }

  /// The greatest memory of the plan's server, in bytes, while so many clients watch.
  private func memory(with clients: Int, of plan: LoadPlan) throws -> Double {
    var plan = plan
    plan.label = Bench.freshLabel("i")
    plan.watchers = clients
    plan.rate = 0.01
    let sampler = MemorySampler(plan.serverPid)
    defer { _ = sampler.stop() }
    _ = try Bench.run(plan)
    return sampler.stop()
  }
}

/// libzmq's sockets that clients connect to, and no service behind them.
private final class ZeroMQServer {
  let port: UInt16
  let updatesPort: UInt16
  private let process = Process()
  private let commands = Pipe()
  var pid: Int32 { process.processIdentifier }

  init() throws {
    port = try PortCheck.freePort()
    updatesPort = try PortCheck.freePort()
    process.executableURL = URL(fileURLWithPath: try Bench.program())
    process.arguments = ["bench", "zmq-publisher", "--port", "\(port)", "--updates", "\(updatesPort)"]
    process.standardInput = commands
    try process.run()
    guard PortCheck.awaitListener(at: updatesPort) else { throw Failure("libzmq's server does not listen") }
    usleep(100_000)
  }

  deinit {
    try? commands.fileHandleForWriting.close()
    process.waitUntilExit()
  }
}

/// Notes a process's greatest memory.
final class MemorySampler: Sendable {
  private let most = Mutex(0.0)
  private let isOver = Mutex(false)

  init(_ pid: Int32) {
    Thread.detachNewThread { [self] in
      while !isOver.withLock({ $0 }) {
        let now = ProcessFigures.memory(pid)
        most.withLock { $0 = max($0, now) }
        usleep(50_000)
      }
    }
  }

  func stop() -> Double {
    isOver.withLock { $0 = true }
    return most.withLock { $0 }
  }
}

extension Bench {
  /// Waits for async work; its error ends the process after the cluster has been stopped.
  static func wait(_ body: @escaping @Sendable () async throws -> Void) throws {
    let done = DispatchSemaphore(value: 0)
    let box = OutcomeBox()
    Task {
      do {
        try await body()
        box.result.withLock { $0 = .success(()) }
      } catch {
        box.result.withLock { $0 = .failure(Failure(error)) }
      }
      done.signal()
    }
    done.wait()
    try box.result.withLock { $0! }.get()
  }
}

private final class OutcomeBox: Sendable {
  let result = Mutex<Result<Void, Failure>?>(nil)
}
