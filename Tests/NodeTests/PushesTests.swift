// How posts of several commits are put together for their topics.

import Model
import Testing

@testable import Node

@Suite struct PushesTests {
  private func position(_ topic: UInt64, _ sequence: UInt64) -> Watching {
    Watching(topic: Topic(high: 0, low: topic), sequence: sequence)
  }

  private func take(_ pushes: inout Pushes) throws -> Pushes.Turn {
    let turn = pushes.takeTurn()
    return try #require(turn)
  }

  @Test("each topic has one turn, with its posts in order, from the number of the first")
  func turns() throws {
    var pushes = Pushes()
    #expect(pushes.isEmpty && pushes.end == 0)
    pushes.add([1], to: [position(1, 5), position(2, 9), position(3, 1)])
    pushes.add([2, 2], to: [position(2, 10)])
    pushes.add([3], to: [position(1, 6), position(2, 11), position(3, 2)])
    #expect(pushes.end == 3)
    let first = try take(&pushes)
    #expect(first.position == position(1, 5) && first.body.posts == [[1], [3]])
    // What has had its turn queues up again; the others get the new post with what they wait for.
    pushes.add([4], to: [position(1, 7), position(3, 3)])
    #expect(pushes.taken == 1 && pushes.end == 4)
    let second = try take(&pushes)
    #expect(second.position == position(2, 9) && second.body.posts == [[1], [2, 2], [3]])
    let third = try take(&pushes)
    #expect(third.position == position(3, 1) && third.body.posts == [[1], [3], [4]])
    let fourth = try take(&pushes)
    #expect(fourth.position == position(1, 7) && fourth.body.posts == [[4]])
    let none = pushes.takeTurn()
    #expect(none == nil && pushes.isEmpty && pushes.taken == 4)
  }

  @Test("topics that get the same posts share the body")
  func sharing() throws {
    var pushes = Pushes()
    pushes.add([1], to: [position(1, 5), position(2, 9)])
    pushes.add([2], to: [position(1, 6), position(2, 10)])
    let first = try take(&pushes)
    let second = try take(&pushes)
    #expect(first.body === second.body)
    try first.body.withFrame { frame in #expect(frame.copyBytes() == [1, 2]) }
  }

  @Test("a message is no longer than may be; what does not fit has a turn of its own")
  func limit() throws {
    var pushes = Pushes()
    for number in 0..<Limits.postsInUpdate + 1 { pushes.add([7], to: [position(1, UInt64(number))]) }
    let first = try take(&pushes)
    #expect(first.position.sequence == 0 && first.body.posts.count == Limits.postsInUpdate)
    let second = try take(&pushes)
    #expect(second.position.sequence == UInt64(Limits.postsInUpdate) && second.body.posts.count == 1)
    #expect(pushes.isEmpty)
  }

  @Test(
    "whatever is posted by whom and sent when, each topic gets all of its posts once, in order",
    arguments: 0..<50 as Range<UInt64>)
  func anyOrder(seed: UInt64) throws {
    var random = RandomSource.seeded(seed)
    var pushes = Pushes()
    // The watched topics of each author; they change now and then.
    var watched: [[UInt64]] = (0..<3).map { _ in (0..<8).filter { _ in Bool.random(using: &random) } }
    var posted: [UInt64: [[UInt8]]] = [:]
    var sent: [UInt64: [[UInt8]]] = [:]
    func send() {
      guard let turn = pushes.takeTurn() else { return }
      let topic = turn.position.topic.low
      #expect(turn.position.sequence == UInt64(sent[topic, default: []].count))
      #expect(turn.body.posts.count <= Limits.postsInUpdate)
      sent[topic, default: []] += turn.body.posts
    }
    for number in 0..<2_000 {
      switch Int.random(in: 0..<20, using: &random) {
      case 0: watched[Int.random(in: 0..<3, using: &random)] = (0..<8).filter { _ in Bool.random(using: &random) }
      // Sometimes more waits for a topic than fits into a message.
      case 1..<(number % 500 < 250 ? 15 : number % 500 < 400 ? 2 : 5): send()
      default:
        let author = Int.random(in: 0..<20, using: &random) / 9
        let post = [UInt8(number >> 8), UInt8(number & 255)]
        if Int.random(in: 0..<4, using: &random) == 0 { watched[author].shuffle(using: &random) }
        pushes.add(post, to: watched[author].map { position($0, UInt64(posted[$0, default: []].count)) })
        for topic in watched[author] { posted[topic, default: []].append(post) }
      }
    }
    while !pushes.isEmpty { send() }
    #expect(sent == posted)
  }
}
