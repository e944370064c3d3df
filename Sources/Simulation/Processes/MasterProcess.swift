// A master's simulated shell: the loop, the commit thread, the reading thread.

import Core
import Log
import Model
import Wire

final class MasterProcess: Process {
  private enum CommitJob {
    case append(Append)
    case catchUp(after: EventID)
  }

  private(set) var core: MasterCore
  let log: MemoryLog
  private var actions: [MasterAction] = []
  private var next = 0
  private let supervisorName: String
  private var router: Link?
  private var supervisor: Link?
  private var mesh: [MasterIdentity: Link] = [:]
  let registration: Registration
  /// Happens between the next commit and its acknowledgement; for scenarios.
  var beforeAcknowledging: (() -> Void)?
  /// The appends that were ordered and that the commit thread has not begun.
  private var appends = AppendQueue()
  /// The one that it is at, and since when.
  private var append: Append?
  private var appendSince = Instant.zero
  /// What the commit thread has to do, in order.
  private var commitJobs: [CommitJob] = []
  private var isCommitting = false
  /// The same of the reading thread.
  private var readJobs: [() -> Void] = []
  /// The same of the thread that hashes passwords.
  private var passwordJobs: [(PasswordJobID, PasswordJob)] = []

  var identity: MasterIdentity { registration.master }

  init(world: World, name: String, host: Int, pid: Int32, supervisor: String) {
    log = MemoryLog(disk: world.disk.memory)
    supervisorName = supervisor
    let identity = MasterIdentity(name: name, incarnation: Incarnation(UInt64(world.wall(ofHost: host).milliseconds)))
    let suffix = world.settings.usesFreshPorts ? ":\(pid)" : ""
    registration = Registration(
      master: identity, pid: pid, requests: "tcp://\(name)\(suffix)/requests",
      timelines: "tcp://\(name)\(suffix)/timelines", log: "tcp://\(name)\(suffix)/log",
      beat: MasterBeat(master: identity, head: .zero, sessions: 0, commitAge: 0, term: 0, roster: 0))
    core = MasterCore(
      registration: registration, timing: world.settings.timing, assignment: world.settings.assignment,
      random: .seeded(world.random.next()))
    super.init(world: world, name: name, host: host, pid: pid)
  }

  override func start() {
    for address in [registration.requests, registration.timelines, registration.log] {
      world.network.listen(self, on: address)
    }
    router = world.network.dial(.masterRouter, from: self, to: RouterProcess.address)
    supervisor = world.network.dial(.supervision, from: self, to: SupervisorProcess.address(of: supervisorName))
    core.start(at: clock, into: &actions)
    onThread(after: world.disk.readLatency()) { [self] in load() }
    indexNow()
    finishActions()
    planNext()
  }

  private func load() {
    if world.disk.stall > .zero { return onThread(after: world.disk.stall) { [self] in load() } }
    do {
      var snapshot = try log.snapshot()
      if world.defect == .forgetRequestIDs { snapshot.windows = [] }
      if world.defect == .startWithoutCatchingUp, Int(snapshot.upTo.rawValue) < world.disk.memory.durable.count {
        var current = DerivedState()
        for event in world.disk.memory.durable { current.apply(event) }
        let head = current.snapshot
        snapshot = Snapshot(
          upTo: head.upTo, time: head.time, names: head.names, credentials: head.credentials,
          revocations: head.revocations,
          following: snapshot.following + head.names.dropFirst(snapshot.names.count).map { _ in [] },
          posts: snapshot.posts,
          newestByAuthor: snapshot.newestByAuthor + head.names.dropFirst(snapshot.names.count).map { _ in [] },
          windows: head.windows)
      }
      let loaded = snapshot
      enqueue(.callback { [self] in core.onSnapshot(loaded, at: clock, into: &actions) })
    } catch {
      world.note([self], 31, 0) { "can't load: \(error)" }
      world.exit(self)
    }
  }

  /// The commit thread writes the derived tables now and then.
  private func indexNow() {
    onThread(after: world.settings.disk.indexEvery) { [self] in
      if core.isServing, append == nil, world.disk.stall == .zero { _ = try? log.index(limit: 256) }
      indexNow()
    }
  }

