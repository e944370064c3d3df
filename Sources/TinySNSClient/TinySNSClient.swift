// The client for programs: one session of one user, with async calls.

public import Core
public import Model
import Runtime

/// A user's session with a Tiny SNS cluster.
///
/// It finds a master through the router, and moves to another by itself when that one dies, hangs or stops. A request that
/// got no answer is repeated there, and takes effect once. All calls may be made from any thread or task.
///
/// ```swift
/// let key = ServerKey.file("var/keys/cluster.pub")
/// let client = try TinySNSClient(
///   router: "tcp://127.0.0.1:3010", serverKey: key, user: "alice", password: Password("correct horse"), register: true)
/// let id = try await client.post("hello")
/// for try await posts in client.watch(after: id) { print(posts) }
/// ```
public final class TinySNSClient: Sendable {
  public typealias Note = ClientNote

  private let loop: ClientLoop
  private let session: SessionReference
  public let user: String

  /// Begins to log in; the first request waits for it.
  ///
  /// - Parameters:
  ///   - router: the router's endpoint, `tcp://HOST:PORT`.
  ///   - serverKey: what the cluster has to prove; nil for one with `security: none`: then nothing is encrypted.
  ///   - password: the user's. Needed once: from then on the client logs in with the token that it got, over any failover.
  ///   - token: of an earlier login (`onToken`), instead of the password or besides it.
  ///   - register: create the account, with the password, if the name is new.
  ///   - timing: the cluster's times, if they are not the default ones.
  ///   - loop: shared between clients; nil: a thread of its own.
  ///   - onNote: told when the master is lost, another one serves, or none is to be had. Called on the loop's thread.
  ///   - onToken: given a token for later logins: keep it as secret as the password. Called on the loop's thread.
  public init(
    router: String, serverKey: ServerKey?, user: String, password: Password? = nil, token: SessionToken? = nil,
    register: Bool = false,
    timing: Timing = Timing(), loop: ClientLoop? = nil, onNote: @escaping @Sendable (Note) -> Void = { _ in },
    onToken: @escaping @Sendable (SessionToken) -> Void = { _ in }
  ) throws(ClientError) {
    self.user = user
    if let loop { self.loop = loop } else { self.loop = try ClientLoop() }
    let session = SessionReference()
    self.session = session
    self.loop.perform { state in
      let core = ClientCore(
        user: user, register: register, password: password, token: token, timing: timing, random: .system)
      session.id = state.open(
        core, router: router, serverKey: serverKey, handlers: SessionHandlers(note: onNote, keep: onToken))
    }
  }

  deinit {
    let session = session
    loop.perform { state in if let id = session.id { state.close(id) } }
  }

  // MARK: Requests

  /// How long a call waits unless told otherwise.
  public static let defaultTimeout = Duration.seconds(30)

  /// Posts a text. Returns the post's id once it is on disk.
  public func post(_ text: String, timeout: Duration = defaultTimeout) async throws(ClientError) -> EventID {
    try await effect(.post(text: text), timeout)
  }

  /// Follows a user. Returns the event's id once it is on disk.
  @discardableResult
  public func follow(_ name: String, timeout: Duration = defaultTimeout) async throws(ClientError) -> EventID {
    try await effect(.follow(name: name), timeout)
  }

  /// Stops following a user.
  @discardableResult
  public func unfollow(_ name: String, timeout: Duration = defaultTimeout) async throws(ClientError) -> EventID {
    try await effect(.unfollow(name: name), timeout)
  }

  /// Sets a new password. Every other session of the user ends, and all tokens made before are no longer good; this client
  /// goes on with the new password.
  @discardableResult
  public func changePassword(
    from old: Password, to new: Password, timeout: Duration = defaultTimeout
  ) async throws(ClientError) -> EventID {
    try await effect(.changePassword(PasswordChange(old: old, new: new)), timeout)
  }

  /// Makes the token of this session useless, or all tokens of the user; nothing more can be asked of this client then.
  public func logout(everywhere: Bool = false, timeout: Duration = defaultTimeout) async throws(ClientError) {
    _ = try await effect(.logout(everywhere: everywhere), timeout)
  }

  /// All names of a list, in the order in which the accounts were created.
  public func list(
    _ kind: ListQuery.Kind, timeout: Duration = defaultTimeout
  ) async throws(ClientError) -> [String] {
    var names: [String] = []
    while true {
      let body = try await request(.list(ListQuery(kind: kind, offset: UInt32(names.count))), timeout)
      guard case .names(let page) = body else { throw Self.unexpected(body) }
      names += page.names
      if !page.more || page.names.isEmpty { return names }
    }
  }

