/* Races the lock-free parts of the inbox without Python: producers push, one consumer takes out.
 * Context: plain threads in the place of signal handlers; an inbox is the same to both.
 * Callers: tests/test_inbox_harness.py, and tests/sanitizers/run.py with ThreadSanitizer.
 *
 * Usage: inbox_harness RECORDS SECONDS. Each of PRODUCERS threads pushes RECORDS records, round
 * robin to SIGNALS_USED signals, with its own number and a sequence number in siginfo's si_pid and
 * si_uid. A full queue refuses; the producer counts that, and gives up or tries again. Then: for
 * each signal, pushed = taken; and of each producer the sequence numbers of one signal come in
 * order, none twice, and only those missing that were refused. */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "inbox.h"

#define PRODUCERS 4
#define SIGNALS_USED 3

/* A standard signal's queue is short, so that it fills; its producers give up then, the others
 * insist. */
static const int numbers[SIGNALS_USED] = {SIGUSR1, 40, 41};
#define GIVES_UP 0

static struct inbox *inbox;
static struct ring_slot *slots[SIGNALS];
static uint32_t records;
static _Atomic bool go;
static _Atomic int producing;

static struct producer {
    pthread_t thread;
    uint32_t number;
    uint64_t pushed[SIGNALS_USED];
    uint64_t refused[SIGNALS_USED];
} producers[PRODUCERS];

static _Noreturn void fail(const char *what, int signum, uint64_t got, uint64_t expected) {
    fprintf(stderr, "FAILED: %s, signal %d: %" PRIu64 ", expected %" PRIu64 "\n", what, signum, got,
            expected);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void *produce(void *argument) {
    struct producer *self = argument;
    while (!atomic_load(&go)) {
        sched_yield();
    }
    for (uint32_t sequence = 1; sequence <= records; sequence++) {
        int which = (int)(sequence % SIGNALS_USED);
        siginfo_t info;
        memset(&info, 0, sizeof info);
        info.si_signo = numbers[which];
        info.si_code = SI_QUEUE;
        info.si_pid = (pid_t)self->number;
        info.si_uid = sequence;
        info.si_errno = (int)(sequence ^ self->number); /* torn records would show */
        struct arrived arrived = {&info, now_ns(), sequence * UINT64_C(0x9E3779B97F4A7C15)};
        while (!inbox_push(inbox, slots[info.si_signo], info.si_signo, &arrived)) {
            self->refused[which]++;
            if (which == GIVES_UP) {
                goto next;
            }
            sched_yield();
        }
        self->pushed[which]++;
    next:;
    }
    atomic_fetch_sub(&producing, 1);
    return NULL;
}

static uint64_t taken[SIGNALS_USED];
static uint64_t missing[SIGNALS_USED];
static uint32_t last[SIGNALS_USED][PRODUCERS];

static int index_of(int signum) {
    for (int which = 0; which < SIGNALS_USED; which++) {
        if (numbers[which] == signum) {
            return which;
        }
    }
    fail("a signal that nobody pushed", signum, 0, 0);
}

static void check(int signum, const struct arrival_record *record) {
    siginfo_t info;
    record_to_siginfo(record, signum, &info);
    uint32_t producer = (uint32_t)info.si_pid;
    uint32_t sequence = info.si_uid;
    int which = index_of(signum);
    if (producer >= PRODUCERS || info.si_errno != (int)(sequence ^ producer) ||
        info.si_code != SI_QUEUE || record->thread != sequence * UINT64_C(0x9E3779B97F4A7C15)) {
        fail("a torn record of producer", signum, producer, sequence);
    }
    if (sequence % SIGNALS_USED != (uint32_t)which) {
        fail("a record in another signal's queue", signum, sequence, 0);
    }
    uint32_t *before = &last[which][producer];
    uint32_t next =
        *before == 0 ? (which == 0 ? SIGNALS_USED : (uint32_t)which) : *before + SIGNALS_USED;
    if (sequence < next || (which != GIVES_UP && sequence != next)) {
        fail("out of order", signum, sequence, next);
    }
    missing[which] += (sequence - next) / SIGNALS_USED;
    *before = sequence;
    taken[which]++;
}

static bool take_one(uint64_t may_run) {
    int signum = inbox_oldest(inbox, slots, may_run);
    struct arrival_record record;
    if (signum == 0) {
        return false;
    }
    if (!inbox_pop(inbox, slots[signum], signum, &record)) {
        fail("an oldest record that is not there", signum, 0, 1);
    }
    check(signum, &record);
    return true;
}

static void consume(void) {
    uint64_t round = 0;
    uint64_t all = ~UINT64_C(0);
    struct timespec pause = {0, 2000000};
    while (atomic_load(&producing) > 0) {
        /* Now and then hold one signal back, as delivery does while its handler runs, or let the
         * queues fill. */
        uint64_t held = round % 5 == 0 ? signal_bit(numbers[round % SIGNALS_USED]) : 0;
        for (int i = 0; i < 20000 && take_one(all & ~held); i++) {
        }
        if (round++ % 64 == 0) {
            nanosleep(&pause, NULL);
        }
    }
    /* `ready` alone must lead to the rest: a bit that was cleared wrongly hides records for ever.
     */
    while (take_one(all)) {
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s RECORDS SECONDS\n", argv[0]);
        return 2;
    }
    records = (uint32_t)strtoul(argv[1], NULL, 10);
    alarm((unsigned)strtoul(argv[2], NULL, 10)); /* a hang dies of SIGALRM */
    bool wiped;
    inbox = inbox_map(&wiped);
    for (int which = 0; which < SIGNALS_USED; which++) {
        slots[numbers[which]] = inbox_map_slots(numbers[which]);
    }
    atomic_store(&producing, PRODUCERS);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        producers[i].number = i;
        if (pthread_create(&producers[i].thread, NULL, produce, &producers[i]) != 0) {
            fail("pthread_create", 0, i, PRODUCERS);
        }
    }
    atomic_store(&go, true);
    consume();
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(producers[i].thread, NULL);
    }
    for (int which = 0; which < SIGNALS_USED; which++) {
        int signum = numbers[which];
        uint64_t pushed = 0, refused = 0, tail_missing = 0;
        for (int i = 0; i < PRODUCERS; i++) {
            pushed += producers[i].pushed[which];
            refused += producers[i].refused[which];
            uint32_t end = records - (records - (uint32_t)which) % SIGNALS_USED;
            tail_missing += (end - last[which][i]) / SIGNALS_USED;
        }
        struct inbox_queue *queue = &inbox->queues[signum];
        if (taken[which] != pushed) {
            fail("taken", signum, taken[which], pushed);
        }
        if (atomic_load(&queue->ring.tail) != pushed || atomic_load(&queue->ring.head) != pushed) {
            fail("positions", signum, atomic_load(&queue->ring.tail), pushed);
        }
        if (which == GIVES_UP && missing[which] + tail_missing != refused) {
            fail("refused, and missing", signum, missing[which] + tail_missing, refused);
        }
        printf("signal %d: %" PRIu64 " pushed and taken, %" PRIu64 " refused\n", signum, pushed,
               refused);
    }
    if (atomic_load(&inbox->ready) != 0) {
        fail("ready, with nothing in the queues", 0, atomic_load(&inbox->ready), 0);
    }
    return 0;
}
