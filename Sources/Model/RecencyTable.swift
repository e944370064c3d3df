// A table that knows which of its keys was used least lately.

/// Values by key, in the order in which the keys were last touched.
///
/// The entries lie in an array and are linked through it in that order, so that touching a known one costs a single look into the dictionary, and
/// the one that has been idle for longest is known without any.
public struct RecencyTable<Key: Hashable & Sendable, Value: Sendable>: Sendable {
  /// An entry's place in the array; a table has fewer than 2³¹.
  private typealias Place = Int32

  private struct Entry {
    let key: Key
    var value: Value
    /// The neighbours in the order of touches.
    var before: Place?
    var after: Place?
  }

  private var entries: [Entry] = []
  private var places: [Key: Place] = [:]
  private var oldestPlace: Place?
  private var newestPlace: Place?

  public init() {}

  public var count: Int { entries.count }

  public mutating func reserveCapacity(_ count: Int) {
    entries.reserveCapacity(count)
    places.reserveCapacity(count)
  }

  public subscript(key: Key) -> Value? { places[key].map { entries[Int($0)].value } }

  /// What `read` makes of the value of `key`, which is not copied for it; nil if there is none.
  public func value<Result>(of key: Key, _ read: (borrowing Value) -> Result) -> Result? {
    guard let place = places[key] else { return nil }
    return read(entries[Int(place)].value)
  }

  /// All of them, in no order that means anything.
  public var all: some Collection<(key: Key, value: Value)> { entries.lazy.map { (key: $0.key, value: $0.value) } }

  /// What `read` makes of the value that has been idle for longest; nil if there is none.
  public func oldest<Result>(_ read: (borrowing Value) -> Result) -> Result? {
    oldestPlace.map { read(entries[Int($0)].value) }
  }

  /// Changes the value of `key`, which is the one touched last then. It is made first if there is none.
  public mutating func touch(_ key: Key, default new: @autoclosure () -> Value, _ change: (inout Value) -> Void) {
    let place: Place
    if let known = places[key] {
      place = known
      if place != newestPlace {
        unlink(place)
        linkAsNewest(place)
      }
    } else {
      place = Place(entries.count)
      entries.append(Entry(key: key, value: new()))
      places[key] = place
      linkAsNewest(place)
    }
    change(&entries[Int(place)].value)
  }

  /// Removes what has been idle for longest, and returns its key; nil if there is nothing.
  @discardableResult
  public mutating func removeOldest() -> Key? {
    guard let place = oldestPlace else { return nil }
    unlink(place)
    let key = entries[Int(place)].key
    places[key] = nil
    // The last one takes its place in the array.
    let last = entries.removeLast()
    if Int(place) < entries.count {
      entries[Int(place)] = last
      places[last.key] = place
      if let before = last.before { entries[Int(before)].after = place } else { oldestPlace = place }
      if let after = last.after { entries[Int(after)].before = place } else { newestPlace = place }
    }
    return key
  }

  private mutating func unlink(_ place: Place) {
    let (before, after) = (entries[Int(place)].before, entries[Int(place)].after)
    if let before { entries[Int(before)].after = after } else { oldestPlace = after }
    if let after { entries[Int(after)].before = before } else { newestPlace = before }
  }

  private mutating func linkAsNewest(_ place: Place) {
    entries[Int(place)].before = newestPlace
    entries[Int(place)].after = nil
    if let newestPlace { entries[Int(newestPlace)].after = place } else { oldestPlace = place }
    newestPlace = place
  }
}
