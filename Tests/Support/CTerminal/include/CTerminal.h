// A program on a terminal of its own, for tests.
#pragma once

#include <sys/types.h>

/// Starts a program as the leader of a new session whose controlling terminal is a new pseudo-terminal, with no other descriptors.
///
/// \param argv Its arguments, the path first, ended by NULL. PATH is not searched.
/// \param envp Its environment, ended by NULL.
/// \param pid Set to its process id.
/// \returns the terminal's other side, close-on-exec; or a negative errno.
int tinysns_start_on_terminal(char *const *argv, char *const *envp, unsigned short rows, unsigned short columns, pid_t *pid);

/// Changes the terminal's size; the program is sent SIGWINCH.
int tinysns_resize_terminal(int descriptor, unsigned short rows, unsigned short columns);
