// The plainest server on libzmq that keeps what it is sent: a ROUTER that writes what has come to a file, syncs that, and answers each. Nothing of
// a service, and a sync at a time.
#include "CLoad.h"
#include "file.h"
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum { ROUND_MAX = 4096, REQUEST_MAX = 4096 };

/// An answer that waits for the sync.
struct answer {
  uint8_t identity[5];
  uint8_t count;
  uint8_t bytes[16];
};

/// Takes one request: its bytes go to `data`, and what is to be answered to `answer`: "done" as event 1, under the request's number.
static int take(void *router, struct answer *answer, uint8_t *data) {
  uint8_t identity[8];
  int identity_count = zmq_recv(router, identity, sizeof identity, ZMQ_DONTWAIT);
  if (identity_count < 0) return -1;
  int count = zmq_recv(router, data, REQUEST_MAX, 0);
  if (identity_count != sizeof answer->identity || count < 2 || count > REQUEST_MAX) return -1;
  memcpy(answer->identity, identity, sizeof answer->identity);
  int number = copy_number(answer->bytes, data, count);
  memcpy(answer->bytes + number, "\x18\x01", 2);
  answer->count = number + 2;
  return count;
}

int load_zmq_log(uint16_t port, const char *path, int command_fd) {
  void *context = zmq_ctx_new(), *router = zmq_socket(context, ZMQ_ROUTER);
  int none = 0, unlimited = 0;
  zmq_setsockopt(router, ZMQ_LINGER, &none, sizeof none);
  zmq_setsockopt(router, ZMQ_SNDHWM, &unlimited, sizeof unlimited);
  zmq_setsockopt(router, ZMQ_RCVHWM, &unlimited, sizeof unlimited);
  char endpoint[64];
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", port);
  struct answer *answers = calloc(ROUND_MAX, sizeof *answers);
  uint8_t *data = malloc((size_t)ROUND_MAX * REQUEST_MAX);
  struct file file = open_file(path);
  int code = 0;
  if (!answers || !data || file.descriptor < 0 || zmq_bind(router, endpoint) != 0) code = -1;
  zmq_pollitem_t items[] = {{.socket = router, .events = ZMQ_POLLIN}, {.fd = command_fd, .events = ZMQ_POLLIN}};
  while (code == 0 && zmq_poll(items, 2, -1) >= 0 && !items[1].revents) {
    int taken = 0, count;
    size_t bytes = 0;
    while (taken < ROUND_MAX && (count = take(router, &answers[taken], data + bytes)) > 0) {
      bytes += count;
      taken++;
    }
    if (taken == 0) continue;
    code = keep(&file, data, bytes);
    for (int index = 0; index < taken && code == 0; index++) {
      zmq_send(router, answers[index].identity, sizeof answers[index].identity, ZMQ_SNDMORE | ZMQ_DONTWAIT);
      zmq_send(router, answers[index].bytes, answers[index].count, ZMQ_DONTWAIT);
    }
  }
  close_file(&file);
  free(answers);
  free(data);
  zmq_close(router);
  zmq_ctx_term(context);
  return code;
}
