// The acknowledgement leaves after the sync, as the system calls of a real master show.

import Foundation
import Glibc
import Log
import Model
import SQLiteLog
import Testing

extension RealProcesses {
  @Suite struct DurabilityTests {
    private static let strace = "/usr/bin/strace"
    private static let hasStrace = ConditionTrait.enabled("there is no strace here, or it may not trace") {
      guard access(strace, X_OK) == 0 else { return false }
      let process = Process()
      process.executableURL = URL(fileURLWithPath: strace)
      process.arguments = ["-o", "/dev/null", "/bin/true"]
      process.standardError = FileHandle.nullDevice
      guard (try? process.run()) != nil else { return false }
      process.waitUntilExit()
      return process.terminationStatus == 0
    }

    /// A system call of the trace that has returned.
    private struct Call {
      var name: Substring
      var descriptor: Int
      var line: Substring
    }

    /// One line a call; a call that another thread's interrupted is put together again.
    private func calls(in trace: String) -> [Call] {
      var unfinished: [Substring: Substring] = [:]
      var calls: [Call] = []
      for line in trace.split(separator: "\n") {
        guard let space = line.firstIndex(of: " ") else { continue }
        let thread = line[..<space]
        var rest = line[space...].drop { $0 == " " }
        if rest.hasSuffix("<unfinished ...>") {
          unfinished[thread] = rest
          continue
        }
        if rest.hasPrefix("<... "), let begun = unfinished.removeValue(forKey: thread) { rest = begun + rest }
        guard let open = rest.firstIndex(of: "(") else { continue }
        let number = rest[rest.index(after: open)...].prefix { $0.isNumber }
        calls.append(Call(name: rest[..<open], descriptor: Int(number) ?? -1, line: rest))
      }
      return calls
    }

    /// Posts a text, and gives its master's system calls from then on.
    private func callsWhilePosting(_ text: String, _ cluster: Cluster) async throws -> [Call] {
      try await cluster.register("alice")
      let master = try #require(try await cluster.status(when: "one serves") { $0.available != nil }.available?.pid)
      let file = cluster.folder + "/trace.txt"
      let trace = try Command(
        [
          "-f", "-s", "8192", "-o", file, "-p", "\(master)", "-e",
          "trace=fdatasync,fsync,pwrite64,sendto,sendmsg,write,recvfrom",
        ], in: cluster.folder, program: Self.strace)
      defer { trace.kill(SIGINT) }
      // The trace is on when the beats are in it.
      try await eventually("strace is attached") {
        !((try? String(contentsOfFile: file, encoding: .utf8)) ?? "").isEmpty
      }
      try await cluster.post("alice", text)
      try await eventually("the post is in the trace") {
        try String(contentsOfFile: file, encoding: .utf8).contains(text)
      }
      trace.kill(SIGINT)
      _ = try await trace.end()
      return calls(in: try String(contentsOfFile: file, encoding: .utf8))
    }

    private func freshText() -> String { "durable-\(UInt32.random(in: 0...UInt32.max))" }

