/* What deferred() and the limits know of each thread, and the clock that both and the timers share.
 * Context: any thread, with the GIL, unless a function says otherwise.
 * Callers: clock.c, controls.c, deferral.c, frames.c, interrupting.c, limits.c, timers.c. */
#ifndef SIGWRIGHT_CONTROL_H
#define SIGWRIGHT_CONTROL_H

#include "engine.h"

struct control;

/* A limit. */
typedef struct scope {
    PyObject_HEAD struct scope *outer;
    struct control *owner; /* whose thread is inside; NULL: none */
    PyObject *frame;       /* that entered it */
    int64_t span_ns;       /* from entering to the deadline; -1: it is a point in time */
    uint64_t deadline_ns;
    uint64_t again_ns; /* since it is over: when to interrupt next */
    uint64_t again_delay_ns;
    bool fails;         /* with TimeoutError; otherwise it swallows */
    bool cancel_wanted; /* cancel() while nobody was inside: for the next block */
    bool over;          /* its deadline was reached, or cancel() called */
    bool interrupted;   /* Cancelled was raised since */
    bool caught;
    bool held;      /* a debugger stood inside when it was due */
    bool suspended; /* its generator was suspended when it was due */
} Scope;

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

    Scope *newest;     /* the innermost limit */
    Scope *floor;      /* the innermost one that does not interrupt now; see timers.c */
    uint64_t due_ns;   /* when the next of its limits wants to interrupt; never later than that */
    bool putting_off;  /* a worker: it looks for what is due at its next instruction */
    bool interrupting; /* a worker: PyThreadState_SetAsyncExc() was called, and nothing seen */

    struct deferral *deferrals;
    size_t depth, room;
    size_t all_depth; /* how many of them hold limits, and are or may be PLAIN */
};

/* controls.c */
extern struct control *controls; /* of all threads */
/* initial-exec: read without a call, as in the program itself. There is little room for such
 * variables in a library that is loaded later; this one takes eight bytes of it. */
extern _Thread_local struct control *here __attribute__((tls_model("initial-exec")));
struct control *control_make(void);
bool controls_prepare(void);
void controls_after_fork(void);

/* Of the calling thread. NULL with MemoryError set. */
static inline struct control *control_here(void) { return here != NULL ? here : control_make(); }

/* interrupting.c */
bool is_suspended(const Scope *scope, PyObject *current);
uint64_t wants_at(const Scope *scope);
bool limits_interrupt_main(PyObject *frame);
void limits_interrupt_worker(struct control *worker);
bool limits_run_waiting(struct control *self);
void limits_hold_back(struct control *self);
bool any_over(const Scope *scope);
void take_interrupt_back(struct control *owner);
bool is_cancelled(PyObject *type);
bool cancelled_add_type(PyObject *module);

/* clock.c */
bool clock_need(uint64_t at_ns);
bool clock_need_for_worker(uint64_t at_ns);
void clock_idle(struct control *self);
void clock_look_now(void);
bool clock_is_looking(void);
void clock_look(bool begins);

/* deferral.c */
bool deferral_holds_limits(struct control *self, PyObject *current);
void deferral_drop(struct control *self);
void deferral_after_fork(struct control *self);

/* frames.c */
enum suspends frame_suspends(PyObject *frame);
bool frame_is_running(PyObject *frame, PyObject *current);
bool is_importing(PyObject *frame);
bool debugger_holds(PyObject *frame, PyObject *current);
PyObject *frame_of_thread(unsigned long ident);
PyObject *frame_entering(void);

/* timers.c */
uint64_t timers_due(void);
bool timers_run(void);

#endif
