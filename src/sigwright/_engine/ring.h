/* A ring: a bounded lock-free queue of arrivals, many producers, one consumer at a time.
 * Context: ring_push runs in signal context; the rest with the GIL, which makes it one consumer.
 * Callers: inbox.h (one ring for each signal), consumers.h (one for each consumer); no Python.h, so
 * that a C harness can race it.
 *
 * It is Vyukov's bounded queue. A slot's `lap` says whose turn it is:
 *   2 * k      free for the producer of position k * slots + i
 *   2 * k + 1  that producer has published it
 * A producer claims a position by compare-and-swap on `tail`, fills the slot, and publishes with a
 * release store of `lap`; the consumer's acquire load of `lap` therefore sees the whole record. It
 * hands the slot on with a release store that the producer of the next lap acquires. A producer
 * that is descheduled between claim and publish hides later records of that ring until it goes on;
 * it rings only after it has published, so nothing waits for ever.
 *
 * All-zero memory is an empty ring: MADV_WIPEONFORK makes the kernel hand a forked child zeroes, in
 * the same instant as the fork, so that exactly the parent's arrivals vanish and a signal that
 * reaches the child early is already kept. */
#ifndef SIGWRIGHT_RING_H
#define SIGWRIGHT_RING_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The part of siginfo_t's union that Linux fills for any origin: SIGCHLD's is the largest. */
#define SIGINFO_FIELDS 32

/* One arrival. The signal's number stands beside it, in its slot. */
struct arrival_record {
    uint64_t monotonic_ns;
    uint64_t thread; /* pthread_self() of the thread that it landed on: threading.get_ident() */
    int32_t code;    /* si_code */
    int32_t error;   /* si_errno */
    unsigned char fields[SIGINFO_FIELDS];
};

/* 64 bytes: one cache line. */
struct ring_slot {
    struct arrival_record record;
    _Atomic uint32_t lap;
    uint16_t signum;
    uint16_t handled; /* a handler of signal(), or a C handler from before, has it as well */
};

/* An arrival that is not put down yet. */
struct arrived {
    const siginfo_t *info;
    uint64_t monotonic_ns;
    uint64_t thread;
};

static inline void record_fill(struct arrival_record *record, const struct arrived *arrived) {
    record->monotonic_ns = arrived->monotonic_ns;
    record->thread = arrived->thread;
    record->code = arrived->info->si_code;
    record->error = arrived->info->si_errno;
    memcpy(record->fields, &arrived->info->si_pid, SIGINFO_FIELDS);
}

struct ring {
    /* Written in signal context. */
    _Alignas(64) _Atomic uint64_t tail;
    _Atomic uint64_t refused; /* found it full */
    /* Written by the consumer. */
    _Alignas(64) _Atomic uint64_t head;
};

static inline uint32_t ring_lap(unsigned bits, uint64_t position) {
    return (uint32_t)(position >> bits) * 2;
}

static inline struct ring_slot *ring_slot_at(struct ring_slot *slots, unsigned bits,
                                             uint64_t position) {
    return &slots[position & ((UINT64_C(1) << bits) - 1)];
}

/* Claim, fill, publish. False: `most` records wait already, and nothing was changed. There are
 * 1 << bits slots, `most` of them at once in use. */
static inline bool ring_push(struct ring *ring, struct ring_slot *slots, unsigned bits,
                             uint64_t most, int signum, bool handled,
                             const struct arrived *arrived) {
    uint64_t position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    struct ring_slot *slot;
    for (;;) {
        /* The head only grows: an old value of it refuses too early, never too late. */
        if (most < UINT64_C(1) << bits &&
            (int64_t)(position - atomic_load_explicit(&ring->head, memory_order_relaxed)) >=
                (int64_t)most) {
            return false;
        }
        slot = ring_slot_at(slots, bits, position);
        uint32_t lap = atomic_load_explicit(&slot->lap, memory_order_acquire);
        int32_t ahead = (int32_t)(lap - ring_lap(bits, position));
        if (ahead < 0) {
            return false;
        }
        if (ahead == 0) {
            if (atomic_compare_exchange_weak_explicit(&ring->tail, &position, position + 1,
                                                      memory_order_relaxed, memory_order_relaxed)) {
                break;
            }
        } else {
            position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        }
    }
    record_fill(&slot->record, arrived);
    slot->signum = (uint16_t)signum;
    slot->handled = handled;
    atomic_store_explicit(&slot->lap, ring_lap(bits, position) + 1, memory_order_release);
    return true;
}

/* The oldest record's slot, or NULL. Valid until it is popped. */
static inline const struct ring_slot *ring_head(struct ring *ring, struct ring_slot *slots,
                                                unsigned bits) {
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    struct ring_slot *slot = ring_slot_at(slots, bits, head);
    if (atomic_load_explicit(&slot->lap, memory_order_acquire) != ring_lap(bits, head) + 1) {
        return NULL;
    }
    return slot;
}

/* Let go of the slot that ring_head() gave. */
static inline void ring_pop(struct ring *ring, struct ring_slot *slots, unsigned bits) {
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    atomic_store_explicit(&ring_slot_at(slots, bits, head)->lap, ring_lap(bits, head) + 2,
                          memory_order_release);
    atomic_store_explicit(&ring->head, head + 1, memory_order_relaxed);
}

/* How many records wait, with those that are being filled. */
static inline uint64_t ring_waiting(struct ring *ring) {
    return atomic_load(&ring->tail) - atomic_load(&ring->head);
}

/* Latencies are counted in buckets: bucket n has those of 2^n to 2^(n+1) - 1 nanoseconds, the last
 * one whatever is longer (9 minutes). */
#define LATENCY_BUCKETS 40

static inline void count_latency(uint64_t buckets[LATENCY_BUCKETS], uint64_t nanoseconds) {
    unsigned bucket = 63U - (unsigned)__builtin_clzll(nanoseconds | 1);
    buckets[bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1]++;
}

#endif
