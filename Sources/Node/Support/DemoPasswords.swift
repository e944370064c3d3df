// The passwords that the cluster's own people have: the demo clients, and those of `verify`.

import Glibc
public import Model

/// Generated passwords, in files for their owner alone: `keys/demo/NAME.password` in the state folder.
public struct DemoPasswords: Sendable {
  private let folder: StateFolder

  public init(in folder: StateFolder) { self.folder = folder }

  /// Where the password is.
  public func file(of name: String) -> String { folder.key("demo/\(name).password") }

  /// The password; nil if there is none that can be read.
  public func password(of name: String) -> Password? {
    guard let lines = try? KeyFile.secretLines(file(of: name)), lines.count == 1 else { return nil }
    return Password(String(lines[0]))
  }

  /// The password; made if there is none yet.
  public func makePassword(of name: String) throws(NodeError) -> Password {
    let lock = try KeysLock(in: folder)
    let path = file(of: name)
    if access(path, F_OK) != 0 {
      let place = folder.key("demo")
      if mkdir(place, 0o700) != 0, errno != EEXIST { throw .system("can't make \(place)") }
      var random = SystemRandomNumberGenerator()
      let letters = Array("abcdefghijkmnpqrstuvwxyz23456789")
      try StateFolder.replace(path, with: String((0..<26).map { _ in letters.randomElement(using: &random)! }) + "\n")
    }
    let lines = try KeyFile.secretLines(path)
    guard lines.count == 1 else { throw KeyFile.damaged(path) }
    withExtendedLifetime(lock) {}
    return Password(String(lines[0]))
  }
}
