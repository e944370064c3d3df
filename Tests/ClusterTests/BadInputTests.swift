// Broken files, taken ports, full disks, and strangers who send garbage.

import Foundation
import Glibc
import Model
import Testing
import TinySNSClient
import ZeroMQ

extension RealProcesses {
  @Suite struct BadInputTests {
    /// A failed command: status 1, nothing on standard output, and one line that has all of this.
    private func expectFailure(
      _ outcome: Outcome, _ words: String..., sourceLocation: SourceLocation = #_sourceLocation
    ) {
      #expect(outcome.status == 1, "\(outcome)", sourceLocation: sourceLocation)
      #expect(outcome.output.isEmpty, "\(outcome)", sourceLocation: sourceLocation)
      #expect(outcome.errorLines.count == 1, "\(outcome)", sourceLocation: sourceLocation)
      for word in words {
        #expect(outcome.errors.contains(word), "\(word) in \(outcome)", sourceLocation: sourceLocation)
      }
    }

    // MARK: Files

    @Test("a state folder that can't be one is told, and nothing is started")
    func stateFolder() async throws {
      try await Cluster.with(masters: 1, start: false) { cluster in
        try Data().write(to: URL(fileURLWithPath: cluster.state))
        for arguments in [["up", "--detach"], ["up"], ["router"], ["master", "master-1"], ["slave", "slave-1"]] {
          expectFailure(try await cluster.begin(arguments).end(), cluster.state, "not a folder")
        }
        #expect(cluster.processes().isEmpty)
        try FileManager.default.removeItem(atPath: cluster.state)
        try FileManager.default.createDirectory(atPath: cluster.state, withIntermediateDirectories: false)
        try Data().write(to: URL(fileURLWithPath: cluster.state + "/run"))
        expectFailure(try await cluster.run("up", "--detach"), cluster.state + "/run")
        #expect(cluster.processes().isEmpty)
        try FileManager.default.removeItem(atPath: cluster.state)
      }
    }

    @Test("a state folder that can't be looked into is no cluster that does not run")
    func unreadableFolder() async throws {
      try await Cluster.with(masters: 1, start: false) { cluster in
        let asking = [["status"], ["down"], ["keys", "rotate"], ["up", "--detach"]]
        try Data().write(to: URL(fileURLWithPath: cluster.state))
        for arguments in asking {
          expectFailure(try await cluster.begin(arguments).end(), cluster.state, "not a folder")
        }
        for arguments in [["keys"], ["post", "alice", "x"]] {
          expectFailure(try await cluster.begin(arguments).end(), cluster.keyFile("cluster.pub"), "Not a directory")
        }
        try FileManager.default.removeItem(atPath: cluster.state)
        try FileManager.default.createSymbolicLink(
          atPath: cluster.state, withDestinationPath: cluster.folder + "/elsewhere")
        for arguments in asking {
          expectFailure(try await cluster.begin(arguments).end(), cluster.state, "symbolic link")
        }
        try FileManager.default.removeItem(atPath: cluster.state)
        // What has never been is no fault.
        #expect(try await cluster.status().router.state == "down")
        #expect(try await cluster.run("down").status == 0)
        try FileManager.default.createDirectory(
          atPath: cluster.state + "/run/launcher.lock", withIntermediateDirectories: true)
        #expect(try await cluster.status().launcher.state == "down", "nobody can hold it")
        try FileManager.default.removeItem(atPath: cluster.state)
      }
    }

