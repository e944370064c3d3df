// A queue between threads.

import CSpawn
import Glibc

/// A queue between threads. The consumer sleeps on it; or, if it polls descriptors, is woken by an eventfd.
///
/// `@unchecked Sendable`: all state is behind the mutex.
public final class Mailbox<Element: Sendable>: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var elements: [Element] = []
  private var isClosed = false
  /// Consumers that sleep.
  private var sleepers = 0
  private let bell: Int32?

  /// - Parameter bell: an eventfd that is rung when something is put in.
  public init(bell: Int32? = nil) {
    pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    // Who sets the clock does not change how long anybody waits.
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
    self.bell = bell
  }

  deinit {
    pthread_mutex_destroy(mutex)
    pthread_cond_destroy(condition)
    mutex.deallocate()
    condition.deallocate()
  }

  public func put(_ element: Element) {
    pthread_mutex_lock(mutex)
    elements.append(element)
    let wakes = sleepers > 0
    pthread_mutex_unlock(mutex)
    // After the unlock: who was woken before it would have to sleep once more, for the mutex.
    if wakes { pthread_cond_signal(condition) }
    if let bell { _ = tinysns_eventfd_ring(bell) }
  }

  /// Nothing more will be put in: `take` returns nil once the queue is empty.
  public func close() {
    pthread_mutex_lock(mutex)
    isClosed = true
    pthread_cond_broadcast(condition)
    pthread_mutex_unlock(mutex)
    if let bell { _ = tinysns_eventfd_ring(bell) }
  }

  /// Waits for elements and takes all of them, in order; nil once closed and empty.
  public func takeAll() -> [Element]? {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while elements.isEmpty && !isClosed {
      sleepers += 1
      pthread_cond_wait(condition, mutex)
      sleepers -= 1
    }
    if elements.isEmpty { return nil }
    defer { elements = [] }
    return elements
  }

  /// As `takeAll`, but gives up after so many milliseconds, with an empty array.
  public func takeAll(waitingAtMost milliseconds: Int) -> [Element]? {
    var deadline = timespec()
    clock_gettime(CLOCK_MONOTONIC, &deadline)
    deadline.tv_nsec += milliseconds % 1_000 * 1_000_000
    deadline.tv_sec += milliseconds / 1_000 + deadline.tv_nsec / 1_000_000_000
    deadline.tv_nsec %= 1_000_000_000
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while elements.isEmpty && !isClosed {
      sleepers += 1
      let outcome = pthread_cond_timedwait(condition, mutex, &deadline)
      sleepers -= 1
      if outcome == ETIMEDOUT { break }
    }
    if elements.isEmpty { return isClosed ? nil : [] }
    defer { elements = [] }
    return elements
  }

  /// Whether it is closed and everything has been taken.
  public var isFinished: Bool {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return isClosed && elements.isEmpty
  }

  public var isEmpty: Bool {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return elements.isEmpty
  }

  /// Takes what is there without waiting.
  public func takeNow() -> [Element] {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    defer { elements = [] }
    return elements
  }
}
