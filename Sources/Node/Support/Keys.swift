// The cluster's keys as files: made on the first start, read by every server, refused if others could read them.

import CSpawn
import Glibc
public import ZeroMQ

/// The keys that make a process a member of its cluster.
///
/// ```
/// keys/cluster.key   the servers' CURVE keys: whoever connects knows the public one, and so whom it talks to
/// keys/cluster.pub   the public one alone, for clients
/// keys/member.key    the CURVE keys with which masters connect to the router and to each other, and the owner's
///                    tools to the router
/// keys/token.key     32 random bytes, which seal session tokens
/// keys/demo/         see DemoPasswords
/// ```
///
/// Key files are text: `public` and `secret`, each with 40 characters of Z85; `token.key` has a `secret` alone.
public struct ClusterKeys: Hashable, Sendable {
  /// Those of every server socket, the router's and the masters'.
  public let server: CurveKeypair
  /// Those of the members among themselves.
  public let member: CurveKeypair
  /// What session tokens are sealed with: 32 bytes.
  public let token: [UInt8]

  /// Reads the keys of a cluster whose folder has been made; makes what is missing. Two that start in the same moment
  /// get the same keys.
  ///
  /// - Throws: a file is damaged, belongs to somebody else, or can be read by others; or the folder can't be written to.
  public init(in folder: StateFolder) throws(NodeError) {
    let lock = try KeysLock(in: folder)
    try KeyFile.makeMissing(folder)
    server = try KeyFile.readPair(folder.key("cluster.key"))
    member = try KeyFile.readPair(folder.key("member.key"))
    token = try KeyFile.readSecret(folder.key("token.key"))
    // What follows from another file is not believed but made to fit.
    if Self.publicKey(in: folder) != server.publicKey {
      try StateFolder.replace(folder.key("cluster.pub"), with: server.publicKey.z85 + "\n")
    }
    withExtendedLifetime(lock) {}
  }

  /// The public key that clients on this machine find; nil before the cluster's first start.
  public static func publicKey(in folder: StateFolder) -> CurveKey? { CurveKey(file: folder.key("cluster.pub")) }

  /// Throws if the public key is there and can't be read.
  public static func checkPublicKey(in folder: StateFolder) throws(NodeError) {
    let path = folder.key("cluster.pub")
    if access(path, R_OK) != 0, errno != ENOENT { throw .system("can't read \(path)") }
  }

  /// The keys by which whoever may read them is let in as a member, as the tools of the cluster's owner are; nil before the first start,
  /// for everybody else, and if the file is damaged or open to others. A tool asks as a stranger then.
  public static func member(in folder: StateFolder) -> CurveKeypair? { try? KeyFile.readPair(folder.key("member.key")) }

  /// What session tokens are sealed with, alone: all that a master needs where nothing is encrypted.
  public static func token(in folder: StateFolder) throws(NodeError) -> [UInt8] {
    let lock = try KeysLock(in: folder)
    try KeyFile.makeMissingToken(folder)
    let token = try KeyFile.readSecret(folder.key("token.key"))
    withExtendedLifetime(lock) {}
    return token
  }

  /// Whether this is a machine where the cluster has run; true, too, for whoever may not look.
  public static func exist(in folder: StateFolder) -> Bool {
    access(folder.key("token.key"), F_OK) == 0 || errno != ENOENT
  }

  /// Puts new keys in the place of the servers' and the members'. Processes that run keep the ones they have read.
  public static func replace(in folder: StateFolder) throws(NodeError) {
    let lock = try KeysLock(in: folder)
    for name in ["member.key", "cluster.key"] {
      let text = KeyFile.text(of: try KeyFile.freshPair())
      try StateFolder.replace(folder.key(name), with: text)
    }
    let server = try KeyFile.readPair(folder.key("cluster.key"))
    try StateFolder.replace(folder.key("cluster.pub"), with: server.publicKey.z85 + "\n")
    withExtendedLifetime(lock) {}
  }
}

