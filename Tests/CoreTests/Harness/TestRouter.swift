// A router core in a shell that keeps its sleep and its peers, and fails at every order that makes no sense.

import Model
import Testing

@testable import Core

/// A router under test, and the masters and clients around it.
///
/// What it holds the core to: a Locate is answered once, and only to whom asked; a master that is told of is alive; rosters
/// grow in version, have their members sorted, and seat only one of them; the term grows when the chair passes on.
final class TestRouter {
  private(set) var core: RouterCore
  var now = Instant(nanoseconds: 10_000_000_000)
  private(set) var planned: Instant?
  let timing = Timing()

  private(set) var actions: [RouterAction] = []
  private(set) var notes: [RouterNote] = []
  private(set) var sent: [(peer: PeerID, reply: RouterReply)] = []
  private(set) var answers: [PeerID: RouterReply] = [:]
  private(set) var lastRoster: Roster?
  private var lastSeated: MasterIdentity?
  private var owed: [PeerID: Set<UInt64>] = [:]
  private var lastLocate: UInt64 = 0

  /// Masters that beat by themselves as time passes, by name, with their peers.
  var beating: [String: (master: MasterIdentity, peer: PeerID)] = [:]
  /// Master names whose probes are answered at once.
  var answering: Set<String> = []
  private var rosters: [String: Roster] = [:]

  init(assignment: Assignment = .available, incarnation: UInt64 = 5_000) {
    core = RouterCore(
      pid: 3, incarnation: Incarnation(incarnation), timing: timing, assignment: assignment, at: now)
  }

