// Session tokens as bytes: what they claim, and a seal that only the cluster's servers can make.

internal import CSodium
public import Model

/// Makes and opens session tokens.
///
/// A token is 38 bytes of claims and a seal over them, HMAC-SHA-512/256 (libsodium's `crypto_auth`) under the cluster's token
/// key. A later version of the layout gets another first byte.
public struct TokenSeal: Sendable {
  private static let version: UInt8 = 1
  private static let claimBytes = 1 + 1 + TokenID.byteCount + 4 + 8 + 8

  private enum HolderByte {
    static let account: UInt8 = 0
    static let operatorOfCluster: UInt8 = 1
  }

  private let key: [UInt8]

  /// - Parameter key: 32 bytes that nobody else knows.
  public init(key: [UInt8]) {
    precondition(key.count == crypto_auth_keybytes(), "a key of \(key.count) bytes")
    self.key = key
  }

  public func seal(_ claims: TokenClaims) -> SessionToken {
    var bytes = [Self.version]
    switch claims.holder {
    case .account(let account, let generation):
      bytes.append(HolderByte.account)
      Self.append(claims.id.high, claims.id.low, to: &bytes)
      Self.append(account.rawValue, to: &bytes)
      Self.append(generation.rawValue, to: &bytes)
    case .operatorOfCluster:
      bytes.append(HolderByte.operatorOfCluster)
      Self.append(claims.id.high, claims.id.low, to: &bytes)
      Self.append(UInt32(0), to: &bytes)
      Self.append(UInt64(0), to: &bytes)
    }
    Self.append(UInt64(bitPattern: claims.expires.milliseconds), to: &bytes)
    var seal = [UInt8](repeating: 0, count: crypto_auth_bytes())
    crypto_auth(&seal, bytes, UInt64(bytes.count), key)
    return SessionToken(bytes: bytes + seal)
  }

  /// What a token claims; nil if the seal is not ours, or broken. Whether it has expired or was revoked is another question.
  public func open(_ token: SessionToken) -> TokenClaims? {
    let bytes = token.bytes
    guard bytes.count == Self.claimBytes + crypto_auth_bytes(), bytes[0] == Self.version else { return nil }
    let seal = Array(bytes[Self.claimBytes...])
    guard crypto_auth_verify(seal, bytes, UInt64(Self.claimBytes), key) == 0 else { return nil }
    func number(at place: Int, _ count: Int) -> UInt64 {
      bytes[place..<place + count].reduce(0) { $0 << 8 | UInt64($1) }
    }
    let holder: TokenClaims.Holder
    switch bytes[1] {
    case HolderByte.account:
      holder = .account(AccountID(UInt32(number(at: 18, 4))), generation: EventID(number(at: 22, 8)))
    case HolderByte.operatorOfCluster: holder = .operatorOfCluster
    default: return nil
    }
    return TokenClaims(
      id: TokenID(high: number(at: 2, 8), low: number(at: 10, 8)), holder: holder,
      expires: Timestamp(milliseconds: Int64(bitPattern: number(at: 30, 8))))
  }

  private static func append<Number: FixedWidthInteger>(_ numbers: Number..., to bytes: inout [UInt8]) {
    for number in numbers { withUnsafeBytes(of: number.bigEndian) { bytes.append(contentsOf: $0) } }
  }
}
