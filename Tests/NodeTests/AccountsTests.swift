// Passwords, tokens and their key, as the shells have them.

import Core
import Foundation
import Model
import Testing

@testable import Node

@Suite struct AccountsTests {
  private let seal = TokenSeal(key: Array(0..<32))
  private let claims = TokenClaims(
    id: TokenID(high: 0x0102_0304_0506_0708, low: .max), holder: .account(AccountID(7), generation: EventID(99)),
    expires: Timestamp(milliseconds: 1_750_000_000_123))

  // MARK: Tokens

  @Test func aTokenSaysWhatWasSealed() {
    #expect(seal.open(seal.seal(claims)) == claims)
    var operators = claims
    operators.holder = .operatorOfCluster
    #expect(seal.open(seal.seal(operators)) == operators)
    #expect(seal.seal(claims).bytes.count <= Limits.tokenBytes)
  }

  @Test func noBitOfATokenMayChange() {
    let token = seal.seal(claims)
    for place in token.bytes.indices {
      for bit in 0..<8 as Range<UInt8> {
        var bytes = token.bytes
        bytes[place] ^= 1 << bit
        #expect(seal.open(SessionToken(bytes: bytes)) == nil)
      }
    }
    for count in 0..<token.bytes.count {
      #expect(seal.open(SessionToken(bytes: Array(token.bytes.prefix(count)))) == nil)
    }
    #expect(seal.open(SessionToken(bytes: token.bytes + [0])) == nil)
  }

  @Test func anotherClustersTokenIsNoToken() {
    #expect(TokenSeal(key: Array(1..<33)).open(seal.seal(claims)) == nil)
  }

  // MARK: Passwords

  @Test func onlyThePasswordIsRight() throws {
    let hasher = PasswordHasher(memory: 8 << 10)
    for text in ["correct horse", "", "pässwörd 日本語", "nul\u{0}inside", String(repeating: "x", count: 300)] {
      let hash = try #require(hasher.hash(Password(text)))
      #expect(hasher.verify(Password(text), hash))
      #expect(!hasher.verify(Password(text + "x"), hash))
      #expect(!hasher.verify(Password("nul"), hash))
      #expect(!hash.phc.contains("correct"))
    }
  }

  @Test func aHashSaysItsCostAndIsNeverTheSame() throws {
    let hasher = PasswordHasher(memory: 64 << 10)
    let one = try #require(hasher.hash(Password("correct horse")))
    let two = try #require(hasher.hash(Password("correct horse")))
    #expect(one.phc.hasPrefix("$argon2id$v=19$m=64,t=2,p=1$"))
    #expect(one != two)
    #expect(PasswordHasher(memory: 8 << 10).verify(Password("correct horse"), one))
  }

  @Test(arguments: ["", "$", "$argon2id$", "nonsense", String(repeating: "$argon2id$v=19$m=8,t=1,p=1$", count: 20)])
  func whatIsNoHashIsNobodysPassword(phc: String) {
    #expect(!PasswordHasher(memory: 8 << 10).verify(Password("correct horse"), PasswordHash(phc: phc)))
  }

  // MARK: Nothing is shown

  @Test func anUnknownNameCostsWhatAWrongPasswordDoes() throws {
    final class Seen: @unchecked Sendable { var costs: [String] = [] }
    let seen = Seen()
    let hasher = PasswordHasher(memory: 8 << 10)
    let hash = try #require(hasher.hash(Password("correct horse")))
    var desk = PasswordDesk(hasher) {
      // Everything before the salt: the way of hashing, and its cost.
      seen.costs.append($1.phc.split(separator: "$").prefix(3).joined(separator: "$"))
      return hasher.verify($0, $1)
    }
    #expect(desk.carryOut(.verify(Password("a wrong one"), nil)) == .wrong)
    #expect(desk.carryOut(.verify(Password("a wrong one"), hash)) == .wrong)
    #expect(desk.carryOut(.verify(Password("a wrong one"), nil)) == .wrong)
    #expect(desk.carryOut(.verify(Password("correct horse"), hash)) == .right)
    #expect(seen.costs.count == 4 && Set(seen.costs).count == 1, "\(seen.costs)")
  }

