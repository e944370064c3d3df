// The rules for what people write: names and posts.

// The standard library's own normalisation (Unicode's NFC), of which String's comparison is made. It is not public, for it may yet get
// another name; without it the tables would have to be here.
@_spi(_Unicode) import Swift

/// Why a text is refused.
public enum TextFault: Hashable, Sendable {
  case empty
  /// Longer than `limit` bytes of UTF-8.
  case tooLong(limit: Int)
  /// Shorter than `limit` bytes of UTF-8.
  case tooShort(limit: Int)
  /// Has a character that is not allowed there.
  case badCharacter
  /// Is not in Unicode's composed form, NFC.
  case notComposed

  /// Says what is wrong, for a person: "empty", "longer than 64 bytes", ….
  public var explanation: String {
    switch self {
    case .empty: return "empty"
    case .tooLong(let limit): return "longer than \(limit) bytes"
    case .tooShort(let limit): return "shorter than \(limit) bytes"
    case .badCharacter: return "has a character that is not allowed"
    case .notComposed:
      return "has letters and accents apart that belong together (it must be in Unicode's composed form, NFC)"
    }
  }
}

/// The rules for names and posts.
public enum TextRules {
  /// What is wrong with an account's name; nil if nothing.
  ///
  /// A name is 1 to `Limits.nameBytes` bytes of letters, numbers, `_`, `-` and `.`, and starts with a letter or a number: it
  /// can stand in a command line, and never looks like a path, a flag or a command. It has nothing invisible (no white space, control or
  /// format characters, no letters or marks without a picture) and is in the composed form, so that names which look alike by
  /// Unicode's own rules are the same bytes.
  public static func fault(inName name: String) -> TextFault? {
    if name.isEmpty { return .empty }
    if name.utf8.count > Limits.nameBytes { return .tooLong(limit: Limits.nameBytes) }
    var isFirst = true
    for scalar in name.unicodeScalars {
      guard isNameScalar(scalar, first: isFirst) else { return .badCharacter }
      isFirst = false
    }
    return isComposed(name) ? nil : .notComposed
  }

  private static func isComposed(_ text: String) -> Bool {
    text.utf8.allSatisfy { $0 < 0x80 } || text.unicodeScalars.elementsEqual(text._nfc)
  }

  /// What is wrong with a post's text; nil if nothing. Line breaks, tabs and other control characters are not allowed.
  ///
  /// A post stays as its author wrote it: whatever form of Unicode it is in (nothing is looked up by it), and whatever direction it turns
  /// (right-to-left text may need to say so). Who shows posts on a terminal makes them safe for it.
  public static func fault(inPost text: String) -> TextFault? {
    var text = text
    return text.withUTF8 { bytes in
      if bytes.isEmpty { return .empty }
      if bytes.count > Limits.postBytes { return .tooLong(limit: Limits.postBytes) }
      // Most are plain ASCII. Two extremes are found many bytes at a time.
      var least = UInt8.max
      var greatest = UInt8.min
      for byte in bytes {
        least = min(least, byte)
        greatest = max(greatest, byte)
      }
      if least >= 0x20, greatest > 0x20, greatest < 0x7f { return nil }
      var isBlank = true
      var index = 0
      while index < bytes.count {
        let byte = bytes[index]
        if byte < 0x20 || byte == 0x7f { return .badCharacter }
        // U+0080 … U+009F: the C1 control characters, C2 80 … C2 9F in UTF-8. Terminals obey some of them.
        if byte == 0xc2, index + 1 < bytes.count, bytes[index + 1] < 0xa0 { return .badCharacter }
        // U+2028 and U+2029, the line and paragraph separators: E2 80 A8 and E2 80 A9. Many readers of lines break there.
        if byte == 0xe2, index + 2 < bytes.count, bytes[index + 1] == 0x80, bytes[index + 2] & 0xfe == 0xa8 {
          return .badCharacter
        }
        if byte != 0x20 { isBlank = false }
        index += 1
      }
      return isBlank ? .empty : nil
    }
  }

  /// What is wrong with a new password; nil if nothing. Any characters are welcome in one.
  public static func fault(inPassword password: Password) -> TextFault? {
    let count = password.text.utf8.count
    if count < Limits.passwordBytesMin { return .tooShort(limit: Limits.passwordBytesMin) }
    if count > Limits.passwordBytesMax { return .tooLong(limit: Limits.passwordBytesMax) }
    return nil
  }

  private static func isNameScalar(_ scalar: Unicode.Scalar, first: Bool) -> Bool {
    switch scalar {
    case "a"..."z", "A"..."Z", "0"..."9": return true
    case "_", "-", ".": return !first
    default:
      // Among letters and marks, too, there are some that nobody sees: Hangul fillers, variation selectors, joiners.
      guard !scalar.isASCII, !scalar.properties.isDefaultIgnorableCodePoint else { return false }
      switch scalar.properties.generalCategory {
      case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter, .decimalNumber:
        return true
      case .nonspacingMark, .spacingMark: return !first
      default: return false
      }
    }
  }
}
