// Real clients of a real cluster, each on a terminal of its own.

import CTerminal
import Foundation
import Testing

let program: String = {
  // The test's bundle lies beside the program that it was built with.
  var folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
  for argument in CommandLine.arguments where argument.hasSuffix(".xctest") {
    folder = URL(fileURLWithPath: argument).deletingLastPathComponent()
  }
  return folder.appendingPathComponent("tinysns").path
}()

/// A cluster of two masters in a folder of its own.
final class TestCluster {
  let folder: String
  var topology: String { folder + "/topology.yaml" }

  init() throws {
    folder = "/tmp/tinysns-terminal-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let text = """
      router: { port: \(Self.freePort()) }
      hosts:
        local: { masters: 2, first_port: 0 }
      clients: []
      respawn_delay: 2s
      password_memory: 8KiB
      """
    try text.write(toFile: topology, atomically: true, encoding: .utf8)
    try #require(run("up", "--detach").status == 0)
  }

  deinit {
    _ = try? run("down")
    try? FileManager.default.removeItem(atPath: folder)
  }

  /// Runs a command to its end.
  @discardableResult
  func run(_ arguments: String..., input: String = "") throws -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments + ["--topology", topology]
    process.environment = [
      "TINYSNS_PASSWORD": password, "XDG_STATE_HOME": "\(folder)/home", "HOME": folder, "PATH": "/usr/bin:/bin",
    ]
    let (output, standardInput) = (Pipe(), Pipe())
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    process.standardInput = standardInput
    try process.run()
    try standardInput.fileHandleForWriting.write(contentsOf: Data(input.utf8))
    try standardInput.fileHandleForWriting.close()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: data, as: UTF8.self))
  }

  /// What everybody logs in with, unless a test says otherwise.
  let password = "a password of the tests"

  func client(
    _ user: String, password: String? = "a password of the tests", rows: UInt16 = 24, columns: UInt16 = 80
  ) throws -> TerminalProcess {
    try terminal("client", user, password: password, rows: rows, columns: columns)
  }

  /// A command at a terminal.
  func terminal(
    _ arguments: String..., password: String? = nil, rows: UInt16 = 24, columns: UInt16 = 80
  ) throws -> TerminalProcess {
    try TerminalProcess(
      [program] + arguments + ["--topology", topology],
      environment: [
        "TERM=xterm", "NO_COLOR=1", "XDG_STATE_HOME=\(folder)/home", "HOME=\(folder)", "PATH=/usr/bin:/bin",
      ] + (password.map { ["TINYSNS_PASSWORD=\($0)"] } ?? []),
      rows: rows, columns: columns)
  }

  /// SIGKILL to the master that serves.
  func killAvailableMaster() throws {
    struct Status: Decodable {
      struct Master: Decodable {
        var pid: Int32?
        var state: String
      }
      var masters: [Master]
    }
    let status = try JSONDecoder().decode(Status.self, from: Data(run("status", "--json").output.utf8))
    let pid = try #require(status.masters.first { $0.state == "available" }?.pid)
    kill(pid, SIGKILL)
  }

  private static func freePort() -> UInt16 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        _ = bind(descriptor, pointer, length)
        _ = getsockname(descriptor, pointer, &length)
      }
    }
    return UInt16(bigEndian: address.sin_port)
  }
}

/// A program on a pseudo-terminal: what it wrote, and somebody to type.
final class TerminalProcess {
  let pid: pid_t
  private let descriptor: Int32
  private(set) var output = ""
  /// Everything that it wrote.
  private(set) var transcript = ""
  private var bytes: [UInt8] = []
  private var status: Int32?

  init(_ arguments: [String], environment: [String], rows: UInt16, columns: UInt16) throws {
    var argv = arguments.map { strdup($0) } + [nil]
    var envp = environment.map { strdup($0) } + [nil]
    defer { (argv + envp).forEach { free($0) } }
    var pid: pid_t = 0
    descriptor = tinysns_start_on_terminal(&argv, &envp, rows, columns, &pid)
    self.pid = pid
    try #require(descriptor >= 0)
  }

  deinit {
    if status == nil {
      kill(pid, SIGKILL)
      waitpid(pid, nil, 0)
    }
    close(descriptor)
  }

  func type(_ text: String) {
    let bytes = Array(text.utf8)
    #expect(write(descriptor, bytes, bytes.count) == bytes.count)
  }

  func resize(rows: UInt16, columns: UInt16) { _ = tinysns_resize_terminal(descriptor, rows, columns) }

  /// Waits until the text comes in what was written since the last call that found something, and returns what came up to there.
  @discardableResult
  func wait(for text: String, seconds: Double = 10, _ location: SourceLocation = #_sourceLocation) throws -> String {
    let deadline = Date() + seconds
    while true {
      if let range = output.range(of: text) {
        defer { output = String(output[range.upperBound...]) }
        return String(output[..<range.upperBound])
      }
      try #require(
        Date() < deadline && read(), "\(text.debugDescription) did not come: \(output.debugDescription)",
        sourceLocation: location)
    }
  }

  /// What is written within a time.
  func rest(seconds: Double = 0.3) -> String {
    let deadline = Date() + seconds
    while Date() < deadline, read() {}
    defer { output = "" }
    return output
  }

  /// Reads for a moment. False once nothing can come any more.
  private func read() -> Bool {
    var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&item, 1, 50) > 0 else { return true }
    var buffer = [UInt8](repeating: 0, count: 65_536)
    let count = Foundation.read(descriptor, &buffer, buffer.count)
    guard count > 0 else { return false }
    bytes += buffer.prefix(count)
    // A character may be cut.
    if let text = String(validating: bytes, as: UTF8.self) {
      output += text
      transcript += text
      bytes = []
    }
    return true
  }

  /// Waits for the end: the exit code, or 128 and the signal; nil if it does not come.
  func end(seconds: Double = 5) -> Int32? {
    let deadline = Date() + seconds
    var result: Int32 = 0
    while Date() < deadline {
      _ = read()
      if waitpid(pid, &result, WNOHANG) == pid {
        status = result & 0x7F == 0 ? result >> 8 & 0xFF : 128 + result & 0x7F
        return status
      }
      usleep(10_000)
    }
    return nil
  }

  /// Whether the terminal echoes and gathers lines, as a shell wants it.
  var isRestored: Bool {
    var mode = termios()
    tcgetattr(descriptor, &mode)
    return mode.c_lflag & tcflag_t(ECHO) != 0 && mode.c_lflag & tcflag_t(ICANON) != 0
  }
}
