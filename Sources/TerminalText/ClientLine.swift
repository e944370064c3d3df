// What a person types into the client.

/// A line of the client's language. Command words may be in any case; names and posts are taken as they are.
package enum ClientLine: Equatable {
  case follow(String)
  case unfollow(String)
  case list
  case timeline
  case post(String)
  case help
  case quit
  case empty
  /// What is wrong, for the user.
  case wrong(String)

  package static let helpText = """
    FOLLOW NAME     follow somebody
    UNFOLLOW NAME   no longer
    LIST            all users, and who follows you
    TIMELINE        your timeline: the last 20 posts, then live; each line you type is a post; /back or Ctrl-D returns here
    POST TEXT       post without entering the timeline
    HELP            this
    QUIT            leave (or Ctrl-D)
    """

  /// The command words, as HELP lists them.
  package static let words = ["FOLLOW", "UNFOLLOW", "LIST", "TIMELINE", "POST", "HELP", "QUIT"]

  package init(parsing line: String) {
    let words = line.split(maxSplits: 1, omittingEmptySubsequences: true) { $0 == " " || $0 == "\t" }
    guard let first = words.first else {
      self = .empty
      return
    }
    let rest = words.count > 1 ? String(words[1]) : ""
    let names = rest.split(separator: " ")
    func oneName(_ make: (String) -> ClientLine, _ usage: String) -> ClientLine {
      names.count == 1 ? make(String(names[0])) : .wrong("\(usage) takes one name")
    }
    func alone(_ command: ClientLine, _ usage: String) -> ClientLine {
      names.isEmpty ? command : .wrong("\(usage) takes no arguments")
    }
    switch first.uppercased() {
    case "FOLLOW": self = oneName(ClientLine.follow, "FOLLOW")
    case "UNFOLLOW": self = oneName(ClientLine.unfollow, "UNFOLLOW")
    case "LIST": self = alone(.list, "LIST")
    case "TIMELINE": self = alone(.timeline, "TIMELINE")
    case "POST": self = rest.isEmpty ? .wrong("POST takes a text") : .post(rest)
    case "HELP", "?": self = alone(.help, "HELP")
    case "QUIT", "EXIT": self = alone(.quit, "QUIT")
    default: self = .wrong("there is no command \(Self.excerpt(first)); type HELP for those there are")
    }
  }

  /// The beginning of a word, safe to show. A single character may have any number of scalars.
  private static func excerpt(_ word: Substring) -> String {
    let scalars = word.unicodeScalars
    let end = scalars.index(scalars.startIndex, offsetBy: 60, limitedBy: scalars.endIndex) ?? scalars.endIndex
    return SafeText.visible(String(scalars[..<end])) + (end < scalars.endIndex ? "…" : "")
  }
}
