// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0xf6ce_f2a8_e612_8d64), (2, 0x7ba5_e1f5_451c_13b8), (7, 0x9fc9_ef61_d03b_9b77), (42, 0xb588_00fb_361b_039c),
  ]
}
