// What the kernel is told of wishes for writability, and what the waiting thread is told.
import CEpoll
import Glibc
import Testing
import ZeroMQ

@Suite struct EpollTests {
  @Test func aWishIsAnsweredWithoutTheKernel() throws {
    let epoll = try Epoll()
    let pair = try Pair()
    try epoll.add(pair.ours, EPOLLIN)
    try epoll.prove(pair.ours)
    try epoll.modify(pair.ours, EPOLLIN, EPOLLOUT)
    #expect(epoll.told(pair.ours) == events(EPOLLIN))
    #expect(epoll.wait() == [Ready(pair.ours, EPOLLOUT)])
    try epoll.modify(pair.ours, EPOLLIN)
    #expect(epoll.told(pair.ours) == events(EPOLLIN))
    #expect(epoll.wait() == [])
  }

  @Test func aWishThatIsStillThereIsPutToTheKernel() throws {
    let epoll = try Epoll()
    let pair = try Pair()
    try epoll.add(pair.ours, EPOLLIN)
    try epoll.prove(pair.ours)
    pair.fill()
    try epoll.modify(pair.ours, EPOLLIN, EPOLLOUT)
    #expect(epoll.wait() == [Ready(pair.ours, EPOLLOUT)])  // which does not hold
    #expect(epoll.wait() == [])
    #expect(epoll.told(pair.ours) == events(EPOLLIN, EPOLLOUT))
    pair.drain()
    #expect(epoll.wait(milliseconds: 20_000) == [Ready(pair.ours, EPOLLOUT)])
    try epoll.modify(pair.ours, EPOLLIN)
    #expect(epoll.told(pair.ours) == events(EPOLLIN))
    try epoll.modify(pair.ours, EPOLLIN, EPOLLOUT)  // and the next one is answered again
    #expect(epoll.told(pair.ours) == events(EPOLLIN))
    #expect(epoll.wait() == [Ready(pair.ours, EPOLLOUT)])
  }

  /// For who connects, EPOLLOUT is the news that he has.
  @Test func theFirstWishOfADescriptorIsTheKernels() throws {
    let epoll = try Epoll()
    let pair = try Pair()
    pair.fill()
    try epoll.add(pair.ours)
    try epoll.modify(pair.ours, EPOLLOUT)
    #expect(epoll.told(pair.ours) == events(EPOLLOUT))
    #expect(epoll.wait() == [])
    try epoll.remove(pair.ours)
    try epoll.add(pair.ours)  // its next life in the instance begins anew
    try epoll.modify(pair.ours, EPOLLOUT)
    #expect(epoll.wait() == [])
  }

  @Test func aWishThatWasTakenBackOrRemovedIsNotAnswered() throws {
    let epoll = try Epoll()
    let pairs = try epoll.addWishing(5)
    try epoll.modify(pairs[1].ours)
    try epoll.remove(pairs[3].ours)
    try epoll.remove(pairs[4].ours)
    try epoll.add(pairs[4].ours)
    #expect(Set(epoll.wait().map(\.descriptor)) == [pairs[0].ours, pairs[2].ours])
    #expect(pairs.map { epoll.told($0.ours) } == [0, 0, 0, nil, 0])
    #expect(Set(epoll.wait().map(\.descriptor)) == [pairs[0].ours, pairs[2].ours])  // by the kernel
    #expect(pairs.map { epoll.told($0.ours) } == [events(EPOLLOUT), 0, events(EPOLLOUT), nil, 0])
  }

  @Test func otherChangesGoToTheKernelAtOnce() throws {
    let epoll = try Epoll()
    let pair = try Pair()
    try epoll.add(pair.ours)
    try epoll.prove(pair.ours)
    try epoll.modify(pair.ours, EPOLLOUT)
    try epoll.modify(pair.ours, EPOLLIN, EPOLLOUT)  // libzmq stops and starts reading while it has something to send
    #expect(epoll.told(pair.ours) == events(EPOLLIN, EPOLLOUT))
    try epoll.modify(pair.ours, EPOLLOUT)
    #expect(epoll.told(pair.ours) == events(EPOLLOUT))
    #expect(epoll.wait() == [Ready(pair.ours, EPOLLOUT)])
    try epoll.modify(pair.ours)
    #expect(epoll.told(pair.ours) == 0)
  }

