// How a master lets somebody in: proofs, passwords, tokens, and what ends sessions before their time.
//
// A Hello with a token is answered at once: the shell has opened it, and the core looks whether it is still good. A password
// goes to the thread that hashes, and comes back right or wrong. Nobody can tell an unknown name from a wrong password, by the
// words or by the time: both are hashed, and after both the log is read once before the refusal, for the name or the password
// may be newer than this master.

public import Model

/// Names a job of the thread that hashes passwords until it is answered.
public struct PasswordJobID: Hashable, Comparable, Sendable {
  public var rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public static func < (left: PasswordJobID, right: PasswordJobID) -> Bool { left.rawValue < right.rawValue }
}

/// Work for the thread that hashes passwords.
public enum PasswordJob: Hashable, Sendable {
  /// Whether this is the password that was hashed. Nil: there is none. That takes as long as another, and is wrong.
  case verify(Password, PasswordHash?)
  case hash(Password)
}

/// What became of it.
public enum PasswordOutcome: Hashable, Sendable {
  case right
  case wrong
  case hashed(PasswordHash)
  /// Not enough memory.
  case failed(String)
}

extension MasterCore {
  /// A Hello on its way to a session.
  struct Login: Sendable {
    var peer: PeerID
    var number: UInt64
    var hello: Hello
    var address: PeerAddress
    /// What the token says, if it is one of ours.
    var claims: TokenClaims?
    /// When it came.
    var wall: Timestamp
    /// Everything that was in the log when it came is known.
    var hasReadLog = false
    /// The password was wrong for this credential; nil in it: for no account.
    var failedFor: Credential??
  }

  /// What the thread that hashes is at.
  struct Hashing: Sendable {
    enum Purpose: Sendable {
      /// For this credential; nil: for no account.
      case login(Login, Credential?)
      case registration(Login)
      /// The old password is looked at.
      case change(new: Password)
      /// The new one is hashed.
      case newPassword
    }
    var purpose: Purpose
    var peer: PeerID
    var number: UInt64
    var client: ClientID
    var account: AccountID
    var address: PeerAddress
  }

  // MARK: Hello

  /// A client's Hello.
  ///
  /// - Parameters:
  ///   - address: where the connection comes from.
  ///   - claims: what the token in it says; nil if there is none, or it is none of this cluster's.
  public mutating func onHello(
    _ hello: Hello, number: UInt64, from peer: PeerID, address: PeerAddress, claims: TokenClaims?, at now: Instant,
    wall: Timestamp, into actions: inout [MasterAction]
  ) {
    guard case .serving = phase else {
      refuse(number, peer, .unavailable, "not serving", into: &actions)
      return
    }
    guard hello.version == Hello.currentVersion else {
      refuse(
        number, peer, .version, "protocol version \(hello.version) is not spoken here; \(Hello.currentVersion) is",
        into: &actions)
      return
    }
    if let fault = TextRules.fault(inName: hello.user) {
      refuse(number, peer, .invalidText, "the name is refused: \(fault.explanation)", into: &actions)
      return
    }
    let login = Login(peer: peer, number: number, hello: hello, address: address, claims: claims, wall: wall)
    guard let proof = hello.proof else {
      refuseCredentials(of: login, into: &actions)
      return
    }
    guard held.count < limits.sessions else {
      refuse(number, peer, .limit, "too many logins are waiting", retryAfter: 500, into: &actions)
      return
    }
    if case .password = proof {
      if let refusal = beginAttempt(hello.user, from: address, at: now) {
        reply(.refused(refusal), number, peer, into: &actions)
        return
      }
    }
    guard beginRequest(number, of: peer, into: &actions) else {
      forgiveAttempt(login, at: now)
      return
    }
    // Answers must not be older than what the client has seen.
    if hello.newest > state.head { hold(login, into: &actions) } else { goOn(login, at: now, into: &actions) }
  }

  /// Waits until what is in the log now has been read.
  private mutating func hold(_ login: Login, into actions: inout [MasterAction]) {
    held.append((login, catchUpsBegun))
    catchUp(into: &actions)
  }

