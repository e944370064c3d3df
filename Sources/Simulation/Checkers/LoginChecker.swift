// Who is let in: only whoever has proved it.

import Core
import Model

/// Compares each Welcome with what the client's Hello said, and with what opens the account at a position that the master may
/// answer from: the client's newest event, or a later one.
final class LoginChecker {
  private unowned(unsafe) let world: World
  private let model: ReferenceModel
  private(set) var refused = 0

  init(world: World, model: ReferenceModel) {
    self.world = world
    self.model = model
  }

  func onWelcome(_ welcome: Welcome, number: UInt64, from master: MasterProcess, to client: ClientProcess) {
    let invariant = "nobody is let in without the right proof"
    guard let hello = client.hellos[number] else {
      return world.fail(
        invariant, "\(master.name) welcomes \(client.name), who said no Hello \(number)", [master, client])
    }
    guard isRight(hello, for: welcome.account) else {
      return world.fail(invariant, "\(master.name) welcomes \(client.name) as \(welcome.account)", [master, client])
    }
  }

  private func isRight(_ hello: Hello, for account: AccountID) -> Bool {
    switch hello.proof {
    case nil: return false
    case .password(let password):
      return model.credentials(of: account, from: hello.newest).contains {
        $0.hash == SimulatedCrypto.hash(password)
      }
    case .token(let token):
      guard let claims = SimulatedCrypto.open(token),
        case .account(let owner, let generation) = claims.holder, owner == account
      else { return false }
      return model.credentials(of: account, from: hello.newest).contains { $0.generation == generation }
        && !model.wasRevoked(claims.id, of: account, by: hello.newest)
    }
  }

  func onRefused(_ refusal: Refusal, to client: ClientProcess) {
    refused += 1
    let mayBe = client.isIntruder || model.accounts[client.user].map { model.hasChanged(credentialOf: $0) } ?? false
    guard refusal.code == .credentials || refusal.code == .tooManyAttempts, mayBe else {
      return world.fail("a login of a good name succeeds", "\(client.name): \(refusal)", [client])
    }
  }
}
