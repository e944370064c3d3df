// Within the cluster: what a process and its supervisor say.

import Model

/// Children that a supervisor may have: a launcher's are the router and the slaves.
private let childrenMax = 2 * Limits.masters

extension Wire {
  /// The bytes of a message to a supervisor.
  public static func encode(_ request: SupervisorRequest) -> [UInt8] { serialize(Tinysns_SupervisorRequest(request)) }

  /// The bytes of a message from a supervisor.
  public static func encode(_ reply: SupervisorReply) -> [UInt8] { serialize(Tinysns_SupervisorReply(reply)) }

  /// Reads a message to a supervisor.
  public static func decodeSupervisorRequest(_ bytes: RawSpan) throws(WireError) -> SupervisorRequest {
    try SupervisorRequest(parse(bytes, as: Tinysns_SupervisorRequest.self, limit: FrameLimit.message))
  }

  /// Reads a message to a supervisor.
  public static func decodeSupervisorRequest(_ bytes: [UInt8]) throws(WireError) -> SupervisorRequest {
    try decodeSupervisorRequest(bytes.span.bytes)
  }

  /// Reads a message from a supervisor.
  public static func decodeSupervisorReply(_ bytes: RawSpan) throws(WireError) -> SupervisorReply {
    try SupervisorReply(parse(bytes, as: Tinysns_SupervisorReply.self, limit: FrameLimit.message))
  }

  /// Reads a message from a supervisor.
  public static func decodeSupervisorReply(_ bytes: [UInt8]) throws(WireError) -> SupervisorReply {
    try decodeSupervisorReply(bytes.span.bytes)
  }
}

// MARK: Supervision

extension Tinysns_SupervisorRequest {
  fileprivate init(_ request: SupervisorRequest) {
    self.init()
    switch request {
    case .beat(let beat):
      var wire = Tinysns_ChildBeat()
      wire.name = beat.name
      wire.pid = beat.pid
      wire.incarnation = beat.incarnation.rawValue
      wire.commitAgeMs = beat.commitAge
      body = .beat(wire)
    case .status(let number): body = .status(number)
    }
  }
}

extension SupervisorRequest {
  fileprivate init(_ wire: Tinysns_SupervisorRequest) throws(WireError) {
    switch wire.body {
    case .beat(let beat):
      // A supervisor kills by this number: 0 and less would name process groups, its own among them.
      self = .beat(
        ChildBeat(
          name: beat.name, pid: try processID(beat.pid, least: 1),
          incarnation: try Incarnation(wire: beat.incarnation), commitAge: beat.commitAgeMs))
    case .status(let number): self = .status(number: try counter(number, .number))
    case nil: throw .unknownKind
    }
  }
}

extension Tinysns_SupervisorReply {
  fileprivate init(_ reply: SupervisorReply) {
    self.init()
    switch reply {
    case .pong: body = .pong(Tinysns_Empty())
    case .status(let number, let status):
      var wire = Tinysns_SupervisorStatus()
      wire.number = number
      wire.name = status.name
      wire.pid = status.pid
      wire.children = status.children.map { Tinysns_ChildStatus($0) }
      body = .status(wire)
    }
  }
}

extension SupervisorReply {
  fileprivate init(_ wire: Tinysns_SupervisorReply) throws(WireError) {
    switch wire.body {
    case .pong: self = .pong
    case .status(let status):
      try check(status.children.count, atMost: childrenMax, .children)
      self = .status(
        number: try counter(status.number, .number),
        SupervisorStatus(
          name: status.name, pid: try processID(status.pid), children: try status.children.map(ChildStatus.init(_:))))
    case nil: throw .unknownKind
    }
  }
}

extension Tinysns_ChildStatus {
  fileprivate init(_ child: ChildStatus) {
    self.init()
    name = child.name
    pid = child.pid
    switch child.state {
    case .running: state = .running
    case .dying: state = .dying
    case .waiting: state = .waiting
    case .stopping: state = .stopping
    case .stopped: state = .stopped
    }
    respawnInMs = child.respawnIn
    respawns = child.respawns
  }
}

extension ChildStatus {
  fileprivate init(_ wire: Tinysns_ChildStatus) throws(WireError) {
    let state: State
    switch wire.state {
    case .running: state = .running
    case .dying: state = .dying
    case .waiting: state = .waiting
    case .stopping: state = .stopping
    case .stopped: state = .stopped
    case .UNRECOGNIZED: throw .outOfRange(.state)
    }
    self.init(
      name: wire.name, pid: try processID(wire.pid), state: state, respawnIn: wire.respawnInMs, respawns: wire.respawns)
  }
}