  /// The log was read to its end: those go on who came before that was begun.
  mutating func releaseHeld(at now: Instant, into actions: inout [MasterAction]) {
    let waiting = held
    held = []
    for (login, since) in waiting {
      // Having read everything after it came, the master knows all that the client can know.
      if since < catchUpsBegun {
        var login = login
        login.hasReadLog = true
        goOn(login, at: now, into: &actions)
      } else if login.failedFor == nil, login.hello.newest <= state.head {
        goOn(login, at: now, into: &actions)
      } else {
        held.append((login, since))
      }
    }
  }

  mutating func refuseHeld(_ reason: String, at now: Instant, into actions: inout [MasterAction]) {
    let waiting = held
    held = []
    for (login, _) in waiting { end(login, refusal: Refusal(.unavailable, reason), at: now, into: &actions) }
  }

  private mutating func goOn(_ login: Login, at now: Instant, into actions: inout [MasterAction]) {
    switch login.hello.proof {
    case .token: goOnWithToken(login, at: now, into: &actions)
    case .password(let password): goOn(login, with: password, at: now, into: &actions)
    case nil: preconditionFailure("a login without a proof goes on")
    }
  }

  private mutating func goOnWithToken(_ login: Login, at now: Instant, into actions: inout [MasterAction]) {
    let refusal = Refusal(.credentials, "the login is no longer good: the password is needed")
    guard let claims = login.claims, claims.expires > login.wall else {
      end(login, refusal: refusal, at: now, into: &actions)
      return
    }
    if let account = state.account(named: login.hello.user), isGood(claims, for: account) {
      endRequest(of: login.peer)
      admit(login, as: account, isNew: false, at: now, into: &actions)
    } else if !login.hasReadLog {
      hold(login, into: &actions)
    } else {
      end(login, refusal: refusal, at: now, into: &actions)
    }
  }

  private func isGood(_ claims: TokenClaims, for account: AccountID) -> Bool {
    switch claims.holder {
    case .operatorOfCluster: return true
    case .account(let owner, let generation):
      return owner == account && state.credentials[account.index].generation == generation
        && !state.isRevoked(claims.id, of: account)
    }
  }

  private mutating func goOn(
    _ login: Login, with password: Password, at now: Instant, into actions: inout [MasterAction]
  ) {
    let hello = login.hello
    let account = state.account(named: hello.user)
    let credential = account.map { state.credentials[$0.index] }
    if account == nil, hello.register {
      if let fault = TextRules.fault(inPassword: password) {
        let refusal = Refusal(.invalidText, "the password is refused: \(fault.explanation)")
        end(login, refusal: refusal, at: now, into: &actions)
      } else if isForeign(hello.client, to: nil) {
        end(login, refusal: foreignClient, at: now, into: &actions)
      } else {
        hash(.hash(password), for: .registration(login), of: login, at: now, into: &actions)
      }
      return
    }
    if let failedFor = login.failedFor, failedFor == credential {
      // Still the same: it was wrong, not new.
      endRequest(of: login.peer)
      endAttempt(hello.user, from: login.address)
      refuseCredentials(of: login, into: &actions)
      return
    }
    hash(.verify(password, credential?.hash), for: .login(login, credential), of: login, at: now, into: &actions)
  }

  private mutating func hash(
    _ job: PasswordJob, for purpose: Hashing.Purpose, of login: Login, at now: Instant,
    into actions: inout [MasterAction]
  ) {
    guard hashing.count < rules.passwordsWaiting else {
      let refusal = Refusal(.limit, "too many logins are waiting", retryAfter: 1_000)
      end(login, refusal: refusal, at: now, into: &actions)
      return
    }
    start(
      job,
      Hashing(
        purpose: purpose, peer: login.peer, number: login.number, client: login.hello.client,
        account: AccountID(.max), address: login.address), into: &actions)
  }

  private mutating func start(_ job: PasswordJob, _ hashing: Hashing, into actions: inout [MasterAction]) {
    lastPasswordJob += 1
    let id = PasswordJobID(lastPasswordJob)
    self.hashing[id] = hashing
    actions.append(.password(id, job))
  }

