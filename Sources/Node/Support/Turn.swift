// How long one kind of work may keep an event loop from the others.

import Model
import Runtime
import ZeroMQ

/// The time that one kind of work has in a turn of the loop.
struct Turn {
  /// The clock is looked at once in so many steps.
  static let steps = 16

  private let end: Instant
  private var step = 0

  init(_ length: Interval) { end = Clock.now() + length }

  /// Whether there is time for one more step.
  mutating func goesOn() -> Bool {
    step += 1
    return step % Self.steps != 0 || Clock.now() < end
  }

  /// Whether to leave the rest that waits in a socket to the next turn. Only what waits makes a poller call again: where nothing does,
  /// the end is reached, whatever the time, and the next receive says so.
  mutating func isOver(before socket: borrowing Socket) throws(ZMQError) -> Bool {
    if goesOn() { return false }
    return try socket.hasMessage
  }
}
