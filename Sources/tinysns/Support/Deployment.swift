// From a topology to what each process is told: endpoints, times, folders, command lines.

import ArgumentParser
import Core
import Foundation
import Model
import Node
import TinySNSClient
import Topology

/// The option that all commands have.
struct TopologyOption: ParsableArguments {
  @Option(name: .customLong("topology"), help: "The file that describes the cluster.", completion: .file())
  var path = ProcessInfo.processInfo.environment["TINYSNS_TOPOLOGY"] ?? "topology.yaml"

  /// What the launcher tells whom it starts, and they theirs: a copy of the file as the cluster was started with it.
  @Option(name: .customLong("as-started"), help: .hidden) var copy: String?

  /// For a client, who may have no access to the state folder. With the topology that runs, as far as that can be told.
  func loadForClient() throws -> Deployment {
    let deployment = try Deployment(path: path, copy: copy)
    return deployment.startedOtherwise() ?? deployment
  }

  /// For all others. Throws if it can't be told what runs in the state folder.
  func load() throws -> Deployment {
    let deployment = try Deployment(path: path, copy: copy)
    try deployment.folder.checkAccess()
    return deployment
  }

  /// For who looks after a cluster that may run: with the topology that it was started with.
  func loadAsStarted() throws -> Deployment { try load().asStarted() }
}

/// A topology, and what follows from it.
struct Deployment: Sendable {
  static let launcher = "launcher"
  static let router = "router"

  let path: String
  /// What stands in the file.
  let text: String
  let topology: Topology
  /// Where those who are started from here find the text as it is now; nil: in the file itself, as it is then.
  var copy: String?

  /// - Parameter copy: a copy of the file, which counts instead of it. The file counts where there is no copy.
  init(path: String, copy: String? = nil) throws {
    let folder = try Topology.folder(of: path)
    self.path = URL(fileURLWithPath: folder).appending(path: URL(fileURLWithPath: path).lastPathComponent).path
    self.copy = copy
    let copied = copy.flatMap { try? Topology.text(of: $0) }
    text = try copied ?? Topology.text(of: path)
    topology = try Topology.parse(text, fileName: (copied == nil ? nil : copy) ?? path, folder: folder)
  }

  var folder: StateFolder { StateFolder(path: topology.state) }

  /// What runs, if that was started with another topology than this one; nil if not, or if that can't be told.
  ///
  /// - Parameter name: that of the process itself, which does not count.
  func startedOtherwise(besides name: String? = nil) -> Deployment? {
    // Nearly always it is the same, and that is soon seen.
    guard let text = try? Topology.text(of: folder.topology), text != self.text,
      let started = try? Deployment(path: path, copy: folder.topology), started.topology != topology,
      folder.knownNames().contains(where: { $0 != name && folder.owner(of: $0) != nil })
    else { return nil }
    return started
  }

  /// With the topology of what runs, if anything does; and a word about that on standard error if it is another one.
  func asStarted() -> Deployment {
    guard let started = startedOtherwise() else { return self }
    Terminal.complain(
      "\(path) was changed after the cluster had been started; a change counts after `tinysns down` and `tinysns up`")
    return started
  }

  var timing: Model.Timing {
    Model.Timing(
      heartbeat: Interval(topology.timing.heartbeat), liveness: Interval(topology.timing.liveness),
      hangTimeout: Interval(topology.timing.hangTimeout), respawnDelay: Interval(topology.timing.respawnDelay),
      requestTimeout: Interval(topology.timing.requestTimeout))
  }

  var assignment: Model.Assignment { topology.assignment == .available ? .available : .spread }

  var accountRules: AccountRules {
    AccountRules(
      sessionLifetime: Interval(topology.accounts.sessionLifetime).milliseconds,
      requestsPerSecond: topology.accounts.requestsPerSecond,
      passwordsWaiting: PasswordHasher.waiting(memory: topology.accounts.passwordMemory))
  }

  private static func endpoint(_ address: String, _ port: String) -> String {
    address.contains(":") ? "tcp://[\(address)]:\(port)" : "tcp://\(address):\(port)"
  }

  var routerEndpoint: String { Self.endpoint(topology.router.address, String(topology.router.port)) }

  var security: TransportSecurity { topology.security == .curve ? .curve : .none }

