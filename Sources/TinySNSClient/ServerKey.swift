// What a cluster proves itself by.

import ZeroMQ

/// The public key of a cluster's servers: a client talks to nobody who does not have its secret.
public struct ServerKey: Hashable, Sendable {
  private enum Source: Hashable {
    case key(CurveKey)
    case file(String)
  }

  private let source: Source

  private init(_ source: Source) { self.source = source }

  /// The key itself, 40 characters of Z85 as `tinysns keys` prints it; nil for anything else.
  public init?(_ text: String) {
    guard let key = CurveKey(z85: text) else { return nil }
    self.init(.key(key))
  }

  /// The key in a file: `keys/cluster.pub` in the state folder of a cluster on this machine. It is read whenever the router is
  /// asked for the way, so it may come later, and may change.
  public static func file(_ path: String) -> ServerKey { ServerKey(.file(path)) }

  /// The key as it is now; nil if there is none yet.
  func current() -> CurveKey? {
    switch source {
    case .key(let key): return key
    case .file(let path): return CurveKey(file: path)
    }
  }
}
