// `tinysns sim`: runs of many seeds, on all processors, and what to print.

import Dispatch
import Glibc
import Model
import Synchronization

/// The logic of the subcommand `sim`.
public enum SimulationCommand {
  /// Runs `seeds`, each with a cluster of its own, and prints the outcome through `print`.
  ///
  /// A violation is printed with its seed, step, invariant and the last events of the parties concerned; so that seed is run a
  /// second time, with its trace.
  ///
  /// - Parameters:
  ///   - trace: print everything that happens; for one seed.
  ///   - situations: print how often each situation that has to be survived was met.
  ///   - json: print one line of JSON instead.
  ///   - workers: how many seeds run at the same time; 0: one a processor.
  /// - Returns: the exit code, 0 if there was no violation, else 1.
  public static func run(
    seeds: ClosedRange<UInt64>, trace: Bool = false, situations: Bool = false, json: Bool = false, workers: Int = 0,
    print: @escaping (String) -> Void
  ) -> Int32 {
    let clock = ContinuousClock()
    let start = clock.now
    let count = Int(seeds.upperBound - seeds.lowerBound) + 1
    let outcome: SimulationTotals
    if trace {
      var totals = SimulationTotals()
      for seed in seeds {
        totals.add(Simulation.run(seed: seed, options: Simulation.Options(trace: true)) { print($0) })
      }
      outcome = totals
    } else {
      outcome = run(seeds, workers: workers)
    }
    let failures = outcome.failures
    let elapsed = Interval(clock.now - start)
    let simulatedSeconds = decimal(outcome.simulated, 1)
    let wallSeconds = decimal(elapsed.nanoseconds, 3)
    if json {
      let failedSeeds = failures.map { String($0.seed) }.joined(separator: ",")
      let failed = failures.isEmpty ? "" : ",\"failed_seeds\":[\(failedSeeds)]"
      print(
        "{\"seeds\":\(count),\"violations\":\(failures.count),\"simulated_s\":\(simulatedSeconds),\"wall_s\":\(wallSeconds)"
          + failed + "}")
      return failures.isEmpty ? 0 : 1
    }
    for failure in failures.prefix(20) { report(failure, print) }
    if failures.count > 20 {
      print(
        "… and \(failures.count - 20) more: seeds \(failures.dropFirst(20).map { String($0.seed) }.joined(separator: " "))"
      )
    }
    if count == 1, let hash = outcome.lastHash { print("seed \(seeds.lowerBound): trace hash \(hexadecimal(hash))") }
    print(
      "\(count) seed\(count == 1 ? "" : "s"), \(failures.count) violation\(failures.count == 1 ? "" : "s"); "
        + "\(outcome.faults) faults, \(outcome.events) events, \(outcome.answered) answers, \(outcome.delivered) posts shown"
    )
    if situations {
      for situation in Situation.allCases { print("  \(outcome.situations[situation]) x \(situation)") }
    } else if !outcome.situations.missing.isEmpty {
      print("not met: \(outcome.situations.missing.map { "\($0)" }.joined(separator: ", "))")
    }
    print(
      "\(decimal(outcome.simulated / 3_600, 2)) cluster-hours in \(wallSeconds) s: "
        + "\(outcome.simulated / max(1, elapsed.nanoseconds)) times real time")
    return failures.isEmpty ? 0 : 1
  }

