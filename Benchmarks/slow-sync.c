// A disk that takes longer: every fdatasync lasts SLOW_SYNC_US microseconds more.
//
//   cc -shared -fPIC -O2 -o slow-sync.so Benchmarks/slow-sync.c
//   SLOW_SYNC_US=500 LD_PRELOAD=$PWD/slow-sync.so tinysns bench post --in-flight 50
//   SLOW_SYNC_US=500 LD_PRELOAD=$PWD/slow-sync.so redis-server --appendonly yes --appendfsync always
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int descriptor) {
    int code = (int)syscall(SYS_fdatasync, descriptor);
    int error = errno;
    const char *text = getenv("SLOW_SYNC_US");
    long microseconds = text ? atol(text) : 0;
    struct timespec time = {.tv_sec = microseconds / 1000000, .tv_nsec = microseconds % 1000000 * 1000};
    if (microseconds > 0) nanosleep(&time, NULL);
    errno = error;
    return code;
}
