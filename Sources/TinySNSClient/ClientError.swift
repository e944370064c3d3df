// What can go wrong for a program that uses the client.

public import Model

/// Why a request failed.
public enum ClientError: Error, Hashable, Sendable {
  /// The service refused it, and says why. Nothing happened.
  case refused(Refusal)
  /// The login was refused; no request of this client can succeed.
  case loginRefused(Refusal)
  /// No answer within the deadline. `mayHaveHappened`: the request was sent, so it may still have taken effect.
  /// `hadMaster`: there was a master to talk to at some time.
  case timedOut(mayHaveHappened: Bool, hadMaster: Bool)
  /// The client was closed.
  case closed
  /// ZeroMQ or the system failed.
  case failed(String)
}

extension ClientError: CustomStringConvertible {
  /// One line for a person.
  public var description: String {
    switch self {
    case .refused(let refusal), .loginRefused(let refusal): return refusal.message
    case .timedOut(_, hadMaster: false): return "no master is available"
    case .timedOut(mayHaveHappened: true, _): return "no answer in time; the request may still have taken effect"
    case .timedOut: return "no answer in time"
    case .closed: return "the client is closed"
    case .failed(let reason): return reason
    }
  }
}
