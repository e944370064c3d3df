// `tinysns keys`: new keys for a cluster at work.

import Foundation
import Testing
import ZeroMQ

extension RealProcesses {
  @Suite struct KeyRotationTests {
    @Test("new keys under load lose no post, and clients on this machine go on by themselves")
    func underLoad() async throws {
      try await Cluster.with(masters: 3, "respawn_delay: 20s") { cluster in
        try await cluster.register("alice", "bob")
        _ = try await cluster.run("follow", "bob", "alice")
        let watcher = try Watcher(cluster, of: "bob")
        try await watcher.live(cluster, author: "alice")
        let poster = try Poster(cluster, as: "alice")
        try await poster.goOn()
        let before = try await cluster.whole()
        let old = try #require(CurveKey(file: cluster.keyFile("cluster.pub")))
        for _ in 0..<2 {
          let outcome = try await cluster.run("keys", "rotate", within: .seconds(40))
          #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome)")
          try await poster.goOn(20)
        }
        let new = try #require(CurveKey(file: cluster.keyFile("cluster.pub")))
        #expect(new != old)
        #expect(try await cluster.run("keys").lines == [new.z85])
        let after = try await cluster.whole()
        #expect(after.launcher.pid == before.launcher.pid)
        #expect(after.router.pid != before.router.pid)
        for master in before.masters { #expect(after.master(master.name)?.pid != master.pid) }
        try await watcher.expectExactly(try await poster.stop())
        // Whoever has the old key is told, and not served.
        let outdated = try await cluster.run("post", "alice", "x", "--server-key", old.z85, "--timeout", "3")
        #expect(outdated.status == 69 && outdated.errors.contains("does not have the key"), "\(outdated)")
        let elsewhere = try await cluster.run("post", "alice", "x", "--server-key", new.z85)
        #expect(elsewhere.status == 0, "\(elsewhere)")
      }
    }

    @Test("a cluster that is down just has new keys at its next start; one without a launcher is left alone")
    func downAndHalf() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice")
        try await cluster.run("down")
        let old = try #require(CurveKey(file: cluster.keyFile("cluster.pub")))
        #expect(try await cluster.run("keys", "rotate").status == 0)
        let new = try #require(CurveKey(file: cluster.keyFile("cluster.pub")))
        #expect(new != old)
        try await cluster.start()
        try await cluster.post("alice", "hello")
        let state = try await cluster.whole()
        try cluster.signal(state.launcher.pid, SIGKILL)
        try await eventually("it is gone") { !cluster.isRunning(state.launcher.pid!) }
        let outcome = try await cluster.run("keys", "rotate")
        #expect(
          outcome.status == 1 && outcome.errorLines.count == 1 && outcome.errors.contains("launcher"), "\(outcome)")
        #expect(CurveKey(file: cluster.keyFile("cluster.pub")) == new)
        try await cluster.post("alice", "still there")
      }
    }

    @Test("before the first start there is no key to show")
    func noKeysYet() async throws {
      try await Cluster.with(masters: 1, start: false) { cluster in
        let outcome = try await cluster.run("keys")
        #expect(
          outcome.status == 1 && outcome.errorLines.count == 1 && outcome.errors.contains("no keys"), "\(outcome)")
      }
    }
  }
}
