/* The watch: ends a process that does not answer. For force_exit() and graceful_shutdown().
 * Context: a native thread of its own, without the GIL, every signal blocked.
 * Callers: force_exit.c starts it; no Python.h.
 *
 * The thread must work in a process in which nothing else does: it takes no lock, allocates
 * nothing, needs no Python, and waits for nobody. What it reads are atomics; what it calls are
 * system calls. tests/test_arrival_symbols.py reads the object's undefined symbols.
 *
 * It looks ten times a second, and sleeps exactly until the next time is up; with nothing to watch
 * there is no thread. Arrivals only leave a mark (watch.h), they do not wake it. A signal that
 * every thread blocks does not even arrive, and can only be looked for. (A signalfd would tell, and
 * an eventfd could wake: but a program that makes itself a daemon closes all files that it does not
 * know, and the number is then another file, which we would read.)
 *
 * What does not count is time in which the watch itself did not run: the process was stopped
 * (Ctrl+Z, a debugger, a paused container), and nobody could have answered. */
#include "watch.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MS UINT64_C(1000000)
#define LOOK_NS (100 * MS)
/* When the time is up: wait so much longer, and look again, so often. */
#define HESITATION_NS (50 * MS)
#define GLANCE_NS (5 * MS)
/* So late, the process had been stopped; or the machine is so busy that it is as good as that. */
#define LATE_NS (50 * MS)
#define MOST_HESITATIONS 4

struct watching watching;

static bool read_order(const struct watch *watch, struct order *order, uint64_t *id) {
    *id = atomic_load(&watch->id);
    order->signals = atomic_load(&watch->signals);
    order->grace_ns = atomic_load(&watch->grace_ns);
    order->presses = atomic_load(&watch->presses);
    order->end_ns = atomic_load(&watch->end_ns);
    order->given_ns = atomic_load(&watch->given_ns);
    order->exit_code = atomic_load(&watch->exit_code);
    order->dump = atomic_load(&watch->dump);
    order->deferral_answers = atomic_load(&watch->deferral_answers);
    return *id != 0 && atomic_load(&watch->id) == *id;
}

bool anything_to_watch(void) {
    for (struct watch *watch = atomic_load(&watching.orders); watch != NULL; watch = watch->next) {
        if (atomic_load(&watch->id) != 0) {
            return true;
        }
    }
    return false;
}

/* What is unanswered, as this thread has seen it. `mark` says which: the time of its first arrival;
 * or that the signal is blocked, with the number of arrivals until now: one more, and it is not. */
static struct {
    uint64_t mark;    /* 0: nothing */
    uint64_t from_ns; /* its time counts from then on */
} seen[2][SIGNALS];   /* by whether to defer a signal is an answer */

#define BLOCKED (UINT64_C(1) << 63)

/* What the process's first thread blocks, the main one. What it does not block is pending only
 * until it runs, which on a busy machine is soon enough. All, where the kernel does not say: there
 * may be no file descriptor left. */
static uint64_t blocked_by_main(void) {
    static const char field[] = "SigBlk:\t";
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        return UINT64_MAX;
    }
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    const char *digit = strstr(text, field);
    if (digit == NULL) {
        return UINT64_MAX;
    }
    uint64_t mask = 0;
    for (digit += sizeof field - 1; *digit > ' '; digit++) {
        mask = mask << 4 | (uint64_t)(*digit <= '9' ? *digit - '0' : *digit - 'a' + 10);
    }
    return mask;
}

