// The one-way order of the targets, and what the pure ones keep away from. Reads Package.swift and the sources.

import Foundation
import Testing

/// The repository, as far as these tests look at it.
enum Repository {
  static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  static func text(of path: String) throws -> String {
    try String(contentsOf: root.appending(path: path), encoding: .utf8)
  }

  /// The Swift files of a target, by path from the root, without generated ones.
  static func swiftFiles(of target: String) throws -> [String] {
    let folder = root.appending(path: "Sources/\(target)")
    guard let enumerator = FileManager.default.enumerator(atPath: folder.path) else { return [] }
    return enumerator.compactMap { $0 as? String }
      .filter { $0.hasSuffix(".swift") && !$0.hasPrefix("Generated/") }
      .map { "Sources/\(target)/\($0)" }.sorted()
  }

  static func folders(in path: String) throws -> Set<String> {
    Set(
      try FileManager.default.contentsOfDirectory(atPath: root.appending(path: path).path)
        .filter { !$0.hasPrefix(".") })
  }

  /// A file's code: comments are blanked out. (The sources have no `//` in string literals of these targets but in URLs.)
  static func code(of path: String) throws -> [(line: Int, text: String)] {
    try text(of: path).split(separator: "\n", omittingEmptySubsequences: false).enumerated().map { index, line in
      let code = line.range(of: "//").map { line[..<$0.lowerBound] } ?? line[...]
      return (index + 1, String(code))
    }
  }

  /// The modules that a target's files import.
  static func imports(of target: String) throws -> [(module: String, place: String)] {
    var found: [(String, String)] = []
    for path in try swiftFiles(of: target) {
      for (number, line) in try code(of: path) {
        guard line.contains("import"), let match = line.firstMatch(of: importLine) else { continue }
        found.append((String(match.output.1), "\(path):\(number)"))
      }
    }
    return found
  }

  private static var importLine: Regex<(Substring, Substring)> {
    /^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:(?:public|package|internal|fileprivate|private)\s+)?import\s+(?:(?:struct|class|enum|protocol|func|typealias|let|var)\s+)?(\w+)/
  }

  /// Each target of Package.swift, but for the tests' helpers, with the names of what it depends on, products of other packages included.
  static func manifest() throws -> [String: Set<String>] {
    let lines = try code(of: "Package.swift").map(\.text).joined(separator: "\n")
    let start = try #require(lines.range(of: "\n  targets: ["))
    let targets = lines[start.upperBound...]
    var result: [String: Set<String>] = [:]
    let opening = /\.(?:target|executableTarget|testTarget|systemLibrary)\(\s*name:\s*"([\w-]+)"/
    let openings = targets.matches(of: opening)
    for (index, match) in openings.enumerated() {
      let end = index + 1 < openings.count ? openings[index + 1].range.lowerBound : targets.endIndex
      let body = targets[match.range.upperBound..<end]
      if body.contains("path: \"Tests/") { continue }
      var names: Set<String> = []
      if let list = body.range(of: "dependencies: [") {
        var depth = 1
        var position = list.upperBound
        while depth > 0, position < body.endIndex {
          if body[position] == "[" { depth += 1 }
          if body[position] == "]" { depth -= 1 }
          position = body.index(after: position)
        }
        let text = body[list.upperBound..<position].replacing(/package:\s*"[^"]*"/, with: "")
        names = Set(text.matches(of: /"([\w-]+)"/).map { String($0.output.1) })
      }
      result[String(match.output.1)] = names
    }
    return result
  }
}

@Suite struct ArchitectureTests {
  /// What each target may depend on: the map of the architecture. Nothing else is allowed, and an entry is not a duty.
  static let allowed: [String: Set<String>] = [
    "CZMQ": [],
    "CSpawn": [],
    "CEpoll": [],
    "CLoad": ["CSodium", "CZMQ"],
    "CEdit": [],
    "CSodium": [],
    "Model": [],
    "Core": ["Model", "DequeModule", "HeapModule", "OrderedCollections"],
    "Wire": ["Model", "SwiftProtobuf"],
    "Log": ["Model"],
    "SQLiteLog": ["CSpawn", "Log", "Model", "GRDB", "GRDBSQLite"],
    "Topology": ["Model", "Yams"],
    "Runtime": ["CSpawn", "Model"],
    "ZeroMQ": ["CZMQ"],
    "Node": [
      "CEpoll", "Core", "CSodium", "CSpawn", "DequeModule", "Log", "Logging", "Model", "Runtime", "Wire", "ZeroMQ",
    ],
    "TinySNSClient": ["Core", "CSpawn", "Model", "Runtime", "Wire", "ZeroMQ", "HeapModule"],
    "Simulation": ["Core", "Log", "Model", "Wire"],
    "TerminalText": ["CEdit"],
    "tinysns": [
      "CEdit", "CLoad", "Core", "CSpawn", "Log", "Model", "Node", "Runtime", "SQLiteLog", "Simulation",
      "TerminalText", "TinySNSClient", "Topology", "Wire", "ZeroMQ", "ArgumentParser", "Histogram", "Logging",
    ],
  ]

