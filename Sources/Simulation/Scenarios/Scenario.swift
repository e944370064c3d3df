// Scenarios in prose: a line a command, and below it what came of it. Files of them are tests and documentation in one.

import Core
import Model

/// Plays scenarios.
///
/// A scenario is lines of text. `# …` and empty lines are for people; lines that begin with `  | ` are output; every other line is a
/// command:
///
///     start 3 masters [on 2 hosts] [spread]
///     alice logs in | alice watches | alice stops watching
///     alice posts "text" | alice follows bob | alice unfollows bob
///     alice lists users | alice lists followers | alice lists following
///     alice reads | alice reads bob
///     alice posts 25 times "text"
///     … without waiting            (after any of a person's requests)
///     kill WHO | stop WHO | freeze WHO | thaw WHO | start launcher
///     kill WHO before it answers   (between commit and acknowledgement)
///     cut host 1 off from clients | cut host 1 off from host 2 | mend the network | break connections [unnoticed]
///     WHO becomes slow | WHO is quick again | a stranger sends garbage to WHO
///     the disk stalls | the disk is full | the disk fails once | the disk works | the power fails
///     after 2s | after 500ms
///     who serves
///
/// WHO is a process (`master-2`, `router`, `slave-1`, `launcher`, `alice`), `available`, `everything`, `the masters`.
public enum Scenario {
  /// Plays a scenario; returns it with its output as it should be written in its file.
  public static func play(_ text: String) -> String {
    var player: ScenarioPlayer?
    var lines: [String] = []
    for line in text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
      if line.hasPrefix("  | ") { continue }
      lines.append(line)
      guard !line.isEmpty, !line.hasPrefix("#") else { continue }
      let words = line.split(separator: " ").map(String.init)
      if words[0] == "start", words.contains("masters") || words.contains("master"), player == nil {
        player = ScenarioPlayer(words)
        lines.append(contentsOf: player!.takeOutput())
      } else if let player {
        player.obey(line, words)
        lines.append(contentsOf: player.takeOutput())
      } else {
        lines.append("  | ? a scenario begins with: start N masters")
      }
    }
    if let player {
      if let violation = player.world.violation {
        lines.append("  | VIOLATION of \"\(violation.invariant)\": \(violation.message)")
      }
      player.world.tearDown()
    }
    return lines.joined(separator: "\n")
  }
}

final class ScenarioPlayer {
  let world: World
  private var output: [String] = []
  private var cuts: [(Int, Int)] = []

  init(_ words: [String]) {
    let masters = words.count > 1 ? Int(words[1]) ?? 1 : 1
    let hosts = words.firstIndex(of: "on").flatMap { Int(words[$0 + 1]) } ?? 1
    world = World(
      settings: Settings(masters: masters, hosts: hosts, assignment: words.contains("spread") ? .spread : .available),
      defect: nil, random: SplitMix64(seed: 1), trace: Trace(keepsText: false, limit: 0))
    world.witness = { [unowned self] name, text in say("\(name): \(text)") }
    for host in 0..<hosts { world.startLauncher(on: host) }
    pass(.milliseconds(1_500))
  }

  func takeOutput() -> [String] {
    defer { output = [] }
    return output.map { "  | " + $0 }
  }

  private func say(_ text: String) {
    let millis = world.now.nanoseconds / 1_000_000
    let fraction = String(millis % 1_000)
    output.append("\(millis / 1_000)." + String(repeating: "0", count: 3 - fraction.count) + fraction + "  " + text)
  }

  private func pass(_ time: Interval) { world.run(until: world.now + time) }

  // MARK: Commands

  func obey(_ line: String, _ words: [String]) {
    if words[0] == "after", words.count == 2 { return after(words[1]) }
    if line == "who serves" { return whoServes() }
    if line == "start launcher" {
      world.startLauncher(on: 0)
      return pass(.milliseconds(200))
    }
    if words[0] == "cut", words[1] == "host", let one = Int(words[2]) {
      let other = words.last == "clients" ? world.settings.hosts : (Int(words.last ?? "") ?? 1) - 1
      for (from, to) in [(one - 1, other), (other, one - 1)] {
        cuts.append((from, to))
        world.network.block(from, to)
      }
      return
    }
    if line == "mend the network" {
      for (from, to) in cuts { world.network.unblock(from, to) }
      cuts = []
      return
    }
    if line.hasPrefix("break connections") {
      let isNoticed = words.last != "unnoticed"
      for link in world.network.links where link.kind == .session || link.kind == .timelines {
        world.network.cut(link, dialerLearns: isNoticed, listenerLearns: isNoticed)
      }
      return
    }
    if line.hasSuffix(" becomes slow") || line.hasSuffix(" is quick again") {
      for process in processes(words[0]) {
        if words[1] == "becomes" { world.slow(process, for: .seconds(3_600)) } else { world.quicken(process) }
      }
      return
    }
    if line.hasPrefix("a stranger sends garbage to ") { return garbage(to: words.last ?? "") }
    if line.hasPrefix("the disk") || line == "the power fails" { return disk(line) }
    if ["kill", "stop", "freeze", "thaw"].contains(words[0]), words.count > 1 {
      return fault(words[0], line.dropFirst(words[0].count + 1).description)
    }
    person(line, words)
  }

