// Where text ends up on a terminal, and what of it is safe to show. Pure.

import CEdit

/// Rows and columns of a text that wraps at a terminal's right edge, as libedit lays it out.
package struct TextLayout: Equatable {
  /// Of the cursor after the text, from 0.
  package private(set) var row = 0
  package private(set) var column = 0
  package let columns: Int

  package init(columns: Int) { self.columns = max(1, columns) }

  package mutating func add(_ text: some Sequence<Unicode.Scalar>) {
    for scalar in text { add(scalar) }
  }

  package mutating func add(_ scalar: Unicode.Scalar) {
    switch scalar {
    case "\n": next()
    case "\t": advance(8 - column % 8)
    case "\0"..."\u{1F}", "\u{7F}": for _ in 0..<2 { advance(1) }  // shown as ^A
    default:
      let width = Int(wcwidth(wchar_t(scalar.value)))
      if width >= 0 {
        advance(width)
      } else {
        for _ in 0..<(scalar.value > 0xFFFF ? 8 : 7) { advance(1) }  // shown as \U+1F600
      }
    }
  }

  private mutating func advance(_ width: Int) {
    if column + width > columns { next() }
    column += width
    if column >= columns { next() }
  }

  private mutating func next() {
    row += 1
    column = 0
  }
}

/// What other people wrote, made safe for a terminal.
package enum SafeText {
  /// Replaces what would act on the terminal instead of being seen: control characters, line separators, and those that turn the
  /// direction of all that follows, the prompt included.
  package static func visible(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isUnsafe) else { return text }
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars { result.append(isUnsafe(scalar) ? "\u{FFFD}" : scalar) }
    return String(result)
  }

  private static func isUnsafe(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "\0"..."\u{1F}", "\u{7F}"..."\u{9F}": return true
    case "\u{061C}", "\u{200E}", "\u{200F}", "\u{202A}"..."\u{202E}", "\u{2066}"..."\u{206F}": return true
    case "\u{2028}", "\u{2029}", "\u{FEFF}", "\u{FFF9}"..."\u{FFFB}", "\u{E0000}"..."\u{E001F}": return true
    default: return false
    }
  }
}