    /// Runs lines of shell as another user, who gets at the program and the topology wherever they are built and made; nil where that can't
    /// be done: it needs setpriv, and libraries that this user may read.
    private func anotherUser(of cluster: Cluster) async throws -> ((String) async throws -> Outcome)? {
      let program = cluster.folder + "/tinysns"
      try FileManager.default.copyItem(atPath: Command.program, toPath: program)
      for path in [program, cluster.folder] { try #require(chmod(path, 0o755) == 0) }
      try #require(chmod(cluster.topology, 0o644) == 0)
      func run(_ line: String) async throws -> Outcome {
        try await cluster.shell("exec setpriv --reuid 65533 --regid 65533 --clear-groups '\(program)' \(line) $Y")
      }
      return try await run("status --help").status == 0 ? run : nil
    }

    @Test("another user's cluster is told as that by every command", .enabled(if: geteuid() == 0, "needs another user"))
    func otherUser() async throws {
      try await Cluster.with(masters: 1) { cluster in
        guard let asOther = try await anotherUser(of: cluster) else { return }
        for line in ["status", "status --json", "down", "keys rotate", "up --detach"] {
          expectFailure(try await asOther(line), "can't read \(cluster.state)/run: Permission denied")
        }
        expectFailure(try await asOther("keys"), "can't read \(cluster.keyFile("cluster.pub")): Permission denied")
        for line in ["post alice x", "client alice", "timeline alice"] {
          expectFailure(
            try await asOther(line), "can't read \(cluster.keyFile("cluster.pub")): Permission denied", "--server-key")
        }
        expectFailure(
          try await asOther("passwd alice --operator"), cluster.state + "/keys", "Permission denied")
        // With the key from elsewhere a client needs nothing of the folder.
        let key = try await cluster.run("keys").lines[0]
        let letIn = try await asOther("client alice --server-key '\(key)'")
        #expect(letIn.status == 0, "\(letIn)")
        #expect(try await cluster.status().router.state == "running")
      }
    }

    @Test(
      "a log that may be read and not written to is told at the start, not at the first post",
      .enabled(if: geteuid() == 0, "needs another user"))
    func readOnlyLog() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice")
        try await cluster.run("down")
        guard let asOwner = try await anotherUser(of: cluster) else { return }
        try #require(try await cluster.shell("chown -R 65533:65533 '\(cluster.folder)'").status == 0)
        try #require(chmod(cluster.state + "/log.db", 0o400) == 0)
        expectFailure(try await asOwner("up --detach"), "\(cluster.state)/log.db: can't write to it: ")
        #expect(cluster.servers().isEmpty)
        try #require(chmod(cluster.state + "/log.db", 0o600) == 0)
        let up = try await asOwner("up --detach")
        #expect(up.status == 0, "\(up)")
      }
    }

    @Test("a cluster that runs in another PID namespace is not told as one that does not run")
    func otherNamespace() async throws {
      try await Cluster.with(masters: 1) { cluster in
        // Needs the right to make one.
        guard try await cluster.shell("unshare --pid --fork true").status == 0 else { return }
        for command in ["status", "down", "keys rotate"] {
          expectFailure(
            try await cluster.shell("exec unshare --pid --fork $T \(command) $Y"), cluster.state + "/run/launcher.lock",
            "another PID namespace")
        }
        expectFailure(
          try await cluster.shell("exec unshare --pid --fork $T router $Y"), "another PID namespace")
        #expect(try await cluster.status().router.state == "running")
      }
    }

    @Test("a launcher that is the first process of a container leaves no zombies of those whose supervisor has died")
    func firstProcess() async throws {
      try await Cluster.with(masters: 1, start: false) { cluster in
        // Needs the right to make a PID namespace.
        guard try await cluster.shell("unshare --pid --fork --mount-proc true").status == 0 else { return }
        let script = """
          exec unshare --pid --fork --mount-proc --kill-child '\(Command.program)' up --topology '\(cluster.topology)'
          """
        let up = try Command(["-c", script], in: cluster.folder, program: "/bin/sh")
        func pid(of role: String) async throws -> Int32 {
          try await eventually("there is a \(role)") {
            cluster.servers().first { $0.value[1] == role }?.key
          }
        }
        let (slave, master) = (try await pid(of: "slave"), try await pid(of: "master"))
        try cluster.signal(slave, SIGKILL)
        try await eventually("another slave has found it") {
          cluster.log(of: "slave-1").contains("found master-1 running")
        }
        try cluster.signal(master, SIGKILL)
        try await eventually("nothing is left of it") { Glibc.kill(master, 0) != 0 }
        // With the first process of a namespace all of it ends.
        up.kill(SIGKILL)
        try await eventually("all of it is gone") { cluster.processes().isEmpty }
      }
    }

    @Test("what the launcher can't start is told by up, with the reason")
    func cannotStart() async throws {
      try await Cluster.with(masters: 1, start: false) { cluster in
        try FileManager.default.createDirectory(
          atPath: "\(cluster.state)/log/router.log", withIntermediateDirectories: true)
        chmod(cluster.state, 0o700)
        let outcome = try await cluster.run("up", "--detach", within: .seconds(15))
        expectFailure(outcome, "can't start router", "Is a directory")
        #expect(cluster.servers().isEmpty)
      }
    }

