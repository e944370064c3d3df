// One value of a topology file on its way to being checked: reads it as a number, a duration, a word, a list or a
// section of keys, and says what is allowed where it is something else.

/// A value of the file and its place for messages, or the place where it would stand if it is not given.
struct Field {
  let file: String
  let path: KeyPath
  /// Of its key, or of the key of the section that lacks it; nil at the top level.
  let keyLine: Int?
  /// Of the value; the same as `keyLine` if there is none.
  let line: Int?
  /// Nil if the file does not give it.
  let content: YAMLTree.Content?

  init(file: String, path: KeyPath, keyLine: Int?, line: Int?, content: YAMLTree.Content?) {
    self.file = file
    self.path = path
    self.keyLine = keyLine
    self.line = line
    self.content = content
  }

  init(_ pair: YAMLTree.Pair, in parent: Field) {
    self.init(
      file: parent.file, path: parent.path.appending(key: pair.key), keyLine: pair.keyLine, line: pair.value.line,
      content: pair.value.content)
  }

  /// Where `key` would stand in `parent`.
  init(missing key: String, in parent: Field) {
    self.init(
      file: parent.file, path: parent.path.appending(key: key), keyLine: parent.keyLine, line: parent.keyLine,
      content: nil)
  }

  var isGiven: Bool { content != nil }

  /// About the value.
  func error(_ problem: String) -> TopologyError {
    TopologyError(file: file, line: line, keyPath: path.textOrNil, problem: problem)
  }

  /// About the key.
  func keyError(_ problem: String) -> TopologyError {
    TopologyError(file: file, line: keyLine, keyPath: path.textOrNil, problem: problem)
  }

  /// What stands here instead of what was `expected`.
  func mismatch(_ expected: String, hint: String = "") -> TopologyError {
    error("expected \(expected), found \(found)\(hint)")
  }

  private var found: String {
    switch content {
    case nil, .nothing: "nothing"
    case .scalar(let text, true) where Field.isNumber(text): text.count <= 20 ? text : quoted(text)
    case .scalar(let text, _): quoted(text)
    case .list: "a list"
    case .mapping: "a mapping"
    }
  }

  private static func isNumber(_ text: String) -> Bool {
    !text.isEmpty && text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
  }
}

// MARK: - Words and numbers

extension Field {
  /// A whole number in plain decimal digits, or `standard` if none is given.
  func wholeNumber(in range: ClosedRange<Int>, default standard: Int) throws(TopologyError) -> Int {
    guard let content else { return standard }
    let expected = "a whole number from \(range.lowerBound) to \(range.upperBound)"
    guard case .scalar(let text, let isPlain) = content else { throw mismatch(expected) }
    let isDecimal = Field.isNumber(text) && (text == "0" || !text.hasPrefix("0"))
    guard isDecimal, isPlain, let number = Int(text), range.contains(number) else {
      throw mismatch(expected, hint: isDecimal && !isPlain ? " in quotes" : "")
    }
    return number
  }

  /// A text that is not empty, with or without quotes; nil if none is given.
  func text(expected: String) throws(TopologyError) -> String? {
    guard let content else { return nil }
    guard case .scalar(let text, _) = content, !text.isEmpty else { throw mismatch(expected) }
    return text
  }

  /// One of the names of `Choice`, or `standard` if none is given.
  func choice<Choice: RawRepresentable<String> & CaseIterable>(
    default standard: Choice
  ) throws(TopologyError) -> Choice {
    let expected = Choice.allCases.map(\.rawValue).joined(separator: " or ")
    guard let text = try text(expected: expected) else { return standard }
    guard let choice = Choice(rawValue: text) else { throw mismatch(expected) }
    return choice
  }
}

// MARK: - Durations

extension Field {
  /// A number with its unit, `ms`, `s`, `m`, `h` or `d`, or `standard` if none is given.
  func duration(in range: ClosedRange<Duration>, default standard: Duration) throws(TopologyError) -> Duration {
    guard let content else { return standard }
    let expected = "a duration from \(range.lowerBound.inUnits) to \(range.upperBound.inUnits)"
    guard case .scalar(let text, _) = content else { throw mismatch(expected) }
    if Double(text) != nil { throw mismatch(expected, hint: " without a unit (ms, s, m, h or d)") }
    guard let duration = Duration(inUnits: text), range.contains(duration) else { throw mismatch(expected) }
    return duration
  }
}

extension Duration {
  /// Of `100ms`, `1s`, `1.5s`, `2m`: up to seven digits, perhaps a fraction of up to six, and the unit.
  init?(inUnits text: String) {
    let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    let nanosecondsPerUnit: Int64
    switch text[number.endIndex...] {
    case "ms": nanosecondsPerUnit = 1_000_000
    case "s": nanosecondsPerUnit = 1_000_000_000
    case "m": nanosecondsPerUnit = 60_000_000_000
    case "h": nanosecondsPerUnit = 3_600_000_000_000
    case "d": nanosecondsPerUnit = 86_400_000_000_000
    default: return nil
    }
    guard nanosecondsPerUnit <= 60_000_000_000 || number.utf8.count <= 4 else { return nil }
    let parts = number.split(separator: ".", omittingEmptySubsequences: false)
    guard let first = parts.first, first.count <= 7, let whole = Int64(first) else { return nil }
    var nanoseconds = whole * nanosecondsPerUnit
    if parts.count > 1 {
      guard parts.count == 2, parts[1].count <= 6, let fraction = Int64(parts[1]) else { return nil }
      let scale = parts[1].reduce(into: Int64(1)) { scale, _ in scale *= 10 }
      nanoseconds += fraction * nanosecondsPerUnit / scale
    }
    self = .nanoseconds(nanoseconds)
  }

