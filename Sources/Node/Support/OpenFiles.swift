// How many files and connections the system lets a server have open.

import CSpawn

/// A process's limit of open descriptors (RLIMIT_NOFILE, `ulimit -n`): each connection is one, and so is each file of the log.
struct OpenFiles {
  /// As many as this process may have open.
  let limit: Int

  /// With fewer hardly anybody could be served.
  static let least = 192

  /// Raises the limit as far as the system allows: from the soft one, 1,024 on many systems, to the hard one.
  ///
  /// - Throws: if that is fewer than `least`.
  static func raiseLimit(of name: String) throws(NodeError) -> OpenFiles {
    let limit = tinysns_set_limit_nofile_max()
    guard limit >= least else {
      if limit < 0 { throw .system("\(name) can't learn how many files it may open", Int32(limit)) }
      throw NodeError("\(name) needs \(least) open files at least, and the system lets it have \(limit) (ulimit -n)")
    }
    return OpenFiles(limit: limit)
  }

  /// How many of them connections may be. The rest is for files, for connections to others, and for what comes before the loop hears of it: once
  /// there is no descriptor left, libzmq asks the kernel for the next connection over and over, without a pause.
  var connectionsMax: Int { limit - reserve }

  /// How many sessions can be served, each of which has two connections. The process's own files have descriptors from among those of connections,
  /// since they come first.
  var sessionsMax: Int { (connectionsMax - reserve) / 2 }

  private var reserve: Int { 64 + limit / 16 }
}
