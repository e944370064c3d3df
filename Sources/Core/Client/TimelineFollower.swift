// One watched timeline at a client: turns numbered updates, markers and pages into a sequence without gap or repeat.

import Model

/// Follows one timeline. It shows each post once and in log order, whatever the live updates lose.
///
/// Two numbers do it: `cursor`, the log position up to which everything has been shown, and `next`, the number of the next update
/// on the topic. Live updates in sequence are shown; whenever one may be missing, the timeline is read after the cursor, and
/// updates that arrive meanwhile are held back. Subscribe first, read second: a page asked for after a marker or an
/// update arrived reaches at least as far as that update.
struct TimelineFollower: Sendable {
  enum Phase: Hashable, Sendable {
    /// No topic at the present master: `watch` is to be asked, or is under way.
    case unsubscribed
    /// Subscribed; the marker is to come.
    case subscribing
    /// A page after the cursor is being read; updates are held back. `again`: another gap appeared meanwhile.
    case repairing(again: Bool)
    /// In sequence.
    case live
  }

  enum Order: Hashable, Sendable {
    case show([Post])
    /// Read the timeline after this position.
    case read(after: EventID)
  }

  let name: TimelineName
  /// Everything up to here has been shown.
  private(set) var cursor: EventID
  private(set) var phase = Phase.unsubscribed
  private(set) var topic: Topic?
  private var next: UInt64 = 0
  private var heldBack: [Post] = []
  /// A Pong was ahead of what came: if nothing comes until then, the tail is lost.
  private var tail: (sequence: UInt64, deadline: Instant)?

  /// How long an update may take to overtake a Pong that was sent after it on another connection.
  static let tailPatience = Interval.milliseconds(150)

  init(name: TimelineName, cursor: EventID) {
    self.name = name
    self.cursor = cursor
  }

  /// When `onTimer` has something to do.
  var nextWake: Instant? { tail?.deadline }

  /// The master is lost, with its topic.
  mutating func reset() {
    phase = .unsubscribed
    topic = nil
    heldBack = []
    tail = nil
  }

  /// The master says on which topic.
  mutating func onWatching(_ watching: Watching) {
    topic = watching.topic
    next = watching.sequence
    phase = .subscribing
    heldBack = []
    tail = nil
  }

  /// An update or, without posts, a marker on the topic.
  mutating func onUpdate(sequence: UInt64, posts: [Post]) -> [Order] {
    guard !posts.isEmpty else { return onUpdate(sequence: sequence, post: nil) }
    var orders: [Order] = []
    var shown: [Post] = []
    for (place, post) in posts.enumerated() {
      for order in onUpdate(sequence: sequence + UInt64(place), post: post) {
        if case .show(let posts) = order {
          shown += posts
        } else {
          if !shown.isEmpty { orders.append(.show(shown)) }
          shown = []
          orders.append(order)
        }
      }
    }
    if !shown.isEmpty { orders.append(.show(shown)) }
    return orders
  }

  private mutating func onUpdate(sequence: UInt64, post: Post?) -> [Order] {
    switch phase {
    case .unsubscribed:
      return []
    case .subscribing:
      // The first thing heard: from here on updates come. What was before it is in the log.
      next = post == nil ? sequence : sequence + 1
      heldBack = post.map { [$0] } ?? []
      phase = .repairing(again: false)
      return [.read(after: cursor)]
    case .repairing:
      if sequence == next {
        guard let post else { return [] }
        next += 1
        if heldBack.count < Limits.updatesHeldBack {
          heldBack.append(post)
          return []
        }
        heldBack = [post]
        phase = .repairing(again: true)
      } else if sequence > next {
        // A gap within the gap. What is held back would be read again anyway.
        next = post == nil ? sequence : sequence + 1
        heldBack = post.map { [$0] } ?? []
        phase = .repairing(again: true)
      }
      return []
    case .live:
      if sequence < next { return [] }
      if sequence == next {
        guard let post else { return [] }
        next += 1
        clearTailIfReached()
        guard post.id > cursor else { return [] }
        cursor = post.id
        return [.show([post])]
      }
      next = post == nil ? sequence : sequence + 1
      heldBack = post.map { [$0] } ?? []
      return repair()
    }
  }

  /// The page asked for has come.
  mutating func onPage(_ page: TimelinePage) -> [Order] {
    guard case .repairing(let again) = phase else { return [] }
    var orders: [Order] = []
    let fresh = takeNew(page.posts)
    if !fresh.isEmpty { orders.append(.show(fresh)) }
    cursor = max(cursor, page.upTo)
    if page.more || again {
      phase = .repairing(again: false)
      orders.append(.read(after: cursor))
      return orders
    }
    phase = .live
    let late = takeNew(heldBack)
    heldBack = []
    if !late.isEmpty { orders.append(.show(late)) }
    clearTailIfReached()
    return orders
  }

  /// Those that are after all that was shown, in order: a master that repeats itself must not make us do so.
  private mutating func takeNew(_ posts: [Post]) -> [Post] {
    var new: [Post] = []
    for post in posts where post.id > cursor {
      new.append(post)
      cursor = post.id
    }
    return new
  }

  /// The page asked for did not come (a refusal): ask again.
  mutating func onPageFailed() -> [Order] {
    guard case .repairing = phase else { return [] }
    return [.read(after: cursor)]
  }

  /// A Pong tells the topic's next number.
  mutating func onPosition(_ sequence: UInt64, at now: Instant) {
    guard phase == .live || phase == .subscribing else { return }
    // While subscribing: the marker, or the subscription itself, may be lost; the next Pong's patience covers that too.
    if phase == .live, sequence <= next { return }
    if tail == nil { tail = (sequence, now + Self.tailPatience) }
  }

  /// The patience is over: what the Pong told of is lost.
  mutating func onTimer(at now: Instant) -> [Order] {
    guard let lost = tail, lost.deadline <= now else { return [] }
    tail = nil
    switch phase {
    case .live where lost.sequence > next:
      next = lost.sequence
      heldBack = []
      return repair()
    case .subscribing:
      // Not a word since the subscription. Read what there is; the updates will tell of themselves.
      next = lost.sequence
      return repair()
    default:
      return []
    }
  }

  private mutating func repair() -> [Order] {
    phase = .repairing(again: false)
    tail = nil
    return [.read(after: cursor)]
  }

  private mutating func clearTailIfReached() {
    if let lost = tail, lost.sequence <= next { tail = nil }
  }
}
