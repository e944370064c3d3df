// The login that a user of this machine has kept: a session token, for its owner's eyes only.

import Foundation
import Model
import Node

/// A file with the token of one user at one cluster, outside the cluster's own folder. What can't be read or written is forgone:
/// the password is asked for again then.
struct SavedLogin: Sendable {
  private let path: String

  /// `~/.local/state/tinysns/logins/CLUSTER/USER.token`, or where XDG_STATE_HOME says.
  init(
    user: String, at deployment: Deployment, environment: [String: String] = ProcessInfo.processInfo.environment
  ) {
    let state =
      environment["XDG_STATE_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil }
      ?? (environment["HOME"] ?? NSHomeDirectory()) + "/.local/state"
    path = "\(state)/tinysns/logins/\(Self.name(of: deployment))/\(user).token"
  }

  /// Tells clusters apart: by the router's place, and by the folder if it is on this machine.
  private static func name(of deployment: Deployment) -> String {
    // FNV-1a
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in (deployment.routerEndpoint + "\n" + deployment.folder.path).utf8 {
      hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3
    }
    return String(hash, radix: 16)
  }

  func load() -> SessionToken? {
    var status = stat()
    guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o077 == 0,
      status.st_uid == geteuid(), let text = FileManager.default.contents(atPath: path),
      let bytes = Data(base64Encoded: text, options: .ignoreUnknownCharacters), !bytes.isEmpty,
      bytes.count <= Limits.tokenBytes
    else { return nil }
    return SessionToken(bytes: [UInt8](bytes))
  }

  func save(_ token: SessionToken) {
    let folder = (path as NSString).deletingLastPathComponent
    try? FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    let temporary = "\(path).\(getpid())"
    let file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard file >= 0 else { return }
    let text = Array((Data(token.bytes).base64EncodedString() + "\n").utf8)
    let isWritten = write(file, text, text.count) == text.count
    close(file)
    if !isWritten || rename(temporary, path) != 0 { unlink(temporary) }
  }

  func forget() { unlink(path) }
}
