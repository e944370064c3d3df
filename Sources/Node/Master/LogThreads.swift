// What touches the disk: one thread commits and catches up, with or for the loop; one reads older posts, checkpoints, and keeps the derived tables.

import CSpawn
import Core
import Glibc
public import Log
import Model
import Runtime
import Synchronization

/// Opens the log; called once for each who needs it.
public typealias LogOpener = @Sendable () throws(LogError) -> any EventLog

/// What the threads tell the loop; the one that hashes passwords, too.
enum LogResult: Sendable {
  case password(PasswordJobID, PasswordOutcome)
  case loaded(Snapshot)
  /// What became of so many commits.
  case committed(CommitOutcome, Int)
  case caughtUp(ReadOutcome<[Event]>, more: Bool)
  case read(ReadID, ReadOutcome<[StoredPost]>, more: Bool)
  case lookedUp(ReadOutcome<[RequestID: EventID]>)
  /// What was appended could not be moved to its place: the log grows where it should not.
  case checkpointFailed(String)
  /// The log has not grown for a while, and there is nothing to do about the derived tables: a time to give memory back.
  case calm
  /// The log can't be used at all: the process ends.
  case unusable(String)
}

extension LogError {
  /// For a log line or an answer.
  public var explanation: String {
    switch self {
    case .full(let what): return "disk full (\(what))"
    case .failed(let what): return what
    case .corrupt(let what): return what
    case .newer(let found, let supported):
      return "the log is of version \(found); this program knows versions up to \(supported)"
    }
  }
}

/// Loads, commits and catches up, in the order asked, on the thread that `work`s; and a commit that is alone at once, on the loop's
/// (`append`). Those two threads may change places; see `LoopWatchdog`.
final class Committer: Sendable {
  enum Job: Sendable {
    case append(Append)
    case catchUp(after: EventID)
    /// What the process does not need while there is nothing to do. What the log needs can be done then, too.
    case giveBackMemory

    var isAppend: Bool { if case .append = self { true } else { false } }
    var isGiveBack: Bool { if case .giveBackMemory = self { true } else { false } }
  }

  /// Why `work` ended.
  enum Ending {
    /// It was closed, or the log can't be used.
    case closed
    /// The loop blocked for too long, and the caller has taken over.
    case takesOver
  }

  /// The log, and what waits for it.
  private final class Writer {
    let log: any EventLog
    var appends = AppendQueue()

    init(_ log: any EventLog) { self.log = log }
  }

  /// For how long the loop may block, at least; at most twice as long, if a processor is free then. A commit takes some tenths of one.
  private static let checkMilliseconds = 5
  /// After so many checks at which it had not blocked, the thread sleeps until there is something to do.
  private static let idleChecks = 4
  /// Two appends within this time are the beginning of a load. Fewer save less than the checks cost.
  private static let loadInterval = Interval.milliseconds(20)

  /// Who works is the loop, or not.
  let watchdog = LoopWatchdog()
  private let open: LogOpener
  private let mayTakeOver: Bool
  private let jobs = Mailbox<Job>()
  private let results: Mailbox<LogResult>
  private let upkeep: ReaderThread
  /// Held while the log is used.
  private let writer = Mutex<Writer?>(nil)

  /// - Parameters:
  ///   - upkeep: who does what the log needs beside appends.
  ///   - mayTakeOver: the loop may append, since whoever works takes over if that takes long.
  init(open: @escaping LogOpener, results: Mailbox<LogResult>, upkeep: ReaderThread, mayTakeOver: Bool) {
    self.open = open
    self.results = results
    self.upkeep = upkeep
    self.mayTakeOver = mayTakeOver
  }

  func put(_ job: Job) { jobs.put(job) }

  /// Nothing more will be asked.
  func close() { jobs.close() }

  /// Lets go of the log; nobody works any more.
  func closeLog() { writer.withLock { $0 = nil } }

