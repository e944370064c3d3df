import Foundation
import Glibc
import Testing
import ZeroMQ

@Suite struct SocketTests {
  @Test(arguments: ["tcp", "ipc", "inproc"]) func asksAndAnswers(transport: String) throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    let dealer = try context.makeSocket(.dealer)
    let address = try router.bind(endpoint(transport))
    #expect(!address.contains("*"))
    try dealer.connect(address)
    #expect(try dealer.send(frames: [bytes("ask"), pattern(100)]) == .sent)

    let request = try receive(router)
    #expect(request.count == 3)
    #expect(request[1...] == [bytes("ask"), pattern(100)])
    #expect(try router.send(frames: [request[0], bytes("answer")]) == .sent)
    #expect(try receive(dealer) == [bytes("answer")])
  }

  @Test func aFullQueueWouldBlock() throws {
    let context = try Context()
    let left = try context.makeSocket(.dealer)
    let right = try context.makeSocket(.dealer)
    try left.set(.sendHighWaterMark(5))
    try right.set(.receiveHighWaterMark(5))
    try right.bind("inproc://full")
    try left.connect("inproc://full")
    var sent = 0
    while try left.send([1]) == .sent { sent += 1 }
    #expect(sent == 10)  // within a process the two marks add up
    #expect(try left.send([1]) == .wouldBlock)
    #expect(try !left.events.contains(.writable))
    for _ in 0..<10 { #expect(try receive(right) == [[1]]) }
    try wait(for: .writable, on: left)
    #expect(try left.send([1]) == .sent)
  }

  @Test func anUnknownPeerIsUnroutable() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    try router.bind("tcp://127.0.0.1:*")
    #expect(try router.send(frames: [bytes("nobody"), bytes("hello")]) == .sent)  // dropped
    try router.set(.routerMandatory(true))
    #expect(try router.send(frames: [bytes("nobody"), bytes("hello")]) == .unroutable)
  }

  @Test func aDeadPeerIsUnroutable() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    try router.set(.routerMandatory(true))
    let monitor = try router.makeMonitor()
    let address = try router.bind("tcp://127.0.0.1:*")
    var peer: [UInt8] = []
    do {
      let dealer = try context.makeSocket(.dealer)
      try dealer.set(.routingID(bytes("mortal")))
      try dealer.connect(address)
      #expect(try dealer.send([1]) == .sent)
      peer = try receive(router)[0]
      #expect(peer == bytes("mortal"))
      #expect(try router.send(frames: [peer, [2]]) == .sent)
    }
    _ = try events(of: monitor) { $0 == .disconnected }
    // The monitor hears of it a moment before the router does, and the router takes note when it is polled.
    let end = ContinuousClock.now + patience
    var result = SendResult.sent
    while result != .unroutable, ContinuousClock.now < end {
      _ = try router.events
      result = try router.send(frames: [peer, [3]])
    }
    #expect(result == .unroutable)
  }

  @Test func publishesWhatIsSubscribed() throws {
    let context = try Context()
    let publisher = try context.makeSocket(.xpub)
    try publisher.set(.xpubVerbose(true), .receiveHighWaterMark(0))
    let address = try publisher.bind("tcp://127.0.0.1:*")
    let first = try context.makeSocket(.sub)
    let second = try context.makeSocket(.sub)
    for subscriber in 0..<2 {
      if subscriber == 0 {
        try first.connect(address)
        try first.set(.subscribe(bytes("topic")))
      } else {
        try second.connect(address)
        try second.set(.subscribe(bytes("topic")))
      }
      #expect(try receive(publisher) == [[1] + bytes("topic")])  // verbose: the second subscription as well
    }
    #expect(try publisher.send(bytes("other")) == .sent)
    #expect(try publisher.send(frames: [bytes("topic|1"), bytes("post")]) == .sent)
    #expect(try receive(first) == [bytes("topic|1"), bytes("post")])
    #expect(try receive(second) == [bytes("topic|1"), bytes("post")])

    try first.set(.unsubscribe(bytes("topic")))
    try second.set(.unsubscribe(bytes("topic")))
    #expect(try receive(publisher) == [[0] + bytes("topic")])  // only the last one is told
  }

  @Test func disconnectsAndUnbinds() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    let dealer = try context.makeSocket(.dealer)
    let address = try router.bind("tcp://127.0.0.1:*")
    try dealer.connect(address)
    try dealer.disconnect(address)
    #expect(throws: ZMQError(code: ENOENT, call: "zmq_disconnect")) { try dealer.disconnect(address) }
    try router.unbind(address)
    #expect(throws: ZMQError(code: ENOENT, call: "zmq_unbind")) { try router.unbind(address) }
  }

  @Test func errorsNameTheCall() throws {
    let context = try Context()
    let one = try context.makeSocket(.router)
    let two = try context.makeSocket(.router)
    let address = try one.bind("tcp://127.0.0.1:*")
    #expect(throws: ZMQError(code: EADDRINUSE, call: "zmq_bind")) { try two.bind(address) }
    #expect(throws: ZMQError(code: EINVAL, call: "zmq_connect")) { try two.connect("nonsense") }
    #expect(throws: ZMQError.self) { try two.set(.subscribe([1])) }
    #expect(throws: ZMQError.self) { try two.set(.routingID([])) }
    #expect(throws: ZMQError.self) { try two.set(.sendHighWaterMark(Int.max)) }
    #expect("\(ZMQError(code: EADDRINUSE, call: "zmq_bind"))" == "zmq_bind: Address already in use (98)")
    let publisher = try context.makeSocket(.pub)
    var message = Message()
    do {
      _ = try publisher.receive(into: &message)
      Issue.record("a pub received something")
    } catch {
      #expect(error.code == ENOTSUP)
    }
  }

  @Test func takesAllOptions() throws {
    let context = try Context()
    let socket = try context.makeSocket(.router)
    try socket.set(
      .linger(.milliseconds(10)), .sendHighWaterMark(10), .receiveHighWaterMark(10), .maxMessageSize(1000),
      .backlog(1000), .ipv6(false), .immediate(true), .routerMandatory(true), .routerHandover(false),
      .routingID([1, 2, 3]), .handshakeInterval(.seconds(1)), .connectTimeout(.seconds(1)),
      .heartbeat(interval: .milliseconds(100), timeout: .milliseconds(500), timeToLive: .seconds(1)),
      .reconnect(every: .milliseconds(10), atMost: .milliseconds(100)),
      .tcpKeepalive(idle: .seconds(1), interval: .seconds(1), probes: 3), .zapDomain("test"))
    #expect(try socket.fileDescriptor >= 0)
    #expect(try socket.events == [])
  }

  @Test func refusesLongFrames() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    try router.set(.maxMessageSize(100))
    let monitor = try router.makeMonitor()
    let dealer = try context.makeSocket(.dealer)
    try dealer.connect(router.bind("tcp://127.0.0.1:*"))
    #expect(try dealer.send(pattern(100)) == .sent)
    #expect(try receive(router)[1] == pattern(100))
    #expect(try dealer.send(pattern(101)) == .sent)
    _ = try events(of: monitor) { $0 == .disconnected }
  }

  @Test func livesInArrays() throws {
    final class Shell {  // the context first: it is destroyed first, and must wait for nobody
      let context: Context
      let router: Socket
      var dealers: [SocketBox] = []

      init() throws {
        context = try Context(maxSockets: 5000)
        router = try context.makeSocket(.router)
        let address = try router.bind("inproc://array")
        for _ in 0..<1100 {  // more than libzmq's default of 1023
          dealers.append(SocketBox(try context.makeSocket(.dealer)))
          try dealers.last!.socket.connect(address)
        }
      }
    }
    let shell = try Shell()
    for (index, dealer) in shell.dealers.enumerated() {
      #expect(try dealer.socket.send(bytes("\(index)")) == .sent)
    }
    let received = try (0..<1100).map { _ in try receive(shell.router)[1] }
    #expect(Set(received) == Set((0..<1100).map { bytes("\($0)") }))
  }

  /// Other tests of the process run meanwhile, with descriptors of their own: files, pipes, sockets. So this one looks only at what libzmq makes:
  /// sockets that have to do with its own port, eventfds, epoll.
  @Test func leavesNoDescriptorToChildren() throws {
    let context = try Context()
    let before = Descriptors()
    let router = try context.makeSocket(.router)
    let dealer = try context.makeSocket(.dealer)
    let address = try router.bind("tcp://127.0.0.1:*")
    try dealer.connect(address)
    #expect(try dealer.send([1]) == .sent)
    _ = try receive(router)

    let now = Descriptors()
    let port = try #require(address.split(separator: ":").last.flatMap { UInt16($0) })
    let sockets = now.sockets.filter { ports(of: $0).contains(port) }
    #expect(sockets.count == 3)  // a listener, both ends of a connection
    let mailboxes = Set([try router.fileDescriptor, try dealer.fileDescriptor])
    #expect(mailboxes.isSubset(of: now.events))
    // And those of the context's threads, which start with its first socket.
    let events = mailboxes.union(now.events.subtracting(before.events))
    for descriptor in sockets.union(events).union(now.polls.subtracting(before.polls)) {
      let flags = fcntl(descriptor, F_GETFD)
      #expect(flags < 0 || flags & FD_CLOEXEC != 0, "descriptor \(descriptor)")  // < 0: another test has closed it
    }
  }
}

