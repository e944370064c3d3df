// What the verifier knows: who asked what, what was acknowledged, what each watcher saw. And the verdict from it.

import Foundation
import Model
import Runtime

/// Records a run. Many threads write, so everything is behind one lock.
///
/// `@unchecked Sendable`: all state is behind the lock.
final class Ledger: @unchecked Sendable {
  struct Watch {
    var user: String
    /// Everything shown, in the order shown.
    var shown: [Post] = []
  }

  private let lock = NSLock()
  /// Acknowledged posts: text → id. Texts are unique.
  private var acknowledged: [String: EventID] = [:]
  /// Posts whose outcome is unknown: they may be there, once.
  private var unknown: Set<String> = []
  /// When posts were acknowledged: for pauses.
  private var acknowledgements: [Instant] = []
  private var watches: [Watch] = []
  private(set) var slowest = Interval.zero

  func acknowledge(_ text: String, as id: EventID, asked: Instant) {
    let now = Clock.now()
    lock.withLock {
      acknowledged[text] = id
      acknowledgements.append(now)
      slowest = max(slowest, now - asked)
    }
  }

  func lose(_ text: String) { lock.withLock { _ = unknown.insert(text) } }

  func addWatch(of user: String) -> Int {
    lock.withLock {
      watches.append(Watch(user: user))
      return watches.count - 1
    }
  }

  func show(_ posts: [Post], at watch: Int) { lock.withLock { watches[watch].shown += posts } }

  var counts: (acknowledged: Int, delivered: Int, unknown: Int) {
    lock.withLock { (acknowledged.count, watches.reduce(0) { $0 + $1.shown.count }, unknown.count) }
  }

  /// The time without an acknowledgement around an instant: from the last one before it to the first one after it.
  func pause(around instant: Instant) -> Interval? {
    lock.withLock {
      var low = 0
      var high = acknowledgements.count
      while low < high {
        let middle = (low + high) / 2
        if acknowledgements[middle] <= instant { low = middle + 1 } else { high = middle }
      }
      guard low > 0, low < acknowledgements.count else { return nil }
      return acknowledgements[low] - acknowledgements[low - 1]
    }
  }

  /// Whether every watcher has seen the newest acknowledged post of everybody in its timeline.
  func isComplete(_ graph: VerifyGraph) -> Bool {
    lock.withLock {
      let owed = owed(graph)
      return watches.allSatisfy { watch in
        watch.shown.count >= (owed[watch.user]?.count ?? 0)
      }
    }
  }

  /// For each user, the acknowledged posts of its timeline.
  private func owed(_ graph: VerifyGraph) -> [String: Set<String>] {
    var byAuthor: [Substring: [String]] = [:]
    for text in acknowledged.keys { byAuthor[text.prefix { $0 != " " }, default: []].append(text) }
    var owed: [String: Set<String>] = [:]
    for user in Set(watches.map(\.user)) {
      var texts: Set<String> = []
      for author in graph.timeline(of: user) { texts.formUnion(byAuthor[author[...], default: []]) }
      owed[user] = texts
    }
    return owed
  }