  override var nextWake: Instant? { peek(&core) { $0.nextWake } }

  override func terminate() {
    enqueue(.callback { [self] in core.stop(at: clock, into: &actions) })
  }

  override func onDied() { world.disk.died(self) }

  override func abandon() {
    super.abandon()
    commitJobs = []
    readJobs = []
    beforeAcknowledging = nil
    router = nil
    supervisor = nil
    mesh = [:]
  }

  // MARK: A turn

  override func onTimers(at now: Instant, planned: Instant?) { core.onTimers(at: now, into: &actions) }

  override func handle(_ input: Input, at now: Instant) {
    switch input {
    case .callback(let body): body()
    case .lost: break
    case .frame(let frame, let peer):
      let link = frame.link
      switch link.kind {
      case .session:
        onRequest(frame.bytes, from: peer, link, at: now)
      case .timelines:
        guard let (subscribes, topic) = Wire.decodeSubscription(frame.bytes) else { return }
        if subscribes {
          link.subscribed.insert(topic)
          core.onSubscribed(topic, into: &actions)
        } else {
          link.subscribed.remove(topic)
        }
      case .masterRouter:
        guard let reply = world.decoded({ () throws(WireError) in try Wire.decodeRouterReply(frame.bytes) }) else {
          return
        }
        core.onRouter(reply, at: now, into: &actions)
      case .mesh where link.dialer === self:
        guard link.isOpen,
          let batch = world.decoded({ () throws(WireError) in try Wire.decodeLogBatch(frame.bytes) })
        else { return }
        core.onLogBatch(LogBatch(events: forgetting(batch.events)), at: now, into: &actions)
      case .mesh, .supervision, .clientRouter: break
      }
    }
  }

  private func onRequest(_ bytes: [UInt8], from peer: PeerID, _ link: Link, at now: Instant) {
    guard bytes.count <= Limits.requestBytes else {
      // ZeroMQ drops the connection.
      if link.dialer is StrangerProcess { world.meet(.strangersGarbage) }
      world.network.cut(link, dialerLearns: true, listenerLearns: true)
      return
    }
    do throws(WireError) {
      var request = try Wire.decodeRequest(bytes)
      world.note([link.dialer, self], 30, bytes.count) { "\(request.number) \(request.body)" }
      if world.defect == .answerBehindTheCursor, case .hello(var hello) = request.body {
        hello.newest = .zero
        request.body = .hello(hello)
      }
      if case .hello(let hello) = request.body {
        var claims: TokenClaims?
        if case .token(let token) = hello.proof {
          claims = SimulatedCrypto.open(token, believing: world.defect == .acceptAnyToken)
        }
        core.onHello(
          hello, number: request.number, from: peer, address: .loopback, claims: claims, at: now, wall: wall,
          into: &actions)
      } else {
        core.onRequest(request, from: peer, at: now, into: &actions)
      }
    } catch {
      world.note([link.dialer, self], 30, -1) { "malformed: \(error)" }
      if link.dialer is StrangerProcess { world.meet(.strangersGarbage) }
      let refusal = Refusal(.invalid, "the message is \(error.explanation)")
      actions.append(.reply(Reply(number: Wire.requestNumber(in: bytes.span.bytes), body: .refused(refusal)), to: peer))
      core.onMalformed(from: peer, into: &actions)
    }
  }

  private func forgetting(_ events: [Event]) -> [Event] {
    guard world.defect == .forgetRequestIDs else { return events }
    return events.map { event in
      var event = event
      event.request = nil
      return event
    }
  }

  override func endTurn(at now: Instant) {
    core.flush(at: now, wall: wall, into: &actions)
    finishActions()
  }

  override func finishActions() {
    if world.defect == .publishOutOfOrder, next == 0 { swapPublished() }
    while next < actions.count {
      guard mayAct() else { return }
      let action = actions[next]
      next += 1
      carryOut(action)
    }
    actions.removeAll(keepingCapacity: true)
    next = 0
    world.checkers.log.onHead(peek(&core) { $0.head }, of: self)
    // Not at each turn, for it looks at every session.
    if world.step & 15 == 0 { world.checkers.limits.onMaster(peek(&core) { $0.load }, of: self) }
  }

