// A client: finds a master, keeps a session there, moves on when it fails, repeats what was not answered. No I/O.

import DequeModule
import OrderedCollections
public import Model

/// Names a request or a watch of the program that uses the client.
public struct ClientToken: Hashable, Comparable, Sendable {
  public var rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public static func < (left: ClientToken, right: ClientToken) -> Bool { left.rawValue < right.rawValue }
}

/// What became of a request.
public enum ClientOutcome: Hashable, Sendable {
  case reply(Reply.Body)
  /// No answer by the deadline, or none that settles it. `mayHaveHappened`: it was sent at least once.
  case timedOut(mayHaveHappened: Bool)
  /// The login was refused, so nothing can be asked.
  case loginRefused(Refusal)
  case closed
}

/// An order to a client's shell.
public enum ClientAction: Hashable, Sendable {
  case toRouter(RouterRequest)
  /// Drop the connections to the present master, if any, and connect to this one.
  case connect(MasterContact)
  case disconnect
  case send(Request)
  case subscribe(Topic)
  case unsubscribe(Topic)
  /// The request's end.
  case finish(ClientToken, ClientOutcome)
  /// Posts of a watched timeline: new ones, in order, each once.
  case show(ClientToken, [Post])
  /// A token to log in with from now on, instead of the password.
  case keep(SessionToken)
  case note(ClientNote)
}

/// Something worth telling the user.
public enum ClientNote: Hashable, Sendable {
  public enum LossCause: String, Hashable, Sendable {
    case connectionLost = "connection lost"
    case noAnswer = "no answer"
    case goodbye = "it said goodbye"
    case refused = "it does not serve"
  }

  case lost(master: String, LossCause)
  /// Logged in. `pause`: time since the last master was lost, or nil at the first login.
  case serving(master: String, isNew: Bool, pause: Interval?)
  /// No master is to be had; asking again after this time.
  case waiting(Interval)
  case loginRefused(Refusal)
  /// The router, or whatever answers in its place, does not have the key that it should. Told by the shell, once.
  case routerNotProved
  /// The router has proved its key and refuses the connection: it has too many of this address. Told by the shell, once.
  case tooManyConnections
}

/// The logic of a client with one session.
///
/// The shell's duties at each turn: `onTimers`, then what arrived, then the actions in order.
public struct ClientCore: Sendable {
  enum Phase: Sendable {
    case idle
    /// Asked the router: first, and last under the same number.
    case locating(since: Instant, asked: Instant, suspect: MasterIdentity?)
    /// Connecting, and Hello is sent.
    case greeting(since: Instant)
    case serving
    /// Asking again later.
    case waiting(until: Instant)
    /// The login was refused for good.
    case refused(Refusal)
    case closed
  }

  struct Pending: Sendable {
    var token: ClientToken?
    var follower: ClientToken?
    var body: Request.Body
    var deadline: Instant
    /// To how many masters, or how often to the same.
    var timesSent = 0
    /// When to send it again, to a master that had no room for it; and how often it had none.
    var retryAt: Instant?
    var timesLimited = 0
  }

  public let client: ClientID
  public let user: String
  let register: Bool
  /// What there is to log in with: the token first, then the password; last one that a change without an answer may have set.
  var token: SessionToken?
  var password: Password?
  var newPassword: Password?
  let timing: Timing

  var phase = Phase.idle
  var contact: MasterContact?
  /// The newest event that any answer or update told of: no master may answer older state.
  public private(set) var newest = EventID.zero
  var nextNumber: UInt64 = 1
  /// No pending request that may take effect has a smaller number.
  var oldestEffect: UInt64 = 1
  /// By number.
  var pending: [UInt64: Pending] = [:]
  /// What was sent to the present master, in order; answered ones leave late.
  var sent = Deque<(number: UInt64, at: Instant)>()
  /// No deadline of a pending request is earlier.
  var earliestDeadline = Instant.distantFuture
  /// No pending request's `retryAt` is earlier.
  var earliestRetry = Instant.distantFuture
  var followers: OrderedDictionary<ClientToken, TimelineFollower> = [:]
  var helloNumber: UInt64 = 0
  var locateNumber: UInt64 = 0
  /// The master's last word.
  var lastHeard = Instant.zero
  /// Since when requests are under way without a break.
  var busySince = Instant.zero
  var pingSentAt: Instant?
  /// The last ping, or the login.
  var lastPing = Instant.zero
  /// The present master has been reported to the router, whose answer is awaited while the session goes on.
  var suspectSince: Instant?
  /// A suspicion that the router does not share is repeated after a growing time.
  var nextSuspicion = Instant.zero
  var suspicionDelay = Interval.zero
  /// Failures in a row at the same master, and at any.
  var failures: UInt32 = 0
  var failedMaster: MasterIdentity?
  var attempts: Int64 = 0
  var lostAt: Instant?
  var hasServed = false
  var random: RandomSource

