// Messages to bytes and back. The other files hold the codecs, a file a link; this one what they share: the entry to
// swift-protobuf, and the checks of values that many messages carry. Nothing of swift-protobuf shows outside.
//
// A decoder checks what a message must be for the cores to take it: sizes, counts, ranges. What a name or a post may
// contain is the domain's rule (`TextRules`), because breaking it has a named refusal of its own.

import Model
internal import SwiftProtobuf

/// The codec: every message of `Model` to bytes and back.
///
/// Encoders take any message that keeps its own documented rules. Decoders take any bytes: they return a message that keeps
/// them too, or throw.
public enum Wire {}

/// The deepest that our messages nest is four; deeper ones only exist to harm.
private let decodingOptions: BinaryDecodingOptions = {
  var options = BinaryDecodingOptions()
  options.messageDepthLimit = 8
  options.discardUnknownFields = true
  return options
}()

func parse<M: SwiftProtobuf.Message>(_ bytes: RawSpan, as type: M.Type, limit: Int) throws(WireError) -> M {
  guard bytes.byteCount <= limit else { throw .tooLarge(limit: limit) }
  do {
    return try M(serializedBytes: bytes, options: decodingOptions)
  } catch BinaryDecodingError.invalidUTF8 {
    throw .badText
  } catch {
    throw .malformed
  }
}

/// As much of a message as can be read before the first fault.
func parseWhatCanBe<M: SwiftProtobuf.Message>(_ bytes: RawSpan, as type: M.Type, limit: Int) -> M {
  var message = M()
  guard bytes.byteCount <= limit else { return message }
  try? message.merge(serializedBytes: bytes, options: decodingOptions)
  return message
}

func serialize<M: SwiftProtobuf.Message>(_ message: M) -> [UInt8] {
  do {
    return try message.serializedBytes(partial: true)
  } catch {
    preconditionFailure("can't encode \(M.protoMessageName): \(error)")
  }
}

// MARK: Values that many messages carry

/// Numbers that somebody counts up. Two to the 63rd is never reached by counting, and a greater one would overflow where
/// something is added to it or where the log stores it.
func counter(_ value: UInt64, _ field: WireError.Field) throws(WireError) -> UInt64 {
  guard value <= UInt64(Int64.max) else { throw .outOfRange(field) }
  return value
}

/// A position in the log, 0 included.
func position(_ value: UInt64) throws(WireError) -> EventID {
  guard value <= EventID.max.rawValue else { throw .outOfRange(.eventID) }
  return EventID(value)
}

/// The id of an event: from 1.
func eventID(_ value: UInt64) throws(WireError) -> EventID {
  guard value > 0 else { throw .outOfRange(.eventID) }
  return try position(value)
}

/// A process id; 0 where there may be none. Negative ones would name process groups.
func processID(_ value: Int32, least: Int32 = 0) throws(WireError) -> Int32 {
  guard value >= least else { throw .outOfRange(.pid) }
  return value
}

func check(_ count: Int, atMost limit: Int, _ field: WireError.Field) throws(WireError) {
  guard count <= limit else { throw .outOfRange(field) }
}

extension Incarnation {
  init(wire value: UInt64) throws(WireError) { self.init(try counter(value, .incarnation)) }
}

extension MasterIdentity {
  init(_ wire: Tinysns_Master) throws(WireError) {
    self.init(name: wire.name, incarnation: try Incarnation(wire: wire.incarnation))
  }
}

extension Tinysns_Master {
  init(_ master: MasterIdentity) {
    self.init()
    name = master.name
    incarnation = master.incarnation.rawValue
  }
}

extension Refusal {
  /// A code that is newer than this reader counts as `invalid`, so that the request is answered nevertheless; the message
  /// and the time to retry tell the rest.
  init(_ wire: Tinysns_Refusal) throws(WireError) {
    guard wire.code != 0 else { throw .outOfRange(.code) }
    self.init(Code(rawValue: wire.code) ?? .invalid, wire.message, retryAfter: wire.retryAfterMs)
  }
}

extension Tinysns_Refusal {
  init(_ refusal: Refusal) {
    self.init()
    code = refusal.code.rawValue
    message = refusal.message
    retryAfterMs = refusal.retryAfter
  }
}
