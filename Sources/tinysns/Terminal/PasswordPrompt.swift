// Asks a person for a password: nothing of it is shown.

import Foundation
import Model

/// A question at the terminal that is answered unseen.
enum PasswordPrompt {
  /// Whether there is a person to ask.
  static var canAsk: Bool { isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1 }

  /// Asks for a password. Throws when the person declines: Ctrl-C, Ctrl-D, or an end of the terminal.
  static func ask(_ question: String) throws -> Password {
    var found = termios()
    guard tcgetattr(STDIN_FILENO, &found) == 0 else { throw Failure("there is no terminal to ask for a password") }
    var silent = found
    // Ctrl-C comes as a character: the terminal must be given back before the process ends.
    silent.c_lflag &= ~tcflag_t(ECHO | ECHONL | ICANON | ISIG)
    // What was typed before the question was no password.
    guard tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent) == 0 else { throw Failure("the terminal shows what is typed") }
    defer {
      tcsetattr(STDIN_FILENO, TCSADRAIN, &found)
      Terminal.write("\n", to: STDERR_FILENO)
    }
    Terminal.write(question, to: STDERR_FILENO)
    var typed: [UInt8] = []
    while true {
      var byte: UInt8 = 0
      let count = read(STDIN_FILENO, &byte, 1)
      if count < 0, errno == EINTR { continue }
      guard count == 1 else { throw Failure("no password was given") }
      switch byte {
      case UInt8(ascii: "\n"), UInt8(ascii: "\r"):
        guard let text = String(validating: typed, as: UTF8.self) else { throw Failure("the password is not UTF-8") }
        return Password(text)
      case 3, 4: throw Failure("no password was given", status: byte == 3 ? 130 : ExitStatus.failed)
      case 8, 0x7F:
        // A whole character.
        while let last = typed.popLast(), last & 0xC0 == 0x80 {}
      case 21: typed = []  // Ctrl-U
      default: if typed.count < 4 * Limits.passwordBytesMax { typed.append(byte) }
      }
    }
  }

  /// Asks for a new password, twice.
  static func askForNew(_ question: String) throws -> Password {
    while true {
      let password = try ask(question)
      if let fault = TextRules.fault(inPassword: password) {
        Terminal.write("It must not be \(fault.explanation).\n", to: STDERR_FILENO)
        continue
      }
      if try ask("Once more: ") == password { return password }
      Terminal.write("These were two different ones.\n", to: STDERR_FILENO)
    }
  }

  /// Asks a question that is answered by yes or no; no unless it begins with a y.
  static func confirm(_ question: String) -> Bool {
    Terminal.write(question + " [y/N] ", to: STDERR_FILENO)
    // Not `readLine()`, which might take what is typed after the answer.
    var answer: [UInt8] = []
    while true {
      var byte: UInt8 = 0
      let count = read(STDIN_FILENO, &byte, 1)
      if count < 0, errno == EINTR { continue }
      guard count == 1, byte != UInt8(ascii: "\n") else { break }
      answer.append(byte)
    }
    return answer.first == UInt8(ascii: "y") || answer.first == UInt8(ascii: "Y")
  }
}