  /// - Parameters:
  ///   - register: create the account, with the password, if the name is new.
  ///   - password: for the first login, and for when no token is good any more.
  ///   - token: of an earlier login.
  ///   - random: gives the client its id, and jitter to its waits.
  public init(
    user: String, register: Bool, password: Password?, token: SessionToken? = nil, timing: Timing,
    random: RandomSource
  ) {
    var random = random
    client = ClientID(random.next())
    self.random = random
    self.user = user
    self.register = register
    self.password = password
    self.token = token
    self.timing = timing
  }

  public var isServing: Bool { if case .serving = phase { return true } else { return false } }
  public var master: MasterContact? { contact }
  public var pendingCount: Int { pending.count }

  /// The position up to which a watched timeline has been shown.
  public func cursor(of token: ClientToken) -> EventID? { followers[token]?.cursor }

  // MARK: Times derived from the cluster's

  /// How long the router has to answer before it is asked again: it may have been started anew.
  private var locateTimeout: Interval { timing.liveness / 2 }
  /// How long it has to answer about a suspect, which it asks first, for up to `liveness`. Until then the question stays the same, and so
  /// does the place among those who wait.
  private var suspectTimeout: Interval { timing.liveness * 3 / 2 }
  /// How long a Hello has to be answered. A password is hashed first, and perhaps others before it.
  private var greetTimeout: Interval { token == nil ? timing.requestTimeout : timing.liveness }
  /// Silence with requests under way after which the master is pinged.
  private var busyPingAfter: Interval { timing.liveness * 2 / 5 }
  /// How often a session that watches pings, whatever it hears: only a Pong finds a lost tail, and only what the client says
  /// keeps its session.
  private var watchPingAfter: Interval { .seconds(1) }
  /// The same of a session that does nothing, so that the master keeps it.
  private var idlePingAfter: Interval { Limits.sessionSilence / 4 }

  /// How long a Pong may take: from the last word to the suspicion it is `liveness` when requests are under way.
  private var pongTimeout: Interval { timing.liveness * 3 / 5 }

  private var pingAt: Instant {
    let regular = followers.isEmpty ? lastHeard + idlePingAfter : lastPing + watchPingAfter
    return pending.isEmpty ? regular : min(regular, max(lastHeard, busySince) + busyPingAfter)
  }

  /// When the master is to be suspected unless it says something.
  private var suspectAt: Instant? {
    if case .greeting(let since) = phase { return max(since + greetTimeout, nextSuspicion) }
    var earliest = pingSentAt.map { $0 + pongTimeout }
    if let oldest = sent.first { earliest = min(earliest ?? .distantFuture, oldest.at + timing.requestTimeout) }
    return earliest.map { max($0, nextSuspicion) }
  }

  /// The next point in time at which `onTimers` has something to do.
  public var nextWake: Instant? {
    var earliest = earliestDeadline
    switch phase {
    case .idle, .closed, .refused: break
    case .locating(_, let asked, _): earliest = min(earliest, asked + locateTimeout)
    case .greeting: earliest = min(earliest, nextDoubt)
    case .waiting(let until): earliest = min(earliest, until)
    case .serving:
      earliest = min(earliest, earliestRetry)
      if pingSentAt == nil { earliest = min(earliest, pingAt) }
      earliest = min(earliest, nextDoubt)
      for follower in followers.values { if let wake = follower.nextWake { earliest = min(earliest, wake) } }
    }
    return earliest == .distantFuture ? nil : earliest
  }

  /// When the router is to be asked about the master, for the first time or again.
  private var nextDoubt: Instant { suspectSince.map { $0 + locateTimeout } ?? suspectAt ?? .distantFuture }

  // MARK: The program's side

  /// Begins: finds a master and logs in.
  public mutating func start(at now: Instant, into actions: inout [ClientAction]) {
    guard case .idle = phase else { return }
    if let fault = TextRules.fault(inName: user) {
      refuseLogin(Refusal(.invalidText, "the name is refused: \(fault.explanation)"), into: &actions)
      return
    }
    if let password, let fault = Self.fault(inAnyPassword: password) {
      refuseLogin(Refusal(.invalidText, "the password is refused: \(fault.explanation)"), into: &actions)
      return
    }
    guard nextProof != nil else {
      refuseLogin(Refusal(.credentials, "a password is needed"), into: &actions)
      return
    }
    locate(suspect: nil, at: now, into: &actions)
  }

