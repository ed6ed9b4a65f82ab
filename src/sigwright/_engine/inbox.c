/* The inbox: mapping it, and taking records out (putting them in is inline, in ring.h).
 * Context: the main thread, with the GIL.
 * Callers: module.c and dispositions.c map; delivery.c takes out; the C harness of the tests. */
#include "inbox.h"

#include <string.h>
#include <sys/mman.h>

/* Memory that is zeroes in a forked child. NULL without memory, errno set. `wiped_on_fork` is false
 * on a kernel before 4.14 (or a sandbox that lacks the advice): the child's hook then wipes by
 * hand, a little later. */
void *map_wiped(size_t size, bool *wiped_on_fork) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    *wiped_on_fork = madvise(memory, size, MADV_WIPEONFORK) == 0;
    return memory;
}

struct inbox *inbox_map(bool *wiped_on_fork) {
    return map_wiped(sizeof(struct inbox), wiped_on_fork);
}

static size_t slots_size(int signum) { return sizeof(struct ring_slot) << inbox_bits(signum); }

/* Address space only (4 MiB for a real-time signal): the kernel gives pages as they are first used.
 */
struct ring_slot *inbox_map_slots(int signum) {
    bool ignored;
    return map_wiped(slots_size(signum), &ignored);
}

/* What MADV_WIPEONFORK does, for kernels without it. */
void inbox_wipe(struct inbox *inbox, struct ring_slot *const slots[SIGNALS]) {
    memset(inbox, 0, sizeof *inbox);
    for (int signum = 1; signum < SIGNALS; signum++) {
        if (slots[signum] != NULL) {
            memset(slots[signum], 0, slots_size(signum));
        }
    }
}

/* The oldest record of a signal, or NULL. Valid until it is popped. */
const struct arrival_record *inbox_head(struct inbox *inbox, struct ring_slot *slots, int signum) {
    const struct ring_slot *slot =
        ring_head(&inbox->queues[signum].ring, slots, inbox_bits(signum));
    return slot == NULL ? NULL : &slot->record;
}

/* Is there none left? Clear the bit, then look again: a record published in between has set the bit
 * before we cleared it, or will set it. */
static const struct arrival_record *head_or_clear(struct inbox *inbox, struct ring_slot *slots,
                                                  int signum) {
    const struct arrival_record *head = inbox_head(inbox, slots, signum);
    if (head == NULL) {
        atomic_fetch_and(&inbox->ready, ~signal_bit(signum));
        head = inbox_head(inbox, slots, signum);
        if (head != NULL) {
            atomic_fetch_or(&inbox->ready, signal_bit(signum));
        }
    }
    return head;
}

bool inbox_pop(struct inbox *inbox, struct ring_slot *slots, int signum,
               struct arrival_record *record) {
    const struct arrival_record *oldest = inbox_head(inbox, slots, signum);
    if (oldest == NULL) {
        return false;
    }
    *record = *oldest;
    ring_pop(&inbox->queues[signum].ring, slots, inbox_bits(signum));
    head_or_clear(inbox, slots, signum);
    return true;
}

/* The signal whose oldest record arrived first, among those in `may_run`; 0 where none waits. */
int inbox_oldest(struct inbox *inbox, struct ring_slot *const slots[SIGNALS], uint64_t may_run) {
    int oldest = 0;
    uint64_t oldest_ns = UINT64_MAX;
    uint64_t ready = atomic_load(&inbox->ready) & may_run;
    while (ready != 0) {
        int signum = __builtin_ctzll(ready) + 1;
        ready &= ready - 1;
        const struct arrival_record *head = head_or_clear(inbox, slots[signum], signum);
        if (head == NULL) {
            continue;
        }
        if (head->monotonic_ns < oldest_ns) {
            oldest_ns = head->monotonic_ns;
            oldest = signum;
        }
    }
    return oldest;
}

void record_to_siginfo(const struct arrival_record *record, int signum, siginfo_t *info) {
    memset(info, 0, sizeof *info);
    info->si_signo = signum;
    info->si_code = record->code;
    info->si_errno = record->error;
    memcpy(&info->si_pid, record->fields, SIGINFO_FIELDS);
}
