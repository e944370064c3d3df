// Line editing by libedit on a thread of its own, which also prints what comes meanwhile above the line being typed.

import CEdit
import CSpawn
import Foundation
import Runtime
import Synchronization
import TerminalText

/// What is typed, and a place to print to while somebody types.
///
/// libedit runs on one thread and asks `readKey` for each character. There the thread sleeps: for a key, a signal, or something to
/// print. To print it takes the line off the screen, prints, and has libedit draw the line again; so nobody but this thread
/// touches the terminal.
///
/// `@unchecked Sendable`: what other threads use is the mailbox; all else belongs to the editor's thread.
final class LineEditor: @unchecked Sendable {
  enum Event: Sendable, Equatable {
    case line(String)
    /// Ctrl-D on an empty line.
    case endOfInput
    /// Ctrl-C. `discarded`: there was a line.
    case interrupt(discarded: Bool)
    /// The terminal is gone, or a signal asks the process to end: its number, or 0.
    case gone(Int32)
  }

  struct Prompt: Sendable, Equatable {
    var text: String
    /// Whether a line stays on the screen once it is entered.
    var keepsLines = true
  }

  private enum Order: Sendable {
    case print(String)
    case prompt(Prompt)
    case end
  }

  /// Encloses, in the prompt, what takes no room on the screen.
  private static let mark: wchar_t = 1

  private let orders: Mailbox<Order>
  private let bell: Int32
  private let signals: Int32
  private let complete: @Sendable (String) -> Completion
  private let historyFile: HistoryFile
  private let thread = Mutex<WorkerThread?>(nil)

  // The thread's own.
  private var edit: OpaquePointer?
  private var prompt: Prompt
  private var promptBuffer: UnsafeMutablePointer<wchar_t>?
  private var input = KeyReader()
  private var columns = 80
  private var keyEvent: Event?
  private var isEnding = false
  private var lastLine = ""

  /// To be made in the main thread before there are others: they inherit what signals are blocked.
  init(
    prompt: Prompt, historyFile: HistoryFile, complete: @escaping @Sendable (String) -> Completion
  ) throws(Failure) {
    bell = tinysns_eventfd()
    signals = tinysns_signalfd(Self.signals, Self.signals.count)
    guard bell >= 0, signals >= 0 else { throw Failure("no descriptor for the terminal's signals") }
    orders = Mailbox(bell: bell)
    self.prompt = prompt
    self.historyFile = historyFile
    self.complete = complete
  }

