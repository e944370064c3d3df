// fork and execve, with the failure of execve reported back through a close-on-exec pipe.

#define _GNU_SOURCE
#include "CSpawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// The child, from here to execve: async-signal-safe calls only. No malloc, no stdio, no locks.

static void reset_signals(void) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &action, NULL);  // fails for SIGKILL, SIGSTOP and libc's own: nothing to reset there
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

// The descriptor itself, or a copy of it above the standard ones, which are about to be replaced.
static int above_standard(int fd) {
    return fd > STDERR_FILENO ? fd : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

static int close_others_on_exec(void) {
    unsigned first = STDERR_FILENO + 1;
    if (syscall(SYS_close_range, first, ~0u, CLOSE_RANGE_CLOEXEC) == 0) return 0;
    if (errno != ENOSYS && errno != EINVAL) return -1;
    // A kernel before 5.11.
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
    int end = limit.rlim_cur > INT_MAX ? INT_MAX : (int)limit.rlim_cur;
    for (int fd = (int)first; fd < end; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
    return 0;
}

static _Noreturn void run_child(const char *path, char *const *argv, char *const *envp, int stdout_fd, int stderr_fd,
                                unsigned flags, int report_fd) {
    int report = above_standard(report_fd);
    if (report < 0) _exit(127);

    reset_signals();
    if ((flags & TINYSNS_SPAWN_NEW_SESSION) && setsid() < 0) goto failed;

    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || (null = above_standard(null)) < 0) goto failed;
    int output = stdout_fd < 0 ? null : above_standard(stdout_fd);
    int error = stderr_fd < 0 ? null : above_standard(stderr_fd);
    if (output < 0 || error < 0) goto failed;
    if (dup2(null, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 || dup2(error, STDERR_FILENO) < 0) goto failed;
    if (close_others_on_exec() < 0) goto failed;

    execve(path, argv, envp);

failed:;
    int failure = errno;
    // Four bytes into an empty pipe: written at once and as a whole, or there is no parent to tell.
    ssize_t written = write(report, &failure, sizeof failure);
    (void)written;
    _exit(127);
}

// The parent.

// What the child reported: 0 once execve has closed the pipe, otherwise the errno.
static int read_report(int fd) {
    int failure = 0;
    ssize_t count;
    do count = read(fd, &failure, sizeof failure);
    while (count < 0 && errno == EINTR);
    if (count == 0) return 0;
    return count == sizeof failure ? failure : EIO;
}

static void kill_and_collect(pid_t pid) {
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
}

int tinysns_spawn(const char *path, char *const *argv, char *const *envp, int stdout_fd, int stderr_fd, unsigned flags,
                  pid_t *pid, int *pidfd) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) return -errno;

    // No handler of this process may run in the child before it has reset them.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = fork();
    int fork_failure = errno;
    if (child == 0) run_child(path, argv, envp, stdout_fd, stderr_fd, flags, report[1]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    if (child < 0) {
        close(report[0]);
        return -fork_failure;
    }

    // Ours until we wait for it, so the pid cannot be another process's yet.
    int descriptor = tinysns_pidfd_open(child);
    int failure = descriptor < 0 ? -descriptor : read_report(report[0]);
    close(report[0]);
    if (failure != 0) {
        if (descriptor >= 0) close(descriptor);
        kill_and_collect(child);
        return -failure;
    }
    *pid = child;
    *pidfd = descriptor;
    return 0;
}
