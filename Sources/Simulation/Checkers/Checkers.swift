// The checkers, each an object of its own that is told what happened and compares it with the reference model.

import Core
import Model

/// All checkers of a run.
final class Checkers {
  let model = ReferenceModel()
  let log: LogChecker
  let acknowledgements: AcknowledgementChecker
  let requests: RequestChecker
  let timelines: TimelineChecker
  let processes: ProcessChecker
  let chair: ChairChecker
  let limits: LimitChecker
  let logins: LoginChecker

  init(world: World) {
    log = LogChecker(world: world, model: model)
    acknowledgements = AcknowledgementChecker(world: world, model: model)
    requests = RequestChecker(world: world, model: model)
    timelines = TimelineChecker(world: world, model: model)
    processes = ProcessChecker(world: world)
    chair = ChairChecker(world: world)
    limits = LimitChecker(world: world)
    logins = LoginChecker(world: world, model: model)
  }

  func onClientDied(_ client: ClientProcess) {
    timelines.onClientDied(client)
    limits.onClientDied(client)
  }
}

/// The log: one order without holes, each request once, nothing that contradicts; and no master ahead of it.
final class LogChecker {
  private unowned(unsafe) let world: World
  private let model: ReferenceModel

  init(world: World, model: ReferenceModel) {
    self.world = world
    self.model = model
  }

  /// These events can't be lost any more.
  func onDurable(_ event: Event) {
    if let fault = model.append(event, at: world.now) {
      world.fail("a request takes effect once, the log is consistent", fault, [])
    }
  }

  /// The log was shorter than it had been.
  func onLost(_ count: Int) {
    world.fail("acknowledged is durable", "the log lost \(count) durable events", [])
  }

  func onHead(_ head: EventID, of master: MasterProcess) {
    if head > model.head {
      world.fail("the log is the truth", "\(master.name) is at \(head), and the log's head is \(model.head)", [master])
    }
  }

  /// At rest, every master's state is the log's.
  func onRest(_ master: MasterProcess) {
    let state = master.core.state
    guard state.head == model.head else {
      return world.fail("masters converge", "\(master.name) is at \(state.head) of \(model.head)", [master])
    }
    guard state.names == model.names, state.credentials == model.credentials else {
      return world.fail("masters converge", "\(master.name) knows other accounts than the log", [master])
    }
    for (index, name) in model.names.enumerated() {
      let account = AccountID(UInt32(index))
      let following = state.graph.following(of: account).map(state.name)
      let followers = state.graph.followers(of: account).map(state.name)
      if following != model.following(of: account, at: model.head)
        || followers != model.followers(of: account, at: model.head)
      {
        return world.fail("the graph is the log's", "\(master.name) is wrong about \(name)", [master])
      }
    }
  }
}

/// What a master says to be done is durable when the words leave it.
final class AcknowledgementChecker {
  private unowned(unsafe) let world: World
  private let model: ReferenceModel

  init(world: World, model: ReferenceModel) {
    self.world = world
    self.model = model
  }

  func onReply(_ reply: Reply, from master: MasterProcess, to process: Process) {
    guard let client = process as? ClientProcess else { return }
    switch reply.body {
    case .done(let id): check(Done(number: reply.number, event: id), master, client)
    case .doneEach(let all):
      if all.count < 2 || all.count > Limits.acknowledgedTogether {
        world.fail("limits", "\(all.count) requests acknowledged together", [master, client])
      }
      for done in all { check(done, master, client) }
    case .welcome(let welcome):
      guard welcome.account.index < model.names.count, model.names[welcome.account.index] == client.user else {
        return world.fail(
          "acknowledged is durable",
          "\(master.name) welcomes \(client.user) as \(welcome.account), which is not in the log",
          [master, client])
      }
      checkReach(welcome.head, master, client)
      if let newest = client.hellos[reply.number]?.newest, welcome.head < newest {
        world.fail(
          "no answer is older than what was seen",
          "\(master.name) welcomes \(client.name) at event \(welcome.head), who has seen event \(newest)",
          [master, client])
      }
      world.checkers.logins.onWelcome(welcome, number: reply.number, from: master, to: client)
    case .page(let page):
      checkReach(page.upTo, master, client)
      if page.posts.count > Limits.pagePosts {
        world.fail("limits", "a page of \(page.posts.count) posts", [master, client])
      }
    case .pong(let pong):
      checkReach(pong.head, master, client)
      if pong.topics.count > Limits.topicsPerSession {
        world.fail("limits", "\(client.name) watches \(pong.topics.count) topics at \(master.name)", [master, client])
      }
    case .names(let page):
      if page.names.count > Limits.pageNames {
        world.fail("limits", "a page of \(page.names.count) names", [master, client])
      }
    case .watching, .unwatched, .refused, .goodbye: break
    }
  }

