// `tinysns passwd`, `tinysns logout`.

import ArgumentParser
import Foundation
import Model
import Node
import Runtime
import TinySNSClient

struct Passwd: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Change a password; every other login of the user ends.",
    discussion: """
      Asks for the old password and for the new one, twice. In scripts: TINYSNS_PASSWORD or --password-file has the old one, \
      TINYSNS_NEW_PASSWORD or --new-password-file the new one.
      """)
  @Argument(help: "Whose password.") var user: String
  @Option(help: "A file whose first line is the new password.", completion: .file()) var newPasswordFile: String?
  @Flag(
    name: .customLong("operator"),
    help: "Set it without the old one: for whoever owns the cluster's state folder on this machine.")
  var asOperator = false
  @OptionGroup var session: SessionOptions

  func run() throws {
    Main.run { [self] in
      let deployment = try session.topology.loadForClient()
      let saved = SavedLogin(user: user, at: deployment)
      let new: Password
      if asOperator {
        let token = try OperatorLogin.token(of: deployment)
        new = try newPassword()
        let client = try client(deployment, token: token)
        try await client.changePassword(from: Password(""), to: new, timeout: session.duration)
        await client.close()
      } else {
        let given = try session.givenPassword()
        guard given != nil || PasswordPrompt.canAsk else {
          throw Failure("the old password is needed; \(PasswordSource.advice)")
        }
        let old = try given ?? PasswordPrompt.ask("Old password of \(user): ")
        new = try newPassword()
        let client = try client(deployment, password: old)
        try await client.changePassword(from: old, to: new, timeout: session.duration)
        await client.close()
        // The login that was kept is no longer good.
        let again = try self.client(deployment, password: new, keep: saved.save)
        try await again.ready(timeout: session.duration)
        await again.close()
      }
      Terminal.print("\(user) has a new password")
    }
  }

  private func newPassword() throws -> Password {
    if let given = try PasswordSource.given(
      file: newPasswordFile, variable: "TINYSNS_NEW_PASSWORD", name: "new password")
    {
      return given
    }
    guard PasswordPrompt.canAsk else {
      throw Failure("the new password is needed; give it with --new-password-file FILE or TINYSNS_NEW_PASSWORD")
    }
    return try PasswordPrompt.askForNew("New password of \(user): ")
  }

  private func client(
    _ deployment: Deployment, password: Password? = nil, token: SessionToken? = nil,
    keep: @escaping @Sendable (SessionToken) -> Void = { _ in }
  ) throws -> TinySNSClient {
    if let fault = TextRules.fault(inName: user) { throw Failure("the user name is refused: \(fault.explanation)") }
    return try TinySNSClient(
      router: deployment.routerEndpoint, serverKey: try deployment.serverKey(session.serverKey), user: user,
      password: password, token: token, timing: deployment.timing, onToken: keep)
  }
}

/// The login of whoever owns the cluster's keys, as any user, for a new password.
enum OperatorLogin {
  /// Made with the cluster's own key, and good for a moment.
  static func token(of deployment: Deployment) throws -> SessionToken {
    guard ClusterKeys.exist(in: deployment.folder) else {
      throw Failure("\(deployment.folder.path) has no keys: --operator works where the cluster runs")
    }
    var random = RandomSource.system
    let claims = TokenClaims(
      id: TokenID(high: random.next(), low: random.next()), holder: .operatorOfCluster,
      expires: Timestamp(milliseconds: Clock.wall().milliseconds + 120_000))
    return TokenSeal(key: try ClusterKeys.token(in: deployment.folder)).seal(claims)
  }
}

struct Logout: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Forget the saved login of a user, and make it useless to whoever has a copy.")
  @Argument(help: "Who leaves.") var user: String
  @Flag(help: "End all logins of the user, wherever they are.") var all = false
  @OptionGroup var session: SessionOptions

  func run() throws {
    Main.run { [self] in
      let deployment = try session.topology.loadForClient()
      let saved = SavedLogin(user: user, at: deployment)
      if !all, saved.load() == nil, !session.hasGivenPassword {
        throw Failure("there is no saved login of \(user)")
      }
      let client = try await session.logIn(user)
      do {
        try await client.logout(everywhere: all, timeout: session.duration)
      } catch ClientError.loginRefused(let refusal) where refusal.code == .credentials {
        // The answer was lost, and the next master knows this login no more: it has been ended.
      }
      saved.forget()
      await client.close()
      Terminal.print(all ? "all logins of \(user) have ended" : "\(user) is logged out")
    }
  }
}
