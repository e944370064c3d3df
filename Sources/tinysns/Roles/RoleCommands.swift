// One role in the foreground: what launcher and slaves start, and what a person may start by hand.

import ArgumentParser
import Foundation
import Log
import Node
import SQLiteLog
import Topology

struct RouterRole: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "router", abstract: "Run the routing server of the topology.")
  @OptionGroup var topology: TopologyOption

  func run() throws {
    var server = try RouterServer(topology.load().routerOptions)
    try server.run()
  }
}

struct MasterRole: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "master", abstract: "Run one master server of the topology.")
  @Argument(help: "Which one: master-1, master-2, …") var name: String
  @OptionGroup var topology: TopologyOption

  func run() throws {
    let deployment = try topology.load()
    let folder = deployment.topology.state
    var server = try MasterServer(deployment.options(of: deployment.master(named: name))) {
      () throws(LogError) -> any EventLog in try SQLiteLog(folder: folder)
    }
    try server.run()
  }
}

struct SlaveRole: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "slave", abstract: "Run one slave: it starts its master, watches it, and starts it again.")
  @Argument(help: "Which one: slave-1, slave-2, …") var name: String
  @OptionGroup var topology: TopologyOption

  func run() throws {
    var server = try SupervisorServer(topology.load().supervision(ofSlave: name))
    try server.run()
  }
}
