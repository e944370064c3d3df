// post, fanout, mixed, timeline: what a master gets done.

import ArgumentParser
import Foundation
import Model
import Topology

struct BenchPost: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "post", abstract: "Durable posts.")
  @OptionGroup var options: BenchOptions
  @Option(name: .customLong("in-flight"), parsing: .upToNextOption, help: "Posts under way.") var inFlight = [
    1, 50, 800,
  ]
  @Option(help: "Posts a second, instead of as many as can be.") var rate = 0.0

  func run() throws {
    let cluster = try options.cluster()
    for count in inFlight {
      Progress.show("post: \(count) in flight")
      options.report(try Self.measure(count, rate: rate, options, cluster))
    }
  }

  static func measure(_ inFlight: Int, rate: Double, _ options: BenchOptions, _ cluster: BenchCluster) throws
    -> BenchLine
  {
    var plan = try cluster.plan(.post, label: Bench.freshLabel("p"), seconds: options.seconds)
    plan.sessions = min(8, inFlight)
    plan.inFlight = inFlight
    plan.rate = rate
    let report = try Bench.run(plan)
    let count = max(Double(report.requests), 1)
    return BenchLine(
      bench: "post", name: "in_flight=\(inFlight)", ratePerSecond: report.requestRate, times: report.times[0],
      more: [
        ("masters", Double(cluster.deployment.topology.masters.count)), ("refused", Double(report.refused)),
        ("master_cpu_us", report.serverCPU / count * 1e6), ("load_cpu_us", report.ownCPU / count * 1e6),
      ])
  }
}

struct BenchFanout: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fanout",
    abstract: "One author and its watchers: deliveries a second, or with --rate the times from post to delivery.")
  @OptionGroup var options: BenchOptions
  @Option(parsing: .upToNextOption, help: "Watchers.") var watchers = [100, 1_000, 5_000]
  @Option(help: "Posts under way: not acknowledged yet, or not delivered to all.") var inFlight = 10
  @Option(help: "Posts a second, instead of as many as can be.") var rate = 0.0
  @Flag(help: "All watch the author's timeline, which is one topic, instead of following and watching their own ones.")
  var watchAuthor = false

  func run() throws {
    for count in watchers {
      let cluster = try options.cluster()
      Progress.show("fanout: \(count) watchers")
      options.report(try measure(count, cluster))
    }
  }

  private func measure(_ watchers: Int, _ cluster: BenchCluster) throws -> BenchLine {
    var plan = try cluster.plan(.fanout, label: Bench.freshLabel("f"), seconds: options.seconds)
    plan.watchesAuthor = watchAuthor
    plan.watchers = watchers
    plan.inFlight = rate > 0 ? 1_000 : inFlight
    plan.rate = rate
    let report = try Bench.run(plan)
    let count = max(Double(report.deliveries), 1)
    return BenchLine(
      bench: "fanout", name: "watchers=\(watchers)", ratePerSecond: report.deliveryRate,
      times: report.times[rate > 0 ? 7 : 0],
      more: [
        ("posts_per_s", report.requestRate),
        ("posts_an_update", Double(report.deliveries) / max(Double(report.updates), 1)),
        ("gaps", Double(report.gaps)),
        ("masters", Double(cluster.deployment.topology.masters.count)),
        ("master_cpu_us", report.serverCPU / count * 1e6), ("load_cpu_us", report.ownCPU / count * 1e6),
      ])
  }
}

