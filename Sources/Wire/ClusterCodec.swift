// Within the cluster: LogBatch between masters, and what a process and its supervisor say.

import Model

/// Events that a batch may have: a commit's, and room for commits of a later version that are larger.
private let batchEventsMax = 16 * Limits.batchEvents

/// Children that a supervisor may have: a launcher's are the router and the slaves.
private let childrenMax = 2 * Limits.masters

extension Wire {
  /// The bytes of a commit for the other masters. The events must be contiguous, and not none.
  public static func encode(_ batch: LogBatch) -> [UInt8] { serialize(Tinysns_LogBatch(batch)) }

  /// The bytes of a message to a supervisor.
  public static func encode(_ request: SupervisorRequest) -> [UInt8] { serialize(Tinysns_SupervisorRequest(request)) }

  /// The bytes of a message from a supervisor.
  public static func encode(_ reply: SupervisorReply) -> [UInt8] { serialize(Tinysns_SupervisorReply(reply)) }

  /// Reads a commit of another master.
  public static func decodeLogBatch(_ bytes: RawSpan) throws(WireError) -> LogBatch {
    try LogBatch(parse(bytes, as: Tinysns_LogBatch.self, limit: FrameLimit.message))
  }

  /// Reads a commit of another master.
  public static func decodeLogBatch(_ bytes: [UInt8]) throws(WireError) -> LogBatch {
    try decodeLogBatch(bytes.span.bytes)
  }

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

// MARK: The log

extension Tinysns_LogBatch {
  fileprivate init(_ batch: LogBatch) {
    precondition(!batch.events.isEmpty, "a batch without events")
    self.init()
    firstID = batch.events[0].id.rawValue
    var expected = batch.events[0].id
    events = batch.events.map { event in
      precondition(event.id == expected, "a batch has event \(event.id) where \(expected) belongs")
      expected = expected.next
      return Tinysns_Event(event)
    }
  }
}

extension LogBatch {
  fileprivate init(_ wire: Tinysns_LogBatch) throws(WireError) {
    try check(wire.events.count, atMost: batchEventsMax, .events)
    guard !wire.events.isEmpty else { throw .missing(.events) }
    let first = try eventID(wire.firstID)
    guard EventID.max.rawValue - first.rawValue >= UInt64(wire.events.count - 1) else { throw .outOfRange(.eventID) }

    var events: [Event] = []
    events.reserveCapacity(wire.events.count)
    for event in wire.events { events.append(try Event(event, id: first.advanced(by: events.count))) }
    self.init(events: events)
  }
}

extension Tinysns_Event {
  fileprivate init(_ event: Event) {
    self.init()
    timeMs = event.time.milliseconds
    if let request = event.request {
      client = request.client.rawValue
      number = request.number
    }
    account = event.change.actor.rawValue
    switch event.change {
    case .accountCreated(_, let name): change = .accountCreated(name)
    case .posted(_, let text): change = .posted(text)
    case .followed(_, let whom): change = .followed(whom.rawValue)
    case .unfollowed(_, let whom): change = .unfollowed(whom.rawValue)
    case .credentialSet(_, let hash): change = .credentialSet(hash.phc)
    case .sessionRevoked(_, let token, let expires):
      change = .sessionRevoked(Tinysns_SessionRevocation(token, expires: expires))
    case .sessionsRevoked: change = .sessionsRevoked(Tinysns_Empty())
    }
  }
}

extension Event {
  fileprivate init(_ wire: Tinysns_Event, id: EventID) throws(WireError) {
    let account = AccountID(wire.account)
    let change: Change
    switch wire.change {
    case .accountCreated(let name): change = .accountCreated(account, name: name)
    case .posted(let text): change = .posted(account, text: text)
    case .followed(let whom): change = .followed(account, AccountID(whom))
    case .unfollowed(let whom): change = .unfollowed(account, AccountID(whom))
    case .credentialSet(let phc): change = .credentialSet(account, PasswordHash(phc: phc))
    case .sessionRevoked(let revocation):
      change = .sessionRevoked(
        account, try TokenID(revocation), expires: Timestamp(milliseconds: revocation.expiresMs))
    case .sessionsRevoked: change = .sessionsRevoked(account)
    case nil: throw .unknownKind
    }
    let number = try counter(wire.number, .number)
    self.init(
      id: id, time: Timestamp(milliseconds: wire.timeMs),
      request: number == 0 ? nil : RequestID(client: ClientID(wire.client), number: number), change: change)
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
