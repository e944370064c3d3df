// The threads at the log: what one of them leaves to the other.

import Core
import Foundation
import Log
import Model
import Runtime
import Synchronization
import Testing

@testable import Node

@Suite struct LogThreadsTests {
  /// What is held up until it may go on.
  private struct Gate: Sendable {
    let begun = DispatchSemaphore(value: 0)
    let mayEnd = DispatchSemaphore(value: 0)
    /// What comes of it then, if not what it should.
    let failure = Failure()

    final class Failure: Sendable {
      private let state = Mutex<LogError?>(nil)

      func withLock<Value>(_ body: (inout LogError?) -> Value) -> Value where Value: Sendable {
        state.withLock { body(&$0) }
      }
    }
  }

  /// A log of its own for each thread, which wants a checkpoint after each append, and tells of those that are made.
  private final class Probe: EventLog {
    private let log = MemoryLog(disk: MemoryDisk())
    private let made: DispatchSemaphore
    /// Told of each read of posts, which waits for the other.
    private let reads: Gate?
    /// The same of each append.
    private let appends: Gate?
    private let checkpointFailure: LogError?
    private let released: DispatchSemaphore?
    /// What it wants when it is quiet, instead of a checkpoint after each append.
    private let quietUpkeep: LogUpkeep?
    private var hasAppended = false

    init(
      _ made: DispatchSemaphore, reads: Gate? = nil, appends: Gate? = nil, checkpointFailure: LogError? = nil,
      released: DispatchSemaphore? = nil, quietUpkeep: LogUpkeep? = nil
    ) {
      self.made = made
      self.reads = reads
      self.appends = appends
      self.checkpointFailure = checkpointFailure
      self.released = released
      self.quietUpkeep = quietUpkeep
    }

    func append(_ events: [Event], after head: EventID) throws(LogError) -> AppendResult {
      appends?.begun.signal()
      appends?.mayEnd.wait()
      if let failure = appends?.failure.withLock({ $0 }) { throw failure }
      hasAppended = true
      return try log.append(events, after: head)
    }

    func takeUpkeepDue(isQuiet: Bool) -> LogUpkeep? {
      defer { hasAppended = false }
      if isQuiet { return quietUpkeep }
      return hasAppended && quietUpkeep == nil ? .checkpoint : nil
    }

    func checkpoint() throws(LogError) {
      made.signal()
      if let checkpointFailure { throw checkpointFailure }
    }
    func prepare() throws(LogError) {}
    /// In two goes.
    func prepareForLoad() throws(LogError) -> Bool {
      hasAppended.toggle()
      if !hasAppended { made.signal() }
      return hasAppended
    }
    func releaseMemory() {
      log.releaseMemory()
      released?.signal()
    }
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

  private func registration(_ number: UInt64, series: UInt64 = 1) -> Append {
    let account = AccountID(UInt32(number - 1))
    let event = Event(
      id: EventID(number), time: .zero, request: nil, change: .accountCreated(account, name: "user\(number)"))
    return Append(events: [event], after: EventID(number - 1), series: series)
  }

  /// What became of commits, by what was told, until there are so many.
  private func outcomes(_ count: Int, _ results: Mailbox<LogResult>) throws -> [CommitOutcome] {
    var outcomes: [CommitOutcome] = []
    let deadline = ContinuousClock.now + .seconds(20)
    while outcomes.count < count {
      try #require(ContinuousClock.now < deadline, "only \(outcomes) within 20 s")
      for result in results.takeAll(waitingAtMost: 100) ?? [] {
        if case .committed(let outcome, let commits) = result { outcomes += Array(repeating: outcome, count: commits) }
      }
    }
    return outcomes
  }

  /// The beginning of a commit of the loop's own, which is allowed when there have been others in quick succession; and the number of the last one.
  private func blockingUnderLoad(
    _ committer: Committer, _ results: Mailbox<LogResult>, _ gate: Gate
  ) throws -> (number: UInt64, blocking: LoopWatchdog.Blocking) {
    for number in 1...1_000 as ClosedRange<UInt64> {
      gate.mayEnd.signal()
      committer.put(.append(registration(number)))
      #expect(try outcomes(1, results) == [.appended])
      #expect(gate.begun.wait(timeout: .now() + 20) == .success)
      if let blocking = committer.watchdog.beginBlocking() { return (number, blocking) }
    }
    throw LogError.failed("nobody checks after 1,000 commits")
  }

