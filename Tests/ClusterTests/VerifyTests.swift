// The verifier itself: a minute of random faults on a cluster of real processes.

import Foundation
import Testing

extension RealProcesses {
  @Suite struct VerifyTests {
    private struct Report: Decodable {
      var acknowledged, delivered, lost, duplicated, out_of_order, wrong_timelines, faults, false_respawns: Int
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
      #expect(report.faults >= seconds / 5 && report.acknowledged > 0 && report.delivered > report.acknowledged)
    }
  }
}
