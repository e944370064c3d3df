// A cluster of real processes with a folder and ports of its own; nothing of it is left when the test ends.

import Foundation
import Glibc
import Model
import Synchronization
import Testing
import TinySNSClient
import ZeroMQ

/// What `status --json` says.
struct ClusterState: Decodable {
  struct Router: Decodable {
    var pid: Int32?
    var endpoint: String
    var state: String
  }
  struct Master: Decodable {
    var name: String
    var pid: Int32?
    var state: String
    var incarnation: UInt64?
    var requests: String?
    var timelines: String?
    var head: UInt64?
    var sessions: UInt32?
    var respawn_in_ms: UInt32?
  }
  struct Other: Decodable {
    var name: String
    var pid: Int32?
    var state: String
  }

  var router: Router
  var launcher: Other
  var masters: [Master]
  var slaves: [Other]
  var clients: [Other]

  var available: Master? { masters.first { $0.state == "available" } }
  func master(_ name: String) -> Master? { masters.first { $0.name == name } }
  func slave(_ name: String) -> Other? { slaves.first { $0.name == name } }
  func count(of state: String) -> Int { masters.count { $0.state == state } }
}

/// A topology and the processes that it started.
final class Cluster: Sendable {
  struct Setup: Sendable {
    var masters = 3
    /// Three ports a master from here on; 0: any free ones.
    var firstPort: UInt16 = 0
    /// More lines of the topology file.
    var keys: [String] = ["respawn_delay: 1s"]
    /// The state folder, beside the file unless absolute.
    var state = "var"
    /// Of all commands; see `Command`.
    var environment: [String: String?] = [:]
  }

  /// What every user of these tests logs in with, unless a test says otherwise.
  static let password = "a password of the tests"

  let folder: String
  let setup: Setup
  private let port: Mutex<UInt16>
  private let commands = Mutex<[Command]>([])

  var topology: String { folder + "/topology.yaml" }
  var state: String { setup.state.hasPrefix("/") ? setup.state : folder + "/" + setup.state }
  var routerPort: UInt16 { port.withLock { $0 } }
  var router: String { "tcp://127.0.0.1:\(routerPort)" }
  func keyFile(_ name: String) -> String { "\(state)/keys/\(name)" }
  /// For a client of the library.
  var serverKey: ServerKey? { setup.keys.contains("security: none") ? nil : .file(keyFile("cluster.pub")) }

  private init(_ setup: Setup) throws {
    // Not the system's temporary folder: the paths of sockets have little room.
    var template = Array("/tmp/tsns-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw CocoaError(.fileWriteUnknown) }
    folder = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    self.setup = setup
    port = Mutex(Ports.free(1))
    try writeTopology()
  }

  private func writeTopology() throws {
    let lines =
      [
        "router: { port: \(routerPort) }",
        "hosts: { local: { masters: \(setup.masters), first_port: \(setup.firstPort) } }", "state: \(setup.state)",
      ] + setup.keys + (setup.keys.contains { $0.hasPrefix("password_memory") } ? [] : ["password_memory: 8KiB"])
    try (lines.joined(separator: "\n") + "\n").write(toFile: topology, atomically: true, encoding: .utf8)
  }

  /// Runs `body` with a cluster. Stops and checks everything afterwards, whatever happened.
  ///
  /// - Parameter start: whether `body` finds it started.
  static func with<Result>(
    _ setup: Setup = Setup(), start: Bool = true, _ body: (Cluster) async throws -> Result
  ) async throws -> Result {
    let cluster = try Cluster(setup)
    do {
      if start { try await cluster.start() }
      let result = try await body(cluster)
      await cluster.tearDown()
      return result
    } catch {
      cluster.tellLogs()
      await cluster.tearDown()
      throw error
    }
  }

  static func with<Result>(
    masters: Int, _ keys: String..., start: Bool = true, _ body: (Cluster) async throws -> Result
  ) async throws -> Result {
    var setup = Setup(masters: masters)
    // A key that is given replaces the usual one.
    setup.keys.removeAll { usual in
      keys.contains { $0.prefix { $0 != ":" } == usual.prefix { $0 != ":" } }
    }
    setup.keys += keys
    return try await with(setup, start: start, body)
  }

  /// `up --detach`. Somebody may have got the router's port meanwhile; then with another one.
  @discardableResult
  func start() async throws -> Outcome {
    var outcome = try await run("up", "--detach", within: .seconds(60))
    for _ in 0..<5 where outcome.status != 0 && outcome.errors.contains("router can't listen") {
      port.withLock { $0 = Ports.free(1) }
      try writeTopology()
      outcome = try await run("up", "--detach", within: .seconds(60))
    }
    try #require(outcome.status == 0, "\(outcome)")
    return outcome
  }

  // MARK: Commands

  /// Starts a command on this topology.
  func begin(
    _ arguments: [String], input: Command.Input = .nothing, environment: [String: String?] = [:]
  ) throws -> Command {
    let command = try Command(
      arguments + ["--topology", topology], in: folder, input: input,
      environment: setup.environment.merging(environment) { $1 })
    commands.withLock { $0.append(command) }
    return command
  }

  /// Runs a command on this topology to its end.
  @discardableResult
  func run(
    _ arguments: String..., input: Command.Input = .nothing, environment: [String: String?] = [:],
    within limit: Duration = patience
  ) async throws -> Outcome {
    try await begin(arguments, input: input, environment: environment).end(within: limit)
  }

  /// Runs a line of shell in which `$T` is the program and `$Y` the option for the topology.
  func shell(_ line: String) async throws -> Outcome {
    let script = "T='\(Command.program)'; Y='--topology \(topology)'; \(line)"
    let command = try Command(["-c", script], in: folder, program: "/bin/sh")
    commands.withLock { $0.append(command) }
    return try await command.end()
  }

  /// Registers users.
  func register(_ names: String...) async throws {
    for name in names {
      let outcome = try await run("client", name)
      try #require(outcome.status == 0, "\(outcome)")
    }
  }

  /// Posts, and returns the id that was printed.
  @discardableResult
  func post(_ user: String, _ text: String) async throws -> UInt64 {
    let outcome = try await run("post", user, text)
    return try #require(outcome.status == 0 ? UInt64(outcome.lines.first ?? "") : nil, "\(outcome)")
  }

  func timeline(_ user: String, limit: Int = 20) async throws -> [ShownPost] {
    let outcome = try await run("timeline", user, "--json", "--limit", String(limit))
    try #require(outcome.status == 0, "\(outcome)")
    return try outcome.lines.map { try ShownPost(json: $0) }
  }

  func status() async throws -> ClusterState {
    let outcome = try await run("status", "--json")
    try #require(outcome.status == 0, "\(outcome)")
    return try JSONDecoder().decode(ClusterState.self, from: Data(outcome.output.utf8))
  }

  /// The status, once it is as wanted.
  @discardableResult
  func status(within limit: Duration = patience, when what: String, _ isWanted: (ClusterState) -> Bool) async throws
    -> ClusterState
  {
    try await eventually(what, within: limit, every: .milliseconds(50)) {
      let state = try await status()
      return isWanted(state) ? state : nil
    }
  }

  /// Everyone is there and idle.
  @discardableResult
  func whole() async throws -> ClusterState {
    try await status(when: "all masters and slaves are back") { state in
      (state.available != nil && state.count(of: "standby") == setup.masters - 1
        || state.count(of: "serving") == setup.masters) && state.slaves.allSatisfy { $0.state == "running" }
    }
  }

  // MARK: Processes

  /// The processes that have this topology's file in their command line, and their command lines. Those that are dead
  /// and wait to be collected have none.
  func processes() -> [Int32: [String]] {
    var found: [Int32: [String]] = [:]
    for entry in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
      guard let pid = Int32(entry), pid != getpid(),
        let line = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline")
      else { continue }
      let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      if words.contains(topology) { found[pid] = words }
    }
    return found
  }

