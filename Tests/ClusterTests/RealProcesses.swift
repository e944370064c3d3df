// All tests with real processes: one at a time, since each keeps the machine busy.

import Testing

@Suite(.serialized) enum RealProcesses {}
