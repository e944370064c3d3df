// The file with which session tokens are sealed.

import Glibc
import ZeroMQ

/// The folder `keys` of a cluster, as far as accounts need it.
///
/// ```
/// keys/token.key            32 random bytes in Z85, which seal session tokens
/// keys/demo/NAME.password   the demo client NAME's
/// ```
public struct KeyFolder: Sendable {
  public let path: String

  public init(in folder: StateFolder) { path = folder.path + "/keys" }

  /// Whether this is a machine where the cluster has run.
  public var hasTokenKey: Bool { access(path + "/token.key", F_OK) == 0 }

  /// What session tokens are sealed with; made if there is none yet. Whoever starts at the same time gets the same.
  ///
  /// - Throws: the file is damaged, or can be read by others; or the folder can't be written to.
  public func tokenKey() throws(NodeError) -> [UInt8] {
    let path = path + "/token.key"
    if access(path, F_OK) != 0 {
      var random = SystemRandomNumberGenerator()
      let bytes = (0..<CurveKey.byteCount).map { _ in UInt8.random(in: .min ... .max, using: &random) }
      try make(path, "secret \(CurveKey(bytes: bytes)!.z85)\n")
    }
    guard let text = try secretText(path), text.hasPrefix("secret "), text.hasSuffix("\n"),
      let key = CurveKey(z85: String(text.dropFirst(7).dropLast()))
    else {
      throw NodeError("\(path) is damaged; put it back from a backup, or delete it, and everybody logs in anew")
    }
    return key.bytes
  }

  /// The password of a demo client; nil if it has none that can be read.
  public func demoPassword(of name: String) -> String? {
    guard let text = try? secretText(demoFile(name)) else { return nil }
    let password = text.split(separator: "\n").first.map(String.init)
    return password
  }

  /// The password of a demo client; made if it has none yet.
  public func makeDemoPassword(of name: String) throws(NodeError) -> String {
    let path = demoFile(name)
    if access(path, F_OK) != 0 {
      var random = SystemRandomNumberGenerator()
      let letters = Array("abcdefghijkmnpqrstuvwxyz23456789")
      try make(path, String((0..<26).map { _ in letters.randomElement(using: &random)! }) + "\n")
    }
    guard let password = demoPassword(of: name) else { throw NodeError("\(path) has no password") }
    return password
  }

  /// Where the password of a demo client is.
  public func demoFile(_ name: String) -> String { "\(path)/demo/\(name).password" }

  // MARK: Files

  /// Makes a file for its owner alone, unless somebody else is faster: whole or not at all.
  private func make(_ path: String, _ text: String) throws(NodeError) {
    for folder in [self.path, self.path + "/demo"] where path.hasPrefix(folder + "/") {
      if mkdir(folder, 0o700) != 0, errno != EEXIST { throw .system("can't make \(folder)") }
    }
    let temporary = "\(path).\(getpid()).new"
    unlink(temporary)
    let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw .system("can't write \(temporary)") }
    let bytes = Array(text.utf8)
    let isWritten = write(descriptor, bytes, bytes.count) == bytes.count && fsync(descriptor) == 0
    let code = errno
    close(descriptor)
    defer { unlink(temporary) }
    guard isWritten else { throw .system("can't write \(temporary)", code) }
    if link(temporary, path) != 0, errno != EEXIST { throw .system("can't make \(path)") }
  }

  /// The text of a file that is its owner's alone; nil if it is not UTF-8.
  private func secretText(_ path: String) throws(NodeError) -> String? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard descriptor >= 0 else { throw .system("can't read \(path)") }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw .system("can't read \(path)") }
    guard status.st_uid == geteuid() else { throw NodeError("\(path) belongs to another user") }
    guard status.st_mode & 0o077 == 0 else {
      throw NodeError("\(path) is open to others (mode \(String(status.st_mode & 0o777, radix: 8))); chmod 600 \(path)")
    }
    var bytes = [UInt8](repeating: 0, count: 1_024)
    let count = read(descriptor, &bytes, bytes.count)
    guard count >= 0 else { throw .system("can't read \(path)") }
    return String(validating: bytes[..<count], as: UTF8.self)
  }
}
