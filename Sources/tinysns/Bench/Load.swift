// A load as a process of its own: what it is told, what it does, what it reports.

import ArgumentParser
import CLoad
import Foundation
import Histogram
import Model
import Wire
import ZeroMQ

/// What a load process is to do. Passed as JSON on its command line.
struct LoadPlan: Codable {
  enum Server: String, Codable {
    case tinysns, zmq, redis, nats
  }

  enum Scenario: String, Codable {
    /// Posts of several users, each on a connection. Redis: XADD.
    case post
    /// One author and its watchers. Redis, NATS: one publisher and its subscribers.
    case fanout
    /// Reads of one user's home timeline.
    case timeline
    /// DeathStarBench's mix over a graph: 60 % home timelines, 30 % an author's, 10 % posts.
    case mixed
  }

  var server = Server.tinysns
  var scenario: Scenario
  var port: UInt16
  var updatesPort: UInt16 = 0
  /// What Tiny SNS has to prove (CURVE), in Z85; nil: nothing is encrypted.
  var serverKey: String?
  /// A part of all names, so that loads don't meet.
  var label: String
  var sessions = 1
  var inFlight = 1
  var watchers = 0
  var bytes = 100
  /// Requests a second; 0: as many as can be.
  var rate = 0.0
  var requestsMax: UInt64 = 0
  var warmup = 1.0
  var seconds = 5.0
  var serverPid: Int32 = 0
  /// zmq: a topic for each subscriber instead of one for all.
  var topicEach = false
  /// zmq: where the publisher writes and syncs what it is to publish; nil: nowhere.
  var log: String?
  /// fanout: the watchers watch the author's timeline, which is one topic for all, instead of following and watching their own, a topic each.
  var watchesAuthor = false
  /// timeline: whom the reader follows, of the users of a `post` load with the label `authors`.
  var followees = 0
  var authors = ""
  /// timeline: pages before random positions up to here instead of the newest; 0: the newest.
  var before: UInt64 = 0
  /// mixed: pairs of friends, among users that a `post` load with the same label has registered.
  var graph: [[Int]] = []
}

struct LoadTimes: Codable {
  var count: Int
  var p50_us: Double
  var p99_us: Double
  var max_us: Double
}

struct LoadReport: Codable {
  var seconds = 0.0
  var requests: UInt64 = 0
  var refused: UInt64 = 0
  var deliveries: UInt64 = 0
  var updates: UInt64 = 0
  var gaps: UInt64 = 0
  var serverCPU = 0.0
  var ownCPU = 0.0
  /// By kind; deliveries under 7.
  var times: [Int: LoadTimes] = [:]
  var error: String?

  var requestRate: Double { seconds > 0 ? Double(requests) / seconds : 0 }
  var deliveryRate: Double { seconds > 0 ? Double(deliveries) / seconds : 0 }
}

struct BenchLoad: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "load", abstract: "One load.", shouldDisplay: false)
  @Argument var plan: String

  func run() throws {
    let text = plan.hasPrefix("@") ? try String(contentsOfFile: String(plan.dropFirst()), encoding: .utf8) : plan
    let plan = try JSONDecoder().decode(LoadPlan.self, from: Data(text.utf8))
    var builder = LoadBuilder(plan)
    let report = try builder.run()
    Terminal.print(String(decoding: try JSONEncoder().encode(report), as: UTF8.self))
  }
}

struct BenchPublisher: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "zmq-publisher", abstract: "libzmq alone: publishes for each byte of standard input.",
    shouldDisplay: false)
  @Option var port: UInt16
  @Option var bytes: Int32 = 100
  @Option var topics: Int32 = 0
  @Option(help: "Serve watching clients instead, with updates at this port.") var updates: UInt16?
  @Option(help: "Write and sync requests instead, to this file, and answer them.") var log: String?
  @Option(help: "Write and sync to this file what is published, before it is.") var publishedLog: String?

  func run() throws {
    let code =
      if let log { load_zmq_log(port, log, STDIN_FILENO) } else if let updates {
        load_zmq_server(port, updates, STDIN_FILENO)
      } else {
        load_zmq_publisher(port, bytes, topics, publishedLog, STDIN_FILENO)
      }
    guard code == 0 else {
      throw Failure("the publisher failed: \(String(cString: strerror(errno)))")
    }
  }
}

/// Puts a plan into the terms of the generator.
struct LoadBuilder {
  private let plan: LoadPlan
  private var bodies: [[UInt8]] = []
  private var script: [UInt32] = []
  private var scriptFirst: [UInt32] = [0]
  private var steps: [load_step] = []
  private var random = SystemRandomNumberGenerator()

  private static let samplesMax = 8_000_000

  init(_ plan: LoadPlan) { self.plan = plan }

