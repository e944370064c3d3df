// The newest posts in memory, and timelines from them.

import DequeModule
public import Model

/// The newest posts of everybody with their text, and the newest of each author by id. Bounded: its size does not depend on the
/// log's length.
public struct RecentPosts: Sendable {
  /// Ascending by id, at most `Limits.postsInMemory`.
  private var newest: Deque<StoredPost>
  /// Every post with an id greater than this is in `newest`.
  public private(set) var floor: EventID
  /// For each account, its newest posts' ids, ascending, at most `Limits.newestPerAuthor`.
  private var byAuthor: [[EventID]]

  public init() {
    newest = []
    floor = .zero
    byAuthor = []
  }

  init(snapshot: Snapshot) {
    newest = Deque(snapshot.posts)
    floor = snapshot.posts.count < Limits.postsInMemory ? .zero : EventID(snapshot.posts[0].id.rawValue - 1)
    byAuthor = snapshot.newestByAuthor
  }

  mutating func addAccount() { byAuthor.append([]) }

  mutating func append(_ post: StoredPost) {
    if newest.count >= Limits.postsInMemory { floor = newest.removeFirst().id }
    newest.append(post)
    let author = post.author.index
    if byAuthor[author].count >= Limits.newestPerAuthor { byAuthor[author].removeFirst() }
    byAuthor[author].append(post.id)
  }

  /// The post with this id, if it is in memory.
  public func post(_ id: EventID) -> StoredPost? {
    guard id > .zero else { return nil }
    let index = firstIndex(after: EventID(id.rawValue - 1))
    guard index < newest.count, newest[index].id == id else { return nil }
    return newest[index]
  }

  /// The ids of the newest `limit` posts by `authors`, ascending, and whether there may be more; for a `limit` up to
  /// `Limits.newestPerAuthor`. Costs the number of authors: a selection of the greatest over each author's own newest.
  func newestIDs(by authors: [AccountID], limit: Int) -> (ids: [EventID], more: Bool) {
    precondition(limit <= Limits.newestPerAuthor, "limit \(limit) is beyond what is known of each author")
    guard limit > 0 else { return ([], true) }
    var best: [EventID] = []  // ascending
    best.reserveCapacity(limit + 1)
    var more = false
    for author in authors {
      let ids = byAuthor[author.index]
      if ids.count == Limits.newestPerAuthor { more = true }
      var index = ids.count - 1
      while index >= 0 {
        let id = ids[index]
        if best.count == limit {
          more = true
          if id < best[0] { break }
          best.removeFirst()
        }
        best.insert(id, at: best.lowerBound(of: id))
        index -= 1
      }
    }
    return (best, more)
  }

  /// Up to `limit` posts by `authors` (ascending) newer than `position`, oldest first; nil if memory does not reach back that far.
  func posts(by authors: [AccountID], after position: EventID, limit: Int) -> (posts: [StoredPost], more: Bool)? {
    guard position >= floor else { return nil }
    var found: [StoredPost] = []
    var index = firstIndex(after: position)
    while index < newest.count {
      if authors.containsSorted(newest[index].author) {
        if found.count == limit { return (found, true) }
        found.append(newest[index])
      }
      index += 1
    }
    return (found, false)
  }

  /// The newest `limit` posts by `authors` (ascending) older than `position`, oldest first; nil if memory doesn't hold them all.
  func posts(by authors: [AccountID], before position: EventID, limit: Int) -> (posts: [StoredPost], more: Bool)? {
    guard position > .zero else { return ([], false) }
    var found: [StoredPost] = []
    var index = firstIndex(after: EventID(position.rawValue - 1)) - 1
    while index >= 0 {
      if authors.containsSorted(newest[index].author) {
        if found.count == limit { return (found.reversed(), true) }
        found.append(newest[index])
      }
      index -= 1
    }
    guard floor == .zero || found.count == limit else { return nil }
    return (found.reversed(), floor != .zero)
  }

  private func firstIndex(after position: EventID) -> Int {
    var low = 0
    var high = newest.count
    while low < high {
      let middle = (low + high) / 2
      if newest[middle].id <= position { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
