// The binary under test as a process: its input, its output, its end.

import Foundation
import Glibc

/// What a command said, and how it ended.
struct Outcome: CustomStringConvertible {
  var arguments: [String]
  var status: Int32
  /// Ended by a signal, whose number `status` is.
  var wasSignalled: Bool
  var output: String
  var errors: String

  var lines: [String] { output.split(separator: "\n").map(String.init) }
  var errorLines: [String] { errors.split(separator: "\n").map(String.init) }

  var description: String {
    "\(arguments.joined(separator: " ")) → \(wasSignalled ? "signal " : "")\(status)\n\(output)\(errors)"
  }
}

/// A command that runs. Output goes to files, so that none is lost and nobody waits for a reader.
///
/// `@unchecked Sendable`: used by one test at a time.
final class Command: @unchecked Sendable {
  /// The program, built beside the tests.
  static let program = URL(fileURLWithPath: CommandLine.arguments[0])
    .deletingLastPathComponent().appendingPathComponent("tinysns").path

  private let process = Process()
  private let arguments: [String]
  private let outputPath: String
  private let errorPath: String
  private let input: Pipe?

  enum Input {
    case nothing
    case text(String)
    /// What `type` writes, until `endInput`.
    case typed
  }

  /// Starts it.
  ///
  /// - Parameters:
  ///   - folder: where its output goes.
  ///   - program: another program, for pipelines.
  ///   - environment: more of it, or less: what is nil is left out. The home is never the real one.
  init(
    _ arguments: [String], in folder: String, input: Input = .nothing, program: String = Command.program,
    environment: [String: String?] = [:]
  ) throws {
    self.arguments = arguments
    let base = folder + "/out-\(UInt64.random(in: 0...UInt64.max))"
    outputPath = base + ".stdout"
    errorPath = base + ".stderr"
    for path in [outputPath, errorPath] { try Data().write(to: URL(fileURLWithPath: path)) }
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    var variables = ProcessInfo.processInfo.environment
    variables["HOME"] = folder + "/home"
    variables["XDG_STATE_HOME"] = folder + "/home/state"
    variables["TINYSNS_PASSWORD"] = Cluster.password
    for (name, value) in environment { variables[name] = value }
    process.environment = variables
    let output = try FileHandle(forWritingTo: URL(fileURLWithPath: outputPath))
    let errors = try FileHandle(forWritingTo: URL(fileURLWithPath: errorPath))
    process.standardOutput = output
    process.standardError = errors
    switch input {
    case .nothing:
      self.input = nil
      process.standardInput = FileHandle.nullDevice
    case .text(let text):
      self.input = nil
      let path = base + ".stdin"
      try Data(text.utf8).write(to: URL(fileURLWithPath: path))
      process.standardInput = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
    case .typed:
      let pipe = Pipe()
      self.input = pipe
      process.standardInput = pipe
    }
    // The threads that run tests have most signals blocked, and the command would inherit that.
    var none = sigset_t()
    var former = sigset_t()
    sigemptyset(&none)
    pthread_sigmask(SIG_SETMASK, &none, &former)
    defer { pthread_sigmask(SIG_SETMASK, &former, nil) }
    try process.run()
    try? output.close()
    try? errors.close()
  }

  deinit { kill(SIGKILL) }

  var pid: Int32 { process.processIdentifier }
  var isRunning: Bool { process.isRunning }
  var output: String { (try? String(contentsOfFile: outputPath, encoding: .utf8)) ?? "" }
  var errors: String { (try? String(contentsOfFile: errorPath, encoding: .utf8)) ?? "" }
  /// The lines of output that are complete.
  var lines: [Substring] {
    let text = output
    guard let end = text.lastIndex(of: "\n") else { return [] }
    return text[..<end].split(separator: "\n")
  }

  func type(_ line: String) throws { try input!.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8)) }
  func endInput() { try? input!.fileHandleForWriting.close() }

  func kill(_ signal: Int32) { if process.isRunning { Glibc.kill(pid, signal) } }

  /// Waits for its end; kills it, and throws, if it does not come.
  func end(within limit: Duration = patience) async throws -> Outcome {
    do {
      try await eventually("the end of tinysns \(arguments.joined(separator: " "))", within: limit) { !isRunning }
    } catch {
      kill(SIGKILL)
      throw Late(description: "\(error)\n\(output)\(errors)")
    }
    return Outcome(
      arguments: arguments, status: process.terminationStatus,
      wasSignalled: process.terminationReason == .uncaughtSignal,
      output: output, errors: errors)
  }
}
