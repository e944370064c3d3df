// Socket options, typed. Values are checked by libzmq: one out of range is thrown as EINVAL, nothing is clamped.
internal import CZMQ
import Glibc

/// An option of a socket; `Socket.set(_:)`. Options other than subscriptions take effect for endpoints that are
/// bound or connected afterwards. Durations are rounded up to milliseconds.
public enum SocketOption: Sendable {
  /// How long closing the socket keeps trying to deliver what was sent. Default here: not at all.
  case linger(Duration)
  /// Messages that may queue for each peer before sends block or, on PUB, drop. 0: no limit. Default 1000.
  case sendHighWaterMark(Int)
  /// Messages that may queue from each peer. 0: no limit. Default 1000.
  case receiveHighWaterMark(Int)
  /// Longest frame accepted, in bytes; a peer that sends a longer one is disconnected. -1: no limit, the default.
  /// It says nothing about the number of frames.
  case maxMessageSize(Int)
  /// Which of the context's I/O threads serve what is bound or connected from now on: a bit each. 0: any, the default.
  case affinity(UInt64)
  /// How many connections may wait to be accepted. Default 100.
  case backlog(Int)
  /// Whether addresses may be IPv6 ones. Default: no.
  case ipv6(Bool)
  /// Queue messages only for connections that are complete. Default: no.
  case immediate(Bool)

  /// Router: sends to unknown peers are `.unroutable` instead of dropped silently. Default: no.
  case routerMandatory(Bool)
  /// Router: whether a new peer may take over the routing id of an existing one. Default: no; leave it so.
  case routerHandover(Bool)
  /// The routing id that this socket tells its peers, 1 … 255 bytes, not starting with a zero byte.
  case routingID([UInt8])
  /// XPUB: hand every subscription up, not only the first one of each topic. Default: no.
  case xpubVerbose(Bool)
  /// XPUB: a subscription counts only if `subscribe` with the same bytes is set on this socket right after its message was
  /// received. Default: no.
  case xpubManual(Bool)
  /// SUB: receive messages that begin with these bytes.
  case subscribe([UInt8])
  /// SUB: take back one subscription of these bytes.
  case unsubscribe([UInt8])

  /// Longest time from a TCP connection to the end of ZeroMQ's handshake. 0: no limit. Default 30 s.
  case handshakeInterval(Duration)
  /// Longest time for the TCP connect itself. 0: what the kernel does, the default.
  case connectTimeout(Duration)
  /// ZeroMQ's own keep-alive: ping each peer every `interval` (0: never, the default), drop one that is silent for
  /// `timeout`, and tell peers to drop this one after `timeToLive` (0 … 6,553 s, steps of 100 ms; 0: say nothing).
  case heartbeat(interval: Duration, timeout: Duration, timeToLive: Duration)
  /// Wait between attempts to connect, growing up to `atMost` (0: not growing). Default 100 ms, not growing.
  case reconnect(every: Duration, atMost: Duration)
  /// One attempt to connect, and none after the connection is lost; then libzmq drops what has come over it and was not received yet.
  case noReconnect
  /// TCP keep-alive after `idle` without traffic, a probe each `interval` (both whole seconds), dead after `probes`.
  case tcpKeepalive(idle: Duration, interval: Duration, probes: Int)

  /// CURVE, server's side: only clients that know this server's public key get in, encrypted. Who may is a matter
  /// of ZAP.
  case curveServer(secretKey: CurveKey)
  /// CURVE, client's side: talk only to the server that holds the secret of `serverKey`.
  case curveClient(serverKey: CurveKey, keys: CurveKeypair)
  /// The domain for the ZAP handler's decision; on a CURVE server without a handler everyone is let in.
  case zapDomain(String)
}

extension SocketOption {
  /// The kernel's keep-alive for a connection that only receives: nothing else would ever notice that its other side is gone without a
  /// word. Given up after 11 s without a sign of it. Not ZeroMQ's own: that wakes both processes, and libzmq searches all
  /// timers of a thread whenever it cancels one.
  public static let keepAlive = SocketOption.tcpKeepalive(idle: .seconds(5), interval: .seconds(2), probes: 3)
}

extension Socket {
  /// Sets options, in this order; the ones before a failing one stay set.
  ///
  /// - Throws: EINVAL for a value out of range or an option that this kind of socket does not have.
  public borrowing func set(_ options: SocketOption...) throws(ZMQError) {
    for option in options { try set(option) }
  }

