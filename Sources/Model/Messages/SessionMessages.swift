// What is said between a client and a master.

/// From a client to a master.
public struct Request: Hashable, Sendable {
  /// Counted up by the client from 1; repeated with the same number at the next master if no answer came.
  public var number: UInt64
  public var body: Body

  public enum Body: Hashable, Sendable {
    // The rare and large ones lie outside, so that the others stay small.
    indirect case hello(Hello)
    case post(text: String)
    case follow(name: String)
    case unfollow(name: String)
    case list(ListQuery)
    case timeline(TimelineQuery)
    case watch(TimelineName)
    case unwatch(Topic)
    indirect case changePassword(PasswordChange)
    /// Makes the session's token invalid, and ends the session; or all of the account's.
    case logout(everywhere: Bool)
    case ping
    /// The client leaves; no answer.
    case bye
  }

  public init(number: UInt64, body: Body) {
    self.number = number
    self.body = body
  }
}

/// Opens a session.
public struct Hello: Hashable, Sendable {
  public static let currentVersion: UInt32 = 2

  public var version: UInt32
  public var client: ClientID
  public var user: String
  /// Create the account, with the password, if the name is new.
  public var register: Bool
  /// The newest event that the client knows of: the master answers no older state.
  public var newest: EventID
  /// Nil proves nothing, and opens nothing.
  public var proof: Proof?
  /// Understands `Reply.Body.doneEach`. Without that each request is acknowledged on its own.
  public var takesDoneEach: Bool
  /// No part of the message: the key that its connection has proved, noted by whoever received it.
  public var key: PeerKey?

  public init(
    version: UInt32 = Hello.currentVersion, client: ClientID, user: String, register: Bool, newest: EventID,
    proof: Proof? = nil, takesDoneEach: Bool = false
  ) {
    self.version = version
    self.client = client
    self.user = user
    self.register = register
    self.newest = newest
    self.proof = proof
    self.takesDoneEach = takesDoneEach
  }
}

/// Sets a new password. Every other session of the account ends, and every token made before is invalid.
public struct PasswordChange: Hashable, Sendable {
  /// Not looked at in an operator's session.
  public var old: Password
  public var new: Password

  public init(old: Password, new: Password) {
    self.old = old
    self.new = new
  }
}

/// Asks for names, in the order in which the accounts were created.
public struct ListQuery: Hashable, Sendable {
  public enum Kind: String, Hashable, Sendable, CaseIterable {
    case users
    case followers
    case following
  }
  public var kind: Kind
  /// Names to skip: how many the client has from earlier pages.
  public var offset: UInt32
  /// At most `Limits.pageNames`; 0 means that.
  public var limit: UInt32

  public init(kind: Kind, offset: UInt32 = 0, limit: UInt32 = 0) {
    self.kind = kind
    self.offset = offset
    self.limit = limit
  }
}

/// Which timeline.
public enum TimelineName: Hashable, Sendable {
  /// The session's own: its posts and those of whom it follows.
  case home
  /// One author's posts.
  case author(String)
}

/// Asks for a page of a timeline.
public struct TimelineQuery: Hashable, Sendable {
  public enum Range: Hashable, Sendable {
    case newest
    /// The newest ones older than this event.
    case before(EventID)
    /// The oldest ones newer than this event.
    case after(EventID)
  }
  public var timeline: TimelineName
  public var range: Range
  /// At most `Limits.pagePosts`; 0 means that.
  public var limit: UInt32

  public init(timeline: TimelineName, range: Range, limit: UInt32 = 0) {
    self.timeline = timeline
    self.range = range
    self.limit = limit
  }
}

/// From a master to a client.
public struct Reply: Hashable, Sendable {
  /// The request's number; 0 for a Goodbye, which nobody asked for, and for `doneEach`, which has its own.
  public var number: UInt64
  public var body: Body

  public enum Body: Hashable, Sendable {
    case welcome(Welcome)
    /// Committed and synced, as this event.
    case done(EventID)
    /// The same of several requests, in one message: 1 to `Limits.acknowledgedTogether`. For a client whose Hello `takesDoneEach`.
    case doneEach([Done])
    case names(NamesPage)
    case page(TimelinePage)
    case watching(Watching)
    case unwatched
    case pong(Pong)
    case refused(Refusal)
    /// Go to another master: this one stops or is no longer the available one.
    case goodbye
  }