  private func check(_ done: Done, _ master: MasterProcess, _ client: ClientProcess) {
    guard done.event <= model.head else {
      return world.fail(
        "acknowledged is durable",
        "\(master.name) acknowledges event \(done.event), and the log's head is \(model.head)", [master, client])
    }
    let event = model.events[Int(done.event.rawValue) - 1]
    let request = RequestID(client: client.core.client, number: done.number)
    if event.request != request {
      world.fail(
        "a repeat gets the first one's result",
        "\(master.name) answers request \(done.number) of \(client.name) with event \(done.event), which another caused",
        [master, client])
    }
  }

  private func checkReach(_ head: EventID, _ master: MasterProcess, _ client: ClientProcess) {
    if head > model.head {
      world.fail(
        "the log is the truth", "\(master.name) tells of event \(head), and the log's head is \(model.head)",
        [master, client])
    }
  }
}

/// Every request ends by its deadline, once, with an answer that is right at a position that the client may be shown.
final class RequestChecker {
  private unowned(unsafe) let world: World
  private let model: ReferenceModel
  private(set) var acknowledged = 0
  private(set) var answered = 0
  /// Texts whose posting was refused, or given up before it was sent.
  private var refusedTexts: [(text: String, client: String)] = []

  init(world: World, model: ReferenceModel) {
    self.world = world
    self.model = model
  }

  /// How long after its deadline a request may end, at a client that is well.
  private static let slack = Interval.milliseconds(250)

  func onSubmit(_ asked: Asked, by client: ClientProcess) {}

  /// Looks for requests that should have ended.
  func onLook(_ client: ClientProcess) {
    guard client.life == .running, client.wellSince + Self.slack < world.now else { return }
    for asked in client.asked.values where asked.deadline + Self.slack < client.clock {
      return world.fail(
        "every request ends by its deadline",
        "request \(asked.token.rawValue) of \(client.name) (\(asked.body)) goes on",
        [client])
    }
  }

  func onFinish(_ asked: Asked, _ outcome: ClientOutcome, by client: ClientProcess) {
    if client.wellSince + Self.slack < world.now, asked.deadline + Self.slack < client.clock {
      world.fail(
        "every request ends by its deadline", "request \(asked.token.rawValue) of \(client.name) ended late", [client])
    }
    switch outcome {
    case .reply(let body):
      if case .refused(let refusal) = body, refusal.code == .limit { world.meet(.limitReached) }
      answered += 1
      check(body, to: asked, client)
    case .timedOut(let mayHaveHappened):
      if !mayHaveHappened { onRefused(asked, client) }
    case .loginRefused, .closed: break
    }
  }

  private func fail(_ invariant: String, _ asked: Asked, _ text: String, _ client: ClientProcess) {
    world.fail(invariant, "\(client.name), request \(asked.token.rawValue) (\(asked.body)): \(text)", [client])
  }

