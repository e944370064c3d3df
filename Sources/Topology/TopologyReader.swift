// The keys of topology.yaml: their names, their ranges, their defaults, and what must hold between them.
// Pure: text in, a topology or the first error out.

import Model

extension Topology {
  /// Checks a topology file's text. `fileName` is what messages call the file; `folder` is the absolute path that a
  /// relative `state:` starts from. Every key has a default, so an empty text is a topology too.
  /// Throws the first thing that is wrong.
  public static func parse(
    _ yaml: String, fileName: String, folder: String
  ) throws(TopologyError) -> Topology {
    let tree = try YAMLTree.parse(yaml, file: fileName)
    let root = Field(file: fileName, path: KeyPath(), keyLine: nil, line: tree?.line, content: tree?.content)
    return try TopologyReader(keys: root.section(allowed: TopologyReader.keys), folder: folder).read()
  }
}

/// Reads the sections one after the other, then checks them against each other.
struct TopologyReader {
  static let keys =
    ["router", "hosts", "clients", "assignment", "log", "state", "security", "limits"]
    + ["heartbeat", "liveness", "hang_timeout", "respawn_delay", "request_timeout"]
    + ["password_memory", "session_lifetime", "requests_per_second"]
  static let hostKeys = ["address", "masters", "first_port"]
  static let routerKeys = ["host", "port"]
  static let limitKeys = OperatorLimits.keys.map(\.name)

  let keys: Section
  let folder: String

  func read() throws(TopologyError) -> Topology {
    let hosts = try readHosts()
    let router = try readRouter(hosts: hosts)
    try checkPorts(hosts: hosts, router: router)
    let log = try readLog()
    try checkOneMachine(hosts)
    return Topology(
      router: router.topology, hosts: hosts.map(\.topology), masters: masters(of: hosts), clients: try readClients(),
      assignment: try keys["assignment"].choice(default: .available), log: log,
      security: try readSecurity(hosts: hosts), timing: try readTiming(), accounts: try readAccounts(),
      limits: try readLimits(masters: hosts.reduce(0) { $0 + $1.topology.masterCount }), state: try readState())
  }
}

// MARK: - Hosts and masters

/// A host on its way through the checks, with the places to name if one fails.
private struct CheckedHost {
  let topology: Topology.Host
  let address: Address
  let section: Section

  /// The ports of all its masters; nil if they take any free ones.
  var ports: ClosedRange<Int>? {
    let first = Int(topology.firstPort)
    return first == 0 ? nil : first...(first + 3 * topology.masterCount - 1)
  }
}

extension TopologyReader {
  private static let hostNameBytesMax = 64

  private func readHosts() throws(TopologyError) -> [CheckedHost] {
    let field = keys["hosts"]
    guard let entries = try field.entries(of: "host names to their keys") else {
      // No hosts given: one with all defaults.
      return [try readHost(Field(missing: "local", in: field), name: "local")]
    }
    if entries.isEmpty { throw field.error("no host; at least one is needed") }
    var hosts: [CheckedHost] = []
    var masterCount = 0
    for entry in entries {
      guard isHostName(entry.key) else {
        throw entry.value.keyError(
          "no possible name for a host; allowed: up to \(Self.hostNameBytesMax) letters, digits, - and _")
      }
      let host = try readHost(entry.value, name: entry.key)
      masterCount += host.topology.masterCount
      if masterCount > Limits.masters {
        throw host.section["masters"].error(
          "makes \(masterCount) masters on all hosts; at most \(Limits.masters) are allowed")
      }
      hosts.append(host)
    }
    return hosts
  }

  private func readHost(_ field: Field, name: String) throws(TopologyError) -> CheckedHost {
    let section = try field.section(allowed: Self.hostKeys)
    let expected = "an IP address or a host name, without a port"
    let text = try section["address"].text(expected: expected) ?? "127.0.0.1"
    guard let address = Address(text) else { throw section["address"].mismatch(expected) }
    if address.isWildcard {
      throw section["address"].error("nobody can connect to \(text); expected an address that clients can reach")
    }
    let masterCount = try section["masters"]
      .wholeNumber(in: 1...Limits.masters, default: Topology.masterCountDefault)
    let firstPort = try section["first_port"].wholeNumber(in: 0...65535, default: Topology.firstPortDefault)
    let firstPortMax = 65535 - 3 * masterCount + 1
    if firstPort > firstPortMax {
      throw section["first_port"].error(
        "too high for \(masterCount) masters with three ports each; at most \(firstPortMax), or 0 for any free ports")
    }
    let host = Topology.Host(name: name, address: text, masterCount: masterCount, firstPort: UInt16(firstPort))
    return CheckedHost(topology: host, address: address, section: section)
  }

