// The load's one thread: connections, the protocols' parsers, the clockwork of requests.
#define _GNU_SOURCE
#include "CLoad.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  // Unanswered requests of a session; a master allows no more.
  WINDOW = 1024,
  // Requests whose deliveries are awaited.
  HISTORY = 1 << 20,
  // Connections being opened at a time, fewer than any server's backlog.
  OPENING_MAX = 256,
  BUFFER_BYTES = 1 << 19,
  EVENTS_MAX = 512,
  KIND_NONE = 0xff,
  NS = 1000000000,
  SETUP_SECONDS = 60,
};

enum role { REQUESTS, WATCHES };
enum state { GREETING, HANDSHAKE, SUBSCRIBING, SCRIPT, OPEN };

/// The keys of a connection that talks CURVE (rfc.zeromq.org/spec/26).
struct curve {
  // The session's pair, on all its connections.
  uint8_t key[crypto_box_PUBLICKEYBYTES], secret[crypto_box_SECRETKEYBYTES];
  // This connection's own.
  uint8_t short_key[crypto_box_PUBLICKEYBYTES], short_secret[crypto_box_SECRETKEYBYTES];
  // What both sides have computed of their own ones.
  uint8_t shared[crypto_box_BEFORENMBYTES];
  uint64_t nonce;
};

struct connection {
  int fd;
  enum role role;
  enum state state;
  uint32_t index;

  struct curve *curve;  // NULL: nothing is encrypted
  uint8_t *rest;  // the beginning of what has not come completely
  size_t rest_count, rest_room;
  uint8_t *out;
  size_t out_count, out_sent, out_room;
  int is_dirty, awaits_room;

  // Requests: when each was due, and its kind. By number (Tiny SNS) or in order (peers).
  uint64_t number, answered;
  uint64_t *due;
  uint8_t *kinds;
  uint32_t script_next;

  // Updates.
  uint8_t topic[16];
  int has_topic, is_continuation;
  uint64_t sequence, expected;
  uint64_t received;
};

struct load {
  const load_options *options;
  load_result *result;
  int epoll;
  struct connection *sessions, *watchers;
  uint32_t watcher_count;
  uint32_t opening, open;
  struct connection **dirty;
  uint32_t dirty_count;
  uint8_t *buffer;

  int is_running, is_measured, has_failed;
  uint64_t now, started, measured_from;
  uint64_t issued, answered;
  /// Posts that all watchers have, and how many have each of the later ones, by place.
  uint64_t everywhere;
  uint32_t *having;
  size_t step;
  uint64_t *due_history;
};

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * NS + time.tv_nsec;
}

__attribute__((format(printf, 2, 3))) static void fail(struct load *load, const char *format, ...) {
  if (load->has_failed) return;
  load->has_failed = 1;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(load->result->error, sizeof load->result->error, format, arguments);
  va_end(arguments);
}

// MARK: Sending

static void want(struct load *load, struct connection *c, int writable) {
  struct epoll_event event = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.ptr = c};
  if (c->awaits_room != writable) epoll_ctl(load->epoll, EPOLL_CTL_MOD, c->fd, &event);
  c->awaits_room = writable;
}

static void put(struct load *load, struct connection *c, const void *bytes, size_t count) {
  if (c->out_count + count > c->out_room) {
    c->out_room = (c->out_count + count) * 2 + 256;
    c->out = realloc(c->out, c->out_room);
  }
  memcpy(c->out + c->out_count, bytes, count);
  c->out_count += count;
  if (!c->is_dirty) {
    c->is_dirty = 1;
    load->dirty[load->dirty_count++] = c;
  }
}

static void put_frame(struct load *load, struct connection *c, uint8_t flags, const void *bytes, size_t count) {
  uint8_t head[9] = {flags, (uint8_t)count};
  size_t head_count = 2;
  if (count > 255) {
    head[0] |= 2;
    for (int index = 0; index < 8; index++) head[1 + index] = (uint8_t)(count >> (56 - 8 * index));
    head_count = 9;
  }
  put(load, c, head, head_count);
  put(load, c, bytes, count);
}

// MARK: CURVE

enum { MAC = crypto_box_MACBYTES, KEY = crypto_box_PUBLICKEYBYTES, NONCE = crypto_box_NONCEBYTES };

