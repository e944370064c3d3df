// Several processes at one log, and processes killed in the midst of commits. The children are `log-hammer`.

import Foundation
import Log
import Model
import SQLiteLog
import Testing

/// A child process whose output is read line by line.
private final class Hammer {
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private var rest = Data()

  init(_ arguments: String...) throws {
    let folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
    process.executableURL = folder.appendingPathComponent("log-hammer")
    process.arguments = arguments
    process.standardInput = input
    process.standardOutput = output
    try process.run()
  }

  deinit { kill() }

  /// The next line; nil at the end of output.
  func line() -> String? {
    while true {
      if let end = rest.firstIndex(of: 10) {
        defer { rest.removeSubrange(...end) }
        return String(decoding: rest[..<end], as: UTF8.self)
      }
      let data = output.fileHandleForReading.availableData
      if data.isEmpty { return nil }
      rest.append(data)
    }
  }

  func go() { try? input.fileHandleForWriting.write(contentsOf: Data("go\n".utf8)) }

  func kill() {
    if process.isRunning { Foundation.kill(process.processIdentifier, SIGKILL) }
    process.waitUntilExit()
  }
}

@Suite(.serialized) final class ProcessTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Kills a process that commits as fast as it can, again and again, at moments that differ.
  @Test(arguments: [1, 7, 300])
  func whatWasAcknowledgedSurvivesSIGKILL(batch: Int) throws {
    var head = EventID.zero
    for round in 0..<8 {
      let child = try Hammer("append", folder.path, String(batch))
      var acknowledged = EventID.zero
      func note(_ line: String) throws {
        acknowledged = EventID(try #require(line.split(separator: " ").last.flatMap { UInt64($0) }, "\(line)"))
      }
      for _ in 0..<1 + round * 5 { try note(try #require(child.line())) }
      child.kill()
      // What it said before it died counts, too.
      while let line = child.line() { try note(line) }

      let log = try SQLiteLog(folder: folder.path)
      let found = try log.head()
      #expect(found >= acknowledged)
      #expect(found.rawValue % UInt64(batch) == 0, "part of a batch")
      #expect(found.rawValue - acknowledged.rawValue <= UInt64(batch), "more than the one batch under way")
      #expect(acknowledged > head)
      var position = EventID.zero
      while let last = try log.read(after: position, limit: 1_000).last { position = last.id }
      #expect(position == found)
      head = found
    }
  }

  @Test func eightProcessesTakeTurns() throws {
    let end = 1_200
    let children = try (0..<8).map { _ in try Hammer("compete", folder.path, String(end)) }
    for child in children { #expect(child.line() == "ready") }
    for child in children { child.go() }
    let reports = try children.map { child in
      let line = try #require(child.line())
      let words = line.split(separator: " ")
      return try #require(words.count == 4 ? Int(words[1]) : nil, "\(line)")
    }
    let log = try SQLiteLog(folder: folder.path)
    let events = try log.read(after: .zero, limit: 10_000)
    #expect(events.map(\.id) == (1...events.count).map { EventID(UInt64($0)) })
    #expect(events.count == reports.reduce(0, +))
    #expect(events.count >= end && events.count < end + 8)
    let mean = events.count / 8
    #expect(reports.min()! >= mean / 3, "\(reports)")
    #expect(reports.max()! <= mean * 3, "\(reports)")
  }

  /// The kernel refuses to let a file grow, as it does on a full disk.
  @Test func aFullDiskIsToldAndGotOver() throws {
    let child = try Hammer("fill", folder.path, "300000")
    let first = try #require(child.line())
    let words = first.split(whereSeparator: { " ,".contains($0) })
    let head = try #require(words.count == 6 && words[0] == "full" ? Int(words[2]) : nil, "\(first)")
    #expect(first == "full at \(head), head is \(head)")
    #expect(head > 0)
    #expect(child.line() == "then appended, head is \(head + 10)")
    #expect(try SQLiteLog(folder: folder.path).read(after: .zero, limit: 10_000).count == head + 10)
  }

  /// A process that was told it is behind and never comes back costs the others a moment, not their turn.
  @Test func anUnusedReservationRunsOut() throws {
    let idle = try SQLiteLog(folder: folder.path)
    let busy = try SQLiteLog(folder: folder.path)
    var history = History(seed: 1)
    history.addMixed(3)
    #expect(try busy.append([history.events[0]], after: .zero) == .appended)
    #expect(try idle.append([history.events[0]], after: .zero) == .behind)
    #expect(try busy.append([history.events[1]], after: EventID(1)) == .appended)
    #expect(try idle.append([history.events[1]], after: EventID(1)) == .behind)
    #expect(try idle.append([history.events[2]], after: EventID(2)) == .appended)
  }
}
