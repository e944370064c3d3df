// Who does not belong gets in nowhere: the rows of ARCHITECTURE.md's table of threats, with plain sockets.

import Foundation
import Glibc
import Model
import Testing
import TinySNSClient
import Wire
import ZeroMQ

extension RealProcesses {
  @Suite struct SecurityTests {
    private func fixedPorts(_ masters: Int = 2) -> Cluster.Setup {
      var setup = Cluster.Setup(masters: masters)
      setup.firstPort = Ports.free(masters * 3)
      return setup
    }

    private func endpoint(_ port: UInt16) -> String { "tcp://127.0.0.1:\(port)" }

    /// Lines of a process's log that have all of these words.
    private func count(_ cluster: Cluster, _ name: String, _ words: String...) -> Int {
      cluster.log(of: name).split(separator: "\n").count { line in words.allSatisfy { line.contains($0) } }
    }

    /// Runs `body` while alice posts; her session must not be disturbed, and nobody may change places.
    private func undisturbed(_ cluster: Cluster, _ body: () async throws -> Void) async throws {
      try await cluster.register("alice")
      let before = try await cluster.whole()
      let poster = try Poster(cluster, as: "alice")
      try await poster.goOn()
      try await body()
      try await poster.goOn(50)
      let acknowledged = try await poster.stop()
      #expect(poster.losses == 0, "\(poster.notes)")
      #expect(acknowledged.count > 50)
      let after = try await cluster.whole()
      #expect(after.masters.map(\.pid) == before.masters.map(\.pid))
      #expect(after.masters.map(\.state) == before.masters.map(\.state))
      #expect(after.router.pid == before.router.pid)
    }

    /// Somebody who comes to a port, and what becomes of it.
    private final class Knocker {
      let socket: Socket
      private let monitor: Monitor
      private var answered = false
      private var refused = false

      init(_ socket: consuming Socket, at endpoint: String) throws {
        monitor = try socket.makeMonitor(of: .failures)
        try socket.connect(endpoint)
        self.socket = socket
      }

      /// Whether anything at all was heard from there.
      func isAnswered() throws -> Bool {
        var message = Message()
        while try socket.receive(into: &message) == .received { answered = true }
        return answered
      }

      /// Whether the other side broke off.
      func isRefused() throws -> Bool {
        while try monitor.next() != nil { refused = true }
        return refused
      }
    }

    // MARK: Who comes too often

    @Test(
      "an address that has as many connections as it may have gets no more until it has fewer; members come in nevertheless"
    )
    func crowd() async throws {
      var setup = Cluster.Setup(masters: 2)
      setup.keys.append("limits: { connections_per_loopback: 20 }")
      try await Cluster.with(setup) { cluster in
        func knock(_ context: borrowing Context) throws -> Knocker {
          let socket = try context.makeSocket(.dealer)
          try cluster.introduce(socket)
          let knocker = try Knocker(socket, at: cluster.router)
          _ = try knocker.socket.send(Wire.encode(.status(number: 1) as RouterRequest))
          return knocker
        }
        func isLetIn(_ knocker: Knocker) async throws -> Bool {
          try await eventually("it is let in or refused") { () async throws -> Bool? in
            if try knocker.isAnswered() { return .some(true) }
            return try knocker.isRefused() ? .some(false) : nil
          }
        }
        do {
          let context = try Context()
          var knockers: [Knocker] = []
          for _ in 0..<40 { knockers.append(try knock(context)) }
          // All come at once, and may all be refused at first; they come again.
          try await eventually("some are let in, the others refused") {
            let answered = try knockers.count { try $0.isAnswered() }
            return try answered > 0 && knockers.count { try !$0.isAnswered() && $0.isRefused() } == 40 - answered
          }
          try await eventually("the router says so") { count(cluster, "router", "too many connections") > 0 }
          // Whoever is let in stays, until no place is left.
          try await eventually("no place is left") {
            let knocker = try knock(context)
            defer { knockers.append(knocker) }
            return try await !isLetIn(knocker)
          }
          #expect(try await cluster.whole().masters.count == 2)
          let answers = try knockers.count { try $0.isAnswered() }
          #expect(answers <= 20, "\(answers) were let in")
        }
        let context = try Context()
        try await eventually("one is let in when they are gone") {
          try await isLetIn(try knock(context))
        }
        try await cluster.register("alice")
      }
    }

    // MARK: Who has no key, or a wrong one