static void put_big_endian(uint8_t *at, uint64_t number) {
  for (int index = 0; index < 8; index++) at[index] = (uint8_t)(number >> (56 - 8 * index));
}

/// A nonce of a prefix and the 8 or 16 bytes that go over the wire.
static void make_nonce(uint8_t nonce[NONCE], const char *prefix, const uint8_t *rest) {
  size_t count = strlen(prefix);
  memcpy(nonce, prefix, count);
  memcpy(nonce + count, rest, NONCE - count);
}

static void put_hello(struct load *load, struct connection *c) {
  struct curve *curve = c->curve;
  uint8_t hello[200] = "\5HELLO\1\0", nonce[NONCE], zeros[64] = {0};
  crypto_box_keypair(curve->short_key, curve->short_secret);
  memcpy(hello + 80, curve->short_key, KEY);
  put_big_endian(hello + 112, ++curve->nonce);
  make_nonce(nonce, "CurveZMQHELLO---", hello + 112);
  if (crypto_box_easy(hello + 120, zeros, 64, nonce, load->options->server_key, curve->short_secret) != 0) {
    fail(load, "the server's key is none");
  }
  put_frame(load, c, 4, hello, sizeof hello);
}

/// The server's WELCOME: its short key, and a cookie that goes back to it with the proof of the session's key.
static void on_welcome(struct load *load, struct connection *c, const uint8_t *body, size_t size) {
  static const char dealer[] = "\13Socket-Type\0\0\0\6DEALER\10Identity\0\0\0\0";
  static const char sub[] = "\13Socket-Type\0\0\0\3SUB";
  struct curve *curve = c->curve;
  uint8_t nonce[NONCE], welcome[128], vouch[64];
  if (size != 168 || memcmp(body, "\7WELCOME", 8) != 0) {
    fail(load, "the server does not welcome a connection");
    return;
  }
  make_nonce(nonce, "WELCOME-", body + 8);
  if (crypto_box_open_easy(welcome, body + 24, 144, nonce, load->options->server_key, curve->short_secret) != 0 ||
      crypto_box_beforenm(curve->shared, welcome, curve->short_secret) != 0) {
    fail(load, "the server does not have the key that it should have");
    return;
  }
  const char *metadata = c->role == REQUESTS ? dealer : sub;
  size_t metadata_count = (c->role == REQUESTS ? sizeof dealer : sizeof sub) - 1;
  uint8_t plain[KEY + 16 + 64 + MAC + sizeof dealer], initiate[9 + 96 + 8 + MAC + sizeof plain] = "\10INITIATE";
  memcpy(plain, curve->key, KEY);
  randombytes_buf(plain + KEY, 16);
  make_nonce(nonce, "VOUCH---", plain + KEY);
  memcpy(vouch, curve->short_key, KEY);
  memcpy(vouch + KEY, load->options->server_key, KEY);
  if (crypto_box_easy(plain + KEY + 16, vouch, 64, nonce, welcome, curve->secret) != 0) fail(load, "no vouch");
  memcpy(plain + KEY + 16 + 64 + MAC, metadata, metadata_count);
  size_t plain_count = KEY + 16 + 64 + MAC + metadata_count;
  memcpy(initiate + 9, welcome + KEY, 96);
  put_big_endian(initiate + 105, ++curve->nonce);
  make_nonce(nonce, "CurveZMQINITIATE", initiate + 105);
  crypto_box_easy_afternm(initiate + 113, plain, plain_count, nonce, curve->shared);
  put_frame(load, c, 4, initiate, 113 + MAC + plain_count);
}

/// Sends a message of one frame.
static void put_message(struct load *load, struct connection *c, const void *bytes, size_t count) {
  struct curve *curve = c->curve;
  if (!curve) {
    put_frame(load, c, 0, bytes, count);
    return;
  }
  uint8_t nonce[NONCE], plain[1 + 16 + 4096], message[16 + MAC + sizeof plain] = "\7MESSAGE";
  plain[0] = 0;
  memcpy(plain + 1, bytes, count);
  put_big_endian(message + 8, ++curve->nonce);
  make_nonce(nonce, "CurveZMQMESSAGEC", message + 8);
  crypto_box_easy_afternm(message + 16, plain, 1 + count, nonce, curve->shared);
  put_frame(load, c, 0, message, 16 + MAC + 1 + count);
}

