// Deliberate faults of the product, by which the checkers show that they can fail.

/// A fault put between a core and its simulated shell. The product's code knows nothing of it; only tests choose one.
package enum Defect: String, CaseIterable, Sendable {
  /// The commit thread says "appended" before it has appended.
  case acknowledgeBeforeCommit = "acknowledge before the commit"
  /// Masters learn of other masters' events without the requests that caused them.
  case forgetRequestIDs = "forget request ids"
  /// A client takes a repeated post for a new request.
  case repeatUnderANewNumber = "repeat under a new number"
  case ignoreASequenceGap = "ignore a gap in the sequence"
  /// Pongs don't tell how far topics have come.
  case ignoreALostTail = "ignore a lost tail"
  case publishOutOfOrder = "publish out of order"
  /// A client's word evicts a master.
  case believeASuspicion = "believe a client's suspicion"
  case respawnWithoutKilling = "respawn without killing the hung one"
  /// A Hello's newest event is ignored.
  case answerBehindTheCursor = "answer behind the client's cursor"
  case loseSubscriptions = "lose subscriptions on reconnect"
  case returningMasterTakesTheChair = "a returning master unseats the available one"
  /// Other masters hear of a commit that may yet fail.
  case broadcastBeforeCommit = "broadcast before the commit"
  /// A starting master takes the derived tables for the newest state.
  case startWithoutCatchingUp = "start without catching up"
  /// A repair's page has nothing in it.
  case readWithoutWhatWasMissed = "repair without what was missed"
  /// "Behind" is answered by appending at the new head unseen.
  case appendWithoutLooking = "append without looking at what came between"
  /// The thread that hashes finds every password right.
  case acceptAnyPassword = "accept any password"
  /// Masters look at what a token says, and not at its seal.
  case acceptAnyToken = "accept any token"
  /// The log tells of an old repeat another event than its own.
  case lookUpAnotherEvent = "look up another event"
  case forgetADeadline = "forget a deadline"
  /// A slave's next life does not know that its master has just died, and starts it at once.
  case forgetTheDeath = "forget a master's death with its slave"
  /// A client without a master asks the router again and again, without backoff.
  case retryWithoutPause = "retry without a pause"
  /// A supervisor that was frozen takes its own absence for its child's silence.
  case takeOwnAbsenceForSilence = "take one's own absence for a child's silence"
}
