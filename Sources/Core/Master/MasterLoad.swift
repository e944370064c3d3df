// How much a master has to remember and to do at the moment, against the limits that it has unless the topology says otherwise: for checkers.

import Model

/// What grows with what is asked of a master.
public struct MasterLoad: Hashable, Sendable {
  public var sessions: Int
  /// Of the session that has most.
  public var requestsInFlight: Int
  /// Of all sessions, waiting for a commit.
  public var requestsWaiting: Int
  /// Logins that wait until the log has been read.
  public var loginsWaiting: Int
  public var readsWaiting: Int
  public var repeatsWaiting: Int
  /// Of the session that watches most.
  public var topicsPerSession: Int

  /// The first number that is beyond its limit, if any, with what it counts.
  public var firstBeyondItsLimit: (what: String, count: Int)? {
    let all = [
      ("sessions", sessions, Limits.sessions),
      ("requests of one session in flight", requestsInFlight, Limits.requestsInFlight),
      ("requests waiting", requestsWaiting, Limits.requestsWaiting),
      ("logins waiting", loginsWaiting, Limits.sessions),
      ("reads waiting", readsWaiting, Limits.readsWaiting),
      ("repeats waiting", repeatsWaiting, Limits.repeatsWaiting),
      ("topics of one session", topicsPerSession, Limits.topicsPerSession),
    ]
    return all.first { $0.1 > $0.2 }.map { ($0.0, $0.1) }
  }
}

extension MasterCore {
  /// What this master has to do now. Costs a look at every session.
  public var load: MasterLoad {
    MasterLoad(
      sessions: sessions.count, requestsInFlight: inFlight.values.reduce(0) { max($0, $1.count) },
      requestsWaiting: requestsWaiting, loginsWaiting: held.count, readsWaiting: reads.count,
      repeatsWaiting: repeats.count, topicsPerSession: sessions.values.reduce(0) { max($0, $1.topics.count) })
  }
}
