// What a libzmq call said when it failed, and the few helpers that turn return codes into typed throws.
// Expected outcomes (would block, unroutable) are results of the calls, never errors; see Socket.swift.
internal import CZMQ
import Glibc

/// A failed libzmq or system call.
public struct ZMQError: Error, Equatable, Sendable {
  /// The `errno` of the failure: a system code (`EADDRINUSE`) or one of libzmq's own (`ZMQError.terminatedCode`).
  public let code: Int32
  /// The name of the call that failed, such as `zmq_bind`.
  public let call: String

  public init(code: Int32, call: String) {
    self.code = code
    self.call = call
  }

  /// What libzmq says about the code, in English.
  public var text: String { String(cString: zmq_strerror(code)) }

  /// The context was shut down: close the socket, there is nothing more to do with it.
  public var isTerminated: Bool { code == Self.terminatedCode }

  /// libzmq's code for "context was terminated" (ETERM).
  public static let terminatedCode: Int32 = 156_384_712 + 53

  /// The failure of the call that has just returned on this thread.
  static func last(_ call: String) -> ZMQError { ZMQError(code: zmq_errno(), call: call) }
}

extension ZMQError: CustomStringConvertible {
  public var description: String { "\(call): \(text) (\(code))" }
}

/// Repeats a call that a signal interrupted; only for calls without effect when they fail with EINTR.
@inline(__always)
func retryingInterrupted(_ call: () -> Int32) -> Int32 {
  while true {
    let result = call()
    if result >= 0 || zmq_errno() != EINTR { return result }
  }
}

/// The libzmq that this program runs with.
public enum Library {
  /// Its version, such as (4, 3, 4).
  public static var version: (major: Int32, minor: Int32, patch: Int32) {
    var (major, minor, patch): (Int32, Int32, Int32) = (0, 0, 0)
    zmq_version(&major, &minor, &patch)
    return (major, minor, patch)
  }

  /// Whether it was built with a capability: `"curve"`, `"ipc"`, `"draft"`, … (see zmq_has(3)).
  public static func has(_ capability: String) -> Bool { zmq_has(capability) == 1 }
}