  /// A password was hashed, or looked at.
  public mutating func onPassword(
    _ id: PasswordJobID, _ outcome: PasswordOutcome, at now: Instant, into actions: inout [MasterAction]
  ) {
    // What was under way when the server was told to stop is answered already.
    guard let job = hashing.removeValue(forKey: id) else { return }
    switch (job.purpose, outcome) {
    case (.login(let login, _), .failed(let reason)), (.registration(let login), .failed(let reason)):
      let refusal = Refusal(.limit, "the password can't be looked at now: \(reason)", retryAfter: 1_000)
      end(login, refusal: refusal, at: now, into: &actions)
    case (.login(let login, let credential), .right):
      guard let account = state.account(named: login.hello.user), state.credentials[account.index] == credential else {
        // Changed meanwhile.
        goOn(login, at: now, into: &actions)
        return
      }
      endRequest(of: login.peer)
      forgiveAttempt(login, at: now)
      admit(login, as: account, isNew: false, at: now, into: &actions)
    case (.login(var login, let credential), .wrong):
      login.failedFor = .some(credential)
      if login.hasReadLog { goOn(login, at: now, into: &actions) } else { hold(login, into: &actions) }
    case (.registration(let login), .hashed(let hash)):
      guard requestsWaiting < Limits.requestsWaiting else {
        let refusal = Refusal(.limit, "too many requests are waiting", retryAfter: 100)
        end(login, refusal: refusal, at: now, into: &actions)
        return
      }
      waiting.append(
        Waiting(
          peer: login.peer, number: login.number, client: login.hello.client, account: AccountID(.max),
          work: .register(login, hash)))
    case (.change, _), (.newPassword, _): onPassword(of: job, outcome, at: now, into: &actions)
    case (.login, .hashed), (.registration, .right), (.registration, .wrong):
      preconditionFailure("a password job got another's answer")
    }
  }

  /// What a registration has come to.
  mutating func finishRegistration(
    _ login: Login, _ answer: Batch.Answer, at now: Instant, into actions: inout [MasterAction]
  ) {
    switch answer {
    case .refused(let refusal): end(login, refusal: refusal, at: now, into: &actions)
    case .done:
      guard let account = state.account(named: login.hello.user) else {
        preconditionFailure("the account \(login.hello.user) was created, and is not there")
      }
      endRequest(of: login.peer)
      forgiveAttempt(login, at: now)
      admit(login, as: account, isNew: true, at: now, into: &actions)
    case .lookUp: preconditionFailure("a registration is looked up")
    case .exists:
      // Somebody was faster; it may have been another person.
      if isServing {
        goOn(login, at: now, into: &actions)
      } else {
        end(login, refusal: Refusal(.unavailable, "the server stops"), at: now, into: &actions)
      }
    }
  }

  // MARK: In, or not

  /// Opens the session of an account that exists.
  private mutating func admit(
    _ login: Login, as account: AccountID, isNew: Bool, at now: Instant, into actions: inout [MasterAction]
  ) {
    let (hello, peer, number) = (login.hello, login.peer, login.number)
    guard !isForeign(hello.client, to: account) else {
      reply(.refused(foreignClient), number, peer, into: &actions)
      return
    }
    // The same connection again, or the same client on a new one: the old session goes.
    closeQuietly(peer)
    if let former = peersByClient[hello.client] { closeQuietly(former) }
    guard sessions.count < limits.sessions else {
      refuse(number, peer, .limit, "too many sessions at this server", retryAfter: 1_000, into: &actions)
      return
    }
    guard sessionsByAccount[account, default: 0] < limits.sessionsPerAccount else {
      refuse(number, peer, .limit, "too many sessions of this account", retryAfter: 1_000, into: &actions)
      return
    }
    let granted = token(for: login, account)
    var session = Session(
      client: hello.client, account: account, key: hello.key, lastHeard: now, address: login.address)
    if case .operatorOfCluster = login.claims?.holder { session.isOperators = true }
    session.takesDoneEach = hello.takesDoneEach
    session.token = granted?.id ?? login.claims?.id
    session.tokenExpires = granted?.expires ?? login.claims?.expires ?? .zero
    sessions[peer] = session
    peersByClient[hello.client] = peer
    sessionsByAccount[account, default: 0] += 1
    actions.append(.note(.loggedIn(state.name(of: account), isNew: isNew)))
    let welcome = Welcome(master: master, account: account, isNew: isNew, head: state.head)
    actions.append(.welcome(welcome, granted, number: number, to: peer))
  }

