/* Consumers: who gets a copy of each arrival of some signals, beside the handler of signal().
 * Context: consumer_push and waker_raise run in signal context; the rest with the GIL.
 * Callers: arrival.c pushes; consumers.c opens, reads and closes; no Python.h. */
#ifndef SIGWRIGHT_CONSUMERS_H
#define SIGWRIGHT_CONSUMERS_H

#include "inbox.h"

enum consumer_kind {
    LISTENER,       /* read by whoever likes, in any thread, through its own file descriptor */
    MAIN_HANDLER,   /* an added handler, called in the main thread by delivery.c */
    THREAD_HANDLER, /* an added handler, called in sigwright's own thread */
};

/* The start of a consumer's mapping, which is wiped at a fork. */
struct consumer_shared {
    struct ring ring;
    struct waker waker;             /* a listener's */
    _Atomic uint32_t in_reserve;    /* reserved slots that hold a record */
    _Atomic uint64_t ever_reserved; /* records that went there, ever */
};

struct consumer {
    enum consumer_kind kind;
    uint64_t signals;               /* a bit each */
    struct consumer_shared *shared; /* the mapping: this, the slots, the reserve */
    struct ring_slot *slots;
    struct ring_slot *reserve; /* one slot for each signal, in the order of their numbers */
    uint8_t place[SIGNALS];    /* where in the reserve */
    unsigned bits;             /* 1 << bits slots, of which at most `maxsize` are in use */
    uint64_t maxsize;
    struct waker *waker; /* NULL: the main thread is woken by a door */
};

/* Who gets a signal. Never changed once it is published: a writer replaces it, and frees it when no
 * arrival reads it any more. In the order of registration. */
struct audience {
    int count;
    bool has_main_handler;
    struct consumer *consumers[];
};

/* The reserve: a full ring still has one slot for each of its signals, so that a flood of one
 * cannot hide another. `lap` is 0 where it is free, 1 while it is filled, 2 with a record. */
static inline bool reserve_push(struct consumer *consumer, int signum, bool handled,
                                const struct arrived *arrived) {
    struct ring_slot *slot = &consumer->reserve[consumer->place[signum]];
    uint32_t free_slot = 0;
    if (!atomic_compare_exchange_strong(&slot->lap, &free_slot, 1)) {
        return false;
    }
    record_fill(&slot->record, arrived);
    slot->signum = (uint16_t)signum;
    slot->handled = handled;
    atomic_fetch_add(&consumer->shared->ever_reserved, 1);
    atomic_store_explicit(&slot->lap, 2, memory_order_release);
    atomic_fetch_add(&consumer->shared->in_reserve, 1);
    return true;
}

static inline void consumer_push(struct consumer *consumer, int signum, bool handled,
                                 const struct arrived *arrived) {
    struct ring *ring = &consumer->shared->ring;
    if (!ring_push(ring, consumer->slots, consumer->bits, consumer->maxsize, signum, handled,
                   arrived) &&
        !reserve_push(consumer, signum, handled, arrived)) {
        atomic_fetch_add(&ring->refused, 1);
    }
}

/* consumer_rings.c */
const struct ring_slot *consumer_oldest(const struct consumer *consumer);
void consumer_let_go(const struct consumer *consumer, const struct ring_slot *slot);
uint64_t consumer_waiting(const struct consumer *consumer);
void waker_clear(struct waker *waker, int fd);

#endif
