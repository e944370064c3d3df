// The routing server: which masters are alive, and who serves whom. No I/O.

import OrderedCollections
public import Model

/// An order to the router's shell.
public enum RouterAction: Hashable, Sendable {
  /// Send; if the peer is gone, call `onUnroutable`.
  case send(RouterReply, to: PeerID)
  case note(RouterNote)
}

/// Something worth a line in the router's log.
public enum RouterNote: Hashable, Sendable {
  public enum Cause: String, Hashable, Sendable {
    case silent
    case left
    /// Its connection is gone.
    case unreachable
    /// It did not answer a probe.
    case hung
    /// Its commit takes too long.
    case diskStalls = "disk stalls"
  }

  case registered(MasterIdentity, requests: String)
  case lost(MasterIdentity, Cause)
  case returned(MasterIdentity)
  case chosen(MasterIdentity, term: UInt64)
  case nobodyAvailable
  case refused(name: String, reason: String)
}

/// The logic of the router. All its state is soft: masters' beats rebuild it within one beat of a restart.
public struct RouterCore: Sendable {
  struct Member: Sendable {
    var registration: Registration
    var peer: PeerID
    var beat: MasterBeat
    /// Until when its last sign of life counts.
    var lease: Instant
    /// The lease is over, and what waits in the socket is heard before the master is given up.
    var isDoubted = false
    /// Hears, answers, and its disk works.
    var isAlive: Bool
    /// Has been alive before in this life.
    var wasAlive: Bool
    var identity: MasterIdentity { registration.master }
  }

  /// A suspect is being asked whether it lives; clients wait for the result.
  struct Probe: Sendable {
    var nonce: UInt64
    var since: Instant
    var deadline: Instant
    var nextTry: Instant
    /// As a member's.
    var isDoubted = false
    var waiting: OrderedSet<Question>
  }

  /// One that waits for a probe's result. Asked again in the same words and under the same number, it is the same question.
  struct Question: Hashable, Sendable {
    var peer: PeerID
    var locate: Locate
  }

  let pid: Int32
  let timing: Timing
  let assignment: Assignment
  /// By name; in order of first registration.
  var members: OrderedDictionary<String, Member> = [:]
  var probes: OrderedDictionary<String, Probe> = [:]
  var available: String?
  var term: UInt64 = 0
  var rosterVersion: UInt64
  var nextNonce: UInt64
  /// Until then a restarted router waits for the one that has the chair, instead of giving it to whoever is first.
  var graceEnds: Instant
  var absence: AbsenceMeter

  public init(
    pid: Int32, incarnation: Incarnation, timing: Timing, assignment: Assignment, at now: Instant
  ) {
    self.pid = pid
    self.timing = timing
    self.assignment = assignment
    // Greater than in any earlier life, so that a master takes this router's rosters for newer ones.
    rosterVersion = incarnation.rawValue
    nextNonce = incarnation.rawValue
    graceEnds = now + timing.heartbeat * 3
    absence = AbsenceMeter(tolerance: timing.heartbeat)
  }

  /// The next point in time at which `onTimers` has something to do.
  public var nextWake: Instant? {
    var earliest = Instant.distantFuture
    for member in members.values where member.isAlive { earliest = min(earliest, member.lease) }
    for probe in probes.values { earliest = min(earliest, min(probe.nextTry, probe.deadline)) }
    if available == nil, assignment == .available, !members.isEmpty, graceEnds != .distantFuture {
      earliest = min(earliest, graceEnds)
    }
    return earliest == .distantFuture ? nil : earliest
  }

  /// How long a suspect has to answer. Not less than its beats have: on a busy machine it would be given up although they come.
  private var probeTimeout: Interval { timing.liveness }
  /// A dead peer's connection may take a moment to be noticed: the probe is repeated until then.
  private var probeInterval: Interval { .milliseconds(5) }
  /// From a deadline to its consequence: one more look into the sockets. A router that was away for a moment too short for the
  /// absence meter finds the beats there that it missed.
  private var lastLook: Interval { .milliseconds(1) }
  /// Claims of the chair beyond this are cut, so that a term can always grow: beyond 2⁶³−1 nobody would understand a roster.
  private static let greatestClaim = UInt64(1) << 62

  // MARK: Time

