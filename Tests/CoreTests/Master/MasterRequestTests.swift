// Posts, follows and reads: validation, repeats, commits that come too late, and what follows a commit in which order.

import Model
import Testing

@testable import Core

@Suite struct MasterRequestTests {
  /// Alice at peer 1, bob at peer 2; the other masters know.
  private func served(log: ModelLog = ModelLog()) -> TestMaster {
    let master = TestMaster.serving(log: log)
    master.login("alice", client: 1_001, from: 1)
    master.login("bob", client: 1_002, from: 2)
    master.pass(.milliseconds(100))
    return master
  }

  // MARK: Posts

  @Test func aPostIsAcknowledgedOnceDurable() {
    let master = served()
    master.send(.post(text: "hello"), from: 1)
    #expect(master.told(1).count == 1)
    master.finishCommit()
    #expect(master.told(1).last == .done(EventID(5)))
    #expect(master.broadcasts.last == [master.log.events[4]])
    #expect(master.log.events[4].request == RequestID(client: ClientID(1_001), number: 2))
    master.expectAllAnswered()
  }

  @Test func acknowledgementsOfACommitGoTogether() {
    let master = TestMaster.serving()
    master.login("alice", takesDoneEach: true, from: 1)
    master.login("bob", takesDoneEach: true, from: 2)
    master.login("carol", from: 3)
    // In a commit of its own, with more of the connection behind it.
    master.send(.post(text: "first"), from: 1)
    master.send(.post(text: "1"), from: 1)
    master.send(.post(text: "2"), from: 3)
    master.send(.follow(name: "bob"), from: 1)
    master.send(.post(text: "3"), from: 2)
    master.send(.follow(name: "bob"), from: 1)
    master.send(.post(text: "4"), from: 3)
    master.send(.post(text: "5"), from: 1)
    master.finishCommit()
    #expect(master.told(1).last == .done(EventID(7)), "one alone is acknowledged as ever")
    let before = master.replies.count
    master.settle()
    let replies = Array(master.replies.dropFirst(before))
    #expect(replies.map(\.peer) == [1, 3, 2, 1, 3])
    let all = [(3, 8), (4, 10), (6, 13)].map { Done(number: $0.0, event: EventID($0.1)) }
    #expect(replies[0].reply == Reply(number: 0, body: .doneEach(all)), "where the first one would be")
    #expect(replies[1].reply == Reply(number: 2, body: .done(EventID(9))))
    #expect(replies[2].reply == Reply(number: 2, body: .done(EventID(11))))
    #expect(replies[3].reply.number == 5 && code(replies[3].reply.body) == .alreadyExists)
    #expect(replies[4].reply == Reply(number: 3, body: .done(EventID(12))), "who does not take them together")
    #expect(master.core.inFlight.isEmpty)
    master.expectAllAnswered()
  }

