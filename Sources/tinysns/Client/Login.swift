// Where a command's password comes from, and how it logs in.

import ArgumentParser
import Core
import Foundation
import Model
import Node
import TinySNSClient

/// What all commands that act for a user have.
struct SessionOptions: ParsableArguments {
  @OptionGroup var topology: TopologyOption
  @Option(help: "Give up after so many seconds without an answer.") var timeout = 10.0
  @Option(help: "A file whose first line is the password.", completion: .file()) var passwordFile: String?
  /// A key may begin with a dash, and may not be taken for an option then.
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "The cluster's public key, as `tinysns keys` prints it there. Needed on other machines only; also in TINYSNS_SERVER_KEY.",
      valueName: "z85"))
  var serverKey: String?

  func validate() throws {
    guard timeout > 0, timeout <= 300 else { throw ValidationError("--timeout takes 0 to 300 seconds") }
  }

  var duration: Duration { .milliseconds(Int64(timeout * 1_000)) }

  /// The password that was given for this very call: it wins over everything that is remembered.
  func givenPassword() throws -> Password? {
    try PasswordSource.given(file: passwordFile, variable: "TINYSNS_PASSWORD")
  }

  /// Whether there is one. It is not read: from a pipe that can be done once.
  var hasGivenPassword: Bool { passwordFile != nil || PasswordSource.variable("TINYSNS_PASSWORD") != nil }

  /// Logs in a user. With `register` a new name is registered: at once if a password was given, else if a person says so.
  ///
  /// The password comes from `--password-file`, `TINYSNS_PASSWORD`, the saved login, the demo clients' passwords, or a
  /// person, in this order. What the login gives for the next time is saved.
  func logIn(
    _ user: String, register: Bool = false, onNote: @escaping @Sendable (TinySNSClient.Note) -> Void = { _ in }
  ) async throws -> TinySNSClient {
    if let fault = TextRules.fault(inName: user) { throw Failure("the user name is refused: \(fault.explanation)") }
    let deployment = try topology.loadForClient()
    let saved = SavedLogin(user: user, at: deployment)
    let key = try deployment.serverKey(serverKey)
    func open(_ password: Password?, _ token: SessionToken? = nil, register: Bool = false) throws -> TinySNSClient {
      try TinySNSClient(
        router: deployment.routerEndpoint, serverKey: key, user: user, password: password, token: token,
        register: register, timing: deployment.timing,
        onNote: { note in
          // Whoever has no eye on the notes is told at least this.
          if note == .routerNotProved || note == .tooManyConnections, let text = note.text { Terminal.complain(text) }
          onNote(note)
        }, onToken: { saved.save($0) })
    }
    if let password = try givenPassword() { return try open(password, register: register) }

    let token = saved.load()
    let demo = DemoPasswords(in: deployment.folder).password(of: user)
    if token != nil || demo != nil {
      let client = try open(demo, token)
      if try await isLetIn(client) { return client }
      saved.forget()
      guard PasswordPrompt.canAsk else {
        throw Failure("the saved login of \(user) is no longer good; \(PasswordSource.advice)")
      }
    }
    guard PasswordPrompt.canAsk else { throw Failure("\(user) has to log in; \(PasswordSource.advice)") }
    let client = try open(try PasswordPrompt.ask("Password of \(user): "))
    if try await isLetIn(client) { return client }
    guard register else { throw Failure("the name or the password is wrong") }
    guard PasswordPrompt.confirm("The name or the password is wrong. Is \(user) new here, to be registered?") else {
      throw Failure("the name or the password is wrong")
    }
    return try open(try PasswordPrompt.askForNew("New password of \(user): "), register: true)
  }

  /// False: what it says is not good enough. Other failures are thrown.
  private func isLetIn(_ client: TinySNSClient) async throws -> Bool {
    do {
      try await client.ready(timeout: duration)
      return true
    } catch ClientError.loginRefused(let refusal) where refusal.code == .credentials {
      await client.close()
      return false
    }
  }
}

/// Passwords from files and the environment.
enum PasswordSource {
  static let advice = "give the password with --password-file FILE or TINYSNS_PASSWORD"

  /// The first line of the file, or else the variable; nil without either.
  ///
  /// - Parameter name: what it is called when it is refused: the server's word for one that is too long, which would not get there.
  static func given(file: String?, variable: String, name: String = "password") throws -> Password? {
    let text: String
    if let file {
      let line = try firstLine(of: file)
      // Of one that is too long the end may be missing.
      guard line.count <= Limits.passwordBytesMax else { throw tooLong(name) }
      guard let valid = String(validating: line, as: UTF8.self) else {
        throw Failure("the \(name) in \(file) is not UTF-8")
      }
      guard !valid.isEmpty else { throw Failure("there is no password in the first line of \(file)") }
      text = valid
    } else {
      guard let value = Self.variable(variable) else { return nil }
      guard value.utf8.count <= Limits.passwordBytesMax else { throw tooLong(name) }
      text = value
    }
    return Password(text)
  }

  /// Of the environment; nil if it is empty.
  static func variable(_ name: String) -> String? {
    ProcessInfo.processInfo.environment[name].flatMap { $0.isEmpty ? nil : $0 }
  }

  private static func tooLong(_ name: String) -> Failure {
    Failure("the \(name) is refused: \(TextFault.tooLong(limit: Limits.passwordBytesMax).explanation)")
  }

  /// Which of this process's descriptors a path like /dev/fd/3 stands for; nil for any other path.
  private static func openDescriptor(_ path: String) -> Int32? {
    if path == "/dev/stdin" { return STDIN_FILENO }
    let folder = ["/dev/fd/", "/proc/self/fd/"].first { path.hasPrefix($0) }
    return folder.flatMap { Int32(path.dropFirst($0.count)) }
  }

  /// The first line of a file or pipe, without its end, up to one byte more than a password may have. What follows in a pipe is left
  /// in it: it may be standard input, with commands.
  private static func firstLine(of path: String) throws -> [UInt8] {
    func unreadable() -> Failure { Failure("can't read \(path): \(String(cString: strerror(errno)))") }
    // A file that is open already is read from where it is: to open it again would be to begin anew, and sockets can't be.
    let descriptor = openDescriptor(path).map { fcntl($0, F_DUPFD_CLOEXEC, 3) } ?? open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw unreadable() }
    defer { close(descriptor) }
    var line: [UInt8] = []
    while line.count <= Limits.passwordBytesMax {
      var byte: UInt8 = 0
      let count = read(descriptor, &byte, 1)
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN {
        var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        poll(&item, 1, -1)
        continue
      }
      guard count >= 0 else { throw unreadable() }
      if count == 0 || byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") { break }
      line.append(byte)
    }
    return line
  }
}
