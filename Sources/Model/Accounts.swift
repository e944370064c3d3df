// Who may act as an account: passwords, session tokens, and what the log keeps of both. Nothing here shows a secret when it
// is printed: not in a log, not in an error, not in a test's failure.

/// What a person proves an account with.
public struct Password: Hashable, Sendable {
  public var text: String
  public init(_ text: String) { self.text = text }
}

/// A password as the log keeps it: a salted hash in PHC format, with its own parameters. Useless for logging in, but still
/// nothing to show around.
public struct PasswordHash: Hashable, Sendable {
  public var phc: String
  public init(phc: String) { self.phc = phc }
}

/// Lets a client log in again without the password, at any master, until it expires or is revoked. Sealed by the masters;
/// opaque to everybody else.
public struct SessionToken: Hashable, Sendable {
  public var bytes: [UInt8]
  public init(bytes: [UInt8]) { self.bytes = bytes }
}

/// Something whose contents are never printed.
public protocol Secret: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {}

extension Secret {
  public var description: String { "•••" }
  public var debugDescription: String { "•••" }
  public var customMirror: Mirror { Mirror(self, children: []) }
}

extension Password: Secret {}
extension PasswordHash: Secret {}
extension SessionToken: Secret {}

/// What a Hello proves its account with: one of the two, never both.
public enum Proof: Hashable, Sendable {
  case password(Password)
  case token(SessionToken)
}

/// A token's name: 16 random bytes. Not a secret: who knows it can only revoke it.
public struct TokenID: Hashable, Comparable, Sendable {
  public var high: UInt64
  public var low: UInt64

  /// The size of an id on the wire, in bytes.
  public static let byteCount = 16

  @inlinable public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  @inlinable public static func < (left: TokenID, right: TokenID) -> Bool {
    (left.high, left.low) < (right.high, right.low)
  }
}

/// What a token says, once its seal has been found whole.
public struct TokenClaims: Hashable, Sendable {
  public enum Holder: Hashable, Sendable {
    /// Good as long as the account's credential is of this generation.
    case account(AccountID, generation: EventID)
    /// Whoever can read the cluster's keys: may give any account a new password and end its logins, and nothing else.
    case operatorOfCluster
  }

  public var id: TokenID
  public var holder: Holder
  public var expires: Timestamp

  public init(id: TokenID, holder: Holder, expires: Timestamp) {
    self.id = id
    self.holder = holder
    self.expires = expires
  }
}

/// What opens an account, at a position of the log.
public struct Credential: Hashable, Sendable {
  /// Nil: nobody can log in with a password, until the operator sets one.
  public var hash: PasswordHash?
  /// The event that last made all tokens invalid: a new password, or a logout everywhere.
  public var generation: EventID

  public init(hash: PasswordHash? = nil, generation: EventID = .zero) {
    self.hash = hash
    self.generation = generation
  }
}

/// A token that is no longer good. Kept until it would have expired anyhow, by the log's own time.
public struct Revocation: Hashable, Sendable {
  public var account: AccountID
  public var token: TokenID
  public var expires: Timestamp

  public init(account: AccountID, token: TokenID, expires: Timestamp) {
    self.account = account
    self.token = token
    self.expires = expires
  }

  /// Whether the token had expired anyhow when an event of the log has the time `now`.
  @inlinable public func hasExpired(at now: Timestamp) -> Bool { expires < now }
}

/// Where a peer's connection comes from, as far as its attempts at passwords are counted together.
public struct PeerAddress: Hashable, Sendable {
  /// An IPv4 address, or the half of an IPv6 address that names a network: whoever has one of its addresses has all.
  public var network: String
  /// The peer is on this machine, as a whole test's or household's clients may be.
  public var isLoopback: Bool

  public init(network: String, isLoopback: Bool) {
    self.network = network
    self.isLoopback = isLoopback
  }

  public static let loopback = PeerAddress(network: "127.0.0.1", isLoopback: true)
}

/// The rules for accounts that an operator may change, from topology.yaml.
public struct AccountRules: Hashable, Sendable {
  /// From a token's making to its expiry, in milliseconds.
  public var sessionLifetime: Int64
  /// Requests a second that an account may make at a master in the long run; twice as many at once.
  public var requestsPerSecond: Int
  /// Passwords that may wait for the thread that hashes them, one after the other: as many as take about a second.
  public var passwordsWaiting: Int

  public init(
    sessionLifetime: Int64 = 30 * 24 * 3_600 * 1_000, requestsPerSecond: Int = 2_000, passwordsWaiting: Int = 48
  ) {
    self.sessionLifetime = sessionLifetime
    self.requestsPerSecond = requestsPerSecond
    self.passwordsWaiting = passwordsWaiting
  }
}
