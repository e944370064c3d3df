// The router's port: RouterRequest, RouterReply, and what they are made of.

import Model

extension Wire {
  /// The bytes of a message to the router.
  public static func encode(_ request: RouterRequest) -> [UInt8] { serialize(Tinysns_RouterRequest(request)) }

  /// The bytes of a message from the router.
  public static func encode(_ reply: RouterReply) -> [UInt8] { serialize(Tinysns_RouterReply(reply)) }

  /// Reads a message to the router: at most `Limits.requestBytes`.
  public static func decodeRouterRequest(_ bytes: RawSpan) throws(WireError) -> RouterRequest {
    try RouterRequest(parse(bytes, as: Tinysns_RouterRequest.self, limit: FrameLimit.request))
  }

  /// Reads a message to the router: at most `Limits.requestBytes`.
  public static func decodeRouterRequest(_ bytes: [UInt8]) throws(WireError) -> RouterRequest {
    try decodeRouterRequest(bytes.span.bytes)
  }

  /// Reads a message from the router.
  public static func decodeRouterReply(_ bytes: RawSpan) throws(WireError) -> RouterReply {
    try RouterReply(parse(bytes, as: Tinysns_RouterReply.self, limit: FrameLimit.message))
  }

  /// Reads a message from the router.
  public static func decodeRouterReply(_ bytes: [UInt8]) throws(WireError) -> RouterReply {
    try decodeRouterReply(bytes.span.bytes)
  }
}

// MARK: To the router

extension Tinysns_RouterRequest {
  fileprivate init(_ request: RouterRequest) {
    self.init()
    switch request {
    case .locate(let locate): body = .locate(Tinysns_Locate(locate))
    case .status(let number): body = .status(number)
    case .register(let registration): body = .register(Tinysns_Registration(registration))
    case .beat(let beat): body = .beat(Tinysns_MasterBeat(beat))
    case .leave(let master): body = .leave(Tinysns_Master(master))
    case .alive(let master, let nonce):
      var alive = Tinysns_Alive()
      alive.master = Tinysns_Master(master)
      alive.nonce = nonce
      body = .alive(alive)
    }
  }
}

extension RouterRequest {
  fileprivate init(_ wire: Tinysns_RouterRequest) throws(WireError) {
    switch wire.body {
    case .locate(let locate): self = .locate(try Locate(locate))
    case .status(let number): self = .status(number: try counter(number, .number))
    case .register(let registration): self = .register(try Registration(registration))
    case .beat(let beat): self = .beat(try MasterBeat(beat))
    case .leave(let master): self = .leave(try MasterIdentity(master))
    case .alive(let alive):
      guard alive.hasMaster else { throw .missing(.master) }
      self = .alive(try MasterIdentity(alive.master), nonce: alive.nonce)
    case nil: throw .unknownKind
    }
  }
}

extension Tinysns_Locate {
  fileprivate init(_ locate: Locate) {
    self.init()
    number = locate.number
    user = locate.user
    if let suspect = locate.suspect { self.suspect = Tinysns_Master(suspect) }
    failures = locate.failures
  }
}

extension Locate {
  fileprivate init(_ wire: Tinysns_Locate) throws(WireError) {
    self.init(
      number: try counter(wire.number, .number), user: wire.user,
      suspect: wire.hasSuspect ? try MasterIdentity(wire.suspect) : nil, failures: wire.failures)
  }
}

extension Tinysns_Registration {
  fileprivate init(_ registration: Registration) {
    self.init()
    master = Tinysns_Master(registration.master)
    pid = registration.pid
    requests = registration.requests
    timelines = registration.timelines
    log = registration.log
    beat = Tinysns_MasterBeat(registration.beat)
  }
}

extension Registration {
  fileprivate init(_ wire: Tinysns_Registration) throws(WireError) {
    guard wire.hasMaster else { throw .missing(.master) }
    guard wire.hasBeat else { throw .missing(.beat) }
    self.init(
      master: try MasterIdentity(wire.master), pid: try processID(wire.pid), requests: wire.requests,
      timelines: wire.timelines, log: wire.log, beat: try MasterBeat(wire.beat))
  }
}

extension Tinysns_MasterBeat {
  fileprivate init(_ beat: MasterBeat) {
    self.init()
    master = Tinysns_Master(beat.master)
    head = beat.head.rawValue
    sessions = beat.sessions
    commitAgeMs = beat.commitAge
    term = beat.term
    roster = beat.roster
  }
}

extension MasterBeat {
  fileprivate init(_ wire: Tinysns_MasterBeat) throws(WireError) {
    guard wire.hasMaster else { throw .missing(.master) }
    self.init(
      master: try MasterIdentity(wire.master), head: try position(wire.head), sessions: wire.sessions,
      commitAge: wire.commitAgeMs, term: try counter(wire.term, .term), roster: try counter(wire.roster, .version))
  }
}

