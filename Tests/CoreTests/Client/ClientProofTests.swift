// What a client proves its user with, and what it does when that, or a request, is refused for now.

import Core
import Model
import Testing

private let two = TestClient.contact("master-2")

@Suite struct ClientProofTests {
  private let password = Password("the password")
  private let token = SessionToken(bytes: [1])
  private let refusal = Reply.Body.refused(Refusal(.credentials, "wrong"))

  private func greeting(password: Password? = nil, token: SessionToken? = nil) -> TestClient {
    let client = TestClient(password: password, token: token)
    client.start()
    if client.locates.isEmpty { return client }
    client.locate()
    return client
  }

  private func helloNumber(_ client: TestClient) -> UInt64 {
    client.last { if case .hello = $0 { true } else { false } }!.number
  }

  @Test func aPasswordGivesATokenForTheNextMaster() {
    let client = greeting(password: password)
    #expect(client.hello?.proof == .password(password))
    client.welcome(token: token)
    #expect(client.kept == [token])
    client.disconnect()
    client.locate(two)
    #expect(client.hello?.proof == .token(token))
    client.welcome()
    #expect(client.kept == [token] && client.core.isServing)
  }

  @Test func aTokenThatIsNoGoodIsFollowedByThePassword() {
    let client = greeting(password: password, token: token)
    #expect(client.hello?.proof == .token(token))
    client.reply(helloNumber(client), refusal)
    #expect(client.hello?.proof == .password(password), "on the same connection")
    #expect(client.connects == 1)
    client.welcome(token: SessionToken(bytes: [2]))
    #expect(client.core.isServing && client.kept == [SessionToken(bytes: [2])])
  }

  @Test func withoutAPasswordTheLoginIsRefused() {
    let client = greeting(token: token)
    let waiting = client.submit(.post(text: "x"))
    client.reply(helloNumber(client), refusal)
    #expect(client.outcomes[waiting] == .loginRefused(Refusal(.credentials, "wrong")))
    #expect(client.connected == nil)
  }

  @Test func aWrongPasswordIsNotTriedAgain() {
    let client = greeting(password: password)
    client.reply(helloNumber(client), refusal)
    client.pass(.seconds(20))
    #expect(client.connects == 1 && client.sent.isEmpty && !client.core.isServing)
  }

  @Test func withNothingToProveItNobodyIsAsked() {
    let client = greeting()
    #expect(client.locates.isEmpty)
    #expect(client.notes == [.loginRefused(Refusal(.credentials, "a password is needed"))])
  }

  @Test func tooManyAttemptsAreToldAtTheFirstLogin() {
    let client = greeting(password: password)
    let refusal = Refusal(.tooManyAttempts, "wait", retryAfter: 5_000)
    client.reply(helloNumber(client), .refused(refusal))
    #expect(client.notes.last == .loginRefused(refusal))
  }

  @Test func laterTheyAreWaitedFor() {
    let client = greeting(password: password)
    client.welcome()
    client.disconnect()
    client.locate(two)
    client.reply(helloNumber(client), .refused(Refusal(.tooManyAttempts, "wait", retryAfter: 5_000)))
    let asked = client.locates.count
    client.pass(.milliseconds(4_990))
    #expect(client.locates.count == asked)
    client.pass(.seconds(2))
    #expect(client.locates.count > asked)
  }

  // MARK: New passwords

  private let new = Password("battery staple")
  private var change: Request.Body { .changePassword(PasswordChange(old: password, new: new)) }

  @Test func afterAChangeTheNewPasswordCounts() {
    let client = greeting(password: password)
    client.welcome(token: token)
    let asked = client.submit(change)
    client.reply(client.last { $0 == change }!.number, .done(EventID(5)))
    #expect(client.outcomes[asked] == .reply(.done(EventID(5))))
    client.disconnect()
    client.locate(two)
    #expect(client.hello?.proof == .password(new))
  }

