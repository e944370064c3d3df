// Something else for the processors to do, so that the cluster has to live with what is left.

import ArgumentParser
import Foundation
import Node

/// Processes that do nothing but compute, two for each processor.
///
/// `@unchecked Sendable`: started by one task, stopped by it.
final class Burners: @unchecked Sendable {
  private var processes: [Process] = []

  var count: Int { processes.count }

  init() throws {
    for _ in 0..<2 * ProcessInfo.processInfo.activeProcessorCount {
      let process = Process()
      process.executableURL = URL(fileURLWithPath: try Program.path())
      process.arguments = ["burn", String(getpid())]
      process.standardInput = FileHandle.nullDevice
      try process.run()
      processes.append(process)
    }
  }

  func stop() {
    for process in processes where process.isRunning { process.terminate() }
    processes = []
  }
}

/// One of them: a command of its own, not for people.
struct Burn: ParsableCommand {
  static let configuration = CommandConfiguration(shouldDisplay: false)
  @Argument var parent: Int32

  func run() {
    var value: UInt64 = 1
    // Ends with whoever started it, however that ended.
    while getppid() == parent {
      for _ in 0..<10_000_000 { value = value &* 6_364_136_223_846_793_005 &+ 1 }
    }
    if value == 0 { Terminal.complain("never") }
  }
}
