// What is refused, and with which line: every message in full, as the author of the file reads it.

import Testing

@testable import Topology

/// A text and the one line that it gets.
struct Refusal: Sendable, CustomTestStringConvertible {
  let yaml: String
  let message: String
  var testDescription: String { message }

  init(_ yaml: String, _ message: String) {
    self.yaml = yaml
    self.message = message
  }
}

@Suite struct TopologyErrorTests {
  private func expect(_ refusal: Refusal) {
    let error = #expect(throws: TopologyError.self) { try parsed(refusal.yaml) }
    #expect(error?.description == refusal.message)
  }

  @Test(arguments: [
    Refusal("hosts: { local: { masters: 8 }", "topology.yaml:1: "),
  ])
  func syntax(refusal: Refusal) { expect(refusal) }
}
