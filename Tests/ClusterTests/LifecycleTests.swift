// up, status, down.

import Foundation
import Glibc
import Testing

extension RealProcesses {
  @Suite struct LifecycleTests {
    @Test("up registers all masters: one is available, the others stand by, each with a slave")
    func upRegistersAll() async throws {
      try await Cluster.with(masters: 3, start: false) { cluster in
        let up = try await cluster.start()
        #expect(up.output.contains("3 masters registered"))
        let state = try await cluster.status()
        #expect(state.masters.map(\.name) == ["master-1", "master-2", "master-3"])
        #expect(state.count(of: "available") == 1)
        #expect(state.count(of: "standby") == 2)
        #expect(state.slaves.map(\.name) == ["slave-1", "slave-2", "slave-3"])
        #expect(state.slaves.allSatisfy { $0.state == "running" && $0.pid != nil })
        #expect(state.router.endpoint == cluster.router)
        #expect(state.masters.allSatisfy { $0.pid != nil && $0.requests != nil && $0.timelines != nil })
        #expect(Set(state.masters.compactMap(\.pid)).count == 3)
        #expect(!cluster.log(of: "master-1").contains("asks the kernel before each message"), "CEpoll is not in use")
        let table = try await cluster.run("status")
        #expect(table.lines.count { $0.contains("standby") } == 2)
      }
    }

    @Test("status --json has every documented key, also of what is down")
    func statusKeys() async throws {
      try await Cluster.with(masters: 1, start: false) { cluster in
        for isUp in [false, true] {
          if isUp { try await cluster.start() }
          let outcome = try await cluster.run("status", "--json")
          #expect(outcome.status == 0)
          let json = try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
          let router = try #require(json["router"] as? [String: Any])
          #expect(Set(router.keys).isSuperset(of: ["pid", "endpoint"]))
          let master = try #require((json["masters"] as? [[String: Any]])?.first)
          #expect(
            Set(master.keys).isSuperset(of: [
              "name", "pid", "state", "incarnation", "requests", "timelines", "head", "sessions", "respawn_in_ms",
            ]), "\(master.keys.sorted())")
          #expect(master["state"] as? String == (isUp ? "available" : "down"))
          let slave = try #require((json["slaves"] as? [[String: Any]])?.first)
          #expect(Set(slave.keys).isSuperset(of: ["name", "pid", "state"]))
        }
      }
    }

    @Test("a second up says that the cluster runs, and under which process")
    func secondUp() async throws {
      try await Cluster.with(masters: 1) { cluster in
        let launcher = try #require(try await cluster.status().launcher.pid)
        for arguments in [["up", "--detach"], ["up"]] {
          let outcome = try await cluster.begin(arguments).end()
          #expect(outcome.status == 1)
          #expect(outcome.errorLines.count == 1)
          #expect(outcome.errors.contains("\(launcher)"), "\(outcome)")
        }
        let after = try await cluster.status()
        #expect(after.launcher.pid == launcher)
      }
    }

    @Test(
      "a topology that is edited under a running cluster counts after down: who is started again has the one from before",
      arguments: [
        "router: { port: 1 }\nhosts: { local: { masters: 1, first_port: 0 } }\nrespawn_delay: 60s\n", "hosts: [\n", nil,
      ])
    func editedTopology(_ edited: String?) async throws {
      try await Cluster.with(masters: 2) { cluster in
        let before = try await cluster.whole()
        let text = try String(contentsOfFile: cluster.topology, encoding: .utf8)
        if let edited {
          try edited.write(toFile: cluster.topology, atomically: true, encoding: .utf8)
        } else {
          try FileManager.default.removeItem(atPath: cluster.topology)
        }
        // A slave and the master of another, so that both are started by whoever has read the file before.
        try cluster.signal(before.slave("slave-1")?.pid, SIGKILL)
        try cluster.signal(before.master("master-2")?.pid, SIGKILL)
        try cluster.signal(before.router.pid, SIGKILL)
        func isBack(_ words: String..., but pid: Int32?) -> Bool {
          cluster.servers().contains { $0.key != pid && Array($0.value[1...].prefix(words.count)) == words }
        }
        try await eventually("all three are back") {
          isBack("slave", "slave-1", but: before.slave("slave-1")?.pid)
            && isBack("master", "master-2", but: before.master("master-2")?.pid)
            && isBack("router", but: before.router.pid)
        }
        // Started by a slave that was itself started after the file had changed.
        try cluster.signal(before.master("master-1")?.pid, SIGKILL)
        try await eventually("master-1 is back") { isBack("master", "master-1", but: before.master("master-1")?.pid) }
        try await eventually("both masters have started") {
          ["master-1", "master-2"].allSatisfy { cluster.log(of: $0).ranges(of: "started as process").count == 2 }
        }
        for name in ["router", "slave-1", "master-1", "master-2"] {
          #expect(!cluster.log(of: name).contains(cluster.topology), "it has read the file: \(cluster.log(of: name))")
        }
        if edited?.hasPrefix("router") == true {
          #expect(try await cluster.whole().router.endpoint == before.router.endpoint)
        }
        try text.write(toFile: cluster.topology, atomically: true, encoding: .utf8)
        #expect(try await cluster.whole().router.endpoint == before.router.endpoint)
        #expect(try await cluster.run("status").errors.isEmpty)
      }
    }

