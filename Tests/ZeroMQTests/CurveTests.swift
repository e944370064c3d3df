import Testing
import ZeroMQ

@Suite struct CurveTests {
  @Test func z85IsThatOfItsSpecification() throws {
    let binary: [UInt8] = [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B]  // the example of RFC 32
    #expect(Z85.encode(binary) == "HelloWorld")
    #expect(Z85.decode("HelloWorld") == binary)
    #expect(Z85.encode([]) == "")
    #expect(Z85.decode("") == [])
    #expect(Z85.encode([1, 2, 3]) == nil)
    #expect(Z85.decode("Hello!!") == nil)
    #expect(Z85.decode("Hell\u{0}") == nil)
    #expect(Z85.decode("Hel\u{7F}o") == nil)
    #expect(Z85.decode("Hällo") == nil)
    #expect(Z85.decode("\"\"\"\"\"") == nil)
  }

  @Test(.enabled(if: Library.has("curve"))) func keysSurviveTheirTextForm() throws {
    let keys = try CurveKeypair.generate()
    #expect(keys != (try CurveKeypair.generate()))
    #expect(try CurveKeypair(secretKey: keys.secretKey) == keys)
    #expect(CurveKey(z85: keys.publicKey.z85) == keys.publicKey)
    #expect(CurveKey(bytes: keys.secretKey.bytes) == keys.secretKey)
    #expect(CurveKey(bytes: [1, 2, 3]) == nil)
    #expect(CurveKey(z85: "short") == nil)
  }

  @Test(.enabled(if: Library.has("curve"))) func letsInWhoKnowsTheServer() throws {
    let context = try Context()
    let serverKeys = try CurveKeypair.generate()
    let server = try context.makeSocket(.router)
    try server.set(.curveServer(secretKey: serverKeys.secretKey))
    let monitor = try server.makeMonitor()
    let address = try server.bind("tcp://127.0.0.1:*")

    let stranger = try context.makeSocket(.dealer)
    try stranger.set(
      .curveClient(serverKey: CurveKeypair.generate().publicKey, keys: .generate()))
    try stranger.connect(address)
    let refusal = try events(of: monitor) {
      switch $0 {
      case .handshakeFailedProtocol, .handshakeFailedNoDetail, .handshakeSucceeded: true
      default: false
      }
    }
    #expect(refusal.last?.kind != .handshakeSucceeded)
    try stranger.disconnect(address)

    let client = try context.makeSocket(.dealer)
    try client.set(.curveClient(serverKey: serverKeys.publicKey, keys: .generate()))
    try client.connect(address)
    #expect(try client.send(bytes("secret")) == .sent)
    #expect(try receive(server)[1] == bytes("secret"))
  }

  @Test func knowsItsLibrary() {
    #expect(Library.version.major == 4)
    #expect(Library.has("ipc"))
    #expect(!Library.has("levitation"))
  }
}
