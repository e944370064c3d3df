// The thread that hashes passwords: Argon2id by libsodium, slow on purpose.

internal import CSodium
import Core
import Glibc
import Model
import Runtime

/// Argon2id with the cost that the cluster has for new passwords. A stored hash says its own.
public struct PasswordHasher: Sendable {
  /// With 19 MiB, which a topology has by default, OWASP's second choice for Argon2id (one lane).
  private static let passes: UInt64 = 2

  private let memory: Int

  /// - Parameter memory: bytes that each hash takes; 8 KiB or more.
  public init(memory: Int) {
    precondition(sodium_init() >= 0, "libsodium can't start")
    self.memory = memory
  }

  /// Nil if there is not enough memory.
  public func hash(_ password: Password) -> PasswordHash? {
    var text = [CChar](repeating: 0, count: crypto_pwhash_strbytes())
    let code = withBytes(of: password) { crypto_pwhash_str(&text, $0, UInt64($1), Self.passes, memory) }
    guard code == 0 else { return nil }
    return text.withUnsafeBufferPointer { PasswordHash(phc: String(cString: $0.baseAddress!)) }
  }

  /// Whether this password was hashed.
  public func verify(_ password: Password, _ hash: PasswordHash) -> Bool {
    // libsodium reads a whole buffer of this size.
    var text = [CChar](repeating: 0, count: crypto_pwhash_strbytes())
    for (place, byte) in hash.phc.utf8.prefix(text.count - 1).enumerated() { text[place] = CChar(bitPattern: byte) }
    return withBytes(of: password) { crypto_pwhash_str_verify(text, $0, UInt64($1)) } == 0
  }

  private func withBytes<Value>(of password: Password, _ body: (UnsafePointer<CChar>, Int) -> Value) -> Value {
    var text = password.text
    return text.withUTF8 { bytes in
      guard let start = bytes.baseAddress else { return body("", 0) }
      return start.withMemoryRebound(to: CChar.self, capacity: bytes.count) { body($0, bytes.count) }
    }
  }

  /// How many take about a second, as queues go: two gigabytes of memory are written and read in that time.
  public static func waiting(memory: Int) -> Int { max(16, min(1_024, (1 << 30) / memory)) }
}

/// Hashes passwords one after the other, so that a flood of them takes one processor at most, and that one last: the threads
/// that serve go first.
final class PasswordThread: Sendable {
  struct Job: Sendable {
    var id: PasswordJobID
    var job: PasswordJob
  }

  private let jobs = Mailbox<Job>()
  private let thread: WorkerThread

  init(_ hasher: PasswordHasher, results: Mailbox<LogResult>) {
    let jobs = jobs
    thread = WorkerThread { Self.run(hasher, jobs, results) }
  }

  func put(_ id: PasswordJobID, _ job: PasswordJob) { jobs.put(Job(id: id, job: job)) }

  /// Ends after the job at hand.
  func close() {
    jobs.close()
    thread.join()
  }

  private static func run(_ hasher: PasswordHasher, _ jobs: Mailbox<Job>, _ results: Mailbox<LogResult>) {
    // On Linux, 0 is the calling thread alone.
    setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
    var desk = PasswordDesk(hasher)
    while let batch = jobs.takeAll() {
      for item in batch where !jobs.isFinished { results.put(.password(item.id, desk.carryOut(item.job))) }
    }
  }
}

/// Does the jobs, and takes the same steps for a name that nobody has as for any other.
struct PasswordDesk {
  private let hasher: PasswordHasher
  /// Whose password nobody knows, for who has none.
  private var nobodys: PasswordHash?
  /// Looks at a password; for the tests, which count.
  private let verify: (Password, PasswordHash) -> Bool

  init(_ hasher: PasswordHasher, verify: ((Password, PasswordHash) -> Bool)? = nil) {
    self.hasher = hasher
    self.verify = verify ?? hasher.verify
  }

  mutating func carryOut(_ job: PasswordJob) -> PasswordOutcome {
    switch job {
    case .hash(let password):
      guard let hash = hasher.hash(password) else { return .failed("not enough memory") }
      return .hashed(hash)
    case .verify(let password, let hash):
      // Made for whoever comes first, so that its making tells nothing either.
      if nobodys == nil {
        var random = SystemRandomNumberGenerator()
        nobodys = hasher.hash(Password("\(random.next())\(random.next())"))
      }
      guard let nobodys else { return .failed("not enough memory") }
      let isRight = verify(password, hash ?? nobodys)
      return isRight && hash != nil ? .right : .wrong
    }
  }
}