// MARK: From the router

extension Tinysns_RouterReply {
  fileprivate init(_ reply: RouterReply) {
    self.init()
    switch reply {
    case .located(let number, let contact):
      var located = Tinysns_Located()
      located.number = number
      located.master = Tinysns_Master(contact.master)
      located.requests = contact.requests
      located.timelines = contact.timelines
      body = .located(located)
    case .unavailable(let number, let retryAfter):
      var unavailable = Tinysns_Unavailable()
      unavailable.number = number
      unavailable.retryAfterMs = retryAfter
      body = .unavailable(unavailable)
    case .status(let number, let status):
      var wire = Tinysns_RouterStatus()
      wire.number = number
      wire.pid = status.pid
      wire.masters = status.masters.map { Tinysns_MasterStatus($0) }
      body = .status(wire)
    case .roster(let roster): body = .roster(Tinysns_Roster(roster))
    case .probe(let nonce): body = .probe(nonce)
    case .registerAgain: body = .registerAgain(Tinysns_Empty())
    case .refused(let number, let refusal):
      var refused = Tinysns_RouterRefusal()
      refused.number = number
      refused.refusal = Tinysns_Refusal(refusal)
      body = .refused(refused)
    }
  }
}

extension RouterReply {
  fileprivate init(_ wire: Tinysns_RouterReply) throws(WireError) {
    switch wire.body {
    case .located(let located):
      guard located.hasMaster else { throw .missing(.master) }
      let contact = MasterContact(
        master: try MasterIdentity(located.master), requests: located.requests, timelines: located.timelines)
      self = .located(number: try counter(located.number, .number), contact)
    case .unavailable(let unavailable):
      self = .unavailable(number: try counter(unavailable.number, .number), retryAfter: unavailable.retryAfterMs)
    case .status(let status):
      self = .status(number: try counter(status.number, .number), try RouterStatus(status))
    case .roster(let roster): self = .roster(try Roster(roster))
    case .probe(let nonce): self = .probe(nonce: nonce)
    case .registerAgain: self = .registerAgain
    case .refused(let refused):
      guard refused.hasRefusal else { throw .missing(.refusal) }
      self = .refused(number: try counter(refused.number, .number), try Refusal(refused.refusal))
    case nil: throw .unknownKind
    }
  }
}

extension RouterStatus {
  fileprivate init(_ wire: Tinysns_RouterStatus) throws(WireError) {
    try check(wire.masters.count, atMost: Limits.masters, .masters)
    self.init(pid: try processID(wire.pid), masters: try wire.masters.map(MasterStatus.init(_:)))
  }
}

extension Tinysns_MasterStatus {
  fileprivate init(_ status: MasterStatus) {
    self.init()
    master = Tinysns_Master(status.master)
    pid = status.pid
    switch status.state {
    case .available: state = .available
    case .standby: state = .standby
    case .serving: state = .serving
    case .down: state = .down
    }
    requests = status.requests
    timelines = status.timelines
    head = status.head.rawValue
    sessions = status.sessions
  }
}

extension MasterStatus {
  fileprivate init(_ wire: Tinysns_MasterStatus) throws(WireError) {
    guard wire.hasMaster else { throw .missing(.master) }
    let state: State
    switch wire.state {
    case .available: state = .available
    case .standby: state = .standby
    case .serving: state = .serving
    case .down: state = .down
    case .UNRECOGNIZED: throw .outOfRange(.state)
    }
    self.init(
      master: try MasterIdentity(wire.master), pid: try processID(wire.pid), state: state, requests: wire.requests,
      timelines: wire.timelines, head: try position(wire.head), sessions: wire.sessions)
  }
}

extension Tinysns_Roster {
  fileprivate init(_ roster: Roster) {
    self.init()
    version = roster.version
    if let available = roster.available { self.available = Tinysns_Master(available) }
    term = roster.term
    members = roster.members.map { member in
      var wire = Tinysns_RosterMember()
      wire.master = Tinysns_Master(member.master)
      wire.log = member.log
      return wire
    }
  }
}

extension Roster {
  fileprivate init(_ wire: Tinysns_Roster) throws(WireError) {
    try check(wire.members.count, atMost: Limits.masters, .members)
    self.init(
      version: try counter(wire.version, .version),
      available: wire.hasAvailable ? try MasterIdentity(wire.available) : nil, term: try counter(wire.term, .term),
      members: try wire.members.map(RosterMember.init(_:)))
  }
}

extension RosterMember {
  fileprivate init(_ wire: Tinysns_RosterMember) throws(WireError) {
    guard wire.hasMaster else { throw .missing(.master) }
    self.init(master: try MasterIdentity(wire.master), log: wire.log)
  }
}
