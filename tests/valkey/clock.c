/* Preloaded into a Valkey of the tests: every clock of it is the number of microseconds in the file that CLOCK_FILE names. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *now;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_FILE"), O_RDONLY);
    void *shared = mmap(NULL, sizeof *now, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || shared == MAP_FAILED) _exit(3);
    now = shared;
}

int clock_gettime(clockid_t which, struct timespec *into) {
    int64_t micros = *now;
    (void)which;
    into->tv_sec = micros / 1000000;
    into->tv_nsec = micros % 1000000 * 1000;
    return 0;
}

int gettimeofday(struct timeval *restrict into, void *restrict zone) {
    int64_t micros = *now;
    (void)zone;
    into->tv_sec = micros / 1000000;
    into->tv_usec = micros % 1000000;
    return 0;
}

time_t time(time_t *into) {
    time_t seconds = *now / 1000000;
    if (into) *into = seconds;
    return seconds;
}
