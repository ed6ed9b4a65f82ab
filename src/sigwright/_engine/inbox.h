/* The inbox: what arrived and was not yet delivered, one lock-free queue for each signal number.
 * Context: inbox_push runs in signal context; the rest in the main thread, with the GIL.
 * Callers: arrival.c pushes; delivery.c pops; module.c maps; no Python.h, so that a C harness can
 * race it.
 *
 * Why a queue for each signal, and not one ring for all. One ring keeps the order for free, but a
 * flood of one signal then crowds out every other, and a real-time signal that has to wait for its
 * own handler blocks the ones behind it. With a queue each, delivery asks for the oldest head among
 * the signals that may run now, by the time stamps that arrivals carry anyway.
 *
 * The queue is Vyukov's bounded queue with one consumer. A slot's `lap` says whose turn it is:
 *   2 * k      free for the producer of position k * slots + i
 *   2 * k + 1  that producer has published it
 * A producer claims a position by compare-and-swap on `tail`, fills the slot, and publishes with a
 * release store of `lap`; the consumer's acquire load of `lap` therefore sees the whole record. It
 * hands the slot on with a release store that the producer of the next lap acquires. A producer
 * that is descheduled between claim and publish hides later records of that one signal until it
 * goes on; it rings only after it has published, so nothing waits for ever.
 *
 * All-zero memory is an empty inbox. That is why laps start at 0 and why everything that must
 * vanish in a forked child (positions, counts, rings under way) lives in this mapping:
 * MADV_WIPEONFORK makes the kernel hand the child zeroes, in the same instant as the fork, so that
 * exactly the parent's arrivals vanish and a signal that reaches the child early is already kept.
 */
#ifndef SIGWRIGHT_INBOX_H
#define SIGWRIGHT_INBOX_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SIGNALS 65 /* one more than the highest signal number, as CPython's NSIG */

_Static_assert(_NSIG == SIGNALS, "the bit sets of the engine hold 64 signals");

/* The part of siginfo_t's union that Linux fills for any origin: SIGCHLD's is the largest. */
#define SIGINFO_FIELDS 32

/* One arrival: 64 bytes with its lap, one cache line. The signal number is the queue's. */
struct arrival_record {
    uint64_t monotonic_ns;
    uint64_t thread; /* pthread_self() of the thread that it landed on: threading.get_ident() */
    int32_t code;    /* si_code */
    int32_t error;   /* si_errno */
    unsigned char fields[SIGINFO_FIELDS];
};

struct inbox_slot {
    struct arrival_record record;
    _Atomic uint32_t lap;
};

struct inbox_queue {
    /* Written in signal context. */
    _Alignas(64) _Atomic uint64_t tail;
    _Atomic uint64_t merged_full;  /* standard signals that found the queue full: folded into it */
    _Atomic uint64_t dropped_full; /* real-time signals that found it full */
    /* Written by the main thread only. */
    _Alignas(64) _Atomic uint64_t head;
    uint64_t deliveries;
    uint64_t merges;
    uint64_t dropped_late; /* arrived, but the handler was gone when its turn came */
    uint64_t simulated;
};

struct inbox {
    _Atomic uint64_t ready; /* a bit for each signal whose queue may hold something */
    _Atomic uint32_t rung[2];
    _Atomic uint32_t timer_armed;
    _Atomic uint32_t timer_delay_us;
    _Atomic uint32_t idle_rings; /* a door rang and there was nothing to do */
    _Atomic uint32_t wakeup_failures;
    _Atomic int32_t wakeup_errno;
    _Alignas(64) _Atomic uint32_t in_flight[2];
    struct inbox_queue queues[SIGNALS];
};

static inline uint64_t signal_bit(int signum) { return UINT64_C(1) << (signum - 1); }

/* How many records a signal's queue holds, as a power of two. Real-time signals: 65,536. Standard
 * ones, which are merged anyway where they wait: 1,024, so that the queue's pages are soon all in
 * use and no arrival meets a page fault. */
static inline unsigned inbox_bits(int signum) { return signum < __SIGRTMIN ? 10 : 16; }

static inline uint32_t inbox_lap(int signum, uint64_t position) {
    return (uint32_t)(position >> inbox_bits(signum)) * 2;
}

static inline struct inbox_slot *inbox_slot_at(struct inbox_slot *slots, int signum,
                                               uint64_t position) {
    return &slots[position & ((UINT64_C(1) << inbox_bits(signum)) - 1)];
}

/* Claim, fill, publish. False: full, and nothing was changed. */
static inline bool inbox_push(struct inbox *inbox, struct inbox_slot *slots, int signum,
                              const siginfo_t *info, uint64_t monotonic_ns, uint64_t thread) {
    struct inbox_queue *queue = &inbox->queues[signum];
    uint64_t position = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    struct inbox_slot *slot;
    for (;;) {
        slot = inbox_slot_at(slots, signum, position);
        uint32_t lap = atomic_load_explicit(&slot->lap, memory_order_acquire);
        int32_t ahead = (int32_t)(lap - inbox_lap(signum, position));
        if (ahead < 0) {
            return false;
        }
        if (ahead == 0) {
            if (atomic_compare_exchange_weak_explicit(&queue->tail, &position, position + 1,
                                                      memory_order_relaxed, memory_order_relaxed)) {
                break;
            }
        } else {
            position = atomic_load_explicit(&queue->tail, memory_order_relaxed);
        }
    }
    struct arrival_record *record = &slot->record;
    record->monotonic_ns = monotonic_ns;
    record->thread = thread;
    record->code = info->si_code;
    record->error = info->si_errno;
    memcpy(record->fields, &info->si_pid, SIGINFO_FIELDS);
    atomic_store_explicit(&slot->lap, inbox_lap(signum, position) + 1, memory_order_release);
    /* Publish first, then say so: whoever clears the bit looks at the queue again afterwards. */
    atomic_fetch_or(&inbox->ready, signal_bit(signum));
    return true;
}

struct inbox *inbox_map(bool *wiped_on_fork);
struct inbox_slot *inbox_map_slots(int signum);
void inbox_wipe(struct inbox *inbox, struct inbox_slot *const slots[SIGNALS]);
const struct arrival_record *inbox_head(struct inbox *inbox, struct inbox_slot *slots, int signum);
bool inbox_pop(struct inbox *inbox, struct inbox_slot *slots, int signum,
               struct arrival_record *record);
int inbox_oldest(struct inbox *inbox, struct inbox_slot *const slots[SIGNALS], uint64_t may_run);
void record_to_siginfo(const struct arrival_record *record, int signum, siginfo_t *info);

#endif