  /// What the next Hello says.
  private var nextProof: Proof? {
    if let token { return .token(token) }
    return (password ?? newPassword).map { .password($0) }
  }

  /// A request. It ends with `finish`, at the latest at `deadline`; at once if more are under way than a master takes.
  public mutating func submit(
    _ body: Request.Body, token: ClientToken, deadline: Instant, at now: Instant, into actions: inout [ClientAction]
  ) {
    if let outcome = outcomeAtOnce {
      actions.append(.finish(token, outcome))
      return
    }
    guard pending.count < Limits.requestsInFlight else {
      let refusal = Refusal(.limit, "too many requests under way in this client", retryAfter: 50)
      actions.append(.finish(token, .reply(.refused(refusal))))
      return
    }
    // Masters recognise a repeat among the newest `repeatWindow` numbers only: an unanswered request must not fall out of there
    // because others have overtaken it.
    if Self.mayTakeEffect(body), nextNumber - oldestPendingEffect() >= Limits.repeatWindow {
      let refusal = Refusal(.limit, "too many requests since one that is still under way", retryAfter: 50)
      actions.append(.finish(token, .reply(.refused(refusal))))
      return
    }
    if let refusal = Self.refusal(of: body) {
      actions.append(.finish(token, .reply(.refused(refusal))))
      return
    }
    let latest = min(deadline, now + Limits.requestLifetime)
    enqueue(Pending(token: token, follower: nil, body: body, deadline: latest), at: now, into: &actions)
  }

  private static func mayTakeEffect(_ body: Request.Body) -> Bool {
    switch body {
    case .hello, .list, .timeline, .watch, .unwatch, .ping, .bye: return false
    default: return true
    }
  }

  /// The number of the oldest unanswered request that may take effect; the next number, if there is none.
  private mutating func oldestPendingEffect() -> UInt64 {
    while oldestEffect < nextNumber, pending[oldestEffect].map({ Self.mayTakeEffect($0.body) }) != true {
      oldestEffect += 1
    }
    return oldestEffect
  }

  /// What no master would take. Found here, because a master drops the connection of whoever sends more than
  /// `Limits.requestBytes`, and a request that ends every connection would be repeated on each next one.
  private static func refusal(of body: Request.Body) -> Refusal? {
    switch body {
    case .post(let text):
      return TextRules.fault(inPost: text).map { Refusal(.invalidText, "the post is refused: \($0.explanation)") }
    case .follow(let name), .unfollow(let name): return refusal(ofName: name)
    case .timeline(let query): return refusal(of: query.timeline)
    case .watch(let timeline): return refusal(of: timeline)
    case .changePassword(let change):
      if fault(inAnyPassword: change.old) != nil { return Refusal(.credentials, "the old password is wrong") }
      return TextRules.fault(inPassword: change.new).map {
        Refusal(.invalidText, "the new password is refused: \($0.explanation)")
      }
    case .hello, .list, .unwatch, .logout, .ping, .bye: return nil
    }
  }

  /// What is wrong with a password that is to be proved: no account can have one that is too long. All else is for the master to
  /// judge, to whom a wrong one is just that.
  private static func fault(inAnyPassword password: Password) -> TextFault? {
    guard let fault = TextRules.fault(inPassword: password), case .tooLong = fault else { return nil }
    return fault
  }

  private static func refusal(of timeline: TimelineName) -> Refusal? {
    if case .author(let name) = timeline { return refusal(ofName: name) } else { return nil }
  }

  private static func refusal(ofName name: String) -> Refusal? {
    TextRules.fault(inName: name).map { _ in Refusal(.unknownUser, "there is no user named \(quoted(name))") }
  }

  /// What becomes of everything that is asked of a client that has ended.
  private var outcomeAtOnce: ClientOutcome? {
    switch phase {
    case .refused(let refusal): .loginRefused(refusal)
    case .closed: .closed
    case .idle, .locating, .greeting, .serving, .waiting: nil
    }
  }

  /// Watches a timeline from a log position: everything after it is shown, then what comes, until `unwatch`; or until it ends
  /// with `finish`, because the master refuses it for good, or the client ends.
  public mutating func watch(
    _ name: TimelineName, after cursor: EventID, token: ClientToken, at now: Instant,
    into actions: inout [ClientAction]
  ) {
    if let outcome = outcomeAtOnce {
      actions.append(.finish(token, outcome))
      return
    }
    if let refusal = Self.refusal(of: name) {
      actions.append(.finish(token, .reply(.refused(refusal))))
      return
    }
    if followers.isEmpty { lastPing = now }
    followers[token] = TimelineFollower(name: name, cursor: cursor)
    newest = max(newest, cursor)
    if case .serving = phase { askToWatch(token, at: now, into: &actions) }
  }

