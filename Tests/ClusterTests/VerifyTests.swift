// The verifier itself: a minute of random faults on a cluster of real processes.

import Foundation
import Glibc
import Testing

extension RealProcesses {
  @Suite struct VerifyTests {
    private struct Report: Decodable {
      struct Pause: Decodable { var p50, p99, max: Double }

      var acknowledged, delivered, lost, duplicated, out_of_order, wrong_timelines, faults, false_respawns: Int
      var follows_and_unfollows, pages_read: Int
      var longest_commit_ms: Double
      var pause_ms: [String: Pause]
      var violations: [String]
    }

    /// Seconds of torment; more with VERIFY_SECONDS.
    private var seconds: Int { ProcessInfo.processInfo.environment["VERIFY_SECONDS"].flatMap(Int.init) ?? 60 }

    @Test("a minute of random faults loses nothing, doubles nothing, and reorders nothing")
    func torment() async throws {
      let folder = FileManager.default.temporaryDirectory.appending(path: "tinysns-\(UUID())")
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(at: folder) }
      let command = try Command(
        ["verify", "--seconds", "\(seconds)", "--seed", "1", "--masters", "4", "--json"], in: folder.path)
      let outcome = try await command.end(within: .seconds(seconds + 240))
      let line = try #require(outcome.lines.last, "\(outcome)")
      let report = try JSONDecoder().decode(Report.self, from: Data(line.utf8))
      #expect(outcome.status == 0, "\(outcome)")
      #expect(report.violations.isEmpty)
      #expect(report.lost == 0 && report.duplicated == 0 && report.out_of_order == 0 && report.wrong_timelines == 0)
      #expect(report.false_respawns == 0)
      #expect(report.follows_and_unfollows > 0 && report.pages_read > 0 && report.longest_commit_ms > 0)
      #expect(!report.pause_ms.isEmpty)
      #expect(report.faults >= seconds / 5 && report.acknowledged > 0 && report.delivered > report.acknowledged)
    }

    @Test("with a full disk and all processors busy, too")
    func smallDiskAndBusy() async throws {
      // As root a tmpfs can be had, elsewhere perhaps not: then only busy.
      let hasDisk = geteuid() == 0 && Self.canMount
      let command = try Command(
        ["verify", "--seconds", "12", "--seed", "3", "--masters", "3", "--busy", "--json"]
          + (hasDisk ? ["--small-disk"] : []), in: FileManager.default.temporaryDirectory.path)
      let outcome = try await command.end(within: .seconds(240))
      let report = try JSONDecoder().decode(Report.self, from: Data((try #require(outcome.lines.last)).utf8))
      #expect(outcome.status == 0 && report.violations.isEmpty && report.false_respawns == 0, "\(outcome)")
    }

    private static let canMount: Bool = {
      let folder = NSTemporaryDirectory() + "tinysns-\(UUID())"
      mkdir(folder, 0o700)
      defer { rmdir(folder) }
      guard mount("tmpfs", folder, "tmpfs", 0, "size=1m") == 0 else { return false }
      umount2(folder, 2)
      return true
    }()

    @Test("a running cluster can be tormented, twice, and lives on")
    func running() async throws {
      try await Cluster.with(masters: 3) { cluster in
        for seed in ["1", "2"] {
          let outcome = try await cluster.run(
            "verify", "--running", "--seconds", "5", "--seed", seed, "--users", "8", "--json", within: .seconds(120))
          let report = try JSONDecoder().decode(Report.self, from: Data((try #require(outcome.lines.last)).utf8))
          #expect(outcome.status == 0 && report.violations.isEmpty, "\(outcome)")
        }
        try await cluster.whole()
      }
    }
  }
}
