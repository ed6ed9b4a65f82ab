/* Deferral: critical sections, in which no Python handler and no limit interrupts the thread.
 * Context: any thread, with the GIL.
 * Callers: Python; delivery.c and limits.c ask whether they may.
 *
 * Handlers run in the main thread only, so in a worker a section holds its limits. What waits is
 * where it always is, in the inbox and the rings: a section adds to the signals that delivery
 * passes over (arrivals.deferred), and when it is left the interpreter is told to look again.
 *
 * In C, so that there is no safe point inside entering and leaving: a Python __exit__ that is
 * interrupted in its first step leaves the section entered for ever.
 *
 * Each section remembers the frame that entered it. Not for its own sake: a generator or coroutine
 * that is suspended inside would defer everything for whoever runs meanwhile. See frames.c.
 * Not the count alone, which is all that a plain function needs: it cannot tell them apart. */
#include "control.h"

#include <errno.h>

#include "sets.h"

struct deferred_section {
    PyObject_HEAD uint64_t signals;
    bool all;
};

/* What the entries of the main thread hold. SUSPENDABLE ones are not counted here: while they are
 * not in force what they hold is to run, so it is work, and delivery asks about each. */
static void publish(struct control *self) {
    uint64_t signals = 0;
    size_t all_depth = 0;
    for (size_t i = 0; i < self->depth; i++) {
        const struct deferral *entry = &self->deferrals[i];
        if (entry->suspends != SUSPENDABLE) {
            signals |= entry->signals;
            all_depth += entry->all;
        }
    }
    self->all_depth = all_depth;
    if (self->is_main) {
        /* Release is enough: only this thread and arrivals on it act upon it. One that lands on
         * another thread rings here in any case. */
        atomic_store_explicit(&arrivals.deferred, signals, memory_order_release);
        atomic_store_explicit(&arrivals.clock_deferred, all_depth != 0, memory_order_release);
    }
}

/* The signals of entries that have turned out to be of suspendable frames, and are in force. */
static void classify(struct control *self) {
    bool changed = false;
    for (size_t i = 0; i < self->depth; i++) {
        struct deferral *entry = &self->deferrals[i];
        if (entry->suspends == UNKNOWN) {
            entry->suspends = frame_suspends(entry->frame);
            changed = changed || entry->suspends == SUSPENDABLE;
        }
    }
    if (changed) {
        publish(self);
    }
}

static void enable_again(int collects) {
    if (collects) {
        PyGC_Enable();
    }
}

/* For delivery, in the main thread: what is to be passed over beside arrivals.deferred. */
uint64_t deferral_held_loosely(PyObject *current) {
    struct control *self = control_here();
    if (self == NULL || self->depth == 0) {
        PyErr_Clear();
        return 0;
    }
    int collects = PyGC_Disable(); /* what it runs may come here, and move the entries */
    classify(self);
    uint64_t signals = 0;
    for (size_t i = 0; i < self->depth; i++) {
        const struct deferral *entry = &self->deferrals[i];
        if (entry->suspends == SUSPENDABLE && (entry->signals & ~signals) != 0 &&
            frame_is_running(entry->frame, current)) {
            signals |= entry->signals;
        }
    }
    enable_again(collects);
    return signals;
}

bool deferral_holds_limits(struct control *self, PyObject *current) {
    int collects = PyGC_Disable();
    classify(self);
    bool holds = self->all_depth != 0;
    for (size_t i = 0; !holds && i < self->depth; i++) {
        const struct deferral *entry = &self->deferrals[i];
        holds =
            entry->all && entry->suspends == SUSPENDABLE && frame_is_running(entry->frame, current);
    }
    enable_again(collects);
    return holds;
}

static PyObject *section_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    sigset_t signals;
    if (kwargs != NULL && PyDict_Size(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "deferred() takes no keyword arguments");
        return NULL;
    }
    bool all = PyTuple_Size(args) == 0;
    if (!all && !parse_set(args, &signals)) {
        return NULL;
    }
    if (!all && (sigismember(&signals, SIGKILL) || sigismember(&signals, SIGSTOP))) {
        PyObject *error =
            Py_BuildValue("(is)", EINVAL,
                          sigismember(&signals, SIGKILL) ? "SIGKILL cannot be deferred"
                                                         : "SIGSTOP cannot be deferred");
        PyErr_SetObject(PyExc_OSError, error);
        Py_XDECREF(error);
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct deferred_section *self = (struct deferred_section *)allocate(type, 0);
    if (self != NULL) {
        self->all = all;
        self->signals = UINT64_MAX;
        if (!all) {
            self->signals = 0;
            for (int signum = 1; signum < SIGNALS; signum++) {
                self->signals |= sigismember(&signals, signum) == 1 ? signal_bit(signum) : 0;
            }
        }
    }
    return (PyObject *)self;
}

