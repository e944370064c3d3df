// Who is let in over TCP: the process's ZAP handler (rfc.zeromq.org/spec/27), a thread that libzmq asks about each connection
// whose handshake has proved a key.

import CSpawn
import Core
import Glibc
import Logging
import Model
import Runtime
import ZeroMQ

/// What protects a cluster's connections over TCP.
public enum TransportSecurity: Sendable {
  /// Nothing: for clusters that only this machine can reach.
  case none
  /// CURVE: encryption, and proof of who is who.
  case curve

  /// What a server needs for it.
  func keys(in folder: StateFolder) throws(NodeError) -> ClusterKeys? {
    switch self {
    case .none: return nil
    case .curve: return try ClusterKeys(in: folder)
    }
  }
}

/// A port that others than this user's processes can reach.
struct Gate {
  let port: Entrance
  /// Who is connected.
  let connections: ConnectionBook
  /// Lets in who has a key; nil: nobody has to prove anything.
  let keeper: Gatekeeper?
}

/// Answers libzmq's question whether a connection may be made, on a thread of its own: no event loop waits for it, nor it for one.
///
/// From then on each message of the connection carries what was answered, as its `User-Id`: `member`, or the client's public key.
/// To be made before the sockets are bound, and to be kept as long as they are. Its thread ends with it.
final class Gatekeeper {
  private static let memberID = "member"

  private let bell: Int32
  private let thread: WorkerThread
  let keys: ClusterKeys

  /// - Parameter connections: who is connected. The sockets' owner keeps it.
  init(
    _ context: borrowing Context, keys: ClusterKeys, connections: ConnectionBook,
    logger: Logger = Logger(label: "gatekeeper")
  ) throws(ZMQError) {
    let socket = try context.makeSocket(.router)
    try socket.bind("inproc://zeromq.zap.01")
    let bell = tinysns_eventfd()
    guard bell >= 0 else { throw ZMQError(code: -bell, call: "eventfd") }
    self.bell = bell
    self.keys = keys
    let desk = Desk(socket, member: keys.member.publicKey, connections: connections, logger: logger)
    thread = WorkerThread { desk.run(until: bell) }
  }

  deinit {
    _ = tinysns_eventfd_ring(bell)
    thread.join()
    close(bell)
  }

  /// Makes a socket, before it is bound, one that only talks CURVE, and asks here.
  func guardSocket(_ socket: borrowing Socket, as port: Entrance) throws(ZMQError) {
    try socket.set(.curveServer(secretKey: keys.server.secretKey), .zapDomain(port.rawValue))
  }

  /// Makes a socket, before it is connected, one that talks only to this cluster's servers, as a member.
  func introduce(_ socket: borrowing Socket) throws(ZMQError) {
    try socket.set(.curveClient(serverKey: keys.server.publicKey, keys: keys.member))
  }

  /// Who has sent a message.
  static func standing(of message: borrowing Message) -> Standing {
    // A key has 40 characters: none is taken for the member's name.
    switch message.metadata("User-Id") {
    case memberID: return .member
    case let key?: return .client(PeerKey(key))
    case nil: return .client(PeerKey(""))
    }
  }

  /// The thread's belongings. `@unchecked Sendable`: made on one thread, used on another, whose start lies between.
  private final class Desk: @unchecked Sendable {
    private enum Token: Int { case bell, questions }

    private let socket: Socket
    private let member: CurveKey
    private let connections: ConnectionBook
    private let logger: Logger
    private var complaints = ComplaintBook()

    init(_ socket: consuming Socket, member: CurveKey, connections: ConnectionBook, logger: Logger) {
      self.socket = socket
      self.member = member
      self.connections = connections
      self.logger = logger
    }

    func run(until bell: Int32) {
      do throws(ZMQError) {
        var poller = Poller()
        try poller.add(fileDescriptor: bell, token: Token.bell.rawValue, interest: .readable)
        try poller.add(socket, token: Token.questions.rawValue, interest: .readable)
        var ready: [Ready] = []
        var frames = Multipart(maxFrames: ZAPQuestion.framesMax)
        while true {
          try poller.wait(nanoseconds: nil, into: &ready)
          if ready.contains(where: { $0.token == Token.bell.rawValue }) { return }
          while true {
            let result = try socket.receive(into: &frames)
            if result == .wouldBlock { break }
            guard result == .received, let question = ZAPQuestion(frames.copyFrames()) else { continue }
            _ = try socket.send(frames: question.answer(decide(question)))
          }
        }
      } catch {
        if error.isTerminated { return }
        // Nobody would be let in any more: better a death that the supervisor sees.
        fatalError("the gatekeeper failed: \(error)")
      }
    }

    /// The `User-Id` of who is let in; nil: refused.
    private func decide(_ question: ZAPQuestion) -> String? {
      guard let key = question.key, let port = Entrance(rawValue: question.domain) else {
        complain(question, "without a key")
        return nil
      }
      let isMember = key == member
      guard Authority.mayConnect(isMember ? .member : .client(PeerKey(key.z85)), to: port) else {
        complain(question, "with a key that is no member's")
        return nil
      }
      guard isMember || connections.admits(PeerAddress(peerAddress: question.address)) else {
        complain(question, "which has too many connections")
        return nil
      }
      return isMember ? Gatekeeper.memberID : key.z85
    }

    private func complain(_ question: ZAPQuestion, _ what: String) {
      let who = "\(question.domain) port from \(question.address), \(what)"
      let (isAdmitted, heldBack) = complaints.admit(who, at: Clock.now())
      if heldBack > 0 { logger.warning("\(heldBack) more connections refused in the minute before") }
      if isAdmitted { logger.warning("refused a connection to the \(who)") }
    }
  }
}

/// A question of ZAP 1.0, as a ROUTER socket receives it.
struct ZAPQuestion {
  static let framesMax = 9
  private static let version = Array("1.0".utf8)

  /// The way back, with the empty frame behind it.
  private let envelope: [[UInt8]]
  private let number: [UInt8]
  let domain: String
  /// Of the peer.
  let address: String
  /// What the peer has proved to hold the secret of; nil with another mechanism than CURVE.
  let key: CurveKey?

  /// Nil for what is no question of this version.
  init?(_ frames: [[UInt8]]) {
    guard frames.count >= 8, frames[1].isEmpty, frames[2] == Self.version else { return nil }
    envelope = Array(frames[..<2])
    number = frames[3]
    domain = String(decoding: frames[4], as: UTF8.self)
    address = String(decoding: frames[5], as: UTF8.self)
    let isCurve = frames.count == 9 && frames[7] == Array("CURVE".utf8)
    key = isCurve ? CurveKey(bytes: frames[8]) : nil
  }

  /// The frames of the answer: let in as this user, or (nil) refused.
  func answer(_ user: String?) -> [[UInt8]] {
    let status = user == nil ? ("400", "no") : ("200", "OK")
    return envelope + [Self.version, number, Array(status.0.utf8), Array(status.1.utf8), Array((user ?? "").utf8), []]
  }
}
