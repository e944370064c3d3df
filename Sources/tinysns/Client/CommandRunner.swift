// Carries out what is typed into the client, whoever types: a person or a script.

import Foundation
import Model
import TerminalText
import TinySNSClient

/// Carries out lines, one after the other, and says what there is to show. In the timeline, posts come by themselves.
actor CommandRunner {
  enum Mode: Sendable { case commands, timeline }

  enum Output: Sendable {
    case text(String)
    case users([String], followers: [String])
    case posts([Post])
    case failure(String)
    case mode(Mode)
  }

  private let client: TinySNSClient
  private let timeout: Duration
  private let show: @Sendable (Output) -> Void
  private var timeline: Task<Void, Never>?
  private var lastPosted = EventID.zero
  private var lastShown = EventID.zero
  /// Whether any line failed.
  private(set) var hasFailed = false

  init(client: TinySNSClient, timeout: Duration, show: @escaping @Sendable (Output) -> Void) {
    self.client = client
    self.timeout = timeout
    self.show = show
  }

  /// Carries out a line. Returns whether to go on. Throws what makes all further requests useless.
  func handle(_ line: String) async throws(ClientError) -> Bool {
    if timeline == nil { return try await carryOut(ClientLine(parsing: line)) }
    if line.trimmingPrefix(while: { $0 == " " }).isEmpty { return true }
    if line == "/back" || line.hasPrefix("/back ") && line.allSatisfy({ "/back ".contains($0) }) {
      await leaveTimeline()
    } else {
      await attempt { () async throws(ClientError) in lastPosted = try await client.post(line, timeout: timeout) }
    }
    return try goOn()
  }

  /// An end of input: back to the commands, or the end. Returns whether to go on.
  func handleEndOfInput() async -> Bool {
    guard timeline != nil else { return false }
    await leaveTimeline()
    return true
  }

  func fail(_ message: String) {
    hasFailed = true
    show(.failure(message))
  }

  private var fatal: ClientError?

  private func goOn() throws(ClientError) -> Bool {
    if let fatal { throw fatal }
    return true
  }

  private func carryOut(_ line: ClientLine) async throws(ClientError) -> Bool {
    switch line {
    case .empty: break
    case .help: show(.text(ClientLine.helpText))
    case .quit: return false
    case .wrong(let message): fail(message)
    case .follow(let name):
      await attempt { () async throws(ClientError) in
        try await client.follow(name, timeout: timeout)
        show(.text("you follow \(name) now"))
      }
    case .unfollow(let name):
      await attempt { () async throws(ClientError) in
        try await client.unfollow(name, timeout: timeout)
        show(.text("you no longer follow \(name)"))
      }
    case .post(let text):
      await attempt { () async throws(ClientError) in
        show(.text("posted as \(try await client.post(text, timeout: timeout))"))
      }
    case .list:
      await attempt { () async throws(ClientError) in
        let users = try await client.list(.users, timeout: timeout)
        let followers = try await client.list(.followers, timeout: timeout)
        show(.users(users, followers: followers))
      }
    case .timeline: await attempt { () async throws(ClientError) in try await enterTimeline() }
    }
    return try goOn()
  }

  /// Carries out a request, and says what went wrong, if something did.
  private func attempt(_ request: () async throws(ClientError) -> Void) async {
    do {
      try await request()
    } catch {
      switch error {
      case .refused, .timedOut: fail(error.description)
      case .loginRefused, .closed, .failed: fatal = error
      }
    }
  }

  // MARK: The timeline

  private func enterTimeline() async throws(ClientError) {
    let (posts, upTo) = try await client.newest(Limits.newestPerAuthor, timeout: timeout)
    show(.mode(.timeline))
    show(.posts(posts))
    lastShown = upTo
    lastPosted = .zero
    timeline = Task { [client, weak self] in
      do {
        for try await posts in client.watch(.home, after: upTo) { await self?.showLive(posts) }
      } catch {
        await self?.fail(Failure(error).message)
      }
    }
  }

  private func showLive(_ posts: [Post]) {
    guard timeline != nil, let last = posts.last else { return }
    show(.posts(posts))
    lastShown = max(lastShown, last.id)
  }

  /// What this session posted has been acknowledged, so it will come; a script's last words are not to be missing from its timeline.
  private func leaveTimeline() async {
    let deadline = ContinuousClock.now + Self.lastPostsWait
    while lastShown < lastPosted, ContinuousClock.now < deadline {
      try? await Task.sleep(for: .milliseconds(5))
    }
    timeline?.cancel()
    timeline = nil
    show(.mode(.commands))
  }

  private static let lastPostsWait = Duration.seconds(2)
}
