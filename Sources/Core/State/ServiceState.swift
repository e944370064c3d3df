// The service's state at a position of the log: accounts and what opens them, graph, recent posts, requests. A deterministic machine over events.

public import Model

/// What the log says up to `head`.
public struct ServiceState: Sendable {
  public private(set) var head: EventID
  /// The time of the event at the head.
  public private(set) var time: Timestamp
  public private(set) var names: [String]
  private var accountsByName: [String: AccountID]
  /// By account.
  public private(set) var credentials: [Credential]
  private var revocations: [AccountID: [Revocation]] = [:]
  public private(set) var graph: FollowGraph
  public private(set) var posts: RecentPosts
  public private(set) var requests: RequestTable

  /// The state before the first event.
  public init() {
    self.init(snapshot: Snapshot())
  }

  public init(snapshot: Snapshot) {
    head = snapshot.upTo
    time = snapshot.time
    names = snapshot.names
    accountsByName = Dictionary(minimumCapacity: snapshot.names.count)
    for (index, name) in snapshot.names.enumerated() { accountsByName[name] = AccountID(UInt32(index)) }
    credentials = snapshot.credentials
    for revocation in snapshot.revocations { revocations[revocation.account, default: []].append(revocation) }
    graph = FollowGraph(following: snapshot.following)
    posts = RecentPosts(snapshot: snapshot)
    requests = RequestTable(snapshot.windows)
  }

  public func account(named name: String) -> AccountID? { accountsByName[name] }
  /// Whether a token of the account's present generation was revoked.
  public func isRevoked(_ token: TokenID, of account: AccountID) -> Bool {
    revocations[account]?.contains { $0.token == token } ?? false
  }

  /// How many of the account's tokens are remembered as revoked.
  public func revocationCount(of account: AccountID) -> Int { revocations[account]?.count ?? 0 }

  public func name(of account: AccountID) -> String { names[account.index] }

  public func post(_ stored: StoredPost) -> Post {
    Post(id: stored.id, author: names[stored.author.index], text: stored.text, time: stored.time)
  }

  /// Whether those of these events that are after the head, which go on without a hole, can follow it.
  public func accepts(_ events: [Event]) -> Bool {
    events.accounts(after: names.count, from: head) != nil
  }

  /// Applies the event after the head.
  public mutating func apply(_ event: Event) {
    precondition(event.id == head.next, "event \(event.id) applied at head \(head)")
    head = event.id
    time = max(time, event.time)
    switch event.change {
    case .accountCreated(let account, let name):
      precondition(account.index == names.count, "\(account) created as number \(names.count)")
      names.append(name)
      accountsByName[name] = account
      credentials.append(Credential())
      graph.addAccount()
      posts.addAccount()
    case .posted(let author, let text):
      posts.append(StoredPost(id: event.id, author: author, time: event.time, text: text))
    case .followed(let follower, let followed):
      graph.follow(follower, followed)
    case .unfollowed(let follower, let followed):
      graph.unfollow(follower, followed)
    case .credentialSet(let account, let hash):
      credentials[account.index] = Credential(hash: hash, generation: event.id)
      revocations[account] = nil
    case .sessionsRevoked(let account):
      credentials[account.index].generation = event.id
      revocations[account] = nil
    case .sessionRevoked(let account, let token, let expires):
      revocations[account, default: []].removeAll { $0.token == token || $0.hasExpired(at: event.time) }
      revocations[account]!.append(Revocation(account: account, token: token, expires: expires))
    }
    requests.expire(at: event.time)
    if let request = event.request {
      requests.record(request, by: event.change.actor, as: event.id, at: event.time)
    }
  }

  // MARK: Reading

  /// The accounts whose posts make up a timeline, ascending.
  public func authors(of timeline: TimelineKey) -> [AccountID] {
    switch timeline {
    case .home(let account):
      var authors = graph.following(of: account)
      authors.insertSorted(account)
      return authors
    case .author(let account):
      return [account]
    }
  }

  /// A page of a timeline: from memory, or what to ask the log for.
  public func page(of timeline: TimelineKey, range: TimelineQuery.Range, limit: Int) -> PageResult {
    let authors = authors(of: timeline)
    switch range {
    case .newest:
      if limit <= Limits.newestPerAuthor {
        let (ids, more) = posts.newestIDs(by: authors, limit: limit)
        var found: [StoredPost] = []
        found.reserveCapacity(ids.count)
        for id in ids {
          guard let post = posts.post(id) else { return .ask(.posts(ids: ids), upTo: head, more: more) }
          found.append(post)
        }
        return .page(page(found, upTo: head, more: more))
      }
      return older(by: authors, before: head.next, limit: limit)
    case .before(let position):
      return older(by: authors, before: min(position, head.next), limit: limit)
    case .after(let position):
      if let (found, more) = posts.posts(by: authors, after: position, limit: limit) {
        return .page(page(found, upTo: more ? found.last!.id : head, more: more))
      }
      return .ask(.range(authors: authors, .after(position), upTo: head, limit: limit), upTo: head, more: false)
    }
  }

  private func older(by authors: [AccountID], before position: EventID, limit: Int) -> PageResult {
    if let (found, more) = posts.posts(by: authors, before: position, limit: limit) {
      return .page(page(found, upTo: head, more: more))
    }
    return .ask(.range(authors: authors, .before(position), upTo: head, limit: limit), upTo: head, more: false)
  }

  public func page(_ stored: [StoredPost], upTo: EventID, more: Bool) -> TimelinePage {
    TimelinePage(posts: stored.map(post), upTo: upTo, more: more)
  }
}

/// A timeline of somebody that exists.
public enum TimelineKey: Hashable, Sendable {
  case home(AccountID)
  case author(AccountID)
}

/// What reading a timeline from memory gives.
public enum PageResult: Sendable {
  case page(TimelinePage)
  /// Memory does not reach back that far: the log has to be read, and the page reaches up to `upTo`.
  case ask(LogQuery, upTo: EventID, more: Bool)
}

/// A read of older posts.
public enum LogQuery: Hashable, Sendable {
  case posts(ids: [EventID])
  case range(authors: [AccountID], LogRange, upTo: EventID, limit: Int)
}

/// Which part of the log a query wants.
public enum LogRange: Hashable, Sendable {
  case before(EventID)
  case after(EventID)
}
