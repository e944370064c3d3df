// The simulated network: connections as ZeroMQ has them, between hosts that may be cut off from each other.
//
// Nothing is lost within a living connection (it is TCP); a connection that dies takes what was in flight with it, and each
// side learns of it at once, or never: then only by a reset when it sends something, or by ZeroMQ's keep-alive where the product
// has that (where one only listens). Publishers drop at their high-water mark. Each link has a latency and a jitter of its own.

import Model
import Wire

/// A frame on its way.
struct Frame {
  let link: Link
  let toListener: Bool
  let generation: Int
  let bytes: [UInt8]
}

/// A connection that a process keeps up: a DEALER's or a SUB's side and, while it is up, the ROUTER's or PUB's.
final class Link {
  enum Kind: Int {
    case clientRouter, masterRouter, session, timelines, mesh, supervision

    /// Its dialer only listens, and has ZeroMQ ping the other side.
    var hasKeepAlive: Bool { self == .timelines || self == .mesh }
  }

  let id: Int
  let kind: Kind
  unowned(unsafe) let dialer: Process
  let address: String
  /// What the network's latency and jitter come to on this link, in percent.
  var stretch: Int64 = 100
  var jitterStretch: Int64 = 100
  /// The dialer still wants it.
  var isOpen = true
  /// The connection exists. What either side believes may differ.
  var isUp = false
  var dialerBelieves = false
  /// The dialer has sent something on a connection that is no more: it learns as soon as the way is open.
  var isProvoked = false
  var listener: Process?
  /// What the listener knows the dialer by.
  var peer = PeerID(0)
  /// Frames of another generation are lost.
  var generationToListener = 0
  var generationToDialer = 0
  var generations = 0
  var lastToListener = Instant.zero
  var lastToDialer = Instant.zero
  /// Sent and not yet read.
  var queuedToListener = 0
  var queuedToDialer = 0
  /// Held up by a partition, in order.
  var stalledToListener: [[UInt8]] = []
  var stalledToDialer: [[UInt8]] = []
  /// Not sent yet, because there is no connection.
  var outbox: [[UInt8]] = []
  /// A SUB's subscriptions, as the dialer wants them and as the listener knows them.
  var wanted: [Topic] = []
  var subscribed: Set<Topic> = []
  var wantsAll = false
  var isSubscribedToAll = false

  init(id: Int, kind: Kind, dialer: Process, address: String) {
    self.id = id
    self.kind = kind
    self.dialer = dialer
    self.address = address
  }

  /// A frame has been read by the process that it was for.
  func read(_ frame: Frame) {
    if frame.toListener {
      if frame.generation == generationToListener { queuedToListener -= 1 }
    } else if frame.generation == generationToDialer {
      queuedToDialer -= 1
    }
  }
}

/// All links, and which hosts reach which.
final class Network {
  unowned(unsafe) let world: World
  private(set) var links: [Link] = []
  /// Who listens where.
  private var listeners: [String: Process] = [:]
  private var nextLink = 0
  private let hosts: Int
  /// How many faults block the way from one host to another.
  private var blocks: [Int]
  /// When the way from one host to the other was last in trouble.
  private var troubleUntil: [Instant]
  private var random: SplitMix64
  /// While it lasts, frames take many times longer.
  var isCongested = false

  init(world: World, hosts: Int, random: SplitMix64) {
    self.world = world
    self.hosts = hosts
    self.random = random
    blocks = Array(repeating: 0, count: hosts * hosts)
    troubleUntil = Array(repeating: .zero, count: hosts * hosts)
  }

  // MARK: Ways between hosts

  private func isBlocked(_ from: Int, _ to: Int) -> Bool { from != to && blocks[from * hosts + to] > 0 }

  /// Since when the two hosts have reached each other; `.distantFuture` if they don't.
  func wellSince(_ one: Int, _ other: Int) -> Instant {
    if isBlocked(one, other) || isBlocked(other, one) || isCongested { return .distantFuture }
    return max(troubleUntil[one * hosts + other], troubleUntil[other * hosts + one], congestionEnded)
  }
  var congestionEnded = Instant.zero

  /// What is sent on a connection that the other side has forgotten is answered with a reset.
  private func provoke(_ link: Link) {
    guard !link.isProvoked, let listener = link.listener else { return }
    link.isProvoked = true
    if !isBlocked(link.dialer.host, listener.host), !isBlocked(listener.host, link.dialer.host) {
      reset(link, listener)
    }
  }

