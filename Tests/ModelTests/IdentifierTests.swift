// Ids count and compare.

import Model
import Testing

@Suite struct IdentifierTests {
  @Test func eventIDsAreContiguous() {
    #expect(EventID.zero.next == EventID(1))
    #expect(EventID(4).advanced(by: 3) == EventID(7))
    #expect(EventID(9) < EventID(10))
    #expect(EventID.max.next > EventID.max)
    #expect("\(EventID(12))" == "12")
  }

  @Test func topicsCompareByTheirBytes() {
    #expect(Topic(high: 1, low: 9) < Topic(high: 2, low: 0))
    #expect(Topic(high: 1, low: 1) < Topic(high: 1, low: 2))
  }

  @Test func aChangeKnowsWhoActs() {
    #expect(Change.accountCreated(AccountID(1), name: "a").actor == AccountID(1))
    #expect(Change.posted(AccountID(2), text: "t").actor == AccountID(2))
    #expect(Change.followed(AccountID(3), AccountID(4)).actor == AccountID(3))
    #expect(Change.unfollowed(AccountID(5), AccountID(4)).actor == AccountID(5))
  }
}
