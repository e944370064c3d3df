// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0x927d_d308_8083_469a), (2, 0xf173_56f4_31af_e277), (7, 0x41ea_661a_4c08_089f), (42, 0xfd32_dba9_22e3_152b),
  ]
}
