// TinySNSClient