  public mutating func unwatch(_ token: ClientToken, at now: Instant, into actions: inout [ClientAction]) {
    guard let follower = followers.removeValue(forKey: token) else { return }
    for (number, request) in pending where request.follower == token {
      // The answer to a Watch tells which topic is to be given up.
      if case .watch = request.body, request.timesSent > 0 {
        pending[number]!.follower = nil
      } else {
        pending[number] = nil
      }
    }
    dropAnswered()
    // Another watch of the same timeline has the same topic, or is about to get it.
    guard let topic = follower.topic,
      !followers.values.contains(where: { $0.topic == topic || $0.name == follower.name })
    else { return }
    actions.append(.unsubscribe(topic))
    giveUp(topic, at: now, into: &actions)
  }

  private mutating func giveUp(_ topic: Topic, at now: Instant, into actions: inout [ClientAction]) {
    enqueue(
      Pending(token: nil, follower: nil, body: .unwatch(topic), deadline: now + timing.requestTimeout), at: now,
      into: &actions)
  }

  /// Ends: says goodbye to the master; requests under way end as `closed`.
  public mutating func close(into actions: inout [ClientAction]) {
    if case .closed = phase { return }
    if case .serving = phase {
      nextNumber += 1
      actions.append(.send(Request(number: nextNumber - 1, body: .bye)))
    }
    if contact != nil { actions.append(.disconnect) }
    phase = .closed
    endAll(.closed, into: &actions)
  }

  private mutating func endAll(_ outcome: ClientOutcome, into actions: inout [ClientAction]) {
    let ended = pending.sorted { $0.key < $1.key }
    pending = [:]
    sent.removeAll()
    earliestDeadline = .distantFuture
    for (_, request) in ended { if let token = request.token { actions.append(.finish(token, outcome)) } }
    for token in followers.keys { actions.append(.finish(token, outcome)) }
    followers = [:]
  }

  private mutating func enqueue(_ request: Pending, at now: Instant, into actions: inout [ClientAction]) {
    let number = nextNumber
    nextNumber += 1
    if pending.isEmpty { busySince = now }
    pending[number] = request
    earliestDeadline = min(earliestDeadline, request.deadline)
    if case .serving = phase { send(number, at: now, into: &actions) }
  }

  private mutating func send(_ number: UInt64, at now: Instant, into actions: inout [ClientAction]) {
    guard let body = pending[number]?.body else { return }
    pending[number]!.timesSent += 1
    pending[number]!.retryAt = nil
    if case .changePassword(let change) = body { newPassword = change.new }
    sent.append((number, now))
    actions.append(.send(Request(number: number, body: body)))
  }

  /// Ends a pending request; what was sent first of the rest comes to the front of `sent`.
  private mutating func removePending(_ number: UInt64) -> Pending? {
    let request = pending.removeValue(forKey: number)
    dropAnswered()
    return request
  }

  private mutating func dropAnswered() {
    while let first = sent.first, pending[first.number] == nil { sent.removeFirst() }
  }

  // MARK: Time

  /// Deadlines that have come.
  public mutating func onTimers(at now: Instant, into actions: inout [ClientAction]) {
    if earliestDeadline <= now { endLateRequests(at: now, into: &actions) }
    switch phase {
    case .idle, .closed, .refused: break
    case .locating(let since, let asked, let suspect):
      guard asked + locateTimeout <= now else { break }
      if let suspect, now < since + suspectTimeout {
        phase = .locating(since: since, asked: now, suspect: suspect)
        ask(about: suspect, into: &actions)
      } else {
        wait(atLeast: nil, at: now, into: &actions)
      }
    case .greeting: doubtMaster(at: now, into: &actions)
    case .waiting(let until):
      if until <= now { locate(suspect: failedMaster, at: now, into: &actions) }
    case .serving:
      checkMaster(at: now, into: &actions)
      guard case .serving = phase else { return }
      if earliestRetry <= now { sendRetries(at: now, into: &actions) }
      for (token, follower) in followers {
        guard let wake = follower.nextWake, wake <= now else { continue }
        let orders = followers[token]!.onTimer(at: now)
        carryOut(orders, of: token, at: now, into: &actions)
      }
    }
  }

