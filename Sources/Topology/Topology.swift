// What topology.yaml describes, as a checked value: which processes run where, on which ports, and with which timing.
// Plain data and its defaults; TopologyReader.swift makes one from text, TopologyFile.swift from a file.

import Model

/// A whole cluster. Every value of this type has passed all checks: names are known, ports fit and do not clash,
/// times are in order, and the state folder leaves room for its sockets.
public struct Topology: Sendable, Hashable {
  /// The router.
  public let router: Router
  /// The hosts in the order of the file; at least one.
  public let hosts: [Host]
  /// All masters, `master-1` to `master-N`, numbered host by host as the file has them; 1 to `Limits.masters` of them.
  public let masters: [Master]
  /// Names of the demo clients, distinct and possible names of accounts; none unless the file names some.
  public let clients: [String]
  /// Who serves which user.
  public let assignment: Assignment
  /// Where the log of events is kept.
  public let log: LogStore
  /// Whether what is said over TCP is encrypted, and who says it proved. `none` only with loopback addresses.
  public let security: Security
  /// How long everyone waits.
  public let timing: Timing
  /// What is asked of whoever logs in, and what an account may ask.
  public let accounts: Accounts
  /// What an operator may want to be otherwise than `Limits` has it.
  public let limits: OperatorLimits
  /// The folder of the cluster's files (log, sockets, locks): an absolute path, at most `stateBytesMax` long.
  public let state: String

  /// Where clients and masters find the router.
  public struct Router: Sendable, Hashable {
    /// The name of its host in the file.
    public let host: String
    /// The host's IP address without brackets, or its name.
    public let address: String
    /// 1 to 65535.
    public let port: UInt16
  }

  /// A host and its share of the masters.
  public struct Host: Sendable, Hashable {
    /// Its name in the file.
    public let name: String
    /// An IP address without brackets, or a host name.
    public let address: String
    /// 1 to `Limits.masters`.
    public let masterCount: Int
    /// The first of three consecutive ports a master; 0 if each master takes any free ones.
    public let firstPort: UInt16
  }

  /// A master and the slave that keeps it running.
  public struct Master: Sendable, Hashable {
    /// Counts from 1 over all hosts.
    public let number: Int
    /// The name of its host in the file.
    public let host: String
    /// The host's address.
    public let address: String
    /// Its ports; nil if it takes any free ones when it starts.
    public let ports: Ports?

    /// `master-1`, …
    public var name: String { "master-\(number)" }
    /// The name of its slave: `slave-1`, …
    public var slaveName: String { "slave-\(number)" }
  }

  /// The three consecutive ports of a master.
  public struct Ports: Sendable, Hashable {
    /// Where clients send requests; the first of the three.
    public let requests: UInt16
    /// Where clients hear live timelines.
    public var timelines: UInt16 { requests + 1 }
    /// Where the other masters hear what is committed.
    public var log: UInt16 { requests + 2 }
  }

  /// Who serves which user.
  public enum Assignment: String, Sendable, Hashable, CaseIterable {
    /// One master serves everyone; the others stand by.
    case available
    /// Every master serves its share of the users.
    case spread
  }

  /// What protects connections over TCP.
  public enum Security: String, Sendable, Hashable, CaseIterable {
    /// ZeroMQ's CURVE: encryption, and proof of who is who.
    case curve
    /// Nothing.
    case none
  }

  /// Where the log of events is kept.
  public enum LogStore: String, Sendable, Hashable, CaseIterable {
    /// A SQLite file in the state folder.
    case sqlite
  }

  /// The rules for accounts.
  public struct Accounts: Sendable, Hashable {
    /// Bytes of memory that it takes to hash a password: what makes guessing expensive.
    public var passwordMemory = 19 << 20
    /// How long a login is good for without the password.
    public var sessionLifetime: Duration = .seconds(30 * 24 * 3600)
    /// Requests a second of an account at a master, in the long run.
    public var requestsPerSecond = 2_000

    /// The defaults.
    public init() {}
  }

  /// The cluster's times. `heartbeat * 3 <= liveness <= hangTimeout` holds.
  public struct Timing: Sendable, Hashable {
    /// Between two beats, on every link.
    public var heartbeat: Duration = .milliseconds(100)
    /// Silence after which others route around a peer.
    public var liveness: Duration = .milliseconds(500)
    /// Silence of a living process after which its slave kills it.
    public var hangTimeout: Duration = .seconds(5)
    /// From a master's death to its respawn.
    public var respawnDelay: Duration = .seconds(25)
    /// How long a client waits for a reply before it suspects the master.
    public var requestTimeout: Duration = .seconds(2)

    /// The defaults.
    public init() {}
  }
}

// MARK: - Defaults and limits

extension Topology {
  /// Where the router listens unless the file says otherwise.
  public static let routerPortDefault = 3010
  /// The first master's first port unless the file says otherwise.
  public static let firstPortDefault = 3020
  /// Masters of a host that does not say how many.
  public static let masterCountDefault = 8

  /// Demo clients.
  public static let clientsMax = 64
  /// Bytes of a topology file: 1 MiB.
  public static let fileBytesMax = 1 << 20

  /// What Linux allows for the path of a Unix socket: `sun_path` has 108 bytes, the last of them zero.
  public static let socketPathBytesMax = 107
  /// The longest path of a socket inside the state folder.
  static let longestSocket = "/run/slave-NNN.sock"
  /// UTF-8 bytes of the absolute path of the state folder: what the longest socket path leaves.
  public static let stateBytesMax = socketPathBytesMax - longestSocket.utf8.count
}
