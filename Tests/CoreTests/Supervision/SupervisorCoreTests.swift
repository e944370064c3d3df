// Children from their start to their end: spawned, adopted, crashed, hung, stopped.

import Core
import Model
import Testing

@Suite struct SupervisorCoreTests {
  static let child = "master-1"
  private var child: String { Self.child }

  private func hung(_ supervisor: TestSupervisor) -> Int {
    supervisor.notes.filter { if case .hung = $0 { true } else { false } }.count
  }

  // MARK: Start

  @Test func spawnsWhatDoesNotRun() {
    let supervisor = TestSupervisor()
    supervisor.start()
    #expect(supervisor.notes == [.spawned(child, pid: 101)])
    #expect(supervisor.status(child) == ChildStatus(name: child, pid: 101, state: .running, respawnIn: 0, respawns: 0))
    #expect(supervisor.core.status(at: supervisor.now).name == "slave-1")
  }

  @Test func adoptsWhatRuns() {
    let supervisor = TestSupervisor()
    supervisor.pretend(child, runsAs: 55)
    supervisor.start()
    #expect(supervisor.notes == [.adopted(child, pid: 55)])
    #expect(supervisor.spawns.isEmpty)
    supervisor.die(child, .unknown)
    #expect(supervisor.notes.last == .crashed(child, pid: 55, .unknown, respawnIn: .seconds(25)))
  }

  @Test func aSpawnThatFailsIsTriedAgain() {
    let supervisor = TestSupervisor()
    supervisor.failsSpawns = true
    supervisor.start()
    #expect(supervisor.notes == [.spawnFailed(child, "no such file", retryIn: .seconds(25))])
    supervisor.failsSpawns = false
    supervisor.pass(.seconds(25))
    #expect(supervisor.notes.last == .spawned(child, pid: 101))
    #expect(supervisor.status(child).respawns == 0, "it never ran before")
  }

  // MARK: Death