  private func reset(_ link: Link, _ listener: Process) {
    let generation = link.generations
    let roundTrip =
      latency(from: link.dialer.host, to: listener.host, link)
      + latency(
        from: listener.host, to: link.dialer.host, link)
    world.after(roundTrip) { [self] in if link.generations == generation { learnDialer(link) } }
  }

  func block(_ from: Int, _ to: Int) {
    guard from != to else { return }
    blocks[from * hosts + to] += 1
    for link in links where link.isUp && random.percent(40) {
      guard let listener = link.listener, crosses(link, listener, from, to) else { continue }
      // Keep-alive finds out after a while.
      let generation = link.generations
      world.after(random.interval(.milliseconds(300) ... .seconds(4))) { [self] in
        guard link.isUp, link.generations == generation, isBlocked(from, to) else { return }
        cut(link, dialerLearns: random.percent(70), listenerLearns: random.percent(70))
      }
    }
  }

  func unblock(_ from: Int, _ to: Int) {
    guard from != to, blocks[from * hosts + to] > 0 else { return }
    blocks[from * hosts + to] -= 1
    troubleUntil[from * hosts + to] = world.now
    guard blocks[from * hosts + to] == 0 else { return }
    for link in links where !link.isUp && link.isProvoked && link.dialerBelieves {
      if let listener = link.listener, crosses(link, listener, from, to) { reset(link, listener) }
    }
    for link in links {
      guard let listener = link.listener, link.isUp, crosses(link, listener, from, to) else { continue }
      if random.percent(30), !(link.stalledToListener.isEmpty && link.stalledToDialer.isEmpty) {
        cut(link, dialerLearns: true, listenerLearns: random.percent(80))
      } else {
        resume(link, listener)
      }
    }
  }

  private func crosses(_ link: Link, _ listener: Process, _ from: Int, _ to: Int) -> Bool {
    link.dialer.host == from && listener.host == to || listener.host == from && link.dialer.host == to
  }

  private func resume(_ link: Link, _ listener: Process) {
    if !isBlocked(link.dialer.host, listener.host) {
      let frames = link.stalledToListener
      link.stalledToListener = []
      link.queuedToListener -= frames.count
      for bytes in frames { transmit(bytes, on: link, toListener: true) }
    }
    if !isBlocked(listener.host, link.dialer.host) {
      let frames = link.stalledToDialer
      link.stalledToDialer = []
      link.queuedToDialer -= frames.count
      for bytes in frames { transmit(bytes, on: link, toListener: false) }
    }
  }

  /// Every way is open. Who has not noticed a broken connection has to find out as in life.
  func heal() {
    for from in 0..<hosts { for to in 0..<hosts { while isBlocked(from, to) { unblock(from, to) } } }
    if isCongested { congestionEnded = world.now }
    isCongested = false
  }

  /// The first connection whose dialer has yet to find out by its keep-alive that it is gone.
  var firstUnnoticed: Link? {
    links.first { $0.kind.hasKeepAlive && $0.isOpen && !$0.isUp && $0.dialerBelieves }
  }

  // MARK: Listening and dialling

  func listen(_ process: Process, on address: String) {
    precondition(listeners[address] == nil, "\(address) is taken by \(listeners[address]!.name)")
    listeners[address] = process
  }

  func dial(_ kind: Link.Kind, from dialer: Process, to address: String) -> Link {
    let link = Link(id: nextLink, kind: kind, dialer: dialer, address: address)
    nextLink += 1
    if world.settings.network.differs, kind != .supervision {
      // Most are alike; some are far slower, so that what was sent later on another link comes first.
      link.stretch = Int64(random.percent(15) ? random.int(300...1_500) : random.int(50...200))
      link.jitterStretch = Int64(random.int(0...300))
    }
    links.append(link)
    world.after(latency(from: dialer.host, to: dialer.host, link) * 3) { [self] in attempt(link) }
    return link
  }

  /// The dialer no longer wants it.
  func close(_ link: Link) {
    guard link.isOpen else { return }
    link.isOpen = false
    cut(link, dialerLearns: false, listenerLearns: true)
    links.removeAll { $0 === link }
  }

  private func again(_ link: Link, in pause: Interval) {
    world.after(pause) { [self] in attempt(link) }
  }

