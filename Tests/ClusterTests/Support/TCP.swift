// A bare TCP connection, for bytes that no ZeroMQ library would send.

import Glibc

enum TCP {
  static func address(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return address
  }

  /// Connects to a port of this machine; nil if that can't be.
  static func connect(to port: UInt16) -> Int32? {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = address(port)
    let code = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    if code == 0 { return descriptor }
    close(descriptor)
    return nil
  }

  /// Whether the other side has ended a connection. What has come until then is dropped.
  static func hasEnded(_ descriptor: Int32) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 4_096)
    while true {
      let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      if count <= 0 { return count == 0 || errno != EAGAIN }
    }
  }

  /// Connects to a port of this machine, sends the bytes, and reads until the other side closes or says nothing for a moment.
  @discardableResult
  static func send(_ bytes: [UInt8], to port: UInt16, waitMilliseconds: Int32 = 200) -> [UInt8] {
    guard let descriptor = connect(to: port) else { return [] }
    defer { close(descriptor) }
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      if count <= 0 { break }
      rest = rest.dropFirst(count)
    }
    var answer: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4_096)
    var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    while poll(&item, 1, waitMilliseconds) > 0 {
      let count = recv(descriptor, &buffer, buffer.count, 0)
      if count <= 0 { break }
      answer += buffer[..<count]
    }
    return answer
  }

  /// ZMTP 3.0's greeting with the CURVE mechanism, and a HELLO whose box is nonsense.
  static let curveHandshake: [UInt8] = {
    let greeting: [UInt8] =
      [0xff] + [UInt8](repeating: 0, count: 8) + [0x7f, 3, 0] + Array("CURVE".utf8)
      + [UInt8](repeating: 0, count: 15) + [0] + [UInt8](repeating: 0, count: 31)
    let hello: [UInt8] = [5] + Array("HELLO".utf8) + [1, 0] + [UInt8](repeating: 7, count: 192)
    return greeting + [4, UInt8(hello.count)] + hello
  }()

  /// ZMTP 3.0's greeting with the NULL mechanism, and READY of a DEALER.
  static let dealerHandshake: [UInt8] = {
    let greeting: [UInt8] =
      [0xff] + [UInt8](repeating: 0, count: 8) + [0x7f, 3, 0] + Array("NULL".utf8) + [UInt8](repeating: 0, count: 16)
      + [0] + [UInt8](repeating: 0, count: 31)
    let ready: [UInt8] =
      [5] + Array("READY".utf8) + [11] + Array("Socket-Type".utf8) + [0, 0, 0, 6] + Array("DEALER".utf8)
    return greeting + [4, UInt8(ready.count)] + ready
  }()
}