  /// Judges the run, given what the log has in the end: each user's whole timeline, read back.
  func judge(_ graph: VerifyGraph, stored: [String: [Post]]) -> Verdict {
    lock.withLock {
      var verdict = Verdict()
      verdict.acknowledged = acknowledged.count
      verdict.unanswered = unknown.count
      let owed = owed(graph)
      var all: [EventID: Post] = [:]
      for posts in stored.values { for post in posts { all[post.id] = post } }
      var idsByText: [String: Set<EventID>] = [:]
      for post in all.values { idsByText[post.text, default: []].insert(post.id) }

      // Durable, and once: each acknowledged post is in the log under the id that was told.
      for (text, id) in acknowledged.sorted(by: { $0.value < $1.value }) where idsByText[text]?.contains(id) != true {
        verdict.lost += 1
        verdict.note("acknowledged post \(id) \"\(text)\" is not in the log")
      }
      for (text, ids) in idsByText where ids.count > 1 {
        verdict.duplicated += 1
        verdict.note("post \"\(text)\" is in the log \(ids.count) times: \(ids.sorted())")
      }
      // Each watcher saw what it was owed, once, in order.
      for watch in watches {
        verdict.delivered += watch.shown.count
        var seen: Set<EventID> = []
        var last = EventID.zero
        for post in watch.shown {
          if !seen.insert(post.id).inserted {
            verdict.duplicated += 1
            verdict.note("\(watch.user) was shown post \(post.id) twice")
          } else if post.id < last {
            verdict.outOfOrder += 1
            verdict.note("\(watch.user) was shown post \(post.id) after \(last)")
          }
          last = max(last, post.id)
        }
        let texts = Set(watch.shown.map(\.text))
        for text in owed[watch.user, default: []].subtracting(texts).sorted() {
          verdict.lost += 1
          verdict.note("\(watch.user) was never shown post \(acknowledged[text]!) \"\(text)\"")
        }
        if let posts = stored[watch.user], posts.map(\.id) != watch.shown.map(\.id) {
          verdict.wrongTimelines += 1
          verdict.note("what \(watch.user) was shown (\(watch.shown.count)) is not its timeline (\(posts.count))")
        }
      }
      return verdict
    }
  }
}

/// The result of a run.
struct Verdict {
  var acknowledged = 0
  var delivered = 0
  /// Requests that ended without an answer; they may have taken effect, once.
  var unanswered = 0
  var lost = 0
  var duplicated = 0
  var outOfOrder = 0
  var wrongTimelines = 0
  var falseRespawns = 0
  /// What else is wrong, and the first findings of each kind.
  var findings: [String] = []
  var otherViolations = 0

  mutating func note(_ finding: String) { if findings.count < 50 { findings.append(finding) } }

  mutating func violate(_ finding: String) {
    otherViolations += 1
    note(finding)
  }

  var isGood: Bool {
    lost == 0 && duplicated == 0 && outOfOrder == 0 && wrongTimelines == 0 && falseRespawns == 0 && otherViolations == 0
  }
}

/// Who follows whom during a run.
struct VerifyGraph: Sendable {
  var users: [String]
  var following: [String: [String]]

  /// The authors of a user's home timeline.
  func timeline(of user: String) -> [String] { following[user, default: []] + [user] }

  /// `count` users; everybody follows a few, and most follow the stars.
  static func generated(_ count: Int, using random: inout RandomSource) -> VerifyGraph {
    let users = (0..<count).map { "user\($0)" }
    var following: [String: [String]] = [:]
    for (index, user) in users.enumerated() {
      var followed: Set<Int> = []
      for star in 0..<max(1, count / 10) where star != index && Int.random(in: 0..<10, using: &random) < 7 {
        followed.insert(star)
      }
      for _ in 0..<3 { followed.insert(Int.random(in: 0..<count, using: &random)) }
      followed.remove(index)
      following[user] = followed.sorted().map { users[$0] }
    }
    return VerifyGraph(users: users, following: following)
  }

  /// From a file with a friendship a line, two numbers each: both follow each other.
  static func read(_ path: String) throws -> VerifyGraph {
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { throw Failure("can't read \(path)") }
    var following: [String: Set<String>] = [:]
    for (index, line) in text.split(separator: "\n").enumerated() where !line.hasPrefix("#") {
      let pair = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
      guard pair.count == 2, let left = Int(pair[0]), let right = Int(pair[1]) else {
        throw Failure("\(path):\(index + 1): expected two numbers")
      }
      if left == right { continue }
      following["user\(left)", default: []].insert("user\(right)")
      following["user\(right)", default: []].insert("user\(left)")
    }
    return VerifyGraph(users: following.keys.sorted(), following: following.mapValues { $0.sorted() })
  }
}