  func turn(_ body: (inout RouterCore, Instant, inout [RouterAction]) -> Void = { _, _, _ in }) {
    actions = []
    core.onTimers(at: now, planned: planned, into: &actions)
    body(&core, now, &actions)
    let orders = actions
    planned = core.nextWake
    if let planned { #expect(planned > now, "the core would be woken at once, again and again") }
    for action in orders { carryOut(action) }
  }

  /// Time passes: wake-ups come when planned, and the masters in `beating` beat every heartbeat.
  func pass(_ interval: Interval) {
    let end = now + interval
    var nextBeat = now + timing.heartbeat
    while true {
      let next = min(planned ?? .distantFuture, nextBeat)
      guard next <= end else { break }
      now = max(now, next)
      if now >= nextBeat {
        nextBeat = now + timing.heartbeat
        for name in beating.keys.sorted() { beat(name) }
      } else {
        turn()
      }
    }
    now = end
  }

  // MARK: Masters

  static func identity(_ name: String, _ incarnation: UInt64 = 1_000) -> MasterIdentity {
    MasterIdentity(name: name, incarnation: Incarnation(incarnation))
  }

  func register(
    _ name: String, incarnation: UInt64 = 1_000, peer: PeerID, term: UInt64 = 0, commitAge: UInt32 = 0,
    beats: Bool = true
  ) {
    let master = Self.identity(name, incarnation)
    let beat = MasterBeat(master: master, head: EventID(9), sessions: 4, commitAge: commitAge, term: term, roster: 0)
    beating[name] = beats ? (master, peer) : nil
    request(
      .register(
        Registration(
          master: master, pid: 50, requests: "tcp://\(name)/r", timelines: "tcp://\(name)/t",
          log: "tcp://\(name)/l", beat: beat)), from: peer)
  }

  /// Registers masters 1 to `count` at peers 1 to `count`, and lets the router's first moments pass.
  func fill(_ count: Int) {
    for number in 1...count {
      register("master-\(number)", incarnation: 1_000 + UInt64(number), peer: PeerID(UInt32(number)))
    }
    pass(timing.heartbeat * 4)
  }

  func beat(_ name: String, commitAge: UInt32 = 0, term: UInt64? = nil) {
    guard let (master, peer) = beating[name] else { return }
    let roster = rosters[name]
    let claimed = term ?? (roster?.available == master ? roster?.term : nil) ?? 0
    request(
      .beat(
        MasterBeat(
          master: master, head: EventID(9), sessions: 4, commitAge: commitAge, term: claimed,
          roster: roster?.version ?? 0)), from: peer)
  }

  func request(_ request: RouterRequest, from peer: PeerID) {
    if case .locate(let locate) = request { owed[peer, default: []].insert(locate.number) }
    turn { $0.onRequest(request, from: peer, at: $1, into: &$2) }
  }

  func unroutable(_ peer: PeerID) { turn { $0.onUnroutable(peer, at: $1, into: &$2) } }

  // MARK: Clients

  /// Asks, and gives the answer if it came at once.
  @discardableResult
  func locate(
    _ user: String = "alice", suspect: MasterIdentity? = nil, failures: UInt32 = 0, from peer: PeerID = 900
  ) -> RouterReply? {
    lastLocate += 1
    answers[peer] = nil
    request(
      .locate(Locate(number: lastLocate, user: user, suspect: suspect, failures: failures)), from: peer)
    return answers[peer]
  }

  func located(
    _ user: String = "alice", suspect: MasterIdentity? = nil, failures: UInt32 = 0, from peer: PeerID = 900
  ) -> String? {
    locate(user, suspect: suspect, failures: failures, from: peer).flatMap(name)
  }

  func name(_ reply: RouterReply) -> String? {
    if case .located(_, let contact) = reply { contact.master.name } else { nil }
  }

  func expectAllAnswered(sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(owed.values.allSatisfy { $0.isEmpty }, "nobody answers \(owed)", sourceLocation: sourceLocation)
  }

  /// Messages of a kind, since the beginning.
  func probes(to peer: PeerID) -> [UInt64] {
    sent.compactMap { if case .probe(let nonce) = $0.reply, $0.peer == peer { nonce } else { nil } }
  }

  // MARK: What the orders are held to

  private func carryOut(_ action: RouterAction) {
    switch action {
    case .note(let note): notes.append(note)
    case .send(let reply, let peer):
      sent.append((peer, reply))
      switch reply {
      case .located(let number, let contact):
        check(number, to: peer, reply)
        let status = core.status.masters.first { $0.master == contact.master }
        #expect(status != nil && status?.state != .down, "a client is sent to a master that is down")
      case .unavailable(let number, let retryAfter):
        check(number, to: peer, reply)
        #expect(retryAfter > 0, "a client must not ask again at once")
      case .roster(let roster): check(roster, to: peer)
      case .probe(let nonce):
        if let name = beating.first(where: { $0.value.peer == peer })?.key, answering.contains(name) {
          request(.alive(beating[name]!.master, nonce: nonce), from: peer)
        }
      case .refused(let number, _) where number > 0: check(number, to: peer, reply)
      case .status, .registerAgain, .refused: break
      }
    }
  }

  private func check(_ number: UInt64, to peer: PeerID, _ reply: RouterReply) {
    #expect(owed[peer]?.remove(number) != nil, "answered without a question, or twice")
    answers[peer] = reply
  }

  private func check(_ roster: Roster, to peer: PeerID) {
    let names = roster.members.map(\.master.name)
    #expect(names == Set(names).sorted(), "a roster is to be sorted")
    if let available = roster.available {
      #expect(roster.members.contains { $0.master == available }, "the chair is given to nobody alive")
    }
    if let last = lastRoster {
      #expect(roster.version >= last.version && roster.term >= last.term)
      if roster.version == last.version { #expect(roster == last, "two rosters of one version") }
    }
    if let available = roster.available, let seated = lastSeated, available != seated {
      #expect(roster.term > (lastRoster?.term ?? 0), "the chair passes on and the term does not grow")
    }
    lastSeated = roster.available ?? lastSeated
    lastRoster = roster
    if let name = beating.first(where: { $0.value.peer == peer })?.key { rosters[name] = roster }
  }
}
