// What is said on the router's port: by clients and status readers, by masters, and back.

/// From anyone to the router.
public enum RouterRequest: Hashable, Sendable {
  case locate(Locate)
  case status(number: UInt64)
  case register(Registration)
  case beat(MasterBeat)
  case leave(MasterIdentity)
  /// A master's answer to a probe.
  case alive(MasterIdentity, nonce: UInt64)
}

/// "Who serves me?"
public struct Locate: Hashable, Sendable {
  /// Returned with the answer.
  public var number: UInt64
  /// The user, for `assignment: spread`.
  public var user: String
  /// The master that the client could not reach or that did not answer, if any. The router checks it for itself.
  public var suspect: MasterIdentity?
  /// How many times in a row the client failed at the suspect. When the router finds the suspect healthy, it sends the
  /// client there again, but after `Limits.failuresAtMaster` failures to another living master.
  public var failures: UInt32

  public init(number: UInt64, user: String, suspect: MasterIdentity?, failures: UInt32 = 0) {
    self.number = number
    self.user = user
    self.suspect = suspect
    self.failures = failures
  }
}

/// A master presents itself: who it is and where it listens.
public struct Registration: Hashable, Sendable {
  public var master: MasterIdentity
  public var pid: Int32
  /// `tcp://…` endpoints.
  public var requests: String
  public var timelines: String
  public var log: String
  public var beat: MasterBeat

  public init(
    master: MasterIdentity, pid: Int32, requests: String, timelines: String, log: String, beat: MasterBeat
  ) {
    self.master = master
    self.pid = pid
    self.requests = requests
    self.timelines = timelines
    self.log = log
    self.beat = beat
  }
}

/// A master's sign of life, from its event loop.
public struct MasterBeat: Hashable, Sendable {
  public var master: MasterIdentity
  public var head: EventID
  public var sessions: UInt32
  /// The age of the oldest unfinished commit in milliseconds; 0 if none is under way.
  public var commitAge: UInt32
  /// The chair's term in which the master was made the available one; 0 if it is not. A restarted router learns from it.
  public var term: UInt64
  /// The newest roster that the master knows; an older one than the router's is answered with the roster.
  public var roster: UInt64

  public init(
    master: MasterIdentity, head: EventID, sessions: UInt32, commitAge: UInt32, term: UInt64, roster: UInt64
  ) {
    self.master = master
    self.head = head
    self.sessions = sessions
    self.commitAge = commitAge
    self.term = term
    self.roster = roster
  }
}

/// From the router.
public enum RouterReply: Hashable, Sendable {
  /// To a client: a master that is alive now.
  case located(number: UInt64, MasterContact)
  /// To a client: none now; ask again after so many milliseconds.
  case unavailable(number: UInt64, retryAfter: UInt32)
  /// To whoever asked for the status.
  case status(number: UInt64, RouterStatus)
  /// To a master.
  case roster(Roster)
  /// To a master: answer `alive` with the nonce at once.
  case probe(nonce: UInt64)
  /// To a master whose beat came from nobody known: send a Registration.
  case registerAgain
  /// To anyone: the message can't be served, and why.
  case refused(number: UInt64, Refusal)
}

/// Where a client finds a master.
public struct MasterContact: Hashable, Sendable {
  public var master: MasterIdentity
  public var requests: String
  public var timelines: String

  public init(master: MasterIdentity, requests: String, timelines: String) {
    self.master = master
    self.requests = requests
    self.timelines = timelines
  }
}

/// Who is alive, as the router sees it.
public struct Roster: Hashable, Sendable {
  /// Grows with each change within one life of the router.
  public var version: UInt64
  /// The available master, when the assignment is `available`.
  public var available: MasterIdentity?
  /// Grows each time the chair passes to another master, over restarts of the router too.
  public var term: UInt64
  /// Sorted by name.
  public var members: [RosterMember]

  public init(version: UInt64, available: MasterIdentity?, term: UInt64, members: [RosterMember]) {
    self.version = version
    self.available = available
    self.term = term
    self.members = members
  }
}

/// A living master, and where it publishes the log.
public struct RosterMember: Hashable, Sendable {
  public var master: MasterIdentity
  public var log: String

  public init(master: MasterIdentity, log: String) {
    self.master = master
    self.log = log
  }
}

/// The router's view of the cluster, for `status`.
public struct RouterStatus: Hashable, Sendable {
  public var pid: Int32
  public var masters: [MasterStatus]

  public init(pid: Int32, masters: [MasterStatus]) {
    self.pid = pid
    self.masters = masters
  }
}

/// A registered master as the router sees it.
public struct MasterStatus: Hashable, Sendable {
  public enum State: String, Hashable, Sendable, CaseIterable {
    /// Serves all clients.
    case available
    /// Ready to.
    case standby
    /// Serves its share (`assignment: spread`).
    case serving
    /// Known, but silent or left.
    case down
  }

  public var master: MasterIdentity
  public var pid: Int32
  public var state: State
  public var requests: String
  public var timelines: String
  public var head: EventID
  public var sessions: UInt32

  public init(
    master: MasterIdentity, pid: Int32, state: State, requests: String, timelines: String, head: EventID,
    sessions: UInt32
  ) {
    self.master = master
    self.pid = pid
    self.state = state
    self.requests = requests
    self.timelines = timelines
    self.head = head
    self.sessions = sessions
  }
}
