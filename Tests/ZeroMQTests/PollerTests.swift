import Glibc
import Testing
import ZeroMQ

/// Both pollers keep the same promises.
private func withBothPollers(_ test: (any PollerUnderTest) throws -> Void) throws {
  try test(PollerBox(Poller()))
  try test(PollerBox(EpollPoller()))
}

/// The same with two sockets that are connected.
private func withBothPollers(
  over transport: String, _ test: (any PollerUnderTest, borrowing Socket, borrowing Socket) throws -> Void
) throws {
  try withBothPollers { poller throws in
    let context = try Context()
    let left = try context.makeSocket(.pair)
    let right = try context.makeSocket(.pair)
    try left.connect(right.bind(endpoint(transport)))
    try test(poller, left, right)
  }
}

private protocol PollerUnderTest: AnyObject {
  func add(_ socket: borrowing Socket, _ token: Int, _ interest: PollEvents) throws
  func add(fileDescriptor: Int32, _ token: Int, _ interest: PollEvents) throws
  func setInterest(_ interest: PollEvents, of token: Int) throws
  func remove(_ token: Int)
  func wait(_ timeout: Duration?) throws -> [Ready]
}

private final class PollerBox<P: SocketPoller & ~Copyable>: PollerUnderTest {
  private var poller: P
  init(_ poller: consuming P) { self.poller = poller }
  func add(_ socket: borrowing Socket, _ token: Int, _ interest: PollEvents) throws {
    try poller.add(socket, token: token, interest: interest)
  }
  func add(fileDescriptor: Int32, _ token: Int, _ interest: PollEvents) throws {
    try poller.add(fileDescriptor: fileDescriptor, token: token, interest: interest)
  }
  func setInterest(_ interest: PollEvents, of token: Int) throws { try poller.setInterest(interest, of: token) }
  func remove(_ token: Int) { poller.remove(token: token) }
  func wait(_ timeout: Duration?) throws -> [Ready] {
    var ready = [Ready(token: -1, events: [])]  // must not be left over
    try poller.wait(timeout, into: &ready)
    return ready.sorted { $0.token < $1.token }
  }
}

@Suite struct PollerTests {
  @Test func tellsWhichSocketIsReady() throws {
    try withBothPollers(over: "tcp") { poller, left, right throws in
      try poller.add(right, 7, .readable)
      #expect(try poller.wait(.zero) == [])
      #expect(try left.send([1]) == .sent)
      #expect(try poller.wait(patience) == [Ready(token: 7, events: .readable)])
      #expect(try poller.wait(nil) == [Ready(token: 7, events: .readable)])  // by level: it was not drained
      #expect(try receive(right) == [[1]])
      #expect(try poller.wait(.zero) == [])

      try poller.setInterest([.readable, .writable], of: 7)
      #expect(try poller.wait(nil) == [Ready(token: 7, events: .writable)])
      try poller.setInterest([], of: 7)
      #expect(try poller.wait(.zero) == [])
      #expect(throws: ZMQError.self) { try poller.setInterest([], of: 8) }
      #expect(throws: ZMQError.self) { try poller.add(left, 7, .readable) }
      poller.remove(7)
      poller.remove(7)
      try poller.add(left, 7, .writable)
      #expect(try poller.wait(nil) == [Ready(token: 7, events: .writable)])
    }
  }

