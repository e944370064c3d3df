import Model
import Testing

@Suite struct RecencyTableTests {
  @Test(
    "does the same as a plain list, newest last, whatever is touched and removed", arguments: 0..<20 as Range<UInt64>)
  func agreesWithAList(seed: UInt64) {
    var random = RandomSource.seeded(seed)
    var list: [(key: Int, value: [Int])] = []
    var table = RecencyTable<Int, [Int]>()
    for step in 0..<3_000 {
      // Grows and shrinks in turn.
      if Int.random(in: 0..<100, using: &random) < (step % 600 < 300 ? 10 : 60) {
        let key = table.removeOldest()
        #expect(key == list.first?.key)
        if !list.isEmpty { list.removeFirst() }
      } else {
        let key = Int.random(in: 0..<40, using: &random)
        var entry = (key: key, value: [-1])
        if let place = list.firstIndex(where: { $0.key == key }) { entry = list.remove(at: place) }
        entry.value.append(step)
        list.append(entry)
        table.touch(key, default: [-1]) { $0.append(step) }
      }
      #expect(table.count == list.count)
      #expect(table.oldest { $0 } == list.first?.value)
      let key = Int.random(in: 0..<40, using: &random)
      let value = list.first { $0.key == key }?.value
      #expect(table[key] == value && table.value(of: key) { $0.count } == value?.count)
    }
    let all = table.all.map { $0.key }.sorted()
    #expect(all == list.map(\.key).sorted())
    let copy = table
    while table.removeOldest() != nil {}
    #expect(table.count == 0 && copy.count == list.count)
  }
}
