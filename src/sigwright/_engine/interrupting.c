/* Interrupting: which thread is inside a limit that is over, and how it comes to know.
 * Context: any thread, with the GIL.
 * Callers: clock.c when a deadline is reached; limits.c; deferral.c at its end; putting_off.c.
 *
 * The main thread is interrupted with Cancelled from delivery, at a safe point; a worker by
 * PyThreadState_SetAsyncExc(), which raises at its next one, or by putting_off.c, where that one
 * might be a hole. Swallowed on its way, it comes again. */
#include <sys/syscall.h>
#include <unistd.h>

#include "control.h"

#define AGAIN_FIRST_NS UINT64_C(10000000)
#define AGAIN_LONGEST_NS UINT64_C(1000000000)
/* How often to look again where it cannot interrupt now: a debugger's prompt, a suspended block. */
#define LOOK_AGAIN_NS UINT64_C(100000000)
#define LOOK_SOON_NS UINT64_C(1000000)

static PyObject *cancelled; /* the type */
static bool making;         /* one, for the thread itself */

static void note_interrupted(struct control *self) {
    for (Scope *scope = self->newest; scope != NULL; scope = scope->outer) {
        scope->interrupted = scope->interrupted || scope->over;
    }
}

bool is_suspended(const Scope *scope, PyObject *current) {
    return frame_suspends(scope->frame) == SUSPENDABLE && !frame_is_running(scope->frame, current);
}

/* One that is due, in a thread whose current frame is given: may it interrupt? If not, its time is
 * put off. */
static bool may_interrupt(Scope *scope, uint64_t now, PyObject *current) {
    if (is_suspended(scope, current)) {
        scope->suspended = true;
        scope->again_ns = now + LOOK_AGAIN_NS;
        return false;
    }
    if (debugger_holds(scope->frame, current)) {
        scope->held = true;
        scope->again_ns = now + LOOK_AGAIN_NS;
        return false;
    }
    if (scope->held) {
        /* Nobody knows when the prompt came up: the limit begins anew. */
        scope->held = false;
        if (!scope->over && scope->span_ns > 0) {
            scope->deadline_ns = now + (uint64_t)scope->span_ns;
            scope->again_ns = 0;
            return false;
        }
    }
    return true;
}

uint64_t wants_at(const Scope *scope) {
    if (scope->over) {
        return scope->again_ns;
    }
    return scope->again_ns > scope->deadline_ns ? scope->again_ns : scope->deadline_ns;
}

static bool look_at_scopes(struct control *self, PyObject *current) {
    uint64_t now = monotonic_ns();
    bool due = false;
    if (is_importing(current)) {
        self->due_ns = now + LOOK_SOON_NS;
        return false;
    }
    for (Scope *scope = self->newest; scope != NULL && scope != self->floor; scope = scope->outer) {
        if (wants_at(scope) <= now && may_interrupt(scope, now, current)) {
            scope->over = true;
            due = true;
        }
    }
    self->due_ns = NEVER;
    for (Scope *scope = self->newest; scope != NULL; scope = scope->outer) {
        if (due && scope->over) {
            scope->again_delay_ns =
                scope->again_delay_ns == 0 ? AGAIN_FIRST_NS : scope->again_delay_ns * 2;
            if (scope->again_delay_ns > AGAIN_LONGEST_NS) {
                scope->again_delay_ns = AGAIN_LONGEST_NS;
            }
            scope->again_ns = now + scope->again_delay_ns;
        }
    }
    for (Scope *scope = self->newest; scope != NULL && scope != self->floor; scope = scope->outer) {
        uint64_t at_ns = wants_at(scope);
        self->due_ns = at_ns < self->due_ns ? at_ns : self->due_ns;
    }
    return due;
}

/* True: the thread is to be interrupted now. Looking at frames makes objects, and up to 3.11 the
 * collector then runs at once: without it, nobody else gets the GIL while scopes are looked at. */
