// Sessions at a terminal, typed and read through pseudo-terminals. What is asserted is loose: the text, not each escape sequence.

import Foundation
import Testing

@testable import tinysns

@Suite(.serialized, .timeLimit(.minutes(3))) struct InteractiveTests {
  @Test func aSession() throws {
    let cluster = try TestCluster()
    let alice = try cluster.client("alice")
    try alice.wait(for: "Welcome, alice")
    try alice.wait(for: "alice> ")
    let bob = try cluster.client("bob")
    try bob.wait(for: "Welcome, bob")

    // Commands, their failures, completion of a name that came later.
    alice.type("dance\r")
    try alice.wait(for: "error: there is no command dance")
    alice.type("fol\tbo\t\r")
    try alice.wait(for: "you follow bob now")
    alice.type("TIMELINE\r")
    try alice.wait(for: "alice (timeline)> ")

    // A post comes while a line is typed, longer than a row and with the cursor within it.
    alice.type("héllo 日本 " + String(repeating: "x", count: 88) + "yz\u{1B}[D\u{1B}[D")
    try alice.wait(for: "z")  // all of it is on the screen
    bob.type("POST from bob 👍\r")
    try bob.wait(for: "posted as ")
    let shown = try alice.wait(for: "bob: from bob 👍")
    #expect(shown.contains("\u{1B}[1A\r\u{1B}[J"), "the line was taken off the screen, which is two rows")
    try alice.wait(for: "alice (timeline)> héllo 日本 xxx")
    alice.type("Y\r")
    try alice.wait(for: "alice: héllo 日本 " + String(repeating: "x", count: 88) + "Yyz")

    // A failover while typing.
    alice.type("still ")
    try alice.wait(for: "still ")
    try cluster.killAvailableMaster()
    try alice.wait(for: "serves you now, after ")
    try alice.wait(for: "still ")
    alice.type("there\r")
    try alice.wait(for: "alice: still there")

    // Resizing draws anew what is typed.
    alice.type("resized")
    try alice.wait(for: "resized")
    alice.resize(rows: 20, columns: 40)
    try alice.wait(for: "alice (timeline)> resized")

    // Ctrl-C discards; Ctrl-D goes back, and leaves.
    alice.type("\u{3}")
    _ = alice.rest()
    alice.type("\u{4}")
    try alice.wait(for: "alice> ")
    alice.type("LIST\r")
    let list = try alice.wait(for: "Your followers: none")
    #expect(list.contains("All users (2)"))
    #expect(!alice.isRestored)
    alice.type("\u{4}")
    #expect(alice.end() == 0)
    #expect(alice.isRestored)

    // Another time: welcome back, and the history is there.
    let again = try cluster.client("alice")
    try again.wait(for: "Welcome back, alice")
    try again.wait(for: "alice> ")
    again.type("\u{1B}[A\r")
    try again.wait(for: "All users (2)")
    again.type("\u{3}")
    try again.wait(for: "Ctrl-D or QUIT leaves")
    again.type("\u{3}")
    #expect(again.end() == 0)
    #expect(again.isRestored)
    #expect(try cluster.run("timeline", "bob").output.contains("from bob"))
    #expect(try !cluster.run("timeline", "alice").output.contains("resized"), "a discarded line is no post")
  }

  @Test func theTerminalIsGivenBackAtEveryEnd() throws {
    let cluster = try TestCluster()
    for signal in [SIGTERM, SIGHUP, SIGQUIT] {
      let client = try cluster.client("alice")
      try client.wait(for: "alice> ")  // also while the login is under way
      client.type("half a line")
      try client.wait(for: "half a line")
      kill(client.pid, signal)
      #expect(client.end() == 128 + signal)
      #expect(client.isRestored)
    }
    // Suspended and continued.
    let client = try cluster.client("alice")
    try client.wait(for: "alice> ")
    client.type("before \u{1A}")
    var status: Int32 = 0
    #expect(waitpid(client.pid, &status, WUNTRACED) == client.pid)
    #expect(client.isRestored)
    kill(client.pid, SIGCONT)
    _ = client.rest()
    client.type("after")
    try client.wait(for: "after")
    #expect(!client.isRestored)
    client.type("\u{3}QUIT\r")
    #expect(client.end() == 0)
    #expect(client.isRestored)

    // Nobody there.
    try cluster.run("down")
    let alone = try TerminalProcess(
      [program, "client", "alice", "--topology", cluster.topology, "--timeout", "1"],
      environment: ["TERM=xterm", "HOME=\(cluster.folder)", "TINYSNS_PASSWORD=\(cluster.password)"], rows: 24,
      columns: 80)
    try alone.wait(for: "tinysns: no master is available")
    #expect(alone.end() == 69)
    #expect(alone.isRestored)
  }

  /// A person is asked, and nothing of the answer is seen.
  @Test func passwordsAreAskedFor() throws {
    let cluster = try TestCluster()
    let secret = "correct horse"
    let new = try cluster.client("carol", password: nil)
    try new.wait(for: "Password of carol: ")
    new.type(secret + "\r")
    try new.wait(for: "Is carol new here, to be registered? [y/N] ")
    new.type("y\r")
    try new.wait(for: "New password of carol: ")
    new.type("short\r")
    try new.wait(for: "It must not be shorter than 8 bytes.")
    try new.wait(for: "New password of carol: ")  // what is typed before a question is thrown away
    new.type(secret + "\r")
    try new.wait(for: "Once more: ")
    // A slip, taken back.
    new.type("corrékt\u{7F}\u{7F}\u{7F}ect horse\r")
    try new.wait(for: "Welcome, carol: you are new here.")
    new.type("QUIT\r")
    #expect(new.end() == 0)
    #expect(!new.transcript.contains("corr") && !new.transcript.contains("short\r"))

    // The login was saved: nobody is asked.
    let again = try cluster.terminal("post", "carol", "hello")
    #expect(again.end() == 0)
    #expect(!again.transcript.contains("Password"))

    // Another one, for everybody else who has the old one.
    let change = try cluster.terminal("passwd", "carol")
    try change.wait(for: "Old password of carol: ")
    change.type(secret + "\r")
    try change.wait(for: "New password of carol: ")
    change.type("battery staple\r")
    try change.wait(for: "Once more: ")
    change.type("battery staple\r")
    try change.wait(for: "carol has a new password")
    #expect(change.end() == 0)
    #expect(!change.transcript.contains("battery"))
    #expect(try cluster.terminal("post", "carol", "still in").end() == 0)

    #expect(try cluster.terminal("logout", "carol").end() == 0)
    let out = try cluster.terminal("post", "carol", "hello")
    try out.wait(for: "Password of carol: ")
    out.type("\u{3}")
    try out.wait(for: "no password was given")
    #expect(out.end() == 130)
    #expect(out.isRestored)
  }

  @Test func aScriptSeesItsOwnPosts() throws {
    let cluster = try TestCluster()
    try cluster.run("client", "bob")
    let session = try cluster.run(
      "client", "alice", input: "FOLLOW bob\nTIMELINE\nhello\n/back\nLIST\nQUIT\n")
    #expect(session.status == 0)
    let lines = session.output.split(separator: "\n")
    #expect(lines.count == 6)
    #expect(lines.first == "you follow bob now")
    #expect(lines.dropFirst().first?.hasSuffix("  alice: hello") == true)
    #expect(lines.dropFirst(2) == ["All users (2):", "  bob", "  alice", "Your followers: none"])
    #expect(!session.output.contains("\u{1B}"))

    let last = try cluster.run("client", "alice", input: "TIMELINE\nlast words")
    #expect(last.output.hasSuffix("  alice: last words\n"))
    let failed = try cluster.run("client", "alice", input: "FOLLOW nobody\ndance\nLIST\n")
    #expect(failed.status == 1)
    #expect(failed.output.split(separator: "\n").prefix(2).allSatisfy { $0.hasPrefix("error: ") })
  }
}