/// Decrypts a frame of a message where it is; NULL if it can't be. Its flags come out as those of a frame in the open.
static const uint8_t *open_message(struct connection *c, uint8_t *body, size_t *size, uint8_t *flags) {
  uint8_t nonce[NONCE];
  if (*size < 16 + MAC + 1 || memcmp(body, "\7MESSAGE", 8) != 0) return NULL;
  make_nonce(nonce, "CurveZMQMESSAGES", body + 8);
  if (crypto_box_open_easy_afternm(body + 16, body + 16, *size - 16, nonce, c->curve->shared) != 0) return NULL;
  *flags = (uint8_t)((body[16] & 1) | (body[16] & 2 ? 4 : 0));
  *size -= 16 + MAC + 1;
  return body + 17;
}

static void flush(struct load *load, struct connection *c) {
  while (c->out_sent < c->out_count) {
    ssize_t count = send(c->fd, c->out + c->out_sent, c->out_count - c->out_sent, MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        want(load, c, 1);
        return;
      }
      fail(load, "the server closed a connection (%s)", strerror(errno));
      return;
    }
    c->out_sent += count;
  }
  c->out_sent = c->out_count = 0;
  want(load, c, 0);
}

static void flush_dirty(struct load *load) {
  for (uint32_t index = 0; index < load->dirty_count; index++) {
    load->dirty[index]->is_dirty = 0;
    flush(load, load->dirty[index]);
  }
  load->dirty_count = 0;
}

/// Sends one request, and notes when it was due.
static void put_request(struct load *load, struct connection *c, const load_body *body, uint64_t due, uint8_t kind) {
  c->number++;
  c->due[c->number % WINDOW] = due;
  c->kinds[c->number % WINDOW] = kind;
  if (load->options->protocol != LOAD_TINYSNS) {
    put(load, c, body->bytes, body->count);
    return;
  }
  // Protobuf: field 1 is the number, in front of the fields of the body.
  uint8_t request[16 + 4096];
  size_t count = 0;
  request[count++] = 0x08;
  uint64_t rest = c->number;
  while (rest >= 0x80) {
    request[count++] = (uint8_t)(rest | 0x80);
    rest >>= 7;
  }
  request[count++] = (uint8_t)rest;
  memcpy(request + count, body->bytes, body->count);
  put_message(load, c, request, count + body->count);
}

// MARK: What has come

static void sample(struct load *load, uint64_t due, uint8_t kind) {
  if (!load->is_measured || load->result->sample_count >= load->options->samples_max) return;
  uint64_t time = load->now > due ? load->now - due : 0;
  load->options->samples[load->result->sample_count++] = time | (uint64_t)kind << 56;
}

static void opened(struct load *load, struct connection *c) {
  c->state = OPEN;
  load->opening--;
  load->open++;
}

static void go_on_with_script(struct load *load, struct connection *c) {
  const load_options *options = load->options;
  if (options->script == NULL || c->script_next == options->script_first[c->index + 1]) {
    opened(load, c);
    return;
  }
  put_request(load, c, &options->bodies[options->script[c->script_next++]], load->now, KIND_NONE);
}

static void on_answer(struct load *load, struct connection *c, uint64_t number, int is_refused) {
  if (c->state == SCRIPT) {
    if (is_refused) fail(load, "a request of the preparation was refused");
    go_on_with_script(load, c);
    return;
  }
  uint8_t kind = c->kinds[number % WINDOW];
  if (kind == KIND_NONE) return;
  load->answered++;
  if (load->is_measured) {
    load->result->requests++;
    load->result->refused += is_refused;
  }
  sample(load, c->due[number % WINDOW], kind);
}

