// Who of two threads is the loop.

import Synchronization

/// Which of two threads is a master's loop, and which one is at the log's service.
///
/// The loop carries out a small commit itself, which spares it two changes of threads; it is *away* as long. The other thread, which commits
/// otherwise, looks whether it is away for too long, and is the loop from then on; whoever comes back from the disk finds that out, and
/// takes the other's place. So the loop goes on, whatever the disk does, as in Go's scheduler, which takes from a thread that hangs in a
/// system call what it had to run.
///
/// Each change of hands is sequentially consistent, the fence that libzmq wants between two threads' use of a socket.
final class LoopRelay: Sendable {
  /// A time for which the loop is away.
  struct Absence: Sendable {
    fileprivate let state: UInt64
  }

  /// What the other thread sees when it looks.
  enum Sight {
    /// The loop has been away since the last look, or is now, for the first time.
    case comesAndGoes
    /// It has not been away since the last look.
    case stays
    /// It was away at the last look, and still is: the caller is the loop now.
    case replaced
  }

  /// The loop is away.
  private static let away: UInt64 = 1
  /// The other thread looks.
  private static let watched: UInt64 = 2
  /// One absence: above the flags they are counted.
  private static let absence: UInt64 = 4

  private let state = Atomic<UInt64>(0)

  // MARK: The loop's

  /// Whether it may leave.
  var isWatched: Bool { state.load(ordering: .relaxed) & Self.watched != 0 }

  /// Leaves; nil if nobody watches. Then it touches nothing that is the loop's until `comeBack(from:)` lets it.
  func leave() -> Absence? {
    let found = state.load(ordering: .relaxed)
    guard found & Self.watched != 0 else { return nil }
    let next = (found &+ Self.absence) | Self.away
    guard state.compareExchange(expected: found, desired: next, ordering: .sequentiallyConsistent).exchanged else {
      return nil
    }
    return Absence(state: next)
  }

  /// Whether the caller is still the loop. If not, the other thread is.
  func comeBack(from absence: Absence) -> Bool {
    state.compareExchange(
      expected: absence.state, desired: absence.state & ~Self.away, ordering: .sequentiallyConsistent
    ).exchanged
  }

  // MARK: The other thread's

  /// From now on the loop may leave. What is returned is for the first look.
  func watch() -> UInt64 {
    state.bitwiseOr(Self.watched, ordering: .sequentiallyConsistent).newValue
  }

  /// Looks. The loop is replaced if it has been away, for one reason, at this look and the last: so that depends on the time between them.
  func look(_ last: inout UInt64) -> Sight {
    let found = state.load(ordering: .acquiring)
    defer { last = found }
    guard found == last else { return .comesAndGoes }
    guard found & Self.away != 0 else { return .stays }
    // Nobody watches before the one who is away now does.
    let next = (found & ~(Self.away | Self.watched)) &+ Self.absence
    return state.compareExchange(expected: found, desired: next, ordering: .sequentiallyConsistent).exchanged
      ? .replaced : .comesAndGoes
  }

  /// The loop may leave no more; false if it has, since the last look.
  func stopWatching(since last: UInt64) -> Bool {
    last & Self.away == 0
      && state.compareExchange(
        expected: last, desired: last & ~Self.watched, ordering: .sequentiallyConsistent
      ).exchanged
  }
}
