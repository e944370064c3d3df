// What a user's commands do and say.

import Foundation
import Model
import Testing

extension RealProcesses {
  @Suite(.sharedCluster) struct CommandTests {
    private let cluster: Cluster

    init() throws { cluster = try #require(SharedCluster.current) }

    /// Registers users with names of this test alone.
    private func users(_ prefixes: String...) async throws -> [String] {
      var names: [String] = []
      for prefix in prefixes {
        names.append(freshName(prefix))
        try await cluster.register(names.last!)
      }
      return names
    }

    private func expectRefused(
      _ arguments: String..., because reason: String, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
      let outcome = try await cluster.begin(arguments).end()
      #expect(outcome.status == 1, "\(outcome)", sourceLocation: sourceLocation)
      #expect(outcome.output.isEmpty, "\(outcome)", sourceLocation: sourceLocation)
      #expect(outcome.errorLines.count == 1, "\(outcome)", sourceLocation: sourceLocation)
      #expect(outcome.errors.contains(reason), "\(outcome)", sourceLocation: sourceLocation)
    }

    // MARK: Accounts

    @Test("the first login with client registers a name; all other commands refuse an unknown one")
    func registration() async throws {
      let name = freshName("alice")
      for command in [
        ["post", name, "x"], ["follow", name, name], ["unfollow", name, name], ["list", name], ["timeline", name],
        ["timeline", name, "--follow"],
      ] {
        let outcome = try await cluster.begin(command).end()
        #expect(outcome.status == 1, "\(outcome)")
        #expect(outcome.errorLines == ["tinysns: the name or the password is wrong"])
      }
      let first = try await cluster.run("client", name)
      #expect(first.status == 0 && first.output.isEmpty && first.errors.isEmpty, "\(first)")
      // Whoever left is let in again, as often as wanted, also twice at once.
      let one = try cluster.begin(["client", name], input: .typed)
      let other = try cluster.begin(["client", name], input: .typed)
      for session in [one, other] {
        try session.type("POST here")
        try await eventually("logged in") { session.output.contains("posted as") }
      }
      for session in [one, other] {
        session.endInput()
        #expect(try await session.end().status == 0)
      }
      #expect(try await cluster.timeline(name).count == 2)
    }

    @Test("names that are empty, too long, or have what is not allowed are refused")
    func names() async throws {
      let longest = freshName("n") + String(repeating: "x", count: Limits.nameBytes)
      let name = String(longest.prefix(Limits.nameBytes))
      try await cluster.register(name)
      try await cluster.post(name, "a long name")
      try await expectRefused("client", name + "x", because: "longer than \(Limits.nameBytes) bytes")
      try await expectRefused("client", "", because: "empty")
      for bad in ["../etc", "a/b", "a b", "a\nb", "a\u{1B}[31m", "a,b", ".hidden"] {
        try await expectRefused("client", bad, because: "not allowed")
      }
      try await expectRefused("follow", name, "../../etc/passwd", because: "no user named")
      try await expectRefused("follow", name, "a\nb\u{1B}[31m", because: "no user named")
      try await expectRefused("follow", name, String(repeating: "y", count: 10_000), because: "no user named")
    }

    @Test("names are case-sensitive and may be in any language")
    func languages() async throws {
      let name = freshName("Zoë")
      try await cluster.register(name)
      try await expectRefused("post", name.lowercased(), "x", because: "the name or the password is wrong")
      try await cluster.post(name, "γειά")
      #expect(try await cluster.timeline(name).map(\.author) == [name])
    }

    // MARK: Posts

    @Test("post prints the id once it is acknowledged; ids ascend")
    func postPrintsID() async throws {
      let alice = try await users("alice")[0]
      let first = try await cluster.post(alice, "one")
      let second = try await cluster.post(alice, "two")
      #expect(first < second)
      let shown = try await cluster.timeline(alice)
      #expect(shown.map(\.id) == [first, second])
      #expect(shown.map(\.text) == ["one", "two"])
    }

    @Test("a post may have every byte of the limit, and not one more")
    func longPosts() async throws {
      let alice = try await users("alice")[0]
      let ascii = String(repeating: "x", count: Limits.postBytes)
      let wide = String(repeating: "ß", count: Limits.postBytes / 2)
      for text in [ascii, wide] { try await cluster.post(alice, text) }
      #expect(try await cluster.timeline(alice).map(\.text) == [ascii, wide], "in one piece")
      for text in [ascii + "x", wide + "x", String(repeating: "x", count: 100_000)] {
        try await expectRefused("post", alice, text, because: "longer than \(Limits.postBytes) bytes")
      }
      #expect(try await cluster.timeline(alice).count == 2)
    }

    @Test("empty posts and control characters are refused; everything else is kept as it is")
    func texts() async throws {
      let alice = try await users("alice")[0]
      for text in ["", "   "] { try await expectRefused("post", alice, text, because: "empty") }
      for text in ["two\nlines", "a tab\t", "\u{1B}[2Jgone", "bell\u{7}", "\u{7F}", "c1 \u{9B}31m"] {
        try await expectRefused("post", alice, text, because: "not allowed")
      }
      // Commas, quotes, the statements of a database, what looks like a command or like the protocol.
      let texts = [
        "a,b,,c", #"say "hi" \ 'there'"#, "'; DROP TABLE events; --", "QUIT", "/back", "Set Stream", "%s %n {0}",
        "👩‍👩‍👧‍👦 e\u{301} é",
        " leading and trailing ",
      ]
      for text in texts { try await cluster.post(alice, text) }
      #expect(try await cluster.timeline(alice).map(\.text) == texts)
    }

    // MARK: The follow graph

    @Test("follow and unfollow tell apart: done, already followed, oneself, not followed, unknown")
    func follows() async throws {
      let names = try await users("alice", "bob")
      let (alice, bob) = (names[0], names[1])
      #expect(try await cluster.run("follow", alice, bob).output == "\(alice) follows \(bob)\n")
      try await expectRefused("follow", alice, bob, because: "already")
      try await expectRefused("follow", alice, alice, because: "yourself")
      try await expectRefused("follow", alice, "nobody-here", because: "no user named 'nobody-here'")
      try await expectRefused("unfollow", bob, alice, because: "do not follow")
      try await expectRefused("unfollow", bob, "nobody-here", because: "no user named 'nobody-here'")
      try await expectRefused("unfollow", alice, alice, because: "do not follow")
      #expect(try await cluster.run("unfollow", alice, bob).output == "\(alice) no longer follows \(bob)\n")
      try await expectRefused("unfollow", alice, bob, because: "do not follow")
      #expect(try await cluster.run("follow", alice, bob).status == 0)
      // Nobody is stuck after that.
      try await cluster.post(alice, "still here")
    }

    @Test("list shows all users and one's followers")
    func list() async throws {
      let names = try await users("alice", "bob", "carol")
      let (alice, bob, carol) = (names[0], names[1], names[2])
      #expect(try await cluster.run("list", alice).lines.last == "Your followers: none")
      for follower in [bob, carol] { _ = try await cluster.run("follow", follower, alice) }
      let text = try await cluster.run("list", alice)
      let start = try #require(text.lines.firstIndex { $0.hasPrefix("Your followers") })
      #expect(text.lines[(start + 1)...].map { $0.trimmingCharacters(in: .whitespaces) } == [bob, carol])
      for name in names { #expect(text.lines[..<start].contains("  \(name)")) }
      let outcome = try await cluster.run("list", alice, "--json")
      let json = try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: [String]])
      #expect(json["followers"] == [bob, carol])
      #expect(Set(json["users"]!).isSuperset(of: names))
    }

