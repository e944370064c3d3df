// What people type, paste and write into files: topology.yaml, lines of commands, key presses, names and posts.

import CEdit
import Core
import Model
import TerminalText
import Topology

extension FuzzTarget {
  // MARK: topology.yaml

  static let topology = FuzzTarget(
    "topology",
    "reads a topology.yaml: one line that says what is wrong and where, or a topology that keeps the documented limits",
    inputBytesMax: 1 << 14, tokens: topologyTokens
  ) { random in
    let files = topologyFiles
    return Array(files[Int.random(in: 0..<files.count, using: &random)].utf8)
  } body: { input throws(Finding) in
    guard let text = String(validating: input, as: UTF8.self) else { return }
    let topology: Topology
    do throws(TopologyError) {
      topology = try Topology.parse(text, fileName: "topology.yaml", folder: "/srv/cluster")
    } catch {
      let message = "\(error)"
      try hold(message.hasPrefix("topology.yaml"), "an error that does not name the file: \(message)")
      try hold(message.utf8.count < 2_000, "an error of \(message.utf8.count) bytes")
      try hold(message == SafeText.visible(message), "an error that garbles a terminal: \(message.debugDescription)")
      return
    }
    try hold((1...Limits.masters).contains(topology.masters.count), "\(topology.masters.count) masters")
    try hold(topology.state.hasPrefix("/"), "the state folder is \(topology.state)")
    var ports: Set<String> = ["\(topology.router.address):\(topology.router.port)"]
    for master in topology.masters {
      guard let first = master.ports?.requests else { continue }
      for port in first...first + 2 {
        try hold(ports.insert("\(master.address):\(port)").inserted, "port \(port) of \(master.address) is used twice")
      }
    }
    for name in topology.clients {
      try hold(TextRules.fault(inName: name) == nil, "a client named \(name.debugDescription)")
    }
  }

  private static let topologyFiles = [
    "",
    "hosts:\n  local:\n    masters: 8\nclients: [alice, bob, carol]\n",
    """
    hosts: { a: { address: 127.0.0.1, masters: 3, first_port: 3020 }, b: { address: "127.0.0.2", masters: 2, first_port: 0 } }
    router: { host: b, port: 4000 }
    assignment: spread
    log: sqlite
    security: none
    state: ../var
    """,
    """
    # times
    heartbeat: 100ms
    liveness: 0.5s
    hang_timeout: 5s
    respawn_delay: 1m
    request_timeout: 2s
    clients:
      - alice
      - "bob"
      - 'c\u{301}arol'
    """,
    "hosts:\n  local:\n    address: ::1\n    first_port: 65000\n    masters: 64\n",
    "limits: { connections_per_loopback: 26, sessions: 1000000, topics_per_session: 256 }\nrequests_per_second: 10\n",
    "a: &x [*x, *x]\n? {b: c}\n: |\n  text\n--- !!set\n",
  ]

  private static let topologyTokens: [[UInt8]] =
    ([
      "router", "host", "port", "hosts", "address", "masters", "first_port", "clients", "assignment", "available",
      "spread", "log", "sqlite", "postgres://", "state", "security", "curve", "none", "heartbeat", "liveness",
      "hang_timeout", "respawn_delay", "request_timeout", "limits", "ms", "s", "1.5s", "0", "-1", "1e9", "65535",
      "0x10",
      "~", "null", "&a ", "*a", "<<: ", "!!str ", "!<x> ", "|\n", ">\n", "? ", ": ", "- ", "[", "]", "{", "}", ", ",
      "\"",
      "'", "#", "%YAML 1.1\n", "---\n", "...\n", "\t", "  ", "\r\n", "\u{FEFF}", "\u{2028}", "\u{85}", "\u{202E}",
      "\\u0000",
      "\\x1b", "127.0.0.1", "::1", "0.0.0.0", "localhost",
    ] + OperatorLimits.keys.map(\.name)).map { Array($0.utf8) } + [[0], [0xFF], [0x1B]]

  // MARK: The terminal client

