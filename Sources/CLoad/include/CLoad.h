// A load generator: one thread, raw sockets and epoll, for Tiny SNS and for those it is compared with. The same code sends,
// receives, counts and takes the time, whatever protocol a server speaks: ZeroMQ's ZMTP 3.0 (without encryption or with CURVE), Redis's RESP or NATS's.
//
// What is sent is prepared by the caller: a body is a Request of Tiny SNS without its number, or a whole command of a peer.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma clang assume_nonnull begin

typedef enum {
  LOAD_TINYSNS,
  /// A PUB socket of `load_zmq_publisher`.
  LOAD_ZMQ,
  LOAD_REDIS,
  LOAD_NATS,
} load_protocol;

typedef struct {
  const uint8_t *bytes;
  uint32_t count;
} load_body;

/// One request: who sends what, and as which kind its time is taken.
typedef struct {
  uint32_t session;
  uint32_t body;
  uint32_t kind;
} load_step;

/// Kinds of requests whose times are taken apart.
#define LOAD_KINDS 8
/// The kind of a delivery at a watcher.
#define LOAD_DELIVERY (LOAD_KINDS - 1)

typedef struct {
  load_protocol protocol;
  /// An IPv4 address.
  const char *host;
  /// Where requests go; and for a peer, all else.
  uint16_t port;
  /// Where watchers of Tiny SNS connect.
  uint16_t updates_port;
  /// The 32 bytes of the public key that Tiny SNS has to prove (CURVE); NULL: nothing is encrypted.
  const uint8_t *_Nullable server_key;

  /// Connections that make requests.
  uint32_t sessions;
  const load_body *_Nullable bodies;
  /// Session i begins with the bodies `script[script_first[i]..<script_first[i + 1]]`, one after the other.
  const uint32_t *_Nullable script;
  const uint32_t *_Nullable script_first;
  /// Tiny SNS: each session that is told a topic subscribes to it. Peers: so many connections subscribe.
  uint32_t watchers;
  /// What a watcher of a peer sends to subscribe; for LOAD_ZMQ the topic.
  load_body subscription;
  /// LOAD_ZMQ: each watcher has a topic of its own: 16 bytes, its number in the first four.
  int topic_each;

  /// The requests, in a cycle.
  const load_step *_Nullable steps;
  size_t step_count;
  /// Requests under way at most.
  uint32_t in_flight;
  /// Requests a second; 0: as many as `in_flight` lets through. Times are then taken from when a request was due.
  double rate;
  /// A request is under way until all watchers have what it published.
  int waits_for_deliveries;
  /// Take the times of deliveries.
  int times_deliveries;
  double warmup_s;
  double run_s;
  /// The end after so many requests; 0: when the time is over.
  uint64_t requests_max;
  /// LOAD_ZMQ: a byte written here makes the publisher publish.
  int command_fd;
  /// Whose processor time is taken; 0: nobody's.
  int server_pid;
  /// Times in nanoseconds, the kind in the top byte.
  uint64_t *samples;
  size_t samples_max;
} load_options;

typedef struct {
  double seconds;
  /// Answered in the measured interval (published, where there is no answer).
  uint64_t requests;
  uint64_t refused;
  uint64_t deliveries;
  /// Messages of Tiny SNS that brought them.
  uint64_t updates;
  /// Deliveries that were not the next of their topic.
  uint64_t gaps;
  uint64_t received_bytes;
  /// The rest were taken no times of.
  size_t sample_count;
  double server_cpu_s;
  double own_cpu_s;
  char error[200];
} load_result;

/// Runs a load to its end.
/// \returns 0, or -1 with `error` set.
int load_run(const load_options *options, load_result *result);

/// Publishes a message of `bytes` bytes on a PUB socket at `port` for each byte read from `command_fd`, until its end: the ceiling
/// of what libzmq can do. With `topics` > 0 to each of so many topics: a header frame of 24 bytes and a shared frame. With `log`, a path, only
/// what is written there and synced is published; all that has come shares a write and a sync.
int load_zmq_publisher(uint16_t port, int bytes, int topics, const char *_Nullable log, int command_fd);

/// Serves clients as far as libzmq is concerned, until the end of `command_fd`: a ROUTER at `port` that answers each request with a topic, and
/// an XPUB at `updates_port` that answers each subscription with a marker.
int load_zmq_server(uint16_t port, uint16_t updates_port, int command_fd);

/// Answers requests of Tiny SNS at `port` once their bytes are written to a file at `path` and synced, until the end of `command_fd`: the plainest
/// server on libzmq that keeps what it is sent. All that has come shares a write and a sync; one thread besides libzmq's.
int load_zmq_log(uint16_t port, const char *path, int command_fd);

#pragma clang assume_nonnull end

#ifdef __cplusplus
}
#endif