static bool interrupt_is_due(struct control *self, PyObject *current) {
    int collects = PyGC_Disable();
    bool due = look_at_scopes(self, current);
    if (collects) {
        PyGC_Enable();
    }
    return due;
}

/* In its own thread. */
static bool raise_if_due(struct control *self, PyObject *current) {
    if (self->due_ns > monotonic_ns() || !interrupt_is_due(self, current)) {
        return true;
    }
    making = true;
    PyObject *exception = PyObject_CallFunctionObjArgs(cancelled, NULL);
    making = false;
    if (exception != NULL) {
        note_interrupted(self);
        PyErr_SetObject(cancelled, exception);
        Py_DECREF(exception);
    }
    return false;
}

/* putting_off.c's, in a worker. False with Cancelled set. */
bool limits_interrupt_here(void) {
    struct control *self = here;
    if (self == NULL || self->newest == NULL) {
        return true;
    }
    self->putting_off = false;
    self->due_ns = 0;
    return raise_if_due(self, (PyObject *)PyEval_GetFrame());
}

/* The waiter does, in a moment. */
void limits_look_later(void) {
    if (here != NULL) {
        here->putting_off = false;
    }
}

bool limits_interrupt_main(PyObject *frame) {
    struct control *self = control_here();
    return self == NULL ? false : raise_if_due(self, frame);
}

/* An asynchronous exception comes at the worker's next safe point, on 3.13 perhaps at the one after
 * that: in this function or one that called it. */
static bool holes_on_stack(PyObject *frame) {
    bool found = false;
    Py_INCREF(frame);
    while (frame != NULL && frame != Py_None && !found) {
        PyObject *code = PyObject_GetAttrString(frame, "f_code");
        found = code != NULL && has_holes(code);
        Py_XDECREF(code);
        PyObject *outer = PyObject_GetAttrString(frame, "f_back");
        Py_DECREF(frame);
        frame = outer;
    }
    Py_XDECREF(frame);
    PyErr_Clear();
    return found;
}

/* The same, where a yield may lie in between, and the caller of the generator be struck. */
static bool due_in_generator(struct control *worker, uint64_t now) {
    const Scope *scope = worker->newest;
    while (scope != NULL &&
           !(wants_at(scope) <= now && frame_suspends(scope->frame) == SUSPENDABLE)) {
        scope = scope->outer;
    }
    return scope != NULL;
}

/* True: it looks for itself at its next instruction, or will. One that has not come to any in 10 ms
 * is blocked in C: then no events for a while, since every thread in this function pays for them.
 */
static bool put_off(struct control *worker, PyObject *current, uint64_t now) {
    if (worker->putting_off) {
        worker->putting_off = false;
        put_off_forget(worker->ident);
        worker->due_ns = now + LOOK_AGAIN_NS;
        return true;
    }
    PyObject *frame = frame_in_hole(current);
    frame = frame == NULL ? Py_NewRef(current) : frame;
    worker->putting_off = put_off_limits(frame, worker->ident, is_entering(current));
    Py_DECREF(frame);
    worker->due_ns = now + AGAIN_FIRST_NS;
    return worker->putting_off;
}

/* Any thread, with the GIL. */
void limits_interrupt_worker(struct control *worker) {
    uint64_t now = monotonic_ns();
    PyObject *current = frame_of_thread(worker->ident);
    int collects = PyGC_Disable(); /* see interrupt_is_due() */
    if (worker->newest == NULL || current == NULL) {
        worker->due_ns = NEVER; /* it has none, or runs no Python code any more */
    } else if (deferral_holds_limits(worker, current)) {
        worker->due_ns = now + LOOK_AGAIN_NS; /* the section's end looks, too */
    } else if ((is_entering(current) || next_look_may_lose_it(current) || holes_on_stack(current) ||
                due_in_generator(worker, now)) &&
               put_off(worker, current, now)) {
        /* not from here */
    } else if (interrupt_is_due(worker, current)) {
        worker->interrupting = true;
        PyThreadState_SetAsyncExc(worker->ident, cancelled);
        if (Py_Version >= 0x030F0000) {
            /* From 3.15 on what a system call does when it is interrupted raises it: CPython's
             * tracker, 144748. The door does nothing on a worker but that. */
            syscall(SYS_tgkill, getpid(), worker->tid, atomic_load(&arrivals.doors[LOUD]));
        }
    }
    if (collects) {
        PyGC_Enable();
    }
    Py_XDECREF(current);
}

