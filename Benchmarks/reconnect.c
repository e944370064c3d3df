// How long libzmq alone takes until clients of a server that is killed are at another one: for each a DEALER that is answered once,
// and a SUB that hears one message. Nothing is detected, asked, checked or caught up: they know where to go, and go at once.
//
// With `monitors` each client has a monitor as well, which is how libzmq tells of a loss.
//
//   cc -O2 -o reconnect Benchmarks/reconnect.c -lzmq && ./reconnect [CLIENTS [monitors]]
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { CLIENTS_EACH = 256, REQUEST_BYTES = 100, TOPIC_BYTES = 16, IO_THREADS = 5 };

struct client {
    void *requests, *updates, *monitor;
};

static int has_monitors;

static double seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

static void *make_socket(void *context, int kind) {
    void *socket = zmq_socket(context, kind);
    if (!socket) fail("zmq_socket");
    int none = 0, backlog = 4096;
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(socket, ZMQ_BACKLOG, &backlog, sizeof backlog);
    return socket;
}

/// Answers each request, and each subscription by a message. Writes its endpoints, then never ends.
static void serve(int out) {
    void *context = zmq_ctx_new();
    zmq_ctx_set(context, ZMQ_IO_THREADS, IO_THREADS);
    void *sockets[] = {make_socket(context, ZMQ_ROUTER), make_socket(context, ZMQ_XPUB)};
    for (int i = 0; i < 2; i++) {
        char endpoint[64] = "tcp://127.0.0.1:*";
        size_t count = sizeof endpoint;
        if (zmq_bind(sockets[i], endpoint) != 0) fail("zmq_bind");
        zmq_getsockopt(sockets[i], ZMQ_LAST_ENDPOINT, endpoint, &count);
        if (write(out, endpoint, sizeof endpoint) != sizeof endpoint) exit(1);
    }
    zmq_pollitem_t items[] = {{.socket = sockets[0], .events = ZMQ_POLLIN}, {.socket = sockets[1], .events = ZMQ_POLLIN}};
    while (zmq_poll(items, 2, -1) >= 0) {
        char identity[16], bytes[REQUEST_BYTES];
        int count;
        while ((count = zmq_recv(sockets[0], identity, sizeof identity, ZMQ_DONTWAIT)) > 0) {
            int request = zmq_recv(sockets[0], bytes, sizeof bytes, 0);
            zmq_send(sockets[0], identity, count, ZMQ_SNDMORE);
            zmq_send(sockets[0], bytes, request, 0);
        }
        while ((count = zmq_recv(sockets[1], bytes, sizeof bytes, ZMQ_DONTWAIT)) > 0)
            if (bytes[0] == 1) zmq_send(sockets[1], bytes + 1, count - 1, 0);
    }
    exit(0);
}

/// Starts a server. \returns its process; `endpoints` gets both of its endpoints.
static pid_t start(char endpoints[2][64]) {
    int ends[2];
    if (pipe(ends) != 0) fail("pipe");
    pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid == 0) serve(ends[1]);
    for (int i = 0; i < 2; i++)
        if (read(ends[0], endpoints[i], 64) != 64) fail("the server");
    return pid;
}

static void join(void *context, struct client *client, uint32_t number, char endpoints[2][64]) {
    char request[REQUEST_BYTES] = {0}, topic[TOPIC_BYTES] = {0};
    client->requests = make_socket(context, ZMQ_DEALER);
    client->updates = make_socket(context, ZMQ_SUB);
    memcpy(topic, &number, sizeof number);
    if (has_monitors) {
        static int monitors;
        char endpoint[32];
        snprintf(endpoint, sizeof endpoint, "inproc://monitor-%d", monitors++);
        int events = ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED;
        if (zmq_socket_monitor(client->requests, endpoint, events) != 0) fail("zmq_socket_monitor");
        client->monitor = make_socket(context, ZMQ_PAIR);
        if (zmq_connect(client->monitor, endpoint) != 0) fail("zmq_connect");
    }
    if (zmq_connect(client->requests, endpoints[0]) != 0) fail("zmq_connect");
    if (zmq_connect(client->updates, endpoints[1]) != 0) fail("zmq_connect");
    zmq_send(client->requests, request, sizeof request, 0);
    zmq_setsockopt(client->updates, ZMQ_SUBSCRIBE, topic, sizeof topic);
}

static void await_both(struct client *client) {
    char bytes[REQUEST_BYTES];
    if (zmq_recv(client->requests, bytes, sizeof bytes, 0) < 0) fail("an answer");
    if (zmq_recv(client->updates, bytes, sizeof bytes, 0) < 0) fail("a message");
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 2000;
    has_monitors = argc > 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    char first[2][64], second[2][64];
    pid_t killed = start(first), other = start(second);
    int contexts = count / CLIENTS_EACH + 1;
    void **context = calloc(contexts, sizeof *context);
    struct client *clients = calloc(count, sizeof *clients);
    for (int i = 0; i < contexts; i++) {
        context[i] = zmq_ctx_new();
        zmq_ctx_set(context[i], ZMQ_MAX_SOCKETS, 16 * CLIENTS_EACH);
    }
    for (int i = 0; i < count; i++) join(context[i / CLIENTS_EACH], &clients[i], i, first);
    for (int i = 0; i < count; i++) await_both(&clients[i]);
    double began = seconds();
    kill(killed, SIGKILL);
    for (int i = 0; i < count; i++) {
        if (has_monitors) {
            zmq_socket_monitor(clients[i].requests, NULL, 0);
            zmq_close(clients[i].monitor);
        }
        zmq_close(clients[i].requests);
        zmq_close(clients[i].updates);
        join(context[i / CLIENTS_EACH], &clients[i], i, second);
    }
    for (int i = 0; i < count; i++) await_both(&clients[i]);
    printf("%d clients are at the other server after %.2f s\n", count, seconds() - began);
    kill(other, SIGKILL);
    while (wait(NULL) > 0) {}
    return 0;
}
