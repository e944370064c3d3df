// Reading timelines, watching them, and what is pushed to whom under which number.

import Model
import Testing

@testable import Core

@Suite struct MasterTimelineTests {
  /// Alice at peer 1, bob at peer 2, carol at peer 3.
  private func served(log: ModelLog = ModelLog()) -> TestMaster {
    let master = TestMaster.serving(log: log)
    for (peer, name) in [(1, "alice"), (2, "bob"), (3, "carol")] as [(UInt32, String)] {
      master.login(name, from: PeerID(peer))
    }
    return master
  }

  private func posts(_ master: TestMaster, on topic: Topic) -> [String] {
    master.updates.filter { $0.topic == topic }.flatMap { $0.posts.map(\.text) }
  }

  // MARK: Watching

  @Test func aWatchedTimelineGetsItsPosts() throws {
    let master = served()
    master.ask(.follow(name: "bob"), from: 1)
    let watched = try watching(master.ask(.watch(.home), from: 1))
    #expect(watched.sequence == 1)
    master.ask(.post(text: "of bob"), from: 2)
    master.ask(.post(text: "of carol"), from: 3)
    master.ask(.post(text: "of alice"), from: 1)
    #expect(posts(master, on: watched.topic) == ["of bob", "of alice"])
    #expect(master.updates.map(\.sequence) == [1, 2])
    #expect(master.updates[0].posts.map(\.author) == ["bob"])
  }

  @Test func anAuthorsTimelineIsWatched() throws {
    let master = served()
    let watched = try watching(master.ask(.watch(.author("bob")), from: 1))
    master.ask(.post(text: "of bob"), from: 2)
    master.ask(.post(text: "of alice"), from: 1)
    #expect(posts(master, on: watched.topic) == ["of bob"])
    #expect(code(master.ask(.watch(.author("nobody")), from: 1)) == .unknownUser)
  }

  /// Alice with one key twice, eve with another.
  @Test func onlyTheSessionsOwnKeyHearsATopic() throws {
    let master = TestMaster.serving()
    for (peer, user, key) in [(1, "alice", "a"), (2, "alice", "a"), (3, "eve", "e")] as [(UInt32, String, String)] {
      var hello = Hello(client: ClientID(UInt64(peer)), user: user, register: true, newest: .zero)
      hello.key = PeerKey(key)
      master.ask(.hello(hello), from: PeerID(peer))
    }
    let (alice, eve) = (Standing.client(PeerKey("a")), Standing.client(PeerKey("e")))
    let topic = try watching(master.ask(.watch(.home), from: 1)).topic
    #expect(try watching(master.ask(.watch(.home), from: 2)).topic == topic)
    let own = try watching(master.ask(.watch(.home), from: 3)).topic
    #expect(master.core.mayHear(topic, alice) && master.core.mayHear(own, eve))
    #expect(!master.core.mayHear(topic, eve) && !master.core.mayHear(own, alice))
    #expect(!master.core.mayHear(topic, .member) && !master.core.mayHear(topic, .client(PeerKey(""))))
    #expect(master.core.mayHear(topic, .unproved), "without encryption nobody proves anything")
    // As long as one of the sessions with this key watches.
    master.ask(.unwatch(topic), from: 1)
    #expect(master.core.mayHear(topic, alice))
    master.send(.bye, from: 2)
    #expect(!master.core.mayHear(topic, alice) && !master.core.mayHear(topic, .unproved))
    #expect(master.core.mayHear(own, eve))
    master.send(.bye, from: 3)
    #expect(master.core.hearers.isEmpty)
  }

  @Test func anAbandonedTopicIsNeverUsedAgain() throws {
    let master = served()
    let bobs = try watching(master.ask(.watch(.author("bob")), from: 1)).topic
    #expect(try watching(master.ask(.watch(.author("bob")), from: 3)).topic == bobs)
    let own = try watching(master.ask(.watch(.home), from: 2)).topic
    master.abandon(bobs)
    #expect(master.told(1).last == .goodbye && master.told(3).last == .goodbye && master.told(2).last != .goodbye)
    master.login("alice", from: 1)
    let fresh = try watching(master.ask(.watch(.author("bob")), from: 1)).topic
    #expect(fresh != bobs)
    master.ask(.post(text: "x"), from: 2)
    #expect(posts(master, on: fresh) == ["x"] && posts(master, on: own) == ["x"] && posts(master, on: bobs).isEmpty)
  }