  private func check(_ body: Reply.Body, to asked: Asked, _ client: ClientProcess) {
    if case .refused(let refusal) = body, case .post(let text) = asked.body, refusal.code == .invalidText,
      TextRules.fault(inPost: text) != nil
    {
      return
    }
    // A client that has as much under way as it may refuses by itself, before it has even logged in.
    if case .refused(let refusal) = body, refusal.code == .limit { return onRefused(asked, client) }
    guard let user = model.accounts[client.user] else {
      return fail("the log is the truth", asked, "answered, and \(client.user) is not in the log", client)
    }
    switch (asked.body, body) {
    case (_, .refused(let refusal)): checkRefusal(refusal, asked, user, client)
    case (.post(let text), .done(let id)):
      acknowledged += 1
      checkChange(.posted(user, text: text), id, asked, client)
    case (.follow(let name), .done(let id)):
      acknowledged += 1
      guard let followed = model.accounts[name] else {
        return fail("the graph is the log's", asked, "follows nobody", client)
      }
      checkChange(.followed(user, followed), id, asked, client)
    case (.unfollow(let name), .done(let id)):
      acknowledged += 1
      guard let followed = model.accounts[name] else {
        return fail("the graph is the log's", asked, "unfollows nobody", client)
      }
      checkChange(.unfollowed(user, followed), id, asked, client)
    case (.changePassword(let change), .done(let id)):
      acknowledged += 1
      checkChange(.credentialSet(user, SimulatedCrypto.hash(change.new)), id, asked, client)
    case (.logout, .done): acknowledged += 1
    case (.list(let query), .names(let page)): checkNames(query, page, asked, user, client)
    case (.timeline(let query), .page(let page)): checkPage(query, page, asked, user, client)
    case (.ping, .pong), (.unwatch, .unwatched), (.watch, .watching): break
    default: fail("answers fit requests", asked, "answered by \(body)", client)
    }
  }

  private func checkChange(_ change: Change, _ id: EventID, _ asked: Asked, _ client: ClientProcess) {
    guard id <= model.head else {
      return fail("acknowledged is durable", asked, "event \(id) is not in the log", client)
    }
    let event = model.events[Int(id.rawValue) - 1]
    if event.change != change {
      fail("acknowledged is durable", asked, "event \(id) is something else: \(event.change)", client)
    }
  }

  private func checkNames(
    _ query: ListQuery, _ page: NamesPage, _ asked: Asked, _ user: AccountID, _ client: ClientProcess
  ) {
    guard query.offset == 0, !page.more else { return }
    switch query.kind {
    case .users:
      let count = page.names.count
      let isThere = count >= model.users(at: asked.newest) && count <= model.names.count
      if !isThere || page.names != Array(model.names.prefix(count)) {
        fail("LIST is the log's", asked, "got \(page.names)", client)
      }
    case .followers, .following:
      let fits = model.positions(for: user, asked.newest, model.head).contains { position in
        page.names
          == (query.kind == .followers
            ? model.followers(of: user, at: position) : model.following(of: user, at: position))
      }
      if !fits { fail("LIST is the log's", asked, "got \(page.names)", client) }
    }
  }

  private func checkPage(
    _ query: TimelineQuery, _ page: TimelinePage, _ asked: Asked, _ user: AccountID, _ client: ClientProcess
  ) {
    var isWhole = true
    if case .after = query.range, page.more { isWhole = false }
    if isWhole, page.upTo < asked.newest {
      return fail(
        "one reads one's own writes", asked, "an answer at \(page.upTo), and the client knew \(asked.newest)", client)
    }
    let limit = query.limit == 0 ? Limits.pagePosts : min(Int(query.limit), Limits.pagePosts)
    if isWhole {
      let expected = model.page(query.timeline, of: user, range: query.range, limit: limit, upTo: page.upTo)
      if page.posts != expected {
        fail(
          "a timeline is the log's", asked,
          "got \(page.posts.map(\.id)) up to \(page.upTo), expected \(expected.map(\.id))", client)
      }
    } else if zip(page.posts, page.posts.dropFirst()).contains(where: { $0.id >= $1.id }) || page.posts.count > limit {
      fail("a timeline is the log's", asked, "got \(page.posts.map(\.id))", client)
    }
  }

