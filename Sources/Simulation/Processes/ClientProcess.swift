// A client's simulated shell, and the person behind it.

import Core
import Model
import Wire

/// What a person asked for, and what was known then.
struct Asked {
  var token: ClientToken
  var body: Request.Body
  /// By the client's own clock.
  var deadline: Instant
  /// The newest event that the client knew of.
  var newest: EventID
}

final class ClientProcess: Process {
  private(set) var core: ClientCore
  let user: String
  /// Tries to get in with what is not right; nobody starts it again.
  let isIntruder: Bool
  private var actions: [ClientAction] = []
  private var next = 0
  private var router: Link?
  private var session: Link?
  private var timelines: Link?
  private var lastToken: UInt64 = 0
  private(set) var asked: [ClientToken: Asked] = [:]
  /// The timelines being watched, in the order in which that began.
  private(set) var watches: [ClientToken] = []
  /// Those given up: their end may be on its way already.
  private var unwatched: Set<ClientToken> = []
  /// Called with each end of a request; for scenarios.
  var onFinish: ((Asked, ClientOutcome) -> Void)?
  var onShow: ((ClientToken, [Post]) -> Void)?
  var onNote: ((ClientNote) -> Void)?

  /// What it has said to log in, by number.
  private(set) var hellos: [UInt64: Hello] = [:]

  // Of the deliberate faults.
  private var expected: [Topic: (next: UInt64, skipped: UInt64)] = [:]
  private var sentNumbers: Set<UInt64> = []
  private var renamed: [UInt64: UInt64] = [:]
  private var isAsking = false
  private var isClosing = false
  /// At which master each unanswered request was asked last.
  private var askedAt: [UInt64: MasterIdentity] = [:]

  /// - Parameter proof: an intruder's; nil: what is right.
  init(world: World, name: String, user: String, host: Int, pid: Int32, proof: Proof? = nil) {
    self.user = user
    isIntruder = proof != nil
    var password: Password? = world.password(of: user)
    var token = world.savedTokens[name]
    switch proof {
    case .password(let wrong): password = wrong
    case .token(let bad): (password, token) = (nil, bad)
    case nil: break
    }
    core = ClientCore(
      user: user, register: !isIntruder, password: password, token: token,
      timing: world.settings.timing, random: .seeded(world.random.next()))
    super.init(world: world, name: name, host: host, pid: pid)
  }

  override func start() {
    router = world.network.dial(.clientRouter, from: self, to: RouterProcess.address)
    core.start(at: clock, into: &actions)
    finishActions()
    planNext()
  }

  override var nextWake: Instant? { peek(&core) { $0.nextWake } }

  // MARK: The person's side

  /// Asks for something; `onFinish` and the checkers hear of the end.
  func submit(_ body: Request.Body, within time: Interval) {
    enqueue(
      .callback { [self] in
        lastToken += 1
        let token = ClientToken(lastToken)
        let asked = Asked(token: token, body: body, deadline: clock + time, newest: core.newest)
        self.asked[token] = asked
        world.checkers.requests.onSubmit(asked, by: self)
        core.submit(body, token: token, deadline: asked.deadline, at: clock, into: &actions)
      })
  }

  func watch(_ timeline: TimelineName, after cursor: EventID) {
    enqueue(
      .callback { [self] in
        lastToken += 1
        let token = ClientToken(lastToken)
        watches.append(token)
        world.checkers.timelines.onWatch(timeline, after: cursor, token: token, by: self)
        core.watch(timeline, after: cursor, token: token, at: clock, into: &actions)
      })
  }

  func unwatch(_ token: ClientToken) {
    enqueue(
      .callback { [self] in
        watches.removeAll { $0 == token }
        unwatched.insert(token)
        world.checkers.timelines.onUnwatch(token, by: self)
        core.unwatch(token, at: clock, into: &actions)
      })
  }

  override func terminate() {
    enqueue(
      .callback { [self] in
        core.close(into: &actions)
        // Also if it is frozen in the middle of that.
        isClosing = true
      })
  }

  override func onDied() { world.checkers.onClientDied(self) }

  override func abandon() {
    super.abandon()
    router = nil
    session = nil
    timelines = nil
    onFinish = nil
    onShow = nil
    onNote = nil
  }

  // MARK: A turn

  override func onTimers(at now: Instant, planned: Instant?) { core.onTimers(at: now, into: &actions) }

  override func onLinkLost(_ link: Link) {
    if link === session { enqueue(.lost(link)) }
  }

  override func handle(_ input: Input, at now: Instant) {
    switch input {
    case .callback(let body): body()
    case .lost(let link):
      if link === session { core.onDisconnected(at: now, into: &actions) }
    case .frame(let frame, _):
      guard frame.link.isOpen else { return }  // the socket is closed, with what it had
      switch frame.link.kind {
      case .clientRouter:
        guard let reply = world.decoded({ () throws(WireError) in try Wire.decodeRouterReply(frame.bytes) }) else {
          return
        }
        core.onRouter(reply, at: now, into: &actions)
      case .session where frame.link === session:
        guard var reply = world.decoded({ () throws(WireError) in try Wire.decodeReply(frame.bytes) }) else { return }
        if world.defect == .ignoreASequenceGap { ignoreGap(&reply) }
        reply.number = settle(reply.number)
        if case .doneEach(let all) = reply.body {
          world.meet(.acknowledgedTogether)
          reply.body = .doneEach(all.map { Done(number: settle($0.number), event: $0.event) })
        }
        core.onReply(reply, at: now, into: &actions)
      case .timelines where frame.link === timelines:
        guard var update = world.decoded({ () throws(WireError) in try Wire.decodeUpdate(frame.bytes) }) else { return }
        if world.defect == .ignoreASequenceGap { ignoreGap(&update) }
        core.onUpdate(update, at: now, into: &actions)
      case .session, .timelines, .masterRouter, .mesh, .supervision: break
      }
    }
  }

