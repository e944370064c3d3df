// The outcomes of a client's recent requests, by which a repeated request is recognised.

/// The newest requests of one client that took effect, and as which event (the client table of Viewstamped Replication
/// Revisited, Liskov and Cowling 2012, widened to a window because a client may have many requests under way).
///
/// Derived from the log alone: every master that has applied the same events has the same window.
public struct RequestWindow: Hashable, Sendable {
  public enum Outcome: Hashable, Sendable {
    /// Took effect as this event.
    case done(EventID)
    /// Had no effect up to the head.
    case unknown
    /// Too far below the client's newest number to tell.
    case tooOld
  }

  /// A request that took effect.
  public struct Entry: Hashable, Sendable {
    public var number: UInt64
    public var event: EventID

    public init(number: UInt64, event: EventID) {
      self.number = number
      self.event = event
    }
  }

  /// Whose requests these are. Another account can't use the client id.
  public let account: AccountID
  /// The newest event that the client caused, and its time.
  public private(set) var lastEvent: EventID
  public private(set) var lastTime: Timestamp
  /// The greatest number that took effect.
  public private(set) var newest: UInt64

  /// Entry `number` lies in slot `number % slots.count`; the count is a power of two, grown as needed up to the window's size.
  private var slots: [Entry]

  private static let empty = Entry(number: 0, event: .zero)

  public init(account: AccountID) {
    self.account = account
    lastEvent = .zero
    lastTime = .zero
    newest = 0
    slots = [Self.empty, Self.empty]
  }

  /// A window as it was stored.
  public init(account: AccountID, lastEvent: EventID, lastTime: Timestamp, entries: [Entry]) {
    self.init(account: account)
    for entry in entries { record(entry.number, as: entry.event, at: lastTime) }
    self.lastEvent = lastEvent
    self.lastTime = lastTime
  }

  /// The entries within the window, by number.
  public var entries: [Entry] {
    slots.filter { $0.number != 0 && !isTooOld($0.number) }.sorted { $0.number < $1.number }
  }

  /// What became of request `number`.
  public func outcome(of number: UInt64) -> Outcome {
    if isTooOld(number) { return .tooOld }
    let entry = slots[slot(number, in: slots.count)]
    return entry.number == number && number != 0 ? .done(entry.event) : .unknown
  }

  /// Notes that request `number` took effect as `event`.
  public mutating func record(_ number: UInt64, as event: EventID, at time: Timestamp) {
    lastEvent = max(lastEvent, event)
    lastTime = max(lastTime, time)
    newest = max(newest, number)
    guard number != 0, !isTooOld(number) else { return }
    while true {
      let index = slot(number, in: slots.count)
      let occupant = slots[index].number
      if occupant == 0 || occupant == number || isTooOld(occupant) || slots.count >= Int(Limits.repeatWindow) {
        if occupant <= number { slots[index] = Entry(number: number, event: event) }
        return
      }
      grow()
    }
  }

  /// Written without a sum: numbers are the client's own, up to the greatest.
  private func isTooOld(_ number: UInt64) -> Bool {
    newest >= Limits.repeatWindow && number <= newest - Limits.repeatWindow
  }

  private func slot(_ number: UInt64, in count: Int) -> Int { Int(truncatingIfNeeded: number & UInt64(count - 1)) }

  private mutating func grow() {
    var larger = [Entry](repeating: Self.empty, count: slots.count * 2)
    for entry in slots where entry.number != 0 && !isTooOld(entry.number) {
      larger[slot(entry.number, in: larger.count)] = entry
    }
    slots = larger
  }
}

extension RequestWindow {
  // Two windows are the same if they tell the same; how far their slots have grown on the way doesn't matter.

  public static func == (left: RequestWindow, right: RequestWindow) -> Bool {
    left.account == right.account && left.lastEvent == right.lastEvent && left.lastTime == right.lastTime
      && left.newest == right.newest && left.entries == right.entries
  }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(account)
    hasher.combine(lastEvent)
    hasher.combine(newest)
  }
}
