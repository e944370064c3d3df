// Tells a peer's silence from one's own absence.

public import Model

/// Measures how long a core itself was away (frozen, or starved of the processor), so that it doesn't take its own
/// silence for everyone else's.
public struct AbsenceMeter: Sendable {
  private var lastTurn: Instant?
  /// The longest sleep that the core ever plans.
  private let expected: Interval

  public init(expected: Interval) { self.expected = expected }

  /// Called at each turn; returns by how much leases are to be extended: zero unless the core was away.
  public mutating func turn(at now: Instant) -> Interval {
    defer { lastTurn = now }
    guard let lastTurn else { return .zero }
    let absence = now - lastTurn
    return absence > expected * 2 ? absence - expected : .zero
  }
}
