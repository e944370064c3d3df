// Where the plain servers keep what they are sent.
#pragma once

#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

enum { FILE_BYTES = 64 << 20 };

/// A file that has all its blocks, so that a sync writes data and nothing else; written from the beginning again when it is full.
struct file {
  int descriptor;
  off_t end;
};

/// \returns the file; its descriptor is negative if it can't be made.
static inline struct file open_file(const char *path) {
  struct file file = {.descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  char *zeros = calloc(1, 1 << 20);
  int is_whole = file.descriptor >= 0 && zeros != NULL;
  for (int written = 0; is_whole && written < FILE_BYTES; written += 1 << 20) {
    is_whole = write(file.descriptor, zeros, 1 << 20) == 1 << 20;
  }
  free(zeros);
  if (is_whole && fsync(file.descriptor) == 0) return file;
  if (file.descriptor >= 0) close(file.descriptor);
  return (struct file){.descriptor = -1};
}

/// Writes and syncs.
/// \returns 0, or -1 if that fails.
static inline int keep(struct file *file, const void *bytes, size_t count) {
  if (file->end + (off_t)count > FILE_BYTES) file->end = 0;
  if (pwrite(file->descriptor, bytes, count, file->end) != (ssize_t)count) return -1;
  file->end += count;
  return fdatasync(file->descriptor);
}

static inline void close_file(struct file *file) {
  if (file->descriptor >= 0) close(file->descriptor);
}
