// Waiting for what must happen, with a deadline; never sleeping for luck.

import Testing
import ZeroMQ

/// How long a test waits for what must happen. Long, since it costs nothing when it does.
let patience = Duration.seconds(30)

/// Something did not happen in time.
struct Late: Error, CustomStringConvertible {
  var description: String
}

/// Waits until `condition` gives a value, and returns it.
@discardableResult
func eventually<Value>(
  _ what: String, within limit: Duration = patience, every pause: Duration = .milliseconds(10),
  _ condition: () async throws -> Value?
) async throws -> Value {
  let deadline = ContinuousClock.now + limit
  while true {
    if let value = try await condition() { return value }
    if ContinuousClock.now >= deadline { throw Late(description: "not within \(limit): \(what)") }
    try await Task.sleep(for: pause)
  }
}

/// Waits until `condition` holds.
func eventually(
  _ what: String, within limit: Duration = patience, every pause: Duration = .milliseconds(10),
  _ condition: () async throws -> Bool
) async throws {
  try await eventually(what, within: limit, every: pause) { try await condition() ? () : nil }
}

/// The frames of the next message at a socket; nil if none comes in time.
func received(
  from socket: borrowing Socket, framesMax: Int = 8, within limit: Duration = patience
) async throws -> [[UInt8]]? {
  var message = Multipart(maxFrames: framesMax)
  let deadline = ContinuousClock.now + limit
  while try socket.receive(into: &message) != .received {
    guard ContinuousClock.now < deadline else { return nil }
    try await Task.sleep(for: .milliseconds(1))
  }
  return message.copyFrames()
}

/// The same of a message that must come.
func receive(from socket: borrowing Socket, framesMax: Int = 8) async throws -> [[UInt8]] {
  guard let frames = try await received(from: socket, framesMax: framesMax) else {
    throw Late(description: "nothing came within \(patience)")
  }
  return frames
}
