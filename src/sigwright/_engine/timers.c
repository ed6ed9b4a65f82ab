/* Timers: call_later(), call_at(), call_every(), as many as memory holds.
 * Context: any thread, with the GIL; callbacks run in the main thread, at safe points.
 * Callers: Python; clock.c when a deadline is reached.
 *
 * A heap of four children a node, with the deadlines in it: arming looks at one or two nodes on
 * average, and a level is one cache line and a half. A cancelled timer lets go of its callback at
 * once and stays in the heap until half of it is such, as in asyncio: to take it out from the
 * middle would cost every sift a write to the handles that it moves. */
#include <math.h>

#include "control.h"

typedef struct {
    PyObject_HEAD uint64_t at_ns;
    uint64_t period_ns; /* 0: once */
    uint64_t skipped;
    PyObject *callback, *arguments; /* NULL: cancelled, or done */
    bool waiting;                   /* in the heap */
    bool cancelled;
} Timer;

struct node {
    uint64_t at_ns;
    uint64_t number; /* of the same deadline, the one that was armed first */
    Timer *timer;
};

static struct {
    struct node *nodes;
    size_t count, room;
    size_t cancelled; /* of the count */
    uint64_t armed;   /* ever */
    uint64_t drops;   /* how often all of them were dropped */
    uint64_t running; /* callbacks of what was due then run now; 0: none */
} heap;

static PyTypeObject *timer_type;

static bool is_before(const struct node *one, const struct node *other) {
    return one->at_ns < other->at_ns || (one->at_ns == other->at_ns && one->number < other->number);
}

static void sift_up(size_t place, struct node node) {
    while (place != 0) {
        size_t parent = (place - 1) / 4;
        if (!is_before(&node, &heap.nodes[parent])) {
            break;
        }
        heap.nodes[place] = heap.nodes[parent];
        place = parent;
    }
    heap.nodes[place] = node;
}

static void sift_down(size_t place, struct node node) {
    for (;;) {
        size_t first = place * 4 + 1, least = first;
        if (first >= heap.count) {
            break;
        }
        size_t end = first + 4 < heap.count ? first + 4 : heap.count;
        for (size_t child = first + 1; child < end; child++) {
            least = is_before(&heap.nodes[child], &heap.nodes[least]) ? child : least;
        }
        if (!is_before(&heap.nodes[least], &node)) {
            break;
        }
        heap.nodes[place] = heap.nodes[least];
        place = least;
    }
    heap.nodes[place] = node;
}

/* A new reference. */
static Timer *pop(void) {
    Timer *timer = heap.nodes[0].timer;
    heap.count--;
    if (heap.count != 0) {
        sift_down(0, heap.nodes[heap.count]);
    }
    timer->waiting = false;
    heap.cancelled -= timer->cancelled;
    return timer;
}

static bool push(Timer *timer) {
    if (heap.count == heap.room) {
        size_t room = heap.room == 0 ? 64 : heap.room * 2;
        struct node *larger = PyMem_Realloc(heap.nodes, room * sizeof *larger);
        if (larger == NULL) {
            PyErr_NoMemory();
            return false;
        }
        heap.nodes = larger;
        heap.room = room;
    }
    /* What a callback arms is for the next time, be it for the past. */
    uint64_t at_ns = timer->at_ns > heap.running ? timer->at_ns : heap.running + 1;
    struct node node = {at_ns, heap.armed++, timer};
    Py_INCREF((PyObject *)timer);
    timer->waiting = true;
    sift_up(heap.count++, node);
    return true;
}

static void drop_cancelled(void) {
    size_t kept = 0, count = heap.count;
    struct node *nodes = heap.nodes;
    for (size_t i = 0; i < count; i++) {
        if (!nodes[i].timer->cancelled) {
            nodes[kept++] = nodes[i];
        } else {
            nodes[i].timer->waiting = false;
            Py_DECREF((PyObject *)nodes[i].timer); /* has let go of all else: runs nothing */
        }
    }
    heap.count = kept;
    heap.cancelled = 0;
    for (size_t i = kept / 4 + 1; i-- > 0;) {
        if (i < kept) {
            sift_down(i, nodes[i]);
        }
    }
    if (heap.room > 1024 && kept < heap.room / 4) {
        struct node *smaller = PyMem_Realloc(nodes, heap.room / 2 * sizeof *smaller);
        if (smaller != NULL) {
            heap.nodes = smaller;
            heap.room /= 2;
        }
    }
}

