// `tinysns bench`: the benchmarks, and what they share.

import ArgumentParser
import Foundation
import Histogram
import Model
import Node
import Runtime
import Topology

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure the service, on a cluster started for it.",
    discussion: """
      Each benchmark starts a cluster in a temporary folder, and stops it at the end. Loads are processes of their own; where a \
      rate is given, times count from when a request was due, not from when it could be sent. Stopped by SIGINT, SIGTERM or SIGHUP, a \
      benchmark stops what it has started and ends with 128 + the signal; killed by SIGKILL, it leaves its cluster running \
      (`tinysns down --topology FOLDER/topology.yaml` stops it).
      """,
    subcommands: [
      BenchPost.self, BenchFanout.self, BenchMixed.self, BenchTimeline.self, BenchFailover.self, BenchStart.self,
      BenchStorm.self, BenchIdle.self, BenchHostile.self, BenchSlowReader.self, BenchCompare.self, BenchLoad.self,
      BenchPublisher.self, BenchAttackers.self,
    ])

  static func program() throws -> String { try Program.path() }

  // MARK: Times

  static func histogram() -> Histogram<UInt64> {
    Histogram(highestTrackableValue: 120_000_000_000, numberOfSignificantValueDigits: .three)
  }

  static func times(_ histogram: Histogram<UInt64>) -> LoadTimes {
    LoadTimes(
      count: Int(histogram.totalCount), p50_us: Double(histogram.valueAtPercentile(50)) / 1e3,
      p99_us: Double(histogram.valueAtPercentile(99)) / 1e3, max_us: Double(histogram.max) / 1e3)
  }

  static func times(_ intervals: [Interval]) -> LoadTimes {
    var histogram = histogram()
    for interval in intervals { histogram.record(UInt64(clamping: interval.nanoseconds)) }
    return times(histogram)
  }

  // MARK: Loads

  /// Part of the passwords of the benchmarks' users, so that none is left behind in a cluster that goes on. Loads get it from who
  /// starts them.
  private static let secretVariable = "TINYSNS_BENCH_SECRET"
  private static let secret =
    ProcessInfo.processInfo.environment[secretVariable] ?? String(UInt64.random(in: .min ... .max), radix: 36)

  static func password(of user: String) -> Password { Password("\(secret) of \(user)") }

  static let labels = String(UInt32.random(in: .min ... .max), radix: 36)
  nonisolated(unsafe) private static var lastLabel = 0

  /// A part of names that no other load of this run has.
  static func freshLabel(_ what: String) -> String {
    lastLabel += 1
    return "\(what)\(labels)\(lastLabel)"
  }

  /// Runs a load in a process of its own.
  static func run(_ plan: LoadPlan) throws -> LoadReport {
    BenchCleanup.begin()
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try program())
    var arguments = ["bench", "load", String(decoding: try JSONEncoder().encode(plan), as: UTF8.self)]
    var file: String?
    if arguments[2].utf8.count > 100_000 {
      // Longer than an argument may be.
      let path = NSTemporaryDirectory() + "/tinysns-plan-\(getpid()).json"
      try arguments[2].write(toFile: path, atomically: true, encoding: .utf8)
      arguments[2] = "@" + path
      file = path
    }
    defer { if let file { unlink(file) } }
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging([secretVariable: secret]) { $1 }
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    BenchCleanup.begin()  // stopped rather than failed
    guard process.terminationStatus == 0 else { throw Failure("a load failed") }
    let report = try JSONDecoder().decode(LoadReport.self, from: data)
    if let error = report.error { throw Failure("a load failed: \(error)") }
    return report
  }
}

extension Topology.Security: ExpressibleByArgument {}

/// Options that all benchmarks have.
struct BenchOptions: ParsableArguments {
  @Flag(help: "A JSON line a case.") var json = false
  @Option(help: "Masters of the cluster.") var masters = 1
  @Option(help: "Seconds of each measurement.") var seconds = 5.0
  @Option(help: "Use the running cluster of this topology instead of one started for it.", completion: .file())
  var running: String?
  @Option(help: "Where the cluster's folder is made; its disk is what is measured.") var folder: String?
  @Option(help: "curve or none: whether all that is measured is encrypted, as it is by default outside of benchmarks.")
  var security = Topology.Security.none
  @Option(help: ArgumentHelp("More of the cluster's topology.", visibility: .hidden)) var topologyLine: [String] = []

  func validate() throws {
    guard (1...Limits.masters).contains(masters) else { throw ValidationError("--masters: 1 to \(Limits.masters)") }
    guard seconds > 0 else { throw ValidationError("--seconds: more than 0") }
  }

  func cluster(masters count: Int? = nil) throws -> BenchCluster {
    if let running { return try BenchCluster(running: running) }
    return try BenchCluster(masters: count ?? masters, in: folder, security: security, lines: topologyLine)
  }

  /// Prints a case.
  func report(_ line: BenchLine) {
    Progress.clear()
    Terminal.print(json ? line.json : line.text)
  }
}

/// One case of a benchmark.
struct BenchLine {
  var bench: String
  var name: String
  var ratePerSecond: Double
  var times: LoadTimes?
  /// What else is known, in order.
  var more: [(key: String, value: Double)] = []

  var json: String {
    func number(_ value: Double?) -> String {
      value.map { String(format: "%.10g", ($0 * 1000).rounded() / 1000) } ?? "null"
    }
    var fields = [
      "\"bench\":\"\(bench)\"", "\"case\":\"\(name)\"", "\"rate_per_s\":\(number(ratePerSecond))",
      "\"p50_us\":\(number(times?.p50_us))", "\"p99_us\":\(number(times?.p99_us))",
      "\"max_us\":\(number(times?.max_us))",
    ]
    fields += more.map { "\"\($0.key)\":\(number($0.value))" }
    return "{" + fields.joined(separator: ",") + "}"
  }

  var text: String {
    var text = "\(bench) \(name):"
    if ratePerSecond > 0 { text += " \(Int(ratePerSecond.rounded())) a second" }
    if let times {
      text += String(
        format: ", p50 %.3f ms, p99 %.3f ms, max %.3f ms", times.p50_us / 1e3, times.p99_us / 1e3, times.max_us / 1e3)
    }
    for (key, value) in more { text += String(format: ", %@ %.6g", key, value) }
    return text
  }
}

/// A line on standard error that says what is going on, where a person looks.
enum Progress {
  static let isShown = isatty(STDERR_FILENO) == 1
  static func show(_ text: String) {
    if isShown { Terminal.write("\r\u{1B}[K\(text)", to: STDERR_FILENO) }
  }
  static func clear() {
    if isShown { Terminal.write("\r\u{1B}[K", to: STDERR_FILENO) }
  }
}
