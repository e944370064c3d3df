// A session's connections, at one master after the other. The masters are sockets that say what the test wants.

import Glibc
import Model
import Testing
import Wire
import ZeroMQ

@testable import TinySNSClient

@Suite struct MasterLinkTests {
  private let topic = Topic(high: 1, low: 2)
  /// Too long for a name, so that no server is asked for it.
  private let noName = "tcp://\(String(repeating: "a", count: 64)):1"

  @Test("a link goes from master to master, and is told once of each loss")
  func masterAfterMaster() throws {
    let context = try Context()
    let link = try MasterLink(in: context)
    for round in 1...30 as ClosedRange<UInt64> {
      let master = try Master(context)
      try link.connect(master.contact, nil)
      try link.subscribe(topic)
      try link.send(Request(number: round, body: .ping))
      #expect(try master.hears().number == round)
      #expect(try master.subscription() == Wire.encodeSubscription(true, topic: topic))
      try master.publish(topic, round)
      #expect(try update(at: link)?.sequence == round)
      // What libzmq told of the last master is over by now, or passed over: this one is well.
      #expect(try !link.findLoss())
      #expect(!link.isLost)
      master.close()
      try loses(link)
      #expect(link.leave())
      #expect(link.leave(), "by whom it has been left already")
    }
  }

  @Test("nothing of a former master is heard at the next one, and its topics are not asked for there")
  func nothingIsTakenAlong() throws {
    let context = try Context()
    let link = try MasterLink(in: context)
    let first = try Master(context)
    try link.connect(first.contact, nil)
    try link.subscribe(topic)
    _ = try first.subscription()
    for sequence in 1...3 as ClosedRange<UInt64> { try first.publish(topic, sequence) }
    // Asked whether there is something, libzmq takes the first one out of the queue.
    try waitFor(link.updates)
    first.close()
    try loses(link)
    #expect(link.leave())

    let second = try Master(context)
    let other = Topic(high: 3, low: 4)
    try link.connect(second.contact, nil)
    try link.subscribe(other)
    #expect(try second.subscription() == Wire.encodeSubscription(true, topic: other))
    try second.publish(topic, 4)
    try second.publish(other, 1)
    #expect(try update(at: link) == Update(topic: other, sequence: 1, posts: []))
  }

  @Test("a master that says more than it should, and is gone in the middle of it")
  func messageHalfRead() throws {
    let context = try Context()
    let link = try MasterLink(in: context)
    let first = try Master(context)
    try link.connect(first.contact, nil)
    try link.send(Request(number: 1, body: .ping))
    _ = try first.hears()
    try first.say(["one", "two", "three"])
    try waitFor(link.requests)
    var message = Message()
    #expect(try link.receiveReply(into: &message))
    first.close()
    try loses(link)
    #expect(link.leave())

    let second = try Master(context)
    try link.connect(second.contact, nil)
    try link.send(Request(number: 2, body: .ping))
    _ = try second.hears()
    try second.say(["four"])
    try waitFor(link.requests)
    #expect(try link.receiveReply(into: &message))
    #expect(message.copyBytes() == Array("four".utf8))
  }

  @Test("a topic that was subscribed twice ends with the first word")
  func subscribedTwice() throws {
    let context = try Context()
    let link = try MasterLink(in: context)
    let master = try Master(context)
    try link.connect(master.contact, nil)
    try link.subscribe(topic)
    try link.subscribe(topic)
    try link.unsubscribe(topic)
    try link.unsubscribe(topic)
    try link.subscribe(topic)
    #expect(try master.subscription() == Wire.encodeSubscription(true, topic: topic))
    #expect(try master.subscription() == Wire.encodeSubscription(false, topic: topic))
    #expect(try master.subscription() == Wire.encodeSubscription(true, topic: topic))
  }

  @Test("a master that closes its requests' side only is left as well")
  func requestsAlone() throws {
    let context = try Context()
    let link = try MasterLink(in: context)
    let first = try Master(context)
    try link.connect(first.contact, nil)
    try link.subscribe(topic)
    _ = try first.subscription()
    first.closeRequests()
    try loses(link)
    try first.publish(topic, 1)
    #expect(link.leave())
    try first.publish(topic, 2)

    let second = try Master(context)
    try link.connect(second.contact, nil)
    try link.subscribe(topic)
    _ = try second.subscription()
    try first.publish(topic, 3)
    try second.publish(topic, 9)
    #expect(try update(at: link)?.sequence == 9)
  }

  @Test("whoever can't be connected to is lost: a port where nobody listens, a name that nobody has")
  func nobodyThere() throws {
    let context = try Context()
    let link = try MasterLink(in: context)
    let port = try TCPPort()
    for endpoint in [port.endpoint, port.endpoint, noName, noName, port.endpoint, noName] {
      try link.connect(contact(endpoint), nil)
      try loses(link)
      #expect(link.leave())
    }
    try serves(link, try Master(context))
  }