  private mutating func endLateRequests(at now: Instant, into actions: inout [ClientAction]) {
    let late = pending.filter { $0.value.deadline <= now }.sorted { $0.key < $1.key }
    for (number, _) in late {
      guard let request = removePending(number) else { continue }
      if let token = request.token {
        actions.append(.finish(token, .timedOut(mayHaveHappened: request.timesSent > 0)))
      } else if let token = request.follower {
        retryFollower(token, at: now, into: &actions)
      }
    }
    earliestDeadline = pending.values.map(\.deadline).min() ?? .distantFuture
  }

  private mutating func sendRetries(at now: Instant, into actions: inout [ClientAction]) {
    let due = pending.filter { $0.value.retryAt.map { $0 <= now } ?? false }
    for number in due.keys.sorted() { send(number, at: now, into: &actions) }
    earliestRetry = pending.values.compactMap(\.retryAt).min() ?? .distantFuture
  }

  /// The master has no room for a request, and did nothing: it is sent again after a growing, jittered pause, if there is
  /// time; returns whether.
  private mutating func retryLater(
    _ number: UInt64, _ request: Pending, _ refusal: Refusal, at now: Instant
  ) -> Bool {
    var request = request
    let growth = Interval.milliseconds(10) * (1 << min(Int64(request.timesLimited), 7))
    let least = max(.milliseconds(Int64(refusal.retryAfter)), growth)
    let jitter = Interval(nanoseconds: Int64.random(in: 0...(least.nanoseconds / 2), using: &random))
    let time = now + least + jitter
    guard time < request.deadline else { return false }
    request.timesSent -= 1
    request.timesLimited += 1
    request.retryAt = time
    pending[number] = request
    earliestRetry = min(earliestRetry, time)
    sent.removeAll { $0.number == number }
    return true
  }

  private mutating func checkMaster(at now: Instant, into actions: inout [ClientAction]) {
    if pingSentAt == nil, pingAt <= now {
      pingSentAt = now
      lastPing = now
      nextNumber += 1
      actions.append(.send(Request(number: nextNumber - 1, body: .ping)))
    }
    doubtMaster(at: now, into: &actions)
  }

  /// Asks the router about a master that should have said something. Meanwhile the connection stays: it may only have much to do, and
  /// if everybody whom it keeps waiting came anew, it would have more.
  private mutating func doubtMaster(at now: Instant, into actions: inout [ClientAction]) {
    if let since = suspectSince {
      if since + locateTimeout <= now { askAboutSuspect(at: now, into: &actions) }
    } else if let suspectAt, suspectAt <= now {
      // Two silences are no failure yet: a master that the router finds healthy is more often slow than cut off, and whoever connects anew
      // makes it slower. When thousands come at once, their handshakes take seconds. But where a connection was lost before, one is enough.
      let hasFailed = failures > 0 && failedMaster == contact?.master
      if suspicionDelay > (hasFailed ? .zero : timing.liveness) { countFailure() }
      suspicionDelay = min(max(timing.liveness, suspicionDelay * 2), .seconds(5))
      nextSuspicion = now + suspicionDelay
      askAboutSuspect(at: now, into: &actions)
    }
  }

  private mutating func countFailure() {
    failures = failedMaster == contact?.master ? failures + 1 : 1
    failedMaster = contact?.master
  }

  private mutating func askAboutSuspect(at now: Instant, into actions: inout [ClientAction]) {
    if suspectSince == nil { locateNumber += 1 }
    suspectSince = now
    ask(about: contact?.master, into: &actions)
  }

  private func ask(about suspect: MasterIdentity?, into actions: inout [ClientAction]) {
    actions.append(
      .toRouter(.locate(Locate(number: locateNumber, user: user, suspect: suspect, failures: failures))))
  }

  // MARK: The router's side

  /// Something came from the router.
  public mutating func onRouter(_ reply: RouterReply, at now: Instant, into actions: inout [ClientAction]) {
    switch reply {
    case .located(let number, let found):
      guard number == locateNumber else { return }
      switch phase {
      case .locating:
        greet(found, at: now, into: &actions)
      case .greeting where suspectSince != nil:
        suspectSince = nil
        nextSuspicion = now + suspicionDelay
        // The router finds it healthy: it is given more time, each time more. At last the connection may be what is wrong.
        if found.master == contact?.master, failures < Limits.failuresAtMaster { return }
        greet(found, at: now, into: &actions)
      case .serving where suspectSince != nil:
        suspectSince = nil
        if found.master == contact?.master, failures < Limits.failuresAtMaster {
          // The router finds it healthy. Stay, for a growing time; but not for ever: the way to it may have been lost without a word.
          nextSuspicion = now + suspicionDelay
          return
        }
        noteLoss(.noAnswer, at: now, into: &actions)
        greet(found, at: now, into: &actions)
      default: return
      }
    case .unavailable(let number, let retryAfter):
      guard number == locateNumber else { return }
      switch phase {
      case .locating: wait(atLeast: .milliseconds(Int64(retryAfter)), at: now, into: &actions)
      case .serving where suspectSince != nil:
        // There is no other master, or the router has just been started. This one may yet answer; and a session is not given up for nothing.
        suspectSince = nil
        nextSuspicion = now + max(.milliseconds(Int64(retryAfter)), min(suspicionDelay / 2, .seconds(1)))
      case .greeting where suspectSince != nil:
        leave(.noAnswer, at: now, into: &actions)
        wait(atLeast: .milliseconds(Int64(retryAfter)), at: now, into: &actions)
      default: return
      }
    case .refused(let number, let refusal):
      guard number == locateNumber, case .locating = phase else { return }
      wait(atLeast: .milliseconds(Int64(refusal.retryAfter)), at: now, into: &actions)
    case .status, .roster, .probe, .registerAgain:
      return  // not for clients
    }
  }

