// A commit in the making: requests are validated against the state and against each other.

import Model

/// Collects the events of one commit. What an earlier request of the batch changes counts for the later ones.
struct Batch {
  /// What a request that needs no event of its own gets at once; or, later, what its event gives.
  enum Answer {
    case done(EventID)
    case refused(Refusal)
    /// The account is there already.
    case exists(AccountID)
  }

  private struct Edge: Hashable {
    var follower: AccountID
    var followed: AccountID
  }

  private let state: ServiceState
  private let time: Timestamp
  private(set) var events: [Event] = []
  /// Who waits for which event; some for a refusal that is true only once that event is in the log.
  private(set) var waiting: [(request: MasterCore.Waiting, event: Int, refusal: Refusal?)] = []

  // What the batch itself changes.
  private var newAccounts: [String: Int] = [:]
  private var edges: [Edge: (follows: Bool, event: Int)] = [:]
  private var requests: [RequestID: Int] = [:]

  init(state: ServiceState, time: Timestamp) {
    self.state = state
    self.time = time
  }

  /// Takes a request: gives its answer if it needs no event, else nil, and the event it waits for is in `events`.
  mutating func add(_ request: MasterCore.Waiting) -> Answer? {
    if case .register(let hello) = request.work {
      if let account = state.account(named: hello.user) { return .exists(account) }
      if let index = newAccounts[hello.user] {
        waiting.append((request, index, nil))
        return nil
      }
      let account = AccountID(UInt32(state.names.count + newAccounts.count))
      newAccounts[hello.user] = events.count
      append(.accountCreated(account, name: hello.user), request: nil, for: request)
      return nil
    }

    let id = RequestID(client: request.client, number: request.number)
    if let index = requests[id] {
      waiting.append((request, index, nil))
      return nil
    }
    switch state.requests[request.client]?.outcome(of: request.number) {
    case .done(let event): return .done(event)
    case .tooOld: return .refused(Refusal(.tooOld, "request \(request.number) is too old to tell whether it took effect"))
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
      guard !follows(request.account, followed) else {
        return refuse(request, followed, Refusal(.alreadyExists, "you follow \(name) already"))
      }
      edges[Edge(follower: request.account, followed: followed)] = (true, events.count)
      append(.followed(request.account, followed), request: id, for: request)
    case .unfollow(let name):
      guard let followed = account(named: name) else { return .refused(unknownUser(name)) }
      guard follows(request.account, followed) else {
        return refuse(request, followed, Refusal(.notExists, "you do not follow \(name)"))
      }
      edges[Edge(follower: request.account, followed: followed)] = (false, events.count)
      append(.unfollowed(request.account, followed), request: id, for: request)
    }
    return nil
  }

  /// At once if the state says so; after the commit if an event of this batch does, which may yet fail.
  private mutating func refuse(_ request: MasterCore.Waiting, _ followed: AccountID, _ refusal: Refusal) -> Answer? {
    guard let change = edges[Edge(follower: request.account, followed: followed)] else { return .refused(refusal) }
    waiting.append((request, change.event, refusal))
    return nil
  }

  private mutating func append(_ change: Change, request id: RequestID?, for request: MasterCore.Waiting) {
    if let id { requests[id] = events.count }
    waiting.append((request, events.count, nil))
    events.append(Event(id: state.head.advanced(by: events.count + 1), time: time, request: id, change: change))
  }

  private func account(named name: String) -> AccountID? {
    if let account = state.account(named: name) { return account }
    guard let index = newAccounts[name] else { return nil }
    return events[index].change.actor
  }

  private func follows(_ follower: AccountID, _ followed: AccountID) -> Bool {
    if let change = edges[Edge(follower: follower, followed: followed)] { return change.follows }
    guard followed.index < state.names.count, follower.index < state.names.count else { return false }
    return state.graph.follows(follower, followed)
  }

  private func unknownUser(_ name: String) -> Refusal {
    Refusal(.unknownUser, "there is no user named \(quoted(name))")
  }
}
