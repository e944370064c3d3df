// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0xc4c0_54e5_98cb_4129), (2, 0x1106_fd95_c203_e086), (7, 0xb6df_7217_c258_89f1), (42, 0xef35_42b2_d032_edfd),
  ]
}
