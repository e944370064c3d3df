// What a name and a post may be.

import Model
import Testing

@Suite struct TextRulesTests {
  @Test(arguments: [
    "a", "Z", "7", "alice", "bob_2", "a-b.c", "0x", "émile", "名前", "अमित", "\u{3a9}mega", "ｱ1", "한글", "ก็",
  ])
  func namesThatAreAllowed(name: String) {
    #expect(TextRules.fault(inName: name) == nil)
  }

  @Test(
    arguments: [
      "_a", "-a", ".a", "..", "/", "../x", "a b", " a", "a ", "a\n", "a\t", "a\0", "a/b", "a\\b", "a,b", "a:b", "a'b",
      "\u{301}a", "a\u{200b}", "a\u{202e}", "a\u{85}", "😀", "a😀", "½", "\u{feff}a", "a@b", "#a", "~",
      // Letters and marks that nobody sees.
      "bob\u{fe0f}", "bob\u{34f}", "bob\u{3164}", "\u{115f}bob", "bob\u{e0100}", "bob\u{17b4}", "bob\u{ad}",
      "bob\u{2066}", "bob\u{a0}",
      "bob\u{3000}", "bob\u{e000}", "bob\u{378}",
    ])
  func namesThatAreNot(name: String) {
    #expect(TextRules.fault(inName: name) == .badCharacter)
  }

  /// Two spellings of what looks the same are one name: the composed one.
  @Test(arguments: [
    "e\u{301}", "a\u{308}b", "\u{2126}mega", "\u{212b}", "\u{1112}\u{1161}\u{11ab}", "a\u{301}\u{327}", "\u{f900}",
  ])
  func namesInAnotherForm(name: String) {
    #expect(TextRules.fault(inName: name) == .notComposed)
  }

  /// All scalars: what is let through as a name alone is composed and can be seen.
  @Test func everyScalarAsAName() {
    var count = 0
    for value in UInt32(0)...0x10FFFF {
      guard let scalar = Unicode.Scalar(value) else { continue }
      let name = String(Character(scalar))
      guard TextRules.fault(inName: name) == nil else { continue }
      count += 1
      let properties = scalar.properties
      #expect(!properties.isWhitespace && !properties.isDefaultIgnorableCodePoint && !properties.isBidiControl)
      #expect(!properties.isFullCompositionExclusion, "U+\(String(value, radix: 16)) is never in a composed text")
    }
    #expect(count > 100_000)
  }

  @Test func nameLengthIsInBytes() {
    #expect(TextRules.fault(inName: "") == .empty)
    #expect(TextRules.fault(inName: String(repeating: "a", count: 64)) == nil)
    #expect(TextRules.fault(inName: String(repeating: "a", count: 65)) == .tooLong(limit: 64))
    #expect(TextRules.fault(inName: String(repeating: "é", count: 32)) == nil)
    #expect(TextRules.fault(inName: String(repeating: "é", count: 33)) == .tooLong(limit: 64))
  }

  @Test(arguments: [
    "a", " a", "a ", "höflich", "😀", "a\u{a0}b", "🇩🇪", "/quit", "FOLLOW bob", "1,2;3", "\u{a0}", "Â", "é",
  ])
  func postsThatAreAllowed(text: String) {
    #expect(TextRules.fault(inPost: text) == nil)
  }

  @Test(arguments: ["", " ", "      "])
  func blankPosts(text: String) {
    #expect(TextRules.fault(inPost: text) == .empty)
  }

  /// The C0 and C1 control characters and DEL.
  @Test(arguments: Array(UInt32(0)..<0x20) + Array(0x7f...0x9f))
  func controlCharactersInPosts(value: UInt32) {
    let character = Character(Unicode.Scalar(value)!)
    #expect(TextRules.fault(inPost: "a\(character)b") == .badCharacter)
    #expect(TextRules.fault(inPost: "\(character)") == .badCharacter)
    #expect(TextRules.fault(inPost: "a\(character)") == .badCharacter)
  }

  /// A reader that splits its input into lines would take them for two posts.
  @Test(arguments: ["\u{2028}", "\u{2029}", "a\u{2028}b", "a\u{2029}"])
  func lineAndParagraphSeparatorsAreLineBreaks(text: String) {
    #expect(TextRules.fault(inPost: text) == .badCharacter)
  }

  /// They share their first bytes with the separators.
  @Test(arguments: ["\u{2027}", "\u{202f}", "\u{2020}", "“a”", "…", "\u{2068}"])
  func neighboursOfTheSeparatorsAreAllowed(text: String) {
    #expect(TextRules.fault(inPost: text) == nil)
  }

  @Test func postLengthIsInBytes() {
    #expect(TextRules.fault(inPost: String(repeating: "a", count: 1_024)) == nil)
    #expect(TextRules.fault(inPost: String(repeating: "a", count: 1_025)) == .tooLong(limit: 1_024))
    #expect(TextRules.fault(inPost: String(repeating: "😀", count: 256)) == nil)
    #expect(TextRules.fault(inPost: String(repeating: "😀", count: 257)) == .tooLong(limit: 1_024))
  }

  @Test func faultsExplainThemselves() {
    #expect(TextFault.empty.explanation == "empty")
    #expect(TextFault.tooLong(limit: 64).explanation == "longer than 64 bytes")
    #expect(TextFault.badCharacter.explanation == "has a character that is not allowed")
    #expect(TextFault.notComposed.explanation.contains("NFC"))
  }
}
