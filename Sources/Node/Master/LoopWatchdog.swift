// Who of two threads is the loop.

import Synchronization

/// Which of two threads is a master's loop, and which one is at the log's service.
///
/// The loop carries out a small commit itself, which spares it two changes of threads, and *blocks* as long. The other thread, which commits
/// otherwise, checks meanwhile whether that takes too long, and takes over: it is the loop from then on. Whoever comes back from the disk
/// finds that out, and takes the other's place. So the loop goes on, whatever the disk does; Go's scheduler does the same to a thread that
/// hangs in a system call (`retake` in runtime/proc.go).
///
/// Each change of hands is sequentially consistent, the fence that libzmq wants between two threads' use of a socket.
final class LoopWatchdog: Sendable {
  /// A time for which the loop blocks.
  struct Blocking: Sendable {
    fileprivate let state: UInt64
  }

  /// What came of a check.
  enum Verdict {
    /// The loop began or ended to block after the last check.
    case active
    /// It did not block at the last check, nor since.
    case idle
    /// It blocked at the last check, and has not come back: the caller is the loop now.
    case takenOver
  }

  // The word: the number of times that the loop has blocked or been taken over, and these flags.
  private static let blocks: UInt64 = 1
  private static let armed: UInt64 = 2
  private static let one: UInt64 = 4

  private let state = Atomic<UInt64>(0)

  // MARK: The loop's

  /// Whether it may block.
  var isArmed: Bool { state.load(ordering: .relaxed) & Self.armed != 0 }

  /// The loop blocks from now on, and touches nothing that is the loop's until `endBlocking` lets it; nil if nobody checks.
  func beginBlocking() -> Blocking? {
    let found = state.load(ordering: .relaxed)
    guard found & Self.armed != 0 else { return nil }
    let next = (found &+ Self.one) | Self.blocks
    guard state.compareExchange(expected: found, desired: next, ordering: .sequentiallyConsistent).exchanged else {
      return nil
    }
    return Blocking(state: next)
  }

  /// Whether the caller is still the loop. If not, the other thread is.
  func endBlocking(_ blocking: Blocking) -> Bool {
    state.compareExchange(
      expected: blocking.state, desired: blocking.state & ~Self.blocks, ordering: .sequentiallyConsistent
    ).exchanged
  }

  // MARK: The other thread's

  /// The loop may block from now on. What is returned is for the first check.
  func arm() -> UInt64 {
    state.bitwiseOr(Self.armed, ordering: .sequentiallyConsistent).newValue
  }

  /// Takes over if the loop blocks as it did at the last check: the time between two checks is what it is given.
  func check(since last: inout UInt64) -> Verdict {
    let found = state.load(ordering: .acquiring)
    defer { last = found }
    guard found == last else { return .active }
    guard found & Self.blocks != 0 else { return .idle }
    // Disarmed: nobody checks before the one who blocks has come back.
    let next = (found & ~(Self.blocks | Self.armed)) &+ Self.one
    return state.compareExchange(expected: found, desired: next, ordering: .sequentiallyConsistent).exchanged
      ? .takenOver : .active
  }

  /// The loop may block no more; false if it blocks, or did so after the last check.
  func disarm(since last: UInt64) -> Bool {
    last & Self.blocks == 0
      && state.compareExchange(expected: last, desired: last & ~Self.armed, ordering: .sequentiallyConsistent).exchanged
  }
}