  /// Deadlines that have come. To be called at each turn before anything that arrived is handled, with the wake-up planned
  /// before (`nextWake` at the end of the last turn).
  public mutating func onTimers(at now: Instant, planned: Instant?, into actions: inout [RouterAction]) {
    let away = absence.turn(at: now, planned: planned)
    if away > .zero {
      for index in members.values.indices {
        members.values[index].lease = members.values[index].lease + away
        members.values[index].isDoubted = false
      }
      for index in probes.values.indices {
        probes.values[index].deadline = probes.values[index].deadline + away
        probes.values[index].isDoubted = false
      }
    }
    // All that is over at once is found first, so that nobody is sent from one to the other.
    var lost: [(name: String, cause: RouterNote.Cause)] = []
    for name in members.keys where members[name]!.isAlive && members[name]!.lease <= now {
      if members[name]!.isDoubted {
        lost.append((name, .silent))
      } else {
        members[name]!.isDoubted = true
        members[name]!.lease = now + lastLook
      }
    }
    for name in probes.keys {
      guard let probe = probes[name], let member = members[name] else { continue }
      if probe.deadline <= now {
        if probe.isDoubted {
          lost.append((name, .hung))
        } else {
          probes[name]!.isDoubted = true
          probes[name]!.deadline = now + lastLook
          probes[name]!.nextTry = now + probeInterval
        }
      } else if probe.nextTry <= now {
        probes[name]!.nextTry = now + probeInterval
        actions.append(.send(.probe(nonce: probe.nonce), to: member.peer))
      }
    }
    lose(lost, at: now, into: &actions)
    if graceEnds <= now {
      graceEnds = .distantFuture
      if fillChair(into: &actions) { announceRoster(into: &actions) }
    }
  }

  // MARK: What arrives

  /// A message from a client, a master or a status reader.
  public mutating func onRequest(
    _ request: RouterRequest, from peer: PeerID, at now: Instant, into actions: inout [RouterAction]
  ) {
    switch request {
    case .locate(let locate): onLocate(locate, from: peer, at: now, into: &actions)
    case .status(let number): actions.append(.send(.status(number: number, status), to: peer))
    case .register(let registration): onRegister(registration, from: peer, at: now, into: &actions)
    case .beat(let beat): onBeat(beat, from: peer, at: now, into: &actions)
    case .leave(let master):
      if members[master.name]?.identity == master { lose(master.name, .left, at: now, into: &actions) }
    case .alive(let master, let nonce): onAlive(master, nonce: nonce, at: now, into: &actions)
    }
  }

  /// A message could not be sent: the peer's connection is gone. Says something only about a suspect.
  public mutating func onUnroutable(_ peer: PeerID, at now: Instant, into actions: inout [RouterAction]) {
    for name in probes.keys where members[name]?.peer == peer {
      lose(name, .unreachable, at: now, into: &actions)
    }
  }

  private mutating func onRegister(
    _ registration: Registration, from peer: PeerID, at now: Instant, into actions: inout [RouterAction]
  ) {
    let name = registration.master.name
    if let known = members[name], known.identity.incarnation > registration.master.incarnation {
      actions.append(.note(.refused(name: name, reason: "an earlier life of a master that has been started again")))
      return
    }
    guard members[name] != nil || members.count < Limits.masters else {
      let refusal = Refusal(.limit, "more than \(Limits.masters) masters", retryAfter: 1_000)
      actions.append(.send(.refused(number: 0, refusal), to: peer))
      actions.append(.note(.refused(name: name, reason: refusal.message)))
      return
    }
    let isKnown = members[name]?.identity == registration.master
    if !isKnown, members[name]?.isAlive == true { lose(name, .left, at: now, into: &actions) }
    members[name] = Member(
      registration: registration, peer: peer, beat: registration.beat, lease: now + timing.liveness,
      isAlive: isKnown && members[name]!.isAlive, wasAlive: isKnown && members[name]!.wasAlive)
    if !isKnown { actions.append(.note(.registered(registration.master, requests: registration.requests))) }
    onBeat(registration.beat, from: peer, at: now, into: &actions)
  }

