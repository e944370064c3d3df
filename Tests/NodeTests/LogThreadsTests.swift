// The threads at the log: what one of them leaves to the other.

import Core
import Foundation
import Log
import Model
import Runtime
import Testing

@testable import Node

@Suite struct LogThreadsTests {
  /// A log of its own for each thread, which wants a checkpoint after each append, and tells of those that are made.
  private final class Probe: EventLog {
    private let log = MemoryLog(disk: MemoryDisk())
    private let made: DispatchSemaphore
    /// Told of each read of posts, which waits for the other.
    private let reads: (begun: DispatchSemaphore, mayEnd: DispatchSemaphore)?
    private var hasAppended = false

    init(_ made: DispatchSemaphore, reads: (begun: DispatchSemaphore, mayEnd: DispatchSemaphore)? = nil) {
      self.made = made
      self.reads = reads
    }

    func append(_ events: [Event], after head: EventID) throws(LogError) -> AppendResult {
      hasAppended = true
      return try log.append(events, after: head)
    }

    func takeCheckpointDue() -> Bool {
      defer { hasAppended = false }
      return hasAppended
    }

    func checkpoint() throws(LogError) { made.signal() }
    func releaseMemory() { log.releaseMemory() }
    func read(after position: EventID, limit: Int) throws(LogError) -> [Event] {
      try log.read(after: position, limit: limit)
    }
    func head() throws(LogError) -> EventID { try log.head() }
    func posts(
      by authors: [AccountID], in range: PostRange, upTo: EventID, limit: Int
    ) throws(LogError) -> (posts: [StoredPost], more: Bool) {
      try log.posts(by: authors, in: range, upTo: upTo, limit: limit)
    }
    func posts(withIDs ids: [EventID]) throws(LogError) -> [StoredPost] {
      reads?.begun.signal()
      reads?.mayEnd.wait()
      return try log.posts(withIDs: ids)
    }
    func events(of requests: [RequestID: EventID], upTo: EventID) throws(LogError) -> [RequestID: EventID] {
      try log.events(of: requests, upTo: upTo)
    }
    func snapshot() throws(LogError) -> Snapshot { try log.snapshot() }
    func index(limit: Int) throws(LogError) -> Bool { try log.index(limit: limit) }
  }

  private func registration(_ number: UInt64) -> Append {
    let account = AccountID(UInt32(number - 1))
    let event = Event(
      id: EventID(number), time: .zero, request: nil, change: .accountCreated(account, name: "user\(number)"))
    return Append(events: [event], after: EventID(number - 1), series: 1)
  }

  @Test func theReadingThreadCheckpointsWhatIsCommitted() {
    let results = Mailbox<LogResult>()
    let made = DispatchSemaphore(value: 0)
    let reader = ReaderThread(open: { Probe(made) }, results: results)
    let commits = CommitThread(open: { Probe(made) }, results: results, checkpoints: reader)
    for round in 1...2 as ClosedRange<UInt64> {
      commits.put(.append(registration(round)))
      #expect(made.wait(timeout: .now() + 20) == .success, "the checkpoint after commit \(round)")
    }
    commits.close()
    reader.close()
    let committed = results.takeNow().reduce(0) { count, result in
      if case .committed(.appended, let more) = result { count + more } else { count }
    }
    #expect(committed == 2)
  }

  /// Whoever repeats a request has waited before; pages of older posts come after that.
  @Test func whatIsLookedUpGoesBeforeReads() {
    let results = Mailbox<LogResult>()
    let reads = (begun: DispatchSemaphore(value: 0), mayEnd: DispatchSemaphore(value: 0))
    let reader = ReaderThread(open: { Probe(DispatchSemaphore(value: 0), reads: reads) }, results: results)
    reader.read(ReadID(1), .posts(ids: []))
    #expect(reads.begun.wait(timeout: .now() + 20) == .success)
    reader.read(ReadID(2), .posts(ids: []))
    reader.read(ReadID(3), .posts(ids: []))
    reader.lookUp([:], upTo: .zero)
    for _ in 1...3 { reads.mayEnd.signal() }
    reader.close()
    let order = results.takeNow().compactMap { result in
      switch result {
      case .read(let id, _, _): "read \(id.rawValue)"
      case .lookedUp(.read(let events)): "looked up \(events.count)"
      default: nil
      }
    }
    #expect(order == ["read 1", "looked up 0", "read 2", "read 3"])
  }
}
