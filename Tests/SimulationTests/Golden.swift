// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0xa549_1afc_4a15_4f9b), (2, 0x41de_1b25_6b16_1be0), (7, 0xf91d_feb0_9ae9_1053), (42, 0xdc89_d34c_76e8_f88b),
  ]
}