  /// What the cluster has to prove to a client: the key that was given, or that in the state folder; nil without encryption.
  func serverKey(_ given: String? = nil) throws -> ServerKey? {
    guard topology.security == .curve else { return nil }
    let environment = ProcessInfo.processInfo.environment["TINYSNS_SERVER_KEY"] ?? ""
    guard let text = given ?? (environment.isEmpty ? nil : environment) else {
      do {
        try ClusterKeys.checkPublicKey(in: folder)
      } catch {
        throw Failure("\(error); give the key with --server-key or TINYSNS_SERVER_KEY")
      }
      return .file(folder.key("cluster.pub"))
    }
    guard let key = ServerKey(text) else {
      throw Failure(
        "\(given == nil ? "TINYSNS_SERVER_KEY" : "--server-key") is no key; it has 40 characters, as `tinysns keys` prints it"
      )
    }
    return key
  }

  var routerOptions: RouterOptions {
    RouterOptions(
      endpoint: routerEndpoint, timing: timing, assignment: assignment, folder: folder, supervisor: Self.launcher,
      security: security, limits: topology.limits)
  }

  func master(named name: String) throws -> Topology.Master {
    guard let master = topology.masters.first(where: { $0.name == name }) else {
      throw Failure("there is no \(name) in \(path); there are master-1 to master-\(topology.masters.count)")
    }
    return master
  }

  func master(ofSlave name: String) throws -> Topology.Master {
    guard let master = topology.masters.first(where: { $0.slaveName == name }) else {
      throw Failure("there is no \(name) in \(path); there are slave-1 to slave-\(topology.masters.count)")
    }
    return master
  }

  func options(of master: Topology.Master) -> MasterOptions {
    func endpoint(_ port: UInt16?) -> String { Self.endpoint(master.address, port.map(String.init) ?? "*") }
    return MasterOptions(
      name: master.name, requests: endpoint(master.ports?.requests), timelines: endpoint(master.ports?.timelines),
      log: endpoint(master.ports?.log), router: routerEndpoint, timing: timing, assignment: assignment,
      rules: accountRules, passwordMemory: topology.accounts.passwordMemory, folder: folder,
      supervisor: master.slaveName, security: security, limits: topology.limits)
  }

  /// The fixed TCP ports, each with the process that binds it and the key to change it.
  var fixedPorts: [(process: String, address: String, port: UInt16, key: String)] {
    var ports = [(Self.router, topology.router.address, topology.router.port, "router.port")]
    for master in topology.masters {
      guard let fixed = master.ports else { continue }
      for port in [fixed.requests, fixed.timelines, fixed.log] {
        ports.append((master.name, master.address, port, "hosts.\(master.host).first_port"))
      }
    }
    return ports
  }

  private func command(_ name: String, _ arguments: String...) -> ChildCommand {
    ChildCommand(
      name: name, arguments: arguments + ["--topology", path] + (copy.map { ["--as-started", $0] } ?? []))
  }

  /// What a slave supervises: it waits `respawn_delay` before it starts its master again.
  func supervision(ofSlave name: String) throws -> SupervisorOptions {
    let master = try master(ofSlave: name)
    let policy = ChildPolicy(
      respawn: .after(timing.respawnDelay), beats: true, hangTimeout: timing.hangTimeout, grace: .milliseconds(1_500),
      takesTurns: true)
    let locks = [folder.path + "/log.commit.lock", folder.path + "/log.queue.lock"]
    return SupervisorOptions(
      name: name, timing: timing, folder: folder,
      children: [(command(master.name, "master", master.name), policy)], supervisor: Self.launcher,
      holdsTurn: { FileLockInspector.holds(pid: $0, anyOf: locks) })
  }

  /// What the launcher supervises: the router, the slaves, the demo clients.
  var launcherSupervision: SupervisorOptions {
    let quick = ChildPolicy.Respawn.backoff(initial: .milliseconds(500), max: .seconds(10))
    let server = ChildPolicy(respawn: quick, beats: true, hangTimeout: timing.hangTimeout, grace: .milliseconds(2_300))
    let client = ChildPolicy(
      respawn: quick, beats: false, hangTimeout: timing.hangTimeout, grace: .milliseconds(1_000))
    var children = [(command: command(Self.router, "router"), policy: server)]
    for master in topology.masters {
      children.append((command(master.slaveName, "slave", master.slaveName), server))
    }
    for name in topology.clients { children.append((command(Self.demo(name), "demo", name), client)) }
    return SupervisorOptions(
      name: Self.launcher, timing: timing, folder: folder, children: children, supervisor: nil)
  }

  /// The process name of a demo client.
  static func demo(_ client: String) -> String { "client-\(client)" }

  /// Every process that this topology can start.
  var processNames: [String] {
    [Self.launcher, Self.router] + topology.masters.flatMap { [$0.slaveName, $0.name] }
      + topology.clients.map(Self.demo)
  }
}
