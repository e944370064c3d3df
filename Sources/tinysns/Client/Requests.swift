// One request from the command line: post, follow, unfollow, list.

import ArgumentParser
import Core
import Foundation
import Model
import TinySNSClient

struct PostCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "post", abstract: "Post a text; prints the post's id once it is on disk.")
  @Argument(help: "Who posts.") var user: String
  @Argument(help: "The text, up to \(Limits.postBytes) bytes.") var text: String
  @OptionGroup var session: SessionOptions

  func run() throws {
    if let fault = TextRules.fault(inPost: text) { throw Failure("the post is refused: \(fault.explanation)") }
    Main.run { [user, text, session] in
      let client = try await session.logIn(user)
      let id = try await client.post(text, timeout: session.duration)
      await client.close()
      Terminal.print("\(id)")
    }
  }
}

struct Follow: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Follow a user.")
  @Argument(help: "Who follows.") var user: String
  @Argument(help: "Whom.") var target: String
  @OptionGroup var session: SessionOptions

  func run() throws {
    Main.run { [user, target, session] in
      let client = try await session.logIn(user)
      try await client.follow(target, timeout: session.duration)
      await client.close()
      Terminal.print("\(user) follows \(target)")
    }
  }
}

struct Unfollow: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Stop following a user.")
  @Argument(help: "Who no longer follows.") var user: String
  @Argument(help: "Whom.") var target: String
  @OptionGroup var session: SessionOptions

  func run() throws {
    Main.run { [user, target, session] in
      let client = try await session.logIn(user)
      try await client.unfollow(target, timeout: session.duration)
      await client.close()
      Terminal.print("\(user) no longer follows \(target)")
    }
  }
}

struct List: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List all users, and who follows the user.")
  @Argument(help: "Whose followers.") var user: String
  @Flag(help: "Print one JSON object: {\"users\", \"followers\"}.") var json = false
  @OptionGroup var session: SessionOptions

  func run() throws {
    Main.run { [user, json, session] in
      let client = try await session.logIn(user)
      let users = try await client.list(.users, timeout: session.duration)
      let followers = try await client.list(.followers, timeout: session.duration)
      await client.close()
      if json {
        Terminal.print(JSON.line(["users": users, "followers": followers]))
      } else {
        for line in Listing.lines(users: users, followers: followers) { Terminal.print(line) }
      }
    }
  }
}

/// How LIST is shown.
enum Listing {
  static func lines(users: [String], followers: [String]) -> [String] {
    ["All users (\(users.count)):"] + users.map { "  \($0)" }
      + (followers.isEmpty ? ["Your followers: none"] : ["Your followers (\(followers.count)):"])
      + followers.map { "  \($0)" }
  }
}

/// JSON for scripts: one line a value.
enum JSON {
  static func line(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    return String(decoding: try! encoder.encode(value), as: UTF8.self)
  }
}