    @Test("a state folder that nobody may write to is told")
    func readOnlyFolder() async throws {
      var setup = Cluster.Setup(masters: 1)
      setup.state = "/proc/tinysns"
      try await Cluster.with(setup, start: false) { cluster in
        expectFailure(try await cluster.run("up", "--detach"), "/proc/tinysns")
        #expect(cluster.processes().isEmpty)
      }
    }

    @Test("a state folder whose path is too long for a Unix socket is told by its key")
    func longPath() async throws {
      var setup = Cluster.Setup(masters: 1)
      setup.state = String(repeating: "long-", count: 20)
      try await Cluster.with(setup, start: false) { cluster in
        expectFailure(try await cluster.run("up", "--detach"), "state", "88")
        #expect(!FileManager.default.fileExists(atPath: cluster.state))
        try "router: { port: \(cluster.routerPort) }\n".write(
          toFile: cluster.topology, atomically: true, encoding: .utf8)
      }
    }

    @Test("a topology that is missing or wrong is told with its line by every command, and nothing is started")
    func wrongTopology() async throws {
      try await Cluster.with(masters: 1, "heartbeat: often", start: false) { cluster in
        for arguments in [
          ["up"], ["up", "--detach"], ["down"], ["status"], ["post", "alice", "x"], ["client", "alice"],
        ] {
          expectFailure(try await cluster.begin(arguments).end(), "heartbeat", "topology.yaml:5")
        }
        try FileManager.default.removeItem(atPath: cluster.topology)
        expectFailure(try await cluster.run("status"), "topology.yaml")
        #expect(!FileManager.default.fileExists(atPath: cluster.state))
        try "router: { port: \(cluster.routerPort) }\nstate: var\n".write(
          toFile: cluster.topology, atomically: true, encoding: .utf8)
      }
    }

    @Test("a log file that is no log, or is damaged, is told at once, is left as it is, and nothing stays running")
    func corruptLog() async throws {
      try await Cluster.with(masters: 2, "respawn_delay: 20s") { cluster in
        try await cluster.register("alice")
        for number in 1...30 where number.isMultiple(of: 10) { try await cluster.post("alice", "post \(number)") }
        try await cluster.run("down")
        let file = cluster.state + "/log.db"
        // Masters that close the log at the same moment leave all of it in its WAL, which the next start would read instead of the file.
        for _ in 1...10 where FileManager.default.fileExists(atPath: file + "-wal") {
          try await cluster.start()
          try await cluster.run("down")
        }
        try #require(!FileManager.default.fileExists(atPath: file + "-wal"))
        let intact = try Data(contentsOf: URL(fileURLWithPath: file))
        for garbage in [
          Data("this is no database, it is a letter to a friend\n".utf8),
          intact[..<100] + Data(count: intact.count - 100),
        ] {
          try garbage.write(to: URL(fileURLWithPath: file))
          let outcome = try await cluster.run("up", "--detach", within: .seconds(15))
          expectFailure(outcome, file)
          #expect(try Data(contentsOf: URL(fileURLWithPath: file)) == garbage)
          #expect(cluster.servers().isEmpty, "it had started everything itself, so it stops it again")
          let master = try await cluster.run("master", "master-1")
          expectFailure(
            Outcome(
              arguments: master.arguments, status: master.status, wasSignalled: false, output: "",
              errors: master.errorLines.last ?? ""), file)
        }
        try intact.write(to: URL(fileURLWithPath: file))
        try await cluster.start()
        #expect(try await cluster.timeline("alice").count == 3)
      }
    }

    @Test("a log of a newer version is refused with both versions")
    func newerLog() async throws {
      try await Cluster.with(masters: 1, "respawn_delay: 20s") { cluster in
        try await cluster.run("down")
        let file = cluster.state + "/log.db"
        var bytes = try Data(contentsOf: URL(fileURLWithPath: file))
        // user_version, big-endian, at 60 in a database's header.
        bytes.replaceSubrange(60..<64, with: [0, 0, 0, 99])
        try bytes.write(to: URL(fileURLWithPath: file))
        let outcome = try await cluster.run("up", "--detach", within: .seconds(15))
        expectFailure(outcome, "version 99", "up to")
        #expect(cluster.servers().isEmpty)
      }
    }

