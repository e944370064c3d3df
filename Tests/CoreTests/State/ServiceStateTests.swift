// The state is what the log says: the same whether replayed or loaded.

import Model
import Testing

@testable import Core

@Suite struct ServiceStateTests {
  private func randomLog(seed: UInt64, events: Int) -> ModelLog {
    var random = RandomSource.seeded(seed)
    let log = ModelLog()
    var names = 0
    for step in 0..<events {
      let one = AccountID(UInt32(Int.random(in: 0..<max(names, 1), using: &random)))
      let other = AccountID(UInt32(Int.random(in: 0..<max(names, 1), using: &random)))
      let request = RequestID(client: ClientID(UInt64(one.rawValue) + 50), number: UInt64(step + 1))
      switch Int.random(in: 0..<10, using: &random) {
      case 0 where names < 20, _ where names < 2:
        log.commit(.accountCreated(AccountID(UInt32(names)), name: "user\(names)"))
        names += 1
      case 1...2 where one != other && !log.following(of: one).contains(other):
        log.commit(.followed(one, other), request: request)
      case 3 where log.following(of: one).contains(other): log.commit(.unfollowed(one, other), request: request)
      default: log.commit(.posted(one, text: "\(step)"), request: request)
      }
    }
    return log
  }

  @Test(arguments: UInt64(0)..<8)
  func replayedAndLoadedAreTheSame(seed: UInt64) throws {
    var random = RandomSource.seeded(seed)
    let log = randomLog(seed: seed, events: 300)
    var replayed = ServiceState()
    for event in log.events { replayed.apply(event) }
    var loaded = ServiceState(
      snapshot: log.snapshot(upTo: EventID(UInt64.random(in: 0...log.head.rawValue, using: &random))))
    for event in log.read(after: loaded.head) { loaded.apply(event) }
    for state in [replayed, loaded] {
      #expect(state.head == log.head && state.time == log.time && state.names == log.names)
      for account in log.names.indices.map({ AccountID(UInt32($0)) }) {
        #expect(state.account(named: state.name(of: account)) == account)
        #expect(state.graph.following(of: account) == log.following(of: account).sorted())
        #expect(state.graph.followers(of: account) == log.followers(of: account))
        let home = log.following(of: account).union([account])
        #expect(state.authors(of: .home(account)) == home.sorted())
        for limit in [1, 7, 20] {
          guard case .page(let page) = state.page(of: .home(account), range: .newest, limit: limit) else {
            Issue.record("not in memory")
            continue
          }
          let expected = log.page(of: home, range: .newest, limit: limit)
          #expect(page.posts == expected.posts)
          if expected.more { #expect(page.more) }
        }
      }
      for event in log.events {
        guard let request = event.request else { continue }
        let newest = try #require(state.requests[request.client]?.newest)
        let isInMemory = newest - request.number < Limits.outcomesInMemory
        #expect(state.requests.outcome(of: request) == (isInMemory ? .done(event.id) : .doneEarlier))
      }
    }
  }

  @Test func postsAreFoundByID() {
    let log = randomLog(seed: 3, events: 100)
    var state = ServiceState()
    for event in log.events { state.apply(event) }
    for id in (0...log.head.rawValue + 2).map({ EventID($0) }) {
      let expected = log.posts(by: Set(log.names.indices.map { AccountID(UInt32($0)) })).first { $0.id == id }
      #expect(state.posts.post(id) == expected)
    }
    #expect(state.posts.post(EventID(rawValue: .max)) == nil)
  }

  @Test func memoryHoldsSoManyPosts() {
    let log = ModelLog()
    log.commit(.accountCreated(AccountID(0), name: "alice"))
    var state = ServiceState()
    for _ in 0..<Limits.postsInMemory { log.commit(.posted(AccountID(0), text: "x")) }
    for event in log.events { state.apply(event) }
    #expect(state.posts.floor == .zero)
    state.apply(log.commit(.posted(AccountID(0), text: "one more"))[0])
    #expect(state.posts.floor == EventID(2), "everything after the floor is in memory")
    #expect(state.posts.post(EventID(2)) == nil && state.posts.post(EventID(3)) != nil)
    let loaded = ServiceState(snapshot: log.snapshot())
    #expect(loaded.posts.floor == EventID(2))
  }
}

@Suite struct FollowGraphTests {
  @Test func bothDirectionsAgree() {
    var graph = FollowGraph()
    for _ in 0..<4 { graph.addAccount() }
    graph.follow(AccountID(2), AccountID(0))
    graph.follow(AccountID(1), AccountID(0))
    graph.follow(AccountID(1), AccountID(0))
    #expect(graph.followers(of: AccountID(0)) == [AccountID(1), AccountID(2)])
    #expect(graph.follows(AccountID(1), AccountID(0)) && !graph.follows(AccountID(0), AccountID(1)))
    graph.unfollow(AccountID(1), AccountID(0))
    graph.unfollow(AccountID(3), AccountID(0))
    #expect(graph.followers(of: AccountID(0)) == [AccountID(2)])
    #expect(graph.following(of: AccountID(1)) == [])
    let loaded = FollowGraph(following: [[], [], [AccountID(0)], []])
    #expect(loaded.followers(of: AccountID(0)) == graph.followers(of: AccountID(0)))
  }
}
