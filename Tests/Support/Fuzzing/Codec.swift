// The codecs of all messages in one list, so that a test can say "whatever the message".

import Model
import Wire

/// One message type's encode and decode.
struct Codec: Sendable {
  let name: String
  /// A random message's bytes, and whether they decode to the same message.
  let roundTrip: @Sendable (inout MessageGenerator) -> (bytes: [UInt8], same: Bool)
  /// Decodes, encodes and decodes again: whether both results are the same, and their bytes. Throws what the first decode throws.
  let isStable: @Sendable ([UInt8]) throws(WireError) -> Bool
  let limit: Int

  private init<M: Equatable & SendableMetatype>(
    _ name: String, limit: Int = Limits.messageBytes, make: @escaping @Sendable (inout MessageGenerator) -> M,
    encode: @escaping @Sendable (M) -> [UInt8], decode: @escaping @Sendable ([UInt8]) throws(WireError) -> M
  ) {
    self.name = name
    self.limit = limit
    roundTrip = { generator in
      let message = make(&generator)
      let bytes = encode(message)
      return (bytes, (try? decode(bytes)) == message)
    }
    isStable = { (bytes) throws(WireError) in
      let message = try decode(bytes)
      let encoded = encode(message)
      guard let again = try? decode(encoded) else { return false }
      return again == message && encode(again) == encoded
    }
  }

  static let all: [Codec] = [
    Codec(
      "Request", limit: Limits.requestBytes, make: { $0.request() }, encode: { Wire.encode($0) },
      decode: { (bytes) throws(WireError) in try Wire.decodeRequest(bytes) }),
    Codec(
      "Reply", make: { $0.reply() }, encode: { Wire.encode($0) },
      decode: { (bytes) throws(WireError) in try Wire.decodeReply(bytes) }),
    Codec(
      "Post", make: { $0.post() }, encode: { Wire.encode($0) },
      decode: { (bytes) throws(WireError) in try Wire.decodePost(bytes) }),
    Codec(
      "Update", make: { $0.update() }, encode: { Wire.encode($0) },
      decode: { (bytes) throws(WireError) in try Wire.decodeUpdate(bytes) }),
    Codec(
      "RouterRequest", limit: Limits.requestBytes, make: { $0.routerRequest() }, encode: { Wire.encode($0) },
      decode: { (bytes) throws(WireError) in try Wire.decodeRouterRequest(bytes) }),
    Codec(
      "RouterReply", make: { $0.routerReply() }, encode: { Wire.encode($0) },
      decode: { (bytes) throws(WireError) in try Wire.decodeRouterReply(bytes) }),
    Codec(
      "LogBatch", make: { $0.logBatch() }, encode: { Wire.encode($0) },
      decode: { (bytes) throws(WireError) in try Wire.decodeLogBatch(bytes) }),
    Codec(
      "SupervisorRequest", make: { $0.supervisorRequest() }, encode: { Wire.encode($0) },
      decode: { (bytes) throws(WireError) in try Wire.decodeSupervisorRequest(bytes) }),
    Codec(
      "SupervisorReply", make: { $0.supervisorReply() }, encode: { Wire.encode($0) },
      decode: { (bytes) throws(WireError) in try Wire.decodeSupervisorReply(bytes) }),
  ]
}
