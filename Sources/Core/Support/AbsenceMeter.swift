// Tells a peer's silence from one's own absence.

public import Model

/// Finds out when a core itself was away (frozen, or starved of the processor), so that it doesn't take its own silence for
/// everyone else's: leases are then extended by the time it was away.
public struct AbsenceMeter: Sendable {
  public private(set) var lastTurn: Instant?
  private let tolerance: Interval

  /// - Parameter tolerance: how late a planned wake-up may come without meaning anything.
  public init(tolerance: Interval) { self.tolerance = tolerance }

  /// Called at each turn, with the wake-up that was planned at the end of the turn before. Returns by how much to extend leases.
  public mutating func turn(at now: Instant, planned: Instant?) -> Interval {
    defer { lastTurn = now }
    guard let planned, now > planned + tolerance else { return .zero }
    // Before its first turn, a core has been there at least until it planned that.
    return now - (lastTurn ?? planned)
  }
}
