// `tinysns-fuzz`: runs the fuzz targets for as long as one likes.
//
//   swift run -c release tinysns-fuzz --seconds 60                     all targets, a minute each, with our own generator
//   swift run -c release tinysns-fuzz --target topology --seed 7       one, with another sequence
//   swift run -c release tinysns-fuzz --target topology --replay FILE  one input

import ArgumentParser
import Foundation
import Fuzzing
import Model

@main struct Fuzz: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tinysns-fuzz", abstract: "Tries bad inputs on everything that takes input from outside.",
    discussion: "Targets:\n\n" + FuzzTarget.all.map { "\($0.name): \($0.about)" }.joined(separator: "\n"))

  @Option(help: "The target; all of them, one after the other, if left out.") var target: String?
  @Option(help: "How long, each target.") var seconds: Double = 10
  @Option(help: "How many inputs at most, each target.") var inputs: Int = .max
  @Option(help: "Where the sequence of inputs starts.") var seed: UInt64 = 1
  @Option(help: "A folder with a folder a target, with inputs to start from.") var corpus = "Tests/FuzzTests/Corpus"
  @Option(help: "Where inputs go that are found to do harm.") var found = "."
  @Option(help: "Tries this file's input, and nothing else.") var replay: String?
  @Option(help: "Writes so many inputs of the target's own making into this folder, for libFuzzer to start from.")
  var writeSeeds: String?
  @Flag(help: "Hands over to libFuzzer, with the arguments after --.") var libfuzzer = false
  @Option(help: .hidden) var worker: String?
  @Argument(help: "For libFuzzer.") var rest: [String] = []

  func validate() throws {
    if let target, FuzzTarget.named(target) == nil { throw ValidationError("there is no target \(target)") }
    let isForOne = replay != nil || writeSeeds != nil || libfuzzer || worker != nil
    if isForOne, target == nil { throw ValidationError("--target says which") }
  }

  func run() throws {
    let targets = target.flatMap(FuzzTarget.named).map { [$0] } ?? FuzzTarget.all
    let first = targets[0]
    if let replay { return try tryOne(first, [UInt8](Data(contentsOf: URL(filePath: replay)))) }
    if let writeSeeds { return try writeInputs(of: first, to: writeSeeds) }
    if libfuzzer { return try runLibFuzzer(first) }
    if let worker { return try Worker(first, board: Board(path: worker)).run(self, corpus: inputs(of: first)) }

    try FileManager.default.createDirectory(atPath: found, withIntermediateDirectories: true)
    var harmful = 0
    for target in targets { harmful += try Runner(target, self).run() }
    if harmful > 0 { throw ExitCode(1) }
  }

  private func tryOne(_ target: FuzzTarget, _ input: [UInt8]) throws {
    do throws(Finding) { try target.check(input) } catch {
      print(error)
      throw ExitCode(1)
    }
    print("\(target.name): \(input.count) bytes do no harm")
  }

  /// The corpus of a target.
  private func inputs(of target: FuzzTarget) -> [[UInt8]] {
    let folder = "\(corpus)/\(target.name)"
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return names.sorted().compactMap { FileManager.default.contents(atPath: "\(folder)/\($0)").map { [UInt8]($0) } }
  }

  private func writeInputs(of target: FuzzTarget, to folder: String) throws {
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    var random = SplitMix64(seed: seed)
    for number in 0..<min(inputs, 10_000) {
      try Data(target.seed(&random)).write(to: URL(filePath: "\(folder)/seed-\(number)"))
    }
  }

  private func runLibFuzzer(_ target: FuzzTarget) throws {
    #if LIBFUZZER
      LibFuzzer.run(target, arguments: rest)
    #else
      throw ValidationError("built without libFuzzer")
    #endif
  }
}

#if LIBFUZZER
  /// libFuzzer's own entry for programs that have a `main` (FuzzerInterface.h).
  @_silgen_name("LLVMFuzzerRunDriver") private func runDriver(
    _ count: UnsafeMutablePointer<Int32>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
    _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
  ) -> Int32

  private enum LibFuzzer {
    /// Set once, before libFuzzer calls.
    nonisolated(unsafe) private static var target: FuzzTarget?

    static func run(_ target: FuzzTarget, arguments: [String]) -> Never {
      self.target = target
      var pointers: [UnsafeMutablePointer<CChar>?] = ([CommandLine.arguments[0]] + arguments).map { strdup($0) } + [nil]
      var count = Int32(arguments.count + 1)
      let status = pointers.withUnsafeMutableBufferPointer { buffer in
        var base = buffer.baseAddress!
        return runDriver(&count, &base) { bytes, count in
          do throws(Finding) {
            try LibFuzzer.target!.check([UInt8](UnsafeBufferPointer(start: bytes, count: count)))
          } catch { fatalError("\(error)") }
          return 0
        }
      }
      exit(status)
    }
  }
#endif
