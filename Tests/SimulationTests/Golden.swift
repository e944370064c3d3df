// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0xce37_847f_6c46_b24d), (2, 0xf7be_d924_b3b4_755e), (7, 0x202d_4549_4eaa_dbaa), (42, 0x5467_679d_85ec_f291),
  ]
}
