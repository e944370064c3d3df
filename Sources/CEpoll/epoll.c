// See CEpoll.h for what this is about.

#define _GNU_SOURCE
#include "CEpoll.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 1 << 20 };  // what is beyond, instance or in one, is the kernel's

/// An adopted epoll instance. But for its birth and its end, one thread uses it.
struct instance {
    uint64_t number;  // from 1; never that of another one
    int *wishes;      // descriptors with a wish that the kernel does not know of, in the order of their wishes; -1: taken back
    unsigned count, capacity;
    bool waited;         // epoll_wait has been called, so that wishes will be answered
    bool offered_alone;  // the last wait did not ask the kernel
};

/// A descriptor in an adopted instance. libzmq has it in one instance at a time, and takes it out before it closes it.
struct slot {
    uint64_t instance;  // its number; 0: the kernel is told everything
    epoll_data_t data;
    uint32_t told;   // the events that the kernel knows of
    unsigned place;  // 1 + index in the instance's wishes; 0: no wish, or one that the kernel knows of
    bool withdrew;   // a wish that the kernel knew of was taken back: the descriptor is connected
    bool offered;    // the wish has been answered; should it be there still, the answer was not true
};

// Zeros: they take no memory until they are used.
static struct instance *_Atomic instances[DESCRIPTORS_MAX];
static struct slot slots[DESCRIPTORS_MAX];
static _Atomic uint64_t numbers;
static _Thread_local bool adopts;
static _Thread_local int adopted;

void tinysns_epoll_adopt(bool value) { adopts = value; }

int tinysns_epoll_adopted(void) { return adopted; }

// MARK: The kernel's

static int control(int epfd, int operation, int fd, struct epoll_event *event) {
    return (int)syscall(SYS_epoll_ctl, epfd, operation, fd, event);
}

// Not through this file: another name of the same call.
static int wait_for(int epfd, struct epoll_event *events, int max, int timeout) {
    return epoll_pwait(epfd, events, max, timeout, NULL);
}

// MARK: Instances

static struct instance *find(int epfd) {
    if (epfd < 0 || epfd >= DESCRIPTORS_MAX) return NULL;
    return atomic_load_explicit(&instances[epfd], memory_order_acquire);
}

int epoll_create1(int flags) {
    int epfd = (int)syscall(SYS_epoll_create1, flags);
    if (epfd < 0 || epfd >= DESCRIPTORS_MAX) return epfd;
    struct instance *instance = adopts ? calloc(1, sizeof *instance) : NULL;
    if (instance) {
        instance->number = 1 + atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed);
        adopted++;
    }
    struct instance *closed = atomic_exchange_explicit(&instances[epfd], instance, memory_order_acq_rel);
    if (closed) {
        free(closed->wishes);
        free(closed);
    }
    return epfd;
}

int epoll_create(int size) {
    if (size > 0) return epoll_create1(0);  // how many is a hint that the kernel has ignored since 2.6.8
    errno = EINVAL;
    return -1;
}

// MARK: Wishes

/// Takes a wish back that the kernel does not know of. The others keep their places: who waits longest is answered first.
static void withdraw(struct instance *instance, struct slot *slot) {
    if (slot->place == 0) return;
    instance->wishes[slot->place - 1] = -1;
    slot->place = 0;
}

/// Keeps a wish at index `kept` that was at index `i`. \returns the next index.
static unsigned keep(struct instance *instance, unsigned i, unsigned kept) {
    int fd = instance->wishes[i];
    instance->wishes[kept] = fd;
    slots[fd].place = kept + 1;
    return kept + 1;
}

/// The slot of the wish at an index; NULL if it was taken back, or its descriptor was closed without a word and added anew.
static struct slot *wish(struct instance *instance, unsigned i) {
    int fd = instance->wishes[i];
    if (fd < 0) return NULL;
    return slots[fd].instance == instance->number && slots[fd].place == i + 1 ? &slots[fd] : NULL;
}

