import Testing

@Suite struct ClusterTests {}
