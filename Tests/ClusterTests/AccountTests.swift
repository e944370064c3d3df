// Passwords and logins, as commands have them.

import Foundation
import Glibc
import Model
import Testing
import TinySNSClient
import Wire
import ZeroMQ

extension RealProcesses {
  @Suite struct AccountTests {
    private static let noPassword: [String: String?] = ["TINYSNS_PASSWORD": nil]
    private static let wrong: [String: String?] = ["TINYSNS_PASSWORD": "a wrong password"]

    private func file(_ name: String, _ text: String, in cluster: Cluster) throws -> String {
      let path = cluster.folder + "/" + name
      try text.write(toFile: path, atomically: true, encoding: .utf8)
      return path
    }

    private func expectRefused(
      _ outcome: Outcome, _ reason: String, sourceLocation: SourceLocation = #_sourceLocation
    ) {
      #expect(outcome.status == 1, "\(outcome)", sourceLocation: sourceLocation)
      #expect(outcome.errorLines.count == 1, "\(outcome)", sourceLocation: sourceLocation)
      #expect(outcome.errors.contains(reason), "\(outcome)", sourceLocation: sourceLocation)
    }

    @Test(
      "a password comes from a file, the environment, or the saved login; without any the line says how to give one")
    func sources() async throws {
      try await Cluster.with(masters: 2) { cluster in
        let nobody = try await cluster.run("client", "alice", environment: Self.noPassword)
        expectRefused(nobody, "--password-file FILE or TINYSNS_PASSWORD")
        let path = try file("secret", "correct horse\nand what else stands there\n", in: cluster)
        let first = try await cluster.run("client", "alice", "--password-file", path, environment: Self.wrong)
        #expect(first.status == 0, "\(first)")
        // From now on without.
        #expect(try await cluster.run("post", "alice", "hello", environment: Self.noPassword).status == 0)
        #expect(try await cluster.run("list", "alice", environment: ["TINYSNS_PASSWORD": "correct horse"]).status == 0)
        // What is given wins over what is saved.
        expectRefused(try await cluster.run("post", "alice", "x", environment: Self.wrong), "the password is wrong")
        expectRefused(
          try await cluster.run("post", "alice", "x", "--password-file", "/nowhere", environment: Self.noPassword),
          "can't read /nowhere")
        // The saved login is its owner's alone, and not in the cluster's folder.
        let logins = cluster.folder + "/home/state/tinysns/logins"
        let clusters = try FileManager.default.contentsOfDirectory(atPath: logins)
        let saved = "\(logins)/\(try #require(clusters.first))/alice.token"
        let mode = try FileManager.default.attributesOfItem(atPath: saved)[.posixPermissions] as? Int
        #expect(clusters.count == 1 && mode == 0o600)
        // Where the home can't be written to, nothing is saved and nothing fails.
        let homeless: [String: String?] = [
          "XDG_STATE_HOME": "/proc/nowhere", "HOME": "/proc/nowhere", "TINYSNS_PASSWORD": "correct horse",
        ]
        #expect(try await cluster.run("post", "alice", "x", environment: homeless).status == 0)
      }
    }

