// The limits that an operator may change: the same names and defaults as in Limits.swift, with the range of each.

/// Limits that topology.yaml can set, in its section `limits`.
public struct OperatorLimits: Hashable, Sendable {
  /// Connections of one address at a process, its handshakes among them.
  public var connectionsPerAddress = Limits.connectionsPerAddress
  /// The same of this machine.
  public var connectionsPerLoopback = Limits.connectionsPerLoopback

  /// The defaults.
  public init() {}
}

extension OperatorLimits {
  /// A limit as the file has it.
  public struct Key: Sendable {
    public let name: String
    public let range: ClosedRange<Int>
    public let path: any Sendable & WritableKeyPath<OperatorLimits, Int>
  }

  /// All of them, each with what is possible.
  public static let keys: [Key] = [
    // A session has two, and fewer than a dozen would let hardly anybody in.
    Key(name: "connections_per_address", range: 10...1_000_000, path: \.connectionsPerAddress),
    Key(name: "connections_per_loopback", range: 10...1_000_000, path: \.connectionsPerLoopback),
  ]
}
