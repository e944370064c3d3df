// Checkers of the cluster itself: processes, the chair, limits.

import Core
import Model

/// Never two processes under one name; nobody healthy is killed; a master that died is not started before `respawn_delay`.
final class ProcessChecker {
  private unowned(unsafe) let world: World
  private(set) var kills = 0
  /// When supervisors have seen masters die that have not been started again.
  private var deaths: [String: Instant] = [:]

  init(world: World) { self.world = world }

  func onSpawn(_ name: String, by supervisor: SupervisorProcess) {
    if let running = world.locks[name], running.life != .dead {
      world.fail(
        "never two under one name", "\(supervisor.name) starts \(name), and \(running.pid) runs under that name",
        [supervisor, running])
    }
    if let death = deaths.removeValue(forKey: name), world.now - death < world.settings.timing.respawnDelay {
      world.fail(
        "a dead master waits for respawn_delay",
        "\(supervisor.name) starts \(name) \((world.now - death).milliseconds) ms after its death", [supervisor])
    }
  }

  func onDeath(_ name: String, at time: Instant) { deaths[name] = time }

  /// A person has started the cluster anew.
  func onWantedNow(_ name: String) { deaths[name] = nil }

  func onHung(_ name: String, pid: Int32, silence: Interval, by supervisor: SupervisorProcess) {
    kills += 1
  }

  func onKill(_ process: Process, by supervisor: SupervisorProcess, isStopping: Bool) {
    guard !isStopping, process.life == .running else { return }
    var wellSince = process.wellSince
    // A master's beats tell of its commits, too.
    if process is MasterProcess { wellSince = max(wellSince, world.disk.wellSince) }
    if wellSince + world.settings.timing.hangTimeout < world.now {
      world.fail(
        "no healthy process is killed",
        "\(supervisor.name) kills \(process.name), which has been well since "
          + Trace.Line.seconds(wellSince), [supervisor, process])
    }
  }
}

/// The available server keeps the chair until it dies, leaves or hangs.
final class ChairChecker {
  private unowned(unsafe) let world: World
  private var holder: MasterIdentity?
  private var term: UInt64 = 0
  private var router: Int32 = 0
  private(set) var passes = 0

  init(world: World) { self.world = world }

  func onNote(_ note: RouterNote, by process: RouterProcess) {
    guard case .chosen(let master, let newTerm) = note else { return }
    // A restarted router learns the term from the one that has the chair, if that lives.
    if router != process.pid { term = 0 }
    defer {
      holder = master
      term = max(term, newTerm)
      router = process.pid
    }
    if let holder, holder != master {
      passes += 1
      checkLoss(of: holder, to: master, by: process)
      if newTerm <= term {
        world.fail(
          "the chair's terms grow", "\(master.name) has the chair in term \(newTerm), after \(term)", [process])
      }
    }
  }

  private func checkLoss(of holder: MasterIdentity, to next: MasterIdentity, by process: RouterProcess) {
    guard let master = world.locks[holder.name] as? MasterProcess, master.identity == holder, master.life == .running,
      master.core.isServing
    else { return }
    let times = [
      master.wellSince, master.reachableSince, process.wellSince, process.reachableSince, world.disk.wellSince,
      world.network.wellSince(master.host, process.host),
    ]
    let calm = world.settings.timing.liveness * 2 + .seconds(1)
    if times.allSatisfy({ $0 != .distantFuture && $0 + calm < world.now }) {
      world.fail(
        "the available server keeps the chair", "it passes from \(holder.name), which is well, to \(next.name)",
        [process, master])
    }
  }
}

/// Nothing grows without limit: queues, what waits in a master or a client, what is asked of the router.
final class LimitChecker {
  private unowned(unsafe) let world: World
  private var locates: [Int32: (since: Instant, count: Int)] = [:]

  init(world: World) { self.world = world }

  /// How often a client may ask the router within a second.
  private static let locatesPerSecond = 100

  func onCommit(_ events: [Event], by master: MasterProcess) {
    if events.count > Limits.batchEvents {
      world.fail("limits", "\(master.name) commits \(events.count) events at once", [master])
    }
  }

  func onClient(pending: Int, of client: ClientProcess) {
    // What its watched timelines ask comes on top of what the program asks.
    if pending > Limits.requestsInFlight + 2 * Limits.topicsPerSession {
      world.fail("limits", "\(client.name) has \(pending) requests under way", [client])
    }
  }

  func onMaster(_ load: MasterLoad, of master: MasterProcess) {
    if let (what, count) = load.firstBeyondItsLimit {
      world.fail("limits", "\(master.name) has \(count) \(what)", [master])
    }
  }

  /// Frames that wait on a link for a process that does not read.
  func onQueued(_ count: Int, on link: Link, toListener: Bool) {
    guard let listener = link.listener else { return }
    let most = 2 * max(world.settings.network.updatesQueued, world.settings.network.repliesQueued, 4_096)
    if count > most {
      world.fail(
        "limits",
        "\(count) messages wait on a connection (\(link.kind)) for \((toListener ? listener : link.dialer).name)",
        [link.dialer, listener])
    }
  }

  func onLocate(by client: ClientProcess) {
    let (since, count) = locates[client.pid] ?? (world.now, 0)
    if since + .seconds(1) < world.now {
      locates[client.pid] = (world.now, 1)
    } else {
      locates[client.pid] = (since, count + 1)
      if count + 1 > Self.locatesPerSecond {
        world.fail("limits", "\(client.name) asks the router \(count + 1) times within a second", [client])
      }
    }
  }

  func onClientDied(_ client: ClientProcess) { locates[client.pid] = nil }
}
