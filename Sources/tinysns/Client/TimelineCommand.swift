// `tinysns timeline`.

import ArgumentParser
import Core
import Foundation
import Model
import Runtime
import TerminalText
import TinySNSClient

struct Timeline: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show the newest posts of a user's timeline, oldest first; with --follow go on live.",
    discussion:
      "A timeline has the user's own posts and those of everyone followed, each once and in order, over any failover.")
  @Argument(help: "Whose timeline.") var user: String
  @Option(help: "How many posts.") var limit = 20
  @Flag(help: "Go on with new posts as they come.") var follow = false
  @Flag(help: "A JSON object a post and line: {\"id\", \"author\", \"text\", \"created_at\"}.") var json = false
  @OptionGroup var session: SessionOptions

  func validate() throws {
    guard (0...100_000).contains(limit) else { throw ValidationError("--limit takes 0 to 100000 posts") }
  }

  func run() throws {
    StandardOutput.endWhenUnread()
    let showsNotes = follow && !json && isatty(STDERR_FILENO) == 1
    Main.run { [self] in
      let client = try await session.logIn(user) { note in
        if showsNotes, let text = note.text { Terminal.write(Terminal.dim(text) + "\n", to: STDERR_FILENO) }
      }
      let (posts, upTo) = try await client.newest(limit, timeout: session.duration)
      for post in posts { show(post) }
      if follow {
        for try await posts in client.watch(.home, after: upTo) { for post in posts { show(post) } }
      }
      await client.close()
    }
  }

  private func show(_ post: Post) {
    Terminal.print(json ? PostLine.json(post) : PostLine.text(post))
  }
}

extension TinySNSClient {
  /// The newest `limit` posts of the home timeline, oldest first, in as many pages as it takes; and the log position from which
  /// to go on.
  func newest(_ limit: Int, timeout: Duration) async throws(ClientError) -> (posts: [Post], upTo: EventID) {
    let first = try await timeline(
      .home, range: .newest, limit: max(1, min(limit, Limits.newestPerAuthor)), timeout: timeout)
    var posts = limit == 0 ? [] : first.posts
    var more = first.more
    while more, posts.count < limit, let oldest = posts.first {
      let page = try await timeline(
        .home, range: .before(oldest.id), limit: min(limit - posts.count, Limits.pagePosts), timeout: timeout)
      posts = page.posts + posts
      more = page.more && !page.posts.isEmpty
    }
    return (posts, first.upTo)
  }
}

/// How a post is shown.
enum PostLine {
  private struct Fields: Codable {
    var id: UInt64
    var author: String
    var text: String
    var created_at: String
  }

  static func json(_ post: Post) -> String {
    JSON.line(
      Fields(id: post.id.rawValue, author: post.author, text: post.text, created_at: Times.utc(post.time)))
  }

  /// A post from its line, as `json` makes it (but for its time); nil if it is none.
  static func parse(_ line: some DataProtocol) -> Post? {
    guard let fields = try? JSONDecoder().decode(Fields.self, from: Data(line)) else { return nil }
    return Post(id: EventID(fields.id), author: fields.author, text: fields.text, time: .zero)
  }

  static func text(_ post: Post) -> String {
    let text = Terminal.isShown ? SafeText.visible(post.text) : post.text
    return "\(Terminal.dim(Times.local(post.time)))  \(Terminal.bold(post.author)): \(text)"
  }
}

/// Times as people and programs read them.
enum Times {
  /// `2026-02-03T04:05:06.789Z`.
  static func utc(_ time: Timestamp) -> String {
    var seconds = time_t(time.milliseconds / 1_000)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    return date(parts) + "T" + clock(parts) + "." + digits(Int(time.milliseconds % 1_000), 3) + "Z"
  }

  /// Local time; with the date unless it is today.
  static func local(_ time: Timestamp) -> String {
    var seconds = time_t(time.milliseconds / 1_000)
    var parts = tm()
    localtime_r(&seconds, &parts)
    var now = Foundation.time(nil)
    var today = tm()
    localtime_r(&now, &today)
    let isToday = parts.tm_year == today.tm_year && parts.tm_yday == today.tm_yday
    return isToday ? clock(parts) : "\(date(parts)) \(clock(parts))"
  }

  private static func date(_ parts: tm) -> String {
    "\(digits(Int(parts.tm_year) + 1900, 4))-\(digits(Int(parts.tm_mon) + 1, 2))-\(digits(Int(parts.tm_mday), 2))"
  }

  private static func clock(_ parts: tm) -> String {
    "\(digits(Int(parts.tm_hour), 2)):\(digits(Int(parts.tm_min), 2)):\(digits(Int(parts.tm_sec), 2))"
  }

  private static func digits(_ number: Int, _ width: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, width - text.count)) + text
  }
}

/// Standard output as a pipe that may lose its reader.
enum StandardOutput {
  /// Ends the process, quietly, as soon as nobody reads its output any more, also while there is nothing to write.
  static func endWhenUnread() {
    _ = WorkerThread {
      var item = pollfd(fd: STDOUT_FILENO, events: 0, revents: 0)
      while true {
        item.revents = 0
        if poll(&item, 1, -1) < 0, errno == EINTR { continue }
        if item.revents & Int16(POLLERR) != 0 { exit(ExitStatus.done) }
        return  // a file or a terminal: nothing to wait for
      }
    }
  }
}

extension TinySNSClient.Note {
  /// For the user, in one line; nil for what is no news.
  var text: String? {
    switch self {
    case .lost(let master, let cause): return "lost \(master): \(cause.rawValue)"
    case .serving(_, _, nil): return nil
    case .serving(let master, _, let pause?): return "\(master) serves you now, after \(pause.milliseconds) ms"
    case .waiting(let interval):
      return "no master is available; trying again in \(max(1, interval.milliseconds / 1_000)) s"
    case .loginRefused: return nil
    case .routerNotProved:
      return "the router does not have the key that it should have: either --server-key is wrong, or it is another's"
    case .tooManyConnections:
      return "the router has too many connections from this address, and refuses more; trying again"
    }
  }
}