  /// As one writes it in the file: `100ms`, `1.5s`, `2m`.
  var inUnits: String {
    let milliseconds = self / .milliseconds(1)
    if milliseconds < 1000 { return "\(Duration.short(milliseconds))ms" }
    if milliseconds < 60_000 || milliseconds.truncatingRemainder(dividingBy: 60_000) != 0 {
      return "\(Duration.short(milliseconds / 1000))s"
    }
    if milliseconds.truncatingRemainder(dividingBy: 86_400_000) == 0 { return "\(Int(milliseconds / 86_400_000))d" }
    return "\(Duration.short(milliseconds / 60_000))m"
  }

  private static func short(_ number: Double) -> String {
    number == number.rounded() ? "\(Int(number))" : "\(number)"
  }
}

// MARK: - Sizes

extension Field {
  /// A number of bytes with its unit, `KiB`, `MiB` or `GiB`, or `standard` if none is given.
  func size(in range: ClosedRange<Int>, default standard: Int) throws(TopologyError) -> Int {
    guard let content else { return standard }
    let expected = "a size from \(Self.inUnits(range.lowerBound)) to \(Self.inUnits(range.upperBound))"
    guard case .scalar(let text, _) = content else { throw mismatch(expected) }
    if Field.isNumber(text) { throw mismatch(expected, hint: " without a unit (KiB, MiB or GiB)") }
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let units = ["KiB": 10, "MiB": 20, "GiB": 30]
    guard let shift = units[String(text[digits.endIndex...])], digits.count <= 7, let number = Int(digits),
      range.contains(number << shift)
    else { throw mismatch(expected) }
    return number << shift
  }

  private static func inUnits(_ bytes: Int) -> String {
    bytes % (1 << 30) == 0
      ? "\(bytes >> 30)GiB" : bytes % (1 << 20) == 0 ? "\(bytes >> 20)MiB" : "\(bytes >> 10)KiB"
  }
}

// MARK: - Lists and sections

extension Field {
  /// The elements of a list; none if it is not given or empty.
  func list(of what: String) throws(TopologyError) -> [Field] {
    switch content {
    case nil, .nothing: return []
    case .list(let elements):
      return elements.enumerated().map { index, element in
        Field(
          file: file, path: path.appending(index: index), keyLine: element.line, line: element.line,
          content: element.content)
      }
    case .scalar, .mapping: throw mismatch("a list of \(what)")
    }
  }

  /// The keys and values of a mapping whose keys are free; nil if it is not given, or all of it is commented out.
  func entries(of what: String) throws(TopologyError) -> [(key: String, value: Field)]? {
    switch content {
    case nil, .nothing: return nil
    case .mapping(let pairs):
      return pairs.map { ($0.key, Field($0, in: self)) }
    case .scalar, .list: throw mismatch("a mapping from \(what)")
    }
  }

  /// The values of a mapping with no other keys than `allowed`; none if it is not given, or all of it commented out.
  func section(allowed: [String]) throws(TopologyError) -> Section {
    guard let content else { return Section(place: self, fields: [:]) }
    switch content {
    case .nothing: return Section(place: self, fields: [:])
    case .mapping(let pairs):
      var fields: [String: Field] = [:]
      for pair in pairs {
        let field = Field(pair, in: self)
        guard allowed.contains(pair.key) else {
          let meant = similar(to: pair.key, among: allowed)
          let advice = meant.map { "did you mean \($0)?" } ?? "allowed: \(allowed.joined(separator: ", "))"
          throw field.keyError("unknown key; \(advice)")
        }
        fields[pair.key] = field
      }
      return Section(place: self, fields: fields)
    case .scalar, .list:
      throw mismatch("a mapping with the keys \(allowed.joined(separator: ", "))")
    }
  }
}

/// A mapping whose keys are known ones.
struct Section {
  let place: Field
  let fields: [String: Field]

  /// The value of `key`, or the place where it is missing.
  subscript(key: String) -> Field { fields[key] ?? Field(missing: key, in: place) }
}

/// The candidate that `word` is a slip of the keyboard away from.
private func similar(to word: String, among candidates: [String]) -> String? {
  guard word.utf8.count <= 40 else { return nil }
  let distances = candidates.map { (candidate: $0, distance: editDistance(word.lowercased(), $0)) }
  guard let nearest = distances.min(by: { $0.distance < $1.distance }) else { return nil }
  return nearest.distance <= (nearest.candidate.utf8.count + 2) / 3 ? nearest.candidate : nil
}

/// Levenshtein's distance, row by row (Wagner and Fischer), in bytes.
private func editDistance(_ a: String, _ b: String) -> Int {
  let b = Array(b.utf8)
  var row = Array(0...b.count)
  for (i, byte) in a.utf8.enumerated() {
    var diagonal = row[0]
    row[0] = i + 1
    for j in b.indices {
      let substituted = diagonal + (byte == b[j] ? 0 : 1)
      diagonal = row[j + 1]
      row[j + 1] = min(substituted, row[j] + 1, diagonal + 1)
    }
  }
  return row[b.count]
}
