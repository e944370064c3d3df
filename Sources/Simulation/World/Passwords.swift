// Passwords and tokens in the simulation: what a master's shell does with libsodium, done with arithmetic.

import Core
import Model

/// Hashes and seals without secrets: whoever is in the simulation sends what it is told to.
enum SimulatedCrypto {
  private static let mark = "simulated:"

  static func hash(_ password: Password) -> PasswordHash { PasswordHash(phc: mark + password.text) }

  /// The password that was hashed.
  static func password(of hash: PasswordHash) -> Password { Password(String(hash.phc.dropFirst(mark.count))) }

  static func carryOut(_ job: PasswordJob) -> PasswordOutcome {
    switch job {
    case .hash(let password): return .hashed(hash(password))
    case .verify(let password, let hash): return hash == Self.hash(password) ? .right : .wrong
    }
  }

  // MARK: Tokens

  static func seal(_ claims: TokenClaims) -> SessionToken {
    var numbers = [claims.id.high, claims.id.low, UInt64(bitPattern: claims.expires.milliseconds)]
    switch claims.holder {
    case .account(let account, let generation): numbers += [UInt64(account.rawValue), generation.rawValue]
    case .operatorOfCluster: numbers += [.max, 0]
    }
    numbers.append(seal(numbers))
    return SessionToken(
      bytes: numbers.flatMap { number in (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) } })
  }

  /// Nil if the seal is broken, unless it is believed all the same.
  static func open(_ token: SessionToken, believing: Bool = false) -> TokenClaims? {
    guard token.bytes.count == 48 else { return nil }
    let numbers = (0..<6).map { place in
      (0..<8).reduce(UInt64(0)) { $0 | UInt64(token.bytes[place * 8 + $1]) << (8 * $1) }
    }
    guard believing || seal(Array(numbers.prefix(5))) == numbers[5] else { return nil }
    let holder: TokenClaims.Holder =
      numbers[3] == .max
      ? .operatorOfCluster
      : .account(AccountID(UInt32(truncatingIfNeeded: numbers[3])), generation: EventID(numbers[4]))
    return TokenClaims(
      id: TokenID(high: numbers[0], low: numbers[1]), holder: holder,
      expires: Timestamp(milliseconds: Int64(bitPattern: numbers[2])))
  }

  private static func seal(_ numbers: [UInt64]) -> UInt64 {
    numbers.reduce(0x5ea1) { SplitMix64.mix($0 ^ $1 &+ 0x9e37_79b9_7f4a_7c15) }
  }
}
