// What the Tab key offers. Pure.

/// How the word at the cursor can go on.
package struct Completion: Equatable {
  /// To be inserted at the cursor.
  package var insertion: String
  /// All that the word can become, if there is more than one.
  package var choices: [String] = []

  package static let none = Completion(insertion: "")

  /// Whether users' names matter for what comes next in a line of commands.
  package static func needsNames(_ line: String) -> Bool {
    let words = line.split(separator: " ", omittingEmptySubsequences: true)
    guard let command = words.first?.uppercased(), ["FOLLOW", "UNFOLLOW"].contains(command) else { return false }
    return words.count == (line.hasSuffix(" ") ? 1 : 2)
  }

  /// For a line of commands up to the cursor.
  package init(command line: String, names: [String]) {
    let words = line.split(separator: " ", omittingEmptySubsequences: true)
    let word = line.hasSuffix(" ") ? "" : words.last.map(String.init) ?? ""
    let position = words.count - (word.isEmpty ? 0 : 1)
    if position == 0 {
      let isLower = !word.isEmpty && word == word.lowercased()
      self.init(
        word: word, from: ClientLine.words.map { isLower ? $0.lowercased() : $0 }, ignoringCase: true)
    } else if Self.needsNames(line) {
      self.init(word: word, from: names, ignoringCase: false)
    } else {
      self = .none
    }
  }

  /// For a line in the timeline.
  package init(timeline line: String) {
    self.init(word: line, from: line.isEmpty ? [] : ["/back"], ignoringCase: false)
  }

  private init(insertion: String) { self.insertion = insertion }

  private init(word: String, from all: [String], ignoringCase: Bool) {
    func key(_ text: String) -> String { ignoringCase ? text.uppercased() : text }
    let matches = all.filter { key($0).hasPrefix(key(word)) }.sorted()
    guard let first = matches.first else {
      self = .none
      return
    }
    if matches.count == 1 {
      insertion = first.dropFirst(word.count) + " "
      return
    }
    var common = first[...]
    for match in matches { common = common.prefix(zip(common, match).prefix { $0 == $1 }.count) }
    insertion = String(common.dropFirst(word.count))
    choices = matches
  }
}
