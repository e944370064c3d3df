// Torments the processes of a cluster: kills, freezes, garbage. Only processes that hold a lock in the cluster's own state
// folder are ever signalled.

import Foundation
import Model
import Node
import Runtime
import Topology

/// A kind of fault.
enum Fault: String, CaseIterable {
  case killMaster = "kill-master"
  case freezeMaster = "freeze-master"
  case blinkMaster = "blink-master"
  case killStandby = "kill-standby"
  case killMasters = "kill-masters"
  case killSlave = "kill-slave"
  case killSlaves = "kill-slaves"
  case killSlaveAndMaster = "kill-slave-and-master"
  case killSeveral = "kill-several"
  case freezeSeveral = "freeze-several"
  case freezeSlave = "freeze-slave"
  case freezeLauncher = "freeze-launcher"
  case killRouter = "kill-router"
  case freezeRouter = "freeze-router"
  case killLauncher = "kill-launcher"
  case killEverything = "kill-everything"
  case stopMaster = "stop-master"
  case garbage
  case fullDisk = "full-disk"

  /// How often it is drawn.
  var weight: Int {
    switch self {
    case .killMaster: return 30
    case .freezeMaster: return 10
    case .blinkMaster, .killStandby, .stopMaster: return 6
    case .killSlave, .killRouter, .killMasters: return 5
    case .freezeRouter, .killSlaveAndMaster, .killSeveral, .freezeSeveral, .garbage, .fullDisk: return 4
    case .freezeSlave, .freezeLauncher: return 2
    case .killLauncher: return 3
    case .killSlaves: return 2
    case .killEverything: return 1
    }
  }

  /// - Parameter smallDisk: whether the cluster has a disk of its own that may be filled.
  static func random(smallDisk: Bool, using random: inout RandomSource) -> Fault {
    let faults = allCases.filter { $0 != .fullDisk || smallDisk }
    var ticket = Int.random(in: 0..<faults.reduce(0) { $0 + $1.weight }, using: &random)
    for fault in faults {
      ticket -= fault.weight
      if ticket < 0 { return fault }
    }
    return .killMaster
  }
}

/// Injects faults one after the other, and remembers what it did.
///
/// `@unchecked Sendable`: used by one task after the other, never by two at once.
final class FaultInjector: @unchecked Sendable {
  private let deployment: Deployment
  private var random: RandomSource
  /// Everything that was killed or frozen here.
  private(set) var tormented: Set<Int32> = []
  /// Those that were thawed, and until when a supervisor may still take their silence for their end.
  private var thawed: [Int32: Instant] = [:]
  /// Where the supervisors' logs ended when those were as good as new: deaths that stand after that are unexplained.
  private var recovered: [Int32: [String: UInt64]] = [:]
  private(set) var injected: [(fault: Fault, at: Instant)] = []
  private let log: (String) -> Void
  /// How long the processes' logs were before.
  private let offsets: [String: UInt64]

  init(_ deployment: Deployment, random: RandomSource, log: @escaping (String) -> Void) {
    self.deployment = deployment
    self.random = random
    self.log = log
    offsets = Self.sizes(of: deployment)
  }

  /// Of the processes' logs.
  private static func sizes(of deployment: Deployment) -> [String: UInt64] {
    var sizes: [String: UInt64] = [:]
    for name in deployment.processNames {
      let attributes = try? FileManager.default.attributesOfItem(atPath: deployment.folder.log(of: name))
      sizes[name] = attributes?[.size] as? UInt64
    }
    return sizes
  }

  private func thaw(_ pid: Int32) {
    kill(pid, SIGCONT)
    thawed[pid] = Clock.now() + deployment.timing.hangTimeout * 2
  }

  /// Looks who has been well again for long enough.
  private func noteRecoveries() {
    let now = Clock.now()
    for (pid, time) in thawed where time <= now {
      thawed[pid] = nil
      recovered[pid] = Self.sizes(of: deployment)
    }
  }

  private var masters: [String] { deployment.topology.masters.map(\.name) }

  private func signal(_ name: String, _ number: Int32) {
    guard let pid = deployment.folder.owner(of: name) else { return }
    tormented.insert(pid)
    thawed[pid] = nil
    recovered[pid] = nil
    log(
      "\(number == SIGKILL ? "kill" : number == SIGSTOP ? "freeze" : number == SIGCONT ? "thaw" : "stop") \(name) (\(pid))"
    )
    kill(pid, number)
  }

