// The pure parts of the terminal client.

import CEdit
import Core
import Foundation
import Model
import TerminalText
import Testing
import TinySNSClient

@testable import tinysns

@Suite struct TextLayoutTests {
  init() { tinysns_use_utf8() }

  private func layout(_ text: String, columns: Int) -> [Int] {
    var layout = TextLayout(columns: columns)
    layout.add(text.unicodeScalars)
    return [layout.row, layout.column]
  }

  @Test func wraps() {
    #expect(layout("", columns: 10) == [0, 0])
    #expect(layout("123456789", columns: 10) == [0, 9])
    #expect(layout("1234567890", columns: 10) == [1, 0])
    #expect(layout("12345678901", columns: 10) == [1, 1])
    #expect(layout(String(repeating: "x", count: 95), columns: 10) == [9, 5])
  }

  @Test func countsWideAndCombiningCharacters() {
    #expect(layout("日本", columns: 10) == [0, 4])
    #expect(layout("e\u{301}", columns: 10) == [0, 1])
    #expect(layout("123456789日", columns: 10) == [1, 2], "half a character does not fit at the edge")
  }

  @Test func countsWhatIsShownForControlCharacters() {
    #expect(layout("\u{1}", columns: 10) == [0, 2])
    #expect(layout("a\tb", columns: 20) == [0, 9])
    #expect(layout("a\nb", columns: 20) == [1, 1])
  }

