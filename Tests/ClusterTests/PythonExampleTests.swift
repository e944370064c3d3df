// Examples/python/watch.py, a client written from PROTOCOL.md alone, where a Python with pyzmq and protobuf is to be had.

import Foundation
import Glibc
import Model
import Testing

extension RealProcesses {
  @Suite struct PythonExampleTests {
    private static let repository = URL(filePath: #filePath)
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    private static let example = repository.appending(path: "Examples/python")

    private static let hasPython = ConditionTrait.enabled("no python3 here has pyzmq and protobuf") { python != nil }

    /// A Python that has what the example imports.
    private static let python = [found("python3"), "/usr/bin/python3"].compactMap(\.self).first { program in
      let process = Process()
      process.executableURL = URL(filePath: program)
      process.arguments = ["-c", "import zmq, google.protobuf"]
      process.standardError = FileHandle.nullDevice
      guard (try? process.run()) != nil else { return false }
      process.waitUntilExit()
      return process.terminationStatus == 0
    }

    private static func found(_ program: String) -> String? {
      (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(program)" }
        .first { access($0, X_OK) == 0 }
    }

    private func watch(_ cluster: Cluster, _ arguments: String...) throws -> Command {
      try Command(
        [
          Self.example.appending(path: "watch.py").path, "--router", cluster.router, "--server-key-file",
          cluster.keyFile("cluster.pub"),
        ] + arguments, in: cluster.folder,
        program: try #require(Self.python))
    }

    @Test("watch.py watches through deaths of its master, and shows every acknowledged post once", Self.hasPython)
    func watchesThroughDeathsOfItsMaster() async throws {
      try await Cluster.with(masters: 3) { cluster in
        try await cluster.register("alice")
        let watcher = try watch(cluster, "bob", "--follow", "alice", "--post", "here I am", "--json")
        try await eventually("bob sees his own post") { !watcher.lines.isEmpty }

        var acknowledged: [UInt64] = []
        for number in 1...40 {
          if number % 10 == 5 {
            let victim = try await cluster.status(when: "one serves") { $0.available != nil }.available
            try cluster.signal(victim?.pid, SIGKILL)
          }
          acknowledged.append(try await cluster.post("alice", "post \(number)"))
        }
        try await eventually("bob sees the last post") { watcher.lines.count > 40 }
        let shown = try watcher.lines.map { try ShownPost(json: $0) }
        #expect(shown.map(\.text) == ["here I am"] + (1...40).map { "post \($0)" })
        #expect(shown.dropFirst().map(\.id) == acknowledged)
        #expect(watcher.errors.contains(" serves now, after "), "\(watcher.errors)")
        // What it shows is what there is.
        #expect(try await cluster.timeline("bob", limit: 100) == shown)
      }
    }

    @Test("watch.py keeps its session by what it says, however much it hears", Self.hasPython)
    func keepsItsSession() async throws {
      try await Cluster.with(masters: 1) { cluster in
        try await cluster.register("alice")
        let watcher = try watch(cluster, "bob", "--follow", "alice", "--post", "here I am", "--json")
        try await eventually("bob sees his own post") { !watcher.lines.isEmpty }
        // Longer than a master keeps a session that says nothing.
        let end = ContinuousClock.now + .milliseconds(Limits.sessionSilence.milliseconds + 2_000)
        var count = 0
        while ContinuousClock.now < end {
          try await cluster.post("alice", "post \(count)")
          count += 1
        }
        try await eventually("bob sees the last post") { watcher.lines.count > count }
        #expect(!watcher.errors.contains("serves now"), "\(watcher.errors)")
      }
    }

    @Test("watch.py says what is wrong, and ends with the exit codes of tinysns", Self.hasPython)
    func saysWhatIsWrong() async throws {
      try await Cluster.with(masters: 1) { cluster in
        let refused = try await watch(cluster, "not/a/name").end()
        #expect(refused.status == 1, "\(refused)")
        #expect(refused.errors.hasPrefix("watch.py: the name is refused"), "\(refused)")
        let usage = try await watch(cluster, "alice", "--seconds", "soon").end()
        #expect(usage.status == 2, "\(usage)")
        let tooLong = try await watch(cluster, "alice", "--post", String(repeating: "x", count: 5_000)).end()
        #expect(tooLong.status == 1, "\(tooLong)")
        #expect(tooLong.errors.contains("longer than 4096 bytes"), "\(tooLong)")
      }
    }

    @Test(
      "tinysns.desc is made of Protos/tinysns.proto",
      .enabled("protoc is not installed") { Self.found("protoc") != nil })
    func theDescriptorsAreThoseOfTheProtocol() throws {
      let made = FileManager.default.temporaryDirectory.appending(path: "tinysns-\(UUID().uuidString).desc")
      defer { try? FileManager.default.removeItem(at: made) }
      let protos = Self.repository.appending(path: "Protos").path
      let process = Process()
      process.executableURL = URL(filePath: try #require(Self.found("protoc")))
      process.arguments = ["--descriptor_set_out=\(made.path)", "--proto_path=\(protos)", "tinysns.proto"]
      try process.run()
      process.waitUntilExit()
      try #require(process.terminationStatus == 0)
      let committed = try Data(contentsOf: Self.example.appending(path: "tinysns.desc"))
      #expect(try Data(contentsOf: made) == committed, "scripts/generate-protobuf.sh makes it anew")
    }
  }
}
