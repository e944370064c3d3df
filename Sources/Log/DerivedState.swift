// What follows from the log: the one definition of every derived table. MemoryLog keeps it as is; the tests hold SQLiteLog to it.

public import Model

/// The state of the service at a position of the log, as a function of the events up to there.
public struct DerivedState: Sendable {
  /// The newest event applied.
  public private(set) var upTo: EventID = .zero
  /// That event's time.
  public private(set) var time: Timestamp = .zero
  public private(set) var names: [String] = []
  /// For each account, what opens it.
  public private(set) var credentials: [Credential] = []
  /// Revoked tokens, expired ones too.
  private var revocations: [Revocation] = []
  /// For each account, whom it follows, ascending.
  public private(set) var following: [[AccountID]] = []
  /// For each account, its newest `Limits.newestPerAuthor` posts, ascending.
  public private(set) var newestByAuthor: [[EventID]] = []
  /// The request windows that are still kept; the same clients as in a master's `RequestTable`.
  private var windows = RecencyTable<ClientID, RequestWindow>()

  /// At least the newest `Limits.postsInMemory` posts, ascending.
  private var recentPosts: [StoredPost] = []

  public init() {}

  /// Applies the next event of the log.
  public mutating func apply(_ event: Event) {
    precondition(event.id == upTo.next, "event \(event.id) applied after \(upTo)")
    while let last = windows.oldest({ $0.lastTime }), RequestTable.hasExpired(last: last, at: event.time) {
      windows.removeOldest()
    }
    switch event.change {
    case .accountCreated(let account, let name):
      precondition(account.index == names.count, "\(account) created as number \(names.count)")
      names.append(name)
      credentials.append(Credential())
      following.append([])
      newestByAuthor.append([])
    case .posted(let author, let text):
      newestByAuthor[author.index].append(event.id)
      if newestByAuthor[author.index].count > Limits.newestPerAuthor { newestByAuthor[author.index].removeFirst() }
      recentPosts.append(StoredPost(id: event.id, author: author, time: event.time, text: text))
      if recentPosts.count >= 2 * Limits.postsInMemory {
        recentPosts.removeFirst(recentPosts.count - Limits.postsInMemory)
      }
    case .followed(let follower, let followed):
      let place = following[follower.index].firstIndex { $0 >= followed } ?? following[follower.index].count
      if place == following[follower.index].count || following[follower.index][place] != followed {
        following[follower.index].insert(followed, at: place)
      }
    case .unfollowed(let follower, let followed):
      following[follower.index].removeAll { $0 == followed }
    case .credentialSet(let account, let hash):
      credentials[account.index] = Credential(hash: hash, generation: event.id)
      revocations.removeAll { $0.account == account }
    case .sessionsRevoked(let account):
      credentials[account.index].generation = event.id
      revocations.removeAll { $0.account == account }
    case .sessionRevoked(let account, let token, let expires):
      revocations.removeAll { $0.account == account && $0.token == token }
      revocations.append(Revocation(account: account, token: token, expires: expires))
    }
    if let request = event.request {
      windows.touch(request.client, default: RequestWindow(account: event.change.actor)) {
        $0.record(request.number, as: event.id, at: event.time)
      }
      if windows.count > Limits.repeatClients { windows.removeOldest() }
    }
    upTo = event.id
    time = event.time
  }

  /// The newest `Limits.postsInMemory` posts, ascending.
  public var posts: [StoredPost] { Array(recentPosts.suffix(Limits.postsInMemory)) }

  /// The revoked tokens that have not expired by the time of the newest event, by account and token.
  public var revoked: [Revocation] {
    revocations.filter { !$0.hasExpired(at: time) }.sorted { ($0.account, $0.token) < ($1.account, $1.token) }
  }

  /// The state as a starting master loads it.
  public var snapshot: Snapshot {
    Snapshot(
      upTo: upTo, time: time, names: names, credentials: credentials, revocations: revoked, following: following,
      posts: posts, newestByAuthor: newestByAuthor,
      windows: windows.all.map { (client: $0.key, window: $0.value) }.sorted { $0.client < $1.client })
  }
}
