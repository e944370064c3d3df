// A thread of this process.

import Glibc

/// A thread of this process.
///
/// `@unchecked Sendable`: nothing but the thread's handle, written once.
public final class WorkerThread: @unchecked Sendable {
  private var handle = pthread_t()

  /// Starts it.
  public init(_ body: @escaping @Sendable () -> Void) {
    let box = Unmanaged.passRetained(Body(run: body))
    let code = pthread_create(
      &handle, nil,
      { argument in
        let body = Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue()
        body.run()
        return nil
      }, box.toOpaque())
    precondition(code == 0, "no thread could be started: error \(code)")
  }

  /// Waits for its end.
  public func join() { pthread_join(handle, nil) }

  private final class Body {
    let run: @Sendable () -> Void

    init(run: @escaping @Sendable () -> Void) { self.run = run }
  }
}
