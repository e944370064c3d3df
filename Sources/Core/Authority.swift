// Who may do what at which socket: the one place where it is written down. The shells ask here before a message gets any further.

public import Model

/// Who is at the other end of a connection, as its handshake has proved it.
public enum Standing: Hashable, Sendable {
  /// A process of the cluster, or a tool of its owner: it has the member's key.
  case member
  /// Anybody else, known by the key that it holds.
  case client(PeerKey)
  /// Nothing was proved: the cluster runs without encryption, on this machine alone, and whoever reaches it is believed.
  case unproved
}

/// The sockets that listen on TCP.
public enum Entrance: String, Hashable, Sendable, CaseIterable {
  case router, requests, timelines, log
}

/// What each may say where.
///
/// | socket | a client | a member |
/// |---|---|---|
/// | router | Locate, Status | all else, too: Register, Beat, Leave, Alive |
/// | requests | Hello; then what its session's account may | the same |
/// | timelines | subscribes to the topics that its own session watches | the same |
/// | log | is not let in | subscribes |
public enum Authority {
  /// Whether a connection is made at all.
  public static func mayConnect(_ peer: Standing, to port: Entrance) -> Bool {
    switch port {
    case .router, .requests, .timelines: return true
    case .log: return isOfTheCluster(peer)
    }
  }

  /// Whether the router hears this from such a peer.
  public static func maySend(_ request: RouterRequest, as peer: Standing) -> Bool {
    isForEverybody(request) || isOfTheCluster(peer)
  }

  /// What a router is asked by anyone; whoever asks only this need not be looked up.
  public static func isForEverybody(_ request: RouterRequest) -> Bool {
    switch request {
    case .locate, .status: return true
    case .register, .beat, .leave, .alive: return false
    }
  }

  private static func isOfTheCluster(_ peer: Standing) -> Bool {
    switch peer {
    case .member, .unproved: return true
    case .client: return false
    }
  }
}
