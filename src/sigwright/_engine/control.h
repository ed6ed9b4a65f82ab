/* What deferred() and the limits know of each thread, and the clock that both and the timers share.
 * Context: any thread, with the GIL, unless a function says otherwise.
 * Callers: clock.c, deferral.c, frames.c, limits.c, timers.c; delivery.c and module.c. */
#ifndef SIGWRIGHT_CONTROL_H
#define SIGWRIGHT_CONTROL_H

#include "engine.h"

#define NEVER UINT64_MAX /* a deadline, in nanoseconds of CLOCK_MONOTONIC */

struct scope;

/* A deferred() that was entered and not left. */
struct deferral {
    PyObject *section;
    PyObject *frame; /* that entered it; a strong reference */
    uint64_t signals;
    bool all; /* limits and timers wait as well */
    enum suspends { UNKNOWN, PLAIN, SUSPENDABLE } suspends;
};

/* Of one thread. Made when it first defers or sets a limit, freed some time after its end. */
struct control {
    struct control *next; /* in the list of all */
    bool is_main;
    _Atomic bool ended;
    unsigned long ident; /* threading.get_ident() */
    pid_t tid;

    struct scope *newest; /* the innermost limit */
    struct scope *floor;  /* the innermost one that does not interrupt now; see timers.c */
    uint64_t due_ns;   /* when the next of its limits wants to interrupt; never later than that */
    bool putting_off;  /* a worker: it looks for what is due at its next instruction */
    bool interrupting; /* a worker: PyThreadState_SetAsyncExc() was called, and nothing seen */

    struct deferral *deferrals;
    size_t depth, room;
    size_t all_depth; /* how many of them hold limits, and are or may be PLAIN */
};

/* limits.c */
struct control *control_here(void);
bool limits_interrupt_main(PyObject *frame);
void limits_interrupt_worker(struct control *worker);
bool limits_run_waiting(struct control *self);
void limits_hold_back(struct control *self);
void limits_after_fork(void);

extern struct control *controls;

/* clock.c */
bool clock_need(uint64_t at_ns);
bool clock_need_for_worker(uint64_t at_ns);
void clock_idle(struct control *self);
void clock_look_now(void);
bool clock_is_looking(void);

/* deferral.c */
bool deferral_holds_limits(struct control *self, PyObject *current);
void deferral_drop(struct control *self);
void deferral_after_fork(struct control *self);

/* frames.c */
enum suspends frame_suspends(PyObject *frame);
bool frame_is_running(PyObject *frame, PyObject *current);
bool debugger_holds(PyObject *frame, PyObject *current);
PyObject *frame_of_thread(unsigned long ident);

/* timers.c */
uint64_t timers_due(void);
bool timers_run(void);

#endif
