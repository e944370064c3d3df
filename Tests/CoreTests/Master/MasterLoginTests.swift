// Who is let in, with what, and what ends that.

@testable import Core
import Model
import Testing

@Suite struct MasterLoginTests {
  private let right = TestMaster.password(of: "alice")
  private let wrong = Password("a wrong password")

  /// A master with alice, who is logged in at peer 1.
  private func served(log: ModelLog = ModelLog(), rules: AccountRules? = nil) -> TestMaster {
    let master = rules.map { TestMaster.serving(log: log, rules: $0) } ?? TestMaster.serving(log: log)
    master.login("alice", from: 1)
    return master
  }

  private func refusal(_ body: Reply.Body) -> Refusal? {
    if case .refused(let refusal) = body { refusal } else { nil }
  }

  // MARK: Passwords

  @Test func aRegistrationSetsThePasswordInTheSameCommit() {
    let master = served()
    #expect(
      master.log.events.map(\.change) == [
        .accountCreated(AccountID(0), name: "alice"), .credentialSet(AccountID(0), TestMaster.hash(right)),
      ])
    #expect(master.broadcasts.count == 1)
  }

  @Test func theRightPasswordOpensAndAWrongOneDoesNot() {
    let master = served()
    #expect(isWelcome(master.login("alice", register: false, proof: .password(right), from: 2)))
    #expect(code(master.login("alice", register: false, proof: .password(wrong), from: 3)) == .credentials)
    #expect(code(master.ask(.ping, from: 3)) == .noSession)
    master.expectAllAnswered()
  }

  @Test func registeringANameThatIsTakenNeedsItsPassword() {
    let master = served()
    #expect(code(master.login("alice", register: true, proof: .password(wrong), from: 2)) == .credentials)
    #expect(isWelcome(master.login("alice", register: true, proof: .password(right), from: 2)))
    #expect(master.log.names == ["alice"])
  }

  /// The second of two who register a name at once is somebody else, unless the password says so.
  @Test func whoRegistersTooLateIsNotLetInByThat() {
    let master = served()
    master.send(.post(text: "keeps the log busy"), from: 1)
    let hello = { (client: UInt64, password: Password) in
      Request.Body.hello(
        Hello(client: ClientID(client), user: "bob", register: true, newest: .zero, proof: .password(password)))
    }
    master.send(hello(1, Password("the first one's")), from: 2)
    master.send(hello(2, wrong), from: 3)
    master.send(hello(3, Password("the first one's")), from: 4)
    master.settle()
    #expect(isWelcome(master.told(2).last))
    #expect(code(master.told(3).last!) == .credentials)
    #expect(isWelcome(master.told(4).last))
    master.expectAllAnswered()
  }

  /// The same answer after the same work: a hash, and one reading of the log.
  @Test func anUnknownNameIsRefusedLikeAWrongPassword() {
    let log = ModelLog()
    let master = served(log: log)
    master.hear(log.commit(.accountCreated(AccountID(1), name: "old")))  // of the time before passwords
    master.holdsPasswords = true
    var answers: [Reply.Body] = []
    for (peer, user) in [(2, "alice"), (3, "nobody"), (4, "old")] as [(UInt32, String)] {
      let hello = Hello(
        client: ClientID(UInt64(peer)), user: user, register: false, newest: .zero, proof: .password(wrong))
      master.send(.hello(hello), from: PeerID(peer))
      guard case .verify? = master.passwords.last?.job else {
        Issue.record("\(user)'s password is not looked at")
        continue
      }
      master.hashPasswords()
      #expect(master.told(PeerID(peer)).isEmpty && master.catchUp != nil, "the log is read for \(user)")
      master.settle()
      #expect(master.passwords.isEmpty, "\(user)'s password is looked at once")
      answers.append(master.told(PeerID(peer)).last!)
    }
    #expect(answers.count == 3 && answers.allSatisfy { $0 == answers[0] })
    #expect(refusal(answers[0])?.code == .credentials && refusal(answers[0])?.retryAfter == 0)
  }

  @Test func aHelloWithoutAProofIsRefused() {
    let master = served()
    master.addsProofs = false
    #expect(code(master.login("alice", from: 2)) == .credentials)
    #expect(code(master.login("bob", from: 2)) == .credentials)
    #expect(master.log.names == ["alice"])
  }

  /// Another master has set the password a moment ago.
  @Test func aNewPasswordIsFoundInTheLog() {
    let log = ModelLog()
    let master = served(log: log)
    log.commit(.credentialSet(AccountID(0), TestMaster.hash(wrong)))
    #expect(isWelcome(master.login("alice", register: false, proof: .password(wrong), from: 2)))
    #expect(code(master.login("alice", register: false, proof: .password(right), from: 3)) == .credentials)
  }

  /// The password was right when it was given, and is not when the hash is done.
  @Test func aPasswordThatChangesMeanwhileIsLookedAtAgain() {
    let log = ModelLog()
    let master = served(log: log)
    master.holdsPasswords = true
    master.send(
      .hello(Hello(client: ClientID(2), user: "alice", register: false, newest: .zero, proof: .password(right))),
      from: 2)
    let job = master.passwords[0].id
    master.hear(log.commit(.credentialSet(AccountID(0), TestMaster.hash(wrong))))
    master.holdsPasswords = false
    master.forgetPassword(job)
    master.answer(job, .right)
    master.settle()
    #expect(code(master.told(2).last!) == .credentials)
    master.expectAllAnswered()
  }

  @Test func aBadNewPasswordRegistersNobody() {
    let master = TestMaster.serving()
    #expect(code(master.login("bob", proof: .password(Password("short")), from: 1)) == .invalidText)
    let long = Password(String(repeating: "x", count: Limits.passwordBytesMax + 1))
    #expect(code(master.login("bob", proof: .password(long), from: 1)) == .invalidText)
    #expect(master.log.names.isEmpty)
  }

  @Test func tooManyPasswordsAtOnceAreSentAway() {
    let master = served(rules: AccountRules(passwordsWaiting: 3))
    master.holdsPasswords = true
    for peer in 2...5 as ClosedRange<UInt32> {
      master.send(
        .hello(Hello(client: ClientID(UInt64(peer)), user: "bob\(peer)", register: true, newest: .zero)),
        from: PeerID(peer))
    }
    #expect(refusal(master.told(5).last!)?.code == .limit && refusal(master.told(5).last!)!.retryAfter > 0)
    // Nobody else waits for them.
    #expect(done(master.ask(.post(text: "x"), from: 1)) != nil)
    master.holdsPasswords = false
    master.hashPasswords()
    master.settle()
    for peer in 2...4 as ClosedRange<UInt32> { #expect(isWelcome(master.told(PeerID(peer)).last)) }
    master.expectAllAnswered()
  }

  @Test func loginsUnderWayEndWithTheServer() {
    let master = served()
    master.holdsPasswords = true
    master.send(.hello(Hello(client: ClientID(2), user: "bob", register: true, newest: .zero)), from: 2)
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(code(master.told(2).last!) == .unavailable)
    #expect(master.hasExited)
    master.expectAllAnswered()
  }

  // MARK: Tokens

  @Test func aTokenOpensAtAnyMasterWithoutAPassword() throws {
    let log = ModelLog()
    let one = served(log: log)
    let token = try #require(one.tokens[1])
    let two = TestMaster.serving("master-2", log: log)
    two.holdsPasswords = true
    two.adopt(token, from: one)
    #expect(isWelcome(two.login("alice", register: false, proof: .token(token), from: 5)))
    #expect(two.passwords.isEmpty)
    #expect(two.tokens[5] == nil, "the one given goes on")
  }

  /// The account may be newer than the master: it reads the log before it refuses.
  @Test func aTokenOfAnAccountThatIsNotYetKnown() throws {
    let log = ModelLog()
    let two = TestMaster.serving("master-2", log: log)
    let one = served(log: log)
    two.adopt(try #require(one.tokens[1]), from: one)
    #expect(isWelcome(two.login("alice", register: false, proof: .token(one.tokens[1]!), from: 5)))
  }

  @Test func tokensThatAreNoGood() throws {
    let master = served()
    master.login("bob", from: 2)
    let alice = AccountID(0)
    let cases: [(String, SessionToken)] = [
      ("nobody's", SessionToken(bytes: [1, 2, 3])), ("another account's", try #require(master.tokens[2])),
      ("an old password's", master.token(of: alice, generation: EventID(1))),
      ("expired", master.token(of: alice, expires: master.wall.milliseconds)),
    ]
    for (what, token) in cases {
      #expect(
        code(master.login("alice", register: false, proof: .token(token), from: 3)) == .credentials, "\(what)")
      #expect(code(master.ask(.ping, from: 3)) == .noSession)
    }
    master.expectAllAnswered()
  }

  @Test func aTokenIsRenewedWhenItIsHalfOver() throws {
    let master = served(rules: AccountRules(sessionLifetime: 1_000_000))
    let first = try #require(master.tokens[1])
    let claims = try #require(master.claims[first])
    #expect(claims.expires.milliseconds == master.wall.milliseconds + 1_000_000)
    master.wall.milliseconds += 499_000
    master.login("alice", register: false, proof: .token(first), from: 2)
    #expect(master.tokens[2] == nil)
    master.wall.milliseconds += 2_000
    master.login("alice", register: false, proof: .token(first), from: 3)
    let renewed = try #require(master.tokens[3].flatMap { master.claims[$0] })
    #expect(renewed.id == claims.id && renewed.holder == claims.holder)
    #expect(renewed.expires.milliseconds == master.wall.milliseconds + 1_000_000)
    // One logout ends both.
    _ = master.ask(.logout(everywhere: false), from: 2)
    for token in [first, master.tokens[3]!] {
      #expect(code(master.login("alice", register: false, proof: .token(token), from: 4)) == .credentials)
    }
  }

  // MARK: Logout

  @Test func aLogoutEndsItsLoginAndNoOther() throws {
    let master = served()
    master.login("alice", from: 2)
    let (mine, others) = (try #require(master.tokens[1]), try #require(master.tokens[2]))
    // The same login, on another connection.
    master.login("alice", client: 77, register: false, proof: .token(mine), from: 3)
    #expect(done(master.ask(.logout(everywhere: false), from: 1)) != nil)
    #expect(master.told(3).last == .goodbye)
    for peer in [1, 3] as [PeerID] { #expect(code(master.ask(.ping, from: peer)) == .noSession) }
    #expect(code(master.ask(.ping, from: 2)) == nil)
    #expect(code(master.login("alice", register: false, proof: .token(mine), from: 4)) == .credentials)
    #expect(isWelcome(master.login("alice", register: false, proof: .token(others), from: 5)))
    master.expectAllAnswered()
  }

  @Test func aLogoutIsHeardAtTheOtherMasters() throws {
    let log = ModelLog()
    let one = served(log: log)
    let two = TestMaster.serving("master-2", log: log)
    let token = try #require(one.tokens[1])
    two.adopt(token, from: one)
    two.login("alice", client: 5, register: false, proof: .token(token), from: 5)
    one.ask(.logout(everywhere: false), from: 1)
    one.pass(MasterCore.broadcastPause)
    two.hear(one.broadcasts.last!)
    #expect(two.told(5).last == .goodbye)
    #expect(two.notes.last == .sessionRevoked("alice"))
    #expect(two.core.sessionCount == 0)
  }

  @Test func aLogoutEverywhereEndsAll() throws {
    let master = served()
    master.login("alice", from: 2)
    master.login("bob", from: 3)
    #expect(done(master.ask(.logout(everywhere: true), from: 1)) != nil)
    #expect(master.told(2).last == .goodbye)
    #expect(master.core.sessionCount == 1)
    for peer in [1, 2] as [PeerID] {
      let token = try #require(master.tokens[peer])
      #expect(code(master.login("alice", register: false, proof: .token(token), from: 4)) == .credentials)
    }
    #expect(isWelcome(master.login("alice", register: false, proof: .password(right), from: 4)))
  }

  @Test func tooManyLogoutsAreOneEverywhere() {
    let master = served()
    for number in 0...UInt32(Limits.revocationsPerAccount) {
      master.login("alice", client: 5_000 + UInt64(number), from: PeerID(100 + number))
      master.ask(.logout(everywhere: false), from: PeerID(100 + number))
    }
    #expect(master.log.events.last?.change == .sessionsRevoked(AccountID(0)))
    #expect(master.core.state.revocationCount(of: AccountID(0)) == 0)
  }

  /// What has expired anyhow is forgotten with the next.
  @Test func revocationsAreForgottenWhenTheyHaveExpired() {
    let master = served(rules: AccountRules(sessionLifetime: 1_000))
    for number in 0..<5 as Range<UInt32> {
      master.login("alice", client: 5_000 + UInt64(number), from: PeerID(100 + number))
      master.ask(.logout(everywhere: false), from: PeerID(100 + number))
      master.wall.milliseconds += 2_000
    }
    #expect(master.core.state.revocationCount(of: AccountID(0)) == 1)
  }

  // MARK: New passwords

  @Test func aNewPasswordEndsEverythingElse() throws {
    let master = served()
    master.login("alice", from: 2)
    let new = Password("battery staple")
    let answer = master.ask(.changePassword(PasswordChange(old: right, new: new)), from: 1)
    #expect(done(answer) == master.log.head)
    #expect(master.told(2).last == .goodbye)
    #expect(code(master.ask(.ping, from: 1)) == nil, "who changes it goes on")
    for peer in [1, 2] as [PeerID] {
      let token = try #require(master.tokens[peer])
      #expect(code(master.login("alice", register: false, proof: .token(token), from: 4)) == .credentials)
    }
    #expect(code(master.login("alice", register: false, proof: .password(right), from: 4)) == .credentials)
    #expect(isWelcome(master.login("alice", register: false, proof: .password(new), from: 4)))
    master.expectAllAnswered()
  }

  @Test func theOldPasswordIsNeeded() {
    let master = served()
    let new = Password("battery staple")
    #expect(code(master.ask(.changePassword(PasswordChange(old: wrong, new: new)), from: 1)) == .credentials)
    #expect(code(master.ask(.changePassword(PasswordChange(old: right, new: Password("x"))), from: 1)) == .invalidText)
    #expect(master.log.head == EventID(2))
    master.expectAllAnswered()
  }

  /// The answer got lost: by then the old password is another.
  @Test func aRepeatedChangeGetsTheFirstOnesResult() {
    let log = ModelLog()
    let master = served(log: log)
    let change = Request.Body.changePassword(PasswordChange(old: right, new: Password("battery staple")))
    let first = master.ask(change, number: 9, from: 1)
    let two = TestMaster.serving("master-2", log: log)
    two.login("alice", client: 1_001, register: false, proof: .password(Password("battery staple")), from: 5)
    #expect(two.ask(change, number: 9, from: 5) == first)
    #expect(log.events.count { if case .credentialSet = $0.change { true } else { false } } == 2)
  }

  /// The same, of a change that is many requests ago.
  @Test func anOldChangeRepeatedGetsTheFirstOnesResult() {
    let master = served()
    let new = Password("battery staple")
    let change = Request.Body.changePassword(PasswordChange(old: right, new: new))
    let first = master.ask(change, number: 9, from: 1)
    for number in 10...40 as ClosedRange<UInt64> { master.ask(.post(text: "x"), number: number, from: 1) }
    let head = master.log.head
    master.send(change, number: 9, from: 1)
    #expect(master.lookUp?.requests.keys.first == RequestID(client: ClientID(1_001), number: 9))
    #expect(master.passwords.isEmpty)
    master.settle()
    #expect(master.told(1).last == first && master.log.head == head)
    master.send(change, number: 9, from: 1)
    master.finishLookUp(.failed("disk error"))
    #expect(code(master.told(1).last!) == .storage)
    #expect(master.core.inFlight.isEmpty)
    master.expectAllAnswered()
  }

  @Test func aSessionThatEndsMeanwhileChangesNothing() {
    let master = served()
    master.holdsPasswords = true
    master.send(.changePassword(PasswordChange(old: right, new: Password("battery staple"))), from: 1)
    master.send(.bye, from: 1)
    master.holdsPasswords = false
    master.hashPasswords()
    master.settle()
    #expect(code(master.told(1).last!) == .noSession)
    #expect(master.log.head == EventID(2))
    master.expectAllAnswered()
  }

  // MARK: The operator

  private func operatorToken(_ master: TestMaster) -> SessionToken {
    master.seal(
      TokenClaims(
        id: TokenID(high: 1, low: 1), holder: .operatorOfCluster,
        expires: Timestamp(milliseconds: master.wall.milliseconds + 1_000)))
  }

  @Test func theOperatorSetsPasswordsAndDoesNothingElse() throws {
    let log = ModelLog()
    let master = served(log: log)
    master.hear(log.commit(.accountCreated(AccountID(1), name: "old")))
    let proof = Proof.token(operatorToken(master))
    #expect(code(master.login("nobody", register: false, proof: proof, from: 4)) == .credentials)
    #expect(isWelcome(master.login("old", register: false, proof: proof, from: 4)))
    #expect(master.tokens[4] == nil, "there is no token for more")
    for body in [.post(text: "x"), .follow(name: "alice"), .list(ListQuery(kind: .users)), .watch(.home)]
      as [Request.Body]
    {
      #expect(code(master.ask(body, from: 4)) == .invalid)
    }
    let new = Password("battery staple")
    #expect(done(master.ask(.changePassword(PasswordChange(old: Password(""), new: new)), from: 4)) != nil)
    #expect(isWelcome(master.login("old", register: false, proof: .password(new), from: 5)))
  }

  // MARK: Attempts

  private let far = PeerAddress(network: "192.0.2.7", isLoopback: false)
  private let near = PeerAddress(network: "198.51.100.1", isLoopback: false)

  @Test func wrongPasswordsOfOneNameAreLimited() throws {
    let master = served()
    for number in 0..<UInt32(Limits.attemptsPerName) {
      #expect(
        code(master.login("alice", register: false, proof: .password(wrong), from: PeerID(10 + number))) == .credentials
      )
    }
    // From now on the right one is not even looked at.
    let refused = try #require(refusal(master.login("alice", register: false, proof: .password(right), from: 2)))
    #expect(refused.code == .tooManyAttempts)
    #expect((9_000...10_000).contains(refused.retryAfter))
    // Others don't mind, and neither does whoever has a token.
    #expect(isWelcome(master.login("bob", from: 3)))
    #expect(isWelcome(master.login("alice", register: false, proof: .token(master.tokens[1]!), from: 4)))
    master.pass(.seconds(10))
    #expect(isWelcome(master.login("alice", register: false, proof: .password(right), from: 2)))
    // A right one is no attempt.
    #expect(isWelcome(master.login("alice", register: false, proof: .password(right), from: 5)))
    master.expectAllAnswered()
  }

  /// A person's many programs may come at once, all with the right password.
  @Test func rightPasswordsAtOnceAreNoFailedAttempts() throws {
    let master = served()
    master.holdsPasswords = true
    for number in 0...UInt32(Limits.attemptsPerName) {
      master.send(
        .hello(
          Hello(
            client: ClientID(500 + UInt64(number)), user: "alice", register: false, newest: .zero,
            proof: .password(right))), from: PeerID(500 + number))
    }
    let last = PeerID(500 + UInt32(Limits.attemptsPerName))
    let refused = try #require(refusal(master.told(last).last!))
    #expect(refused.code == .limit && refused.retryAfter > 0)
    master.holdsPasswords = false
    master.hashPasswords()
    master.settle()
    #expect(isWelcome(master.told(500).last))
    #expect(isWelcome(master.login("alice", register: false, proof: .password(right), from: last)))
    #expect(master.core.sessionCount == 2 + Limits.attemptsPerName)
    master.expectAllAnswered()
  }

  @Test func unknownNamesAreCountedTheSame() {
    let master = served()
    for number in 0..<UInt32(Limits.attemptsPerName) {
      _ = master.login("nobody", register: false, proof: .password(wrong), from: PeerID(10 + number))
    }
    #expect(code(master.login("nobody", register: false, proof: .password(wrong), from: 2)) == .tooManyAttempts)
  }

  @Test func wrongPasswordsFromOneAddressAreLimited() {
    let master = served()
    for number in 0..<UInt32(Limits.attemptsPerAddress) {
      master.addresses[PeerID(10 + number)] = far
      _ = master.login("name\(number)", register: false, proof: .password(wrong), from: PeerID(10 + number))
    }
    master.addresses[2] = far
    master.addresses[3] = near
    #expect(code(master.login("alice", register: false, proof: .password(right), from: 2)) == .tooManyAttempts)
    #expect(isWelcome(master.login("alice", register: false, proof: .password(right), from: 3)))
    #expect(isWelcome(master.login("alice", register: false, proof: .token(master.tokens[1]!), from: 2)))
    // What was refused for the address is not held against the name.
    for number in 0..<40 as Range<UInt32> {
      master.addresses[PeerID(500 + number)] = far
      _ = master.login("alice", register: false, proof: .password(wrong), from: PeerID(500 + number))
    }
    #expect(isWelcome(master.login("alice", register: false, proof: .password(right), from: 3)))
  }

  @Test func wrongOldPasswordsAreCounted() {
    let master = served()
    let change = Request.Body.changePassword(PasswordChange(old: wrong, new: Password("battery staple")))
    for _ in 0..<Limits.attemptsPerName { #expect(code(master.ask(change, from: 1)) == .credentials) }
    #expect(code(master.ask(change, from: 1)) == .tooManyAttempts)
    #expect(code(master.login("alice", register: false, proof: .password(right), from: 2)) == .tooManyAttempts)
  }

  // MARK: Requests a second

  @Test func requestsOfAnAccountAreLimited() throws {
    let master = served(rules: AccountRules(requestsPerSecond: 10))
    master.login("alice", from: 2)
    master.login("bob", from: 3)
    // Twice as many at once, of all its sessions together.
    for number in 0..<20 { #expect(done(master.ask(.post(text: "x"), from: number % 2 == 0 ? 1 : 2)) != nil) }
    let refused = try #require(refusal(master.ask(.list(ListQuery(kind: .users)), from: 1)))
    #expect(refused.code == .limit && (90...100).contains(refused.retryAfter))
    #expect(code(master.ask(.ping, from: 1)) == nil, "who waits may say that it lives")
    #expect(done(master.ask(.post(text: "x"), from: 3)) != nil)
    master.now = master.now + .milliseconds(101)
    #expect(done(master.ask(.post(text: "x"), from: 2)) != nil)
    #expect(code(master.ask(.post(text: "x"), from: 2)) == .limit)
    master.expectAllAnswered()
  }
}
