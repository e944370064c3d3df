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
