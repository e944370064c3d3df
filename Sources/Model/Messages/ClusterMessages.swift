// What is said between masters, and between a process and the one that supervises it.

/// One commit, as its master publishes it to the others.
public struct LogBatch: Hashable, Sendable {
  /// Contiguous, ascending, not empty.
  public var events: [Event]

  public init(events: [Event]) { self.events = events }
}

/// From a supervised process, or a status reader, to a supervisor.
public enum SupervisorRequest: Hashable, Sendable {
  case beat(ChildBeat)
  case status(number: UInt64)
}

/// A supervised process's sign of life, from its event loop.
public struct ChildBeat: Hashable, Sendable {
  public var name: String
  public var pid: Int32
  public var incarnation: Incarnation
  /// The age of the oldest unfinished commit in milliseconds; 0 if none.
  public var commitAge: UInt32

  public init(name: String, pid: Int32, incarnation: Incarnation, commitAge: UInt32) {
    self.name = name
    self.pid = pid
    self.incarnation = incarnation
    self.commitAge = commitAge
  }
}

/// From a supervisor.
public enum SupervisorReply: Hashable, Sendable {
  case pong
  case status(number: UInt64, SupervisorStatus)
}

/// What a supervisor knows of its children, for `status`.
public struct SupervisorStatus: Hashable, Sendable {
  public var name: String
  public var pid: Int32
  public var children: [ChildStatus]

  public init(name: String, pid: Int32, children: [ChildStatus]) {
    self.name = name
    self.pid = pid
    self.children = children
  }
}

/// A supervised process.
public struct ChildStatus: Hashable, Sendable {
  public enum State: String, Hashable, Sendable, CaseIterable {
    case running
    /// Killed because it hung; not yet gone.
    case dying
    /// Dead, to be respawned.
    case waiting
    /// Told to stop.
    case stopping
    case stopped
  }

  public var name: String
  /// 0 if there is no process.
  public var pid: Int32
  public var state: State
  /// Milliseconds until the respawn, when waiting.
  public var respawnIn: UInt32
  /// How often it was respawned by this supervisor.
  public var respawns: UInt32

  public init(name: String, pid: Int32, state: State, respawnIn: UInt32, respawns: UInt32) {
    self.name = name
    self.pid = pid
    self.state = state
    self.respawnIn = respawnIn
    self.respawns = respawns
  }
}
