/* The inbox: what arrived for the handlers of signal() and was not yet delivered, one ring for each
 * signal number.
 * Context: inbox_push runs in signal context; the rest in the main thread, with the GIL.
 * Callers: arrival.c pushes; delivery.c pops; module.c maps; no Python.h, so that a C harness can
 * race it.
 *
 * Why a ring for each signal, and not one for all. One ring keeps the order for free, but a flood
 * of one signal then crowds out every other, and a real-time signal that has to wait for its own
 * handler blocks the ones behind it. With a ring each, delivery asks for the oldest head among the
 * signals that may run now, by the time stamps that arrivals carry anyway.
 *
 * Everything that must vanish in a forked child (positions, counts, rings under way) lives in this
 * mapping, which is wiped at the fork: see ring.h. */
#ifndef SIGWRIGHT_INBOX_H
#define SIGWRIGHT_INBOX_H

#include "ring.h"

#define SIGNALS 65 /* one more than the highest signal number, as CPython's NSIG */

_Static_assert(_NSIG == SIGNALS, "the bit sets of the engine hold 64 signals");

struct inbox_queue {
    struct ring ring;
    /* Written by the main thread only. */
    uint64_t deliveries;
    uint64_t merges;
    uint64_t dropped_late; /* arrived, but the handler was gone when its turn came */
    uint64_t simulated;
    uint64_t latency[LATENCY_BUCKETS]; /* arrival to the handler's call */
};

/* What has arrived of a watched signal since it was last answered; see watch.h. */
struct unanswered {
    _Atomic uint64_t since_ns;  /* the first; 0: none */
    _Atomic uint64_t undone_ns; /* the same, where to defer it is no answer */
    _Atomic uint64_t latest_ns; /* the latest, answered or not */
    _Atomic uint32_t presses;
    _Atomic uint32_t arrivals; /* ever */
};

/* A file descriptor (an eventfd) that is readable while something waits. In memory that is wiped at
 * a fork, so that an early arrival in the child does not wake the parent. */
struct waker {
    _Atomic uint32_t raised;
    _Atomic int32_t fd_plus_1; /* 0: none */
};

struct inbox {
    _Atomic uint64_t ready;     /* a bit for each signal whose queue may hold something */
    _Atomic uint64_t added;     /* the same for the added handlers of the main thread */
    _Atomic uint64_t simulated; /* _thread.interrupt_main() said so, and nothing may run yet */
    _Atomic uint64_t stdlib; /* landed on a worker, and CPython's own C handler is to have them */
    _Atomic uint32_t clock_due; /* a deadline of a limit or a timer is reached; see clock.c */
    _Atomic uint32_t rung[2];
    _Atomic uint32_t timer_armed;
    _Atomic uint32_t timer_delay_us;
    _Atomic uint32_t idle_rings; /* a door rang and there was nothing to do */
    _Atomic uint32_t wakeup_failures;
    _Atomic int32_t wakeup_errno;
    _Atomic int32_t pid; /* getpid(), once it was asked; 0 in a child of any kind of fork */
    bool settled;        /* false in a child that our fork hook has not been run in */
    struct waker thread; /* wakes sigwright's own thread */
    _Alignas(64) _Atomic uint32_t in_flight[2];
    struct inbox_queue queues[SIGNALS];
    struct unanswered unanswered[SIGNALS];
};

static inline uint64_t signal_bit(int signum) { return UINT64_C(1) << (signum - 1); }

#define FOR_EACH_SIGNAL(signum, set)                                                               \
    for (uint64_t left_ = (set), signum = 0;                                                       \
         left_ != 0 && (signum = (uint64_t)__builtin_ctzll(left_) + 1, true); left_ &= left_ - 1)

/* How many records a signal's queue holds, as a power of two. Real-time signals: 65,536. Standard
 * ones, which are merged anyway where they wait: 1,024, so that the queue's pages are soon all in
 * use and no arrival meets a page fault. */
static inline unsigned inbox_bits(int signum) { return signum < __SIGRTMIN ? 10 : 16; }

/* False: full; counted as refused. */
static inline bool inbox_push(struct inbox *inbox, struct ring_slot *slots, int signum,
                              const struct arrived *arrived) {
    struct ring *ring = &inbox->queues[signum].ring;
    unsigned bits = inbox_bits(signum);
    if (!ring_push(ring, slots, bits, UINT64_C(1) << bits, signum, true, arrived)) {
        atomic_fetch_add(&ring->refused, 1);
        return false;
    }
    /* Publish first, then say so: whoever clears the bit looks at the queue again afterwards. */
    atomic_fetch_or(&inbox->ready, signal_bit(signum));
    return true;
}

void *map_wiped(size_t size, bool *wiped_on_fork);
struct inbox *inbox_map(bool *wiped_on_fork);
struct ring_slot *inbox_map_slots(int signum);
void inbox_wipe(struct inbox *inbox, struct ring_slot *const slots[SIGNALS]);
const struct arrival_record *inbox_head(struct inbox *inbox, struct ring_slot *slots, int signum);
bool inbox_pop(struct inbox *inbox, struct ring_slot *slots, int signum,
               struct arrival_record *record);
int inbox_oldest(struct inbox *inbox, struct ring_slot *const slots[SIGNALS], uint64_t may_run);

void record_to_siginfo(const struct arrival_record *record, int signum, siginfo_t *info);

#endif