    @Test(
      "without encryption, or with another server's key, nobody hears or says anything at any port; it is logged once")
    func strangers() async throws {
      try await Cluster.with(fixedPorts()) { cluster in
        let first = cluster.setup.firstPort
        let places: [(port: UInt16, process: String, name: String, kind: SocketKind)] = [
          (cluster.routerPort, "router", "router", .dealer), (first, "master-1", "requests", .dealer),
          (first + 1, "master-1", "timelines", .sub), (first + 2, "master-1", "log", .sub),
        ]
        try await undisturbed(cluster) {
          let context = try Context()
          var knockers: [Knocker] = []
          // Each comes three times.
          for (place, isWrong) in places.flatMap({ place in [(place, false), (place, true)] }) {
            for _ in 0..<3 {
              let socket = try context.makeSocket(place.kind)
              if isWrong {
                try socket.set(.curveClient(serverKey: CurveKeypair.generate().publicKey, keys: .generate()))
              }
              if place.kind == .sub { try socket.set(.subscribe([])) }
              let knocker = try Knocker(socket, at: endpoint(place.port))
              if place.kind == .dealer {
                _ = try knocker.socket.send(Wire.encode(.status(number: 1) as RouterRequest))
                _ = try knocker.socket.send(Wire.encode(Request(number: 1, body: .ping)))
              }
              knockers.append(knocker)
            }
          }
          try await eventually("all are refused") {
            try knockers.allSatisfy { try $0.isRefused() }
          }
          for (_, process, name, _) in places {
            for what in ["without encryption", "without this cluster's key"] {
              try await eventually("\(process) says \(what)") { count(cluster, process, "refused", name, what) > 0 }
            }
          }
          try await cluster.post("alice", "not for everybody")
          for knocker in knockers { #expect(try !knocker.isAnswered()) }
        }
        for (_, process, name, _) in places {
          for what in ["without encryption", "without this cluster's key"] {
            #expect(count(cluster, process, "refused", name, what) == 1)
          }
        }
      }
    }

    @Test("a client talks to no router that does not prove its key, and says so")
    func impostor() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice")
        // Keys may begin with a dash, as options do.
        let other = try "-" + CurveKeypair.generate().publicKey.z85.dropFirst()
        let outcome = try await cluster.run("post", "alice", "x", "--server-key", other, "--timeout", "3")
        #expect(outcome.status == 69, "\(outcome)")
        #expect(outcome.errors.contains("does not have the key"), "\(outcome)")
        #expect(try await cluster.timeline("alice").isEmpty)
        // With the right one, as on another machine.
        let key = try String(contentsOfFile: cluster.keyFile("cluster.pub"), encoding: .utf8).dropLast()
        #expect(try await cluster.run("post", "alice", "hello", "--server-key", String(key)).status == 0)
        let nonsense = try await cluster.run("post", "alice", "x", "--server-key", "short")
        #expect(nonsense.status == 1 && nonsense.errorLines.count == 1 && nonsense.errors.contains("40 characters"))
      }
    }

    // MARK: Who has a client's key

