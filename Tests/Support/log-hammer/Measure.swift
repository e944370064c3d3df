// What the log costs on this machine.

import Glibc
import Log
import Model
import SQLiteLog

private let clock = ContinuousClock()

private func seconds(_ duration: Duration) -> Double {
  Double(duration.components.seconds) + Double(duration.components.attoseconds) / 1e18
}

private func processorSeconds() -> Double {
  var usage = rusage()
  getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
  return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
    + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6
}

private func percentile(_ share: Double, of sorted: [Double]) -> Double {
  sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))]
}

private func whole(_ value: Double) -> Int { Int(value.rounded()) }

private func size(of path: String) -> Int {
  var status = stat()
  return stat(path, &status) == 0 ? Int(status.st_size) : 0
}

private func report(_ name: String, _ times: [Double], perOperation count: Int = 1) {
  let sorted = times.sorted()
  let total = times.reduce(0, +)
  say(
    "\(name): \(whole(Double(times.count * count) / total))/s, p50 \(whole(percentile(0.5, of: sorted) * 1e6)) µs, "
      + "p99 \(whole(percentile(0.99, of: sorted) * 1e6)) µs, max \(whole((sorted.last ?? 0) * 1e6)) µs")
}

/// fdatasync after a write of one page: over a file's existing pages, as a WAL in use is written, and beyond its end.
private func measureSync(folder: String) {
  let path = folder + "/sync-probe"
  let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
  let page = [UInt8](repeating: 7, count: 4_096)
  for name in ["fdatasync, file grows", "fdatasync, overwriting"] {
    var times: [Double] = []
    for index in 0..<500 {
      let start = clock.now
      pwrite(file, page, page.count, off_t(index * page.count))
      fdatasync(file)
      times.append(seconds(clock.now - start))
    }
    report(name, times)
  }
  close(file)
  unlink(path)
}

func measure(folder: String, posts total: Int, checkpointPages: Int?) throws {
  measureSync(folder: folder)
  let authors = 1_000
  let text = String(repeating: "x", count: 100)
  var start = clock.now
  var options = SQLiteLog.Options()
  if let checkpointPages { options.checkpointPages = checkpointPages }
  let log = try SQLiteLog(folder: folder, options: options)
  say("open, new: \(whole(seconds(clock.now - start) * 1e6)) µs")
  var head = try log.head()
  var random = RandomSource.seeded(1)

  let accounts = (0..<authors).map { index in
    Event(
      id: head.advanced(by: index + 1), time: .zero, request: nil,
      change: .accountCreated(AccountID(UInt32(index)), name: "author\(index)"))
  }
  _ = try log.append(accounts, after: head)
  head = accounts.last!.id

  func events(_ count: Int) -> [Event] {
    (1...count).map { offset in
      let id = head.advanced(by: offset)
      return post(
        id, by: AccountID(UInt32.random(in: 0..<UInt32(authors), using: &random)),
        client: SplitMix64.mix(UInt64.random(in: 1...2_000, using: &random)), text: text)
    }
  }

  for size in [1, 10, 50, 100, 500, 800] {
    let rounds = max(200, 60_000 / size / 4)
    let batches = (0..<rounds).map { _ -> [Event] in
      let batch = events(size)
      head = batch.last!.id
      return batch
    }
    var times: [Double] = []
    let processor = processorSeconds()
    for batch in batches {
      start = clock.now
      _ = try log.append(batch, after: EventID(batch[0].id.rawValue - 1))
      times.append(seconds(clock.now - start))
      switch log.takeUpkeepDue(isQuiet: false) {
      case .checkpoint: try log.checkpoint()
      case .prepareForLoad: while try log.prepareForLoad() {}
      case nil: break
      }
    }
    let used = processorSeconds() - processor
    report(
      "append \(size): \(whole(used * 1e9 / Double(size * rounds))) ns CPU a post", times, perOperation: size)
  }

  while head.rawValue < UInt64(total + authors) {
    let batch = events(Limits.batchEvents)
    _ = try log.append(batch, after: head)
    head = batch.last!.id
  }

  start = clock.now
  var read = 0
  var position = EventID.zero
  while let last = try log.read(after: position, limit: Limits.readEvents).last?.id {
    read += Int(last.rawValue - position.rawValue)
    position = last
  }
  say("read: \(whole(Double(read) / seconds(clock.now - start)))/s")

  for limit in [4_096, 65_536] {
    for suffix in ["", "-wal", "-shm"] { unlink(folder + "/index.db" + suffix) }
    start = clock.now
    let processor = processorSeconds()
    while try log.index(limit: limit) {}
    say(
      "index, \(limit) at a time: \(whole(Double(head.rawValue) / seconds(clock.now - start)))/s, "
        + "\(whole((processorSeconds() - processor) * 1e9 / Double(head.rawValue))) ns CPU an event")
  }
  say("log.db \(size(of: folder + "/log.db") >> 10) KiB, WAL \(size(of: folder + "/log.db-wal") >> 10) KiB, ")
  say("index.db \(size(of: folder + "/index.db") >> 10) KiB, WAL \(size(of: folder + "/index.db-wal") >> 10) KiB")

  start = clock.now
  let second = try SQLiteLog(folder: folder)
  say("open, existing: \(whole(seconds(clock.now - start) * 1e6)) µs")
  start = clock.now
  let snapshot = try second.snapshot()
  say(
    "snapshot of \(snapshot.upTo) events: \(whole(seconds(clock.now - start) * 1e3)) ms, "
      + "\(snapshot.posts.count) posts, \(snapshot.windows.count) windows")

  let everybody = (0..<authors).map { AccountID(UInt32($0)) }
  for (name, authors) in [("1 author", everybody.prefix(1)), ("100", everybody.prefix(100)), ("1000", everybody[...])] {
    var times: [Double] = []
    for round in 0..<100 {
      start = clock.now
      let range = PostRange.before(EventID(head.rawValue / 100 * UInt64(round + 1)))
      _ = try second.posts(by: Array(authors), in: range, upTo: head, limit: 20)
      times.append(seconds(clock.now - start))
    }
    report("posts, 20 by \(name)", times)
  }
}
