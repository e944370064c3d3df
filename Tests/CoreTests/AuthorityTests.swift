// Who may do what: the whole table.

import Core
import Model
import Testing

@Suite struct AuthorityTests {
  private static let client = Standing.client(PeerKey("somebody"))
  private static let master = MasterIdentity(name: "master-1", incarnation: Incarnation(1))
  private static let beat = MasterBeat(master: master, head: .zero, sessions: 0, commitAge: 0, term: 0, roster: 0)
  private static let registration = Registration(
    master: master, pid: 1, requests: "tcp://r", timelines: "tcp://t", log: "tcp://l", beat: beat)

  @Test func onlyMembersGetToTheLog() {
    for port in Entrance.allCases {
      #expect(Authority.mayConnect(.member, to: port))
      #expect(Authority.mayConnect(.unproved, to: port))
      #expect(Authority.mayConnect(Self.client, to: port) == (port != .log))
    }
  }

  @Test(arguments: [
    RouterRequest.register(registration), .beat(beat), .leave(master), .alive(master, nonce: 1),
  ])
  func onlyMembersTellTheRouterHowTheyAre(request: RouterRequest) {
    #expect(!Authority.isForEverybody(request))
    #expect(Authority.maySend(request, as: .member))
    #expect(Authority.maySend(request, as: .unproved))
    #expect(!Authority.maySend(request, as: Self.client))
  }

  @Test(arguments: [
    RouterRequest.locate(Locate(number: 1, user: "alice", suspect: nil, failures: 0)), .status(number: 1),
  ])
  func everybodyMayAskTheRouter(request: RouterRequest) {
    #expect(Authority.isForEverybody(request))
    for standing in [.member, .unproved, Self.client] { #expect(Authority.maySend(request, as: standing)) }
  }
}
