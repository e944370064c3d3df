// Who holds a flock, as the kernel tells.

import Glibc

/// Looks in `/proc/locks`, where the kernel lists all file locks with their holders.
public enum FileLockInspector {
  /// Whether a process holds an exclusive `flock` on any of these files.
  public static func holds(pid: Int32, anyOf paths: [String]) -> Bool {
    var inodes: Set<String> = []
    for path in paths {
      var status = stat()
      if stat(path, &status) == 0 { inodes.insert(String(status.st_ino)) }
    }
    guard let file = fopen("/proc/locks", "r") else { return false }
    defer { fclose(file) }
    var line: UnsafeMutablePointer<CChar>?
    var capacity = 0
    defer { free(line) }
    while getline(&line, &capacity, file) > 0 {
      // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"; a waiting one has "->" after its number.
      let fields = String(cString: line!).split(separator: " ")
      guard fields.count >= 6, fields[1] == "FLOCK", fields[3] == "WRITE", fields[4] == "\(pid)",
        let inode = fields[5].split(separator: ":").last
      else { continue }
      if inodes.contains(String(inode)) { return true }
    }
    return false
  }
}
