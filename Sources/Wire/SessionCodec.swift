// Client and master: Request, Reply, and what they are made of.

import Model

extension Wire {
  /// The bytes of a client's message to a master.
  public static func encode(_ request: Request) -> [UInt8] { serialize(Tinysns_Request(request)) }

  /// The bytes of a master's message to a client.
  public static func encode(_ reply: Reply) -> [UInt8] { serialize(Tinysns_Reply(reply)) }

  /// Reads a client's message to a master: at most `Limits.requestBytes`.
  public static func decodeRequest(_ bytes: RawSpan) throws(WireError) -> Request {
    try Request(parse(bytes, as: Tinysns_Request.self, limit: FrameLimit.request))
  }

  /// Reads a client's message to a master: at most `Limits.requestBytes`.
  public static func decodeRequest(_ bytes: [UInt8]) throws(WireError) -> Request {
    try decodeRequest(bytes.span.bytes)
  }

  /// The number of a request that could not be decoded, so that its refusal reaches whoever waits for it; 0 if even
  /// that can't be read.
  public static func requestNumber(in bytes: RawSpan) -> UInt64 {
    let number = parseWhatCanBe(bytes, as: Tinysns_Request.self, limit: FrameLimit.request).number
    return (try? counter(number, .number)) ?? 0
  }

  /// Reads a master's message to a client.
  public static func decodeReply(_ bytes: RawSpan) throws(WireError) -> Reply {
    try Reply(parse(bytes, as: Tinysns_Reply.self, limit: FrameLimit.message))
  }

  /// Reads a master's message to a client.
  public static func decodeReply(_ bytes: [UInt8]) throws(WireError) -> Reply { try decodeReply(bytes.span.bytes) }
}

// MARK: Requests

extension Tinysns_Request {
  fileprivate init(_ request: Request) {
    self.init()
    number = request.number
    switch request.body {
    case .hello(let hello): body = .hello(Tinysns_Hello(hello))
    case .post(let text): body = .post(text)
    case .follow(let name): body = .follow(name)
    case .unfollow(let name): body = .unfollow(name)
    case .list(let query): body = .list(Tinysns_ListQuery(query))
    case .timeline(let query): body = .timeline(Tinysns_TimelineQuery(query))
    case .watch(let timeline): body = .watch(Tinysns_TimelineName(timeline))
    case .unwatch(let topic): body = .unwatch(topicBytes(topic))
    case .changePassword(let change): body = .changePassword(Tinysns_PasswordChange(change))
    case .logout(let everywhere):
      var logout = Tinysns_Logout()
      logout.everywhere = everywhere
      body = .logout(logout)
    case .ping: body = .ping(Tinysns_Empty())
    case .bye: body = .bye(Tinysns_Empty())
    }
  }
}

extension Request {
  fileprivate init(_ wire: Tinysns_Request) throws(WireError) {
    let body: Body
    switch wire.body {
    case .hello(let hello): body = .hello(try Hello(hello))
    case .post(let text): body = .post(text: text)
    case .follow(let name): body = .follow(name: name)
    case .unfollow(let name): body = .unfollow(name: name)
    case .list(let query): body = .list(try ListQuery(query))
    case .timeline(let query): body = .timeline(try TimelineQuery(query))
    case .watch(let timeline): body = .watch(try TimelineName(timeline))
    case .unwatch(let bytes): body = .unwatch(try decodeTopic(bytes))
    case .changePassword(let change): body = .changePassword(PasswordChange(change))
    case .logout(let logout): body = .logout(everywhere: logout.everywhere)
    case .ping: body = .ping
    case .bye: body = .bye
    case nil: throw .unknownKind
    }
    // Every request has a number, pings and farewells too: the rule is simpler than its exceptions would be.
    guard wire.number > 0 else { throw .outOfRange(.number) }
    self.init(number: try counter(wire.number, .number), body: body)
  }
}

extension Tinysns_Hello {
  fileprivate init(_ hello: Hello) {
    self.init()
    version = hello.version
    client = hello.client.rawValue
    user = hello.user
    register = hello.register
    newest = hello.newest.rawValue
    proof = hello.proof.map { OneOf_Proof($0) }
    doneEach = hello.takesDoneEach
  }
}

extension Hello {
  fileprivate init(_ wire: Tinysns_Hello) throws(WireError) {
    self.init(
      version: wire.version, client: ClientID(wire.client), user: wire.user, register: wire.register,
      newest: try position(wire.newest), proof: try Proof(wire.proof), takesDoneEach: wire.doneEach)
  }
}

extension Tinysns_ListQuery {
  fileprivate init(_ query: ListQuery) {
    self.init()
    switch query.kind {
    case .users: kind = .users
    case .followers: kind = .followers
    case .following: kind = .following
    }
    offset = query.offset
    limit = query.limit
  }
}

extension ListQuery {
  fileprivate init(_ wire: Tinysns_ListQuery) throws(WireError) {
    let kind: Kind
    switch wire.kind {
    case .users: kind = .users
    case .followers: kind = .followers
    case .following: kind = .following
    case .UNRECOGNIZED: throw .outOfRange(.kind)
    }
    self.init(kind: kind, offset: wire.offset, limit: wire.limit)
  }
}

extension Tinysns_TimelineName {
  fileprivate init(_ timeline: TimelineName) {
    self.init()
    switch timeline {
    case .home: name = .home(Tinysns_Empty())
    case .author(let author): name = .author(author)
    }
  }
}

extension TimelineName {
  fileprivate init(_ wire: Tinysns_TimelineName) throws(WireError) {
    switch wire.name {
    case .home: self = .home
    case .author(let author): self = .author(author)
    case nil: throw .unknownKind
    }
  }
}