  /// A token for the next login: after a password, or when the one given is half over. It keeps its id then, so that one
  /// logout ends all that came of one login.
  private mutating func token(for login: Login, _ account: AccountID) -> TokenClaims? {
    var id: TokenID?
    if let claims = login.claims, case .token = login.hello.proof {
      if case .operatorOfCluster = claims.holder { return nil }
      guard claims.expires.milliseconds - login.wall.milliseconds < rules.sessionLifetime / 2 else { return nil }
      id = claims.id
    }
    return TokenClaims(
      id: id ?? TokenID(high: random.next(), low: random.next()),
      holder: .account(account, generation: state.credentials[account.index].generation),
      expires: Timestamp(milliseconds: login.wall.milliseconds + rules.sessionLifetime))
  }

  /// Ends a login that is no failed attempt.
  private mutating func end(
    _ login: Login, refusal: Refusal, at now: Instant, into actions: inout [MasterAction]
  ) {
    endRequest(of: login.peer)
    forgiveAttempt(login, at: now)
    reply(.refused(refusal), login.number, login.peer, into: &actions)
  }

  private func refuseCredentials(of login: Login, into actions: inout [MasterAction]) {
    refuse(login.number, login.peer, .credentials, "the name or the password is wrong", into: &actions)
  }

  private var foreignClient: Refusal { Refusal(.invalid, "the client id belongs to another account") }

  /// Whether a client id belongs to another account than this one; nil stands for one that is to be created.
  private func isForeign(_ client: ClientID, to account: AccountID?) -> Bool {
    if let owner = state.requests[client]?.account, owner != account { return true }
    guard let peer = peersByClient[client], let session = sessions[peer] else { return false }
    return session.account != account
  }

  /// The server stops: nobody who is on the way gets in.
  mutating func refuseLogins(_ reason: String, at now: Instant, into actions: inout [MasterAction]) {
    refuseHeld(reason, at: now, into: &actions)
    let jobs = hashing.sorted { $0.key < $1.key }
    hashing = [:]
    for (_, job) in jobs {
      endRequest(of: job.peer)
      refuse(job.number, job.peer, .unavailable, reason, into: &actions)
    }
  }

  // MARK: Attempts

  /// Counts an attempt at a name's password as failed until it succeeds. Says why there can be none now: too many have failed,
  /// or too many are under way, none of which need be wrong.
  private mutating func beginAttempt(_ name: String, from address: PeerAddress, at now: Instant) -> Refusal? {
    let place = Self.place(address)
    if let wait = attemptsByName.take(name, at: now) {
      return tooMany(wait, areUnderWay: attemptsUnderWay[name] != nil)
    }
    let wait =
      address.isLoopback
      ? attemptsByLoopback.take(address.network, at: now) : attemptsByAddress.take(address.network, at: now)
    if let wait {
      attemptsByName.giveBack(name, at: now)
      return tooMany(wait, areUnderWay: attemptsUnderWay[place] != nil)
    }
    attemptsUnderWay[name, default: 0] += 1
    attemptsUnderWay[place, default: 0] += 1
    return nil
  }

  private func tooMany(_ wait: Interval, areUnderWay: Bool) -> Refusal {
    if areUnderWay { return Refusal(.limit, "too many logins at once", retryAfter: 200) }
    let milliseconds = UInt32(clamping: wait.milliseconds)
    return Refusal(
      .tooManyAttempts, "too many wrong passwords; wait \((milliseconds + 999) / 1_000) s", retryAfter: milliseconds)
  }

  /// An attempt has ended: it was wrong, or is forgiven besides.
  private mutating func endAttempt(_ name: String, from address: PeerAddress) {
    for key in [name, Self.place(address)] {
      guard let count = attemptsUnderWay[key] else { continue }
      attemptsUnderWay[key] = count == 1 ? nil : count - 1
    }
  }

  /// No name begins like this.
  private static func place(_ address: PeerAddress) -> String { "@" + address.network }

  private mutating func forgiveAttempt(_ login: Login, at now: Instant) {
    if case .password = login.hello.proof { forgiveAttempt(login.hello.user, from: login.address, at: now) }
  }

  private mutating func forgiveAttempt(_ name: String, from address: PeerAddress, at now: Instant) {
    endAttempt(name, from: address)
    attemptsByName.giveBack(name, at: now)
    if address.isLoopback {
      attemptsByLoopback.giveBack(address.network, at: now)
    } else {
      attemptsByAddress.giveBack(address.network, at: now)
    }
  }

