// Random numbers: a seed gives the same sequence on every machine.

import Model
import Testing

@Suite struct RandomSourceTests {
  static let golden: [UInt64: [UInt64]] = [
    1_234_567: [
      6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423, 4_593_380_528_125_082_431,
      16_408_922_859_458_223_821,
    ],
    0: [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f],
  ]

  /// The reference implementation's numbers (prng.di.unimi.it/splitmix64.c).
  @Test(arguments: [1_234_567, 0] as [UInt64])
  func splitMixIsTheReferences(seed: UInt64) throws {
    let numbers = try #require(Self.golden[seed])
    var generator = SplitMix64(seed: seed)
    #expect(numbers.map { _ in generator.next() } == numbers)
    var source = RandomSource.seeded(seed)
    #expect(numbers.map { _ in source.next() } == numbers)
  }

  @Test func aCopyGoesOnByItself() {
    var one = RandomSource.seeded(1)
    _ = one.next()
    var other = one
    #expect((0..<5).map { _ in one.next() } == (0..<5).map { _ in other.next() })
  }

  @Test func theSystemsNumbersDiffer() {
    var source = RandomSource.system
    #expect(Set((0..<64).map { _ in source.next() }).count == 64)
  }
}
