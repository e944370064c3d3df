// All clients' request windows in a master's memory, and when they are let go. A value that depends on the events alone, so that
// this memory and the log's derived tables agree about every repeat.

/// The request windows of all clients that were active lately (the client table of Viewstamped Replication Revisited), compact.
///
/// Windows go by the log's own time, before each event: those idle for more than `Limits.repeatMilliseconds` at the event's
/// time. And by number, after each event: the longest idle one when there are more than `Limits.repeatClients`.
public struct RequestTable: Sendable {
  private var windows = RecencyTable<ClientID, CompactRequestWindow>()
  private let clientsMax: Int

  public init(clientsMax: Int = Limits.repeatClients) { self.clientsMax = clientsMax }

  /// A table as it was stored.
  public init(_ stored: [(client: ClientID, window: RequestWindow)], clientsMax: Int = Limits.repeatClients) {
    self.init(clientsMax: clientsMax)
    windows.reserveCapacity(stored.count)
    for (client, window) in stored.sorted(by: { $0.window.lastEvent < $1.window.lastEvent }) {
      windows.touch(client, default: CompactRequestWindow(window)) { _ in }
    }
  }

  /// How many clients have a window.
  public var count: Int { windows.count }

  /// The client's window; nil if it caused nothing lately.
  public subscript(client: ClientID) -> CompactRequestWindow? { windows[client] }

  /// What became of a request.
  public func outcome(of request: RequestID) -> CompactRequestWindow.Outcome {
    windows.value(of: request.client) { $0.outcome(of: request.number) } ?? .unknown
  }

  /// Whether a window last used at `last` has expired when an event has the time `now`.
  @inlinable public static func hasExpired(last: Timestamp, at now: Timestamp) -> Bool {
    let (end, isForEver) = last.milliseconds.addingReportingOverflow(Limits.repeatMilliseconds)
    return !isForEver && end < now.milliseconds
  }

  /// Lets go what has expired by the time of the next event. Call it before `record` for each event, whatever its kind.
  public mutating func expire(at now: Timestamp) {
    while let last = windows.oldest({ $0.lastTime }), Self.hasExpired(last: last, at: now) { windows.removeOldest() }
  }

  /// Notes that `request` by `account` took effect as `event`, the newest of all.
  public mutating func record(_ request: RequestID, by account: AccountID, as event: EventID, at time: Timestamp) {
    windows.touch(request.client, default: CompactRequestWindow(account: account)) {
      $0.record(request.number, as: event, at: time)
    }
    if windows.count > clientsMax { windows.removeOldest() }
  }
}
