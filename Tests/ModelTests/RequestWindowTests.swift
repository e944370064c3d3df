// The window of a client's recent requests, against a model that keeps them all.

import Model
import Testing

@Suite struct RequestWindowTests {
  let account = AccountID(3)
  static let greatest: [UInt64] = [.max, .max - 1, .max - Limits.repeatWindow, .max - Limits.repeatWindow + 1, 1 << 63]

  private func window(_ numbers: [UInt64]) -> RequestWindow {
    var window = RequestWindow(account: account)
    for (index, number) in numbers.enumerated() {
      window.record(number, as: EventID(UInt64(index + 1)), at: Timestamp(milliseconds: Int64(index)))
    }
    return window
  }

  @Test func anEmptyWindowKnowsNothing() {
    let empty = RequestWindow(account: account)
    #expect(empty.outcome(of: 1) == .unknown)
    #expect(empty.outcome(of: 5_000) == .unknown)
    #expect(empty.entries == [])
    #expect(empty.newest == 0)
  }

  @Test func numbersMayComeOutOfOrder() {
    let window = window([5, 2, 9, 1, 1_000])
    #expect(window.outcome(of: 5) == .done(EventID(1)))
    #expect(window.outcome(of: 2) == .done(EventID(2)))
    #expect(window.outcome(of: 9) == .done(EventID(3)))
    #expect(window.outcome(of: 1) == .done(EventID(4)))
    #expect(window.outcome(of: 1_000) == .done(EventID(5)))
    #expect(window.outcome(of: 3) == .unknown)
    #expect(window.entries.map(\.number) == [1, 2, 5, 9, 1_000])
    #expect(window.newest == 1_000)
    #expect(window.lastEvent == EventID(5))
    #expect(window.lastTime == Timestamp(milliseconds: 4))
  }

  /// Numbers that fall into one slot make the window grow, up to its full size.
  @Test func collidingNumbersAreBothKept() {
    for distance in [2, 4, 8, 64, 512, 1_022] as [UInt64] {
      let window = window([1, 1 + distance])
      #expect(window.outcome(of: 1) == .done(EventID(1)))
      #expect(window.outcome(of: 1 + distance) == .done(EventID(2)))
    }
  }

  @Test func theWindowsEdge() {
    let kept = window([1, Limits.repeatWindow])
    #expect(kept.outcome(of: 1) == .done(EventID(1)))
    let left = window([1, Limits.repeatWindow + 1])
    #expect(left.outcome(of: 1) == .tooOld)
    #expect(left.outcome(of: 2) == .unknown)
    #expect(left.entries.map(\.number) == [Limits.repeatWindow + 1])
  }

  @Test func aTooOldNumberChangesNothingButTheLastEvent() {
    var window = window([5_000])
    window.record(1, as: EventID(9), at: .zero)
    #expect(window.outcome(of: 1) == .tooOld)
    #expect(window.outcome(of: 5_000) == .done(EventID(1)))
    #expect(window.lastEvent == EventID(9))
    // 1 and 4097 share a slot of every size.
    window.record(4_097, as: EventID(10), at: .zero)
    window.record(1, as: EventID(11), at: .zero)
    #expect(window.outcome(of: 4_097) == .done(EventID(10)))
  }

  /// A client counts as it likes: no number may stop a master, least of all one that is in the log already.
  @Test(arguments: greatest)
  func theGreatestNumbersDoNotOverflow(number: UInt64) {
    var window = RequestWindow(account: account)
    #expect(window.outcome(of: number) == .unknown)
    window.record(number, as: EventID(1), at: .zero)
    #expect(window.outcome(of: number) == .done(EventID(1)))
    #expect(window.outcome(of: 1) == .tooOld)
    window.record(7, as: EventID(2), at: .zero)
    #expect(window.entries == [RequestWindow.Entry(number: number, event: EventID(1))])
  }

  @Test func zeroIsNoNumber() {
    var window = window([1])
    window.record(0, as: EventID(2), at: .zero)
    #expect(window.outcome(of: 0) == .unknown)
    #expect(window.entries.map(\.number) == [1])
  }

  @Test(arguments: UInt64(0)..<20)
  func agreesWithAModelThatKeepsEverything(seed: UInt64) {
    var random = RandomSource.seeded(seed)
    var window = RequestWindow(account: account)
    var model: [UInt64: EventID] = [:]
    var newest: UInt64 = 0
    for step in 1...3_000 as ClosedRange<UInt64> {
      let spread = UInt64.random(in: 0..<4, using: &random) == 0 ? 2_000 : 40 as UInt64
      let number = max(1, newest + 20 - min(newest + 19, UInt64.random(in: 0..<spread, using: &random)))
      if model[number] == nil, number + Limits.repeatWindow > newest {
        window.record(number, as: EventID(step), at: Timestamp(milliseconds: Int64(step)))
        model[number] = EventID(step)
        newest = max(newest, number)
      }
      let asked = UInt64.random(in: (newest > 1_500 ? newest - 1_500 : 1)...(newest + 3), using: &random)
      let expected: RequestWindow.Outcome =
        asked + Limits.repeatWindow <= newest ? .tooOld : model[asked].map { .done($0) } ?? .unknown
      #expect(window.outcome(of: asked) == expected)
    }
    let inside = model.filter { $0.key + Limits.repeatWindow > newest }.sorted { $0.key < $1.key }
    #expect(window.entries == inside.map { RequestWindow.Entry(number: $0.key, event: $0.value) })
    #expect(stored(window) == window)
  }

  private func stored(_ window: RequestWindow) -> RequestWindow {
    RequestWindow(
      account: window.account, lastEvent: window.lastEvent, lastTime: window.lastTime, entries: window.entries)
  }

  /// How a window came to be what it is does not matter.
  @Test(
    arguments: [
      [1, 2, 3], [3, 2, 1], Array(1...1_024), Array(1...1_024) + [5_000], [1, 3, 900, 2_000], [1_024, 2_048, 3_072],
    ] as [[UInt64]])
  func isEqualToItselfStoredAndLoaded(numbers: [UInt64]) {
    let window = window(numbers)
    let loaded = stored(window)
    #expect(loaded == window)
    #expect(loaded.hashValue == window.hashValue)
    #expect(loaded.newest == window.newest)
  }

  @Test func differsWhenAnOutcomeDiffers() {
    var other = RequestWindow(account: account)
    other.record(1, as: EventID(2), at: .zero)
    var one = RequestWindow(account: account)
    one.record(2, as: EventID(2), at: .zero)
    #expect(one != other)
    #expect(RequestWindow(account: AccountID(1)) != RequestWindow(account: AccountID(2)))
  }
}