  /// Modules of the system, and who may use them. Pure logic gets no clock, no files, no threads from them.
  static let system: Set<String> = [
    "Foundation", "FoundationEssentials", "Dispatch", "Glibc", "Musl", "Darwin", "Synchronization",
  ]
  /// Every module has the standard library without asking, but for its parts that must be asked for by name.
  static let standard: Set<String> = ["Swift"]
  static let withoutSystem: Set<String> = ["Model", "Core"]

  @Test func theManifestKeepsTheOrder() throws {
    let manifest = try Repository.manifest().filter { !$0.key.hasSuffix("Tests") }
    #expect(Set(manifest.keys) == Set(Self.allowed.keys))
    for (target, dependencies) in manifest.sorted(by: { $0.key < $1.key }) {
      let forbidden = dependencies.subtracting(Self.allowed[target] ?? [])
      #expect(forbidden.isEmpty, "\(target) must not depend on \(forbidden.sorted())")
    }
  }

  @Test func everyFolderOfSourcesIsATarget() throws {
    #expect(try Repository.folders(in: "Sources") == Set(Self.allowed.keys))
  }

  /// `Support` has what tests start: no target.
  @Test func everyFolderOfTestsIsATarget() throws {
    let tests = try Repository.manifest().keys.filter { $0.hasSuffix("Tests") }
    #expect(try Repository.folders(in: "Tests").subtracting(["Support"]) == Set(tests))
  }

  @Test(arguments: Array(allowed.keys).sorted())
  func importsAreDeclaredAndAllowed(target: String) throws {
    let declared = try Repository.manifest()[target] ?? []
    for (module, place) in try Repository.imports(of: target) {
      if Self.standard.contains(module) { continue }
      if Self.system.contains(module) {
        #expect(!Self.withoutSystem.contains(target), "\(place): \(target) must do without \(module)")
      } else {
        #expect(declared.contains(module), "\(place): \(module) is no dependency of \(target) in Package.swift")
        #expect(Self.allowed[target]!.contains(module), "\(place): \(target) must not import \(module)")
      }
    }
  }

  /// The order has no cycle: whoever is allowed somebody is not allowed by them, at any distance.
  @Test func theOrderHasNoCycle() {
    func reachable(from target: String) -> Set<String> {
      var seen: Set<String> = []
      var waiting = Array(Self.allowed[target] ?? [])
      while let next = waiting.popLast() {
        if seen.insert(next).inserted { waiting += Self.allowed[next] ?? [] }
      }
      return seen
    }
    for target in Self.allowed.keys { #expect(!reachable(from: target).contains(target)) }
  }

  // MARK: What pure logic does without

  private func expectNone(of patterns: [Regex<Substring>], in target: String, besides: Set<String> = []) throws {
    let files = try Repository.swiftFiles(of: target)
    #expect(!files.isEmpty)
    for path in files where !besides.contains(path) {
      for (number, line) in try Repository.code(of: path) {
        for pattern in patterns {
          if let match = line.firstMatch(of: pattern) {
            Issue.record("\(path):\(number): \(match.output) has no place here")
          }
        }
      }
    }
  }

  @Test(arguments: ["Core", "Model"])
  func pureLogicHasNoClock(target: String) throws {
    try expectNone(
      of: [
        /\bContinuousClock\b/, /\bSuspendingClock\b/, /\bDate\(/, /\bDispatchTime\b/, /\bclock_gettime\b/, /\.now\b/,
        /\bsleep\(/,
      ], in: target)
  }

  @Test(arguments: ["Core", "Model"])
  func pureLogicHasNoRandomnessOfItsOwn(target: String) throws {
    // A generator is always given: `using:` on the same line. Swift's hashing is seeded anew for each process.
    try expectNone(
      of: [
        /\.random\((?!.*using:).*/, /\.randomElement\(\)/, /\.shuffled\(\)/, /\.shuffle\(\)/, /\bHasher\(\)/,
        /\.hashValue\b/,
      ], in: target)
    try expectNone(
      of: [/\bSystemRandomNumberGenerator\b/], in: target, besides: ["Sources/Model/RandomSource.swift"])
  }

  @Test(arguments: ["Core", "Model"])
  func pureLogicThrowsNothingAndPrintsNothing(target: String) throws {
    try expectNone(of: [/\bthrows\b/, /\btry\b/, /\bprint\(/, /\basync\b/, /\bawait\b/], in: target)
  }

  @Test(arguments: ["Core", "Model", "Node"])
  func noActorsAndNoTasks(target: String) throws {
    try expectNone(
      of: [/\bTask\s*[.{(<]/, /\bactor\s+\w/, /\bwithTaskGroup\b/, /\bTaskGroup\b/, /@MainActor/], in: target)
  }
}
