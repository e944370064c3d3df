// Why bytes from outside are refused. Every decoder throws this and nothing else.

/// What is wrong with a message that came in. Always the sender's doing; the message had no effect.
public enum WireError: Error, Hashable, Sendable {
  /// Longer than the link allows; its contents were not looked at.
  case tooLarge(limit: Int)
  /// Not protobuf of this message: cut short, nested too deep, or a frame of a wrong size.
  case malformed
  /// A text that is not UTF-8. Protobuf does not tell which.
  case badText
  /// Says nothing that is known here: empty, or of a kind newer than this reader.
  case unknownKind
  /// Has no such part, but must have.
  case missing(Field)
  /// A number beyond its range, a list longer than its limit, or a choice that is unknown.
  case outOfRange(Field)

  /// The parts of messages that a decoder checks.
  public enum Field: String, Hashable, Sendable {
    case beat, children, code, eventID, events, incarnation, kind, master, masters, members, names, number, pid
    case posts, range, refusal, sequence, state, term, timeline, token, topic, topics, version
  }

  /// Says what is wrong, for a person: "longer than 4096 bytes", "number out of range", ….
  public var explanation: String {
    switch self {
    case .tooLarge(let limit): return "longer than \(limit) bytes"
    case .malformed: return "malformed"
    case .badText: return "a text is not UTF-8"
    case .unknownKind: return "of no known kind"
    case .missing(let field): return "\(field.rawValue) missing"
    case .outOfRange(let field): return "\(field.rawValue) out of range"
    }
  }
}
