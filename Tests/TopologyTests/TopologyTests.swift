// What a valid topology file means: the shipped one, defaults, other sizes, names, addresses and times.

import Foundation
import Model
import Testing

@testable import Topology

func parsed(_ yaml: String, folder: String = "/srv/sns") throws -> Topology {
  try Topology.parse(yaml, fileName: "topology.yaml", folder: folder)
}

@Suite struct TopologyTests {
  static let shippedFile = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "topology.yaml").path

  @Test func shippedFileHasEightMastersAndThreeClients() throws {
    let topology = try Topology.load(path: Self.shippedFile)
    #expect(topology.masters.map(\.name) == (1...8).map { "master-\($0)" })
    #expect(topology.masters.map(\.slaveName) == (1...8).map { "slave-\($0)" })
    #expect(topology.masters.compactMap(\.ports?.requests) == [3020, 3023, 3026, 3029, 3032, 3035, 3038, 3041])
    #expect(topology.masters[7].ports?.timelines == 3042)
    #expect(topology.masters[7].ports?.log == 3043)
    #expect(topology.clients == ["alice", "bob", "carol"])
    #expect(topology.state.hasSuffix("/var"))
  }

  /// The comments of the shipped file tell the truth: with them taken away, every key is given, and nothing changes.
  @Test func shippedFileShowsEveryKeyWithItsDefault() throws {
    let text = try String(contentsOfFile: Self.shippedFile, encoding: .utf8)
    let uncommented = text.replacing(/(?m)^(\s*)# (\s*[a-z_]+:)/) { "\($0.output.1)\($0.output.2)" }
    #expect(try parsed(uncommented) == parsed(text))
    for key in TopologyReader.keys { #expect(uncommented.contains("\n\(key):"), "\(key) is missing") }
    for key in TopologyReader.hostKeys { #expect(uncommented.contains("\n    \(key):"), "\(key) is missing") }
    for key in TopologyReader.routerKeys + TopologyReader.limitKeys {
      #expect(uncommented.contains("\n  \(key):"), "\(key) is missing")
    }
  }

  @Test(arguments: ["", "# nothing\n", "---\n", "{}", "hosts:\nrouter:\nclients:\n", "hosts: { local: }", "\u{FEFF}"])
  func everyKeyHasADefault(yaml: String) throws {
    let topology = try parsed(yaml)
    #expect(topology.router == Topology.Router(host: "local", address: "127.0.0.1", port: 3010))
    #expect(
      topology.hosts == [Topology.Host(name: "local", address: "127.0.0.1", masterCount: 8, firstPort: 3020)])
    #expect(topology.masters.count == 8)
    #expect(topology.clients == [])
    #expect(topology.assignment == .available)
    #expect(topology.log == .sqlite)
    #expect(topology.security == .curve)
    #expect(topology.limits == OperatorLimits())
    #expect(topology.state == "/srv/sns/var")
    #expect(topology.timing == Topology.Timing())
    #expect(topology.accounts == Topology.Accounts())
    #expect(topology.accounts.passwordMemory == 19 << 20)
    #expect(topology.accounts.sessionLifetime == .seconds(30 * 24 * 3_600))
    #expect(topology.accounts.requestsPerSecond == 2_000)
    #expect(topology.timing.heartbeat == .milliseconds(100))
    #expect(topology.timing.liveness == .milliseconds(500))
    #expect(topology.timing.hangTimeout == .seconds(5))
    #expect(topology.timing.respawnDelay == .seconds(25))
    #expect(topology.timing.requestTimeout == .seconds(2))
  }

  @Test func everyKeyCanBeGiven() throws {
    let topology = try parsed(
      """
      router: { host: "b", port: 4000 }
      hosts:
        a: { address: 127.0.0.1, masters: 2, first_port: 4100 }
        b: { address: 127.0.0.2, masters: 1, first_port: 0 }
      clients:
        - 'Zoë'
        - 王小明
        - 007
        - no
      assignment: spread
      log: sqlite
      security: none
      limits: { connections_per_address: 300 }
      state: /tmp/sns
      heartbeat: 20ms
      liveness: 0.06s
      hang_timeout: 1.5s
      respawn_delay: 2m
      password_memory: 64KiB
      session_lifetime: 12h
      requests_per_second: 50
      request_timeout: 500ms
      """)
    #expect(topology.router == Topology.Router(host: "b", address: "127.0.0.2", port: 4000))
    #expect(topology.hosts.map(\.name) == ["a", "b"])
    #expect(topology.security == .none)
    #expect(topology.limits.connectionsPerAddress == 300)
    #expect(topology.masters.map(\.name) == ["master-1", "master-2", "master-3"])
    #expect(topology.masters.map(\.host) == ["a", "a", "b"])
    #expect(topology.masters.map(\.address) == ["127.0.0.1", "127.0.0.1", "127.0.0.2"])
    #expect(topology.masters.map(\.ports?.requests) == [4100, 4103, nil])
    #expect(topology.clients == ["Zoë", "王小明", "007", "no"])
    #expect(topology.assignment == .spread)
    #expect(topology.state == "/tmp/sns")
    #expect(topology.timing.heartbeat == .milliseconds(20))
    #expect(topology.timing.liveness == .milliseconds(60))
    #expect(topology.timing.hangTimeout == .milliseconds(1500))
    #expect(topology.timing.respawnDelay == .seconds(120))
    #expect(topology.accounts.passwordMemory == 65_536)
    #expect(topology.accounts.sessionLifetime == .seconds(12 * 3_600))
    #expect(topology.accounts.requestsPerSecond == 50)
    #expect(topology.timing.requestTimeout == .milliseconds(500))
  }

  /// Each key sets its own limit and no other.
  @Test func limitsCanBeGivenOneByOne() throws {
    for key in OperatorLimits.keys {
      var expected = OperatorLimits()
      let value = key.range.upperBound
      expected[keyPath: key.path] = value
      #expect(try parsed("limits: { \(key.name): \(value) }").limits == expected)
      #expect(key.range.contains(OperatorLimits()[keyPath: key.path]))
    }
    #expect(Set(OperatorLimits.keys.map(\.name)).count == OperatorLimits.keys.count)
  }

  @Test(arguments: [1, 3, 20, 64]) func numberOfMasters(count: Int) throws {
    let topology = try parsed("hosts: { local: { masters: \(count) } }")
    #expect(topology.masters.map(\.number) == Array(1...count))
    #expect(topology.masters.last?.name == "master-\(count)")
    #expect(topology.masters.last?.ports?.log == UInt16(3020 + 3 * count - 1))
  }

  @Test func anyFreePorts() throws {
    let topology = try parsed("hosts: { local: { first_port: 0 } }")
    #expect(topology.masters.count == 8)
    #expect(topology.masters.allSatisfy { $0.ports == nil })
  }

  @Test func highestPorts() throws {
    let topology = try parsed("hosts: { local: { masters: 1, first_port: 65533 } }")
    #expect(topology.masters[0].ports?.log == 65535)
  }

  @Test func theFirstHostHasTheRouterUnlessSaid() throws {
    #expect(try parsed("hosts: { box: { address: box.example.org } }").router.address == "box.example.org")
  }

  @Test func samePortsAtDifferentAddresses() throws {
    let topology = try parsed("hosts: { a: { address: 127.0.0.1 }, b: { address: 127.0.0.2 }, c: { address: '::1' } }")
    #expect(topology.masters.count == 24)
    #expect(Set(topology.masters.map(\.ports?.requests)).count == 8)
  }

  @Test(arguments: [
    "127.0.0.1", "10.1.2.3", "::1", "fe80::1", "2001:db8::8", "localhost", "box", "a-b.example.org", "my_box", "10.box",
  ])
  func address(text: String) throws {
    #expect(try parsed("hosts: { local: { address: '\(text)' } }").hosts[0].address == text)
  }

  @Test func relativeStateStartsAtTheFolder() throws {
    #expect(try parsed("state: ../other/./var/").state == "/srv/other/var")
    #expect(try parsed("state: data sets/v1").state == "/srv/sns/data sets/v1")
    let longest = "/" + String(repeating: "s", count: Topology.stateBytesMax - 1)
    #expect(try parsed("state: \(longest)").state == longest)
    #expect((longest + "/run/slave-256.sock").utf8.count == 107)
    #expect((longest + "/run/launcher.sock").utf8.count <= 107)
  }

  @Test func windowsLineEndsAndByteOrderMark() throws {
    #expect(try parsed("\u{FEFF}hosts:\r\n  local:\r\n    masters: 3\r\n").masters.count == 3)
  }

  @Test(arguments: [
    ("100ms", 100), ("1s", 1000), ("1.5s", 1500), ("2m", 120_000), ("0.25s", 250), ("0.5m", 30_000), ("2h", 7_200_000),
    ("30d", 2_592_000_000),
  ])
  func duration(text: String, milliseconds: Int) {
    #expect(Duration(inUnits: text) == .milliseconds(milliseconds))
  }

  @Test(arguments: [
    "", "s", "1", "1.s", ".5s", "1.5.2s", "1 s", "-1s", "+1s", "1w", "1S", "1e3ms", "1.1234567s", "12345678s", "٣s",
  ])
  func noDuration(text: String) {
    #expect(Duration(inUnits: text) == nil)
  }

  @Test(arguments: ["10ms", "12.5ms", "1s", "1.5s", "2m", "90s", "60m", "30d"])
  func durationAsWritten(text: String) {
    #expect(Duration(inUnits: text)?.inUnits == text)
  }
}
