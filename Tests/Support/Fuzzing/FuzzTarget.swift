// What there is to fuzz. A target is a function of bytes; who runs it, with what bytes, is somebody else's business: `tinysns-fuzz`
// (with its own generator or libFuzzer's), and `FuzzTests`.

import Model

/// What a target found wrong with the code under test. A trap or an endless loop is found by whoever runs the target.
package struct Finding: Error, CustomStringConvertible {
  package let description: String

  package init(_ description: String) { self.description = description }
}

/// Something that takes bytes from outside, and what must hold whatever they are.
package struct FuzzTarget: Sendable {
  package let name: String
  /// One line: what is tried, and what must hold.
  package let about: String
  /// Longer inputs are cut.
  package let inputBytesMax: Int
  /// Pieces that mutations put in: what the format's words are.
  package let tokens: [[UInt8]]
  /// A good input to start from, mostly a valid one.
  package let seed: @Sendable (inout SplitMix64) -> [UInt8]
  private let body: @Sendable ([UInt8]) throws(Finding) -> Void

  init(
    _ name: String, _ about: String, inputBytesMax: Int = 4_096, tokens: [[UInt8]] = [],
    seed: @escaping @Sendable (inout SplitMix64) -> [UInt8],
    body: @escaping @Sendable ([UInt8]) throws(Finding) -> Void
  ) {
    self.name = name
    self.about = about
    self.inputBytesMax = inputBytesMax
    self.tokens = tokens
    self.seed = seed
    self.body = body
  }

  /// Tries one input.
  package func check(_ input: [UInt8]) throws(Finding) {
    try body(input.count > inputBytesMax ? Array(input[..<inputBytesMax]) : input)
  }

  /// All of them.
  package static let all: [FuzzTarget] =
    wire + [router, master, client, supervisor, topology, commands, keys, texts, log]

  package static func named(_ name: String) -> FuzzTarget? { all.first { $0.name == name } }
}

/// Fails unless `condition` holds.
func hold(_ condition: Bool, _ what: @autoclosure () -> String) throws(Finding) {
  if !condition { throw Finding(what()) }
}
