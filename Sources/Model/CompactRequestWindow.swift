// A client's request window as a master keeps it in memory: which requests took effect, and of the newest ones as which event.

/// What a `RequestWindow` tells, in a fraction of its memory: a bit for each of the newest `Limits.repeatWindow` numbers, and the events of
/// the newest `Limits.outcomesInMemory` alone. The other events are in the log, and have to be looked up there.
///
/// Whether a request took effect is told exactly as a `RequestWindow` of the same events tells it.
public struct CompactRequestWindow: Sendable {
  public enum Outcome: Hashable, Sendable {
    /// Took effect as this event.
    case done(EventID)
    /// Took effect. As which event, the log knows.
    case doneEarlier
    /// Had no effect up to the head.
    case unknown
    /// Too far below the client's newest number to tell.
    case tooOld
  }

  /// Whose requests these are. Another account can't use the client id.
  public let account: AccountID
  /// The first event that is known of the client, if there is one: all that the window tells of took effect as it or later.
  public private(set) var firstEvent: EventID
  /// The newest event that the client caused, and its time.
  public private(set) var lastEvent: EventID
  public private(set) var lastTime: Timestamp
  /// The greatest number that took effect.
  public private(set) var newest: UInt64

  /// Two rings in one array: `events` slots, 0 for none, and behind them the bits. Request `number` has slot `number % events` if it is
  /// within so many of the newest, and bit `number % bits` in the same way. Both counts are powers of two, grown as needed.
  private var words: [UInt64]
  private var events: UInt32 = 4

  public init(account: AccountID) {
    self.account = account
    firstEvent = .max
    lastEvent = .zero
    lastTime = .zero
    newest = 0
    words = [UInt64](repeating: 0, count: Int(events) + 1)
  }

  public init(_ window: RequestWindow) {
    self.init(account: window.account)
    for entry in window.entries { record(entry.number, as: entry.event, at: window.lastTime) }
    lastEvent = window.lastEvent
    lastTime = window.lastTime
  }

  /// What became of request `number`.
  public func outcome(of number: UInt64) -> Outcome {
    if isTooOld(number) { return .tooOld }
    guard number != 0, number <= newest, newest - number < bits else { return .unknown }
    let (word, mask) = bit(of: number)
    guard words[word] & mask != 0 else { return .unknown }
    guard newest - number < slots, words[slot(of: number)] != 0 else { return .doneEarlier }
    return .done(EventID(words[slot(of: number)]))
  }

  /// Notes that request `number` took effect as `event`.
  public mutating func record(_ number: UInt64, as event: EventID, at time: Timestamp) {
    firstEvent = min(firstEvent, event)
    lastEvent = max(lastEvent, event)
    lastTime = max(lastTime, time)
    if number > newest {
      advance(to: number)
    } else {
      guard number != 0, !isTooOld(number) else { return }
      let age = newest - number
      while age >= bits { growBits() }
      while age >= slots, age < Limits.outcomesInMemory { growSlots() }
    }
    let (word, mask) = bit(of: number)
    words[word] |= mask
    if newest - number < slots { words[slot(of: number)] = event.rawValue }
  }

  private func isTooOld(_ number: UInt64) -> Bool { RequestWindow.isTooOld(number, newest: newest) }

  // MARK: The rings

  private var slots: UInt64 { UInt64(events) }
  private var bits: UInt64 { (UInt64(words.count) - slots) * 64 }

  private func slot(of number: UInt64) -> Int { Int(truncatingIfNeeded: number & (slots - 1)) }

  private func bit(of number: UInt64) -> (word: Int, mask: UInt64) {
    let place = number & (bits - 1)
    return (Int(events) + Int(truncatingIfNeeded: place >> 6), 1 << (place & 63))
  }

  /// Makes `number` the newest. The numbers that get a bit and a slot by it take those of the oldest.
  private mutating func advance(to number: UInt64) {
    let distance = number - newest
    if distance < Limits.repeatWindow {
      while bits < Limits.repeatWindow, areTaken(min(distance, bits)) { growBits() }
    }
    if distance < Limits.outcomesInMemory {
      while slots < Limits.outcomesInMemory,
        (1...min(distance, slots)).contains(where: { words[slot(of: newest + $0)] != 0 })
      {
        growSlots()
      }
    }
    clearBits(min(distance, bits))
    for step in 1...min(distance, slots) { words[slot(of: newest + step)] = 0 }
    newest = number
  }

  /// Whether any of the next `count` numbers' bits is still an older one's.
  private func areTaken(_ count: UInt64) -> Bool {
    var step: UInt64 = 1
    while step <= count {
      let (word, mask, width) = run(from: step, to: count)
      if words[word] & mask != 0 { return true }
      step += width
    }
    return false
  }

  private mutating func clearBits(_ count: UInt64) {
    var step: UInt64 = 1
    while step <= count {
      let (word, mask, width) = run(from: step, to: count)
      words[word] &= ~mask
      step += width
    }
  }

  /// Of the bits of the numbers `step` to `last` after the newest, those in the first one's word, and how many they are.
  private func run(from step: UInt64, to last: UInt64) -> (word: Int, mask: UInt64, width: UInt64) {
    let (word, first) = bit(of: newest + step)
    let width = min(last - step + 1, UInt64(first.leadingZeroBitCount) + 1)
    return (word, first &* (UInt64.max >> (64 - width)), width)
  }

  private mutating func growBits() {
    var larger = self
    larger.makeRoom(slots: Int(events), words: 2 * (words.count - Int(events)))
    for index in 0..<Int(events) { larger.words[index] = words[index] }
    for age in 0..<min(newest, bits) {
      let (word, mask) = bit(of: newest - age)
      guard words[word] & mask != 0 else { continue }
      let (place, moved) = larger.bit(of: newest - age)
      larger.words[place] |= moved
    }
    self = larger
  }

  private mutating func growSlots() {
    var larger = self
    larger.makeRoom(slots: 2 * Int(events), words: words.count - Int(events))
    for age in 0..<min(newest, slots) { larger.words[larger.slot(of: newest - age)] = words[slot(of: newest - age)] }
    for index in Int(events)..<words.count { larger.words[index + Int(events)] = words[index] }
    self = larger
  }

  /// Empty rings of exactly this size: appending would leave room to spare.
  private mutating func makeRoom(slots: Int, words count: Int) {
    events = UInt32(slots)
    words = [UInt64](repeating: 0, count: slots + count)
  }
}
