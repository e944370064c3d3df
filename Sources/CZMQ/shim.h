// What Sources/ZeroMQ uses of C: libzmq, and of glibc what Swift's own module leaves out.
#ifdef __swift__
// What glibc declares belongs to Swift's module of it, whichever of the two a compilation happens to load first.
#pragma clang module import SwiftGlibc
#endif
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>
#include <zmq.h>

// Declared by <poll.h> under _GNU_SOURCE only.
int ppoll(struct pollfd *descriptors, nfds_t count, const struct timespec *timeout, const sigset_t *mask);

// Defined by <sched.h> under _GNU_SOURCE only.
enum { TINYSNS_SCHED_BATCH = 3 };