    @Test("what only members may say is refused from a client, logged, and has no effect")
    func membersMessages() async throws {
      try await Cluster.with(fixedPorts()) { cluster in
        let context = try Context()
        var sockets: [SocketBox] = []
        try await undisturbed(cluster) {
          let state = try await cluster.status()
          let victim = try #require(state.available)
          let identity = MasterIdentity(name: victim.name, incarnation: Incarnation(victim.incarnation!))
          let later = MasterIdentity(name: victim.name, incarnation: Incarnation(victim.incarnation! + 1_000_000))
          func beat(_ master: MasterIdentity) -> MasterBeat {
            MasterBeat(
              master: master, head: EventID(1), sessions: 0, commitAge: 60_000, term: UInt64(Int32.max), roster: 0)
          }
          let nowhere = endpoint(Ports.free(1))
          let registration = Registration(
            master: later, pid: getpid(), requests: nowhere, timelines: nowhere, log: nowhere, beat: beat(later))
          let requests: [(name: String, request: RouterRequest)] = [
            ("Register", .register(registration)), ("Beat", .beat(beat(identity))), ("Leave", .leave(identity)),
            ("Alive", .alive(identity, nonce: 1)),
          ]
          for (name, request) in requests {
            let socket = try context.makeSocket(.dealer)
            try cluster.introduce(socket)
            try socket.connect(cluster.router)
            // As a client it is served; after that no longer.
            _ = try socket.send(Wire.encode(.status(number: 7) as RouterRequest))
            #expect(try await received(from: socket) != nil)
            for _ in 0..<3 { _ = try socket.send(Wire.encode(request)) }
            try await eventually("the router refuses \(name)") {
              count(cluster, "router", "refused", "no member", name) > 0
            }
            _ = try socket.send(Wire.encode(.status(number: 8) as RouterRequest))
            sockets.append(SocketBox(socket))
          }
        }
        for box in sockets { #expect(try await received(from: box.socket, within: .zero) == nil) }
        for name in ["Register", "Beat", "Leave", "Alive"] {
          #expect(count(cluster, "router", "no member", name) == 1)
        }
      }
    }

    @Test("a router's messages from a client are nonsense to router and masters, and change nothing")
    func routersMessages() async throws {
      try await Cluster.with(fixedPorts()) { cluster in
        try await undisturbed(cluster) {
          let state = try await cluster.status()
          let standby = try #require(state.masters.first { $0.state == "standby" })
          let identity = MasterIdentity(name: standby.name, incarnation: Incarnation(standby.incarnation!))
          let roster = Roster(version: UInt64(Int64.max), available: identity, term: UInt64(Int32.max), members: [])
          let context = try Context()
          for port in [cluster.routerPort, cluster.setup.firstPort, cluster.setup.firstPort + 3] {
            let socket = try context.makeSocket(.dealer)
            try socket.set(.linger(.milliseconds(100)))
            try cluster.introduce(socket)
            try socket.connect(endpoint(port))
            for _ in 0..<3 { _ = try socket.send(Wire.encode(.roster(roster) as RouterReply)) }
          }
          for name in ["router", "master-1", "master-2"] {
            try await eventually("\(name) complains") { count(cluster, name, "bad input") > 0 }
          }
        }
        for name in ["router", "master-1", "master-2"] { #expect(count(cluster, name, "bad input") == 1) }
      }
    }

    @Test("the log socket is for members alone")
    func logSocket() async throws {
      try await Cluster.with(fixedPorts()) { cluster in
        try await undisturbed(cluster) {
          let context = try Context()
          var knockers: [Knocker] = []
          for (process, port) in [("master-1", cluster.setup.firstPort + 2), ("master-2", cluster.setup.firstPort + 5)]
          {
            // Each comes three times.
            for _ in 0..<3 {
              let socket = try context.makeSocket(.sub)
              try cluster.introduce(socket)
              try socket.set(.subscribe([]))
              knockers.append(try Knocker(socket, at: endpoint(port)))
            }
            try await eventually("\(process) refuses") {
              count(cluster, process, "refused", "log port", "127.0.0.1", "no member") > 0
            }
          }
          try await eventually("all are refused") {
            try knockers.allSatisfy { try $0.isRefused() }
          }
          try await cluster.post("alice", "not for everybody")
          for knocker in knockers { #expect(try !knocker.isAnswered()) }
        }
        for process in ["master-1", "master-2"] { #expect(count(cluster, process, "refused", "log port") == 1) }
      }
    }

    // MARK: Topics

    /// A plain client: a session and its socket for updates.
    private final class PlainClient {
      let requests: SocketBox
      let updates: SocketBox
      let keys: CurveKeypair
      private var number: UInt64 = 0

      init(_ cluster: Cluster, _ context: borrowing Context, _ master: ClusterState.Master) throws {
        keys = try CurveKeypair.generate()
        requests = SocketBox(try context.makeSocket(.dealer))
        try cluster.introduce(requests.socket, as: keys)
        try requests.socket.connect(try #require(master.requests))
        updates = SocketBox(try context.makeSocket(.sub))
        try updates.socket.set(.sendHighWaterMark(0))
        try cluster.introduce(updates.socket, as: keys)
        try updates.socket.connect(try #require(master.timelines))
      }

      /// Logs in with the password, and returns the token that it gets.
      @discardableResult
      func login(_ user: String) async throws -> SessionToken {
        guard case .welcome(let welcome) = try await hello(user, .password(Password(Cluster.password))),
          let token = welcome.token
        else { throw Late(description: "\(user) is not let in") }
        return token
      }

      func hello(_ user: String, _ proof: Proof) async throws -> Reply.Body {
        try await ask(
          .hello(
            Hello(
              client: ClientID(.random(in: 1 ... .max)), user: user, register: true, newest: .zero, proof: proof)))
      }

      func ask(_ body: Request.Body) async throws -> Reply.Body {
        number += 1
        _ = try requests.socket.send(Wire.encode(Request(number: number, body: body)))
        while true {
          let frames = try await receive(from: requests.socket)
          let reply = try Wire.decodeReply(frames[0])
          if reply.number == number { return reply.body }
        }
      }

      func watch() async throws -> Topic {
        guard case .watching(let watching) = try await ask(.watch(.home)) else { throw Late(description: "no topic") }
        return watching.topic
      }

      func subscribe(_ topic: Topic) throws { try updates.socket.set(.subscribe(Wire.encode(topic))) }
      func update(within limit: Duration = patience) async throws -> [[UInt8]]? {
        try await received(from: updates.socket, within: limit)
      }
    }

    private func isWelcome(_ body: Reply.Body) -> Bool { if case .welcome = body { true } else { false } }
    private func code(_ body: Reply.Body) -> Refusal.Code? {
      if case .refused(let refusal) = body { refusal.code } else { nil }
    }

    @Test("a token that is too old opens nothing, and a token of another account neither")
    func oldToken() async throws {
      try await Cluster.with(masters: 1, "session_lifetime: 5s") { cluster in
        let master = try #require(try await cluster.status(when: "one serves") { $0.available != nil }.available)
        let context = try Context()
        let alice = try PlainClient(cluster, context, master)
        let token = try await alice.login("alice")
        let eve = try PlainClient(cluster, context, master)
        try await eve.login("eve")
        #expect(code(try await eve.hello("eve", .token(token))) == .credentials)
        #expect(isWelcome(try await eve.hello("alice", .token(token))), "whoever has it is alice")
        try await eventually("it is refused", every: .milliseconds(200)) {
          code(try await eve.hello("alice", .token(token))) == .credentials
        }
        #expect(try await cluster.timeline("alice").isEmpty)
      }
    }

    @Test("a token that was revoked opens nothing at any master, and sessions that it opened are over")
    func revokedToken() async throws {
      try await Cluster.with(masters: 2, "assignment: spread") { cluster in
        let masters = try await cluster.status(when: "both serve") { $0.count(of: "serving") == 2 }.masters
        let context = try Context()
        let alice = try PlainClient(cluster, context, masters[0])
        let token = try await alice.login("alice")
        let thieves = try masters.map { try PlainClient(cluster, context, $0) }
        for thief in thieves { #expect(isWelcome(try await thief.hello("alice", .token(token)))) }
        guard case .done = try await alice.ask(.logout(everywhere: false)) else {
          Issue.record("no logout")
          return
        }
        for thief in thieves {
          try await eventually("it is refused") { code(try await thief.ask(.post(text: "mine?"))) == .noSession }
          #expect(code(try await thief.hello("alice", .token(token))) == .credentials)
        }
      }
    }

    @Test("a topic stolen from another session gives nothing")
    func stolenTopic() async throws {
      try await Cluster.with(masters: 1) { cluster in
        let master = try #require(try await cluster.status(when: "one serves") { $0.available != nil }.available)
        let context = try Context()
        let alice = try PlainClient(cluster, context, master)
        let eve = try PlainClient(cluster, context, master)
        try await alice.login("alice")
        try await eve.login("eve")
        let hers = try await alice.watch()
        let own = try await eve.watch()
        try alice.subscribe(hers)
        #expect(try await alice.update()?.first?.prefix(16) == Wire.encode(hers)[...])
        // The stolen one first: what comes for eve's own shows that the master has seen both.
        try eve.subscribe(hers)
        try eve.subscribe(own)
        #expect(try await eve.update()?.first?.prefix(16) == Wire.encode(own)[...])
        _ = try await alice.ask(.post(text: "for my followers"))
        #expect(try await alice.update()?.count == 2)
        _ = try await eve.ask(.post(text: "mine"))
        let update = try #require(try await eve.update())
        #expect(try Wire.decodeUpdate(header: update[0], body: update[1]).posts.map(\.text) == ["mine"])
        // Once it does not watch any more, it has no right to its former topic either.
        _ = try await eve.ask(.unwatch(own))
        try eve.updates.socket.set(.unsubscribe(Wire.encode(own)))
        try eve.subscribe(own)
        #expect(try await eve.update(within: .milliseconds(200)) == nil)
      }
    }

    @Test("who subscribes and is gone at once, again and again, harms no master and no other watcher")
    func hitAndRun() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice", "bob")
        _ = try await cluster.run("follow", "bob", "alice")
        let watcher = try Watcher(cluster, of: "bob")
        try await watcher.live(cluster, author: "alice")
        let poster = try Poster(cluster, as: "alice", pause: .milliseconds(1))
        let master = try #require(try await cluster.status(when: "one serves") { $0.available != nil }.available)
        let context = try Context()
        for round in 0..<20 {
          let eve = try PlainClient(cluster, context, master)
          try await eve.login("eve")
          let topic = try await eve.watch()
          for _ in 0..<20 {
            let updates = try context.makeSocket(.sub)
            try cluster.introduce(updates, as: eve.keys)
            try updates.set(.subscribe(Wire.encode(topic)))
            try updates.connect(try #require(master.timelines))
            // She goes at any moment of her own connection: on the way, subscribed, or being told.
            try await Task.sleep(for: .milliseconds(Int.random(in: 1...6)))
          }
          // And somebody who sends what is no subscription.
          let nonsense = try context.makeSocket(.xsub)
          try cluster.introduce(nonsense)
          try nonsense.connect(try #require(master.timelines))
          for _ in 0..<10 { _ = try nonsense.send([UInt8(ascii: "x")]) }
          // Refused if her topic was given up, and her session with it.
          _ = try await eve.ask(.post(text: "round \(round)"))
        }
        try await poster.goOn()
        try await watcher.expectExactly(try await poster.stop())
        #expect(try await cluster.status().available?.pid == master.pid)
      }
    }

    // MARK: Files

    @Test("sockets and keys are their owner's alone, and no log tells a secret")
    func files() async throws {
      try await Cluster.with(masters: 2) { cluster in
        try await cluster.register("alice")
        func mode(_ path: String) throws -> Int {
          let attributes = try FileManager.default.attributesOfItem(atPath: path)
          return try #require(attributes[.posixPermissions] as? Int)
        }
        for folder in ["run", "keys", "log"] { #expect(try mode("\(cluster.state)/\(folder)") == 0o700) }
        for folder in ["run", "keys", "log"] {
          for file in try FileManager.default.contentsOfDirectory(atPath: "\(cluster.state)/\(folder)") {
            #expect(try mode("\(cluster.state)/\(folder)/\(file)") & 0o077 == 0, "\(folder)/\(file)")
          }
        }
        for key in ["cluster.key", "member.key", "token.key"] {
          let text = try String(contentsOfFile: cluster.keyFile(key), encoding: .utf8)
          let secret = try #require(text.split(separator: "\n").last { $0.hasPrefix("secret ") }).dropFirst(7)
          for name in ["launcher", "router", "master-1", "master-2", "slave-1"] {
            #expect(!cluster.log(of: name).contains(secret))
          }
        }
      }
    }

    @Test("a secret that others can read, or that is damaged, starts nothing and is told in one line")
    func badKeys() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.run("down")
        let file = cluster.keyFile("member.key")
        chmod(file, 0o644)
        let open = try await cluster.run("up", "--detach", within: .seconds(15))
        #expect(open.status == 1 && open.errorLines.count == 1 && open.errors.contains(file), "\(open)")
        chmod(file, 0o600)
        try "secret\n".write(toFile: file, atomically: false, encoding: .utf8)
        let damaged = try await cluster.run("up", "--detach", within: .seconds(15))
        #expect(
          damaged.status == 1 && damaged.errorLines.count == 1 && damaged.errors.contains("damaged"), "\(damaged)")
        #expect(cluster.servers().isEmpty)
        try FileManager.default.removeItem(atPath: file)
        try await cluster.start()
      }
    }

    @Test("without encryption only on this machine")
    func noneElsewhere() async throws {
      try await Cluster.with(masters: 1, "security: none", start: false) { cluster in
        let text = try String(contentsOfFile: cluster.topology, encoding: .utf8)
        try text.replacing("masters: 1", with: "masters: 1, address: 192.0.2.1").write(
          toFile: cluster.topology, atomically: true, encoding: .utf8)
        let outcome = try await cluster.run("up", "--detach")
        #expect(
          outcome.status == 1 && outcome.errorLines.count == 1 && outcome.errors.contains("security"), "\(outcome)")
        try text.write(toFile: cluster.topology, atomically: true, encoding: .utf8)
        try await cluster.start()
        try await cluster.register("alice")
        try await cluster.post("alice", "in the open")
      }
    }
  }
}
