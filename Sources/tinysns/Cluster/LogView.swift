// The launcher's view: the logs of all processes as one, in order of time.

import Foundation
import Model
import Node

/// Follows the log files of a cluster's processes and prints what is new, one aligned line an event.
final class LogView {
  private struct File {
    let name: String
    let path: String
    var offset: UInt64
    var inode: UInt64
    var rest: [UInt8] = []
  }

  private struct Line {
    var time: String
    var order: Int
    var name: String
    var level: String
    var text: String
  }

  private var files: [File]
  private let width: Int
  /// Made with the first line: then the process has blocked its signals.
  private lazy var output = BackgroundOutput(to: STDOUT_FILENO)

  /// From the present ends of the files on.
  init(names: [String], in folder: StateFolder) {
    files = names.map { name in
      let path = folder.log(of: name)
      var status = stat()
      let exists = stat(path, &status) == 0
      return File(
        name: name, path: path, offset: exists ? UInt64(status.st_size) : 0, inode: exists ? UInt64(status.st_ino) : 0)
    }
    width = names.map(\.count).max() ?? 0
  }

  /// Prints what was written since the last call, without waiting for who reads. Returns whether anybody does.
  func show() -> Bool {
    var item = pollfd(fd: STDOUT_FILENO, events: 0, revents: 0)
    if poll(&item, 1, 0) > 0, item.revents & Int16(POLLERR | POLLHUP) != 0 { return false }
    var lines: [Line] = []
    for index in files.indices { read(index, into: &lines) }
    if lines.isEmpty { return true }
    lines.sort { ($0.time, $0.order) < ($1.time, $1.order) }
    output.write(lines.map(format))
    return !output.hasFailed
  }

  /// To be called at the end: what was printed last is not lost unless nobody reads.
  func finish() { output.finish(within: .milliseconds(500)) }

  private func read(_ index: Int, into lines: inout [Line]) {
    var status = stat()
    guard stat(files[index].path, &status) == 0 else { return }
    if UInt64(status.st_ino) != files[index].inode || UInt64(status.st_size) < files[index].offset {
      files[index].inode = UInt64(status.st_ino)  // begun anew
      files[index].offset = 0
    }
    guard UInt64(status.st_size) > files[index].offset, let handle = FileHandle(forReadingAtPath: files[index].path)
    else { return }
    defer { try? handle.close() }
    guard (try? handle.seek(toOffset: files[index].offset)) != nil,
      let data = try? handle.read(upToCount: 1 << 20), !data.isEmpty
    else { return }
    files[index].offset += UInt64(data.count)
    var bytes = files[index].rest + data
    let end = bytes.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
    files[index].rest = Array(bytes[end...])
    bytes.removeSubrange(end...)
    for part in bytes.split(separator: UInt8(ascii: "\n")) {
      lines.append(parse(String(decoding: part, as: UTF8.self), of: files[index].name, order: lines.count))
    }
  }

  /// "2026-02-03 04:05:06.789 info master-1 message"; anything else (a crash report, say) is shown as it is.
  private func parse(_ text: String, of name: String, order: Int) -> Line {
    let parts = text.split(separator: " ", maxSplits: 4)
    guard parts.count == 5, parts[0].count == 10, parts[1].count == 12 else {
      return Line(time: LogTime.now(), order: order, name: name, level: "notice", text: text)
    }
    return Line(
      time: "\(parts[0]) \(parts[1])", order: order, name: name, level: String(parts[2]), text: String(parts[4]))
  }

  private func format(_ line: Line) -> String {
    let time = String(line.time.dropFirst(11))
    let name = line.name + String(repeating: " ", count: max(0, width - line.name.count))
    let text: String
    switch line.level {
    case "error", "critical": text = Terminal.coloured(line.text, 31)
    case "warning": text = Terminal.coloured(line.text, 33)
    default: text = line.text
    }
    return "\(Terminal.dim(time))  \(Terminal.coloured(name, colour(of: line.name)))  \(text)\n"
  }

  private func colour(of name: String) -> Int {
    if name.hasPrefix("master-") { return 36 }
    if name.hasPrefix("slave-") { return 35 }
    if name.hasPrefix("client-") { return 32 }
    return 34
  }
}
