// From text to a tree of keys and values that know their lines. The only file that knows Yams.
// It bounds what it hands to Yams (depth, aliases), because Yams composes by recursion and hashes whole subtrees.

import Yams

/// A value of the file.
struct YAMLTree {
  /// Counts from 1.
  let line: Int
  let content: Content

  enum Content {
    /// No value, or `~`, or `null`.
    case nothing
    /// A word, a number, a text; plain if it stands without quotes.
    case scalar(String, isPlain: Bool)
    case list([YAMLTree])
    /// In the order of the file; keys are distinct.
    case mapping([Pair])
  }

  struct Pair {
    let key: String
    let keyLine: Int
    let value: YAMLTree
  }
}

extension YAMLTree {
  /// Bounds the depth of block style: an inner collection starts further right than its parent's parent.
  static let lineBytesMax = 1000
  /// Bounds the depth of flow style.
  static let bracketsMax = 500
  /// Bounds what aliases can blow up before they are refused.
  static let aliasesMax = 16

  /// The tree of `text`; nil if that holds nothing but comments.
  static func parse(_ text: String, file: String) throws(TopologyError) -> YAMLTree? {
    // libyaml takes a byte order mark for a control character once it has been told the encoding.
    let unmarked = text.unicodeScalars.first == "\u{FEFF}" ? String(text.unicodeScalars.dropFirst()) : text
    let text = unmarked.replacing("\r\n", with: "\n")
    try checkBounds(of: text, file: file)
    do {
      // No rules: every scalar stays text, and what it means is decided where it is used.
      let parser = try Parser(yaml: text, resolver: .basic, encoding: .utf8)
      let tree = try parser.singleRoot().map { try YAMLTree($0, path: KeyPath(), file: file) }
      // Nodes hold their anchors weakly; the parser keeps them.
      withExtendedLifetime(parser) {}
      return tree
    } catch let error as TopologyError {
      throw error
    } catch let error as YamlError {
      throw TopologyError(error, in: text, file: file)
    } catch {
      throw TopologyError(file: file, problem: "not valid YAML: \(printable("\(error)"))")
    }
  }

  private init(_ node: Node, path: KeyPath, file: String) throws(TopologyError) {
    let line = node.mark?.line ?? 1
    if node.anchor != nil {
      throw TopologyError(file: file, line: line, keyPath: path.textOrNil, problem: TopologyError.noAliases)
    }
    switch node {
    case .scalar(let scalar):
      let isPlain = scalar.style == .plain
      let isNothing = isPlain && ["", "~", "null", "Null", "NULL"].contains(scalar.string)
      self.init(line: line, content: isNothing ? .nothing : .scalar(scalar.string, isPlain: isPlain))
    case .sequence(let sequence):
      var elements: [YAMLTree] = []
      for element in sequence {
        elements.append(try YAMLTree(element, path: path.appending(index: elements.count), file: file))
      }
      self.init(line: line, content: .list(elements))
    case .mapping(let mapping):
      var pairs: [Pair] = []
      for (key, value) in mapping {
        let keyLine = key.mark?.line ?? line
        guard case .scalar(let scalar) = key, key.anchor == nil else {
          let problem = key.anchor == nil ? "a key must be a word" : TopologyError.noAliases
          throw TopologyError(file: file, line: keyLine, keyPath: path.textOrNil, problem: problem)
        }
        let value = try YAMLTree(value, path: path.appending(key: scalar.string), file: file)
        pairs.append(Pair(key: scalar.string, keyLine: keyLine, value: value))
      }
      self.init(line: line, content: .mapping(pairs))
    case .alias:
      throw TopologyError(file: file, line: line, keyPath: path.textOrNil, problem: TopologyError.noAliases)
    }
  }

  /// Refuses what could exhaust stack or time in Yams. Looks at bytes only, so that nothing can hide from it in quotes
  /// or comments; no sensible file comes near these bounds.
  private static func checkBounds(of text: String, file: String) throws(TopologyError) {
    var line = 1
    var lineBytes = 0
    var brackets = 0
    var aliases = 0
    var previous: UInt8 = 0
    for byte in text.utf8 {
      lineBytes += 1
      var problem: String?
      switch byte {
      case UInt8(ascii: "\n"):
        line += 1
        lineBytes = 0
      case UInt8(ascii: "["), UInt8(ascii: "{"):
        brackets += 1
        if brackets > bracketsMax { problem = "too many [ and { in the file; at most \(bracketsMax)" }
      case 0..<0x20 where byte != UInt8(ascii: "\t") && byte != UInt8(ascii: "\r"), 0x7F:
        problem = "a control character, \(Unicode.Scalar(byte).escaped(asASCII: true)); only text is allowed"
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
        if previous == UInt8(ascii: "*") { aliases += 1 }
        if aliases > aliasesMax { problem = TopologyError.noAliases }
      default: break
      }
      if lineBytes > lineBytesMax { problem = "a line of more than \(lineBytesMax) bytes" }
      if let problem { throw TopologyError(file: file, line: line, problem: problem) }
      previous = byte
    }
  }
}

