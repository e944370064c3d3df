// How posts of several commits are put together for their topics.

import Model
import Testing

@testable import Node

@Suite struct PushesTests {
  private func position(_ topic: UInt64, _ sequence: UInt64) -> Watching {
    Watching(topic: Topic(high: 0, low: topic), sequence: sequence)
  }

  @Test("each topic gets its posts in order, from the number of the first")
  func byTopic() {
    var pushes = Pushes()
    pushes.add([1], to: [position(1, 5), position(2, 9)])
    pushes.add([2], to: [position(2, 10)])
    pushes.add([3], to: [position(1, 6), position(2, 11)])
    #expect(!pushes.haveSameTargets)
    let found = pushes.byTopic()
    #expect(found.map(\.target) == [position(1, 5), position(2, 9)])
    #expect(found.map(\.posts) == [[0, 2], [0, 1, 2]])
  }

  @Test("posts to the same topics are known as such")
  func sameTargets() {
    var pushes = Pushes()
    #expect(pushes.isEmpty)
    pushes.add([1], to: [position(1, 5), position(2, 9)])
    pushes.add([2], to: [position(1, 6), position(2, 10)])
    #expect(pushes.haveSameTargets)
    pushes.add([3], to: [position(1, 7)])
    #expect(!pushes.haveSameTargets)
    pushes.removeAll()
    #expect(pushes.isEmpty)
  }
}
