// The checkers can fail: each deliberate fault is caught, and soon.

import Simulation
import Testing

@Suite struct DefectTests {
  @Test(arguments: Defect.allCases) func isCaught(_ defect: Defect) {
    for seed in UInt64(1)...1_000 {
      if let violation = Simulation.run(seed: seed, options: Simulation.Options(trace: false, defect: defect)).violation
      {
        print("| \(defect.rawValue) | \(violation.invariant) | \(seed) |")
        return
      }
    }
    Issue.record("\"\(defect.rawValue)\" is not caught within 1,000 seeds")
  }
}
