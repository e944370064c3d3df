// How many connections each address has, so that nobody takes all there can be.

import Core
import Glibc
import Model
import Synchronization

/// The connections at a process's guarded sockets, by the address that they come from. The loop writes down what the sockets' monitors
/// tell; the gatekeeper asks before it lets one more in.
///
/// A connection that is still in its handshake counts as well; beyond the limit and a reserve it is broken off at once, whether it says
/// anything or not: only a finished handshake comes before the gatekeeper. So is whoever gets one of the last descriptors that
/// the process may have. What a monitor told too late (the descriptor may then be another
/// connection's already) is put right before anybody is refused, but not for every one of a flood: that would be more work than its
/// handshakes.
final class ConnectionBook: Sendable {
  private struct Place: Hashable {
    var port: Entrance
    var descriptor: Int32
  }

  private struct State {
    var addresses: [Place: PeerAddress] = [:]
    var counts: [PeerAddress: Int] = [:]
    /// When an address that had too many was looked through.
    var lookedThrough: [PeerAddress: ContinuousClock.Instant] = [:]
  }

  private let limits: OperatorLimits
  private let connectionsMax: Int
  private let pause: Duration
  private let addressOf: @Sendable (Int32) -> String?
  private let breakOff: @Sendable (Int32) -> Void
  private let state = Mutex(State())

  /// - Parameters:
  ///   - connectionsMax: from which descriptor on there is no room; the kernel gives the lowest that is free.
  ///   - pause: between two looks at all connections of whoever has too many.
  ///   - addressOf: where the connection with a descriptor comes from; nil if there is none.
  ///   - breakOff: ends the connection with a descriptor; libzmq closes it then.
  init(
    limits: OperatorLimits, connectionsMax: Int, pause: Duration = .milliseconds(500),
    addressOf: @escaping @Sendable (Int32) -> String? = ConnectionBook.peerAddress,
    breakOff: @escaping @Sendable (Int32) -> Void = { shutdown($0, Int32(SHUT_RDWR)) }
  ) {
    // However few there can be, one address must not have all of them; but for those of this machine, most.
    var limits = limits
    limits.connectionsPerAddress = min(limits.connectionsPerAddress, connectionsMax / 2)
    limits.connectionsPerLoopback = min(limits.connectionsPerLoopback, connectionsMax - connectionsMax / 8)
    self.limits = limits
    self.connectionsMax = connectionsMax
    self.pause = pause
    self.addressOf = addressOf
    self.breakOff = breakOff
  }

  /// Returns whether there is room for it, whoever it is.
  @discardableResult
  func accepted(_ descriptor: Int32, at port: Entrance) -> Bool {
    let address = address(of: descriptor)
    let hasRoom = descriptor < connectionsMax
    let place = Place(port: port, descriptor: descriptor)
    let isOneTooMany = state.withLock { state in
      Self.forget(place, &state)
      guard let address else { return false }  // gone already
      state.addresses[place] = address
      state.counts[address, default: 0] += 1
      let limit = limit(of: address)
      return state.counts[address]! > limit + Self.reserve(beyond: limit)
    }
    // It may have ended meanwhile, and its descriptor may be another's.
    if isOneTooMany || !hasRoom, let address, self.address(of: descriptor) == address { breakOff(descriptor) }
    return hasRoom
  }

  func ended(_ descriptor: Int32, at port: Entrance) {
    state.withLock { Self.forget(Place(port: port, descriptor: descriptor), &$0) }
  }

  /// Whether the connections of an address, the one that is asked for among them, are few enough.
  func admits(_ address: PeerAddress) -> Bool {
    let limit = limit(of: address)
    let noted: [Place]? = state.withLock { state in
      guard state.counts[address, default: 0] > limit else { return nil }
      let now = ContinuousClock.now
      if let last = state.lookedThrough[address], last + pause > now { return [] }
      state.lookedThrough[address] = now
      return state.addresses.filter { $0.value == address }.map(\.key)
    }
    guard let noted else { return true }
    // Without the lock, for which the loop may wait.
    let gone = noted.filter { self.address(of: $0.descriptor) != address }
    return state.withLock { state in
      for place in gone where state.addresses[place] == address { Self.forget(place, &state) }
      return state.counts[address, default: 0] <= limit
    }
  }

  private func limit(of address: PeerAddress) -> Int {
    address.isLoopback ? limits.connectionsPerLoopback : limits.connectionsPerAddress
  }

  /// For those who are to be told that there are too many, instead of being broken off.
  static func reserve(beyond limit: Int) -> Int { limit / 4 + 16 }

  private func address(of descriptor: Int32) -> PeerAddress? {
    addressOf(descriptor).map { PeerAddress(peerAddress: $0) }
  }

  private static func forget(_ place: Place, _ state: inout State) {
    guard let address = state.addresses.removeValue(forKey: place) else { return }
    let count = state.counts[address]! - 1
    state.counts[address] = count == 0 ? nil : count
    if count == 0 { state.lookedThrough[address] = nil }
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
