// How many connections an address may have.

import Core
import Glibc
import Model
import Synchronization
import Testing

@testable import Node

@Suite struct ConnectionBookTests {
  /// Where descriptors lead to, as the kernel would tell.
  private final class Kernel: Sendable {
    let addresses = Mutex<[Int32: String]>([:])
    let brokenOff = Mutex<[Int32]>([])

    func open(_ descriptor: Int32, _ address: String) { addresses.withLock { $0[descriptor] = address } }
    func close(_ descriptor: Int32) { addresses.withLock { $0[descriptor] = nil } }
  }

  private func book(
    _ kernel: Kernel, limit: Int, ofLoopback: Int = 1, connectionsMax: Int = 10_000, pause: Duration = .zero
  ) -> ConnectionBook {
    var limits = OperatorLimits()
    limits.connectionsPerAddress = limit
    limits.connectionsPerLoopback = ofLoopback
    return ConnectionBook(
      limits: limits, connectionsMax: connectionsMax, pause: pause,
      addressOf: { descriptor in kernel.addresses.withLock { $0[descriptor] } },
      breakOff: { descriptor in kernel.brokenOff.withLock { $0.append(descriptor) } })
  }

  private func come(_ descriptors: ClosedRange<Int32>, to book: ConnectionBook, _ kernel: Kernel) {
    for descriptor in descriptors {
      kernel.open(descriptor, "10.0.0.1")
      book.accepted(descriptor, at: .requests)
    }
  }

  @Test func theOneTooManyIsRefusedAndOthersAreNot() {
    let kernel = Kernel()
    let book = book(kernel, limit: 3)
    for descriptor: Int32 in 1...3 {
      kernel.open(descriptor, "10.0.0.1")
      book.accepted(descriptor, at: .requests)
      #expect(book.admits(PeerAddress(peerAddress: "10.0.0.1")))
    }
    kernel.open(4, "10.0.0.1")
    book.accepted(4, at: .timelines)
    #expect(!book.admits(PeerAddress(peerAddress: "10.0.0.1")))
    #expect(book.admits(PeerAddress(peerAddress: "10.0.0.2")))
    kernel.close(2)
    book.ended(2, at: .requests)
    #expect(book.admits(PeerAddress(peerAddress: "10.0.0.1")))
  }

  @Test func anEndThatNobodyToldIsFoundOut() {
    let kernel = Kernel()
    let book = book(kernel, limit: 2)
    come(1...3, to: book, kernel)
    #expect(!book.admits(PeerAddress(peerAddress: "10.0.0.1")))
    // One ends, and another address has its descriptor.
    kernel.open(1, "10.0.0.9")
    #expect(book.admits(PeerAddress(peerAddress: "10.0.0.1")))
    // Its own end comes late, and counts for nothing any more.
    book.ended(1, at: .requests)
    #expect(book.admits(PeerAddress(peerAddress: "10.0.0.1")))
  }

  @Test func aDescriptorUsedAgainCountsOnce() {
    let kernel = Kernel()
    let book = book(kernel, limit: 1)
    kernel.open(1, "10.0.0.1")
    for _ in 0..<5 { book.accepted(1, at: .requests) }
    #expect(book.admits(PeerAddress(peerAddress: "10.0.0.1")))
  }

  /// All that a flood costs is a look at two numbers a handshake.
  @Test func aFloodIsNotLookedThroughEachTime() {
    let kernel = Kernel()
    let book = book(kernel, limit: 2, pause: .seconds(60))
    come(1...3, to: book, kernel)
    kernel.close(1)
    #expect(book.admits(PeerAddress(peerAddress: "10.0.0.1")))
    kernel.open(1, "10.0.0.1")
    book.accepted(1, at: .requests)
    kernel.close(1)
    #expect(!book.admits(PeerAddress(peerAddress: "10.0.0.1")))
    book.ended(1, at: .requests)
    #expect(book.admits(PeerAddress(peerAddress: "10.0.0.1")))
  }

  /// Whoever says nothing never comes before the gatekeeper.
  @Test func silentConnectionsBeyondTheReserveAreBrokenOff() {
    let kernel = Kernel()
    let book = book(kernel, limit: 8)
    let most = Int32(8 + ConnectionBook.reserve(beyond: 8))
    come(1...most + 3, to: book, kernel)
    #expect(kernel.brokenOff.withLock { $0 } == [most + 1, most + 2, most + 3])
    kernel.open(1_000, "10.0.0.2")
    book.accepted(1_000, at: .requests)
    #expect(kernel.brokenOff.withLock { $0 }.count == 3)
  }

  @Test func whoeverGetsOneOfTheLastDescriptorsIsBrokenOff() {
    let kernel = Kernel()
    let book = book(kernel, limit: 100, connectionsMax: 50)
    come(40...49, to: book, kernel)
    #expect(kernel.brokenOff.withLock { $0 }.isEmpty)
    kernel.open(50, "10.0.0.2")
    #expect(!book.accepted(50, at: .timelines))
    #expect(kernel.brokenOff.withLock { $0 } == [50])
    book.ended(50, at: .timelines)
    kernel.close(45)
    book.ended(45, at: .requests)
    kernel.open(45, "10.0.0.2")
    #expect(book.accepted(45, at: .timelines))
    // Gone before its monitor told of it: the descriptor may be a file's by now.
    #expect(!book.accepted(51, at: .requests))
    #expect(kernel.brokenOff.withLock { $0 } == [50])
  }

  @Test(arguments: [(200, 124, 24), (1_024, 896, 384), (20_000, 18_686, 8_686), (192, 116, 20)])
  func sessionsAndFilesShareWhatCanBeOpened(limit: Int, connections: Int, sessions: Int) {
    #expect(OpenFiles(limit: limit).connectionsMax == connections)
    #expect(OpenFiles(limit: limit).sessionsMax == sessions)
  }

  /// Whoever has one IPv6 address has all of its network.
  @Test func anIPv6NetworkIsOneAddress() {
    let kernel = Kernel()
    let book = book(kernel, limit: 3)
    for (index, address) in ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"].enumerated() {
      kernel.open(Int32(index + 1), address)
      book.accepted(Int32(index + 1), at: .requests)
    }
    #expect(!book.admits(PeerAddress(peerAddress: "2001:db8::5")))
    #expect(book.admits(PeerAddress(peerAddress: "2001:db8:0:1::1")))
  }

  @Test(arguments: ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
  func thisMachineHasALimitOfItsOwn(address: String) {
    let kernel = Kernel()
    let book = book(kernel, limit: 2, ofLoopback: 5)
    for descriptor: Int32 in 1...6 {
      #expect(book.admits(PeerAddress(peerAddress: address)))
      kernel.open(descriptor, address)
      book.accepted(descriptor, at: .requests)
    }
    #expect(!book.admits(PeerAddress(peerAddress: address)))
  }

  @Test func theKernelTellsWhereAConnectionComesFrom() {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    let isReady = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, size) == 0 && listen(listener, 1) == 0 && getsockname(listener, $0, &size) == 0
          && connect(client, $0, size) == 0
      }
    }
    #expect(isReady)
    let accepted = accept(listener, nil, nil)
    #expect(ConnectionBook.peerAddress(accepted) == "127.0.0.1")
    for descriptor in [accepted, client, listener] { close(descriptor) }
    #expect(ConnectionBook.peerAddress(accepted) == nil)
  }
}
