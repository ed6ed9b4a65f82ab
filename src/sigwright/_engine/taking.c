/* Taking a signal for those who listen to it, beside its handler, and giving it back.
 * Context: any thread, with the GIL; tell_stdlib: the main thread.
 * Callers: audiences.c, actions.c, door.c.
 *
 * While somebody listens, CPython's own table is left as it was: _signal.signal() would put SIG_DFL
 * or CPython's own C handler in for an instant, and what arrived then would reach no listener, or
 * end the process. It is told when they have gone. */
#include "kernel_actions.h"

/* CPython's own table learns what signal() said while a signal had an audience. The main thread. */
static int tell_stdlib(void *unused) {
    (void)unused;
    for (int signum = 1; signum < SIGNALS; signum++) {
        if (!(engine.untold & signal_bit(signum)) || audience_of(signum) != NULL || engine.closed ||
            (door_hidden() & signal_bit(signum))) {
            continue;
        }
        enum kind kind = kind_of(engine.handlers[signum]);
        struct sigaction now;
        if (kind == FOREIGN) {
            engine.untold &= ~signal_bit(signum);
            continue;
        }
        bool expected =
            sigaction(signum, NULL, &now) == 0 &&
            (kind == CALLABLE || kind == INTERRUPT
                 ? is_ours(&now)
                 : !is_c_handler(&now) && (now.sa_handler == SIG_IGN) == (kind == IGNORE));
        if (!expected) {
            continue; /* somebody's meanwhile: the next signal() tells */
        }
        if (!set_stdlib_handler(signum,
                                kind == CALLABLE ? engine.dispatcher : engine.handlers[signum])) {
            return -1;
        }
        engine.untold &= ~signal_bit(signum);
        if ((kind == CALLABLE || kind == INTERRUPT) && !set_kernel_handler(signum)) {
            return -1;
        }
    }
    return 0;
}

/* A consumer of a signal is there: from now on it arrives here. SIG_DFL and default_int_handler do
 * not act while somebody listens; a C handler from before does, chained. Also where somebody has
 * taken the signal behind our back. No Python code runs in here. Any thread. */
bool disposition_take(int signum, bool first) {
    struct sigaction now;
    if (sigaction(signum, NULL, &now) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    bool hidden = (door_hidden() & signal_bit(signum)) != 0;
    bool ours = is_ours(&now) || hidden;
    if (!first && is_ours(&now)) {
        return set_kernel_handler(signum);
    }
    bool chained = !ours && is_c_handler(&now);
    if (chained && actor_of(&now) == STDLIB) {
        PyObject *handler = stdlib_handler(signum);
        if (handler == NULL) {
            return false;
        }
        if (handler == engine.dispatcher) { /* somebody has saved it, and put it back */
            Py_DECREF(handler);
            ours = true;
            chained = false;
        } else { /* set by the stdlib's own functions: the user's, and known by name */
            chained = handler != engine.default_int_handler;
            engine.served &= ~signal_bit(signum);
            replace_reference(&engine.handlers[signum], handler);
        }
    }
    if (!ours || hidden) {
        remember_previous(signum, &now);
        engine.give_back |= signal_bit(signum);
    }
    /* Where somebody's C handler has taken the place of one of signal()'s, both act. */
    set_bit(&arrivals.to_inbox, signum,
            is_served(signum) && kind_of(engine.handlers[signum]) == CALLABLE);
    set_bit(&arrivals.chained, signum, chained);
    return set_kernel_handler(signum);
}

/* The audience has changed: do system calls restart? */
bool disposition_refresh(int signum) { return is_taken(signum) || set_kernel_handler(signum); }

/* A door has moved away from a number that has an audience: SIG_DFL is beneath it now. */
bool disposition_keep(int signum) {
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigemptyset(&standard.sa_mask);
    remember_previous(signum, &standard);
    engine.give_back |= signal_bit(signum);
    return set_kernel_handler(signum);
}

/* The last consumer is about to leave, but still gets a copy: go back to what signal() says now, or
 * to what was there before, without an instant in which an arrival would be nobody's. Any thread.
 */
void disposition_give_back(int signum) {
    enum kind kind = kind_of(engine.handlers[signum]);
    bool give_back = (engine.give_back & signal_bit(signum)) != 0;
    engine.give_back &= ~signal_bit(signum);
    bool served = !give_back && is_served(signum) && (kind == CALLABLE || kind == INTERRUPT);
    if (served) {
        set_bit(&arrivals.to_inbox, signum, true);
    } else if (!give_back) {
        struct sigaction standard = standard_action(signum, kind);
        remember_previous(signum, &standard);
    }
    /* Where it was taken, it stays theirs; they may put ours back one day: see late() in arrival.c.
     */
    if (!is_taken(signum) && !served) {
        if (door_hidden() & signal_bit(signum)) {
            door_share(signum);
        } else {
            sigaction(signum, &arrivals.previous[signum], NULL);
        }
    }
    set_bit(&arrivals.chained, signum, false);
    if (engine.untold & signal_bit(signum)) {
        Py_AddPendingCall(tell_stdlib, NULL); /* its queue is full: the next signal() does it */
    }
}

/* After the last one has left, for the flags. */
void disposition_left(int signum) {
    if (is_served(signum) && !is_taken(signum) && !set_kernel_handler(signum)) {
        PyErr_Clear(); /* it was ours: it stays as it is */
    }
}
