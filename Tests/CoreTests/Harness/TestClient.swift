// A client core in a shell that fails at every order that makes no sense.

import Model
import Testing

@testable import Core

/// A client under test.
///
/// What it holds the core to: nothing is sent to a master before `connect`, and Hello is the first; a number means one request
/// for good, and goes to one master once; a request ends once, and only if it was made; posts of a timeline are shown in
/// order, each once; Locates are counted up, but for one asked again in the same words.
final class TestClient {
  private(set) var core: ClientCore
  var now = Instant(nanoseconds: 10_000_000_000)
  let timing = Timing()

  private(set) var actions: [ClientAction] = []
  private(set) var notes: [ClientNote] = []
  private(set) var locates: [Locate] = []
  private(set) var connected: MasterContact?
  private(set) var connects = 0
  /// Everything sent on the present connection.
  private(set) var sent: [Request] = []
  private(set) var outcomes: [ClientToken: ClientOutcome] = [:]
  private(set) var shown: [ClientToken: [Post]] = [:]
  private(set) var subscribed: [Topic] = []
  private var open: Set<ClientToken> = []
  private var bodies: [UInt64: Request.Body] = [:]
  private var nextToken: UInt64 = 1

  private(set) var kept: [SessionToken] = []
  /// What the master has refused for lack of room, which may come again.
  private var limited: Set<UInt64> = []
  /// The last Hello was refused: another proof may follow.
  private var isRefused = false

  init(
    user: String = "alice", register: Bool = true, password: Password? = Password("the password"),
    token: SessionToken? = nil, seed: UInt64 = 1
  ) {
    core = ClientCore(
      user: user, register: register, password: password, token: token, timing: timing, random: .seeded(seed))
  }

  static func contact(_ name: String = "master-1", _ incarnation: UInt64 = 1_000) -> MasterContact {
    MasterContact(
      master: MasterIdentity(name: name, incarnation: Incarnation(incarnation)), requests: "tcp://\(name)/r",
      timelines: "tcp://\(name)/t")
  }

  /// One that is logged in at master-1.
  static func serving(seed: UInt64 = 1) -> TestClient {
    let client = TestClient(seed: seed)
    client.start()
    client.locate()
    client.welcome()
    #expect(client.core.isServing)
    return client
  }

  // MARK: Turns