static uint64_t varint(const uint8_t **at, const uint8_t *end) {
  uint64_t value = 0;
  for (int shift = 0; *at < end && shift < 64; shift += 7) {
    uint8_t byte = *(*at)++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

/// A DoneEach: the numbers, packed, then the events, whose ids nobody asks for here.
static void on_done_each(struct load *load, struct connection *c, const uint8_t *at, const uint8_t *end) {
  varint(&at, end);  // the length
  if (at == end || *at++ != 0x0a) {
    fail(load, "a reply is not what it should be");
    return;
  }
  uint64_t count = varint(&at, end);
  if (count < (uint64_t)(end - at)) end = at + count;
  while (at < end) on_answer(load, c, varint(&at, end), 0);
}

/// A Reply: its number, then the body's field, whose number is the kind of answer.
static void on_reply(struct load *load, struct connection *c, const uint8_t *bytes, size_t count) {
  enum { WATCHING = 6, REFUSED = 9, GOODBYE = 10, DONE_EACH = 11 };
  const uint8_t *at = bytes, *end = bytes + count;
  uint64_t number = 0;
  if (at < end && *at == 0x08) {
    at++;
    number = varint(&at, end);
  }
  uint64_t kind = varint(&at, end) >> 3;
  if (kind == GOODBYE) {
    fail(load, "the master said goodbye");
    return;
  }
  if (kind == DONE_EACH) {
    on_done_each(load, c, at, end);
    return;
  }
  if (kind == WATCHING && count >= (size_t)(at - bytes) + 19) {
    varint(&at, end);  // the length
    if (at + 18 <= end && at[0] == 0x0a && at[1] == 16) {
      memcpy(c->topic, at + 2, 16);
      c->has_topic = 1;
    }
  }
  on_answer(load, c, number, kind == REFUSED);
}

/// A watcher has its next post, or will never get it. Each gets them in order, so the one that the last watcher has got is the latest
/// that all have.
static uint64_t count_up(struct load *load, struct connection *c) {
  uint64_t place = c->received++;
  uint32_t *having = &load->having[place % HISTORY];
  if (++*having == load->watcher_count) {
    *having = 0;
    load->everywhere++;
  }
  return place;
}

static void on_delivery(struct load *load, struct connection *c) {
  uint64_t place = count_up(load, c);
  if (load->is_measured) load->result->deliveries++;
  if (load->options->times_deliveries && load->is_running) {
    sample(load, load->due_history[place % HISTORY], LOAD_DELIVERY);
  }
}

/// The body of an update of ours: posts, each behind a tag and its length; or nothing in a marker.
static void on_body(struct load *load, struct connection *c, const uint8_t *body, size_t size) {
  if (size == 0) {
    if (c->state == SUBSCRIBING) {
      c->expected = c->sequence;
      opened(load, c);
    }
    return;
  }
  if (c->sequence != c->expected) load->result->gaps++;
  for (uint64_t lost = c->expected; lost < c->sequence && c->state != SUBSCRIBING; lost++) count_up(load, c);
  const uint8_t *at = body, *end = body + size;
  while (at < end && *at == 0x0a) {
    at++;
    uint64_t length = varint(&at, end);
    at += length;
    c->sequence++;
    on_delivery(load, c);
  }
  if (at != end) fail(load, "an update is not what it should be");
  c->expected = c->sequence;
}

static void on_zmtp_ready(struct load *load, struct connection *c) {
  if (c->role == REQUESTS) {
    c->state = SCRIPT;
    go_on_with_script(load, c);
    return;
  }
  uint8_t subscription[64] = {1};
  size_t count = 16;
  if (load->options->protocol == LOAD_TINYSNS) {
    memcpy(subscription + 1, c->topic, 16);
  } else if (load->options->topic_each) {
    memcpy(subscription + 1, &c->index, 4);
  } else {
    count = load->options->subscription.count;
    memcpy(subscription + 1, load->options->subscription.bytes, count);
  }
  put_message(load, c, subscription, count + 1);
  c->state = SUBSCRIBING;
  if (load->options->protocol == LOAD_ZMQ) opened(load, c);
}

static const uint8_t zmtp_greeting[64] = {
    0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, 'N', 'U', 'L', 'L',
};
static const uint8_t curve_greeting[64] = {
    0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, 'C', 'U', 'R', 'V', 'E',
};

/// A command of the handshake.
static void on_handshake(struct load *load, struct connection *c, const uint8_t *body, size_t size) {
  int isReady = size >= 6 && memcmp(body, "\5READY", 6) == 0;
  if (c->curve && !isReady) on_welcome(load, c, body, size);
  else on_zmtp_ready(load, c);
}

/// ZMTP 3.0, NULL or CURVE mechanism (rfc.zeromq.org/spec/23). Returns how many bytes were used up.
static size_t parse_zmtp(struct load *load, struct connection *c, uint8_t *bytes, size_t count) {
  size_t at = 0;
  if (c->state == GREETING) {
    static const char dealer[] = "\5READY\13Socket-Type\0\0\0\6DEALER\10Identity\0\0\0\0";
    static const char sub[] = "\5READY\13Socket-Type\0\0\0\3SUB";
    if (count < 64) return 0;
    at = 64;
    c->state = HANDSHAKE;
    if (c->curve) put_hello(load, c);
    else if (c->role == REQUESTS) put_frame(load, c, 4, dealer, sizeof dealer - 1);
    else put_frame(load, c, 4, sub, sizeof sub - 1);
  }
  while (at + 2 <= count) {
    uint8_t flags = bytes[at];
    size_t head = 2, size = bytes[at + 1];
    if (flags & 2) {
      if (at + 9 > count) break;
      size = 0;
      head = 9;
      for (int index = 0; index < 8; index++) size = size << 8 | bytes[at + 1 + index];
    }
    if (at + head + size > count) break;
    const uint8_t *body = bytes + at + head;
    at += head + size;
    if (c->curve && c->state != HANDSHAKE) {
      body = open_message(c, (uint8_t *)body, &size, &flags);
      if (!body) {
        fail(load, "a message can't be decrypted");
        break;
      }
    }
    int is_continuation = c->is_continuation;
    if (flags & 4) {
      if (c->state == HANDSHAKE) on_handshake(load, c, body, size);
    } else if (c->role == REQUESTS) {
      on_reply(load, c, body, size);
    } else {
      c->is_continuation = flags & 1;
      if (load->options->protocol == LOAD_ZMQ) {
        if (!is_continuation) on_delivery(load, c);
      } else if (is_continuation) {
        on_body(load, c, body, size);
      } else if (size == 24) {
        if (load->is_measured) load->result->updates++;
        c->sequence = 0;
        for (int index = 16; index < 24; index++) c->sequence = c->sequence << 8 | body[index];
      }
    }
  }
  return at;
}

static const uint8_t *end_of_line(const uint8_t *at, const uint8_t *end) {
  const uint8_t *found = memchr(at, '\n', end - at);
  return found ? found + 1 : NULL;
}

/// One value of RESP; NULL if it has not come completely.
static const uint8_t *skip_resp(const uint8_t *at, const uint8_t *end) {
  const uint8_t *line = at < end ? end_of_line(at, end) : NULL;
  if (!line) return NULL;
  long number = *at == '$' || *at == '*' ? strtol((const char *)at + 1, NULL, 10) : 0;
  if (*at == '$') return number < 0 ? line : line + number + 2 <= end ? line + number + 2 : NULL;
  for (long index = 0; index < number && line; index++) line = skip_resp(line, end);
  return line;
}

static size_t parse_redis(struct load *load, struct connection *c, const uint8_t *bytes, size_t count) {
  const uint8_t *at = bytes, *end = bytes + count, *next;
  while ((next = skip_resp(at, end))) {
    if (c->role == REQUESTS) {
      on_answer(load, c, ++c->answered, *at == '-');
      if (*at == '-') fail(load, "Redis: %.*s", (int)(next - at > 100 ? 100 : next - at), at);
    } else if (c->state == SUBSCRIBING) {
      opened(load, c);
    } else {
      on_delivery(load, c);
    }
    at = next;
  }
  return at - bytes;
}

static size_t parse_nats(struct load *load, struct connection *c, const uint8_t *bytes, size_t count) {
  static const char connect[] = "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true}\r\n";
  const uint8_t *at = bytes, *end = bytes + count, *line;
  while (at < end && (line = end_of_line(at, end))) {
    if (at[0] == 'M') {
      const uint8_t *space = memrchr(at, ' ', line - at);
      long size = strtol((const char *)space + 1, NULL, 10);
      if (line + size + 2 > end) break;
      line += size + 2;
      on_delivery(load, c);
    } else if (at[0] == 'I' && c->state == GREETING) {
      put(load, c, connect, sizeof connect - 1);
      if (c->role == WATCHES) put(load, c, load->options->subscription.bytes, load->options->subscription.count);
      put(load, c, "PING\r\n", 6);
      c->state = SUBSCRIBING;
    } else if (at[0] == 'P' && at[1] == 'I') {
      put(load, c, "PONG\r\n", 6);
    } else if (at[0] == 'P' && c->state == SUBSCRIBING) {
      opened(load, c);
    } else if (at[0] == '-') {
      fail(load, "NATS: %.*s", (int)(line - at), at);
    }
    at = line;
  }
  return at - bytes;
}

static void on_readable(struct load *load, struct connection *c) {
  memcpy(load->buffer, c->rest, c->rest_count);
  ssize_t count = recv(c->fd, load->buffer + c->rest_count, BUFFER_BYTES - c->rest_count, 0);
  if (count <= 0) {
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    fail(load, "the server closed a connection");
    return;
  }
  load->now = now_ns();
  if (load->is_measured) load->result->received_bytes += count;
  size_t all = c->rest_count + count, used = 0;
  switch (load->options->protocol) {
    case LOAD_TINYSNS:
    case LOAD_ZMQ: used = parse_zmtp(load, c, load->buffer, all); break;
    case LOAD_REDIS: used = parse_redis(load, c, load->buffer, all); break;
    case LOAD_NATS: used = parse_nats(load, c, load->buffer, all); break;
  }
  c->rest_count = all - used;
  if (c->rest_count == BUFFER_BYTES) {
    fail(load, "a message is too long");
    c->rest_count = 0;
  }
  if (c->rest_count > c->rest_room) {
    c->rest_room = c->rest_count * 2;
    c->rest = realloc(c->rest, c->rest_room);
  }
  if (c->rest_count > 0) memcpy(c->rest, load->buffer + used, c->rest_count);
}

// MARK: Connections

static void open_connection(struct load *load, struct connection *c, enum role role, uint32_t index) {
  const load_options *options = load->options;
  c->role = role;
  c->index = index;
  c->state = GREETING;
  load->opening++;
  if (role == REQUESTS) {
    c->due = calloc(WINDOW, sizeof *c->due);
    c->kinds = calloc(WINDOW, sizeof *c->kinds);
    if (options->script_first) c->script_next = options->script_first[index];
  }
  if (options->server_key && options->protocol == LOAD_TINYSNS) {
    c->curve = calloc(1, sizeof *c->curve);
    if (role == REQUESTS) {
      crypto_box_keypair(c->curve->key, c->curve->secret);
    } else {
      // A subscription counts only with the key of the session that watches.
      memcpy(c->curve->key, load->sessions[index].curve->key, KEY);
      memcpy(c->curve->secret, load->sessions[index].curve->secret, KEY);
    }
  }
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (c->fd < 0) {
    fail(load, "no socket: %s", strerror(errno));
    return;
  }
  int isUpdates = role == WATCHES && options->protocol == LOAD_TINYSNS;
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(isUpdates ? options->updates_port : options->port)};
  inet_pton(AF_INET, options->host, &address.sin_addr);
  if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) {
    fail(load, "can't connect to port %d: %s", ntohs(address.sin_port), strerror(errno));
    return;
  }
  int on = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event);
  switch (options->protocol) {
    case LOAD_TINYSNS:
    case LOAD_ZMQ: put(load, c, c->curve ? curve_greeting : zmtp_greeting, sizeof zmtp_greeting); break;
    case LOAD_REDIS:
      if (role == REQUESTS) {
        c->state = SCRIPT;
        go_on_with_script(load, c);
      } else {
        c->state = SUBSCRIBING;
        put(load, c, options->subscription.bytes, options->subscription.count);
      }
      break;
    case LOAD_NATS: break;
  }
}

