// What fuzzing has found stays found, and a little fuzzing happens with each run of the tests.

import Foundation
import Fuzzing
import Testing

@Suite struct FuzzTests {
  private static let corpus = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Corpus")

  /// Each input that was kept, by target.
  private static func kept(_ target: FuzzTarget) -> [(name: String, bytes: [UInt8])] {
    let folder = corpus.appending(path: target.name).path
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return names.sorted().map { ($0, [UInt8](FileManager.default.contents(atPath: "\(folder)/\($0)")!)) }
  }

  @Test(arguments: FuzzTarget.all.map(\.name)) func theCorpusDoesNoHarm(name: String) throws {
    let target = try #require(FuzzTarget.named(name))
    for (file, bytes) in Self.kept(target) {
      do throws(Finding) { try target.check(bytes) } catch { Issue.record("\(name)/\(file): \(error)") }
    }
  }

  /// The same inputs at each run. `tinysns-fuzz` tries others.
  @Test(arguments: FuzzTarget.all.map(\.name)) func generatedInputsDoNoHarm(name: String) throws {
    let target = try #require(FuzzTarget.named(name))
    var mutator = Mutator(target, seed: 2_026, corpus: Self.kept(target).map(\.bytes))
    for number in 0..<(name == "log-files" ? 200 : 3_000) {
      let input = mutator.next()
      do throws(Finding) { try target.check(input) } catch {
        Issue.record("input \(number) of \(name): \(error); base64: \(Data(input).base64EncodedString())")
        return
      }
    }
  }

  @Test func aFolderOfTheCorpusIsATarget() throws {
    for folder in try FileManager.default.contentsOfDirectory(atPath: Self.corpus.path) {
      #expect(FuzzTarget.named(folder) != nil, "\(folder) is no target")
    }
  }

  @Test func theSameSeedGivesTheSameInputs() {
    var first = Mutator(FuzzTarget.all[0], seed: 5)
    var second = Mutator(FuzzTarget.all[0], seed: 5)
    for _ in 0..<500 { #expect(first.next() == second.next()) }
  }
}
