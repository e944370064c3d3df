// Hears of peers that libzmq drops without a word, because they do not speak its language.

import ZeroMQ

/// Watches the connections of a listening socket for those that end before ZeroMQ's greeting has succeeded: port scanners, web
/// browsers, random bytes. libzmq closes them and tells nobody but a monitor.
struct GreetingWatch: ~Copyable {
  /// To be polled for `.readable`; then call `next()` until nil.
  let monitor: Monitor

  init(of socket: borrowing Socket) throws(ZMQError) { monitor = try socket.makeMonitor(of: .failedGreetings) }

  /// What another stranger did; nil if there was none.
  borrowing func next() throws(ZMQError) -> String? {
    while let event = try monitor.next() {
      switch event.kind {
      case .handshakeFailedNoDetail: return "a connection that ended before ZeroMQ's greeting"
      case .handshakeFailedProtocol: return "a greeting that is not ZeroMQ's"
      case .handshakeFailedAuthentication: return "a greeting of somebody who is not let in"
      default: break
      }
    }
    return nil
  }
}