/// Waits for events, at most until a point in time, and handles them.
static void turn(struct load *load, uint64_t until) {
  struct epoll_event events[EVENTS_MAX];
  flush_dirty(load);
  uint64_t now = now_ns();
  uint64_t pause = until > now ? until - now : 0;
  struct timespec timeout = {.tv_sec = pause / NS, .tv_nsec = pause % NS};
  int count = epoll_pwait2(load->epoll, events, EVENTS_MAX, &timeout, NULL);
  load->now = now_ns();
  for (int index = 0; index < count && !load->has_failed; index++) {
    struct connection *c = events[index].data.ptr;
    if (events[index].events & EPOLLOUT) flush(load, c);
    if (events[index].events & ~EPOLLOUT) on_readable(load, c);
  }
}

static void wait_until_open(struct load *load, uint32_t wanted, uint32_t opening_max, uint64_t deadline) {
  while (!load->has_failed && (load->open < wanted || load->opening > opening_max)) {
    if (load->opening <= opening_max && opening_max > 0) return;
    turn(load, load->now + NS / 10);
    if (load->now > deadline) fail(load, "%u of %u connections are open after a minute", load->open, wanted);
  }
}

// MARK: The clockwork

static double cpu_seconds(int pid) {
  char path[64], text[512];
  if (pid <= 0) return 0;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  size_t count = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[count] = 0;
  char *end = strrchr(text, ')');
  unsigned long user = 0, system = 0;
  if (end) sscanf(end + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

static double own_cpu_seconds(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static uint64_t under_way(struct load *load) {
  const load_options *options = load->options;
  int hasAnswers = options->protocol == LOAD_TINYSNS || options->protocol == LOAD_REDIS;
  uint64_t done = hasAnswers ? load->answered : load->issued;
  if (options->waits_for_deliveries) {
    if (!hasAnswers || load->everywhere < done) done = load->everywhere;
  }
  return load->issued - done;
}

static void issue(struct load *load, uint64_t due) {
  const load_options *options = load->options;
  load->due_history[load->issued % HISTORY] = due;
  load->issued++;
  if (options->protocol == LOAD_ZMQ) {
    if (write(options->command_fd, "p", 1) != 1) fail(load, "the publisher is gone");
    return;
  }
  const load_step *step = &options->steps[load->step];
  if (++load->step == options->step_count) load->step = 0;
  put_request(load, &load->sessions[step->session], &options->bodies[step->body], due, (uint8_t)step->kind);
}

/// Sends what may be sent now. Returns when to come again, if nothing arrives before.
static uint64_t pump(struct load *load) {
  const load_options *options = load->options;
  if (options->requests_max > 0 && load->issued >= options->requests_max) return load->now + NS / 10;
  if (options->rate <= 0) {
    while (under_way(load) < options->in_flight && (!options->requests_max || load->issued < options->requests_max)) {
      issue(load, load->now);
    }
    return load->now + NS / 10;
  }
  while (1) {
    uint64_t due = load->started + (uint64_t)(load->issued * 1e9 / options->rate);
    if (due > load->now) return due;
    if (under_way(load) >= options->in_flight) return load->now + NS / 1000;
    issue(load, due);
  }
}

/// Sessions that have nothing else to say ping once a second, as every client does: a share of them at a time.
static void ping(struct load *load, uint64_t *last, uint32_t *next) {
  static const load_body ping = {(const uint8_t *)"\x52\x00", 2};
  if (load->options->protocol != LOAD_TINYSNS || load->now - *last < NS / 50) return;
  *last = load->now;
  uint32_t share = load->options->sessions / 50 + 1;
  for (uint32_t index = 0; index < share; index++) {
    struct connection *c = &load->sessions[(*next)++ % load->options->sessions];
    if (load->options->watchers > 0 || load->options->rate > 0) put_request(load, c, &ping, load->now, KIND_NONE);
  }
}

static void subscribe_all(struct load *load, uint64_t deadline) {
  const load_options *options = load->options;
  uint32_t index = 0;
  if (options->protocol != LOAD_TINYSNS) {
    for (; index < options->watchers && !load->has_failed; index++) {
      open_connection(load, &load->watchers[load->watcher_count++], WATCHES, index);
      wait_until_open(load, load->open + load->opening, OPENING_MAX, deadline);
    }
  } else {
    uint64_t last_ping = 0;
    uint32_t next_ping = 0;
    for (; index < options->sessions && !load->has_failed; index++) {
      if (!load->sessions[index].has_topic) continue;
      struct connection *watcher = &load->watchers[load->watcher_count++];
      memcpy(watcher->topic, load->sessions[index].topic, 16);
      open_connection(load, watcher, WATCHES, index);
      wait_until_open(load, load->open + load->opening, OPENING_MAX, deadline);
      ping(load, &last_ping, &next_ping);
    }
  }
  wait_until_open(load, load->open + load->opening, 0, deadline);
  if (options->protocol == LOAD_ZMQ) {
    // Nothing tells a subscriber that it is heard: publish until each has got something, then until all is quiet.
    int isHeard = 0;
    while (!isHeard && !load->has_failed) {
      if (write(options->command_fd, "p", 1) != 1) fail(load, "the publisher is gone");
      uint64_t until = now_ns() + NS / 5;
      while (load->now < until) turn(load, until);
      isHeard = 1;
      for (index = 0; index < load->watcher_count; index++) isHeard &= load->watchers[index].received > 0;
      if (load->now > deadline) fail(load, "not all subscriptions work");
    }
    uint64_t until = now_ns() + NS / 2;
    while (load->now < until && !load->has_failed) turn(load, until);
  }
  for (index = 0; index < load->watcher_count; index++) load->watchers[index].received = 0;
  memset(load->having, 0, HISTORY * sizeof *load->having);
  load->everywhere = 0;
}

int load_run(const load_options *options, load_result *result) {
  memset(result, 0, sizeof *result);
  if (sodium_init() < 0) {
    snprintf(result->error, sizeof result->error, "libsodium does not start");
    return -1;
  }
  // Every session that is given a topic watches it: plain libzmq's server gives the author one, too.
  uint32_t watchersMax = options->protocol == LOAD_TINYSNS ? options->sessions + 1 : options->watchers + 1;
  struct load state = {
      .options = options,
      .result = result,
      .epoll = epoll_create1(EPOLL_CLOEXEC),
      .sessions = calloc(options->sessions + 1, sizeof(struct connection)),
      .watchers = calloc(watchersMax, sizeof(struct connection)),
      .dirty = calloc(options->sessions + watchersMax + 1, sizeof(struct connection *)),
      .buffer = malloc(BUFFER_BYTES),
      .due_history = calloc(HISTORY, sizeof(uint64_t)),
      .having = calloc(HISTORY, sizeof(uint32_t)),
      .now = now_ns(),
  }, *load = &state;
  uint64_t deadline = load->now + (uint64_t)SETUP_SECONDS * NS;
  for (uint32_t index = 0; index < options->sessions && !load->has_failed; index++) {
    open_connection(load, &load->sessions[index], REQUESTS, index);
    // The others follow an author, who says Hello and no more: the name has to be there before they come.
    int isAuthor = index == 0 && options->watchers > 0 && options->script && options->script_first[1] == 1;
    wait_until_open(load, load->open + load->opening, isAuthor ? 0 : OPENING_MAX, deadline);
  }
  wait_until_open(load, load->open + load->opening, 0, deadline);
  if (options->watchers > 0 && !load->has_failed) subscribe_all(load, deadline);
  if (options->waits_for_deliveries && load->watcher_count == 0) fail(load, "nobody watches");

  load->now = load->started = now_ns();
  load->answered = load->issued = 0;
  load->is_running = 1;
  uint64_t warm = load->started + (uint64_t)(options->warmup_s * 1e9);
  uint64_t end = warm + (uint64_t)(options->run_s * 1e9);
  double cpu = 0, own = 0;
  uint64_t last_ping = load->now;
  uint32_t next_ping = 0;
  while (!load->has_failed && load->now < end) {
    if (!load->is_measured && load->now >= warm) {
      load->is_measured = 1;
      load->measured_from = load->now;
      cpu = cpu_seconds(options->server_pid);
      own = own_cpu_seconds();
    }
    uint64_t next = options->step_count || options->protocol == LOAD_ZMQ ? pump(load) : load->now + NS / 50;
    if (options->watchers > 0 && next > load->now + NS / 50) next = load->now + NS / 50;
    ping(load, &last_ping, &next_ping);
    if (options->requests_max > 0 && load->answered >= options->requests_max) break;
    uint64_t boundary = load->is_measured ? end : warm;
    turn(load, next < boundary ? next : boundary);
  }
  result->seconds = (load->now - load->measured_from) / 1e9;
  result->server_cpu_s = cpu_seconds(options->server_pid) - cpu;
  result->own_cpu_s = own_cpu_seconds() - own;
  if (options->protocol == LOAD_ZMQ || options->protocol == LOAD_NATS) {
    result->requests = result->deliveries / (load->watcher_count ? load->watcher_count : 1);
  }

  for (uint32_t index = 0; index < options->sessions + load->watcher_count; index++) {
    struct connection *c =
        index < options->sessions ? &load->sessions[index] : &load->watchers[index - options->sessions];
    if (c->fd > 0) close(c->fd);
    free(c->curve);
    free(c->rest);
    free(c->out);
    free(c->due);
    free(c->kinds);
  }
  close(load->epoll);
  free(load->sessions);
  free(load->watchers);
  free(load->dirty);
  free(load->buffer);
  free(load->due_history);
  free(load->having);
  return load->has_failed ? -1 : 0;
}
