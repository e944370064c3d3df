// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0x84ce_7ec7_8526_4fde), (2, 0x5941_e5aa_45c7_e33a), (7, 0xa21b_3a86_952d_368c), (42, 0x5309_e8bf_9e5b_e7df),
  ]
}