  /// Runs `seeds`, several at the same time.
  ///
  /// - Parameter workers: how many; 0: one a processor.
  package static func run(_ seeds: ClosedRange<UInt64>, workers: Int = 0) -> SimulationTotals {
    let count = Int(seeds.upperBound - seeds.lowerBound) + 1
    let workers = min(count, workers > 0 ? workers : max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))))
    let found = Mutex<(next: UInt64, totals: SimulationTotals)>((seeds.lowerBound, SimulationTotals()))
    SeedsInProgress.begin(workers)
    DispatchQueue.concurrentPerform(iterations: workers) { worker in
      var own = SimulationTotals()
      while true {
        // Runs differ in length: whoever is free takes the next.
        let seed = found.withLock { found -> UInt64? in
          guard found.next <= seeds.upperBound else { return nil }
          defer { found.next += 1 }
          return found.next
        }
        guard let seed else { break }
        SeedsInProgress.set(seed, for: worker)
        own.add(Simulation.run(seed: seed))
      }
      found.withLock { $0.totals.add(own) }
    }
    SeedsInProgress.end()
    return found.withLock { found in
      found.totals.failures.sort { $0.seed < $1.seed }
      return found.totals
    }
  }

  private static func report(_ failure: SimulationResult, _ print: (String) -> Void) {
    guard let violation = failure.violation else { return }
    print(
      "seed \(failure.seed), step \(violation.step), \(Trace.Line.seconds(violation.time)) s: broken: \(violation.invariant)"
    )
    print("  \(violation.message)")
    let again = Simulation.run(seed: failure.seed, options: Simulation.Options(trace: true))
    for line in again.lastEvents { print("  | \(line.prefix(300))") }
    print("  all of it: tinysns sim --seed \(failure.seed) --trace")
  }

  /// Nanoseconds as seconds with so many decimals, without Foundation.
  static func decimal(_ nanoseconds: Int64, _ places: Int) -> String {
    var unit: Int64 = 1_000_000_000
    for _ in 0..<places { unit /= 10 }
    let value = (nanoseconds + unit / 2) / unit
    var divisor: Int64 = 1
    for _ in 0..<places { divisor *= 10 }
    let fraction = String(value % divisor)
    return "\(value / divisor)." + String(repeating: "0", count: max(0, places - fraction.count)) + fraction
  }

  static func hexadecimal(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}

/// What many runs came to.
package struct SimulationTotals: Sendable {
  package internal(set) var failures: [SimulationResult] = []
  package internal(set) var situations = Situations()
  var simulated: Int64 = 0
  var faults = 0
  var events = 0
  var answered = 0
  var delivered = 0
  var lastHash: UInt64?

  mutating func add(_ result: SimulationResult) {
    if result.violation != nil { failures.append(result) }
    situations.add(result.situations)
    simulated += result.simulated.nanoseconds
    faults += result.faults
    events += result.events
    answered += result.answered
    delivered += result.delivered
    lastHash = result.traceHash
  }

  mutating func add(_ other: SimulationTotals) {
    failures += other.failures
    situations.add(other.situations)
    simulated += other.simulated
    faults += other.faults
    events += other.events
    answered += other.answered
    delivered += other.delivered
    lastHash = other.lastHash ?? lastHash
  }
}

/// Says which seeds were running if the program traps: a core's `preconditionFailure` ends the process.
private enum SeedsInProgress {
  // Written before the handlers are set and read by them; a torn read would only misprint a number.
  nonisolated(unsafe) static var seeds = UnsafeMutablePointer<UInt64>.allocate(capacity: 256)
  nonisolated(unsafe) static var count = 0

  static func begin(_ workers: Int) {
    seeds.initialize(repeating: 0, count: 256)
    count = min(workers, 256)
    for number in [SIGILL, SIGTRAP, SIGABRT, SIGSEGV] {
      signal(number) { number in
        var line: [CChar] = Array(repeating: 0, count: 64)
        for index in 0..<SeedsInProgress.count {
          var value = SeedsInProgress.seeds[index]
          var position = 63
          line[position] = 10
          repeat {
            position -= 1
            line[position] = CChar(48 + value % 10)
            value /= 10
          } while value > 0
          let prefix: StaticString = "seed in progress: "
          _ = write(2, prefix.utf8Start, prefix.utf8CodeUnitCount)
          line.withUnsafeBufferPointer { _ = write(2, $0.baseAddress! + position, 64 - position) }
        }
        signal(number, SIG_DFL)
        raise(number)
      }
    }
  }

  static func set(_ seed: UInt64, for worker: Int) { if worker < 256 { seeds[worker] = seed } }

  static func end() {
    for number in [SIGILL, SIGTRAP, SIGABRT, SIGSEGV] { signal(number, SIG_DFL) }
  }
}
