// The codecs of all messages, at every socket.

import Model
import Wire

extension FuzzTarget {
  static let wire: [FuzzTarget] = Codec.all.map(wire(_:)) + [subscription]

  private static func wire(_ codec: Codec) -> FuzzTarget {
    FuzzTarget(
      "wire-\(codec.name)",
      "decodes a \(codec.name): refused with a reason, or a message that its encoder takes and that comes back the same",
      tokens: protobufTokens
    ) { random in
      var generator = MessageGenerator(random: random)
      defer { random = generator.random }
      return codec.roundTrip(&generator).bytes
    } body: { input throws(Finding) in
      if codec.name == "Request" { _ = Wire.requestNumber(in: input.span.bytes) }
      let isStable: Bool
      do throws(WireError) { isStable = try codec.isStable(input) } catch {
        try hold(!error.explanation.isEmpty, "\(error) has no explanation")
        return
      }
      try hold(isStable, "what was decoded does not come back the same")
    }
  }

  private static let subscription = FuzzTarget(
    "wire-Subscription", "decodes what an XPUB socket receives: nothing, or what encodes to the same bytes",
    tokens: [[0], [1], [UInt8](repeating: 0xFF, count: 16)]
  ) { random in
    var generator = MessageGenerator(random: random)
    defer { random = generator.random }
    return Wire.encodeSubscription(generator.flag(), topic: generator.topic())
  } body: { input throws(Finding) in
    guard let (subscribe, topic) = Wire.decodeSubscription(input) else { return }
    try hold(Wire.encodeSubscription(subscribe, topic: topic) == input, "encoded otherwise than it was decoded")
  }

  /// Tags of fields with each way of writing them, numbers at the edges, deep nesting, and text that is none.
  static let protobufTokens: [[UInt8]] =
    (1...12).flatMap { field in (0...5).map { [UInt8(field << 3 | $0)] } }
    + [0, 1, 0x7F, 0x80, 1 << 31, UInt64(UInt32.max), 1 << 62, UInt64(Int64.max), 1 << 63, .max].map(varint)
    + [
      [0x0A, 0x00], [0x12, 0x01], [0x1A, 0x7F], [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
      [UInt8](repeating: 0x0A, count: 40),
      [UInt8](repeating: 15 << 3 | 3, count: 40), [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xFF],
    ]
}