  private func swapPublished() {
    var last: Int?
    for index in actions.indices {
      guard case .publish(let post, let targets) = actions[index] else { continue }
      if let former = last, case .publish(let earlier, let places) = actions[former],
        places.map(\.topic) == targets.map(\.topic)
      {
        actions[former] = .publish(post, to: places)
        actions[index] = .publish(earlier, to: targets)
        last = nil
      } else {
        last = index
      }
    }
  }

  private func carryOut(_ action: MasterAction) {
    switch action {
    case .reply(let reply, let peer):
      if case .refused(let refusal) = reply.body, refusal.code == .tooManyAttempts { world.attemptsRefused = world.now }
      send(reply, to: peer)
    case .welcome(var welcome, let claims, let number, let peer):
      welcome.token = claims.map(SimulatedCrypto.seal)
      send(Reply(number: number, body: .welcome(welcome)), to: peer)
    case .password(let id, let job):
      passwordJobs.append((id, job))
      if passwordJobs.count == 1 { hash() }
    case .publish(let post, let targets):
      let encoded = Wire.encodeUpdateEntry(post)
      for target in targets { publish(target, encoded, post.id) }
    case .mark(let position): publish(position, [], .zero)
    case .append(let append):
      if world.defect == .broadcastBeforeCommit { broadcast(append.events) }
      if world.defect == .acknowledgeBeforeCommit { tell(.appended, 1) }
      commit(.append(append))
    case .catchUp(let after): commit(.catchUp(after: after))
    case .read(let id, let query): read { [self] in waitForDisk { [self] in answer(id, query) } }
    case .lookUp(let requests, let upTo): read { [self] in waitForDisk { [self] in lookUp(requests, upTo: upTo) } }
    case .broadcast(let events): broadcast(events)
    case .toRouter(let request):
      guard let router else { return }
      world.network.send(Wire.encode(request), on: router)
    case .toSupervisor(let beat):
      guard let supervisor else { return }
      world.network.send(Wire.encode(SupervisorRequest.beat(beat)), on: supervisor)
    case .joinMesh(let member):
      let link = world.network.dial(.mesh, from: self, to: member.log)
      link.wantsAll = true
      precondition(mesh[member.master] == nil, "\(name) joins \(member.master) twice")
      mesh[member.master] = link
    case .leaveMesh(let member):
      guard let link = mesh.removeValue(forKey: member.master) else {
        preconditionFailure("\(name) leaves \(member.master), which it has not joined")
      }
      world.network.close(link)
    case .note(let note):
      world.note([self], 33, 0) { note.told ?? "\(note)" }
      if let witness = world.witness, let text = note.told { witness(name, text) }
    case .exit: world.exit(self)
    }
  }

  private func send(_ reply: Reply, to peer: PeerID) {
    var reply = reply
    if reply.body.acknowledges, let strike = beforeAcknowledging {
      beforeAcknowledging = nil
      // Should it live on, it goes on here.
      next -= 1
      return strike()
    }
    guard let link = peers[peer] else {
      core.onUnreachable(peer, into: &actions)
      return
    }
    if link.isUp, link.peer == peer, link.queuedToDialer >= world.settings.network.repliesQueued {
      core.onUnreachable(peer, into: &actions)
      return
    }
    if world.defect == .ignoreALostTail, case .pong(var pong) = reply.body {
      pong.topics = []
      reply.body = .pong(pong)
    }
    if world.defect == .readWithoutWhatWasMissed, case .page(var page) = reply.body {
      page.posts = []
      reply.body = .page(page)
    }
    world.note([self, link.dialer], 32, Int(truncatingIfNeeded: reply.number)) { "\(reply.number) \(reply.body)" }
    world.checkers.acknowledgements.onReply(reply, from: self, to: link.dialer)
    world.network.reply(Wire.encode(reply), on: link, peer: peer, from: self)
  }