    @Test("status, up and down of a running cluster whose topology has changed: told, and nothing is mixed")
    func changedTopology() async throws {
      try await Cluster.with(masters: 2) { cluster in
        let before = try await cluster.whole()
        let text = try String(contentsOfFile: cluster.topology, encoding: .utf8)
        func write(_ text: String) throws {
          try text.write(toFile: cluster.topology, atomically: true, encoding: .utf8)
        }
        // A comment is no change.
        try write("# mine\n" + text)
        #expect(try await cluster.run("status").errors.isEmpty)
        try write(text.replacing("masters: 2", with: "masters: 3"))
        let status = try await cluster.run("status", "--json")
        #expect(status.errorLines.count == 1 && status.errors.contains("was changed"), "\(status)")
        #expect(try await cluster.whole().masters.map(\.pid) == before.masters.map(\.pid))
        let second = try await cluster.run("up", "--detach")
        #expect(second.status == 1 && second.errorLines.count == 1, "\(second)")
        #expect(second.errors.contains("runs already") && second.errors.contains("tinysns down"), "\(second)")
        // Clients find the router that runs.
        try write(text.replacing("port: \(cluster.routerPort)", with: "port: 1"))
        try await cluster.register("alice")
        try await cluster.post("alice", "hello")
        try write(text.replacing("masters: 2", with: "masters: 3"))

        try cluster.signal(before.launcher.pid, SIGKILL)
        try await eventually("the launcher is gone") { !cluster.isRunning(before.launcher.pid!) }
        let third = try await cluster.run("up", "--detach")
        #expect(third.status == 1 && third.errorLines.count == 1 && third.errors.contains("tinysns down"), "\(third)")
        #expect(cluster.servers().count == 5)
        try write(text)
        #expect(try await cluster.run("up", "--detach").status == 0)
        #expect(try await cluster.whole().masters.map(\.pid) == before.masters.map(\.pid))

        try write(text.replacing("masters: 2", with: "masters: 3"))
        #expect(try await cluster.run("down").output == "stopped 6 processes\n")
        let fourth = try await cluster.run("up", "--detach", within: .seconds(60))
        #expect(fourth.status == 0 && fourth.output.contains("3 masters registered"), "\(fourth)")
        #expect(try await cluster.run("status").errors.isEmpty)
      }
    }

