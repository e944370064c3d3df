// Waiting for sockets and descriptors. `Poller` looks at every item every time, which is best for the handful of
// sockets of a server; `EpollPoller` has the same interface and scales to thousands.
// Not zmq_poll: that one rounds to milliseconds, and asks for each descriptor again on every call.
internal import CZMQ
import Glibc

/// Readiness of a socket or a descriptor.
public struct PollEvents: OptionSet, Hashable, Sendable {
  public let rawValue: Int32

  public init(rawValue: Int32) { self.rawValue = rawValue }

  /// There is something to receive or to read.
  public static let readable = PollEvents(rawValue: 1)
  /// A send or a write would not block.
  public static let writable = PollEvents(rawValue: 2)
  /// Descriptors only, reported without being asked for: an error, or the other end hung up.
  public static let error = PollEvents(rawValue: 4)
}

/// An item that is ready.
public struct Ready: Equatable, Sendable {
  /// The token that the item was added with.
  public let token: Int
  /// What it is ready for.
  public let events: PollEvents

  public init(token: Int, events: PollEvents) {
    self.token = token
    self.events = events
  }
}

/// What the pollers have in common. Readiness is by level: an item that is not drained is reported again.
///
/// A poller is used by the thread that uses its sockets. A socket that is closed disappears from it; a descriptor must be
/// removed before it is closed.
public protocol SocketPoller: ~Copyable {
  /// Adds a socket under a token that no other item has. With `interest` empty it waits for nothing yet.
  ///
  /// - Throws: EEXIST if the token is taken, or if the socket is in an `EpollPoller` already.
  mutating func add(_ socket: borrowing Socket, token: Int, interest: PollEvents) throws(ZMQError)

  /// Adds a descriptor (eventfd, pidfd, signalfd, …) under a token that no other item has.
  ///
  /// - Throws: EEXIST if the token is taken.
  mutating func add(fileDescriptor: Int32, token: Int, interest: PollEvents) throws(ZMQError)

  /// Changes what an item waits for.
  ///
  /// - Throws: ENOENT if there is no such token.
  mutating func setInterest(_ interest: PollEvents, of token: Int) throws(ZMQError)

  /// Removes an item, if there is one of that token.
  mutating func remove(token: Int)

  /// Waits until an item is ready or the time is over, and replaces the contents of `ready` by what is ready.
  /// Reuse the array: then a call allocates nothing. A signal does not end the wait.
  ///
  /// - Parameter nanoseconds: 0 or less: only look; nil: wait forever.
  /// - Throws: terminated.
  mutating func wait(nanoseconds: Int64?, into ready: inout [Ready]) throws(ZMQError)
}

extension SocketPoller where Self: ~Copyable {
  /// Waits up to `timeout` (nil: forever); see `wait(nanoseconds:into:)`.
  public mutating func wait(_ timeout: Duration?, into ready: inout [Ready]) throws(ZMQError) {
    try wait(nanoseconds: timeout?.clampedNanoseconds, into: &ready)
  }
}

/// Waits for a handful of sockets and descriptors, with a resolution of nanoseconds (ppoll).
public struct Poller: ~Copyable, SocketPoller {
  private struct Item {
    let token: Int
    let socket: SocketHandle?
    var interest: PollEvents
    var isReported = false
  }

  private var items: [Item] = []
  private var descriptors: [pollfd] = []  // items' descriptors, at the same indices
  private var hasPlainDescriptors = false

  public init() {}

