// What a name and a post may be.

import Model
import Testing

@Suite struct TextRulesTests {
  @Test(arguments: ["a", "Z", "7", "alice", "bob_2", "a-b.c", "0x", "émile", "名前", "अमित", "Ωmega", "e\u{301}"])
  func namesThatAreAllowed(name: String) {
    #expect(TextRules.fault(inName: name) == nil)
  }

  @Test(
    arguments: [
      "_a", "-a", ".a", "..", "/", "../x", "a b", " a", "a ", "a\n", "a\t", "a\0", "a/b", "a\\b", "a,b", "a:b", "a'b",
      "\u{301}a", "a\u{200b}", "a\u{202e}", "a\u{85}", "😀", "a😀", "½", "\u{feff}a", "a@b", "#a", "~",
    ])
  func namesThatAreNot(name: String) {
    #expect(TextRules.fault(inName: name) == .badCharacter)
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
  }
}