/* Runs what the callback's end runs; so last. */
static void let_go(Timer *timer) {
    PyObject *callback = timer->callback, *arguments = timer->arguments;
    timer->callback = timer->arguments = NULL;
    Py_XDECREF(callback);
    Py_XDECREF(arguments);
}

bool timers_are_running(void) { return heap.running != 0; }

uint64_t timers_due(void) {
    return heap.count == 0 || heap.running != 0 ? NEVER : heap.nodes[0].at_ns;
}

/* To the latest deadline of a period that has come; the ones before it are left out. */
static void skip(Timer *timer) {
    uint64_t now = monotonic_ns();
    uint64_t periods = now < timer->at_ns ? 0 : (now - timer->at_ns) / timer->period_ns;
    timer->skipped += periods;
    timer->at_ns += periods * timer->period_ns;
}

static bool arm_again(Timer *timer) {
    skip(timer); /* what the callback took */
    timer->at_ns += timer->period_ns;
    return push(timer);
}

/* What the callback let pass was raised by a handler that interrupted it. */
static bool is_a_handlers(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    bool is = value != NULL && value == engine.raised;
    PyErr_Restore(type, value, traceback);
    return is;
}

/* False with an exception set: one that a handler raised while the callback ran, and that the
 * callback let pass. It is the program's, as anywhere else. */
static bool run_one(Timer *timer) {
    PyObject *callback = Py_NewRef(timer->callback);
    PyObject *arguments = Py_XNewRef(timer->arguments);
    if (timer->period_ns == 0) {
        let_go(timer);
    } else {
        skip(timer); /* before the call, which may want to know */
    }
    uint64_t drops = heap.drops;
    PyObject *result = PyObject_Call(callback, arguments, NULL);
    /* Ctrl+C ends a program, whoever handles it; as in asyncio. */
    bool done =
        result != NULL || !(PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || is_a_handlers());
    if (result == NULL && done) {
        PyErr_WriteUnraisable(callback);
    }
    Py_CLEAR(engine.raised);
    Py_XDECREF(result);
    Py_XDECREF(arguments);
    Py_DECREF(callback);
    if (drops != heap.drops) {
        timer->period_ns = 0; /* in a child that it has forked, or the interpreter is ending */
    }
    if (timer->period_ns != 0 && !timer->cancelled && timer->callback != NULL) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        if (!arm_again(timer)) {
            PyErr_WriteUnraisable((PyObject *)timer);
        }
        PyErr_Restore(type, value, traceback);
    }
    return done;
}

/* What is due now, in order: callbacks do not interrupt each other, and what one arms comes next
 * time, be it due as well. While one runs, no limit that was set outside of it interrupts: it would
 * unwind the callback instead of the block that it is for. */
bool timers_run(void) {
    uint64_t now = monotonic_ns();
    if (timers_due() > now) {
        return true;
    }
    struct control *self = control_here();
    if (self == NULL) {
        return false;
    }
    bool done = true;
    heap.running = now;
    while (done && heap.count != 0 && heap.nodes[0].at_ns <= now) {
        Timer *timer = pop();
        if (!timer->cancelled) {
            struct scope *floor = self->floor;
            self->floor = self->newest;
            self->due_ns = NEVER; /* of those inside, as yet */
            door_quiet();         /* it may run for long, or sleep */
            done = run_one(timer);
            self->floor = floor;
            self->due_ns = 0; /* limits that had to wait: look at all */
        }
        Py_DECREF((PyObject *)timer);
    }
    heap.running = 0;
    return done;
}

/* The interpreter ends, or this is a forked child. */
void timers_drop_all(void) {
    struct node *nodes = heap.nodes;
    size_t count = heap.count;
    heap.nodes = NULL;
    heap.count = heap.room = heap.cancelled = 0;
    heap.running = 0;
    heap.drops++;
    for (size_t i = 0; i < count; i++) {
        nodes[i].timer->waiting = false;
        nodes[i].timer->cancelled = true;
        let_go(nodes[i].timer);
        Py_DECREF((PyObject *)nodes[i].timer);
    }
    PyMem_Free(nodes);
}

