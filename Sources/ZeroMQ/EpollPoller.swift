// Waiting for thousands of sockets. A socket's descriptor (ZMQ_FD) wakes up only once, and any use of the socket may
// swallow that wake-up. So every use is noted (`SocketHandle.touched()`), and the sockets used since the last wait are
// asked what they are ready for before the next sleep; the others are left to epoll, and so are those that were just found empty.
internal import CZMQ
import Glibc

/// Waits for thousands of sockets and descriptors: a wait costs as much as the items that are ready or were used
/// since the last one. A socket may be in one `EpollPoller` at a time.
public struct EpollPoller: ~Copyable, SocketPoller {
  private let core: EpollCore

  /// - Throws: EMFILE without a free descriptor.
  public init() throws(ZMQError) {
    core = try EpollCore()
  }

  deinit { core.close() }

  public mutating func add(_ socket: borrowing Socket, token: Int, interest: PollEvents) throws(ZMQError) {
    if socket.handle.watcher != nil { throw ZMQError(code: EEXIST, call: "EpollPoller.add") }
    try core.add(socket.handle, descriptor: socket.fileDescriptor, token: token, interest: interest)
  }

  public mutating func add(fileDescriptor: Int32, token: Int, interest: PollEvents) throws(ZMQError) {
    try core.add(nil, descriptor: fileDescriptor, token: token, interest: interest)
  }

  public mutating func setInterest(_ interest: PollEvents, of token: Int) throws(ZMQError) {
    try core.setInterest(interest, of: token)
  }

  public mutating func remove(token: Int) {
    core.remove(token: token)
  }

  public mutating func wait(nanoseconds: Int64?, into ready: inout [Ready]) throws(ZMQError) {
    try core.wait(nanoseconds, into: &ready)
  }
}

@available(*, unavailable)
extension EpollPoller: Sendable {}

/// The poller as its sockets see it. Sockets and core refer to each other from `add` until `remove`, the end of the
/// socket, or the end of the poller, whichever comes first.
final class EpollCore {
  private struct Item {
    let token: Int
    let socket: SocketHandle?
    let descriptor: Int32
    var interest: PollEvents
  }

  private let epoll: Int32
  private var items: [Item?] = []  // a slot an item
  private var freeSlots: [Int] = []
  private var slots: [Int: Int] = [:]  // token → slot
  /// The sockets to ask before the next sleep: used since they were last asked, woken by epoll, or still ready.
  private var touched: [SocketHandle] = []
  private var signalled: [epoll_event]

  init() throws(ZMQError) {
    epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    signalled = Array(repeating: epoll_event(), count: 256)
    if epoll < 0 { throw ZMQError(code: errno, call: "epoll_create1") }
  }

  deinit { Glibc.close(epoll) }

  func close() {
    for item in items {
      item?.socket?.watcher = nil
      item?.socket?.isTouched = false
    }
    items = []
    slots = [:]
    touched = []
  }

  func add(_ socket: SocketHandle?, descriptor: Int32, token: Int, interest: PollEvents) throws(ZMQError) {
    if slots[token] != nil { throw ZMQError(code: EEXIST, call: "EpollPoller.add") }
    let slot = freeSlots.popLast() ?? items.count
    let events = socket == nil ? interest.forEpoll : UInt32(EPOLLIN.rawValue)
    do throws(ZMQError) {
      try control(EPOLL_CTL_ADD, descriptor, events, slot)
    } catch {
      if slot < items.count { freeSlots.append(slot) }
      throw error
    }
    let item = Item(token: token, socket: socket, descriptor: descriptor, interest: interest)
    if slot == items.count { items.append(item) } else { items[slot] = item }
    slots[token] = slot
    if let socket {
      socket.watcher = self
      socket.watcherSlot = slot
      touch(socket)  // what came before it was added has been signalled before
    }
  }

  func setInterest(_ interest: PollEvents, of token: Int) throws(ZMQError) {
    guard let slot = slots[token], let item = items[slot] else {
      throw ZMQError(code: ENOENT, call: "EpollPoller.setInterest")
    }
    if let socket = item.socket {
      touch(socket)
    } else {
      try control(EPOLL_CTL_MOD, item.descriptor, interest.forEpoll, slot)
    }
    items[slot]!.interest = interest
  }

