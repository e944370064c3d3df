// A commit in the making: requests are validated against the state and against each other.

import Model

/// Collects the events of one commit. What an earlier request of the batch changes counts for the later ones.
struct Batch {
  /// What a request gets: at once, if it needs no event; else when the batch is committed.
  enum Answer {
    case done(EventID)
    case refused(Refusal)
    /// The account is there already.
    case exists
  }

  private struct Edge: Hashable {
    var follower: AccountID
    var followed: AccountID
  }

  private let state: ServiceState
  private let time: Timestamp
  private(set) var events: [Event] = []
  /// Who is to be answered once the batch is durable, and how, in the order of arrival. Also those whom only the batch itself
  /// refuses: what they are told is not true before.
  private(set) var waiting: [(request: MasterCore.Waiting, answer: Answer)] = []

  // What the batch itself changes.
  private var newAccounts: [String: AccountID] = [:]
  private var edges: [Edge: Bool] = [:]
  private var requests: [RequestID: EventID] = [:]
  private var revocations = 0

  init(state: ServiceState, time: Timestamp) {
    self.state = state
    self.time = time
  }

  /// Takes a request: gives its answer if that is known already, else nil, and it is among the waiting.
  mutating func add(_ request: MasterCore.Waiting) -> Answer? {
    if case .register(let login, let hash) = request.work {
      let name = login.hello.user
      if state.account(named: name) != nil { return .exists }
      if newAccounts[name] != nil {
        waiting.append((request, .exists))
        return nil
      }
      let account = AccountID(UInt32(state.names.count + newAccounts.count))
      newAccounts[name] = account
      append(.accountCreated(account, name: name), request: nil, for: request)
      events.append(
        Event(id: nextID, time: time, request: nil, change: .credentialSet(account, hash)))
      return nil
    }

    let id = RequestID(client: request.client, number: request.number)
    if let event = requests[id] {
      waiting.append((request, .done(event)))
      return nil
    }
    switch state.requests[request.client]?.outcome(of: request.number) {
    case .done(let event): return .done(event)
    case .tooOld:
      return .refused(Refusal(.tooOld, "request \(request.number) is too old to tell whether it took effect"))
    case .unknown, nil: break
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
      edges[edge] = true
      append(.followed(request.account, followed), request: id, for: request)
    case .unfollow(let name):
      guard let followed = account(named: name) else { return .refused(unknownUser(name)) }
      let edge = Edge(follower: request.account, followed: followed)
      guard follows(edge) else {
        return refuse(request, Refusal(.notExists, "you do not follow \(name)"), because: edge)
      }
      edges[edge] = false
      append(.unfollowed(request.account, followed), request: id, for: request)
    case .setPassword(let hash): append(.credentialSet(request.account, hash), request: id, for: request)
    case .logout(let token?, let expires, let lifetime)
    where state.revocationCount(of: request.account) + revocations < Limits.revocationsPerAccount:
      revocations += 1
      // What was made of the same login since, lives no longer than a token made now.
      let latest = Timestamp(milliseconds: time.milliseconds + lifetime)
      append(.sessionRevoked(request.account, token, expires: max(expires, latest)), request: id, for: request)
    case .logout: append(.sessionsRevoked(request.account), request: id, for: request)
    }
    return nil
  }

  private mutating func append(_ change: Change, request id: RequestID?, for request: MasterCore.Waiting) {
    let event = Event(id: nextID, time: time, request: id, change: change)
    if let id { requests[id] = event.id }
    waiting.append((request, .done(event.id)))
    events.append(event)
  }

  private var nextID: EventID { state.head.advanced(by: events.count + 1) }

  private func account(named name: String) -> AccountID? {
    state.account(named: name) ?? newAccounts[name]
  }

  private func follows(_ edge: Edge) -> Bool {
    if let change = edges[edge] { return change }
    guard edge.followed.index < state.names.count, edge.follower.index < state.names.count else { return false }
    return state.graph.follows(edge.follower, edge.followed)
  }

  /// Refuses at once what the log refuses, and after the commit what this batch makes wrong.
  private mutating func refuse(
    _ request: MasterCore.Waiting, _ refusal: Refusal, because edge: Edge
  ) -> Answer? {
    guard edges[edge] != nil else { return .refused(refusal) }
    waiting.append((request, .refused(refusal)))
    return nil
  }

  private func unknownUser(_ name: String) -> Refusal {
    Refusal(.unknownUser, "there is no user named \(quoted(name))")
  }
}