  private mutating func onBeat(
    _ beat: MasterBeat, from peer: PeerID, at now: Instant, into actions: inout [RouterAction]
  ) {
    let name = beat.master.name
    guard let member = members[name], member.identity == beat.master else {
      if members[name].map({ $0.identity.incarnation > beat.master.incarnation }) != true {
        actions.append(.send(.registerAgain, to: peer))
      }
      return
    }
    members[name]!.peer = peer
    members[name]!.beat = beat
    members[name]!.lease = now + timing.liveness
    members[name]!.isDoubted = false
    // Longer than a frozen master takes to be killed when it holds the log's turn: then all others wait, none is to blame.
    let stalls = Int64(beat.commitAge) > timing.liveness.milliseconds * 4
    if stalls, member.isAlive, members.values.contains(where: { $0.isAlive && $0.beat.commitAge == 0 }) {
      lose(name, .diskStalls, at: now, into: &actions)
      return
    }
    // A heartbeat after the probe began, so most likely sent after it: it shows as much as an answer. If it was older after all, the
    // lease finds the master out.
    if let probe = probes[name], probe.since + timing.heartbeat <= now { endProbe(of: name, at: now, into: &actions) }
    if !member.isAlive, !stalls, probes[name] == nil {
      members[name]!.isAlive = true
      members[name]!.wasAlive = true
      if member.wasAlive { actions.append(.note(.returned(beat.master))) }
      claimOrFillChair(beat, into: &actions)
      announceRoster(into: &actions)
    } else if beat.roster != rosterVersion {
      actions.append(.send(.roster(roster), to: peer))
    }
  }

  private mutating func onAlive(
    _ master: MasterIdentity, nonce: UInt64, at now: Instant, into actions: inout [RouterAction]
  ) {
    guard let probe = probes[master.name], probe.nonce == nonce, members[master.name]?.identity == master else {
      return
    }
    members[master.name]!.lease = now + timing.liveness
    members[master.name]!.isDoubted = false
    endProbe(of: master.name, at: now, into: &actions)
  }

  /// The suspect lives.
  private mutating func endProbe(of name: String, at now: Instant, into actions: inout [RouterAction]) {
    guard let probe = probes.removeValue(forKey: name) else { return }
    // The chair may have become empty meanwhile, and a suspect is not seated.
    if graceEnds == .distantFuture, fillChair(into: &actions) { announceRoster(into: &actions) }
    for question in probe.waiting {
      let avoided = question.locate.failures >= Limits.failuresAtMaster ? name : nil
      answer(question.locate, to: question.peer, avoiding: avoided, at: now, into: &actions)
    }
  }

  // MARK: Locate

  private mutating func onLocate(
    _ locate: Locate, from peer: PeerID, at now: Instant, into actions: inout [RouterAction]
  ) {
    guard locate.user.utf8.count <= Limits.nameBytes else {
      let refusal = Refusal(.invalidText, "the name is longer than \(Limits.nameBytes) bytes")
      actions.append(.send(.refused(number: locate.number, refusal), to: peer))
      return
    }
    guard let suspect = locate.suspect, let member = members[suspect.name], member.identity == suspect, member.isAlive
    else {
      answer(locate, to: peer, avoiding: nil, at: now, into: &actions)
      return
    }
    // A client's word evicts nobody: the suspect is asked.
    let question = Question(peer: peer, locate: locate)
    if let index = probes.index(forKey: suspect.name) {
      // In place: a copy of all who wait for each who joins them would make work that grows with their square.
      let hasRoom = probes.values[index].waiting.count < Limits.questionsWaiting
      guard hasRoom || probes.values[index].waiting.contains(question) else {
        actions.append(.send(.unavailable(number: locate.number, retryAfter: 100), to: peer))
        return
      }
      probes.values[index].waiting.append(question)
      return
    }
    nextNonce += 1
    probes[suspect.name] = Probe(
      nonce: nextNonce, since: now, deadline: now + probeTimeout, nextTry: now + probeInterval,
      waiting: [question])
    actions.append(.send(.probe(nonce: nextNonce), to: member.peer))
  }

  private func answer(
    _ locate: Locate, to peer: PeerID, avoiding avoided: String?, at now: Instant, into actions: inout [RouterAction]
  ) {
    guard let member = assigned(to: locate.user, avoiding: avoided) else {
      let wait = graceEnds == .distantFuture ? timing.heartbeat * 2 : max(graceEnds - now, .milliseconds(10))
      let retryAfter = UInt32(clamping: max(1, wait.milliseconds))
      actions.append(.send(.unavailable(number: locate.number, retryAfter: retryAfter), to: peer))
      return
    }
    let contact = MasterContact(
      master: member.identity, requests: member.registration.requests, timelines: member.registration.timelines)
    actions.append(.send(.located(number: locate.number, contact), to: peer))
  }

