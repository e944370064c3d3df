// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0x9505_112c_f777_e595), (2, 0xa1e3_80d2_e6d8_635b), (7, 0xc4e8_60b7_cfcb_749b), (42, 0x3066_4ad1_141b_1e9d),
  ]
}
