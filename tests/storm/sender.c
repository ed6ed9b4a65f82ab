/* A sender of the listeners' storm: queues numbered real-time signals, now one by one, now as a
 * flood. Compiled by listeners.py, and called in a forked process of its own. In C, since Python
 * cannot send fast enough to fill a ring. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void nap_us(unsigned us) {
    struct timespec time = {.tv_nsec = (long)us * 1000};
    nanosleep(&time, NULL);
}

static uint32_t next_random(uint32_t *state) { /* xorshift32 */
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* How far the slowest of those whom we wait for has come. */
static uint64_t slowest(const _Atomic uint64_t *progress, int count) {
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < count; i++) {
        uint64_t one = atomic_load(&progress[i]);
        least = one < least ? one : least;
    }
    return least;
}

/* Somebody asks for calm. */
static bool any(const _Atomic uint64_t *calm, int count) {
    for (int i = 0; i < count; i++) {
        if (atomic_load(&calm[i]) != 0) {
            return true;
        }
    }
    return false;
}

/* Queues the numbers from `start` up to `stop`, each as `label` plus the number, and kills with
 * `standard` for each 16th. Never more than 1 << `widest` numbers are ahead of the slowest of
 * `progress`, an array of `count`: how many, is drawn anew after a while, so that quiet moments and
 * floods follow each other. While one of `calm`, an array of `calm_count`, is not 0, goes slowly.
 * Counts in tallies[0] each EAGAIN, in tallies[1] each kill(). Returns 0, or an error number. */
int send_numbers(int pid, int signum, int standard, uint32_t label, uint64_t start, uint64_t stop,
                 const _Atomic uint64_t *progress, int count, const _Atomic uint64_t *calm,
                 int calm_count, uint32_t seed, unsigned widest, _Atomic uint64_t *tallies) {
    uint32_t random = seed | 1;
    uint64_t window = 1, burst_end = start;
    for (uint64_t number = start; number < stop; number++) {
        if (number >= burst_end) {
            window = UINT64_C(1) << next_random(&random) % (widest + 1);
            burst_end = number + window * (1 + next_random(&random) % 4);
            if (next_random(&random) % 8 == 0) {
                nap_us(next_random(&random) % 2000); /* let the receiver fall asleep now and then */
            }
        }
        while (number >= slowest(progress, count) + window) {
            nap_us(20);
        }
        if (any(calm, calm_count)) {
            nap_us(500 + next_random(&random) % 2000);
        }
        siginfo_t info;
        memset(&info, 0, sizeof info);
        info.si_signo = signum;
        info.si_code = SI_QUEUE;
        info.si_pid = getpid();
        info.si_uid = getuid();
        info.si_value.sival_int = (int)(label + (uint32_t)number);
        while (syscall(SYS_rt_sigqueueinfo, pid, signum, &info) != 0) {
            if (errno != EAGAIN) {
                return errno;
            }
            atomic_fetch_add(&tallies[0], 1); /* RLIMIT_SIGPENDING: try again */
            nap_us(100);
        }
        if (number % 16 == 0) {
            if (kill(pid, standard) != 0) {
                return errno;
            }
            atomic_fetch_add(&tallies[1], 1);
        }
    }
    return 0;
}