/// The descriptors of this process that are of the kinds that libzmq makes.
private struct Descriptors {
  var sockets: Set<Int32> = []
  var events: Set<Int32> = []
  var polls: Set<Int32> = []

  init() {
    guard let folder = opendir("/proc/self/fd") else { return }
    defer { closedir(folder) }
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      guard let descriptor = Int32(name) else { continue }  // . and ..
      var target = [UInt8](repeating: 0, count: 64)
      let count = target.withUnsafeMutableBytes {
        readlink("/proc/self/fd/\(name)", $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
      }
      let kind = String(decoding: target.prefix(max(count, 0)), as: UTF8.self)
      switch kind {
      case "anon_inode:[eventfd]": events.insert(descriptor)
      case "anon_inode:[eventpoll]": polls.insert(descriptor)
      default: if kind.hasPrefix("socket:") { sockets.insert(descriptor) }
      }
    }
  }
}

/// The ports of both ends of an IPv4 socket, as far as it has any.
private func ports(of descriptor: Int32) -> [UInt16] {
  [getsockname, getpeername].compactMap { ask in
    var address = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let code = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { ask(descriptor, $0, &size) }
    }
    return code == 0 && address.sin_family == sa_family_t(AF_INET) ? UInt16(bigEndian: address.sin_port) : nil
  }
}

