// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0x4863_e60f_9f67_d53d), (2, 0xfdd4_3ee7_9950_6f10), (7, 0xb6df_7217_c258_89f1), (42, 0xef35_42b2_d032_edfd),
  ]
}
