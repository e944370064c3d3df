// swift-tools-version: 6.2
// The package of Tiny SNS. Targets depend on each other one way only, from top to bottom of ARCHITECTURE.md's map;
// Tests/ArchitectureTests holds this file and every `import` to it.
import PackageDescription

let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

// `sh run.sh test` simulates hundreds of clusters, and unoptimised that takes ten times as long. It asks for this by the environment
// because SwiftPM lets nobody depend on a package with such flags, and TinySNSClient is there to be depended on.
let simulated =
  Context.environment["TINYSNS_TEST_OPTIMIZED"] == nil ? strict : strict + [.unsafeFlags(["-O"])]

let package = Package(
  name: "tiny-sns",
  products: [
    .library(name: "TinySNSClient", targets: ["TinySNSClient"]),
    .executable(name: "tinysns", targets: ["tinysns"]),
  ],
  dependencies: [
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: [
    // C
    .systemLibrary(name: "CZMQ", pkgConfig: "libzmq", providers: [.apt(["libzmq3-dev"])]),
    .systemLibrary(name: "CEdit", pkgConfig: "libedit", providers: [.apt(["libedit-dev"])]),
    .systemLibrary(name: "CSodium", pkgConfig: "libsodium", providers: [.apt(["libsodium-dev"])]),
    .target(name: "CSpawn"),
    .target(name: "CEpoll"),
    .target(name: "CLoad", dependencies: ["CSodium", "CZMQ"]),

    // Vocabulary and pure logic: no I/O
    .target(name: "Model", swiftSettings: simulated),
    .target(
      name: "Core",
      dependencies: [
        "Model",
        .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "HeapModule", package: "swift-collections"),
        .product(name: "OrderedCollections", package: "swift-collections"),
      ],
      swiftSettings: simulated),
    .target(
      name: "Wire",
      dependencies: ["Model", .product(name: "SwiftProtobuf", package: "swift-protobuf")],
      swiftSettings: simulated),

    // Storage and configuration
    .target(name: "Log", dependencies: ["Model"], swiftSettings: simulated),
    .target(
      name: "SQLiteLog",
      dependencies: [
        "CSpawn", "Log", "Model",
        .product(name: "GRDB", package: "GRDB.swift"),
        .product(name: "GRDBSQLite", package: "GRDB.swift"),
      ],
      swiftSettings: strict),
    .target(
      name: "Topology", dependencies: ["Model", .product(name: "Yams", package: "Yams")],
      swiftSettings: strict),

    // I/O
    .target(name: "Runtime", dependencies: ["CSpawn", "Model"], swiftSettings: strict),
    .target(name: "ZeroMQ", dependencies: ["CZMQ"], swiftSettings: strict),
    .target(
      name: "Node",
      dependencies: [
        "CEpoll", "Core", "CSodium", "CSpawn", "Log", "Model", "Runtime", "Wire", "ZeroMQ",
        .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),
    .target(
      name: "TinySNSClient",
      dependencies: [
        "Core", "CSpawn", "Model", "Runtime", "Wire", "ZeroMQ",
        .product(name: "HeapModule", package: "swift-collections"),
      ],
      swiftSettings: strict),
    .target(
      name: "Simulation", dependencies: ["Core", "Log", "Model", "Wire"], swiftSettings: simulated),

    // The command line
    .target(name: "TerminalText", dependencies: ["CEdit"], swiftSettings: strict),
    .executableTarget(
      name: "tinysns",
      dependencies: [
        "CEdit", "CLoad", "Core", "CSpawn", "Log", "Model", "Node", "Runtime", "SQLiteLog", "Simulation",
        "TerminalText", "TinySNSClient", "Topology", "Wire", "ZeroMQ",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Histogram", package: "hdrhistogram-swift"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),

    // Tests: a folder a module
    .testTarget(name: "ArchitectureTests"),
    .testTarget(name: "ZeroMQTests", dependencies: ["ZeroMQ"]),
    .testTarget(name: "SpawnTests", dependencies: ["CSpawn"]),
    .testTarget(name: "EpollTests", dependencies: ["CEpoll", "ZeroMQ"]),
    .testTarget(name: "ModelTests", dependencies: ["Model"]),
    .testTarget(name: "CoreTests", dependencies: ["Core", "Model"]),
    .testTarget(name: "WireTests", dependencies: ["Fuzzing", "Wire", "Model"]),
    .testTarget(
      name: "LogTests",
      dependencies: [
        "Log", "SQLiteLog", "Model", "log-hammer", .product(name: "GRDB", package: "GRDB.swift"),
        .product(name: "GRDBSQLite", package: "GRDB.swift"),
      ]),
    .executableTarget(
      name: "log-hammer", dependencies: ["Log", "Model", "Runtime", "SQLiteLog"], path: "Tests/Support/log-hammer",
      swiftSettings: strict),
    .testTarget(name: "TopologyTests", dependencies: ["Topology", "Model"]),
    .testTarget(name: "NodeTests", dependencies: ["Node", "Core", "Log", "Model", "Runtime", "ZeroMQ"]),
    .testTarget(
      name: "ClientTests", dependencies: ["TinySNSClient", "Core", "Model", "Runtime", "Wire", "ZeroMQ"]),
    .testTarget(
      name: "SimulationTests", dependencies: ["Simulation", "Core", "Log", "Model"], exclude: ["Scenarios"]),
    .testTarget(
      name: "ClusterTests",
      dependencies: ["tinysns", "Log", "SQLiteLog", "TinySNSClient", "Model", "Topology", "Wire", "ZeroMQ"]),
    .target(name: "CTerminal", path: "Tests/Support/CTerminal"),
    .testTarget(
      name: "TerminalTests",
      dependencies: ["tinysns", "CEdit", "CTerminal", "Core", "Model", "TerminalText", "TinySNSClient"]),

    // Fuzzing: what it tries, who runs it, and the test that runs a little of it
    .target(
      name: "Fuzzing",
      dependencies: ["CEdit", "Core", "Log", "Model", "SQLiteLog", "TerminalText", "Topology", "Wire"],
      path: "Tests/Support/Fuzzing", swiftSettings: simulated),
    .executableTarget(
      name: "tinysns-fuzz",
      dependencies: ["Fuzzing", "Model", .product(name: "ArgumentParser", package: "swift-argument-parser")],
      path: "Tests/Support/tinysns-fuzz", swiftSettings: strict),
    .testTarget(name: "FuzzTests", dependencies: ["Fuzzing"], exclude: ["Corpus", "README.md"]),
  ],
  swiftLanguageModes: [.v6]
)
