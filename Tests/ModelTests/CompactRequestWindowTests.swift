// A master's form of the window, against a model that keeps everything, and against the window that the derived tables keep.

import Model
import Testing

@Suite struct CompactRequestWindowTests {
  private typealias Outcome = CompactRequestWindow.Outcome

  private let account = AccountID(3)

  private func window(_ numbers: [UInt64]) -> CompactRequestWindow {
    var window = CompactRequestWindow(account: account)
    for (index, number) in numbers.enumerated() {
      window.record(number, as: EventID(UInt64(index + 1)), at: Timestamp(milliseconds: Int64(index)))
    }
    return window
  }

  @Test func anEmptyWindowKnowsNothing() {
    let empty = CompactRequestWindow(account: account)
    for number in [0, 1, 64, 5_000, .max] as [UInt64] { #expect(empty.outcome(of: number) == .unknown) }
    #expect(empty.newest == 0 && empty.account == account)
  }

  @Test func keepsTheEventsOfTheNewestNumbers() {
    let window = window(Array(1...Limits.repeatWindow + 10))
    let newest = Limits.repeatWindow + 10
    for number in 1...newest {
      let expected: Outcome =
        switch newest - number {
        case ..<Limits.outcomesInMemory: .done(EventID(number))
        case ..<Limits.repeatWindow: .doneEarlier
        default: .tooOld
        }
      #expect(window.outcome(of: number) == expected)
    }
    #expect(window.outcome(of: newest + 1) == .unknown)
    #expect(window.firstEvent == EventID(1))
    #expect(window.lastEvent == EventID(newest) && window.lastTime == Timestamp(milliseconds: Int64(newest - 1)))
  }

  @Test func numbersMayComeOutOfOrder() {
    let window = window([5, 2, 9, 1, 1_000, 990, 980])
    for number in [1, 2, 5, 9, 980] as [UInt64] { #expect(window.outcome(of: number) == .doneEarlier) }
    #expect(window.outcome(of: 1_000) == .done(EventID(5)))
    #expect(window.outcome(of: 990) == .done(EventID(6)))
    #expect(window.outcome(of: 3) == .unknown && window.outcome(of: 999) == .unknown)
    #expect(window.newest == 1_000)
  }

  @Test func theWindowsEdge() {
    #expect(window([1, Limits.repeatWindow]).outcome(of: 1) == .doneEarlier)
    let left = window([1, Limits.repeatWindow + 1])
    #expect(left.outcome(of: 1) == .tooOld)
    #expect(left.outcome(of: 2) == .unknown)
  }

  @Test func aTooOldNumberChangesNothingButTheLastEvent() {
    var window = window([5_000])
    window.record(1, as: EventID(9), at: .zero)
    #expect(window.outcome(of: 1) == .tooOld)
    #expect(window.outcome(of: 5_000) == .done(EventID(1)))
    #expect(window.lastEvent == EventID(9))
    // 1 and 4097 share a place in every ring.
    window.record(4_097, as: EventID(10), at: .zero)
    window.record(1, as: EventID(11), at: .zero)
    #expect(window.outcome(of: 4_097) == .doneEarlier)
    #expect(window.lastEvent == EventID(11))
  }

  @Test(arguments: RequestWindowTests.greatest)
  func theGreatestNumbersDoNotOverflow(number: UInt64) {
    var window = CompactRequestWindow(account: account)
    #expect(window.outcome(of: number) == .unknown)
    window.record(number - 20, as: EventID(1), at: .zero)
    window.record(number, as: EventID(.max), at: .zero)
    #expect(window.outcome(of: number) == .done(EventID(.max)))
    #expect(window.outcome(of: number - 20) == .doneEarlier)
    #expect(window.outcome(of: 1) == .tooOld)
    window.record(7, as: EventID(2), at: .zero)
    #expect(window.newest == number)
  }

  @Test func zeroIsNoNumber() {
    var window = window([1])
    window.record(0, as: EventID(2), at: .zero)
    #expect(window.outcome(of: 0) == .unknown)
    #expect(window.newest == 1)
  }

  /// Small steps and great ones, forwards and backwards, and events far apart.
  @Test(arguments: UInt64(0)..<40)
  func agreesWithAModelThatKeepsEverything(seed: UInt64) {
    var random = RandomSource.seeded(seed)
    var window = CompactRequestWindow(account: account)
    var full = RequestWindow(account: account)
    var model: [UInt64: EventID] = [:]
    var newest: UInt64 = [0, 1 << 40, .max - 40_000][Int(seed % 3)]
    let pace = [1, 8, 40][Int(seed / 3 % 3)] as UInt64
    // Events that are farther apart than the other window reaches.
    let isSpread = seed % 2 == 1
    var event: UInt64 = 1
    if newest > 0 {
      window.record(newest, as: EventID(event), at: .zero)
      full.record(newest, as: EventID(event), at: .zero)
      model[newest] = EventID(event)
    }

    func expected(_ number: UInt64) -> Outcome {
      if newest >= Limits.repeatWindow, number <= newest - Limits.repeatWindow { return .tooOld }
      guard let event = model[number] else { return .unknown }
      return newest - number < Limits.outcomesInMemory ? .done(event) : .doneEarlier
    }

    for step in 0..<3_000 {
      let number: UInt64
      switch Int.random(in: 0..<20, using: &random) {
      case 0: number = newest + UInt64.random(in: 1...min(1_100, .max - newest), using: &random)
      case 1...5: number = newest - min(newest, UInt64.random(in: 0...1_100, using: &random))
      case 6...10: number = newest - min(newest, UInt64.random(in: 0...20, using: &random))
      default: number = newest + UInt64.random(in: 1...min(pace, .max - newest), using: &random)
      }
      guard newest < .max - 2_000, number > 0 else { continue }
      event += UInt64.random(in: 1...(isSpread && step % 50 == 0 ? 1 << 36 : 3), using: &random)
      if expected(number) == .unknown || expected(number) == .tooOld {
        let time = Timestamp(milliseconds: Int64(step))
        window.record(number, as: EventID(event), at: time)
        full.record(number, as: EventID(event), at: time)
        if expected(number) == .unknown { model[number] = EventID(event) }
        newest = max(newest, number)
      }
      let near = newest - min(newest, UInt64.random(in: 0...1_100, using: &random))
      let edges = [15, 16].map { newest - min(newest, $0) }
      for asked in [near, number, newest, newest + 1] + edges where asked > 0 {
        #expect(window.outcome(of: asked) == expected(asked), "\(asked) of \(newest)")
      }
      guard step % 100 == 0, newest > 0, !isSpread else { continue }
      let loaded = CompactRequestWindow(full)
      #expect(loaded.newest == window.newest && loaded.account == account)
      #expect(loaded.firstEvent == full.entries.map(\.event).min())
      #expect(loaded.lastEvent == window.lastEvent && loaded.lastTime == window.lastTime)
      for asked in max(1, newest - min(newest, 1_100))...newest + 20 {
        #expect(loaded.outcome(of: asked) == expected(asked))
        switch full.outcome(of: asked) {
        case .done(let event): #expect(event == model[asked] && expected(asked) != .unknown)
        case .unknown: #expect(expected(asked) == .unknown)
        case .tooOld: #expect(expected(asked) == .tooOld)
        }
      }
    }
  }
}
