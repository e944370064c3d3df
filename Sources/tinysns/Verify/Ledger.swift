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
  /// Who began and ceased to follow whom during the run, by event, ascending.
  private var changes: [Relation: [(id: EventID, follows: Bool)]] = [:]
  /// Relations of which nobody knows what became of a change.
  private var doubtful: Set<Relation> = []
  private var newestOf: [String: EventID] = [:]
  /// What readers found wrong while it ran.
  private var readingFaults: [String] = []
  private var reads = 0
  private(set) var slowest = Interval.zero
  /// The same of answers with no failover in between: the time that a commit took, as the client sees it.
  private(set) var longestCommit = Interval.zero

  /// - Parameter isUndisturbed: whether the client had the same master all the time.
  func acknowledge(
    _ text: String, as id: EventID, asked: Instant, isUndisturbed: Bool, at now: Instant = Clock.now()
  ) {
    lock.withLock {
      acknowledged[text] = id
      let user = String(text.prefix { $0 != " " })
      newestOf[user] = max(id, newestOf[user] ?? .zero)
      acknowledgements.append(now)
      slowest = max(slowest, now - asked)
      if isUndisturbed { longestCommit = max(longestCommit, now - asked) }
    }
  }

  /// A follow (or its end) is on disk.
  func change(_ relation: Relation, follows: Bool, at id: EventID) {
    lock.withLock { changes[relation, default: []].append((id, follows)) }
  }

  /// Nobody knows whether a follow (or its end) took effect.
  func doubt(_ relation: Relation) { lock.withLock { _ = doubtful.insert(relation) } }

  func countRead() { lock.withLock { reads += 1 } }
  func blame(_ reading: String) { lock.withLock { readingFaults.append(reading) } }

  /// The newest acknowledged post of somebody.
  func newest(of user: String) -> EventID? { lock.withLock { newestOf[user] } }

  func lose(_ text: String) { lock.withLock { _ = unknown.insert(text) } }

  func addWatch(of user: String) -> Int {
    lock.withLock {
      watches.append(Watch(user: user))
      return watches.count - 1
    }
  }

  func show(_ posts: [Post], at watch: Int) { lock.withLock { watches[watch].shown += posts } }

  var counts: (acknowledged: Int, delivered: Int, unknown: Int, reads: Int, changes: Int) {
    lock.withLock {
      (
        acknowledged.count, watches.reduce(0) { $0 + $1.shown.count }, unknown.count, reads,
        changes.values.reduce(0) { $0 + $1.count }
      )
    }
  }

  /// Whom a user follows in the end beyond the graph.
  func followed(by user: String) -> (certain: Set<String>, doubtful: Set<String>) {
    lock.withLock { lockedFollowed(by: user) }
  }

  private func lockedFollowed(by user: String) -> (certain: Set<String>, doubtful: Set<String>) {
    let doubts = Set(doubtful.filter { $0.follower == user }.map(\.followed))
    let certain = changes.filter { $0.key.follower == user && $0.value.last?.follows == true }.map(\.key.followed)
    return (Set(certain).subtracting(doubts), doubts)
  }

  /// Whether a post at `id` may be shown (its author was followed there or later), and whether it must be (from there on always).
  private func follows(_ relation: Relation, at id: EventID) -> (may: Bool, must: Bool) {
    if doubtful.contains(relation) { return (true, false) }
    guard let changes = changes[relation] else { return (false, false) }
    let before = changes.last { $0.id < id }?.follows == true
    let after = changes.filter { $0.id > id }
    return (before || after.contains { $0.follows }, before && !after.contains { !$0.follows })
  }

  /// The longest time without an acknowledgement after a fault's instant: what goes on at the instant itself counts as a whole, and what begins
  /// later, because an answer that was under way came after the fault, up to `end`. What has gone on since before `former`, the fault before
  /// this one, is that one's; nil if it goes on beyond `end`.
  func pause(from instant: Instant, to end: Instant, former: Instant? = nil) -> Interval? {
    lock.withLock {
      var low = 0
      var high = acknowledgements.count
      while low < high {
        let middle = (low + high) / 2
        if acknowledgements[middle] <= instant { low = middle + 1 } else { high = middle }
      }
      guard low > 0, low < acknowledgements.count else { return nil }
      let isFormers = former.map { acknowledgements[low - 1] < $0 } ?? false
      if isFormers, acknowledgements[low] > end { return nil }
      var longest = isFormers ? .zero : acknowledgements[low] - acknowledgements[low - 1]
      while low + 1 < acknowledgements.count, acknowledgements[low] < end {
        low += 1
        longest = max(longest, min(acknowledgements[low], end) - acknowledgements[low - 1])
      }
      return longest
    }
  }

  /// Whether every watcher has come to the newest acknowledged post of those whom it follows throughout.
  func isComplete(_ graph: VerifyGraph) -> Bool {
    lock.withLock {
      watches.allSatisfy { watch in
        let newest = graph.timeline(of: watch.user).compactMap { newestOf[$0] }.max() ?? .zero
        return watch.shown.last?.id ?? .zero >= newest
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
      // Everybody's timeline is what its authors posted, in order.
      let everything = all.values.sorted { $0.id < $1.id }
      for user in stored.keys.sorted() {
        let (certain, doubtful) = lockedFollowed(by: user)
        let authors = Set(graph.timeline(of: user)).union(certain)
        let expected = everything.filter { authors.contains($0.author) }.map(\.id)
        let found = stored[user]!.filter { !doubtful.contains($0.author) }.map(\.id)
        if found != expected {
          verdict.wrongTimelines += 1
          verdict.note("\(user)'s timeline has \(found.count) posts, and its authors' posts are \(expected.count)")
        }
      }
      for fault in readingFaults.prefix(20) { verdict.note(fault) }
      verdict.otherViolations += readingFaults.count
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
        // Of those who are followed throughout: exactly what is stored. Of the others: what was followed when it was posted or read.
        let constant = Set(graph.timeline(of: watch.user))
        let posts = stored[watch.user]?.filter { constant.contains($0.author) }.map(\.id)
        let shown = watch.shown.filter { constant.contains($0.author) }.map(\.id)
        if let posts, posts != shown {
          verdict.wrongTimelines += 1
          verdict.note("what \(watch.user) was shown (\(shown.count)) is not its timeline (\(posts.count))")
        }
        for post in watch.shown where !constant.contains(post.author) {
          if !follows(Relation(follower: watch.user, followed: post.author), at: post.id).may {
            verdict.wrongTimelines += 1
            verdict.note("\(watch.user) was shown post \(post.id) of \(post.author), whom it did not follow")
          }
        }
        for relation in changes.keys where relation.follower == watch.user {
          for post in stored[relation.followed] ?? []
          where post.author == relation.followed && !seen.contains(post.id) && follows(relation, at: post.id).must {
            verdict.lost += 1
            verdict.note("\(watch.user) was never shown post \(post.id) of \(relation.followed), whom it followed")
          }
        }
      }
      return verdict
    }
  }
}

