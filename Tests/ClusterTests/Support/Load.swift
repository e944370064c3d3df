// Traffic while things break, and what must hold for it afterwards.

import Foundation
import Model
import Synchronization
import Testing
import TinySNSClient

/// Posts numbered texts, one after the other, until told to stop.
final class Poster: Sendable {
  struct Acknowledged: Hashable, Sendable {
    var id: UInt64
    var text: String
  }

  private struct Record {
    var acknowledged: [Acknowledged] = []
    var notes: [TinySNSClient.Note] = []
    var isStopping = false
  }

  private let record: Box
  private let task: Task<Void, any Error>

  private final class Box: Sendable {
    let state = Mutex(Record())
  }

  init(_ cluster: Cluster, as user: String, prefix: String = "n", pause: Duration = .milliseconds(5)) throws {
    let record = Box()
    self.record = record
    let client = try TinySNSClient(
      router: cluster.router, serverKey: cluster.serverKey, user: user, password: Password(Cluster.password),
      onNote: { note in record.state.withLock { $0.notes.append(note) } })
    task = Task {
      var number = 0
      while !record.state.withLock({ $0.isStopping }) {
        number += 1
        let text = "\(prefix)-\(number)"
        let id = try await client.post(text, timeout: .seconds(60)).rawValue
        record.state.withLock { $0.acknowledged.append(Acknowledged(id: id, text: text)) }
        try await Task.sleep(for: pause)
      }
      await client.close()
    }
  }

  var acknowledged: [Acknowledged] { record.state.withLock { $0.acknowledged } }
  var count: Int { record.state.withLock { $0.acknowledged.count } }
  var notes: [TinySNSClient.Note] { record.state.withLock { $0.notes } }
  /// How often it had to move to another master.
  var losses: Int {
    notes.count { if case .lost = $0 { true } else { false } }
  }

  /// Waits until so many more posts are acknowledged.
  func goOn(_ posts: Int = 10) async throws {
    let target = count + posts
    try await eventually("\(posts) more posts are acknowledged") { count >= target || task.isCancelled }
  }

  /// Finishes the post under way. Throws if any post failed.
  @discardableResult
  func stop() async throws -> [Acknowledged] {
    record.state.withLock { $0.isStopping = true }
    try await task.value
    return acknowledged
  }
}

/// A `timeline --follow --json` that runs.
final class Watcher: Sendable {
  private let command: Command

  init(_ cluster: Cluster, of user: String) throws {
    command = try cluster.begin(["timeline", user, "--follow", "--json", "--limit", "0"])
  }

  /// What it has shown so far.
  func posts() throws -> [ShownPost] { try command.lines.map { try ShownPost(json: $0) } }

  /// Waits until it shows what is posted now.
  func live(_ cluster: Cluster, author: String) async throws {
    try await eventually("\(author)'s posts arrive live") {
      try await cluster.post(author, "are you there?")
      return try !posts().isEmpty
    }
  }

  /// Every post acknowledged by then has been shown exactly once and in order, and nothing else but calls before.
  func expectExactly(_ acknowledged: [Poster.Acknowledged], sourceLocation: SourceLocation = #_sourceLocation)
    async throws
  {
    let wanted = acknowledged.sorted { $0.id < $1.id }
    let last = try #require(wanted.last, sourceLocation: sourceLocation)
    try await eventually("the last post is shown") { try posts().contains { $0.id >= last.id } }
    let all = try posts()
    #expect(zip(all, all.dropFirst()).allSatisfy { $0.id < $1.id }, "not ascending", sourceLocation: sourceLocation)
    let shown = all.filter { $0.text != "are you there?" }.map { Poster.Acknowledged(id: $0.id, text: $0.text) }
    let lost = Set(wanted).subtracting(shown)
    let others = Set(shown).subtracting(wanted)
    #expect(lost.isEmpty && others.isEmpty, "lost \(lost), unexpected \(others)", sourceLocation: sourceLocation)
    #expect(shown.count == wanted.count, "shown twice", sourceLocation: sourceLocation)
    #expect(Set(wanted.map(\.text)).count == wanted.count, "posted twice", sourceLocation: sourceLocation)
  }
}
