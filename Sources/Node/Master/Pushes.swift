// Posts between their commit and the wire: collected a topic, so that each topic gets one message with all it has to get.

import DequeModule
import Model
import ZeroMQ

/// What watchers are to be sent, as a queue of topics.
///
/// Sending costs the system a call a watcher, whatever is in the message, and many watchers take a while. So the topics have their
/// turns one after the other, each gets in one message all that it has missed until its turn, and what comes meanwhile is added to
/// those that still wait. Under load a message carries many posts, without load it waits for nothing.
struct Pushes {
  /// Posts that go out together, shared by all topics that get just these.
  final class Body {
    /// Entries of an update's body, in log order; at most `Limits.postsInUpdate`.
    let posts: [[UInt8]]
    private var message: Message?

    init(posts: [[UInt8]]) { self.posts = posts }

    /// Lends the frame, made when it is first needed.
    func withFrame(_ body: (inout Message) throws(ZMQError) -> Void) throws(ZMQError) {
      if message == nil {
        message = try Message(count: posts.reduce(0) { $0 + $1.count }) { buffer in
          var rest = buffer
          for post in posts {
            rest.copyBytes(from: post)
            rest = UnsafeMutableRawBufferPointer(rebasing: rest[post.count...])
          }
        }
      }
      try body(&message!)
    }
  }

  /// A topic's turn.
  struct Turn {
    /// The topic, with the number of its first post here. The others' numbers follow, since a topic's number rises by one a post.
    var position: Watching
    var body: Body
  }

  private var turns: Deque<Turn> = []
  /// Turns taken so far: the number of the first one that waits.
  private(set) var taken = 0
  /// The last turn of each topic that waits, by number.
  private var turnOfTopic: [Topic: Int] = [:]
  /// For each target of the post added last, in their order, its turn: the next post of its author mostly has the same targets. Beyond them
  /// there are those of earlier posts; a turn among them that is no longer its topic's last is full or taken.
  private var lastTurns: [(topic: Topic, number: Int)] = []

  var isEmpty: Bool { turns.isEmpty }
  /// The number of the next turn to be added. Once so many are taken, all that waits now has gone out.
  var end: Int { taken + turns.count }

  /// A post for these topics, no two of which are the same, as an entry of an update's body.
  mutating func add(_ post: [UInt8], to targets: [Watching]) {
    let alone = Body(posts: [post])
    // Neighbours mostly wait for the same posts.
    var former: Body?
    var extended = alone
    var others: [ObjectIdentifier: Body] = [:]
    for (index, target) in targets.enumerated() {
      let number = lastTurn(of: target.topic, at: index)
      guard let number, turns[number - taken].body.posts.count < Limits.postsInUpdate else {
        turnOfTopic[target.topic] = end
        note(target.topic, end, at: index)
        turns.append(Turn(position: target, body: alone))
        continue
      }
      note(target.topic, number, at: index)
      let body = turns[number - taken].body
      if body !== former {
        extended = others[ObjectIdentifier(body)] ?? Body(posts: body.posts + [post])
        // Keeps the former body alive, too, so that no other gets its identity.
        others[ObjectIdentifier(body)] = extended
        kept.append(body)
        former = body
      }
      turns[number - taken].body = extended
    }
    kept.removeAll(keepingCapacity: true)
  }

  private var kept: [Body] = []

  /// The last turn of a topic that waits, the target `index` of a post.
  private func lastTurn(of topic: Topic, at index: Int) -> Int? {
    guard index < lastTurns.count, lastTurns[index].topic == topic else { return turnOfTopic[topic] }
    let number = lastTurns[index].number
    return number < taken ? turnOfTopic[topic] : number
  }

  private mutating func note(_ topic: Topic, _ number: Int, at index: Int) {
    if index < lastTurns.count { lastTurns[index] = (topic, number) } else { lastTurns.append((topic, number)) }
  }

  /// The next topic whose turn it is.
  mutating func takeTurn() -> Turn? {
    guard let turn = turns.popFirst() else { return nil }
    if turnOfTopic[turn.position.topic] == taken { turnOfTopic[turn.position.topic] = nil }
    taken += 1
    if turns.isEmpty { lastTurns.removeAll(keepingCapacity: true) }
    return turn
  }
}