  @Test func watchersOfOneTimelineShareItsTopic() throws {
    let master = served()
    let one = try watching(master.ask(.watch(.author("bob")), from: 1))
    master.ask(.post(text: "x"), from: 2)
    let two = try watching(master.ask(.watch(.author("bob")), from: 3))
    #expect(two == Watching(topic: one.topic, sequence: 2))
    #expect(master.ask(.watch(.author("bob")), from: 3) == .watching(two), "asked again: the same")
    // It lives until the last one leaves.
    master.send(.bye, from: 1)
    master.ask(.post(text: "y"), from: 2)
    #expect(posts(master, on: one.topic) == ["x", "y"])
    master.ask(.unwatch(one.topic), from: 3)
    master.ask(.post(text: "z"), from: 2)
    #expect(posts(master, on: one.topic) == ["x", "y"])
  }

  /// Nobody can go on reading a timeline with a topic that was given up.
  @Test func aTimelineWatchedAnewHasANewTopic() throws {
    let master = served()
    let one = try watching(master.ask(.watch(.home), from: 1))
    #expect(master.ask(.unwatch(one.topic), from: 1) == .unwatched)
    let two = try watching(master.ask(.watch(.home), from: 1))
    #expect(two.topic != one.topic && two.sequence == 1)
    master.subscribe(one.topic)
    #expect(master.updates.isEmpty)
    #expect(master.ask(.unwatch(one.topic), from: 1) == .unwatched, "twice is no error")
    #expect(master.ask(.unwatch(two.topic), from: 2) == .unwatched, "another's topic stays")
    master.ask(.post(text: "x"), from: 1)
    #expect(posts(master, on: two.topic) == ["x"])
  }

  @Test func aSubscriptionIsToldTheNextNumber() throws {
    let master = served()
    let watched = try watching(master.ask(.watch(.home), from: 1))
    master.subscribe(watched.topic)
    #expect(master.updates == [Update(topic: watched.topic, sequence: 1, posts: [])])
    master.ask(.post(text: "x"), from: 1)
    master.subscribe(watched.topic)
    #expect(master.updates.last == Update(topic: watched.topic, sequence: 2, posts: []))
    master.subscribe(Topic(high: 1, low: 1))
    #expect(master.actions.isEmpty, "a guessed topic tells nothing")
  }