  /// As many as there can be, in several commits; then others, in the next.
  @Test func eachCommitHasItsOwnAcknowledgements() {
    let master = TestMaster.serving()
    master.login("alice", takesDoneEach: true, from: 1)
    master.login("bob", takesDoneEach: true, from: 2)
    for number in 2...UInt64(Limits.requestsInFlight) + 1 { master.send(.post(text: "x"), number: number, from: 1) }
    master.send(.post(text: "y"), number: 2, from: 2)
    master.send(.post(text: "y"), number: 3, from: 2)
    master.settle()
    let posts = master.told(1).dropFirst()
    #expect(posts.count < 10, "\(posts.count) answers")
    master.send(.post(text: "last"), from: 1)
    master.send(.post(text: "last"), from: 1)
    master.send(.post(text: "last"), from: 1)
    master.settle()
    let head = master.log.head.rawValue
    let number = UInt64(Limits.requestsInFlight) + 2
    #expect(
      master.told(1).suffix(2) == [
        .done(EventID(head - 2)),
        .doneEach([
          Done(number: number + 1, event: EventID(head - 1)), Done(number: number + 2, event: EventID(head)),
        ]),
      ])
    master.expectAllAnswered()
  }

  @Test func aLogoutIsAcknowledgedAlone() {
    let master = TestMaster.serving()
    master.login("alice", takesDoneEach: true, from: 1)
    master.login("bob", from: 2)
    master.send(.post(text: "of another"), from: 2)
    master.send(.post(text: "1"), from: 1)
    master.send(.post(text: "2"), from: 1)
    master.send(.logout(everywhere: false), from: 1)
    master.send(.post(text: "3"), from: 1)
    master.settle()
    let all = [(2, 6), (3, 7), (5, 9)].map { Done(number: $0.0, event: EventID($0.1)) }
    #expect(master.told(1).suffix(2) == [.doneEach(all), .done(EventID(8))])
    #expect(master.core.sessions[1] == nil && master.core.inFlight.isEmpty)
    master.expectAllAnswered()
  }

  @Test(arguments: ["", "   ", "a\nb", "a\u{9b}31m", String(repeating: "x", count: 1_025)])
  func badPostsAreRefused(text: String) {
    let master = served()
    let head = master.log.head
    #expect(code(master.ask(.post(text: text), from: 1)) == .invalidText)
    #expect(master.log.head == head)
  }

  @Test func whatArrivesDuringACommitGoesIntoTheNext() {
    let master = served()
    master.send(.post(text: "1"), from: 1)
    master.send(.post(text: "2"), from: 1)
    master.send(.post(text: "3"), from: 2)
    master.finishCommit()
    #expect(master.commit?.events.count == 2)
    master.settle()
    #expect(master.log.posts(by: [AccountID(0), AccountID(1)]).map(\.text) == ["1", "2", "3"])
    master.expectAllAnswered()
  }

  @Test func theLogGetsMoreBeforeItIsDone() {
    let master = served()
    master.send(.post(text: "1"), from: 1)
    master.send(.post(text: "2"), from: 2)
    #expect(master.actions.contains { if case .append = $0 { true } else { false } })
    master.finishCommit()
    #expect(done(master.told(1).last!) == EventID(5) && master.told(2).count == 1, "one is durable and one is not")
    master.settle()
    master.expectAllAnswered()
  }

  @Test func whatCommitsUnderWayChangeCountsForWhatFollows() {
    let master = served()
    master.send(.follow(name: "bob"), from: 1)
    master.send(.unfollow(name: "bob"), from: 1)
    master.finishCommit()
    #expect(master.log.following(of: AccountID(0)) == [AccountID(1)])
    master.send(.follow(name: "bob"), from: 1)
    master.send(.follow(name: "bob"), from: 1)
    master.settle()
    #expect(master.told(1).dropFirst().map { code($0) } == [nil, nil, nil, .alreadyExists])
    #expect(master.log.following(of: AccountID(0)) == [AccountID(1)])
    master.expectAllAnswered()
  }

  /// The first comes too late; the second was validated on top of it, and waits for the log already.
  @Test func whatFollowsACommitThatComesTooLateIsValidatedAnew() {
    let log = ModelLog()
    let master = served(log: log)
    master.send(.post(text: "1"), from: 1)
    master.send(.follow(name: "bob"), from: 1)
    master.send(.post(text: "2"), from: 2)
    log.commit(.followed(AccountID(0), AccountID(1)))
    master.finishCommit()
    #expect(master.told(1).count == 2, "what needs no event is answered at once")
    master.settle()
    #expect(master.told(1).dropFirst().map { code($0) } == [.alreadyExists, nil])
    #expect(log.posts(by: [AccountID(0), AccountID(1)]).map(\.text) == ["1", "2"])
    master.expectAllAnswered()
  }

  /// It is not refused with the commit before it, for which there was no room: it may be smaller.
  @Test func whatFollowsACommitThatFailsIsTriedAnew() {
    let master = served()
    master.send(.hello(Hello(client: ClientID(3), user: "carol", register: true, newest: .zero)), from: 3)
    master.send(.follow(name: "carol"), from: 1)
    master.send(.post(text: "goes on"), from: 2)
    master.failCommit()
    #expect(code(master.told(3).last!) == .storage)
    master.settle()
    #expect(code(master.told(1).last!) == .unknownUser)
    #expect(done(master.told(2).last!) == EventID(5))
    master.expectAllAnswered()
  }

  /// What it rests on became durable with the first of the two commits.
  @Test func aRepeatDoesNotFailWithALaterCommit() {
    let master = served()
    master.send(.post(text: "once"), number: 7, from: 1)
    master.send(.post(text: "another"), from: 2)
    master.send(.post(text: "once"), number: 7, from: 1)
    master.finishCommit()
    master.failCommit()
    #expect(code(master.told(2).last!) == .storage)
    master.settle()
    #expect(master.told(1).suffix(2) == [.done(EventID(5)), .done(EventID(5))])
    #expect(master.log.head == EventID(5))
    master.expectAllAnswered()
  }

  @Test func ownEventsAreReadWhileMoreAreUnderWay() {
    let log = ModelLog()
    let master = served(log: log)
    master.send(.follow(name: "bob"), from: 1)
    master.send(.post(text: "second"), from: 2)
    master.writeCommit()
    master.turn { core, _, actions in core.catchUp(into: &actions) }
    master.finishCatchUp()
    #expect(master.core.head == EventID(5) && master.commit != nil)
    master.send(.unfollow(name: "bob"), from: 1)
    #expect(master.ordered.head == EventID(6), "nothing is ordered until it is known what became of the first")
    master.reportCommit()
    master.settle()
    #expect(master.told(1).dropFirst().compactMap(done) == [EventID(5), EventID(7)])
    #expect(log.following(of: AccountID(0)).isEmpty)
    master.expectAllAnswered()
  }

  @Test func registrationsUnderWayAreNumberedAnewWhenTheFirstComesTooLate() {
    let log = ModelLog()
    let master = served(log: log)
    for (peer, user) in [(3, "carol"), (4, "dave")] as [(UInt32, String)] {
      master.send(
        .hello(Hello(client: ClientID(UInt64(peer)), user: user, register: true, newest: .zero)), from: PeerID(peer))
    }
    log.commit(.accountCreated(AccountID(2), name: "erin"))
    master.settle()
    #expect(isWelcome(master.told(3).last) && isWelcome(master.told(4).last))
    #expect(log.names.suffix(3) == ["erin", "carol", "dave"])
    master.expectAllAnswered()
  }

  @Test func nothingIsBegunAfterAnothersEventsAreKnown() {
    let log = ModelLog()
    let master = served(log: log)
    master.send(.post(text: "1"), from: 1)
    master.hear(log.commit(.posted(AccountID(1), text: "another's")))
    master.send(.post(text: "2"), from: 2)
    #expect(master.commit?.events.count == 1 && master.appends.isEmpty, "it would come too late for sure")
    master.settle()
    #expect(log.posts(by: [AccountID(0), AccountID(1)]).map(\.text) == ["another's", "1", "2"])
    master.expectAllAnswered()
  }

  // MARK: The other masters

  private func post(_ text: String, at master: TestMaster) {
    master.send(.post(text: text), from: 1)
    master.finishCommit()
  }

  @Test func commitsInQuickSuccessionAreToldTogether() {
    let master = served()
    master.pass(.seconds(1))
    let before = master.broadcasts.count
    post("1", at: master)
    #expect(master.broadcasts.dropFirst(before).map(\.count) == [1], "the first is told at once")
    post("2", at: master)
    post("3", at: master)
    #expect(master.broadcasts.count == before + 1)
    master.pass(MasterCore.broadcastPause)
    #expect(master.broadcasts.dropFirst(before).map(\.count) == [1, 2])
  }

  /// Nobody is there to be told; whoever comes hears of the next commit.
  @Test func aLoneMasterTellsNobody() {
    let master = served()
    master.pass(.seconds(1))
    master.hear(.roster(TestMaster.roster(1, ["master-1"], available: "master-1")))
    let before = master.broadcasts.count
    post("1", at: master)
    master.pass(.seconds(1))
    #expect(master.broadcasts.count == before)
    master.hear(.roster(TestMaster.roster(2, ["master-1", "master-2"], available: "master-1")))
    post("2", at: master)
    #expect(master.broadcasts.dropFirst(before).map { $0.map(\.id) } == [[master.log.head]])
  }

  @Test func commitsAreToldAtOnceWhereAllMastersServe() {
    let master = TestMaster.serving(assignment: .spread)
    master.login("alice", client: 1_001, from: 1)
    let before = master.broadcasts.count
    for text in ["1", "2", "3"] { post(text, at: master) }
    #expect(master.broadcasts.dropFirst(before).map(\.count) == [1, 1, 1])
  }

  @Test func whatIsHeldBackIsToldBeforeTheEnd() {
    let master = served()
    post("1", at: master)
    post("2", at: master)
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(master.hasExited)
    #expect(master.broadcasts.last?.last?.id == master.log.head)
  }

  @Test func aBroadcastHasNoHole() {
    let log = ModelLog()
    let master = served(log: log)
    master.pass(.seconds(1))
    post("1", at: master)
    post("2", at: master)
    let other = log.commit(.posted(AccountID(1), text: "another master's"))
    master.hear(other)
    post("3", at: master)
    master.pass(MasterCore.broadcastPause)
    #expect(master.broadcasts.joined().map(\.id) == log.events.map(\.id).filter { $0 != other[0].id })
  }

  @Test func whatIsUnderWayHasALimit() {
    let master = TestMaster.serving()
    for peer in 1...5 as ClosedRange<UInt32> { master.login("user\(peer)", from: PeerID(peer)) }
    master.send(.post(text: "keeps the log busy"), from: 1)
    for peer in 1...5 as ClosedRange<UInt32> {
      for _ in 1..<Limits.requestsInFlight { master.send(.post(text: "x"), from: PeerID(peer)) }
    }
    let all = 5 * (Limits.requestsInFlight - 1) + 1
    #expect(all > 2 * Limits.batchEvents)
    #expect(Int(master.ordered.head.rawValue - master.core.head.rawValue) == 2 * Limits.batchEvents)
    master.finishCommit()
    let next = master.actions.firstIndex { if case .append = $0 { true } else { false } }
    let answer = master.actions.firstIndex { if case .reply = $0 { true } else { false } }
    #expect(next! < answer!, "the log does not wait for the answers")
    #expect(master.commit?.events.count == Limits.appendEvents, "one part of what waits")
    master.settle()
    #expect(master.log.posts(by: Set((0..<5).map { AccountID($0) })).count == all)
    master.expectAllAnswered()
  }

  @Test func timeNeverGoesBack() {
    let master = served()
    master.wall = Timestamp(milliseconds: 5)
    master.ask(.post(text: "x"), from: 1)
    let times = master.log.events.map(\.time)
    #expect(times == times.sorted())
    #expect(times.last == times.first)
  }

  // MARK: Follows

  @Test func followsAndUnfollows() {
    let master = served()
    #expect(done(master.ask(.follow(name: "bob"), from: 1)) == EventID(5))
    #expect(master.log.following(of: AccountID(0)) == [AccountID(1)])
    #expect(code(master.ask(.follow(name: "bob"), from: 1)) == .alreadyExists)
    #expect(done(master.ask(.unfollow(name: "bob"), from: 1)) == EventID(6))
    #expect(code(master.ask(.unfollow(name: "bob"), from: 1)) == .notExists)
    #expect(master.log.head == EventID(6))
    master.expectAllAnswered()
  }

  @Test func followsAreRefused() {
    let master = served()
    #expect(code(master.ask(.follow(name: "alice"), from: 1)) == .alreadyExists)
    #expect(code(master.ask(.follow(name: "nobody"), from: 1)) == .unknownUser)
    #expect(code(master.ask(.unfollow(name: "nobody"), from: 1)) == .unknownUser)
    #expect(code(master.ask(.unfollow(name: "alice"), from: 1)) == .notExists)
    #expect(code(master.ask(.follow(name: "BOB"), from: 1)) == .unknownUser, "names have case")
    #expect(code(master.ask(.follow(name: "../../\n\u{1b}[2J"), from: 1)) == .unknownUser)
    #expect(master.log.head == EventID(4))
    master.expectAllAnswered()
  }

  @Test func duplicatesWithinOneCommit() {
    let master = served()
    master.send(.post(text: "keeps the log busy"), from: 2)
    master.send(.follow(name: "bob"), from: 1)
    master.send(.follow(name: "bob"), from: 1)
    master.send(.unfollow(name: "bob"), from: 1)
    master.send(.unfollow(name: "bob"), from: 1)
    master.send(.follow(name: "bob"), from: 1)
    master.finishCommit()
    #expect(master.told(1).count == 1, "nothing is told that is not durable")
    master.settle()
    #expect(
      master.told(1).dropFirst().map { code($0) } == [nil, .alreadyExists, nil, .notExists, nil])
    #expect(master.log.following(of: AccountID(0)) == [AccountID(1)])
    master.expectAllAnswered()
  }

  /// "You follow bob already" would be wrong if the disk did not take the follow before it: then it is this one that counts.
  @Test func aRefusalThatRestsOnACommitIsNotGivenIfThatFails() {
    let master = served()
    master.send(.post(text: "keeps the log busy"), from: 2)
    master.send(.follow(name: "bob"), from: 1)
    master.send(.follow(name: "bob"), from: 1)
    master.finishCommit()
    master.failCommit()
    #expect(master.told(1).dropFirst().map { code($0) } == [.storage])
    master.settle()
    #expect(done(master.told(1).last!) != nil)
    #expect(master.log.following(of: AccountID(0)) == [AccountID(1)])
    master.expectAllAnswered()
  }

  @Test func someoneWhoRegistersInTheSameCommitCanBeFollowed() {
    let master = served()
    master.send(.post(text: "keeps the log busy"), from: 2)
    master.send(.hello(Hello(client: ClientID(3), user: "carol", register: true, newest: .zero)), from: 3)
    master.send(.follow(name: "carol"), from: 1)
    master.settle()
    #expect(done(master.told(1).last!) == EventID(8))
    #expect(master.log.following(of: AccountID(0)) == [AccountID(2)])
  }

  // MARK: Repeats

  @Test func aRepeatHasOneEffectAndTheFirstAnswer() {
    let master = served()
    let first = master.ask(.post(text: "once"), number: 7, from: 1)
    #expect(master.ask(.post(text: "once"), number: 7, from: 1) == first)
    #expect(master.log.posts(by: [AccountID(0)]).count == 1)
    master.expectAllAnswered()
  }

  @Test func aRepeatWhileTheFirstIsUnderWay() {
    let master = served()
    master.send(.post(text: "once"), number: 7, from: 1)
    master.send(.post(text: "once"), number: 7, from: 1)
    master.settle()
    #expect(master.told(1).suffix(2) == [.done(EventID(5)), .done(EventID(5))])
    #expect(master.log.head == EventID(5))
    master.expectAllAnswered()
  }

  @Test func aRepeatWithinOneCommit() {
    let master = served()
    master.send(.post(text: "keeps the log busy"), from: 2)
    master.send(.follow(name: "bob"), number: 7, from: 1)
    master.send(.follow(name: "bob"), number: 7, from: 1)
    master.settle()
    #expect(master.told(1).suffix(2) == [.done(EventID(6)), .done(EventID(6))])
    master.expectAllAnswered()
  }

  @Test func aRepeatAtAnotherMaster() {
    let log = ModelLog()
    let one = served(log: log)
    one.send(.post(text: "once"), number: 7, from: 1)
    one.finishCommit()
    let other = TestMaster.serving("master-2", log: log)
    other.login("alice", client: 1_001, register: false, from: 5)
    #expect(other.ask(.post(text: "once"), number: 7, from: 5) == .done(EventID(5)))
    #expect(log.head == EventID(5))
  }

  /// The first master commits while the second validates: the second comes too late, and finds the request done.
  @Test func aRepeatThatRacesWithTheFirst() {
    let log = ModelLog()
    let one = served(log: log)
    let other = TestMaster.serving("master-2", log: log)
    other.login("alice", client: 1_001, register: false, from: 5)
    one.send(.post(text: "once"), number: 7, from: 1)
    other.send(.post(text: "once"), number: 7, from: 5)
    one.settle()
    other.settle()
    #expect(one.told(1).last == .done(EventID(5)))
    #expect(other.told(5).last == .done(EventID(5)))
    #expect(log.head == EventID(5))
    other.expectAllAnswered()
  }

  @Test func aFollowThatWasDoneIsNotRefusedAtItsRepeat() {
    let master = served()
    let first = master.ask(.follow(name: "bob"), number: 7, from: 1)
    #expect(master.ask(.follow(name: "bob"), number: 7, from: 1) == first)
    master.ask(.unfollow(name: "bob"), number: 8, from: 1)
    #expect(master.ask(.follow(name: "bob"), number: 7, from: 1) == first)
    #expect(master.log.following(of: AccountID(0)) == [])
  }

  @Test func aRequestTooOldToTellIsRefused() {
    let master = served()
    master.ask(.post(text: "x"), number: 5_000, from: 1)
    #expect(code(master.ask(.post(text: "x"), number: 7, from: 1)) == .tooOld)
    #expect(master.log.head == EventID(5))
  }

  @Test func numbersMayBeAsGreatAsTheyLike() {
    let master = served()
    #expect(done(master.ask(.post(text: "x"), number: .max, from: 1)) == EventID(5))
    #expect(done(master.ask(.post(text: "x"), number: .max, from: 1)) == EventID(5))
    #expect(code(master.ask(.post(text: "y"), number: 2, from: 1)) == .tooOld)
  }

  /// A number that the window can't remember would take effect at every repeat.
  @Test func zeroIsNoNumber() {
    let master = served()
    #expect(code(master.ask(.post(text: "x"), number: 0, from: 1)) == .invalid)
    #expect(code(master.ask(.follow(name: "bob"), number: 0, from: 1)) == .invalid)
    #expect(master.log.head == EventID(4))
    master.expectAllAnswered()
  }

  @Test func aRequestOutlivesItsSession() {
    let master = served()
    master.send(.post(text: "x"), number: 7, from: 1)
    master.send(.bye, from: 1)
    master.login("alice", client: 1_001, from: 3)
    #expect(master.ask(.post(text: "x"), number: 7, from: 3) == .done(EventID(5)))
    #expect(master.log.head == EventID(5))
    master.expectAllAnswered()
  }

  // MARK: Repeats of what memory has no event of

  /// Alice has posted with numbers 11 to 50, as events 5 to 44.
  private func servedLong(log: ModelLog = ModelLog()) -> TestMaster {
    let master = served(log: log)
    for number in 11...50 as ClosedRange<UInt64> { master.send(.post(text: "\(number)"), number: number, from: 1) }
    master.settle()
    #expect(master.log.head == EventID(44) && master.lookUp == nil)
    return master
  }

  @Test func anOldRepeatIsLookedUp() throws {
    let master = servedLong()
    master.send(.post(text: "11"), number: 11, from: 1)
    let told = master.told(1).count
    let asked = try #require(master.lookUp)
    #expect(asked.requests == [RequestID(client: ClientID(1_001), number: 11): EventID(5)])
    #expect(asked.upTo == EventID(44) && master.core.inFlight[1]?.count == 1 && master.core.repeats.count == 1)
    // Others do not wait for it.
    master.send(.post(text: "50"), number: 50, from: 1)
    master.send(.post(text: "new"), number: 51, from: 1)
    master.finishCommit()
    master.send(.post(text: "11"), number: 11, from: 1)
    master.settle()
    let events = [44, 45, 5, 5].map { EventID($0) }
    #expect(master.told(1).dropFirst(told).map(done) == events)
    #expect(master.log.head == EventID(45))
    #expect(master.core.inFlight.isEmpty && master.core.repeats.isEmpty)
    master.expectAllAnswered()
  }

  /// All that a client had under way when its master died: one look-up serves what came while another was under way.
  @Test func manyOldRepeatsAreLookedUpTogether() {
    let log = ModelLog()
    let one = served(log: log)
    for number in 1...1_000 as ClosedRange<UInt64> { one.send(.post(text: "x"), number: number + 10, from: 1) }
    while one.commit != nil { one.finishCommit() }
    let other = TestMaster.serving("master-2", log: log)
    other.login("alice", client: 1_001, register: false, from: 5)
    for number in 1...1_000 as ClosedRange<UInt64> { other.send(.post(text: "x"), number: number + 10, from: 5) }
    #expect(other.lookUp?.requests.count == 1)
    other.finishLookUp()
    #expect(other.lookUp?.requests.count == 983)
    other.finishLookUp()
    #expect(other.lookUp == nil && other.commit == nil)
    let told = other.told(5).dropFirst().compactMap(done)
    #expect(told.sorted() == (5...1_004).map { EventID($0) })
    other.expectAllAnswered()
  }

  /// Who is refused because too many wait is to try again soon. Posts do not wait for that.
  @Test func lookUpsAreBounded() {
    let log = ModelLog()
    log.commit(.accountCreated(AccountID(0), name: "alice"))
    let sessions = UInt64(Limits.repeatsWaiting / Limits.requestsInFlight)
    for client in 1...sessions + 1 {
      log.commit(.posted(AccountID(0), text: ""), request: RequestID(client: ClientID(client), number: 1))
      log.commit(.posted(AccountID(0), text: ""), request: RequestID(client: ClientID(client), number: 40))
    }
    let master = TestMaster.serving(log: log)
    for client in 1...sessions + 1 {
      master.login("alice", client: client, register: false, from: PeerID(UInt32(client)))
    }
    for client in 1...sessions {
      for _ in 0..<Limits.requestsInFlight {
        master.send(.post(text: "x"), number: 1, from: PeerID(UInt32(client)))
      }
    }
    #expect(master.core.repeats.count == Limits.repeatsWaiting && master.core.load.firstBeyondItsLimit == nil)
    #expect(master.core.requestsWaiting == 0)
    master.send(.post(text: "x"), number: 1, from: 1)
    #expect(code(master.told(1).last!) == .limit)
    let last = PeerID(UInt32(sessions + 1))
    master.send(.post(text: "x"), number: 1, from: last)
    guard case .refused(let refusal) = master.told(last).last, refusal.code == .limit else {
      Issue.record("\(master.told(last))")
      return
    }
    #expect(refusal.retryAfter == 100)
    let head = log.head
    // All of that was a moment ago.
    master.wall = log.time
    master.send(.post(text: "new"), number: 41, from: last)
    master.finishCommit()
    #expect(master.told(last).last == .done(head.next))
    master.finishLookUp()
    // One of the first session's repeats was looked up before.
    #expect(master.lookUp?.requests.count == Limits.readEvents / Limits.requestsInFlight + 1)
    #expect(master.core.repeats.count == Limits.repeatsWaiting - 1)
    master.settle()
    #expect(master.ask(.post(text: "x"), number: 1, from: last) == .done(EventID(head.rawValue - 1)))
    master.expectAllAnswered()
  }

  @Test func anOldRepeatThatCannotBeReadIsRefused() {
    let master = servedLong()
    master.send(.follow(name: "bob"), number: 11, from: 1)
    master.finishLookUp(.failed("disk error"))
    #expect(code(master.told(1).last!) == .storage)
    #expect(master.ask(.follow(name: "bob"), number: 11, from: 1) == .done(EventID(5)))
    #expect(master.log.following(of: AccountID(0)) == [])
    master.expectAllAnswered()
  }

  /// What leaves the window while it waits is not asked for.
  @Test func anOldRepeatThatLeavesTheWindowWhileItWaitsIsTooOld() {
    let master = servedLong()
    master.send(.post(text: "11"), number: 11, from: 1)
    master.send(.post(text: "12"), number: 12, from: 1)
    master.send(.post(text: "far on"), number: 12 + Limits.repeatWindow, from: 1)
    master.finishCommit()
    master.finishLookUp()
    #expect(master.lookUp == nil && master.core.repeats.isEmpty)
    #expect(master.told(1).suffix(2).first == .done(EventID(5)) && code(master.told(1).last!) == .tooOld)
    #expect(master.core.inFlight.isEmpty)
    master.expectAllAnswered()
  }

  /// Another master has got further than this one, and the derived tables with it.
  @Test func anOldRepeatThatHasLeftTheWindowMeanwhileIsTooOld() {
    let master = servedLong()
    master.send(.post(text: "11"), number: 11, from: 1)
    master.finishLookUp(.read([:]))
    #expect(code(master.told(1).last!) == .tooOld)
    #expect(master.log.head == EventID(44) && master.commit == nil)
    master.expectAllAnswered()
  }

  @Test func anOldRepeatOutlivesItsSession() {
    let master = servedLong()
    master.send(.post(text: "11"), number: 11, from: 1)
    master.send(.bye, from: 1)
    master.login("alice", client: 1_001, from: 3)
    master.send(.post(text: "11"), number: 11, from: 3)
    master.settle()
    #expect(master.told(3).last == .done(EventID(5)))
    #expect(master.log.head == EventID(44) && master.core.inFlight.isEmpty)
    master.expectAllAnswered()
  }

  @Test func anOldRepeatAfterALoadedSnapshot() {
    let log = ModelLog()
    _ = servedLong(log: log)
    let master = TestMaster("master-2", log: log)
    master.turn { $0.start(at: $1, into: &$2) }
    master.turn { $0.onSnapshot(log.snapshot(upTo: EventID(40)), at: $1, into: &$2) }
    master.finishCatchUp()
    master.login("alice", client: 1_001, register: false, from: 5)
    for number in 11...50 as ClosedRange<UInt64> {
      #expect(master.ask(.post(text: "\(number)"), number: number, from: 5) == .done(EventID(number - 6)))
    }
    #expect(log.head == EventID(44))
    master.expectAllAnswered()
  }

  @Test func oldRepeatsAreRefusedAtAStop() {
    let master = servedLong()
    master.send(.post(text: "11"), number: 11, from: 1)
    master.send(.post(text: "12"), number: 12, from: 1)
    master.turn { $0.stop(at: $1, into: &$2) }
    #expect(master.hasExited)
    #expect(master.told(1).suffix(3).dropLast().map(code) == [.unavailable, .unavailable], "repeated elsewhere")
    master.expectAllAnswered()
  }

  /// While a commit is under way, the stop waits for it; the look-up's answer comes when nobody waits any more.
  @Test func aLookUpThatEndsAfterAStopIsIgnored() {
    let master = servedLong()
    master.send(.post(text: "11"), number: 11, from: 1)
    master.send(.post(text: "new"), number: 51, from: 1)
    master.turn { $0.stop(at: $1, into: &$2) }
    master.finishLookUp()
    #expect(code(master.told(1).last!) == .unavailable && !master.hasExited)
    master.finishCommit()
    #expect(master.hasExited && master.told(1).suffix(2) == [.done(EventID(45)), .goodbye])
    master.expectAllAnswered()
  }

  @Test func anOldLogoutRepeatedEndsTheSession() {
    let log = ModelLog()
    let one = served(log: log)
    one.ask(.logout(everywhere: true), number: 11, from: 1)
    one.login("alice", client: 1_001, from: 3)
    for number in 12...40 as ClosedRange<UInt64> { one.ask(.post(text: "x"), number: number, from: 3) }
    #expect(one.ask(.logout(everywhere: true), number: 11, from: 3) == .done(EventID(5)))
    #expect(code(one.ask(.ping, from: 3)) == .noSession)
    one.expectAllAnswered()
  }

  // MARK: Another master was first

  @Test func aCommitThatComesTooLateIsValidatedAgain() {
    let log = ModelLog()
    let master = served(log: log)
    master.send(.follow(name: "bob"), from: 1)
    master.send(.post(text: "after"), from: 2)
    log.commit(.followed(AccountID(0), AccountID(1)), .accountCreated(AccountID(2), name: "carol"))
    master.settle()
    #expect(code(master.told(1).last!) == .alreadyExists)
    #expect(master.told(2).last == .done(EventID(7)))
    #expect(log.events.map(\.id) == (1...7).map { EventID($0) })
    master.expectAllAnswered()
  }

  /// They keep their place before everyone who came later.
  @Test func aCommitThatComesTooLateGoesFirst() {
    let log = ModelLog()
    let master = served(log: log)
    master.send(.post(text: "1"), from: 1)
    master.send(.post(text: "2"), from: 2)
    master.send(.post(text: "3"), from: 1)
    log.commit(.posted(AccountID(1), text: "0"))
    master.settle()
    #expect(log.posts(by: [AccountID(0), AccountID(1)]).map(\.text) == ["0", "1", "2", "3"])
    master.expectAllAnswered()
  }

  @Test func twoMastersTakeTurns() {
    let log = ModelLog()
    let one = served(log: log)
    let two = TestMaster.serving("master-2", log: log)
    two.login("carol", from: 7)
    for round in 0..<10 {
      one.send(.post(text: "\(round) of alice"), from: 1)
      two.send(.post(text: "\(round) of carol"), from: 7)
      one.settle()
      two.settle()
    }
    #expect(log.events.map(\.id) == (1...UInt64(log.events.count)).map { EventID($0) })
    #expect(log.posts(by: [AccountID(0)]).count == 10 && log.posts(by: [AccountID(2)]).count == 10)
    one.expectAllAnswered()
    two.expectAllAnswered()
  }

  /// The other master's commit came after ours, so reading up to it applies ours before its own end is heard of.
  @Test func ownEventsAreReadBeforeTheirCommitEnds() {
    let log = ModelLog()
    let master = served(log: log)
    master.send(.post(text: "mine"), from: 1)
    master.writeCommit()
    master.hear(log.commit(.posted(AccountID(1), text: "another's, after mine")))
    #expect(master.catchUp == EventID(4))
    master.finishCatchUp()
    #expect(master.core.head == EventID(6))
    #expect(master.told(1).count == 1)
    master.reportCommit()
    #expect(master.told(1).last == .done(EventID(5)))
    #expect(master.broadcasts.last?.map(\.id) == [EventID(5)])
    master.expectAllAnswered()
  }

  @Test func ownRegistrationIsReadBeforeItsCommitEnds() {
    let log = ModelLog()
    let master = served(log: log)
    master.send(.hello(Hello(client: ClientID(3), user: "carol", register: true, newest: .zero)), from: 3)
    master.writeCommit()
    master.hear(log.commit(.posted(AccountID(1), text: "another's")))
    master.finishCatchUp()
    master.reportCommit()
    #expect(isWelcome(master.told(3).last))
    master.expectAllAnswered()
  }

  @Test func nothingIsCommittedWhileAHoleIsRead() {
    let log = ModelLog()
    let master = served(log: log)
    log.commit(.posted(AccountID(1), text: "not heard"))
    master.hear(log.commit(.posted(AccountID(1), text: "heard")))
    master.send(.post(text: "mine"), from: 1)
    #expect(master.commit == nil, "it would come too late for sure")
    master.finishCatchUp()
    #expect(master.commit?.after == EventID(6))
    master.settle()
    master.expectAllAnswered()
  }

  // MARK: The disk fails

  @Test func aFailedCommitIsRefusedAndForgotten() {
    let master = served()
    master.send(.post(text: "x"), number: 7, from: 1)
    master.send(.post(text: "waits"), from: 2)
    master.failCommit("disk full")
    guard case .refused(let refusal) = master.told(1).last else {
      Issue.record("not refused")
      return
    }
    #expect(refusal.code == .storage && refusal.retryAfter > 0 && refusal.message.contains("disk full"))
    #expect(master.broadcasts.last?.first?.id == EventID(3), "nothing is told to the others")
    #expect(master.notes.last == .storageFailed("disk full"))
    master.finishCommit()
    #expect(done(master.told(2).last!) == EventID(5))
    #expect(master.notes.last == .storageWorksAgain)
    #expect(master.ask(.post(text: "x"), number: 7, from: 1) == .done(EventID(6)), "the number is free again")
    master.expectAllAnswered()
  }

  @Test func aFailedRegistrationIsRefused() {
    let master = served()
    master.send(.hello(Hello(client: ClientID(3), user: "carol", register: true, newest: .zero)), from: 3)
    master.failCommit()
    #expect(code(master.told(3).last!) == .storage)
    #expect(isWelcome(master.login("carol", from: 3)))
    master.expectAllAnswered()
  }

  @Test func aDiskThatStaysBrokenIsNotedOnce() {
    let master = served()
    for _ in 0..<5 {
      master.send(.post(text: "x"), from: 1)
      master.failCommit()
    }
    #expect(master.notes.filter { $0 == .storageFailed("disk full") }.count == 1)
  }

  // MARK: Lists

  @Test func listsAreRead() {
    let master = served()
    master.ask(.follow(name: "bob"), from: 1)
    #expect(
      master.ask(.list(ListQuery(kind: .users)), from: 1) == .names(NamesPage(names: ["alice", "bob"], more: false)))
    #expect(master.ask(.list(ListQuery(kind: .followers)), from: 2) == .names(NamesPage(names: ["alice"], more: false)))
    #expect(master.ask(.list(ListQuery(kind: .following)), from: 1) == .names(NamesPage(names: ["bob"], more: false)))
    #expect(master.ask(.list(ListQuery(kind: .followers)), from: 1) == .names(NamesPage(names: [], more: false)))
  }

  @Test(arguments: [1, 3, 7, 10, 11, 0, 5_000] as [UInt32])
  func listsComeInPages(limit: UInt32) throws {
    let log = ModelLog()
    for number in 0..<10 { log.commit(.accountCreated(AccountID(UInt32(number)), name: "user\(number)")) }
    for number in 1..<10 { log.commit(.followed(AccountID(UInt32(number)), AccountID(0))) }
    let master = TestMaster.serving(log: log)
    master.login("user0", from: 1)
    for (kind, expected) in [
      (ListQuery.Kind.users, (0..<10).map { "user\($0)" }), (.followers, (1..<10).map { "user\($0)" }),
    ] {
      var names: [String] = []
      while true {
        let query = ListQuery(kind: kind, offset: UInt32(names.count), limit: limit)
        guard case .names(let page) = master.ask(.list(query), from: 1) else { throw NotThat() }
        if limit > 0 { #expect(page.names.count <= Int(limit)) }
        names += page.names
        if !page.more { break }
        try #require(!page.names.isEmpty && names.count < 20)
      }
      #expect(names == expected)
    }
    let beyond = ListQuery(kind: .users, offset: .max, limit: limit)
    #expect(master.ask(.list(beyond), from: 1) == .names(NamesPage(names: [], more: false)))
  }

  @Test func aListHasAtMostAPage() {
    let log = ModelLog()
    for number in 0..<Limits.pageNames + 1 {
      log.commit(.accountCreated(AccountID(UInt32(number)), name: "u\(number)"))
    }
    let master = TestMaster.serving(log: log)
    master.login("u0", from: 1)
    guard case .names(let page) = master.ask(.list(ListQuery(kind: .users, limit: .max)), from: 1) else { return }
    #expect(page.names.count == Limits.pageNames && page.more)
  }
}
