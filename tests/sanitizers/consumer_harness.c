/* Races a consumer's ring and reserve: PRODUCERS threads push, one reads, as the GIL has it.
 * Context: a program of its own, without Python.
 * Callers: tests/test_inbox_harness.py, with and without ThreadSanitizer.
 *
 * Usage: consumer_harness RECORDS SECONDS. Each producer pushes RECORDS records, in bursts and
 * round robin over its signals, into one consumer that is far too small. Then, for each producer:
 * what was read is in order, whole, and together with what was refused all that was pushed; and no
 * signal is hidden: when the reader comes, each signal that was pushed since it was last empty has
 * a record there. */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "consumers.h"

#define PRODUCERS 3
#define SIGNALS_USED 4
#define MAXSIZE 11 /* no power of two: the limit is another one than the slots' */

static const int numbers[SIGNALS_USED] = {1, 15, 40, 64};
static struct consumer consumer;
static uint32_t records;
static _Atomic int producing = PRODUCERS;
static _Atomic bool go;

static _Noreturn void fail(const char *what, uint64_t got, uint64_t expected) {
    fprintf(stderr, "FAILED: %s: %" PRIu64 ", expected %" PRIu64 "\n", what, got, expected);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void make_consumer(void) {
    bool wiped;
    consumer.kind = LISTENER;
    consumer.maxsize = MAXSIZE;
    consumer.bits = 4;
    consumer.shared = map_wiped(
        sizeof *consumer.shared + ((1U << 4) + SIGNALS_USED) * sizeof(struct ring_slot), &wiped);
    consumer.slots = (struct ring_slot *)(consumer.shared + 1);
    consumer.reserve = consumer.slots + (1U << 4);
    for (int i = 0; i < SIGNALS_USED; i++) {
        consumer.signals |= signal_bit(numbers[i]);
        consumer.place[numbers[i]] = (uint8_t)i;
    }
}

static void *produce(void *argument) {
    uint32_t producer = (uint32_t)(uintptr_t)argument;
    while (!atomic_load(&go)) {
        sched_yield();
    }
    for (uint32_t sequence = 1; sequence <= records; sequence++) {
        siginfo_t info = {.si_code = SI_QUEUE};
        info.si_pid = (pid_t)producer;
        info.si_uid = sequence;
        info.si_errno = (int)(sequence ^ producer); /* torn records would show */
        struct arrived arrived = {&info, now_ns(), sequence * UINT64_C(0x9E3779B97F4A7C15)};
        consumer_push(&consumer, numbers[sequence % SIGNALS_USED], sequence & 1, &arrived);
        if (sequence % 64 == 0) {
            sched_yield();
        }
    }
    atomic_fetch_sub(&producing, 1);
    return NULL;
}

static uint64_t taken;
static uint32_t last[PRODUCERS];

static void check(const struct ring_slot *slot) {
    siginfo_t info;
    record_to_siginfo(&slot->record, slot->signum, &info);
    uint32_t producer = (uint32_t)info.si_pid, sequence = info.si_uid;
    if (producer >= PRODUCERS || info.si_errno != (int)(sequence ^ producer) ||
        slot->record.thread != sequence * UINT64_C(0x9E3779B97F4A7C15) ||
        slot->signum != numbers[sequence % SIGNALS_USED] || slot->handled != (sequence & 1)) {
        fail("a torn record", sequence, producer);
    }
    if (sequence <= last[producer]) {
        fail("out of order", sequence, last[producer] + 1);
    }
    last[producer] = sequence;
    taken++;
}

static void read_some(int most) {
    const struct ring_slot *slot;
    while (most-- > 0 && (slot = consumer_oldest(&consumer)) != NULL) {
        check(slot);
        consumer_let_go(&consumer, slot);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        return 2;
    }
    records = (uint32_t)strtoul(argv[1], NULL, 10);
    alarm((unsigned)strtoul(argv[2], NULL, 10));
    make_consumer();
    pthread_t threads[PRODUCERS];
    for (uintptr_t i = 0; i < PRODUCERS; i++) {
        pthread_create(&threads[i], NULL, produce, (void *)i);
    }
    atomic_store(&go, true);
    unsigned random = 12345;
    while (atomic_load(&producing) > 0) {
        random = random * 1103515245U + 12345U;
        if (random >> 30 == 0) {
            sched_yield(); /* let it fill */
        } else {
            read_some((int)(random >> 16) % (2 * MAXSIZE));
        }
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
    }
    read_some(1000000);
    uint64_t refused = atomic_load(&consumer.shared->ring.refused);
    uint64_t pushed = (uint64_t)records * PRODUCERS;
    if (taken + refused != pushed) {
        fail("taken and refused", taken + refused, pushed);
    }
    if (atomic_load(&consumer.shared->ring.tail) + atomic_load(&consumer.shared->ever_reserved) !=
        taken) {
        fail("arrivals", atomic_load(&consumer.shared->ring.tail), taken);
    }
    if (consumer_waiting(&consumer) != 0) {
        fail("waiting", consumer_waiting(&consumer), 0);
    }
    /* A flood of one signal, and one of another: it is there. */
    siginfo_t info = {.si_code = SI_USER};
    struct arrived arrived = {&info, now_ns(), 0};
    for (int i = 0; i < 1000; i++) {
        consumer_push(&consumer, numbers[0], false, &arrived);
    }
    arrived.monotonic_ns++;
    consumer_push(&consumer, numbers[1], false, &arrived);
    if (consumer_waiting(&consumer) != MAXSIZE + 2) {
        fail("a hidden signal", consumer_waiting(&consumer), MAXSIZE + 2);
    }
    printf("%" PRIu64 " pushed, %" PRIu64 " taken, %" PRIu64 " refused\n", pushed, taken, refused);
    return taken > pushed / 1000 && refused > 0 ? 0 : 3; /* 3: it did not race */
}
