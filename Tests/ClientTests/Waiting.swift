// Waiting for what sockets have to say.

import Testing
import ZeroMQ

/// How long a test waits for what must happen.
let patience: Duration = .seconds(20)

/// Waits until the socket has something to receive.
func waitFor(_ socket: borrowing Socket) throws {
  var poller = Poller()
  var ready: [Ready] = []
  try poller.add(socket, token: 1, interest: .readable)
  try poller.wait(patience, into: &ready)
  try #require(!ready.isEmpty)
}

/// The next message of a socket, which has one or two frames.
func nextFrames(of socket: borrowing Socket) throws -> [[UInt8]] {
  try waitFor(socket)
  var frames = Multipart(maxFrames: 2)
  let result = try socket.receive(into: &frames)
  try #require(result == .received)
  return frames.copyFrames()
}