  private mutating func locate(suspect: MasterIdentity?, at now: Instant, into actions: inout [ClientAction]) {
    phase = .locating(since: now, asked: now, suspect: suspect)
    locateNumber += 1
    ask(about: suspect, into: &actions)
  }

  private mutating func greet(_ found: MasterContact, at now: Instant, into actions: inout [ClientAction]) {
    contact = found
    actions.append(.connect(found))
    sayHello(at: now, into: &actions)
  }

  private mutating func sayHello(at now: Instant, into actions: inout [ClientAction]) {
    phase = .greeting(since: now)
    helloNumber = nextNumber
    nextNumber += 1
    let hello = Hello(
      client: client, user: user, register: register && !hasServed, newest: newest, proof: nextProof,
      takesDoneEach: true)
    actions.append(.send(Request(number: helloNumber, body: .hello(hello))))
  }

  /// The proof given is no good. Says Hello with the next one, if there is one.
  private mutating func forgetProof(_ refusal: Refusal, at now: Instant, into actions: inout [ClientAction]) {
    suspectSince = nil
    trust()
    if token != nil {
      token = nil
    } else if password != nil {
      password = nil
    } else {
      newPassword = nil
    }
    if nextProof == nil {
      contact = nil
      actions.append(.disconnect)
      refuseLogin(refusal, into: &actions)
    } else {
      sayHello(at: now, into: &actions)
    }
  }

  /// No master is to be had: wait with a growing, jittered pause, at least as long as the router says.
  private mutating func wait(atLeast least: Interval?, at now: Instant, into actions: inout [ClientAction]) {
    attempts += 1
    let ceiling: Interval = min(.seconds(2), Interval.milliseconds(20) * (1 << min(attempts, 10)))
    let jitter = Interval(nanoseconds: Int64.random(in: 0...(ceiling.nanoseconds / 2), using: &random))
    let pause = max(least ?? .zero, ceiling / 2) + jitter
    phase = .waiting(until: now + pause)
    // The first few tries are the ordinary course of a failover, not news.
    if attempts == 3 || attempts > 3 && attempts % 8 == 0 { actions.append(.note(.waiting(pause))) }
  }

  // MARK: The master's side

  /// The connection to the master is lost, or could not be made.
  public mutating func onDisconnected(at now: Instant, into actions: inout [ClientAction]) {
    switch phase {
    case .greeting, .serving: lose(.connectionLost, at: now, into: &actions)
    case .idle, .locating, .waiting, .refused, .closed: break
    }
  }

  /// Gives the master up, and asks the router for one that lives.
  private mutating func lose(
    _ cause: ClientNote.LossCause, waiting least: Interval? = nil, at now: Instant, into actions: inout [ClientAction]
  ) {
    let suspect: MasterIdentity?
    switch cause {
    case .connectionLost, .noAnswer:
      suspect = contact?.master
      countFailure()
    case .goodbye, .refused:
      // It knows best; the router knows or will know.
      suspect = nil
      trust()
    }
    leave(cause, at: now, into: &actions)
    if cause == .refused || failures > 1 {
      wait(atLeast: least, at: now, into: &actions)
    } else {
      locate(suspect: suspect, at: now, into: &actions)
    }
  }

  private mutating func leave(
    _ cause: ClientNote.LossCause, at now: Instant, into actions: inout [ClientAction]
  ) {
    noteLoss(cause, at: now, into: &actions)
    actions.append(.disconnect)
    contact = nil
  }

