// Locks between processes, and the turns that appending processes take.

import Glibc
import Log

/// An advisory lock on a file of its own (`flock`). The kernel releases it when the process dies. Each `FileLock` is a holder
/// of its own, also within one process. (Never `flock` or even open a database's own file: closing a descriptor drops SQLite's locks.)
final class FileLock {
  let path: String
  let descriptor: Int32

  /// Opens the lock file, and creates it if need be.
  init(path: String) throws(LogError) {
    let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw LogError(path: path, doing: "open", errno: errno) }
    self.path = path
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  enum Mode {
    case shared, exclusive
    fileprivate var operation: Int32 { self == .shared ? LOCK_SH : LOCK_EX }
  }

  /// Waits for the lock, asleep in the kernel.
  func lock(_ mode: Mode = .exclusive) throws(LogError) {
    while flock(descriptor, mode.operation) != 0 {
      guard errno == EINTR else { throw LogError(path: path, doing: "lock", errno: errno) }
    }
  }

  /// Takes the lock if nobody has it.
  func tryLock() throws(LogError) -> Bool {
    while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
      if errno == EWOULDBLOCK { return false }
      guard errno == EINTR else { throw LogError(path: path, doing: "lock", errno: errno) }
    }
    return true
  }

  func unlock() { flock(descriptor, LOCK_UN) }
}

/// Whose turn it is to append.
///
/// Two locks make a turnstile: who wants a turn waits for `queue`, then for `commit`, and gives `queue` back once it has `commit`. A
/// process that has just committed can't barge past those who wait, since the next one stands in the turnstile already.
///
/// Somebody who finds itself behind at its turn must read, validate again and come back, and would forever be behind again if others
/// committed meanwhile. So it may leave with a reservation: the next turn is its own if it comes back within
/// `reservationNanoseconds`. The others wait as long as that and no longer, whatever becomes of it.
final class Turnstile {
  private let queue: FileLock
  private let commit: FileLock
  /// Names this holder in a reservation.
  private let token = UInt64.random(in: 1...UInt64.max)
  private var hasReserved = false

  /// Long enough to read a batch of events and validate one again; short enough not to be noticed when it was for nothing.
  static let reservationNanoseconds: Int64 = 25_000_000
  private static let pollMicroseconds: UInt32 = 100

  init(folder: String) throws(LogError) {
    queue = try FileLock(path: folder + "/log.queue.lock")
    commit = try FileLock(path: folder + "/log.commit.lock")
  }

  /// Waits for a turn.
  func enter() throws(LogError) {
    if hasReserved {
      hasReserved = false
      try commit.lock()
      if reservation() == token {
        writeReservation(by: 0, until: 0)
        return
      }
      commit.unlock()  // Too late: it has run out.
    }
    try queue.lock()
    defer { queue.unlock() }
    while true {
      try commit.lock()
      guard let holder = reservation() else { return }
      if holder == token {
        writeReservation(by: 0, until: 0)
        return
      }
      commit.unlock()
      usleep(Self.pollMicroseconds)
    }
  }

  /// Waits for a turn that nobody has reserved, but no longer than that. Whether there was one.
  func enter(within nanoseconds: Int64) throws(LogError) -> Bool {
    let deadline = monotonicNanoseconds() + nanoseconds
    while try !queue.tryLock() {
      guard monotonicNanoseconds() < deadline else { return false }
      usleep(Self.pollMicroseconds)
    }
    defer { queue.unlock() }
    while true {
      if try commit.tryLock() {
        if reservation() == nil { return true }
        commit.unlock()
      }
      guard monotonicNanoseconds() < deadline else { return false }
      usleep(Self.pollMicroseconds)
    }
  }

  /// Ends the turn; with a reservation, the next turn is this one's again if it comes soon.
  func leave(reserving: Bool) {
    if reserving {
      hasReserved = writeReservation(by: token, until: monotonicNanoseconds() + Self.reservationNanoseconds)
    }
    commit.unlock()
  }

  /// Who has reserved the next turn; nil if nobody or too long ago. A deadline further off than any reservation reaches is from
  /// before the machine's last start.
  private func reservation() -> UInt64? {
    var record: (token: UInt64, until: Int64) = (0, 0)
    let size = MemoryLayout.size(ofValue: record)
    guard pread(commit.descriptor, &record, size, 0) == size, record.token != 0 else { return nil }
    let rest = record.until - monotonicNanoseconds()
    return rest > 0 && rest <= Self.reservationNanoseconds ? record.token : nil
  }

  @discardableResult
  private func writeReservation(by token: UInt64, until: Int64) -> Bool {
    var record: (token: UInt64, until: Int64) = (token, until)
    let size = MemoryLayout.size(ofValue: record)
    return pwrite(commit.descriptor, &record, size, 0) == size
  }
}

func monotonicNanoseconds() -> Int64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}
