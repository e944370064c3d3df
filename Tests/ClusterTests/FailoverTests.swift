// Killing and freezing what runs, while posts go on.

import Foundation
import Glibc
import Model
import Testing
import TinySNSClient

extension RealProcesses {
  @Suite struct FailoverTests {
    /// bob watches alice's posts live; alice posts without a pause. Checks at the end that bob has seen each exactly once.
    private func underLoad(
      _ cluster: Cluster, _ body: (Poster) async throws -> Void
    ) async throws {
      try await cluster.register("alice", "bob")
      #expect(try await cluster.run("follow", "bob", "alice").status == 0)
      let watcher = try Watcher(cluster, of: "bob")
      try await watcher.live(cluster, author: "alice")
      let poster = try Poster(cluster, as: "alice")
      try await poster.goOn()
      try await body(poster)
      try await poster.goOn()
      let acknowledged = try await poster.stop()
      try await watcher.expectExactly(acknowledged)
      let stored = try await cluster.timeline("bob", limit: 100_000).filter { $0.text != "are you there?" }
      #expect(stored.map(\.text) == acknowledged.map(\.text), "the timeline read afterwards")
    }

    @Test("kill -9 of whichever master serves, again and again: every acknowledged post arrives exactly once")
    func killAvailable() async throws {
      try await Cluster.with(masters: 3) { cluster in
        try await underLoad(cluster) { poster in
          for _ in 0..<5 {
            let victim = try #require(try await cluster.status(when: "one serves") { $0.available != nil }.available)
            try cluster.signal(victim.pid, SIGKILL)
            try await poster.goOn(20)
          }
          #expect(poster.losses >= 5)
        }
        try await cluster.whole()
      }
    }

    @Test("a frozen master is killed by its slave and comes back as a standby; no post is lost or doubled")
    func freezeAvailable() async throws {
      try await Cluster.with(masters: 3, "hang_timeout: 1500ms") { cluster in
        try await underLoad(cluster) { poster in
          for _ in 0..<2 {
            let victim = try #require(try await cluster.status(when: "one serves") { $0.available != nil }.available)
            try cluster.signal(victim.pid, SIGSTOP)
            try await poster.goOn()
            try await eventually("the frozen one is killed") { !cluster.isRunning(victim.pid!) }
            let state = try await cluster.whole()
            #expect(state.available?.name != victim.name)
            #expect(state.master(victim.name)?.state == "standby")
            let log = cluster.log(of: "slave-" + victim.name.dropFirst("master-".count))
            #expect(log.contains("killing it"), "\(log)")
          }
        }
      }
    }

    @Test("a master that was frozen for a moment only goes on, and nothing is lost or doubled")
    func freezeForAMoment() async throws {
      try await Cluster.with(masters: 2, "hang_timeout: 20s") { cluster in
        try await underLoad(cluster) { poster in
          let victim = try #require(try await cluster.status().available)
          try cluster.signal(victim.pid, SIGSTOP)
          do {
            // While it holds the log's turn its slave kills it at once; else others take over, and it comes back.
            try await poster.goOn()
          } catch {
            try? cluster.signal(victim.pid, SIGCONT)
            throw error
          }
          if cluster.isRunning(victim.pid!) { try cluster.signal(victim.pid, SIGCONT) }
          try await poster.goOn()
          try await cluster.whole()
        }
      }
    }

