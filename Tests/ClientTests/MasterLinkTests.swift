// A session's connections, at one master after the other. The masters are sockets that say what the test wants.

import Glibc
import Model
import Testing
import Wire
import ZeroMQ

@testable import TinySNSClient

@Suite struct MasterLinkTests {
  private let topic = Topic(high: 1, low: 2)

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
      #expect(try !link.findLoss())
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
    #expect(try nextUpdate(at: link) == nil)

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

  @Test("who can't be connected to is lost as well")
  func nobodyListens() throws {
    let context = try Context()
    let link = try MasterLink(in: context)
    let gone = try Master(context)
    gone.close()
    for _ in 0..<10 {
      try link.connect(gone.contact, nil)
      try loses(link)
      #expect(link.leave())
    }
    let master = try Master(context)
    try link.connect(master.contact, nil)
    try link.send(Request(number: 1, body: .ping))
    #expect(try master.hears().number == 1)
    #expect(try !link.findLoss())
  }

  @Test("a link is not used again after a master that may still speak, nor after one that is none")
  func notUsedAgain() throws {
    let context = try Context()
    let master = try Master(context)
    let link = try MasterLink(in: context)
    try link.connect(master.contact, nil)
    #expect(!link.leave())

    // No ZeroMQ: the shortest greeting that is wrong.
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { Glibc.close(listener) }
    try #require(listen(listener, 1) == 0)
    var address = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isNamed = withUnsafeMutablePointer(to: &address) { address in
      address.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(listener, $0, &size) }
    }
    try #require(isNamed == 0)
    let stranger = try MasterLink(in: context)
    let endpoint = "tcp://127.0.0.1:\(UInt16(bigEndian: address.sin_port))"
    try stranger.connect(
      MasterContact(master: master.contact.master, requests: endpoint, timelines: master.contact.timelines), nil)
    let connection = accept(listener, nil, nil)
    try #require(connection >= 0)
    defer { Glibc.close(connection) }
    let greeting = [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 0] + Array("NOSUCH".utf8) + Array(repeating: 0, count: 46)
    try #require(write(connection, greeting, greeting.count) == greeting.count)
    try loses(stranger)
    #expect(!stranger.leave())
  }

  // MARK: What a link sees

  private func waitFor(_ socket: borrowing Socket) throws {
    var poller = Poller()
    var ready: [Ready] = []
    try poller.add(socket, token: 1, interest: .readable)
    try poller.wait(patience, into: &ready)
    try #require(!ready.isEmpty)
  }

  private func update(at link: MasterLink) throws -> Update? {
    try waitFor(link.updates)
    return try nextUpdate(at: link)
  }

  private func nextUpdate(at link: MasterLink) throws -> Update? {
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

  func hears() throws -> Request {
    let frames = try next(of: try #require(requests))
    peer = frames[0]
    return try Wire.decodeRequest(frames[1])
  }

  /// Says this to whom it heard last, a frame each.
  func say(_ words: [String]) throws {
    #expect(try requests?.socket.send(frames: [peer] + words.map { Array($0.utf8) }) == .sent)
  }

  /// What the next subscription, or its end, says.
  func subscription() throws -> [UInt8] { try next(of: try #require(updates))[0] }

  func publish(_ topic: Topic, _ sequence: UInt64) throws {
    let header = Wire.encodeUpdateHeader(topic: topic, sequence: sequence)
    #expect(try updates?.socket.send(frames: [header, []]) == .sent)
  }

  private func next(of box: SocketBox) throws -> [[UInt8]] {
    var poller = Poller()
    var ready: [Ready] = []
    try poller.add(box.socket, token: 1, interest: .readable)
    try poller.wait(patience, into: &ready)
    var frames = Multipart(maxFrames: 2)
    try #require(try box.socket.receive(into: &frames) == .received)
    return frames.copyFrames()
  }
}
