// The newest posts in memory, and timelines from them.

import DequeModule
import HeapModule
public import Model

/// The newest posts of everybody with their text, and the newest of each author by id. Bounded: its size does not depend on the
/// log's length.
public struct RecentPosts: Sendable {
  /// Ascending by id, at most `Limits.postsInMemory`.
  private var newest = PostQueue()
  /// Every post with an id greater than this is in `newest`.
  public private(set) var floor: EventID
  /// For each account, its newest posts' ids, ascending, at most `Limits.newestPerAuthor`.
  private var byAuthor: [[EventID]]
  /// For each account, the newest of those; zero if there is none. One beside the other: most authors of a long timeline have none of its newest
  /// posts, and are passed over without a look at theirs.
  private var newestByAuthor: [EventID]

  public init() {
    floor = .zero
    byAuthor = []
    newestByAuthor = []
  }

  init(snapshot: Snapshot) {
    for post in snapshot.posts { newest.append(post) }
    floor = snapshot.posts.count < Limits.postsInMemory ? .zero : EventID(snapshot.posts[0].id.rawValue - 1)
    byAuthor = snapshot.newestByAuthor
    newestByAuthor = byAuthor.map { $0.last ?? .zero }
  }

  mutating func addAccount() {
    byAuthor.append([])
    newestByAuthor.append(.zero)
  }

  mutating func append(_ post: StoredPost) {
    if newest.count >= Limits.postsInMemory { floor = newest.removeFirst() }
    newest.append(post)
    let author = post.author.index
    if byAuthor[author].count >= Limits.newestPerAuthor { byAuthor[author].removeFirst() }
    byAuthor[author].append(post.id)
    newestByAuthor[author] = post.id
  }

  /// An author by its newest post.
  private struct Head: Comparable {
    var newest: EventID
    var author: AccountID

    static func < (left: Head, right: Head) -> Bool { left.newest < right.newest }
  }

  /// The post with this id, if it is in memory.
  public func post(_ id: EventID) -> StoredPost? {
    guard id > .zero else { return nil }
    let index = firstIndex(after: EventID(id.rawValue - 1))
    guard index < newest.count, newest.id(at: index) == id else { return nil }
    return newest[index]
  }

  /// The ids of the newest `limit` posts by `authors`, ascending, and whether there may be more; for a `limit` up to
  /// `Limits.newestPerAuthor`. Costs the number of authors: the newest posts are among those of the `limit` authors whose newest are the newest.
  func newestIDs(by authors: [AccountID], limit: Int) -> (ids: [EventID], more: Bool) {
    precondition(limit <= Limits.newestPerAuthor, "limit \(limit) is beyond what is known of each author")
    guard limit > 0 else { return ([], true) }
    var heads = Heap<Head>()
    heads.reserveCapacity(limit)
    var more = false
    for author in authors {
      let newest = newestByAuthor[author.index]
      guard newest > .zero else { continue }
      if heads.count < limit {
        heads.insert(Head(newest: newest, author: author))
      } else {
        more = true
        if newest > heads.min!.newest { heads.replaceMin(with: Head(newest: newest, author: author)) }
      }
    }
    var best: [EventID] = []  // ascending
    best.reserveCapacity(limit + 1)
    // The newest first, so that of the others little is looked at.
    while let author = heads.popMax()?.author {
      let ids = byAuthor[author.index]
      if ids.count == Limits.newestPerAuthor { more = true }
      for id in ids.reversed() {
        if best.count == limit {
          more = true
          if id < best[0] { break }
          best.removeFirst()
        }
        best.insert(id, at: best.lowerBound(of: id))
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
      if authors.containsSorted(newest.author(at: index)) {
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
      if authors.containsSorted(newest.author(at: index)) {
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
      if newest.id(at: middle) <= position { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

/// Posts in the order of their ids. Texts lie one behind the other in blocks, since to allocate each, and to free the oldest for it, would
/// cost more than all else that a post costs a master that only follows the log.
private struct PostQueue: Sendable {
  private struct Entry: Sendable {
    var id: EventID
    var time: Timestamp
    var author: AccountID
    /// The block, numbered from the first there ever was, and the text's place in it.
    var block: UInt32
    var start: UInt32
    var length: UInt32
  }

  /// Bytes in a block, unless a single text is longer.
  private static let blockBytes = 32 * 1_024

  private var entries: Deque<Entry> = []
  private var blocks: Deque<[UInt8]> = []
  /// The number of the first block that is still there.
  private var firstBlock: UInt32 = 0

  var count: Int { entries.count }

  func id(at index: Int) -> EventID { entries[index].id }

  func author(at index: Int) -> AccountID { entries[index].author }

  subscript(index: Int) -> StoredPost {
    let entry = entries[index]
    let bytes = blocks[Int(entry.block &- firstBlock)][Int(entry.start)..<Int(entry.start + entry.length)]
    let text = String(decoding: bytes, as: UTF8.self)
    return StoredPost(id: entry.id, author: entry.author, time: entry.time, text: text)
  }

  mutating func append(_ post: StoredPost) {
    var text = post.text
    text.withUTF8 { bytes in
      if blocks.isEmpty || blocks[blocks.count - 1].count + bytes.count > Self.blockBytes {
        var block: [UInt8] = []
        block.reserveCapacity(max(bytes.count, Self.blockBytes))
        blocks.append(block)
      }
      let last = blocks.count - 1
      entries.append(
        Entry(
          id: post.id, time: post.time, author: post.author, block: firstBlock &+ UInt32(last),
          start: UInt32(blocks[last].count), length: UInt32(bytes.count)))
      blocks[last].append(contentsOf: bytes)
    }
  }

  /// Removes the oldest post, and returns its id.
  mutating func removeFirst() -> EventID {
    let id = entries.removeFirst().id
    let stillNeeded = entries.first?.block ?? firstBlock &+ UInt32(blocks.count)
    while firstBlock != stillNeeded {
      blocks.removeFirst()
      firstBlock &+= 1
    }
    return id
  }
}