    @Test("of two ups in the same moment one starts the cluster, the other says so and disturbs nothing")
    func twoUps() async throws {
      try await Cluster.with(masters: 2, start: false) { cluster in
        let ups = try (0..<2).map { _ in try cluster.begin(["up", "--detach"]) }
        var statuses: [Int32] = []
        for up in ups {
          let outcome = try await up.end(within: .seconds(60))
          statuses.append(outcome.status)
          if outcome.status != 0 { #expect(outcome.errorLines.count == 1, "\(outcome)") }
        }
        #expect(statuses.contains(0) && statuses.allSatisfy { $0 <= 1 })
        try await cluster.whole()
        #expect(cluster.servers().count == 6)
      }
    }

    @Test("down leaves no process behind, and may be said twice")
    func down() async throws {
      try await Cluster.with(masters: 2) { cluster in
        #expect(cluster.servers().count == 6)
        let first = try await cluster.run("down")
        #expect(first.status == 0)
        #expect(!first.output.contains("kill"), "\(first)")
        #expect(cluster.processes().isEmpty)
        let second = try await cluster.run("down")
        #expect(second.status == 0)
        #expect(second.output.contains("nothing"))
        let state = try await cluster.status()
        #expect(state.masters.allSatisfy { $0.state == "down" && $0.pid == nil })
      }
    }

    @Test("with assignment: spread all masters serve")
    func spread() async throws {
      try await Cluster.with(masters: 3, "assignment: spread") { cluster in
        let state = try await cluster.whole()
        #expect(state.masters.map(\.state) == ["serving", "serving", "serving"])
      }
    }

    @Test("one master is enough, and twenty are no trouble", arguments: [1, 20])
    func sizes(masters: Int) async throws {
      try await Cluster.with(masters: masters) { cluster in
        let state = try await cluster.whole()
        #expect(state.masters.count == masters)
        try await cluster.register("alice")
        try await cluster.post("alice", "hello")
      }
    }

    @Test("masters listen where first_port says")
    func fixedPorts() async throws {
      var setup = Cluster.Setup(masters: 2)
      setup.firstPort = Ports.free(6)
      try await Cluster.with(setup) { cluster in
        let state = try await cluster.status()
        let first = setup.firstPort
        #expect(state.master("master-1")?.requests == "tcp://127.0.0.1:\(first)")
        #expect(state.master("master-1")?.timelines == "tcp://127.0.0.1:\(first + 1)")
        #expect(state.master("master-2")?.requests == "tcp://127.0.0.1:\(first + 3)")
        // The same ports again at once, though connections of the former life linger.
        try await cluster.run("down")
        try await cluster.start()
      }
    }

    @Test("two clusters run side by side; stopping one leaves the other alone")
    func sideBySide() async throws {
      try await Cluster.with(masters: 2) { one in
        try await Cluster.with(masters: 2) { other in
          try await one.register("alice")
          try await other.register("alice")
          try await one.post("alice", "in one")
          let before = Set(other.servers().keys)
          #expect(try await one.run("down").status == 0)
          #expect(one.processes().isEmpty)
          #expect(Set(other.servers().keys) == before)
          try await other.post("alice", "in the other")
          #expect(try await other.timeline("alice").map(\.text) == ["in the other"])
        }
      }
    }

    @Test(
      "up in the foreground shows what happens, and SIGTERM or Ctrl-C stops all of it", arguments: [SIGTERM, SIGINT])
    func foreground(signal: Int32) async throws {
      try await Cluster.with(masters: 2, start: false) { cluster in
        let up = try cluster.begin(["up"])
        try await cluster.whole()
        try await eventually("the log is shown") { up.output.contains("master-2") && up.output.contains("ready") }
        up.kill(signal)
        let outcome = try await up.end(within: .seconds(10))
        #expect(outcome.status == 0 && !outcome.wasSignalled, "\(outcome)")
        #expect(cluster.processes().isEmpty)
      }
    }

    @Test("up in the foreground stops all of it when nobody reads its output any more")
    func outputUnread() async throws {
      try await Cluster.with(masters: 2, start: false) { cluster in
        let outcome = try await cluster.shell("{ $T up $Y; echo status $? >&2; } | head -3")
        #expect(outcome.lines.count == 3 && outcome.errors == "status 0\n", "\(outcome)")
        try await eventually("all of it is stopped") { cluster.processes().isEmpty }
      }
    }

    @Test("up in the foreground watches over its cluster also while whoever reads its output pauses")
    func outputBlocked() async throws {
      try await Cluster.with(masters: 1, start: false) { cluster in
        // A pipe that is full, and that nobody reads.
        let script = """
          cd '\(cluster.folder)'; mkfifo full; exec 3<>full; dd if=/dev/zero of=full bs=1024 oflag=nonblock 2>errors
          exec '\(Command.program)' up --topology '\(cluster.topology)' >&3
          """
        let up = try Command(["-c", script], in: cluster.folder, program: "/bin/sh")
        let before = try await cluster.whole()
        try cluster.signal(before.router.pid, SIGKILL)
        try await cluster.status(when: "the router is back") {
          $0.router.pid != nil && $0.router.pid != before.router.pid && $0.available != nil
        }
        let outcome = try await cluster.run("down")
        #expect(outcome.status == 0 && !outcome.output.contains("had to kill"), "\(outcome)")
        #expect(try await up.end().status == 0)
      }
    }

    @Test("with a launcher that is frozen, down tells the others themselves")
    func downWithoutLauncher() async throws {
      try await Cluster.with(masters: 2) { cluster in
        let state = try await cluster.whole()
        try cluster.signal(state.launcher.pid, SIGSTOP)
        let outcome = try await cluster.run("down")
        #expect(outcome.output == "stopped 6 processes; had to kill launcher\n", "\(outcome)")
      }
    }

    @Test("when down returns, nothing is left of a master whose slave was frozen")
    func downWaitsForTheEnd() async throws {
      try await Cluster.with(masters: 1) { cluster in
        let state = try await cluster.whole()
        try cluster.signal(state.slaves[0].pid, SIGSTOP)
        let outcome = try await cluster.run("down")
        #expect(cluster.processes().isEmpty, "\(outcome)")
      }
    }

    @Test("down also ends what is frozen, and what the topology had before it was edited")
    func downEndsEverything() async throws {
      try await Cluster.with(masters: 3) { cluster in
        let state = try await cluster.whole()
        try cluster.signal(state.masters[0].pid, SIGSTOP)
        try cluster.signal(state.slaves[1].pid, SIGSTOP)
        try cluster.signal(state.launcher.pid, SIGSTOP)
        let text = try String(contentsOfFile: cluster.topology, encoding: .utf8)
        try text.replacingOccurrences(of: "masters: 3", with: "masters: 1").write(
          toFile: cluster.topology, atomically: true, encoding: .utf8)
        let outcome = try await cluster.run("down")
        #expect(outcome.status == 0 && outcome.output.contains("had to kill"), "\(outcome)")
        try await eventually("nothing is left", within: .seconds(2)) { cluster.processes().isEmpty }
      }
    }

    @Test("down while up is still at it: up says that it failed, and nothing is left")
    func downDuringUp() async throws {
      try await Cluster.with(masters: 8, start: false) { cluster in
        let up = try cluster.begin(["up", "--detach"])
        try await eventually("the first processes are there", every: .milliseconds(1)) { cluster.servers().count > 3 }
        #expect(try await cluster.run("down").status == 0)
        let outcome = try await up.end(within: .seconds(15))
        // It may have been quicker after all.
        #expect(outcome.status == 0 || outcome.status == 1 && outcome.errorLines.count == 1, "\(outcome)")
        try await eventually("nothing is left", within: .seconds(3)) { cluster.processes().isEmpty }
      }
    }

    @Test("demo clients follow each other and post, and one that is killed comes back")
    func demoClients() async throws {
      // Their passwords are in the state folder: commands on this machine find them.
      let setup = Cluster.Setup(
        masters: 2, keys: ["respawn_delay: 1s", "clients: [alice, bob]"], environment: ["TINYSNS_PASSWORD": nil])
      try await Cluster.with(setup) { cluster in
        try await eventually("bob reads alice", every: .milliseconds(200)) {
          guard try await cluster.run("list", "bob").status == 0 else { return false }
          return try await Set(cluster.timeline("bob").map(\.author)) == ["alice", "bob"]
        }
        let pid = try await cluster.status().clients.first { $0.name == "client-alice" }?.pid
        try cluster.signal(pid, SIGKILL)
        try await cluster.status(when: "the demo client is back") { state in
          state.clients[0].state == "running" && state.clients[0].pid != pid
        }
      }
    }

    @Test("a role started by hand under a name that runs says so")
    func nameIsTaken() async throws {
      try await Cluster.with(masters: 1) { cluster in
        let pid = try #require(try await cluster.status().masters[0].pid)
        let outcome = try await cluster.run("master", "master-1")
        #expect(outcome.status == 1)
        #expect(outcome.errorLines == ["tinysns: master-1 runs already, as process \(pid)"])
        let unknown = try await cluster.run("slave", "slave-7")
        #expect(unknown.status == 1)
        #expect(unknown.errors.contains("slave-7"))
        #expect(try await cluster.run("router").status == 1)
        #expect(try await cluster.status().masters[0].pid == pid)
      }
    }
  }
}