  private func publish(_ position: Watching, _ entry: [UInt8], _ id: EventID) {
    var bytes: [UInt8]?
    defer { if bytes == nil, !entry.isEmpty { world.meet(.postBeforeTheSubscription) } }
    for link in subscribers where link.kind == .timelines && link.isUp && link.subscribed.contains(position.topic) {
      guard link.queuedToDialer < world.settings.network.updatesQueued else {
        bytes = bytes ?? []
        world.meet(.updateDroppedAtTheMark)
        link.dialer.lossAt = world.now
        world.note([self, link.dialer], 34, Int(id.rawValue)) { "drops update \(position.sequence)" }
        continue
      }
      if bytes?.isEmpty != false {
        bytes = Wire.encodeUpdateHeader(topic: position.topic, sequence: position.sequence) + entry
      }
      world.note([self, link.dialer], 35, Int(id.rawValue)) {
        entry.isEmpty ? "marker \(position.sequence)" : "update \(position.sequence): post \(id)"
      }
      world.network.reply(bytes!, on: link, peer: link.peer, from: self)
    }
  }

  private func broadcast(_ events: [Event]) {
    let bytes = Wire.encode(LogBatch(events: events))
    for link in subscribers where link.kind == .mesh && link.isUp && link.isSubscribedToAll {
      guard link.queuedToDialer < world.settings.network.updatesQueued else {
        world.meet(.meshBatchLost)
        link.dialer.lossAt = world.now
        continue
      }
      world.network.reply(bytes, on: link, peer: link.peer, from: self)
    }
  }

  // MARK: The commit thread

  private func commit(_ job: CommitJob) {
    commitJobs.append(job)
    goOnCommitting()
  }

  private func commitDone() {
    isCommitting = false
    goOnCommitting()
  }

  /// Takes what waits up to the next catch-up, and carries it out before that.
  private func goOnCommitting() {
    guard !isCommitting else { return }
    while case .append(let append) = commitJobs.first {
      commitJobs.removeFirst()
      appends.put(append)
    }
    if let next = appends.take() {
      isCommitting = true
      world.checkers.limits.onCommit(next.events, by: self)
      if next.commits > 1 { world.meet(.commitsBecameOne) }
      append = next
      appendSince = world.now
      world.disk.takeTurn(self)
    } else if case .catchUp(let position) = commitJobs.first {
      commitJobs.removeFirst()
      isCommitting = true
      waitForDisk { [self] in catchUp(position) }
    }
  }

  /// It is this master's turn to append.
  func onTurn() {
    onThread(after: .microseconds(5)) { [self] in write() }
  }

  private func write() {
    if world.disk.stall > .zero { return onThread(after: world.disk.stall) { [self] in write() } }
    guard let job = append else { preconditionFailure("\(name) has the turn and nothing to append") }
    do {
      switch try log.begin(job.events, after: job.after) {
      case .begun:
        onThread(after: world.disk.commitLatency()) { [self] in sync() }
        world.disk.began()
      case .behind where world.defect == .appendWithoutLooking && !job.events.contains(where: \.createsAccount):
        let head = try log.head()
        let events = job.events.enumerated().map { offset, event in
          Event(id: head.advanced(by: offset + 1), time: event.time, request: event.request, change: event.change)
        }
        _ = try log.begin(events, after: head)
        onThread(after: world.disk.commitLatency()) { [self] in sync() }
      case .behind:
        world.meet(.appendWasBehind)
        let events = try log.read(after: job.after, limit: Limits.readEvents)
        world.disk.endTurn(self)
        finishAppend(.behind(forgetting(events)))
      case .busy: preconditionFailure("\(name) has the turn, and another append is under way")
      }
    } catch {
      if case .full = error { world.meet(.diskFull) } else { world.meet(.diskFailed) }
      world.disk.endTurn(self)
      finishAppend(.failed("\(error)"))
    }
  }

  private func sync() {
    if world.disk.stall > .zero { return onThread(after: world.disk.stall) { [self] in sync() } }
    do throws(LogError) {
      try log.sync()
      world.observeLog()
      world.disk.endTurn(self)
      finishAppend(.appended)
    } catch {
      world.meet(.diskFailed)
      world.disk.endTurn(self)
      finishAppend(.failed("\(error)"))
    }
  }

