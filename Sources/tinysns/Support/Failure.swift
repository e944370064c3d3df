// How a command ends: exit codes and the one line that says why.

import Foundation
import Log
import Node
import TinySNSClient
import Topology

/// Exit codes of all commands.
enum ExitStatus {
  static let done: Int32 = 0
  /// Refused or failed.
  static let failed: Int32 = 1
  /// The command line is wrong.
  static let usage: Int32 = 2
  /// No master available in time, or none that answered (EX_UNAVAILABLE of sysexits.h).
  static let unavailable: Int32 = 69
}

/// A command's failure: one line, and the exit code.
struct Failure: Error {
  var message: String
  var status: Int32

  init(_ message: String, status: Int32 = ExitStatus.failed) {
    self.message = message
    self.status = status
  }

  /// Any error as a command reports it.
  init(_ error: any Error) {
    switch error {
    case let failure as Failure: self = failure
    case let error as ClientError: self.init(error)
    case let error as NodeError: self.init(error.description)
    case let error as LogError: self.init(error.explanation)
    case let error as TopologyError: self.init(error.description)
    default: self.init("\(error)")
    }
  }

  init(_ error: ClientError) {
    switch error {
    case .timedOut(_, hadMaster: false): self.init("no master is available", status: ExitStatus.unavailable)
    case .timedOut: self.init(error.description, status: ExitStatus.unavailable)
    default: self.init(error.description)
    }
  }
}

/// Standard output and error.
enum Terminal {
  /// Prints a line. Ends the process when it can't be written; quietly when nobody reads any more.
  static func print(_ line: String) { write(line + "\n", to: STDOUT_FILENO) }

  static func complain(_ line: String) { write("tinysns: \(line)\n", to: STDERR_FILENO) }

  static func write(_ text: String, to descriptor: Int32) {
    let code = tryWrite(text, to: descriptor)
    // What standard error does not take can be told to nobody: the work goes on, and ends with its own status.
    if code == 0 || descriptor == STDERR_FILENO { return }
    if code == EPIPE { exit(ExitStatus.done) }
    complain("can't write the output: \(String(cString: strerror(code)))")
    exit(ExitStatus.failed)
  }

  /// Writes all of it; returns 0 or the error that prevented it.
  static func tryWrite(_ text: String, to descriptor: Int32) -> Int32 {
    var text = text
    return text.withUTF8 { bytes in
      var rest = UnsafeRawBufferPointer(bytes)
      while !rest.isEmpty {
        let count = Foundation.write(descriptor, rest.baseAddress, rest.count)
        if count < 0 {
          if errno == EINTR { continue }
          if errno == EAGAIN {
            var item = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            poll(&item, 1, -1)
            continue
          }
          return errno
        }
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
      return 0
    }
  }

  /// Whether a person sees the output.
  static let isShown = isatty(STDOUT_FILENO) == 1

  /// Whether there is a person to talk with, at a terminal where the cursor can be moved.
  static let isInteractive =
    isatty(STDIN_FILENO) == 1 && isShown
    && !["", "dumb"].contains(ProcessInfo.processInfo.environment["TERM"] ?? "")

  /// Colour only where a person sees it and has not declined it (no-color.org).
  static let hasColour =
    isShown && (ProcessInfo.processInfo.environment["NO_COLOR"] ?? "").isEmpty
    && ProcessInfo.processInfo.environment["TERM"] != "dumb"

  static func dim(_ text: String) -> String { hasColour ? "\u{1B}[2m\(text)\u{1B}[0m" : text }
  static func bold(_ text: String) -> String { hasColour ? "\u{1B}[1m\(text)\u{1B}[0m" : text }
  static func coloured(_ text: String, _ code: Int) -> String { hasColour ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text }
}
