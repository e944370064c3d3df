// The router's simulated shell.

import Core
import Model
import Wire

final class RouterProcess: Process {
  static let address = "tcp://router:3010"
  private(set) var core: RouterCore
  private var actions: [RouterAction] = []
  private var next = 0
  private var nextBeat: Instant = .zero
  private var supervisor: Link?
  private let supervisorName: String

  init(world: World, name: String, host: Int, pid: Int32, supervisor: String) {
    // Filled in with the process's own clock below.
    core = RouterCore(
      pid: pid, incarnation: Incarnation(0), timing: world.settings.timing, assignment: world.settings.assignment,
      at: .zero)
    supervisorName = supervisor
    super.init(world: world, name: name, host: host, pid: pid)
  }

  override func start() {
    core = RouterCore(
      pid: pid, incarnation: incarnation, timing: world.settings.timing, assignment: world.settings.assignment,
      at: clock)
    nextBeat = clock
    world.network.listen(self, on: Self.address)
    supervisor = world.network.dial(.supervision, from: self, to: SupervisorProcess.address(of: supervisorName))
    planNext()
  }

  override var nextWake: Instant? { min(peek(&core) { $0.nextWake } ?? .distantFuture, nextBeat) }

  override func onTimers(at now: Instant, planned: Instant?) {
    core.onTimers(at: now, planned: planned, into: &actions)
    if nextBeat <= now {
      nextBeat = now.next(world.settings.timing.supervisionBeat)
      let beat = ChildBeat(name: name, pid: pid, incarnation: incarnation, commitAge: 0)
      if let supervisor { world.network.send(Wire.encode(SupervisorRequest.beat(beat)), on: supervisor) }
    }
  }

  override func handle(_ input: Input, at now: Instant) {
    guard case .frame(let frame, let peer) = input else { return }
    if frame.link.dialer is StrangerProcess {
      // Dropped, and the peer shut out. By accident it may be a message, but not one of which the stranger is to be told.
      _ = try? Wire.decodeRouterRequest(frame.bytes)
      return world.meet(.strangersGarbage)
    }
    guard let request = world.decoded({ () throws(WireError) in try Wire.decodeRouterRequest(frame.bytes) }) else {
      return
    }
    world.note([frame.link.dialer, self], 10, frame.bytes.count) { "\(request)" }
    if world.defect == .returningMasterTakesTheChair, case .register(let registration) = request,
      let sitting = core.status.masters.first(where: { $0.state == .available }),
      sitting.master.name != registration.master.name
    {
      core.onRequest(.leave(sitting.master), from: peer, at: now, into: &actions)
    }
    core.onRequest(request, from: peer, at: now, into: &actions)
    if world.defect == .believeASuspicion, case .locate(let locate) = request, locate.suspect != nil,
      case .send(.probe, let asked)? = actions.last
    {
      actions.removeLast()
      core.onUnroutable(asked, at: now, into: &actions)
    }
  }

  override func abandon() {
    super.abandon()
    supervisor = nil
  }

  override func endTurn(at now: Instant) { finishActions() }

  override func finishActions() {
    while next < actions.count {
      guard mayAct() else { return }
      let action = actions[next]
      next += 1
      switch action {
      case .send(let reply, let peer):
        guard let link = peers[peer] else {
          core.onUnroutable(peer, at: clock, into: &actions)
          continue
        }
        if link.isUp, link.peer == peer, link.queuedToDialer >= world.settings.network.repliesQueued { continue }
        world.note([self, link.dialer], 11, Int(peer.rawValue)) { "\(reply)" }
        world.network.reply(Wire.encode(reply), on: link, peer: peer, from: self)
      case .note(let note):
        world.note([self], 12, 0) { note.told }
        world.witness?(name, note.told)
        world.checkers.chair.onNote(note, by: self)
      }
    }
    actions.removeAll(keepingCapacity: true)
    next = 0
  }
}