  private func isHostName(_ name: String) -> Bool {
    (1...Self.hostNameBytesMax).contains(name.utf8.count)
      && name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") }
  }

  private func masters(of hosts: [CheckedHost]) -> [Topology.Master] {
    var masters: [Topology.Master] = []
    for host in hosts {
      for index in 0..<host.topology.masterCount {
        let ports = host.ports.map { Topology.Ports(requests: UInt16($0.lowerBound + 3 * index)) }
        masters.append(
          Topology.Master(
            number: masters.count + 1, host: host.topology.name, address: host.topology.address, ports: ports))
      }
    }
    return masters
  }

  /// The log is a file, so all masters must be on the machine that has it.
  private func checkOneMachine(_ hosts: [CheckedHost]) throws(TopologyError) {
    guard hosts.count > 1 else { return }
    for host in hosts where !host.address.isLoopback {
      throw host.section["address"].error(
        "with log: sqlite all masters must be on one machine; "
          + "several hosts are allowed with loopback addresses only (127.0.0.1, 127.0.0.2, …)")
    }
  }
}

// MARK: - Router and ports

/// The router on its way through the checks.
private struct CheckedRouter {
  let topology: Topology.Router
  let address: Address
  let section: Section
}

extension TopologyReader {
  private func readRouter(hosts: [CheckedHost]) throws(TopologyError) -> CheckedRouter {
    let section = try keys["router"].section(allowed: Self.routerKeys)
    let names = hosts.map(\.topology.name)
    let expected = names.count == 1 ? "the host \(names[0])" : "one of the hosts \(names.joined(separator: ", "))"
    let name = try section["host"].text(expected: expected) ?? names[0]
    guard let host = hosts.first(where: { $0.topology.name == name }) else {
      throw section["host"].mismatch(expected)
    }
    let port = try section["port"].wholeNumber(in: 1...65535, default: Topology.routerPortDefault)
    let router = Topology.Router(host: name, address: host.topology.address, port: UInt16(port))
    return CheckedRouter(topology: router, address: host.address, section: section)
  }

  private func checkPorts(hosts: [CheckedHost], router: CheckedRouter) throws(TopologyError) {
    for (index, host) in hosts.enumerated() {
      guard let ports = host.ports else { continue }
      let name = host.topology.name
      let port = Int(router.topology.port)
      if host.address == router.address, ports.contains(port) {
        let field = router.section["port"]
        if field.isGiven {
          throw field.error(
            "\(port) is one of the ports of \(name)'s masters, \(described(ports)); "
              + "choose another, or another first_port")
        }
        throw host.section["first_port"].error(
          "the masters' ports, \(described(ports)), include the router's, \(port); "
            + "choose another, or another router.port")
      }
      for earlier in hosts[..<index] where earlier.address == host.address {
        guard let taken = earlier.ports, taken.overlaps(ports) else { continue }
        throw host.section["first_port"].error(
          "the masters' ports, \(described(ports)), overlap \(earlier.topology.name)'s, \(described(taken)), "
            + "at the same address; choose another, or 0 for any free ports")
      }
    }
  }

  private func described(_ ports: ClosedRange<Int>) -> String { "\(ports.lowerBound) to \(ports.upperBound)" }
}

// MARK: - Clients, log, security, times, accounts, state

extension TopologyReader {
  /// Without encryption only where nobody else listens: on this machine.
  private func readSecurity(hosts: [CheckedHost]) throws(TopologyError) -> Topology.Security {
    let field = keys["security"]
    let security: Topology.Security = try field.choice(default: .curve)
    if security == .none, let host = hosts.first(where: { !$0.address.isLoopback }) {
      throw field.error(
        "none is allowed with loopback addresses only (127.0.0.1, ::1, …), and \(host.topology.name) has "
          + "\(host.topology.address)")
    }
    return security
  }

  private func readClients() throws(TopologyError) -> [String] {
    let list = keys["clients"]
    let fields = try list.list(of: "names")
    if fields.count > Topology.clientsMax {
      throw list.error("expected at most \(Topology.clientsMax) names, found \(fields.count)")
    }
    let expected = "a name of letters and digits, then also _ - and ., at most \(Limits.nameBytes) bytes"
    var names: [String] = []
    for field in fields {
      // The rule of accounts: a demo client registers under its name.
      guard let name = try field.text(expected: expected), TextRules.fault(inName: name) == nil else {
        throw field.mismatch(expected)
      }
      if names.contains(name) { throw field.error("\(quoted(name)) is in the list already; every name once") }
      names.append(name)
    }
    return names
  }

  private func readLog() throws(TopologyError) -> Topology.LogStore {
    let field = keys["log"]
    if case .scalar(let text, _) = field.content, text.lowercased().hasPrefix("postgres") {
      // Without the text: it may hold a password.
      throw field.error("PostgreSQL is not available in this build; only sqlite is")
    }
    return try field.choice(default: .sqlite)
  }