  @Test func aPongTellsWhereTheTopicsAre() throws {
    let master = served()
    let watched = try watching(master.ask(.watch(.home), from: 1))
    master.ask(.post(text: "x"), from: 1)
    #expect(
      master.ask(.ping, from: 1)
        == .pong(Pong(head: EventID(7), topics: [Watching(topic: watched.topic, sequence: 2)])))
    #expect(master.ask(.ping, from: 2) == .pong(Pong(head: EventID(7), topics: [])))
  }

  @Test func followingWhileWatchingChangesWhatIsPushed() throws {
    let master = served()
    let watched = try watching(master.ask(.watch(.home), from: 1))
    master.ask(.post(text: "before"), from: 2)
    master.ask(.follow(name: "bob"), from: 1)
    master.ask(.post(text: "followed"), from: 2)
    master.ask(.unfollow(name: "bob"), from: 1)
    master.ask(.post(text: "unfollowed"), from: 2)
    master.ask(.follow(name: "bob"), from: 1)
    master.ask(.post(text: "again"), from: 2)
    #expect(posts(master, on: watched.topic) == ["followed", "again"])
  }

  @Test func aFollowAndAPostInOneCommit() throws {
    let master = served()
    let watched = try watching(master.ask(.watch(.home), from: 1))
    master.send(.post(text: "keeps the log busy"), from: 3)
    master.send(.post(text: "before"), from: 2)
    master.send(.follow(name: "bob"), from: 1)
    master.send(.post(text: "after"), from: 2)
    master.settle()
    #expect(posts(master, on: watched.topic) == ["after"])
  }

  @Test func whatOtherMastersCommitIsPushedToo() throws {
    let master = served()
    let watched = try watching(master.ask(.watch(.author("bob")), from: 1))
    master.hear(master.log.commit(.posted(AccountID(1), text: "told by the mesh")))
    master.log.commit(.posted(AccountID(1), text: "not heard"))
    master.hear(master.log.commit(.posted(AccountID(1), text: "after the hole")))
    master.settle()
    #expect(posts(master, on: watched.topic) == ["told by the mesh", "not heard", "after the hole"])
  }

  @Test func oneSessionWatchesSoManyTimelines() throws {
    let log = ModelLog()
    for number in 0...Limits.topicsPerSession {
      log.commit(.accountCreated(AccountID(UInt32(number)), name: "user\(number)"))
    }
    let master = TestMaster.serving(log: log)
    master.login("user0", from: 1)
    var topics: [Topic] = []
    for number in 0..<Limits.topicsPerSession {
      topics.append(try watching(master.ask(.watch(.author("user\(number)")), from: 1)).topic)
    }
    #expect(Set(topics).count == topics.count)
    #expect(code(master.ask(.watch(.home), from: 1)) == .limit)
    master.ask(.unwatch(topics[3]), from: 1)
    #expect(try watching(master.ask(.watch(.home), from: 1)).sequence == 1)
  }

  /// Random watching, following and posting: every topic carries what its timeline gets, from its first watcher to its last.
  @Test(arguments: UInt64(0)..<6)
  func pushesAgreeWithTheModel(seed: UInt64) throws {
    var random = RandomSource.seeded(seed)
    let master = TestMaster.serving(seed: seed)
    let people = 6
    for person in 0..<people { master.login("user\(person)", from: PeerID(UInt32(person + 1))) }
    struct Watched {
      var author: Int?
      var owner: Int
      var watchers: Set<Int>
      var expected: [EventID] = []
    }
    var watched: [Topic: Watched] = [:]
    for step in 0..<400 {
      let person = Int.random(in: 0..<people, using: &random)
      let other = Int.random(in: 0..<people, using: &random)
      let peer = PeerID(UInt32(person + 1))
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<4:
        guard let id = done(master.ask(.post(text: "\(step)"), from: peer)) else { throw NotThat() }
        for (topic, timeline) in watched {
          let isIn =
            timeline.author.map { $0 == person }
            ?? (timeline.owner == person
              || master.log.following(of: AccountID(UInt32(timeline.owner))).contains(AccountID(UInt32(person))))
          if isIn { watched[topic]!.expected.append(id) }
        }
      case 4, 5: master.ask(.follow(name: "user\(other)"), from: peer)
      case 6: master.ask(.unfollow(name: "user\(other)"), from: peer)
      case 7:
        guard case .watching(let watching) = master.ask(.watch(.home), from: peer) else { break }
        watched[watching.topic, default: Watched(owner: person, watchers: [])].watchers.insert(person)
      case 8:
        guard case .watching(let watching) = master.ask(.watch(.author("user\(other)")), from: peer) else { break }
        watched[watching.topic, default: Watched(author: other, owner: other, watchers: [])].watchers.insert(person)
      default:
        let mine = watched.filter { $0.value.watchers.contains(person) }.keys.sorted()
        guard let topic = mine.first else { break }
        master.ask(.unwatch(topic), from: peer)
        watched[topic]!.watchers.remove(person)
        if watched[topic]!.watchers.isEmpty {
          #expect(
            master.updates.filter { $0.topic == topic }.flatMap { $0.posts.map(\.id) } == watched[topic]!.expected)
          watched[topic] = nil
        }
      }
    }
    for (topic, timeline) in watched {
      #expect(master.updates.filter { $0.topic == topic }.flatMap { $0.posts.map(\.id) } == timeline.expected)
    }
    master.expectAllAnswered()
  }

  // MARK: Reading

  @Test func ownPostsAndThoseOfTheFollowed() throws {
    let master = served()
    master.ask(.post(text: "before I followed"), from: 2)
    master.ask(.follow(name: "bob"), from: 1)
    master.ask(.post(text: "mine"), from: 1)
    master.ask(.post(text: "carol's"), from: 3)
    let home = try page(master.ask(.timeline(TimelineQuery(timeline: .home, range: .newest)), from: 1))
    #expect(home.posts.map(\.text) == ["before I followed", "mine"])
    #expect(home.upTo == master.core.head && !home.more)
    let bobs = try page(master.ask(.timeline(TimelineQuery(timeline: .author("bob"), range: .newest)), from: 1))
    #expect(bobs.posts.map(\.text) == ["before I followed"])
    #expect(
      code(master.ask(.timeline(TimelineQuery(timeline: .author("x"), range: .newest)), from: 1)) == .unknownUser)
  }

  @Test func positionsAtTheEdges() throws {
    let master = served()
    master.ask(.post(text: "only"), from: 1)
    func read(_ range: TimelineQuery.Range) throws -> TimelinePage {
      try page(master.ask(.timeline(TimelineQuery(timeline: .home, range: range)), from: 1))
    }
    #expect(try read(.before(.zero)).posts.isEmpty, "nothing is before the first event")
    #expect(try read(.before(.zero)).more == false)
    #expect(try read(.before(EventID(7))).posts.isEmpty)
    #expect(try read(.before(EventID(8))).posts.count == 1)
    #expect(try read(.before(EventID(rawValue: .max))).posts.count == 1)
    #expect(try read(.after(.zero)).posts.count == 1)
    #expect(try read(.after(EventID(7))).posts.isEmpty)
    #expect(try read(.after(EventID(7))).upTo == EventID(7))
    #expect(try read(.after(EventID(rawValue: .max))).posts.isEmpty)
  }

  /// Older than memory: the log is asked. Every page from either side agrees with the model that has it all.
  @Test(arguments: UInt64(0)..<3)
  func pagesAgreeWithTheModel(seed: UInt64) throws {
    var random = RandomSource.seeded(seed)
    let log = ModelLog()
    let people = 5
    for person in 0..<people { log.commit(.accountCreated(AccountID(UInt32(person)), name: "user\(person)")) }
    // User 4 posts early only: its newest posts are beyond memory.
    for number in 0..<Limits.postsInMemory + 300 {
      let author = number < 200 ? number % people : Int.random(in: 0..<people - 1, using: &random)
      log.commit(.posted(AccountID(UInt32(author)), text: "\(number)"))
      if number % 500 == 0 {
        let (one, other) = (Int.random(in: 0..<people, using: &random), Int.random(in: 0..<people, using: &random))
        if one != other { log.commit(.followed(AccountID(UInt32(one)), AccountID(UInt32(other)))) }
      }
    }
    let master = TestMaster(log: log)
    master.turn { $0.start(at: $1, into: &$2) }
    // Partly loaded, partly replayed.
    let snapshotAt = EventID(UInt64.random(in: 100...log.head.rawValue, using: &random))
    master.turn { $0.onSnapshot(log.snapshot(upTo: snapshotAt), at: $1, into: &$2) }
    master.settle()
    for person in 0..<people { master.login("user\(person)", from: PeerID(UInt32(person + 1))) }
    var asked = 0
    for _ in 0..<120 {
      let person = Int.random(in: 0..<people, using: &random)
      let author = Int.random(in: 0..<people, using: &random)
      let isHome = Bool.random(using: &random)
      let account = AccountID(UInt32(person))
      let authors = isHome ? log.following(of: account).union([account]) : [AccountID(UInt32(author))]
      let position = EventID(UInt64.random(in: 0...log.head.rawValue + 2, using: &random))
      let ranges: [TimelineQuery.Range] = [.newest, .before(position), .after(position), .before(EventID(400))]
      let range = ranges.randomElement(using: &random)!
      let limit = [0, 1, 5, 20, 21, 100, 1_000].randomElement(using: &random)! as UInt32
      let query = TimelineQuery(timeline: isHome ? .home : .author("user\(author)"), range: range, limit: limit)
      let peer = PeerID(UInt32(person + 1))
      let number = master.send(.timeline(query), from: peer)
      asked += master.reads.count
      master.settle()
      guard let reply = master.replies.last, reply.peer == peer, reply.reply.number == number else { throw NotThat() }
      let answer = try page(reply.reply.body)
      let size = limit == 0 ? Limits.pagePosts : min(Int(limit), Limits.pagePosts)
      let expected = log.page(of: authors, range: range, limit: size)
      #expect(answer.posts == expected.posts, "\(query)")
      if expected.more { #expect(answer.more, "\(query) has more") }
      if case .after = range {
        #expect(answer.more == expected.more)
        #expect(answer.upTo == (expected.more ? answer.posts.last!.id : log.head))
      } else {
        #expect(answer.upTo == log.head)
      }
    }
    #expect(asked > 0, "the log was never asked")
    master.expectAllAnswered()
  }

  /// A client that goes on from page to page sees all, once, in order.
  @Test func pagesFollowEachOther() throws {
    let log = ModelLog()
    log.commit(.accountCreated(AccountID(0), name: "alice"), .accountCreated(AccountID(1), name: "bob"))
    for number in 0..<250 { log.commit(.posted(AccountID(UInt32(number % 2)), text: "\(number)")) }
    let master = TestMaster.serving(log: log)
    master.login("alice", from: 1)
    let all = log.posts(by: [AccountID(0)]).map(\.id)
    var forward: [EventID] = []
    var cursor = EventID.zero
    repeat {
      let next = try page(
        master.ask(.timeline(TimelineQuery(timeline: .home, range: .after(cursor), limit: 30)), from: 1))
      forward += next.posts.map(\.id)
      cursor = next.upTo
      if !next.more { break }
    } while forward.count < 1_000
    #expect(forward == all && cursor == log.head)
    var backward: [EventID] = []
    var range = TimelineQuery.Range.newest
    repeat {
      let next = try page(master.ask(.timeline(TimelineQuery(timeline: .home, range: range, limit: 30)), from: 1))
      backward.insert(contentsOf: next.posts.map(\.id), at: 0)
      guard let first = next.posts.first, next.more else { break }
      range = .before(first.id)
    } while backward.count < 1_000
    #expect(backward == all)
  }

  // MARK: Reads of the log

  private func withOldPosts() -> TestMaster {
    let log = ModelLog()
    log.commit(.accountCreated(AccountID(0), name: "alice"))
    for number in 0..<Limits.postsInMemory + 50 { log.commit(.posted(AccountID(0), text: "\(number)")) }
    let master = TestMaster(log: log)
    master.turn { $0.start(at: $1, into: &$2) }
    master.turn { $0.onSnapshot(log.snapshot(), at: $1, into: &$2) }
    master.settle()
    master.login("alice", from: 1)
    return master
  }

  @Test func aReadThatFailsIsRefused() {
    let master = withOldPosts()
    master.send(.timeline(TimelineQuery(timeline: .home, range: .after(.zero))), from: 1)
    master.failRead(master.reads[0].id)
    #expect(code(master.told(1).last!) == .storage)
    master.expectAllAnswered()
  }

  @Test func readsMayEndInAnyOrder() throws {
    let master = withOldPosts()
    let one = master.send(.timeline(TimelineQuery(timeline: .home, range: .after(EventID(1)), limit: 1)), from: 1)
    let two = master.send(.timeline(TimelineQuery(timeline: .home, range: .after(EventID(9)), limit: 1)), from: 1)
    master.finish(master.reads[1].id)
    master.finish(master.reads[0].id)
    let answers = master.replies.suffix(2)
    #expect(answers.map(\.reply.number) == [two, one])
    let pages = try answers.map { try page($0.reply.body) }
    #expect(pages.map(\.posts[0].id) == [EventID(10), EventID(2)])
    #expect(pages.map(\.upTo) == [EventID(10), EventID(2)])
  }

  @Test func aReadAnsweredTwiceOrUnknownIsIgnored() {
    let master = withOldPosts()
    master.send(.timeline(TimelineQuery(timeline: .home, range: .after(.zero))), from: 1)
    let id = master.reads[0].id
    master.finish(id)
    master.turn { core, _, actions in core.onRead(id, .read([]), more: false, into: &actions) }
    master.turn { core, _, actions in core.onRead(ReadID(999), .failed("x"), more: false, into: &actions) }
    #expect(master.actions.isEmpty)
  }

  /// What is posted while the log is read is after the page, not lost behind it.
  @Test func aPageReachesAsFarAsWhenItWasAskedFor() throws {
    let master = withOldPosts()
    let head = master.core.head
    master.send(
      .timeline(TimelineQuery(timeline: .author("alice"), range: .before(EventID(30)), limit: 100)), from: 1)
    let query = try #require(master.reads.first)
    master.hear(master.log.commit(.posted(AccountID(0), text: "meanwhile")))
    master.finish(query.id)
    #expect(try page(master.told(1).last!).upTo == head)
  }

  @Test func thePlacesToReadAreLimited() {
    let master = withOldPosts()
    let query = TimelineQuery(timeline: .home, range: .after(.zero))
    let each = Limits.requestsInFlight
    let peers = UInt32(Limits.readsWaiting / each)
    for peer in 2...peers + 2 { master.login("alice", from: PeerID(peer)) }
    for peer in 1...peers { for _ in 0..<each { master.send(.timeline(query), from: PeerID(peer)) } }
    #expect(master.reads.count == Limits.readsWaiting)
    master.send(.timeline(query), from: PeerID(peers + 1))
    #expect(code(master.told(PeerID(peers + 1)).last!) == .limit)
  }
}