    @Test("a master that can't start stops nothing that ran before")
    func oneMasterFails() async throws {
      try await Cluster.with(masters: 2, "respawn_delay: 20s") { cluster in
        try await cluster.register("alice")
        let before = try await cluster.whole()
        let standby = try #require(before.masters.first { $0.state == "standby" })
        try cluster.signal(before.launcher.pid, SIGKILL)
        try cluster.signal(before.slave("slave-" + standby.name.dropFirst("master-".count))?.pid, SIGKILL)
        try cluster.signal(standby.pid, SIGKILL)
        try await eventually("all three are dead") { cluster.servers().count == 3 }
        // Something that only this master stumbles over.
        let lock = "\(cluster.state)/run/\(standby.name).lock"
        try FileManager.default.removeItem(atPath: lock)
        try FileManager.default.createDirectory(atPath: lock, withIntermediateDirectories: false)
        let outcome = try await cluster.run("up", "--detach", within: .seconds(15))
        expectFailure(outcome, lock)
        #expect(try await cluster.status().available?.pid == before.available?.pid)
        try await cluster.post("alice", "still here")
      }
    }

    // MARK: Ports

    @Test("a port that somebody else has is told with its key, before anything is started")
    func portTaken() async throws {
      var setup = Cluster.Setup(masters: 2)
      setup.firstPort = Ports.free(6)
      try await Cluster.with(setup, start: false) { cluster in
        do {
          let holder = try PortHolder(cluster.routerPort)
          expectFailure(
            try await cluster.run("up", "--detach"), "router", "\(cluster.routerPort)", "in use", "router.port")
          expectFailure(try await cluster.run("router"), "router", "\(cluster.routerPort)", "in use")
          withExtendedLifetime(holder) {}
        }
        do {
          let port = setup.firstPort + 4
          let holder = try PortHolder(port)
          expectFailure(
            try await cluster.run("up", "--detach"), "master-2", "\(port)", "in use", "hosts.local.first_port")
          expectFailure(try await cluster.run("master", "master-2"), "master-2", "\(port)", "in use")
          withExtendedLifetime(holder) {}
        }
        #expect(cluster.processes().isEmpty)
        try await cluster.start()
      }
    }

    // MARK: Strangers

    /// The TCP ports of a cluster with fixed ports: the router's and three for each master.
    private func ports(of cluster: Cluster) -> [UInt16] {
      [cluster.routerPort] + (0..<UInt16(cluster.setup.masters * 3)).map { cluster.setup.firstPort + $0 }
    }

    /// Runs `body` while alice posts and bob watches; nobody may notice.
    private func undisturbed(_ cluster: Cluster, _ body: () async throws -> Void) async throws {
      try await cluster.register("alice", "bob")
      _ = try await cluster.run("follow", "bob", "alice")
      let before = try await cluster.whole()
      let watcher = try Watcher(cluster, of: "bob")
      try await watcher.live(cluster, author: "alice")
      let poster = try Poster(cluster, as: "alice")
      try await poster.goOn()
      try await body()
      try await poster.goOn()
      let acknowledged = try await poster.stop()
      try await watcher.expectExactly(acknowledged)
      #expect(poster.losses == 0, "\(poster.notes)")
      let after = try await cluster.whole()
      #expect(after.masters.map(\.pid) == before.masters.map(\.pid))
      #expect(after.available?.name == before.available?.name)
      #expect(after.router.pid == before.router.pid)
    }

    private func fixedPorts(_ security: String = "curve") -> Cluster.Setup {
      var setup = Cluster.Setup(masters: 2)
      setup.keys.append("security: \(security)")
      setup.firstPort = Ports.free(6)
      return setup
    }