@Suite struct ContextTests {
  @Test func limitsItsSockets() throws {
    let context = try Context(maxSockets: 2)
    let one = try context.makeSocket(.pair)
    let two = try context.makeSocket(.pair)
    do {
      _ = try context.makeSocket(.pair)
      Issue.record("a third socket")
    } catch {
      #expect(error == ZMQError(code: EMFILE, call: "zmq_socket"))
    }
    _ = (one.kind, two.kind)
    #expect(throws: ZMQError.self) { _ = try Context(ioThreads: -1) }
  }

  @Test func mayGoBeforeItsSockets() throws {
    func orphan() throws -> Socket {
      let context = try Context()
      return try context.makeSocket(.router)
    }
    let socket = try orphan()
    #expect(try socket.bind("tcp://127.0.0.1:*").hasPrefix("tcp://127.0.0.1:"))
  }

  @Test func shutdownEndsItsSockets() throws {
    let context = try Context()
    let socket = try context.makeSocket(.dealer)
    var poller = Poller()
    var scalable = try EpollPoller()
    try poller.add(socket, token: 1, interest: .readable)
    try scalable.add(socket, token: 1, interest: .readable)
    try context.shutdown()
    var ready: [Ready] = []
    var message = Message()
    do {
      _ = try socket.receive(into: &message)
      Issue.record("received")
    } catch { #expect(error.isTerminated) }
    do {
      try poller.wait(nil, into: &ready)
      Issue.record("waited")
    } catch { #expect(error.isTerminated) }
    do {
      try scalable.wait(nil, into: &ready)
      Issue.record("waited")
    } catch { #expect(error.isTerminated) }
    do {
      _ = try context.makeSocket(.pair)
      Issue.record("opened a socket")
    } catch { #expect(error.isTerminated) }
  }

  @Test func isSharedByThreads() throws {
    let shared = try SharedContext()
    let receiver = try shared.context.makeSocket(.pair)
    try receiver.bind("inproc://threads")
    let thread = OtherThread {
      let sender = try shared.context.makeSocket(.pair)
      try sender.connect("inproc://threads")
      #expect(try sender.send(bytes("from another thread")) == .sent)
    }
    #expect(try receive(receiver) == [bytes("from another thread")])
    try thread.join()
  }

  @Test func someThreadsGiveWay() throws {
    let context = try Context(ioThreads: 3)
    let socket = try context.makeSocket(.pair)
    // Each call waits for their names, but not for long.
    let deadline = ContinuousClock.now + patience
    while !context.lowerPriority(ofThreads: 0b001, by: 0) || !context.lowerPriority(ofThreads: 0b110, by: 5) {
      try #require(ContinuousClock.now < deadline)
    }
    let isNoneFound = !context.lowerPriority(ofThreads: 1 << 40, by: 5)
    #expect(isNoneFound)
    // Other tests' threads come and go.
    var values: [String: Set<Int32>] = [:]
    for task in try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task") {
      guard let name = try? String(contentsOfFile: "/proc/self/task/\(task)/comm", encoding: .utf8) else { continue }
      errno = 0
      let value = getpriority(__priority_which_t(PRIO_PROCESS.rawValue), id_t(task)!)
      if errno == 0 { values[name, default: []].insert(value) }
    }
    let own = getpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0)
    #expect(values["ZMQbg/IO/0\n"] == [own])
    for name in ["ZMQbg/IO/1\n", "ZMQbg/IO/2\n"] { #expect(values[name]?.contains(min(own + 5, 19)) == true) }
    _ = consume socket
  }
}
