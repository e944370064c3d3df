// What the simulation found in the cores, each as small as it can be told. The seeds are those of the day; later changes of the
// simulation give them other runs.

import Core
import Model
import Testing

@Suite struct FoundBugTests {
  private func client() -> ClientCore {
    ClientCore(
      user: "alice", register: true, password: Password("the password"), timing: Timing(), random: .seeded(1))
  }

  private let contact = MasterContact(
    master: MasterIdentity(name: "master-1", incarnation: Incarnation(1)), requests: "r", timelines: "t")

  /// A client that is served, and the number of its Hello.
  private func served() -> ClientCore {
    var core = client()
    var actions: [ClientAction] = []
    core.start(at: .zero, into: &actions)
    answer(&core, actions)
    return core
  }

  /// The router and the master answer what the client has sent.
  private func answer(_ core: inout ClientCore, _ actions: [ClientAction]) {
    var next: [ClientAction] = []
    for action in actions {
      switch action {
      case .toRouter(.locate(let locate)):
        core.onRouter(.located(number: locate.number, contact), at: .zero, into: &next)
      case .send(let request):
        guard case .hello = request.body else { continue }
        let welcome = Welcome(master: contact.master, account: AccountID(0), isNew: false, head: EventID(1))
        core.onReply(Reply(number: request.number, body: .welcome(welcome)), at: .zero, into: &next)
      default: break
      }
    }
    if !next.isEmpty { answer(&core, next) }
  }

  private func sent(_ actions: [ClientAction]) -> [Request] {
    actions.compactMap { if case .send(let request) = $0 { request } else { nil } }
  }

  /// Seed 8: the page before position 0 was the newest page.
  @Test func nothingIsBeforeTheFirst() {
    var state = ServiceState()
    state.apply(Event(id: EventID(1), time: .zero, request: nil, change: .accountCreated(AccountID(0), name: "alice")))
    state.apply(Event(id: EventID(2), time: .zero, request: nil, change: .posted(AccountID(0), text: "x")))
    guard case .page(let page) = state.page(of: .home(AccountID(0)), range: .before(.zero), limit: 5) else {
      Issue.record("the log is asked")
      return
    }
    #expect(page.posts.isEmpty)
  }

  /// Seeds 15 and 18: a post beyond `Limits.requestBytes` ended the connection, was repeated on the next one, and so on, a hundred
  /// times a second, and no other request of the session got through.
  @Test func whatNoMasterTakesIsNotSent() {
    var core = served()
    for body in [
      Request.Body.post(text: String(repeating: "x", count: Limits.requestBytes)),
      .follow(name: String(repeating: "x", count: Limits.requestBytes)),
    ] {
      var actions: [ClientAction] = []
      core.submit(body, token: ClientToken(1), deadline: .zero + .seconds(1), at: .zero, into: &actions)
      #expect(actions.count == 1)
      guard case .finish(_, .reply(.refused)) = actions[0] else {
        Issue.record("not refused: \(actions)")
        return
      }
    }
  }

  /// Seed 2: a program's own ping got no answer, and the master was suspected of hanging for it.
  @Test func aPingIsAnswered() {
    var core = served()
    var actions: [ClientAction] = []
    core.submit(.ping, token: ClientToken(7), deadline: .zero + .seconds(1), at: .zero, into: &actions)
    let number = sent(actions)[0].number
    let pong = Reply.Body.pong(Pong(head: EventID(1), topics: []))
    actions = []
    core.onReply(Reply(number: number, body: pong), at: .zero, into: &actions)
    #expect(actions == [.finish(ClientToken(7), .reply(pong))])
    #expect(core.pendingCount == 0)
  }

  /// Seed 905: one of two watches of a timeline ended while the other's request was under way, and took the topic with it; the
  /// other one then waited on a topic on which nothing would come.
  @Test func aWatchThatEndsLeavesTheOthersTopic() {
    var core = served()
    let topic = Topic(high: 1, low: 2)
    var actions: [ClientAction] = []
    core.watch(.home, after: .zero, token: ClientToken(1), at: .zero, into: &actions)
    core.onReply(
      Reply(number: sent(actions)[0].number, body: .watching(Watching(topic: topic, sequence: 1))), at: .zero,
      into: &actions)
    core.watch(.home, after: .zero, token: ClientToken(2), at: .zero, into: &actions)
    actions = []
    core.unwatch(ClientToken(1), at: .zero, into: &actions)
    #expect(actions.isEmpty)
  }

  /// The same: a Pong without the topic means that the master does not push it to this session.
  @Test func aTopicThatTheMasterForgotIsAskedForAgain() {
    var core = served()
    var actions: [ClientAction] = []
    core.watch(.home, after: .zero, token: ClientToken(1), at: .zero, into: &actions)
    let watching = Watching(topic: Topic(high: 1, low: 2), sequence: 1)
    core.onReply(Reply(number: sent(actions)[0].number, body: .watching(watching)), at: .zero, into: &actions)
    actions = []
    core.onReply(
      Reply(number: 1_000, body: .pong(Pong(head: EventID(1), topics: []))), at: .zero, into: &actions)
    #expect(sent(actions).map(\.body) == [.watch(.home)])
  }

