// One deadline for each purpose of a core, and the earliest of them.

public import Model

/// Deadlines indexed by an enum. A core keeps one; its shell sleeps until `next` (after quinn-proto's timer table).
public struct TimerTable<Timer: CaseIterable & RawRepresentable & Hashable & Sendable>: Sendable
where Timer.RawValue == Int {
  private var deadlines: [Instant]

  /// Raw values must be 0, 1, 2, ….
  public init() { deadlines = Array(repeating: .distantFuture, count: Timer.allCases.count) }

  public subscript(timer: Timer) -> Instant? {
    get { deadlines[timer.rawValue] == .distantFuture ? nil : deadlines[timer.rawValue] }
    set { deadlines[timer.rawValue] = newValue ?? .distantFuture }
  }

  /// The earliest deadline.
  public var next: Instant? {
    let earliest = deadlines.min() ?? .distantFuture
    return earliest == .distantFuture ? nil : earliest
  }

  /// Takes the deadline of `timer` if it has come.
  public mutating func expire(_ timer: Timer, at now: Instant) -> Bool {
    guard deadlines[timer.rawValue] <= now else { return false }
    deadlines[timer.rawValue] = .distantFuture
    return true
  }
}
