// The ceiling: libzmq's PUB socket and nothing else; or that and a file.
#include "CLoad.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

static int publish_to_each(void *socket, zmq_msg_t *shared, int topics) {
  for (uint32_t topic = 0; topic < (uint32_t)topics; topic++) {
    uint8_t header[24] = {0};
    memcpy(header, &topic, sizeof topic);
    if (zmq_send(socket, header, sizeof header, ZMQ_SNDMORE) < 0) return -1;
    zmq_msg_t message;
    zmq_msg_init(&message);
    zmq_msg_copy(&message, shared);
    if (zmq_msg_send(&message, socket, 0) < 0) return -1;
  }
  return 0;
}

int load_zmq_publisher(uint16_t port, int bytes, int topics, const char *log, int command_fd) {
  void *context = zmq_ctx_new();
  void *socket = zmq_socket(context, ZMQ_PUB);
  int linger = 0, backlog = 4096;
  zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
  zmq_setsockopt(socket, ZMQ_BACKLOG, &backlog, sizeof backlog);
  char endpoint[64];
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", port);
  uint8_t commands[256];
  struct file file = {.descriptor = -1};
  uint8_t *kept = NULL;
  if (log) {
    file = open_file(log);
    kept = calloc(sizeof commands, bytes);
    if (file.descriptor < 0 || !kept) return -1;
  }
  // Last: whoever finds it here must not wait for the file.
  if (zmq_bind(socket, endpoint) != 0) return -1;
  ssize_t count;
  while ((count = read(command_fd, commands, sizeof commands)) > 0) {
    if (kept && keep(&file, kept, count * (size_t)bytes) != 0) return -1;
    for (ssize_t index = 0; index < count; index++) {
      zmq_msg_t message;
      zmq_msg_init_size(&message, bytes);
      memset(zmq_msg_data(&message), 'x', bytes);
      if (topics > 0) {
        publish_to_each(socket, &message, topics);
        zmq_msg_close(&message);
      } else if (zmq_msg_send(&message, socket, 0) < 0) {
        return -1;
      }
    }
  }
  close_file(&file);
  free(kept);
  zmq_close(socket);
  zmq_ctx_term(context);
  return 0;
}
