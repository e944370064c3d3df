// The log of these tests: an array, and every answer computed from all of it.

import Core
import Model
import Testing

/// What the log says, kept as simply as possible. Masters of a test share one.
final class ModelLog {
  private(set) var events: [Event] = [] {
    didSet {
      for event in events[oldValue.count...] {
        switch event.change {
        case .accountCreated(_, let name):
          names.append(name)
          credentials.append(Credential())
        case .credentialSet(let account, let hash):
          credentials[account.index] = Credential(hash: hash, generation: event.id)
        case .sessionsRevoked(let account): credentials[account.index].generation = event.id
        case .posted, .followed, .unfollowed, .sessionRevoked: break
        }
      }
    }
  }
  private(set) var names: [String] = []
  private(set) var credentials: [Credential] = []

  var head: EventID { EventID(UInt64(events.count)) }
  var time: Timestamp { events.last?.time ?? .zero }

  /// Appends after `position`; false if that is not the head.
  func append(_ new: [Event], after position: EventID) -> Bool {
    guard position == head else { return false }
    events += new
    return true
  }

  /// Another writer's commit, numbered and dated here.
  @discardableResult
  func commit(_ changes: Change..., request: RequestID? = nil) -> [Event] {
    let first = events.count
    for change in changes {
      events.append(
        Event(
          id: EventID(UInt64(events.count + 1)), time: Timestamp(milliseconds: time.milliseconds + 1), request: request,
          change: change))
    }
    return Array(events[first...])
  }

  func read(after position: EventID, limit: Int = .max) -> [Event] {
    Array(events.dropFirst(Int(position.rawValue)).prefix(limit))
  }

  // MARK: What follows from all of it

  func following(of account: AccountID) -> Set<AccountID> {
    var followed: Set<AccountID> = []
    for event in events {
      switch event.change {
      case .followed(account, let other): followed.insert(other)
      case .unfollowed(account, let other): followed.remove(other)
      default: break
      }
    }
    return followed
  }

  func followers(of account: AccountID) -> [AccountID] {
    names.indices.map { AccountID(UInt32($0)) }.filter { following(of: $0).contains(account) }
  }

  func posts(by authors: Set<AccountID>) -> [StoredPost] {
    events.compactMap { event in
      guard case .posted(let author, let text) = event.change, authors.contains(author) else { return nil }
      return StoredPost(id: event.id, author: author, time: event.time, text: text)
    }
  }

  func post(_ stored: StoredPost) -> Post {
    Post(id: stored.id, author: names[stored.author.index], text: stored.text, time: stored.time)
  }

  /// Answers what a master asks for beyond its memory.
  func answer(_ query: LogQuery) -> (posts: [StoredPost], more: Bool) {
    switch query {
    case .posts(let ids):
      return (posts(by: Set(names.indices.map { AccountID(UInt32($0)) })).filter { ids.contains($0.id) }, false)
    case .range(let authors, .before(let position), let upTo, let limit):
      let all = posts(by: Set(authors)).filter { $0.id < position && $0.id <= upTo }
      return (Array(all.suffix(limit)), all.count > limit)
    case .range(let authors, .after(let position), let upTo, let limit):
      let all = posts(by: Set(authors)).filter { $0.id > position && $0.id <= upTo }
      return (Array(all.prefix(limit)), all.count > limit)
    }
  }

  /// As which events requests took effect.
  func events(of requests: [RequestID: EventID], upTo position: EventID) -> [RequestID: EventID] {
    var found: [RequestID: EventID] = [:]
    for event in events.prefix(Int(position.rawValue)) {
      if let request = event.request, let first = requests[request], event.id >= first { found[request] = event.id }
    }
    return found
  }

  /// The page that a timeline's reader is to get. `more` may be said in vain, where a master can't know cheaply.
  func page(of authors: Set<AccountID>, range: TimelineQuery.Range, limit: Int) -> (posts: [Post], more: Bool) {
    let all = posts(by: authors)
    switch range {
    case .newest: return (all.suffix(limit).map(post), all.count > limit)
    case .before(let position):
      let older = all.filter { $0.id < position }
      return (older.suffix(limit).map(post), older.count > limit)
    case .after(let position):
      let newer = all.filter { $0.id > position }
      return (newer.prefix(limit).map(post), newer.count > limit)
    }
  }

  /// The state at the head, or at an earlier position, as derived tables have it.
  func snapshot(upTo position: EventID? = nil) -> Snapshot {
    let end = position ?? head
    let part = ModelLog()
    part.events = Array(events.prefix(Int(end.rawValue)))
    let accounts = part.names.indices.map { AccountID(UInt32($0)) }
    let posts = part.posts(by: Set(accounts))
    var windows: [ClientID: RequestWindow] = [:]
    for event in part.events {
      guard let request = event.request else { continue }
      windows[request.client, default: RequestWindow(account: event.change.actor)]
        .record(request.number, as: event.id, at: event.time)
    }
    return Snapshot(
      upTo: end, time: part.time, names: part.names, credentials: part.credentials,
      following: accounts.map { part.following(of: $0).sorted() },
      posts: Array(posts.suffix(Limits.postsInMemory)),
      newestByAuthor: accounts.map { account in
        posts.filter { $0.author == account }.suffix(Limits.newestPerAuthor).map(\.id)
      },
      windows: windows.map { ($0.key, $0.value) })
  }
}
