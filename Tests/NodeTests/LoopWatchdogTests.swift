// Who of two threads is the loop: never both, never neither.

import Glibc
import Runtime
import Synchronization
import Testing

@testable import Node

@Suite struct LoopWatchdogTests {
  @Test func whoIsCheckedMayBlock() throws {
    let watchdog = LoopWatchdog()
    #expect(!watchdog.isArmed && watchdog.beginBlocking() == nil)
    var seen = watchdog.arm()
    for _ in 1...3 {
      let blocking = try #require(watchdog.beginBlocking())
      #expect(watchdog.check(since: &seen) == .active)
      #expect(watchdog.endBlocking(blocking))
      #expect(watchdog.check(since: &seen) == .active)
      #expect(watchdog.check(since: &seen) == .idle)
    }
  }

  @Test func whoBlocksAtTwoChecksIsNoLongerTheLoop() throws {
    let watchdog = LoopWatchdog()
    var seen = watchdog.arm()
    let blocking = try #require(watchdog.beginBlocking())
    #expect(watchdog.check(since: &seen) == .active)
    #expect(watchdog.check(since: &seen) == .takenOver)
    #expect(!watchdog.endBlocking(blocking))
    // The new loop may not block before the one who is back checks.
    #expect(!watchdog.isArmed && watchdog.beginBlocking() == nil)
    seen = watchdog.arm()
    let next = try #require(watchdog.beginBlocking())
    #expect(!watchdog.endBlocking(blocking), "what is over")
    #expect(watchdog.endBlocking(next))
  }

  @Test func whoBlocksTwiceForAShortTimeGoesOn() throws {
    let watchdog = LoopWatchdog()
    var seen = watchdog.arm()
    let first = try #require(watchdog.beginBlocking())
    #expect(watchdog.check(since: &seen) == .active)
    #expect(watchdog.endBlocking(first))
    let second = try #require(watchdog.beginBlocking())
    #expect(watchdog.check(since: &seen) == .active, "another time")
    #expect(watchdog.endBlocking(second))
  }

  @Test func nobodyDisarmsWhileTheLoopBlocks() throws {
    let watchdog = LoopWatchdog()
    var seen = watchdog.arm()
    let blocking = try #require(watchdog.beginBlocking())
    #expect(!watchdog.disarm(since: seen), "it began after the last check")
    _ = watchdog.check(since: &seen)
    #expect(!watchdog.disarm(since: seen))
    #expect(watchdog.endBlocking(blocking))
    #expect(!watchdog.disarm(since: seen), "it ended after the last check")
    _ = watchdog.check(since: &seen)
    #expect(watchdog.disarm(since: seen) && watchdog.beginBlocking() == nil)
  }

  /// Two threads, each the loop or checking, change places as often as they can. What is the loop's is counted without a lock, and the
  /// count is right.
  @Test func theLoopsStateHasOneOwner() {
    final class Shared: @unchecked Sendable {
      let watchdog = LoopWatchdog()
      /// The loop's.
      var turns = 0
      var takeovers = 0
      /// The same number, whoever counts.
      let counted = Atomic(0)
      let isOver = Atomic(false)
      let deadline = ContinuousClock.now + .seconds(20)

      func serve() {
        while turns < 200_000 || (takeovers < 10 && ContinuousClock.now < deadline) {
          turns += 1
          counted.add(1, ordering: .relaxed)
          guard let blocking = watchdog.beginBlocking() else {
            sched_yield()
            continue
          }
          if turns % 64 == 0 { sched_yield() }
          guard watchdog.endBlocking(blocking) else { return }
        }
        isOver.store(true, ordering: .releasing)
      }

      func check() {
        var seen = watchdog.arm()
        while !isOver.load(ordering: .acquiring) {
          if watchdog.check(since: &seen) == .takenOver {
            takeovers += 1
            return
          }
        }
      }

      func work(asLoop: Bool) {
        var isLoop = asLoop
        while !isOver.load(ordering: .acquiring) {
          if isLoop { serve() } else { check() }
          isLoop.toggle()
        }
      }
    }
    let shared = Shared()
    let other = WorkerThread { shared.work(asLoop: false) }
    shared.work(asLoop: true)
    other.join()
    #expect(shared.turns == shared.counted.load(ordering: .relaxed))
    #expect(shared.takeovers >= 10)
  }
}