  private func checkRefusal(_ refusal: Refusal, _ asked: Asked, _ user: AccountID, _ client: ClientProcess) {
    onRefused(asked, client)
    let from = asked.newest
    switch (refusal.code, asked.body) {
    case (.alreadyExists, .follow(let name)):
      guard name != client.user else { return }
      if let followed = model.accounts[name], model.followsSometime(user, followed, from, model.head) { return }
      fail("answers are of the log", asked, "refused as already there: it is not", client)
    case (.notExists, .unfollow(let name)):
      guard let followed = model.accounts[name] else { return }
      if model.followsThroughout(user, followed, from, model.head) {
        fail("answers are of the log", asked, "refused as not there: it is", client)
      }
    case (.unknownUser, .follow(let name)), (.unknownUser, .unfollow(let name)):
      if model.account(name, at: from) != nil { fail("answers are of the log", asked, "\(name) is known", client) }
    case (.unknownUser, .timeline(let query)):
      if case .author(let name) = query.timeline, model.account(name, at: from) == nil { return }
      fail("answers are of the log", asked, "the author is known", client)
    case (.invalidText, .post(let text)):
      if TextRules.fault(inPost: text) == nil { fail("answers are of the log", asked, "the text is good", client) }
    case (.invalidText, .follow(let name)), (.invalidText, .unfollow(let name)):
      if TextRules.fault(inName: name) == nil { fail("answers are of the log", asked, "the name is good", client) }
    case (.limit, _): break
    case (.credentials, .changePassword): break
    case (.tooManyAttempts, .changePassword): break
    case (.storage, _): break
    default: fail("answers fit requests", asked, "refused: \(refusal)", client)
    }
  }

  private func onRefused(_ asked: Asked, _ client: ClientProcess) {
    // When requests are sent twice, each copy has its own answer, and the disk may have recovered in between.
    guard world.settings.repeatsPercent == 0 else { return }
    if case .post(let text) = asked.body { refusedTexts.append((text, client.name)) }
  }

  /// At rest: what was refused did not happen.
  func onRest() {
    for (text, client) in refusedTexts {
      if let event = model.postsByText[text] {
        world.fail(
          "what is refused has no effect", "\(client)'s post \"\(text.prefix(40))\" was refused, and is event \(event)",
          [])
      }
    }
  }
}

/// Watched timelines: each post once, in log order, none missing.
///
/// A home timeline's posts are those of its owner and of whom the owner follows, and following takes effect somewhere between
/// request and convergence. So two sets are compared with what is shown. With D the log's durable head at the moment of looking:
///
/// - A post at position x *may* be seen if its author was followed at some position from x to D (a repair reads with
///   the relations of its own moment, which is between the two).
/// - A post at position x *must* have been seen, before anything newer is shown and at the latest at rest, if its author was
///   followed at every position from x to D. One's own posts and a single author's timeline have no such doubt.
final class TimelineChecker {
  private struct Watch {
    let client: ClientProcess
    let timeline: TimelineName
    /// The newest post shown, or where the watch began.
    var last: EventID
    /// The first of the model's posts that is not settled.
    var position: Int
    var shown = 0
  }

  private struct Key: Hashable {
    let pid: Int32
    let token: ClientToken
  }

  private unowned(unsafe) let world: World
  private let model: ReferenceModel
  private var watches: [Key: Watch] = [:]
  private var order: [Key] = []
  private(set) var delivered = 0
  /// Posts that became durable from then on are to be shown promptly.
  var promptFrom: Instant?
  static let promptness = Interval.milliseconds(400)

  init(world: World, model: ReferenceModel) {
    self.world = world
    self.model = model
  }

  func onWatch(_ timeline: TimelineName, after cursor: EventID, token: ClientToken, by client: ClientProcess) {
    let key = Key(pid: client.pid, token: token)
    let position = model.posts.firstIndex { $0.id > cursor } ?? model.posts.count
    watches[key] = Watch(client: client, timeline: timeline, last: cursor, position: position)
    order.append(key)
  }

  func onUnwatch(_ token: ClientToken, by client: ClientProcess) {
    let key = Key(pid: client.pid, token: token)
    watches[key] = nil
    order.removeAll { $0 == key }
  }

