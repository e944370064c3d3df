// Reads a topology file from the disk. The only place of this module that touches the system.

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

extension Topology {
  /// Reads and checks the file at `path`. A relative `state:` is taken from the file's folder, wherever the caller is.
  /// Throws the first thing that is wrong, with `path` as the name of the file.
  public static func load(path: String) throws(TopologyError) -> Topology {
    try parse(text(of: path), fileName: path, folder: folder(of: path))
  }

  /// The text of the file at `path`, of at most `fileBytesMax`; nothing else is checked.
  public static func text(of path: String) throws(TopologyError) -> String {
    let bytes = try contents(of: path)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw TopologyError(file: path, line: lineOfInvalidUTF8(in: bytes), problem: "not valid UTF-8 text")
    }
    return text
  }

  private static func contents(of path: String) throws(TopologyError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw TopologyError(file: path, systemError: errno) }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      if count == 0 { return bytes }
      if count < 0 {
        if errno == EINTR { continue }
        throw TopologyError(file: path, systemError: errno)
      }
      bytes += chunk[..<count]
      if bytes.count > fileBytesMax { throw TopologyError(file: path, problem: "larger than 1 MiB; no topology is") }
    }
  }

  /// The absolute path of the folder of the file at `path`, without symbolic links.
  public static func folder(of path: String) throws(TopologyError) -> String {
    let slash = path.lastIndex(of: "/")
    let folder = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    guard let absolute = realpath(folder, nil) else { throw TopologyError(file: path, systemError: errno) }
    defer { free(absolute) }
    return String(cString: absolute)
  }

  private static func lineOfInvalidUTF8(in bytes: [UInt8]) -> Int {
    let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    let index = lines.firstIndex { String(validating: $0, as: UTF8.self) == nil }
    return (index ?? 0) + 1
  }
}

extension TopologyError {
  fileprivate init(file: String, systemError: Int32) {
    let problem =
      switch systemError {
      case ENOENT: "no such file"
      case EISDIR: "is a folder; a file is expected"
      default: "cannot be read: \(String(cString: strerror(systemError)))"
      }
    self.init(file: file, problem: problem)
  }
}
