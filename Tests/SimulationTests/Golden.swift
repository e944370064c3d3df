// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0x538a_396d_1ec2_f529), (2, 0x09db_60c9_27ee_f2d9), (7, 0xfbb7_8685_548b_c179), (42, 0xba67_f1b3_0b00_fa6e),
  ]
}