  mutating func run() throws -> LoadReport {
    switch plan.server {
    case .tinysns: buildOwn()
    case .redis: buildRedis()
    case .nats: buildNATS()
    case .zmq: scriptFirst = [0]
    }
    var publisher: Process?
    let commands = Pipe()
    if plan.server == .zmq {
      let process = Process()
      process.executableURL = URL(fileURLWithPath: try Bench.program())
      process.arguments = [
        "bench", "zmq-publisher", "--port", "\(plan.port)", "--bytes", "\(plan.bytes)", "--topics",
        plan.topicEach ? "\(plan.watchers)" : "0",
      ]
      if let log = plan.log { process.arguments! += ["--published-log", log] }
      process.standardInput = commands
      try process.run()
      publisher = process
      guard PortCheck.awaitListener(at: plan.port) else { throw Failure("the publisher does not listen") }
    }
    defer {
      try? commands.fileHandleForWriting.close()
      publisher?.waitUntilExit()
    }
    return try generate(serverPid: publisher?.processIdentifier ?? plan.serverPid, commands: commands)
  }

  // MARK: Bodies

  private mutating func add(_ body: Request.Body) -> UInt32 { add(bytes: Wire.encode(Request(number: 0, body: body))) }

  private mutating func add(bytes: [UInt8]) -> UInt32 {
    bodies.append(bytes)
    return UInt32(bodies.count - 1)
  }

  private mutating func hello(_ user: String) -> UInt32 {
    add(
      .hello(
        Hello(
          client: ClientID(random.next()), user: user, register: true, newest: .zero,
          proof: .password(Bench.password(of: user)), takesDoneEach: true)))
  }

  /// The end of a session's script.
  private mutating func endScript() { scriptFirst.append(UInt32(script.count)) }

  private mutating func text() -> String {
    let letters = Array("abcdefghijklmnopqrstuvwxyz      ".utf8)
    return String(
      decoding: (0..<plan.bytes).map { $0 == 0 ? UInt8(ascii: "a") : letters.randomElement(using: &random)! }
        .dropLast() + [UInt8(ascii: "z")],
      as: UTF8.self)
  }

  private mutating func addPosts(_ count: Int = 256) -> [UInt32] {
    (0..<count).map { _ in
      let text = text()
      return add(.post(text: text))
    }
  }

  private mutating func buildOwn() {
    switch plan.scenario {
    case .post:
      for index in 0..<plan.sessions {
        script.append(hello("\(plan.label)-\(index)"))
        endScript()
      }
      let posts = addPosts()
      for index in 0..<max(plan.sessions, 256) {
        steps.append(load_step(session: UInt32(index % plan.sessions), body: posts[index % 256], kind: 0))
      }
    case .fanout:
      script.append(hello("\(plan.label)-author"))
      endScript()
      let author = "\(plan.label)-author"
      let preparation: [Request.Body] =
        plan.watchesAuthor ? [.watch(.author(author))] : [.follow(name: author), .watch(.home)]
      let bodies = preparation.map { add($0) }
      for index in 0..<plan.watchers {
        script += [hello("\(plan.label)-\(index)")] + bodies
        endScript()
      }
      for post in addPosts() { steps.append(load_step(session: 0, body: post, kind: 0)) }
    case .timeline:
      script.append(hello("\(plan.label)-reader"))
      for index in 0..<plan.followees { script.append(add(.follow(name: "\(plan.authors)-\(index)"))) }
      endScript()
      for _ in 0..<1_000 {
        let range: TimelineQuery.Range =
          plan.before == 0
          ? .newest : .before(EventID(UInt64.random(in: max(1, plan.before / 10)...plan.before, using: &random)))
        let body = add(.timeline(TimelineQuery(timeline: .home, range: range, limit: 20)))
        steps.append(load_step(session: 0, body: body, kind: 0))
      }
    case .mixed: buildMixed()
    }
  }