  private borrowing func set(_ option: SocketOption) throws(ZMQError) {
    switch option {
    case .linger(let time): try set(ZMQ_LINGER, milliseconds(time))
    case .sendHighWaterMark(let messages): try set(ZMQ_SNDHWM, messages)
    case .receiveHighWaterMark(let messages): try set(ZMQ_RCVHWM, messages)
    case .maxMessageSize(let bytes): try set(ZMQ_MAXMSGSIZE, wide: Int64(bytes))
    case .affinity(let threads): try set(ZMQ_AFFINITY, wide: Int64(bitPattern: threads))
    case .backlog(let connections): try set(ZMQ_BACKLOG, connections)
    case .ipv6(let on): try set(ZMQ_IPV6, on)
    case .immediate(let on): try set(ZMQ_IMMEDIATE, on)
    case .routerMandatory(let on): try set(ZMQ_ROUTER_MANDATORY, on)
    case .routerHandover(let on): try set(ZMQ_ROUTER_HANDOVER, on)
    case .routingID(let id): try set(ZMQ_ROUTING_ID, bytes: id)
    case .xpubVerbose(let on): try set(ZMQ_XPUB_VERBOSE, on)
    case .xpubManual(let on): try set(ZMQ_XPUB_MANUAL, on)
    case .subscribe(let prefix): try set(ZMQ_SUBSCRIBE, bytes: prefix)
    case .unsubscribe(let prefix): try set(ZMQ_UNSUBSCRIBE, bytes: prefix)
    case .handshakeInterval(let time): try set(ZMQ_HANDSHAKE_IVL, milliseconds(time))
    case .connectTimeout(let time): try set(ZMQ_CONNECT_TIMEOUT, milliseconds(time))
    case .heartbeat(let interval, let timeout, let timeToLive):
      try set(ZMQ_HEARTBEAT_IVL, milliseconds(interval))
      try set(ZMQ_HEARTBEAT_TIMEOUT, milliseconds(timeout))
      try set(ZMQ_HEARTBEAT_TTL, milliseconds(timeToLive))
    case .reconnect(let every, let atMost):
      try set(ZMQ_RECONNECT_IVL, milliseconds(every))
      try set(ZMQ_RECONNECT_IVL_MAX, milliseconds(atMost))
    case .noReconnect: try set(ZMQ_RECONNECT_IVL, -1)
    case .tcpKeepalive(let idle, let interval, let probes):
      try set(ZMQ_TCP_KEEPALIVE, true)
      try set(ZMQ_TCP_KEEPALIVE_IDLE, seconds(idle))
      try set(ZMQ_TCP_KEEPALIVE_INTVL, seconds(interval))
      try set(ZMQ_TCP_KEEPALIVE_CNT, probes)
    case .curveServer(let secretKey):
      try set(ZMQ_CURVE_SERVER, true)
      try set(ZMQ_CURVE_SECRETKEY, bytes: secretKey.bytes)
    case .curveClient(let serverKey, let keys):
      try set(ZMQ_CURVE_SERVERKEY, bytes: serverKey.bytes)
      try set(ZMQ_CURVE_PUBLICKEY, bytes: keys.publicKey.bytes)
      try set(ZMQ_CURVE_SECRETKEY, bytes: keys.secretKey.bytes)
    case .zapDomain(let domain): try set(ZMQ_ZAP_DOMAIN, bytes: Array(domain.utf8))
    }
  }

  /// The endpoint last bound or connected, with the actual port.
  public var lastEndpoint: String {
    get throws(ZMQError) {
      let socket = handle.touched()
      var size = 1024
      var code: Int32 = 0
      let endpoint = String(unsafeUninitializedCapacity: size) { buffer in
        code = zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, buffer.baseAddress, &size)
        return code == 0 ? max(size - 1, 0) : 0  // without the final zero
      }
      if code != 0 { throw .last("zmq_getsockopt(ZMQ_LAST_ENDPOINT)") }
      return endpoint
    }
  }

  /// The descriptor that becomes readable when `events` *may* have changed. It is edge-triggered in effect: any use
  /// of the socket can swallow its wake-up, so `events` must be read after every use and before every sleep,
  /// but for a receive that found nothing. The pollers of this module do that.
  public var fileDescriptor: Int32 {
    get throws(ZMQError) { try get(ZMQ_FD) }
  }

  /// What the socket is ready for now: `.readable`, `.writable`, both or nothing.
  public var events: PollEvents {
    get throws(ZMQError) {
      _ = handle.touched()
      return try handle.events()
    }
  }

  // MARK: The two C calls

  private borrowing func set(_ option: Int32, _ value: Int) throws(ZMQError) {
    guard var value = Int32(exactly: value) else { throw ZMQError(code: EINVAL, call: "zmq_setsockopt(\(option))") }
    try check(option, zmq_setsockopt(handle.touched(), option, &value, MemoryLayout<Int32>.size))
  }

  private borrowing func set(_ option: Int32, _ on: Bool) throws(ZMQError) {
    try set(option, on ? 1 : 0)
  }

  private borrowing func set(_ option: Int32, wide value: Int64) throws(ZMQError) {
    var value = value
    try check(option, zmq_setsockopt(handle.touched(), option, &value, MemoryLayout<Int64>.size))
  }

  private borrowing func set(_ option: Int32, bytes: [UInt8]) throws(ZMQError) {
    try check(option, zmq_setsockopt(handle.touched(), option, bytes, bytes.count))
  }

  borrowing func get(_ option: Int32) throws(ZMQError) -> Int32 {
    var value: Int32 = 0
    var size = MemoryLayout<Int32>.size
    if zmq_getsockopt(handle.touched(), option, &value, &size) != 0 { throw .last("zmq_getsockopt(\(option))") }
    return value
  }

  private borrowing func check(_ option: Int32, _ code: Int32) throws(ZMQError) {
    if code != 0 { throw .last("zmq_setsockopt(\(option))") }
  }
}

/// Whole milliseconds, rounded up.
private func milliseconds(_ time: Duration) -> Int {
  Int(clamping: time.roundedUp(toUnitsOf: 1_000_000))
}

/// Whole seconds, rounded up.
private func seconds(_ time: Duration) -> Int {
  Int(clamping: time.roundedUp(toUnitsOf: 1_000_000_000))
}

extension Duration {
  /// The duration in nanoseconds, at most about 292 years either way.
  var clampedNanoseconds: Int64 {
    let (seconds, attoseconds) = components
    let (whole, overflowed) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    if overflowed { return seconds < 0 ? .min : .max }
    let (sum, overflowedToo) = whole.addingReportingOverflow(attoseconds / 1_000_000_000)
    return overflowedToo ? (seconds < 0 ? .min : .max) : sum
  }

  fileprivate func roundedUp(toUnitsOf unit: Int64) -> Int64 {
    let nanoseconds = clampedNanoseconds
    return nanoseconds / unit + (nanoseconds % unit > 0 ? 1 : 0)
  }
}