  private static let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH]

  /// Shows the prompt. Events come on the editor's thread.
  func start(onEvent: @escaping @Sendable (Event) -> Void) {
    TerminalMode.rememberUntilExit()
    thread.withLock { $0 = WorkerThread { [self] in run(onEvent) } }
  }

  /// Prints lines above the line being typed. From any thread.
  func print(_ lines: String) { orders.put(.print(lines)) }

  func setPrompt(_ prompt: Prompt) { orders.put(.prompt(prompt)) }

  /// Prints what is still to be printed, takes the line being typed off the screen, and gives the terminal back. Not from the editor's
  /// own thread.
  func stop() {
    orders.put(.end)
    thread.withLock { $0.take() }?.join()
  }

  // MARK: The thread

  private func run(_ onEvent: (Event) -> Void) {
    tinysns_use_utf8()
    columns = Int(tinysns_terminal_columns())
    setPromptBuffer()
    let edit = tinysns_edit_open(
      "tinysns",
      { edit, key in LineEditor.of(edit).readKey(into: key!) },
      { edit in LineEditor.of(edit).promptBuffer },
      Self.mark, Unmanaged.passUnretained(self).toOpaque())
    guard let edit else {
      onEvent(.gone(0))
      return
    }
    self.edit = edit
    tinysns_edit_bind_tab(edit) { edit, _ in LineEditor.of(edit).completeWord() }
    let history = tinysns_history_open(edit, Int32(HistoryFile.entries))
    for line in historyFile.load() {
      if let history { tinysns_history_add(history, Self.wide(line)) }
      lastLine = line
    }
    while !isEnding {
      var count: Int32 = 0
      let text = el_wgets(edit, &count)
      if let event = keyEvent {
        keyEvent = nil
        onEvent(event)
      } else if isEnding {
        break
      } else if let text, count > 0 {
        let line = Self.string(Self.scalars(text, Int(count)).filter { $0 != "\n" && $0 != "\r" })
        if line.isEmpty || !prompt.keepsLines { eraseEntered(line) }
        if !line.isEmpty, line != lastLine, let history {
          lastLine = line
          tinysns_history_add(history, Self.wide(line))
          historyFile.append(line)
        }
        onEvent(.line(line))
      } else {
        // libedit has shown "^D" behind the prompt, which is drawn anew over it.
        Terminal.write("\r\u{1B}[J", to: STDOUT_FILENO)
        onEvent(.endOfInput)
      }
    }
    if let history { history_wend(history) }
    el_end(edit)
    TerminalMode.restore()
  }

  private static func of(_ edit: OpaquePointer?) -> LineEditor {
    Unmanaged<LineEditor>.fromOpaque(tinysns_edit_data(edit!)!).takeUnretainedValue()
  }

  /// Called by libedit, which has shown everything by then. Returns 1 for a key; 0 to end the line without one.
  private func readKey(into key: UnsafeMutablePointer<wchar_t>) -> Int32 {
    while true {
      carryOutOrders()
      if isEnding {
        eraseTyped()
        return 0
      }
      if let scalar = input.next() {
        key.pointee = wchar_t(scalar.value)
        return 1
      }
      var items = [
        pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0),
        pollfd(fd: signals, events: Int16(POLLIN), revents: 0),
        pollfd(fd: bell, events: Int16(POLLIN), revents: 0),
      ]
      if poll(&items, nfds_t(items.count), -1) < 0 { continue }
      if items[1].revents != 0, let event = takeSignal() {
        keyEvent = event
        return 0
      }
      if items[0].revents != 0, !input.fill() {
        keyEvent = .gone(0)
        return 0
      }
      if items[2].revents != 0 { _ = tinysns_eventfd_clear(bell) }
    }
  }

  private func takeSignal() -> Event? {
    switch tinysns_signalfd_read(signals, nil) {
    case 0: return nil
    case SIGINT:
      let hadText = !typed().all.isEmpty
      eraseTyped()
      input = KeyReader()
      return .interrupt(discarded: hadText)
    case SIGTSTP:
      eraseTyped()
      TerminalMode.suspend()
      resize()
      tinysns_edit_draw(edit)
      return nil
    case SIGWINCH:
      // Terminals of today wrap what they show anew: the cursor is where the text would be at the new width.
      columns = Int(tinysns_terminal_columns())
      eraseTyped()
      resize()
      tinysns_edit_draw(edit)
      return nil
    case let number:
      eraseTyped()
      return .gone(number)
    }
  }

  private func resize() {
    columns = Int(tinysns_terminal_columns())
    el_resize(edit)
  }

  private func carryOutOrders() {
    let orders = orders.takeNow()
    guard !orders.isEmpty else { return }
    let erasure = self.erasure()
    var lines = ""
    for order in orders {
      switch order {
      case .print(let text): lines += text + "\n"
      case .prompt(let prompt): self.prompt = prompt
      case .end: isEnding = true
      }
    }
    setPromptBuffer()
    Terminal.write(erasure + lines, to: STDOUT_FILENO)
    if !isEnding { tinysns_edit_draw(edit) }
  }

  // MARK: The line on the screen

  private func typed() -> (beforeCursor: [Unicode.Scalar], all: [Unicode.Scalar]) {
    guard let info = el_wline(edit)?.pointee, let start = info.buffer else { return ([], []) }
    let all = Self.scalars(start, info.lastchar - start)
    return (Array(all.prefix(info.cursor - start)), all)
  }

  /// What takes the prompt and the text off the screen, the cursor being within it.
  private func erasure() -> String { Self.erasure(rows: layout(of: typed().beforeCursor).row) }

  private func layout(of text: some Sequence<Unicode.Scalar>) -> TextLayout {
    var layout = TextLayout(columns: columns)
    layout.add(prompt.text.unicodeScalars)
    layout.add(text)
    return layout
  }

  private static func erasure(rows: Int) -> String { (rows > 0 ? "\u{1B}[\(rows)A" : "") + "\r\u{1B}[J" }

  private func eraseTyped() { Terminal.write(erasure(), to: STDOUT_FILENO) }

  /// After Enter: the cursor is below the text.
  private func eraseEntered(_ line: String) {
    Terminal.write(Self.erasure(rows: layout(of: line.unicodeScalars).row + 1), to: STDOUT_FILENO)
  }

  private func setPromptBuffer() {
    let mark = Character(Unicode.Scalar(UInt8(Self.mark)))
    let text =
      Terminal.hasColour ? "\(mark)\u{1B}[1m\(mark)\(prompt.text)\(mark)\u{1B}[0m\(mark)" : prompt.text
    promptBuffer?.deallocate()
    let wide = Self.wide(text)
    let buffer = UnsafeMutablePointer<wchar_t>.allocate(capacity: wide.count)
    buffer.initialize(from: wide, count: wide.count)
    promptBuffer = buffer
  }

  // MARK: Completion

  private func completeWord() -> UInt8 {
    let completion = complete(Self.string(typed().beforeCursor))
    if !completion.insertion.isEmpty {
      el_winsertstr(edit, Self.wide(completion.insertion))
      return UInt8(CC_REFRESH)
    }
    guard !completion.choices.isEmpty else { return UInt8(CC_REFRESH_BEEP) }
    let shown = completion.choices.prefix(Self.choicesShown)
    let rest = completion.choices.count - shown.count
    print(Terminal.dim(shown.joined(separator: "  ") + (rest > 0 ? "  and \(rest) more" : "")))
    return UInt8(CC_NORM)
  }

  private static let choicesShown = 40

  // MARK: Wide strings

  /// With the zero at its end.
  private static func wide(_ text: String) -> [wchar_t] { text.unicodeScalars.map { wchar_t($0.value) } + [0] }

  private static func scalars(_ text: UnsafePointer<wchar_t>, _ count: Int) -> [Unicode.Scalar] {
    UnsafeBufferPointer(start: text, count: count).map { Unicode.Scalar(UInt32(bitPattern: $0)) ?? "\u{FFFD}" }
  }

  private static func string(_ scalars: some Sequence<Unicode.Scalar>) -> String {
    var view = String.UnicodeScalarView()
    view.append(contentsOf: scalars)
    return String(view)
  }
}

