// The people at the clients: what they ask for, drawn from the seed.

import Core
import Model

final class People {
  static let names = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "kim", "leo", "mallory", "niaj",
    "olivia", "peggy", "quentin", "rupert", "sybil", "trent",
  ]

  private unowned(unsafe) let world: World
  private var random: SplitMix64
  private var isActive = false
  private var posted = 0
  private var visits = 0

  init(world: World, random: SplitMix64) {
    self.world = world
    self.random = random
  }

  // MARK: Storms

  /// Many log in at once, post once, and leave.
  func sendVisitors(_ count: Int) {
    for _ in 0..<count {
      visits += 1
      let name = "visitor-\(visits)"
      let client = world.startClient(name, user: Self.names[random.below(world.settings.users)])
      client.onFinish = { [unowned client] _, _ in client.terminate() }
      client.submit(.post(text: "visit \(visits)"), within: .seconds(6))
    }
  }

  private func user(of client: Int) -> String { Self.names[client % world.settings.users] }

  func start() {
    isActive = true
    for number in 0..<world.settings.clients {
      let user = user(of: number)
      let session = number / world.settings.users
      world.after(random.interval(.zero ... .seconds(2))) { [self] in
        begin(world.startClient(session == 0 ? user : "\(user)/\(session + 1)", user: user), after: .zero)
      }
    }
    intrude(1)
  }

  /// Somebody tries to get in now and then, as somebody else.
  private func intrude(_ number: Int) {
    guard world.settings.intrudeEvery > .zero else { return }
    world.after(random.gap(around: world.settings.intrudeEvery)) { [self] in
      guard isActive else { return }
      let intruder = world.startClient(
        "intruder-\(number)", user: Self.names[random.below(world.settings.users)], proof: badProof())
      world.after(random.interval(.seconds(1) ... .seconds(10))) { [world] in world.kill(intruder) }
      intrude(number + 1)
    }
  }

  private func badProof() -> Proof {
    // Perhaps another's, perhaps one that was good once, perhaps even one that is.
    if var token = random.pick(world.everyToken), random.percent(70) {
      if random.percent(40) { token.bytes[random.below(token.bytes.count)] ^= UInt8(random.int(1...255)) }
      return .token(token)
    }
    return .password(Password("a guess"))
  }

  /// A client that died is started again, and goes on watching where it was.
  func restart(_ name: String, user: String, after cursor: EventID) {
    begin(world.startClient(name, user: user), after: cursor)
  }

  private func begin(_ client: ClientProcess, after cursor: EventID) {
    if random.percent(85) { client.watch(.home, after: cursor) }
    act(client)
  }

  /// People stop asking; what they asked goes on.
  func stop() { isActive = false }

  private func act(_ client: ClientProcess) {
    world.after(random.gap(around: world.settings.requestEvery)) { [self] in
      guard isActive, client.life != .dead else { return }
      one(client)
      act(client)
    }
  }

  private func patience() -> Interval {
    random.percent(30)
      ? random.interval(.milliseconds(50) ... .seconds(1)) : random.interval(.seconds(1) ... .seconds(15))
  }

  private func someone() -> String {
    random.percent(4) ? "nobody" : Self.names[random.below(world.settings.users)]
  }

  func text(by client: ClientProcess) -> String {
    posted += 1
    let text = "post \(posted) by \(client.name)"
    switch random.below(60) {
    case 0: return text + String(repeating: "é", count: (Limits.postBytes - text.utf8.count) / 2)
    case 1: return text + String(repeating: "x", count: Limits.postBytes)
    case 2: return text + "\u{7}"
    case 3: return text + " — 日本語, ελληνικά"
    case 4: return text + String(repeating: "z", count: Limits.requestBytes)
    default: return text
    }
  }

  /// A new password, or a logout.
  private func changeLogin(_ client: ClientProcess) {
    switch random.below(3) {
    case 0:
      posted += 1
      let change = PasswordChange(old: world.password(of: client.user), new: Password("password \(posted)"))
      client.submit(.changePassword(change), within: patience())
    case 1: client.submit(.logout(everywhere: false), within: patience())
    default: client.submit(.logout(everywhere: true), within: patience())
    }
  }

  private func one(_ client: ClientProcess) {
    if world.settings.changesPercent > 0, random.percent(world.settings.changesPercent) { return changeLogin(client) }
    switch random.below(100) {
    case ..<42: client.submit(.post(text: text(by: client)), within: patience())
    case ..<57: client.submit(.follow(name: someone()), within: patience())
    case ..<65: client.submit(.unfollow(name: someone()), within: patience())
    case ..<67:
      // A change of mind, all at once.
      let name = someone()
      client.submit(.follow(name: name), within: patience())
      client.submit(.unfollow(name: name), within: patience())
      client.submit(.follow(name: name), within: patience())
    case ..<76:
      let kind = ListQuery.Kind.allCases[random.below(3)]
      client.submit(.list(ListQuery(kind: kind)), within: patience())
    case ..<92:
      let head = world.checkers.model.head.rawValue
      let position = EventID(UInt64(random.below(Int(head) + 2)))
      let ranges: [TimelineQuery.Range] = [.newest, .newest, .before(position), .after(position)]
      let timeline: TimelineName = random.percent(70) ? .home : .author(someone())
      let limit = UInt32([0, 1, 5, 20][random.below(4)])
      client.submit(
        .timeline(TimelineQuery(timeline: timeline, range: ranges[random.below(4)], limit: limit)), within: patience())
    case ..<96:
      if client.watches.count < 4 {
        // What it has heard of: else an answer that is older than the cursor would be no fault of anybody's.
        let cursor = EventID(UInt64(random.below(Int(client.core.newest.rawValue) + 1)))
        client.watch(random.percent(50) ? .home : .author(someone()), after: random.percent(50) ? .zero : cursor)
      }
    case ..<98: if let token = random.pick(client.watches) { client.unwatch(token) }
    default: client.submit(.ping, within: patience())
    }
  }
}
