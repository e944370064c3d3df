// What Sources/ZeroMQ uses of C: libzmq, and of glibc what Swift's own module leaves out.
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>
#include <zmq.h>

// Declared by <poll.h> under _GNU_SOURCE only.
int ppoll(struct pollfd *descriptors, nfds_t count, const struct timespec *timeout, const sigset_t *mask);
