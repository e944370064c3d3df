// Keys of CURVE, ZeroMQ's encryption and authentication (Curve25519), and Z85, the text form of such keys.
internal import CZMQ
import Glibc

/// A public or secret CURVE key: 32 bytes.
public struct CurveKey: Hashable, Sendable {
  /// The length of every key, in bytes.
  public static let byteCount = 32

  public let bytes: [UInt8]

  /// A key of exactly 32 bytes; nil for any other number.
  public init?(bytes: [UInt8]) {
    guard bytes.count == Self.byteCount else { return nil }
    self.bytes = bytes
  }

  /// A key from its text form of 40 Z85 characters; nil for anything else.
  public init?(z85 text: String) {
    guard text.utf8.count == 40, let bytes = Z85.decode(text) else { return nil }
    self.init(bytes: bytes)
  }

  /// The key in a file of its text form; nil if there is no such file, or something else in it.
  public init?(file path: String) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 42)
    let count = read(descriptor, &bytes, bytes.count)
    guard count >= 40, count == 40 || count == 41 && bytes[40] == UInt8(ascii: "\n") else { return nil }
    self.init(z85: String(decoding: bytes[..<40], as: UTF8.self))
  }

  /// The text form: 40 Z85 characters.
  public var z85: String { Z85.encode(bytes)! }
}

/// A public key and its secret.
public struct CurveKeypair: Hashable, Sendable {
  public let publicKey: CurveKey
  public let secretKey: CurveKey

  /// A fresh random pair.
  ///
  /// - Throws: ENOTSUP if libzmq was built without CURVE (`Library.has("curve")`).
  public static func generate() throws(ZMQError) -> CurveKeypair {
    let (publicText, secretText, code) = withTwoKeyTexts { zmq_curve_keypair($0, $1) }
    guard code == 0, let publicKey = CurveKey(z85: publicText), let secretKey = CurveKey(z85: secretText) else {
      throw .last("zmq_curve_keypair")
    }
    return CurveKeypair(publicKey: publicKey, secretKey: secretKey)
  }

  /// The pair of a known secret.
  ///
  /// - Throws: ENOTSUP if libzmq was built without CURVE.
  public init(secretKey: CurveKey) throws(ZMQError) {
    let secretText = secretKey.z85
    let (publicText, _, code) = withTwoKeyTexts { publicBuffer, _ in zmq_curve_public(publicBuffer, secretText) }
    guard code == 0, let publicKey = CurveKey(z85: publicText) else { throw .last("zmq_curve_public") }
    self.init(publicKey: publicKey, secretKey: secretKey)
  }

  private init(publicKey: CurveKey, secretKey: CurveKey) {
    self.publicKey = publicKey
    self.secretKey = secretKey
  }
}

/// Shows no secret, wherever it is printed.
extension CurveKeypair: CustomStringConvertible, CustomDebugStringConvertible {
  public var description: String { "the keys of \(publicKey.z85)" }
  public var debugDescription: String { description }
}

/// Z85, ZeroMQ's text form of binary data (RFC 32/Z85): 5 characters for 4 bytes.
public enum Z85 {
  /// The text of bytes whose number is a multiple of 4; nil for any other number.
  public static func encode(_ bytes: [UInt8]) -> String? {
    guard bytes.count.isMultiple(of: 4) else { return nil }
    return withUnsafeTemporaryAllocation(of: CChar.self, capacity: bytes.count / 4 * 5 + 1) { text in
      zmq_z85_encode(text.baseAddress, bytes, bytes.count).map { String(cString: $0) }
    }
  }

  /// The bytes of a text whose length is a multiple of 5; nil for any other length or a character outside Z85.
  public static func decode(_ text: String) -> [UInt8]? {
    let count = text.utf8.count
    // libzmq reads a C string: a zero inside would end it early and leave bytes unwritten.
    guard count.isMultiple(of: 5), !text.utf8.contains(0) else { return nil }
    if count == 0 { return [] }
    var decoded = true
    let bytes = [UInt8](unsafeUninitializedCapacity: count / 5 * 4) { buffer, initializedCount in
      decoded = zmq_z85_decode(buffer.baseAddress, text) != nil
      initializedCount = decoded ? buffer.count : 0
    }
    return decoded ? bytes : nil
  }
}

/// Lets `body` fill two buffers with the Z85 text of a key each.
private func withTwoKeyTexts(
  _ body: (UnsafeMutablePointer<CChar>, UnsafeMutablePointer<CChar>) -> Int32
) -> (String, String, Int32) {
  let length = 41  // 40 characters and a zero
  return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 2 * length) { buffer in
    buffer.initialize(repeating: 0)
    let (first, second) = (buffer.baseAddress!, buffer.baseAddress! + length)
    let code = body(first, second)
    return (String(cString: first), String(cString: second), code)
  }
}
