// The lines that a user typed in earlier sessions.

import Foundation

/// A text file with a line an entry, oldest first, for its owner's eyes only. Sessions of one user at the same time share it. What can't be
/// read or written is forgone: a history is a comfort, no reason to fail.
struct HistoryFile {
  /// Entries kept.
  static let entries = 500
  let path: String

  init(path: String) { self.path = path }

  /// `~/.local/state/tinysns/history/USER`, or where XDG_STATE_HOME says.
  init(user: String, environment: [String: String] = ProcessInfo.processInfo.environment) {
    let state =
      environment["XDG_STATE_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil }
      ?? (environment["HOME"] ?? NSHomeDirectory()) + "/.local/state"
    path = "\(state)/tinysns/history/\(user)"
  }

  /// The newest entries. Cuts a file that has grown too long.
  func load() -> [String] {
    guard let data = FileManager.default.contents(atPath: path) else { return [] }
    let lines = String(decoding: data, as: UTF8.self).split(separator: "\n")
    let kept = lines.suffix(Self.entries).map(String.init)
    if lines.count > 2 * Self.entries {
      let temporary = "\(path).\(getpid())"
      if write(kept.map { $0 + "\n" }.joined(), to: temporary, O_TRUNC), rename(temporary, path) != 0 {
        unlink(temporary)
      }
    }
    return kept
  }

  func append(_ line: String) {
    let folder = (path as NSString).deletingLastPathComponent
    if access(folder, F_OK) != 0 {
      try? FileManager.default.createDirectory(
        atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    }
    _ = write(line + "\n", to: path, O_APPEND)
  }

  private func write(_ text: String, to path: String, _ flag: Int32) -> Bool {
    let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flag, 0o600)
    guard file >= 0 else { return false }
    defer { close(file) }
    let bytes = Array(text.utf8)
    return Foundation.write(file, bytes, bytes.count) == bytes.count
  }
}
