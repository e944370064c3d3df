// What is wrong with a topology file, in one line for its author.

/// The first thing that is wrong with a topology. `description` is the whole message, always a single line:
/// `topology.yaml:4: hosts.local.masters: expected a whole number from 1 to 64, found "eight"`.
public struct TopologyError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The file as the user named it.
  public let file: String
  /// Counts from 1; nil if it is not about a line of the file.
  public let line: Int?
  /// The key's path from the top, as in `hosts.local.masters`; nil if it is not about a key.
  public let keyPath: String?
  /// What is wrong, and what is allowed.
  public let problem: String

  init(file: String, line: Int? = nil, keyPath: String? = nil, problem: String) {
    self.file = file
    self.line = line
    self.keyPath = keyPath
    self.problem = problem
  }

  public var description: String {
    var place = printable(file)
    if let line { place += ":\(line)" }
    if let keyPath { place += ": \(keyPath)" }
    return "\(place): \(problem)"
  }
}

/// `text` with everything escaped that would break or garble a line on a terminal.
func printable(_ text: String) -> String {
  var result = ""
  for scalar in text.unicodeScalars {
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned:
      result += scalar.escaped(asASCII: true)
    default: result.unicodeScalars.append(scalar)
    }
  }
  return result
}

/// `text` in quotes for a message: printable, and cut if it is long.
func quoted(_ text: String) -> String {
  let lengthMax = 40
  let shown = text.count > lengthMax ? text.prefix(lengthMax) + "…" : text[...]
  return "\"\(printable(String(shown)))\""
}