extension KeyReader {
  /// Reads what is there. False at the end of input.
  mutating func fill() -> Bool {
    var buffer = [UInt8](repeating: 0, count: 4_096)
    let count = read(STDIN_FILENO, &buffer, buffer.count)
    if count < 0 { return errno == EINTR || errno == EAGAIN }
    append(buffer.prefix(count))
    return count > 0
  }
}

/// The terminal as it was found.
enum TerminalMode {
  /// Written once, before there is a second thread that uses it.
  nonisolated(unsafe) private static var found: termios?

  /// Gives the terminal back at every exit, whatever thread calls it.
  static func rememberUntilExit() {
    var mode = termios()
    guard tcgetattr(STDIN_FILENO, &mode) == 0 else { return }
    found = mode
    atexit { TerminalMode.restore() }
  }

  static func restore() {
    if var found { tcsetattr(STDIN_FILENO, TCSADRAIN, &found) }
  }

  /// Ctrl-Z: gives the terminal back until the process goes on.
  static func suspend() {
    var mode = termios()
    tcgetattr(STDIN_FILENO, &mode)
    restore()
    raise(SIGSTOP)  // to this very thread: otherwise it might still run on for a moment
    tcsetattr(STDIN_FILENO, TCSADRAIN, &mode)
  }
}
