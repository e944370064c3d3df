// Draws from a seeded generator that come out the same on every machine and with every version of the standard library.

import Model

extension SplitMix64 {
  /// 0 ..< `bound`.
  mutating func below(_ bound: Int) -> Int {
    bound <= 1 ? 0 : Int(next().multipliedFullWidth(by: UInt64(bound)).high)
  }

  mutating func int(_ range: ClosedRange<Int>) -> Int {
    range.lowerBound + below(range.upperBound - range.lowerBound + 1)
  }

  /// True `percent` times of a hundred.
  mutating func percent(_ percent: Int) -> Bool { below(100) < percent }

  mutating func interval(_ range: ClosedRange<Interval>) -> Interval {
    range.lowerBound + Interval(nanoseconds: Int64(below(Int((range.upperBound - range.lowerBound).nanoseconds) + 1)))
  }

  /// Around `mean`, sometimes much less, sometimes up to four times as much: the product of two draws, no logarithm, because
  /// that may differ in the last bit between machines.
  mutating func gap(around mean: Interval) -> Interval {
    let first = Int64(below(1 << 10))
    let second = Int64(below(1 << 10))
    return Interval(nanoseconds: mean.nanoseconds / (1 << 18) * (first * second) + 1)
  }

  mutating func pick<Element>(_ elements: [Element]) -> Element? {
    elements.isEmpty ? nil : elements[below(elements.count)]
  }
}

/// FNV-1a, by words and bytes.
struct FNV {
  private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

  mutating func add(_ word: UInt64) { value = (value ^ word) &* 0x100_0000_01b3 }
  mutating func add(_ number: Int64) { add(UInt64(bitPattern: number)) }

  mutating func add(_ bytes: [UInt8]) {
    // Eight at a time: the trace's hash covers every byte that is sent.
    bytes.withUnsafeBytes { buffer in
      var index = 0
      while index + 8 <= buffer.count {
        add(UInt64(littleEndian: buffer.loadUnaligned(fromByteOffset: index, as: UInt64.self)))
        index += 8
      }
      while index < buffer.count {
        add(UInt64(buffer[index]))
        index += 1
      }
    }
  }
}
