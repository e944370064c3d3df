// How many connections each address has, so that nobody takes all there can be.

import Core
import Glibc
import Model
import Synchronization

/// The connections at a process's guarded sockets, by the address that they come from. The loop writes down what the sockets' monitors
/// tell; the gatekeeper asks before it lets one more in.
///
/// A connection that is still in its handshake counts as well. What a monitor told too late (the descriptor may then be another
/// connection's already) is put right before anybody is refused, but not for every one of a flood: that would be more work than its
/// handshakes.
final class ConnectionBook: Sendable {
  private struct Place: Hashable {
    var port: Entrance
    var descriptor: Int32
  }

  private struct State {
    var addresses: [Place: String] = [:]
    var counts: [String: Int] = [:]
    /// When an address was looked through that had too many.
    var lookedThrough = ContinuousClock.now - .seconds(60)
  }

  private let limits: OperatorLimits
  private let pause: Duration
  private let addressOf: @Sendable (Int32) -> String?
  private let state = Mutex(State())

  /// - Parameters:
  ///   - pause: between two looks at all connections of whoever has too many.
  ///   - addressOf: where the connection with a descriptor comes from; nil if there is none.
  init(
    limits: OperatorLimits, pause: Duration = .milliseconds(100),
    addressOf: @escaping @Sendable (Int32) -> String? = ConnectionBook.peerAddress
  ) {
    self.limits = limits
    self.pause = pause
    self.addressOf = addressOf
  }

  func accepted(_ descriptor: Int32, at port: Entrance) {
    let address = addressOf(descriptor)
    state.withLock { state in
      Self.forget(Place(port: port, descriptor: descriptor), &state)
      guard let address else { return }  // gone already
      state.addresses[Place(port: port, descriptor: descriptor)] = address
      state.counts[address, default: 0] += 1
    }
  }

  func ended(_ descriptor: Int32, at port: Entrance) {
    state.withLock { Self.forget(Place(port: port, descriptor: descriptor), &$0) }
  }

  /// Whether the connections of an address, the one that is asked for among them, are few enough.
  func admits(_ address: String) -> Bool {
    let limit = limit(of: address)
    return state.withLock { state in
      guard state.counts[address, default: 0] > limit else { return true }
      let now = ContinuousClock.now
      guard state.lookedThrough + pause <= now else { return false }
      state.lookedThrough = now
      for (place, noted) in state.addresses where noted == address && addressOf(place.descriptor) != address {
        Self.forget(place, &state)
      }
      return state.counts[address, default: 0] <= limit
    }
  }

  private func limit(of address: String) -> Int {
    let isLocal = address.hasPrefix("127.") || address == "::1" || address.hasPrefix("::ffff:127.")
    return isLocal ? limits.connectionsPerLoopback : limits.connectionsPerAddress
  }

  private static func forget(_ place: Place, _ state: inout State) {
    guard let address = state.addresses.removeValue(forKey: place) else { return }
    let count = state.counts[address]! - 1
    state.counts[address] = count == 0 ? nil : count
  }

  /// As libzmq tells it in its questions.
  static func peerAddress(_ descriptor: Int32) -> String? {
    var storage = sockaddr_storage()
    var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    let isKnown = withUnsafeMutablePointer(to: &storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        getpeername(descriptor, address, &size) == 0
          && getnameinfo(address, size, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0
      }
    }
    return isKnown ? String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) : nil
  }
}
