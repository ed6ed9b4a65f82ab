/* What arrivals read: set up by the main thread (with the GIL), read in signal context.
 * Context: see each function.
 * Callers: every file of the engine; no Python.h. */
#ifndef SIGWRIGHT_ARRIVAL_H
#define SIGWRIGHT_ARRIVAL_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "consumers.h"

enum door { LOUD, QUIET }; /* QUIET restarts system calls; see door.c */

#define WAKEUP_NONE UINT64_C(0xFFFFFFFF) /* the fd -1, no flags */
#define WAKEUP_WARN_FULL (UINT64_C(1) << 32)
#define WAKEUP_ZERO_BYTE (UINT64_C(1) << 33)
#define WAKEUP_SILENT (UINT64_C(1) << 34)

struct arrival_state {
    struct inbox *inbox;
    struct ring_slot *slots[SIGNALS]; /* NULL: no handler of it was ever set */
    int first_realtime;

    pthread_t main_thread;
    _Atomic pid_t main_tid;
    _Atomic int doors[2];
    void (*door_handler)(int); /* CPython's own C handler, which makes the interpreter look */
    bool marks_anywhere;       /* it may be called on any thread: from 3.13 on */
    _Atomic int timer;         /* the kernel's number of the timer that repeats the ring; or -1 */
    _Atomic int clock;         /* the one that rings at deadlines (clock.c); or -1 */
    _Atomic int dump_signal;   /* raises faulthandler's dump of all stacks; or 0 */
    _Atomic bool closed;       /* the interpreter is ending: record and ring nothing any more */

    /* Who gets what: the inbox (the handler of signal()), the consumers, and a C handler that was
     * there before the first consumer. */
    _Atomic uint64_t to_inbox;
    _Atomic(struct audience *) audiences[SIGNALS];
    _Atomic uint64_t chained;
    _Atomic uint64_t watched; /* by force_exit() */

    _Atomic uint64_t restart; /* signals whose system calls restart: no loud ring for them */
    _Atomic uint64_t held;    /* real-time signals whose handler is running */
    /* What deferred() holds in the main thread: signals; and limits and timers. */
    _Atomic uint64_t deferred;
    _Atomic bool clock_deferred;
    /* The main thread is inside one of our functions that looks for arrivals before it returns:
     * there is no gap for the timer to close. Written by the main thread, read on it. */
    volatile sig_atomic_t looks_soon;
    /* How often something has landed on the main thread and broken its system call. Written and
     * read there. */
    volatile uint32_t landed;
    _Atomic uint64_t wakeup; /* the wakeup fd with its flags, in one word */

    /* C handlers from before ours: real faults go to them first, and every arrival where the signal
     * is chained. */
    struct sigaction previous[SIGNALS];
    _Atomic uint64_t has_previous;
    /* For arrivals_end(): who replaces an audience, the wakeup fd, a door or the timer, or closes,
     * waits until no arrival still uses the old one. */
    _Atomic uint32_t epoch;
    void *restorer;  /* where the kernel has our handlers return to */
    ptrdiff_t frame; /* from the siginfo_t to the ucontext_t in a frame that the kernel made */
    /* Arrivals that the main thread is in (one, unless somebody else's handler calls ours without
     * a mask), and how often it has left the last. */
    _Atomic uint32_t main_depth;
    _Atomic uint32_t main_over;
};

extern struct arrival_state arrivals;

#define NEVER UINT64_MAX /* a time in nanoseconds of CLOCK_MONOTONIC */

static inline uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* The OS-level handlers: only the kernel calls them. */
void arrival(int signum, siginfo_t *info, void *context);
void door_landed(int signum, siginfo_t *info, void *context);
void measure_frame(int signum, siginfo_t *info, void *context);

/* Signal context, or the main thread. */
void arm_timer(void);
void ring_main_thread(void);
void write_wakeup_byte(int signum);
bool arrivals_wait_for_delivery(void);
bool arrivals_may_interrupt(void);
void raise_waker(struct waker *waker);

#endif