  @Test("a peer that hangs up in the handshake is lost, and so is one whose message is too long")
  func failures() throws {
    let context = try Context()
    let link = try MasterLink(in: context)
    let port = try TCPPort()
    try port.listen()
    for _ in 1...3 {
      try link.connect(contact(port.endpoint), nil)
      try port.accept(andSay: [])
      try loses(link)
      #expect(link.leave())
    }
    // libzmq tells that it is over, and does not tell that it would try again. That must not be waited for.
    let master = try Master(context)
    try link.connect(master.contact, nil)
    try link.send(Request(number: 1, body: .ping))
    _ = try master.hears()
    try master.say([String(repeating: "x", count: Limits.messageBytes + 1)])
    try loses(link)
    #expect(link.leave())
    try link.connect(contact(noName), nil)
    try loses(link)
    #expect(link.leave())
    try serves(link, try Master(context))
  }

  @Test("a link is not used again after a master that it was not told is lost, nor after a peer that is no master")
  func notUsedAgain() throws {
    let context = try Context()
    let master = try Master(context)
    let link = try MasterLink(in: context)
    try serves(link, master)
    #expect(!link.leave())

    let port = try TCPPort()
    try port.listen()
    let stranger = try MasterLink(in: context)
    try stranger.connect(contact(port.endpoint), nil)
    let mechanism = Array("NOSUCH".utf8)
    try port.accept(
      andSay: [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 0] + mechanism + Array(repeating: 0, count: 52 - mechanism.count))
    try loses(stranger)
    #expect(!stranger.leave())
  }

  // MARK: What a link sees

  private func contact(_ requests: String) -> MasterContact {
    MasterContact(
      master: MasterIdentity(name: "master-1", incarnation: Incarnation(1)), requests: requests,
      timelines: "tcp://127.0.0.1:1")
  }

  /// Connects, and finds that the master hears what is sent, and that all is well.
  private func serves(_ link: MasterLink, _ master: Master) throws {
    try link.connect(master.contact, nil)
    try link.send(Request(number: 77, body: .ping))
    #expect(try master.hears().number == 77)
    #expect(try !link.findLoss())
    #expect(!link.isLost)
  }

  private func update(at link: MasterLink) throws -> Update? {
    try waitFor(link.updates)
    var frames = Multipart(maxFrames: 2)
    guard try link.receiveUpdate(into: &frames) else { return nil }
    let copies = frames.copyFrames()
    return try Wire.decodeUpdate(header: copies[0], body: copies[1])
  }

  /// Waits until the link finds its master lost.
  private func loses(_ link: MasterLink) throws {
    repeat { try waitFor(link.monitor.socket) } while try !link.findLoss()
    #expect(link.isLost)
  }
}

/// A ROUTER for requests, and an XPUB for updates.
private final class Master {
  private var requests: SocketBox?
  private var updates: SocketBox?
  private var peer: [UInt8] = []
  let contact: MasterContact

  init(_ context: borrowing Context) throws {
    let requests = try context.makeSocket(.router)
    let updates = try context.makeSocket(.xpub)
    contact = MasterContact(
      master: MasterIdentity(name: "master-1", incarnation: Incarnation(1)),
      requests: try requests.bind("tcp://127.0.0.1:*"), timelines: try updates.bind("tcp://127.0.0.1:*"))
    self.requests = SocketBox(requests)
    self.updates = SocketBox(updates)
  }

  func close() {
    requests = nil
    updates = nil
  }

  func closeRequests() { requests = nil }

  func hears() throws -> Request {
    let frames = try nextFrames(of: #require(requests).socket)
    peer = frames[0]
    return try Wire.decodeRequest(frames[1])
  }

  /// Says this to whom it heard last, a frame each.
  func say(_ words: [String]) throws {
    #expect(try requests?.socket.send(frames: [peer] + words.map { Array($0.utf8) }) == .sent)
  }

  /// What the next subscription, or its end, says.
  func subscription() throws -> [UInt8] { try nextFrames(of: #require(updates).socket)[0] }

  func publish(_ topic: Topic, _ sequence: UInt64) throws {
    let header = Wire.encodeUpdateHeader(topic: topic, sequence: sequence)
    #expect(try updates?.socket.send(frames: [header, []]) == .sent)
  }
}

/// A port of this machine's, taken as long as this lives.
private final class TCPPort {
  private let descriptor: Int32
  let endpoint: String

  init() throws {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr = in_addr(s_addr: UInt32(0x7F00_0001).bigEndian)
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let (descriptor, length) = (descriptor, size)
    let isBound = withUnsafeMutablePointer(to: &address) { address in
      address.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &size) == 0
      }
    }
    try #require(isBound)
    endpoint = "tcp://127.0.0.1:\(UInt16(bigEndian: address.sin_port))"
  }

  deinit { Glibc.close(descriptor) }

  func listen() throws { try #require(Glibc.listen(descriptor, 4) == 0) }

  /// Takes the next connection, says this once the other side has said something, and hangs up.
  func accept(andSay bytes: [UInt8]) throws {
    var limit = timeval(tv_sec: Int(patience.components.seconds), tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    let connection = Glibc.accept(descriptor, nil, nil)
    try #require(connection >= 0)
    defer { Glibc.close(connection) }
    var greeting: UInt8 = 0
    try #require(read(connection, &greeting, 1) == 1 && write(connection, bytes, bytes.count) == bytes.count)
  }
}
