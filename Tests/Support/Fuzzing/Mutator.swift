// Bad inputs from good ones. Deterministic: the same seed, the same inputs.

import Model

/// Makes inputs for a target: good ones, and others that are nearly good.
package struct Mutator {
  /// Good inputs that are kept to start from.
  private static let poolMax = 512
  private static let numbers: [UInt8] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF]

  private let target: FuzzTarget
  private var random: SplitMix64
  private var pool: [[UInt8]]

  /// - Parameter corpus: inputs to start from, besides those that the target makes.
  package init(_ target: FuzzTarget, seed: UInt64, corpus: [[UInt8]] = []) {
    self.target = target
    // Each target has a sequence of its own.
    random = SplitMix64(seed: target.name.utf8.reduce(seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 })
    pool = corpus
  }

  package mutating func next() -> [UInt8] {
    var input: [UInt8]
    switch below(16) {
    case 0: input = (0..<below(64)).map { _ in UInt8(below(256)) }
    case 1...6 where !pool.isEmpty: input = pool[below(pool.count)]
    default:
      input = target.seed(&random)
      if pool.count < Self.poolMax { pool.append(input) } else if below(8) == 0 { pool[below(pool.count)] = input }
    }
    // Some stay as they are: what is good has to be taken for good.
    for _ in 0..<below(6) { mutate(&input) }
    if input.count > target.inputBytesMax { input.removeSubrange(target.inputBytesMax...) }
    return input
  }

  private mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &random) }

  private mutating func mutate(_ input: inout [UInt8]) {
    guard !input.isEmpty else {
      input = [UInt8(below(256))]
      return
    }
    // Often near the start, where tags and lengths are.
    let index = below(below(2) == 0 ? min(input.count, 24) : input.count)
    switch below(12) {
    case 0: input[index] ^= 1 << UInt8(below(8))
    case 1: input[index] = Self.numbers[below(Self.numbers.count)]
    case 2: input[index] = UInt8(below(256))
    case 3: input.insert(UInt8(below(256)), at: index)
    case 4: input.removeSubrange(index..<min(input.count, index + 1 + below(8)))
    case 5: input.removeSubrange(index...)
    case 6: input.insert(contentsOf: input[index...].prefix(1 + below(64)), at: index)
    case 7:
      // The front of one and the back of another.
      guard !pool.isEmpty else { return }
      let other = pool[below(pool.count)]
      input = Array(input[..<index] + other[below(other.count + 1)...])
    case 8 where !target.tokens.isEmpty:
      input.insert(contentsOf: target.tokens[below(target.tokens.count)], at: index)
    case 9 where !target.tokens.isEmpty:
      let token = target.tokens[below(target.tokens.count)]
      input.replaceSubrange(index..<min(input.count, index + token.count), with: token)
    case 10: input[index] = input[index] &+ (below(2) == 0 ? 1 : 0xFF)
    default: changeVarint(at: index, in: &input)
    }
  }

  /// A number in protobuf's way of writing becomes a neighbour, or a huge one: what lengths lie with.
  private mutating func changeVarint(at index: Int, in input: inout [UInt8]) {
    var end = index
    var value: UInt64 = 0
    while end < input.count, end - index < 9, input[end] >= 0x80 {
      value |= UInt64(input[end] & 0x7F) << UInt64(7 * (end - index))
      end += 1
    }
    if end < input.count { value |= UInt64(input[end] & 0x7F) << UInt64(7 * (end - index)) }
    let other: [UInt64] = [
      value &+ 1, value &- 1, 0, UInt64(input.count), 1 << 31, UInt64(UInt32.max), UInt64(Int64.max), .max,
    ]
    input.replaceSubrange(index..<min(input.count, end + 1), with: varint(other[below(other.count)]))
  }
}

/// A number as protobuf writes it.
func varint(_ value: UInt64) -> [UInt8] {
  var bytes: [UInt8] = []
  var rest = value
  while rest >= 0x80 {
    bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
    rest >>= 7
  }
  return bytes + [UInt8(rest)]
}
