// Examples/python/watch.py against a real cluster, where a Python with pyzmq and protobuf is to be had.

import Foundation
import Glibc
import Testing

@Suite struct PythonExampleTests {
  @Test(
    .enabled("python3 with pyzmq and protobuf is not installed") { PythonExample.python != nil },
    .timeLimit(.minutes(3)))
  @Test(
    let cluster = try ExampleCluster()
    defer { cluster.down() }
    try cluster.watch("alice", "--post", "before bob watches", "--seconds", "0").finish(within: 30)
    let watcher = try cluster.watch("bob", "--follow", "alice", "--json")
    defer { watcher.stop() }
    try #require(watcher.waits(within: 30) { $0.contains { $0.text == "before bob watches" } }, "\(watcher.errors)")

    var acknowledged: [UInt64] = []
    for number in 1...40 {
      if number % 10 == 5 { kill(try cluster.availableMaster(), SIGKILL) }
      let output = try cluster.tinysns("post", "alice", "post \(number)")
      acknowledged.append(try #require(UInt64(output.trimmingCharacters(in: .whitespacesAndNewlines))))
    }
    let last = try #require(acknowledged.last)
    #expect(watcher.waits(within: 30) { $0.last?.id == last }, "\(watcher.errors)")
    #expect(watcher.posts.filter { $0.text.hasPrefix("post ") }.map(\.id) == acknowledged, "each once, in order")
    #expect(watcher.errors.contains("serves now"), "it has noticed the failovers")
  }

  @Test(.enabled("python3 with pyzmq and protobuf is not installed") { PythonExample.python != nil })
  func saysWhatIsWrong() throws {
    let cluster = try ExampleCluster()
    defer { cluster.down() }
    let refused = try cluster.watch("not/a/name", "--seconds", "0")
    #expect(refused.finish(within: 30) == 1)
    #expect(refused.errors.hasPrefix("watch.py: the name is refused"), "\(refused.errors)")
    let usage = try cluster.watch("alice", "--seconds", "soon")
    #expect(usage.finish(within: 30) == 2)
  }

  @Test(.enabled("protoc is not installed") { PythonExample.find("protoc") != nil })
  func theDescriptorsAreThoseOfTheProtocol() throws {
    let made = FileManager.default.temporaryDirectory.appending(path: "tinysns-\(UUID().uuidString).desc")
    defer { try? FileManager.default.removeItem(at: made) }
    let protos = PythonExample.repository.appending(path: "Protos")
    let protoc = try #require(PythonExample.find("protoc"))
    _ = try run(protoc, ["--descriptor_set_out=\(made.path)", "--proto_path=\(protos.path)", "tinysns.proto"])
    let committed = try Data(contentsOf: PythonExample.folder.appending(path: "tinysns.desc"))
    #expect(try Data(contentsOf: made) == committed, "scripts/generate-protobuf.sh makes it anew")
  }
}

/// Where the example is, and what runs it.
private enum PythonExample {
  static let repository = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  static let folder = repository.appending(path: "Examples/python")

  /// A Python that has what the example imports.
  static let python: String? = [find("python3"), "/usr/bin/python3"].compactMap(\.self).first {
    (try? run($0, ["-c", "import zmq, google.protobuf"])) != nil
  }

  static func find(_ program: String) -> String? {
    (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(program)" }
      .first { access($0, X_OK) == 0 }
  }
}

private struct RunFailure: Error { var description: String }

/// Runs a program to its end, and returns what it printed; throws if it fails.
@discardableResult
private func run(_ program: String, _ arguments: [String]) throws -> String {
  let process = Process()
  let output = Pipe()
  process.executableURL = URL(filePath: program)
  process.arguments = arguments
  process.standardInput = FileHandle.nullDevice
  process.standardOutput = output
  process.standardError = output
  try process.run()
  let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  process.waitUntilExit()
  guard process.terminationStatus == 0 else {
    throw RunFailure(description: "\(program) \(arguments): \(process.terminationStatus): \(text)")
  }
  return text
}

/// Three masters in a folder and on ports of their own.
private struct ExampleCluster {
  private let folder: String
  private let topology: String
  private let router: String