  private func finishAppend(_ outcome: CommitOutcome) {
    guard let done = append else { preconditionFailure("\(name) ends an append that it has not begun") }
    append = nil
    if outcome == .appended {
      appends.noteAppended(done, after: world.now - appendSince)
    } else {
      if !appends.isEmpty || !commitJobs.isEmpty { world.meet(.commitsGivenUp) }
      appends.drop(after: done)
    }
    // The defect: the loop has heard of it before it was done, and does not again.
    if world.defect != .acknowledgeBeforeCommit { tell(outcome, done.commits) }
    commitDone()
  }

  private func tell(_ outcome: CommitOutcome, _ count: Int) {
    onThread(after: .microseconds(20)) { [self] in
      enqueue(.callback { [self] in core.onCommit(outcome, of: count, at: clock, wall: wall, into: &actions) })
    }
  }

  // MARK: The thread that hashes passwords

  private func hash() {
    onThread(after: world.random.interval(world.settings.passwordCost)) { [self] in
      let (id, job) = passwordJobs.removeFirst()
      if !passwordJobs.isEmpty { hash() }
      var outcome = world.random.percent(1) ? .failed("not enough memory") : SimulatedCrypto.carryOut(job)
      if world.defect == .acceptAnyPassword, outcome == .wrong { outcome = .right }
      enqueue(.callback { [self] in core.onPassword(id, outcome, at: clock, into: &actions) })
    }
  }

  // MARK: The reading thread

  private func read(_ job: @escaping () -> Void) {
    readJobs.append(job)
    if readJobs.count == 1 { job() }
  }

  private func readDone() {
    readJobs.removeFirst()
    readJobs.first?()
  }

  private func waitForDisk(_ job: @escaping () -> Void) {
    onThread(after: world.disk.stall + world.disk.readLatency()) { [self] in
      if world.disk.stall > .zero { waitForDisk(job) } else { job() }
    }
  }

  private func catchUp(_ position: EventID) {
    let outcome: ReadOutcome<[Event]>
    var more = false
    do throws(LogError) {
      let limit = world.settings.disk.readEvents
      let events = try log.read(after: position, limit: limit)
      more = events.count == limit
      outcome = .read(forgetting(events))
    } catch { outcome = .failed("\(error)") }
    onThread(after: .microseconds(20)) { [self, more] in
      enqueue(.callback { [self] in core.onCatchUp(outcome, more: more, at: clock, into: &actions) })
    }
    commitDone()
  }

  private func answer(_ id: ReadID, _ query: LogQuery) {
    let outcome: ReadOutcome<[StoredPost]>
    var more = false
    do throws(LogError) {
      switch query {
      case .posts(let ids): outcome = .read(try log.posts(withIDs: ids))
      case .range(let authors, let range, let upTo, let limit):
        let wanted: PostRange
        switch range {
        case .before(let end): wanted = .before(end)
        case .after(let start): wanted = .after(start)
        }
        let found = try log.posts(by: authors, in: wanted, upTo: upTo, limit: limit)
        more = found.more
        outcome = .read(found.posts)
      }
    } catch { outcome = .failed("\(error)") }
    onThread(after: .microseconds(20)) { [self, more] in
      enqueue(.callback { [self] in core.onRead(id, outcome, more: more, into: &actions) })
    }
    readDone()
  }

  private func lookUp(_ requests: [RequestID: EventID], upTo: EventID) {
    let outcome: ReadOutcome<[RequestID: EventID]>
    do throws(LogError) {
      var events = try log.events(of: requests, upTo: upTo)
      if !events.isEmpty { world.meet(.oldRepeatLookedUp) }
      if world.defect == .lookUpAnotherEvent { events = events.mapValues(\.next) }
      outcome = .read(events)
    } catch { outcome = .failed("\(error)") }
    onThread(after: .microseconds(20)) { [self] in
      enqueue(.callback { [self] in core.onLookUp(outcome, into: &actions) })
    }
    readDone()
  }
}

extension Reply.Body {
  fileprivate var acknowledges: Bool {
    switch self {
    case .done, .doneEach: true
    default: false
    }
  }
}

extension Event {
  /// The core itself stops when an account that it created is not there.
  fileprivate var createsAccount: Bool { if case .accountCreated = change { true } else { false } }
}
