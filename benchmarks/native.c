/* The floor: what the kernel itself takes, from C without Python. And senders: of queued signals
 * that can be told apart, and of one signal at a time from a thread of its own. Compiled by
 * harness.native() when the benchmarks run. */
#define _GNU_SOURCE
#include <errno.h>
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

static void sleep_us(long microseconds) {
    struct timespec time = {.tv_nsec = microseconds * 1000};
    nanosleep(&time, NULL);
}

/* Queues `count` signals to another process, as fast as it can; each carries its number as the
 * value. While the kernel's queue is full (EAGAIN) it sleeps: asking again at once would hold up
 * the receiver, who needs the same lock. Returns how often it did, or -1. */
int send_numbered(int pid, int signum, int count) {
    int retries = 0;
    for (int i = 0; i < count; i++) {
        while (sigqueue(pid, signum, (union sigval){.sival_int = i}) != 0) {
            if (errno != EAGAIN) {
                return -1;
            }
            retries++;
            sleep_us(50);
        }
    }
    return retries;
}

/* Tells the sender to begin by a byte to `start`, and takes `count` signals with their values.
 * Returns the nanoseconds for all, or -1. The signal is blocked in every thread. */
long long take_numbered(int start, int signum, int count, int *values) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signum);
    long long began = now_ns();
    if (write(start, "\n", 1) != 1) {
        return -1;
    }
    for (int i = 0; i < count; i++) {
        siginfo_t info;
        while (sigwaitinfo(&set, &info) != signum) {
            if (errno != EINTR) {
                return -1;
            }
        }
        values[i] = info.si_value.sival_int;
    }
    return now_ns() - began;
}

/* A thread's work: sends `count` signals to its own process, the next one when `*asked` says so and
 * `idle_us` later: whoever asked is asleep by then. `sent` gets the times. Without the GIL. */
void send_when_asked(int signum, int count, long idle_us, const int *asked, long long *sent) {
    for (int i = 0; i < count; i++) {
        while (__atomic_load_n(asked, __ATOMIC_ACQUIRE) <= i) {
            sleep_us(20);
        }
        sleep_us(idle_us);
        sent[i] = now_ns();
        kill(getpid(), signum);
    }
}
