// A session's connections to its master.

import Core
import Model
import Wire
import ZeroMQ

/// The sockets for requests and for updates, at one master after the other.
///
/// A session whose master dies takes them along to the next one: to open four sockets, with their descriptors, and to close the old
/// ones is a good part of the work when thousands of sessions lose a master at once. What the old master has said is not heard any more, for
/// libzmq reads nothing from a connection that was given up. But the monitor goes on, so the sockets are used again only where it is known what it may
/// still tell of the old connection: after a loss that it has told of. Whoever leaves a master otherwise makes a new link.
final class MasterLink {
  let requests: Socket
  /// Tells of the end of the connection for requests.
  let monitor: Monitor
  let updates: Socket
  /// Whose connections these are; nil: nobody's, and nothing is sent or received.
  private var contact: MasterContact?
  private var topics: [Topic] = []
  /// After a loss libzmq would connect again, and its last event says when: after a pause of once to twice this time. Two connections one after the
  /// other have pauses of which none can be the other's, for the last event of the first may come when the second has begun.
  private var pause = MasterLink.pauses.first
  private static let pauses: (first: Duration, second: Duration) = (.seconds(3_600), .seconds(7_200))
  /// The monitor has told that the present connection is lost or could not be made.
  private(set) var isLost = false
  /// A handshake failed for good. Of that libzmq tells twice.
  private var isSpoilt = false

  init(in context: borrowing Context) throws(ZMQError) {
    requests = try context.makeSocket(.dealer)
    try requests.set(
      .sendHighWaterMark(Limits.requestsInFlight * 2), .receiveHighWaterMark(0),
      .maxMessageSize(Limits.messageBytes), .linger(.milliseconds(100)))
    monitor = try requests.makeMonitor(of: .failures)
    updates = try context.makeSocket(.sub)
    // Subscriptions leave through SUB's send queue: at a mark they would be lost silently.
    try updates.set(
      .sendHighWaterMark(0), .receiveHighWaterMark(Limits.updatesHeldBack), .maxMessageSize(Limits.messageBytes),
      .keepAlive,
      // Not at once: mostly the master is lost, and this connection given up in a moment; or later, if thousands have lost it.
      .reconnect(every: .milliseconds(500), atMost: .seconds(1)))
  }

  /// Starts to connect; only while connected to nobody.
  ///
  /// - Parameter security: what the master has to prove, and with which keys this side talks; nil: nothing, and nothing is encrypted.
  func connect(_ contact: MasterContact, _ security: SocketOption?) throws(ZMQError) {
    isLost = false
    pause = pause == Self.pauses.first ? Self.pauses.second : Self.pauses.first
    // Never, that is. With `noReconnect` libzmq would drop what came before the end.
    try requests.set(.reconnect(every: pause, atMost: .zero))
    try requests.set(.ipv6(contact.requests.contains("[")))
    try updates.set(.ipv6(contact.timelines.contains("[")))
    if let security {
      try requests.set(security)
      try updates.set(security)
    }
    try requests.connect(contact.requests)
    try updates.connect(contact.timelines)
    self.contact = contact
  }

  /// Leaves a master that is lost, to be connected to the next one.
  ///
  /// - Returns: whether it may be. If not, the link is to be dropped.
  func leave() -> Bool {
    guard isLost, !isSpoilt else { return false }
    guard let contact else { return true }
    do throws(ZMQError) {
      // libzmq aborts the process if the rest of a message that it has begun to hand out is gone with its connection; and it takes one
      // out of the queue of updates already when it is asked whether there is one.
      guard try drain(requests), try drain(updates) else { return false }
      try requests.disconnect(contact.requests)
      try updates.disconnect(contact.timelines)
      for topic in topics { try updates.set(.unsubscribe(Wire.encode(topic))) }
    } catch {
      return false
    }
    self.contact = nil
    topics = []
    return true
  }

  /// Drops what has come; false if there is no end to it.
  private func drain(_ socket: borrowing Socket) throws(ZMQError) -> Bool {
    var frame = Message()
    for _ in 0..<Limits.updatesHeldBack * 4 {
      if try socket.receive(into: &frame) == .wouldBlock { return true }
    }
    return false
  }

  // MARK: What is said

  func send(_ request: Request) throws(ZMQError) {
    if contact != nil { _ = try requests.send(Wire.encode(request)) }
  }

  func subscribe(_ topic: Topic) throws(ZMQError) {
    guard contact != nil, !topics.contains(topic) else { return }
    try updates.set(.subscribe(Wire.encode(topic)))
    topics.append(topic)
  }

  func unsubscribe(_ topic: Topic) throws(ZMQError) {
    guard let index = topics.firstIndex(of: topic) else { return }
    try updates.set(.unsubscribe(Wire.encode(topic)))
    topics.remove(at: index)
  }

  // MARK: What arrives

  /// Receives the next answer; false if there is none now.
  func receiveReply(into message: inout Message) throws(ZMQError) -> Bool {
    guard contact != nil else { return false }
    return try requests.receive(into: &message) == .received
  }

  /// Receives the next update, whatever its frames; false if there is none now.
  func receiveUpdate(into frames: inout Multipart) throws(ZMQError) -> Bool {
    guard contact != nil else { return false }
    return try updates.receive(into: &frames) != .wouldBlock
  }

  /// Takes what the monitor tells up to the next loss, or up to the end.
  ///
  /// - Returns: whether the present connection has been found lost, or could not be made; once for each.
  func findLoss() throws(ZMQError) -> Bool {
    while let event = try monitor.next() {
      switch event.kind {
      case .disconnected, .closed: break
      case .connectRetried(let milliseconds):
        let time = Duration.milliseconds(milliseconds)
        guard time >= pause, time < pause * 2 else { continue }
      case .handshakeFailedProtocol, .handshakeFailedAuthentication: isSpoilt = true
      // Of the others that fail `disconnected` tells as well.
      default: continue
      }
      guard !isLost else { continue }
      isLost = true
      return true
    }
    return false
  }
}
