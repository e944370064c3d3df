// `tinysns up`: the launcher.

import ArgumentParser
import CSpawn
import Foundation
import Logging
import Model
import Node
import Runtime
import SQLiteLog
import Topology

struct Up: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Start the cluster of the topology, and watch over it.",
    discussion: """
      Starts the routing server, a slave for each master, and the demo clients; the slaves start the masters. Shows what \
      happens until Ctrl-C, which stops all of it. What runs already (after a crash of the launcher, say) is adopted, \
      not started twice.
      """)
  @Flag(help: "Return once all masters have registered, and leave the cluster running.") var detach = false
  @Flag(help: .hidden) var launcherOnly = false
  @OptionGroup var topology: TopologyOption

  private static let startTimeout = Interval.seconds(30)
  /// How long a process that has ended with a complaint may take to come back by itself.
  private static let healing = Interval.seconds(2)

  func run() throws {
    let deployment = try topology.load()
    try deployment.folder.create()
    // Made before the first process needs them; what is wrong with them is told here, once.
    _ = try ClusterKeys(in: deployment.folder)
    if launcherOnly {
      try launch(deployment, view: nil)
      return
    }
    if let pid = deployment.folder.owner(of: Deployment.launcher) {
      throw runsAlready(deployment, pid)
    }
    try checkUnchanged(deployment)
    try checkPorts(deployment)
    if detach {
      try startInBackground(deployment)
    } else {
      let view = LogView(names: deployment.processNames, in: deployment.folder)
      try launch(deployment, view: view)
    }
  }

  private func runsAlready(_ deployment: Deployment, _ launcher: Int32) -> Failure {
    let isChanged = deployment.startedOtherwise() != nil
    let change = isChanged ? "; what was changed in the file since then counts after `tinysns down`" : ""
    return Failure(
      "the cluster of \(deployment.path) runs already, under the launcher with process id \(launcher)\(change)")
  }

  /// Half of a cluster by the one topology and half by the other would be none of them.
  private func checkUnchanged(_ deployment: Deployment) throws {
    guard deployment.startedOtherwise(besides: Deployment.launcher) != nil else { return }
    throw Failure(
      "part of the cluster of \(deployment.path) runs, and was started before the file was changed; please type "
        + "`tinysns down` first")
  }

  /// Runs the launcher in this process.
  private func launch(_ deployment: Deployment, view: LogView?) throws {
    var deployment = deployment
    deployment.copy = deployment.folder.topology
    // Whoever starts a cluster wants it now: only a slave that lives goes on waiting before it starts its master again.
    for master in deployment.topology.masters where deployment.folder.owner(of: master.slaveName) == nil {
      deployment.folder.forgetDeath(of: master.name)
    }
    var options = deployment.launcherSupervision
    if view != nil {
      // In the foreground its own log goes to a file too, and is shown from there with the others'.
      let path = deployment.folder.log(of: Deployment.launcher)
      let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
      guard descriptor >= 0 else { throw Failure("can't open \(path): \(String(cString: strerror(errno)))") }
      options.logger = Logger(label: Deployment.launcher) { _ in
        ProcessLogHandler(name: Deployment.launcher, descriptor: descriptor)
      }
    }
    var server = try SupervisorServer(options)
    defer { view?.finish() }
    // Not before the launcher's name is ours alone.
    try checkUnchanged(deployment)
    do throws(NodeError) {
      try deployment.folder.writeTopology(deployment.text)
    } catch {
      options.logger.warning("\(error); whoever is started again reads \(deployment.path) anew")
    }
    // A person who has deleted the log does not want it back.
    try SQLiteLog.forgetDeleted(in: deployment.topology.state)
    try server.run(tickInterval: view == nil ? nil : .milliseconds(100)) {
      // With its terminal or reader gone a cluster in the foreground ends, as with Ctrl-C.
      view.map { !$0.show() } ?? false
    }
    deployment.folder.forgetTopology()
  }

  /// Starts the launcher as a process of its own, and waits until the cluster is there.
  private func startInBackground(_ deployment: Deployment) throws {
    let started = Clock.now()
    let offsets = logSizes(deployment)
    let adopts = !ClusterStop(folder: deployment.folder).running().isEmpty
    let child = try BackgroundProcess(
      ChildCommand(name: Deployment.launcher, arguments: ["up", "--launcher-only", "--topology", deployment.path]),
      in: deployment.folder)
    do {
      try wait(for: child, deployment, started: started, since: offsets)
    } catch {
      // What this call has started does not stay behind half done; what others have started goes on.
      let launcher = deployment.folder.owner(of: Deployment.launcher)
      if !adopts, launcher == nil || launcher == child.pid {
        _ = ClusterStop(folder: deployment.folder).stop(within: .milliseconds(2_800))
      }
      throw error
    }
  }

  private func wait(
    for child: borrowing BackgroundProcess, _ deployment: Deployment, started: Model.Instant,
    since offsets: [String: UInt64]
  ) throws {
    let deadline = started + Self.startTimeout
    var failing: (reason: String, since: Model.Instant)?
    var nextLook = started
    let wanted = deployment.topology.masters.count
    while true {
      let alive =
        ClusterQuery.router(of: deployment, timeout: .milliseconds(100))?.masters
        // The router may not have noticed yet that one has just died.
        .filter { $0.state != .down && deployment.folder.owner(of: $0.master.name) == $0.pid } ?? []
      let registered = alive.count
      // Useful at once: clients have somewhere to go.
      let isServed = alive.contains { $0.state != .standby }
      if registered >= wanted, isServed {
        let milliseconds = (Clock.now() - started).milliseconds
        Terminal.print("\(wanted) masters registered after \(milliseconds) ms; router at \(deployment.routerEndpoint)")
        return
      }
      if Clock.now() >= nextLook {
        nextLook = Clock.now() + .milliseconds(50)
        let names = Set(alive.map(\.master.name))
        if let why = reason(deployment, since: offsets, ofAnyBut: names) {
          failing = (why, failing?.since ?? Clock.now())
        } else {
          failing = nil
        }
        // Its supervisor may start it again at once, with success; else it is as it is.
        if let failing, Clock.now() - failing.since > Self.healing { throw Failure(failing.reason) }
      }
      if child.hasEnded {
        // Two were started in the same moment.
        if let pid = deployment.folder.owner(of: Deployment.launcher) { throw runsAlready(deployment, pid) }
        throw Failure(
          reason(deployment, since: offsets, orCrash: true)
            ?? "the launcher ended at once; see \(deployment.folder.logFolder)")
      }
      if Clock.now() >= deadline {
        let why = reason(deployment, since: offsets, orCrash: true).map { ": \($0)" } ?? ""
        throw Failure("\(wanted - registered) of \(wanted) masters have not registered in 30 s\(why)")
      }
      usleep(5_000)
    }
  }

  private func logSizes(_ deployment: Deployment) -> [String: UInt64] {
    var sizes: [String: UInt64] = [:]
    for name in deployment.processNames {
      let attributes = try? FileManager.default.attributesOfItem(atPath: deployment.folder.log(of: name))
      sizes[name] = attributes?[.size] as? UInt64 ?? 0
    }
    return sizes
  }

  /// The last thing that went wrong: from the logs of processes that are not there; else what their supervisor says, if it can't start them.
  ///
  /// - Parameter orCrash: or if they have crashed, after which they may come back yet.
  private func reason(
    _ deployment: Deployment, since offsets: [String: UInt64], ofAnyBut registered: Set<String> = [],
    orCrash: Bool = false
  ) -> String? {
    let missing = deployment.processNames.filter { deployment.folder.owner(of: $0) == nil }
    var found: String?
    var told: String?
    for name in deployment.processNames where !registered.contains(name) {
      guard let handle = FileHandle(forReadingAtPath: deployment.folder.log(of: name)) else { continue }
      defer { try? handle.close() }
      try? handle.seek(toOffset: offsets[name] ?? 0)
      let text = String(decoding: (try? handle.readToEnd()) ?? Data(), as: UTF8.self)
      let lines = text.split(separator: "\n")
      let line = lines.last { line in
        missing.contains { line.contains(" \(name) can't start \($0): ") }
          || orCrash && line.contains(") crashed: ") && missing.contains { line.contains(" \(name) \($0) (process ") }
      }
      // Without date, time, level and the supervisor's name.
      if let line { told = line.split(separator: " ", maxSplits: 4).last.map(String.init) }
      // A master that runs, and is not registered yet, has come back.
      guard missing.contains(name), let line = lines.last(where: { $0.hasPrefix("tinysns: ") }) else { continue }
      found = String(line.dropFirst(9))
    }
    return found ?? told
  }

  /// A port that somebody else has is found before anything is started.
  private func checkPorts(_ deployment: Deployment) throws {
    for (process, address, port, key) in deployment.fixedPorts
    where deployment.folder.owner(of: process) == nil {
      guard let reason = PortCheck.reasonNotToBind(address, port) else { continue }
      throw Failure(
        "\(process) can't listen at \(address), port \(port): \(reason) (\(key) in \(deployment.path) is where to change it)"
      )
    }
  }
}

