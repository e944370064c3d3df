#define _GNU_SOURCE
#include "CTerminal.h"

#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

int tinysns_start_on_terminal(char *const *argv, char *const *envp, unsigned short rows, unsigned short columns, pid_t *pid) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    int descriptor;
    pid_t child = forkpty(&descriptor, NULL, NULL, &size);
    if (child < 0) return -errno;
    if (child == 0) {
        struct sigaction action = {.sa_handler = SIG_DFL};
        for (int number = 1; number < NSIG; number++) sigaction(number, &action, NULL);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        close_range(STDERR_FILENO + 1, ~0u, 0);
        execve(argv[0], argv, envp);
        _exit(127);
    }
    fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    *pid = child;
    return descriptor;
}

int tinysns_resize_terminal(int descriptor, unsigned short rows, unsigned short columns) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    return ioctl(descriptor, TIOCSWINSZ, &size) == 0 ? 0 : -errno;
}