  @Test func aCrashIsRespawnedAfterTheDelay() {
    let supervisor = TestSupervisor.running()
    let died = supervisor.now
    supervisor.die(child, .signalled(9))
    #expect(supervisor.notes.last == .crashed(child, pid: 101, .signalled(9), respawnIn: .seconds(25)))
    supervisor.pass(.seconds(10))
    #expect(
      supervisor.status(child) == ChildStatus(name: child, pid: 0, state: .waiting, respawnIn: 15_000, respawns: 0))
    supervisor.pass(.milliseconds(14_999))
    #expect(supervisor.spawns.count == 1)
    supervisor.pass(.milliseconds(1))
    #expect(supervisor.spawns.last!.at == died + .seconds(25))
    #expect(supervisor.status(child).respawns == 1)
  }

  @Test func theWaitOutlivesTheSupervisor() {
    let first = TestSupervisor.running()
    first.die(child)
    #expect(first.deaths[child] == first.now)
    // Killed 10 s later, and back 2 s after that.
    let second = TestSupervisor()
    second.now = first.now + .seconds(12)
    second.deaths = first.deaths
    second.start()
    #expect(second.notes == [.foundDead(child, respawnIn: .seconds(13))])
    #expect(second.status(child).respawnIn == 13_000)
    second.pass(.milliseconds(12_999))
    #expect(second.spawns.isEmpty)
    second.pass(.milliseconds(1))
    #expect(second.spawns.count == 1)
    #expect(second.deaths.isEmpty, "a later life is not to wait for this death again")
  }

  @Test func aDeathThatIsLongAgoDelaysNothing() {
    let supervisor = TestSupervisor()
    supervisor.deaths[child] = supervisor.now - .seconds(26)
    supervisor.start()
    #expect(supervisor.spawns.count == 1)
  }

  @Test func aClockThatWasSetBackDelaysNoLongerThanTheDelay() {
    let supervisor = TestSupervisor()
    supervisor.deaths[child] = supervisor.now + .seconds(3_600)
    supervisor.start()
    #expect(supervisor.notes == [.foundDead(child, respawnIn: .seconds(25))])
  }

  @Test func whoeverStopsGracefullyLeavesNoDeathBehind() {
    let supervisor = TestSupervisor.running()
    supervisor.die(child)
    supervisor.stop()
    #expect(supervisor.deaths.isEmpty && supervisor.hasExited)
  }

  @Test func aShortWaitIsNotWrittenDown() {
    let supervisor = TestSupervisor.running([("router", TestSupervisor.launcherPolicy)])
    supervisor.die("router")
    #expect(supervisor.deaths.isEmpty)
  }

  @Test func aRestartStartsWhatWasFoundDead() {
    let supervisor = TestSupervisor()
    supervisor.deaths[child] = supervisor.now - .seconds(1)
    supervisor.start()
    #expect(supervisor.spawns.isEmpty)
    supervisor.turn { $0.restart(at: $1, into: &$2) }
    #expect(supervisor.spawns.count == 1 && supervisor.deaths.isEmpty)
  }

  @Test func aRestartedChildComesBackAtOnce() {
    let supervisor = TestSupervisor.running()
    supervisor.turn { $0.restart(at: $1, into: &$2) }
    supervisor.pass(.milliseconds(1))
    #expect(supervisor.spawns.count == 2)
    #expect(supervisor.status(child).state == .running)
    #expect(!supervisor.notes.contains { if case .crashed = $0 { true } else { false } })
    // Only this once.
    supervisor.die(child)
    supervisor.pass(.seconds(24))
    #expect(supervisor.spawns.count == 2)
    // What waits for its start does not wait any longer.
    supervisor.turn { $0.restart(at: $1, into: &$2) }
    supervisor.pass(.milliseconds(1))
    #expect(supervisor.spawns.count == 3)
  }

  @Test func aChildThatIsRestartedIsGoneBeforeItsSuccessorComes() {
    let supervisor = TestSupervisor.running()
    supervisor.obeys = false
    supervisor.diesAtOnce = false
    supervisor.turn { $0.restart(at: $1, into: &$2) }
    supervisor.turn { $0.restart(at: $1, into: &$2) }
    #expect(supervisor.status(child).state == .stopping)
    // It does not obey: it is killed in the end, and even then awaited.
    supervisor.pass(.seconds(60))
    #expect(supervisor.kills == [child] && supervisor.spawns.count == 1)
    supervisor.die(child)
    supervisor.pass(.milliseconds(1))
    #expect(supervisor.spawns.count == 2)
  }

  @Test func whatSomebodyElseStartedMeanwhileIsAdopted() {
    let supervisor = TestSupervisor.running()
    supervisor.die(child)
    supervisor.pass(.seconds(10))
    supervisor.pretend(child, runsAs: 77)
    supervisor.pass(.seconds(15))
    #expect(supervisor.notes.last == .adopted(child, pid: 77))
    #expect(supervisor.spawns.count == 1)
    #expect(supervisor.status(child).respawns == 0, "not by this supervisor")
  }

  @Test func theDeathOfAnotherProcessIsIgnored() {
    let supervisor = TestSupervisor.running()
    supervisor.turn { $0.onDeath(Self.child, pid: 4_711, .exited(0), at: $1, into: &$2) }
    supervisor.turn { $0.onDeath("nobody", pid: 101, .exited(0), at: $1, into: &$2) }
    #expect(supervisor.status(child).state == .running)
    supervisor.die(child)
    supervisor.turn { $0.onDeath(Self.child, pid: 101, .exited(0), at: $1, into: &$2) }
    #expect(supervisor.notes.filter { if case .crashed = $0 { true } else { false } }.count == 1)
  }

  // MARK: Hangs

  @Test func aHungChildIsKilledAndRespawned() {
    let supervisor = TestSupervisor.running()
    supervisor.diesAtOnce = false
    supervisor.beating = []
    supervisor.pass(.milliseconds(4_999))
    #expect(supervisor.kills.isEmpty)
    supervisor.pass(.milliseconds(2))
    #expect(supervisor.kills == [child])
    #expect(supervisor.notes.last == .hung(child, pid: 101, silence: .milliseconds(5_001)))
    #expect(supervisor.status(child).state == .dying)
    // It is not gone before the kernel says so: never two under one name.
    supervisor.beat(child)
    supervisor.pass(.seconds(60))
    #expect(supervisor.spawns.count == 1 && supervisor.kills.count == 1)
    supervisor.die(child)
    supervisor.pass(.seconds(25))
    #expect(supervisor.spawns.count == 2)
  }

  @Test func aChildMayTakeLongerToStart() {
    let supervisor = TestSupervisor()
    supervisor.start()
    supervisor.pass(.milliseconds(14_999))
    #expect(supervisor.kills.isEmpty)
    supervisor.pass(.milliseconds(2))
    #expect(supervisor.kills == [child])
  }

  @Test func beatsKeepItAlive() {
    let supervisor = TestSupervisor.running()
    supervisor.pass(.seconds(60))
    #expect(supervisor.kills.isEmpty)
  }

  /// It was frozen, and wakes just when the child's time is over: too early to notice its own absence, and the beats wait in the socket.
  @Test func whatWaitsIsHeardBeforeAKill() {
    let supervisor = TestSupervisor.running([("router", TestSupervisor.launcherPolicy)])
    supervisor.beating = []
    supervisor.now = supervisor.now + .milliseconds(5_050)
    supervisor.beat("router")
    supervisor.pass(.seconds(4))
    #expect(supervisor.kills.isEmpty)
    supervisor.pass(.milliseconds(1_002))
    #expect(supervisor.kills == ["router"])
  }

  @Test func beatsOfAnotherLifeMeanNothing() {
    let supervisor = TestSupervisor.running()
    supervisor.beating = []
    for _ in 0..<60 where supervisor.kills.isEmpty {
      supervisor.pass(.milliseconds(100))
      if supervisor.kills.isEmpty { supervisor.beat(child, pid: 4_711) }
    }
    #expect(supervisor.kills == [child])
    supervisor.beat("nobody", pid: 1)
  }

  @Test func aDiskThatHangsIsAHang() {
    let supervisor = TestSupervisor.running()
    supervisor.beating = []
    var age: UInt32 = 0
    while supervisor.kills.isEmpty, age < 20_000 {
      age += 100
      supervisor.pass(.milliseconds(100))
      if supervisor.kills.isEmpty { supervisor.beat(child, commitAge: age) }
    }
    #expect(supervisor.kills == [child])
    #expect((9_900...10_200).contains(age), "5 s that count as life, and 5 s of silence")
  }

  @Test func aSlowDiskIsNoHang() {
    let supervisor = TestSupervisor.running()
    supervisor.beating = []
    for _ in 0..<200 {
      supervisor.pass(.milliseconds(100))
      supervisor.beat(child, commitAge: 4_900)
    }
    #expect(supervisor.kills.isEmpty)
  }

  @Test func whoDoesNotBeatIsNotExpectedTo() {
    var policy = TestSupervisor.slavePolicy
    policy.beats = false
    let supervisor = TestSupervisor([("demo", policy)])
    supervisor.start()
    supervisor.pass(.seconds(600))
    #expect(supervisor.kills.isEmpty && supervisor.inspections == 0)
    #expect(supervisor.core.nextWake == nil)
  }

  /// The supervisor was frozen, not the child.
  @Test(arguments: [450, 4_000, 4_900, 5_000, 5_100, 20_000, 600_000] as [Int64])
  func ownAbsenceIsNotTheChilds(milliseconds: Int64) {
    let supervisor = TestSupervisor.running()
    supervisor.now = supervisor.now + .milliseconds(milliseconds)
    supervisor.turn()
    #expect(supervisor.kills.isEmpty)
    supervisor.beat(child)
    supervisor.pass(.seconds(10))
    #expect(supervisor.kills.isEmpty)
  }

  @Test func aChildThatHangsAfterAnAbsenceIsKilled() {
    let supervisor = TestSupervisor.running()
    supervisor.beating = []
    supervisor.now = supervisor.now + .seconds(60)
    supervisor.turn()
    supervisor.pass(.milliseconds(4_500))
    #expect(supervisor.kills.isEmpty)
    supervisor.pass(.seconds(1))
    #expect(supervisor.kills == [child])
  }

  // MARK: Blocking

  @Test func aChildIsInspectedAndKilledIfItBlocks() {
    let supervisor = TestSupervisor.running()
    supervisor.beating = []
    let before = supervisor.inspections
    supervisor.pass(.milliseconds(310))
    #expect(supervisor.inspections == before + 1)
    supervisor.blocks(pid: 4_711)
    supervisor.pass(.milliseconds(300))
    supervisor.blocks(pid: 4_711)
    #expect(supervisor.kills.isEmpty, "another process")
    supervisor.blocks()
    #expect(supervisor.kills.isEmpty, "it may go on at once")
    supervisor.pass(.milliseconds(210))
    #expect(supervisor.inspections == before + 3)
    supervisor.blocks()
    #expect(supervisor.kills == [child])
    #expect(supervisor.notes.contains(.blocking(child, pid: 101)))
    supervisor.blocks()
    #expect(supervisor.kills == [child])
  }

  @Test func whoGoesOnDoesNotBlock() {
    let supervisor = TestSupervisor.running()
    supervisor.beating = []
    supervisor.pass(.milliseconds(110))
    supervisor.blocks()
    supervisor.beat(child)
    supervisor.pass(.milliseconds(210))
    supervisor.blocks()
    #expect(supervisor.kills.isEmpty, "it has beaten in between")
    supervisor.pass(.milliseconds(510))
    supervisor.blocks()
    #expect(supervisor.kills.isEmpty, "at the last look it did not block")
  }

  @Test func onlyWhoTakesTurnsIsInspected() {
    let supervisor = TestSupervisor.running([("router", TestSupervisor.launcherPolicy)])
    supervisor.pass(.seconds(4))
    #expect(supervisor.inspections == 0)
  }

  // MARK: Backoff

  @Test func whoDiesYoungWaitsLonger() {
    let supervisor = TestSupervisor([("router", TestSupervisor.launcherPolicy)])
    supervisor.start()
    var delays: [Int64] = []
    for _ in 0..<9 {
      supervisor.die("router", .exited(1))
      guard case .crashed(_, _, _, let delay) = supervisor.notes.last else { continue }
      delays.append(delay.milliseconds)
      supervisor.pass(delay)
    }
    #expect(delays == [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000])
  }

  @Test func whoLivesLongStartsAnew() {
    let supervisor = TestSupervisor.running([("router", TestSupervisor.launcherPolicy)])
    for _ in 0..<4 {
      supervisor.die("router")
      supervisor.pass(.seconds(10))
    }
    supervisor.beating = ["router"]
    supervisor.pass(.seconds(31))
    supervisor.die("router")
    guard case .crashed(_, _, _, let delay) = supervisor.notes.last else {
      Issue.record("not noted")
      return
    }
    #expect(delay == .milliseconds(500))
  }

  /// It can't live long: it never lived.
  @Test func aSpawnThatFailsAgainAndAgainWaitsLonger() {
    let supervisor = TestSupervisor([("router", TestSupervisor.launcherPolicy)])
    supervisor.failsSpawns = true
    supervisor.start()
    supervisor.pass(.seconds(120))
    let delays = supervisor.notes.compactMap { note -> Int64? in
      if case .spawnFailed(_, _, let delay) = note { delay.milliseconds } else { nil }
    }
    #expect(delays.prefix(8) == [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000])
  }

  @Test func aSpawnThatFailsAfterALongLifeWaitsLonger() {
    let supervisor = TestSupervisor.running([("router", TestSupervisor.launcherPolicy)])
    supervisor.pass(.seconds(300))
    supervisor.failsSpawns = true
    supervisor.die("router")
    supervisor.pass(.milliseconds(1_499 + 2_000))
    let delays = supervisor.notes.compactMap { note -> Int64? in
      if case .spawnFailed(_, _, let delay) = note { delay.milliseconds } else { nil }
    }
    #expect(delays == [1_000, 2_000])
  }

  // MARK: Stop

  @Test func stopsARunningChild() {
    let supervisor = TestSupervisor.running([("a", TestSupervisor.slavePolicy), ("b", TestSupervisor.slavePolicy)])
    supervisor.stop()
    #expect(supervisor.terminations == ["a", "b"])
    #expect(supervisor.hasExited)
    #expect(supervisor.kills.isEmpty)
    #expect(supervisor.notes.suffix(2) == [.stopped("a", pid: 101), .stopped("b", pid: 102)])
  }

  @Test func killsWhoDoesNotStopInTime() {
    let supervisor = TestSupervisor.running()
    supervisor.obeys = false
    supervisor.stop()
    #expect(supervisor.status(child).state == .stopping)
    supervisor.pass(.milliseconds(2_999))
    #expect(supervisor.kills.isEmpty)
    supervisor.pass(.milliseconds(2))
    #expect(supervisor.kills == [child])
    #expect(supervisor.notes.contains(.killedAtStop(child, pid: 101)))
    #expect(supervisor.hasExited)
  }

  @Test func stopsWhileAChildWaitsForItsRespawn() {
    let supervisor = TestSupervisor.running()
    supervisor.die(child)
    supervisor.stop()
    #expect(supervisor.hasExited)
    #expect(supervisor.status(child).state == .stopped)
  }

  @Test func stopsWhileAChildIsDying() {
    let supervisor = TestSupervisor.running()
    supervisor.diesAtOnce = false
    supervisor.beating = []
    supervisor.pass(.seconds(6))
    supervisor.stop()
    #expect(!supervisor.hasExited && supervisor.terminations.isEmpty)
    supervisor.die(child)
    #expect(supervisor.hasExited)
  }

  @Test(arguments: [true, false])
  func stopsWhileItLooks(runs: Bool) {
    let supervisor = TestSupervisor()
    supervisor.holdsLooks = true
    if runs { supervisor.pretend(child, runsAs: 55) }
    supervisor.start()
    supervisor.stop()
    #expect(!supervisor.hasExited)
    supervisor.answerLook(child)
    #expect(supervisor.hasExited)
    #expect(supervisor.terminations == (runs ? [child] : []))
    #expect(supervisor.spawns.isEmpty)
  }

  @Test(arguments: [true, false])
  func stopsWhileItSpawns(fails: Bool) {
    let supervisor = TestSupervisor()
    supervisor.holdsSpawns = true
    supervisor.failsSpawns = fails
    supervisor.start()
    supervisor.stop()
    #expect(!supervisor.hasExited)
    supervisor.answerSpawn(child)
    #expect(supervisor.hasExited, "a child that was under way is stopped too")
    #expect(supervisor.terminations == (fails ? [] : [child]))
    #expect(supervisor.core.nextWake == nil)
  }

  @Test func stopsOnce() {
    let supervisor = TestSupervisor.running()
    supervisor.obeys = false
    supervisor.stop()
    supervisor.stop()
    supervisor.die(child, .exited(0))
    #expect(supervisor.hasExited)
  }

  @Test func beatsDuringAStopChangeNothing() {
    let supervisor = TestSupervisor.running()
    supervisor.obeys = false
    supervisor.stop()
    supervisor.beat(child)
    supervisor.pass(.milliseconds(3_001))
    #expect(supervisor.kills == [child])
  }

  @Test func nothingToSuperviseEndsAtOnce() {
    let supervisor = TestSupervisor([])
    supervisor.start()
    supervisor.stop()
    #expect(supervisor.hasExited)
  }

  /// It was frozen together with its child, in a sleep that was to last until the child's time is over: only who has meant to wake
  /// sooner notices that.
  @Test func frozenInALongSleepItDoesNotBlameItsChild() {
    let supervisor = TestSupervisor.running()
    #expect(supervisor.planned! <= supervisor.now + supervisor.timing.liveness)
    supervisor.beating = []
    supervisor.now = supervisor.now + .milliseconds(4_900)
    supervisor.turn()
    supervisor.pass(.seconds(1))
    #expect(supervisor.kills.isEmpty)
    supervisor.pass(.seconds(6))
    #expect(supervisor.kills == [child], "awake, it hears that the child is silent")
  }

  /// Seed 7042 of the simulation: its first sleep, too, is short.
  @Test func frozenInItsFirstSleepItDoesNotBlameItsChild() {
    let timing = Timing()
    var core = SupervisorCore(
      name: "slave-1", pid: 9, timing: timing, children: [(child, TestSupervisor.slavePolicy)])
    var actions: [SupervisorAction] = []
    var now = Instant(nanoseconds: 10_000_000_000)
    core.start(into: &actions)
    core.onFound(child, pid: 55, at: now, into: &actions)
    let planned = core.nextWake
    #expect(planned! <= now + timing.liveness)
    now = now + .seconds(16)
    core.onTimers(at: now, planned: planned, into: &actions)
    while let wake = core.nextWake, wake < now + .milliseconds(400) {
      core.onTimers(at: wake, planned: wake, into: &actions)
    }
    #expect(!actions.contains(.kill(child)))
  }

  /// Seed 7042, too. The child had been frozen, and had just thawed when its supervisor was; then it could not connect.
  @Test func whoCouldNotConnectMeanwhileHasTimeForThat() {
    let supervisor = TestSupervisor.running()
    supervisor.beating = []
    supervisor.pass(.milliseconds(4_750))
    supervisor.now = supervisor.now + .seconds(8)
    supervisor.turn()
    supervisor.pass(.milliseconds(400))
    supervisor.beat(child)
    supervisor.pass(.seconds(4))
    #expect(supervisor.kills.isEmpty)
  }

  /// Whatever happens, nothing runs twice, and a stop ends it all.
  @Test(arguments: UInt64(0)..<30)
  func randomLives(seed: UInt64) {
    var random = RandomSource.seeded(seed)
    let names = ["router", "slave-1", "slave-2"]
    let supervisor = TestSupervisor(names.map { ($0, TestSupervisor.launcherPolicy) })
    supervisor.holdsSpawns = Bool.random(using: &random)
    supervisor.start()
    for _ in 0..<200 {
      let name = names.randomElement(using: &random)!
      switch Int.random(in: 0..<8, using: &random) {
      case 0: supervisor.die(name, .exited(1))
      case 1: supervisor.beating.insert(name)
      case 2: supervisor.beating.remove(name)
      case 3:
        supervisor.now = supervisor.now + .milliseconds(Int64.random(in: 0...8_000, using: &random))
        supervisor.turn()
      case 4 where supervisor.holdsSpawns:
        if supervisor.actions.contains(.spawn(name)), supervisor.processes[name] == nil { supervisor.answerSpawn(name) }
      default: supervisor.pass(.milliseconds(Int64.random(in: 0...3_000, using: &random)))
      }
    }
    if !supervisor.holdsSpawns {
      supervisor.beating = Set(names)
      supervisor.pass(.seconds(70))
      #expect(supervisor.processes.count == 3)
      supervisor.obeys = Bool.random(using: &random)
      supervisor.stop()
      supervisor.pass(.seconds(4))
      #expect(supervisor.hasExited)
    }
  }
}
