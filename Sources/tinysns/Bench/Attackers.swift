// Those who mean harm, as a process of their own: strangers with raw sockets at every port, and users with a valid session.

import ArgumentParser
import Foundation
import Model
import Synchronization
import Wire
import ZeroMQ

/// What the attackers' process is told, as JSON on its command line.
struct AttackPlan: Codable {
  /// All ports of the cluster that listen on TCP.
  var ports: [UInt16]
  /// Of the master that serves.
  var requests: String
  var timelines: String
  var router: String
  /// In Z85; nil: nothing is encrypted.
  var serverKey: String?
  var label: String
  var seconds: Double
  /// Connections a port that are held open in silence.
  var idlers = 200
}

/// What they did, by kind of attack: connections or messages.
struct AttackReport: Codable {
  var counts: [String: Int] = [:]
}

struct BenchAttackers: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attackers", abstract: "The attackers of `bench hostile`.", shouldDisplay: false)
  @Argument var plan: String

  func run() throws {
    let plan = try JSONDecoder().decode(AttackPlan.self, from: Data(plan.utf8))
    let attackers = Attackers(plan)
    attackers.run()
    Terminal.print(String(decoding: try JSONEncoder().encode(AttackReport(counts: attackers.counts)), as: UTF8.self))
  }
}

/// A thread a kind of attack, all until the time is over.
private final class Attackers: Sendable {
  private let plan: AttackPlan
  private let end: Date
  private let counted = Mutex<[String: Int]>([:])

  init(_ plan: AttackPlan) {
    self.plan = plan
    end = Date(timeIntervalSinceNow: plan.seconds)
  }

  var counts: [String: Int] { counted.withLock { $0 } }

  func run() {
    let kinds: [(String, @Sendable (Attackers) throws -> Void)] = [
      ("garbage", { $0.throwGarbage() }), ("half handshakes", { $0.shakeHalf() }),
      ("slow senders", { $0.sendSlowly() }),
      ("idle connections", { $0.connectAndWait() }), ("huge lengths", { $0.claimHugeLengths() }),
      ("mutated requests", { try $0.mutateRequests() }), ("frame counts", { try $0.miscountFrames() }),
      ("replays", { try $0.replay() }), ("subscriptions", { try $0.subscribe() }),
      ("router messages", { try $0.pesterRouter() }),
    ]
    let group = DispatchGroup()
    for (kind, attack) in kinds {
      group.enter()
      Thread.detachNewThread { [self] in
        Thread.current.threadDictionary["kind"] = kind
        // An attack that fails (no descriptors left, say) begins anew.
        while !isOver {
          do { try attack(self) } catch { pause(50) }
        }
        group.leave()
      }
    }
    group.wait()
  }