static void sleep_until(uint64_t at_ns) {
    const struct timespec at = {(time_t)(at_ns / 1000000000), (long)(at_ns % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* Ignored it would be, or nothing would come of it, if it were not blocked. */
static bool comes_to_nothing(int signum) {
    struct sigaction now;
    return sigaction(signum, NULL, &now) != 0 ||
           (!(now.sa_flags & SA_SIGINFO) &&
            (now.sa_handler == SIG_IGN ||
             (now.sa_handler == SIG_DFL && (HARMLESS & signal_bit(signum)))));
}

static uint64_t mark_of(int signum, bool deferral_answers, uint64_t blocked) {
    struct unanswered *unanswered = &arrivals.inbox->unanswered[signum];
    _Atomic uint64_t *first = deferral_answers ? &unanswered->since_ns : &unanswered->undone_ns;
    uint64_t since_ns = atomic_load(first);
    if (since_ns != 0 && has_handler(signum)) {
        return since_ns;
    }
    /* It is SIG_DFL or SIG_IGN by now: what came before that is over. */
    atomic_compare_exchange_strong(first, &since_ns, 0);
    return (blocked & signal_bit(signum)) && !comes_to_nothing(signum)
               ? BLOCKED | atomic_load(&unanswered->arrivals)
               : 0;
}

static void see_one(int signum, bool deferral_answers, uint64_t blocked, uint64_t now_ns) {
    uint64_t mark = mark_of(signum, deferral_answers, blocked);
    if (mark != seen[deferral_answers][signum].mark) {
        seen[deferral_answers][signum].mark = mark;
        /* Blocked since some time after the last look: the hesitation is not to come on top of
         * that. And an arrival that was noted before that was stopped, with all others, in the
         * middle. */
        seen[deferral_answers][signum].from_ns = (mark & BLOCKED)          ? now_ns - HESITATION_NS
                                                 : mark > now_ns - LOOK_NS ? mark
                                                                           : now_ns - LOOK_NS;
    }
}

static void see(uint64_t signals) {
    uint64_t blocked = 0;
    syscall(SYS_rt_sigpending, &blocked, sizeof blocked); /* of the process: all threads block it */
    blocked = (blocked & signals) == 0 ? 0 : blocked & blocked_by_main();
    uint64_t now_ns = monotonic_ns();
    FOR_EACH_SIGNAL (signum, signals) {
        see_one((int)signum, false, blocked, now_ns);
        see_one((int)signum, true, blocked, now_ns);
    }
}

/* So long the watch itself did not run: it does not count. */
static void give_back(uint64_t late_ns) {
    FOR_EACH_SIGNAL (signum, atomic_load(&arrivals.watched)) {
        seen[false][signum].from_ns += late_ns;
        seen[true][signum].from_ns += late_ns;
    }
    for (struct watch *watch = atomic_load(&watching.orders); watch != NULL; watch = watch->next) {
        uint64_t end_ns = atomic_load(&watch->end_ns);
        uint64_t age_ns = monotonic_ns() - atomic_load(&watch->given_ns);
        uint64_t more_ns = late_ns < age_ns ? late_ns : age_ns;
        if (atomic_load(&watch->id) != 0 && end_ns != NEVER) {
            atomic_compare_exchange_strong(&watch->end_ns, &end_ns, end_ns + more_ns);
        }
    }
}

/* The time, after a sleep of so long. */
static uint64_t now_after(uint64_t asleep_ns) {
    uint64_t now_ns = monotonic_ns();
    uint64_t away_ns = now_ns - atomic_exchange(&watching.alive_ns, now_ns);
    if (away_ns >= asleep_ns + LATE_NS) {
        give_back(away_ns - asleep_ns);
    }
    return now_ns;
}

/* The time is up: does nobody answer in the next 50 ms either? */
static bool stays_unanswered(const struct watch *watch, uint64_t id, bool deferral_answers,
                             int signum) {
    uint64_t mark = seen[deferral_answers][signum].mark;
    for (int i = 0; i < MOST_HESITATIONS; i++) {
        uint64_t until_ns = monotonic_ns() + HESITATION_NS;
        for (uint64_t now_ns = 0; now_ns < until_ns; now_ns = monotonic_ns()) {
            sleep_until(monotonic_ns() + GLANCE_NS);
            now_after(GLANCE_NS);
            see(signal_bit(signum));
            if (atomic_load(&watch->id) != id || seen[deferral_answers][signum].mark != mark) {
                return false;
            }
        }
        if (monotonic_ns() - until_ns < LATE_NS) {
            break;
        }
    }
    return true;
}

/* From here on it cannot be taken back. */
static bool claim(struct watch *watch, uint64_t id) {
    return atomic_compare_exchange_strong(&watch->id, &id, 0);
}

/* When to look again. */
static uint64_t judge(struct watch *watch, uint64_t id, const struct order *order,
                      uint64_t now_ns) {
    if (order->end_ns != NEVER) {
        if (order->end_ns <= now_ns && claim(watch, id)) {
            end_process(order, __builtin_ctzll(order->signals) + 1, order->given_ns, false);
        }
        return order->end_ns;
    }
    uint64_t next_ns = NEVER;
    FOR_EACH_SIGNAL (signum, order->signals) {
        const bool kind = order->deferral_answers;
        if (seen[kind][signum].mark == 0) {
            continue;
        }
        uint64_t from_ns = seen[kind][signum].from_ns;
        uint64_t presses = atomic_load(&arrivals.inbox->unanswered[signum].presses);
        bool pressed = order->presses != 0 && presses >= order->presses;
        uint64_t over_ns = order->grace_ns < NEVER - from_ns ? from_ns + order->grace_ns : NEVER;
        if (!pressed && now_ns < over_ns) {
            next_ns = over_ns < next_ns ? over_ns : next_ns;
        } else if (stays_unanswered(watch, id, kind, (int)signum) && claim(watch, id)) {
            bool is_blocked = (seen[kind][signum].mark & BLOCKED) != 0;
            end_process(order, (int)signum, from_ns, is_blocked);
        }
    }
    return next_ns;
}

/* NEVER: there is nothing to watch. */
static uint64_t look(void) {
    see(atomic_load(&arrivals.watched));
    uint64_t next_ns = NEVER;
    for (struct watch *watch = atomic_load(&watching.orders); watch != NULL; watch = watch->next) {
        struct order order;
        uint64_t id;
        uint64_t now_ns = now_after(0); /* it may change the order */
        if (read_order(watch, &order, &id)) {
            uint64_t then_ns = judge(watch, id, &order, now_ns);
            next_ns = then_ns < next_ns ? then_ns : next_ns;
            uint64_t look_ns = monotonic_ns() + LOOK_NS;
            next_ns = look_ns < next_ns ? look_ns : next_ns;
        }
    }
    return next_ns;
}

void *watch_run(void *unused) {
    (void)unused;
    prctl(PR_SET_NAME, "sigwright-watch");
    ending_prepare();
    do {
        memset(seen, 0, sizeof seen);
        for (uint64_t next_ns; (next_ns = look()) != NEVER;) {
            uint64_t began_ns = monotonic_ns(); /* it may have hesitated beyond the next time */
            sleep_until(next_ns);
            now_after(next_ns > began_ns ? next_ns - began_ns : 0);
        }
        ending_forget();
        atomic_store(&watching.running, false);
        /* Somebody may have given an order in the meantime, and have found us running. */
    } while (anything_to_watch() && !atomic_exchange(&watching.running, true) &&
             (ending_prepare(), true));
    return NULL;
}
