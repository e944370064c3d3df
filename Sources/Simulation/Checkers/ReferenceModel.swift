// What the log says, told as simply as possible: the truth that the checkers compare the cluster with.

import Model

/// Built from the log's durable events and from nothing else. Keeps all history: who followed whom at every position.
final class ReferenceModel {
  struct Relation: Hashable {
    var follower: AccountID
    var followed: AccountID
  }

  private(set) var events: [Event] = []
  /// When each event became durable.
  private(set) var durableAt: [Instant] = []
  private(set) var names: [String] = []
  private(set) var accounts: [String: AccountID] = [:]
  /// The positions at which accounts were created.
  private(set) var createdAt: [EventID] = []
  /// What opens each account now, and what opened it from which event on.
  private(set) var credentials: [Credential] = []
  private var credentialHistory: [[(from: EventID, credential: Credential)]] = []
  private var revocations: [AccountID: [(token: TokenID, event: EventID)]] = [:]
  private(set) var posts: [StoredPost] = []
  private(set) var requests: [RequestID: EventID] = [:]
  private(set) var postsByText: [String: EventID] = [:]
  /// When each relation began and ended: alternating, ascending.
  private var history: [Relation: [EventID]] = [:]
  /// Where anybody's followed accounts, or followers, changed.
  private var changes: [AccountID: [EventID]] = [:]

  var head: EventID { EventID(UInt64(events.count)) }

  /// Takes the next durable event; says what is wrong with it.
  func append(_ event: Event, at now: Instant) -> String? {
    if event.id != head.next { return "event \(event.id) follows \(head)" }
    if let last = events.last, event.time < last.time { return "event \(event.id) is older than the one before" }
    events.append(event)
    durableAt.append(now)
    if let request = event.request {
      if let first = requests[request] {
        return
          "request \(request.number) of client \(request.client.rawValue) took effect twice: events \(first) and \(event.id)"
      }
      requests[request] = event.id
    }
    let actor = event.change.actor
    if case .accountCreated = event.change {
    } else if actor.index >= names.count {
      return "event \(event.id) is by nobody"
    }
    switch event.change {
    case .accountCreated(let account, let name):
      if account.index != names.count { return "event \(event.id) creates \(account), and there are \(names.count)" }
      if accounts[name] != nil { return "event \(event.id) creates \(name) again" }
      if let fault = TextRules.fault(inName: name) { return "event \(event.id): the name is \(fault.explanation)" }
      names.append(name)
      accounts[name] = account
      createdAt.append(event.id)
      credentials.append(Credential())
      credentialHistory.append([])
    case .posted(let author, let text):
      if let fault = TextRules.fault(inPost: text) { return "event \(event.id): the post is \(fault.explanation)" }
      if let first = postsByText[text] { return "one post took effect twice: events \(first) and \(event.id)" }
      postsByText[text] = event.id
      posts.append(StoredPost(id: event.id, author: author, time: event.time, text: text))
    case .followed(let follower, let followed):
      if followed.index >= names.count { return "event \(event.id) follows nobody" }
      if follower == followed { return "event \(event.id): somebody follows themselves" }
      if follows(follower, followed, at: head) { return "event \(event.id): followed twice" }
      change(follower, followed, event.id)
    case .unfollowed(let follower, let followed):
      if !follows(follower, followed, at: head) { return "event \(event.id): unfollowed and not followed" }
      change(follower, followed, event.id)
    case .credentialSet(let account, let hash):
      set(Credential(hash: hash, generation: event.id), of: account)
    case .sessionsRevoked(let account):
      set(Credential(hash: credentials[account.index].hash, generation: event.id), of: account)
    case .sessionRevoked(let account, let token, _): revocations[account, default: []].append((token, event.id))
    }
    return nil
  }

  private func change(_ follower: AccountID, _ followed: AccountID, _ position: EventID) {
    history[Relation(follower: follower, followed: followed), default: []].append(position)
    changes[follower, default: []].append(position)
    changes[followed, default: []].append(position)
  }