    // MARK: Timelines

    @Test("a timeline has one's own posts and those of everyone followed, earlier ones too, oldest first")
    func timelines() async throws {
      let names = try await users("alice", "bob", "carol")
      let (alice, bob, carol) = (names[0], names[1], names[2])
      try await cluster.post(alice, "a1")
      try await cluster.post(bob, "b1")
      try await cluster.post(carol, "c1")
      #expect(try await cluster.timeline(alice).map(\.text) == ["a1"])
      _ = try await cluster.run("follow", alice, bob)
      #expect(try await cluster.timeline(alice).map(\.text) == ["a1", "b1"])
      try await cluster.post(alice, "a2")
      try await cluster.post(bob, "b2")
      let shown = try await cluster.timeline(alice)
      #expect(shown.map(\.text) == ["a1", "b1", "a2", "b2"])
      #expect(shown.map(\.author) == [alice, bob, alice, bob])
      #expect(zip(shown, shown.dropFirst()).allSatisfy { $0.id < $1.id })
      _ = try await cluster.run("unfollow", alice, bob)
      #expect(try await cluster.timeline(alice).map(\.text) == ["a1", "a2"])
      #expect(try await cluster.timeline(bob).map(\.text) == ["b1", "b2"], "nobody follows back by being followed")
    }