  private func garbage(to who: String) {
    let messages: [[UInt8]] = [[], [0xff], Array("GET / HTTP/1.1".utf8), Array(repeating: 0x80, count: 5_000)]
    for process in processes(who) {
      if let master = process as? MasterProcess {
        world.startStranger(messages, to: master.registration.requests, .session)
        world.startStranger(messages, to: master.registration.timelines, .timelines)
      } else {
        world.startStranger(messages, to: RouterProcess.address, .clientRouter)
      }
    }
    pass(.milliseconds(100))
  }

  private func after(_ text: String) {
    let digits = text.prefix { $0.isNumber }
    guard let count = Int64(digits) else { return say("? no time: \(text)") }
    pass(text.hasSuffix("ms") ? .milliseconds(count) : .seconds(count))
  }

  private func disk(_ line: String) {
    switch line {
    case "the disk stalls": world.disk.stalledUntil = .distantFuture
    case "the disk is full": world.disk.fill()
    case "the disk fails once": world.disk.failOnce()
    case "the disk works": world.disk.heal()
    default:
      world.disk.cutPower()
      for process in world.processes where !(process is ClientProcess) { world.kill(process, withoutAWord: true) }
    }
  }

  private func processes(_ who: String) -> [Process] {
    switch who {
    case "available":
      let name = world.router?.core.status.masters.first { $0.state == .available }?.master.name
      return [name.flatMap { world.locks[$0] }].compactMap { $0 }
    case "everything": return world.processes.filter { !($0 is ClientProcess) }
    case "the masters": return world.masters
    default: return [world.locks[who]].compactMap { $0 }
    }
  }

  private func fault(_ verb: String, _ who: String) {
    let suffix = " before it answers"
    let isTrap = who.hasSuffix(suffix)
    let found = processes(isTrap ? String(who.dropLast(suffix.count)) : who)
    if found.isEmpty { say("? nobody is called \(who)") }
    for process in found {
      switch verb {
      case "kill" where isTrap:
        (process as? MasterProcess)?.beforeAcknowledging = { [world] in world.kill(process) }
      case "kill": world.kill(process)
      case "stop": world.terminate(process)
      case "freeze": world.freeze(process, for: .seconds(3_600))
      default: world.thaw(process)
      }
    }
  }

  private func whoServes() {
    if let router = world.router {
      for master in router.core.status.masters.sorted(by: { $0.master.name < $1.master.name }) {
        say("\(master.master.name): \(master.state.rawValue), at event \(master.head)")
      }
    } else {
      say("there is no router")
    }
    for client in world.clients {
      say("\(client.name): served by \(client.core.isServing ? client.core.master!.master.name : "nobody")")
    }
  }

  // MARK: People

  private func person(_ line: String, _ words: [String]) {
    let name = words[0]
    guard words.count > 1 else { return say("? \(line)") }
    if line == "\(name) logs in" {
      listen(world.startClient(name, user: String(name.prefix { $0 != "/" })))
      return pass(.milliseconds(300))
    }
    guard let client = world.locks[name] as? ClientProcess else { return say("? nobody is called \(name)") }
    let waits = !line.hasSuffix(" without waiting")
    let body: Request.Body
    switch words[1] {
    case "watches":
      client.watch(.home, after: .zero)
      return pass(.milliseconds(100))
    case "stops":
      if let token = client.watches.last { client.unwatch(token) }
      return pass(.milliseconds(100))
    case "posts" where words.count > 3 && words[3] == "times":
      let text = line.split(separator: "\"").dropFirst().first ?? ""
      for number in 1...max(1, Int(words[2]) ?? 1) {
        client.submit(.post(text: "\(text) \(number)"), within: .seconds(30))
        pass(.milliseconds(10))
      }
      return
    case "posts": body = .post(text: line.split(separator: "\"").dropFirst().first.map(String.init) ?? "")
    case "follows" where words.count > 2: body = .follow(name: words[2])
    case "unfollows" where words.count > 2: body = .unfollow(name: words[2])
    case "lists" where words.count > 2:
      guard let kind = ListQuery.Kind(rawValue: words[2]) else { return say("? lists of \(words[2])") }
      body = .list(ListQuery(kind: kind))
    case "reads":
      let author = words.count > 2 && words[2] != "without" ? words[2] : nil
      body = .timeline(TimelineQuery(timeline: author.map { .author($0) } ?? .home, range: .newest, limit: 20))
    default: return say("? \(line)")
    }
    client.submit(body, within: .seconds(30))
    guard waits else { return }
    pass(.milliseconds(1))
    world.run(until: world.now + .seconds(31)) { client.asked.isEmpty }
  }