  private var isOver: Bool { Date() >= end }
  private func count(_ number: Int = 1) {
    let kind = Thread.current.threadDictionary["kind"] as? String ?? ""
    counted.withLock { $0[kind, default: 0] += number }
  }
  private func pause(_ milliseconds: UInt32) { usleep(milliseconds * 1_000) }
  private func noise(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255) } }

  // MARK: Strangers

  private static func greeting(_ mechanism: String) -> [UInt8] {
    [0xFF] + [UInt8](repeating: 0, count: 8) + [0x7F, 3, 0] + Array(mechanism.utf8)
      + [UInt8](repeating: 0, count: 20 - mechanism.utf8.count + 32)
  }

  private var greeting: [UInt8] { Self.greeting(plan.serverKey == nil ? "NULL" : "CURVE") }
  private static let ready: [UInt8] =
    [4, 38, 5] + Array("READY".utf8) + [11] + Array("Socket-Type".utf8) + [0, 0, 0, 6] + Array("DEALER".utf8)
    + [8] + Array("Identity".utf8) + [0, 0, 0, 0].prefix(0)

  private func connect(_ port: UInt16) -> Int32? {
    var target = sockaddr_in()
    target.sin_family = sa_family_t(AF_INET)
    target.sin_port = port.bigEndian
    target.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    let code = withUnsafePointer(to: &target) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Foundation.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    if code == 0 { return descriptor }
    close(descriptor)
    return nil
  }

  private func send(_ bytes: [UInt8], _ descriptor: Int32) -> Bool {
    Foundation.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)) == bytes.count
  }

  /// No ZMTP at all, or what begins like it.
  private func throwGarbage() {
    for port in plan.ports {
      guard let descriptor = connect(port) else { continue }
      let start: [UInt8] = [[], [0xFF], greeting, Array("GET / HTTP/1.1\r\n\r\n".utf8), [0x16, 3, 1]].randomElement()!
      _ = send(start + noise(Int.random(in: 0...3_000)), descriptor)
      close(descriptor)
      count()
    }
    pause(5)
  }

  /// The first part of a greeting, or of what follows it, and the end.
  private func shakeHalf() {
    for port in plan.ports {
      guard let descriptor = connect(port) else { continue }
      let hello: [UInt8] = [4, 200, 5] + Array("HELLO".utf8) + [1, 0] + noise(192)
      let whole = greeting + (plan.serverKey == nil ? Self.ready : hello)
      _ = send(Array(whole.prefix(Int.random(in: 1...whole.count))), descriptor)
      if Bool.random() { pause(20) }
      close(descriptor)
      count()
    }
    pause(5)
  }

  /// Many connections that bring a byte each now and then.
  private func sendSlowly() {
    var slow: [(descriptor: Int32, sent: Int)] = []
    let bytes = greeting
    for port in plan.ports {
      for _ in 0..<20 { if let descriptor = connect(port) { slow.append((descriptor, 0)) } }
    }
    count(slow.count)
    for _ in 0..<80 where !isOver {
      for index in slow.indices where slow[index].sent < bytes.count {
        if send([bytes[slow[index].sent]], slow[index].descriptor) { slow[index].sent += 1 }
      }
      pause(100)
    }
    for (descriptor, _) in slow { close(descriptor) }
  }

  /// Connections that say nothing, as many as are taken; closed ones are made anew.
  private func connectAndWait() {
    var waiting: [Int32] = []
    for port in plan.ports {
      for _ in 0..<plan.idlers {
        guard let descriptor = connect(port) else { break }
        waiting.append(descriptor)
      }
    }
    count(waiting.count)
    for _ in 0..<30 where !isOver { pause(100) }
    for descriptor in waiting { close(descriptor) }
  }

  /// Frames that claim to be as long as can be written down.
  private func claimHugeLengths() {
    let lengths: [UInt64] = [.max, UInt64(Int64.max), 1 << 40, 1 << 32, 1 << 31, 1 << 20]
    for port in plan.ports {
      guard let descriptor = connect(port) else { continue }
      let length = withUnsafeBytes(of: lengths.randomElement()!.bigEndian) { Array($0) }
      _ = send(
        greeting + (plan.serverKey == nil ? Self.ready : []) + [[2, 6, 3].randomElement()!] + length + noise(1_000),
        descriptor)
      pause(2)
      close(descriptor)
      count()
    }
    pause(5)
  }

  // MARK: Users

  /// Connections of a user, with its keys.
  private struct User: ~Copyable {
    let context: Context
    let requests: Socket
    let updates: Socket
    var number: UInt64 = 1

    init(_ plan: AttackPlan) throws {
      let context = try Context()
      let requests = try context.makeSocket(.dealer)
      let updates = try context.makeSocket(.sub)
      try requests.set(.linger(.zero), .sendHighWaterMark(20_000), .noReconnect)
      try updates.set(.linger(.zero), .sendHighWaterMark(0), .noReconnect)
      if let key = plan.serverKey.flatMap({ CurveKey(z85: $0) }) {
        let keys = try CurveKeypair.generate()
        try requests.set(.curveClient(serverKey: key, keys: keys))
        try updates.set(.curveClient(serverKey: key, keys: keys))
      }
      try requests.connect(plan.requests)
      try updates.connect(plan.timelines)
      self.context = context
      self.requests = requests
      self.updates = updates
    }

    borrowing func answer(within milliseconds: Int) throws -> Reply? {
      var message = Message()
      for _ in 0..<milliseconds {
        if try requests.receive(into: &message) == .received {
          return message.withUnsafeBytes { try? Wire.decodeReply([UInt8]($0)) }
        }
        usleep(1_000)
      }
      return nil
    }

    /// All that has come, thrown away.
    borrowing func drain() throws {
      var message = Message()
      while try requests.receive(into: &message) == .received {}
      while try updates.receive(into: &message) == .received {}
    }
  }

  /// One who has logged in.
  private func login(_ name: String) throws -> User {
    var user = try User(plan)
    _ = try user.requests.send(Wire.encode(Request(number: 1, body: .hello(Bench.hello("\(plan.label)-\(name)")))))
    guard case .welcome = try user.answer(within: 3_000)?.body else { throw Failure("not let in") }
    user.number = 2
    return user
  }

  private func someRequest(_ number: UInt64) -> Request {
    let bodies: [Request.Body] = [
      .post(text: "from a hostile one"), .follow(name: "\(plan.label)-replay"), .unfollow(name: "nobody"),
      .list(ListQuery(kind: .users)),
      .timeline(TimelineQuery(timeline: .home, range: .newest)), .watch(.home), .ping,
    ]
    return Request(number: number, body: bodies.randomElement()!)
  }

  /// Requests with bytes changed, until one is no longer understood: then a new connection.
  private func mutateRequests() throws {
    var user = try login("mutant")
    for _ in 0..<200 where !isOver {
      var bytes = Wire.encode(someRequest(user.number))
      user.number += 1
      for _ in 0...Int.random(in: 0...3) {
        let index = Int.random(in: bytes.indices)
        switch Int.random(in: 0..<4) {
        case 0: bytes[index] ^= 1 << UInt8.random(in: 0..<8)
        case 1: bytes.insert(UInt8.random(in: 0...255), at: index)
        case 2: bytes[index] = [0, 0x7F, 0x80, 0xFF].randomElement()!
        default: if bytes.count > 1 { bytes.remove(at: index) }
        }
      }
      _ = try user.requests.send(bytes)
      count()
      if user.number % 20 == 0 {
        try user.drain()
        pause(1)
      }
    }
    pause(10)
  }

  /// No payload, many frames, empty ones, too long ones.
  private func miscountFrames() throws {
    let user = try login("frames")
    let ping = Wire.encode(Request(number: user.number, body: .ping))
    switch Int.random(in: 0..<4) {
    case 0: _ = try user.requests.send(frames: Array(repeating: ping, count: Int.random(in: 2...50)))
    case 1: _ = try user.requests.send(frames: [[], ping])
    case 2: _ = try user.requests.send([UInt8]())
    default: _ = try user.requests.send(noise(Int.random(in: 4_000...200_000)))
    }
    count()
    _ = try user.answer(within: 20)
    pause(5)
  }

  /// The same requests again and again, in any order; and more of them under way than are allowed, without reading the answers.
  private func replay() throws {
    var user = try login("replay")
    var sent: [[UInt8]] = []
    for _ in 0..<40 where !isOver {
      for _ in 0..<10 {
        sent.append(Wire.encode(someRequest(user.number)))
        user.number += 1
      }
      for bytes in sent.suffix(60).shuffled() { _ = try user.requests.send(bytes) }
      count(min(60, sent.count))
      pause(20)
    }
    // Nobody reads what comes of these.
    for _ in 0..<3_000 where !isOver {
      _ = try user.requests.send(Wire.encode(Request(number: user.number, body: .list(ListQuery(kind: .users)))))
      user.number += 1
      count()
    }
    pause(200)
  }

  /// Everything, nothing, prefixes, other people's topics, too long ones; and gone at once.
  private func subscribe() throws {
    var user = try login("subscriber")
    for _ in 0..<20 where !isOver {
      for _ in 0..<20 {
        let size = [0, 1, 15, 16, 16, 17, 300].randomElement()!
        try user.updates.set(.subscribe(noise(size)))
        count()
      }
      for _ in 0..<30 {
        _ = try user.requests.send(
          Wire.encode(
            Request(number: user.number, body: .watch([.home, .author("\(plan.label)-replay")].randomElement()!))))
        user.number += 1
      }
      count(30)
      pause(10)
      try user.drain()
    }
    if Bool.random() { try user.updates.set(.subscribe(noise(10_000))) }
    pause(5)
  }

  /// What only members may say, and nonsense, to the router.
  private func pesterRouter() throws {
    let context = try Context()
    let socket = try context.makeSocket(.dealer)
    try socket.set(.linger(.zero), .noReconnect)
    if let key = plan.serverKey.flatMap({ CurveKey(z85: $0) }) {
      try socket.set(.curveClient(serverKey: key, keys: .generate()))
    }
    try socket.connect(plan.router)
    let number = UInt64.random(in: 1...1_000)
    for _ in 0..<20 {
      let suspect = MasterIdentity(name: "master-1", incarnation: Incarnation(number))
      _ = try socket.send(
        Wire.encode(RouterRequest.locate(Locate(number: number, user: "x", suspect: suspect, failures: 3))))
      _ = try socket.send(Wire.encode(RouterRequest.status(number: number)))
    }
    // Without encryption everybody is believed: then a Leave would be no attack but a vote.
    if plan.serverKey != nil {
      _ = try socket.send(
        Wire.encode(RouterRequest.leave(MasterIdentity(name: "master-1", incarnation: Incarnation(1)))))
    }
    _ = try socket.send(noise(100))
    count(42)
    pause(20)
  }
}
