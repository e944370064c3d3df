// How long a sync takes, in a file that has its length (as the log's WAL) and in one that grows (as Redis's).
//
//   cc -O2 -o sync Benchmarks/sync.c && ./sync FOLDER [BYTES]
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { COUNT = 250, PAUSE_US = 300, BYTES_MAX = 1 << 16 };

static double microseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void put(int file, const char *bytes, size_t count, off_t offset) {
    if (pwrite(file, bytes, count, offset) != (ssize_t)count) fail("pwrite");
}

static void measure(const char *path, size_t bytes, int grows) {
    static char block[BYTES_MAX];
    static double took[COUNT];
    int file = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);
    if (file < 0) fail(path);
    unlink(path);
    memset(block, 1, sizeof block);
    if (!grows) {
        for (int index = 0; index < COUNT; index++) put(file, block, bytes, (off_t)(index * bytes));
        if (fsync(file) != 0) fail("fsync");
    }
    for (int index = 0; index < COUNT; index++) {
        put(file, block, bytes, (off_t)(index * bytes));
        double began = microseconds();
        if (fdatasync(file) != 0) fail("fdatasync");
        took[index] = microseconds() - began;
        usleep(PAUSE_US);
    }
    qsort(took, COUNT, sizeof *took, compare);
    printf("%zu bytes, %s: fdatasync p50 %.0f us, p90 %.0f us\n", bytes, grows ? "the file grows" : "it has its length",
           took[COUNT / 2], took[COUNT * 9 / 10]);
    close(file);
}

int main(int count, char **arguments) {
    size_t bytes = count > 2 ? strtoul(arguments[2], NULL, 10) : 8240;
    if (count < 2 || bytes == 0 || bytes > BYTES_MAX) {
        fprintf(stderr, "usage: sync FOLDER [BYTES], of at most %d bytes\n", BYTES_MAX);
        return 2;
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/sync-%d", arguments[1], (int)getpid());
    for (int grows = 0; grows < 2; grows++) measure(path, bytes, grows);
    return 0;
}
