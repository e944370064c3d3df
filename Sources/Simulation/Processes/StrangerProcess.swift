// Somebody on the network who sends what is no message of ours.

import Model

final class StrangerProcess: Process {
  private let bytes: [[UInt8]]
  private let address: String
  private let kind: Link.Kind

  init(world: World, name: String, host: Int, pid: Int32, bytes: [[UInt8]], address: String, kind: Link.Kind) {
    self.bytes = bytes
    self.address = address
    self.kind = kind
    super.init(world: world, name: name, host: host, pid: pid)
  }

  override func start() {
    let link = world.network.dial(kind, from: self, to: address)
    for message in bytes { world.network.send(message, on: link) }
    onThread(after: .milliseconds(500)) { [self] in world.exit(self) }
    planNext()
  }
}