  private func alive(_ names: [String]) -> [String] { names.filter { deployment.folder.owner(of: $0) != nil } }

  /// The master that serves, or any living one.
  private func servingMaster() -> String? {
    let status = ClusterQuery.router(of: deployment, timeout: .milliseconds(300))
    if let name = status?.masters.first(where: { $0.state == .available })?.master.name { return name }
    return alive(masters).randomElement(using: &random)
  }

  /// One fault.
  func inject(_ fault: Fault) {
    noteRecoveries()
    let serving = servingMaster()
    let standbys = alive(masters).filter { $0 != serving }
    injected.append((fault, Clock.now()))
    switch fault {
    case .killMaster: if let serving { signal(serving, SIGKILL) }
    case .stopMaster: if let serving { signal(serving, SIGTERM) }
    case .freezeMaster:
      // Left frozen: its slave has to kill it.
      if let serving { signal(serving, SIGSTOP) }
    case .blinkMaster:
      // Thawed before its slave may kill it, perhaps after its successor has taken over.
      guard let serving, let pid = deployment.folder.owner(of: serving) else { return }
      signal(serving, SIGSTOP)
      let limit = min(3_000, Int(deployment.timing.hangTimeout.milliseconds) / 2)
      usleep(UInt32(Int.random(in: 20...max(21, limit), using: &random)) * 1_000)
      if deployment.folder.owner(of: serving) == pid { thaw(pid) }
    case .killStandby: if let name = standbys.randomElement(using: &random) { signal(name, SIGKILL) }
    case .killMasters:
      for name in alive(masters).shuffled(using: &random).prefix(max(1, masters.count / 2)) { signal(name, SIGKILL) }
    case .killSlave:
      let slaves = alive(deployment.topology.masters.map(\.slaveName))
      if let name = slaves.randomElement(using: &random) { signal(name, SIGKILL) }
    case .killSlaves: for master in deployment.topology.masters { signal(master.slaveName, SIGKILL) }
    case .killSlaveAndMaster:
      guard let serving, let master = deployment.topology.masters.first(where: { $0.name == serving }) else { return }
      signal(master.slaveName, SIGKILL)
      signal(serving, SIGKILL)
    case .killSeveral: for name in several() { signal(name, SIGKILL) }
    case .freezeSeveral: freeze(several(), upTo: 3_000)
    case .freezeSlave:
      // Left frozen, like a master: the launcher has to kill it.
      let slaves = alive(deployment.topology.masters.map(\.slaveName))
      if let name = slaves.randomElement(using: &random) { signal(name, SIGSTOP) }
    case .freezeLauncher: freeze([Deployment.launcher], upTo: 3_000)
    case .killRouter: signal(Deployment.router, SIGKILL)
    case .freezeRouter: freeze([Deployment.router], upTo: 1_500)
    case .killLauncher:
      signal(Deployment.launcher, SIGKILL)
      startAgain()
    case .killEverything:
      for name in deployment.processNames.shuffled(using: &random) { signal(name, SIGKILL) }
      startAgain()
    case .garbage: throwGarbage()
    case .fullDisk: fillDisk()
    }
  }

  /// Two to four of all servers.
  private func several() -> [String] {
    let servers = masters + deployment.topology.masters.map(\.slaveName) + [Deployment.router]
    return Array(alive(servers).shuffled(using: &random).prefix(Int.random(in: 2...4, using: &random)))
  }

  /// Freezes them at once, and thaws them one after the other after a while.
  private func freeze(_ names: [String], upTo milliseconds: Int) {
    let frozen = names.compactMap { name in deployment.folder.owner(of: name).map { (name, $0) } }
    for (name, _) in frozen { signal(name, SIGSTOP) }
    let most = min(milliseconds, Int(deployment.timing.hangTimeout.milliseconds) / 2)
    for (name, pid) in frozen {
      usleep(UInt32(Int.random(in: 20...max(21, most / frozen.count), using: &random)) * 1_000)
      if deployment.folder.owner(of: name) == pid { thaw(pid) }
    }
  }

