/* What the kernel does when a signal comes: whose action it is, and setting ours.
 * Context: any thread, with the GIL.
 * Callers: dispositions.c (the handler table), taking.c (for consumers), actions.c (sigaction()).
 */
#ifndef SIGWRIGHT_KERNEL_ACTIONS_H
#define SIGWRIGHT_KERNEL_ACTIONS_H

#include "engine.h"

/* Who acts on a signal: the kernel itself, ours, CPython's own C handler, or somebody's in C. */
enum actor { BY_DEFAULT, IGNORED, OURS, STDLIB, FOREIGN_C };

enum actor actor_of(const struct sigaction *action);
bool is_ours(const struct sigaction *action); /* arrivals come to us; a door's action is not it */
bool is_taken(int signum);
bool set_kernel_handler(int signum);
struct sigaction standard_action(int signum, enum kind kind);
void remember_previous(int signum, const struct sigaction *previous);

static inline bool is_c_handler(const struct sigaction *action) {
    return actor_of(action) != BY_DEFAULT && actor_of(action) != IGNORED;
}

static inline const struct audience *audience_of(int signum) {
    return atomic_load(&arrivals.audiences[signum]);
}

static inline bool is_set(const _Atomic uint64_t *bits, int signum) {
    return (atomic_load(bits) & signal_bit(signum)) != 0;
}

static inline void set_bit(_Atomic uint64_t *bits, int signum, bool on) {
    if (is_set(bits, signum) != on) {
        if (on) {
            atomic_fetch_or(bits, signal_bit(signum));
        } else {
            atomic_fetch_and(bits, ~signal_bit(signum));
        }
    }
}

/* Its handler is a Python function, and arrivals come to it. */
static inline bool is_served(int signum) { return (engine.served & signal_bit(signum)) != 0; }

#endif
