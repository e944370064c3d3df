// Which timelines are watched, and whom a post is to be pushed to.

import Model

/// The watched timelines of a master, found by author: publishing a post costs the number of watched timelines it belongs to,
/// not the number of the author's followers.
struct WatchTable: Sendable {
  /// A watched timeline. Its topic and sequence live as long as anybody here watches it.
  struct Timeline: Sendable {
    let key: TimelineKey
    let topic: Topic
    /// The next update's number.
    var sequence: UInt64
    var watchers: Int
    /// Tells this timeline from an earlier one in the same slot.
    let generation: UInt32
  }

  /// A reference from an author to a watched timeline. Stale once the slot has another generation; swept now and then
  /// instead of searched for, so that a star's watcher leaves in constant time.
  private struct Reference: Sendable {
    let slot: Int32
    let generation: UInt32
  }

  private struct References: Sendable {
    var items: [Reference] = []
    var sweepAt = 16
  }

  private var slots: [Timeline?] = []
  private var freeSlots: [Int] = []
  private var slotByKey: [TimelineKey: Int] = [:]
  private var slotByTopic: [Topic: Int] = [:]
  private var byAuthor: [References] = []
  private var nextGeneration: UInt32 = 1

  /// The state of a watched topic.
  func position(of topic: Topic) -> Watching? {
    guard let slot = slotByTopic[topic], let timeline = slots[slot] else { return nil }
    return Watching(topic: topic, sequence: timeline.sequence)
  }

  /// The topic of a watched timeline.
  func topic(of key: TimelineKey) -> Topic? {
    slotByKey[key].flatMap { slots[$0]?.topic }
  }

  /// One more watcher of `key`, whose posts are those of `authors`. The topic is `freshTopic` if nobody watched it so far.
  mutating func watch(_ key: TimelineKey, authors: [AccountID], freshTopic: Topic) -> Watching {
    if let slot = slotByKey[key] {
      slots[slot]!.watchers += 1
      return Watching(topic: slots[slot]!.topic, sequence: slots[slot]!.sequence)
    }
    let timeline = Timeline(key: key, topic: freshTopic, sequence: 1, watchers: 1, generation: nextGeneration)
    nextGeneration &+= 1
    let slot: Int
    if let free = freeSlots.popLast() {
      slot = free
      slots[slot] = timeline
    } else {
      slot = slots.count
      slots.append(timeline)
    }
    slotByKey[key] = slot
    slotByTopic[timeline.topic] = slot
    for author in authors { add(slot, to: author) }
    return Watching(topic: timeline.topic, sequence: timeline.sequence)
  }

  /// One watcher of `topic` less.
  mutating func unwatch(_ topic: Topic) {
    guard let slot = slotByTopic[topic], let timeline = slots[slot] else { return }
    guard timeline.watchers == 1 else {
      slots[slot]!.watchers -= 1
      return
    }
    slotByTopic[topic] = nil
    slotByKey[timeline.key] = nil
    slots[slot] = nil
    freeSlots.append(slot)
  }

  /// `author`'s posts now belong to the home timeline of `follower`.
  mutating func followed(_ author: AccountID, by follower: AccountID) {
    if let slot = slotByKey[.home(follower)] { add(slot, to: author) }
  }

  /// `author`'s posts no longer belong to the home timeline of `follower`.
  mutating func unfollowed(_ author: AccountID, by follower: AccountID) {
    guard let slot = slotByKey[.home(follower)], author.index < byAuthor.count else { return }
    byAuthor[author.index].items.removeAll { $0.slot == Int32(slot) }
  }

  /// Takes the next number of every watched timeline that a post of `author` belongs to.
  mutating func publish(by author: AccountID) -> [Watching] {
    guard author.index < byAuthor.count else { return [] }
    var targets: [Watching] = []
    targets.reserveCapacity(byAuthor[author.index].items.count)
    for reference in byAuthor[author.index].items where isLive(reference) {
      let slot = Int(reference.slot)
      targets.append(Watching(topic: slots[slot]!.topic, sequence: slots[slot]!.sequence))
      slots[slot]!.sequence += 1
    }
    return targets
  }

  private func isLive(_ reference: Reference) -> Bool {
    slots[Int(reference.slot)]?.generation == reference.generation
  }

  private mutating func add(_ slot: Int, to author: AccountID) {
    while byAuthor.count <= author.index { byAuthor.append(References()) }
    if byAuthor[author.index].items.count >= byAuthor[author.index].sweepAt {
      let live = byAuthor[author.index].items.filter(isLive)
      byAuthor[author.index] = References(items: live, sweepAt: max(16, live.count * 2))
    }
    byAuthor[author.index].items.append(Reference(slot: Int32(slot), generation: slots[slot]!.generation))
  }
}
