// What proves an account, and what of it travels between masters. Ids and tokens are bytes in protobuf; generic, so that
// Foundation's Data, in which swift-protobuf keeps bytes, need not be named.

import Model
internal import SwiftProtobuf

/// Nil for no bytes.
private func sessionToken<Bytes: SwiftProtobufContiguousBytes>(_ bytes: Bytes) throws(WireError) -> SessionToken? {
  try check(bytes.count, atMost: Limits.tokenBytes, .token)
  return bytes.count == 0 ? nil : SessionToken(bytes: bytes.withUnsafeBytes { [UInt8]($0) })
}

extension Tinysns_Hello.OneOf_Proof {
  init(_ proof: Proof) {
    switch proof {
    case .password(let password): self = .password(password.text)
    case .token(let token): self = .token(fieldBytes(token.bytes))
    }
  }
}

extension Proof {
  init?(_ wire: Tinysns_Hello.OneOf_Proof?) throws(WireError) {
    switch wire {
    case .password(let text): self = .password(Password(text))
    case .token(let bytes):
      guard let token = try sessionToken(bytes) else { return nil }
      self = .token(token)
    case nil: return nil
    }
  }
}

extension Tinysns_Welcome {
  mutating func set(_ token: SessionToken?) { if let token { self.token = fieldBytes(token.bytes) } }
}

extension SessionToken {
  /// Nil if a Welcome brings none.
  static func carried(by wire: Tinysns_Welcome) throws(WireError) -> SessionToken? { try sessionToken(wire.token) }
}

extension Tinysns_PasswordChange {
  init(_ change: PasswordChange) {
    self.init()
    old = change.old.text
    new = change.new.text
  }
}

extension PasswordChange {
  init(_ wire: Tinysns_PasswordChange) { self.init(old: Password(wire.old), new: Password(wire.new)) }
}

extension Tinysns_SessionRevocation {
  init(_ id: TokenID, expires: Timestamp) {
    self.init()
    // A topic is 16 bytes in the same order.
    token = topicBytes(Topic(high: id.high, low: id.low))
    expiresMs = expires.milliseconds
  }
}

extension TokenID {
  init(_ wire: Tinysns_SessionRevocation) throws(WireError) {
    guard wire.token.count == Self.byteCount else { throw .outOfRange(.token) }
    let topic = try decodeTopic(wire.token)
    self.init(high: topic.high, low: topic.low)
  }
}
