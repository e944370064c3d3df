// A client's core under any answers of router and master.

import Core
import Model
import Wire

extension FuzzTarget {
  static let client = FuzzTarget(
    "core-client",
    "a client whose router and master may say anything: requests end once and by their deadlines, posts are shown in order, once",
    inputBytesMax: 8_192, tokens: protobufTokens
  ) { random in
    coreSeed(&random, stepKinds: FuzzedClient.stepKinds) { generator, kind in
      switch kind {
      case 0: Wire.encode(generator.reply())
      case 1: Wire.encode(generator.routerReply())
      case 2: Wire.encode(generator.update())
      default: nil
      }
    }
  } body: { input throws(Finding) in
    var client = FuzzedClient(input)
    try client.run()
  }
}

private struct FuzzedClient {
  static let stepKinds = 16
  private static let stepsMax = 300

  private var draw: Draw
  private var core: ClientCore
  private var now = Instant(nanoseconds: 10_000_000_000)
  private var nextToken: UInt64 = 1
  /// What has not ended, with when it must have.
  private var open: [ClientToken: Instant] = [:]
  private var watches: Set<ClientToken> = []
  private var shown: [ClientToken: EventID] = [:]
  private var sent: [Request] = []
  private var subscribed: [Topic] = []
  private var isConnected = false
  private var isClosed = false
  private var lastLocate: (number: UInt64, suspect: MasterIdentity?) = (0, nil)

  init(_ input: [UInt8]) {
    draw = Draw(input)
    core = ClientCore(
      user: "alice", register: draw.flag(), password: draw.flag() ? Password("the password of alice") : nil,
      token: draw.flag() ? SessionToken(bytes: [1, 2, 3]) : nil, timing: Timing(), random: .seeded(7))
  }

  mutating func run() throws(Finding) {
    try turn { $0.start(at: $1, into: &$2) }
    if draw.below(4) != 0 { try serve() }
    var steps = 0
    while !draw.isAtEnd, !isClosed, steps < Self.stepsMax {
      try step()
      steps += 1
    }
    try pass(.seconds(8))
    for (token, deadline) in open where !watches.contains(token) {
      try hold(deadline > now, "\(token) has not ended by its deadline")
    }
  }

  private mutating func serve() throws(Finding) {
    let contact = MasterContact(
      master: MasterIdentity(name: "master-1", incarnation: Incarnation(1_000)), requests: "tcp://r",
      timelines: "tcp://t")
    let locate = lastLocate.number
    try turn { $0.onRouter(.located(number: locate, contact), at: $1, into: &$2) }
    guard let hello = sent.first else { return }
    let welcome = Welcome(master: contact.master, account: AccountID(0), isNew: false, head: EventID(draw.number()))
    try turn { $0.onReply(Reply(number: hello.number, body: .welcome(welcome)), at: $1, into: &$2) }
  }

  private mutating func step() throws(Finding) {
    switch draw.below(Self.stepKinds) {
    case 0:
      _ = draw.byte()
      guard let reply = try? Wire.decodeReply(draw.chunk()) else { return }
      try hear(reply)
    case 1:
      _ = draw.byte()
      guard let reply = try? Wire.decodeRouterReply(draw.chunk()) else { return }
      try turn { $0.onRouter(reply, at: $1, into: &$2) }
    case 2:
      _ = draw.byte()
      guard let update = try? Wire.decodeUpdate(draw.chunk()) else { return }
      try turn { $0.onUpdate(update, at: $1, into: &$2) }
    case 3, 4, 5: try answer()
    case 6:
      let reply: RouterReply =
        switch draw.below(5) {
        case 0: .unavailable(number: lastLocate.number, retryAfter: draw.number32())
        case 1: .refused(number: lastLocate.number, draw.refusal())
        case 2: .roster(draw.roster())
        default:
          .located(
            number: lastLocate.number,
            MasterContact(master: draw.master(), requests: draw.endpoint(), timelines: draw.endpoint()))
        }
      guard let heard = try? Wire.decodeRouterReply(Wire.encode(reply)) else { return }
      try turn { $0.onRouter(heard, at: $1, into: &$2) }
    case 7, 8: try update()
    case 9, 10: try submit()
    case 11:
      let token = ClientToken(nextToken)
      nextToken += 1
      watches.insert(token)
      open[token] = .distantFuture
      let name = draw.timeline()
      let cursor = EventID(draw.number())
      shown[token] = cursor
      try turn { $0.watch(name, after: cursor, token: token, at: $1, into: &$2) }
    case 12:
      guard let token = watches.sorted().first else { return }
      watches.remove(token)
      open[token] = nil
      try turn { $0.unwatch(token, at: $1, into: &$2) }
    case 13: try turn { $0.onDisconnected(at: $1, into: &$2) }
    case 14: try pass(.milliseconds(Int64(draw.number() % 5_000)))
    default:
      if draw.below(64) == 0 {
        try turn { core, _, actions in core.close(into: &actions) }
        isClosed = true
      }
    }
  }

  private mutating func submit() throws(Finding) {
    let token = ClientToken(nextToken)
    nextToken += 1
    let deadline = now + .milliseconds(Int64(draw.byte()) * 20)
    open[token] = deadline
    let body: Request.Body =
      switch draw.below(6) {
      case 0: .post(text: draw.text())
      case 1: .follow(name: draw.name())
      case 2: .unfollow(name: draw.name())
      case 3: .list(ListQuery(kind: .users, offset: draw.number32(), limit: draw.number32()))
      case 4: .timeline(draw.query(near: core.newest))
      default: .ping
      }
    try turn { $0.submit(body, token: token, deadline: deadline, at: $1, into: &$2) }
  }

