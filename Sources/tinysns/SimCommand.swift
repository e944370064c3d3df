// `tinysns sim`: the whole cluster in simulation.

import ArgumentParser
import Foundation
import Simulation

struct Sim: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sim",
    abstract: "Simulate the cluster under random faults, and check what must always hold.",
    discussion: """
      Each seed is a cluster of its own, with its own people, network, disks and faults; the same seed gives the same run on every \
      machine. A violation is reported with its seed, and ends the command with status 1.
      """)

  @Option(help: "Run this seed.")
  var seed: UInt64?

  @Option(help: ArgumentHelp("Run these seeds: the first and the last.", valueName: "A..B"))
  var seeds: String?

  @Flag(help: "Print everything that happens; with --seed.")
  var trace = false

  @Flag(help: "Print how often each situation that has to be survived was met.")
  var situations = false

  @Flag(help: "Print a line of JSON.")
  var json = false

  @Option(help: "Seeds to run at the same time; 0: one a processor.")
  var workers = 0

  func validate() throws {
    _ = try range()
    if trace, seed == nil { throw ValidationError("--trace needs --seed") }
    if trace, json { throw ValidationError("--trace and --json exclude each other") }
    if workers < 0 || workers > 256 { throw ValidationError("--workers is 0 to 256") }
  }

  func run() throws {
    let status = SimulationCommand.run(
      seeds: try range(), trace: trace, situations: situations, json: json, workers: workers
    ) { line in
      FileHandle.standardOutput.write(Data((line + "\n").utf8))
    }
    if status != 0 { Foundation.exit(status) }
  }

  private func range() throws -> ClosedRange<UInt64> {
    if let seed, seeds == nil { return seed...seed }
    guard seed == nil, let seeds else { throw ValidationError("give --seed N or --seeds A..B") }
    let ends = seeds.split(separator: ".", omittingEmptySubsequences: true).map { UInt64($0) }
    guard seeds.contains(".."), ends.count == 2, let first = ends[0], let last = ends[1], first <= last,
      last - first < 1 << 32
    else { throw ValidationError("--seeds is A..B, as in 1..300") }
    return first...last
  }
}
