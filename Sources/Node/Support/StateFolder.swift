// The folder in which a cluster keeps its log, locks, sockets and process logs.

import CSpawn
import Glibc
import Model

/// Why a process can't run, in one line for the user.
public struct NodeError: Error, Hashable, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }

  /// What the system said, after what was tried.
  static func system(_ what: String, _ code: Int32 = errno) -> NodeError {
    NodeError("\(what): \(String(cString: strerror(abs(code))))")
  }
}

/// The paths below a topology's `state` folder.
///
/// ```
/// log.db index.db …      the log
/// run/NAME.lock          held for life by the process NAME; says its pid
/// run/NAME.sock          where the supervisor NAME listens
/// run/NAME.died          when NAME died, while its supervisor waits before it starts it again
/// run/topology.yaml      the topology as it was when the cluster was started
/// log/NAME.log           what the process NAME had to say
/// keys/                  see ClusterKeys
/// ```
public struct StateFolder: Hashable, Sendable {
  public let path: String

  public init(path: String) { self.path = path }

  public var runFolder: String { path + "/run" }
  public var logFolder: String { path + "/log" }
  public var keyFolder: String { path + "/keys" }
  public func lock(of name: String) -> String { "\(runFolder)/\(name).lock" }
  func death(of name: String) -> String { "\(runFolder)/\(name).died" }
  public func socket(of name: String) -> String { "\(runFolder)/\(name).sock" }
  public func endpoint(of name: String) -> String { "ipc://" + socket(of: name) }
  public var topology: String { runFolder + "/topology.yaml" }
  public func log(of name: String) -> String { "\(logFolder)/\(name).log" }
  public func key(_ file: String) -> String { "\(keyFolder)/\(file)" }

  /// Makes the folders, for the owner only, where they are missing, and checks that they can be written to, and that nobody else
  /// gets at the sockets and keys inside.
  public func create() throws(NodeError) {
    for folder in [path, runFolder, logFolder, keyFolder] {
      if mkdir(folder, 0o700) != 0, errno != EEXIST { throw .system("can't make the state folder \(folder)") }
      var status = stat()
      guard stat(folder, &status) == 0 else { throw .system("can't use the state folder \(folder)") }
      guard status.st_mode & S_IFMT == S_IFDIR else { throw NodeError("\(folder) is not a folder") }
      guard access(folder, W_OK | X_OK) == 0 else { throw .system("can't write to the state folder \(folder)") }
      if [runFolder, keyFolder].contains(folder), status.st_mode & 0o077 != 0 {
        let mode = String(status.st_mode & 0o777, radix: 8)
        throw NodeError("\(folder) is open to others (mode \(mode)); please type: chmod 700 \(folder)")
      }
    }
  }

  /// The process that runs under this name; nil if none does, or if that can't be told, which `checkAccess` finds.
  ///
  /// Not to be asked by the process itself about its own name: closing the file would release its lock.
  public func owner(of name: String) -> Int32? { (try? findOwner(of: name)) ?? nil }

  private func findOwner(of name: String) throws(NodeError) -> Int32? {
    let path = lock(of: name)
    let descriptor = open(path, O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else {
      // A directory can't be locked.
      if errno == ENOENT || errno == EISDIR { return nil }
      throw .system("can't read \(path)")
    }
    defer { close(descriptor) }
    let pid = tinysns_lock_owner(descriptor)
    if pid == -ESRCH { throw NodeError("\(path) is held by a process in another PID namespace") }
    guard pid >= 0 else { throw .system("can't tell who holds \(path)", pid) }
    return pid > 0 ? pid : nil
  }

  /// Checks that it can be told what runs here. A folder that is not there is no fault: nothing does.
  ///
  /// Not to be called by a process that has a name here, as `owner`.
  public func checkAccess() throws(NodeError) {
    for name in try findNames() { _ = try findOwner(of: name) }
  }

  /// Writes down what the cluster is started with, instead of what it was started with before. If that fails, neither stands
  /// there, as far as that can be had.
  public func writeTopology(_ text: String) throws(NodeError) {
    do throws(NodeError) {
      try Self.replace(topology, with: text)
    } catch {
      unlink(topology)
      throw error
    }
  }

  /// Nothing runs any more that was started with it.
  public func forgetTopology() { unlink(topology) }

  /// Writes the whole file or nothing, for its owner alone, and waits until the disk has it.
  static func replace(_ path: String, with text: String) throws(NodeError) {
    let temporary = "\(path).\(getpid()).new"
    unlink(temporary)
    let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw .system("can't write \(temporary)") }
    let bytes = Array(text.utf8)
    let isWritten = write(descriptor, bytes, bytes.count) == bytes.count && fsync(descriptor) == 0
    let code = errno
    close(descriptor)
    guard isWritten, rename(temporary, path) == 0 else {
      let reason = isWritten ? errno : code
      unlink(temporary)
      throw .system("can't write \(path)", reason)
    }
  }