  static let commands = FuzzTarget(
    "client-commands", "parses, completes, lays out and shows a typed line; what is shown acts on no terminal",
    tokens: typed
  ) { random in
    var generator = MessageGenerator(random: random)
    defer { random = generator.random }
    let word = ClientLine.words[generator.below(ClientLine.words.count)]
    let spaces = [" ", "  ", "\t", ""][generator.below(4)]
    return Array("\(generator.flag() ? word : word.lowercased())\(spaces)\(generator.text(80))".utf8)
  } body: { input throws(Finding) in
    tinysns_use_utf8()
    let columns = input.first.map { Int($0) % 100 } ?? 0
    // Typed lines come from the key reader, which makes U+FFFD of what is no UTF-8.
    let line = String(decoding: input, as: UTF8.self)
    switch ClientLine(parsing: line) {
    case .wrong(let message): try hold(!message.isEmpty, "wrong, and nothing is said")
    case .follow(let name), .unfollow(let name):
      try hold(!name.isEmpty && !name.contains(" "), "a name \(name.debugDescription)")
    case .post(let text):
      try hold(!text.isEmpty && line.utf8.count >= text.utf8.count, "a post \(text.debugDescription)")
    case .list, .timeline, .help, .quit, .empty: break
    }
    let names = ["alice", "albert", "bob", "é", "日本", line]
    for completion in [Completion(command: line, names: names), Completion(timeline: line)] {
      try hold(completion.choices.isEmpty || completion.choices.count > 1, "one choice is no choice")
    }
    let shown = SafeText.visible(line)
    try hold(SafeText.visible(shown) == shown, "shown twice it looks otherwise")
    for scalar in shown.unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control, .lineSeparator, .paragraphSeparator:
        throw Finding("a terminal would obey U+\(String(scalar.value, radix: 16))")
      default:
        try hold(!scalar.properties.isBidiControl, "U+\(String(scalar.value, radix: 16)) turns what follows")
      }
    }
    var layout = TextLayout(columns: columns)
    for scalar in line.unicodeScalars {
      let before = layout
      layout.add(scalar)
      try hold((0..<layout.columns).contains(layout.column), "column \(layout.column) of \(layout.columns)")
      try hold(layout.row >= before.row, "goes up")
    }
  }

  static let keys = FuzzTarget(
    "client-keys", "reads key presses byte by byte or in pieces: the same characters, and none is kept back for ever",
    tokens: typed
  ) { random in
    var generator = MessageGenerator(random: random)
    defer { random = generator.random }
    return Array(generator.text(60).utf8)
  } body: { input throws(Finding) in
    func read(inPiecesOf count: Int) -> [Unicode.Scalar] {
      var reader = KeyReader()
      var scalars: [Unicode.Scalar] = []
      var rest = input[...]
      while !rest.isEmpty {
        reader.append(rest.prefix(count))
        rest = rest.dropFirst(count)
        while let scalar = reader.next() { scalars.append(scalar) }
      }
      // Whatever was incomplete is wrong after another key.
      reader.append([UInt8(ascii: "x")])
      while let scalar = reader.next() { scalars.append(scalar) }
      return scalars
    }
    let whole = read(inPiecesOf: max(1, input.count))
    try hold(whole.last == "x", "the last key has not come")
    try hold(read(inPiecesOf: 1) == whole, "byte by byte it reads otherwise")
    try hold(read(inPiecesOf: 3) == whole, "in pieces it reads otherwise")
    if let text = String(validating: input, as: UTF8.self) {
      try hold(whole.dropLast().elementsEqual(text.unicodeScalars), "reads otherwise than it was typed")
    }
  }

  private static let typed: [[UInt8]] =
    (ClientLine.words + [
      "follow ", "/back", "?", "exit", " ", "\t", "\u{1B}[2J", "\u{202E}", "\u{200B}", "e\u{301}", "\u{85}",
    ]
    + ["👩‍💻", "日本", "\u{2028}", "\u{FEFF}", "\u{E0041}", "\u{FE0F}"]).map { Array($0.utf8) }
    + [[0], [0x80], [0xC3], [0xE2, 0x82], [0xF0, 0x9F], [0xFF], [0xED, 0xA0, 0x80]]

  // MARK: Names and posts

  static let texts = FuzzTarget(
    "texts",
    "names and posts that the rules let through: short enough, nothing invisible in names, nothing that acts on a terminal",
    tokens: typed
  ) { random in
    var generator = MessageGenerator(random: random)
    defer { random = generator.random }
    let limit = generator.flag() ? Limits.nameBytes + 4 : Limits.postBytes + 8
    return generator.below(3) == 0 ? Array("alice".utf8) : Array(generator.text(limit).utf8)
  } body: { input throws(Finding) in
    guard let text = String(validating: input, as: UTF8.self) else { return }
    if TextRules.fault(inName: text) == nil {
      try hold((1...Limits.nameBytes).contains(text.utf8.count), "a name of \(text.utf8.count) bytes")
      for scalar in text.unicodeScalars {
        let properties = scalar.properties
        try hold(!properties.isWhitespace, "a name with white space: \(text.debugDescription)")
        try hold(!properties.isDefaultIgnorableCodePoint, "a name with what nobody sees: \(text.debugDescription)")
        switch properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator,
          .spaceSeparator:
          throw Finding("a name with U+\(String(scalar.value, radix: 16)): \(text.debugDescription)")
        default: break
        }
      }
      try hold(
        SafeText.visible(text).unicodeScalars.elementsEqual(text.unicodeScalars), "a name that can't be shown as it is")
    }
    if TextRules.fault(inPost: text) == nil {
      try hold((1...Limits.postBytes).contains(text.utf8.count), "a post of \(text.utf8.count) bytes")
      for scalar in text.unicodeScalars {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator:
          throw Finding("a post with U+\(String(scalar.value, radix: 16))")
        default: break
        }
      }
    }
  }
}