  /// The answer is lost with its master: by then the password may be either one.
  @Test func aChangeWithoutAnAnswerLeavesTwoPasswords() {
    let client = greeting(password: password)
    client.welcome(token: token)
    let asked = client.submit(change)
    let number = client.last { $0 == change }!.number
    client.disconnect()
    client.locate(two)
    for proof in [.token(token), .password(password), .password(new)] as [Proof] {
      #expect(client.hello?.proof == proof)
      if proof != .password(new) { client.reply(helloNumber(client), refusal) }
    }
    client.welcome(token: SessionToken(bytes: [2]))
    #expect(client.last { $0 == change }?.number == number, "repeated under its number")
    client.reply(number, .done(EventID(5)))
    #expect(client.outcomes[asked] == .reply(.done(EventID(5))))
  }

  @Test func aRefusedChangeChangesNothing() {
    let client = greeting(password: password)
    client.welcome()
    let asked = client.submit(change)
    client.reply(client.last { $0 == change }!.number, refusal)
    #expect(client.outcomes[asked] == .reply(refusal))
    client.disconnect()
    client.locate(two)
    #expect(client.hello?.proof == .password(password))
    client.reply(helloNumber(client), refusal)
    #expect(!client.core.isServing && client.connected == nil)
  }

  @Test func aBadNewPasswordIsNotSent() {
    let client = greeting(password: password)
    client.welcome()
    let before = client.sent.count
    let asked = client.submit(.changePassword(PasswordChange(old: password, new: Password("short"))))
    guard case .reply(.refused(let refusal)) = client.outcomes[asked] else {
      Issue.record("not refused")
      return
    }
    #expect(refusal.code == .invalidText && client.sent.count == before)
  }

  @Test func anOldPasswordThatNoAccountCanHaveIsNotSent() {
    let client = greeting(password: password)
    client.welcome()
    let before = client.sent.count
    let long = Password(String(repeating: "x", count: Limits.requestBytes))
    let asked = client.submit(.changePassword(PasswordChange(old: long, new: password)))
    guard case .reply(.refused(let refusal)) = client.outcomes[asked] else {
      Issue.record("not refused")
      return
    }
    #expect(refusal.code == .credentials && client.sent.count == before)
  }

  // MARK: No room

  @Test func whatThereIsNoRoomForIsSentAgain() {
    let client = TestClient.serving()
    let asked = client.submit(.post(text: "x"))
    let number = client.sent.last!.number
    client.reply(number, .refused(Refusal(.limit, "too many", retryAfter: 100)))
    #expect(client.outcomes[asked] == nil)
    let before = client.sent.count
    client.pass(.milliseconds(99))
    #expect(client.sent.count == before)
    client.pass(.milliseconds(60))
    #expect(client.sent.filter { $0.number == number }.count == 2)
    client.reply(number, .done(EventID(1)))
    #expect(client.outcomes[asked] == .reply(.done(EventID(1))))
  }

  @Test func withoutTimeForThatItIsRefused() {
    let client = TestClient.serving()
    let asked = client.submit(.post(text: "x"), deadline: .milliseconds(80))
    let refused = Reply.Body.refused(Refusal(.limit, "too many", retryAfter: 100))
    client.reply(client.sent.last!.number, refused)
    #expect(client.outcomes[asked] == .reply(refused))
  }

  /// A master that has no room again and again is asked ever less often.
  @Test func pausesGrow() {
    let client = TestClient.serving()
    client.submit(.post(text: "x"))
    let number = client.sent.last!.number
    for _ in 0..<12 {
      client.reply(number, .refused(Refusal(.limit, "too many", retryAfter: 1)))
      let before = client.sent.filter { $0.number == number }.count
      var waited: Int64 = 0
      while client.sent.filter({ $0.number == number }).count == before, waited < 3_000 {
        client.pass(.milliseconds(1))
        if client.pings > 0 { client.pong() }
        waited += 1
      }
    }
    let before = client.sent.filter { $0.number == number }.count
    client.reply(number, .refused(Refusal(.limit, "too many", retryAfter: 1)))
    client.pass(.milliseconds(900))
    #expect(client.sent.filter { $0.number == number }.count == before)
  }
}
