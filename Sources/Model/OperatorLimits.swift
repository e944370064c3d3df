// The limits that an operator may change: the same names and defaults as in Limits.swift, with the range of each.

/// Limits that topology.yaml can set, in its section `limits`.
public struct OperatorLimits: Hashable, Sendable {
  /// Connections of one address (of IPv6: of one network, a /64) at a process, its handshakes among them.
  public var connectionsPerAddress = Limits.connectionsPerAddress
  /// The same of a loopback address, where all of a machine's own may come from.
  public var connectionsPerLoopback = Limits.connectionsPerLoopback
  /// Sessions at one master, and logins that wait there.
  public var sessions = Limits.sessions
  /// Sessions of one account at one master.
  public var sessionsPerAccount = Limits.sessionsPerAccount
  /// Timelines that a session may watch at once.
  public var topicsPerSession = Limits.topicsPerSession
  /// Requests that a session may have unanswered.
  public var requestsInFlight = Limits.requestsInFlight
  /// Wrong passwords in a row for one name before each further one has to wait.
  public var attemptsPerName = Limits.attemptsPerName
  /// The same of one address.
  public var attemptsPerAddress = Limits.attemptsPerAddress
  /// The same of a loopback address.
  public var attemptsPerLoopback = Limits.attemptsPerLoopback
  /// Replies queued for a client that does not read.
  public var repliesQueued = Int(Limits.repliesQueued)
  /// Timeline updates queued for a watcher that does not read.
  public var updatesQueued = Int(Limits.updatesQueued)

  /// The defaults.
  public init() {}

  /// What each of the two limits of connections must be at least: a master has one at the router and one at each other master.
  public static func leastConnections(masters: Int) -> Int { 10 + 2 * masters }
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
    Key(name: "sessions", range: 1...1_000_000, path: \.sessions),
    Key(name: "sessions_per_account", range: 1...1_000_000, path: \.sessionsPerAccount),
    Key(name: "topics_per_session", range: 1...Limits.topicsPerSessionMost, path: \.topicsPerSession),
    // More could not be told from repeats.
    Key(name: "requests_in_flight", range: 1...Int(Limits.repeatWindow), path: \.requestsInFlight),
    Key(name: "attempts_per_name", range: 1...1_000_000, path: \.attemptsPerName),
    Key(name: "attempts_per_address", range: 1...1_000_000, path: \.attemptsPerAddress),
    Key(name: "attempts_per_loopback", range: 1...1_000_000, path: \.attemptsPerLoopback),
    // The answers to all that a client may have asked for at once must find room.
    Key(name: "replies_queued", range: Limits.requestsInFlight...1_000_000, path: \.repliesQueued),
    Key(name: "updates_queued", range: 10...1_000_000, path: \.updatesQueued),
  ]
}