  @Test func theReadingThreadCheckpointsWhatIsCommitted() throws {
    let results = Mailbox<LogResult>()
    let made = DispatchSemaphore(value: 0)
    let reader = ReaderThread(open: { Probe(made) }, results: results)
    let committer = Committer(
      open: { Probe(made) }, results: results, upkeep: reader, mayTakeOver: false)
    let thread = WorkerThread { _ = committer.work() }
    for round in 1...2 as ClosedRange<UInt64> {
      committer.put(.append(registration(round)))
      #expect(made.wait(timeout: .now() + 20) == .success, "the checkpoint after commit \(round)")
    }
    #expect(!committer.watchdog.isArmed)
    committer.close()
    thread.join()
    reader.close()
    #expect(try outcomes(2, results) == [.appended, .appended])
  }

  @Test func aCheckpointThatFailsIsTold() throws {
    let results = Mailbox<LogResult>()
    let reader = ReaderThread(
      open: { Probe(DispatchSemaphore(value: 0), checkpointFailure: .full("no room")) }, results: results)
    defer { reader.close() }
    reader.carryOut(.checkpoint)
    var reasons: [String] = []
    let deadline = ContinuousClock.now + .seconds(20)
    while reasons.isEmpty {
      try #require(ContinuousClock.now < deadline, "nothing was told")
      for case .checkpointFailed(let reason) in results.takeAll(waitingAtMost: 100) ?? [] { reasons.append(reason) }
    }
    #expect(reasons == ["disk full (no room)"])
  }

  /// The loop appends itself, and the disk hangs: who committed until then is the loop, and who comes back commits.
  @Test func whoCommitsTakesOverFromALoopThatTheDiskHoldsUp() throws {
    let results = Mailbox<LogResult>()
    let made = DispatchSemaphore(value: 0)
    let gate = Gate()
    let reader = ReaderThread(open: { Probe(made) }, results: results)
    let committer = Committer(
      open: { Probe(made, appends: gate) }, results: results, upkeep: reader, mayTakeOver: true)
    let takenOver = DispatchSemaphore(value: 0)
    let first = WorkerThread { if committer.work() == .takesOver { takenOver.signal() } }

    // The loop may block while there is a load: the other thread checks then.
    #expect(committer.watchdog.beginBlocking() == nil)
    let (number, blocking) = try blockingUnderLoad(committer, results, gate)

    let second = WorkerThread {
      guard let outcome = try? committer.append(self.registration(number + 1)) else { return }
      if !committer.watchdog.endBlocking(blocking) { committer.report(outcome, of: self.registration(number + 1)) }
      _ = committer.work()
    }
    #expect(gate.begun.wait(timeout: .now() + 20) == .success)
    #expect(takenOver.wait(timeout: .now() + 20) == .success, "nobody took over")
    // What the new loop asks for waits for the disk.
    committer.put(.append(registration(number + 2)))
    for _ in 1...2 { gate.mayEnd.signal() }
    #expect(try outcomes(2, results) == [.appended, .appended])
    committer.close()
    first.join()
    second.join()
    reader.close()
  }

  /// Both handles of the log let go of what they keep when it has not grown for a while: the reading thread's at once, the other when it is told.
  @Test func whatIsKeptIsGivenBackWhenItIsCalm() throws {
    let results = Mailbox<LogResult>()
    let (read, committed) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    let reader = ReaderThread(open: { Probe(DispatchSemaphore(value: 0), released: read) }, results: results)
    let committer = Committer(
      open: { Probe(DispatchSemaphore(value: 0), released: committed) }, results: results, upkeep: reader,
      mayTakeOver: false)
    let thread = WorkerThread { _ = committer.work() }
    try waitForCalm(results)
    #expect(read.wait(timeout: .now() + 20) == .success)
    #expect(committed.wait(timeout: .now()) == .timedOut)
    committer.put(.giveBackMemory)
    #expect(committed.wait(timeout: .now() + 20) == .success)
    committer.close()
    thread.join()
    reader.close()
  }

  /// What a log puts off while there is a load is done when memory is given back.
  @Test(arguments: [LogUpkeep.checkpoint, .prepareForLoad])
  func whatALogNeedsIsDoneWhenItIsCalm(upkeep: LogUpkeep) throws {
    let results = Mailbox<LogResult>()
    let made = DispatchSemaphore(value: 0)
    let reader = ReaderThread(open: { Probe(made) }, results: results)
    let committer = Committer(
      open: { Probe(DispatchSemaphore(value: 0), quietUpkeep: upkeep) }, results: results, upkeep: reader,
      mayTakeOver: false)
    let thread = WorkerThread { _ = committer.work() }
    committer.put(.append(registration(1)))
    #expect(try outcomes(1, results) == [.appended])
    #expect(made.wait(timeout: .now()) == .timedOut)
    committer.put(.giveBackMemory)
    #expect(made.wait(timeout: .now() + 20) == .success)
    committer.close()
    thread.join()
    reader.close()
  }

