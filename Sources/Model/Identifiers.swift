// The names of things: ids of events, accounts, clients, requests, masters and topics. Values only.

/// The position of an event in the log. Ids are contiguous from 1 in commit order; 0 means "before the first".
public struct EventID: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt64

  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }

  /// The position before the first event.
  public static let zero = EventID(0)

  /// The position after every event.
  public static let max = EventID(UInt64(Int64.max))

  @inlinable public var next: EventID { EventID(rawValue + 1) }
  @inlinable public static func < (left: EventID, right: EventID) -> Bool { left.rawValue < right.rawValue }
  @inlinable public func advanced(by count: Int) -> EventID { EventID(rawValue + UInt64(count)) }
}

extension EventID: CustomStringConvertible {
  public var description: String { String(rawValue) }
}

/// An account's number: 0 for the first one created, then 1, 2, … in log order. Small and dense, so that state is
/// kept in arrays indexed by it. Accounts are never deleted.
public struct AccountID: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt32

  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable public init(_ rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public var index: Int { Int(rawValue) }
  @inlinable public static func < (left: AccountID, right: AccountID) -> Bool { left.rawValue < right.rawValue }
}

extension AccountID: CustomStringConvertible {
  public var description: String { "account \(rawValue)" }
}

/// A client instance, picked at random by the client. Together with a number it names a request for good.
public struct ClientID: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt64

  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public static func < (left: ClientID, right: ClientID) -> Bool { left.rawValue < right.rawValue }
}

/// Names one request of one client, also when it is repeated at another master.
public struct RequestID: Hashable, Sendable {
  public var client: ClientID
  /// Counted up by the client from 1; unique among the client's requests of every kind.
  public var number: UInt64

  @inlinable public init(client: ClientID, number: UInt64) {
    self.client = client
    self.number = number
  }
}

/// One life of a process: its start in milliseconds since the machine's, so that a later life has a greater number, whatever becomes of the
/// wall clock.
public struct Incarnation: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt64

  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public static func < (left: Incarnation, right: Incarnation) -> Bool { left.rawValue < right.rawValue }
}

extension Incarnation: CustomStringConvertible {
  public var description: String { String(rawValue) }
}

/// A master in one of its lives.
public struct MasterIdentity: Hashable, Sendable {
  public var name: String
  public var incarnation: Incarnation

  public init(name: String, incarnation: Incarnation) {
    self.name = name
    self.incarnation = incarnation
  }
}

/// A connection at a ROUTER socket, as the socket numbers it. Never chosen by the peer.
public struct PeerID: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt32

  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable public init(_ rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable public static func < (left: PeerID, right: PeerID) -> Bool { left.rawValue < right.rawValue }
}

/// The public key with which a client has made its connections, as text (Z85). All connections of one session have the same.
public struct PeerKey: Hashable, Sendable {
  public var text: String

  @inlinable public init(_ text: String) { self.text = text }
}

/// What a watcher subscribes to: 16 random bytes that a master picked for one timeline in one of its lives.
public struct Topic: Hashable, Comparable, Sendable {
  public var high: UInt64
  public var low: UInt64

  /// The size of a topic on the wire, in bytes.
  public static let byteCount = 16

  @inlinable public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  @inlinable public static func < (left: Topic, right: Topic) -> Bool {
    (left.high, left.low) < (right.high, right.low)
  }
}