  @Test func whatCanBeReadWaitsForOneTurnAtMost() throws {
    let epoll = try Epoll()
    let reader = try Pair()
    try epoll.add(reader.ours, EPOLLIN)
    let writers = try epoll.addWishing(40)
    reader.theyWrite()
    var seen: [Int32] = []
    for turn in 0..<10 where !seen.contains(reader.ours) {
      #expect(turn < 2)
      let ready = epoll.wait(atMost: 8)
      #expect(!ready.isEmpty)
      for one in ready where one.events == events(EPOLLOUT) { try epoll.modify(one.descriptor) }
      seen += ready.map(\.descriptor)
    }
    for _ in 0..<100 {
      let ready = epoll.wait(atMost: 8).filter { $0.descriptor != reader.ours }
      for one in ready { try epoll.modify(one.descriptor) }
      seen += ready.map(\.descriptor)
    }
    #expect(Set(seen).count == 41 && seen.filter { $0 != reader.ours }.count == 40)  // each once
    withExtendedLifetime(writers) {}
  }

  @Test func aWaitForASingleEventGetsItFromTheKernel() throws {
    let epoll = try Epoll()
    let pair = try Pair()
    try epoll.add(pair.ours)
    try epoll.prove(pair.ours)
    try epoll.modify(pair.ours, EPOLLOUT)
    #expect(epoll.wait(atMost: 1) == [Ready(pair.ours, EPOLLOUT)])
    #expect(epoll.told(pair.ours) == events(EPOLLOUT))
  }

  /// libdispatch arms its descriptors again with the same events.
  @Test func edgesAndSingleShotsAreTheKernels() throws {
    let epoll = try Epoll()
    let pair = try Pair()
    for flag in [EPOLLET.rawValue, EPOLLONESHOT.rawValue] {
      try epoll.add(pair.ours, flags: EPOLLOUT.rawValue | flag)
      for _ in 0..<3 {
        #expect(epoll.wait() == [Ready(pair.ours, EPOLLOUT)])
        #expect(epoll.wait() == [])
        try epoll.modify(pair.ours, flags: EPOLLOUT.rawValue | flag)
      }
      try epoll.remove(pair.ours)
    }
  }

  @Test func whatNobodyAdoptedIsTheKernels() throws {
    let epoll = try Epoll(adopted: false)
    let pair = try Pair()
    try epoll.add(pair.ours)
    try epoll.prove(pair.ours)
    try epoll.modify(pair.ours, EPOLLOUT)
    #expect(epoll.told(pair.ours) == events(EPOLLOUT))
  }

  @Test func errorsAreTheKernels() throws {
    let epoll = try Epoll()
    let pair = try Pair()
    #expect(throws: Failure(errno: ENOENT)) { try epoll.modify(pair.ours, EPOLLOUT) }
    #expect(throws: Failure(errno: ENOENT)) { try epoll.remove(pair.ours) }
    try epoll.add(pair.ours)
    #expect(throws: Failure(errno: EEXIST)) { try epoll.add(pair.ours) }
    #expect(throws: Failure(errno: EBADF)) { try epoll.add(-1) }
    #expect(epoll_wait(epoll.descriptor, nil, 0, 0) == -1 && errno == EINVAL)
    #expect(epoll_create(0) == -1 && errno == EINVAL)
  }

  /// As a thread of libzmq's with many busy connections: all are answered in their turn, however many wish anew meanwhile.
  @Test func whoWaitsLongestIsAnsweredFirst() throws {
    let epoll = try Epoll()
    let pairs = try epoll.addWishing(400)
    var seen: Set<Int32> = []
    for _ in 0..<60 {
      let answered = epoll.wait(atMost: 16).map(\.descriptor)
      for one in answered { try epoll.modify(one) }
      for one in answered { try epoll.modify(one, EPOLLOUT) }
      seen.formUnion(answered)
    }
    #expect(seen.count == 400)
    withExtendedLifetime(pairs) {}
  }

  /// Otherwise nobody would answer.
  @Test func whoNeverWaitsLikeThisIsTheKernels() throws {
    let epoll = try Epoll(hasWaited: false)
    let pair = try Pair()
    try epoll.add(pair.ours)
    for _ in 0..<2 {
      try epoll.modify(pair.ours, EPOLLOUT)
      #expect(epoll.told(pair.ours) == events(EPOLLOUT))
      try epoll.modify(pair.ours)
    }
  }

