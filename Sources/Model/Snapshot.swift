// A state of the service at a position of the log, as the log's derived tables keep it.

/// All that a master must know at `upTo` to go on from there: what a starting master loads instead of the whole log.
public struct Snapshot: Sendable {
  /// The position that this is the state at.
  public var upTo: EventID
  /// The time of the event at `upTo`.
  public var time: Timestamp
  /// The names of all accounts; an account's id is its index.
  public var names: [String]
  /// For each account, what opens it.
  public var credentials: [Credential]
  /// Tokens that are no longer good and have not expired, by account and token.
  public var revocations: [Revocation]
  /// For each account, whom it follows, ascending.
  public var following: [[AccountID]]
  /// The newest `Limits.postsInMemory` posts, ascending.
  public var posts: [StoredPost]
  /// For each account, its newest `Limits.newestPerAuthor` posts' ids, ascending.
  public var newestByAuthor: [[EventID]]
  /// The repeat windows that are still kept, by client.
  public var windows: [(client: ClientID, window: RequestWindow)]

  public init(
    upTo: EventID = .zero, time: Timestamp = .zero, names: [String] = [], credentials: [Credential] = [],
    revocations: [Revocation] = [], following: [[AccountID]] = [], posts: [StoredPost] = [],
    newestByAuthor: [[EventID]] = [],
    windows: [(client: ClientID, window: RequestWindow)] = []
  ) {
    self.upTo = upTo
    self.time = time
    self.names = names
    self.credentials = credentials
    self.revocations = revocations
    self.following = following
    self.posts = posts
    self.newestByAuthor = newestByAuthor
    self.windows = windows
  }
}

extension Snapshot {
  /// Whether it can be the state at any position: each account that is named is there, ids are in order and no newer than `upTo`.
  /// What was read from a damaged file need not be.
  public var isSound: Bool {
    func areGood(_ ids: some Sequence<EventID>) -> Bool {
      var last = EventID.zero
      for id in ids {
        guard id > last, id <= upTo else { return false }
        last = id
      }
      return true
    }
    guard upTo <= .max, following.count == names.count, newestByAuthor.count == names.count,
      credentials.count == names.count, credentials.allSatisfy({ $0.generation <= upTo }),
      revocations.allSatisfy({ $0.account.index < names.count })
    else { return false }
    for followed in following {
      guard followed.allSatisfy({ $0.index < names.count }), zip(followed, followed.dropFirst()).allSatisfy(<) else {
        return false
      }
    }
    return posts.count <= Limits.postsInMemory && areGood(posts.lazy.map(\.id))
      && posts.allSatisfy { $0.author.index < names.count }
      && newestByAuthor.allSatisfy { $0.count <= Limits.newestPerAuthor && areGood($0) }
      && windows.allSatisfy { $0.window.account.index < names.count && $0.window.lastEvent <= upTo }
  }
}