  private mutating func buildMixed() {
    let users = (plan.graph.lazy.joined().max() ?? 0) + 1
    var friends = [[Int]](repeating: [], count: users)
    for pair in plan.graph {
      friends[pair[0]].append(pair[1])
      friends[pair[1]].append(pair[0])
    }
    let follows = (0..<users).map { add(.follow(name: "\(plan.label)-\($0)")) }
    let watch = add(.watch(.home))
    let watched = min(plan.watchers, users)
    for user in 0..<users {
      script.append(hello("\(plan.label)-\(user)"))
      script += friends[user].map { follows[$0] }
      if user < watched { script.append(watch) }
      endScript()
    }
    let home = add(.timeline(TimelineQuery(timeline: .home, range: .newest, limit: 10)))
    let others = (0..<users).map {
      add(.timeline(TimelineQuery(timeline: .author("\(plan.label)-\($0)"), range: .newest, limit: 10)))
    }
    let posts = addPosts()
    for _ in 0..<100_000 {
      let session = UInt32(Int.random(in: 0..<users, using: &random))
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<6: steps.append(load_step(session: session, body: home, kind: 0))
      case 6..<9: steps.append(load_step(session: session, body: others.randomElement(using: &random)!, kind: 1))
      default: steps.append(load_step(session: session, body: posts.randomElement(using: &random)!, kind: 2))
      }
    }
  }

  private mutating func buildRedis() {
    func command(_ words: [String]) -> [UInt8] {
      Array("*\(words.count)\r\n".utf8) + words.flatMap { Array("$\($0.utf8.count)\r\n\($0)\r\n".utf8) }
    }
    let sessions = plan.scenario == .fanout ? 1 : plan.sessions
    for _ in 0..<sessions { endScript() }
    for index in 0..<max(sessions, 256) {
      let text = text()
      let words = plan.scenario == .fanout ? ["PUBLISH", "c", text] : ["XADD", "log", "*", "t", text]
      steps.append(load_step(session: UInt32(index % sessions), body: add(bytes: command(words)), kind: 0))
    }
  }

  private mutating func buildNATS() {
    endScript()
    for _ in 0..<256 {
      let text = text()
      steps.append(
        load_step(session: 0, body: add(bytes: Array("PUB c \(text.utf8.count)\r\n\(text)\r\n".utf8)), kind: 0))
    }
  }

  // MARK: The run

  private func generate(serverPid: Int32, commands: Pipe) throws -> LoadReport {
    let samples = UnsafeMutablePointer<UInt64>.allocate(capacity: Self.samplesMax)
    defer { samples.deallocate() }
    let arena = bodies.map { bytes in
      let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: max(bytes.count, 1))
      copy.update(from: bytes, count: bytes.count)
      return load_body(bytes: copy, count: UInt32(bytes.count))
    }
    let subscription: [UInt8]
    switch plan.server {
    case .tinysns: subscription = []
    case .zmq: subscription = Array("x".utf8)
    case .redis: subscription = Array("SUBSCRIBE c\r\n".utf8)
    case .nats: subscription = Array("SUB c 1\r\n".utf8)
    }
    var result = load_result()
    // Lives as long as the process.
    let serverKey = plan.serverKey.flatMap { CurveKey(z85: $0) }.map { key in
      let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: CurveKey.byteCount)
      copy.update(from: key.bytes, count: CurveKey.byteCount)
      return UnsafePointer(copy)
    }
    let code: Int32 = "127.0.0.1".withCString { host in
      subscription.withUnsafeBufferPointer { subscription in
        arena.withUnsafeBufferPointer { bodies in
          script.withUnsafeBufferPointer { script in
            scriptFirst.withUnsafeBufferPointer { scriptFirst in
              steps.withUnsafeBufferPointer { steps in
                // An empty buffer may have no address.
                var empty: UInt8 = 0
                return withUnsafeMutablePointer(to: &empty) { empty in
                  var options = load_options(
                    protocol: load_protocol(rawValue: UInt32(protocolNumber)), host: host, port: plan.port,
                    updates_port: plan.updatesPort, server_key: serverKey, sessions: UInt32(scriptFirst.count - 1),
                    bodies: bodies.baseAddress,
                    script: script.baseAddress, script_first: scriptFirst.baseAddress, watchers: UInt32(plan.watchers),
                    subscription: load_body(
                      bytes: subscription.baseAddress ?? UnsafePointer(empty), count: UInt32(subscription.count)),
                    topic_each: plan.topicEach ? 1 : 0, steps: steps.baseAddress, step_count: steps.count,
                    in_flight: UInt32(plan.inFlight), rate: plan.rate,
                    waits_for_deliveries: plan.scenario == .fanout && plan.rate == 0 ? 1 : 0,
                    times_deliveries: plan.scenario == .fanout && plan.rate > 0 ? 1 : 0, warmup_s: plan.warmup,
                    run_s: plan.seconds, requests_max: plan.requestsMax,
                    command_fd: commands.fileHandleForWriting.fileDescriptor, server_pid: serverPid, samples: samples,
                    samples_max: Self.samplesMax)
                  return load_run(&options, &result)
                }
              }
            }
          }
        }
      }
    }
    var report = LoadReport(
      seconds: result.seconds, requests: result.requests, refused: result.refused, deliveries: result.deliveries,
      updates: result.updates,
      gaps: result.gaps, serverCPU: result.server_cpu_s, ownCPU: result.own_cpu_s)
    if code != 0 {
      report.error = withUnsafePointer(to: result.error) {
        $0.withMemoryRebound(to: CChar.self, capacity: 200) { String(cString: $0) }
      }
    }
    var histograms: [Int: Histogram<UInt64>] = [:]
    for index in 0..<result.sample_count {
      let kind = Int(samples[index] >> 56)
      histograms[kind, default: Bench.histogram()].record(samples[index] & 0xff_ffff_ffff_ffff)
    }
    report.times = histograms.mapValues(Bench.times)
    return report
  }

  private var protocolNumber: Int {
    switch plan.server {
    case .tinysns: return 0
    case .zmq: return 1
    case .redis: return 2
    case .nats: return 3
    }
  }
}
