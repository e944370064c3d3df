// The repeat windows of all clients.

public import Model

/// What became of recent requests, by client. A view of the log like all state: the same at every master at the same position.
public struct RepeatTable: Sendable {
  private var windows: [ClientID: RequestWindow] = [:]
  private var eventsSinceSweep = 0

  public init() {}

  init(snapshot: Snapshot) {
    windows.reserveCapacity(snapshot.windows.count)
    for (client, window) in snapshot.windows { windows[client] = window }
  }

  public var count: Int { windows.count }

  /// Whose client id this is, while its outcomes are kept.
  public func owner(of client: ClientID, at time: Timestamp) -> AccountID? {
    guard let window = windows[client], !isExpired(window, at: time) else { return nil }
    return window.account
  }

  /// What became of a request up to the log's head, whose time is `time`.
  public func outcome(of request: RequestID, at time: Timestamp) -> RequestWindow.Outcome {
    guard let window = windows[request.client], !isExpired(window, at: time) else { return .unknown }
    return window.outcome(of: request.number)
  }

  mutating func record(_ request: RequestID, by account: AccountID, as event: EventID, at time: Timestamp) {
    if let index = windows.index(forKey: request.client), !isExpired(windows.values[index], at: time) {
      windows.values[index].record(request.number, as: event, at: time)
    } else {
      var window = RequestWindow(account: account)
      window.record(request.number, as: event, at: time)
      windows[request.client] = window
    }
    eventsSinceSweep += 1
    if eventsSinceSweep >= Limits.repeatClients / 16 { sweep(at: time) }
  }

  private func isExpired(_ window: RequestWindow, at time: Timestamp) -> Bool {
    window.lastTime.milliseconds + Limits.repeatMilliseconds < time.milliseconds
  }

  /// Frees what `isExpired` already hides, and the longest idle ones above the limit.
  private mutating func sweep(at time: Timestamp) {
    eventsSinceSweep = 0
    windows = windows.filter { !isExpired($0.value, at: time) }
    guard windows.count > Limits.repeatClients else { return }
    let idle = windows.sorted { $0.value.lastEvent < $1.value.lastEvent }
    for (client, _) in idle.prefix(windows.count - Limits.repeatClients) { windows[client] = nil }
  }
}