  private func assigned(to user: String, avoiding avoided: String?) -> Member? {
    switch assignment {
    case .available where avoided == nil || avoided != available:
      return available.flatMap { members[$0] }
    case .available, .spread:
      // Rendezvous hashing (Thaler and Ravishankar 1998): each user goes to the living master with the greatest weight for it, so
      // that a master's death moves only its own users.
      let alive = members.values.filter { $0.isAlive }
      let candidates =
        alive.contains { $0.identity.name != avoided } ? alive.filter { $0.identity.name != avoided } : alive
      return candidates.max { left, right in
        let leftWeight = Self.weight(of: left.identity.name, for: user)
        let rightWeight = Self.weight(of: right.identity.name, for: user)
        return (leftWeight, left.identity.name) < (rightWeight, right.identity.name)
      }
    }
  }

  /// FNV-1a over both names, mixed: the same on every machine, unlike Swift's own hashing.
  static func weight(of master: String, for user: String) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in master.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    hash = (hash ^ 0xff) &* 0x100_0000_01b3
    for byte in user.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    return SplitMix64.mix(hash)
  }

  // MARK: The chair

  /// A master came to life. It may say that it is the available one, if this router was restarted.
  private mutating func claimOrFillChair(_ beat: MasterBeat, into actions: inout [RouterAction]) {
    guard assignment == .available else { return }
    let claimed = min(beat.term, Self.greatestClaim)
    let isGrace = graceEnds != .distantFuture
    // In the grace the latest claim counts: an earlier one is of a master that has not heard yet that the chair passed on.
    if claimed > term, available == nil || isGrace {
      term = claimed
      seat(beat.master.name, into: &actions)
      return
    }
    // It is another's now, and the term has to say so at the next restart.
    if available != nil, claimed > 0 { term = max(term, claimed + 1) }
    if !isGrace { _ = fillChair(into: &actions) }
  }

  /// Only an empty chair is filled: with the longest-lived healthy master. Returns whether it was; the roster is to be announced.
  private mutating func fillChair(into actions: inout [RouterAction]) -> Bool {
    guard assignment == .available, available == nil else { return false }
    let chosen = members.values.filter { $0.isAlive && probes[$0.identity.name] == nil }.min {
      ($0.identity.incarnation, $0.identity.name) < ($1.identity.incarnation, $1.identity.name)
    }
    guard let chosen else { return false }
    term += 1
    seat(chosen.identity.name, into: &actions)
    return true
  }

  private mutating func seat(_ name: String, into actions: inout [RouterAction]) {
    available = name
    actions.append(.note(.chosen(members[name]!.identity, term: term)))
  }

  /// A master can't serve for now. A beat brings it back, but not into the chair.
  private mutating func lose(
    _ name: String, _ cause: RouterNote.Cause, at now: Instant, into actions: inout [RouterAction]
  ) {
    lose([(name, cause)], at: now, into: &actions)
  }

  private mutating func lose(
    _ lost: [(name: String, cause: RouterNote.Cause)], at now: Instant, into actions: inout [RouterAction]
  ) {
    var waiting: [Question] = []
    var isRosterOld = false
    var isChairEmptied = false
    for (name, cause) in lost {
      guard let member = members[name] else { continue }
      if let probe = probes.removeValue(forKey: name) { waiting += probe.waiting }
      guard member.isAlive else { continue }
      members[name]!.isAlive = false
      isRosterOld = true
      actions.append(.note(.lost(member.identity, cause)))
      if available == name {
        available = nil
        isChairEmptied = true
      }
    }
    if isChairEmptied, !fillChair(into: &actions) { actions.append(.note(.nobodyAvailable)) }
    if isRosterOld { announceRoster(into: &actions) }
    for question in waiting { answer(question.locate, to: question.peer, avoiding: nil, at: now, into: &actions) }
  }

  private mutating func announceRoster(into actions: inout [RouterAction]) {
    rosterVersion += 1
    let roster = roster
    for member in members.values where member.isAlive { actions.append(.send(.roster(roster), to: member.peer)) }
  }

  var roster: Roster {
    let alive = members.values.filter { $0.isAlive }.sorted { $0.identity.name < $1.identity.name }
    return Roster(
      version: rosterVersion, available: available.flatMap { members[$0]?.identity }, term: term,
      members: alive.map { RosterMember(master: $0.identity, log: $0.registration.log) })
  }

  // MARK: Status

  public var status: RouterStatus {
    RouterStatus(
      pid: pid,
      masters: members.values.map { member in
        let state: MasterStatus.State
        if !member.isAlive {
          state = .down
        } else if assignment == .spread {
          state = .serving
        } else {
          state = member.identity.name == available ? .available : .standby
        }
        return MasterStatus(
          master: member.identity, pid: member.registration.pid, state: state,
          requests: member.registration.requests, timelines: member.registration.timelines, head: member.beat.head,
          sessions: member.beat.sessions)
      })
  }
}