  init() throws {
    // Short, because the paths of Unix sockets are.
    folder = "/tmp/tinysns-python-\(UUID().uuidString.prefix(8))"
    topology = folder + "/topology.yaml"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    let port = try Self.freePort()
    router = "tcp://127.0.0.1:\(port)"
    try """
    router: { port: \(port) }
    hosts: { local: { masters: 3, first_port: 0 } }
    respawn_delay: 1s
    """.write(toFile: topology, atomically: true, encoding: .utf8)
    do { _ = try tinysns("up", "--detach") } catch {
      down()
      throw error
    }
  }

  func down() {
    _ = try? tinysns("down")
    try? FileManager.default.removeItem(atPath: folder)
  }

  func tinysns(_ arguments: String...) throws -> String {
    let program = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: "tinysns").path
    return try run(program, arguments + ["--topology", topology])
  }

  /// The process of the available master; waits for one.
  func availableMaster() throws -> pid_t {
    struct Status: Decodable {
      struct Master: Decodable {
        var pid: pid_t?
        var state: String
      }
      var masters: [Master]
    }
    for _ in 0..<500 {
      let status = try JSONDecoder().decode(Status.self, from: Data(try tinysns("status", "--json").utf8))
      if let pid = status.masters.first(where: { $0.state == "available" })?.pid { return pid }
      usleep(20_000)
    }
    throw RunFailure(description: "no master is available")
  }

  /// Starts watch.py.
  func watch(_ arguments: String...) throws -> Watcher {
    try Watcher(arguments + ["--router", router], in: folder)
  }

  private static func freePort() throws -> UInt16 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let code = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, length) == 0 ? getsockname(descriptor, $0, &length) : -1
      }
    }
    guard code == 0 else { throw RunFailure(description: "no free port") }
    return UInt16(bigEndian: address.sin_port)
  }
}

/// A running watch.py; its output goes to files.
private final class Watcher {
  struct Post: Decodable {
    var id: UInt64
    var text: String
  }

  private let process = Process()
  private let output: URL
  private let complaints: URL

  init(_ arguments: [String], in folder: String) throws {
    let name = "\(folder)/watch-\(UUID().uuidString.prefix(8))"
    output = URL(filePath: name + ".out")
    complaints = URL(filePath: name + ".err")
    for file in [output, complaints] { try Data().write(to: file) }
    let python = try #require(PythonExample.python)
    process.executableURL = URL(filePath: python)
    process.arguments = [PythonExample.folder.appending(path: "watch.py").path] + arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = try FileHandle(forWritingTo: output)
    process.standardError = try FileHandle(forWritingTo: complaints)
    try process.run()
  }

  /// The posts shown so far, in whole lines.
  var posts: [Post] {
    let lines = ((try? Data(contentsOf: output)) ?? Data()).split(separator: UInt8(ascii: "\n"))
    return lines.compactMap { try? JSONDecoder().decode(Post.self, from: Data($0)) }
  }

  var errors: String { (try? String(contentsOf: complaints, encoding: .utf8)) ?? "" }

  func waits(within seconds: Int, until isDone: ([Post]) -> Bool) -> Bool {
    for _ in 0..<(seconds * 50) {
      if isDone(posts) { return true }
      usleep(20_000)
    }
    return false
  }

  /// Waits for its end, and returns the exit code; nil if it had to be killed.
  @discardableResult
  func finish(within seconds: Int) -> Int32? {
    for _ in 0..<(seconds * 50) where process.isRunning { usleep(20_000) }
    if process.isRunning {
      stop()
      return nil
    }
    return process.terminationStatus
  }

  func stop() {
    if process.isRunning { kill(process.processIdentifier, SIGKILL) }
    process.waitUntilExit()
  }
}
