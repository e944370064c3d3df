// A run leaves nothing behind: many thousands are made in one process.

import Testing

@testable import Simulation

@Suite struct TearDownTests {
  private struct Held {
    weak var process: Process?
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func noProcessOutlivesItsRun(seed: UInt64) {
    var held: [Held] = []
    do {
      let run = Run(seed: seed, options: Simulation.Options(), print: nil)
      run.go()
      held = run.world.everyProcess.map { Held(process: $0) }
      run.world.tearDown()
    }
    let left = held.compactMap { $0.process?.name }
    #expect(held.count > 3)
    #expect(left == [])
  }
}
