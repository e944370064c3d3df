import Glibc
import Testing
import ZeroMQ

@Suite struct MonitorTests {
  @Test func tellsOfConnectHandshakeAndDisconnect() throws {
    let context = try Context()
    let dealer = try context.makeSocket(.dealer)
    let monitor = try dealer.makeMonitor()
    do {
      let router = try context.makeSocket(.router)
      let routerMonitor = try router.makeMonitor()
      let address = try router.bind("tcp://127.0.0.1:*")
      try dealer.connect(address)
      let up = try events(of: monitor) { $0 == .handshakeSucceeded }
      #expect(up.map(\.kind).filter { $0 != .connectDelayed } == [.connected, .handshakeSucceeded])
      #expect(up.allSatisfy { $0.endpoint == address })
      let served = try events(of: routerMonitor) { $0 == .handshakeSucceeded }
      #expect(served.map(\.kind) == [.listening, .accepted, .handshakeSucceeded])
    }
    let down = try events(of: monitor) {
      if case .connectRetried = $0 { true } else { false }
    }
    #expect(down.map(\.kind).contains(.disconnected))
  }

  @Test func tellsWhenNobodyListens() throws {
    let context = try Context()
    let dealer = try context.makeSocket(.dealer)
    try dealer.set(.reconnect(every: .milliseconds(5), atMost: .milliseconds(10)))
    let monitor = try dealer.makeMonitor()
    try dealer.connect("tcp://127.0.0.1:1")
    let events = try events(of: monitor) { if case .connectRetried = $0 { true } else { false } }
    #expect(events.map(\.kind).contains(.closed))
  }

  @Test func tellsOfAPeerThatSpeaksSomethingElse() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    let monitor = try router.makeMonitor()
    let port = try #require(UInt16(router.bind("tcp://127.0.0.1:*").split(separator: ":").last!))
    let descriptor = try connectTCP(port)
    defer { close(descriptor) }
    // A ZMTP 3.0 greeting that asks for CURVE, of a server without it.
    var greeting = [UInt8](repeating: 0, count: 64)
    greeting[0] = 0xFF
    greeting[9] = 0x7F
    greeting[10] = 3
    greeting.replaceSubrange(12..<17, with: bytes("CURVE"))
    #expect(write(descriptor, greeting, greeting.count) == greeting.count)
    let events = try events(of: monitor) {
      switch $0 {
      case .handshakeFailedProtocol, .handshakeFailedNoDetail, .disconnected: true
      default: false
      }
    }
    #expect(events.last?.kind == .handshakeFailedProtocol(code: 0x1100_0002))  // mechanism mismatch
  }

  @Test func limitsTheHandshake() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    try router.set(.handshakeInterval(.milliseconds(50)))
    let monitor = try router.makeMonitor()
    let port = try #require(UInt16(router.bind("tcp://127.0.0.1:*").split(separator: ":").last!))
    let descriptor = try connectTCP(port)  // and says nothing
    defer { close(descriptor) }
    _ = try events(of: monitor) { if case .handshakeFailedNoDetail = $0 { true } else { false } }
  }

  @Test func endsWithItsSocket() throws {
    func orphan(_ context: borrowing Context) throws -> Monitor {
      let socket = try context.makeSocket(.router)
      return try socket.makeMonitor()
    }
    let context = try Context()
    let monitor = try orphan(context)
    let events = try events(of: monitor) { $0 == .monitorStopped }
    #expect(events.count == 1)
    #expect(try monitor.next() == nil)
  }

  /// A monitor whose reader has gone would block libzmq's I/O thread; one that is full, too.
  @Test func mayEndBeforeItsSocketAndStartAgain() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    let address = try router.bind("tcp://127.0.0.1:*")
    for _ in 0..<50 {
      let monitor = try router.makeMonitor()
      do {
        _ = try router.makeMonitor()
        Issue.record("a second monitor")
      } catch { #expect(error == ZMQError(code: EBUSY, call: "zmq_socket_monitor")) }
      let dealer = try context.makeSocket(.dealer)
      try dealer.connect(address)
      #expect(try dealer.send([1]) == .sent)
      #expect(try receive(router).count == 2)
      _ = monitor.socket.kind
    }
  }

  @Test func neverHoldsUpTheSocketWhenNobodyReadsIt() throws {
    let context = try Context()
    let router = try context.makeSocket(.router)
    try router.set(.backlog(4096))
    let monitor = try router.makeMonitor()
    let port = try #require(UInt16(router.bind("tcp://127.0.0.1:*").split(separator: ":").last!))
    for _ in 0..<1500 { close(try connectTCP(port)) }  // three events each, against a default mark of 1000
    let dealer = try context.makeSocket(.dealer)
    try dealer.connect("tcp://127.0.0.1:\(port)")
    #expect(try dealer.send([1]) == .sent)
    #expect(try receive(router).count == 2)
    var count = 0
    while try monitor.next() != nil { count += 1 }
    #expect(count > 2000)
  }
}

/// A plain TCP connection to a port of this machine.
private func connectTCP(_ port: UInt16) throws -> Int32 {
  let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
  let code = withUnsafePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
    }
  }
  try #require(descriptor >= 0 && code == 0)
  return descriptor
}
