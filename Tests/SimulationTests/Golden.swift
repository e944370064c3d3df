// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0x7d7a_a845_3f2b_3164), (2, 0x6a37_4080_0095_a44c), (7, 0x2172_bdce_97b3_64a6), (42, 0x04d7_c3cc_2a13_8f46),
  ]
}
