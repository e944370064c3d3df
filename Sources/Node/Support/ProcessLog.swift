// A process's own log: one line an event, to standard error, where its supervisor has put a file.

import Glibc
public import Logging
import Model

/// Writes each entry as one line: local date and time to the millisecond, level, the process's name, the message.
///
/// The message is for people, and `tinysns up` shows it as it is.
public struct ProcessLogHandler: LogHandler {
  private let name: String
  private let descriptor: Int32
  public var metadata: Logger.Metadata = [:]
  public var logLevel: Logger.Level = .info

  /// - Parameter descriptor: where to write; standard error unless told otherwise.
  public init(name: String, descriptor: Int32 = STDERR_FILENO) {
    self.name = name
    self.descriptor = descriptor
  }

  public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  public func log(event: LogEvent) {
    // A single write, so that lines of threads don't mix. Whatever came from outside may hold line breaks.
    let text = String(event.message.description.unicodeScalars.map { $0.value < 0x20 ? " " : Character($0) })
    let line = "\(LogTime.now()) \(event.level.rawValue) \(name) \(text)\n"
    let bytes = Array(line.utf8)
    _ = write(descriptor, bytes, bytes.count)
  }
}

/// Times as logs show them.
public enum LogTime {
  /// Now, in local time: `2026-02-03 04:05:06.789`.
  public static func now() -> String {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    var parts = tm()
    localtime_r(&time.tv_sec, &parts)
    let date = "\(parts.tm_year + 1900)-\(padded(parts.tm_mon + 1))-\(padded(parts.tm_mday))"
    let clock = "\(padded(parts.tm_hour)):\(padded(parts.tm_min)):\(padded(parts.tm_sec))"
    return "\(date) \(clock).\(padded(Int32(time.tv_nsec / 1_000_000), 3))"
  }

  private static func padded(_ number: Int32, _ width: Int = 2) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
  }
}

/// Lets so many entries a minute through, each once, and says afterwards how many it held back: whoever sends garbage or knocks without
/// end does not fill the disk.
struct ComplaintBook {
  private var minuteStart = Instant.zero
  private var admitted: Set<String> = []
  private var heldBack = 0

  /// Whether a complaint may be written now, and how many of the last minute were not.
  mutating func admit(_ what: String, at now: Instant) -> (isAdmitted: Bool, heldBack: Int) {
    var before = 0
    if now - minuteStart > .seconds(60) || minuteStart == .zero {
      before = heldBack
      minuteStart = now
      admitted.removeAll(keepingCapacity: true)
      heldBack = 0
    }
    if admitted.count < Limits.complaintsPerMinute, admitted.insert(what).inserted { return (true, before) }
    heldBack += 1
    return (false, before)
  }
}
