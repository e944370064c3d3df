// The client library's loop, with a router and a master that say what the test wants.

import Core
import Model
import Runtime
import Testing
import Wire
import ZeroMQ

@testable import TinySNSClient

@Suite struct ClientLoopTests {
  /// What the loop's thread tells the test.
  private enum Report: Equatable {
    case noted(ClientNote)
    case ended(ClientOutcome)
    /// From here on it waits until the monitor knows that the connection has ended.
    case waits
  }

  /// An acknowledgement, a Goodbye and the connection's end are all there when the loop looks; and it looks at the monitor first, as it
  /// does when the poller asks the one socket just before they come, and the other just after.
  @Test("what a master said before the connection ended is heard")
  func lastWords() throws {
    let context = try Context()
    let router = try Server(context)
    var master: Server? = try Server(context)
    let reports = Mailbox<Report>()
    let loop = try ClientLoop()
    defer { loop.close() }

    loop.perform { [address = router.address] state in
      let handlers = SessionHandlers(note: { reports.put(.noted($0)) })
      let id = state.open(patientCore(), router: address, serverKey: nil, handlers: handlers)
      let session = state.session(id)!
      let token = session.makeToken()
      session.finishes[token] = { reports.put(.ended($0)) }
      let now = Clock.now()
      session.core.submit(
        .post(text: "hello"), token: token, deadline: now + .seconds(100), at: now, into: &session.actions)
      state.settle(id, session)
    }
    _ = try welcome(to: master!, router)
    let post = try master!.hear(Wire.decodeRequest)
    #expect(post.message.body == .post(text: "hello"))

    loop.perform { state in
      reports.put(.waits)
      guard let link = state.session(0)?.master else { return }
      var poller = Poller()
      var ready: [Ready] = []
      try? poller.add(link.monitor.socket, token: 1, interest: .readable)
      try? poller.wait(patience, into: &ready)
      // Used now, it is the first that the loop's poller asks.
      _ = try? link.monitor.socket.hasMessage
    }
    #expect(next(2, of: reports) == [.noted(.serving(master: "master-1", isNew: false, pause: nil)), .waits])
    try master!.say(Wire.encode(Reply(number: post.message.number, body: .done(EventID(7)))), to: post.peer)
    try master!.say(Wire.encode(Reply(number: 0, body: .goodbye)), to: post.peer)
    master = nil

    #expect(
      next(2, of: reports) == [.ended(.reply(.done(EventID(7)))), .noted(.lost(master: "master-1", .goodbye))])
    let locate = try #require(try router.hear(Wire.decodeRouterRequest).message.locate)
    #expect(locate.suspect == nil)
  }

  /// Links that must not be freed: others would take their place in memory. For the loop's thread.
  private final class Kept: @unchecked Sendable {
    var links: [MasterLink] = []
  }

  @Test("a session takes its sockets along from a master that is lost, and not from one that it leaves")
  func sockets() throws {
    let context = try Context()
    let router = try Server(context)
    let links = Mailbox<ObjectIdentifier?>()
    let kept = Kept()
    let loop = try ClientLoop()
    defer { loop.close() }
    loop.perform { [address = router.address] state in
      _ = state.open(patientCore(), router: address, serverKey: nil, handlers: SessionHandlers())
    }
    /// The link of a session that says Hello to a master, which is welcome.
    func link(at master: Server) throws -> (link: ObjectIdentifier, peer: [UInt8]) {
      let peer = try welcome(to: master, router)
      loop.perform { state in
        let link = state.session(0)?.master
        if let link { kept.links.append(link) }
        links.put(link.map { ObjectIdentifier($0) })
      }
      let found = try #require(links.takeAll(waitingAtMost: Int(patience.components.seconds) * 1_000)?.first)
      return (try #require(found), peer)
    }
    var first: Server? = try Server(context)
    let old = try link(at: first!).link
    first = nil
    let second = try Server(context)
    let (same, peer) = try link(at: second)
    #expect(same == old)
    try second.say(Wire.encode(Reply(number: 0, body: .goodbye)), to: peer)
    #expect(try link(at: Server(context)).link != old)
  }

  /// Names the master to the session that asks, and welcomes it there; the session's name at the master.
  private func welcome(to master: Server, _ router: Server) throws -> [UInt8] {
    let identity = MasterIdentity(name: "master-1", incarnation: Incarnation(1))
    let contact = MasterContact(master: identity, requests: master.address, timelines: "tcp://127.0.0.1:1")
    let question = try router.hear(Wire.decodeRouterRequest)
    let number = try #require(question.message.locate?.number)
    try router.say(Wire.encode(RouterReply.located(number: number, contact)), to: question.peer)
    let hello = try master.hear(Wire.decodeRequest)
    let welcome = Welcome(master: identity, account: AccountID(0), isNew: false, head: EventID(6))
    try master.say(Wire.encode(Reply(number: hello.message.number, body: .welcome(welcome))), to: hello.peer)
    return hello.peer
  }

  /// The next so many reports; fewer, if no more come.
  private func next(_ count: Int, of reports: Mailbox<Report>) -> [Report] {
    var found: [Report] = []
    let milliseconds = Int(patience.components.seconds) * 1_000
    while found.count < count, let more = reports.takeAll(waitingAtMost: milliseconds), !more.isEmpty { found += more }
    return found
  }
}

/// Patient: no timer wakes the loop, and no ping is on its way when the master goes.
private func patientCore() -> ClientCore {
  ClientCore(
    user: "alice", register: false, password: Password("a password"),
    timing: Timing(liveness: .seconds(100), requestTimeout: .seconds(100)), random: .system)
}

/// A ROUTER in the place of the cluster's router, or of a master. What it has said arrives even if it is closed at once.
private final class Server {
  private let socket: Socket
  let address: String

  init(_ context: borrowing Context) throws {
    socket = try context.makeSocket(.router)
    try socket.set(.linger(patience))
    address = try socket.bind("tcp://127.0.0.1:*")
  }

  /// The next message, and who says it.
  func hear<Message>(
    _ decode: ([UInt8]) throws(WireError) -> Message
  ) throws -> (peer: [UInt8], message: Message) {
    let copies = try nextFrames(of: socket)
    try #require(copies.count == 2)
    return (copies[0], try decode(copies[1]))
  }

  func say(_ bytes: [UInt8], to peer: [UInt8]) throws {
    #expect(try socket.send(frames: [peer, bytes]) == .sent)
  }
}

extension RouterRequest {
  fileprivate var locate: Locate? { if case .locate(let locate) = self { locate } else { nil } }
}
