// What is refused, and with which line: every message in full, as the author of the file reads it.

import Model
import Testing

@testable import Topology

/// A text, and the message that it gets without the file's name at its beginning.
struct Refusal: Sendable, CustomTestStringConvertible {
  let yaml: String
  let message: String
  var testDescription: String { message }

  init(_ yaml: String, _ message: String) {
    self.yaml = yaml
    self.message = message
  }
}

@Suite struct TopologyErrorTests {
  private func expect(_ refusal: Refusal) {
    let error = #expect(throws: TopologyError.self) { try parsed(refusal.yaml) }
    #expect(error?.description == "topology.yaml:" + refusal.message)
  }

  @Test func theParts() {
    let error = #expect(throws: TopologyError.self) {
      try parsed("# The cluster\n\nhosts:\n  local: { masters: eight }\n")
    }
    #expect(
      error?.description
        == "topology.yaml:4: hosts.local.masters: expected a whole number from 1 to 64, found \"eight\"")
    #expect(error?.file == "topology.yaml")
    #expect(error?.line == 4)
    #expect(error?.keyPath == "hosts.local.masters")
    #expect(error?.problem == "expected a whole number from 1 to 64, found \"eight\"")
  }

  @Test(arguments: [
    Refusal(
      "hosts: { local: { masters: 8 }\n",
      "1: not valid YAML: did not find expected ',' or '}' while parsing a flow mapping"),
    Refusal(
      "log: sqlite\nclients: [alice,\n  bob\nstate: var\n",
      "4: not valid YAML: did not find expected ',' or ']' while parsing a flow sequence that starts on line 2"),
    Refusal(
      "log: sqlite\nstate: 'var\n\n\n",
      "4: not valid YAML: found unexpected end of stream while scanning a quoted scalar that starts on line 2"),
    Refusal("log: sqlite\nhosts:\n\tlocal:\n", "3: a tab in the indentation; YAML allows only spaces there"),
    Refusal("log: sqlite\r\nhosts:\r\n \tlocal:\r\n", "3: a tab in the indentation; YAML allows only spaces there"),
    Refusal("log: sqlite\n---\nlog: sqlite\n", "2: a second document after ---; only one is allowed"),
    Refusal(
      "log: sqlite\nstate: a\u{0}b\n", "2: a control character, \\0; only text is allowed"),
    Refusal(
      "hosts: &all\n  local: { masters: 8 }\n",
      "1: hosts: anchors and aliases (& and *) are not supported; write the value out"),
    Refusal(
      "log: sqlite\nhosts: *all\n",
      "2: anchors and aliases (& and *) are not supported; write the value out"),
    Refusal(
      "hosts: { local: { &a masters: 8 } }\n",
      "1: hosts.local: anchors and aliases (& and *) are not supported; write the value out"),
    Refusal("log: sqlite\n? [a, b]\n: c\n", "2: a key must be a word"),
    Refusal(
      "log: sqlite\n# " + String(repeating: "x", count: 1000), "2: a line of more than 1000 bytes"),
    Refusal(
      "clients:\n" + String(repeating: "[\n", count: 501), "502: too many [ and { in the file; at most 500"),
  ])
  func yaml(refusal: Refusal) { expect(refusal) }

  /// Nine levels of nine: a billion values if it were written out.
  @Test func aliasesDoNotBlowUp() {
    var bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for (name, inner) in zip("bcdefghi", "abcdefgh") {
      bomb += "\(name): &\(name) [" + Array(repeating: "*\(inner)", count: 9).joined(separator: ",") + "]\n"
    }
    expect(Refusal(bomb, "3: anchors and aliases (& and *) are not supported; write the value out"))
    expect(
      Refusal(
        "a: &a [x]\nb: &b [*a, *a]\n? *b\n: *b\n",
        "1: a: anchors and aliases (& and *) are not supported; write the value out"))
  }

  /// Depths at the limits of what is handed to Yams neither overflow the stack nor take long.
  @Test(arguments: [
    String(repeating: "[", count: 500) + String(repeating: "]", count: 500),
    String(repeating: "{", count: 500) + String(repeating: "}", count: 500),
    String(repeating: "- ", count: 499),
    String(repeating: "? ", count: 499),
    (0..<990).map { String(repeating: " ", count: $0) + "a:\n" }.joined(),
    (0..<990).map { String(repeating: " ", count: $0) + "-\n" }.joined() + String(repeating: "- ", count: 499),
  ])
  func depth(yaml: String) {
    #expect(throws: TopologyError.self) { try parsed(yaml) }
  }

  /// A file as large as allowed, full of keys, is answered soon.
  @Test(.timeLimit(.minutes(1))) func manyKeys() {
    expect(
      Refusal(
        "hosts:\n" + (0..<80_000).map { "  h\($0): {\n" }.joined(), "502: too many [ and { in the file; at most 500"))
    expect(
      Refusal(
        "hosts:\n" + (0..<80_000).map { "  h\($0): x\n" }.joined(),
        "2: hosts.h0: expected a mapping with the keys address, masters, first_port, found \"x\""))
  }

  @Test(arguments: [
    Refusal("hello\n", "1: expected a mapping with the keys \(topKeys), found \"hello\""),
    Refusal("# nothing yet\n- a\n", "2: expected a mapping with the keys \(topKeys), found a list"),
    Refusal("8", "1: expected a mapping with the keys \(topKeys), found 8"),
    Refusal("router: 3010", "1: router: expected a mapping with the keys host, port, found 3010"),
    Refusal("router: []", "1: router: expected a mapping with the keys host, port, found a list"),
    Refusal("limits: 8", "1: limits: expected a mapping with the keys \(limitKeys), found 8"),
    Refusal(
      "limits:\n  connections_per_address: 9\n",
      "2: limits.connections_per_address: expected a whole number from 10 to 1000000, found 9"),
    Refusal(
      "limits:\n  connections_per_loopback: 12\n",
      "2: limits.connections_per_loopback: expected at least 26, since 8 masters need some themselves, found 12"),
    Refusal(
      "limits:\n  sessions: 9\n  topics_per_session: 257\n",
      "3: limits.topics_per_session: expected a whole number from 1 to 256, found 257"),
    Refusal(
      "limits: { replies_queued: 1000 }",
      "1: limits.replies_queued: expected a whole number from 1024 to 1000000, found 1000"),
    Refusal("limits: { session: 9 }", "1: limits.session: unknown key; did you mean sessions?"),
    Refusal("hosts: 8", "1: hosts: expected a mapping from host names to their keys, found 8"),
    Refusal("hosts:\n  - local\n", "2: hosts: expected a mapping from host names to their keys, found a list"),
    Refusal(
      "hosts:\n  local: 8\n", "2: hosts.local: expected a mapping with the keys address, masters, first_port, found 8"),
    Refusal("clients: 3", "1: clients: expected a list of names, found 3"),
    Refusal("clients: alice", "1: clients: expected a list of names, found \"alice\""),
    Refusal("clients: { alice: 1 }", "1: clients: expected a list of names, found a mapping"),
    Refusal("log: [sqlite]", "1: log: expected sqlite, found a list"),
    Refusal("state: {}", "1: state: expected the path of a folder, found a mapping"),
    Refusal("assignment:", "1: assignment: expected available or spread, found nothing"),
    Refusal("password_memory: 4KiB", "1: password_memory: expected a size from 8KiB to 1GiB, found \"4KiB\""),
    Refusal(
      "password_memory: 19",
      "1: password_memory: expected a size from 8KiB to 1GiB, found 19 without a unit (KiB, MiB or GiB)"),
    Refusal("password_memory: 19MB", "1: password_memory: expected a size from 8KiB to 1GiB, found \"19MB\""),
    Refusal("password_memory: [1]", "1: password_memory: expected a size from 8KiB to 1GiB, found a list"),
    Refusal("session_lifetime: 400d", "1: session_lifetime: expected a duration from 1s to 365d, found \"400d\""),
    Refusal("session_lifetime: 99999d", "1: session_lifetime: expected a duration from 1s to 365d, found \"99999d\""),
    Refusal(
      "requests_per_second: 0", "1: requests_per_second: expected a whole number from 1 to 1000000, found 0"),
    Refusal(
      "hosts: { local: { masters: } }", "1: hosts.local.masters: expected a whole number from 1 to 64, found nothing"),
    Refusal(
      "heartbeat: { ms: 100 }", "1: heartbeat: expected a duration from 10ms to 10s, found a mapping"),
  ])
  func types(refusal: Refusal) { expect(refusal) }

  private static let limitKeys = OperatorLimits.keys.map(\.name).joined(separator: ", ")
  private static let topKeys =
    "router, hosts, clients, assignment, log, state, security, limits, heartbeat, liveness, hang_timeout, respawn_delay, "
    + "request_timeout, password_memory, session_lifetime, requests_per_second"

  @Test(arguments: [
    Refusal("log: sqlite\n\nheartbeet: 100ms\n", "3: heartbeet: unknown key; did you mean heartbeat?"),
    Refusal("hang-timeout: 5s", "1: hang-timeout: unknown key; did you mean hang_timeout?"),
    Refusal("Hosts: {}", "1: Hosts: unknown key; did you mean hosts?"),
    Refusal("certificates: none", "1: certificates: unknown key; allowed: \(topKeys)"),
    Refusal("<<: 1", "1: <<: unknown key; allowed: \(topKeys)"),
    Refusal("\"a\\nb \": 1", "1: \"a\\nb \": unknown key; allowed: \(topKeys)"),
    Refusal("router:\n  host: local\n  prot: 3010\n", "3: router.prot: unknown key; did you mean port?"),
    Refusal("router: { address: x }", "1: router.address: unknown key; allowed: host, port"),
    Refusal("hosts:\n  local:\n    mastres: 8\n", "3: hosts.local.mastres: unknown key; did you mean masters?"),
    Refusal(
      "hosts:\n  local:\n    masters: 8\n    slaves: 8\n",
      "4: hosts.local.slaves: unknown key; allowed: address, masters, first_port"),
  ])
  func unknownKeys(refusal: Refusal) { expect(refusal) }

  @Test(arguments: [
    Refusal("log: sqlite\n\nlog: sqlite\n", "3: log: given already on line 1; only once is allowed"),
    Refusal("\"log\": sqlite\nlog: sqlite\n", "2: log: given already on line 1; only once is allowed"),
    Refusal(
      "log: sqlite\r\nhosts:\r\n  a: { masters: 1 }\r\n  a: { masters: 2 }\r\n",
      "4: hosts.a: given already on line 3; only once is allowed"),
    Refusal(
      "hosts:\n  a: { masters: 1 }\n  b: { masters: 1, address: x,\n    masters: 2 }\n",
      "4: hosts.b.masters: given already on line 3; only once is allowed"),
    Refusal("log: sqlite\nlog: sqlite\nlog: sqlite\n", "1: log: given more than once; only once is allowed"),
  ])
  func duplicateKeys(refusal: Refusal) { expect(refusal) }

  @Test(
    arguments: [
      ("0", "0"), ("65", "65"), ("-1", "\"-1\""), ("8.5", "\"8.5\""), ("0x8", "\"0x8\""), ("08", "08"),
      ("'8'", "\"8\" in quotes"), ("yes", "\"yes\""), ("[8]", "a list"), ("{}", "a mapping"), ("~", "nothing"),
      ("99999999999999999999", "99999999999999999999"),
    ])
  func masters(text: String, found: String) {
    expect(
      Refusal(
        "hosts:\n  local:\n    masters: \(text)\n",
        "3: hosts.local.masters: expected a whole number from 1 to 64, found \(found)"))
  }

  @Test func mastersInAll() {
    let hosts = (1...5).map { "  h\($0): { address: 127.0.0.\($0), masters: 15 }\n" }.joined()
    expect(
      Refusal("hosts:\n" + hosts, "6: hosts.h5.masters: makes 75 masters on all hosts; at most 64 are allowed"))
  }

  @Test(arguments: [
    Refusal("hosts: {}", "1: hosts: no host; at least one is needed"),
    Refusal(
      "hosts:\n  my host: {}\n",
      "2: hosts.\"my host\": no possible name for a host; allowed: up to 64 letters, digits, - and _"),
    Refusal(
      "hosts:\n  a.b: {}\n", "2: hosts.a.b: no possible name for a host; allowed: up to 64 letters, digits, - and _"),
    Refusal(
      "hosts: { local: { address: 0.0.0.0 } }",
      "1: hosts.local.address: nobody can connect to 0.0.0.0; expected an address that clients can reach"),
    Refusal(
      "hosts:\n  a: { address: 127.0.0.1 }\n  b: { address: 10.0.0.2 }\n",
      "3: hosts.b.address: with log: sqlite all masters must be on one machine; "
        + "several hosts are allowed with loopback addresses only (127.0.0.1, 127.0.0.2, …)"),
  ])
  func hosts(refusal: Refusal) { expect(refusal) }

  @Test(arguments: [
    "127.0.0.256", "127.1", "''", "a b", "-a", "a..b", "http://x", "127.0.0.1:3010", "'[::1]'", "über", "'*'",
  ])
  func addresses(text: String) {
    let bare = text.replacing("'", with: "")
    let found = "\"\(bare)\""
    expect(
      Refusal(
        "hosts:\n  local:\n    address: \(text)\n",
        "3: hosts.local.address: expected an IP address or a host name, without a port, found \(found)"))
  }

  @Test(arguments: [
    Refusal("router: { port: 0 }", "1: router.port: expected a whole number from 1 to 65535, found 0"),
    Refusal("router: { port: 65536 }", "1: router.port: expected a whole number from 1 to 65535, found 65536"),
    Refusal("router: { port: any }", "1: router.port: expected a whole number from 1 to 65535, found \"any\""),
    Refusal(
      "hosts: { local: { first_port: -1 } }",
      "1: hosts.local.first_port: expected a whole number from 0 to 65535, found \"-1\""),
    Refusal(
      "hosts: { local: { first_port: 70000 } }",
      "1: hosts.local.first_port: expected a whole number from 0 to 65535, found 70000"),
    Refusal(
      "hosts:\n  local:\n    masters: 8\n    first_port: 65513\n",
      "4: hosts.local.first_port: too high for 8 masters with three ports each; "
        + "at most 65512, or 0 for any free ports"),
    Refusal(
      "hosts:\n  a: {}\nrouter:\n  host: local\n", "4: router.host: expected the host a, found \"local\""),
    Refusal(
      "hosts: { a: { address: 127.0.0.1 }, b: { address: 127.0.0.2 } }\nrouter: { host: c }\n",
      "2: router.host: expected one of the hosts a, b, found \"c\""),
    Refusal(
      "router:\n  port: 3043\n",
      "2: router.port: 3043 is one of the ports of local's masters, 3020 to 3043; "
        + "choose another, or another first_port"),
    Refusal(
      "hosts:\n  local:\n    masters: 1\n    first_port: 3008\n",
      "4: hosts.local.first_port: the masters' ports, 3008 to 3010, include the router's, 3010; "
        + "choose another, or another router.port"),
    Refusal(
      "hosts:\n  a:\n    masters: 2\n  b:\n    address: localhost\n    first_port: 3026\n    masters: 1\n"
        + "  c:\n    masters: 1\n",
      "8: hosts.c.first_port: the masters' ports, 3020 to 3022, overlap a's, 3020 to 3025, at the same address; "
        + "choose another, or 0 for any free ports"),
    Refusal(
      "hosts:\n  a:\n    masters: 2\n  b:\n    address: localhost\n    first_port: 3025\n    masters: 1\n",
      "6: hosts.b.first_port: the masters' ports, 3025 to 3027, overlap a's, 3020 to 3025, at the same address; "
        + "choose another, or 0 for any free ports"),
  ])
  func ports(refusal: Refusal) { expect(refusal) }

  @Test(arguments: [
    ("''", "\"\""), ("a b", "\"a b\""), ("/quit", "\"/quit\""), ("'a/b'", "\"a/b\""), ("\"a\\tb\"", "\"a\\tb\""),
    ("~", "nothing"), ("[a]", "a list"), ("\u{301}", "\"\u{301}\""), ("😀", "\"😀\""),
    ("\u{202E}abc", "\"\\u{202E}abc\""), (".a", "\".a\""),
    (String(repeating: "x", count: 65), "\"" + String(repeating: "x", count: 40) + "…\""),
  ])
  func clientNames(text: String, found: String) {
    expect(
      Refusal(
        "clients:\n- alice\n- \(text)\n",
        "3: clients[2]: expected a name of letters and digits, then also _ - and ., at most 64 bytes, found \(found)"))
  }

  @Test(arguments: [
    Refusal(
      "clients:\n  - alice\n  - bob\n  - alice\n", "4: clients[3]: \"alice\" is in the list already; every name once"),
    Refusal(
      "clients: [\(String(repeating: "a, ", count: 65))]", "1: clients: expected at most 64 names, found 65"),
    Refusal("security: tls", "1: security: expected curve or none, found \"tls\""),
    Refusal(
      "hosts:\n  a: { address: 192.0.2.7 }\nsecurity: none",
      "3: security: none is allowed with loopback addresses only (127.0.0.1, ::1, …), and a has 192.0.2.7"),
    Refusal(
      "security: none\nhosts:\n  a: { address: sns.example }\n",
      "1: security: none is allowed with loopback addresses only (127.0.0.1, ::1, …), and a has sns.example"),
    Refusal("assignment: round-robin", "1: assignment: expected available or spread, found \"round-robin\""),
    Refusal("assignment: Available", "1: assignment: expected available or spread, found \"Available\""),
    Refusal("log: mysql", "1: log: expected sqlite, found \"mysql\""),
    Refusal(
      "\nlog: postgresql://sns:secret@db/sns",
      "2: log: PostgreSQL is not available in this build; only sqlite is"),
    Refusal("log: postgres", "1: log: PostgreSQL is not available in this build; only sqlite is"),
  ])
  func choices(refusal: Refusal) { expect(refusal) }

  @Test(arguments: [
    Refusal("log: sqlite\nheartbeat: 9ms", "2: heartbeat: expected a duration from 10ms to 10s, found \"9ms\""),
    Refusal("heartbeat: 11s", "1: heartbeat: expected a duration from 10ms to 10s, found \"11s\""),
    Refusal(
      "heartbeat: 100",
      "1: heartbeat: expected a duration from 10ms to 10s, found 100 without a unit (ms, s, m, h or d)"),
    Refusal(
      "heartbeat: 0.1",
      "1: heartbeat: expected a duration from 10ms to 10s, found \"0.1\" without a unit (ms, s, m, h or d)"),
    Refusal("heartbeat: 100 ms", "1: heartbeat: expected a duration from 10ms to 10s, found \"100 ms\""),
    Refusal("liveness: 1h", "1: liveness: expected a duration from 30ms to 1m, found \"1h\""),
    Refusal("hang_timeout: soon", "1: hang_timeout: expected a duration from 30ms to 10m, found \"soon\""),
    Refusal("hang_timeout: 11m", "1: hang_timeout: expected a duration from 30ms to 10m, found \"11m\""),
    Refusal("respawn_delay: 0s", "1: respawn_delay: expected a duration from 100ms to 60m, found \"0s\""),
    Refusal("request_timeout: 61s", "1: request_timeout: expected a duration from 100ms to 1m, found \"61s\""),
    Refusal(
      "liveness: 299ms", "1: liveness: expected at least three times heartbeat (300ms by default), found 299ms"),
    Refusal(
      "heartbeat: 200ms\nliveness: 550ms\n",
      "2: liveness: expected at least three times heartbeat (600ms), found 550ms"),
    Refusal(
      "heartbeat: 1s",
      "1: heartbeat: expected at most a third of liveness (liveness is 500ms by default), found 1s"),
    Refusal("hang_timeout: 400ms", "1: hang_timeout: expected at least liveness (500ms by default), found 400ms"),
    Refusal(
      "liveness: 600ms\nhang_timeout: 400ms\n", "2: hang_timeout: expected at least liveness (600ms), found 400ms"),
    Refusal(
      "liveness: 6s", "1: liveness: expected at most hang_timeout (hang_timeout is 5s by default), found 6s"),
  ])
  func times(refusal: Refusal) { expect(refusal) }

  @Test(arguments: [
    Refusal("log: sqlite\nstate: ''\n", "2: state: expected the path of a folder, found \"\""),
    Refusal("state: ~\n", "1: state: expected the path of a folder, found nothing"),
    Refusal("state: ~/var\n", "1: state: expected a path without ~, found \"~/var\"; write the home folder out"),
    Refusal(
      "state: \"a\\0b\"\n", "1: state: expected the path of a folder without control characters, found \"a\\0b\""),
    Refusal(
      "log: sqlite\nstate: /\(String(repeating: "s", count: 88))\n",
      "2: state: /\(String(repeating: "s", count: 88)) is too long (89 bytes): the Unix sockets inside allow "
        + "at most 107 bytes for a path, so 88 for this folder"),
  ])
  func state(refusal: Refusal) { expect(refusal) }

  /// The default `var` may be too deep as well; then there is no line to name.
  @Test func folderTooDeep() {
    let folder = "/" + String(repeating: "f", count: 88)
    let error = #expect(throws: TopologyError.self) { try parsed("log: sqlite", folder: folder) }
    #expect(
      error?.description
        == "topology.yaml: state: \(folder)/var is too long (93 bytes): the Unix sockets inside allow "
        + "at most 107 bytes for a path, so 88 for this folder")
  }
}
