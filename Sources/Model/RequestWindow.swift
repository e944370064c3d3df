// The outcomes of a client's recent requests, by which a repeated request is recognised.

/// The newest requests of one client that took effect, and as which event (the client table of Viewstamped Replication
/// Revisited, Liskov and Cowling 2012, widened to a window because a client may have many requests under way).
///
/// Derived from the log alone. The derived tables keep it whole, a master in memory its compact form (`CompactRequestWindow`).
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

  /// Events as their distance from `base`, 0 for none. Request `number` has slot `number % slots.count`, and only numbers within
  /// `slots.count` of the newest have one: so a slot's place tells its number, and an entry takes four bytes. The count is a power of two,
  /// grown as needed up to the window's size.
  private var slots: [UInt32]
  private var base: UInt64 = 0

  public init(account: AccountID) {
    self.account = account
    lastEvent = .zero
    lastTime = .zero
    newest = 0
    slots = [0, 0, 0, 0]
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
    let count = min(newest, UInt64(slots.count))
    return (0..<count).reversed().compactMap { age in
      let offset = slots[slot(newest - age)]
      return offset == 0 ? nil : Entry(number: newest - age, event: EventID(base + UInt64(offset)))
    }
  }

  /// What became of request `number`.
  public func outcome(of number: UInt64) -> Outcome {
    if isTooOld(number) { return .tooOld }
    guard number != 0, number <= newest, newest - number < UInt64(slots.count) else { return .unknown }
    let offset = slots[slot(number)]
    return offset == 0 ? .unknown : .done(EventID(base + UInt64(offset)))
  }

  /// Notes that request `number` took effect as `event`.
  public mutating func record(_ number: UInt64, as event: EventID, at time: Timestamp) {
    lastEvent = max(lastEvent, event)
    lastTime = max(lastTime, time)
    if number > newest {
      advance(to: number)
    } else {
      guard number != 0, !isTooOld(number) else { return }
      while newest - number >= UInt64(slots.count) { grow() }
    }
    if event.rawValue <= base || event.rawValue - base > UInt64(UInt32.max) { rebase(for: event.rawValue) }
    slots[slot(number)] = event.rawValue <= base ? 0 : UInt32(event.rawValue - base)
  }

  private func isTooOld(_ number: UInt64) -> Bool { Self.isTooOld(number, newest: newest) }

  /// Whether `number` is below the window of a client whose greatest number is `newest`. Written without a sum: numbers are the client's own,
  /// up to the greatest.
  static func isTooOld(_ number: UInt64, newest: UInt64) -> Bool {
    newest >= Limits.repeatWindow && number <= newest - Limits.repeatWindow
  }

  private func slot(_ number: UInt64) -> Int { Int(truncatingIfNeeded: number & UInt64(slots.count - 1)) }

  /// Makes `number` the newest. The numbers that get a slot by it take those of the oldest.
  private mutating func advance(to number: UInt64) {
    let distance = number - newest
    while distance < Limits.repeatWindow, slots.count < Int(Limits.repeatWindow) {
      let taken = min(distance, UInt64(slots.count))
      guard (1...taken).contains(where: { slots[slot(newest + $0)] != 0 }) else { break }
      grow()
    }
    for step in 1...min(distance, UInt64(slots.count)) { slots[slot(newest + step)] = 0 }
    newest = number
  }

  private mutating func grow() {
    var larger = [UInt32](repeating: 0, count: slots.count * 2)
    for age in 0..<min(newest, UInt64(slots.count)) {
      let number = newest - age
      larger[Int(truncatingIfNeeded: number & UInt64(larger.count - 1))] = slots[slot(number)]
    }
    slots = larger
  }

  /// Moves the base so that `event` and all others are within reach of it. Were a window to span more than 2³² events (a client can't
  /// ask that late for any of them), those of the oldest would be forgotten.
  private mutating func rebase(for event: UInt64) {
    let events = slots.map { $0 == 0 ? 0 : base + UInt64($0) }
    let least = events.reduce(event) { $1 == 0 ? $0 : min($0, $1) }
    let greatest = events.reduce(event, max)
    base = max(max(least, 1) - 1, greatest - min(greatest, UInt64(UInt32.max)))
    for (index, event) in events.enumerated() { slots[index] = event <= base ? 0 : UInt32(event - base) }
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