    @Test("with assignment: spread the users of a dead master are served by the others, and everyone sees everyone")
    func killInSpread() async throws {
      try await Cluster.with(masters: 3, "assignment: spread") { cluster in
        // Authors at different masters.
        let authors = ["ann", "ben", "cid", "dot"]
        for author in authors + ["eve"] { try await cluster.register(author) }
        for author in authors { #expect(try await cluster.run("follow", "eve", author).status == 0) }
        let watcher = try Watcher(cluster, of: "eve")
        try await watcher.live(cluster, author: "ann")
        let posters = try authors.map { try Poster(cluster, as: $0, prefix: $0, pause: .milliseconds(20)) }
        for poster in posters { try await poster.goOn(5) }
        for name in ["master-1", "master-2", "master-3"] {
          let state = try await cluster.status(when: "\(name) serves") { $0.master(name)?.state == "serving" }
          try cluster.signal(state.master(name)?.pid, SIGKILL)
          for poster in posters { try await poster.goOn(5) }
        }
        var acknowledged: [Poster.Acknowledged] = []
        for poster in posters { acknowledged += try await poster.stop() }
        try await watcher.expectExactly(acknowledged)
      }
    }

    @Test("kill -9 of a slave, of all slaves, of the router, of the launcher: posts go on, and each comes back")
    func killTheOthers() async throws {
      try await Cluster.with(masters: 2) { cluster in
        try await underLoad(cluster) { poster in
          let before = try await cluster.whole()
          func expectSameMasters(_ after: ClusterState) {
            #expect(after.masters.map(\.pid) == before.masters.map(\.pid))
            #expect(after.available?.name == before.available?.name)
          }

          try cluster.signal(before.slave("slave-1")?.pid, SIGKILL)
          try await poster.goOn()
          try await cluster.status(when: "the slave is back") { state in
            state.slave("slave-1")?.state == "running" && state.slave("slave-1")?.pid != before.slave("slave-1")?.pid
          }
          try await eventually("it adopts its master") { cluster.log(of: "slave-1").contains("found master-1 running") }

          let slaves = try await cluster.status().slaves
          for slave in slaves { try cluster.signal(slave.pid, SIGKILL) }
          try await poster.goOn()
          expectSameMasters(try await cluster.whole())

          try cluster.signal(before.router.pid, SIGKILL)
          try await poster.goOn()
          expectSameMasters(
            try await cluster.status(when: "the router is back") { state in
              state.router.state == "running" && state.router.pid != before.router.pid && state.available != nil
                && state.count(of: "standby") == 1
            })

          try cluster.signal(before.launcher.pid, SIGKILL)
          try await poster.goOn()
          let again = try await cluster.run("up", "--detach", within: .seconds(60))
          #expect(again.status == 0, "\(again)")
          let after = try await cluster.whole()
          expectSameMasters(after)
          #expect(after.launcher.pid != before.launcher.pid)
          // What was adopted is watched: it comes back when killed.
          try cluster.signal(after.router.pid, SIGKILL)
          try cluster.signal(after.slave("slave-2")?.pid, SIGKILL)
          try await cluster.status(when: "both are back") { state in
            state.router.state == "running" && state.router.pid != after.router.pid
              && state.slave("slave-2")?.state == "running"
              && state.slave("slave-2")?.pid != after.slave("slave-2")?.pid
          }
          #expect(poster.losses == 0)
        }
      }
    }

    @Test("an adopted master that dies or hangs is started again, too")
    func adoptedMasterDies() async throws {
      try await Cluster.with(masters: 2, "hang_timeout: 1500ms") { cluster in
        for number in [SIGKILL, SIGSTOP] {
          let before = try await cluster.whole()
          let slave = before.slave("slave-1")!
          try cluster.signal(slave.pid, SIGKILL)
          try await cluster.status(when: "the slave is back") { state in
            state.slave("slave-1")?.state == "running" && state.slave("slave-1")?.pid != slave.pid
          }
          try cluster.signal(before.master("master-1")?.pid, number)
          let after = try await cluster.status(when: "the master is back") { state in
            let master = state.master("master-1")!
            return ["standby", "available"].contains(master.state) && master.pid != before.master("master-1")?.pid
          }
          #expect(after.slaves.allSatisfy { $0.state == "running" })
        }
      }
    }

    @Test("a frozen slave and a frozen router are killed and started again")
    func freezeTheOthers() async throws {
      try await Cluster.with(masters: 2, "hang_timeout: 1500ms") { cluster in
        try await cluster.register("alice")
        let before = try await cluster.whole()
        let poster = try Poster(cluster, as: "alice")
        try await poster.goOn()
        try cluster.signal(before.router.pid, SIGSTOP)
        try cluster.signal(before.slave("slave-2")?.pid, SIGSTOP)
        try await poster.goOn()
        let after = try await cluster.status(when: "both are back") { state in
          state.router.state == "running" && state.router.pid != before.router.pid
            && state.slave("slave-2")?.state == "running" && state.slave("slave-2")?.pid != before.slave("slave-2")?.pid
            && state.available != nil
        }
        #expect(after.masters.map(\.pid) == before.masters.map(\.pid))
        try await poster.stop()
      }
    }

    @Test("kill -9 of everything at once, then up: every acknowledged post and every follow is there")
    func killEverything() async throws {
      try await Cluster.with(masters: 3) { cluster in
        try await cluster.register("alice", "bob", "carol")
        for follower in ["bob", "carol"] { #expect(try await cluster.run("follow", follower, "alice").status == 0) }
        #expect(try await cluster.run("unfollow", "carol", "alice").status == 0)
        let watcher = try Watcher(cluster, of: "bob")
        try await watcher.live(cluster, author: "alice")
        let poster = try Poster(cluster, as: "alice")
        try await poster.goOn(50)
        for pid in cluster.servers().keys { try? cluster.signal(pid, SIGKILL) }
        try await eventually("all are dead") { cluster.servers().isEmpty }
        try await cluster.start()
        // The very client that posted before goes on by itself, and so does the watcher.
        try await poster.goOn()
        let acknowledged = try await poster.stop()
        try await watcher.expectExactly(acknowledged)
        let list = try await cluster.run("list", "alice", "--json")
        #expect(list.lines == [#"{"followers":["bob"],"users":["alice","bob","carol"]}"#])
        let newest = try await cluster.timeline("bob")
        #expect(newest.count == 20)
        #expect(newest.map(\.text) == acknowledged.suffix(20).map(\.text))
      }
    }

    @Test("the slave's log tells of the crash, the wait and the respawn; the respawned master stands by")
    func respawn() async throws {
      try await Cluster.with(masters: 2, "respawn_delay: 1s") { cluster in
        let before = try await cluster.whole()
        let victim = try #require(before.available)
        let slave = "slave-" + victim.name.dropFirst("master-".count)
        let start = ContinuousClock.now
        try cluster.signal(victim.pid, SIGKILL)
        let after = try await cluster.status(when: "it is back") { state in
          state.master(victim.name)?.state == "standby" && state.master(victim.name)?.pid != victim.pid
        }
        #expect(ContinuousClock.now - start >= .seconds(1))
        #expect(after.available?.name != nil && after.available?.name != victim.name, "the chair is not given back")
        #expect(after.master(victim.name)!.incarnation! > victim.incarnation!)
        let lines = cluster.log(of: slave).split(separator: "\n")
        let crash = try #require(lines.firstIndex { $0.contains("\(victim.name) (process \(victim.pid!)) crashed") })
        #expect(lines[crash].contains("signal 9"))
        #expect(lines[crash].contains("starting it again in 1 s"))
        #expect(
          lines[(crash + 1)...].contains {
            $0.contains("started \(victim.name) as process \(after.master(victim.name)!.pid!)")
          })
      }
    }

    @Test("status counts down to the respawn")
    func countdown() async throws {
      try await Cluster.with(masters: 2, "respawn_delay: 25s") { cluster in
        let victim = try #require(try await cluster.whole().masters.first { $0.state == "standby" })
        try cluster.signal(victim.pid, SIGKILL)
        let first = try await cluster.status(when: "the countdown runs") {
          $0.master(victim.name)?.respawn_in_ms != nil
        }
        let then = try #require(first.master(victim.name))
        #expect(then.state == "down")
        #expect(then.respawn_in_ms! <= 25_000 && then.respawn_in_ms! > 5_000)
        try await cluster.status(when: "it goes down") { state in
          state.master(victim.name)?.respawn_in_ms.map { $0 < then.respawn_in_ms! } ?? false
        }
        let table = try await cluster.run("status")
        #expect(table.lines.contains { $0.contains(victim.name) && $0.contains("starts again in") }, "\(table)")
      }
    }

    @Test("a slave that is killed while it waits is started again, and so is its master, once")
    func slaveDiesWhileItWaits() async throws {
      try await Cluster.with(masters: 2, "respawn_delay: 2s") { cluster in
        let before = try await cluster.whole()
        let victim = try #require(before.masters.first { $0.state == "standby" })
        let slave = "slave-" + victim.name.dropFirst("master-".count)
        try cluster.signal(victim.pid, SIGKILL)
        try await cluster.status(when: "the countdown runs") { $0.master(victim.name)?.respawn_in_ms != nil }
        try cluster.signal(before.slave(slave)?.pid, SIGKILL)
        try await cluster.whole()
        #expect(cluster.servers().values.count { $0.contains(victim.name) } == 1)
      }
    }

    @Test("a planned restart of the available master fails no request")
    func plannedRestart() async throws {
      // Finding out for itself would take a client so long.
      try await Cluster.with(masters: 2, "liveness: 4s") { cluster in
        try await underLoad(cluster) { poster in
          for _ in 0..<2 {
            let victim = try #require(try await cluster.whole().available)
            try cluster.signal(victim.pid, SIGTERM)
            try await poster.goOn(20)
            try await eventually("it is gone") { !cluster.isRunning(victim.pid!) }
            #expect(cluster.log(of: victim.name).contains("stopped"))
          }
          // It was told, and did not have to find out.
          let losses = poster.notes.compactMap { note -> TinySNSClient.Note.LossCause? in
            if case .lost(_, let cause) = note { cause } else { nil }
          }
          #expect(losses.count >= 2 && losses.allSatisfy { $0 == .goodbye || $0 == .refused }, "\(losses)")
        }
      }
    }

    @Test("many requests under way at once are each carried out exactly once over kills")
    func repeatsTakeEffectOnce() async throws {
      try await Cluster.with(masters: 3) { cluster in
        try await cluster.register("alice")
        let client = try TinySNSClient(
          router: cluster.router, serverKey: cluster.serverKey, user: "alice", password: Password(Cluster.password))
        let poster = try Poster(cluster, as: "alice", prefix: "marker")
        let submitted = 600
        let ids = try await withThrowingTaskGroup(of: (Int, UInt64).self) { group in
          group.addTask {
            // Kills the one that serves while the others wait for their answers.
            for _ in 0..<3 {
              let state = try await cluster.status(when: "one serves") { $0.available != nil }
              try cluster.signal(state.available?.pid, SIGKILL)
              try await poster.goOn(5)
            }
            return (-1, 0)
          }
          for lane in 0..<24 {
            group.addTask {
              for number in stride(from: lane, to: submitted, by: 24) {
                let id = try await client.post("text \(number)", timeout: .seconds(60)).rawValue
                if number + 24 >= submitted { return (number, id) }
              }
              return (-1, 0)
            }
          }
          var last: [Int: UInt64] = [:]
          for try await (number, id) in group where number >= 0 { last[number] = id }
          return last
        }
        try await poster.stop()
        let stored = try await cluster.timeline("alice", limit: 100_000)
        let texts = stored.map(\.text).filter { $0.hasPrefix("text ") }
        #expect(texts.count == submitted)
        #expect(Set(texts) == Set((0..<submitted).map { "text \($0)" }))
        let byID = Dictionary(uniqueKeysWithValues: stored.map { ($0.id, $0.text) })
        for (number, id) in ids { #expect(byID[id] == "text \(number)", "the id acknowledged is the post's") }
        await client.close()
      }
    }

    @Test("a client's script outlives its master: no line has to be typed twice, and its timeline goes on")
    func scriptOutlivesMaster() async throws {
      try await Cluster.with(masters: 2) { cluster in
        try await cluster.register("bob")
        let session = try cluster.begin(["client", "alice"], input: .typed)
        try session.type("FOLLOW bob")
        try session.type("TIMELINE")
        try await eventually("the follow is answered") { session.output.contains("you follow bob now") }
        for round in 1...2 {
          let victim = try #require(try await cluster.whole().available)
          try cluster.signal(victim.pid, SIGKILL)
          try session.type("alice \(round)")
          try await cluster.post("bob", "bob \(round)")
          try await eventually("both posts are shown") {
            session.output.contains("alice \(round)") && session.output.contains("bob \(round)")
          }
        }
        try session.type("/back")
        try session.type("LIST")
        session.endInput()
        let outcome = try await session.end()
        #expect(outcome.status == 0, "\(outcome)")
        for text in ["alice 1", "bob 1", "alice 2", "bob 2"] {
          #expect(outcome.lines.count { $0.hasSuffix(text) } == 1, "\(text): \(outcome)")
        }
      }
    }

    @Test("with no master to be had a command ends in time with status 69 and one line")
    func nobodyAvailable() async throws {
      try await Cluster.with(masters: 1, "respawn_delay: 60s") { cluster in
        func expectUnavailable(_ what: String) async throws {
          let commands = [
            ["post", "alice", "hello"], ["follow", "alice", "bob"], ["list", "alice"], ["timeline", "alice"],
            ["client", "alice"],
          ]
          for command in commands {
            let outcome = try await cluster.begin(command + ["--timeout", "0.7"]).end(within: .seconds(15))
            #expect(outcome.status == 69, "\(what): \(outcome)")
            // A session says before that it waits.
            #expect(outcome.errorLines.count == 1 || command[0] == "client", "\(what): \(outcome)")
            #expect(outcome.errorLines.last == "tinysns: no master is available")
          }
        }
        try await cluster.register("alice", "bob")
        let state = try await cluster.status()
        try cluster.signal(state.masters[0].pid, SIGKILL)
        try await expectUnavailable("no master")
        try cluster.signal(state.launcher.pid, SIGKILL)
        try cluster.signal(state.router.pid, SIGKILL)
        try await expectUnavailable("no router")
        #expect(try await cluster.run("down").status == 0)
        try await expectUnavailable("nothing")
      }
    }

    @Test("a command that began before there was a master is carried out once there is one")
    func waitsForMaster() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice")
        try await cluster.run("down")
        let post = try cluster.begin(["post", "alice", "patience", "--timeout", "40"])
        try await cluster.start()
        #expect(try await post.end().status == 0)
        #expect(try await cluster.timeline("alice").map(\.text) == ["patience"])
      }
    }