  @Test func aThousandChangesOfMindBetweenTwoWaits() throws {
    let epoll = try Epoll()
    let pairs = try (0..<3).map { _ in try Pair() }
    for pair in pairs {
      try epoll.add(pair.ours)
      try epoll.prove(pair.ours)
    }
    try epoll.modify(pairs[2].ours, EPOLLOUT)
    for _ in 0..<1_000 {
      try epoll.modify(pairs[0].ours, EPOLLOUT)
      try epoll.modify(pairs[1].ours, EPOLLOUT)
      try epoll.modify(pairs[0].ours)
      try epoll.modify(pairs[1].ours)
    }
    try epoll.modify(pairs[1].ours, EPOLLOUT)
    #expect(epoll.wait() == [Ready(pairs[2].ours, EPOLLOUT), Ready(pairs[1].ours, EPOLLOUT)])
  }

  /// An instance with the number, and the descriptors, of one that was closed.
  @Test func aNewInstanceKnowsNothingOfAnOldOne() throws {
    for _ in 0..<20 {
      let pair = try Pair()
      do {
        let epoll = try Epoll()
        try epoll.add(pair.ours)
        try epoll.prove(pair.ours)
        try epoll.modify(pair.ours, EPOLLOUT)
      }
      do { _ = try Epoll(adopted: false) }
      let epoll = try Epoll()
      #expect(throws: Failure(errno: ENOENT)) { try epoll.modify(pair.ours, EPOLLOUT) }
      #expect(epoll.wait() == [])
    }
  }

  /// If this fails, the linker prefers the C library's functions, and libzmq does as if all of this were not there.
  @Test func libzmqsThreadsAreAdopted() throws {
    let before = tinysns_epoll_adopted()
    _ = try adoptedContext(ioThreads: 3)
    #expect(tinysns_epoll_adopted() == before + 4)  // its reaper, too
  }

  /// Large messages to those who read slowly, so that writes come back short, many small ones, and connections that come and go.
  @Test(.timeLimit(.minutes(2))) func everythingArrivesOnceAndInOrder() throws {
    let context = try adoptedContext(ioThreads: 2)
    let others = try Context()
    let server = try context.makeSocket(.pub)
    try server.set(.sendHighWaterMark(0))
    let endpoint = try server.bind("tcp://127.0.0.1:*")
    var readers: [Reader] = []
    var numbers = SystemRandomNumberGenerator()
    for round in 0..<6 {
      for _ in 0..<10 {
        readers.append(try Reader(others, of: endpoint))
      }
      // Until all of them get what is sent: what was sent before that is not for them.
      var hello = UInt32(0)
      var arrived = readers.map { _ in UInt32.max }
      let deadline = ContinuousClock.now + .seconds(60)
      while arrived.contains(.max) {
        try #require(ContinuousClock.now < deadline)
        hello += 1
        #expect(try server.send(message(round: 255, hello, count: 0)) == .sent)
        for (index, reader) in readers.enumerated() {
          while let bytes = try reader.next() { arrived[index] = number(of: bytes) }
        }
        usleep(1_000)
      }
      let count = UInt32(300)
      for number in 0..<count {
        let size = number % 50 == 49 ? 200_000 : Int(UInt16.random(in: 0..<2_000, using: &numbers))
        #expect(try server.send(message(round: UInt8(round), number, count: size)) == .sent)
      }
      for reader in readers {
        var expected = UInt32(0)
        while expected < count {
          try reader.wait()
          while let bytes = try reader.next() {
            if bytes[0] == 255 { continue }
            try #require(bytes[0] == UInt8(round) && number(of: bytes) == expected)
            expected += 1
          }
        }
      }
      readers.removeFirst(5)  // whose connections end
    }
  }
}

// MARK: An epoll instance

private struct Failure: Error, Equatable {
  var errno: Int32
}

private struct Ready: Equatable {
  var descriptor: Int32
  var events: UInt32

  init(_ descriptor: Int32, _ event: EPOLL_EVENTS) {
    self.init(descriptor: descriptor, events: event.rawValue)
  }

  init(descriptor: Int32, events: UInt32) {
    self.descriptor = descriptor
    self.events = events
  }
}

private func events(_ events: EPOLL_EVENTS...) -> UInt32 { events.reduce(0) { $0 | $1.rawValue } }

private final class Epoll {
  let descriptor: Int32

  init(adopted: Bool = true, hasWaited: Bool = true) throws {
    tinysns_epoll_adopt(adopted)
    defer { tinysns_epoll_adopt(false) }
    descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    if descriptor < 0 { throw Failure(errno: errno) }
    if hasWaited { _ = wait() }
  }

  deinit { close(descriptor) }

  func add(_ target: Int32, _ events: EPOLL_EVENTS...) throws {
    try add(target, flags: events.reduce(0) { $0 | $1.rawValue })
  }

