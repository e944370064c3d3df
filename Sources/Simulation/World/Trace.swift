// What happened: always as a hash, as text if wanted.

import Model

/// The record of a run. Its hash covers every step; the text is made only when asked for, because it costs more than the run.
struct Trace {
  struct Line {
    var step: Int
    var time: Instant
    var parties: [String]
    var text: String

    var description: String { "\(Self.seconds(time))  \(parties.joined(separator: " → ")): \(text)" }

    static func seconds(_ time: Instant) -> String {
      let micros = time.nanoseconds / 1_000
      let fraction = String(micros % 1_000_000)
      return "\(micros / 1_000_000)." + String(repeating: "0", count: 6 - fraction.count) + fraction
    }
  }

  private(set) var hash = FNV()
  private(set) var lines: [Line] = []
  let keepsText: Bool
  /// How many lines are kept; older ones go.
  let limit: Int
  /// Called with each line as it is written.
  var print: ((String) -> Void)?

  init(keepsText: Bool, limit: Int) {
    self.keepsText = keepsText
    self.limit = limit
  }

  mutating func mix(_ time: Instant, _ kind: UInt64, _ first: Int, _ second: Int = 0) {
    hash.add(time.nanoseconds)
    hash.add(kind)
    hash.add(Int64(first))
    hash.add(Int64(second))
  }

  mutating func mix(_ bytes: [UInt8]) { hash.add(bytes) }

  mutating func write(_ step: Int, _ time: Instant, _ parties: [String], _ text: String) {
    let line = Line(step: step, time: time, parties: parties, text: text)
    print?(line.description)
    lines.append(line)
    if lines.count > 2 * limit { lines.removeFirst(limit) }
  }

  /// The last `count` lines about any of `parties`; about anybody, if there are none.
  func last(_ count: Int, about parties: [String]) -> [String] {
    let concerned = parties.isEmpty ? lines : lines.filter { line in line.parties.contains { parties.contains($0) } }
    return concerned.suffix(count).map(\.description)
  }
}
