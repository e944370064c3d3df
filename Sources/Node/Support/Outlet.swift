// A DEALER to a server of the cluster: the router, or one's supervisor.

import ZeroMQ

/// The connecting side of a link within the cluster. It reconnects by itself; what can't be sent now is dropped,
/// because beats are repeated anyway.
struct Outlet: ~Copyable {
  let socket: Socket

  /// - Parameters:
  ///   - endpoint: nil: there is no such server, and whatever is sent is dropped.
  ///   - keeper: knows who the server must be, and who this is; nil: nobody asks.
  ///   - ioThreads: which of the context's serve it; see `SocketOption.affinity`.
  init(
    _ context: borrowing Context, endpoint: String?, maxBytes: Int, keeper: Gatekeeper? = nil, ioThreads: UInt64 = 0
  ) throws(ZMQError) {
    let socket = try context.makeSocket(.dealer)
    try socket.set(.affinity(ioThreads))
    // A short queue: whoever comes back wants the newest beats, not all.
    try socket.set(
      .linger(.milliseconds(200)), .sendHighWaterMark(16), .receiveHighWaterMark(1_000), .maxMessageSize(maxBytes),
      .reconnect(every: .milliseconds(20), atMost: .milliseconds(200)))
    try keeper?.introduce(socket)
    if let endpoint {
      if endpoint.contains("[") { try socket.set(.ipv6(true)) }
      try socket.connect(endpoint)
    }
    self.socket = socket
  }

  borrowing func send(_ bytes: [UInt8]) throws(ZMQError) {
    _ = try socket.send(bytes)
  }
}
