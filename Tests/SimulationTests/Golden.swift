// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0x17c0_7f82_34da_9a51), (2, 0x082d_5751_00f5_3bca), (7, 0x3d31_36cd_af7b_3e91), (42, 0xaa10_1700_3873_4287),
  ]
}
