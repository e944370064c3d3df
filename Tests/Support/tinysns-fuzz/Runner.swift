// Our own engine: a process that tries inputs, and one that watches it, because what is looked for ends a process or keeps it busy for ever.

import ArgumentParser
import Foundation
import Fuzzing
import Model

/// A file that two processes have in their memory: the input that is being tried, and how many were tried. It outlives the one that
/// is killed by an input.
final class Board {
  private static let bytesMax = 1 << 20
  private let memory: UnsafeMutableRawPointer

  init(path: String) throws {
    let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0, ftruncate(descriptor, off_t(Self.bytesMax)) == 0,
      let memory = mmap(nil, Self.bytesMax, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), memory != MAP_FAILED
    else { throw CocoaError(.fileWriteUnknown) }
    close(descriptor)
    self.memory = memory
  }

  deinit { munmap(memory, Self.bytesMax) }

  var tried: Int {
    get { memory.load(as: Int.self) }
    set { memory.storeBytes(of: newValue, as: Int.self) }
  }

  /// The worker has ended as it should.
  var isDone: Bool {
    get { memory.load(fromByteOffset: 8, as: Int.self) == 1 }
    set { memory.storeBytes(of: newValue ? 1 : 0, toByteOffset: 8, as: Int.self) }
  }

  var input: [UInt8] {
    get { [UInt8](UnsafeRawBufferPointer(start: memory + 24, count: memory.load(fromByteOffset: 16, as: Int.self))) }
    set {
      memory.storeBytes(of: newValue.count, toByteOffset: 16, as: Int.self)
      newValue.withUnsafeBytes {
        if let start = $0.baseAddress { (memory + 24).copyMemory(from: start, byteCount: $0.count) }
      }
    }
  }
}

/// Tries inputs, in a process of its own.
struct Worker {
  private let target: FuzzTarget
  private let board: Board

  init(_ target: FuzzTarget, board: Board) {
    self.target = target
    self.board = board
  }

  func run(_ options: Fuzz, corpus: [[UInt8]]) throws {
    var mutator = Mutator(target, seed: options.seed, corpus: corpus)
    let end = ContinuousClock.now + .seconds(options.seconds)
    func attempt(_ input: [UInt8]) throws(Finding) {
      board.input = input
      try target.check(input)
      board.tried += 1
    }
    do throws(Finding) {
      for input in corpus { try attempt(input) }
      while board.tried < options.inputs, board.tried & 63 != 0 || ContinuousClock.now < end {
        try attempt(mutator.next())
      }
    } catch {
      print("  \(target.name): \(error)")
      throw ExitCode(1)
    }
    board.isDone = true
  }
}

/// Runs one target: starts workers, and keeps what they die of.
struct Runner {
  /// An input that takes this long is a finding.
  private static let patience = 20.0
  private static let harmfulMax = 20

  private let target: FuzzTarget
  private let options: Fuzz

  init(_ target: FuzzTarget, _ options: Fuzz) {
    self.target = target
    self.options = options
  }

  /// Returns how many inputs did harm.
  func run() throws -> Int {
    var tried = 0
    var harmful = 0
    let start = Date()
    var seed = options.seed
    while harmful < Self.harmfulMax {
      let left = options.seconds - Date().timeIntervalSince(start)
      guard left > 0, tried < options.inputs else { break }
      let path = NSTemporaryDirectory() + "/tinysns-fuzz-\(getpid())"
      let board = try Board(path: path)
      defer { unlink(path) }
      board.tried = 0
      board.isDone = false
      let hung = try runWorker(board, path, seed: seed, seconds: left, inputs: options.inputs - tried)
      tried += board.tried
      if board.isDone { break }
      harmful += 1
      seed += 1_000_003
      let name = "\(options.found)/\(target.name)-\(hung ? "hang" : "crash")-\(fingerprint(board.input))"
      try Data(board.input).write(to: URL(filePath: name))
      print("  \(target.name): \(hung ? "does not end" : "dies") after \(tried) inputs: \(name)")
    }
    let seconds = Date().timeIntervalSince(start)
    let line =
      "\(target.name): \(tried) inputs in \(Int(seconds)) s, \(Int(Double(tried) / max(seconds, 0.001))) a second, "
    print(line + (harmful == 0 ? "nothing new" : "\(harmful) NEW FINDINGS"))
    return harmful
  }

  /// Returns whether it hung.
  private func runWorker(_ board: Board, _ path: String, seed: UInt64, seconds: Double, inputs: Int) throws -> Bool {
    let process = Process()
    process.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
    process.arguments = [
      "--target", target.name, "--worker", path, "--seed", "\(seed)", "--seconds", "\(seconds)", "--inputs",
      "\(inputs)",
      "--corpus", options.corpus,
    ]
    try process.run()
    var lastTried = -1
    var lastProgress = Date()
    while process.isRunning {
      Thread.sleep(forTimeInterval: 0.05)
      if board.tried != lastTried {
        lastTried = board.tried
        lastProgress = Date()
      } else if Date().timeIntervalSince(lastProgress) > Self.patience {
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        return true
      }
    }
    process.waitUntilExit()
    return false
  }

  private func fingerprint(_ input: [UInt8]) -> String {
    let hash = input.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    return String(hash, radix: 16)
  }
}
