// A socket's monitor: libzmq's report of what happens to the connections below a socket.
internal import CZMQ
import Glibc

/// Something that happened to one of a socket's connections.
public struct MonitorEvent: Equatable, Sendable {
  /// What happened; see zmq_socket_monitor(3).
  public enum Kind: Equatable, Sendable {
    case connected
    case connectDelayed
    /// The next attempt to connect follows in this many milliseconds.
    case connectRetried(milliseconds: Int32)
    case listening
    case bindFailed(errno: Int32)
    case accepted
    case acceptFailed(errno: Int32)
    case closed
    case closeFailed(errno: Int32)
    /// An established connection broke: the other process died, closed, or fell silent.
    case disconnected
    /// The last event: the monitored socket was closed.
    case monitorStopped
    /// The connection is ready to carry messages.
    case handshakeSucceeded
    /// The peer hung up during the handshake, or it took longer than `handshakeInterval`.
    case handshakeFailedNoDetail(errno: Int32)
    /// The peer spoke something else; one of libzmq's ZMQ_PROTOCOL_ERROR codes.
    case handshakeFailedProtocol(code: Int32)
    /// The ZAP handler refused the peer: its status, such as 400.
    case handshakeFailedAuthentication(status: Int32)
    /// An event that this module does not know.
    case unknown(event: UInt16)
  }

  public let kind: Kind
  /// The endpoint it happened to, as libzmq spells it.
  public let endpoint: String
  /// libzmq's number for the event: a descriptor, an errno or milliseconds, depending on the kind.
  public let value: Int32
}

extension MonitorEvent {
  /// The code of `handshakeFailedProtocol` for a peer with another mechanism than the socket's: with CURVE, one without encryption.
  public static let mechanismMismatch: Int32 = ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
  /// The code of `handshakeFailedProtocol` for what can't be decrypted: the peer has another key of the server in mind.
  public static let cryptographicFailure: Int32 = ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC
}

/// Reads the events of one socket.
///
/// Poll `socket` for `.readable`, then call `next()` until nil. Drain it as long as it exists: events that nobody
/// reads pile up in memory. Used by the same thread as the monitored socket; either may be closed first.
public struct Monitor: ~Copyable {
  /// The socket to poll. Leave receiving to `next()`.
  public let socket: Socket
  private let monitored: SocketHandle

  init(of monitored: SocketHandle, _ events: MonitoredEvents) throws(ZMQError) {
    if monitored.isMonitored { throw ZMQError(code: EBUSY, call: "zmq_socket_monitor") }
    // Never used before: libzmq frees the name of an earlier monitor some time after it was stopped.
    let address = "inproc://monitor-\(UInt64.random(in: .min ... .max))"
    // libzmq's I/O thread sends the events and would block, all its connections with it, at a high-water mark or
    // without a reader: so no mark, and the monitoring is always stopped before its reader closes.
    let socket = try monitored.makeSibling(.pair)
    try socket.set(.receiveHighWaterMark(0))
    if zmq_socket_monitor(monitored.touched(), address, events.mask) != 0 { throw .last("zmq_socket_monitor") }
    monitored.isMonitored = true
    do throws(ZMQError) {
      try socket.connect(address)
    } catch {
      monitored.stopMonitoring()
      throw error
    }
    self.socket = socket
    self.monitored = monitored
  }

  deinit { monitored.stopMonitoring() }  // and then the reader is closed

  /// The next event, nil if there is none now.
  public borrowing func next() throws(ZMQError) -> MonitorEvent? {
    var header = Message()
    guard try socket.receive(into: &header) == .received else { return nil }
    var endpoint = Message()
    if header.hasMore { _ = try socket.receive(into: &endpoint) }
    let (event, value) = header.withUnsafeBytes { bytes in
      bytes.count < 6
        ? (UInt16(0), Int32(0))
        : (
          bytes.loadUnaligned(fromByteOffset: 0, as: UInt16.self),
          bytes.loadUnaligned(fromByteOffset: 2, as: Int32.self)
        )
    }
    let text = endpoint.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
    return MonitorEvent(kind: MonitorEvent.Kind(event: event, value: value), endpoint: text, value: value)
  }
}

@available(*, unavailable)
extension Monitor: Sendable {}

extension Socket {
  /// Starts to monitor this socket; do it before `bind` or `connect` to miss nothing.
  ///
  /// - Throws: EBUSY if it is monitored already, EMFILE at the context's `maxSockets`.
  public borrowing func makeMonitor(of events: MonitoredEvents = .all) throws(ZMQError) -> Monitor {
    try Monitor(of: handle, events)
  }
}

/// Which events a monitor is told. Each is a message, and wakes the monitor's thread.
public enum MonitoredEvents: Sendable {
  case all
  /// Those that say that a connection is lost, or could not be made.
  case failures
  /// Handshakes that failed: what a server wants to know of who knocks.
  case failedHandshakes
  /// Those, and each connection's beginning and end.
  case connections

  fileprivate var mask: Int32 {
    switch self {
    case .all: return ZMQ_EVENT_ALL
    case .failures:
      return ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED | Self.failedHandshakes.mask
    case .connections: return ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | Self.failedHandshakes.mask
    case .failedHandshakes:
      return ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL
        | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
    }
  }
}

extension MonitorEvent.Kind {
  init(event: UInt16, value: Int32) {
    switch Int32(event) {
    case ZMQ_EVENT_CONNECTED: self = .connected
    case ZMQ_EVENT_CONNECT_DELAYED: self = .connectDelayed
    case ZMQ_EVENT_CONNECT_RETRIED: self = .connectRetried(milliseconds: value)
    case ZMQ_EVENT_LISTENING: self = .listening
    case ZMQ_EVENT_BIND_FAILED: self = .bindFailed(errno: value)
    case ZMQ_EVENT_ACCEPTED: self = .accepted
    case ZMQ_EVENT_ACCEPT_FAILED: self = .acceptFailed(errno: value)
    case ZMQ_EVENT_CLOSED: self = .closed
    case ZMQ_EVENT_CLOSE_FAILED: self = .closeFailed(errno: value)
    case ZMQ_EVENT_DISCONNECTED: self = .disconnected
    case ZMQ_EVENT_MONITOR_STOPPED: self = .monitorStopped
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: self = .handshakeSucceeded
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL: self = .handshakeFailedNoDetail(errno: value)
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL: self = .handshakeFailedProtocol(code: value)
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: self = .handshakeFailedAuthentication(status: value)
    default: self = .unknown(event: event)
    }
  }
}