  /// Carries out what is asked until there will be no more.
  func work() -> Ending {
    do throws(LogError) {
      try load()
      // What the watchdog saw last; nil if it is disarmed.
      var seen: UInt64?
      var idleChecks = 0
      var lastAppend = Instant.zero
      while let batch = seen == nil ? jobs.takeAll() : jobs.takeAll(waitingAtMost: Self.checkMilliseconds) {
        if !batch.isEmpty {
          try carryOut(batch)
          guard mayTakeOver, seen == nil, batch.contains(where: \.isAppend) else { continue }
          let now = Clock.now()
          if now - lastAppend <= Self.loadInterval { seen = watchdog.arm() }
          lastAppend = now
          idleChecks = 0
        } else if var last = seen {
          switch watchdog.check(since: &last) {
          case .takenOver: return .takesOver
          case .active: idleChecks = 0
          case .idle: idleChecks += 1
          }
          seen = idleChecks >= Self.idleChecks && watchdog.disarm(since: last) ? nil : last
        }
      }
    } catch {
      // What has been read is gone, or is not what was written: there is nothing to go on from.
      report(error)
    }
    return .closed
  }

  /// Appends at once, on the loop's thread, between `beginBlocking` and `endBlocking`. Everything that was `put`, but for giving memory back,
  /// must have been carried out and told: it would else be overtaken, and who works would wait for this, instead of checking how long it takes.
  /// The caller tells the core.
  func append(_ append: Append) throws(LogError) -> CommitOutcome {
    try writer.withLock { writer throws(LogError) in
      let outcome = try Self.append(append, writer!)
      if let due = writer!.log.takeUpkeepDue(isQuiet: false) { upkeep.carryOut(due) }
      return outcome
    }
  }

  /// Tells the loop, which is another thread, of what `append` did.
  func report(_ outcome: CommitOutcome, of append: Append) { results.put(.committed(outcome, append.commits)) }

  /// The same, if it can't go on.
  func report(_ error: LogError) { results.put(.unusable(error.explanation)) }

  private func load() throws(LogError) {
    let snapshot = try writer.withLock { writer throws(LogError) -> Snapshot? in
      if writer != nil { return nil }
      let log = try open()
      writer = Writer(log)
      return try log.snapshot()
    }
    if let snapshot { results.put(.loaded(snapshot)) }
  }

  private func carryOut(_ batch: [Job]) throws(LogError) {
    if !batch.allSatisfy(\.isGiveBack) { try carryOutAtLog(batch) }
    if batch.contains(where: \.isGiveBack) { giveBackMemory(isQuiet: !batch.contains(where: \.isAppend)) }
  }

  private func giveBackMemory(isQuiet: Bool) {
    // If the loop is at the log, it must be checked for how long, not waited for.
    writer.withLockIfAvailable { writer in
      guard let log = writer?.log else { return }
      if isQuiet, let due = log.takeUpkeepDue(isQuiet: true) { upkeep.carryOut(due) }
      log.releaseMemory()
    }
    tinysns_give_back_own_memory()
    // All of the process's, which takes a second with thousands of clients: no commit is to wait for that.
    upkeep.giveBackMemory()
  }

  private func carryOutAtLog(_ batch: [Job]) throws(LogError) {
    try writer.withLock { writer throws(LogError) in
      let writer = writer!
      for job in batch {
        switch job {
        case .append(let append): writer.appends.put(append)
        case .catchUp(let position):
          try appendAll(writer)
          results.put(try Self.catchUp(after: position, writer.log))
        case .giveBackMemory: break
        }
      }
      try appendAll(writer)
      if let due = writer.log.takeUpkeepDue(isQuiet: false) { upkeep.carryOut(due) }
    }
  }

  private func appendAll(_ writer: Writer) throws(LogError) {
    while let append = writer.appends.take() {
      report(try Self.append(append, writer), of: append)
    }
  }

  private static func append(_ append: Append, _ writer: Writer) throws(LogError) -> CommitOutcome {
    let began = Clock.now()
    let outcome = try outcome(of: append, writer.log)
    if outcome == .appended {
      writer.appends.noteAppended(append, after: Clock.now() - began)
    } else {
      writer.appends.drop(after: append)
    }
    return outcome
  }

  private static func outcome(of append: Append, _ log: any EventLog) throws(LogError) -> CommitOutcome {
    do throws(LogError) {
      switch try log.append(append.events, after: append.after) {
      case .appended: return .appended
      case .behind: return .behind(try log.read(after: append.after, limit: Limits.readEvents))
      }
    } catch {
      if case .corrupt = error { throw error }
      return .failed(error.explanation)
    }
  }

