// Runs of many seeds: nothing may be violated, and the same seed must give the same run.

import Simulation
import Testing

@Suite struct SeedTests {
  /// And the runs come across everything that there is to survive: a simulation that never meets a situation proves nothing
  /// about it.
  @Test func nothingIsViolatedAndEverythingIsMet() {
    let totals = SimulationCommand.run(1...600)
    for failure in totals.failures.prefix(10) {
      Issue.record("seed \(failure.seed): \(failure.violation!.invariant): \(failure.violation!.message)")
    }
    #expect(totals.failures.isEmpty)
    #expect(totals.situations.missing.isEmpty)
  }

  /// The same seed gives the same run, in another process and on another machine, too: the hashes stand here. They change with
  /// every change of what the cluster says or does.
  @Test(arguments: Golden.hashes) func sameSeedSameRun(seed: UInt64, hash: UInt64) {
    let result = Simulation.run(seed: seed)
    #expect(
      result.traceHash == hash,
      "seed \(seed) has the trace hash 0x\(String(result.traceHash, radix: 16)); if the cluster's behaviour was changed, put it into Golden.swift"
    )
    #expect(Simulation.run(seed: seed).traceHash == result.traceHash)
  }

  @Test func aTraceDoesNotChangeTheRun() {
    var count = 0
    let traced = Simulation.run(seed: 3, options: Simulation.Options(trace: true)) { _ in count += 1 }
    #expect(traced.traceHash == Simulation.run(seed: 3).traceHash)
    #expect(count > 1_000)
  }

  @Test func jsonIsOneLine() {
    let lock = Lines()
    #expect(SimulationCommand.run(seeds: 1...2, json: true) { lock.add($0) } == 0)
    #expect(lock.all.count == 1)
    #expect(lock.all[0].hasPrefix("{\"seeds\":2,\"violations\":0,\"simulated_s\":"))
  }
}

/// Collects what is printed.
final class Lines {
  private(set) var all: [String] = []
  func add(_ line: String) { all.append(line) }
}