  private func attempt(_ link: Link) {
    guard link.isOpen, !link.isUp, link.dialer.life != .dead else { return }
    if link.dialer.life == .frozen { return again(link, in: .milliseconds(100)) }
    guard let listener = listeners[link.address], listener.life != .dead else {
      // Refused. The program hears of it; ZeroMQ tries again.
      if let host = world.host(ofAddress: link.address), isBlocked(link.dialer.host, host) {
        return again(link, in: .milliseconds(250))
      }
      link.dialer.onLinkLost(link)
      if link.isOpen { again(link, in: random.interval(.milliseconds(20) ... .milliseconds(100))) }
      return
    }
    if isBlocked(link.dialer.host, listener.host) || isBlocked(listener.host, link.dialer.host) {
      return again(link, in: .milliseconds(250))
    }
    if listener.life == .frozen { return again(link, in: .milliseconds(100)) }
    link.isUp = true
    link.dialerBelieves = true
    link.isProvoked = false
    link.listener = listener
    link.generations += 1
    link.generationToDialer = link.generations
    link.generationToListener = link.generations
    link.queuedToDialer = 0
    link.queuedToListener = 0
    link.stalledToDialer = []
    link.stalledToListener = []
    link.subscribed = []
    link.isSubscribedToAll = false
    listener.accept(link)
    world.note([link.dialer, listener], 1, link.id) { "connected (\(link.kind))" }
    if world.defect != .loseSubscriptions || link.generations == 1 {
      for topic in link.wanted { sendSubscription(true, topic, on: link) }
    }
    if link.wantsAll {
      world.after(latency(from: link.dialer.host, to: listener.host, link)) {
        [generation = link.generations] in
        if link.isUp, link.generations == generation { link.isSubscribedToAll = true }
      }
    }
    let waiting = link.outbox
    link.outbox = []
    for bytes in waiting { transmit(bytes, on: link, toListener: true) }
  }

  // MARK: Breaking

  /// The connection is gone, with what was in flight. A side that does not learn of it finds out when it sends something, or by
  /// its keep-alive, or never.
  func cut(
    _ link: Link, dialerLearns: Bool, listenerLearns: Bool, flushingToDialer: Bool = false,
    flushingToListener: Bool = false
  ) {
    guard link.isUp, let listener = link.listener else { return }
    link.isUp = false
    link.generations += 1
    let generation = link.generations
    if !flushingToListener { link.generationToListener = generation }
    if !flushingToDialer { link.generationToDialer = generation }
    // What a partition holds up is sent again and again, and will be answered with a reset.
    if !dialerLearns, !link.stalledToListener.isEmpty { provoke(link) }
    link.stalledToListener = []
    link.stalledToDialer = []
    if link.kind == .masterRouter { link.dialer.reachableSince = world.now }
    let peer = link.peer
    if dialerLearns || link.kind.hasKeepAlive {
      let back = latency(from: listener.host, to: link.dialer.host, link)
      let time =
        dialerLearns
        ? max(world.now + back, link.lastToDialer) : world.now + random.interval(.seconds(1) ... .seconds(10))
      world.at(time) { [self] in
        if link.generations == generation { learnDialer(link) }
      }
    }
    if listenerLearns {
      let forth = latency(from: link.dialer.host, to: listener.host, link)
      world.at(max(world.now + forth, link.lastToListener)) { listener.forget(peer, link) }
    }
    let isDialerLeft = !dialerLearns && link.isOpen && listener.life != .dead && link.dialer.life != .dead
    let isListenerLeft = !listenerLearns && listener.life != .dead
    if isDialerLeft || isListenerLeft { world.meet(.connectionLostUnnoticed) }
  }

  private func learnDialer(_ link: Link) {
    guard link.isOpen, !link.isUp, link.dialerBelieves else { return }
    link.dialerBelieves = false
    world.note([link.dialer], 2, link.id) { "lost the connection (\(link.kind))" }
    link.dialer.onLinkLost(link)
    if link.isOpen { again(link, in: random.interval(.milliseconds(20) ... .milliseconds(100))) }
  }

  /// A process died; its kernel closes its connections, unless its host lost its power.
  func died(_ process: Process, withoutAWord: Bool) {
    listeners = listeners.filter { $0.value !== process }
    let flushes = random.percent(50)
    for link in links where link.dialer === process || link.listener === process && link.isUp {
      guard let listener = link.listener ?? Optional(process) else { continue }
      let other = link.dialer === process ? listener : link.dialer
      let learns = !withoutAWord && !isBlocked(process.host, other.host)
      if link.dialer === process {
        cut(link, dialerLearns: false, listenerLearns: learns, flushingToListener: flushes && learns)
        link.isOpen = false
      } else {
        cut(link, dialerLearns: learns, listenerLearns: false, flushingToDialer: flushes && learns)
      }
    }
    links.removeAll { $0.dialer === process }
  }

  // MARK: Sending

  /// How many frames a dialer keeps for a connection that is not there.
  private static func outboxLimit(_ kind: Link.Kind) -> Int { kind == .session ? 1_000 : 16 }

