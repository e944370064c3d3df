// The cluster's keys as files.

import Foundation
import Testing
import ZeroMQ

@testable import Node

@Suite struct KeysTests {
  /// Runs `body` with the state folder of a cluster that has never run.
  private func withFolder(_ body: (StateFolder) throws -> Void) throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "tinysns-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let folder = StateFolder(path: path)
    try folder.create()
    try body(folder)
  }

  private func mode(_ path: String) throws -> Int {
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    return try #require(attributes[.posixPermissions] as? Int)
  }

  private func complaint(_ folder: StateFolder) -> String? {
    do throws(NodeError) {
      _ = try ClusterKeys(in: folder)
      return nil
    } catch {
      return error.description
    }
  }

  @Test("keys are made once, for their owner alone, and are the same for everyone after")
  func madeOnce() throws {
    try withFolder { folder in
      #expect(ClusterKeys.publicKey(in: folder) == nil)
      let keys = try ClusterKeys(in: folder)
      #expect(try ClusterKeys(in: folder) == keys)
      #expect(ClusterKeys.publicKey(in: folder) == keys.server.publicKey)
      #expect(keys.server != keys.member)
      #expect(keys.token.count == 32 && Set(keys.token).count > 8)
      #expect(try mode(folder.keyFolder) == 0o700)
      for file in try FileManager.default.contentsOfDirectory(atPath: folder.keyFolder) {
        #expect(try mode(folder.key(file)) == 0o600, "\(file)")
      }
    }
  }

  @Test("many that start in the same moment get the same keys")
  func madeByMany() throws {
    try withFolder { folder in
      let found = Found()
      DispatchQueue.concurrentPerform(iterations: 16) { _ in
        guard let keys = try? ClusterKeys(in: folder) else { return }
        found.add(keys)
      }
      #expect(found.all.count == 16)
      #expect(Set(found.all).count == 1)
      let files = try FileManager.default.contentsOfDirectory(atPath: folder.keyFolder)
      #expect(Set(files) == ["cluster.key", "cluster.pub", "member.key", "token.key", "lock"])
    }
  }

  /// `@unchecked Sendable`: behind the lock.
  private final class Found: @unchecked Sendable {
    private let lock = NSLock()
    private var keys: [ClusterKeys] = []
    func add(_ key: ClusterKeys) { lock.withLock { keys.append(key) } }
    var all: [ClusterKeys] { lock.withLock { keys } }
  }

  @Test("a secret that others can read is refused in one line", arguments: ["cluster.key", "member.key", "token.key"])
  func openToOthers(file: String) throws {
    try withFolder { folder in
      _ = try ClusterKeys(in: folder)
      chmod(folder.key(file), 0o640)
      let refusal = try #require(complaint(folder))
      #expect(refusal.contains(folder.key(file)) && refusal.contains("640") && !refusal.contains("\n"))
    }
  }

  @Test("a damaged key is refused, and never taken for another", arguments: ["cluster.key", "member.key", "token.key"])
  func damaged(file: String) throws {
    try withFolder { folder in
      let keys = try ClusterKeys(in: folder)
      let whole = try String(contentsOfFile: folder.key(file), encoding: .utf8)
      var flipped = Array(whole)
      flipped[10] = flipped[10] == "a" ? "b" : "a"
      // One character of a token key can't be told from another key.
      let broken = ["", "\n", String(whole.dropLast(5)), whole + "x", "public \(keys.server.publicKey.z85)\n"]
      for text in broken + (file == "token.key" ? [] : [String(flipped)]) {
        try text.write(toFile: folder.key(file), atomically: false, encoding: .utf8)
        let refusal = try #require(complaint(folder), "\(text)")
        #expect(refusal.contains("\(folder.key(file)) is damaged") && !refusal.contains("\n"))
        #expect(!refusal.contains(keys.server.secretKey.z85) && !refusal.contains(keys.member.secretKey.z85))
      }
      // Deleted, it is made anew; the others stay.
      try FileManager.default.removeItem(atPath: folder.key(file))
      let others = try ClusterKeys(in: folder)
      #expect((others.server == keys.server) == (file != "cluster.key"))
      #expect((others.member == keys.member) == (file != "member.key"))
      #expect((others.token == keys.token) == (file != "token.key"))
    }
  }

  @Test("the public key follows the secret one")
  func publicFollows() throws {
    try withFolder { folder in
      let keys = try ClusterKeys(in: folder)
      for text in ["", "nonsense\n", keys.member.publicKey.z85 + "\n"] {
        try text.write(toFile: folder.key("cluster.pub"), atomically: false, encoding: .utf8)
        _ = try ClusterKeys(in: folder)
        #expect(ClusterKeys.publicKey(in: folder) == keys.server.publicKey)
      }
    }
  }

  @Test("replaced keys are others, and tokens stay sealed with the old one")
  func replaced() throws {
    try withFolder { folder in
      let old = try ClusterKeys(in: folder)
      try ClusterKeys.replace(in: folder)
      let new = try ClusterKeys(in: folder)
      #expect(new.server != old.server && new.member != old.member && new.token == old.token)
      #expect(ClusterKeys.publicKey(in: folder) == new.server.publicKey)
    }
  }

  @Test("a folder of keys or sockets that others can enter is refused", arguments: ["keys", "run"])
  func openFolder(name: String) throws {
    try withFolder { folder in
      chmod("\(folder.path)/\(name)", 0o755)
      do throws(NodeError) {
        try folder.create()
        Issue.record("it was not refused")
      } catch {
        #expect(error.description.contains("\(folder.path)/\(name)") && error.description.contains("chmod 700"))
      }
    }
  }
}