/// Held while keys are made, read or replaced, so that nobody gets some of before and some of after.
final class KeysLock {
  private let descriptor: Int32

  init(in folder: StateFolder) throws(NodeError) {
    let path = folder.key("lock")
    descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw .system("can't open \(path)") }
    while flock(descriptor, LOCK_EX) != 0 {
      guard errno == EINTR else {
        let code = errno
        close(descriptor)
        throw .system("can't lock \(path)", code)
      }
    }
  }

  deinit { close(descriptor) }
}

/// How a key is written down.
enum KeyFile {
  /// More than any key file has.
  private static let bytesMax = 1_024

  static func makeMissing(_ folder: StateFolder) throws(NodeError) {
    for name in ["cluster.key", "member.key"] where access(folder.key(name), F_OK) != 0 {
      try StateFolder.replace(folder.key(name), with: text(of: freshPair()))
    }
    try makeMissingToken(folder)
  }

  static func makeMissingToken(_ folder: StateFolder) throws(NodeError) {
    if access(folder.key("token.key"), F_OK) != 0 {
      var random = SystemRandomNumberGenerator()
      let secret = CurveKey(bytes: (0..<CurveKey.byteCount).map { _ in UInt8.random(in: 0...255, using: &random) })!
      try StateFolder.replace(folder.key("token.key"), with: "secret \(secret.z85)\n")
    }
  }

  static func freshPair() throws(NodeError) -> CurveKeypair {
    do throws(ZMQError) {
      return try CurveKeypair.generate()
    } catch {
      throw NodeError("this libzmq has no encryption (CURVE): \(error.text)")
    }
  }

  static func text(of pair: CurveKeypair) -> String { "public \(pair.publicKey.z85)\nsecret \(pair.secretKey.z85)\n" }

  private static func text(of descriptor: Int32) -> String? {
    var bytes = [UInt8](repeating: 0, count: bytesMax)
    let count = read(descriptor, &bytes, bytes.count)
    guard count >= 0 else { return nil }
    return String(validating: bytes[..<count], as: UTF8.self)
  }

  /// The lines of a file that is its owner's alone.
  static func secretLines(_ path: String) throws(NodeError) -> [Substring] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard descriptor >= 0 else { throw .system("can't read \(path)") }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw .system("can't read \(path)") }
    guard status.st_mode & S_IFMT == S_IFREG else { throw NodeError("\(path) is not a file") }
    guard status.st_uid == geteuid() else { throw NodeError("\(path) belongs to another user") }
    guard status.st_mode & 0o077 == 0 else {
      let mode = String(status.st_mode & 0o777, radix: 8)
      let remedy =
        path.hasSuffix("/token.key")
        ? "Delete it, and everybody logs in anew" : "New keys: tinysns keys rotate"
      throw NodeError(
        "\(path) is open to others (mode \(mode)): they may have read it. \(remedy); else: chmod 600 \(path)")
    }
    guard let text = text(of: descriptor), text.hasSuffix("\n") else { throw damaged(path) }
    return text.dropLast().split(separator: "\n", omittingEmptySubsequences: false)
  }

  static func damaged(_ path: String) -> NodeError {
    NodeError("\(path) is damaged; put it back from a backup, or delete it, and a new one is made")
  }

  private static func key(_ line: Substring, _ label: String) -> CurveKey? {
    line.hasPrefix(label + " ") ? CurveKey(z85: String(line.dropFirst(label.count + 1))) : nil
  }

  static func readPair(_ path: String) throws(NodeError) -> CurveKeypair {
    let lines = try secretLines(path)
    guard lines.count == 2, let publicKey = key(lines[0], "public"), let secretKey = key(lines[1], "secret"),
      let pair = try? CurveKeypair(secretKey: secretKey), pair.publicKey == publicKey
    else { throw damaged(path) }
    return pair
  }

  static func readSecret(_ path: String) throws(NodeError) -> [UInt8] {
    let lines = try secretLines(path)
    guard lines.count == 1, let key = key(lines[0], "secret") else { throw damaged(path) }
    return key.bytes
  }
}
