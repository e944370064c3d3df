// From the address that libzmq tells of a peer to the network whose attempts are counted together.

import Glibc
import Model

extension PeerAddress {
  /// - Parameter text: an address as libzmq's `Peer-Address` has it; nil if it is not known.
  init(peerAddress text: String?) {
    let text = text ?? ""
    // An IPv4 peer at an IPv6 socket.
    let plain = text.hasPrefix("::ffff:") && text.contains(".") ? String(text.dropFirst(7)) : text
    var four = in_addr()
    if inet_pton(AF_INET, plain, &four) == 1 {
      self.init(network: plain, isLoopback: plain.hasPrefix("127."))
      return
    }
    // Without the zone of a link-local one.
    var six = in6_addr()
    let address = String(plain.prefix { $0 != "%" })
    guard inet_pton(AF_INET6, address, &six) == 1 else {
      self.init(network: "?", isLoopback: false)
      return
    }
    let half = withUnsafeBytes(of: six) { $0.prefix(8).map { String($0, radix: 16) }.joined(separator: ":") }
    self.init(network: half, isLoopback: address == "::1")
  }
}