static PyObject *arm(uint64_t at_ns, uint64_t period_ns, PyObject *callback,
                     PyObject *const *arguments, Py_ssize_t count) {
    if (!PyCallable_Check(callback)) {
        PyErr_Format(PyExc_TypeError, "the callback must be callable, not %R", callback);
        return NULL;
    }
    if (engine.closing) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is ending");
        return NULL;
    }
    static allocfunc allocate;
    if (allocate == NULL) {
        allocate = (allocfunc)PyType_GetSlot(timer_type, Py_tp_alloc);
    }
    PyObject *tuple = PyTuple_New(count);
    Timer *timer = tuple == NULL ? NULL : (Timer *)allocate(timer_type, 0);
    if (timer == NULL) {
        Py_XDECREF(tuple);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyTuple_SetItem(tuple, i, Py_NewRef(arguments[i]));
    }
    timer->at_ns = at_ns;
    timer->period_ns = period_ns;
    timer->callback = Py_NewRef(callback);
    timer->arguments = tuple;
    /* Imported in another thread, and the main one has not opened the doors yet: it asks then. */
    if ((engine.open && !clock_need(at_ns)) || !push(timer)) {
        Py_DECREF((PyObject *)timer);
        return NULL;
    }
    return (PyObject *)timer;
}

static bool enough_arguments(const char *function, Py_ssize_t nargs) {
    if (nargs < 2) {
        PyErr_Format(PyExc_TypeError, "%s() takes a time and a callback", function);
        return false;
    }
    return true;
}

static PyObject *call_later(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    int64_t delay;
    if (!enough_arguments("call_later", nargs) ||
        !parse_positive_seconds(args[0], "the delay", &delay)) {
        return NULL;
    }
    return arm(monotonic_ns() + (uint64_t)delay, 0, args[1], args + 2, nargs - 2);
}

static PyObject *call_at(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    int64_t when;
    if (!enough_arguments("call_at", nargs) || !parse_seconds(args[0], &when)) {
        return NULL;
    }
    return arm(when < 0 ? 0 : (uint64_t)when, 0, args[1], args + 2, nargs - 2);
}

static PyObject *call_every(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    int64_t period;
    if (!enough_arguments("call_every", nargs) ||
        !parse_positive_seconds(args[0], "the period", &period)) {
        return NULL;
    }
    if (period == 0) {
        PyErr_SetString(PyExc_ValueError, "the period must be positive");
        return NULL;
    }
    return arm(monotonic_ns() + (uint64_t)period, (uint64_t)period, args[1], args + 2, nargs - 2);
}

#define TIMER_DOC                                                                                  \
    "    callback: what is called, in the main thread, at a safe point; what it raises goes to\n"  \
    "        sys.unraisablehook.\n"                                                                \
    "    args: its arguments.\n\n"                                                                 \
    "Returns:\n"                                                                                   \
    "    A TimerHandle.\n\n"                                                                       \
    "Raises:\n"                                                                                    \
    "    ValueError: the time is no number, or negative.\n"                                        \
    "    OverflowError: the time is infinite, or beyond the clock's range.\n"                      \
    "    TypeError: the time is neither int nor float, or the callback cannot be called.\n"        \
    "    OSError: the kernel has no timer to give.\n\n"                                            \
    "Platform: Linux. Any thread. A forked child has none of its parent's timers.\n"

