// How a request window lies in one row of the index.

import Model

/// A window's entries, packed: for each one in order of number, the distance to the number before and the distance to the event
/// before (zigzag), as variable-length integers. Three bytes an entry are usual.
enum WindowCodec {
  static func encode(_ entries: [RequestWindow.Entry]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(entries.count * 3 + 8)
    var number: UInt64 = 0
    var event: Int64 = 0
    for entry in entries {
      append(entry.number - number, to: &bytes)
      let step = entry.event.stored - event
      append(UInt64(bitPattern: (step << 1) ^ (step >> 63)), to: &bytes)
      number = entry.number
      event = entry.event.stored
    }
    return bytes
  }

  /// The entries; nil if the bytes are not what `encode` makes.
  static func decode(_ bytes: UnsafeBufferPointer<UInt8>) -> [RequestWindow.Entry]? {
    var entries: [RequestWindow.Entry] = []
    var offset = 0
    var number: UInt64 = 0
    var event: Int64 = 0
    while offset < bytes.count {
      guard let numberStep = next(in: bytes, at: &offset), let eventStep = next(in: bytes, at: &offset) else {
        return nil
      }
      number &+= numberStep
      event &+= Int64(bitPattern: eventStep >> 1) ^ -Int64(bitPattern: eventStep & 1)
      guard numberStep > 0, event > 0 else { return nil }
      entries.append(RequestWindow.Entry(number: number, event: EventID(stored: event)))
    }
    return entries
  }

  private static func append(_ value: UInt64, to bytes: inout [UInt8]) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }

  private static func next(in bytes: UnsafeBufferPointer<UInt8>, at offset: inout Int) -> UInt64? {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while offset < bytes.count, shift < 64 {
      let byte = bytes[offset]
      offset += 1
      value |= UInt64(byte & 0x7f) << shift
      if byte < 0x80 { return value }
      shift += 7
    }
    return nil
  }
}