  public init(number: UInt64, body: Body) {
    self.number = number
    self.body = body
  }
}

/// A request that is committed and synced.
public struct Done: Hashable, Sendable {
  public var number: UInt64
  public var event: EventID

  public init(number: UInt64, event: EventID) {
    self.number = number
    self.event = event
  }
}

/// The session is open.
public struct Welcome: Hashable, Sendable {
  public var master: MasterIdentity
  public var account: AccountID
  /// The account was created by this login.
  public var isNew: Bool
  public var head: EventID
  /// For the next login. Nil: the one given goes on.
  public var token: SessionToken?

  public init(
    master: MasterIdentity, account: AccountID, isNew: Bool, head: EventID, token: SessionToken? = nil
  ) {
    self.master = master
    self.account = account
    self.isNew = isNew
    self.head = head
    self.token = token
  }
}

/// A page of names.
public struct NamesPage: Hashable, Sendable {
  public var names: [String]
  public var more: Bool

  public init(names: [String], more: Bool) {
    self.names = names
    self.more = more
  }
}

/// A page of a timeline.
public struct TimelinePage: Hashable, Sendable {
  /// In log order: oldest first.
  public var posts: [Post]
  /// How far in the log the page reaches: for `newest` and `after`, no post of the timeline up to here is missing behind the
  /// page's first. A watcher's next cursor.
  public var upTo: EventID
  /// There are more in the direction asked for.
  public var more: Bool

  public init(posts: [Post], upTo: EventID, more: Bool) {
    self.posts = posts
    self.upTo = upTo
    self.more = more
  }
}

/// A timeline is watched: what to subscribe to.
public struct Watching: Hashable, Sendable {
  public var topic: Topic
  /// The next update's number on the topic.
  public var sequence: UInt64

  public init(topic: Topic, sequence: UInt64) {
    self.topic = topic
    self.sequence = sequence
  }
}

/// Answers a ping; also finds updates that were lost at the tail.
public struct Pong: Hashable, Sendable {
  public var head: EventID
  /// The next update's number of each topic that the session watches.
  public var topics: [Watching]

  public init(head: EventID, topics: [Watching]) {
    self.head = head
    self.topics = topics
  }
}

/// A request is refused, and why.
public struct Refusal: Hashable, Sendable {
  public enum Code: UInt32, Hashable, Sendable, CaseIterable {
    /// Malformed, of a wrong kind, or with an argument out of range.
    case invalid = 1
    /// Already followed, or yourself.
    case alreadyExists = 2
    /// There is no such follow to undo.
    case notExists = 3
    /// No account of that name, in a request.
    case unknownUser = 4
    /// A name or post that the rules do not allow: empty, too long, a bad character.
    case invalidText = 5
    /// No session: say Hello first (again).
    case noSession = 6
    /// A limit is reached; try again after `retryAfter`.
    case limit = 7
    /// The log can't take it now (disk full, disk error); nothing happened.
    case storage = 8
    /// The request's number is below the window in which repeats are known; whether it took effect can't be told.
    case tooOld = 9
    /// The protocol version is not spoken here.
    case version = 10
    /// The master stops, or is not ready: ask the router for another.
    case unavailable = 11
    /// The name is unknown, or the password wrong, or the token no longer good.
    case credentials = 12
    /// Too many wrong passwords, for this name or from this address; try again after `retryAfter`.
    case tooManyAttempts = 13
  }

  public var code: Code
  /// For a person; one line.
  public var message: String
  /// When to try again, in milliseconds; 0: never the same.
  public var retryAfter: UInt32

  public init(_ code: Code, _ message: String, retryAfter: UInt32 = 0) {
    self.code = code
    self.message = message
    self.retryAfter = retryAfter
  }
}

/// An update of a watched timeline. Without a post it is a marker: it tells the topic's next number to whoever has just subscribed.
public struct Update: Hashable, Sendable {
  public var topic: Topic
  /// The number of the first post; for a marker that of the next one to come.
  public var sequence: UInt64
  /// The posts, whose numbers follow each other. None: a marker.
  public var posts: [Post]

  public init(topic: Topic, sequence: UInt64, posts: [Post]) {
    self.topic = topic
    self.sequence = sequence
    self.posts = posts
  }
}
