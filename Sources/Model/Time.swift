// Points in time. Monotonic time decides (timeouts, leases); wall-clock time is only ever shown.

/// A point of a process's monotonic clock, in nanoseconds since some origin of its own. Not comparable across processes.
public struct Instant: Hashable, Comparable, Sendable {
  public var nanoseconds: Int64

  @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

  public static let zero = Instant(nanoseconds: 0)
  public static let distantFuture = Instant(nanoseconds: .max)

  @inlinable public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }

  @inlinable public static func + (instant: Instant, interval: Interval) -> Instant {
    let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(interval.nanoseconds)
    return overflow ? .distantFuture : Instant(nanoseconds: sum)
  }

  @inlinable public static func - (instant: Instant, interval: Interval) -> Instant {
    Instant(nanoseconds: instant.nanoseconds - interval.nanoseconds)
  }

  @inlinable public static func - (left: Instant, right: Instant) -> Interval {
    Interval(nanoseconds: left.nanoseconds - right.nanoseconds)
  }

  /// The first point in time after this one that is a whole multiple of `period` from the origin. Processes of one machine have the same
  /// origin: what they do regularly they then do at the same moments, and the machine sleeps in between.
  @inlinable public func next(_ period: Interval) -> Instant {
    let (quotient, remainder) = nanoseconds.quotientAndRemainder(dividingBy: period.nanoseconds)
    return Instant(nanoseconds: (remainder < 0 ? quotient : quotient + 1) * period.nanoseconds)
  }
}

/// A span of monotonic time in nanoseconds. (`Swift.Duration` is 128 bits wide; the cores compare times for every message.)
public struct Interval: Hashable, Comparable, Sendable {
  public var nanoseconds: Int64

  @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
  @inlinable public init(_ duration: Duration) {
    let (seconds, attoseconds) = duration.components
    nanoseconds = seconds * 1_000_000_000 + attoseconds / 1_000_000_000
  }

  public static let zero = Interval(nanoseconds: 0)
  @inlinable public static func microseconds(_ count: Int64) -> Interval { Interval(nanoseconds: count * 1_000) }
  @inlinable public static func milliseconds(_ count: Int64) -> Interval { Interval(nanoseconds: count * 1_000_000) }
  @inlinable public static func seconds(_ count: Int64) -> Interval { Interval(nanoseconds: count * 1_000_000_000) }

  /// Whole milliseconds, rounded up.
  @inlinable public var milliseconds: Int64 {
    nanoseconds / 1_000_000 + (nanoseconds % 1_000_000 > 0 ? 1 : 0)
  }

  @inlinable public static func < (left: Interval, right: Interval) -> Bool { left.nanoseconds < right.nanoseconds }
  @inlinable public static func + (left: Interval, right: Interval) -> Interval {
    Interval(nanoseconds: left.nanoseconds + right.nanoseconds)
  }
  @inlinable public static func - (left: Interval, right: Interval) -> Interval {
    Interval(nanoseconds: left.nanoseconds - right.nanoseconds)
  }
  @inlinable public static func * (interval: Interval, factor: Int64) -> Interval {
    Interval(nanoseconds: interval.nanoseconds * factor)
  }
  @inlinable public static func / (interval: Interval, divisor: Int64) -> Interval {
    Interval(nanoseconds: interval.nanoseconds / divisor)
  }
}

/// Wall-clock time in milliseconds since 1970 (UTC). Stamped by the master that commits, never by a client.
public struct Timestamp: Hashable, Comparable, Sendable {
  public var milliseconds: Int64

  @inlinable public init(milliseconds: Int64) { self.milliseconds = milliseconds }
  @inlinable public static func < (left: Timestamp, right: Timestamp) -> Bool { left.milliseconds < right.milliseconds }

  public static let zero = Timestamp(milliseconds: 0)
}

/// The times of a cluster, from topology.yaml.
public struct Timing: Hashable, Sendable {
  /// Beat interval of masters to the router.
  public var heartbeat: Interval
  /// Silence after which others route around a peer: cheap and reversible.
  public var liveness: Interval
  /// Silence of a living process after which its supervisor kills it.
  public var hangTimeout: Interval
  /// From a master's death to its respawn by its slave.
  public var respawnDelay: Interval
  /// A client's wait for an answer before it suspects the master.
  public var requestTimeout: Interval

  /// Beat interval of a process to its supervisor, who waits for `hangTimeout`: it need not hear of it as often as the router.
  public var supervisionBeat: Interval { max(heartbeat, hangTimeout / 5) }

  public init(
    heartbeat: Interval = .milliseconds(100), liveness: Interval = .milliseconds(500),
    hangTimeout: Interval = .seconds(5), respawnDelay: Interval = .seconds(25),
    requestTimeout: Interval = .seconds(2)
  ) {
    self.heartbeat = heartbeat
    self.liveness = liveness
    self.hangTimeout = hangTimeout
    self.respawnDelay = respawnDelay
    self.requestTimeout = requestTimeout
  }
}

/// How the router gives masters to clients.
public enum Assignment: String, Hashable, Sendable, CaseIterable {
  /// One master, the available server, serves everybody; the others stand by.
  case available
  /// Every master serves: each user has one by rendezvous hashing.
  case spread
}