  func turn(_ body: (inout ClientCore, Instant, inout [ClientAction]) -> Void = { _, _, _ in }) {
    actions = []
    core.onTimers(at: now, into: &actions)
    body(&core, now, &actions)
    for action in actions { carryOut(action) }
    guard let wake = core.nextWake, wake <= now else { return }
    // Something became due with what arrived: the shell comes again at once, and that is enough.
    var due: [ClientAction] = []
    core.onTimers(at: now, into: &due)
    for action in due { carryOut(action) }
    actions += due
    if let wake = core.nextWake { #expect(wake > now, "the core would be woken at once, again and again") }
  }

  /// Time passes; wake-ups come when planned. Gives all orders of that time.
  @discardableResult
  func pass(_ interval: Interval) -> [ClientAction] {
    let end = now + interval
    var all: [ClientAction] = []
    while let wake = core.nextWake, wake <= end {
      now = max(now, wake)
      turn()
      all += actions
    }
    now = end
    return all
  }

  // MARK: The program

  func start() { turn { $0.start(at: $1, into: &$2) } }

  @discardableResult
  func submit(_ body: Request.Body, deadline: Interval = .seconds(60)) -> ClientToken {
    let token = ClientToken(nextToken)
    nextToken += 1
    open.insert(token)
    turn { $0.submit(body, token: token, deadline: $1 + deadline, at: $1, into: &$2) }
    return token
  }

  func watch(_ name: TimelineName = .home, after cursor: EventID = .zero) -> ClientToken {
    let token = ClientToken(nextToken)
    nextToken += 1
    open.insert(token)
    shown[token] = []
    turn { $0.watch(name, after: cursor, token: token, at: $1, into: &$2) }
    return token
  }

  func unwatch(_ token: ClientToken) {
    open.remove(token)
    turn { $0.unwatch(token, at: $1, into: &$2) }
  }

  func close() { turn { core, _, actions in core.close(into: &actions) } }

  // MARK: The router

  func hear(_ reply: RouterReply) { turn { $0.onRouter(reply, at: $1, into: &$2) } }

  func locate(_ contact: MasterContact = TestClient.contact()) {
    hear(.located(number: locates.last!.number, contact))
  }

  func unavailable(retryAfter: UInt32 = 200) {
    hear(.unavailable(number: locates.last!.number, retryAfter: retryAfter))
  }

  // MARK: The master

  func reply(_ number: UInt64, _ body: Reply.Body) {
    if case .refused(let refusal) = body {
      if refusal.code == .limit { limited.insert(number) }
      let isHello = last({ if case .hello = $0 { true } else { false } })?.number == number
      if refusal.code == .credentials, isHello { isRefused = true }
    }
    turn { $0.onReply(Reply(number: number, body: body), at: $1, into: &$2) }
  }

  func welcome(head: EventID = .zero, isNew: Bool = false, token: SessionToken? = nil) {
    guard let hello = last({ if case .hello = $0 { true } else { false } }), let connected else {
      Issue.record("nobody said Hello")
      return
    }
    reply(
      hello.number,
      .welcome(
        Welcome(master: connected.master, account: AccountID(0), isNew: isNew, head: head, token: token)))
  }

  func pong(topics: [Watching] = []) {
    guard let ping = sent.last(where: { $0.body == .ping }) else {
      Issue.record("nobody pinged")
      return
    }
    reply(ping.number, .pong(Pong(head: .zero, topics: topics)))
  }

  func update(_ topic: Topic, _ sequence: UInt64, _ post: Post? = nil) {
    turn { $0.onUpdate(Update(topic: topic, sequence: sequence, posts: post.map { [$0] } ?? []), at: $1, into: &$2) }
  }

  func disconnect() { turn { $0.onDisconnected(at: $1, into: &$2) } }

  /// The newest request of this connection with such a body.
  func last(_ matches: (Request.Body) -> Bool) -> Request? { sent.last { matches($0.body) } }

  var hello: Hello? {
    if case .hello(let hello) = last({ if case .hello = $0 { true } else { false } })?.body { hello } else { nil }
  }

  var pings: Int { sent.filter { $0.body == .ping }.count }

  /// Answers the newest Watch, and the subscription with a marker; then there is a page to give.
  func begin(_ topic: Topic, sequence: UInt64 = 1) {
    guard let watch = last({ if case .watch = $0 { true } else { false } }) else {
      Issue.record("nobody watches")
      return
    }
    reply(watch.number, .watching(Watching(topic: topic, sequence: sequence)))
    update(topic, sequence)
  }

  func givePage(_ posts: [Post], upTo: EventID, more: Bool = false) {
    guard let query = last({ if case .timeline = $0 { true } else { false } }) else {
      Issue.record("nobody reads")
      return
    }
    reply(query.number, .page(TimelinePage(posts: posts, upTo: upTo, more: more)))
  }

  static func post(_ id: UInt64) -> Post {
    Post(id: EventID(id), author: "bob", text: "\(id)", time: Timestamp(milliseconds: Int64(id)))
  }

  func ids(_ token: ClientToken) -> [UInt64] { shown[token, default: []].map(\.id.rawValue) }

  // MARK: What the orders are held to

  private func carryOut(_ action: ClientAction) {
    switch action {
    case .toRouter(.locate(let locate)):
      #expect(locate == locates.last || locate.number > locates.last?.number ?? 0, "Locates are to be counted up")
      #expect(locate.user == core.user)
      locates.append(locate)
    case .toRouter(let request): Issue.record("a client has no business saying \(request)")
    case .connect(let contact):
      connected = contact
      connects += 1
      sent = []
      isRefused = false
      subscribed = []
    case .disconnect:
      #expect(connected != nil, "there is no connection to drop")
      connected = nil
      sent = []
      subscribed = []
    case .send(let request):
      #expect(connected != nil, "sent before connect: \(request)")
      var isHello = false
      if case .hello = request.body { isHello = true }
      #expect((sent.isEmpty || isRefused) == isHello, "Hello is the first word, and only that")
      isRefused = false
      #expect(request.number > 0)
      let isAgain = limited.remove(request.number) != nil
      #expect(
        isAgain || !sent.contains { $0.number == request.number }, "\(request.number) is sent twice to one master")
      if let body = bodies[request.number] { #expect(body == request.body, "one number for two requests") }
      bodies[request.number] = request.body
      sent.append(request)
    case .subscribe(let topic):
      #expect(connected != nil)
      subscribed.append(topic)
    case .unsubscribe(let topic):
      #expect(subscribed.contains(topic), "unsubscribed and never subscribed")
      subscribed.removeAll { $0 == topic }
    case .finish(let token, let outcome):
      #expect(open.remove(token) != nil, "\(token) ends twice, or never began")
      outcomes[token] = outcome
    case .show(let token, let posts):
      #expect(!posts.isEmpty && open.contains(token))
      for post in posts {
        #expect(shown[token, default: []].last?.id ?? .zero < post.id, "shown twice, or out of order")
        shown[token, default: []].append(post)
      }
    case .keep(let token): kept.append(token)
    case .note(let note): notes.append(note)
    }
  }
}
