import Testing
import ZeroMQ

/// Lengths around 33 bytes, where libzmq starts to keep the bytes outside the message's struct.
private let lengths = [0, 1, 10, 32, 33, 34, 1000, 1_000_000]

@Suite struct MessageTests {
  @Test(arguments: lengths) func keepsItsBytes(length: Int) throws {
    let expected = pattern(length)
    let message = try Message(copying: expected)
    #expect(message.count == length)
    #expect(message.isEmpty == (length == 0))
    #expect(message.copyBytes() == expected)
    #expect(message.withBytes { $0.byteCount } == length)
    #expect(try expected.withUnsafeBytes { try Message(copying: $0).copyBytes() } == expected)
    #expect(try Message(copying: expected.span.bytes).copyBytes() == expected)
  }

  @Test(arguments: lengths) func keepsItsBytesWhenItMoves(length: Int) throws {
    final class Owner {
      var message: Message?
      init(_ message: consuming Message) { self.message = consume message }
      func take() -> Message? { message.take() }
    }
    let expected = pattern(length)
    let owners = try (0..<10).map { _ in Owner(try Message(copying: expected)) }
    for owner in owners {
      let message = owner.take()!
      #expect(message.copyBytes() == expected)
      owner.message = consume message
    }
    let last = owners[9].take()!
    #expect(last.copyBytes() == expected)
    let taken = owners[9].take() == nil
    #expect(taken)
  }

  @Test(arguments: lengths, ["tcp", "ipc", "inproc"]) func travels(length: Int, transport: String) throws {
    let context = try Context()
    let left = try context.makeSocket(.pair)
    let right = try context.makeSocket(.pair)
    try left.connect(right.bind(endpoint(transport)))
    let expected = pattern(length)

    try wait(for: .writable, on: left)
    #expect(try left.send(expected) == .sent)
    #expect(try receive(right) == [expected])

    #expect(try right.send(Message(copying: expected)) == .sent)
    #expect(try receive(left) == [expected])

    var moved = try Message(copying: expected)
    #expect(try left.send(moving: &moved) == .sent)
    #expect(moved.count == 0)
    #expect(try receive(right) == [expected])

    var shared = try Message(copying: expected)
    for _ in 0..<3 { #expect(try right.send(sharing: &shared) == .sent) }
    #expect(shared.copyBytes() == expected)
    for _ in 0..<3 { #expect(try receive(left) == [expected]) }
    shared.clear()
    #expect(shared.count == 0)
  }

  @Test func staysWhenItCannotBeSent() throws {
    let context = try Context()
    let dealer = try context.makeSocket(.dealer)  // without a peer, sends would block
    for length in [10, 1000] {
      var message = try Message(copying: pattern(length))
      #expect(try dealer.send(moving: &message) == .wouldBlock)
      #expect(try dealer.send(sharing: &message) == .wouldBlock)
      #expect(message.copyBytes() == pattern(length))
    }
  }

  @Test func becomesEmptyWithNothingToReceive() throws {
    let context = try Context()
    let pair = try context.makeSocket(.pair)
    var message = try Message(copying: pattern(1000))
    #expect(try pair.receive(into: &message) == .wouldBlock)
    #expect(message.count == 0)
  }

  @Test func knowsItsSender() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    let dealer = try context.makeSocket(.dealer)
    try dealer.connect(router.bind("tcp://127.0.0.1:*"))
    #expect(try dealer.send(bytes("hello")) == .sent)
    try wait(for: .readable, on: router)
    var message = Multipart(maxFrames: 2)
    #expect(try router.receive(into: &message) == .received)
    #expect(message[1].metadata("Peer-Address") == "127.0.0.1")
    #expect(message[1].metadata("Socket-Type") == "DEALER")
    #expect(message[1].metadata("Shoe-Size") == nil)
  }
}

@Suite struct MultipartTests {
  @Test func keepsAllFrames() throws {
    let context = try Context()
    let left = try context.makeSocket(.pair)
    let right = try context.makeSocket(.pair)
    try left.connect(right.bind(endpoint("inproc")))
    let frames = [0, 33, 34, 1000].map(pattern)
    #expect(try left.send(frames: frames) == .sent)
    #expect(try left.send(bytes("next")) == .sent)

    var message = Multipart(maxFrames: 4)
    #expect(try right.receive(into: &message) == .received)
    #expect(message.copyFrames() == frames)
    #expect(message[3].count == 1000)
    #expect(try left.send(moving: &message[3]) == .sent)  // a frame can be passed on as it is

    #expect(try right.receive(into: &message) == .received)
    #expect(message.copyFrames() == [bytes("next")])
    #expect(try right.receive(into: &message) == .received)
    #expect(message.copyFrames() == [pattern(1000)])
    #expect(try right.receive(into: &message) == .wouldBlock)
    #expect(message.count == 0)
  }

  @Test func dropsWhatDoesNotFit() throws {
    let context = try Context()
    let left = try context.makeSocket(.pair)
    let right = try context.makeSocket(.pair)
    try left.connect(right.bind(endpoint("tcp")))
    #expect(try left.send(frames: (0..<10_000).map { [UInt8(truncatingIfNeeded: $0)] }) == .sent)
    #expect(try left.send(frames: [[1], [2], [3]]) == .sent)

    try wait(for: .readable, on: right)
    var message = Multipart(maxFrames: 3)
    #expect(try right.receive(into: &message) == .tooManyFrames(dropped: 9_997))
    #expect(message.copyFrames() == [[0], [1], [2]])
    try wait(for: .readable, on: right)
    #expect(try right.receive(into: &message) == .received)  // the message after it is whole
    #expect(message.copyFrames() == [[1], [2], [3]])
  }
}