  public mutating func add(_ socket: borrowing Socket, token: Int, interest: PollEvents) throws(ZMQError) {
    let descriptor = try socket.fileDescriptor
    let item = Item(token: token, socket: socket.handle, interest: interest)
    try add(item, pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0))
  }

  public mutating func add(fileDescriptor: Int32, token: Int, interest: PollEvents) throws(ZMQError) {
    let item = Item(token: token, socket: nil, interest: interest)
    try add(item, pollfd(fd: fileDescriptor, events: interest.forPoll, revents: 0))
  }

  private mutating func add(_ item: Item, _ descriptor: pollfd) throws(ZMQError) {
    forgetClosedSockets()
    if items.contains(where: { $0.token == item.token }) { throw ZMQError(code: EEXIST, call: "Poller.add") }
    items.append(item)
    descriptors.append(descriptor)
    if item.socket == nil { hasPlainDescriptors = true }
  }

  public mutating func setInterest(_ interest: PollEvents, of token: Int) throws(ZMQError) {
    guard let index = items.firstIndex(where: { $0.token == token }) else {
      throw ZMQError(code: ENOENT, call: "Poller.setInterest")
    }
    items[index].interest = interest
    if items[index].socket == nil { descriptors[index].events = interest.forPoll }
  }

  public mutating func remove(token: Int) {
    guard let index = items.firstIndex(where: { $0.token == token }) else { return }
    items.remove(at: index)
    descriptors.remove(at: index)
    hasPlainDescriptors = items.contains { $0.socket == nil }
  }

  public mutating func wait(nanoseconds: Int64?, into ready: inout [Ready]) throws(ZMQError) {
    ready.removeAll(keepingCapacity: true)
    let timeout = Timeout(nanoseconds)
    while true {
      try collectReadySockets(into: &ready)
      if !ready.isEmpty && !hasPlainDescriptors { return }
      let pause = ready.isEmpty ? timeout.remaining : 0
      if try sleep(pause) > 0 { try collectSignalled(into: &ready) }
      if !ready.isEmpty || pause == 0 { return }
    }
  }

  /// Asks the sockets themselves: their descriptors say only that something changed since they were last asked.
  private mutating func collectReadySockets(into ready: inout [Ready]) throws(ZMQError) {
    var hasClosed = false
    for index in items.indices {
      items[index].isReported = false
      guard let socket = items[index].socket else { continue }
      if socket.isOpen {
        try report(index, socket.events(), into: &ready)
      } else {
        hasClosed = true
      }
    }
    if hasClosed { forgetClosedSockets() }
  }

  private mutating func collectSignalled(into ready: inout [Ready]) throws(ZMQError) {
    for index in items.indices where descriptors[index].revents != 0 && !items[index].isReported {
      if let socket = items[index].socket {
        try report(index, socket.events(), into: &ready)
      } else {
        ready.append(Ready(token: items[index].token, events: PollEvents(poll: descriptors[index].revents)))
      }
    }
  }

  private mutating func report(_ index: Int, _ events: PollEvents, into ready: inout [Ready]) {
    let events = events.intersection(items[index].interest)
    if events.isEmpty { return }
    items[index].isReported = true
    ready.append(Ready(token: items[index].token, events: events))
  }

  private mutating func sleep(_ nanoseconds: Int64?) throws(ZMQError) -> Int32 {
    let count = descriptors.withUnsafeMutableBufferPointer { buffer in
      var time = timespec(nanoseconds: nanoseconds ?? 0)
      return withUnsafePointer(to: &time) { time in
        ppoll(buffer.baseAddress, nfds_t(buffer.count), nanoseconds == nil ? nil : time, nil)
      }
    }
    if count < 0 && errno != EINTR { throw ZMQError(code: errno, call: "ppoll") }
    return count
  }

  private mutating func forgetClosedSockets() {
    for index in items.indices.reversed() {
      guard let socket = items[index].socket, !socket.isOpen else { continue }
      items.remove(at: index)
      descriptors.remove(at: index)
    }
  }
}

@available(*, unavailable)
extension Poller: Sendable {}

/// A wait that may have to be resumed.
struct Timeout {
  private let deadline: Int64?  // nanoseconds of the monotonic clock; nil: forever

  init(_ nanoseconds: Int64?) {
    guard let nanoseconds else {
      deadline = nil
      return
    }
    let (sum, overflowed) = Self.now().addingReportingOverflow(max(nanoseconds, 0))
    deadline = overflowed ? nil : sum
  }

  /// Nanoseconds left, 0 when over; nil: forever.
  var remaining: Int64? {
    deadline.map { max($0 - Self.now(), 0) }
  }

  private static func now() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }
}

extension timespec {
  init(nanoseconds: Int64) {
    self.init(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
  }
}

extension PollEvents {
  fileprivate var forPoll: Int16 {
    Int16((contains(.readable) ? POLLIN : 0) | (contains(.writable) ? POLLOUT : 0))
  }

  fileprivate init(poll events: Int16) {
    let events = Int32(events)
    self = []
    if events & Int32(POLLIN) != 0 { insert(.readable) }
    if events & Int32(POLLOUT) != 0 { insert(.writable) }
    if events & Int32(POLLERR | POLLHUP | POLLNVAL) != 0 { insert(.error) }
  }
}
