/* What the kernel does when a signal comes: whose action it is, and setting ours.
 * Context: any thread, with the GIL.
 * Callers: dispositions.c (the handler table), taking.c (for consumers), actions.c (sigaction()).
 */
#include "kernel_actions.h"

bool is_ours(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == arrival;
}

enum actor actor_of(const struct sigaction *action) {
    if (action->sa_flags & SA_SIGINFO) {
        return is_ours(action) || action->sa_sigaction == door_landed ? OURS : FOREIGN_C;
    }
    return action->sa_handler == SIG_DFL   ? BY_DEFAULT
           : action->sa_handler == SIG_IGN ? IGNORED
           : action->sa_handler == arrivals.door_handler
               ? STDLIB /* not known for it until the doors are open */
               : FOREIGN_C;
}

/* Somebody has put another action in the place of ours, and nobody has taken it back. */
bool is_taken(int signum) {
    struct sigaction now;
    return !(door_hidden() & signal_bit(signum)) && sigaction(signum, NULL, &now) == 0 &&
           !is_ours(&now);
}

/* Whether system calls go on: as every handler that is called has it. Listeners alone must not be
 * noticed. */
static bool restarts(int signum) {
    if (door_hidden() & signal_bit(signum)) {
        return signum == atomic_load(&arrivals.doors[QUIET]); /* rings land here as well */
    }
    bool handlers_do = (engine.actions[signum].flags & SA_RESTART) != 0;
    const struct audience *audience = audience_of(signum);
    if (audience == NULL) {
        return handlers_do;
    }
    bool handled = is_set(&arrivals.to_inbox, signum);
    bool chained = is_set(&arrivals.chained, signum);
    return (handled ? handlers_do : !audience->has_main_handler) &&
           (!chained || (arrivals.previous[signum].sa_flags & SA_RESTART));
}

/* Ours for the kernel. */
bool set_kernel_handler(int signum) {
    bool restart = restarts(signum);
    unsigned of_children = (engine.give_back & signal_bit(signum))
                               ? (unsigned)arrivals.previous[signum].sa_flags
                               : engine.actions[signum].flags;
    struct sigaction action = {
        .sa_sigaction = arrival,
        .sa_flags = SA_SIGINFO | SA_ONSTACK | (restart ? SA_RESTART : 0) |
                    (int)(of_children & (SA_NOCLDSTOP | SA_NOCLDWAIT)),
    };
    if (signum == SIGCHLD && kind_of(engine.handlers[signum]) == IGNORE) {
        action.sa_flags |= SA_NOCLDWAIT; /* what SIG_IGN means there; listening changes nothing */
    }
    sigfillset(&action.sa_mask);
    set_bit(&arrivals.restart, signum, restart);
    if (sigaction(signum, &action, NULL) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    return true;
}

/* SIG_DFL or SIG_IGN, with the flags that sigaction() was told. */
struct sigaction standard_action(int signum, enum kind kind) {
    struct sigaction action = {
        .sa_handler = kind == IGNORE ? SIG_IGN : SIG_DFL,
        .sa_flags = (int)engine.actions[signum].flags & (SA_NOCLDSTOP | SA_NOCLDWAIT),
    };
    sigemptyset(&action.sa_mask);
    return action;
}

/* What was there before ours. Arrivals read it without a lock: take it from them before it changes.
 */
void remember_previous(int signum, const struct sigaction *previous) {
    if ((atomic_load(&arrivals.has_previous) | atomic_load(&arrivals.chained)) &
        signal_bit(signum)) {
        set_bit(&arrivals.chained, signum, false);
        set_bit(&arrivals.has_previous, signum, false);
        arrivals_end();
    }
    arrivals.previous[signum] = *previous;
    if (is_c_handler(previous) && actor_of(previous) != STDLIB) {
        set_bit(&arrivals.has_previous, signum, true);
    }
}
