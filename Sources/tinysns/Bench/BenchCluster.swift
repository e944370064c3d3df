// The cluster that a benchmark measures.

import CSpawn
import Foundation
import Model
import Node
import Runtime
import Synchronization
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
    BenchCleanup.note(folder: folder!)
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
    deployment = try Deployment(path: path).asStarted()
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
    BenchCleanup.begin()
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

  /// Processor time of all masters but the available one so far, in seconds.
  var standbysTime: Double {
    guard let available = try? available().pid else { return 0 }
    return pids().filter { $0.name.hasPrefix("master-") && $0.pid != available }
      .reduce(0) { $0 + ProcessFigures.cpuSeconds($1.pid) }
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

/// Leaves nothing behind when a benchmark is interrupted: its child processes and clusters are stopped, its folders removed.
enum BenchCleanup {
  private struct Left {
    var topologies: [String] = []
    var folders: [String] = []
    var isArmed = false
    var isEnding = false
  }

  private static let left = Mutex(Left())
  /// Both ends of a pipe; the signal's handler writes to it.
  nonisolated(unsafe) private static var bell: [Int32] = [-1, -1]

  /// Notes a cluster, which is to be stopped before its folder is removed.
  static func note(_ topology: String) {
    begin()
    left.withLock { $0.topologies.append(topology) }
  }

  /// Notes a file or folder that is to be removed.
  static func note(folder: String) {
    begin()
    left.withLock { $0.folders.append(folder) }
  }

  /// Called before anything is started. Doesn't return once the benchmark has been interrupted.
  static func begin() {
    let (isFirst, isEnding) = left.withLock { left in
      defer { left.isArmed = true }
      return (!left.isArmed, left.isEnding)
    }
    if isEnding { waitForTheEnd() }
    guard isFirst, pipe(&bell) == 0 else { return }
    for end in bell { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    // The main thread may come to its end, because all that it waits for is being stopped, before everything is.
    atexit { if BenchCleanup.left.withLock({ $0.isEnding }) { BenchCleanup.waitForTheEnd() } }
    Thread.detachNewThread {
      var number: UInt8 = 0
      while read(bell[0], &number, 1) != 1 {}
      stopAll()
      _exit(128 + Int32(number))
    }
    // A handler: processes started from here would inherit it if the signals were ignored or blocked.
    for number in [SIGINT, SIGTERM, SIGHUP] {
      signal(number) {
        var number = UInt8($0)
        _ = write(BenchCleanup.bell[1], &number, 1)
      }
    }
  }

  private static func waitForTheEnd() -> Never { while true { sleep(1_000) } }

  private static func stopAll() {
    let (topologies, folders) = left.withLock {
      $0.isEnding = true
      return ($0.topologies, $0.folders)
    }
    // Children first: one of them may be starting a cluster. A benchmark among them stops its own.
    var deadline = Clock.now() + .seconds(8)
    while !children().isEmpty, Clock.now() < deadline {
      for pid in children() { kill(pid, SIGTERM) }
      usleep(100_000)
    }
    deadline = Clock.now() + .seconds(1)
    while !children().isEmpty, Clock.now() < deadline {
      for pid in children() { kill(pid, SIGKILL) }
      usleep(20_000)
    }
    for path in topologies {
      guard FileManager.default.fileExists(atPath: path), let deployment = try? Deployment(path: path) else { continue }
      _ = ClusterStop(folder: deployment.folder).stop(within: .seconds(3))
      try? FileManager.default.removeItem(atPath: (path as NSString).deletingLastPathComponent)
    }
    for folder in folders { try? FileManager.default.removeItem(atPath: folder) }
  }

  /// The processes that this one has started and that have not ended.
  private static func children() -> [Int32] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.compactMap { Int32($0) }.filter { pid in
      guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
        let end = text.lastIndex(of: ")")
      else { return false }
      let fields = text[text.index(after: end)...].split(separator: " ")
      return fields.count > 1 && fields[0] != "Z" && fields[1] == "\(getpid())"
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

  /// Bytes that it has written to a disk.
  static func written(_ pid: Int32) -> Double { figure("/proc/\(pid)/io", "write_bytes:") }

  private static func memory(_ pid: Int32, _ key: String) -> Double { figure("/proc/\(pid)/status", key) * 1024 }

  private static func figure(_ path: String, _ key: String) -> Double {
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return 0 }
    for line in text.split(separator: "\n") where line.hasPrefix(key) {
      return Double(line.split(whereSeparator: { $0 == " " || $0 == "\t" })[1]) ?? 0
    }
    return 0
  }
}
