// The checker of `verify` can fail: whatever goes wrong with real processes would be found.

import Foundation
import Model
import Testing

@testable import tinysns

@Suite struct LedgerTests {
  /// bob follows alice.
  private let graph = VerifyGraph(users: ["alice", "bob", "carol"], following: ["bob": ["alice"]])

  private func post(_ id: UInt64, _ author: String, _ number: Int) -> Post {
    Post(id: EventID(id), author: author, text: "\(author) \(number)", time: .zero)
  }

  private var posts: [Post] { [post(10, "alice", 1), post(12, "alice", 2), post(14, "bob", 1)] }

  /// A run in which bob was shown `shown` and this is read back.
  private func judge(
    shown: [Post]? = nil, stored: [String: [Post]]? = nil, _ also: (Ledger) -> Void = { _ in }
  ) -> Verdict {
    let ledger = Ledger()
    for post in posts { ledger.acknowledge(post.text, as: post.id, asked: .zero, isUndisturbed: true) }
    let watch = ledger.addWatch(of: "bob")
    ledger.show(shown ?? posts, at: watch)
    also(ledger)
    return ledger.judge(
      graph, stored: stored ?? ["alice": Array(posts[..<2]), "bob": posts, "carol": []])
  }

  @Test func whatIsRightIsRight() {
    let verdict = judge()
    #expect(verdict.isGood && verdict.findings.isEmpty && verdict.acknowledged == 3 && verdict.delivered == 3)
  }

  @Test func whatTheLogHasLostIsLost() {
    let verdict = judge(stored: ["alice": [posts[0]], "bob": [posts[0], posts[2]], "carol": []])
    #expect(verdict.lost == 1)
  }

  @Test func whatWasNotShownIsLost() { #expect(judge(shown: [posts[0], posts[2]]).lost == 1) }

  @Test func whatWasShownTwiceIsDuplicated() {
    #expect(judge(shown: [posts[0], posts[1], posts[1], posts[2]]).duplicated == 1)
  }

  @Test func whatTookEffectTwiceIsDuplicated() {
    let again = post(16, "alice", 1)
    let all = posts + [again]
    #expect(judge(shown: all, stored: ["alice": [all[0], all[1], again], "bob": all]).duplicated == 1)
  }

  @Test func whatWasShownTooLateIsOutOfOrder() {
    #expect(judge(shown: [posts[1], posts[0], posts[2]]).outOfOrder == 1)
  }

  @Test func aPostOfAStrangerIsWrong() {
    #expect(judge(shown: posts + [post(20, "carol", 1)]).wrongTimelines == 1)
  }

  @Test func aTimelineReadBackWithoutSomebodyIsWrong() {
    #expect(judge(stored: ["alice": Array(posts[..<2]), "bob": Array(posts[..<2]), "carol": []]).wrongTimelines > 0)
  }

  @Test func whoIsFollowedForAWhileIsSeenForAWhile() {
    let relation = Relation(follower: "bob", followed: "carol")
    let before = post(5, "carol", 1)
    let during = post(13, "carol", 2)
    let after = post(30, "carol", 3)
    let carols = [before, during, after]
    func verdict(shown: [Post], untilEnd: Bool) -> Verdict {
      judge(
        shown: shown.sorted { $0.id < $1.id },
        stored: [
          "alice": Array(posts[..<2]), "carol": carols,
          "bob": (posts + (untilEnd ? carols : [])).sorted { $0.id < $1.id },
        ]
      ) { ledger in
        ledger.change(relation, follows: true, at: EventID(11))
        if !untilEnd { ledger.change(relation, follows: false, at: EventID(20)) }
      }
    }
    #expect(verdict(shown: posts + [during, after], untilEnd: true).isGood)
    #expect(verdict(shown: posts + [during], untilEnd: true).lost == 1)
    #expect(verdict(shown: posts + [during], untilEnd: false).isGood)
    #expect(verdict(shown: posts, untilEnd: false).isGood, "it may have been read after the end")
    #expect(verdict(shown: posts + [after], untilEnd: false).wrongTimelines == 1)
  }

  /// An answer that was under way comes after the fault: the pause is what follows.
  @Test func aPauseMayBeginAfterItsFault() {
    let ledger = Ledger()
    func at(_ milliseconds: Int64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }
    for (number, time) in ([0, 10, 20, 23, 323, 330, 1_330] as [Int64]).enumerated() {
      ledger.acknowledge("alice \(number)", as: EventID(1), asked: .zero, isUndisturbed: true, at: at(time))
    }
    #expect(ledger.pause(from: at(21), to: at(500)) == .milliseconds(300))
    #expect(ledger.pause(from: at(100), to: at(500)) == .milliseconds(300), "and one that goes on")
    #expect(ledger.pause(from: at(5), to: at(23)) == .milliseconds(10))
    #expect(ledger.pause(from: at(21), to: at(123)) == .milliseconds(100), "not what another fault made of it")
    #expect(ledger.pause(from: at(2_000), to: at(3_000)) == nil)
    #expect(
      ledger.pause(from: at(300), to: at(500), former: at(100)) == .milliseconds(170), "nor what another one began")
    #expect(ledger.pause(from: at(200), to: at(300), former: at(100)) == nil)
  }

  @Test func whatReadersFindIsAViolation() {
    let verdict = judge { $0.blame("bob reads something wrong") }
    #expect(!verdict.isGood && verdict.findings == ["bob reads something wrong"])
  }

  @Test func everythingIsWrittenDown() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "tinysns-\(UUID())").path
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let ledger = Ledger()
    ledger.acknowledge("alice 1", as: EventID(10), asked: .zero, isUndisturbed: true)
    ledger.lose("alice 2")
    ledger.show([posts[0]], at: ledger.addWatch(of: "bob"))
    ledger.change(Relation(follower: "bob", followed: "carol"), follows: true, at: EventID(11))
    ledger.save(to: folder, stored: ["alice": [posts[0]]])
    func text(_ name: String) throws -> String { try String(contentsOfFile: folder + "/" + name, encoding: .utf8) }
    #expect(try text("acknowledged.tsv") == "10\talice 1\n")
    #expect(try text("unanswered.txt") == "alice 2\n")
    #expect(try text("shown-bob-0.tsv") == "10\talice\talice 1\n")
    #expect(try text("stored-alice.tsv") == "10\talice\talice 1\n")
    #expect(try text("follows.tsv") == "11\tbob\tfollows\tcarol\n")
  }
}
