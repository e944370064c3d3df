import Testing

@Suite struct LogTests {}