/// Makes room for a wish. \returns false without memory.
static bool make_room(struct instance *instance) {
    if (instance->count < instance->capacity) return true;
    unsigned kept = 0;
    for (unsigned i = 0; i < instance->count; i++)
        if (wish(instance, i)) kept = keep(instance, i, kept);
    instance->count = kept;
    if (kept < instance->capacity / 2) return true;
    unsigned capacity = instance->capacity ? 2 * instance->capacity : 64;
    int *wishes = realloc(instance->wishes, capacity * sizeof *wishes);
    if (!wishes) return false;
    instance->wishes = wishes;
    instance->capacity = capacity;
    return true;
}

/// Notes a wish without the kernel. \returns false without memory.
static bool note(struct instance *instance, int fd, struct slot *slot) {
    slot->offered = false;
    if (slot->place) return true;
    if (!make_room(instance)) return false;
    instance->wishes[instance->count++] = fd;
    slot->place = instance->count;
    return true;
}

static int modify(struct instance *instance, int epfd, int fd, struct epoll_event *event) {
    struct slot *slot = &slots[fd];
    bool was_told = slot->told & EPOLLOUT, wants = event->events & EPOLLOUT;
    bool only_writability = (event->events | EPOLLOUT) == (slot->told | EPOLLOUT) && event->data.u64 == slot->data.u64;
    if (only_writability && slot->withdrew && !was_told && instance->waited) {
        if (!wants) {
            withdraw(instance, slot);
            return 0;
        }
        if (note(instance, fd, slot)) return 0;
    }
    int result = control(epfd, EPOLL_CTL_MOD, fd, event);
    if (result == 0) {
        withdraw(instance, slot);
        if (event->events & ~(uint32_t)(EPOLLIN | EPOLLOUT)) {
            slot->instance = 0;
        } else {
            slot->withdrew |= was_told && !wants;
            slot->told = event->events;
            slot->data = event->data;
        }
    }
    return result;
}

int epoll_ctl(int epfd, int operation, int fd, struct epoll_event *event) {
    struct instance *instance = find(epfd);
    if (!instance || fd < 0 || fd >= DESCRIPTORS_MAX) return control(epfd, operation, fd, event);
    struct slot *slot = &slots[fd];
    bool is_known = slot->instance == instance->number;
    if (operation == EPOLL_CTL_MOD && is_known && event) return modify(instance, epfd, fd, event);
    int result = control(epfd, operation, fd, event);
    if (result != 0) return result;
    if (operation == EPOLL_CTL_DEL && is_known) {
        withdraw(instance, slot);
        slot->instance = 0;
    } else if (operation == EPOLL_CTL_ADD && !(event->events & ~(uint32_t)(EPOLLIN | EPOLLOUT))) {
        *slot = (struct slot){.instance = instance->number, .data = event->data, .told = event->events};
    } else if (operation == EPOLL_CTL_ADD) {
        slot->instance = 0;
    }
    return 0;
}

// MARK: Waiting

/// Answers the new wishes, `max` at most, and puts to the kernel those that were answered before and are still there: the
/// descriptor was not writable, or not for all that is to be written. \returns how many were answered.
static int offer(struct instance *instance, int epfd, struct epoll_event *events, int max) {
    int answered = 0;
    unsigned kept = 0;
    for (unsigned i = 0; i < instance->count; i++) {
        struct slot *slot = wish(instance, i);
        if (!slot) continue;
        if (slot->offered || max == 0) {
            struct epoll_event event = {.events = slot->told | EPOLLOUT, .data = slot->data};
            slot->place = 0;
            if (control(epfd, EPOLL_CTL_MOD, instance->wishes[i], &event) == 0) slot->told = event.events;
            continue;
        }
        if (answered < max) {
            slot->offered = true;
            events[answered++] = (struct epoll_event){.events = EPOLLOUT, .data = slot->data};
        }
        kept = keep(instance, i, kept);
    }
    instance->count = kept;
    return answered;
}

int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout) {
    struct instance *instance = find(epfd);
    if (!instance || max <= 0) return wait_for(epfd, events, max, timeout);
    instance->waited = true;
    int answered = offer(instance, epfd, events, max / 2);
    // The kernel's events wait for one turn at most, and cost no call of their own where the thread has only written.
    instance->offered_alone = answered > 0 && !instance->offered_alone;
    if (instance->offered_alone) return answered;
    int reported = wait_for(epfd, events + answered, max - answered, answered ? 0 : timeout);
    return reported < 0 && answered == 0 ? -1 : answered + (reported > 0 ? reported : 0);
}
