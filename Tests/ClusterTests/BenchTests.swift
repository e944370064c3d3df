// What a benchmark compares, in which order; and that it leaves nothing behind, stopped or not.

import Foundation
import Glibc
import Testing

extension RealProcesses {
  @Suite struct BenchTests {
    /// Processes that name this folder, or work in it.
    private func processes(of folder: String) -> [Int32] {
      let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
      return names.compactMap { Int32($0) }.filter { pid in
        let arguments = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline").map {
          String(decoding: $0, as: UTF8.self)
        }
        let place = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/cwd")
        return arguments?.contains(folder) == true || place?.hasPrefix(folder) == true
      }
    }

    /// A folder for a test, and in it an empty one for what a benchmark makes.
    private func makeFolders() throws -> (folder: URL, place: String) {
      let folder = FileManager.default.temporaryDirectory.appending(path: "tinysns-\(UUID())")
      let place = folder.appending(path: "place")
      try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
      return (folder, place.path)
    }

    @Test(
      "SIGTERM, SIGINT and SIGHUP end a benchmark, its loads, and its cluster", arguments: [SIGTERM, SIGINT, SIGHUP])
    func interrupted(_ number: Int32) async throws {
      let (folder, place) = try makeFolders()
      defer { try? FileManager.default.removeItem(at: folder) }
      let command = try Command(
        ["bench", "post", "--masters", "2", "--seconds", "600", "--in-flight", "1", "--folder", place],
        in: folder.path)
      // The load is there: `bench load` is its child.
      try await eventually("the cluster serves and the load runs") {
        let children =
          (try? String(contentsOfFile: "/proc/\(command.pid)/task/\(command.pid)/children", encoding: .utf8)) ?? ""
        let isLoad = children.split(separator: " ").contains {
          FileManager.default.contents(atPath: "/proc/\($0)/cmdline").map {
            String(decoding: $0, as: UTF8.self).contains("\0load\0")
          } == true
        }
        return isLoad && processes(of: place).count > 3
      }
      command.kill(number)
      let outcome = try await command.end()
      #expect(outcome.status == 128 + number, "\(outcome)")
      #expect(processes(of: place).isEmpty)
      #expect(try FileManager.default.contentsOfDirectory(atPath: place).isEmpty)
    }

    @Test("ours and the peer are measured in turn, twice a round, in either order, and both stand in the table")
    func compared() async throws {
      let (folder, place) = try makeFolders()
      defer { try? FileManager.default.removeItem(at: folder) }
      let table = folder.appending(path: "table.md").path
      let command = try Command(
        [
          "bench", "compare", "--only", "latency", "--runs", "2", "--seconds", "0.5", "--folder", place, "--output",
          table,
        ], in: folder.path)
      let outcome = try await command.end()
      #expect(outcome.status == 0, "\(outcome)")
      let order = outcome.errorLines.compactMap { line in
        ["latency p50", "latency zmq p50"].first { line.hasPrefix($0 + ": ") }
      }
      let oursFirst = ["latency p50", "latency zmq p50"]
      let peerFirst = Array(oursFirst.reversed())
      #expect(order == oursFirst + peerFirst + peerFirst + oursFirst, "\(outcome)")
      let text = try String(contentsOfFile: table, encoding: .utf8)
      #expect(text.contains("| raw libzmq, a file and fdatasync, p50 |"))
      #expect(!text.contains("Left out: latency"), "\(text)")
      #expect(processes(of: place).isEmpty)
      #expect(try FileManager.default.contentsOfDirectory(atPath: place).isEmpty)
    }
  }
}