  @Test func survivesNoWidth() { #expect(layout("abc", columns: 0) == [3, 0]) }
}

@Suite struct SafeTextTests {
  @Test func leavesWhatIsHarmless() {
    for text in ["hello", "héllo 日本語", "👩‍💻 ❤️", "שלום", ""] { #expect(SafeText.visible(text) == text) }
  }

  @Test(arguments: ["\u{1B}", "\u{9B}", "\r", "\u{202E}", "\u{2066}", "\u{2069}", "\u{2028}", "\u{FEFF}", "\u{200F}"])
  func replaces(_ bad: String) { #expect(SafeText.visible("a\(bad)b") == "a\u{FFFD}b") }
}

@Suite struct CompletionTests {
  private let names = ["alice", "albert", "bob", "日本太郎"]

  @Test func completesCommands() {
    #expect(Completion(command: "fo", names: names).insertion == "llow ")
    #expect(Completion(command: "TIM", names: names).insertion == "ELINE ")
    #expect(Completion(command: "x", names: names) == .none)
    #expect(Completion(command: "", names: names).choices == ClientLine.words.sorted())
  }

  @Test func completesNames() {
    #expect(Completion(command: "FOLLOW b", names: names).insertion == "ob ")
    #expect(Completion(command: "follow 日", names: names).insertion == "本太郎 ")
    #expect(Completion(command: "unfollow a", names: names).insertion == "l")
    #expect(Completion(command: "unfollow al", names: names).choices == ["albert", "alice"])
    #expect(Completion(command: "unfollow ", names: names).choices.count == 4)
    #expect(Completion(command: "FOLLOW bob al", names: names) == .none)
    #expect(Completion(command: "POST al", names: names) == .none)
  }

  @Test func completesInTheTimeline() {
    #expect(Completion(timeline: "/b").insertion == "ack ")
    #expect(Completion(timeline: "") == .none)
    #expect(Completion(timeline: "al") == .none)
  }
}

@Suite struct KeyReaderTests {
  private func read(_ chunks: [[UInt8]]) -> String {
    var reader = KeyReader()
    var text = String.UnicodeScalarView()
    for chunk in chunks {
      reader.append(chunk)
      while let scalar = reader.next() { text.append(scalar) }
    }
    return String(text)
  }

  @Test func readsCharactersHoweverTheyAreCut() {
    let text = "aé日👍z"
    #expect(read([Array(text.utf8)]) == text)
    #expect(read(text.utf8.map { [$0] }) == text)
  }

  @Test func replacesWhatIsNotUTF8() {
    #expect(read([[0xFF, 0x61]]) == "\u{FFFD}a")
    #expect(read([[0xC3, 0x61]]) == "\u{FFFD}a")
    #expect(read([[0x80], [0x61]]) == "\u{FFFD}a")
  }
}

@Suite struct HistoryFileTests {
  @Test func keepsTheNewestLinesForTheOwner() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("history-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let file = HistoryFile(user: "alice", environment: ["XDG_STATE_HOME": folder])
    #expect(file.load() == [])
    for number in 0...(2 * HistoryFile.entries) { file.append("line \(number) é") }
    #expect(file.load().count == HistoryFile.entries)
    #expect(file.load().last == "line \(2 * HistoryFile.entries) é")
    let attributes = try FileManager.default.attributesOfItem(atPath: file.path)
    #expect(attributes[.posixPermissions] as? Int == 0o600)
    let text = try String(contentsOfFile: file.path, encoding: .utf8)
    #expect(text.split(separator: "\n").count == HistoryFile.entries, "it was cut")
  }

  @Test func forgoesWhatCannotBeWritten() {
    let file = HistoryFile(path: "/proc/no/such/file")
    file.append("line")
    #expect(file.load() == [])
  }

  @Test func isFoundInTheHomeFolder() {
    #expect(HistoryFile(user: "bob", environment: ["HOME": "/h"]).path == "/h/.local/state/tinysns/history/bob")
  }
}

@Suite struct NoteTellerTests {
  @Test func tellsEachChangeOnce() {
    var teller = NoteTeller()
    func line(_ note: ClientNote) -> String? { teller.line(for: note, user: "alice") }
    #expect(line(.serving(master: "master-1", isNew: true, pause: nil))?.hasPrefix("Welcome, alice") == true)
    #expect(line(.lost(master: "master-1", .connectionLost)) == nil)
    #expect(line(.waiting(.seconds(1))) != nil)
    #expect(line(.waiting(.seconds(1))) == nil)
    #expect(
      line(.serving(master: "master-2", isNew: false, pause: .milliseconds(70)))
        == "master-2 serves you now, after 70 ms")
    #expect(line(.waiting(.seconds(1))) != nil)
  }
}

@Suite struct ClientLineTests {
  @Test func takesCommandWordsInAnyCase() {
    #expect(ClientLine(parsing: "FOLLOW bob") == .follow("bob"))
    #expect(ClientLine(parsing: "  follow\tBob  ") == .follow("Bob"))
    #expect(ClientLine(parsing: "Unfollow bob") == .unfollow("bob"))
    #expect(ClientLine(parsing: "list") == .list)
    #expect(ClientLine(parsing: "timeline") == .timeline)
    #expect(ClientLine(parsing: "POST  two  words ") == .post(" two  words "))
    #expect(ClientLine(parsing: "?") == .help)
    #expect(ClientLine(parsing: "quit") == .quit)
    #expect(ClientLine(parsing: "   ") == .empty)
  }

  @Test(arguments: ["FOLLOW", "FOLLOW a b", "LIST x", "POST", "TIMELINE now", "dance"])
  func saysWhatIsWrong(_ line: String) {
    guard case .wrong(let message) = ClientLine(parsing: line) else {
      Issue.record("\(line) was taken")
      return
    }
    #expect(!message.isEmpty && !message.contains("\n"))
  }

  @Test(arguments: [
    String(repeating: "x", count: 1 << 20), String(repeating: "\0", count: 1_000),
    "a" + String(repeating: "\u{301}", count: 1_000),
    "\u{1B}[31mred", "two\rlines",
  ])
  func shortensAndShowsWhatItDoesNotKnow(_ line: String) {
    guard case .wrong(let message) = ClientLine(parsing: line) else {
      Issue.record("it was taken")
      return
    }
    #expect(message.unicodeScalars.count < 120)
    #expect(SafeText.visible(message) == message)
  }
}
