// Processes and the descriptors that tell about them, and system calls of that kind: what Swift cannot do safely (fork and exec) or cannot import
// (variadic fcntl, signalfd, pidfd system calls).
//
// Every function returns 0 or more for success and a negative errno (-ENOENT) for failure; errno itself is left
// undefined. Every descriptor made here is close-on-exec. Calls interrupted by a signal are repeated.
#pragma once

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma clang assume_nonnull begin

// MARK: Spawning

/// Makes the new process the leader of a session of its own, out of reach of the terminal's Ctrl-C.
#define TINYSNS_SPAWN_NEW_SESSION 1u

/// Starts a program with fork and execve.
///
/// The new process has: standard input from /dev/null; standard output and error as given; no other descriptor of
/// this process; no blocked signals and the default action for each; the same working directory and limits.
/// Between fork and execve it only makes async-signal-safe calls, so the caller may have any number of threads.
///
/// Returns only after execve has succeeded or failed, so a failure of the program to start is reported here:
/// -ENOENT for a path that does not exist, -EACCES for a file that is not executable, and so on. Then there is no
/// process left. The caller must not ignore SIGCHLD, nor wait for children of any pid elsewhere.
///
/// \param path The program's path; PATH is not searched.
/// \param argv Its arguments, the name first, ended by NULL.
/// \param envp Its environment ("NAME=value"), ended by NULL.
/// \param stdout_fd Its standard output; -1: /dev/null. It stays open here.
/// \param stderr_fd Its standard error; -1: /dev/null. It stays open here.
/// \param flags 0 or TINYSNS_SPAWN_NEW_SESSION.
/// \param pid Set to its process id, on success.
/// \param pidfd Set to a descriptor that becomes readable when the process ends, on success. The caller closes it.
/// \returns 0 or a negative errno.
int tinysns_spawn(const char *path, char *_Nullable const *_Nonnull argv, char *_Nullable const *_Nonnull envp,
                  int stdout_fd, int stderr_fd, unsigned flags, pid_t *pid, int *pidfd);

// MARK: Watching processes

/// A descriptor for a process that runs already: readable when it has ended. Need not be a child, so an adopted
/// process can be watched as well. The pid may have been reused: verify who it is after this call, not before.
///
/// \returns the descriptor; -ESRCH if there is no such process.
int tinysns_pidfd_open(pid_t pid);

/// Sends a signal to the process of a pidfd, never to another one that got its pid later. Signal 0 only checks.
///
/// \returns 0; -ESRCH if it has ended and was waited for.
int tinysns_pidfd_send_signal(int pidfd, int signal_number);

/// Collects a child that has ended, without blocking. After the first 1 the child is gone: the next call fails.
///
/// \param exit_code Set to its exit code, or -1 if a signal killed it.
/// \param signal_number Set to the signal that killed it, or 0.
/// \returns 1 if it has ended, 0 if it still runs; -ECHILD if it is not a child of this process (an adopted one, for
///   which the pidfd is readable after its death nevertheless) or was collected before.
int tinysns_pidfd_wait(int pidfd, int *exit_code, int *signal_number);

// MARK: Signals and wake-ups

/// Blocks these signals in the calling thread and makes a nonblocking descriptor that becomes readable when one
/// comes. Call it in the main thread before there are others: they inherit what is blocked.
///
/// \returns the descriptor; -EINVAL for a signal that does not exist.
int tinysns_signalfd(const int *signal_numbers, size_t count);

/// Takes one signal from a signalfd.
///
/// \param sender Set to the pid of the sending process (0: the kernel), if a signal was taken.
/// \returns the signal's number, 0 if there is none now.
int tinysns_signalfd_read(int signalfd, pid_t *_Nullable sender);

/// Makes a nonblocking eventfd, to wake a poller from another thread.
int tinysns_eventfd(void);

/// Makes an eventfd readable, from any thread. Ringing one that is readable already is no error.
int tinysns_eventfd_ring(int eventfd);

/// Makes an eventfd unreadable again.
///
/// \returns 1 if it had been rung, 0 if not.
int tinysns_eventfd_clear(int eventfd);

// MARK: Lock files

/// Takes the POSIX write lock on a whole file, without waiting. The kernel releases it when this process ends,
/// however it ends; also when the process closes *any* descriptor of that file, so open a lock file once.
/// It is not inherited by children. The descriptor must be open for writing.
///
/// \returns 0 if the lock is held now (also if it was before); -EAGAIN if another process holds it.
int tinysns_lock_try(int fd);

/// Who holds a lock that keeps this process from locking the file.
///
/// \returns the process id; 0 if nobody does, or this process itself; -ESRCH if somebody does who has no process id here, being
/// in another PID namespace; another negative errno if it can't be told.
pid_t tinysns_lock_owner(int fd);

/// A child that has ended and that nobody has waited for yet. It stays so.
///
/// \returns its process id; 0 if there is none.
pid_t tinysns_dead_child(void);

// MARK: Files

/// Has the kernel write what it has not yet written of a part of a file, and waits for that (sync_file_range). That is no sync: neither is
/// the file's length written down, nor does the disk write what it keeps in its cache.
///
/// \returns 1; 0 if that can't be done with such a file, and nothing was; a negative errno if something could not be written, which this
///   descriptor does not tell again.
int tinysns_write_back(int fd, off_t offset, off_t length);

// MARK: Limits

/// Raises the soft limit of open descriptors (RLIMIT_NOFILE) to the hard limit.
///
/// \returns the limit now in force, which is the old one if that is forbidden; a negative errno if it can't be told.
long tinysns_set_limit_nofile_max(void);

/// Lets malloc keep up to 2 MiB of free memory an arena, and take blocks of up to 1 MiB from it, instead of adapting both, from 128 KiB
/// on, to the largest block that it has freed: a process whose load comes in waves of many small blocks would give back its pages at
/// the end of each, and ask for them again. To be called at the start.
void tinysns_keep_free_memory(void);

/// Gives back to the system what a process that has been busy, or has just started, does not need when it is idle: free pages that malloc
/// keeps, and pages of programs and libraries. Of those the ones still used come back, one by one, from the system's cache of
/// files. Takes some milliseconds, for which threads that allocate may have to wait.
void tinysns_give_back_memory(void);

/// Gives back what the calling thread's arena has free at its end, of which `tinysns_give_back_memory` leaves up to 2 MiB in each
/// arena but the first thread's. For a process that has called `tinysns_keep_free_memory`: what that sets is in force afterwards.
void tinysns_give_back_own_memory(void);

#pragma clang assume_nonnull end

#ifdef __cplusplus
}
#endif
