// Files that cannot be read, and what is taken from a file's place.

import Foundation
import Testing

@testable import Topology

/// A folder of its own for each test.
@Suite final class TopologyFileTests {
  private let folder: String

  init() throws {
    let url = FileManager.default.temporaryDirectory.appending(path: "topology-\(UUID().uuidString.prefix(8))")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
    folder = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: folder) }

  private func write(_ bytes: Data, to name: String = "topology.yaml") -> String {
    let path = "\(folder)/\(name)"
    #expect(FileManager.default.createFile(atPath: path, contents: bytes))
    return path
  }

  private func expect(_ path: String, _ problem: String) {
    let error = #expect(throws: TopologyError.self) { try Topology.load(path: path) }
    #expect(error?.description == "\(path)\(problem)")
  }

  @Test func noSuchFile() {
    expect("\(folder)/topology.yaml", ": no such file")
    expect("\(folder)/a/b.yaml", ": no such file")
    expect("", ": no such file")
  }

  @Test func aFolder() { expect(folder, ": is a folder; a file is expected") }

  @Test func unreadable() {
    expect(write(Data()) + "/topology.yaml", ": cannot be read: Not a directory")
  }

  @Test(.disabled(if: getuid() == 0, "root may read everything")) func notPermitted() {
    let path = write(Data())
    chmod(path, 0)
    expect(path, ": cannot be read: Permission denied")
  }

  @Test func tooLarge() {
    let line = Data(("# " + String(repeating: "x", count: 61) + "\n").utf8)
    let largest = (0..<(1 << 14)).reduce(into: Data()) { data, _ in data += line }
    #expect(largest.count == 1 << 20)
    #expect(throws: Never.self) { try Topology.load(path: write(largest)) }
    expect(write(largest + Data("\n".utf8)), ": larger than 1 MiB; no topology is")
    expect("/dev/zero", ": larger than 1 MiB; no topology is")
  }

  @Test func invalidUTF8() {
    expect(write(Data("log: sqlite\nstate: ".utf8) + Data([0xFF, 0xFE])), ":2: not valid UTF-8 text")
  }

  @Test func errorsNameTheFileAsGiven() {
    expect(write(Data("log: mysql".utf8), to: "other.yaml"), ":1: log: expected sqlite, found \"mysql\"")
  }

  /// Two clusters on one machine: each file has its own ports, and its own state beside it.
  @Test func twoClusters() throws {
    let one = try Topology.load(path: write(Data("hosts: { local: { masters: 3 } }".utf8), to: "one.yaml"))
    let two = try Topology.load(
      path: write(
        Data("router: { port: 4010 }\nhosts: { local: { masters: 2, first_port: 4020 } }\nstate: var2".utf8),
        to: "two.yaml"))
    func ports(_ topology: Topology) -> Set<UInt16> {
      let masters = topology.masters.compactMap(\.ports)
      return Set(masters.flatMap { [$0.requests, $0.timelines, $0.log] } + [topology.router.port])
    }
    #expect(ports(one).count == 10)
    #expect(ports(two) == [4010, 4020, 4021, 4022, 4023, 4024, 4025])
    #expect(ports(one).isDisjoint(with: ports(two)))
    #expect(one.state.hasSuffix("/var"))
    #expect(two.state.hasSuffix("/var2"))
  }

  /// However one gets to the file, its state is the same folder.
  @Test func stateIsFoundThroughLinks() throws {
    let path = write(Data())
    let link = "\(folder)-link"
    try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: folder)
    defer { try? FileManager.default.removeItem(atPath: link) }
    #expect(try Topology.load(path: "\(link)/topology.yaml").state == Topology.load(path: path).state)
  }

  /// The folder of a file is known without the file.
  @Test func folderOfAFile() throws {
    let real = String(cString: try #require(realpath(folder, nil)))
    #expect(try Topology.folder(of: "\(folder)/missing.yaml") == real)
    #expect(try Topology.folder(of: "/missing.yaml") == "/")
    #expect(throws: TopologyError.self) { try Topology.folder(of: "\(folder)/missing/topology.yaml") }
  }
}