static bool make_room(struct control *self) {
    size_t room = self->room == 0 ? 8 : self->room * 2;
    struct deferral *larger = PyMem_Realloc(self->deferrals, room * sizeof *larger);
    if (larger == NULL) {
        PyErr_NoMemory();
        return false;
    }
    self->deferrals = larger;
    self->room = room;
    return true;
}

static PyObject *section_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    struct deferred_section *section = (struct deferred_section *)object;
    PyObject *frame = frame_entering(); /* first: it may run the collector */
    struct control *self = control_here();
    if (self == NULL || (self->depth == self->room && !make_room(self))) {
        Py_DECREF(frame);
        return NULL;
    }
    self->deferrals[self->depth++] = (struct deferral){
        .section = Py_NewRef(object),
        .frame = frame,
        .signals = section->signals,
        .all = section->all,
    };
    self->all_depth += section->all;
    if (section->all) {
        limits_hold_back(self);
    }
    if (self->is_main) {
        uint64_t signals = atomic_load_explicit(&arrivals.deferred, memory_order_relaxed);
        atomic_store_explicit(&arrivals.deferred, signals | section->signals, memory_order_release);
        atomic_store_explicit(&arrivals.clock_deferred, self->all_depth != 0, memory_order_release);
    }
    return Py_NewRef(object);
}

/* The entry that this leaves: of this frame, if one is; interleaved coroutines may share a section.
 * An ExitStack enters and leaves in frames of its own. */
static struct deferral *entry_of(struct control *self, PyObject *section) {
    if (self->depth == 1 && self->deferrals->section == section) {
        return self->deferrals;
    }
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    struct deferral *any = NULL;
    for (size_t i = self->depth; i-- > 0;) {
        struct deferral *entry = &self->deferrals[i];
        if (entry->section == section) {
            if (entry->frame == frame) {
                return entry;
            }
            any = any == NULL ? entry : any;
        }
    }
    return any;
}

static struct deferral take_out(struct control *self, struct deferral *entry) {
    struct deferral taken = *entry;
    size_t behind = (size_t)(&self->deferrals[--self->depth] - entry);
    memmove(entry, entry + 1, behind * sizeof *entry);
    publish(self);
    return taken;
}

static bool others_in_force(struct control *self, const struct deferral *entry) {
    PyObject *current = (PyObject *)PyEval_GetFrame();
    int collects = PyGC_Disable();
    classify(self);
    bool others = false;
    for (size_t i = 0; !others && i < self->depth; i++) {
        const struct deferral *other = &self->deferrals[i];
        others =
            other != entry && (other->suspends == PLAIN || frame_is_running(other->frame, current));
    }
    enable_again(collects);
    return others;
}

/* False with an exception set: a handler raised, or a limit that had waited is over. */
static bool run_waiting(struct control *self) {
    if (!self->is_main) {
        return self->all_depth != 0 || limits_run_waiting(self);
    }
    if (!arrivals_wait_for_delivery()) {
        return true;
    }
    ring_if_work();
    return PyErr_CheckSignals() == 0;
}

static PyObject *section_exit(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    (void)args;
    (void)nargs;
    struct control *self = control_here();
    struct deferral *entry = self == NULL ? NULL : entry_of(self, object);
    if (entry == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError,
                            "deferred() is left in a thread that has not entered it");
        }
        return NULL;
    }
    struct deferral left = take_out(self, entry);
    bool done = run_waiting(self);
    Py_DECREF(left.frame);
    Py_DECREF(left.section);
    if (!done) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *section_run_pending(PyObject *object, PyObject *unused) {
    (void)unused;
    struct control *self = control_here();
    struct deferral *entry = self == NULL ? NULL : entry_of(self, object);
    if (entry == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError,
                            "run_pending() is called in a thread that has not entered the section");
        }
        return NULL;
    }
    if (others_in_force(self, entry)) {
        Py_RETURN_FALSE;
    }
    /* The section is as if it were not there, until what waits now has run. */
    struct deferral kept = take_out(self, entry);
    bool done = run_waiting(self);
    if (self->depth < self->room || make_room(self)) {
        self->deferrals[self->depth++] = kept;
        publish(self);
    }
    if (!done) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

