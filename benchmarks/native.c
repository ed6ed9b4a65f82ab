/* The floor: what the kernel itself takes, from C without Python. And a sender of queued signals
 * that can be told apart. Compiled by harness.native() when the benchmarks run. */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static volatile sig_atomic_t handled;

static void one(int signum) {
    (void)signum;
    handled = 1;
}
static void other(int signum) {
    (void)signum;
    handled = 2;
}

/* Nanoseconds that one sigaction() takes, from handler to handler. */
double sigaction_ns(int signum, int count) {
    struct sigaction old, actions[2] = {{.sa_handler = one}, {.sa_handler = other}};
    sigfillset(&actions[0].sa_mask);
    sigfillset(&actions[1].sa_mask);
    sigaction(signum, NULL, &old);
    long long start = now_ns();
    for (int i = 0; i < count; i++) {
        sigaction(signum, &actions[i & 1], NULL);
    }
    long long end = now_ns();
    sigaction(signum, &old, NULL);
    return (double)(end - start) / count;
}

/* Nanoseconds from raise() until its handler, in C, is done: each of `count`. */
void raise_ns(int signum, int count, long long *each) {
    struct sigaction old, action = {.sa_handler = one};
    sigfillset(&action.sa_mask);
    sigaction(signum, &action, &old);
    for (int i = 0; i < count; i++) {
        long long start = now_ns();
        raise(signum);
        each[i] = now_ns() - start;
    }
    sigaction(signum, &old, NULL);
}

/* Queues `count` signals to this process. Each carries its number as the value, and as the sender's
 * user too, which Python can see. Returns how many the kernel took. */
int queue_numbered(int signum, int count) {
    for (int i = 0; i < count; i++) {
        siginfo_t info;
        memset(&info, 0, sizeof info);
        info.si_signo = signum;
        info.si_code = SI_QUEUE;
        info.si_pid = getpid();
        info.si_uid = (uid_t)i;
        info.si_value.sival_int = i;
        if (syscall(SYS_rt_sigqueueinfo, getpid(), signum, &info) != 0) {
            return i;
        }
    }
    return count;
}