  @Test func secretsAreNotPrinted() {
    let password = Password("correct horse")
    let hello = Hello(client: ClientID(1), user: "alice", register: true, newest: .zero, proof: .password(password))
    let request = Request(number: 1, body: .hello(hello))
    let token = SessionToken(bytes: [0xab, 0xcd])
    let welcome = Welcome(
      master: MasterIdentity(name: "m", incarnation: Incarnation(1)), account: AccountID(0), isNew: true, head: .zero,
      token: token)
    let event = Event(
      id: EventID(1), time: .zero, request: nil, change: .credentialSet(AccountID(0), PasswordHash(phc: "$argon2id$x")))
    let change = PasswordChange(old: password, new: password)
    let texts = [
      "\(request)", String(reflecting: request), "\(change)", String(reflecting: change), "\(welcome)",
      String(reflecting: welcome), "\(event)", String(reflecting: event),
    ]
    for text in texts {
      #expect(!text.contains("correct horse") && !text.contains("argon2id") && !text.contains("171"), "\(text)")
      #expect(text.contains("•••"))
    }
    var dumped = ""
    dump(request, to: &dumped)
    #expect(!dumped.contains("correct horse"))
  }

  // MARK: Files

  private func withFolder(_ body: (StateFolder) throws -> Void) throws {
    var template = Array("/tmp/tsns-keys-XXXXXX".utf8CString)
    try #require(mkdtemp(&template) != nil)
    let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    defer { try? FileManager.default.removeItem(atPath: path) }
    try body(StateFolder(path: path))
  }

  private func mode(_ path: String) throws -> Int {
    try #require(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int)
  }

  @Test func aTokenKeyIsTheSameWhoeverMakesIt() throws {
    try withFolder { folder in
      try folder.create()
      #expect(!ClusterKeys.exist(in: folder))
      let key = try ClusterKeys.token(in: folder)
      #expect(key.count == 32 && Set(key).count > 8)
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder.keyFolder).sorted() == ["lock", "token.key"])
      #expect(try ClusterKeys(in: folder).token == key)
      #expect(try ClusterKeys.token(in: folder) == key)
      #expect(try mode(folder.key("token.key")) == 0o600)
    }
  }

  @Test func aDemoClientKeepsItsPassword() throws {
    try withFolder { folder in
      try folder.create()
      let passwords = DemoPasswords(in: folder)
      #expect(passwords.password(of: "alice") == nil)
      let password = try passwords.makePassword(of: "alice")
      #expect(TextRules.fault(inPassword: password) == nil)
      #expect(try passwords.makePassword(of: "alice") == password)
      #expect(passwords.password(of: "alice") == password)
      #expect(try passwords.makePassword(of: "bob") != password)
      #expect(try mode(folder.key("demo")) == 0o700)
      #expect(try mode(passwords.file(of: "alice")) == 0o600)
      chmod(passwords.file(of: "alice"), 0o640)
      #expect(passwords.password(of: "alice") == nil)
    }
  }

  // MARK: Addresses

  @Test(arguments: [
    ("127.0.0.1", "127.0.0.1", true), ("127.8.0.9", "127.8.0.9", true), ("192.0.2.7", "192.0.2.7", false),
    ("::ffff:192.0.2.7", "192.0.2.7", false), ("::1", "0:0:0:0:0:0:0:0", true),
    ("2001:db8:1:2::7", "20:1:d:b8:0:1:0:2", false), ("2001:db8:1:2:ffff::1", "20:1:d:b8:0:1:0:2", false),
    ("fe80::1%eth0", "fe:80:0:0:0:0:0:0", false), ("", "?", false), ("nonsense", "?", false),
  ])
  func peersOfOneNetworkAreOne(text: String, network: String, isLoopback: Bool) {
    let address = PeerAddress(peerAddress: text)
    #expect(address == PeerAddress(network: network, isLoopback: isLoopback))
  }
}