  private func waitForCalm(_ results: Mailbox<LogResult>) throws {
    let deadline = ContinuousClock.now + .seconds(20)
    var isCalm = false
    while !isCalm {
      try #require(ContinuousClock.now < deadline, "it was never calm")
      for case .calm in results.takeAll(waitingAtMost: 100) ?? [] { isCalm = true }
    }
  }

  /// Where posts come so rarely that each is indexed as it comes, or never pause for long, it is calm as well when they are over.
  @Test func itIsCalmAfterALoadThatWasIndexedMeanwhile() throws {
    let results = Mailbox<LogResult>()
    let reader = ReaderThread(
      open: { Probe(DispatchSemaphore(value: 0)) }, results: results, indexIntervalUnderLoad: .zero)
    for _ in 1...2 {
      reader.noteGrowth()
      try waitForCalm(results)
    }
    reader.close()
  }

  /// A loop that the disk holds up is taken over even if memory was to be given back just then.
  @Test func givingBackDoesNotWaitForTheLoop() throws {
    let results = Mailbox<LogResult>()
    let gate = Gate()
    let reader = ReaderThread(open: { Probe(DispatchSemaphore(value: 0)) }, results: results)
    let committer = Committer(
      open: { Probe(DispatchSemaphore(value: 0), appends: gate) }, results: results, upkeep: reader,
      mayTakeOver: true)
    let takenOver = DispatchSemaphore(value: 0)
    let first = WorkerThread { if committer.work() == .takesOver { takenOver.signal() } }
    let (number, blocking) = try blockingUnderLoad(committer, results, gate)
    let second = WorkerThread {
      _ = try? committer.append(self.registration(number + 1))
      _ = committer.watchdog.endBlocking(blocking)
    }
    #expect(gate.begun.wait(timeout: .now() + 20) == .success)
    committer.put(.giveBackMemory)
    #expect(takenOver.wait(timeout: .now() + 20) == .success, "nobody took over")
    gate.mayEnd.signal()
    committer.close()
    first.join()
    second.join()
    reader.close()
  }

  /// Nobody checks, and the loop may not block, because of a look into the log, as idle masters take one.
  @Test func aLookIntoTheLogIsNoLoad() throws {
    let results = Mailbox<LogResult>()
    let reader = ReaderThread(open: { Probe(DispatchSemaphore(value: 0)) }, results: results)
    let committer = Committer(
      open: { Probe(DispatchSemaphore(value: 0)) }, results: results, upkeep: reader, mayTakeOver: true)
    let thread = WorkerThread { _ = committer.work() }
    for _ in 1...3 { committer.put(.catchUp(after: .zero)) }
    committer.close()
    thread.join()
    reader.close()
    #expect(!committer.watchdog.isArmed)
  }

  /// What rests on a commit that came to nothing is dropped, whoever appended it.
  @Test func whatFollowsAFailedCommitOfTheLoopIsDropped() throws {
    let results = Mailbox<LogResult>()
    let gate = Gate()
    let reader = ReaderThread(open: { Probe(DispatchSemaphore(value: 0)) }, results: results)
    let committer = Committer(
      open: { Probe(DispatchSemaphore(value: 0), appends: gate) }, results: results, upkeep: reader,
      mayTakeOver: true)
    let thread = WorkerThread { _ = committer.work() }
    for _ in 1...3 { gate.mayEnd.signal() }
    committer.put(.append(registration(1)))
    #expect(try outcomes(1, results) == [.appended])
    gate.failure.withLock { $0 = .full("no room") }
    #expect(try committer.append(registration(2)) == .failed("disk full (no room)"))
    gate.failure.withLock { $0 = nil }
    committer.put(.append(registration(3)))
    committer.put(.append(registration(2, series: 2)))
    #expect(try outcomes(1, results) == [.appended])
    committer.close()
    thread.join()
    reader.close()
    #expect(results.takeNow().count { if case .calm = $0 { false } else { true } } == 0)
  }

  /// Whoever repeats a request has waited before; pages of older posts come after that.
  @Test func whatIsLookedUpGoesBeforeReads() {
    let results = Mailbox<LogResult>()
    let reads = Gate()
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
