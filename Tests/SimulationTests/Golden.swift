// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0xc4c0_54e5_98cb_4129), (2, 0xaa90_99c7_de14_bd3e), (7, 0xb6df_7217_c258_89f1), (42, 0xc40c_c275_34de_490f),
  ]
}