  func remove(token: Int) {
    guard let slot = slots[token], let item = items[slot] else { return }
    if let socket = item.socket {
      // It may still be among the touched, where it is passed over: with thousands of sockets, looking for it would cost more.
      socket.watcher = nil
      socket.isTouched = false
    }
    try? control(EPOLL_CTL_DEL, item.descriptor, 0, slot)  // fails if it was closed: then epoll forgot it too
    items[slot] = nil
    freeSlots.append(slot)
    slots[token] = nil
  }

  func remove(_ socket: SocketHandle) {
    if let item = items[socket.watcherSlot] { remove(token: item.token) }
  }

  /// Notes that the socket must be asked before the next sleep.
  func touch(_ socket: SocketHandle) {
    if socket.isTouched { return }
    socket.isTouched = true
    touched.append(socket)
  }

  func wait(_ nanoseconds: Int64?, into ready: inout [Ready]) throws(ZMQError) {
    ready.removeAll(keepingCapacity: true)
    let timeout = Timeout(nanoseconds)
    try askTouched(from: 0, into: &ready)
    while true {
      let pause = ready.isEmpty ? timeout.remaining : 0
      let count = try sleep(pause)
      let firstWoken = touched.count
      for index in 0..<max(count, 0) {
        let event = signalled[index]
        guard let item = items[Int(event.data.u64)] else { continue }
        if let socket = item.socket {
          socket.isDrained = false
          touch(socket)
        } else {
          ready.append(Ready(token: item.token, events: PollEvents(epoll: event.events)))
        }
      }
      try askTouched(from: firstWoken, into: &ready)
      if !ready.isEmpty || pause == 0 { return }
    }
  }

  /// Asks the touched sockets from an index on; those that are not ready are touched no longer.
  private func askTouched(from first: Int, into ready: inout [Ready]) throws(ZMQError) {
    var kept = first
    for index in first..<touched.count {
      let socket = touched[index]
      // One that was removed; or removed and added again, so that it is there twice.
      guard socket.watcher === self, socket.isTouched, let item = items[socket.watcherSlot] else { continue }
      let isDrained = socket.isDrained && item.interest == .readable
      let events = isDrained ? [] : try socket.events().intersection(item.interest)
      if events.isEmpty {
        socket.isTouched = false
      } else {
        ready.append(Ready(token: item.token, events: events))
        touched[kept] = socket
        kept += 1
      }
    }
    touched.removeSubrange(kept...)
  }

  private func sleep(_ nanoseconds: Int64?) throws(ZMQError) -> Int {
    let epoll = epoll
    let count = signalled.withUnsafeMutableBufferPointer { buffer in
      var time = timespec(nanoseconds: nanoseconds ?? 0)
      return withUnsafePointer(to: &time) { time in
        epoll_pwait2(epoll, buffer.baseAddress, Int32(buffer.count), nanoseconds == nil ? nil : time, nil)
      }
    }
    if count < 0 && errno != EINTR { throw ZMQError(code: errno, call: "epoll_pwait2") }
    return Int(count)
  }

  private func control(_ operation: Int32, _ descriptor: Int32, _ events: UInt32, _ slot: Int) throws(ZMQError) {
    var event = epoll_event(events: events, data: epoll_data_t(u64: UInt64(slot)))
    if epoll_ctl(epoll, operation, descriptor, &event) != 0 { throw ZMQError(code: errno, call: "epoll_ctl") }
  }
}

extension PollEvents {
  fileprivate var forEpoll: UInt32 {
    (contains(.readable) ? EPOLLIN.rawValue : 0) | (contains(.writable) ? EPOLLOUT.rawValue : 0)
  }

  fileprivate init(epoll events: UInt32) {
    self = []
    if events & EPOLLIN.rawValue != 0 { insert(.readable) }
    if events & EPOLLOUT.rawValue != 0 { insert(.writable) }
    if events & (EPOLLERR.rawValue | EPOLLHUP.rawValue) != 0 { insert(.error) }
  }
}