    @Test("a password's file may be a pipe; what can't be read or is no password is told")
    func passwordFiles() async throws {
      try await Cluster.with(masters: 1) { cluster in
        func list(from source: String) async throws -> Outcome {
          try await cluster.shell("printf '\\n\\nx' | $T list alice --password-file \(source) $Y")
        }
        let password = "'correct horse'"
        let fifo = cluster.folder + "/fifo"
        try #require(mkfifo(fifo, 0o600) == 0)
        let registered = try await cluster.shell(
          "{ echo \(password); echo more; } >\(fifo) & $T client alice --password-file \(fifo) $Y </dev/null")
        #expect(registered.status == 0, "\(registered)")
        let descriptor = try await cluster.shell(
          "echo \(password) | { exec 5<&0; $T list alice --password-file /dev/fd/5 $Y </dev/null; }")
        #expect(descriptor.status == 0, "\(descriptor)")
        // Of standard input the first line is taken, and no byte more.
        let script = try await cluster.shell(
          "{ echo \(password); echo POST one; echo POST two; } | $T client alice --password-file /dev/stdin $Y")
        #expect(script.status == 0 && script.lines.count == 2, "\(script)")
        let file = try await cluster.shell(
          """
          cd '\(cluster.folder)'; { echo \(password); echo POST three; } >script
          $T client alice --password-file /dev/stdin $Y <script
          """)
        #expect(file.status == 0 && file.lines.count == 1, "\(file)")
        let loggedOut = try await cluster.shell(
          "echo \(password) | XDG_STATE_HOME=\(cluster.folder)/elsewhere $T logout alice --password-file /dev/stdin $Y")
        #expect(loggedOut.status == 0, "\(loggedOut)")

        expectRefused(try await list(from: "/dev/null"), "there is no password in the first line of /dev/null")
        expectRefused(try await list(from: "/nowhere"), "can't read /nowhere: No such file or directory")
        expectRefused(try await list(from: "/tmp"), "can't read /tmp: Is a directory")
        expectRefused(
          try await list(from: "/dev/stdin"), "there is no password in the first line")
        let latin = cluster.folder + "/latin"
        try Data([0x63, 0x61, 0x66, 0xE9, 0x20, 0x63, 0x72, 0xE8, 0x6D, 0x65, 0x0A]).write(
          to: URL(fileURLWithPath: latin))
        expectRefused(try await list(from: latin), "not UTF-8")
      }
    }

