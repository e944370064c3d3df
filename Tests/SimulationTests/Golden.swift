// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0x288a_bd43_2a4c_6208), (2, 0xdf24_46ac_b8bc_4d40), (7, 0xe636_8bf2_fae4_6f8d), (42, 0x6d9e_7da4_8950_7f93),
  ]
}
