// A ROUTER socket that serves: numbers its peers, checks frames, and shuts out who sends garbage.

import Core
import Model
import ZeroMQ

/// The listening side of a link.
///
/// The socket numbers its peers itself; one that chose its own identity (which another could steal) is not served. A message has
/// one payload frame. Whoever sends anything else is shut out: its connection's later messages are dropped unread.
struct ServerSocket: ~Copyable {
  enum Received {
    case nothing
    /// The payload is in `payload`.
    case message(PeerID)
    /// Not a message of this protocol; the peer is shut out. Nil: a peer that numbered itself.
    case garbage(PeerID?, String)
  }

  /// ROUTER's own identities: a zero byte and a 32-bit number. Peers can't choose one that starts with zero.
  private static let identityBytes = 5

  let socket: Socket
  /// Where it listens, with the port that was chosen.
  let boundEndpoint: String
  /// Whether who sends has proved something.
  private let isGuarded: Bool
  /// Tells of peers that speak something else, or failed to prove it.
  let handshakes: HandshakeWatch
  private var frames = Multipart(maxFrames: Limits.frames)
  private var shutOut: Set<PeerID> = []
  /// In the order in which they were shut out, as a ring of `Limits.shutOut`.
  private var shutOutOrder: [PeerID] = []
  private var nextToForget = 0

  /// Opens and binds the socket.
  ///
  /// - Parameters:
  ///   - endpoint: where to listen; port `*` for any free one. `boundEndpoint` is where it does.
  ///   - gate: through which it is reached; nil: only this user's processes can.
  ///   - ioThreads: which of the context's serve it; see `SocketOption.affinity`.
  init(
    _ context: borrowing Context, endpoint: String, queued: Int, maxBytes: Int,
    gate: Gate? = nil, ioThreads: UInt64 = 0
  ) throws(ZMQError) {
    let socket = try context.makeSocket(.router)
    try socket.set(
      .affinity(ioThreads),
      .linger(.milliseconds(500)), .routerMandatory(true), .sendHighWaterMark(queued),
      .receiveHighWaterMark(Limits.messagesReceived),
      .maxMessageSize(maxBytes), .backlog(Limits.connectionsPending),
      .handshakeInterval(.milliseconds(Limits.handshake.milliseconds)))
    if endpoint.contains("[") { try socket.set(.ipv6(true)) }
    if let gate { try gate.keeper?.guardSocket(socket, as: gate.port) }
    let handshakes = try HandshakeWatch(of: socket, gate: gate)
    boundEndpoint = try socket.bind(endpoint)
    isGuarded = gate?.keeper != nil
    self.handshakes = handshakes
    self.socket = socket
  }

  /// Receives the next message, if there is one.
  mutating func receive() throws(ZMQError) -> Received {
    while true {
      switch try socket.receive(into: &frames) {
      case .wouldBlock: return .nothing
      case .tooManyFrames(let dropped):
        guard let peer = peerOfFrames() else { return .garbage(nil, "a peer with an identity of its own choice") }
        if shutOut.contains(peer) { continue }
        shutOutPeer(peer)
        return .garbage(peer, "a message of \(dropped + Limits.frames - 1) frames")
      case .received:
        guard let peer = peerOfFrames() else { return .garbage(nil, "a peer with an identity of its own choice") }
        if shutOut.contains(peer) { continue }
        guard frames.count == Limits.frames else {
          shutOutPeer(peer)
          return .garbage(peer, "a message without payload")
        }
        return .message(peer)
      }
    }
  }

  /// The payload of the message just received.
  var payload: Message {
    _read { yield frames[1] }
  }

  /// Who has sent the message just received.
  var standing: Standing { isGuarded ? Gatekeeper.standing(of: frames[1]) : .unproved }

  /// From now on, drop what comes on this connection.
  mutating func shutOutPeer(_ peer: PeerID) {
    guard shutOut.insert(peer).inserted else { return }
    if shutOutOrder.count < Limits.shutOut {
      shutOutOrder.append(peer)
      return
    }
    // Peers are numbered afresh with every connection: the oldest is long gone.
    shutOut.remove(shutOutOrder[nextToForget])
    shutOutOrder[nextToForget] = peer
    nextToForget = (nextToForget + 1) % Limits.shutOut
  }

  /// Sends to a peer: `.unroutable` if it is gone, `.wouldBlock` if it does not read.
  borrowing func send(_ bytes: [UInt8], to peer: PeerID) throws(ZMQError) -> SendResult {
    let identity = (UInt8(0), peer.rawValue.bigEndian)
    let result = try withUnsafeTemporaryAllocation(byteCount: Self.identityBytes, alignment: 1) {
      buffer throws(ZMQError) in
      buffer[0] = identity.0
      buffer.storeBytes(of: identity.1, toByteOffset: 1, as: UInt32.self)
      return try socket.send(UnsafeRawBufferPointer(buffer), more: true)
    }
    guard result == .sent else { return result }
    return try socket.send(bytes)
  }

  private func peerOfFrames() -> PeerID? {
    frames[0].withUnsafeBytes { bytes in
      guard bytes.count == Self.identityBytes, bytes[0] == 0 else { return nil }
      return PeerID(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 1, as: UInt32.self)))
    }
  }
}