  private mutating func noteLoss(
    _ cause: ClientNote.LossCause, at now: Instant, into actions: inout [ClientAction]
  ) {
    for token in followers.keys { followers[token]!.reset() }
    // What the followers asked is asked anew, and their topics are gone; only the program's requests are repeated.
    pending = pending.filter { $0.value.token != nil }
    sent.removeAll()
    pingSentAt = nil
    suspectSince = nil
    nextSuspicion = .zero
    suspicionDelay = .zero
    if case .serving = phase, let contact {
      lostAt = now
      actions.append(.note(.lost(master: contact.master.name, cause)))
    }
  }

  /// An answer of the master.
  public mutating func onReply(_ reply: Reply, at now: Instant, into actions: inout [ClientAction]) {
    switch phase {
    case .greeting: onGreeting(reply, at: now, into: &actions)
    case .serving:
      guard case .doneEach(let all) = reply.body else {
        onAnswer(reply, at: now, into: &actions)
        return
      }
      for done in all { onAnswer(Reply(number: done.number, body: .done(done.event)), at: now, into: &actions) }
    case .idle, .locating, .waiting, .refused, .closed: break  // from a master given up
    }
  }

  private mutating func onGreeting(_ reply: Reply, at now: Instant, into actions: inout [ClientAction]) {
    switch reply.body {
    case .goodbye:
      lose(.goodbye, at: now, into: &actions)
    case .welcome(let welcome) where reply.number == helloNumber:
      phase = .serving
      lastHeard = now
      newest = max(newest, welcome.head)
      if token == nil, password == nil {
        password = newPassword
        newPassword = nil
      }
      if let granted = welcome.token {
        token = granted
        actions.append(.keep(granted))
      }
      suspectSince = nil
      trust()
      attempts = 0
      let pause = lostAt.map { now - $0 }
      lostAt = nil
      actions.append(
        .note(.serving(master: welcome.master.name, isNew: welcome.isNew && !hasServed, pause: hasServed ? pause : nil))
      )
      hasServed = true
      busySince = now
      lastPing = now
      for number in pending.keys.sorted() { send(number, at: now, into: &actions) }
      earliestRetry = .distantFuture
      for token in followers.keys { askToWatch(token, at: now, into: &actions) }
    case .refused(let refusal) where reply.number == helloNumber:
      switch refusal.code {
      case .unavailable, .noSession, .limit, .storage, .notExists, .alreadyExists, .tooOld:
        lose(.refused, waiting: .milliseconds(Int64(refusal.retryAfter)), at: now, into: &actions)
      case .credentials:
        forgetProof(refusal, at: now, into: &actions)
      case .tooManyAttempts where hasServed:
        // Somebody else is at it; this client has been let in before.
        lose(.refused, waiting: .milliseconds(Int64(refusal.retryAfter)), at: now, into: &actions)
      case .invalid, .unknownUser, .invalidText, .version, .tooManyAttempts:
        contact = nil
        actions.append(.disconnect)
        refuseLogin(refusal, into: &actions)
      }
    default: break
    }
  }

  private mutating func refuseLogin(_ refusal: Refusal, into actions: inout [ClientAction]) {
    phase = .refused(refusal)
    actions.append(.note(.loginRefused(refusal)))
    endAll(.loginRefused(refusal), into: &actions)
  }

  private mutating func onAnswer(_ reply: Reply, at now: Instant, into actions: inout [ClientAction]) {
    lastHeard = now
    pingSentAt = nil
    if case .goodbye = reply.body {
      lose(.goodbye, at: now, into: &actions)
      return
    }
    if case .pong(let pong) = reply.body {
      for (token, follower) in followers {
        guard let topic = follower.topic else { continue }
        if let position = pong.topics.first(where: { $0.topic == topic }) {
          followers[token]!.onPosition(position.sequence, at: now)
        } else {
          // The master does not know that this session watches it: nothing would ever come.
          followers[token]!.reset()
          askToWatch(token, at: now, into: &actions)
        }
      }
      if sent.isEmpty { trust() }
    }
    if case .refused(let refusal) = reply.body {
      if refusal.code == .noSession {
        // It forgot us, perhaps because it was frozen for long: log in again, on a new connection.
        lose(.goodbye, at: now, into: &actions)
        return
      }
      if refusal.code == .unavailable {
        lose(.refused, waiting: .milliseconds(Int64(refusal.retryAfter)), at: now, into: &actions)
        return
      }
    }
    let isOldest = sent.first?.number == reply.number
    guard let request = removePending(reply.number) else { return }  // answered before, or given up
    if isOldest { trust() }
    if case .done(let id) = reply.body { newest = max(newest, id) }
    if case .page(let page) = reply.body { newest = max(newest, page.upTo) }
    if case .changePassword(let change) = request.body { onPasswordChange(change, reply.body) }
    if let token = request.follower {
      onFollowerReply(reply.body, to: request.body, of: token, at: now, into: &actions)
    } else if let token = request.token {
      if case .refused(let refusal) = reply.body, refusal.code == .limit, refusal.retryAfter > 0,
        retryLater(reply.number, request, refusal, at: now)
      {
        return
      }
      if case .refused(let refusal) = reply.body, refusal.code == .storage || refusal.code == .limit,
        request.timesSent > 1
      {
        // This master did nothing now. A former one may have done it, or, hung with the request in its queue, may do it yet when it wakes.
        actions.append(.finish(token, .timedOut(mayHaveHappened: true)))
      } else {
        actions.append(.finish(token, .reply(reply.body)))
      }
    } else if case .watch(let name) = request.body, case .watching(let watching) = reply.body {
      // Nobody wants it any more, unless it was asked for again meanwhile.
      if !followers.values.contains(where: { $0.name == name || $0.topic == watching.topic }) {
        giveUp(watching.topic, at: now, into: &actions)
      }
    }
  }

