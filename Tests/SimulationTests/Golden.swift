// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0xa3a5_b01d_3620_5a35), (2, 0xe4ec_1e08_84e5_0ac8), (7, 0xc7b0_58cb_de5e_c445), (42, 0x88ff_0ca9_a344_c834),
  ]
}