  private func set(_ credential: Credential, of account: AccountID) {
    credentials[account.index] = credential
    credentialHistory[account.index].append((credential.generation, credential))
  }

  // MARK: At a position

  /// What opened an account at some position from `position` on.
  func credentials(of account: AccountID, from position: EventID) -> [Credential] {
    let history = credentialHistory[account.index]
    let first = max(0, history.prefix { $0.from <= position }.count - 1)
    return history[first...].map(\.credential)
  }

  func wasRevoked(_ token: TokenID, of account: AccountID, by position: EventID) -> Bool {
    revocations[account]?.contains { $0.token == token && $0.event <= position } ?? false
  }

  /// Whether a proof that was right once may be wrong now.
  func hasChanged(credentialOf account: AccountID) -> Bool {
    credentialHistory[account.index].count > 1 || revocations[account] != nil
  }

  func account(_ name: String, at position: EventID) -> AccountID? {
    accounts[name].flatMap { createdAt[$0.index] <= position ? $0 : nil }
  }

  func users(at position: EventID) -> Int { createdAt.prefix { $0 <= position }.count }

  func follows(_ follower: AccountID, _ followed: AccountID, at position: EventID) -> Bool {
    guard let changes = history[Relation(follower: follower, followed: followed)] else { return false }
    return changes.prefix { $0 <= position }.count % 2 == 1
  }

  /// Whether `follower` follows `followed` at every position from `from` to `to`.
  func followsThroughout(_ follower: AccountID, _ followed: AccountID, _ from: EventID, _ to: EventID) -> Bool {
    guard let changes = history[Relation(follower: follower, followed: followed)] else { return false }
    return changes.prefix { $0 <= from }.count % 2 == 1 && !changes.contains { $0 > from && $0 <= to }
  }

  /// Whether `follower` follows `followed` at some position from `from` to `to`.
  func followsSometime(_ follower: AccountID, _ followed: AccountID, _ from: EventID, _ to: EventID) -> Bool {
    guard let changes = history[Relation(follower: follower, followed: followed)] else { return false }
    return changes.prefix { $0 <= from }.count % 2 == 1 || changes.contains { $0 > from && $0 <= to }
  }

  func following(of account: AccountID, at position: EventID) -> [String] {
    names.indices.filter { follows(account, AccountID(UInt32($0)), at: position) }.map { names[$0] }
  }

  func followers(of account: AccountID, at position: EventID) -> [String] {
    names.indices.filter { follows(AccountID(UInt32($0)), account, at: position) }.map { names[$0] }
  }

  /// The positions from `from` to `to` at which somebody's lists may look different: `from` and every change after it.
  func positions(for account: AccountID, _ from: EventID, _ to: EventID) -> [EventID] {
    [from] + (changes[account] ?? []).filter { $0 > from && $0 <= to }
  }

  func post(_ stored: StoredPost) -> Post {
    Post(id: stored.id, author: names[stored.author.index], text: stored.text, time: stored.time)
  }

  /// A page of a timeline as it is at position `upTo`.
  func page(
    _ timeline: TimelineName, of user: AccountID, range: TimelineQuery.Range, limit: Int, upTo: EventID
  ) -> [Post] {
    var authors: Set<AccountID> = []
    switch timeline {
    case .home:
      authors = [user]
      for index in names.indices where follows(user, AccountID(UInt32(index)), at: upTo) {
        authors.insert(AccountID(UInt32(index)))
      }
    case .author(let name): if let account = account(name, at: upTo) { authors = [account] }
    }
    let all = posts.filter { $0.id <= upTo && authors.contains($0.author) }
    switch range {
    case .newest: return all.suffix(limit).map(post)
    case .before(let end): return all.filter { $0.id < end }.suffix(limit).map(post)
    case .after(let start): return all.filter { $0.id > start }.prefix(limit).map(post)
    }
  }
}
