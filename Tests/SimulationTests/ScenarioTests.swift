// Scenarios/*.txt: prose with golden output. TINYSNS_REWRITE=1 writes the output anew.

import Foundation
import Simulation
import Testing

@Suite struct ScenarioTests {
  static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Scenarios")

  static let names: [String] = {
    let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path(percentEncoded: false))) ?? []
    return files.filter { $0.hasSuffix(".txt") }.sorted()
  }()

  @Test func thereAreScenarios() { #expect(Self.names.count >= 12) }

  @Test(arguments: names) func plays(_ name: String) throws {
    let file = Self.folder.appending(path: name)
    let text = try String(contentsOf: file, encoding: .utf8)
    let played = Scenario.play(text)
    #expect(!played.contains("VIOLATION"))
    #expect(!played.contains("  ? "))
    if ProcessInfo.processInfo.environment["TINYSNS_REWRITE"] != nil {
      try played.write(to: file, atomically: true, encoding: .utf8)
    } else {
      #expect(played == text, "the output has changed; TINYSNS_REWRITE=1 writes it anew")
    }
  }
}