  // MARK: Deaths that a supervisor has seen

  /// Writes down that it has just died. Best effort: where that can't be written, only a supervisor's death in the wait that
  /// follows would need it.
  func recordDeath(of name: String) {
    // A file made anew: its time is now. Nothing is written, so a full disk is no obstacle as long as it has a name left.
    unlink(death(of: name))
    let descriptor = open(death(of: name), O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
    if descriptor >= 0 { close(descriptor) }
  }

  /// It is to be started without a wait: it has been, or a person wants it so.
  public func forgetDeath(of name: String) { unlink(death(of: name)) }

  /// How long ago its death was written down, by the wall clock; nil if none is.
  func timeSinceDeath(of name: String) -> Interval? {
    var status = stat()
    guard stat(death(of: name), &status) == 0 else { return nil }
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    let seconds = Int64(now.tv_sec - status.st_mtim.tv_sec)
    return .seconds(seconds) + Interval(nanoseconds: Int64(now.tv_nsec - status.st_mtim.tv_nsec))
  }

  /// The names under which processes have run here, sorted; they may run or not. None if that can't be told, which `checkAccess`
  /// finds.
  public func knownNames() -> [String] { (try? findNames()) ?? [] }

  private func findNames() throws(NodeError) -> [String] {
    guard let folder = opendir(runFolder) else {
      let code = errno
      guard code == ENOENT || code == ENOTDIR else { throw .system("can't read \(runFolder)", code) }
      for folder in [path, runFolder] {
        var status = stat()
        if stat(folder, &status) == 0 {
          guard status.st_mode & S_IFMT == S_IFDIR else { throw NodeError("\(folder) is not a folder") }
        } else if lstat(folder, &status) == 0 {
          throw NodeError("\(folder) is a symbolic link to what is not there")
        }
      }
      if code == ENOTDIR { throw .system("can't read \(runFolder)", code) }
      return []
    }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let file = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if file.hasSuffix(".lock") { names.append(String(file.dropLast(5))) }
    }
    return names.sorted()
  }
}

/// A name that only one living process can hold. Released by the kernel when the process ends, however it ends.
public struct NameLock: ~Copyable {
  private let descriptor: Int32

  /// Takes the name, or throws who has it.
  public init(_ name: String, in folder: StateFolder) throws(NodeError) {
    let path = folder.lock(of: name)
    descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw .system("can't open \(path)") }
    let code = tinysns_lock_try(descriptor)
    guard code == 0 else {
      let owner = tinysns_lock_owner(descriptor)
      close(descriptor)
      guard code == -EAGAIN || code == -EACCES else { throw .system("can't lock \(path)", code) }
      let place = owner > 0 ? ", as process \(owner)" : owner == -ESRCH ? ", in another PID namespace" : ""
      throw NodeError("\(name) runs already\(place)")
    }
    let pid = Array("\(getpid())\n".utf8)
    ftruncate(descriptor, 0)
    _ = pwrite(descriptor, pid, pid.count, 0)
  }

  deinit { close(descriptor) }
}