    @Test("--limit gives the newest so many; 20 without it; more than a page's if wanted")
    func limits() async throws {
      let alice = try await users("alice")[0]
      let script = (1...230).map { "POST n\($0)" }.joined(separator: "\n")
      #expect(try await cluster.run("client", alice, input: .text(script)).status == 0)
      let all = (1...230).map { "n\($0)" }
      let plain = try await cluster.run("timeline", alice)
      #expect(plain.lines.count == 20)
      #expect(plain.lines.last?.hasSuffix("\(alice): n230") == true)
      for limit in [0, 1, 20, 21, 100, 101, 229, 230, 1_000] {
        #expect(
          try await cluster.timeline(alice, limit: limit).map(\.text) == Array(all.suffix(limit)), "limit \(limit)")
      }
    }

    @Test("--json has a line a post with id, author, text and created_at in UTC, now")
    func json() async throws {
      let alice = try await users("alice")[0]
      try await cluster.post(alice, #"quotes " and \ "#)
      let outcome = try await cluster.run("timeline", alice, "--json")
      #expect(outcome.lines.count == 1)
      let fields = try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
      #expect(Set(fields.keys) == ["id", "author", "text", "created_at"])
      #expect(fields["text"] as? String == #"quotes " and \ "#)
      let style = Date.ISO8601FormatStyle(includingFractionalSeconds: true)
      let time = try style.parse(try #require(fields["created_at"] as? String))
      #expect(abs(time.timeIntervalSinceNow) < 60)
    }

    @Test("two readers see the same posts in the same order, wherever they are and whenever they came")
    func sameOrder() async throws {
      let names = try await users("alice", "bob", "carol", "dave")
      for reader in names[2...] {
        for author in names[..<2] { _ = try await cluster.run("follow", reader, author) }
      }
      let watchers = try [Watcher(cluster, of: names[2]), Watcher(cluster, of: names[3])]
      for watcher in watchers { try await watcher.live(cluster, author: names[0]) }
      let posters = try names[..<2].map { try Poster(cluster, as: $0, prefix: $0, pause: .zero) }
      for poster in posters { try await poster.goOn(30) }
      var acknowledged: [Poster.Acknowledged] = []
      for poster in posters { acknowledged += try await poster.stop() }
      for watcher in watchers { try await watcher.expectExactly(acknowledged) }
      let shown = try watchers.map { try $0.posts().filter { $0.text.contains("-") } }
      #expect(shown[0] == shown[1], "the times too")
      let read = try await cluster.timeline(names[2], limit: 10_000).filter { $0.text.contains("-") }
      #expect(read == shown[0])
    }

    // MARK: Scripts

    @Test("a script's commands work in any case; refusals are lines of output, and make the status 1")
    func script() async throws {
      let names = try await users("alice", "bob")
      let (alice, bob) = (names[0], names[1])
      let good =
        "follow \(bob)\nFoLLoW\u{20}\u{20}\(bob)x\n\nList\nPOST  two words \nunFollow \(bob)\nhelp\nQUIT\nPOST never\n"
      let outcome = try await cluster.run("client", alice, input: .text(good))
      #expect(outcome.status == 1, "one was refused")
      #expect(outcome.lines[0] == "you follow \(bob) now")
      #expect(outcome.lines[1] == "error: there is no user named '\(bob)x'")
      #expect(outcome.output.contains("All users"))
      #expect(outcome.output.contains("posted as "))
      #expect(outcome.output.contains("you no longer follow \(bob)"))
      #expect(outcome.output.contains("UNFOLLOW NAME"))
      #expect(outcome.errors == "tinysns: some commands failed\n")
      let stored = try await cluster.timeline(alice).map(\.text)
      #expect(stored.count == 1, "nothing after QUIT")
    }

    @Test("in TIMELINE each line is a post, what others post appears, and /back returns")
    func scriptedTimeline() async throws {
      let names = try await users("alice", "bob")
      let (alice, bob) = (names[0], names[1])
      try await cluster.post(bob, "before")
      let session = try cluster.begin(["client", alice], input: .typed)
      try session.type("FOLLOW \(bob)")
      try session.type("timeline")
      try await eventually("the last posts come first") { session.output.contains("\(bob): before") }
      try session.type("FOLLOW is a word here")
      try await cluster.post(bob, "live")
      try await eventually("both are shown") {
        session.output.contains("\(alice): FOLLOW is a word here") && session.output.contains("\(bob): live")
      }
      try session.type("/back")
      try session.type("UNFOLLOW \(bob)")
      session.endInput()
      let outcome = try await session.end()
      #expect(outcome.status == 0, "\(outcome)")
      #expect(outcome.output.contains("you no longer follow \(bob)"))
      #expect(outcome.lines.count { $0.contains("before") } == 1)
    }

    @Test("unknown commands, wrong arguments and bad texts are error lines, and the script goes on")
    func scriptErrors() async throws {
      let alice = try await users("alice")[0]
      let long = String(repeating: "x", count: Limits.postBytes + 1)
      let odd = "\u{1B}[2J" + String(repeating: "\0", count: 1 << 20)
      // One character, with a million accents.
      let accents = "a" + String(repeating: "\u{301}", count: 1 << 20)
      let unknown = try await cluster.run("client", alice, input: .text("\(odd)\n\(accents)\n"))
      #expect(unknown.lines.count == 2 && unknown.output.utf8.count < 500, "\(unknown.output.utf8.count) bytes")
      #expect(!unknown.output.contains { $0 == "\u{1B}" || $0 == "\0" })
      let script = "FLY\nFOLLOW\nFOLLOW a b\nLIST all\nPOST\nPOST \(long)\nPOST a\u{1}b\n\(long)\nPOST good"
      let outcome = try await cluster.run("client", alice, input: .text(script))
      #expect(outcome.status == 1)
      #expect(outcome.lines.count == 9, "\(outcome)")
      #expect(outcome.lines.dropLast().allSatisfy { $0.hasPrefix("error: ") }, "\(outcome)")
      #expect(outcome.lines[0].contains("FLY"))
      #expect(outcome.lines[8].hasPrefix("posted as"), "a last line without a line end counts")
      #expect(outcome.lines.allSatisfy { $0.count < 200 })
    }

    @Test("the end of input ends the client, in TIMELINE too; an empty input only logs in")
    func endOfInput() async throws {
      let alice = try await users("alice")[0]
      for script in ["", "\n", "TIMELINE\n", "TIMELINE\nin the timeline", "QUIT"] {
        let outcome = try await cluster.run("client", alice, input: .text(script), within: .seconds(20))
        #expect(outcome.status == 0, "\(outcome)")
      }
      #expect(try await cluster.timeline(alice).map(\.text) == ["in the timeline"], "once, not endlessly")
    }

    @Test("a post typed into a script's TIMELINE is shown before the script ends")
    func scriptShowsItsPosts() async throws {
      let alice = try await users("alice")[0]
      let outcome = try await cluster.run("client", alice, input: .text("TIMELINE\none\ntwo\n"))
      #expect(outcome.status == 0)
      #expect(outcome.lines.count { $0.hasSuffix("\(alice): one") || $0.hasSuffix("\(alice): two") } == 2, "\(outcome)")
    }

    @Test("lines with carriage returns or a null byte, and endless lines, do no harm")
    func oddLines() async throws {
      let alice = try await users("alice")[0]
      let endless = String(repeating: "x", count: 1 << 20)
      let outcome = try await cluster.run(
        "client", alice, input: .text("POST dos\r\nPOST nul\u{0}byte\n\(endless)\nPOST \(endless)\nPOST last\n"))
      #expect(outcome.status == 1)
      #expect(try await cluster.timeline(alice).map(\.text) == ["dos", "last"])
    }

    // MARK: Command lines

    @Test("wrong command lines end with status 2 and say what is wrong")
    func usage() async throws {
      let wrong = [
        ["fly"], ["post", "alice"], ["post"], ["follow", "alice"], ["timeline"], ["timeline", "a", "--limit", "many"],
        ["timeline", "a", "--limit", "-1"], ["post", "a", "b", "c"], ["list", "a", "--colour"],
        ["post", "a", "b", "--timeout", "0"],
        ["master"], ["up", "now"],
      ]
      for arguments in wrong {
        let outcome = try await cluster.begin(arguments).end()
        #expect(outcome.status == 2, "\(outcome)")
        #expect(!outcome.errors.isEmpty && outcome.output.isEmpty, "\(outcome)")
      }
      for arguments in [["--help"], ["help", "post"], ["timeline", "--help"]] {
        let outcome = try await Command(arguments, in: cluster.folder).end()
        #expect(outcome.status == 0 && outcome.output.contains("USAGE"), "\(outcome)")
      }
    }

    @Test("what is not UTF-8 is refused, in arguments and in a script, and nothing is changed silently")
    func notUTF8() async throws {
      let alice = try await users("alice")[0]
      let argument = try await cluster.shell(#"exec $T post \#(alice) "$(printf 'caf\351')" $Y"#)
      #expect(argument.status == 2, "\(argument)")
      #expect(argument.errorLines.count == 1 && argument.errors.contains("UTF-8"))
      let name = try await cluster.shell(#"exec $T client "$(printf 'caf\351')" $Y </dev/null"#)
      #expect(name.status == 2)
      let script = try await cluster.shell(#"printf 'POST caf\351\nPOST fine\n' | $T client \#(alice) $Y"#)
      #expect(script.status == 1)
      #expect(script.lines.first?.contains("UTF-8") == true)
      #expect(try await cluster.timeline(alice).map(\.text) == ["fine"])
    }

    @Test("a closed standard input is an end of input; a closed standard output is an error")
    func closedDescriptors() async throws {
      let alice = try await users("alice")[0]
      let input = try await cluster.shell("$T client \(alice) $Y <&-")
      #expect(input.status == 0 && input.errors.isEmpty, "\(input)")
      let output = try await cluster.shell("$T post \(alice) 'unheard' $Y >&-")
      #expect(output.status == 1, "\(output)")
      #expect(output.errors == "tinysns: can't write the output: Bad file descriptor\n")
      let errors = try await cluster.shell("$T post \(alice) 'heard' $Y 2>&-")
      #expect(errors.status == 0 && errors.lines.count == 1, "\(errors)")
      #expect(try await cluster.timeline(alice).map(\.text) == ["unheard", "heard"])
    }

    @Test("output that can't be written is told in one line")
    func fullOutput() async throws {
      let alice = try await users("alice")[0]
      for command in [
        "post \(alice) x", "list \(alice)", "timeline \(alice)", "status", "status --json", "keys", "--help",
      ] {
        let outcome = try await cluster.shell("$T \(command) \(command == "--help" ? "" : "$Y") >/dev/full")
        #expect(outcome.status == 1, "\(outcome)")
        #expect(outcome.errors == "tinysns: can't write the output: No space left on device\n", "\(outcome)")
        let both = try await cluster.shell("$T \(command) \(command == "--help" ? "" : "$Y") >/dev/full 2>&1")
        #expect(both.status == 1, "\(both)")
      }
    }

    @Test("a failure keeps its status when nobody reads or takes what it says")
    func unheardFailure() async throws {
      let nobody = freshName("nobody")
      for (command, status) in [("post \(nobody) x", 1), ("post \(nobody) x --colour", 2)] {
        let full = try await cluster.shell("$T \(command) $Y 2>/dev/full")
        #expect(full.status == status, "\(full)")
        let file = cluster.folder + "/status-\(nobody)"
        // A pipe that had a reader, and has none any more.
        let pipe = cluster.folder + "/pipe-\(nobody)-\(status)"
        let unread = try await cluster.shell(
          "mkfifo \(pipe); : <\(pipe) & exec 3>\(pipe); wait; $T \(command) $Y >&3 2>&3; echo $? >\(file); cat \(file)")
        #expect(unread.output == "\(status)\n", "\(unread)")
      }
    }

    @Test("timeline --follow | head -1 ends quietly")
    func brokenPipe() async throws {
      let alice = try await users("alice")[0]
      try await cluster.post(alice, "the only line")
      for flags in ["--follow", "--follow --json", "--limit 1000"] {
        let outcome = try await cluster.shell("{ $T timeline \(alice) \(flags) $Y; echo status $? >&2; } | head -1")
        #expect(outcome.lines.count == 1 && outcome.output.contains("the only line"))
        #expect(outcome.errors == "status 0\n", "\(outcome)")
      }
    }
  }
}
