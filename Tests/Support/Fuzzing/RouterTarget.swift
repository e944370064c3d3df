// A router's core under any sequence of messages.

import Core
import Model
import Wire

extension FuzzTarget {
  static let router = FuzzTarget(
    "core-router",
    "a router among peers of whom any may say anything: each question is answered once, what it says is understood, silence empties it",
    inputBytesMax: 8_192, tokens: protobufTokens
  ) { random in
    coreSeed(&random, stepKinds: FuzzedRouter.stepKinds) { generator, kind in
      kind == 0 ? Wire.encode(generator.routerRequest()) : nil
    }
  } body: { input throws(Finding) in
    var router = FuzzedRouter(input)
    try router.run()
  }
}

/// Answers that are still to come under one number.
private struct Owed {
  var count = 0
  /// What was asked since there were none.
  var asked: Set<Locate> = []
}

private struct FuzzedRouter {
  static let stepKinds = 8
  private static let stepsMax = 300

  private var draw: Draw
  private var core: RouterCore
  private var now = Instant(nanoseconds: 10_000_000_000)
  private var planned: Instant?
  private var owed: [PeerID: [UInt64: Owed]] = [:]
  private var lastNonce: UInt64 = 0
  private var lastVersion: UInt64 = 0

  init(_ input: [UInt8]) {
    draw = Draw(input)
    core = RouterCore(
      pid: 3, incarnation: Incarnation(5_000), timing: Timing(), assignment: draw.flag() ? .available : .spread, at: now
    )
  }

  mutating func run() throws(Finding) {
    var steps = 0
    while !draw.isAtEnd, steps < Self.stepsMax {
      try step()
      steps += 1
    }
    try pass(.seconds(30))
    for (peer, numbers) in owed {
      for (number, owed) in numbers {
        try hold(owed.count == 0, "Locate \(number) of \(peer) has \(owed.count) answers too few")
      }
    }
  }

  private mutating func step() throws(Finding) {
    let kind = draw.below(Self.stepKinds)
    let peer = PeerID(UInt32(draw.below(8)))
    switch kind {
    case 0:
      guard let request = try? Wire.decodeRouterRequest(draw.chunk()) else { return }
      try hear(request, from: peer)
    case 1, 2:
      let suspect = draw.flag() ? draw.master() : nil
      try hear(
        .locate(Locate(number: draw.number(), user: draw.name(), suspect: suspect, failures: draw.number32())),
        from: peer)
    case 3:
      let master = draw.master()
      try hear(
        .register(
          Registration(
            master: master, pid: Int32(draw.byte()), requests: draw.endpoint(), timelines: draw.endpoint(),
            log: draw.endpoint(), beat: draw.beat(of: draw.below(8) == 0 ? draw.master() : master))), from: peer)
    case 4:
      let master = draw.master()
      try hear(.beat(draw.beat(of: master)), from: peer)
    case 5:
      let master = draw.master()
      let nonce = draw.flag() ? lastNonce : draw.number()
      try hear(draw.below(4) == 0 ? .leave(master) : .alive(master, nonce: nonce), from: peer)
    case 6: try pass(.milliseconds(Int64(draw.number() % 20_000)))
    default:
      if draw.flag() { try hear(.status(number: draw.number()), from: peer) }
      try turn { $0.onUnroutable(peer, at: $1, into: &$2) }
    }
  }

  private mutating func hear(_ said: RouterRequest, from peer: PeerID) throws(Finding) {
    guard let request = try? Wire.decodeRouterRequest(Wire.encode(said)) else { return }
    if case .locate(let locate) = request {
      // What is over now is answered before.
      try turn { _, _, _ in }
      var owed = owed[peer]?[locate.number] ?? Owed()
      if owed.asked.insert(locate).inserted {
        owed.count += 1
      } else if owed.count < owed.asked.count {
        // One of several questions under this number was answered, and nobody can tell which: whether this one still waits.
        return
      }  // else it waits, and asked again it is the same question
      self.owed[peer, default: [:]][locate.number] = owed
    }
    try turn { $0.onRequest(request, from: peer, at: $1, into: &$2) }
  }

  private mutating func turn(_ body: (inout RouterCore, Instant, inout [RouterAction]) -> Void) throws(Finding) {
    var actions: [RouterAction] = []
    core.onTimers(at: now, planned: planned, into: &actions)
    body(&core, now, &actions)
    planned = core.nextWake
    if let planned { try hold(planned > now, "would be woken at once, again and again") }
    for action in actions {
      guard case .send(let reply, let peer) = action else { continue }
      try hold((try? Wire.decodeRouterReply(Wire.encode(reply))) == reply, "what nobody understands: \(reply)")
      switch reply {
      case .located(let number, _), .unavailable(let number, _), .refused(let number, _):
        guard var owed = owed[peer]?[number], owed.count > 0 else {
          // Registrations may be refused under a number that nobody gave.
          if case .refused = reply { continue }
          throw Finding("\(peer) is answered \(number), which it did not ask")
        }
        owed.count -= 1
        if owed.count == 0 { owed.asked = [] }
        self.owed[peer]![number] = owed
      case .probe(let nonce): lastNonce = nonce
      case .roster(let roster):
        try hold(roster.version >= lastVersion, "roster \(roster.version) after \(lastVersion)")
        lastVersion = roster.version
      case .status, .registerAgain: break
      }
    }
  }

  private mutating func pass(_ interval: Interval) throws(Finding) {
    let end = now + interval
    var wakes = 0
    while let wake = planned, wake <= end {
      now = max(now, wake)
      try turn { _, _, _ in }
      wakes += 1
      try hold(wakes < 50_000, "woken 50,000 times in \(interval)")
    }
    now = end
    try turn { _, _, _ in }
  }
}
