// What is to happen, by virtual time. Knows nothing of what it holds.

import Model

/// Something that happens at a point of virtual time.
enum Happening {
  /// A process's loop turns.
  case turn(Process)
  /// A frame comes out of the network.
  case arrival(Frame)
  case call(() -> Void)
}

/// A binary heap by time; what was scheduled first comes first among equals. Payloads lie aside, so that the heap moves
/// small values only.
struct EventQueue {
  private struct Entry {
    var time: Int64
    var order: UInt64
    var slot: Int

    func precedes(_ other: Entry) -> Bool { time < other.time || time == other.time && order < other.order }
  }

  private var heap: [Entry] = []
  private var slots: [Happening?] = []
  private var free: [Int] = []
  private var scheduled: UInt64 = 0

  mutating func push(_ happening: Happening, at time: Instant) {
    let slot: Int
    if let reused = free.popLast() {
      slot = reused
      slots[slot] = happening
    } else {
      slot = slots.count
      slots.append(happening)
    }
    scheduled += 1
    heap.append(Entry(time: time.nanoseconds, order: scheduled, slot: slot))
    heap.withUnsafeMutableBufferPointer { heap in
      var child = heap.count - 1
      let entry = heap[child]
      while child > 0 {
        let parent = (child - 1) / 2
        guard entry.precedes(heap[parent]) else { break }
        heap[child] = heap[parent]
        child = parent
      }
      heap[child] = entry
    }
  }

  mutating func pop() -> (time: Instant, happening: Happening)? {
    guard let first = heap.first, let last = heap.popLast() else { return nil }
    if !heap.isEmpty {
      heap.withUnsafeMutableBufferPointer { heap in
        var parent = 0
        while true {
          var child = parent * 2 + 1
          guard child < heap.count else { break }
          if child + 1 < heap.count, heap[child + 1].precedes(heap[child]) { child += 1 }
          guard heap[child].precedes(last) else { break }
          heap[parent] = heap[child]
          parent = child
        }
        heap[parent] = last
      }
    }
    free.append(first.slot)
    guard let happening = slots[first.slot] else { preconditionFailure("a slot of the event queue is empty") }
    slots[first.slot] = nil
    return (Instant(nanoseconds: first.time), happening)
  }
}