    @Test("a post is written, then synced, and only then acknowledged", hasStrace)
    func syncsBeforeItAcknowledges() async throws {
      // Without encryption, so that the post can be seen coming.
      try await Cluster.with(masters: 1, "security: none") { cluster in
        let text = freshText()
        let calls = try await callsWhilePosting(text, cluster)
        let asked = try #require(calls.firstIndex { $0.name == "recvfrom" && $0.line.contains(text) })
        let written = try #require(calls.firstIndex { $0.name == "pwrite64" && $0.line.contains(text) })
        let answered = try #require(
          calls.indices.first { index in
            index > asked && calls[index].name.hasPrefix("send") && calls[index].descriptor == calls[asked].descriptor
          })
        let synced = try #require(
          calls.indices.first { index in
            index > written && calls[index].name == "fdatasync" && calls[index].descriptor == calls[written].descriptor
          })
        #expect(calls[synced].line.hasSuffix("= 0"))
        #expect(asked < written && written < synced && synced < answered, "\(calls[asked...answered].map(\.line))")
      }
    }

    @Test(
      "while nobody can write to the log, everybody reads on; what was posted is acknowledged once it can be written")
    func readsWhileTheLogIsTaken() async throws {
      // The slave must not take it for a master that hangs, nor the client a machine with much to do for one.
      try await Cluster.with(masters: 1, "hang_timeout: 60s", "liveness: 4s") { cluster in
        try await cluster.register("alice", "bob")
        let poster = try Poster(cluster, as: "alice")
        let lock = open(cluster.state + "/log.commit.lock", O_RDWR | O_CLOEXEC)
        try #require(lock >= 0)
        defer { close(lock) }
        // Whichever of its threads waits for the turn then. Who is the loop may have changed with the last time.
        for _ in 0..<4 {
          try await poster.goOn(20)
          try await eventually("the turn is ours") { flock(lock, LOCK_EX | LOCK_NB) == 0 }
          let count = poster.count
          for _ in 0..<2 {
            #expect(try await cluster.timeline("alice").count >= 20)
            try await eventually("somebody serves") { try await cluster.status().available != nil }
          }
          #expect(poster.count <= count + 1, "no more than what was on its way")
          flock(lock, LOCK_UN)
        }
        try await poster.goOn(20)
        let acknowledged = try await poster.stop()
        #expect(poster.losses == 0)
        #expect(try await cluster.timeline("alice", limit: 100_000).map(\.id) == acknowledged.map(\.id))
      }
    }

    @Test(
      "when somebody deletes or replaces the log nothing more is acknowledged, masters go on, and none begins another log",
      arguments: [
        "rm log.db log.db-wal log.db-shm", "rm log.db-wal log.db-shm", "cp log.db copy && mv copy log.db",
      ])
    func deletedLog(line: String) async throws {
      try await Cluster.with(masters: 2) { cluster in
        try await cluster.register("alice")
        let id = try await cluster.post("alice", "kept")
        let before = try await cluster.whole()
        #expect(try await cluster.shell("cd '\(cluster.state)' && \(line)").status == 0)
        try await eventually("a post is refused") {
          let outcome = try await cluster.run("post", "alice", "lost")
          return outcome.status != 0 && outcome.errors.contains("deleted, moved or replaced")
        }
        let standby = try #require(before.masters.first { $0.state == "standby" })
        try cluster.signal(standby.pid, SIGKILL)
        try await eventually("it does not come back, and says why") {
          cluster.log(of: standby.name).contains("while others have it open")
        }
        let after = try await cluster.status()
        #expect(after.available?.pid == before.available?.pid)
        #expect(after.master(standby.name)?.state != "standby")
        #expect(try await cluster.timeline("alice").first?.id == id)
      }
    }

    @Test("when the last master dies that had a deleted log open, none begins a new one until somebody says up")
    func missedLog() async throws {
      try await Cluster.with(masters: 1, "respawn_delay: 100ms") { cluster in
        try await cluster.register("alice")
        let before = try await cluster.whole()
        #expect(try await cluster.shell("rm '\(cluster.state)'/log.db*").status == 0)
        try cluster.signal(before.masters[0].pid, SIGKILL)
        try await eventually("it says why it does not come back") {
          cluster.log(of: "master-1").contains("there was one, and it is gone")
        }
        #expect(try await cluster.run("down").status == 0)
        try await cluster.start()
        #expect(try await cluster.status().masters[0].head == 0)
      }
    }

    @Test("a commit that another writer comes before is ordered anew, and nothing is lost or doubled")
    func anotherWriter() async throws {
      try await Cluster.with(masters: 1, "liveness: 4s") { cluster in
        try await cluster.register("alice", "bob")
        let poster = try Poster(cluster, as: "alice")
        let log = try SQLiteLog(folder: cluster.state)
        for number in 0..<20 as Range<UInt32> {
          try await poster.goOn(20)
          // Alice and Bob have the first two numbers.
          let account = AccountID(number + 2)
          var result: AppendResult
          repeat {
            let head = try log.head()
            let change = Change.accountCreated(account, name: "user\(number)")
            result = try log.append([Event(id: head.next, time: .zero, request: nil, change: change)], after: head)
          } while result == .behind
        }
        try await poster.goOn(20)
        let acknowledged = try await poster.stop()
        #expect(poster.losses == 0)
        #expect(try await cluster.timeline("alice", limit: 100_000).map(\.id) == acknowledged.map(\.id))
        let accounts = try log.read(after: .zero, limit: .max).filter {
          if case .accountCreated = $0.change { true } else { false }
        }
        #expect(accounts.count == 22)
      }
    }

    @Test("what a master receives and sends can't be read on its way", hasStrace)
    func encrypted() async throws {
      try await Cluster.with(masters: 2) { cluster in
        _ = try await cluster.run("client", "alice")
        let watcher = try Watcher(cluster, of: "alice")
        try await watcher.live(cluster, author: "alice")
        let text = freshText()
        let calls = try await callsWhilePosting(text, cluster)
        #expect(calls.contains { $0.name == "pwrite64" && $0.line.contains(text) })
        // It came in, was acknowledged, went to the other master and to the watcher.
        #expect(calls.count { $0.name == "recvfrom" || $0.name.hasPrefix("send") } > 4)
        for call in calls where call.name != "pwrite64" {
          #expect(!call.line.contains("durable-") && !call.line.contains("alice"), "\(call.line)")
        }
      }
    }
  }
}