  /// From the dialer. Kept while there is no connection.
  func send(_ bytes: [UInt8], on link: Link) {
    guard link.isOpen else { return }
    guard link.dialerBelieves else {
      if link.outbox.count < Self.outboxLimit(link.kind) { link.outbox.append(bytes) }
      return
    }
    guard link.isUp else { return provoke(link) }
    transmit(bytes, on: link, toListener: true)
  }

  /// From the listener.
  func reply(_ bytes: [UInt8], on link: Link, peer: PeerID, from listener: Process) {
    guard link.isUp, link.peer == peer else {
      // It believes in a connection that is no more, and is told if the way is open.
      guard !isBlocked(listener.host, link.dialer.host), !isBlocked(link.dialer.host, listener.host) else { return }
      let roundTrip = latency(from: listener.host, to: link.dialer.host, link) * 2
      return world.after(roundTrip) { listener.forget(peer, link) }
    }
    transmit(bytes, on: link, toListener: false)
  }

  func subscribe(_ topic: Topic, on link: Link) {
    guard !link.wanted.contains(topic) else { return }
    link.wanted.append(topic)
    if link.isUp { sendSubscription(true, topic, on: link) }
  }

  func unsubscribe(_ topic: Topic, on link: Link) {
    link.wanted.removeAll { $0 == topic }
    if link.isUp { sendSubscription(false, topic, on: link) }
  }

  private func sendSubscription(_ subscribe: Bool, _ topic: Topic, on link: Link) {
    transmit(Wire.encodeSubscription(subscribe, topic: topic), on: link, toListener: true)
  }

  private func transmit(_ bytes: [UInt8], on link: Link, toListener: Bool) {
    guard let listener = link.listener else { return }
    let (from, to) = toListener ? (link.dialer.host, listener.host) : (listener.host, link.dialer.host)
    if toListener { link.queuedToListener += 1 } else { link.queuedToDialer += 1 }
    world.checkers.limits.onQueued(
      toListener ? link.queuedToListener : link.queuedToDialer, on: link, toListener: toListener)
    if isBlocked(from, to) {
      if toListener { link.stalledToListener.append(bytes) } else { link.stalledToDialer.append(bytes) }
      return
    }
    let earliest = world.now + latency(from: from, to: to, link)
    let time: Instant
    if toListener {
      time = max(earliest, link.lastToListener + Interval(nanoseconds: 1))
      link.lastToListener = time
    } else {
      time = max(earliest, link.lastToDialer + Interval(nanoseconds: 1))
      link.lastToDialer = time
    }
    world.trace.mix(bytes)
    let generation = toListener ? link.generationToListener : link.generationToDialer
    world.queue.push(
      .arrival(Frame(link: link, toListener: toListener, generation: generation, bytes: bytes)), at: time)
  }

  func arrive(_ frame: Frame) {
    let link = frame.link
    guard let listener = link.listener else { return }
    let current = frame.toListener ? link.generationToListener : link.generationToDialer
    guard current == frame.generation else { return }
    let (from, to) = frame.toListener ? (link.dialer, listener) : (listener, link.dialer)
    if link.isUp, isBlocked(from.host, to.host) {
      if frame.toListener {
        link.stalledToListener.append(frame.bytes)
      } else {
        link.stalledToDialer.append(frame.bytes)
      }
      return
    }
    guard to.life != .dead else { return }
    to.enqueue(.frame(frame, link.peer))
  }

  private func latency(from: Int, to: Int, _ link: Link) -> Interval {
    let settings = world.settings.network
    let least = (from == to ? settings.latency / 8 : settings.latency) * link.stretch / 100
    let jitter = settings.jitter.nanoseconds * link.jitterStretch / 100
    var latency = least + Interval(nanoseconds: Int64(random.below(Int(jitter) + 1)))
    if isCongested, from != to { latency = latency * 20 + .milliseconds(Int64(random.below(60))) }
    if link.kind == .mesh { latency = latency + settings.meshLag }
    return latency
  }

  /// The run is over.
  func tearDown() {
    for link in links { link.listener = nil }
    links = []
    listeners = [:]
  }

  /// Everybody's sessions break at once.
  func cutSessions() {
    for link in links where link.isUp && (link.kind == .session || link.kind == .timelines) {
      cut(link, dialerLearns: true, listenerLearns: random.percent(80))
    }
  }

  /// A connection picked at random breaks.
  func cutOne() {
    guard let link = random.pick(links.filter { $0.isUp && $0.kind != .supervision }) else { return }
    world.note([link.dialer], 3, link.id) { "the connection breaks (\(link.kind))" }
    cut(link, dialerLearns: random.percent(75), listenerLearns: random.percent(60))
  }
}
