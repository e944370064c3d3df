// `tinysns down`.

import ArgumentParser
import CSpawn
import Foundation
import Model
import Node
import Runtime

/// Stops what a topology started: found by lock files, so by nobody's name but its own.
struct ClusterStop {
  let folder: StateFolder

  struct Target {
    var name: String
    var pid: Int32
    var descriptor: Int32
  }

  /// Everything that runs, the launcher first.
  func running() -> [Target] {
    folder.knownNames().compactMap { name -> Target? in
      guard let pid = folder.owner(of: name) else { return nil }
      let descriptor = tinysns_pidfd_open(pid)
      guard descriptor >= 0 else { return nil }
      guard folder.owner(of: name) == pid else {
        close(descriptor)
        return nil
      }
      return Target(name: name, pid: pid, descriptor: descriptor)
    }.sorted { ($0.name != Deployment.launcher ? 1 : 0, $0.name) < ($1.name != Deployment.launcher ? 1 : 0, $1.name) }
  }

  /// Stops everything gracefully; what has not stopped by the deadline is killed. Returns the names of what ran, and of what
  /// had to be killed.
  func stop(within time: Interval) -> (stopped: [String], killed: [String]) {
    var stopped: Set<String> = []
    var killed: Set<String> = []
    let deadline = Clock.now() + time
    var told: Set<Int32> = []
    while true {
      // Looked up anew each time: a supervisor may just have started something.
      let targets = running()
      defer { for target in targets { close(target.descriptor) } }
      if targets.isEmpty {
        folder.forgetTopology()
        return (stopped.sorted(), killed.sorted())
      }
      let isLate = Clock.now() >= deadline
      // A launcher or slave stops its own children; without one, or with one that is frozen, they are told directly.
      let hasLauncher = targets.contains { $0.name == Deployment.launcher && !isStopped($0.pid) }
      for target in targets {
        stopped.insert(target.name)
        if isLate {
          killed.insert(target.name)
          _ = tinysns_pidfd_send_signal(target.descriptor, SIGKILL)
        } else if (!hasLauncher || target.name == Deployment.launcher), told.insert(target.pid).inserted {
          _ = tinysns_pidfd_send_signal(target.descriptor, SIGTERM)
        }
      }
      if isLate, Clock.now() >= deadline + .seconds(2) { return (stopped.sorted(), killed.sorted()) }
      var items = targets.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
      poll(&items, UInt(items.count), 20)
    }
  }
}

struct Down: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Stop everything that this topology started, and nothing else.",
    discussion:
      "Masters finish the commit under way and send their clients elsewhere. What has not stopped after 3 seconds is killed."
  )
  @OptionGroup var topology: TopologyOption

  func run() throws {
    let deployment = try topology.load()
    let (stopped, killed) = ClusterStop(folder: deployment.folder).stop(within: .milliseconds(2_800))
    if stopped.isEmpty {
      Terminal.print("nothing of \(deployment.path) is running")
    } else if killed.isEmpty {
      Terminal.print("stopped \(stopped.count) processes")
    } else {
      Terminal.print("stopped \(stopped.count) processes; had to kill \(killed.joined(separator: ", "))")
    }
  }
}