  private func readTiming() throws(TopologyError) -> Topology.Timing {
    let standard = Topology.Timing()
    var timing = standard
    timing.heartbeat = try keys["heartbeat"]
      .duration(in: .milliseconds(10) ... .seconds(10), default: standard.heartbeat)
    timing.liveness = try keys["liveness"]
      .duration(in: .milliseconds(30) ... .seconds(60), default: standard.liveness)
    timing.hangTimeout = try keys["hang_timeout"]
      .duration(in: .milliseconds(30) ... .seconds(600), default: standard.hangTimeout)
    timing.respawnDelay = try keys["respawn_delay"]
      .duration(in: .milliseconds(100) ... .seconds(3600), default: standard.respawnDelay)
    timing.requestTimeout = try keys["request_timeout"]
      .duration(in: .milliseconds(100) ... .seconds(60), default: standard.requestTimeout)
    try check(
      "liveness", timing.liveness, isAtLeast: timing.heartbeat * 3, as: "three times heartbeat",
      or: "heartbeat", timing.heartbeat, isAtMost: "a third of liveness")
    try check(
      "hang_timeout", timing.hangTimeout, isAtLeast: timing.liveness, as: "liveness",
      or: "liveness", timing.liveness, isAtMost: "hang_timeout")
    return timing
  }

  private func readAccounts() throws(TopologyError) -> Topology.Accounts {
    let standard = Topology.Accounts()
    var accounts = standard
    accounts.passwordMemory = try keys["password_memory"]
      .size(in: 8 << 10...1 << 30, default: standard.passwordMemory)
    accounts.sessionLifetime = try keys["session_lifetime"]
      .duration(in: .seconds(1) ... .seconds(365 * 24 * 3600), default: standard.sessionLifetime)
    accounts.requestsPerSecond = try keys["requests_per_second"]
      .wholeNumber(in: 1...1_000_000, default: standard.requestsPerSecond)
    return accounts
  }

  /// Compares two times, and blames the one that the file gives: the longer one if it gives both.
  private func check(
    _ longer: String, _ longerTime: Duration, isAtLeast minimum: Duration, as minimumText: String,
    or shorter: String, _ shorterTime: Duration, isAtMost maximumText: String
  ) throws(TopologyError) {
    if longerTime >= minimum { return }
    if keys[longer].isGiven {
      let isDefault = keys[shorter].isGiven ? "" : " by default"
      throw keys[longer].error(
        "expected at least \(minimumText) (\(minimum.inUnits)\(isDefault)), found \(longerTime.inUnits)")
    }
    throw keys[shorter].error(
      "expected at most \(maximumText) (\(longer) is \(longerTime.inUnits) by default), found \(shorterTime.inUnits)")
  }

  private func readLimits(masters: Int) throws(TopologyError) -> OperatorLimits {
    let section = try keys["limits"].section(allowed: Self.limitKeys)
    var limits = OperatorLimits()
    for key in OperatorLimits.keys {
      limits[keyPath: key.path] = try section[key.name].wholeNumber(in: key.range, default: limits[keyPath: key.path])
    }
    // Masters are always let in, but they count.
    let least = OperatorLimits.leastConnections(masters: masters)
    for (name, value) in [
      ("connections_per_address", limits.connectionsPerAddress),
      ("connections_per_loopback", limits.connectionsPerLoopback),
    ] where value < least {
      throw section[name].error(
        "expected at least \(least), since \(masters) masters need some themselves, found \(value)")
    }
    return limits
  }

  private func readState() throws(TopologyError) -> String {
    let field = keys["state"]
    let text = try field.text(expected: "the path of a folder") ?? "var"
    if text.unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) {
      throw field.mismatch("the path of a folder without control characters")
    }
    if text.hasPrefix("~") { throw field.mismatch("a path without ~", hint: "; write the home folder out") }
    let path = absolutePath(text, from: folder)
    if path.utf8.count > Topology.stateBytesMax {
      throw field.error(
        "\(path) is too long (\(path.utf8.count) bytes): the Unix sockets inside allow at most "
          + "\(Topology.socketPathBytesMax) bytes for a path, so \(Topology.stateBytesMax) for this folder")
    }
    return path
  }

  /// `path` from `folder`, without `.` and `..`. Symbolic links are not looked at.
  private func absolutePath(_ path: String, from folder: String) -> String {
    var parts: [Substring] = []
    for part in (path.hasPrefix("/") ? path : "\(folder)/\(path)").split(separator: "/") where part != "." {
      if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    return "/" + parts.joined(separator: "/")
  }
}
