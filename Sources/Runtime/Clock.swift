// The only place that reads clocks.

import Glibc
public import Model

/// The process's clocks.
public enum Clock {
  /// Monotonic time. Stands still while the whole machine sleeps, not while the process is frozen.
  public static func now() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }

  /// Milliseconds since the machine was started, its sleep included: what begins later has more, also when somebody sets the clock.
  public static func sinceBoot() -> UInt64 {
    var time = timespec()
    if clock_gettime(CLOCK_BOOTTIME, &time) != 0 { clock_gettime(CLOCK_MONOTONIC, &time) }
    return UInt64(time.tv_sec) * 1_000 + UInt64(time.tv_nsec) / 1_000_000
  }

  /// Wall-clock time.
  public static func wall() -> Timestamp {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Timestamp(milliseconds: Int64(time.tv_sec) * 1_000 + Int64(time.tv_nsec) / 1_000_000)
  }
}
