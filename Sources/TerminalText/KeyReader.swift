// What comes from the keyboard. Pure.

/// Bytes from the terminal, as characters.
package struct KeyReader {
  private var bytes: [UInt8] = []
  private var start = 0

  package init() {}

  /// The next whole character, if it has come. What is not UTF-8 becomes U+FFFD.
  package mutating func next() -> Unicode.Scalar? {
    guard start < bytes.count else { return nil }
    let first = bytes[start]
    let length = first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
    let rest = bytes[start...].prefix(length)
    // Incomplete, and not wrong already.
    if rest.count < length, rest.dropFirst().allSatisfy({ $0 & 0xC0 == 0x80 }) { return nil }
    var decoder = UTF8()
    var iterator = rest.makeIterator()
    switch decoder.decode(&iterator) {
    case .scalarValue(let scalar):
      start += UTF8.width(scalar)
      return scalar
    case .emptyInput, .error:
      start += 1
      return "\u{FFFD}"
    }
  }

  package mutating func append(_ more: some Sequence<UInt8>) {
    bytes.removeFirst(start)
    start = 0
    bytes += more
  }
}
