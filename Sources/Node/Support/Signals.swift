// Signals as a descriptor in the loop.

import CSpawn
import Glibc

/// The signals that tell a process to stop, and those that it does not want to hear.
public struct StopSignals: ~Copyable {
  public let fileDescriptor: Int32

  /// Tells a supervisor to start its servers anew.
  public static let restart = SIGUSR1

  /// To be called in the main thread before there are others: they inherit what is blocked.
  ///
  /// - Parameter others: more signals to hear of.
  public init(and others: [Int32] = []) throws(NodeError) {
    signal(SIGPIPE, SIG_IGN)
    signal(SIGHUP, SIG_IGN)
    let numbers = [SIGTERM, SIGINT] + others
    fileDescriptor = tinysns_signalfd(numbers, numbers.count)
    guard fileDescriptor >= 0 else { throw .system("no signal descriptor", fileDescriptor) }
  }

  deinit { close(fileDescriptor) }

  /// The signal that came, if one did.
  public borrowing func take() -> Int32? {
    let number = tinysns_signalfd_read(fileDescriptor, nil)
    return number > 0 ? number : nil
  }
}
