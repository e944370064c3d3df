// A process that uses a log, for tests that need several processes or kill one, and for measurements.
//
//   log-hammer append FOLDER BATCH      appends for ever, checkpoints beside it; a line "acknowledged ID" after each commit
//   log-hammer compete FOLDER HEAD      waits for a line on stdin, appends one event at a time until the log's head is HEAD;
//                                       says "appended N behind M"
//   log-hammer fill FOLDER BYTES        appends until no file may grow beyond BYTES, then with the limit lifted
//   log-hammer measure FOLDER POSTS [CHECKPOINT-PAGES]   rates and latencies, a line each

import Foundation
import Log
import Model
import Runtime
import SQLiteLog

func say(_ line: String) {
  var line = line + "\n"
  line.withUTF8 { _ = write(STDOUT_FILENO, $0.baseAddress, $0.count) }
}

func post(_ id: EventID, by author: AccountID, client: UInt64 = 1, text: String) -> Event {
  Event(
    id: id, time: Timestamp(milliseconds: Int64(id.rawValue)),
    request: RequestID(client: ClientID(client), number: id.rawValue), change: .posted(author, text: text))
}

func batch(after head: EventID, _ count: Int, text: String) -> [Event] {
  (1...count).map { post(head.advanced(by: $0), by: AccountID(0), text: text) }
}

/// Does what the log needs on a thread of its own, beside the appends, as a master's reading thread does.
final class UpkeepThread: Sendable {
  private let wanted = Mailbox<LogUpkeep>()

  init(folder: String) {
    Thread.detachNewThread { [wanted] in
      do {
        let log = try SQLiteLog(folder: folder, options: checkpointedOften)
        while let batch = wanted.takeAll() {
          for upkeep in batch {
            switch upkeep {
            case .checkpoint: try log.checkpoint()
            case .prepareForLoad: while try log.prepareForLoad() {}
            }
          }
        }
      } catch {
        say("error: beside appends: \(error)")
        exit(1)
      }
    }
  }

  func begin(_ upkeep: LogUpkeep) { wanted.put(upkeep) }
}

/// Often enough for a test of a few hundred commits.
let checkpointedOften = {
  var options = SQLiteLog.Options()
  options.checkpointPages = 20
  options.checkpointPagesUnderLoad = 100
  return options
}()

func appendForever(folder: String, size: Int) throws {
  let log = try SQLiteLog(folder: folder, options: checkpointedOften)
  let upkeep = UpkeepThread(folder: folder)
  try log.prepare()
  var head = try log.head()
  while true {
    guard try log.append(batch(after: head, size, text: "a post"), after: head) == .appended else {
      fatalError("behind, although alone")
    }
    head = head.advanced(by: size)
    say("acknowledged \(head)")
    if let due = log.takeUpkeepDue(isQuiet: false) { upkeep.begin(due) }
  }
}

func compete(folder: String, until end: EventID) throws {
  let log = try SQLiteLog(folder: folder, options: checkpointedOften)
  let upkeep = UpkeepThread(folder: folder)
  var head = try log.head()
  say("ready")
  _ = readLine()
  try log.prepare()
  var appended = 0
  var behind = 0
  while head < end {
    let event = post(head.next, by: AccountID(0), client: UInt64(getpid()), text: "post \(appended)")
    switch try log.append([event], after: head) {
    case .appended:
      appended += 1
      head = head.next
      if let due = log.takeUpkeepDue(isQuiet: false) { upkeep.begin(due) }
    case .behind:
      behind += 1
      head = try log.read(after: head, limit: Limits.readEvents).last?.id ?? head
    }
  }
  say("appended \(appended) behind \(behind)")
}

func fill(folder: String, bytes: UInt64) throws {
  let log = try SQLiteLog(folder: folder)
  signal(SIGXFSZ, SIG_IGN)
  var limit = rlimit()
  getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
  limit.rlim_cur = rlim_t(bytes)
  setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
  var head = try log.head()
  let text = String(repeating: "x", count: Limits.postBytes)
  do {
    while true {
      _ = try log.append(batch(after: head, 10, text: text), after: head)
      head = head.advanced(by: 10)
    }
  } catch LogError.full {
    say("full at \(head), head is \(try log.head())")
  }
  limit.rlim_cur = limit.rlim_max
  setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
  say("then \(try log.append(batch(after: head, 10, text: text), after: head)), head is \(try log.head())")
}

let arguments = CommandLine.arguments
guard arguments.count >= 4, let number = Int(arguments[3]) else {
  say("usage: log-hammer append|compete|fill|measure FOLDER NUMBER")
  exit(2)
}
do {
  switch arguments[1] {
  case "append": try appendForever(folder: arguments[2], size: number)
  case "compete": try compete(folder: arguments[2], until: EventID(UInt64(number)))
  case "fill": try fill(folder: arguments[2], bytes: UInt64(number))
  case "measure":
    let pages = arguments.dropFirst(4).first.flatMap { Int($0) }
    try measure(folder: arguments[2], posts: number, checkpointPages: pages)
  default: exit(2)
  }
} catch {
  say("error: \(error)")
  exit(1)
}