  // MARK: New passwords

  mutating func changePassword(
    _ change: PasswordChange, _ number: UInt64, _ peer: PeerID, _ session: Session, at now: Instant,
    into actions: inout [MasterAction]
  ) {
    guard case .serving = phase else {
      refuse(number, peer, .unavailable, "not serving", into: &actions)
      return
    }
    // A repeat: the old password is the old one no more.
    let id = RequestID(client: session.client, number: number)
    switch state.requests.outcome(of: id) {
    case .done(let event):
      reply(.done(event), number, peer, into: &actions)
      return
    case .doneEarlier:
      if beginRequest(number, of: peer, into: &actions) { addRepeat(Repeat(peer: peer, request: id), into: &actions) }
      return
    case .unknown, .tooOld: break
    }
    if let fault = TextRules.fault(inPassword: change.new) {
      refuse(number, peer, .invalidText, "the new password is refused: \(fault.explanation)", into: &actions)
      return
    }
    guard hashing.count < rules.passwordsWaiting else {
      refuse(number, peer, .limit, "too many logins are waiting", retryAfter: 1_000, into: &actions)
      return
    }
    let name = state.name(of: session.account)
    if !session.isOperators, let refusal = beginAttempt(name, from: session.address, at: now) {
      reply(.refused(refusal), number, peer, into: &actions)
      return
    }
    guard beginRequest(number, of: peer, into: &actions) else {
      if !session.isOperators { forgiveAttempt(name, from: session.address, at: now) }
      return
    }
    var job = Hashing(
      purpose: .newPassword, peer: peer, number: number, client: session.client, account: session.account,
      address: session.address)
    if session.isOperators {
      start(.hash(change.new), job, into: &actions)
    } else {
      job.purpose = .change(new: change.new)
      start(.verify(change.old, state.credentials[session.account.index].hash), job, into: &actions)
    }
  }

  private mutating func onPassword(
    of job: Hashing, _ outcome: PasswordOutcome, at now: Instant, into actions: inout [MasterAction]
  ) {
    var job = job
    let name = state.name(of: job.account)
    switch outcome {
    case .wrong:
      endAttempt(name, from: job.address)
      endRequest(of: job.peer)
      refuse(job.number, job.peer, .credentials, "the old password is wrong", into: &actions)
    case .failed(let reason):
      if case .change = job.purpose { forgiveAttempt(name, from: job.address, at: now) }
      endRequest(of: job.peer)
      refuse(
        job.number, job.peer, .limit, "the password can't be looked at now: \(reason)", retryAfter: 1_000,
        into: &actions)
    case .right:
      guard case .change(let new) = job.purpose else { preconditionFailure("a hashed password is right") }
      forgiveAttempt(name, from: job.address, at: now)
      job.purpose = .newPassword
      start(.hash(new), job, into: &actions)
    case .hashed(let hash):
      // The session may have ended meanwhile, perhaps because somebody else has set another password.
      guard sessions[job.peer]?.client == job.client else {
        endRequest(of: job.peer)
        refuse(job.number, job.peer, .noSession, "the session has ended", into: &actions)
        return
      }
      guard requestsWaiting < Limits.requestsWaiting else {
        endRequest(of: job.peer)
        refuse(job.number, job.peer, .limit, "too many requests are waiting", retryAfter: 100, into: &actions)
        return
      }
      waiting.append(
        Waiting(
          peer: job.peer, number: job.number, client: job.client, account: job.account, work: .setPassword(hash)))
    }
  }

  // MARK: What ends sessions before their time

  /// An event made tokens of an account invalid: the sessions opened with them end, but for the one that asked for it.
  mutating func endRevokedSessions(_ event: Event, into actions: inout [MasterAction]) {
    let account = event.change.actor
    guard sessionsByAccount[account] != nil else { return }
    let revoked = sessions.filter { _, session in
      guard session.account == account, session.client != event.request?.client else { return false }
      if case .sessionRevoked(_, let token, _) = event.change { return session.token == token }
      return true
    }
    for peer in revoked.keys.sorted() {
      actions.append(.note(.sessionRevoked(state.name(of: account))))
      actions.append(.reply(Reply(number: 0, body: .goodbye), to: peer))
      closeQuietly(peer)
    }
  }
}
