// `tinysns keys`: the cluster's keys.

import ArgumentParser
import CSpawn
import Foundation
import Model
import Node
import Runtime
import Topology
import ZeroMQ

struct Keys: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keys", abstract: "Show the cluster's public key, or give the cluster new keys.",
    subcommands: [ShowKey.self, RotateKeys.self], defaultSubcommand: ShowKey.self)
}

struct ShowKey: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Print the public key, for --server-key and TINYSNS_SERVER_KEY on other machines.")
  @OptionGroup var topology: TopologyOption

  func run() throws {
    let folder = try topology.loadForClient().folder
    try ClusterKeys.checkPublicKey(in: folder)
    guard let key = ClusterKeys.publicKey(in: folder) else {
      throw Failure("there are no keys in \(folder.keyFolder) yet; the first `tinysns up` makes them")
    }
    Terminal.print(key.z85)
  }
}

struct RotateKeys: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rotate", abstract: "Give the cluster new keys, and restart its servers with them.",
    discussion: """
      No post is lost: sessions end for about a second, and clients on this machine find the new key by themselves. Clients on \
      other machines need the new --server-key. Session tokens stay valid.
      """)
  @OptionGroup var topology: TopologyOption

  private static let timeout = Interval.seconds(30)

  func run() throws {
    let deployment = try topology.loadAsStarted()
    let folder = deployment.folder
    let running = ClusterStop(folder: folder).running()
    defer { for process in running { close(process.descriptor) } }
    try folder.create()
    guard !running.isEmpty else {
      try ClusterKeys.replace(in: folder)
      Terminal.print("new keys; nothing of \(deployment.path) is running")
      return
    }
    // Asked first: without a launcher nobody would start anything again.
    guard let launcher = running.first(where: { $0.name == Deployment.launcher }) else {
      throw Failure(
        "nobody is there to restart the servers: the launcher does not run. Start it with `tinysns up --detach`, or stop all "
          + "with `tinysns down`, and rotate then")
    }
    let started = Clock.now()
    let servers = Set([Deployment.router] + deployment.topology.masters.flatMap { [$0.name, $0.slaveName] })
    let before = running.filter { servers.contains($0.name) }
    try ClusterKeys.replace(in: folder)
    _ = tinysns_pidfd_send_signal(launcher.descriptor, StopSignals.restart)
    try wait(for: deployment, without: Set(before.map(\.pid)), since: started)
    Terminal.print(
      "new keys; all servers run with them after \((Clock.now() - started).milliseconds) ms. On other machines: --server-key "
        + "'\(ClusterKeys.publicKey(in: folder)?.z85 ?? "")'")
  }

  /// Until everybody is back; who answers to the new key has it.
  private func wait(for deployment: Deployment, without former: Set<Int32>, since started: Model.Instant) throws {
    let wanted = deployment.topology.masters.count
    while true {
      let masters = ClusterQuery.router(of: deployment, timeout: .milliseconds(100))?.masters ?? []
      let back = masters.filter { $0.state != .down && !former.contains($0.pid) }
      if back.count >= wanted, back.contains(where: { $0.state != .standby }) { return }
      guard Clock.now() - started < Self.timeout else {
        throw Failure(
          "the keys are new, but \(wanted - back.count) of \(wanted) masters have not come back with them in 30 s; "
            + "`tinysns down` and `tinysns up` help")
      }
      usleep(10_000)
    }
  }
}