extension Ledger {
  /// Writes down all that is known, a file each, for whoever has to look into a violation.
  func save(to folder: String, stored: [String: [Post]]) {
    func lines(_ posts: [Post]) -> [String] { posts.map { "\($0.id)\t\($0.author)\t\($0.text)" } }
    var files: [(name: String, lines: [String])] = []
    lock.withLock {
      files.append(
        ("acknowledged.tsv", acknowledged.sorted { $0.value < $1.value }.map { "\($0.value)\t\($0.key)" }))
      files.append(("unanswered.txt", unknown.sorted()))
      files.append(
        (
          "follows.tsv",
          changes.flatMap { relation, changes in
            changes.map {
              ($0.id, "\($0.id)\t\(relation.follower)\t\($0.follows ? "follows" : "leaves")\t\(relation.followed)")
            }
          }.sorted { $0.0 < $1.0 }.map(\.1)
        ))
      for (number, watch) in watches.enumerated() {
        files.append(("shown-\(watch.user)-\(number).tsv", lines(watch.shown)))
      }
    }
    for (user, posts) in stored { files.append(("stored-\(user).tsv", lines(posts))) }
    try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    for file in files {
      try? (file.lines.joined(separator: "\n") + "\n").write(
        toFile: folder + "/" + file.name, atomically: true, encoding: .utf8)
    }
  }
}

/// Somebody may follow somebody.
struct Relation: Hashable, Sendable {
  var follower: String
  var followed: String
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

  /// The same people under other names.
  func named(with prefix: String) -> VerifyGraph {
    VerifyGraph(
      users: users.map { prefix + $0 },
      following: Dictionary(
        uniqueKeysWithValues: following.map { user, followed in (prefix + user, followed.map { prefix + $0 }) }))
  }

  /// The authors of a user's home timeline, but for those who are followed for a while only.
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