  /// A page of a timeline: its newest posts, or those before or after an event; oldest first.
  public func timeline(
    _ name: TimelineName = .home, range: TimelineQuery.Range = .newest, limit: Int = Limits.newestPerAuthor,
    timeout: Duration = defaultTimeout
  ) async throws(ClientError) -> TimelinePage {
    let query = TimelineQuery(timeline: name, range: range, limit: UInt32(clamping: limit))
    let body = try await request(.timeline(query), timeout)
    guard case .page(let page) = body else { throw Self.unexpected(body) }
    return page
  }

  /// Waits until the login has succeeded.
  public func ready(timeout: Duration = defaultTimeout) async throws(ClientError) {
    _ = try await request(.list(ListQuery(kind: .following, limit: 1)), timeout)
  }

  private func effect(_ body: Request.Body, _ timeout: Duration) async throws(ClientError) -> EventID {
    let reply = try await request(body, timeout)
    guard case .done(let id) = reply else { throw Self.unexpected(reply) }
    return id
  }

  private static func unexpected(_ body: Reply.Body) -> ClientError {
    .failed("the master sent an answer of the wrong kind")
  }

  /// Any request, with the answer as it is; refusals are thrown.
  public func request(
    _ body: Request.Body, _ timeout: Duration = defaultTimeout
  ) async throws(ClientError) -> Reply.Body {
    let session = session
    let loop = loop
    let outcome = await withCheckedContinuation { (continuation: CheckedContinuation<SessionOutcome, Never>) in
      loop.perform { state in
        guard let id = session.id, let running = state.session(id) else {
          continuation.resume(returning: SessionOutcome(outcome: .closed, hadMaster: false))
          return
        }
        let token = running.makeToken()
        running.finishes[token] = { [unowned running] outcome in
          let hadMaster = running.core.isServing || running.core.master != nil
          continuation.resume(returning: SessionOutcome(outcome: outcome, hadMaster: hadMaster))
        }
        let now = Clock.now()
        running.core.submit(
          body, token: token, deadline: now + Interval(timeout), at: now, into: &running.actions)
        state.settle(id, running)
      }
    }
    switch outcome.outcome {
    case .reply(.refused(let refusal)): throw .refused(refusal)
    case .reply(let body): return body
    case .timedOut(let mayHaveHappened):
      throw .timedOut(mayHaveHappened: mayHaveHappened, hadMaster: outcome.hadMaster)
    case .loginRefused(let refusal): throw .loginRefused(refusal)
    case .closed: throw .closed
    }
  }

  // MARK: Watching

  /// A timeline from a log position on: everything after it, then what comes, each post once and in log order, over any failover.
  ///
  /// Ends when the task that reads it is cancelled, when the client is closed, or with the refusal if the timeline can't be watched.
  /// A reader that falls behind is waited for by nobody: what it has not taken is kept for it in memory.
  public func watch(
    _ name: TimelineName = .home, after cursor: EventID = .zero
  ) -> AsyncThrowingStream<[Post], any Error> {
    let session = session
    let loop = loop
    return AsyncThrowingStream { continuation in
      let watch = WatchReference()
      loop.perform { state in
        guard let id = session.id, let running = state.session(id) else {
          continuation.finish(throwing: ClientError.closed)
          return
        }
        let token = running.makeToken()
        watch.token = token
        running.shows[token] = { posts in continuation.yield(posts) }
        running.finishes[token] = { outcome in
          switch outcome {
          case .reply(.refused(let refusal)): continuation.finish(throwing: ClientError.refused(refusal))
          case .loginRefused(let refusal): continuation.finish(throwing: ClientError.loginRefused(refusal))
          case .reply, .timedOut, .closed: continuation.finish(throwing: ClientError.closed)
          }
        }
        running.core.watch(name, after: cursor, token: token, at: Clock.now(), into: &running.actions)
        state.settle(id, running)
      }
      continuation.onTermination = { _ in
        loop.perform { state in
          guard let id = session.id, let running = state.session(id), let token = watch.token else { return }
          running.shows[token] = nil
          running.finishes[token] = nil
          running.core.unwatch(token, at: Clock.now(), into: &running.actions)
          state.settle(id, running)
        }
      }
    }
  }

  /// Says goodbye to the master; requests under way end as closed.
  public func close() async {
    let session = session
    let loop = loop
    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
      loop.perform { state in
        if let id = session.id { state.close(id) }
        session.id = nil
        continuation.resume()
      }
    }
  }
}

private struct SessionOutcome: Sendable {
  var outcome: ClientOutcome
  var hadMaster: Bool
}

/// Which session of the loop is the client's. `@unchecked Sendable`: read and written on the loop's thread only.
private final class SessionReference: @unchecked Sendable {
  var id: Int?
}

/// `@unchecked Sendable`: read and written on the loop's thread only.
private final class WatchReference: @unchecked Sendable {
  var token: ClientToken?
}