  private static func catchUp(after position: EventID, _ log: any EventLog) throws(LogError) -> LogResult {
    do throws(LogError) {
      let events = try log.read(after: position, limit: Limits.readEvents)
      return .caughtUp(.read(events), more: events.count == Limits.readEvents)
    } catch {
      if case .corrupt = error { throw error }
      return .caughtUp(.failed(error.explanation), more: false)
    }
  }
}

/// Reads older posts and looks up requests; between reads does what the log needs beside appends, and brings the derived tables up to the
/// log, if no other master is at it.
final class ReaderThread: Sendable {
  enum Job: Sendable {
    case read(ReadID, LogQuery)
    /// There is something to look up.
    case lookUp
    case upkeep(LogUpkeep)
    /// The log has grown, which was waited for.
    case grown
    /// Memory is to be given back, all of the process's.
    case giveBackMemory
  }

  /// Whether the log has grown: noted at every commit, which must not cost a wake-up each.
  private final class Growth: Sendable {
    private let state = Mutex((isThere: false, isAwaited: false))

    /// Notes that there is some; whether it was awaited.
    func note() -> Bool {
      state.withLock { state in
        defer { state = (true, false) }
        return state.isAwaited
      }
    }

    /// Whether there was some since this was last asked. If there was none and it is `awaited`, the next is to be told of.
    func take(awaited: Bool = false) -> Bool {
      state.withLock { state in
        defer { state = (false, awaited && !state.isThere) }
        return state.isThere
      }
    }
  }

  /// What is to be looked up.
  private final class LookUps: Sendable {
    typealias LookUp = (requests: [RequestID: EventID], upTo: EventID)
    private let waiting = Mutex<[LookUp]>([])

    func put(_ lookUp: LookUp) { waiting.withLock { $0.append(lookUp) } }
    func takeAll() -> [LookUp] { waiting.withLock { exchange(&$0, with: []) } }
  }

  /// Something that one thread waits for and another does.
  private final class Flag: Sendable {
    private let isSet = Atomic(false)

    /// Sets it; false if it was set.
    func set() -> Bool { !isSet.exchange(true, ordering: .acquiringAndReleasing) }
    func clear() { isSet.store(false, ordering: .releasing) }
  }

  /// How long the log must not have grown before the derived tables are brought up to it, in milliseconds.
  private static let indexInterval = 1_000
  /// Events in one go: few enough that a read does not wait long, and enough that it matters little how many clients' windows, of up to 1,024
  /// requests each, are read and written with them.
  private static let indexEvents = 16_384

  private let jobs = Mailbox<Job>()
  private let lookUps = LookUps()
  private let growth = Growth()
  /// Some was asked for and has not been done.
  private let awaitsUpkeep = Flag()
  private let thread: WorkerThread

  /// - Parameter indexIntervalUnderLoad: how long the derived tables may lag behind a log that never stops growing. What they lag, a starting
  ///   master replays.
  init(open: @escaping LogOpener, results: Mailbox<LogResult>, indexIntervalUnderLoad: Interval = .seconds(10)) {
    let (jobs, lookUps, growth, flag) = (jobs, lookUps, growth, awaitsUpkeep)
    thread = WorkerThread { Self.run(open, jobs, lookUps, growth, flag, results, indexIntervalUnderLoad) }
  }

  /// Does what the log needs, or nothing if it is at something of that kind: it is told again as the log grows.
  func carryOut(_ upkeep: LogUpkeep) {
    if awaitsUpkeep.set() { jobs.put(.upkeep(upkeep)) }
  }

  func read(_ id: ReadID, _ query: LogQuery) { jobs.put(.read(id, query)) }

  /// Looks up requests before anything else: whoever repeats one has waited for its answer already.
  func lookUp(_ requests: [RequestID: EventID], upTo: EventID) {
    lookUps.put((requests, upTo))
    jobs.put(.lookUp)
  }

  /// The log has grown. Costs next to nothing while the thread knows that it is behind.
  func noteGrowth() {
    if growth.note() { jobs.put(.grown) }
  }

