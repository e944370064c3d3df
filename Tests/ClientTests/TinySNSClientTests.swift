// The client library where there is no cluster: deadlines and ends. With one: ClusterTests.

import Model
import Testing
import TinySNSClient

@Suite struct TinySNSClientTests {
  /// Nobody listens there.
  private let nowhere = "tcp://127.0.0.1:1"

  @Test("without a router a request ends by its deadline, and says that nothing was sent")
  func deadline() async throws {
    let client = try TinySNSClient(router: nowhere, serverKey: nil, user: "alice", password: Password("a password"))
    await #expect(throws: ClientError.timedOut(mayHaveHappened: false, hadMaster: false)) {
      _ = try await client.post("hello", timeout: .milliseconds(200))
    }
    await client.close()
  }

  @Test("closing ends what is under way, and everything after it")
  func close() async throws {
    let client = try TinySNSClient(router: nowhere, serverKey: nil, user: "alice", password: Password("a password"))
    let pending = Task { try await client.post("hello") }
    let watching = Task { for try await _ in client.watch() {} }
    // Both have been asked for, whichever comes first.
    await Task.yield()
    await client.close()
    await #expect(throws: ClientError.closed) { _ = try await pending.value }
    await #expect(throws: ClientError.closed) { try await watching.value }
    await #expect(throws: ClientError.closed) { _ = try await client.list(.users) }
  }

  @Test("what no master would take is refused at once")
  func refusals() async throws {
    let client = try TinySNSClient(router: nowhere, serverKey: nil, user: "alice", password: Password("a password"))
    for text in ["", String(repeating: "x", count: Limits.postBytes + 1), "a\nb"] {
      do {
        _ = try await client.post(text)
        Issue.record("\(text.count) characters were taken")
      } catch ClientError.refused(let refusal) {
        #expect(refusal.code == .invalidText)
      }
    }
    await client.close()
  }
}
