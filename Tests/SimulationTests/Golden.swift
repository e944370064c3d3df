// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0xa13c_ee6c_b4ca_1941), (2, 0x1dd7_16a8_a78a_108f), (7, 0x6166_1d57_377a_1272), (42, 0x2163_5cff_4f2e_3e7f),
  ]
}