  private mutating func onPasswordChange(_ change: PasswordChange, _ answer: Reply.Body) {
    switch answer {
    case .done:
      // The token is of the old password's time.
      token = nil
      password = change.new
      newPassword = nil
    case .refused(let refusal) where refusal.code != .limit && refusal.code != .storage: newPassword = nil
    default: break
    }
  }

  /// What the master was suspected for is over: the next suspicion is the first again.
  private mutating func trust() {
    suspectSince = nil
    failures = 0
    failedMaster = nil
    suspicionDelay = .zero
    nextSuspicion = .zero
  }

  // MARK: Watched timelines

  private mutating func askToWatch(_ token: ClientToken, at now: Instant, into actions: inout [ClientAction]) {
    guard let follower = followers[token] else { return }
    enqueue(
      Pending(token: nil, follower: token, body: .watch(follower.name), deadline: now + timing.requestTimeout * 2),
      at: now, into: &actions)
  }

  /// A follower's request got no answer or a refusal: it is asked again while the follower needs it.
  private mutating func retryFollower(_ token: ClientToken, at now: Instant, into actions: inout [ClientAction]) {
    guard case .serving = phase, let follower = followers[token] else { return }
    switch follower.phase {
    case .unsubscribed: askToWatch(token, at: now, into: &actions)
    case .repairing: carryOut(followers[token]!.onPageFailed(), of: token, at: now, into: &actions)
    case .subscribing, .live: break
    }
  }

  private mutating func onFollowerReply(
    _ body: Reply.Body, to request: Request.Body, of token: ClientToken, at now: Instant,
    into actions: inout [ClientAction]
  ) {
    switch body {
    case .watching(let watching):
      followers[token]?.onWatching(watching)
      actions.append(.subscribe(watching.topic))
    case .page(let page):
      guard let orders = followers[token]?.onPage(page) else { return }
      carryOut(orders, of: token, at: now, into: &actions)
    case .refused(let refusal):
      if refusal.retryAfter > 0 {
        // Asked again when it is time: a request of its own keeps the deadline.
        let time = now + .milliseconds(Int64(refusal.retryAfter))
        pending[nextNumber] = Pending(token: nil, follower: token, body: .ping, deadline: time)
        earliestDeadline = min(earliestDeadline, time)
        nextNumber += 1
      } else {
        followers[token] = nil
        actions.append(.finish(token, .reply(body)))
      }
    default: break
    }
  }

  /// An update came on a topic.
  public mutating func onUpdate(_ update: Update, at now: Instant, into actions: inout [ClientAction]) {
    guard case .serving = phase else { return }
    lastHeard = now
    pingSentAt = nil
    for (token, follower) in followers where follower.topic == update.topic {
      let orders = followers[token]!.onUpdate(sequence: update.sequence, posts: update.posts)
      carryOut(orders, of: token, at: now, into: &actions)
    }
  }

  private mutating func carryOut(
    _ orders: [TimelineFollower.Order], of token: ClientToken, at now: Instant, into actions: inout [ClientAction]
  ) {
    for order in orders {
      switch order {
      case .show(let posts):
        newest = max(newest, posts.last?.id ?? .zero)
        actions.append(.show(token, posts))
      case .read(let position):
        guard let follower = followers[token] else { continue }
        let query = TimelineQuery(timeline: follower.name, range: .after(position), limit: 0)
        enqueue(
          Pending(
            token: nil, follower: token, body: .timeline(query), deadline: now + timing.requestTimeout * 2),
          at: now, into: &actions)
      }
    }
  }
}