/// Where a value stands: the keys from the top, as messages show them.
struct KeyPath {
  let text: String

  /// The top level.
  init() { text = "" }
  private init(text: String) { self.text = text }

  var textOrNil: String? { text.isEmpty ? nil : text }

  func appending(key: String) -> KeyPath {
    let isWord = key.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "\"") }
    let shown = isWord && !key.isEmpty && key.utf8.count <= 40 ? key : quoted(key)
    return KeyPath(text: text.isEmpty ? shown : "\(text).\(shown)")
  }

  /// `index` counts from 0, the message from 1.
  func appending(index: Int) -> KeyPath { KeyPath(text: "\(text)[\(index + 1)]") }
}

// MARK: - What Yams refuses

extension TopologyError {
  fileprivate static let noAliases = "anchors and aliases (& and *) are not supported; write the value out"

  fileprivate init(_ error: YamlError, in text: String, file: String) {
    switch error {
    case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _):
      self.init(syntax: problem, context: context, mark: mark, in: text, file: file)
    case .composer(_, let problem, let mark, _):
      let isAlias = problem.contains("alias")
      self.init(
        file: file, line: mark.line,
        problem: isAlias ? TopologyError.noAliases : "a second document after ---; only one is allowed")
    case .duplicatedKeysInMapping(let duplicates, let context):
      self.init(duplicate: duplicates.first ?? "", first: context.mark, in: text, file: file)
    case .reader(let problem, let offset, _, _):
      let line = text.prefix(offset ?? 0).utf8.count { $0 == UInt8(ascii: "\n") } + 1
      self.init(file: file, line: line, problem: "not valid YAML: \(printable(problem))")
    case .no, .memory, .writer, .emitter, .representer, .dataCouldNotBeDecoded:
      self.init(file: file, problem: "not valid YAML: \(printable("\(error)"))")
    }
  }

  private init(syntax problem: String, context: YamlError.Context?, mark: Mark, in text: String, file: String) {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    // An error at the end of the file is reported behind the last line.
    let lastLine = max(1, lines.last?.isEmpty == true ? lines.count - 1 : lines.count)
    let line = min(mark.line, lastLine)
    if lines[line - 1].prefix(while: { $0 == " " || $0 == "\t" }).contains("\t") {
      self.init(file: file, line: line, problem: "a tab in the indentation; YAML allows only spaces there")
      return
    }
    var explanation = problem
    if let context {
      explanation += " \(context.text)"
      if context.mark.line < line { explanation += " that starts on line \(context.mark.line)" }
    }
    self.init(file: file, line: line, problem: "not valid YAML: \(printable(explanation))")
  }

  /// Yams tells a repeated key and where it stands first. To find its path and where it stands again, the first one is
  /// renamed in the text, and that is composed.
  private init(duplicate key: String, first: Mark, in text: String, file: String) {
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map { Array($0.unicodeScalars) }
    var again: (path: KeyPath, line: Int)?
    if lines.indices.contains(first.line - 1), first.column - 1 <= lines[first.line - 1].count {
      lines[first.line - 1].insert("\u{E000}", at: first.column - 1)
      var renamed = String.UnicodeScalarView()
      for line in lines { renamed += line + ["\n"] }
      let root = try? Parser(yaml: String(renamed), resolver: .basic, encoding: .utf8).singleRoot()
      again = root.flatMap { Self.place(of: key, besides: first, in: $0, path: KeyPath()) }
    }
    if let again {
      self.init(
        file: file, line: again.line, keyPath: again.path.text,
        problem: "given already on line \(first.line); only once is allowed")
    } else {
      self.init(
        file: file, line: first.line, keyPath: KeyPath().appending(key: key).text,
        problem: "given more than once; only once is allowed")
    }
  }

  /// Where `key` stands in the mapping that has another key at `first`.
  private static func place(
    of key: String, besides first: Mark, in node: Node, path: KeyPath
  ) -> (path: KeyPath, line: Int)? {
    switch node {
    case .scalar, .alias: return nil
    case .sequence(let elements):
      for (index, element) in elements.enumerated() {
        let found = place(of: key, besides: first, in: element, path: path.appending(index: index))
        if let found { return found }
      }
      return nil
    case .mapping(let mapping):
      if mapping.contains(where: { $0.key.mark?.line == first.line && $0.key.mark?.column == first.column }) {
        let again = mapping.first { $0.key.scalar?.string == key }
        if let line = again?.key.mark?.line { return (path.appending(key: key), line) }
      }
      for (inner, value) in mapping {
        let innerPath = path.appending(key: inner.scalar?.string ?? "?")
        if let found = place(of: key, besides: first, in: value, path: innerPath) { return found }
      }
      return nil
    }
  }
}
