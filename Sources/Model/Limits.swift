// Every limit of the system in one place, each with its reason. At a limit there is a named refusal, never a crash
// and never unbounded memory.

/// The limits that all parts of the system share.
public enum Limits {
  // MARK: What people write

  /// A name's length in UTF-8 bytes. Fits a line of a terminal.
  public static let nameBytes = 64
  /// A post's length in UTF-8 bytes. Four times a long tweet; keeps a page of posts within one message.
  public static let postBytes = 1_024

  /// A password's length in UTF-8 bytes: at least what NIST SP 800-63B asks for, at most a long sentence.
  public static let passwordBytesMin = 8
  public static let passwordBytesMax = 256

  // MARK: Messages

  /// A message from a client to a router or master, in bytes: a post at its longest, and room.
  public static let requestBytes = 4_096
  /// A message from a watcher, in bytes: a subscription, or a command of ZeroMQ's own handshake, which is longer (about 300 with
  /// CURVE). libzmq keeps subscriptions in a tree with a node a byte.
  public static let subscriptionBytes = 384
  /// A message within the cluster or from a server to a client: a page at its longest, a commit at its largest.
  public static let messageBytes = 16 << 20
  /// Frames of a message, its ZeroMQ identity frame not counted.
  public static let frames = 2

  /// A session token, in bytes; with room for later versions.
  public static let tokenBytes = 256

  // MARK: Logging in

  /// Wrong passwords in a row for one name before each further one has to wait, and the wait. Whoever has a token never waits.
  public static let attemptsPerName = 10
  public static let attemptsPerNameEvery = Interval.seconds(10)
  /// The same of one address, whatever the names.
  public static let attemptsPerAddress = 50
  public static let attemptsPerAddressEvery = Interval.seconds(2)
  /// The same of all clients on the server's own machine.
  public static let attemptsPerLoopback = 5_000
  public static let attemptsPerLoopbackEvery = Interval.milliseconds(10)
  /// Names and addresses whose attempts are counted.
  public static let attemptsTracked = 65_536
  /// Revoked tokens of an account that are remembered one by one; at one more all of its tokens are revoked.
  public static let revocationsPerAccount = 256

  // MARK: Connections

  /// Connections of one address at a process, its handshakes among them. A session has two, and a household or an office shares an
  /// address.
  public static let connectionsPerAddress = 2_048
  /// The same of the server's own machine, where all sessions may come from: those of a load's generator, for example.
  public static let connectionsPerLoopback = 65_536
  /// Connections that the kernel keeps waiting for a socket, until libzmq takes them.
  public static let connectionsPending = 4_096
  /// Messages received and not yet looked at, a connection; then TCP makes the sender wait.
  public static let messagesReceived = 1_000
  /// Connections that were shut out and are still known as such; they are numbered afresh, so the oldest is long gone.
  public static let shutOut = 4_096

  // MARK: The router

  /// Questions about one suspect that wait for its answer: of all clients of a cluster, each with one. One has a name and little else.
  public static let questionsWaiting = 65_536

  // MARK: A master's sessions

  /// Sessions at one master, unless the system lets it open too few files. Each costs about two descriptors and a few kilobytes.
  public static let sessions = 20_000
  /// Sessions of one account at one master: phones, terminals and scripts of a person.
  public static let sessionsPerAccount = 4_096
  /// Requests that a session may have unanswered.
  public static let requestsInFlight = 1_024
  /// Requests acknowledged in one message: no session may have more unanswered, whatever the topology says.
  public static let acknowledgedTogether = Int(repeatWindow)
  /// Requests of all sessions that may wait for a commit.
  public static let requestsWaiting = 65_536
  /// Timelines that a session may watch at once.
  public static let topicsPerSession = 16
  /// What a topology may make of that, at most: the position of each is in every answer to a ping.
  public static let topicsPerSessionMost = 256
  /// A session unheard for this long is closed. Clients that have nothing else to say ping four times as often, or more.
  public static let sessionSilence = Interval.seconds(10)
  /// Log entries about bad input from outside, a minute and process; more are counted only.
  public static let complaintsPerMinute = 20

  // MARK: The log

  /// Events in one commit: bounds the time of a commit and the size of its mesh message.
  public static let batchEvents = 2_048
  /// Events that a master orders to be appended at a time. The log makes a commit of one or several of them; so many that writing them takes
  /// about as long as syncing them on a fast disk, and the loop can answer some while others are being written.
  public static let appendEvents = 256
  /// Events read from the log at a time while catching up.
  public static let readEvents = 4_096

  // MARK: Repeats

  /// For how many of a client's newest request numbers outcomes are kept. At least `requestsInFlight`.
  public static let repeatWindow: UInt64 = 1_024
  /// Of how many of them a master keeps the events in memory; those of the others it looks up in the log. A power of two: clients
  /// that wait for each answer, or have few requests under way, are answered without the log. `repeatWindow` of all clients would be
  /// a quarter of a gigabyte.
  public static let outcomesInMemory: UInt64 = 16
  /// For how long after a client's last event its outcomes are kept, by the log's own timestamps. Longer than
  /// any client repeats a request (`requestLifetime`).
  public static let repeatMilliseconds: Int64 = 15 * 60 * 1_000
  /// Clients whose outcomes are kept; beyond that those of the longest idle ones go first.
  public static let repeatClients = 65_536
  /// Failures in a row at a master that the router finds healthy, after which a client is sent to another one: connections lost, and
  /// silences after the second (`Locate.failures`).
  public static let failuresAtMaster: UInt32 = 2
  /// The longest deadline that a client may give a request.
  public static let requestLifetime = Interval.seconds(5 * 60)

  // MARK: Reading

  /// Posts in one page of a timeline.
  public static let pagePosts = 100
  /// Names in one page of a list.
  public static let pageNames = 1_000
  /// Newest posts that a master keeps in memory with their text.
  public static let postsInMemory = 8_192
  /// Newest posts of each author that a master knows by id without asking the log. A default timeline page.
  public static let newestPerAuthor = 20
  /// Reads of older pages that may wait at one master.
  public static let readsWaiting = 4_096
  /// Repeated requests that may wait at one master until the log tells as which events they took effect.
  public static let repeatsWaiting = 65_536

  // MARK: Queues of a socket

  /// Replies queued for a client that does not read, in messages; then its session is closed.
  public static let repliesQueued: Int32 = 4_096
  /// Timeline updates queued for a watcher that does not read, in messages; then ZeroMQ drops, and the watcher repairs.
  public static let updatesQueued: Int32 = 1_000
  /// From a connection to the end of its handshake. A thousand of them at once on a busy machine may take seconds.
  public static let handshake = Interval.seconds(15)

  // MARK: A client's own

  /// Live updates that a client holds back while it repairs a gap; beyond that it repairs once more instead.
  public static let updatesHeldBack = 4_096
  /// Posts in one update of a timeline.
  public static let postsInUpdate = 64
  /// Masters in a cluster.
  public static let masters = 64
}