  /// Has what malloc keeps, and the program's pages, given back: when the other two threads have given back their own, for each brings some of
  /// those pages back.
  func giveBackMemory() { jobs.put(.giveBackMemory) }

  func close() {
    jobs.close()
    thread.join()
  }

  private static func run(
    _ open: LogOpener, _ jobs: Mailbox<Job>, _ lookUps: LookUps, _ growth: Growth, _ awaitsUpkeep: Flag,
    _ results: Mailbox<LogResult>, _ indexIntervalUnderLoad: Interval
  ) {
    let log: any EventLog
    do throws(LogError) { log = try open() } catch {
      results.put(.unusable(error.explanation))
      return
    }
    try? log.prepare()
    // Until the tables are up to a log that has not grown for an interval, in which nobody asked for anything either; or could not be brought up.
    var isBehind = true
    var isCalm = false
    var isIndexing = false
    var lastIndexed = Clock.now()
    while true {
      if !isBehind { isBehind = growth.take(awaited: true) }
      // With nothing to index the thread sleeps until it is asked something; otherwise the tables lag a little, in bulk.
      let waits = isBehind && !isIndexing
      guard let batch = isBehind ? jobs.takeAll(waitingAtMost: waits ? indexInterval : 0) : jobs.takeAll() else {
        return
      }
      for job in batch {
        for (requests, upTo) in lookUps.takeAll() { results.put(lookUp(requests, upTo: upTo, in: log)) }
        switch job {
        case .read(let id, let query): results.put(answer(id, query, from: log))
        case .lookUp: break
        case .upkeep(.checkpoint):
          // What is asked for from now on is for the next one. Should this one fail, that is tried when the log has grown by a quarter; no
          // commit fails because of it.
          awaitsUpkeep.clear()
          do throws(LogError) { try log.checkpoint() } catch { results.put(.checkpointFailed(error.explanation)) }
        case .upkeep(.prepareForLoad):
          // A checkpoint that is asked for meanwhile would come too soon.
          if (try? log.prepareForLoad()) == true, !jobs.isFinished {
            jobs.put(.upkeep(.prepareForLoad))
          } else {
            awaitsUpkeep.clear()
          }
        case .grown: break
        case .giveBackMemory:
          // Of this thread, what a checkpoint has taken since it was calm.
          log.releaseMemory()
          tinysns_give_back_own_memory()
          tinysns_give_back_memory()
        }
      }
      let hasGrown = growth.take()
      if hasGrown { isBehind = true }
      guard isBehind else { continue }
      isCalm = batch.isEmpty && !hasGrown && (isCalm || waits)
      if isCalm || Clock.now() - lastIndexed > indexIntervalUnderLoad { isIndexing = true }
      guard isIndexing else { continue }
      // A failure is not this master's alone, and costs nothing but a longer replay: it is tried again when the log has grown.
      isIndexing = (try? log.index(limit: indexEvents)) ?? false
      guard !isIndexing else { continue }
      lastIndexed = Clock.now()
      // It may have grown while the tables were brought up to it.
      isBehind = !isCalm || growth.take()
      isCalm = false
      guard !isBehind else { continue }
      log.releaseMemory()
      tinysns_give_back_own_memory()
      results.put(.calm)
    }
  }

  private static func answer(_ id: ReadID, _ query: LogQuery, from log: any EventLog) -> LogResult {
    do throws(LogError) {
      switch query {
      case .posts(let ids): return .read(id, .read(try log.posts(withIDs: ids)), more: false)
      case .range(let authors, let range, let upTo, let limit):
        let wanted: PostRange
        switch range {
        case .before(let position): wanted = .before(position)
        case .after(let position): wanted = .after(position)
        }
        let (posts, more) = try log.posts(by: authors, in: wanted, upTo: upTo, limit: limit)
        return .read(id, .read(posts), more: more)
      }
    } catch {
      return .read(id, .failed(error.explanation), more: false)
    }
  }

  private static func lookUp(_ requests: [RequestID: EventID], upTo: EventID, in log: any EventLog) -> LogResult {
    do throws(LogError) {
      return .lookedUp(.read(try log.events(of: requests, upTo: upTo)))
    } catch {
      return .lookedUp(.failed(error.explanation))
    }
  }
}
