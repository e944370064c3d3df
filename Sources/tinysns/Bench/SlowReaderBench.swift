// slow-reader: one watcher among many that stops reading.

import ArgumentParser
import Foundation
import Model
import Runtime
import TinySNSClient

struct BenchSlowReader: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "slow-reader",
    abstract: "Times from post to delivery at many watchers, without and with one more that is frozen.",
    discussion: """
      The frozen one is a client process that is stopped by a signal while the load runs, and goes on afterwards: then it has to show \
      every post, in order. Exit code 1 if it does not, or if the master needed more than --memory-max.
      """)
  @OptionGroup var options: BenchOptions
  @Option(help: "Watchers, besides the frozen one.") var watchers = 1_000
  @Option(help: "Posts a second.") var rate = 10.0
  @Option(help: "The most memory that the master may ever have needed, in MiB.") var memoryMax = 512.0

  func run() throws {
    let cluster = try options.cluster()
    defer { cluster.remove() }
    var p99: [Double] = []
    for isFrozen in [false, true] {
      Progress.show("slow-reader: \(watchers) watchers\(isFrozen ? ", and a frozen one" : "")")
      var plan = try cluster.plan(.fanout, label: Bench.freshLabel("f"), seconds: options.seconds)
      plan.watchers = watchers
      plan.inFlight = 1_000
      plan.rate = rate
      plan.warmup = 3
      // Long ones fill the frozen one's queues sooner.
      plan.bytes = 1_000
      let reader = isFrozen ? try FrozenReader(cluster, author: "\(plan.label)-author") : nil
      let report = try Bench.run(plan)
      var more = [
        ("posts_per_s", report.requestRate), ("gaps", Double(report.gaps)),
        ("master_peak_mib", ProcessFigures.peakMemory(plan.serverPid) / 1_048_576),
      ]
      if let reader {
        let (shown, time) = try reader.thaw()
        more += [("shown_by_the_frozen_one", Double(shown)), ("caught_up_ms", Double(time.milliseconds))]
      }
      p99.append(report.times[7]?.p99_us ?? 0)
      if isFrozen { more.append(("p99_ratio", p99[1] / max(p99[0], 1))) }
      options.report(
        BenchLine(
          bench: "slow-reader", name: "watchers=\(watchers),frozen=\(isFrozen ? 1 : 0)",
          ratePerSecond: report.deliveryRate,
          times: report.times[7], more: more))
      let peak = ProcessFigures.peakMemory(plan.serverPid) / 1_048_576
      if peak > memoryMax { throw Failure("the master needed \(Int(peak)) MiB") }
    }
  }
}

/// `tinysns timeline --follow` of one who follows the load's author: frozen as soon as it watches.
private final class FrozenReader: @unchecked Sendable {
  private let cluster: BenchCluster
  private let author: String
  private let user: String
  private let process = Process()
  private let output: URL

  init(_ cluster: BenchCluster, author: String) throws {
    self.cluster = cluster
    self.author = author
    user = Bench.freshLabel("z")
    output = FileManager.default.temporaryDirectory.appending(path: "tinysns-frozen-\(getpid())-\(user)")
    _ = FileManager.default.createFile(atPath: output.path, contents: nil)
    let (reader, router, key) = (user, cluster.deployment.routerEndpoint, try cluster.deployment.serverKey())
    // The load registers its author under a password of its own choice if there is one already: so it must be there first.
    try Bench.wait {
      let client = try TinySNSClient(
        router: router, serverKey: key, user: author, password: Bench.password(of: author), register: true)
      try await client.ready()
      await client.close()
      let follower = try TinySNSClient(
        router: router, serverKey: key, user: reader, password: Bench.password(of: reader), register: true)
      _ = try await follower.follow(author)
      await follower.close()
    }
    process.executableURL = URL(fileURLWithPath: try Bench.program())
    process.arguments = ["timeline", user, "--follow", "--json", "--topology", cluster.deployment.path]
    process.environment = ProcessInfo.processInfo.environment.merging(
      ["TINYSNS_PASSWORD": Bench.password(of: user).text], uniquingKeysWith: { $1 })
    process.standardOutput = try FileHandle(forWritingTo: output)
    process.standardInput = FileHandle.nullDevice
    try process.run()
    usleep(1_500_000)  // it has nothing to show that would tell that it watches
    kill(process.processIdentifier, SIGSTOP)
  }

  deinit {
    if process.isRunning {
      kill(process.processIdentifier, SIGCONT)
      process.terminate()
      process.waitUntilExit()
    }
    try? FileManager.default.removeItem(at: output)
  }

  /// Lets it go on. Returns how many posts it showed and how long it took until it had all.
  func thaw() throws -> (shown: Int, time: Interval) {
    let wanted = try posts()
    let start = Clock.now()
    kill(process.processIdentifier, SIGCONT)
    while true {
      let shown = try String(contentsOf: output, encoding: .utf8).split(separator: "\n").compactMap(Self.id)
      if shown.count >= wanted.count {
        guard shown == wanted else { throw Failure("the frozen one did not show each post once, in order") }
        return (shown.count, Clock.now() - start)
      }
      guard Clock.now() - start < .seconds(60) else {
        throw Failure("the frozen one has shown \(shown.count) of \(wanted.count) posts after a minute")
      }
      usleep(5_000)
    }
  }

  private static func id(_ line: Substring) -> UInt64? {
    struct Line: Decodable { var id: UInt64 }
    return try? JSONDecoder().decode(Line.self, from: Data(line.utf8)).id
  }

  /// The ids of all posts of the author.
  private func posts() throws -> [UInt64] {
    let (author, router, key) = (author, cluster.deployment.routerEndpoint, try cluster.deployment.serverKey())
    let user = user
    let found = Found()
    try Bench.wait {
      let client = try TinySNSClient(
        router: router, serverKey: key, user: user, password: Bench.password(of: user), register: true)
      var position = EventID.zero
      while true {
        let page = try await client.timeline(.author(author), range: .after(position), limit: Limits.pagePosts)
        found.ids += page.posts.map(\.id.rawValue)
        position = page.upTo
        if !page.more { break }
      }
      await client.close()
    }
    return found.ids
  }

  /// Used by one task, and read when that is over.
  private final class Found: @unchecked Sendable { var ids: [UInt64] = [] }
}
