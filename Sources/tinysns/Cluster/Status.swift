// `tinysns status`.

import ArgumentParser
import Foundation
import Model
import Node
import Runtime
import Topology

/// A value that may be missing: then null, so that every key is always there.
@propertyWrapper
struct Nullable<Value: Encodable>: Encodable {
  var wrappedValue: Value?

  init(wrappedValue: Value?) { self.wrappedValue = wrappedValue }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    if let wrappedValue { try container.encode(wrappedValue) } else { try container.encodeNil() }
  }
}

/// How a cluster is, put together from what the router, the supervisors and the locks say.
struct ClusterStatus: Encodable {
  struct Router: Encodable {
    @Nullable var pid: Int32?
    var endpoint: String
    var state: String
  }

  struct Master: Encodable {
    var name: String
    @Nullable var pid: Int32?
    /// available, standby, serving, starting, down
    var state: String
    @Nullable var incarnation: UInt64?
    @Nullable var requests: String?
    @Nullable var timelines: String?
    @Nullable var head: UInt64?
    @Nullable var sessions: UInt32?
    @Nullable var respawn_in_ms: UInt32?
  }

  struct Process: Encodable {
    var name: String
    @Nullable var pid: Int32?
    /// running, silent, down
    var state: String
  }

  var router: Router
  var launcher: Process
  var masters: [Master]
  var slaves: [Process]
  var clients: [Process]

  init(_ deployment: Deployment) {
    let folder = deployment.folder
    let timeout = Interval.milliseconds(400)
    let routerPid = folder.owner(of: Deployment.router)
    let routerStatus = routerPid == nil ? nil : ClusterQuery.router(of: deployment, timeout: timeout)
    router = Router(
      pid: routerPid, endpoint: deployment.routerEndpoint,
      state: routerPid == nil ? "down" : routerStatus == nil ? "silent" : "running")
    let launcherPid = folder.owner(of: Deployment.launcher)
    launcher = Process(name: Deployment.launcher, pid: launcherPid, state: launcherPid == nil ? "down" : "running")

    let slaveNames = deployment.topology.masters.map(\.slaveName)
    let slaveStatus = ClusterQuery.supervisors(slaveNames, in: folder, timeout: timeout)
    slaves = zip(slaveNames, slaveStatus).map { name, status in
      let pid = folder.owner(of: name)
      return Process(name: name, pid: pid, state: pid == nil ? "down" : status == nil ? "silent" : "running")
    }
    masters = zip(deployment.topology.masters, slaveStatus).map { master, slave in
      let pid = folder.owner(of: master.name)
      let known = routerStatus?.masters.first { $0.master.name == master.name && $0.pid == pid }
      let child = slave?.children.first { $0.name == master.name }
      let isAlive = known.map { $0.state != .down } ?? false
      return Master(
        name: master.name, pid: pid,
        state: pid == nil ? "down" : isAlive ? known!.state.rawValue : known == nil ? "starting" : "down",
        incarnation: known?.master.incarnation.rawValue, requests: known?.requests, timelines: known?.timelines,
        head: known?.head.rawValue, sessions: known?.sessions,
        respawn_in_ms: child?.state == .waiting ? child?.respawnIn : nil)
    }
    clients = deployment.topology.clients.map { client in
      let name = Deployment.demo(client)
      let pid = folder.owner(of: name)
      return Process(name: name, pid: pid, state: pid == nil ? "down" : "running")
    }
  }

  var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    return String(decoding: try! encoder.encode(self), as: UTF8.self)
  }

  /// A table for people.
  var table: String {
    var rows = [["", "PID", "STATE", "REQUESTS", "HEAD", "SESSIONS", ""]]
    func pid(_ pid: Int32?) -> String { pid.map(String.init) ?? "-" }
    rows.append([launcher.name, pid(launcher.pid), launcher.state, "", "", "", ""])
    rows.append(["router", pid(router.pid), router.state, router.endpoint, "", "", ""])
    for master in masters {
      let countdown = master.respawn_in_ms.map { "starts again in \(($0 + 999) / 1_000) s" } ?? ""
      rows.append([
        master.name, pid(master.pid), master.state, master.requests ?? "", master.head.map(String.init) ?? "",
        master.sessions.map(String.init) ?? "", countdown,
      ])
    }
    for process in slaves + clients { rows.append([process.name, pid(process.pid), process.state, "", "", "", ""]) }
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max()! }
    return rows.map { row in
      let cells = zip(row, widths).map { cell, width in cell + String(repeating: " ", count: width - cell.count) }
      var line = cells.joined(separator: "  ")
      while line.hasSuffix(" ") { line.removeLast() }
      return line
    }.joined(separator: "\n")
  }
}

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show the router, masters, slaves and demo clients of the topology.",
    discussion: """
      A master is `available` when it serves all clients, `standby` when it is ready to, `serving` when it serves its \
      share (assignment: spread), `starting` until the router knows it, and `down` when it is dead or silent.
      """)
  @Flag(help: "Print one JSON object.") var json = false
  @Flag(help: "Go on, and show it anew every second.") var watch = false
  @OptionGroup var topology: TopologyOption

  func run() throws {
    let deployment = try topology.load()
    while true {
      if watch, !json, isatty(STDOUT_FILENO) == 1 { Terminal.write("\u{1B}[H\u{1B}[2J", to: STDOUT_FILENO) }
      let status = ClusterStatus(deployment.asStarted())
      Terminal.print(json ? status.json : status.table)
      if !watch { return }
      Thread.sleep(forTimeInterval: 1)
    }
  }
}
