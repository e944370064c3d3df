// Asks the processes of a cluster how they are.

import Foundation
import Model
import Node
import Runtime
import Topology
import Wire
import ZeroMQ

/// Questions to the router and to supervisors, with a deadline.
enum ClusterQuery {
  /// The router's view; nil if it does not answer in time. The cluster's owner is answered even if strangers have taken all
  /// places that the gatekeeper gives.
  static func router(of deployment: Deployment, timeout: Interval) -> RouterStatus? {
    let request = Wire.encode(.status(number: 1) as RouterRequest)
    var keys: (server: CurveKey, own: CurveKeypair)?
    if deployment.topology.security == .curve {
      guard let server = ClusterKeys.publicKey(in: deployment.folder),
        let own = ClusterKeys.member(in: deployment.folder) ?? (try? CurveKeypair.generate())
      else { return nil }
      keys = (server, own)
    }
    let replies = ask([(deployment.routerEndpoint, request)], with: keys, timeout: timeout)
    guard let bytes = replies[0], case .status(_, let status)? = try? Wire.decodeRouterReply(bytes) else { return nil }
    return status
  }

  /// What each of these supervisors knows of its children; nil for one that does not answer in time.
  static func supervisors(_ names: [String], in folder: StateFolder, timeout: Interval) -> [SupervisorStatus?] {
    let running = names.map { folder.owner(of: $0) != nil }
    let request = Wire.encode(.status(number: 1) as SupervisorRequest)
    let questions = zip(names, running).filter(\.1).map { (folder.endpoint(of: $0.0), request) }
    var replies = ask(questions, with: nil, timeout: timeout)[...]
    return running.map { isRunning in
      guard isRunning, let bytes = replies.removeFirst(),
        case .status(_, let status)? = try? Wire.decodeSupervisorReply(bytes)
      else { return nil }
      return status
    }
  }

  /// - Parameter keys: what those who are asked have to prove, and our own; nil on Unix sockets, which nobody else can have made.
  private static func ask(
    _ questions: [(endpoint: String, request: [UInt8])], with keys: (server: CurveKey, own: CurveKeypair)?,
    timeout: Interval
  ) -> [[UInt8]?] {
    var replies = [[UInt8]?](repeating: nil, count: questions.count)
    do throws(ZMQError) {
      let context = try Context()
      var poller = Poller()
      var sockets: [SocketBox] = []
      for (index, question) in questions.enumerated() {
        let box = SocketBox(try context.makeSocket(.dealer))
        if question.endpoint.contains("[") { try box.socket.set(.ipv6(true)) }
        try box.socket.set(.reconnect(every: .milliseconds(20), atMost: .milliseconds(100)))
        if let keys { try box.socket.set(.curveClient(serverKey: keys.server, keys: keys.own)) }
        try box.socket.connect(question.endpoint)
        _ = try box.socket.send(question.request)
        try poller.add(box.socket, token: index, interest: .readable)
        sockets.append(box)
      }
      let deadline = Clock.now() + timeout
      var message = Message()
      var ready: [Ready] = []
      while replies.contains(where: { $0 == nil }) {
        let rest = deadline - Clock.now()
        guard rest > .zero else { break }
        try poller.wait(nanoseconds: rest.nanoseconds, into: &ready)
        for item in ready where try sockets[item.token].socket.receive(into: &message) == .received {
          replies[item.token] = message.copyBytes()
        }
      }
    } catch {
      // Nobody could be asked; that is what the empty answers say.
    }
    return replies
  }
}