    @Test("one client that can't reach a healthy master evicts it for nobody")
    func falseSuspicion() async throws {
      try await Cluster.with(masters: 2) { cluster in
        try await cluster.register("alice", "bob")
        let before = try #require(try await cluster.status().available)
        let poster = try Poster(cluster, as: "alice")
        try await poster.goOn()
        // A client that is frozen takes its own silence for the master's when it wakes up. For how long it is frozen is what is tested:
        // twice as long as a master may be silent.
        let session = try cluster.begin(["client", "bob"], input: .typed)
        try session.type("POST one")
        try await eventually("it is logged in") { session.output.contains("posted") }
        session.kill(SIGSTOP)
        try await Task.sleep(for: .seconds(1))
        session.kill(SIGCONT)
        try session.type("POST two")
        try session.type("QUIT")
        #expect(try await session.end().status == 0)
        // And logins that fail are no reason either.
        for _ in 0..<3 { #expect(try await cluster.run("post", "nobody", "x").status == 1) }
        try await poster.stop()
        #expect(poster.losses == 0)
        let after = try #require(try await cluster.status().available)
        #expect(after.pid == before.pid)
      }
    }

    @Test("a slave killed while it waits starts its master after the rest of the wait, not at once")
    func slaveDiesInTheWait() async throws {
      try await Cluster.with(masters: 2, "respawn_delay: 4s") { cluster in
        let before = try await cluster.whole()
        let master = try #require(before.available)
        let slave = try #require(before.slave("slave-" + master.name.dropFirst("master-".count))?.pid)
        let died = ContinuousClock.now
        kill(try #require(master.pid), SIGKILL)
        try await cluster.status(when: "its slave waits") { $0.master(master.name)?.respawn_in_ms != nil }
        kill(slave, SIGKILL)
        try await cluster.status(when: "the slave is back, and waits on") { state in
          guard let now = state.slaves.first(where: { $0.name.hasSuffix(master.name.dropFirst("master".count)) })?.pid
          else { return false }
          return now != slave && state.master(master.name)?.respawn_in_ms != nil
        }
        let after = try await cluster.whole()
        #expect(ContinuousClock.now - died >= .milliseconds(3_900))
        #expect(after.master(master.name)?.pid != master.pid)
      }
    }
  }
}
