import Testing

@Suite struct SpawnTests {}