/// Whether a port can be bound.
enum PortCheck {
  /// A port that is free now, on the loopback address.
  static func freePort() throws -> UInt16 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let code = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        bind(descriptor, pointer, size) == 0 ? getsockname(descriptor, pointer, &size) : -1
      }
    }
    guard code == 0 else { throw Failure("no free port: \(String(cString: strerror(errno)))") }
    return UInt16(bigEndian: address.sin_port)
  }

  static func reasonNotToBind(_ address: String, _ port: UInt16) -> String? {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    hints.ai_flags = AI_PASSIVE
    var found: UnsafeMutablePointer<addrinfo>?
    let code = getaddrinfo(address, String(port), &hints, &found)
    guard code == 0, let info = found else { return String(cString: gai_strerror(code)) }
    defer { freeaddrinfo(found) }
    let descriptor = socket(info.pointee.ai_family, info.pointee.ai_socktype, 0)
    guard descriptor >= 0 else { return String(cString: strerror(errno)) }
    defer { close(descriptor) }
    // As libzmq does: connections of an earlier life that linger are no obstacle.
    var on: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
    guard bind(descriptor, info.pointee.ai_addr, info.pointee.ai_addrlen) == 0, listen(descriptor, 1) == 0 else {
      return String(cString: strerror(errno))
    }
    return nil
  }
}
