// CRC-32C, by which a damaged row of the log is found.

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4), eight bytes at a time by the "slicing-by-8" tables of Kounavis and Berry,
/// "A Systematic Approach to Building High Performance Software-Based CRC Generators", 2005.
struct CRC32C {
  private var remainder: UInt32 = 0xffff_ffff

  /// Table `k` at `256 * k`: the remainder of a byte followed by `k` zero bytes. Made once, never freed.
  private nonisolated(unsafe) static let sharedTables: UnsafePointer<UInt32> = {
    let tables = UnsafeMutablePointer<UInt32>.allocate(capacity: 8 * 256)
    for byte in 0..<256 {
      var remainder = UInt32(byte)
      for _ in 0..<8 { remainder = (remainder >> 1) ^ (remainder & 1 == 1 ? 0x82f6_3b78 : 0) }
      tables[byte] = remainder
    }
    for index in 256..<(8 * 256) {
      let previous = tables[index - 256]
      tables[index] = (previous >> 8) ^ tables[Int(previous & 0xff)]
    }
    return UnsafePointer(tables)
  }()

  private let tables = Self.sharedTables

  var value: UInt32 { ~remainder }

  /// Adds the eight bytes of `word`, the lowest first.
  @inline(__always)
  mutating func add(_ word: UInt64) {
    let low = UInt32(truncatingIfNeeded: word) ^ remainder
    let high = UInt32(truncatingIfNeeded: word >> 32)
    remainder =
      tables[0x700 + Int(low & 0xff)] ^ tables[0x600 + Int((low >> 8) & 0xff)]
      ^ tables[0x500 + Int((low >> 16) & 0xff)] ^ tables[0x400 + Int(low >> 24)]
      ^ tables[0x300 + Int(high & 0xff)] ^ tables[0x200 + Int((high >> 8) & 0xff)]
      ^ tables[0x100 + Int((high >> 16) & 0xff)] ^ tables[Int(high >> 24)]
  }

  @inline(__always)
  mutating func add(_ bytes: UnsafeBufferPointer<UInt8>) {
    guard let start = bytes.baseAddress else { return }
    let raw = UnsafeRawPointer(start)
    var offset = 0
    while offset + 8 <= bytes.count {
      add(UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
      offset += 8
    }
    while offset < bytes.count {
      remainder = (remainder >> 8) ^ tables[Int((remainder ^ UInt32(bytes[offset])) & 0xff)]
      offset += 1
    }
  }
}
