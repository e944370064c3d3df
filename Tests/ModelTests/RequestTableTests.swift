import Model
import Testing

@Suite struct RequestTableTests {
  /// The rule without any cleverness: all windows, searched through at each event.
  private struct Plain {
    var windows: [ClientID: RequestWindow] = [:]

    mutating func apply(_ request: RequestID?, _ event: EventID, _ time: Timestamp, clientsMax: Int) {
      windows = windows.filter { $0.value.lastTime.milliseconds + Limits.repeatMilliseconds >= time.milliseconds }
      guard let request else { return }
      windows[request.client, default: RequestWindow(account: AccountID(0))].record(request.number, as: event, at: time)
      if windows.count > clientsMax {
        windows[windows.min { $0.value.lastEvent < $1.value.lastEvent }!.key] = nil
      }
    }
  }

  @Test(arguments: 0..<20 as Range<UInt64>)
  func agreesWithThePlainRule(seed: UInt64) {
    var random = RandomSource.seeded(seed)
    var plain = Plain()
    var table = RequestTable(clientsMax: 8)
    var time = Timestamp.zero
    let clients = UInt64.random(in: 2...20, using: &random)
    for number in 1...1_500 as ClosedRange<UInt64> {
      time.milliseconds += Int64.random(in: 0...3, using: &random) * Limits.repeatMilliseconds / 10
      let client = ClientID(UInt64.random(in: 1...clients, using: &random))
      let request = Int.random(in: 0..<5, using: &random) == 0 ? nil : RequestID(client: client, number: number)
      plain.apply(request, EventID(number), time, clientsMax: 8)
      table.expire(at: time)
      if let request { table.record(request, by: AccountID(0), as: EventID(number), at: time) }
      #expect(table.count == plain.windows.count)
      if number % 100 == 0 {
        table = RequestTable(plain.windows.map { (client: $0.key, window: $0.value) }, clientsMax: 8)
      }
      guard number % 10 == 0 else { continue }
      for client in (1...clients).map({ ClientID($0) }) {
        #expect(table[client]?.lastEvent == plain.windows[client]?.lastEvent)
        for asked in number - min(number - 1, 40)...number {
          let outcome = table.outcome(of: RequestID(client: client, number: asked))
          switch plain.windows[client]?.outcome(of: asked) ?? .unknown {
          case .done(let event): #expect(outcome == .done(event) || outcome == .doneEarlier)
          case .unknown: #expect(outcome == .unknown)
          case .tooOld: #expect(outcome == .tooOld)
          }
        }
      }
    }
  }
}