    @Test(
      "a password that is too long is refused at once, however long it is", arguments: [257, 3_900, 5_000, 1 << 20])
    func longPasswords(count: Int) async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice")
        let path = try file("long", String(repeating: "x", count: count), in: cluster)
        let refusal = "refused: longer than \(Limits.passwordBytesMax) bytes"
        for command in [["client", "bob"], ["post", "alice", "x"], ["passwd", "alice"]] {
          let outcome = try await cluster.begin(command + ["--password-file", path]).end(within: .seconds(5))
          expectRefused(outcome, "the password is \(refusal)")
        }
        if count < 1 << 17 {
          let variable = ["TINYSNS_PASSWORD": String(repeating: "x", count: count)]
          expectRefused(try await cluster.run("client", "bob", environment: variable, within: .seconds(5)), refusal)
        }
        expectRefused(
          try await cluster.run("passwd", "alice", "--new-password-file", path, within: .seconds(5)),
          "the new password is \(refusal)")
        // The longest there can be is none too many.
        let longest = ["TINYSNS_PASSWORD": String(repeating: "x", count: Limits.passwordBytesMax)]
        #expect(try await cluster.run("client", "carol", environment: longest).status == 0)
      }
    }

    @Test("a login survives the death of its master and a restart of the cluster; after logout it is useless")
    func logins() async throws {
      try await Cluster.with(masters: 3) { cluster in
        try await cluster.register("alice", "bob")
        let available = try await cluster.status(when: "one serves") { $0.available != nil }.available
        try cluster.signal(available?.pid, SIGKILL)
        #expect(try await cluster.run("post", "alice", "one", environment: Self.noPassword).status == 0)
        #expect(try await cluster.run("down").status == 0)
        try await cluster.start()
        #expect(try await cluster.run("post", "alice", "two", environment: Self.noPassword).status == 0)

        // Somebody has a copy.
        let home = cluster.folder + "/home"
        try FileManager.default.copyItem(atPath: home, toPath: cluster.folder + "/copy")
        let thief: [String: String?] = [
          "TINYSNS_PASSWORD": nil, "XDG_STATE_HOME": cluster.folder + "/copy/state",
        ]
        #expect(try await cluster.run("post", "alice", "three", environment: thief).status == 0)
        let watching = try cluster.begin(["timeline", "alice", "--follow"], environment: thief)
        try await eventually("the thief watches") { watching.output.contains("three") }
        let outcome = try await cluster.run("logout", "alice", environment: Self.noPassword)
        #expect(outcome.status == 0, "\(outcome)")
        expectRefused(try await cluster.run("post", "alice", "x", environment: thief), "no longer good")
        expectRefused(try await cluster.run("post", "alice", "x", environment: Self.noPassword), "has to log in")
        #expect(try await watching.end().status == 1, "open sessions end, too")
        expectRefused(
          try await cluster.run("logout", "alice", environment: Self.noPassword), "there is no saved login of alice")
        // Bob does not mind.
        #expect(try await cluster.run("post", "bob", "x", environment: Self.noPassword).status == 0)
        try FileManager.default.removeItem(atPath: cluster.folder + "/copy")
      }
    }

    @Test("a new password ends every other login; the operator sets one without the old")
    func newPasswords() async throws {
      try await Cluster.with(masters: 2) { cluster in
        try await cluster.register("alice")
        let elsewhere: [String: String?] = ["XDG_STATE_HOME": cluster.folder + "/elsewhere"]
        #expect(try await cluster.run("post", "alice", "x", environment: elsewhere).status == 0)
        let new: [String: String?] = ["TINYSNS_NEW_PASSWORD": "battery staple"]
        expectRefused(
          try await cluster.run("passwd", "alice", environment: Self.wrong.merging(new) { $1 }), "the password is wrong"
        )
        expectRefused(
          try await cluster.run("passwd", "alice", environment: ["TINYSNS_NEW_PASSWORD": "short"]), "shorter than 8")
        expectRefused(try await cluster.run("passwd", "alice"), "--new-password-file FILE or TINYSNS_NEW_PASSWORD")
        let changed = try await cluster.run("passwd", "alice", environment: new)
        #expect(changed.status == 0 && changed.lines == ["alice has a new password"], "\(changed)")
        expectRefused(try await cluster.run("post", "alice", "x"), "the password is wrong")
        expectRefused(
          try await cluster.run("post", "alice", "x", environment: elsewhere.merging(Self.noPassword) { $1 }),
          "no longer good")
        #expect(
          try await cluster.run("post", "alice", "x", environment: Self.noPassword).status == 0, "this one is saved")
        #expect(
          try await cluster.run("post", "alice", "x", environment: ["TINYSNS_PASSWORD": "battery staple"]).status == 0)

        let path = try file("new", "third password", in: cluster)
        let set = try await cluster.run("passwd", "alice", "--operator", "--new-password-file", path)
        #expect(set.status == 0, "\(set)")
        #expect(
          try await cluster.run("post", "alice", "x", environment: ["TINYSNS_PASSWORD": "third password"]).status == 0)
        expectRefused(
          try await cluster.run("passwd", "nobody", "--operator", "--new-password-file", path), "is no longer good")
      }
    }

    @Test("too many wrong passwords have to wait, and keep nobody out who has a login")
    func attempts() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice")
        for _ in 0..<Limits.attemptsPerName {
          expectRefused(try await cluster.run("post", "alice", "x", environment: Self.wrong), "the password is wrong")
        }
        expectRefused(
          try await cluster.run("post", "alice", "x", environment: Self.wrong), "too many wrong passwords; wait")
        #expect(try await cluster.run("post", "alice", "x", environment: Self.noPassword).status == 0)
        try await cluster.register("bob")
      }
    }

    /// The demo clients' passwords are in files of their own by design, each alone and its owner's; nowhere else.
    @Test("no password or token is in any file of the state folder, running or stopped; nor in its status")
    func nothingIsShown() async throws {
      let setup = Cluster.Setup(masters: 2, keys: ["respawn_delay: 1s", "clients: [carol]"])
      try await Cluster.with(setup) { cluster in
        try await cluster.register("alice")
        try await cluster.post("alice", "a post that is there")
        _ = try await cluster.run("post", "alice", "x", environment: Self.wrong)
        _ = try await cluster.run("logout", "alice")
        let logins = cluster.folder + "/home/state/tinysns/logins"
        try await cluster.register("bob")
        let folder = try #require(try FileManager.default.contentsOfDirectory(atPath: logins).first)
        let token = try String(contentsOfFile: "\(logins)/\(folder)/bob.token", encoding: .utf8).dropLast()
        let key = try String(contentsOfFile: cluster.state + "/keys/token.key", encoding: .utf8).dropFirst(7).dropLast()
        let raw = [UInt8](try #require(Data(base64Encoded: String(token))))
        let demoFile = "keys/demo/carol.password"
        let demo = try String(contentsOfFile: cluster.state + "/" + demoFile, encoding: .utf8).dropLast()
        try #require(demo.count == 26)
        try await eventually("carol posts") {
          try await cluster.run("timeline", "carol", environment: Self.noPassword).output.contains("carol: ")
        }
        // Each with the one file that is made to have it.
        let secrets: [(what: String, bytes: [UInt8], file: String?)] = [
          ("a password", Array(Cluster.password.utf8), nil), ("a wrong password", Array("a wrong password".utf8), nil),
          ("a token", Array(token.utf8), nil), ("a token as it travels", raw, nil),
          ("a token's seal", Array(raw.suffix(32)), nil), ("a demo client's password", Array(demo.utf8), demoFile),
          ("the key of tokens", Array(key.utf8), "keys/token.key"),
        ]
        func search() throws {
          var seen = 0
          for path in try FileManager.default.subpathsOfDirectory(atPath: cluster.state) {
            guard let data = FileManager.default.contents(atPath: cluster.state + "/" + path) else { continue }
            seen += data.count
            for secret in secrets {
              let isThere = data.firstRange(of: Data(secret.bytes)) != nil
              #expect(isThere == (secret.file == path), "\(secret.what) in \(path)")
            }
          }
          // The posts are there, so this is where to look.
          #expect(seen > 10_000)
        }
        try search()
        let status = Data(try await cluster.run("status", "--json").output.utf8)
        for secret in secrets { #expect(status.firstRange(of: Data(secret.bytes)) == nil, "\(secret.what)") }
        #expect(try await cluster.run("down").status == 0)
        try search()
      }
    }

    @Test("a request acts as its session's account, and a stranger's token opens nothing")
    func authority() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice", "bob")
        let master = try #require(try await cluster.status(when: "one serves") { $0.available != nil }.available)
        let context = try Context()
        let socket = try context.makeSocket(.dealer)
        try cluster.introduce(socket, as: try CurveKeypair.generate())
        try socket.connect(try #require(master.requests))
        func ask(_ number: UInt64, _ body: Request.Body) async throws -> Reply.Body {
          _ = try socket.send(Wire.encode(Request(number: number, body: body)))
          return try Wire.decodeReply(try await receive(from: socket)[0]).body
        }
        func hello(_ user: String, _ proof: Proof?) -> Request.Body {
          .hello(Hello(client: ClientID(7), user: user, register: true, newest: .zero, proof: proof))
        }
        func code(_ body: Reply.Body) -> Refusal.Code? {
          if case .refused(let refusal) = body { refusal.code } else { nil }
        }
        guard case .welcome(let welcome) = try await ask(1, hello("bob", .password(Password(Cluster.password)))),
          let token = welcome.token
        else {
          Issue.record("no session")
          return
        }
        #expect(code(try await ask(2, hello("alice", .token(token)))) == .credentials)
        #expect(code(try await ask(3, hello("alice", nil))) == .credentials)
        var forged = token.bytes
        forged[20] ^= 1  // the account
        #expect(code(try await ask(4, hello("alice", .token(SessionToken(bytes: forged))))) == .credentials)
        // The session is still bob's.
        guard case .done(let id) = try await ask(5, .post(text: "mine")) else {
          Issue.record("not posted")
          return
        }
        let posts = try await cluster.timeline("bob")
        #expect(posts.map(\.id) == [id.rawValue] && posts.map(\.author) == ["bob"])
      }
    }
  }
}
