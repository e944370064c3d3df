// What the log is made of, and what people read.

/// One event of the log.
public struct Event: Hashable, Sendable {
  public var id: EventID
  /// When the committing master accepted it; never less than the previous event's.
  public var time: Timestamp
  /// The request that caused it; nil for an account's creation by login, with its password, which a repeat can't double.
  public var request: RequestID?
  public var change: Change

  public init(id: EventID, time: Timestamp, request: RequestID?, change: Change) {
    self.id = id
    self.time = time
    self.request = request
    self.change = change
  }
}

/// What an event changes.
public enum Change: Hashable, Sendable {
  /// The account's id is the number of accounts before it.
  case accountCreated(AccountID, name: String)
  case posted(AccountID, text: String)
  case followed(AccountID, AccountID)
  case unfollowed(AccountID, AccountID)
  /// A new password. All tokens made before are invalid.
  case credentialSet(AccountID, PasswordHash)
  /// A logout.
  case sessionRevoked(AccountID, TokenID, expires: Timestamp)
  /// A logout everywhere: all tokens made before are invalid.
  case sessionsRevoked(AccountID)

  /// The account that acts.
  @inlinable public var actor: AccountID {
    switch self {
    case .accountCreated(let account, _), .posted(let account, _), .followed(let account, _),
      .unfollowed(let account, _), .credentialSet(let account, _), .sessionRevoked(let account, _, _),
      .sessionsRevoked(let account):
      return account
    }
  }
}

extension [Event] {
  /// How many accounts there are after those of these events that are after `position`, if there were `count` before; nil if they name
  /// accounts that there are not, or create others than the next ones: then they do not belong there.
  public func accounts(after count: Int, from position: EventID) -> Int? {
    var count = count
    let events = span
    for index in events.indices where events[index].id > position {
      switch events[index].change {
      case .accountCreated(let account, _):
        guard account.index == count else { return nil }
        count += 1
      case .followed(let account, let other), .unfollowed(let account, let other):
        guard account.index < count, other.index < count else { return nil }
      default: guard events[index].change.actor.index < count else { return nil }
      }
    }
    return count
  }
}

/// A post as the log has it: the author by number.
public struct StoredPost: Hashable, Sendable {
  public var id: EventID
  public var author: AccountID
  public var time: Timestamp
  public var text: String

  @inlinable public init(id: EventID, author: AccountID, time: Timestamp, text: String) {
    self.id = id
    self.author = author
    self.time = time
    self.text = text
  }
}

/// A post as people see it: the author by name.
public struct Post: Hashable, Sendable {
  public var id: EventID
  public var author: String
  public var text: String
  public var time: Timestamp

  @inlinable public init(id: EventID, author: String, text: String, time: Timestamp) {
    self.id = id
    self.author = author
    self.text = text
    self.time = time
  }
}