  /// The request is answered. Gives the number that the core knows it by.
  private func settle(_ number: UInt64) -> UInt64 {
    var number = number
    if world.defect == .repeatUnderANewNumber, let former = renamed[number] { number = former }
    askedAt[number] = nil
    return number
  }

  override func endTurn(at now: Instant) { finishActions() }

  override func finishActions() {
    while next < actions.count {
      guard mayAct() else { return }
      let action = actions[next]
      next += 1
      carryOut(action)
    }
    actions.removeAll(keepingCapacity: true)
    next = 0
    if isClosing { return world.exit(self) }
    world.checkers.limits.onClient(pending: peek(&core) { $0.pendingCount }, of: self)
  }

  private func carryOut(_ action: ClientAction) {
    switch action {
    case .toRouter(let request):
      world.checkers.limits.onLocate(by: self)
      if let router { world.network.send(Wire.encode(request), on: router) }
      if world.defect == .retryWithoutPause { askAgain(request) }
    case .connect(let contact):
      disconnect()
      session = world.network.dial(.session, from: self, to: contact.requests)
      timelines = world.network.dial(.timelines, from: self, to: contact.timelines)
    case .disconnect: disconnect()
    case .send(let request): send(request)
    case .subscribe(let topic):
      if let timelines { world.network.subscribe(topic, on: timelines) }
    case .unsubscribe(let topic):
      if let timelines { world.network.unsubscribe(topic, on: timelines) }
    case .finish(let token, let outcome):
      if world.defect == .forgetADeadline, case .timedOut = outcome { return }
      if watches.contains(token) {
        // A watch that was refused.
        watches.removeAll { $0 == token }
        world.checkers.timelines.onUnwatch(token, by: self)
        return
      }
      if unwatched.remove(token) != nil { return }
      world.note([self], 40, Int(token.rawValue)) { "request \(token.rawValue) ends: \(outcome)" }
      guard let asked = asked.removeValue(forKey: token) else {
        world.fail("each request ends once", "\(name): request \(token.rawValue) ended again: \(outcome)", [self])
        return
      }
      world.checkers.requests.onFinish(asked, outcome, by: self)
      onFinish?(asked, outcome)
    case .show(let token, let posts):
      world.note([self], 41, posts.count) { "shows " + posts.map { "\($0.id)" }.joined(separator: " ") }
      world.checkers.timelines.onShow(posts, token: token, by: self)
      onShow?(token, posts)
    case .keep(let token):
      world.savedTokens[name] = token
      world.everyToken.append(token)
    case .note(let note):
      world.note([self], 42, 0) { "\(note)" }
      onNote?(note)
      if case .loginRefused(let refusal) = note {
        world.checkers.logins.onRefused(refusal, to: self)
        // Whoever may knows the new password, and starts again with it.
        world.after(.milliseconds(1)) { [self] in world.kill(self) }
      }
    }
  }

  /// The deliberate fault "retry without a pause".
  private func askAgain(_ request: RouterRequest) {
    guard !isAsking else { return }
    isAsking = true
    onThread(after: .milliseconds(3)) { [self] in
      isAsking = false
      if !core.isServing { carryOut(.toRouter(request)) }
    }
  }

  private func disconnect() {
    if let session { world.network.close(session) }
    if let timelines { world.network.close(timelines) }
    session = nil
    timelines = nil
    expected = [:]
  }

  private func send(_ request: Request) {
    guard let session else { return }
    var request = request
    if world.defect == .repeatUnderANewNumber, case .post = request.body, !sentNumbers.insert(request.number).inserted {
      let fresh = request.number + 1_000_000
      renamed[fresh] = request.number
      request.number = fresh
    }
    if case .hello(let hello) = request.body { hellos[request.number] = hello }
    if let master = core.master?.master, case let former = askedAt.updateValue(master, forKey: request.number),
      let former,
      former != master
    {
      world.meet(.repeatedAtAnotherMaster)
    }
    let bytes = Wire.encode(request)
    world.network.send(bytes, on: session)
    // A client may say the same twice (its own repeat, a proxy's): it must not matter.
    if world.settings.repeatsPercent > 0, world.random.percent(world.settings.repeatsPercent) {
      world.network.send(bytes, on: session)
    }
  }

  // MARK: The deliberate fault "ignore a sequence gap"

  private func ignoreGap(_ reply: inout Reply) {
    switch reply.body {
    case .watching(let watching): expected[watching.topic] = (0, 0)
    case .pong(var pong):
      for index in pong.topics.indices {
        pong.topics[index].sequence -= min(
          expected[pong.topics[index].topic]?.skipped ?? 0, pong.topics[index].sequence)
      }
      reply.body = .pong(pong)
    default: break
    }
  }

  private func ignoreGap(_ update: inout Update) {
    guard var state = expected[update.topic] else { return }
    update.sequence -= min(state.skipped, update.sequence)
    if state.next > 0, update.sequence > state.next {
      state.skipped += update.sequence - state.next
      update.sequence = state.next
    }
    state.next = max(state.next, update.sequence + UInt64(update.posts.count))
    expected[update.topic] = state
  }
}
