// `tinysns client` at a terminal.

import Core
import Foundation
import Model
import Synchronization
import TerminalText
import TinySNSClient

/// A person's session: types lines, which are carried out one after the other while the prompt stays free.
final class InteractiveSession: Sendable {
  private struct State {
    var mode = CommandRunner.Mode.commands
    var names: [String] = []
    var refreshNames: (@Sendable () async throws -> [String])?
    var teller = NoteTeller()
    var interrupts = 0
    /// The process ends already, with a status of its own.
    var isLeaving = false
  }

  private let user: String
  private let editor: LineEditor
  private let state: StateBox

  /// What the editor's thread and the requests share.
  private final class StateBox: Sendable {
    let state = Mutex(State())

    /// All users' names, as new as can be had in the time that a key press may take.
    func names() -> [String] {
      if let refresh = state.withLock({ $0.refreshNames }) {
        let done = DispatchSemaphore(value: 0)
        Task {
          if let names = try? await refresh() { state.withLock { $0.names = names } }
          done.signal()
        }
        _ = done.wait(timeout: .now() + .milliseconds(200))
      }
      return state.withLock { $0.names }
    }
  }

  /// To be made in the main thread before there are others.
  init(user: String) throws(Failure) {
    let state = StateBox()
    self.user = user
    self.state = state
    editor = try LineEditor(prompt: Self.prompt(user, .commands), historyFile: HistoryFile(user: user)) { line in
      switch state.state.withLock({ $0.mode }) {
      case .commands: Completion(command: line, names: Completion.needsNames(line) ? state.names() : [])
      case .timeline: Completion(timeline: line)
      }
    }
  }

  private static func prompt(_ user: String, _ mode: CommandRunner.Mode) -> LineEditor.Prompt {
    switch mode {
    case .commands: LineEditor.Prompt(text: "\(user)> ")
    // A post comes back with the timeline.
    case .timeline: LineEditor.Prompt(text: "\(user) (timeline)> ", keepsLines: false)
    }
  }

  /// Tells the user what the client tells. From any thread.
  func tell(_ note: TinySNSClient.Note) {
    if let line = state.state.withLock({ $0.teller.line(for: note, user: user) }) { editor.print(Terminal.dim(line)) }
  }

  /// Returns when the user leaves; the terminal has been given back.
  func run(_ client: TinySNSClient, timeout: Duration) async throws {
    do {
      try await converse(client, timeout)
    } catch {
      // What fails because the client is being closed is no news.
      while state.state.withLock({ $0.isLeaving }) { try? await Task.sleep(for: .seconds(60)) }
      throw error
    }
  }

  private func converse(_ client: TinySNSClient, _ timeout: Duration) async throws {
    let (events, continuation) = AsyncStream.makeStream(of: LineEditor.Event.self)
    editor.start { [self] event in onEvent(event, client, continuation) }
    defer { editor.stop() }
    try await client.ready(timeout: timeout)
    let runner = CommandRunner(client: client, timeout: timeout) { [self] in show($0) }
    state.state.withLock { $0.refreshNames = { try await client.list(.users, timeout: timeout) } }
    for await event in events {
      switch event {
      case .line(let line):
        let waiting = Task { [editor] in
          try await Task.sleep(for: Self.patience)
          editor.print(Terminal.dim("waiting for an answer: \(SafeText.visible(line))"))
        }
        defer { waiting.cancel() }
        if try await !runner.handle(line) { return }
      case .endOfInput: if await !runner.handleEndOfInput() { return }
      case .interrupt, .gone: return
      }
    }
  }

  /// After this time without an answer a line says what it is that is waited for.
  private static let patience = Duration.milliseconds(500)

  private func onEvent(
    _ event: LineEditor.Event, _ client: TinySNSClient, _ events: AsyncStream<LineEditor.Event>.Continuation
  ) {
    let interrupts = state.state.withLock { state in
      state.interrupts = event == .interrupt(discarded: false) ? state.interrupts + 1 : 0
      return state.interrupts
    }
    switch event {
    case .line, .endOfInput: events.yield(event)
    case .interrupt:
      if interrupts == 1 { editor.print(Terminal.dim("Ctrl-D or QUIT leaves; Ctrl-C once more, too")) }
      if interrupts > 1 { leave(client, ExitStatus.done) }
    case .gone(let signal): leave(client, signal == 0 ? ExitStatus.done : 128 + signal)
    }
  }

  /// Ends the process, whatever is still waited for.
  private func leave(_ client: TinySNSClient, _ status: Int32) {
    state.state.withLock { $0.isLeaving = true }
    Task { [editor] in
      editor.stop()
      await client.close()
      exit(status)
    }
  }

  private func show(_ output: CommandRunner.Output) {
    switch output {
    case .text(let text): editor.print(text)
    case .failure(let message): editor.print(Terminal.coloured("error: ", 31) + SafeText.visible(message))
    case .users(let users, let followers):
      editor.print(Listing.lines(users: users, followers: followers).joined(separator: "\n"))
    case .posts(let posts):
      if !posts.isEmpty { editor.print(posts.map(PostLine.text).joined(separator: "\n")) }
    case .mode(let mode):
      state.state.withLock { $0.mode = mode }
      if mode == .timeline { editor.print(Terminal.dim("Each line you type is a post now; /back or Ctrl-D returns.")) }
      editor.setPrompt(Self.prompt(user, mode))
    }
  }
}

/// What a person is told of the client's notes: one line a change.
struct NoteTeller {
  private var isWaiting = false

  mutating func line(for note: TinySNSClient.Note, user: String) -> String? {
    switch note {
    case .serving(_, let isNew, nil):
      isWaiting = false
      return (isNew ? "Welcome, \(user): you are new here." : "Welcome back, \(user).") + " Type HELP for the commands."
    case .serving:
      isWaiting = false
      return note.text
    case .waiting:
      defer { isWaiting = true }
      return isWaiting ? nil : "no master is available; trying again until there is one"
    case .routerNotProved, .tooManyConnections: return note.text
    case .lost, .loginRefused: return nil
    }
  }
}