  /// Seed 695: a request waited in a hung master's queue, the next master refused it (disk full), the hung one woke and carried
  /// it out. So that refusal settles nothing.
  @Test func aRefusalSettlesNothingWhileAnotherMasterMayHoldTheRequest() {
    var core = served()
    var actions: [ClientAction] = []
    core.submit(.post(text: "x"), token: ClientToken(1), deadline: .zero + .seconds(9), at: .zero, into: &actions)
    let number = sent(actions)[0].number
    actions = []
    core.onDisconnected(at: .zero, into: &actions)
    answer(&core, actions)
    actions = []
    core.onReply(
      Reply(number: number, body: .refused(Refusal(.storage, "full", retryAfter: 1_000))), at: .zero, into: &actions)
    #expect(actions == [.finish(ClientToken(1), .timedOut(mayHaveHappened: true))])
  }

  /// Seed 694: one post waited (a limit, a failover) while a thousand later ones were answered; repeated then, it was beyond what
  /// masters remember of a client, and nobody could tell any more whether it had taken effect.
  @Test func nothingOvertakesAnUnansweredRequestTooFar() {
    var core = served()
    var actions: [ClientAction] = []
    let deadline = Instant.zero + .seconds(60)
    core.submit(.post(text: "first"), token: ClientToken(1), deadline: deadline, at: .zero, into: &actions)
    let first = sent(actions)[0].number
    var refused: UInt64?
    for token in UInt64(2)...UInt64(3_000) where refused == nil {
      actions = []
      core.submit(
        .post(text: "post \(token)"), token: ClientToken(token), deadline: deadline, at: .zero, into: &actions)
      if let request = sent(actions).first {
        #expect(request.number - first < Limits.repeatWindow)
        core.onReply(Reply(number: request.number, body: .done(EventID(token))), at: .zero, into: &actions)
      } else {
        refused = token
      }
    }
    #expect(refused == 1 + Limits.repeatWindow)
    // Reading goes on, and once the old one is answered all goes on.
    actions = []
    core.submit(
      .list(ListQuery(kind: .users)), token: ClientToken(9_000), deadline: deadline, at: .zero, into: &actions)
    #expect(sent(actions).count == 1)
    core.onReply(Reply(number: first, body: .done(EventID(2))), at: .zero, into: &actions)
    actions = []
    core.submit(.post(text: "next"), token: ClientToken(9_001), deadline: deadline, at: .zero, into: &actions)
    #expect(sent(actions).count == 1)
  }

  /// Seed 4: "you follow her already" was said of a follow in the same batch, before that was in the log, and also when it never
  /// came there.
  @Test func aRefusalThatRestsOnTheBatchWaitsForTheCommit() {
    let identity = MasterIdentity(name: "master-1", incarnation: Incarnation(1))
    let beat = MasterBeat(master: identity, head: .zero, sessions: 0, commitAge: 0, term: 0, roster: 0)
    var core = MasterCore(
      registration: Registration(master: identity, pid: 1, requests: "", timelines: "", log: "", beat: beat),
      timing: Timing(), assignment: .available, random: .seeded(1))
    var actions: [MasterAction] = []
    core.start(at: .zero, into: &actions)
    core.onSnapshot(
      Snapshot(
        upTo: EventID(2), names: ["alice", "bob"], credentials: [Credential(), Credential()], following: [[], []],
        newestByAuthor: [[], []]), at: .zero, into: &actions)
    core.onCatchUp(.read([]), more: false, at: .zero, into: &actions)
    let hello = Hello(
      client: ClientID(1), user: "alice", register: false, newest: .zero, proof: .token(SessionToken(bytes: [1])))
    let claims = TokenClaims(
      id: TokenID(high: 1, low: 1), holder: .account(AccountID(0), generation: .zero),
      expires: Timestamp(milliseconds: .max))
    core.onHello(
      hello, number: 1, from: PeerID(1), address: .loopback, claims: claims, at: .zero, wall: .zero, into: &actions)
    core.onRequest(Request(number: 2, body: .follow(name: "bob")), from: PeerID(1), at: .zero, into: &actions)
    core.onRequest(Request(number: 3, body: .follow(name: "bob")), from: PeerID(1), at: .zero, into: &actions)
    actions = []
    core.flush(at: .zero, wall: .zero, into: &actions)
    #expect(replies(actions).isEmpty)
    actions = []
    core.onCommit(.failed("disk full"), at: .zero, wall: .zero, into: &actions)
    let codes: [Refusal.Code] = replies(actions).compactMap { reply in
      if case .refused(let refusal) = reply.body { return refusal.code } else { return nil }
    }
    #expect(codes == [.storage])
    // The second counts now: it is tried by itself.
    core.flush(at: .zero, wall: .zero, into: &actions)
    #expect(actions.contains { if case .append = $0 { true } else { false } })
  }

  private func replies(_ actions: [MasterAction]) -> [Reply] {
    actions.compactMap { if case .reply(let reply, _) = $0 { reply } else { nil } }
  }
}
