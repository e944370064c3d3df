// The cluster that a benchmark measures.

import CSpawn
import Foundation
import Model
import Node
import Runtime
import Topology
import ZeroMQ

/// A cluster in a temporary folder, started for a benchmark; or one that runs already, which is left as it is.
///
/// `@unchecked Sendable`: the benchmark's thread waits while another one uses it.
final class BenchCluster: @unchecked Sendable {
  let deployment: Deployment
  /// How long `up --detach` took; nil for a cluster that ran already.
  private(set) var startTime: Interval?
  private let folder: String?

  init(
    masters: Int, in parent: String?, security: Topology.Security = .none, lines: [String] = [], start: Bool = true
  ) throws {
    let root = parent ?? FileManager.default.temporaryDirectory.path
    folder = "\(root)/tinysns-bench-\(getpid())-\(UInt16.random(in: .min ... .max))"
    try FileManager.default.createDirectory(atPath: folder!, withIntermediateDirectories: true)
    let path = folder! + "/topology.yaml"
    let text = """
      router: { port: \(try PortCheck.freePort()) }
      hosts:
        local: { masters: \(masters), first_port: 0 }
      state: var
      password_memory: 8KiB
      requests_per_second: 1000000
      security: \(security.rawValue)
      \(lines.joined(separator: "\n"))
      """
    try text.write(toFile: path, atomically: true, encoding: .utf8)
    deployment = try Deployment(path: path)
    BenchCleanup.note(path)
    if start { try self.start() }
  }

  init(running path: String) throws {
    folder = nil
    deployment = try Deployment(path: path)
  }

  deinit { remove() }

  /// Stops it, and removes its folder. Who hands the cluster to a task calls this: the process may end before the task lets go of it.
  func remove() {
    stop()
    if let folder { try? FileManager.default.removeItem(atPath: folder) }
  }

  func start() throws {
    Progress.show("starting \(deployment.topology.masters.count) masters")
    let started = Clock.now()
    try run("up", "--detach")
    startTime = Clock.now() - started
  }

  func stop() {
    guard folder != nil else { return }
    _ = ClusterStop(folder: deployment.folder).stop(within: .seconds(3))
  }

  private func run(_ command: String, _ arguments: String...) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try Bench.program())
    process.arguments = [command] + arguments + ["--topology", deployment.path]
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw Failure("`tinysns \(command)` failed") }
  }

  // MARK: Who is there

  func status() -> RouterStatus? { ClusterQuery.router(of: deployment, timeout: .milliseconds(200)) }

  /// The master that serves all clients.
  func available() throws -> MasterStatus {
    let deadline = Clock.now() + .seconds(10)
    while Clock.now() < deadline {
      if let master = status()?.masters.first(where: { $0.state == .available || $0.state == .serving }) {
        return master
      }
      usleep(2_000)
    }
    throw Failure("no master serves")
  }

  /// Processes by name.
  func pids() -> [(name: String, pid: Int32)] {
    deployment.folder.knownNames().compactMap { name in deployment.folder.owner(of: name).map { (name, $0) } }
  }

  /// A plan for the available master.
  func plan(_ scenario: LoadPlan.Scenario, label: String, seconds: Double) throws -> LoadPlan {
    let master = try available()
    func port(_ endpoint: String) throws -> UInt16 {
      guard let port = endpoint.split(separator: ":").last.flatMap({ UInt16($0) }) else {
        throw Failure("the endpoint \(endpoint) has no port")
      }
      return port
    }
    var plan = LoadPlan(scenario: scenario, port: try port(master.requests), label: label)
    plan.updatesPort = try port(master.timelines)
    if deployment.topology.security == .curve { plan.serverKey = ClusterKeys.publicKey(in: deployment.folder)?.z85 }
    plan.serverPid = master.pid
    plan.seconds = seconds
    plan.warmup = min(1, seconds / 3)
    return plan
  }
}

/// Stops a benchmark's clusters when it is interrupted.
enum BenchCleanup {
  nonisolated(unsafe) private static var paths: [String] = []
  nonisolated(unsafe) private static var sources: [any DispatchSourceSignal] = []

  static func note(_ path: String) {
    paths.append(path)
    guard sources.isEmpty else { return }
    for number in [SIGINT, SIGTERM] {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        for path in paths {
          guard let deployment = try? Deployment(path: path) else { continue }
          _ = ClusterStop(folder: deployment.folder).stop(within: .seconds(2))
          try? FileManager.default.removeItem(atPath: (path as NSString).deletingLastPathComponent)
        }
        exit(128 + number)
      }
      source.resume()
      sources.append(source)
    }
  }
}

/// What the kernel knows of a process.
enum ProcessFigures {
  /// Processor time so far, in seconds. By the scheduler's own clock, where it tells: the kernel's other figure counts ticks, and says
  /// little of processes that run for some microseconds at a time.
  static func cpuSeconds(_ pid: Int32) -> Double {
    let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
    let times = tasks.compactMap { task -> Double? in
      let text = try? String(contentsOfFile: "/proc/\(pid)/task/\(task)/schedstat", encoding: .utf8)
      return text.flatMap { Double($0.split(separator: " ").first ?? "") }
    }
    if !times.isEmpty { return times.reduce(0, +) / 1e9 }
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
      let end = text.lastIndex(of: ")")
    else { return 0 }
    let fields = text[text.index(after: end)...].split(separator: " ")
    return (Double(fields[11])! + Double(fields[12])!) / Double(sysconf(Int32(_SC_CLK_TCK)))
  }

  /// Resident memory in bytes.
  static func memory(_ pid: Int32) -> Double { memory(pid, "VmRSS:") }

  /// The most that it ever was.
  static func peakMemory(_ pid: Int32) -> Double { memory(pid, "VmHWM:") }

  private static func memory(_ pid: Int32, _ key: String) -> Double {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8) else { return 0 }
    for line in text.split(separator: "\n") where line.hasPrefix(key) {
      return (Double(line.split(whereSeparator: { $0 == " " || $0 == "\t" })[1]) ?? 0) * 1024
    }
    return 0
  }
}
