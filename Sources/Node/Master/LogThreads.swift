// The threads that touch the disk: one commits and catches up, one reads older posts and keeps the derived tables.

import CSpawn
import Core
import Glibc
public import Log
import Model
import Runtime
import Synchronization

/// Opens the log; called once on each thread that needs it.
public typealias LogOpener = @Sendable () throws(LogError) -> any EventLog

/// What the threads tell the loop; the one that hashes passwords, too.
enum LogResult: Sendable {
  case password(PasswordJobID, PasswordOutcome)
  case loaded(Snapshot)
  case committed(CommitOutcome)
  case caughtUp(ReadOutcome<[Event]>, more: Bool)
  case read(ReadID, ReadOutcome<[StoredPost]>, more: Bool)
  /// The log can't be used at all: the process ends.
  case unusable(String)
}

extension LogError {
  /// For a log line or an answer.
  var explanation: String {
    switch self {
    case .full(let what): return "disk full (\(what))"
    case .failed(let what): return what
    case .corrupt(let what): return what
    case .newer(let found, let supported):
      return "the log is of version \(found); this program knows versions up to \(supported)"
    }
  }
}

/// Loads, commits and catches up, in the order asked.
final class CommitThread: Sendable {
  enum Job: Sendable {
    case append([Event], after: EventID)
    case catchUp(after: EventID)
  }

  private let jobs = Mailbox<Job>()
  private let thread: WorkerThread

  init(open: @escaping LogOpener, results: Mailbox<LogResult>) {
    let jobs = jobs
    thread = WorkerThread { Self.run(open, jobs, results) }
  }

  func put(_ job: Job) { jobs.put(job) }

  /// Finishes what was asked, and ends.
  func close() {
    jobs.close()
    thread.join()
  }

  private static func run(_ open: LogOpener, _ jobs: Mailbox<Job>, _ results: Mailbox<LogResult>) {
    let log: any EventLog
    do throws(LogError) {
      log = try open()
      results.put(.loaded(try log.snapshot()))
    } catch {
      results.put(.unusable(error.explanation))
      return
    }
    while let batch = jobs.takeAll() {
      for job in batch {
        do throws(LogError) {
          results.put(try carryOut(job, log))
        } catch {
          // What has been read is gone, or is not what was written: there is nothing to go on from.
          if case .corrupt = error {
            results.put(.unusable(error.explanation))
            return
          }
          switch job {
          case .append: results.put(.committed(.failed(error.explanation)))
          case .catchUp: results.put(.caughtUp(.failed(error.explanation), more: false))
          }
        }
      }
    }
  }

  private static func carryOut(_ job: Job, _ log: any EventLog) throws(LogError) -> LogResult {
    switch job {
    case .append(let events, let head):
      switch try log.append(events, after: head) {
      case .appended: return .committed(.appended)
      case .behind: return .committed(.behind(try log.read(after: head, limit: Limits.readEvents)))
      }
    case .catchUp(let position):
      let events = try log.read(after: position, limit: Limits.readEvents)
      return .caughtUp(.read(events), more: events.count == Limits.readEvents)
    }
  }
}

/// Reads older posts, and between reads brings the derived tables up to the log, if no other master is at it.
final class ReaderThread: Sendable {
  enum Job: Sendable {
    case read(ReadID, LogQuery)
    /// The log has grown, which was waited for.
    case grown
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

  /// How long the log must not have grown before the derived tables are brought up to it, in milliseconds.
  private static let indexInterval = 1_000
  /// The same under a load that never pauses. What they lag behind, a starting master replays.
  private static let indexIntervalUnderLoad = Interval.seconds(10)
  /// Events in one go, so that a read does not wait long.
  private static let indexEvents = 8_192

  private let jobs = Mailbox<Job>()
  private let growth = Growth()
  private let thread: WorkerThread

  init(open: @escaping LogOpener, results: Mailbox<LogResult>) {
    let (jobs, growth) = (jobs, growth)
    thread = WorkerThread { Self.run(open, jobs, growth, results) }
  }

  func read(_ id: ReadID, _ query: LogQuery) { jobs.put(.read(id, query)) }

  /// The log has grown. Costs next to nothing while the thread knows that it is behind.
  func noteGrowth() {
    if growth.note() { jobs.put(.grown) }
  }

  func close() {
    jobs.close()
    thread.join()
  }

  private static func run(
    _ open: LogOpener, _ jobs: Mailbox<Job>, _ growth: Growth, _ results: Mailbox<LogResult>
  ) {
    let log: any EventLog
    do throws(LogError) { log = try open() } catch {
      results.put(.unusable(error.explanation))
      return
    }
    var isBehind = true
    var isIndexing = false
    var lastIndexed = Clock.now()
    while true {
      if !isBehind { isBehind = growth.take(awaited: true) }
      // With nothing to index the thread sleeps until it is asked something; otherwise the tables lag a little, in bulk.
      guard let batch = isBehind ? jobs.takeAll(waitingAtMost: isIndexing ? 0 : indexInterval) : jobs.takeAll() else {
        return
      }
      for case .read(let id, let query) in batch { results.put(answer(id, query, from: log)) }
      let hasGrown = growth.take()
      if hasGrown { isBehind = true }
      guard isBehind else { continue }
      let isCalm = batch.isEmpty && !hasGrown
      if isCalm || Clock.now() - lastIndexed > indexIntervalUnderLoad { isIndexing = true }
      guard isIndexing else { continue }
      // A failure is not this master's alone, and costs nothing but a longer replay: try again later.
      isBehind = (try? log.index(limit: indexEvents)) ?? false
      if !isBehind {
        isIndexing = false
        lastIndexed = Clock.now()
        if isCalm { tinysns_give_back_memory() }
      }
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
}
