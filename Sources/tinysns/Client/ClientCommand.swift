// `tinysns client`: a person's session, or a script's.

import ArgumentParser
import Foundation
import Model
import TinySNSClient

struct ClientCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "client",
    abstract: "Log in as a user; a new name is registered. Interactive, or with commands from standard input.",
    discussion: "Commands:\n\n" + ClientLine.helpText)
  @Argument(help: "Your name.") var user: String
  @OptionGroup var session: SessionOptions

  func run() throws {
    StandardOutput.endWhenUnread()
    let (client, _) = try session.open(user, register: true) { note in
      if let text = note.text { Terminal.write(text + "\n", to: STDERR_FILENO) }
    }
    Main.run { [self] in
      var script = ScriptedSession(client: client, timeout: session.duration)
      try await client.ready(timeout: session.duration)
      try await script.run(lines: StandardInput.lines())
      await client.close()
      if script.hasFailed { throw Failure("some commands failed") }
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
  let client: TinySNSClient
  let timeout: Duration
  private(set) var hasFailed = false
  private var timeline: Task<Void, Never>?

  init(client: TinySNSClient, timeout: Duration) {
    self.client = client
    self.timeout = timeout
  }

  mutating func run(lines: AsyncStream<StandardInput.Line>) async throws {
    defer { timeline?.cancel() }
    for await line in lines {
      switch line {
      case .notUTF8: fail("the line is not valid UTF-8")
      case .text(let text):
        if timeline != nil {
          try await handleInTimeline(text)
        } else if try await !handle(ClientLine(parsing: text)) {
          return
        }
      }
    }
  }

  private mutating func fail(_ message: String) {
    hasFailed = true
    Terminal.print("error: \(message)")
  }

  /// Returns whether to go on.
  private mutating func handle(_ line: ClientLine) async throws -> Bool {
    switch line {
    case .empty: break
    case .help: Terminal.print(ClientLine.helpText)
    case .quit: return false
    case .wrong(let message): fail(message)
    case .follow(let name): try await say { try await $0.follow(name, timeout: $1); return "you follow \(name) now" }
    case .unfollow(let name):
      try await say { try await $0.unfollow(name, timeout: $1); return "you no longer follow \(name)" }
    case .post(let text): try await say { "posted as \(try await $0.post(text, timeout: $1))" }
    case .list:
      try await say {
        let users = try await $0.list(.users, timeout: $1)
        let followers = try await $0.list(.followers, timeout: $1)
        return Listing.lines(users: users, followers: followers).joined(separator: "\n")
      }
    case .timeline:
      let (posts, upTo) = try await client.newest(Limits.newestPerAuthor, timeout: timeout)
      for post in posts { Terminal.print(PostLine.text(post)) }
      timeline = Task { [client] in
        do {
          for try await posts in client.watch(.home, after: upTo) {
            for post in posts { Terminal.print(PostLine.text(post)) }
          }
        } catch {
          Terminal.complain(Failure(error).message)
        }
      }
    }
    return true
  }

  private mutating func handleInTimeline(_ text: String) async throws {
    if text == "/back" {
      timeline?.cancel()
      timeline = nil
    } else if !text.isEmpty {
      try await say(quiet: true) { "posted as \(try await $0.post(text, timeout: $1))" }
    }
  }

  /// Carries out a request and says what came of it. Only what makes all further requests useless is thrown.
  private mutating func say(
    quiet: Bool = false, _ request: (TinySNSClient, Duration) async throws -> String
  ) async throws {
    do {
      let text = try await request(client, timeout)
      if !quiet { Terminal.print(text) }
    } catch let error as ClientError {
      switch error {
      case .refused, .timedOut(mayHaveHappened: _, hadMaster: true): fail(error.description)
      default: throw error
      }
    }
  }
}