  /// Read until there is nothing, wait, and again: what comes then is told of each time, and what a send may have swallowed, too.
  @Test func aSocketReadToItsEndIsNotForgotten() throws {
    try withBothPollers(over: "tcp") { poller, left, right throws in
      try poller.add(right, 7, .readable)
      var message = Message()
      for round in 0..<50 as Range<UInt8> {
        #expect(try left.send([round]) == .sent)
        #expect(try poller.wait(patience) == [Ready(token: 7, events: .readable)])
        #expect(try right.receive(into: &message) == .received)
        #expect(try right.receive(into: &message) == .wouldBlock)
        if round % 3 == 1 { #expect(try right.send([round]) == .sent) }
        if round % 2 == 1 { #expect(try poller.wait(.zero) == []) }
        try poller.setInterest([.readable, .writable], of: 7)
        #expect(try poller.wait(nil) == [Ready(token: 7, events: .writable)])
        #expect(try right.receive(into: &message) == .wouldBlock)
        #expect(try poller.wait(nil) == [Ready(token: 7, events: .writable)])
        #expect(try left.send([round]) == .sent)
        var ready: [Ready] = []
        let deadline = ContinuousClock.now + patience
        while ready != [Ready(token: 7, events: [.readable, .writable])], ContinuousClock.now < deadline {
          ready = try poller.wait(nil)
        }
        try poller.setInterest(.readable, of: 7)
        #expect(try poller.wait(patience) == [Ready(token: 7, events: .readable)])
        #expect(try right.receive(into: &message) == .received)
        #expect(try right.receive(into: &message) == .wouldBlock)
      }
    }
  }

  @Test func mixesDescriptorsAndSockets() throws {
    try withBothPollers(over: "inproc") { poller, left, right throws in
      var pipe: [Int32] = [0, 0]
      #expect(Glibc.pipe(&pipe) == 0)
      defer { for descriptor in pipe where descriptor >= 0 { close(descriptor) } }

      try poller.add(fileDescriptor: pipe[0], 1, .readable)
      try poller.add(right, 2, .readable)
      #expect(try poller.wait(.milliseconds(1)) == [])
      #expect(write(pipe[1], "x", 1) == 1)
      #expect(try poller.wait(nil) == [Ready(token: 1, events: .readable)])
      #expect(try left.send([1]) == .sent)
      let both = [Ready(token: 1, events: .readable), Ready(token: 2, events: .readable)]
      #expect(try poller.wait(nil) == both)  // neither starves the other
      #expect(try poller.wait(nil) == both)
      try poller.setInterest([], of: 1)
      #expect(try poller.wait(nil) == [both[1]])
      try poller.setInterest(.readable, of: 1)
      var byte: UInt8 = 0
      #expect(read(pipe[0], &byte, 1) == 1)
      #expect(try poller.wait(nil) == [both[1]])
      close(pipe[1])
      pipe[1] = -1
      #expect(try poller.wait(nil) == [Ready(token: 1, events: .error), both[1]])
      poller.remove(1)
      #expect(try poller.wait(nil) == [both[1]])
    }
  }

  @Test func waitsAsLongAsItIsTold() throws {
    try withBothPollers { poller throws in
      let clock = ContinuousClock()
      var shortest = Duration.seconds(1)
      for _ in 0..<20 {
        let start = clock.now
        #expect(try poller.wait(.microseconds(300)) == [])
        let time = clock.now - start
        #expect(time >= .microseconds(300))
        shortest = min(shortest, time)
      }
      #expect(shortest < .milliseconds(1))  // finer than zmq_poll
      #expect(try poller.wait(.seconds(-1)) == [])
    }
  }

  @Test func forgetsClosedSockets() throws {
    try withBothPollers { poller throws in
      let context = try Context()
      do {
        let socket = try context.makeSocket(.pub)
        try poller.add(socket, 1, .writable)
        #expect(try poller.wait(nil) == [Ready(token: 1, events: .writable)])
      }
      #expect(try poller.wait(.zero) == [])
      let another = try context.makeSocket(.pub)
      try poller.add(another, 1, .writable)
      #expect(try poller.wait(nil) == [Ready(token: 1, events: .writable)])
    }
  }

  @Test func anEpollPollerMayGoBeforeItsSockets() throws {
    let context = try Context()
    let left = try context.makeSocket(.pair)
    let right = try context.makeSocket(.pair)
    try left.connect(right.bind(endpoint("inproc")))
    for round in UInt8(0)..<3 {
      var poller = try EpollPoller()
      var ready: [Ready] = []
      try poller.add(right, token: 1, interest: .readable)
      var second = try EpollPoller()
      #expect(throws: ZMQError(code: EEXIST, call: "EpollPoller.add")) {
        try second.add(right, token: 1, interest: .readable)
      }
      #expect(try left.send([round]) == .sent)
      try poller.wait(patience, into: &ready)
      #expect(ready.count == 1)
      #expect(try receive(right) == [[round]])
    }
  }
}

/// A socket's descriptor wakes up once, and any use of the socket can swallow that.
@Suite struct LostWakeUpTests {
  /// The wake-up of a message is swallowed by a send, then by reading the events, then by an option.
  @Test(arguments: 0..<3) func aUseOfTheSocketSwallowsNothing(use: Int) throws {
    let context = try Context()
    let left = try context.makeSocket(.dealer)
    let right = try context.makeSocket(.dealer)
    try left.connect(right.bind(endpoint("tcp")))
    var poller = try EpollPoller()
    var ready: [Ready] = []
    try poller.add(right, token: 1, interest: .readable)
    try wait(for: .writable, on: right)
    for round in 0..<200 {
      try poller.wait(.zero, into: &ready)
      #expect(ready == [])  // from now on the poller relies on the descriptor
      #expect(try left.send(bytes("\(round)")) == .sent)
      try wait(for: .readable, on: right)  // it is here
      switch use {
      case 0: for _ in 0..<5 { _ = try right.send([0]) }
      case 1: #expect(try right.events.contains(.readable))
      default: try right.set(.linger(.zero))
      }
      try poller.wait(patience, into: &ready)
      try #require(ready == [Ready(token: 1, events: .readable)])
      #expect(try receive(right) == [bytes("\(round)")])
      var message = Multipart(maxFrames: 1)
      while try left.receive(into: &message) == .received {}
    }
  }

