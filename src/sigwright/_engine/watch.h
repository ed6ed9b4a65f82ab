/* What an arrival tells the watch of force_exit() (watch.c), and who answers it.
 * Context: watch_arrival: signal context; watch_answered: any thread, with the GIL; the rest: the
 *     watch's own thread.
 * Callers: arrival.c; consumers.c, delivery.c; watch.c, ending.c, force_exit.c; no Python.h. */
#ifndef SIGWRIGHT_WATCH_H
#define SIGWRIGHT_WATCH_H

#include "arrival.h"

/* Arrivals of one signal that are nearer to one another are one press: wrappers (a shell and a
 * process manager, npm, docker) deliver one Ctrl+C twice within milliseconds, and a key that is
 * held down repeats every 33 ms. */
#define ONE_PRESS_NS INT64_C(50000000)

static inline bool is_watched(int signum) {
    return (atomic_load(&arrivals.watched) & signal_bit(signum)) != 0;
}

/* Before the arrival is put down for anybody: so who takes it up always comes after this, and what
 * was answered never stays marked. */
static inline void watch_arrival(int signum, uint64_t now_ns) {
    struct unanswered *unanswered = &arrivals.inbox->unanswered[signum];
    uint64_t none = 0;
    atomic_compare_exchange_strong(&unanswered->since_ns, &none, now_ns);
    none = 0;
    atomic_compare_exchange_strong(&unanswered->undone_ns, &none, now_ns);
    uint64_t latest_ns = atomic_exchange(&unanswered->latest_ns, now_ns);
    if ((int64_t)(now_ns - latest_ns) >= ONE_PRESS_NS) { /* negative: two threads, out of order */
        atomic_fetch_add(&unanswered->presses, 1);
    }
    atomic_fetch_add(&unanswered->arrivals, 1);
}

/* deferred() holds these at a safe point: the program is alive. The count and the time start again.
 */
static inline void watch_deferred(uint64_t signals) {
    FOR_EACH_SIGNAL (signum, signals & atomic_load(&arrivals.watched)) {
        struct unanswered *unanswered = &arrivals.inbox->unanswered[signum];
        atomic_store(&unanswered->presses, 0);
        atomic_store(&unanswered->since_ns, 0);
    }
}

/* A handler of these starts, or a listener has read them: whatever has arrived until now is
 * answered. */
static inline void watch_answered(uint64_t signals) {
    watch_deferred(signals);
    FOR_EACH_SIGNAL (signum, signals & atomic_load(&arrivals.watched)) {
        atomic_store(&arrivals.inbox->unanswered[signum].undone_ns, 0);
    }
}

/* --- among watch.c, force_exit.c and ending.c ------------------------------------------------- */

#define BY_SIGNAL (-1) /* in the place of an exit status */

struct order {
    uint64_t signals;
    uint64_t grace_ns;
    uint64_t presses; /* 0: however many */
    uint64_t end_ns;  /* or NEVER; then, whoever has answered, and `signals` is the one to die of */
    uint64_t given_ns;
    int exit_code;
    bool dump;
    bool deferral_answers;
};

/* The default action of these does not end a process. */
#define HARMLESS                                                                                   \
    (signal_bit(SIGCHLD) | signal_bit(SIGCONT) | signal_bit(SIGURG) | signal_bit(SIGWINCH) |       \
     signal_bit(SIGTSTP) | signal_bit(SIGTTIN) | signal_bit(SIGTTOU))

/* The orders in force: a list that only grows. A place whose order is over (id 0) is used again,
 * perhaps while the thread reads it. No id is used twice: who finds the same one before and after
 * has read one whole order. */
struct watch {
    struct watch *next;
    _Atomic uint64_t id;
    _Atomic uint64_t signals, grace_ns, presses, end_ns, given_ns;
    _Atomic int exit_code;
    _Atomic bool dump, deferral_answers;
};

struct watching {
    _Atomic(struct watch *) orders;
    _Atomic bool running;      /* the thread is there, or is about to be */
    _Atomic uint64_t alive_ns; /* when the thread is known to have run; or was started */
    char names[SIGNALS][16];   /* "SIGTERM", for the line on stderr */
};
extern struct watching watching;

/* watch.c */
bool anything_to_watch(void);
void *watch_run(void *unused);

/* ending.c */
void ending_prepare(void);
void ending_forget(void);
bool has_handler(int signum);
_Noreturn void end_process(const struct order *order, int signum, uint64_t since_ns,
                           bool is_blocked);

#endif
