// Waiting for what must happen, with a deadline; never sleeping for luck.

import Testing

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
