// The trace hashes of a few runs.

enum Golden {
  static let hashes: [(seed: UInt64, hash: UInt64)] = [
    (1, 0xb130_2f5c_f496_8ac3), (2, 0x86e1_b2e1_9929_20e0), (7, 0x3531_2b11_253e_16bd), (42, 0xebd7_fd03_0e24_b124),
  ]
}