/* The thread has ended, or does not exist in this child. */
void deferral_drop(struct control *self) {
    while (self->depth != 0) {
        self->depth--;
        Py_DECREF(self->deferrals[self->depth].frame);
        Py_DECREF(self->deferrals[self->depth].section);
    }
    PyMem_Free(self->deferrals);
    self->deferrals = NULL;
    self->room = self->all_depth = 0;
}

/* The thread that forked is the main one of the child. */
void deferral_after_fork(struct control *self) { publish(self); }

static PyMethodDef section_methods[] = {
    {"__enter__", section_enter, METH_NOARGS, NULL},
    {"__exit__", FUNCTION(section_exit), METH_FASTCALL, NULL},
    {"run_pending", section_run_pending, METH_NOARGS,
     "run_pending()\n--\n\n"
     "In the outermost block, run now what has waited; inside of another one, nothing.\n\n"
     "Returns:\n"
     "    Whether this is the outermost block that is in force.\n\n"
     "Raises:\n"
     "    RuntimeError: this thread has not entered the section.\n"
     "    Anything that a handler raises.\n\n"
     "Platform: Linux. Any thread."},
    {NULL, NULL, 0, NULL},
};

static PyObject *section_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    static const struct context_functions functions = {section_enter, section_exit,
                                                       "sigwright.deferral"};
    return context_call(object, args, kwargs, &functions);
}

PyDoc_STRVAR(
    section_doc,
    "deferred(*signums)\n--\n\n"
    "Let Python handlers and limits wait while a block, or a function, runs: a critical section.\n"
    "\n"
    "::\n"
    "\n"
    "    with deferred():\n"
    "        os.replace(new, name)\n"
    "        index[name] = entry\n"
    "\n"
    "Inside, no handler of `signal()` and `add_handler()`, no timer's callback and no limit\n"
    "interrupts this thread. What arrives waits in the engine, nothing is lost, and at the end of "
    "the\n"
    "outermost block it runs, in the order of arrival, each once, before the block has been left: "
    "a\n"
    "handler that raises leaves it with its exception. Signals that are named wait alone; limits "
    "and\n"
    "timers then go on. No system call is made, and nothing that the kernel does is changed: "
    "system\n"
    "calls are interrupted as ever and begun again, listeners and handlers with `thread=True` get\n"
    "theirs at once, and a signal with the default action still ends the process. For that there "
    "is\n"
    "`blocked()`.\n"
    "\n"
    "Handlers run in the main thread, so in another thread the section holds that thread's "
    "limits.\n"
    "`force_exit()` is not held: it is for programs that do not come to an end.\n"
    "\n"
    "One object serves any number of times, nested, recursively, and in several threads at once. "
    "A\n"
    "block inside a generator or coroutine is in force while that runs, not while it is "
    "suspended:\n"
    "what has waited until then runs within 0.1 s, and other code is interrupted as ever. As a\n"
    "decorator it is for plain functions, generator functions and `async def` functions.\n"
    "\n"
    "Parameters:\n"
    "    signums: numbers of the signals whose handlers wait; none: all, and limits and timers.\n"
    "\n"
    "Raises:\n"
    "    ValueError: a number out of range.\n"
    "    OSError: SIGKILL or SIGSTOP is named (EINVAL): they have no handlers.\n"
    "    RuntimeError: the block is left in a thread that has not entered it; nothing is changed.\n"
    "    TypeError: decorating what is no function, or an async generator function.\n"
    "    Anything that a handler raises, at the end of the block.\n"
    "\n"
    "Platform: Linux. Any thread. Source: section 17.4 lacks it: \"there is no way to block "
    "signals\n"
    "temporarily from critical sections\"; Java and POSIX call it deferred cancellation.\n");

static PyType_Slot section_slots[] = {
    {Py_tp_call, section_call},
    {Py_tp_new, section_new},
    {Py_tp_methods, section_methods},
    {Py_tp_doc, (void *)section_doc},
    {0, NULL},
};

static PyType_Spec section_spec = {
    .name = "sigwright.deferral.deferred",
    .basicsize = sizeof(struct deferred_section),
    .flags = Py_TPFLAGS_DEFAULT, /* no subclasses: see context.c */
    .slots = section_slots,
};

bool deferral_add_type(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &section_spec, NULL);
    bool added = type != NULL && add_context_methods(type) &&
                 PyModule_AddObjectRef(module, "deferred", type) == 0;
    Py_XDECREF(type);
    return added;
}
