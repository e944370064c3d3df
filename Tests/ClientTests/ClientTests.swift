import Testing

@Suite struct ClientTests {}
