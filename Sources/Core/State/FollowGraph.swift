// Who follows whom, in memory.

public import Model

/// The follow graph, in both directions, indexed by account.
public struct FollowGraph: Sendable {
  /// For each account, whom it follows, ascending.
  private var followingOf: [[AccountID]] = []
  /// For each account, who follows it, ascending.
  private var followersOf: [[AccountID]] = []

  public init() {}

  /// From each account's ascending list of followed accounts.
  public init(following: [[AccountID]]) {
    followingOf = following
    followersOf = Array(repeating: [], count: following.count)
    // In account order, so the followers come out ascending.
    for (index, followed) in following.enumerated() {
      for account in followed { followersOf[account.index].append(AccountID(UInt32(index))) }
    }
  }

  public mutating func addAccount() {
    followingOf.append([])
    followersOf.append([])
  }

  public func following(of account: AccountID) -> [AccountID] { followingOf[account.index] }
  public func followers(of account: AccountID) -> [AccountID] { followersOf[account.index] }

  public func follows(_ follower: AccountID, _ followed: AccountID) -> Bool {
    followingOf[follower.index].containsSorted(followed)
  }

  public mutating func follow(_ follower: AccountID, _ followed: AccountID) {
    followingOf[follower.index].insertSorted(followed)
    followersOf[followed.index].insertSorted(follower)
  }

  public mutating func unfollow(_ follower: AccountID, _ followed: AccountID) {
    followingOf[follower.index].removeSorted(followed)
    followersOf[followed.index].removeSorted(follower)
  }
}

extension Array where Element: Comparable {
  /// The first index in this ascending array whose element is not less than `element`.
  func lowerBound(of element: Element) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if self[middle] < element { low = middle + 1 } else { high = middle }
    }
    return low
  }

  func containsSorted(_ element: Element) -> Bool {
    let index = lowerBound(of: element)
    return index < count && self[index] == element
  }

  mutating func insertSorted(_ element: Element) {
    let index = lowerBound(of: element)
    if index == count || self[index] != element { insert(element, at: index) }
  }

  mutating func removeSorted(_ element: Element) {
    let index = lowerBound(of: element)
    if index < count, self[index] == element { remove(at: index) }
  }
}