  func add(_ target: Int32, flags: UInt32) throws { try control(EPOLL_CTL_ADD, target, flags) }

  func modify(_ target: Int32, _ events: EPOLL_EVENTS...) throws {
    try modify(target, flags: events.reduce(0) { $0 | $1.rawValue })
  }

  func modify(_ target: Int32, flags: UInt32) throws { try control(EPOLL_CTL_MOD, target, flags) }

  func remove(_ target: Int32) throws { try control(EPOLL_CTL_DEL, target, 0) }

  /// Has the first wish of a descriptor behind it.
  func prove(_ target: Int32) throws {
    let before = try #require(told(target))
    try modify(target, flags: before | EPOLLOUT.rawValue)
    try modify(target, flags: before)
  }

  /// New connections whose wishes, not their first, are noted.
  func addWishing(_ count: Int) throws -> [Pair] {
    try (0..<count).map { _ in
      let pair = try Pair()
      try add(pair.ours)
      try prove(pair.ours)
      try modify(pair.ours, EPOLLOUT)
      return pair
    }
  }

  func wait(milliseconds: Int32 = 0, atMost count: Int32 = 64) -> [Ready] {
    var events = [epoll_event](repeating: epoll_event(), count: Int(count))
    let ready = epoll_wait(descriptor, &events, count, milliseconds)
    return events.prefix(Int(max(ready, 0))).map { Ready(descriptor: $0.data.fd, events: $0.events) }
  }

  /// What the kernel knows (proc(5), `/proc/pid/fdinfo`), without what it adds by itself; nil: nothing of this descriptor.
  func told(_ target: Int32) -> UInt32? {
    guard let file = fopen("/proc/self/fdinfo/\(descriptor)", "r") else { return nil }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, Int32(line.count), file) != nil {
      let text = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
      let words = text.split(whereSeparator: \.isWhitespace)
      if words.count > 3, words[0] == "tfd:", Int32(words[1]) == target, let events = UInt32(words[3], radix: 16) {
        return events & ~(EPOLLERR.rawValue | EPOLLHUP.rawValue)
      }
    }
    return nil
  }

  private func control(_ operation: Int32, _ target: Int32, _ events: UInt32) throws {
    var event = epoll_event(events: events, data: epoll_data_t(fd: target))
    if epoll_ctl(descriptor, operation, target, &event) != 0 { throw Failure(errno: errno) }
  }
}

/// Two ends of a connection.
private final class Pair {
  let ours: Int32
  private let theirs: Int32

  init() throws {
    var ends: [Int32] = [0, 0]
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
    if socketpair(AF_UNIX, kind, 0, &ends) != 0 { throw Failure(errno: errno) }
    (ours, theirs) = (ends[0], ends[1])
  }

  deinit {
    close(ours)
    close(theirs)
  }

  /// Until nothing more can be written.
  func fill() {
    let bytes = [UInt8](repeating: 0, count: 4_096)
    while write(ours, bytes, bytes.count) > 0 {}
  }

  func drain() {
    var bytes = [UInt8](repeating: 0, count: 65_536)
    while read(theirs, &bytes, bytes.count) > 0 {}
  }

  func theyWrite() { _ = write(theirs, [1], 1) }
}

private func adoptedContext(ioThreads: Int) throws -> Context {
  tinysns_epoll_adopt(true)
  defer { tinysns_epoll_adopt(false) }
  let context = try Context(ioThreads: ioThreads)
  try context.start()
  return context
}

// MARK: Numbered messages

private func message(round: UInt8, _ number: UInt32, count: Int) -> [UInt8] {
  [round] + withUnsafeBytes(of: number) { Array($0) } + [UInt8](repeating: 7, count: count)
}

private func number(of message: [UInt8]) -> UInt32 {
  message[1..<5].reversed().reduce(0) { $0 << 8 | UInt32($1) }
}

private final class Reader {
  private let socket: Socket

  init(_ context: borrowing Context, of endpoint: String) throws {
    socket = try context.makeSocket(.sub)
    try socket.set(.subscribe([]), .receiveHighWaterMark(1))
    try socket.connect(endpoint)
  }

  func next() throws -> [UInt8]? {
    var message = Multipart(maxFrames: 1)
    return try socket.receive(into: &message) == .received ? message.copyFrames()[0] : nil
  }

  func wait() throws {
    var poller = Poller()
    var ready: [ZeroMQ.Ready] = []
    try poller.add(socket, token: 1, interest: .readable)
    try poller.wait(.seconds(20), into: &ready)
    try #require(!ready.isEmpty)
  }
}
