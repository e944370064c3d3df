// What is read to its end, over as many turns as that takes.

import Model
import Testing
import ZeroMQ

@testable import Node

@Suite struct TurnTests {
  /// Reads as a loop does that has to know when it has come to the end; nil: it goes on in its next turn.
  private func read(_ socket: borrowing Socket, _ turn: consuming Turn) throws -> Int? {
    var message = Message()
    var count = 0
    while true {
      if try turn.isOver(before: socket) { return nil }
      guard try socket.receive(into: &message) == .received else { return count }
      count += 1
    }
  }

  private func withMessages(_ count: Int, _ body: (borrowing Socket) throws -> Void) throws {
    let context = try Context()
    let receiver = try context.makeSocket(.pair)
    try receiver.bind("inproc://turns")
    let sender = try context.makeSocket(.pair)
    try sender.connect("inproc://turns")
    for _ in 0..<count { _ = try sender.send([1]) }
    try body(receiver)
  }

  /// If it stopped here, nothing that is left would make the poller call it again: it would wait for the next message.
  @Test(arguments: [0, 1, Turn.steps - 1, Turn.steps, 2 * Turn.steps - 1])
  func aTurnThatIsOverEndsNothingThatHasComeToItsEnd(count: Int) throws {
    try withMessages(count) { socket in
      var rounds = 0
      while try read(socket, Turn(.zero)) == nil {
        rounds += 1
        try #require(rounds < 10)
        let isCalledAgain = try socket.hasMessage
        #expect(isCalledAgain, "it waits for a turn that nobody gives it")
      }
    }
  }

  @Test func aTurnIsBounded() throws {
    try withMessages(3 * Turn.steps) { socket in
      let first = try read(socket, Turn(.zero))
      let second = try read(socket, Turn(.seconds(60)))
      #expect(first == nil && second != nil)
    }
  }
}
