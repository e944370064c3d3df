// A demo client of `sh run.sh`: follows the others and posts now and then, through the real client.

import ArgumentParser
import Core
import Foundation
import Logging
import Model
import Node
import TinySNSClient
import Topology

struct Demo: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "A demo client: follows the topology's other clients, posts now and then, and shows its timeline.",
    shouldDisplay: false)
  @Argument(help: "The user.") var user: String
  @OptionGroup var topology: TopologyOption

  private static let texts = [
    "Good morning, everybody!", "Who is awake?", "Kill a master, and watch me not notice.", "Coffee first.",
    "It is on disk before you read this.", "What a fine day to be replicated.", "Lunch?", "Back again.",
    "Did anybody see what slave-3 did?", "Exactly once, as always.", "I could do this all day.", "Nothing lost so far.",
  ]

  func run() throws {
    let deployment = try topology.load()
    let name = Deployment.demo(user)
    let logger = Logger(label: name) { _ in ProcessLogHandler(name: name) }
    let lock = try NameLock(name, in: deployment.folder)
    let others = deployment.topology.clients.filter { $0 != user }
    let passwords = DemoPasswords(in: deployment.folder)
    let password = try passwords.makePassword(of: user)
    let client = try TinySNSClient(
      router: deployment.routerEndpoint, serverKey: deployment.serverKey(), user: user,
      password: password, register: true, timing: deployment.timing,
      onNote: { note in if let text = note.text { logger.info("\(text)") } })
    stopOnSignal(client)
    Task { [user] in
      do {
        do {
          try await Self.patiently { try await client.ready() }
        } catch ClientError.loginRefused(let refusal) where refusal.code == .credentials {
          // The account is somebody's, or of a log from before there were passwords.
          throw Failure(
            "\(user) has another password than the demo client, or none; "
              + "tinysns passwd \(user) --operator --new-password-file \(passwords.file(of: user))")
        }
        try await Self.live(client, user: user, others: others, logger: logger)
      } catch {
        logger.error("\(Failure(error).message)")
        Foundation.exit(ExitStatus.failed)
      }
    }
    Self.lock = consume lock
    dispatchMain()
  }

  private static func live(_ client: TinySNSClient, user: String, others: [String], logger: Logger) async throws {
    let watching = Task {
      let start = try await patiently { try await client.timeline(limit: 5) }
      for post in start.posts { logger.info("\(user)'s timeline: \(post.author): \(post.text)") }
      for try await posts in client.watch(after: start.upTo) {
        for post in posts { logger.info("\(user)'s timeline: \(post.author): \(post.text)") }
      }
    }
    var following: Set<String> = []
    var pause = Duration.seconds(Double.random(in: 1...3))
    while !watching.isCancelled {
      for other in others where !following.contains(other) {
        do {
          try await client.follow(other)
          following.insert(other)
        } catch ClientError.refused(let refusal) {
          // Somebody that has not come yet is followed later.
          if refusal.code == .alreadyExists { following.insert(other) }
        }
      }
      try await Task.sleep(for: pause)
      _ = try await patiently { try await client.post(texts.randomElement()!) }
      pause = .seconds(Double.random(in: 6...14))
    }
  }

  /// A demo goes on for as long as it takes a master to come.
  private static func patiently<Value>(_ request: () async throws -> Value) async throws -> Value {
    while true {
      do { return try await request() } catch ClientError.timedOut {}
    }
  }

  private func stopOnSignal(_ client: TinySNSClient) {
    for number in [SIGTERM, SIGINT] {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number)
      source.setEventHandler {
        Task {
          await client.close()
          Foundation.exit(ExitStatus.done)
        }
      }
      source.resume()
      Self.sources.append(source)
    }
  }

  /// Held for life.
  nonisolated(unsafe) private static var lock: NameLock?
  nonisolated(unsafe) private static var sources: [any DispatchSourceSignal] = []
}
