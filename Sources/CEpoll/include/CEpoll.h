// Epoll without asking the kernel what is about to be known anyway: whether a connection takes more bytes.
//
// libzmq asks for EPOLLOUT, with a system call, *before* it sends a message to a connection that was idle. Nearly always all of it
// fits; but only the kernel's EPOLLOUT, which another turn of its loop brings, has libzmq find that there is nothing more to send, and
// take its wish back with a second call. So such a message costs two `epoll_ctl` and an event besides its `send`: a fifth of a
// master's time if it has one for each of a thousand connections. No option of libzmq's avoids it.
//
// For epoll instances that are *adopted*, this module answers such a wish itself: the next `epoll_wait` says that the descriptor is
// writable, without having asked. If that was right, or there is nothing more to write, the kernel never hears of the wish. If not, the
// write fails with EAGAIN, the wish stays, and the next `epoll_wait` puts it to the kernel before it sleeps. So no event is lost, and all
// that is new to the program is an EPOLLOUT that may not hold; libzmq's descriptors never block.
//
// How it gets between: it defines `epoll_create1`, `epoll_create`, `epoll_ctl` and `epoll_wait`, and the dynamic linker prefers
// what a program defines to what its libraries do. For instances that nobody adopted they do what the C library's do. Where a
// linker should prefer the C library's, nothing is adopted, and all is as it would be without.
//
// Which wishes are answered: those of descriptors with EPOLLIN and EPOLLOUT alone, level-triggered; and not the first one of a descriptor,
// which goes to the kernel. Where it is about to connect, EPOLLOUT means that it has connected: that is the kernel's to say.
//
// For contexts with tcp and ipc connections: libzmq's UDP, WSS and SOCKS take an EPOLLOUT at its word.
#pragma once

#include <stdbool.h>
#include <sys/epoll.h>

#ifdef __cplusplus
extern "C" {
#endif

/// From now on, or no longer, the epoll instances that the calling thread makes are adopted.
///
/// One thread at a time uses an adopted instance, as libzmq has it: who makes it adds what is to wake up the thread that will wait, and
/// then only that thread does. It waits with `epoll_wait`; until it does so for the first time, all goes to the kernel. A descriptor is
/// in one adopted instance at a time, and removed before it is closed. A closed instance is forgotten when another one gets its
/// number.
void tinysns_epoll_adopt(bool adopts);

/// How many instances that the calling thread made have been adopted, closed ones included.
int tinysns_epoll_adopted(void);

#ifdef __cplusplus
}
#endif
