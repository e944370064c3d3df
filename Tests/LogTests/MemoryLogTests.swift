// The simulated disk's faults.

import Log
import Model
import Testing

@Suite struct MemoryLogTests {
  private let disk = MemoryDisk()
  private let events: [Event] = {
    var history = History(seed: 1)
    history.addMixed(10)
    return history.events
  }()

  @Test func unsyncedEventsAreSeenByNobody() throws {
    let log = MemoryLog(disk: disk)
    #expect(try log.begin(Array(events[..<3]), after: .zero) == .begun)
    #expect(try log.head() == .zero)
    #expect(try MemoryLog(disk: disk).begin(Array(events[..<1]), after: .zero) == .busy)
    try log.sync()
    #expect(try MemoryLog(disk: disk).read(after: .zero, limit: 9) == Array(events[..<3]))
  }

  @Test(arguments: [(0, 2), (2, 2), (3, 5), (9, 5)])
  func aPowerCutKeepsAnAppendWholeOrNotAtAll(survivors: Int, head: UInt64) throws {
    let log = MemoryLog(disk: disk)
    _ = try log.append(Array(events[..<2]), after: .zero)
    _ = try log.begin(Array(events[2..<5]), after: EventID(2))
    disk.cutPower(keepingUnsynced: survivors)
    #expect(throws: LogError.self) { try log.head() }
    #expect(try MemoryLog(disk: disk).head() == EventID(head))
  }

  @Test(arguments: [false, true])
  func aCrashLeavesTheOthersAlone(keeping: Bool) throws {
    let log = MemoryLog(disk: disk)
    let other = MemoryLog(disk: disk)
    _ = try log.begin(Array(events[..<2]), after: .zero)
    log.crash(keepingUnsynced: keeping)
    #expect(throws: LogError.self) { try log.head() }
    #expect(try other.head() == EventID(keeping ? 2 : 0))
    #expect(try other.append(Array(events[..<2]), after: .zero) == (keeping ? .behind : .appended))
  }

  @Test func aFullDiskRefusesAndRecovers() throws {
    let log = MemoryLog(disk: disk)
    disk.capacity = 3
    _ = try log.append(Array(events[..<2]), after: .zero)
    #expect(throws: LogError.full("the disk has room for 3 events")) {
      try log.append(Array(events[2..<4]), after: EventID(2))
    }
    #expect(try log.head() == EventID(2))
    disk.capacity = 4
    #expect(try log.append(Array(events[2..<4]), after: EventID(2)) == .appended)
  }

  @Test func injectedErrorsAreThrownOnce() throws {
    let log = MemoryLog(disk: disk)
    _ = try log.begin(events, after: .zero)
    disk.fail(.failed("sync"))
    #expect(throws: LogError.failed("sync")) { try log.sync() }
    #expect(try log.head() == .zero)
    #expect(try log.append(events, after: .zero) == .appended)
  }

  @Test func aPowerCutMayLoseTheIndex() throws {
    _ = try MemoryLog(disk: disk).append(events, after: .zero)
    _ = try MemoryLog(disk: disk).index(limit: 5)
    disk.cutPower()
    #expect(try MemoryLog(disk: disk).snapshot().upTo == EventID(5))
    disk.cutPower(keepingIndexed: 0)
    #expect(try MemoryLog(disk: disk).snapshot().upTo == .zero)
  }
}
