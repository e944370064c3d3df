// `tinysns client`: a person's session, or a script's.

import ArgumentParser
import Foundation
import Model
import TerminalText
import TinySNSClient

struct ClientCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "client",
    abstract: "Log in as a user, or register a new name. Interactive, or with commands from standard input.",
    discussion: """
      A person is asked for the password. A script gives it with --password-file FILE or TINYSNS_PASSWORD, and a new name is \
      registered with it. Commands:

      """ + ClientLine.helpText)
  @Argument(help: "Your name.") var user: String
  @OptionGroup var session: SessionOptions

  func run() throws {
    if Terminal.isInteractive { try runInteractive() } else { try runScript() }
  }

  private func runInteractive() throws {
    let terminal = try InteractiveSession(user: user)
    Main.run { [user, session] in
      let client = try await session.logIn(user, register: true) { terminal.tell($0) }
      try await terminal.run(client, timeout: session.duration)
      await client.close()
    }
  }

  private func runScript() throws {
    StandardOutput.endWhenUnread()
    Main.run { [user, session] in
      let client = try await session.logIn(user, register: true) { note in
        if let text = note.text { Terminal.write(text + "\n", to: STDERR_FILENO) }
      }
      try await client.ready(timeout: session.duration)
      let succeeded = try await ScriptedSession(client: client, timeout: session.duration).run(
        lines: StandardInput.lines())
      await client.close()
      if !succeeded { throw Failure("some commands failed") }
    }
  }
}

/// Lines of standard input, read on a thread of their own.
enum StandardInput {
  enum Line: Sendable {
    case text(String)
    case notUTF8
  }

  static func lines() -> AsyncStream<Line> {
    AsyncStream { continuation in
      Thread.detachNewThread {
        let input = fdopen(STDIN_FILENO, "r")!
        var line: UnsafeMutablePointer<CChar>?
        var capacity = 0
        while true {
          let count = getline(&line, &capacity, input)
          if count < 0 { break }
          var bytes = UnsafeRawBufferPointer(start: line, count: count)[...]
          if bytes.last == UInt8(ascii: "\n") { bytes = bytes.dropLast() }
          if bytes.last == UInt8(ascii: "\r") { bytes = bytes.dropLast() }
          continuation.yield(String(validating: bytes, as: UTF8.self).map(Line.text) ?? .notUTF8)
        }
        free(line)
        continuation.finish()
      }
    }
  }
}

/// Carries out lines from a script, one after the other; answers go to standard output as plain text.
struct ScriptedSession {
  private let runner: CommandRunner

  init(client: TinySNSClient, timeout: Duration) {
    runner = CommandRunner(client: client, timeout: timeout) { output in
      switch output {
      case .text(let text): Terminal.print(text)
      case .users(let users, let followers):
        for line in Listing.lines(users: users, followers: followers) { Terminal.print(line) }
      case .posts(let posts): for post in posts { Terminal.print(PostLine.text(post)) }
      case .failure(let message): Terminal.print("error: \(message)")
      case .mode: break
      }
    }
  }

  /// Returns whether all lines succeeded.
  func run(lines: AsyncStream<StandardInput.Line>) async throws -> Bool {
    reading: for await line in lines {
      switch line {
      case .notUTF8: await runner.fail("the line is not valid UTF-8")
      case .text(let text): if try await !runner.handle(text) { break reading }
      }
    }
    while await runner.handleEndOfInput() {}
    return await !runner.hasFailed
  }
}
