// All clients' request windows, and when they are let go. A value that depends on the events alone, so that a master's
// memory and the log's derived tables agree about every repeat.

/// The request windows of all clients that were active lately (the client table of Viewstamped Replication Revisited).
///
/// Windows go by the log's own time, before each event: those idle for more than `Limits.repeatMilliseconds` at the event's
/// time. And by number, after each event: the longest idle one when there are more than `Limits.repeatClients`.
public struct RequestTable: Sendable {
  private var windows: [ClientID: RequestWindow] = [:]
  private var idle = IdleClients()
  private let clientsMax: Int

  public init(clientsMax: Int = Limits.repeatClients) { self.clientsMax = clientsMax }

  /// A table as it was stored.
  public init(_ stored: [(client: ClientID, window: RequestWindow)], clientsMax: Int = Limits.repeatClients) {
    self.init(clientsMax: clientsMax)
    windows.reserveCapacity(stored.count)
    for (client, window) in stored { windows[client] = window }
    for (client, window) in stored.sorted(by: { $0.window.lastEvent < $1.window.lastEvent }) {
      idle.touch(client, as: window.lastEvent, clients: windows.count)
    }
  }

  /// How many clients have a window.
  public var count: Int { windows.count }

  /// The client's window; nil if it caused nothing lately.
  public subscript(client: ClientID) -> RequestWindow? { windows[client] }

  /// All windows, by client.
  public var all: [(client: ClientID, window: RequestWindow)] {
    windows.map { (client: $0.key, window: $0.value) }.sorted { $0.client < $1.client }
  }

  /// Whether a window last used at `last` has expired when an event has the time `now`.
  @inlinable public static func hasExpired(last: Timestamp, at now: Timestamp) -> Bool {
    let (end, isForEver) = last.milliseconds.addingReportingOverflow(Limits.repeatMilliseconds)
    return !isForEver && end < now.milliseconds
  }

  /// Lets go what has expired by the time of the next event. Call it before `record` for each event, whatever its kind.
  public mutating func expire(at now: Timestamp) {
    while let client = idle.longest(where: { windows[$0]?.lastEvent == $1 }), let window = windows[client],
      Self.hasExpired(last: window.lastTime, at: now)
    {
      idle.removeLongest()
      windows[client] = nil
    }
  }

  /// Notes that `request` by `account` took effect as `event`.
  public mutating func record(_ request: RequestID, by account: AccountID, as event: EventID, at time: Timestamp) {
    windows[request.client, default: RequestWindow(account: account)].record(request.number, as: event, at: time)
    idle.touch(request.client, as: event, clients: windows.count)
    guard windows.count > clientsMax else { return }
    if let client = idle.longest(where: { windows[$0]?.lastEvent == $1 }) {
      idle.removeLongest()
      windows[client] = nil
    }
  }
}

/// Clients in the order of their last events. A queue with an entry an event; entries outdated by a later one of the same
/// client are dropped when they come to the front, or when they are more than half of the queue.
public struct IdleClients: Sendable {
  private var queue: [(client: ClientID, event: EventID)] = []
  private var front = 0

  public init() {}

  /// The client caused `event`, the newest of all. `clients` is the number of clients that there are.
  public mutating func touch(_ client: ClientID, as event: EventID, clients: Int) {
    if queue.count == queue.capacity, queue.count - front > 2 * clients + 64 { dropOutdated() }
    queue.append((client, event))
  }

  /// The client that has been idle for longest; nil if there is none. `isLast` tells whether an event is the client's last.
  public mutating func longest(where isLast: (ClientID, EventID) -> Bool) -> ClientID? {
    while front < queue.count {
      let entry = queue[front]
      if isLast(entry.client, entry.event) { return entry.client }
      removeLongest()
    }
    return nil
  }

  /// Removes the client that `longest` returned.
  public mutating func removeLongest() {
    front += 1
    if front == queue.count {
      queue.removeAll(keepingCapacity: true)
      front = 0
    } else if front >= 1_024, front * 2 > queue.count {
      queue.removeFirst(front)
      front = 0
    }
  }

  /// Keeps each client's last entry only.
  private mutating func dropOutdated() {
    var seen = Set<ClientID>()
    var kept: [(client: ClientID, event: EventID)] = []
    for entry in queue[front...].reversed() where seen.insert(entry.client).inserted { kept.append(entry) }
    kept.reverse()
    queue = kept
    queue.reserveCapacity(kept.count * 3 + 128)
    front = 0
  }
}