/* A worker enters deferred(). What is set on it may come later than at the next step, and so
 * inside: 3.13 looks at a copy of its breaker that it made before it waited for the GIL. */
void limits_hold_back(struct control *self) {
    if (self->interrupting) {
        self->interrupting = false;
        PyThreadState_SetAsyncExc(self->ident, NULL);
        for (Scope *scope = self->newest; scope != NULL; scope = scope->outer) {
            scope->again_ns = scope->over ? 0 : scope->again_ns;
        }
    }
}

/* One that is in force: a suspended one interrupts nobody, and so takes nothing. */
bool any_over(const Scope *scope) {
    while (scope != NULL && !(scope->over && !is_suspended(scope, (PyObject *)PyEval_GetFrame()))) {
        scope = scope->outer;
    }
    return scope != NULL;
}

/* What is set on this worker and not raised yet must not be raised after the block. */
void take_interrupt_back(struct control *owner) {
    if (owner->interrupting && !any_over(owner->newest)) {
        owner->interrupting = false;
        PyThreadState_SetAsyncExc(owner->ident, NULL);
    }
}

/* A worker has left its deferred(). False with Cancelled set: a limit had waited. */
bool limits_run_waiting(struct control *self) {
    if (self->newest == NULL) {
        return true;
    }
    self->due_ns = 0; /* put off, while the section held it */
    return raise_if_due(self, (PyObject *)PyEval_GetFrame());
}

bool is_cancelled(PyObject *type) {
    return type != Py_None && PyErr_GivenExceptionMatches(type, cancelled);
}

/* The interpreter makes an instance when it raises what was set on a worker, and before any Python
 * code sees it: so this is how the worker's scopes know that they have been interrupted. */
static int cancelled_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    (void)self;
    struct control *thread = here;
    if ((kwargs != NULL && PyDict_Size(kwargs) != 0) || PyTuple_Size(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "Cancelled takes no arguments");
        return -1;
    }
    if (thread != NULL && thread->interrupting) {
        thread->interrupting = false;
        note_interrupted(thread);
    } else if (thread != NULL && any_over(thread->newest)) {
        note_interrupted(thread); /* 3.11 makes the instance late, after one that came later */
    } else if (!making) {
        PyErr_SetString(PyExc_TypeError, "Cancelled is raised by CancelScope only");
        return -1;
    }
    return 0;
}

static PyType_Slot cancelled_slots[] = {
    {Py_tp_init, cancelled_init},
    {Py_tp_doc,
     "What interrupts a block whose CancelScope is over.\n\n"
     "A BaseException, so that `except Exception` lets it pass. Let it pass as well: it\n"
     "ends at the edge of its scope, and comes again where it was swallowed before.\n\n"
     "Platform: Linux. Source: trio.Cancelled."},
    {0, NULL},
};

static PyType_Spec cancelled_spec = {
    .name = "sigwright.limits.Cancelled",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = cancelled_slots,
};

bool cancelled_add_type(PyObject *module) {
    PyObject *bases = PyTuple_Pack(1, PyExc_BaseException);
    cancelled = bases == NULL ? NULL : PyType_FromModuleAndSpec(module, &cancelled_spec, bases);
    Py_XDECREF(bases);
    return cancelled != NULL && PyModule_AddObjectRef(module, "Cancelled", cancelled) == 0;
}