  /// The master answers something that was sent, rightly or not.
  private mutating func answer() throws(Finding) {
    let request = sent.isEmpty ? nil : sent[sent.count - 1 - draw.below(min(sent.count, 8))]
    let number = draw.below(16) == 0 ? draw.number() : request?.number ?? 0
    let body: Reply.Body
    switch draw.below(11) {
    case 0: body = .done(EventID(max(1, draw.number())))
    case 1: body = .refused(draw.refusal())
    case 2: body = .goodbye
    case 3:
      body = .pong(
        Pong(
          head: EventID(draw.number()),
          topics: subscribed.prefix(16).map { Watching(topic: $0, sequence: draw.number()) }))
    case 4: body = .names(NamesPage(names: [draw.name()], more: draw.flag()))
    case 5, 6: body = .watching(Watching(topic: Topic(high: 1, low: UInt64(draw.below(4))), sequence: draw.number()))
    case 9:
      // Some were asked, some more than once, and the last is whatever it is.
      let asked = sent.suffix(4).map { Done(number: $0.number, event: EventID(max(1, draw.number()))) }
      body = .doneEach(asked + [Done(number: number, event: EventID(1))])
    case 7, 8: body = .page(TimelinePage(posts: posts(), upTo: EventID(draw.number()), more: draw.flag()))
    default:
      body = .welcome(
        Welcome(master: draw.master(), account: AccountID(0), isNew: draw.flag(), head: EventID(draw.number())))
    }
    guard let reply = try? Wire.decodeReply(Wire.encode(Reply(number: number, body: body))) else { return }
    try hear(reply)
  }

  private mutating func hear(_ reply: Reply) throws(Finding) {
    // At a limit a master has done nothing, and may be asked again under the same number.
    if case .refused(let refusal) = reply.body, refusal.code == .limit { sent.removeAll { $0.number == reply.number } }
    try turn { $0.onReply(reply, at: $1, into: &$2) }
  }

  private mutating func posts() -> [Post] {
    let first = draw.number()
    return (0..<UInt64(draw.below(4))).map {
      draw.post(EventID(max(1, draw.below(8) == 0 ? draw.number() : first &+ $0)))
    }
  }

  private mutating func update() throws(Finding) {
    let topic = subscribed.isEmpty ? Topic(high: 1, low: 0) : subscribed[draw.below(subscribed.count)]
    let said = Update(topic: topic, sequence: draw.number(), posts: posts())
    guard said.sequence <= UInt64(Int64.max) - 8, let update = try? Wire.decodeUpdate(Wire.encode(said)) else { return }
    try turn { $0.onUpdate(update, at: $1, into: &$2) }
  }

  // MARK: Turns

  private mutating func turn(_ body: (inout ClientCore, Instant, inout [ClientAction]) -> Void) throws(Finding) {
    var actions: [ClientAction] = []
    core.onTimers(at: now, into: &actions)
    body(&core, now, &actions)
    for action in actions { try carryOut(action) }
    // Something may have become due with what arrived. The shell comes again at once, and that is enough.
    guard let wake = core.nextWake, wake <= now else { return }
    actions = []
    core.onTimers(at: now, into: &actions)
    for action in actions { try carryOut(action) }
    if let wake = core.nextWake { try hold(wake > now, "would be woken at once, again and again") }
  }

  private mutating func pass(_ interval: Interval) throws(Finding) {
    let end = now + interval
    var wakes = 0
    while let wake = core.nextWake, wake <= end {
      now = max(now, wake)
      try turn { _, _, _ in }
      wakes += 1
      try hold(wakes < 20_000, "woken 20,000 times in \(interval)")
    }
    now = end
  }

  private mutating func carryOut(_ action: ClientAction) throws(Finding) {
    switch action {
    case .toRouter(let request):
      guard case .locate(let locate) = request else { throw Finding("a client has no business saying \(request)") }
      // A question about a suspect keeps its number until it is answered.
      let isRepeated = locate.suspect != nil && (locate.number, locate.suspect) == lastLocate
      try hold(locate.number > lastLocate.number || isRepeated, "Locates are to be counted up")
      lastLocate = (locate.number, locate.suspect)
      try hold(
        (try? Wire.decodeRouterRequest(Wire.encode(request))) == request, "what no router understands: \(request)")
    case .connect:
      isConnected = true
      sent = []
      subscribed = []
    case .disconnect:
      try hold(isConnected, "there is no connection to drop")
      isConnected = false
      sent = []
      subscribed = []
    case .send(let request):
      try hold(isConnected, "sent before connect: \(request)")
      try hold((try? Wire.decodeRequest(Wire.encode(request))) == request, "what no master understands: \(request)")
      try hold(!sent.contains { $0.number == request.number }, "\(request.number) is sent twice to one master")
      sent.append(request)
    case .subscribe(let topic): subscribed.append(topic)
    case .unsubscribe(let topic):
      try hold(subscribed.contains(topic), "unsubscribed and never subscribed")
      subscribed.removeAll { $0 == topic }
    case .finish(let token, _):
      try hold(open.removeValue(forKey: token) != nil, "\(token) ends twice, or never began")
      watches.remove(token)
    case .show(let token, let posts):
      try hold(!posts.isEmpty && watches.contains(token), "\(posts.count) posts shown for \(token)")
      for post in posts {
        try hold(shown[token, default: .zero] < post.id, "\(post.id) is shown twice, or out of order")
        shown[token] = post.id
      }
    case .note, .keep: break
    }
  }
}
