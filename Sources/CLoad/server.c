// What libzmq itself needs for the connections of watching clients: a ROUTER and an XPUB, and nothing of a service.
#include "CLoad.h"
#include "request.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

static void *open_socket(void *context, int kind, uint16_t port) {
  void *socket = zmq_socket(context, kind);
  int linger = 0, backlog = 4096, verbose = 1;
  zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
  zmq_setsockopt(socket, ZMQ_BACKLOG, &backlog, sizeof backlog);
  if (kind == ZMQ_XPUB) zmq_setsockopt(socket, ZMQ_XPUB_VERBOSE, &verbose, sizeof verbose);
  char endpoint[64];
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", port);
  return zmq_bind(socket, endpoint) == 0 ? socket : NULL;
}

/// Answers any Request with "watching", and a topic of 16 bytes: the connection's identity, five bytes, and zeros.
static void answer(void *router) {
  uint8_t identity[8], request[4096];
  int identity_count = zmq_recv(router, identity, sizeof identity, ZMQ_DONTWAIT);
  if (identity_count != 5) return;
  int count = zmq_recv(router, request, sizeof request, 0);
  uint8_t reply[40];
  int number = copy_number(reply, request, count);
  static const uint8_t watching[] = {0x32, 18, 0x0a, 16};
  memcpy(reply + number, watching, sizeof watching);
  memset(reply + number + sizeof watching, 0, 16);
  memcpy(reply + number + sizeof watching, identity, 5);
  zmq_send(router, identity, identity_count, ZMQ_SNDMORE | ZMQ_DONTWAIT);
  zmq_send(router, reply, number + sizeof watching + 16, ZMQ_DONTWAIT);
}

/// Answers a subscription with a marker: the topic, a number of eight bytes, and an empty frame.
static void mark(void *xpub) {
  uint8_t subscription[64], header[24] = {0};
  if (zmq_recv(xpub, subscription, sizeof subscription, ZMQ_DONTWAIT) != 17 || subscription[0] != 1) return;
  memcpy(header, subscription + 1, 16);
  zmq_send(xpub, header, sizeof header, ZMQ_SNDMORE);
  zmq_send(xpub, "", 0, 0);
}

int load_zmq_server(uint16_t port, uint16_t updates_port, int command_fd) {
  void *context = zmq_ctx_new();
  zmq_ctx_set(context, ZMQ_MAX_SOCKETS, 16);
  void *router = open_socket(context, ZMQ_ROUTER, port), *xpub = open_socket(context, ZMQ_XPUB, updates_port);
  if (!router || !xpub) return -1;
  zmq_pollitem_t items[] = {
      {.socket = router, .events = ZMQ_POLLIN}, {.socket = xpub, .events = ZMQ_POLLIN}, {.fd = command_fd, .events = ZMQ_POLLIN}};
  while (zmq_poll(items, 3, -1) >= 0) {
    if (items[0].revents) answer(router);
    if (items[1].revents) mark(xpub);
    if (items[2].revents) break;
  }
  zmq_close(router);
  zmq_close(xpub);
  zmq_ctx_term(context);
  return 0;
}
