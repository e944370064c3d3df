// What goes to the log together, and what no longer does.

import Core
import Model
import Testing

@Suite struct AppendQueueTests {
  private func append(_ ids: ClosedRange<UInt64>, series: UInt64 = 1) -> Append {
    let events = ids.map { Event(id: EventID($0), time: .zero, request: nil, change: .posted(AccountID(0), text: "x")) }
    return Append(events: events, after: EventID(ids.lowerBound - 1), series: series)
  }

  @Test func whatWaitsTogetherBecomesOneCommit() {
    var queue = AppendQueue()
    for ids in [1...2, 3...3, 4...6] as [ClosedRange<UInt64>] { queue.put(append(ids)) }
    var all = append(1...6)
    all.commits = 3
    #expect(queue.take() == all)
    #expect(queue.take() == nil && queue.isEmpty)
  }

  @Test func whatFollowsAFailureIsDropped() {
    var queue = AppendQueue()
    queue.put(append(1...2))
    let failed = queue.take()!
    queue.put(append(3...4))
    queue.drop(after: failed)
    queue.put(append(5...6))  // ordered before the core has heard of it
    #expect(queue.take() == nil)
    queue.put(append(1...3, series: 2))
    #expect(queue.take() == append(1...3, series: 2))
  }

  @Test func seriesAreNotMixed() {
    var queue = AppendQueue()
    queue.put(append(1...2))
    queue.put(append(8...9, series: 2))
    #expect(queue.take() == append(1...2))
    #expect(queue.take() == append(8...9, series: 2))
  }

  /// On a disk that syncs slowly it is better to write more at a time.
  @Test func aCommitIsAsLargeAsItsSyncIsLong() {
    var queue = AppendQueue()
    var next: UInt64 = 1
    /// The size of the next commit when plenty waits.
    func size() -> (commit: Append, count: Int) {
      for _ in 0..<64 {
        queue.put(append(next...next + 63))
        next += 64
      }
      let commit = queue.take()!
      return (commit, commit.events.count)
    }
    var (commit, count) = size()
    #expect(count == Limits.appendEvents)
    queue.noteAppended(commit, after: .microseconds(300))
    (commit, count) = size()
    #expect(count == Limits.appendEvents)
    queue.noteAppended(commit, after: .milliseconds(2))
    (commit, count) = size()
    #expect((Limits.appendEvents + 1..<Limits.batchEvents).contains(count))
    queue.noteAppended(commit, after: .milliseconds(40))
    (commit, count) = size()
    #expect(count == Limits.batchEvents)
    queue.noteAppended(commit, after: .microseconds(2_200))
    #expect(size().count == Limits.appendEvents)
  }
}
