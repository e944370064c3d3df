// Which files the log is, for all who have it open.

import Glibc
import Log

/// Which files a log's database, its WAL and its shared memory are.
struct LogPlace: Equatable {
  private struct File: Equatable {
    var device: UInt64
    var inode: UInt64
  }

  private var files: [File] = []

  /// Those that the paths lead to; nil if one is missing.
  init?(of path: String) {
    for suffix in ["", "-wal", "-shm"] {
      var status = stat()
      guard stat(path + suffix, &status) == 0 else { return nil }
      files.append(File(device: UInt64(status.st_dev), inode: UInt64(status.st_ino)))
    }
  }

  /// From what `text` gave; nil for anything else.
  init?(text: some StringProtocol) {
    for line in text.split(separator: "\n") {
      let numbers = line.split(separator: " ").compactMap { UInt64($0) }
      guard numbers.count == 2 else { return nil }
      files.append(File(device: numbers[0], inode: numbers[1]))
    }
    guard files.count == 3 else { return nil }
  }

  var text: String { files.map { "\($0.device) \($0.inode)\n" }.joined() }
}

/// `log.open.lock`: shared by all who have the log open, and says which files it is. So nobody begins a new log, or opens another one that has
/// taken its place, while others go on with one that was deleted.
final class LogRegister {
  private static let textMax = 256
  private let lock: FileLock

  init(folder: String) throws(LogError) { lock = try FileLock(path: folder + "/log.open.lock") }

  /// To be called before the log is opened, by the holder of `log.create.lock`: SQLite would already do harm to files that don't belong together.
  ///
  /// - Throws: `.failed` if others have another one open, or if there was one and it is gone: that the last who had it open has died is no reason to
  ///   begin anew.
  func checkOpening(of path: String) throws(LogError) {
    let former = read()
    let exists = (sizeOfFile(path) ?? 0) > 0
    if try !lock.tryLock() {
      let place = LogPlace(of: path)
      if exists, place != nil, former == nil || place == former { return }
      // Whoever closes it last deletes its WAL. If it is still open now, it was when that was looked for.
      guard try lock.tryLock() else { throw Self.replaced(path) }
    }
    defer { lock.unlock() }
    if former != nil, !exists {
      throw LogError.failed(
        "\(path): there was one, and it is gone; if it is not to come back, `tinysns up` begins a new one")
    }
  }

  /// To be called once the log has been opened, by the same holder.
  ///
  /// - Throws: `.failed` if it has been replaced meanwhile.
  func enter(_ path: String) throws(LogError) -> LogPlace {
    guard let place = LogPlace(of: path) else { throw Self.replaced(path) }
    let former = read()
    if place != former {
      // Those who had it open may be gone, and their WAL with them.
      guard try lock.tryLock() || former == nil else { throw Self.replaced(path) }
      write(place)
    }
    try lock.lock(.shared)
    return place
  }

  private static func replaced(_ path: String) -> LogError {
    .failed("\(path): it, its -wal or its -shm was deleted, moved or replaced while others have it open")
  }

  /// To be called before the log is closed, if it is still where it was: whoever closes it last deletes its WAL.
  func leave() { lock.unlock() }

  /// What was there is not missed any more, unless somebody has it open, or is opening it.
  static func forget(in folder: String) throws(LogError) {
    let creation = try FileLock(path: folder + "/log.create.lock")
    let register = try LogRegister(folder: folder)
    guard try creation.tryLock(), try register.lock.tryLock(), register.read() != nil else { return }
    // In place, so that a disk that is full has room for the next one.
    pwrite(register.lock.descriptor, "-", 1, 0)
  }

  private func read() -> LogPlace? {
    withUnsafeTemporaryAllocation(byteCount: Self.textMax, alignment: 1) { buffer in
      let count = pread(lock.descriptor, buffer.baseAddress, buffer.count, 0)
      return count > 0 ? LogPlace(text: String(decoding: buffer[..<count], as: UTF8.self)) : nil
    }
  }

  /// Best effort: without it nothing is compared.
  private func write(_ place: LogPlace) {
    let bytes = Array(place.text.utf8)
    let count = pwrite(lock.descriptor, bytes, bytes.count, 0)
    ftruncate(lock.descriptor, count == bytes.count ? count : 0)
  }
}