  /// The processes of the cluster itself, not those of commands.
  func servers() -> [Int32: [String]] {
    processes().filter { $0.value.count > 1 && ["up", "router", "slave", "master", "demo"].contains($0.value[1]) }
  }

  /// Sends a signal to a process of this cluster, and of no other.
  func signal(_ pid: Int32?, _ number: Int32) throws {
    let pid = try #require(pid)
    try #require(processes()[pid] != nil, "process \(pid) is none of this cluster")
    Glibc.kill(pid, number)
  }

  /// Makes a plain socket one that this cluster talks to, with keys of its own or with those given; without encryption, does nothing.
  func introduce(_ socket: borrowing Socket, as keys: CurveKeypair? = nil) throws {
    if setup.keys.contains("security: none") { return }
    let serverKey = try #require(CurveKey(file: keyFile("cluster.pub")))
    try socket.set(.curveClient(serverKey: serverKey, keys: keys ?? .generate()))
  }

  func isRunning(_ pid: Int32) -> Bool { processes()[pid] != nil }

  /// What a process had to say.
  func log(of name: String) -> String {
    (try? String(contentsOfFile: "\(state)/log/\(name).log", encoding: .utf8)) ?? ""
  }

  private func tellLogs() {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: state + "/log")) ?? []
    for file in names.sorted() {
      let lines = log(of: String(file.dropLast(4))).split(separator: "\n").suffix(12)
      print("--- \(file)\n\(lines.joined(separator: "\n"))")
    }
  }

  private func tearDown() async {
    for command in commands.withLock({ $0 }) { command.kill(SIGKILL) }
    do {
      let outcome = try await run("down", within: .seconds(20))
      #expect(outcome.status == 0, "\(outcome)")
      try await eventually("no process is left", within: .seconds(5)) { processes().isEmpty }
    } catch {
      Issue.record("\(error): \(processes())")
      for pid in processes().keys { Glibc.kill(pid, SIGKILL) }
    }
    try? FileManager.default.removeItem(atPath: folder)
  }
}

/// A post as `timeline --json` shows it.
struct ShownPost: Decodable, Hashable {
  var id: UInt64
  var author: String
  var text: String
  var created_at: String

  init(json: some StringProtocol) throws { self = try JSONDecoder().decode(Self.self, from: Data(json.utf8)) }
}

/// TCP ports.
enum Ports {
  /// The first of so many consecutive ports that nobody has. Below those that the kernel gives to who asks for any, so that
  /// nobody gets one while its owner restarts.
  static func free(_ count: Int) -> UInt16 {
    while true {
      let first = UInt16.random(in: 15_000..<32_000)
      if (0..<count).allSatisfy({ isFree(first + UInt16($0)) }) { return first }
    }
  }

  private static func isFree(_ port: UInt16) -> Bool {
    guard let holder = try? PortHolder(port) else { return false }
    _ = holder
    return true
  }
}

/// Has a port for as long as it lives.
final class PortHolder {
  private let descriptor: Int32

  init(_ port: UInt16) throws {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = TCP.address(port)
    let code = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard code == 0, listen(descriptor, 1) == 0 else {
      close(descriptor)
      throw Late(description: "port \(port) is taken")
    }
  }

  deinit { close(descriptor) }
}