  private func listen(_ client: ClientProcess) {
    let name = client.name
    client.onNote = { [unowned self] note in
      switch note {
      case .lost(let master, let cause): say("\(name) lost \(master): \(cause.rawValue)")
      case .serving(let master, let isNew, let pause):
        say(
          "\(name) is served by \(master)" + (isNew ? ", and new here" : "")
            + (pause.map { " after \($0.milliseconds) ms" } ?? ""))
      case .waiting: say("\(name) waits: no master is to be had")
      case .loginRefused(let refusal): say("\(name) can't log in: \(refusal.message)")
      case .routerNotProved, .tooManyConnections: break  // nothing is encrypted here
      }
    }
    client.onShow = { [unowned self] _, posts in
      for post in posts { say("\(name) sees \(post.id) \(post.author): \(post.text)") }
    }
    client.onFinish = { [unowned self] asked, outcome in
      say("\(name): \(Self.told(asked.body)) → \(Self.told(outcome))")
    }
  }

  private static func told(_ body: Request.Body) -> String {
    switch body {
    case .post(let text): return "post \"\(text)\""
    case .follow(let name): return "follow \(name)"
    case .unfollow(let name): return "unfollow \(name)"
    case .list(let query): return "list \(query.kind.rawValue)"
    case .timeline(let query):
      if case .author(let name) = query.timeline { return "read \(name)" } else { return "read" }
    default: return "\(body)"
    }
  }

  private static func told(_ outcome: ClientOutcome) -> String {
    switch outcome {
    case .reply(.done(let id)): return "event \(id)"
    case .reply(.names(let page)): return page.names.isEmpty ? "nobody" : page.names.joined(separator: " ")
    case .reply(.page(let page)):
      return page.posts.isEmpty
        ? "nothing" : page.posts.map { "\($0.id) \($0.author): \($0.text)" }.joined(separator: "; ")
    case .reply(.refused(let refusal)): return "refused: \(refusal.message)"
    case .timedOut(let may): return may ? "no answer; it may have happened" : "no answer; it did not happen"
    default: return "\(outcome)"
    }
  }
}

// MARK: What processes say, in prose

extension RouterNote {
  var told: String {
    switch self {
    case .registered(let master, _): return "\(master.name) registered"
    case .lost(let master, let cause): return "\(master.name) is lost (\(cause.rawValue))"
    case .returned(let master): return "\(master.name) is back"
    case .chosen(let master, let term): return "\(master.name) is the available server (term \(term))"
    case .nobodyAvailable: return "nobody is available"
    case .refused(let name, let reason): return "\(name) refused: \(reason)"
    }
  }
}

extension SupervisorNote {
  var told: String {
    switch self {
    case .spawned(let name, _): return "starts \(name)"
    case .adopted(let name, _): return "adopts \(name)"
    case .crashed(let name, _, _, let pause): return "\(name) died; starts it in \(pause.milliseconds) ms"
    case .foundDead(let name, let pause): return "\(name) is dead; starts it in \(pause.milliseconds) ms"
    case .hung(let name, _, let silence):
      return "\(name) is silent for \(silence.milliseconds / 100 * 100) ms; kills it"
    case .blocking(let name, _): return "\(name) is stopped and holds the log's turn; kills it"
    case .stopped(let name, _): return "\(name) stopped"
    case .killedAtStop(let name, _): return "\(name) did not stop; kills it"
    case .spawnFailed(let name, let reason, _): return "can't start \(name): \(reason)"
    }
  }
}

extension MasterNote {
  /// Nil for what happens all the time.
  var told: String? {
    switch self {
    case .storageFailed(let reason): return "the log can't take it: \(reason)"
    case .storageWorksAgain: return "the log works again"
    case .holeRead(let from, let to): return "finds events \(from) to \(to) in the log"
    case .stopping: return "stops"
    case .ready, .becameAvailable, .becameStandby, .loggedIn, .loggedOut, .sessionLost, .sessionRevoked, .joined,
      .left:
      return nil
    }
  }
}