extension Tinysns_TimelineQuery {
  fileprivate init(_ query: TimelineQuery) {
    self.init()
    timeline = Tinysns_TimelineName(query.timeline)
    switch query.range {
    case .newest: range = .newest(Tinysns_Empty())
    case .before(let event): range = .before(event.rawValue)
    case .after(let event): range = .after(event.rawValue)
    }
    limit = query.limit
  }
}

extension TimelineQuery {
  fileprivate init(_ wire: Tinysns_TimelineQuery) throws(WireError) {
    guard wire.hasTimeline else { throw .missing(.timeline) }
    let range: Range
    switch wire.range {
    case .newest: range = .newest
    case .before(let event): range = .before(try position(event))
    case .after(let event): range = .after(try position(event))
    case nil: throw .missing(.range)
    }
    self.init(timeline: try TimelineName(wire.timeline), range: range, limit: wire.limit)
  }
}

// MARK: Replies

extension Tinysns_Reply {
  fileprivate init(_ reply: Reply) {
    self.init()
    number = reply.number
    switch reply.body {
    case .welcome(let welcome): body = .welcome(Tinysns_Welcome(welcome))
    case .done(let event): body = .done(event.rawValue)
    case .doneEach(let all): body = .doneEach(Tinysns_DoneEach(all))
    case .names(let page): body = .names(Tinysns_NamesPage(page))
    case .page(let page): body = .page(Tinysns_TimelinePage(page))
    case .watching(let watching): body = .watching(Tinysns_Watching(watching))
    case .unwatched: body = .unwatched(Tinysns_Empty())
    case .pong(let pong): body = .pong(Tinysns_Pong(pong))
    case .refused(let refusal): body = .refused(Tinysns_Refusal(refusal))
    case .goodbye: body = .goodbye(Tinysns_Empty())
    }
  }
}

extension Reply {
  fileprivate init(_ wire: Tinysns_Reply) throws(WireError) {
    let body: Body
    switch wire.body {
    case .welcome(let welcome): body = .welcome(try Welcome(welcome))
    case .done(let event): body = .done(try eventID(event))
    case .doneEach(let all): body = .doneEach(try all.list())
    case .names(let page): body = .names(try NamesPage(page))
    case .page(let page): body = .page(try TimelinePage(page))
    case .watching(let watching): body = .watching(try Watching(watching))
    case .unwatched: body = .unwatched
    case .pong(let pong): body = .pong(try Pong(pong))
    case .refused(let refusal): body = .refused(try Refusal(refusal))
    case .goodbye: body = .goodbye
    case nil: throw .unknownKind
    }
    self.init(number: try counter(wire.number, .number), body: body)
  }
}

extension Tinysns_DoneEach {
  fileprivate init(_ all: [Done]) {
    self.init()
    numbers = all.map(\.number)
    events = all.map(\.event.rawValue)
  }

  fileprivate func list() throws(WireError) -> [Done] {
    guard events.count == numbers.count else { throw .outOfRange(.events) }
    guard !events.isEmpty else { throw .missing(.events) }
    try check(events.count, atMost: Limits.acknowledgedTogether, .events)
    var list: [Done] = []
    list.reserveCapacity(numbers.count)
    for (number, event) in zip(numbers, events) {
      list.append(Done(number: try counter(number, .number), event: try eventID(event)))
    }
    return list
  }
}

extension Tinysns_Welcome {
  fileprivate init(_ welcome: Welcome) {
    self.init()
    master = Tinysns_Master(welcome.master)
    account = welcome.account.rawValue
    isNew = welcome.isNew
    head = welcome.head.rawValue
    set(welcome.token)
  }
}

extension Welcome {
  fileprivate init(_ wire: Tinysns_Welcome) throws(WireError) {
    guard wire.hasMaster else { throw .missing(.master) }
    self.init(
      master: try MasterIdentity(wire.master), account: AccountID(wire.account), isNew: wire.isNew,
      head: try position(wire.head), token: try SessionToken.carried(by: wire))
  }
}

extension Tinysns_NamesPage {
  fileprivate init(_ page: NamesPage) {
    self.init()
    names = page.names
    more = page.more
  }
}

extension NamesPage {
  fileprivate init(_ wire: Tinysns_NamesPage) throws(WireError) {
    try check(wire.names.count, atMost: Limits.pageNames, .names)
    self.init(names: wire.names, more: wire.more)
  }
}

extension Tinysns_TimelinePage {
  fileprivate init(_ page: TimelinePage) {
    self.init()
    posts = page.posts.map { Tinysns_Post($0) }
    upTo = page.upTo.rawValue
    more = page.more
  }
}

extension TimelinePage {
  fileprivate init(_ wire: Tinysns_TimelinePage) throws(WireError) {
    try check(wire.posts.count, atMost: Limits.pagePosts, .posts)
    self.init(posts: try wire.posts.map(Post.init(_:)), upTo: try position(wire.upTo), more: wire.more)
  }
}

extension Tinysns_Watching {
  fileprivate init(_ watching: Watching) {
    self.init()
    topic = topicBytes(watching.topic)
    sequence = watching.sequence
  }
}

extension Watching {
  fileprivate init(_ wire: Tinysns_Watching) throws(WireError) {
    self.init(topic: try decodeTopic(wire.topic), sequence: try counter(wire.sequence, .sequence))
  }
}

extension Tinysns_Pong {
  fileprivate init(_ pong: Pong) {
    self.init()
    head = pong.head.rawValue
    topics = pong.topics.map { Tinysns_Watching($0) }
  }
}

extension Pong {
  fileprivate init(_ wire: Tinysns_Pong) throws(WireError) {
    try check(wire.topics.count, atMost: Limits.topicsPerSessionMost, .topics)
    self.init(head: try position(wire.head), topics: try wire.topics.map(Watching.init(_:)))
  }
}