    @Test("random bytes, half handshakes and broken frames on every port disturb nobody", arguments: ["curve", "none"])
    func garbageBytes(security: String) async throws {
      try await Cluster.with(fixedPorts(security)) { cluster in
        try await undisturbed(cluster) {
          var random = SystemRandomNumberGenerator()
          let hello = security == "curve" ? TCP.curveHandshake : TCP.dealerHandshake
          let blobs: [[UInt8]] = [
            [], [0], Array("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8),
            (0..<5_000).map { _ in UInt8.random(in: 0...255, using: &random) },
            Array(hello.prefix(10)), Array(hello.prefix(64)), hello,
            // A frame that says it has 2^63 bytes, one with reserved flags, a command that is none, a truncated one.
            hello + [2, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3],
            hello + [0xf8, 3, 1, 2, 3], hello + [4, 4, 3, 65, 66, 67], hello + [0, 200, 1, 2, 3],
            hello + (0..<2_000).map { _ in UInt8.random(in: 0...255, using: &random) },
          ]
          await withTaskGroup(of: Void.self) { group in
            for port in ports(of: cluster) {
              for blob in blobs { group.addTask { TCP.send(blob, to: port, waitMilliseconds: 20) } }
            }
          }
        }
      }
    }

    @Test(
      "ZeroMQ peers that speak no sense are logged and shut out, and disturb nobody", arguments: ["curve", "none"])
    func garbageMessages(security: String) async throws {
      try await Cluster.with(fixedPorts(security)) { cluster in
        try await undisturbed(cluster) {
          let messages: [[[UInt8]]] = [
            [[]], [[0xff, 0xff, 0xff]], [[], []], [[1], [2], [3], [4], [5], [6], [7]],
            [Array(repeating: 0x0a, count: 4_000)],
            [Array(repeating: 7, count: 100_000)], Array(repeating: [9], count: 1_000),
          ]
          let context = try Context()
          for port in ports(of: cluster) {
            for kind in [SocketKind.dealer, .sub, .pub, .router] {
              for message in messages {
                let socket = try context.makeSocket(kind)
                try socket.set(.linger(.seconds(2)))
                try cluster.introduce(socket)
                try socket.connect("tcp://127.0.0.1:\(port)")
                if kind == .sub { try socket.set(.subscribe(message[0])) }
                if kind == .dealer { for _ in 0..<3 { _ = try socket.send(frames: message) } }
                if kind == .pub { _ = try socket.send(frames: message) }
              }
            }
          }
          // Logged by whoever was asked to listen to it.
          for name in ["router", "master-1", "master-2"] {
            try await eventually("\(name) complains") { cluster.log(of: name).contains("bad input") }
          }
        }
        for name in ["router", "master-1", "master-2"] {
          #expect(
            cluster.log(of: name).split(separator: "\n").count { $0.contains("bad input") }
              <= Limits.complaintsPerMinute)
        }
      }
    }

    @Test("a peer that chooses its own identity is not served, and can't take anybody's place")
    func chosenIdentity() async throws {
      try await Cluster.with(fixedPorts()) { cluster in
        try await undisturbed(cluster) {
          let context = try Context()
          let locate: [UInt8] = Array("anything".utf8)
          for port in [cluster.routerPort, cluster.setup.firstPort, cluster.setup.firstPort + 3] {
            let impostor = try context.makeSocket(.dealer)
            try impostor.set(.linger(.milliseconds(100)), .routingID(Array("master-1".utf8)))
            try cluster.introduce(impostor)
            try impostor.connect("tcp://127.0.0.1:\(port)")
            for _ in 0..<10 { _ = try impostor.send(locate) }
          }
          for name in ["router", "master-1", "master-2"] {
            try await eventually("\(name) says so") { cluster.log(of: name).contains("identity of its own choice") }
          }
        }
      }
    }

