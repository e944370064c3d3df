// Who is let in, and as whom.

import Core
import Foundation
import Model
import Testing
import ZeroMQ

@testable import Node

@Suite struct GatekeeperTests {
  private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

  @Test("questions of ZAP are read as they come, and answered in their envelope")
  func questions() throws {
    let key = try CurveKeypair.generate().publicKey
    let frames = [[7], [], bytes("1.0"), bytes("1"), bytes("log"), bytes("127.0.0.1"), [], bytes("CURVE"), key.bytes]
    let question = try #require(ZAPQuestion(frames))
    #expect(question.domain == "log" && question.address == "127.0.0.1" && question.key == key)
    #expect(
      question.answer("member") == [[7], [], bytes("1.0"), bytes("1"), bytes("200"), bytes("OK"), bytes("member"), []])
    #expect(question.answer(nil) == [[7], [], bytes("1.0"), bytes("1"), bytes("400"), bytes("no"), [], []])
    // Another mechanism, or a key that is none, proves nothing; another version or half a question is none.
    #expect(ZAPQuestion(Array(frames[..<7]) + [bytes("NULL")])?.key == nil)
    #expect(ZAPQuestion(Array(frames[..<8]) + [[1, 2, 3]])?.key == nil)
    #expect(ZAPQuestion(Array(frames[..<7]) + [bytes("PLAIN"), key.bytes])?.key == nil)
    #expect(ZAPQuestion(Array(frames[..<7])) == nil)
    #expect(ZAPQuestion([[7], [], bytes("2.0")] + frames[3...]) == nil)
    #expect(ZAPQuestion([]) == nil)
  }

  private func withKeys(_ body: (ClusterKeys) throws -> Void) throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "tinysns-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let folder = StateFolder(path: path)
    try folder.create()
    try body(try ClusterKeys(in: folder))
  }

  /// Who the server says has sent a message; nil: nobody got through.
  private func standing(
    _ keys: ClusterKeys, _ client: CurveKeypair, at port: Entrance, within limit: Duration = .seconds(20)
  ) throws -> Standing? {
    let context = try Context()
    let keeper = try Gatekeeper(
      context, keys: keys, connections: ConnectionBook(limits: OperatorLimits(), connectionsMax: 1_000))
    let server = try context.makeSocket(.router)
    try keeper.guardSocket(server, as: port)
    let address = try server.bind("tcp://127.0.0.1:*")
    let socket = try context.makeSocket(.dealer)
    try socket.set(.curveClient(serverKey: keys.server.publicKey, keys: client))
    try socket.connect(address)
    _ = try socket.send([1])
    var poller = Poller()
    try poller.add(server, token: 0, interest: .readable)
    var ready: [Ready] = []
    try poller.wait(limit, into: &ready)
    var frames = Multipart(maxFrames: 2)
    withExtendedLifetime(keeper) {}
    // And everything ends with this function: the thread, the context.
    guard try server.receive(into: &frames) == .received else { return nil }
    return Gatekeeper.standing(of: frames[1])
  }

  @Test("a member is known as one, everybody else by the key", arguments: [Entrance.router, .requests, .timelines])
  func standings(port: Entrance) throws {
    try withKeys { keys in
      let client = try CurveKeypair.generate()
      #expect(try standing(keys, keys.member, at: port) == .member)
      #expect(try standing(keys, client, at: port) == .client(PeerKey(client.publicKey.z85)))
    }
  }

  @Test("only members get to the log")
  func log() throws {
    try withKeys { (keys) throws in
      #expect(try standing(keys, keys.member, at: .log) == .member)
      #expect(try standing(keys, .generate(), at: .log, within: .milliseconds(300)) == nil)
      #expect(try standing(keys, keys.server, at: .log, within: .milliseconds(300)) == nil)
    }
  }

  @Test("the same complaint is made once a minute, and so many different ones at most")
  func complaints() {
    var book = ComplaintBook()
    let start = Instant(nanoseconds: 1_000_000_000)
    #expect(book.admit("a", at: start) == (true, 0))
    #expect(book.admit("a", at: start) == (false, 0))
    for number in 1..<Limits.complaintsPerMinute { #expect(book.admit("\(number)", at: start) == (true, 0)) }
    #expect(book.admit("b", at: start) == (false, 0))
    #expect(book.admit("b", at: start + .seconds(61)) == (true, 2))
    #expect(book.admit("a", at: start + .seconds(61)) == (true, 0))
  }
}