struct BenchMixed: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mixed",
    abstract: "DeathStarBench's mix of home timelines, users' timelines and posts on a graph of friends.",
    discussion: "60 % home timelines, 30 % one user's timeline, 10 % posts, users drawn uniformly, pages of 10.")
  @OptionGroup var options: BenchOptions
  @Option(help: "Edges of friendships, a pair of numbers a line; default: a Zipf graph.", completion: .file())
  var graph: String?
  @Option(help: "Users of the Zipf graph.") var users = 2_000
  @Option(help: "Users that watch their home timelines.") var watchers = 500
  @Option(help: "Requests under way.") var inFlight = 50
  @Option(help: "Requests a second, instead of as many as can be.") var rate = 0.0

  func run() throws {
    let edges = try graph.map(readGraph) ?? zipfGraph()
    let cluster = try options.cluster()
    let label = Bench.freshLabel("m")
    let count = (edges.lazy.joined().max() ?? 0) + 1
    Progress.show("mixed: \(count) users")
    var registration = try cluster.plan(.post, label: label, seconds: 30)
    registration.sessions = count
    registration.inFlight = 100
    registration.warmup = 0
    registration.requestsMax = UInt64(count * 5)
    _ = try Bench.run(registration)
    var plan = try cluster.plan(.mixed, label: label, seconds: options.seconds)
    plan.graph = edges
    plan.watchers = min(watchers, count)
    plan.inFlight = inFlight
    plan.rate = rate
    let report = try Bench.run(plan)
    for (kind, name) in [(0, "home"), (1, "author"), (2, "post")] {
      options.report(
        BenchLine(
          bench: "mixed", name: name, ratePerSecond: Double(report.times[kind]?.count ?? 0) / report.seconds,
          times: report.times[kind],
          more: [
            ("users", Double(count)), ("edges", Double(edges.count)), ("watchers", Double(plan.watchers)),
            ("deliveries_per_s", report.deliveryRate), ("gaps", Double(report.gaps)),
          ]))
    }
  }

  private func readGraph(_ path: String) throws -> [[Int]] {
    try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").compactMap { line in
      let pair = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).compactMap { Int($0) }
      return pair.count >= 2 && pair[0] != pair[1] ? [pair[0], pair[1]] : nil
    }
  }

  /// 20 friends a user on average, whom the k-th is with a probability of 1/k.
  private func zipfGraph() -> [[Int]] {
    var sums = [0.0]
    for rank in 1...users { sums.append(sums[rank - 1] + 1 / Double(rank)) }
    var random = SplitMix64(seed: 1)
    var seen: Set<[Int]> = []
    for user in 0..<users {
      for _ in 0..<10 {
        let point = Double(random.next() >> 11) / Double(1 << 53) * sums[users]
        let friend = (sums.firstIndex { $0 > point } ?? users) - 1
        if friend != user { seen.insert([min(user, friend), max(user, friend)]) }
      }
    }
    return seen.sorted { ($0[0], $0[1]) < ($1[0], $1[1]) }
  }
}

struct BenchTimeline: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "timeline", abstract: "Reads of the newest 20 posts, and of older pages.")
  @OptionGroup var options: BenchOptions
  @Option(parsing: .upToNextOption, help: "Whom the reader follows.") var followees = [10, 100, 1_000]
  @Option(parsing: .upToNextOption, help: "Posts in the log.") var posts = [10_000, 1_000_000]

  func run() throws {
    for count in posts {
      let cluster = try options.cluster()
      let authors = Bench.freshLabel("a")
      try Self.fill(cluster, posts: count, authors: authors)
      var readers: [(followed: Int, name: String)] = []
      for followed in followees {
        for before in [0, UInt64(count)] {
          Progress.show("timeline: \(followed) followees, \(count) posts")
          let label = Bench.freshLabel("r")
          options.report(try measure(followed, count, before, authors, cluster, label: label))
          if before == 0 { readers.append((followed, label + "-reader")) }
        }
      }
      guard options.running == nil else { continue }
      cluster.stop()
      for (followed, reader) in readers {
        Progress.show("timeline: \(followed) followees, \(count) posts, at the master itself")
        var benches = [try PageBench(folder: cluster.deployment.topology.state, user: reader)]
        options.report(
          BenchLine(
            bench: "timeline", name: "at_master,followees=\(followed),posts=\(count)", ratePerSecond: 0,
            times: try PageBench.newest(&benches)[0]))
      }
    }
  }

  private func measure(
    _ followed: Int, _ posts: Int, _ before: UInt64, _ authors: String, _ cluster: BenchCluster, label: String
  ) throws -> BenchLine {
    var plan = try cluster.plan(.timeline, label: label, seconds: options.seconds)
    plan.followees = followed
    plan.authors = authors
    plan.before = before
    let report = try Bench.run(plan)
    return BenchLine(
      bench: "timeline", name: "\(before == 0 ? "newest" : "older"),followees=\(followed),posts=\(posts)",
      ratePerSecond: report.requestRate, times: report.times[0],
      more: [
        ("master_cpu_us", report.serverCPU / max(Double(report.requests), 1) * 1e6),
        ("refused", Double(report.refused)),
      ])
  }

  /// Posts by 1,000 authors in turn.
  static func fill(_ cluster: BenchCluster, posts: Int, authors: String) throws {
    Progress.show("filling the log with \(posts) posts")
    var plan = try cluster.plan(.post, label: authors, seconds: 600)
    plan.sessions = 1_000
    plan.inFlight = 4_000
    plan.warmup = 0
    plan.requestsMax = UInt64(posts)
    _ = try Bench.run(plan)
  }
}
