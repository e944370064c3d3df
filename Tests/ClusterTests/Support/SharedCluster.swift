// One cluster for a whole suite whose tests break nothing; each uses users of its own.

import Testing

/// Starts a cluster before the first test of a suite and stops it after the last.
struct SharedCluster: SuiteTrait, TestScoping {
  @TaskLocal static var current: Cluster?

  func provideScope(for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void)
    async throws
  {
    try await Cluster.with(masters: 2) { cluster in
      try await Self.$current.withValue(cluster) { try await function() }
    }
  }
}

extension Trait where Self == SharedCluster {
  static var sharedCluster: Self { SharedCluster() }
}

/// A user name that no other test has.
func freshName(_ prefix: String) -> String { "\(prefix)\(UInt32.random(in: 0...UInt32.max))" }
