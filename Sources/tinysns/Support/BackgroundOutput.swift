// Output that its writer does not wait for.

import Foundation
import Model
import Runtime
import Synchronization

/// Writes to a descriptor on a thread of its own: who reads may pause (Ctrl-S, a connection that hangs) without holding up who writes.
///
/// To be made when the signals that the process takes from a descriptor are blocked: its thread must not get them either.
final class BackgroundOutput: Sendable {
  /// What may wait; further lines are dropped, and counted.
  private static let bytesMax = 1 << 20

  private struct State {
    var waiting = 0
    var skipped = 0
    var hasFailed = false
  }

  private let state = Mutex(State())
  private let texts = Mailbox<String>()

  init(to descriptor: Int32) {
    _ = WorkerThread {
      while let batch = self.texts.takeAll() {
        for text in batch {
          let code = Terminal.tryWrite(text, to: descriptor)
          self.state.withLock { state in
            state.waiting -= text.utf8.count
            if code != 0 { state.hasFailed = true }
          }
        }
      }
    }
  }

  /// Whether something could not be written: nobody reads any more.
  var hasFailed: Bool { state.withLock { $0.hasFailed } }

  func write(_ lines: [String]) {
    let text: String? = state.withLock { state in
      guard state.waiting < Self.bytesMax else {
        state.skipped += lines.count
        return nil
      }
      let note = state.skipped > 0 ? "… \(state.skipped) lines, that nobody read in time, are left out\n" : ""
      state.skipped = 0
      let text = note + lines.joined()
      state.waiting += text.utf8.count
      return text
    }
    if let text { texts.put(text) }
  }

  /// Waits until all is written, but no longer than that.
  func finish(within time: Interval) {
    let deadline = Clock.now() + time
    while state.withLock({ $0.waiting > 0 && !$0.hasFailed }), Clock.now() < deadline { usleep(1_000) }
  }
}
