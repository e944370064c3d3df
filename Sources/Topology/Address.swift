// The addresses of hosts: what is one, which are the same, and which are this machine in any case.

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// A host's address, checked for its form; names are not resolved here.
enum Address: Hashable {
  /// In network byte order.
  case ipv4([UInt8])
  /// In network byte order.
  case ipv6([UInt8])
  /// In lower case.
  case name(String)

  /// Nil if `text` is neither an IP address nor a possible host name (RFC 1123, and the underscore that some networks
  /// use).
  init?(_ text: String) {
    if let bytes = Address.bytes(of: text, family: AF_INET, count: 4) {
      self = .ipv4(bytes)
    } else if let bytes = Address.bytes(of: text, family: AF_INET6, count: 16) {
      self = .ipv6(bytes)
    } else if text.lowercased() == "localhost" {
      self = .ipv4([127, 0, 0, 1])  // so that a port taken on one is taken on the other
    } else if Address.isHostName(text) {
      self = .name(text.lowercased())
    } else {
      return nil
    }
  }

  /// Always this machine.
  var isLoopback: Bool {
    switch self {
    case .ipv4(let bytes): bytes[0] == 127
    case .ipv6(let bytes): bytes.dropLast().allSatisfy { $0 == 0 } && bytes[15] == 1
    case .name: false
    }
  }

  /// `0.0.0.0` or `::`: one can listen there, but nobody can connect to it.
  var isWildcard: Bool {
    switch self {
    case .ipv4(let bytes), .ipv6(let bytes): bytes.allSatisfy { $0 == 0 }
    case .name: false
    }
  }

  private static func bytes(of text: String, family: Int32, count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    return inet_pton(family, text, &bytes) == 1 && !text.utf8.contains(0) ? bytes : nil
  }

  private static func isHostName(_ text: String) -> Bool {
    let labels = text.split(separator: ".", omittingEmptySubsequences: false)
    // A last label of digits would be an IPv4 address with a slip, as 127.0.0.256.
    guard text.utf8.count <= 253, let last = labels.last, !last.allSatisfy(\.isNumber) else { return false }
    return labels.allSatisfy { label in
      (1...63).contains(label.utf8.count) && !label.hasPrefix("-") && !label.hasSuffix("-")
        && label.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") }
    }
  }
}
