// pidfds, signalfds, eventfds, lock files, files and limits: thin covers of system calls, with negative errno results.

#define _GNU_SOURCE
#include "CSpawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

int tinysns_pidfd_open(pid_t pid) {
    long fd = syscall(SYS_pidfd_open, pid, 0);  // always close-on-exec
    return fd < 0 ? -errno : (int)fd;
}

int tinysns_pidfd_send_signal(int pidfd, int signal_number) {
    return syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0) < 0 ? -errno : 0;
}

int tinysns_pidfd_wait(int pidfd, int *exit_code, int *signal_number) {
    siginfo_t info = {0};
    int result;
    do result = waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
    while (result < 0 && errno == EINTR);
    if (result < 0) return -errno;
    if (info.si_pid == 0) return 0;
    int exited = info.si_code == CLD_EXITED;
    *exit_code = exited ? info.si_status : -1;
    *signal_number = exited ? 0 : info.si_status;
    return 1;
}

int tinysns_signalfd(const int *signal_numbers, size_t count) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < count; i++)
        if (sigaddset(&set, signal_numbers[i]) != 0) return -errno;
    int failure = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (failure != 0) return -failure;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int tinysns_signalfd_read(int signalfd, pid_t *sender) {
    struct signalfd_siginfo info;
    ssize_t count;
    do count = read(signalfd, &info, sizeof info);
    while (count < 0 && errno == EINTR);
    if (count < 0) return errno == EAGAIN ? 0 : -errno;
    if (count != sizeof info) return -EIO;
    if (sender) *sender = (pid_t)info.ssi_pid;
    return (int)info.ssi_signo;
}

int tinysns_eventfd(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int tinysns_eventfd_ring(int eventfd) {
    uint64_t one = 1;
    ssize_t count;
    do count = write(eventfd, &one, sizeof one);
    while (count < 0 && errno == EINTR);
    return count < 0 && errno != EAGAIN ? -errno : 0;  // EAGAIN: the counter is full, so it is readable
}

int tinysns_eventfd_clear(int eventfd) {
    uint64_t rings;
    ssize_t count;
    do count = read(eventfd, &rings, sizeof rings);
    while (count < 0 && errno == EINTR);
    if (count < 0) return errno == EAGAIN ? 0 : -errno;
    return 1;
}

int tinysns_lock_try(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int result;
    do result = fcntl(fd, F_SETLK, &lock);
    while (result < 0 && errno == EINTR);
    if (result == 0) return 0;
    return errno == EACCES ? -EAGAIN : -errno;  // POSIX allows either for "held by another"
}

pid_t tinysns_lock_owner(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_GETLK, &lock) != 0) return -errno;
    if (lock.l_type == F_UNLCK) return 0;
    return lock.l_pid > 0 ? lock.l_pid : -ESRCH;
}

pid_t tinysns_dead_child(void) {
    siginfo_t info = {.si_pid = 0};
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 ? info.si_pid : 0;
}

int tinysns_write_back(int fd, off_t offset, off_t length) {
    const unsigned flags = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    // Without flags it only looks at its arguments. With them, whatever it says may be of what could not be written.
    if (sync_file_range(fd, offset, length, 0) < 0) return 0;
    return sync_file_range(fd, offset, length, flags) < 0 ? -errno : 1;
}

long tinysns_set_limit_nofile_max(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -errno;
    struct rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    if (limit.rlim_cur < limit.rlim_max && setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
    return limit.rlim_cur > LONG_MAX ? LONG_MAX : (long)limit.rlim_cur;
}

/// Whether a debugger is at it, which may have put breakpoints into the code.
static int is_traced(void) {
    char text[1024];
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 1;
    ssize_t count = read(file, text, sizeof text - 1);
    close(file);
    text[count > 0 ? count : 0] = 0;
    const char *tracer = strstr(text, "TracerPid:");
    return tracer == NULL || strtol(tracer + 10, NULL, 10) != 0;
}

/// Code and constants, which are as in their files: segments that nobody can write to.
static int give_back_segments(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size, (void)context;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int index = 0; index < info->dlpi_phnum; index++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[index];
        if (segment->p_type != PT_LOAD || segment->p_flags & PF_W) continue;
        // Whole pages only: a page at the edge may be another segment's, too.
        uintptr_t start = (info->dlpi_addr + segment->p_vaddr + page - 1) & ~(page - 1);
        uintptr_t end = (info->dlpi_addr + segment->p_vaddr + segment->p_memsz) & ~(page - 1);
        if (start < end) madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}

enum { KEPT_BYTES = 2 << 20, PAD_BYTES = 128 << 10, LARGE_BYTES = 1 << 20 };

void tinysns_keep_free_memory(void) {
#ifdef __GLIBC__
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
#endif
}

void tinysns_give_back_own_memory(void) {
#ifdef __GLIBC__
    // glibc cuts off the end of an arena only when a block of that arena is freed that is not small.
    mallopt(M_TOP_PAD, 0);
    mallopt(M_TRIM_THRESHOLD, 0);
    void *volatile block = malloc(PAD_BYTES);
    free(block);
    mallopt(M_TOP_PAD, PAD_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
#endif
}

void tinysns_give_back_memory(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    if (!is_traced()) dl_iterate_phdr(give_back_segments, NULL);
}
