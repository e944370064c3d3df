// The disk under the log, and the turn that masters take on it.

import Log
import Model

/// One log for all masters, behind a lock that whoever commits holds.
///
/// A process that is stopped while it holds the lock keeps it: nobody else can commit.
final class Disk {
  unowned(unsafe) let world: World
  let memory = MemoryDisk()
  private(set) var holder: MasterProcess?
  private var waiters: [MasterProcess] = []
  /// Nothing gets through until then.
  var stalledUntil = Instant.zero
  /// When the disk was last in trouble.
  var troubleUntil = Instant.zero
  private var random: SplitMix64

  init(world: World, random: SplitMix64) {
    self.world = world
    self.random = random
  }

  /// Since when all is well: no stall, no error, nobody stopped while holding the lock.
  var wellSince: Instant {
    if let holder, holder.life == .frozen { return .distantFuture }
    return max(stalledUntil, troubleUntil)
  }

  func commitLatency() -> Interval { random.interval(world.settings.disk.commit) }
  func readLatency() -> Interval { random.interval(world.settings.disk.read) }

  /// Whether nothing gets through; then after how long to look again.
  var stall: Interval { stalledUntil > world.now ? min(stalledUntil - world.now, .milliseconds(20)) : .zero }

  // MARK: The turn

  func takeTurn(_ master: MasterProcess) {
    waiters.append(master)
    grant()
  }

  func endTurn(_ master: MasterProcess) {
    guard holder === master else { return }
    holder = nil
    grant()
  }

  /// The kernel gives the lock to whoever waited longest and is not stopped.
  func grant() {
    guard holder == nil, let index = waiters.firstIndex(where: { $0.life == .running }) else { return }
    let next = waiters.remove(at: index)
    holder = next
    world.note([next], 70) { "has the log's turn" }
    next.onTurn()
  }

  func died(_ master: MasterProcess) {
    waiters.removeAll { $0 === master }
    if holder === master { troubleUntil = world.now }
    master.log.crash(keepingUnsynced: random.percent(50))
    world.observeLog()
    endTurn(master)
  }

  // MARK: Faults

  /// What was written and not synced is kept, lost or torn; the derived tables are kept, lost or as they were some time ago.
  func cutPower() {
    let unsynced = memory.unsynced.count
    let survivors = random.percent(30) ? Int.max : random.below(unsynced + 1)
    if unsynced > 0 {
      world.meet(
        survivors >= unsynced ? .powerCutKeptACommit : survivors == 0 ? .powerCutLostACommit : .powerCutToreACommit)
    }
    let indexed = Int(memory.indexed.upTo.rawValue)
    var kept = indexed
    if indexed > 0, random.percent(70) { kept = random.percent(50) ? 0 : random.below(indexed) }
    if kept < indexed { world.meet(kept == 0 ? .indexLost : .indexSetBack) }
    memory.cutPower(keepingUnsynced: survivors, keepingIndexed: kept)
    troubleUntil = world.now
    world.observeLog()
  }

  /// The power is cut during the next append, between its first byte and its sync.
  var isCutDuringAppend = false
  /// Whoever has to do with that is dead then.
  var onPowerCut: (() -> Void)?

  func began() {
    guard isCutDuringAppend else { return }
    isCutDuringAppend = false
    onPowerCut?()
  }

  func fill(leaving room: Int = 0) {
    memory.capacity = memory.durable.count + room
    troubleUntil = .distantFuture
  }

  func failOnce() {
    memory.fail(.failed("input/output error"))
    troubleUntil = max(troubleUntil, world.now)
  }

  func heal() {
    isCutDuringAppend = false
    if stalledUntil > world.now { stalledUntil = world.now }
    if troubleUntil > world.now { troubleUntil = world.now }
    memory.capacity = Int.max
    // Errors that nobody has met yet.
    let probe = MemoryLog(disk: memory)
    for _ in 0..<100 where (try? probe.head()) == nil {}
  }
}
