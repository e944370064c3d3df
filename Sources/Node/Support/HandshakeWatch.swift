// Hears of peers that libzmq drops without a word: they do not speak its language, or do not have the cluster's key. And of all others,
// for those who count them.

import Core
import ZeroMQ

/// Tells of connections to a listening socket that ended in their handshake, before anybody was asked: port scanners, web browsers,
/// random bytes, peers without encryption or with a wrong key. libzmq closes them and tells nobody but a monitor. One kind escapes it
/// with CURVE: what does not even begin like ZeroMQ is closed without any event that tells it from an ordinary end.
struct HandshakeWatch: ~Copyable {
  /// To be polled for `.readable`; then call `read()`.
  let monitor: Monitor
  private let isEncrypted: Bool
  private let gate: Gate?

  /// To be made before the socket is bound.
  ///
  /// - Parameter gate: through which it is reached; nil: only this user's processes can.
  init(of socket: borrowing Socket, gate: Gate?) throws(ZMQError) {
    monitor = try socket.makeMonitor(of: gate == nil ? .failedHandshakes : .connections)
    isEncrypted = gate?.keeper != nil
    self.gate = gate
  }

  /// What kinds of connections were refused since the last call, in words: each kind once.
  borrowing func read() throws(ZMQError) -> [String] {
    var found: [String] = []
    for _ in 0..<1_000 {
      guard let event = try monitor.next() else { break }
      var refused = isEncrypted ? Self.kindWithCurve(event.kind) : Self.kind(event.kind)
      if let gate {
        if case .accepted = event.kind, !gate.connections.accepted(event.value, at: gate.port) {
          refused = "a connection for which the system's limit of open files (ulimit -n) leaves no room"
        }
        if case .disconnected = event.kind { gate.connections.ended(event.value, at: gate.port) }
      }
      if let refused, !found.contains(refused) { found.append(refused) }
    }
    return found
  }

  private static func kindWithCurve(_ event: MonitorEvent.Kind) -> String? {
    switch event {
    // Of two that don't agree on encryption, either side may be the first to hang up.
    case .handshakeFailedProtocol(MonitorEvent.mechanismMismatch), .handshakeFailedNoDetail:
      return "a connection without encryption, or one that was given up in its handshake"
    case .handshakeFailedProtocol(MonitorEvent.cryptographicFailure): return "a connection without this cluster's key"
    case .handshakeFailedProtocol: return "a connection with a broken handshake"
    default: return nil  // refused by the gatekeeper, which has said so
    }
  }

  private static func kind(_ event: MonitorEvent.Kind) -> String? {
    switch event {
    case .handshakeFailedProtocol(MonitorEvent.mechanismMismatch):
      return "a connection with encryption, which this cluster does not use"
    case .handshakeFailedProtocol: return "a connection with a greeting that is not ZeroMQ's"
    case .handshakeFailedNoDetail: return "a connection that ended before ZeroMQ's greeting"
    default: return nil
    }
  }
}