  func onClientDied(_ client: ClientProcess) {
    order.removeAll { key in
      guard key.pid == client.pid else { return false }
      watches[key] = nil
      return true
    }
  }

  private func mustSee(_ post: StoredPost, _ watch: Watch) -> Bool {
    switch watch.timeline {
    case .author(let name): return model.names[post.author.index] == name
    case .home:
      guard let user = model.accounts[watch.client.user] else { return false }
      return post.author == user || model.followsThroughout(user, post.author, post.id, model.head)
    }
  }

  private func maySee(_ post: StoredPost, _ watch: Watch) -> Bool {
    switch watch.timeline {
    case .author(let name): return model.names[post.author.index] == name
    case .home:
      guard let user = model.accounts[watch.client.user] else { return false }
      return post.author == user || model.followsSometime(user, post.author, post.id, model.head)
    }
  }

  func onShow(_ posts: [Post], token: ClientToken, by client: ClientProcess) {
    let key = Key(pid: client.pid, token: token)
    guard watches[key] != nil else { return }
    for post in posts {
      guard let watch = watches[key] else { return }
      guard post.id > watch.last else {
        let invariant = post.id == watch.last ? "every post is seen once" : "posts are seen in log order"
        return world.fail(invariant, "\(client.name) is shown \(post.id) after \(watch.last)", [client])
      }
      watches[key]!.last = post.id
      watches[key]!.shown += 1
      delivered += 1
      settle(key, before: post.id)
      let position = watches[key]!.position
      guard position < model.posts.count, model.posts[position].id == post.id else {
        return world.fail(
          "the log is the truth", "\(client.name) is shown \(post.id), which is no post in the log", [client])
      }
      let stored = model.posts[position]
      watches[key]!.position += 1
      if model.post(stored) != post {
        world.fail("the log is the truth", "\(client.name) is shown a wrong \(post.id): \(post)", [client])
      }
      if !maySee(stored, watch) {
        world.fail(
          "a timeline is the log's", "\(client.name) is shown \(post.id), which belongs to another timeline", [client])
      }
      checkPromptness(stored, watch)
    }
  }

  private func checkPromptness(_ post: StoredPost, _ watch: Watch) {
    let durableAt = model.durableAt[Int(post.id.rawValue) - 1]
    guard let promptFrom, durableAt >= promptFrom, mustSee(post, watch) else { return }
    let late = world.now - durableAt - Self.promptness
    guard late > .zero else { return }
    // In some runs the masters hear of each other's commits late. Then what comes is more at once, and where queues are short some of it finds
    // no room: a master finds it in the log, where it looks once a second, and a client by its ping.
    let lag = world.settings.network.meshLag
    func isLost() -> Bool { watch.client.lossAt >= durableAt || world.masters.contains { $0.lossAt >= durableAt } }
    if lag == .zero || late > lag + (isLost() ? .milliseconds(1_250) : .zero) {
      world.fail(
        "a calm cluster pushes at once",
        "\(watch.client.name) is shown \(post.id) \((world.now - durableAt).milliseconds) ms after its commit",
        [watch.client])
    }
  }

  /// What is older than `end` is passed by: nothing that must be seen may be among it.
  private func settle(_ key: Key, before end: EventID) {
    guard let watch = watches[key] else { return }
    var position = watch.position
    while position < model.posts.count, model.posts[position].id < end {
      let post = model.posts[position]
      position += 1
      if mustSee(post, watch) {
        world.fail(
          "every post is seen once", "\(watch.client.name) is shown nothing of \(post.id) and has come to \(end)",
          [watch.client])
      }
    }
    watches[key]!.position = position
  }

  /// The first watch that has not shown all that it must.
  func firstBehind() -> String? {
    for key in order {
      guard let watch = watches[key] else { continue }
      var position = watch.position
      while position < model.posts.count {
        if mustSee(model.posts[position], watch) {
          return "\(watch.client.name) has not seen \(model.posts[position].id)"
        }
        position += 1
      }
    }
    return nil
  }
}
