// Updates come by push. A watcher would also find them by asking, later, so only a plain socket can tell.

import Foundation
import Model
import Testing
import Wire
import ZeroMQ

extension RealProcesses {
  @Suite struct PushTests {
    @Test(
      "a subscription is answered by a marker, and each post by an update with the next number",
      arguments: ["curve", "none"])
    func markerAndUpdates(security: String) async throws {
      try await Cluster.with(masters: 1, "security: \(security)") { cluster in
        try await cluster.register("alice")
        let master = try #require(try await cluster.status(when: "one serves") { $0.available != nil }.available)
        let context = try Context()
        let keys = try CurveKeypair.generate()
        let requests = try context.makeSocket(.dealer)
        try cluster.introduce(requests, as: keys)
        try requests.connect(try #require(master.requests))
        func ask(_ number: UInt64, _ body: Request.Body) async throws -> Reply.Body {
          _ = try requests.send(Wire.encode(Request(number: number, body: body)))
          let reply = try Wire.decodeReply(try await receive(from: requests, framesMax: 1)[0])
          #expect(reply.number == number)
          return reply.body
        }
        let hello = Hello(
          client: ClientID(7), user: "alice", register: false, newest: .zero,
          proof: .password(Password(Cluster.password)))
        guard case .welcome = try await ask(1, .hello(hello)),
          case .watching(let watching) = try await ask(2, .watch(.home))
        else {
          Issue.record("no session")
          return
        }
        let updates = try context.makeSocket(.sub)
        try updates.set(.sendHighWaterMark(0))
        try cluster.introduce(updates, as: keys)
        try updates.connect(try #require(master.timelines))
        try updates.set(.subscribe(Wire.encode(watching.topic)))
        // Somebody who has no topic, and asks for everything, or for all that begins like it.
        let curious = try context.makeSocket(.sub)
        try curious.set(.sendHighWaterMark(0))
        try cluster.introduce(curious, as: keys)
        try curious.connect(try #require(master.timelines))
        try curious.set(.subscribe([]), .subscribe([Wire.encode(watching.topic)[0]]))
        let marker = try await receive(from: updates, framesMax: 2)
        #expect(marker == [Wire.encodeUpdateHeader(topic: watching.topic, sequence: watching.sequence), []])
        for offset in 0..<3 as Range<UInt64> {
          let text = "pushed \(offset)"
          guard case .done(let id) = try await ask(3 + offset, .post(text: text)) else {
            Issue.record("not posted")
            return
          }
          let frames = try await receive(from: updates, framesMax: 2)
          let update = try Wire.decodeUpdate(header: frames[0], body: frames[1])
          #expect(update.topic == watching.topic && update.sequence == watching.sequence + offset)
          #expect(update.posts.map(\.id) == [id] && update.posts[0].text == text && update.posts[0].author == "alice")
        }
        // What it subscribes to now is answered by a marker, so all that came before would have come.
        try curious.set(.subscribe(Wire.encode(watching.topic)))
        let first = try await receive(from: curious, framesMax: 2)
        #expect(first == [Wire.encodeUpdateHeader(topic: watching.topic, sequence: watching.sequence + 3), []])
      }
    }
  }
}