  /// Leaves no room for the log for a moment. Posts are refused then; masters live on.
  private func fillDisk() {
    let path = deployment.folder.path + "/filler"
    let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { return }
    log("fill the disk")
    let block = [UInt8](repeating: 0, count: 1 << 16)
    while write(descriptor, block, block.count) > 0 {}
    usleep(UInt32(Int.random(in: 100...1_500, using: &random)) * 1_000)
    close(descriptor)
    unlink(path)
  }

  /// `up`, as a person would after such a fault.
  func startAgain() {
    // A killed process keeps its lock until the kernel has taken it apart; `up` would find the cluster running.
    for _ in 0..<400 {
      guard let pid = deployment.folder.owner(of: Deployment.launcher), tormented.contains(pid) else { break }
      usleep(5_000)
    }
    // So does a killed router its port: `up` says so, and whoever reads that tries again.
    for _ in 0..<20 {
      if runUp() { return }
      usleep(100_000)
    }
  }

  /// Whether the cluster was started.
  private func runUp() -> Bool {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: (try? Program.path()) ?? CommandLine.arguments[0])
    process.arguments = ["up", "--detach", "--topology", deployment.path]
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    let errors = Pipe()
    process.standardError = errors
    do {
      try process.run()
    } catch {
      log("up can't be started: \(error)")
      return false
    }
    let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    if process.terminationStatus != 0 { log("up: \(text.trimmingCharacters(in: .whitespacesAndNewlines))") }
    return process.terminationStatus == 0
  }

  /// Thaws whatever is frozen, and starts what is missing.
  func heal() {
    for name in deployment.processNames {
      guard let pid = deployment.folder.owner(of: name), tormented.contains(pid) else { continue }
      kill(pid, SIGCONT)
    }
    if deployment.folder.owner(of: Deployment.launcher) == nil { startAgain() }
  }

  /// Random bytes, and halves of what ZeroMQ would say, to every port.
  private func throwGarbage() {
    log("garbage on every port")
    var ports = [(deployment.topology.router.address, deployment.topology.router.port)]
    let status = ClusterQuery.router(of: deployment, timeout: .milliseconds(300))
    for master in status?.masters ?? [] {
      for endpoint in [master.requests, master.timelines] {
        guard let colon = endpoint.lastIndex(of: ":"), let port = UInt16(endpoint[endpoint.index(after: colon)...])
        else { continue }
        ports.append((deployment.topology.router.address, port))
      }
    }
    for (address, port) in ports {
      for _ in 0..<3 {
        guard let descriptor = connect(address, port) else { continue }
        var bytes = (0..<Int.random(in: 1...2_000, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random)
        }
        if Bool.random(using: &random) { bytes = [0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0] + bytes }
        _ = send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        close(descriptor)
      }
    }
  }

  private func connect(_ address: String, _ port: UInt16) -> Int32? {
    var target = sockaddr_in()
    target.sin_family = sa_family_t(AF_INET)
    target.sin_port = port.bigEndian
    guard inet_pton(AF_INET, address, &target.sin_addr) == 1 else { return nil }
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    let code = withUnsafePointer(to: &target) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Foundation.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    if code == 0 { return descriptor }
    close(descriptor)
    return nil
  }

  /// Deaths that the supervisors report of processes that nobody tormented, or that had long been well again: hung ones that were killed,
  /// and crashes.
  func unexplainedDeaths() -> [String] {
    noteRecoveries()
    var found: [String] = []
    for name in deployment.topology.masters.map(\.slaveName) + [Deployment.launcher] {
      guard let handle = FileHandle(forReadingAtPath: deployment.folder.log(of: name)) else { continue }
      defer { try? handle.close() }
      // A file that has become shorter is a new one.
      let end = (try? handle.seekToEnd()) ?? 0
      let start = offsets[name].map { $0 <= end ? $0 : 0 } ?? 0
      try? handle.seek(toOffset: start)
      var position = start
      for line in ((try? handle.readToEnd()) ?? Data()).split(
        separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
      {
        let at = position
        position += UInt64(line.count) + 1
        let line = String(decoding: line, as: UTF8.self)
        let isDeath = line.contains(") crashed: ") || line.contains(") hangs: ") || line.contains(") is frozen while ")
        guard isDeath, let open = line.range(of: "(process "),
          let pid = Int32(line[open.upperBound...].prefix { $0.isNumber }),
          !tormented.contains(pid) || recovered[pid].map({ at >= $0[name] ?? 0 }) == true
        else { continue }
        found.append("\(name): \(line)")
      }
    }
    return found
  }
}
