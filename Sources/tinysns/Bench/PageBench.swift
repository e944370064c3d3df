// What a page of a timeline costs the master itself: its own core on the log, in this process, without sockets.

import Core
import Histogram
import Log
import Model
import Runtime
import SQLiteLog
import Wire

/// A master's core that has loaded a log.
struct PageBench {
  private static let peer = PeerID(1)

  private var core: MasterCore
  private var actions: [MasterAction] = []

  /// Loads the log in the folder of a cluster that has been stopped, and logs `user` in.
  init(folder: String, user: String) throws {
    let log = try SQLiteLog(folder: folder)
    let identity = MasterIdentity(name: "bench", incarnation: Incarnation(1))
    let beat = MasterBeat(master: identity, head: .zero, sessions: 0, commitAge: 0, term: 0, roster: 0)
    let registration = Registration(
      master: identity, pid: 0, requests: "", timelines: "", log: "", beat: beat)
    core = MasterCore(
      registration: registration, timing: Timing(), assignment: .available,
      rules: AccountRules(requestsPerSecond: 1_000_000), random: .system)
    core.start(at: Clock.now(), into: &actions)
    core.onSnapshot(try log.snapshot(), at: Clock.now(), into: &actions)
    while !core.isServing {
      let events = try log.read(after: core.head, limit: Limits.readEvents)
      let more = events.count == Limits.readEvents
      core.onCatchUp(.read(events), more: more, at: Clock.now(), into: &actions)
    }
    actions = []
    guard let account = core.state.account(named: user) else { throw Failure("\(user) is not there") }
    // The claims are the core's own: no token has to be sealed for them.
    let hello = Hello(
      client: ClientID(1), user: user, register: false, newest: .zero, proof: .token(SessionToken(bytes: [1])))
    let claims = TokenClaims(
      id: TokenID(high: 1, low: 1),
      holder: .account(account, generation: core.state.credentials[account.index].generation),
      expires: Timestamp(milliseconds: .max))
    core.onHello(
      hello, number: 1, from: Self.peer, address: .loopback, claims: claims, at: Clock.now(), wall: Clock.wall(),
      into: &actions)
    guard case .welcome? = actions.last else { throw Failure("\(user) can't log in") }
  }

  /// The times of reading the newest 20 posts of each of `benches`: the request is decoded, carried out, and its answer encoded. They are read in
  /// turn, 200 times each: the machine is faster in one second than in another.
  static func newest(_ benches: inout [PageBench], rounds: Int = 100) throws -> [LoadTimes] {
    var histograms = benches.map { _ in Bench.histogram() }
    for _ in 1...rounds {
      for index in benches.indices { try benches[index].newest(times: 200, into: &histograms[index]) }
    }
    return histograms.map(Bench.times)
  }

  private mutating func newest(times count: Int, into histogram: inout Histogram<UInt64>) throws {
    let query = TimelineQuery(timeline: .home, range: .newest, limit: 20)
    let request = Wire.encode(Request(number: 2, body: .timeline(query)))
    // The first ones find the caches as another left them.
    for number in -10..<count {
      actions.removeAll(keepingCapacity: true)
      let started = Clock.now()
      core.onRequest(try Wire.decodeRequest(request.span.bytes), from: Self.peer, at: started, into: &actions)
      guard case .reply(let reply, _)? = actions.last, case .page(let page) = reply.body, page.posts.count == 20
      else { throw Failure("no page of 20 posts from memory") }
      _ = Wire.encode(reply)
      if number >= 0 { histogram.record(UInt64((Clock.now() - started).nanoseconds)) }
    }
  }
}