    /// What does not even begin like ZeroMQ is dropped by libzmq without telling anybody, when it talks CURVE.
    @Test(
      "who does not get through ZeroMQ's handshake is told in the process's log, and disturbs nobody",
      arguments: [
        ("none", Array("GET / HTTP/1.1\r\n\r\n".utf8), "greeting"), ("none", TCP.curveHandshake, "with encryption"),
        ("curve", TCP.dealerHandshake, "without encryption"), ("curve", TCP.curveHandshake, "this cluster's key"),
      ])
    func failedHandshakes(security: String, bytes: [UInt8], reason: String) async throws {
      try await Cluster.with(masters: 1, "security: \(security)") { cluster in
        try await cluster.register("alice")
        let master = try #require(try await cluster.status().available)
        func port(_ endpoint: String?) -> UInt16 { UInt16(endpoint?.split(separator: ":").last ?? "") ?? 0 }
        for (name, port, words) in [
          ("router", cluster.routerPort, "at the router's port"), (master.name, port(master.requests), "requests port"),
          (master.name, port(master.timelines), "timelines port"),
        ] {
          TCP.send(bytes, to: port)
          let file = cluster.state + "/log/\(name).log"
          try await eventually("it is in \(name)'s log") {
            try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n").contains {
              $0.contains(" warning ") && $0.contains(words) && $0.contains(reason)
            }
          }
        }
        try await cluster.post("alice", "still here")
      }
    }

    /// libzmq asks the kernel for the next connection without a pause when there is no descriptor for it.
    @Test(
      "more connections than there can be files are broken off and told; those that are in are served, and others when there is room again",
      arguments: ["curve", "none"])
    func outOfDescriptors(security: String) async throws {
      try await Cluster.with(masters: 1, "security: \(security)", start: false) { cluster in
        let started = try await cluster.shell("ulimit -n 200; \"$T\" up --detach $Y")
        try #require(started.status == 0, "\(started)")
        #expect(cluster.log(of: "master-1").contains("serves 24 sessions at most, not 20000"))
        let master = try #require(try await cluster.whole().available)
        func port(_ endpoint: String?) -> UInt16 { UInt16(endpoint?.split(separator: ":").last ?? "") ?? 0 }
        try await undisturbed(cluster) {
          for (name, port) in [
            ("router", cluster.routerPort), (master.name, port(master.requests)), (master.name, port(master.timelines)),
          ] {
            let crowd = (0..<300).compactMap { _ in TCP.connect(to: port) }
            defer { for connection in crowd { close(connection) } }
            // Those that are in have said nothing, and get a greeting only.
            try await eventually("\(name) breaks off who has no room") { crowd.count(where: TCP.hasEnded) >= 170 }
            try await eventually("\(name) says so") {
              cluster.log(of: name).contains("limit of open files (ulimit -n)")
            }
          }
        }
        try await cluster.register("carol")
      }
    }

    @Test("where the system lets a server open too few files, that is told, and nothing stays running")
    func tooFewDescriptors() async throws {
      try await Cluster.with(masters: 1, start: false) { cluster in
        let outcome = try await cluster.shell("ulimit -n 128; \"$T\" up --detach $Y")
        expectFailure(outcome, "needs 192 open files", "128 (ulimit -n)")
        #expect(cluster.servers().isEmpty)
      }
    }

    @Test("the router and masters have as many files open as the system lets them, not as many as the shell")
    func softLimit() async throws {
      try await Cluster.with(masters: 1, start: false) { cluster in
        let started = try await cluster.shell("ulimit -Sn 200; \"$T\" up --detach $Y")
        try #require(started.status == 0, "\(started)")
        let state = try await cluster.whole()
        for pid in [state.router.pid, state.available?.pid] {
          let limits = try String(contentsOfFile: "/proc/\(try #require(pid))/limits", encoding: .utf8)
          let line = try #require(limits.split(separator: "\n").first { $0.hasPrefix("Max open files") })
          let (soft, hard) = (line.split(separator: " ")[3], line.split(separator: " ")[4])
          #expect(soft == hard)
        }
      }
    }

    @Test("a watcher that does not read slows nobody and loses nothing")
    func slowReader() async throws {
      try await Cluster.with(masters: 2) { cluster in
        try await cluster.register("alice", "bob", "carol")
        for name in ["bob", "carol"] { _ = try await cluster.run("follow", name, "alice") }
        let slow = try cluster.begin(["timeline", "carol", "--follow", "--json", "--limit", "0"])
        let quick = try Watcher(cluster, of: "bob")
        try await quick.live(cluster, author: "alice")
        try await eventually("carol watches") {
          try await cluster.post("alice", "are you there?")
          return !slow.lines.isEmpty
        }
        let seen = slow.lines.count
        slow.kill(SIGSTOP)
        // More than the queues between them hold.
        let client = try TinySNSClient(
          router: cluster.router, serverKey: cluster.serverKey, user: "alice", password: Password(Cluster.password))
        let text = String(repeating: "x", count: Limits.postBytes - 10)
        let acknowledged = try await withThrowingTaskGroup(of: [Poster.Acknowledged].self) { group in
          for lane in 0..<64 {
            group.addTask {
              var done: [Poster.Acknowledged] = []
              for number in stride(from: lane, to: 2_000, by: 64) {
                let id = try await client.post("\(text) \(number)", timeout: .seconds(60)).rawValue
                done.append(Poster.Acknowledged(id: id, text: "\(text) \(number)"))
              }
              return done
            }
          }
          return try await group.reduce(into: []) { $0 += $1 }
        }
        await client.close()
        try await quick.expectExactly(acknowledged)
        slow.kill(SIGCONT)
        let wanted = acknowledged.map(\.id).sorted()
        try await eventually("the slow one has caught up") { slow.lines.count >= seen + wanted.count }
        let shown = try slow.lines.map { try ShownPost(json: $0) }.filter { $0.text != "are you there?" }.map(\.id)
        #expect(shown == wanted)
      }
    }

    // MARK: The disk

    @Test("a log that may not grow refuses posts and ends no master")
    func fileSizeLimit() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice")
        let pid = try #require(try await cluster.status().masters[0].pid)
        func limit(_ bytes: String) async throws {
          let arguments = ["--pid", String(pid), "--fsize=\(bytes):unlimited"]
          let outcome = try await Command(arguments, in: cluster.folder, program: "/usr/bin/prlimit").end()
          try #require(outcome.status == 0, "\(outcome)")
        }
        try await limit("4096")
        let refused = try await cluster.run("post", "alice", "no room")
        expectFailure(refused, "disk full")
        try await limit("unlimited")
        try await cluster.post("alice", "room")
        #expect(try await cluster.timeline("alice").map(\.text) == ["room"])
        #expect(try await cluster.status().masters[0].pid == pid)
      }
    }

    @Test("with a full disk posts are refused, the masters live on, and it goes on when there is room again")
    func fullDisk() async throws {
      guard let disk = SmallDisk(megabytes: 8) else { return }  // needs the right to mount
      defer { disk.unmount() }
      var setup = Cluster.Setup(masters: 2)
      setup.state = disk.path + "/var"
      try await Cluster.with(setup) { cluster in
        defer { try? FileManager.default.removeItem(atPath: disk.path + "/ballast") }
        try await cluster.register("alice", "bob")
        let before = try await cluster.post("alice", "before")
        let masters = try await cluster.whole().masters.map(\.pid)
        disk.fill()
        var refused: Outcome?
        // What the log has reserved may still take a few.
        for _ in 0..<50 where refused == nil {
          let outcome = try await cluster.run("post", "alice", String(repeating: "x", count: 1_000))
          if outcome.status != 0 { refused = outcome }
        }
        let outcome = try #require(refused, "the disk did not get full")
        expectFailure(outcome, "disk full")
        #expect(try await cluster.timeline("alice").first?.id == before, "reading goes on")
        #expect(try await cluster.run("follow", "alice", "bob").status == 1)
        try FileManager.default.removeItem(atPath: disk.path + "/ballast")
        let after = try await cluster.post("alice", "after")
        #expect(after > before)
        #expect(try await cluster.timeline("alice").last?.text == "after")
        #expect(
          try await cluster.timeline("alice", limit: 1_000).count { $0.text == "before" || $0.text == "after" } == 2)
        #expect(try await cluster.status().masters.map(\.pid) == masters)
      }
    }
  }
}

/// A file system of its own in memory.
private struct SmallDisk {
  let path: String

  /// Nil without the right to mount.
  init?(megabytes: Int) {
    var template = Array("/tmp/tsns-disk-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { return nil }
    path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    guard mount("tmpfs", path, "tmpfs", 0, "size=\(megabytes)m") == 0 else {
      rmdir(path)
      return nil
    }
  }

  /// Fills it to the last byte.
  func fill() {
    let descriptor = open(path + "/ballast", O_WRONLY | O_CREAT | O_APPEND, 0o600)
    defer { close(descriptor) }
    for size in [1 << 16, 1] {
      let zeros = [UInt8](repeating: 0, count: size)
      while write(descriptor, zeros, size) > 0 {}
    }
  }

  func unmount() {
    umount2(path, Int32(MNT_DETACH))
    rmdir(path)
  }
}
