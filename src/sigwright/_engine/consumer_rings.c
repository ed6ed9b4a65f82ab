/* A consumer's ring and reserve: the reader's side (the producer's is inline, in consumers.h).
 * Context: with the GIL, which makes it one reader.
 * Callers: reading.c, added_handlers.c, consumers.c; the C harness of the tests: no Python.h. */
#include "consumers.h"

#include <unistd.h>

static const struct ring_slot *oldest_reserved(const struct consumer *consumer) {
    const struct ring_slot *oldest = NULL;
    int count = __builtin_popcountll(consumer->signals);
    for (int i = 0; i < count; i++) {
        const struct ring_slot *slot = &consumer->reserve[i];
        if (atomic_load_explicit(&slot->lap, memory_order_acquire) == 2 &&
            (oldest == NULL || slot->record.monotonic_ns < oldest->record.monotonic_ns)) {
            oldest = slot;
        }
    }
    return oldest;
}

/* The oldest record's slot, or NULL. A thread's arrivals come out in their order: the reserve is
 * looked at first, for what is there then is older than whatever goes into the ring later; and once
 * more where something went into it meanwhile (finitely often: only we free its slots). */
const struct ring_slot *consumer_oldest(const struct consumer *consumer) {
    struct consumer_shared *shared = consumer->shared;
    for (;;) {
        uint64_t ever_reserved = atomic_load(&shared->ever_reserved);
        const struct ring_slot *reserved =
            atomic_load(&shared->in_reserve) != 0 ? oldest_reserved(consumer) : NULL;
        const struct ring_slot *head = ring_head(&shared->ring, consumer->slots, consumer->bits);
        if (atomic_load(&shared->ever_reserved) != ever_reserved) {
            continue;
        }
        if (reserved == NULL) {
            return head;
        }
        if (head == NULL && ring_waiting(&shared->ring) == 0) {
            return reserved;
        }
        /* A record at the head that is still being filled is older: who fills it wakes us then. */
        head = head != NULL ? head : ring_head(&shared->ring, consumer->slots, consumer->bits);
        return head == NULL || head->record.monotonic_ns <= reserved->record.monotonic_ns
                   ? head
                   : reserved;
    }
}

uint64_t consumer_waiting(const struct consumer *consumer) {
    return ring_waiting(&consumer->shared->ring) + atomic_load(&consumer->shared->in_reserve);
}

void consumer_let_go(const struct consumer *consumer, const struct ring_slot *slot) {
    const struct ring_slot *end = consumer->reserve + __builtin_popcountll(consumer->signals);
    if (slot >= consumer->reserve && slot < end) {
        atomic_fetch_sub(&consumer->shared->in_reserve, 1);
        atomic_store_explicit(&((struct ring_slot *)slot)->lap, 0, memory_order_release);
    } else {
        ring_pop(&consumer->shared->ring, consumer->slots, consumer->bits);
    }
}

/* The reader found nothing. First the descriptor, then the mark, then another look by the caller: a
 * producer that still sees the mark has published before, so that the look finds its record. */
void waker_clear(struct waker *waker, int fd) {
    uint64_t ignored;
    ssize_t count = read(fd, &ignored, sizeof ignored);
    (void)count;
    atomic_store(&waker->raised, 0);
}
