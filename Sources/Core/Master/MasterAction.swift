// What a master core asks its shell to do.

public import Model

/// An order to a master's shell. Orders are carried out in the order given; that alone keeps "commit, then acknowledge,
/// then publish".
public enum MasterAction: Hashable, Sendable {
  case reply(Reply, to: PeerID)
  /// Answer a Hello: with a token, sealed by the shell, if there are claims for one.
  case welcome(Welcome, TokenClaims?, number: UInt64, to: PeerID)
  /// Hash a password, or look at one, on a thread of its own; answer with `onPassword`.
  case password(PasswordJobID, PasswordJob)
  /// Publish the post on each topic, with the topic's number. To be encoded once.
  case publish(Post, to: [Watching])
  /// Publish a marker on a topic.
  case mark(Watching)
  /// Commit these events; answer with `onCommit`, in order. What waits meanwhile is kept in an `AppendQueue`.
  case append(Append)
  /// Read the log after this position; answer with `onCatchUp`. At most one is under way.
  case catchUp(after: EventID)
  /// Read older posts; answer with `onRead`.
  case read(ReadID, LogQuery)
  /// Look up as which events these requests took effect, each not before its event and up to `upTo`; answer with `onLookUp`. At most one is
  /// under way.
  case lookUp([RequestID: EventID], upTo: EventID)
  /// Publish commits to the other masters.
  case broadcast([Event])
  case toRouter(RouterRequest)
  case toSupervisor(ChildBeat)
  /// Subscribe to the log of another master, or no longer.
  case joinMesh(RosterMember)
  case leaveMesh(RosterMember)
  case note(MasterNote)
  /// Everything is said and done: the process may end.
  case exit
}

/// Names a read of older posts until it is answered.
public struct ReadID: Hashable, Sendable {
  public var rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// What became of a commit.
public enum CommitOutcome: Hashable, Sendable {
  case appended
  /// Another master was first; these are its events (some or all).
  case behind([Event])
  /// The disk could not take it; nothing happened.
  case failed(String)
}

/// What became of a catch-up, of a read of older posts, or of a look-up of requests.
public enum ReadOutcome<Value: Hashable & Sendable>: Hashable, Sendable {
  case read(Value)
  case failed(String)
}

/// Something worth a line in a master's log.
public enum MasterNote: Hashable, Sendable {
  case ready(head: EventID)
  case becameAvailable(term: UInt64)
  case becameStandby
  case loggedIn(String, isNew: Bool)
  case loggedOut(String)
  case sessionLost(String)
  /// Ended by a new password or a logout elsewhere.
  case sessionRevoked(String)
  case storageFailed(String)
  case storageWorksAgain
  /// Events that no other master had announced were found in the log.
  case holeRead(from: EventID, to: EventID)
  case joined(String)
  case left(String)
  case stopping
}
