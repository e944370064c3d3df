// Randomness as a value that a core is given: the system's in production, a seeded one in simulation and tests.

/// A source of random numbers.
///
/// `.system` is cryptographically secure (topics and client ids must not be guessed); `.seeded` gives the same sequence
/// for the same seed on every machine.
public enum RandomSource: RandomNumberGenerator, Sendable {
  case system
  case seeded(SplitMix64)

  public static func seeded(_ seed: UInt64) -> RandomSource { .seeded(SplitMix64(seed: seed)) }

  public mutating func next() -> UInt64 {
    switch self {
    case .system:
      var generator = SystemRandomNumberGenerator()
      return generator.next()
    case .seeded(var generator):
      let value = generator.next()
      self = .seeded(generator)
      return value
    }
  }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014). Not secure.
public struct SplitMix64: RandomNumberGenerator, Sendable {
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  @inlinable public static func mix(_ value: UInt64) -> UInt64 {
    var mixed = value
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }

  public mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    return Self.mix(state)
  }
}