  /// One message is taken each time; the rest must be reported again without a new wake-up.
  @Test func aRestIsReportedAgain() throws {
    let context = try Context()
    let left = try context.makeSocket(.pair)
    let right = try context.makeSocket(.pair)
    try left.connect(right.bind(endpoint("ipc")))
    var poller = try EpollPoller()
    var ready: [Ready] = []
    try poller.add(right, token: 1, interest: .readable)
    for _ in 0..<500 { #expect(try left.send([1]) == .sent) }
    var message = Message()
    for _ in 0..<500 {
      try poller.wait(patience, into: &ready)
      try #require(ready.count == 1)
      #expect(try right.receive(into: &message) == .received)
    }
    try poller.wait(.zero, into: &ready)
    #expect(ready == [])
  }

  /// Many sockets that answer each other: a single lost wake-up would stop a pair for good.
  @Test func hundredsOfSocketsPlayPingPong() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    try router.set(.sendHighWaterMark(0), .receiveHighWaterMark(0), .routerMandatory(true))
    let address = try router.bind(endpoint("tcp"))
    let count = 300
    let rounds = 50
    var dealers: [SocketBox] = []
    var poller = try EpollPoller()
    try poller.add(router, token: -1, interest: .readable)
    for index in 0..<count {
      let box = SocketBox(try context.makeSocket(.dealer))
      dealers.append(box)
      try box.socket.connect(address)
      try poller.add(box.socket, token: index, interest: .readable)
      #expect(try box.socket.send([0]) == .sent)
    }
    var remaining = Array(repeating: rounds, count: count)
    var unfinished = count
    var ready: [Ready] = []
    var message = Multipart(maxFrames: 2)
    while unfinished > 0 {
      try poller.wait(patience, into: &ready)
      try #require(!ready.isEmpty, "\(unfinished) pairs stopped")
      for item in ready {
        if item.token == -1 {
          for _ in 0..<7 {  // leave a rest, sometimes
            guard try router.receive(into: &message) == .received else { break }
            #expect(try router.send(moving: &message[0], more: true) == .sent)
            #expect(try router.send(moving: &message[1]) == .sent)
          }
        } else {
          let socket = dealers[item.token]
          try #require(try socket.socket.receive(into: &message) == .received)
          remaining[item.token] -= 1
          if remaining[item.token] > 0 {
            #expect(try socket.socket.send([0]) == .sent)
          } else {
            unfinished -= 1
          }
        }
      }
    }
  }

  /// Messages arrive from another thread while the sockets of this one are used and polled.
  @Test func messagesOfAnotherThreadArrive() throws {
    let shared = try SharedContext()
    let right = try shared.context.makeSocket(.pair)
    let address = try right.bind(endpoint("tcp"))
    let total = 20_000
    let sender = OtherThread {
      let left = try shared.context.makeSocket(.pair)
      try left.connect(address)
      var sent = 0
      while sent < total {
        if try left.send([1]) == .sent { sent += 1 } else { try wait(for: .writable, on: left) }
      }
      _ = try receive(left, within: .seconds(60))  // stay until all have come
    }
    var received = 0
    var poller = try EpollPoller()
    var ready: [Ready] = []
    var message = Message()
    try poller.add(right, token: 1, interest: .readable)
    while received < total {
      try poller.wait(patience, into: &ready)
      try #require(!ready.isEmpty, "only \(received) came")
      var limit = received % 5 + 1
      while limit > 0, try right.receive(into: &message) == .received {
        received += 1
        limit -= 1
      }
      _ = try right.events
    }
    #expect(try right.send([2]) == .sent)
    try sender.join()
  }
}
