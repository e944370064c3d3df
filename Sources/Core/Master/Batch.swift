// A commit in the making: requests are validated against the state, against the commits under way, and against each other.

import Model

/// What the commits under way will have changed once they are in the log. Requests that come meanwhile are validated as if they were.
struct Ahead {
  struct Edge: Hashable {
    var follower: AccountID
    var followed: AccountID
  }

  /// The last event under way, and its time; of the state, if there is none.
  private(set) var head: EventID
  private(set) var time: Timestamp
  private(set) var newAccounts: [String: AccountID] = [:]
  /// Whether an edge will be there, and the event that says so.
  private(set) var edges: [Edge: (isThere: Bool, since: EventID)] = [:]
  private(set) var requests: [RequestID: EventID] = [:]
  private(set) var revocations: [AccountID: Int] = [:]

  /// Nothing is under way.
  init(_ state: ServiceState) {
    head = state.head
    time = state.time
  }

  mutating func add(_ event: Event) {
    head = event.id
    time = event.time
    if let request = event.request { requests[request] = event.id }
    switch event.change {
    case .accountCreated(let account, let name): newAccounts[name] = account
    case .followed(let follower, let followed):
      edges[Edge(follower: follower, followed: followed)] = (true, event.id)
    case .unfollowed(let follower, let followed):
      edges[Edge(follower: follower, followed: followed)] = (false, event.id)
    case .sessionRevoked(let account, _, _): revocations[account, default: 0] += 1
    case .posted, .credentialSet, .sessionsRevoked: break
    }
  }

  /// The event is part of the state now.
  mutating func remove(_ event: Event) {
    if let request = event.request { requests[request] = nil }
    switch event.change {
    case .accountCreated(_, let name): newAccounts[name] = nil
    case .followed(let follower, let followed), .unfollowed(let follower, let followed):
      let edge = Edge(follower: follower, followed: followed)
      if edges[edge]?.since == event.id { edges[edge] = nil }
    case .sessionRevoked(let account, _, _):
      let left = revocations[account, default: 1] - 1
      revocations[account] = left == 0 ? nil : left
    case .posted, .credentialSet, .sessionsRevoked: break
    }
  }
}

/// Collects the events of one commit. What an earlier request changes, of the batch or of a commit under way, counts for the later ones.
struct Batch {
  /// What a request gets: at once, if it needs no event; else when the batch is committed.
  enum Answer {
    case done(EventID)
    case refused(Refusal)
    /// The account is there already.
    case exists
    /// It took effect before; as which event, only the log knows.
    case lookUp
  }

  private typealias Edge = Ahead.Edge

  private let state: ServiceState
  private(set) var ahead: Ahead
  private let time: Timestamp
  private(set) var events: [Event] = []
  /// Who is to be answered once the batch is durable, and how, in the order of arrival. Also those whom only what is not durable yet
  /// refuses: what they are told is not true before.
  private(set) var waiting: [(request: MasterCore.Waiting, answer: Answer)] = []

  /// - Parameters:
  ///   - ahead: what is under way on top of `state`.
  ///   - wall: the events' time, unless the log's has got further.
  init(state: ServiceState, ahead: consuming Ahead, wall: Timestamp) {
    self.state = state
    time = max(wall, ahead.time)
    self.ahead = ahead
  }

  /// Takes a request: gives its answer if that is known already, else nil, and it is among the waiting.
  mutating func add(_ request: MasterCore.Waiting) -> Answer? {
    if case .register(let login, let hash) = request.work {
      let name = login.hello.user
      if state.account(named: name) != nil { return .exists }
      if ahead.newAccounts[name] != nil {
        waiting.append((request, .exists))
        return nil
      }
      let account = AccountID(UInt32(state.names.count + ahead.newAccounts.count))
      append(.accountCreated(account, name: name), request: nil, for: request)
      append(.credentialSet(account, hash), request: nil)
      return nil
    }

    let id = RequestID(client: request.client, number: request.number)
    if let event = ahead.requests[id] {
      waiting.append((request, .done(event)))
      return nil
    }
    switch state.requests.outcome(of: id) {
    case .done(let event): return .done(event)
    case .doneEarlier: return .lookUp
    case .tooOld: return .refused(.tooOld(request.number))
    case .unknown: break
    }
    switch request.work {
    case .register: preconditionFailure("handled above")
    case .post(let text):
      append(.posted(request.account, text: text), request: id, for: request)
    case .follow(let name):
      guard let followed = account(named: name) else { return .refused(unknownUser(name)) }
      guard followed != request.account else {
        return .refused(Refusal(.alreadyExists, "you can't follow yourself"))
      }
      let edge = Edge(follower: request.account, followed: followed)
      guard !follows(edge) else {
        return refuse(request, Refusal(.alreadyExists, "you follow \(name) already"), because: edge)
      }
      append(.followed(request.account, followed), request: id, for: request)
    case .unfollow(let name):
      guard let followed = account(named: name) else { return .refused(unknownUser(name)) }
      let edge = Edge(follower: request.account, followed: followed)
      guard follows(edge) else {
        return refuse(request, Refusal(.notExists, "you do not follow \(name)"), because: edge)
      }
      append(.unfollowed(request.account, followed), request: id, for: request)
    case .setPassword(let hash): append(.credentialSet(request.account, hash), request: id, for: request)
    case .logout(let token?, let expires, let lifetime)
    where state.revocationCount(of: request.account) + ahead.revocations[request.account, default: 0]
      < Limits.revocationsPerAccount:
      // What was made of the same login since, lives no longer than a token made now.
      let latest = Timestamp(milliseconds: time.milliseconds + lifetime)
      append(.sessionRevoked(request.account, token, expires: max(expires, latest)), request: id, for: request)
    case .logout: append(.sessionsRevoked(request.account), request: id, for: request)
    }
    return nil
  }

  private mutating func append(_ change: Change, request id: RequestID?, for request: MasterCore.Waiting) {
    append(change, request: id)
    waiting.append((request, .done(ahead.head)))
  }

  private mutating func append(_ change: Change, request id: RequestID?) {
    let event = Event(id: ahead.head.next, time: time, request: id, change: change)
    ahead.add(event)
    events.append(event)
  }

  private func account(named name: String) -> AccountID? {
    state.account(named: name) ?? ahead.newAccounts[name]
  }

  private func follows(_ edge: Edge) -> Bool {
    if let change = ahead.edges[edge] { return change.isThere }
    guard edge.followed.index < state.names.count, edge.follower.index < state.names.count else { return false }
    return state.graph.follows(edge.follower, edge.followed)
  }

  /// Refuses at once what the log refuses, and after the commit what is wrong only because of what is not durable yet.
  private mutating func refuse(
    _ request: MasterCore.Waiting, _ refusal: Refusal, because edge: Edge
  ) -> Answer? {
    guard ahead.edges[edge] != nil else { return .refused(refusal) }
    waiting.append((request, .refused(refusal)))
    return nil
  }

  private func unknownUser(_ name: String) -> Refusal {
    Refusal(.unknownUser, "there is no user named \(quoted(name))")
  }
}