PyMethodDef timers_methods[] = {
    {"call_later", FUNCTION(call_later), METH_FASTCALL,
     "call_later(delay, callback, /, *args)\n--\n\n"
     "Call a function after so many seconds. No thread is started.\n\n"
     "Parameters:\n"
     "    delay: seconds, int or float, not negative.\n" TIMER_DOC
     "Source: asyncio's loop.call_later()."},
    {"call_at", FUNCTION(call_at), METH_FASTCALL,
     "call_at(when, callback, /, *args)\n--\n\n"
     "Call a function at a time. No thread is started.\n\n"
     "Parameters:\n"
     "    when: seconds of time.monotonic(), int or float; what is past: at once.\n" TIMER_DOC
     "Source: asyncio's loop.call_at()."},
    {"call_every", FUNCTION(call_every), METH_FASTCALL,
     "call_every(period, callback, /, *args)\n--\n\n"
     "Call a function again and again, first after one period. No thread is started.\n\n"
     "The calls keep to the period from the start, whatever each takes. A period that passed "
     "while\n"
     "the one before had not been dealt with is left out, and counted: handle.skipped.\n\n"
     "Parameters:\n"
     "    period: seconds, int or float, positive.\n" TIMER_DOC
     "Source: POSIX timer_settime(), it_interval and timer_getoverrun()."},
    {NULL, NULL, 0, NULL},
};

static void timer_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    let_go((Timer *)object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static int timer_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Timer *)object)->callback);
    Py_VISIT(((Timer *)object)->arguments);
    return 0;
}

static int timer_clear(PyObject *object) {
    let_go((Timer *)object);
    return 0;
}

static PyObject *timer_cancel(PyObject *object, PyObject *unused) {
    (void)unused;
    Timer *timer = (Timer *)object;
    if (!timer->cancelled && timer->callback != NULL) {
        timer->cancelled = true;
        if (timer->waiting) {
            heap.cancelled++;
            if (heap.cancelled > 64 && heap.cancelled > heap.count / 2) {
                drop_cancelled();
            }
        }
        let_go(timer);
    }
    Py_RETURN_NONE;
}

static PyObject *timer_cancelled(PyObject *object, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(((Timer *)object)->cancelled);
}

static PyObject *timer_when(PyObject *object, PyObject *unused) {
    (void)unused;
    return PyFloat_FromDouble((double)((Timer *)object)->at_ns / 1e9);
}

static PyObject *timer_skipped(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(((Timer *)object)->skipped);
}

static PyObject *timer_repr(PyObject *object) {
    Timer *timer = (Timer *)object;
    if (timer->callback == NULL) {
        return PyUnicode_FromFormat("<TimerHandle, %s>", timer->cancelled ? "cancelled" : "done");
    }
    PyObject *when = timer_when(object, NULL);
    PyObject *text = when == NULL
                         ? NULL
                         : PyUnicode_FromFormat("<TimerHandle: %R at %S%s>", timer->callback, when,
                                                timer->period_ns != 0 ? ", repeated" : "");
    Py_XDECREF(when);
    return text;
}

static PyMethodDef timer_methods[] = {
    {"cancel", timer_cancel, METH_NOARGS,
     "cancel()\n--\n\n"
     "Do not call it, or not again. A call that has begun goes on.\n\n"
     "Platform: Linux. Any thread, and the callback itself. Source: asyncio.TimerHandle."},
    {"cancelled", timer_cancelled, METH_NOARGS,
     "cancelled()\n--\n\nReturn whether cancel() came before the call, or the last of them."},
    {"when", timer_when, METH_NOARGS,
     "when()\n--\n\nReturn the deadline, or the last one, in seconds of time.monotonic()."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef timer_properties[] = {
    {"skipped", timer_skipped, NULL, "How many periods call_every() has left out so far.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_dealloc, timer_dealloc},
    {Py_tp_traverse, timer_traverse},
    {Py_tp_clear, timer_clear},
    {Py_tp_repr, timer_repr},
    {Py_tp_methods, timer_methods},
    {Py_tp_getset, timer_properties},
    {Py_tp_doc, "A call that is to come: what call_later(), call_at() and call_every() return.\n\n"
                "Dropping it does not cancel the call."},
    {0, NULL},
};

static PyType_Spec timer_spec = {
    .name = "sigwright.timers.TimerHandle",
    .basicsize = sizeof(Timer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_slots,
};

bool timers_add_type(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &timer_spec, NULL);
    if (type == NULL) {
        return false;
    }
    timer_type = (PyTypeObject *)type;
    return PyModule_AddObjectRef(module, "TimerHandle", type) == 0 &&
           PyModule_AddFunctions(module, timers_methods) == 0;
}
