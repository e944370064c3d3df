// Who of two threads is the loop: never both, never neither.

import Glibc
import Runtime
import Synchronization
import Testing

@testable import Node

@Suite struct LoopRelayTests {
  @Test func whoIsWatchedMayLeaveAndComeBack() throws {
    let relay = LoopRelay()
    #expect(!relay.isWatched && relay.leave() == nil)
    var seen = relay.watch()
    for _ in 1...3 {
      let absence = try #require(relay.leave())
      #expect(relay.look(&seen) == .comesAndGoes)
      #expect(relay.comeBack(from: absence))
      #expect(relay.look(&seen) == .comesAndGoes)
      #expect(relay.look(&seen) == .stays)
    }
  }

  @Test func whoIsAwayAtTwoLooksIsReplaced() throws {
    let relay = LoopRelay()
    var seen = relay.watch()
    let absence = try #require(relay.leave())
    #expect(relay.look(&seen) == .comesAndGoes)
    #expect(relay.look(&seen) == .replaced)
    #expect(!relay.comeBack(from: absence))
    // The new loop may not leave before the one who is back watches.
    #expect(!relay.isWatched && relay.leave() == nil)
    seen = relay.watch()
    let next = try #require(relay.leave())
    #expect(!relay.comeBack(from: absence), "an absence that is over")
    #expect(relay.comeBack(from: next))
  }

  @Test func whoHasLeftTwiceIsNotReplaced() throws {
    let relay = LoopRelay()
    var seen = relay.watch()
    let first = try #require(relay.leave())
    #expect(relay.look(&seen) == .comesAndGoes)
    #expect(relay.comeBack(from: first))
    let second = try #require(relay.leave())
    #expect(relay.look(&seen) == .comesAndGoes, "another absence")
    #expect(relay.comeBack(from: second))
  }

  @Test func nobodyStopsWatchingWhileTheLoopIsAway() throws {
    let relay = LoopRelay()
    var seen = relay.watch()
    let absence = try #require(relay.leave())
    #expect(!relay.stopWatching(since: seen), "it left after the last look")
    _ = relay.look(&seen)
    #expect(!relay.stopWatching(since: seen))
    #expect(relay.comeBack(from: absence))
    #expect(!relay.stopWatching(since: seen), "it came back after the last look")
    _ = relay.look(&seen)
    #expect(relay.stopWatching(since: seen) && relay.leave() == nil)
  }

  /// Two threads, each the loop or watching, change places as often as they can. What is the loop's is counted without a lock, and the
  /// count is right.
  @Test func theLoopsStateHasOneOwner() {
    final class Shared: @unchecked Sendable {
      let relay = LoopRelay()
      /// The loop's.
      var turns = 0
      var replacements = 0
      /// The same number, whoever counts.
      let counted = Atomic(0)
      let isOver = Atomic(false)

      func serve() {
        while turns < 200_000 || (replacements < 10 && turns < 20_000_000) {
          turns += 1
          counted.add(1, ordering: .relaxed)
          guard let absence = relay.leave() else { continue }
          if turns % 64 == 0 { sched_yield() }
          guard relay.comeBack(from: absence) else { return }
        }
        isOver.store(true, ordering: .releasing)
      }

      func watch() {
        var seen = relay.watch()
        while !isOver.load(ordering: .acquiring) {
          if relay.look(&seen) == .replaced {
            replacements += 1
            return
          }
        }
      }

      func work(asLoop: Bool) {
        var isLoop = asLoop
        while !isOver.load(ordering: .acquiring) {
          if isLoop { serve() } else { watch() }
          isLoop.toggle()
        }
      }
    }
    let shared = Shared()
    let other = WorkerThread { shared.work(asLoop: false) }
    shared.work(asLoop: true)
    other.join()
    #expect(shared.turns == shared.counted.load(ordering: .relaxed))
    #expect(shared.replacements >= 10)
  }
}
