// A codec as an argument of a test.

import Testing

@testable import Fuzzing

extension Codec: CustomTestStringConvertible {
  public var testDescription: String { name }
}
