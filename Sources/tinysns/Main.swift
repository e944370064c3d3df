// The entry: one binary, a subcommand a role.

import ArgumentParser
import Foundation

struct TinySNS: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tinysns",
    abstract: "A live-timeline service that stays up whatever process dies.",
    discussion: """
      `tinysns up` starts the cluster that topology.yaml describes: a routing server, masters, and a slave for each \
      master that starts it again when it crashes. `tinysns client NAME` is the way in for a person.
      """,
    groupedSubcommands: [
      CommandGroup(name: "The cluster", subcommands: [Up.self, Down.self, Status.self, Keys.self]),
      CommandGroup(
        name: "Using it",
        subcommands: [
          ClientCommand.self, PostCommand.self, Follow.self, Unfollow.self, List.self, Timeline.self,
          Passwd.self, Logout.self,
        ]),
      CommandGroup(name: "Proving it", subcommands: [Verify.self, Sim.self, Bench.self, Burn.self]),
      CommandGroup(
        name: "One role, in the foreground", subcommands: [RouterRole.self, MasterRole.self, SlaveRole.self, Demo.self]),
    ])
}

@main
enum Main {
  static func main() {
    signal(SIGPIPE, SIG_IGN)
    // A file that may not grow is an error of its write, as a full disk is, not the end of a master.
    signal(SIGXFSZ, SIG_IGN)
    fillStandardDescriptors()
    checkArguments()
    do {
      var command = try TinySNS.parseAsRoot()
      try command.run()
    } catch {
      end(error)
    }
  }

  /// A standard descriptor that the caller has closed must not become that of a file or socket opened later. Reading finds the
  /// end, writing output fails.
  private static func fillStandardDescriptors() {
    for (descriptor, access) in [(STDIN_FILENO, O_RDWR), (STDOUT_FILENO, O_RDONLY), (STDERR_FILENO, O_RDWR)]
    where fcntl(descriptor, F_GETFD) == -1 {
      _ = open("/dev/null", access)  // gets the lowest free number, which is this one
    }
  }

  /// Ends the process as the error wants.
  static func end(_ error: any Error) -> Never {
    if error is Failure || !isParserError(error) {
      let failure = Failure(error)
      Terminal.complain(failure.message)
      exit(failure.status)
    }
    let code = TinySNS.exitCode(for: error)
    let text = TinySNS.fullMessage(for: error)
    if code.isSuccess {
      Terminal.write(text + "\n", to: STDOUT_FILENO)
      exit(ExitStatus.done)
    }
    Terminal.write(text + "\n", to: STDERR_FILENO)
    exit(ExitStatus.usage)
  }

  private static func isParserError(_ error: any Error) -> Bool {
    let code = TinySNS.exitCode(for: error)
    return code == .validationFailure || code.isSuccess || error is ExitCode || error is ValidationError
  }

  /// Swift would silently replace what is not UTF-8 in an argument: a post would be changed.
  private static func checkArguments() {
    for index in 0..<Int(CommandLine.argc) {
      guard let argument = CommandLine.unsafeArgv[index] else { continue }
      if String(validatingCString: argument) == nil {
        Terminal.complain("argument \(index) is not valid UTF-8")
        exit(ExitStatus.usage)
      }
    }
  }

  /// Runs an async command to its end, and ends the process.
  static func run(_ body: @escaping @Sendable () async throws -> Void) -> Never {
    Task {
      do {
        try await body()
        exit(ExitStatus.done)
      } catch {
        end(error)
      }
    }
    // Not `dispatchMain()`: that unblocks all signals in this thread, also those that are taken from a descriptor.
    while true { pause() }
  }
}
