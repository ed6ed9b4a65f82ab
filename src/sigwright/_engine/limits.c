/* Limits: CancelScope and its kin, blocks that a deadline or another thread can interrupt.
 * Context: any thread, with the GIL.
 * Callers: Python. How threads are interrupted: interrupting.c.
 *
 * Each thread has a stack of the scopes that it has entered. The scope whose time is over takes
 * Cancelled at its own edge; the ones inside let it pass, and so does one that is inside another
 * that is over as well.
 *
 * Entering and leaving are C, hold the GIL throughout, and contain no safe point. So a scope that
 * has been left is on no stack any more when anybody looks, and what was set on a worker and not
 * yet raised is taken back there: nothing fires after the block. (With Python's own `with` around
 * SetAsyncExc it did: CPython's tracker, 139622.) */
#include <math.h>

#include "control.h"

static PyTypeObject *scope_type;

static bool plan(struct control *self, uint64_t at_ns) {
    if (at_ns >= self->due_ns) {
        return true;
    }
    bool planned = self->is_main ? clock_need(at_ns) : clock_need_for_worker(at_ns);
    if (planned) {
        self->due_ns = at_ns;
    }
    return planned;
}

/* trio says so to sniffio, which is quick to ask: trio's own answer is a Python function's. */
static bool runs_trio(PyObject *library) {
    static PyObject *name_of_name;
    if (name_of_name == NULL) {
        name_of_name = PyUnicode_InternFromString("name");
    }
    PyObject *name =
        library == NULL || name_of_name == NULL ? NULL : PyObject_GetAttr(library, name_of_name);
    bool perhaps = name == NULL || name != Py_None;
    Py_XDECREF(name);
    PyErr_Clear();
    return perhaps;
}

/* Where an event loop runs, blocking code is not what a limit is wanted for: it would interrupt the
 * loop, or another task. The functions that tell are looked for when sys.modules has grown. */
static bool refuse_in_loop(void) {
    static Py_ssize_t modules_seen;
    static PyObject *running_loop, *in_trio, *library;
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    Py_ssize_t count = PyDict_Size(modules);
    if (count != modules_seen) {
        PyObject *asyncio = PyDict_GetItemString(modules, "asyncio.events");
        PyObject *trio = PyDict_GetItemString(modules, "trio.lowlevel");
        if (asyncio != NULL && running_loop == NULL) {
            running_loop = PyObject_GetAttrString(asyncio, "_get_running_loop");
        }
        PyObject *sniffio = PyDict_GetItemString(modules, "sniffio");
        if (trio != NULL && sniffio != NULL && in_trio == NULL) {
            in_trio = PyObject_GetAttrString(trio, "in_trio_run");
            library = PyObject_GetAttrString(sniffio, "thread_local");
        }
        PyErr_Clear(); /* half imported: it does not run yet either, and the count will change */
        modules_seen = count;
    }
    if (running_loop != NULL) {
        PyObject *loop = PyObject_CallNoArgs(running_loop);
        bool none = loop == Py_None;
        Py_XDECREF(loop);
        if (!none) {
            if (loop != NULL) {
                PyErr_SetString(PyExc_RuntimeError,
                                "an asyncio event loop runs in this thread: use asyncio.timeout()");
            }
            return false;
        }
    }
    if (in_trio != NULL && runs_trio(library)) {
        PyObject *inside = PyObject_CallNoArgs(in_trio);
        bool none = inside == Py_False;
        Py_XDECREF(inside);
        if (!none) {
            if (inside != NULL) {
                PyErr_SetString(PyExc_RuntimeError,
                                "trio runs in this thread: use trio.fail_after() or its kin");
            }
            return false;
        }
    }
    return true;
}

/* Limits come and go: the memory of the last ones is kept. */
static Scope *spare[16];
static size_t spares;

static Scope *allocate(PyTypeObject *type) {
    if (type == scope_type && spares != 0) {
        Scope *self = spare[--spares];
        memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
        return (Scope *)PyObject_Init((PyObject *)self, type);
    }
    allocfunc generic = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return (Scope *)generic(type, 0);
}

static Scope *new_scope(PyTypeObject *type, int64_t span_ns, uint64_t deadline_ns, bool fails) {
    Scope *self = allocate(type);
    if (self != NULL) {
        self->span_ns = span_ns;
        self->deadline_ns = deadline_ns;
        self->fails = fails;
    }
    return self;
}

static bool is_infinite(PyObject *seconds) {
    return PyFloat_Check(seconds) && isinf(PyFloat_AsDouble(seconds)) &&
           PyFloat_AsDouble(seconds) > 0;
}

static bool parse_span(PyObject *seconds, int64_t *span_ns) {
    if (is_infinite(seconds)) {
        *span_ns = INT64_MAX;
        return true;
    }
    return parse_positive_seconds(seconds, "a limit", span_ns);
}

static bool parse_deadline(PyObject *seconds, uint64_t *deadline_ns) {
    int64_t ns;
    if (is_infinite(seconds)) {
        *deadline_ns = NEVER;
        return true;
    }
    if (PyFloat_Check(seconds) && isinf(PyFloat_AsDouble(seconds))) {
        *deadline_ns = 0; /* as trio's: for ever over */
        return true;
    }
    if (!parse_seconds(seconds, &ns)) {
        return false;
    }
    *deadline_ns = ns < 0 ? 0 : (uint64_t)ns; /* it is past */
    return true;
}

static PyObject *scope_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"deadline", NULL};
    PyObject *deadline = NULL;
    uint64_t deadline_ns = NEVER;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:CancelScope", names, &deadline) ||
        (deadline != NULL && !parse_deadline(deadline, &deadline_ns))) {
        return NULL;
    }
    return (PyObject *)new_scope(type, -1, deadline_ns, false);
}

static void scope_dealloc(PyObject *object) {
    Scope *self = (Scope *)object; /* nobody is inside: whoever is holds a reference */
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(self->frame);
    if (type == scope_type && spares < sizeof spare / sizeof *spare) {
        spare[spares++] = self;
    } else {
        freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
        release(object);
    }
    Py_DECREF(type);
}

static PyObject *scope_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    Scope *self = (Scope *)object;
    PyObject *frame = frame_entering(); /* first: it may run the collector */
    if (self->owner != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the scope is entered already");
        Py_DECREF(frame);
        return NULL;
    }
    struct control *owner = control_here();
    if (owner == NULL || !refuse_in_loop()) {
        Py_DECREF(frame);
        return NULL;
    }
    if (self->span_ns >= 0) {
        uint64_t now = monotonic_ns();
        self->deadline_ns = self->span_ns == INT64_MAX ? NEVER : now + (uint64_t)self->span_ns;
    }
    self->over = self->cancel_wanted;
    self->cancel_wanted = self->interrupted = self->caught = self->held = self->suspended = false;
    self->again_ns = self->again_delay_ns = 0;
    if (!plan(owner, wants_at(self))) {
        Py_DECREF(frame);
        return NULL;
    }
    self->frame = frame;
    self->outer = owner->newest;
    self->owner = owner;
    owner->newest = (Scope *)Py_NewRef(object);
    return Py_NewRef(object);
}

/* False: it is not the innermost one of its thread. */
static bool take_off(Scope *self) {
    struct control *owner = self->owner;
    bool innermost = owner->newest == self;
    Scope **place = &owner->newest;
    while (*place != self) {
        place = &(*place)->outer;
    }
    *place = self->outer;
    if (owner->floor == self) {
        owner->floor = self->outer;
    }
    self->owner = NULL;
    self->outer = NULL;
    return innermost;
}

static void set_timeout_error(PyObject *cause) {
    PyObject *error = PyObject_CallFunction(PyExc_TimeoutError, "s", "the time limit is over");
    if (error != NULL) {
        if (cause != Py_None) {
            PyException_SetCause(error, Py_NewRef(cause));
            PyException_SetContext(error, Py_NewRef(cause));
        }
        PyErr_SetObject(PyExc_TimeoutError, error);
        Py_DECREF(error);
    }
}

/* What the block's end means. NULL with an exception set, or the answer to `with`. */
static PyObject *conclude(Scope *self, const Scope *outer, PyObject *type, PyObject *value) {
    bool is_ours = is_cancelled(type);
    if (self->suspended && (type == Py_None || is_ours)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the limit fell due while its generator or coroutine was suspended: a "
                        "suspension (yield, await) inside the block cannot be limited");
        return NULL;
    }
    if (!self->over || !self->interrupted) {
        Py_RETURN_FALSE; /* nothing of its own on its way */
    }
    if (is_ours && any_over(outer)) {
        Py_RETURN_FALSE; /* the outermost takes it */
    }
    self->caught = is_ours;
    if (is_ours && !self->fails) {
        Py_RETURN_TRUE;
    }
    if (self->fails && (is_ours || type == Py_None)) { /* None: swallowed in the block */
        set_timeout_error(value);
        return NULL;
    }
    Py_RETURN_FALSE;
}

static PyObject *scope_exit(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    Scope *self = (Scope *)object;
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "__exit__() takes three arguments");
        return NULL;
    }
    struct control *owner = self->owner;
    if (owner == NULL || owner != here) {
        PyErr_SetString(PyExc_RuntimeError, owner == NULL
                                                ? "the scope is left without having been entered"
                                                : "the scope is left in another thread");
        return NULL;
    }
    Scope *outer = self->outer;
    PyObject *frame = self->frame;
    self->frame = NULL;
    bool innermost = take_off(self);
    if (owner->newest == NULL) {
        owner->due_ns = NEVER;
        clock_idle(owner);
    }
    if (owner->interrupting) {
        take_interrupt_back(owner);
    }
    if (owner->putting_off && owner->newest == NULL) {
        owner->putting_off = false;
        put_off_forget(owner->ident);
    }
    PyObject *answer;
    if (!innermost) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the scope is left before one that was entered later: a generator or "
                        "coroutine was suspended inside it");
        answer = NULL;
    } else {
        answer = conclude(self, outer, args[0], args[1]);
    }
    Py_DECREF(frame);
    Py_DECREF(object); /* the stack's; `with` has its own */
    return answer;
}

static PyObject *scope_cancel(PyObject *object, PyObject *unused) {
    (void)unused;
    Scope *self = (Scope *)object;
    struct control *owner = self->owner;
    if (owner == NULL || atomic_load(&owner->ended)) {
        self->cancel_wanted = true;
        Py_RETURN_NONE;
    }
    if (self->over) {
        Py_RETURN_NONE; /* it comes again by itself */
    }
    self->over = true;
    self->again_ns = 0;
    owner->due_ns = 0;
    if (owner->is_main) {
        clock_look_now();
    } else {
        clock_look(true);
        limits_interrupt_worker(owner);
        clock_look(false);
        if (owner->due_ns != NEVER && !clock_need_for_worker(owner->due_ns)) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

/* For the decorator: each call has a scope of its own. */
static PyObject *scope_copy(PyObject *object, PyObject *unused) {
    (void)unused;
    const Scope *self = (const Scope *)object;
    Scope *copy = new_scope(Py_TYPE(object), self->span_ns, self->deadline_ns, self->fails);
    if (copy != NULL) {
        copy->cancel_wanted = self->cancel_wanted;
    }
    return (PyObject *)copy;
}

static PyObject *scope_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    static const struct context_functions functions = {scope_enter, scope_exit, "sigwright.limits"};
    return context_call(object, args, kwargs, &functions);
}

static PyObject *get_deadline(PyObject *object, void *unused) {
    (void)unused;
    const Scope *self = (const Scope *)object;
    bool known = self->deadline_ns != NEVER && (self->span_ns < 0 || self->deadline_ns != 0);
    return PyFloat_FromDouble(known ? (double)self->deadline_ns / 1e9 : INFINITY);
}

static int set_deadline(PyObject *object, PyObject *value, void *unused) {
    (void)unused;
    Scope *self = (Scope *)object;
    uint64_t deadline_ns;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "the deadline cannot be deleted");
        return -1;
    }
    if (!parse_deadline(value, &deadline_ns)) {
        return -1;
    }
    if (self->owner != NULL && !atomic_load(&self->owner->ended) && !self->over &&
        !plan(self->owner, deadline_ns)) {
        return -1;
    }
    self->deadline_ns = deadline_ns;
    self->span_ns = -1;
    self->suspended = self->held = false;
    self->again_ns = self->over ? self->again_ns : 0;
    return 0;
}

static PyObject *get_cancel_called(PyObject *object, void *unused) {
    (void)unused;
    const Scope *self = (const Scope *)object;
    return PyBool_FromLong(self->over || self->cancel_wanted);
}

static PyObject *get_cancelled_caught(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(((const Scope *)object)->caught);
}

static PyMethodDef scope_methods[] = {
    {"__enter__", scope_enter, METH_NOARGS, NULL},
    {"__exit__", FUNCTION(scope_exit), METH_FASTCALL, NULL},
    {"cancel", scope_cancel, METH_NOARGS,
     "cancel()\n--\n\n"
     "Interrupt the block with Cancelled, as if its deadline had come.\n\n"
     "Where nobody is inside, the next block that enters is cancelled at its first safe point.\n\n"
     "Platform: Linux. Any thread. Source: trio.CancelScope.cancel()."},
    {"_copy", scope_copy, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef scope_properties[] = {
    {"deadline", get_deadline, set_deadline,
     "When the block is cancelled, in seconds of time.monotonic(); inf: never. May be set at any\n"
     "time, in any thread. Of a limit that counts from entering it is inf until then.",
     NULL},
    {"cancel_called", get_cancel_called, NULL,
     "Whether the deadline was reached, or cancel() was called.", NULL},
    {"cancelled_caught", get_cancelled_caught, NULL,
     "Whether the block was interrupted, and Cancelled was swallowed at its edge.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    scope_doc,
    "CancelScope(deadline=inf)\n--\n\n"
    "A block that can be cancelled: at a deadline, and by any thread::\n\n"
    "    with CancelScope() as scope:\n"
    "        work()  # another thread may call scope.cancel()\n"
    "    if scope.cancelled_caught: ...\n\n"
    "The thread inside is interrupted with Cancelled, which this scope swallows at its own\n"
    "edge; blocks inside it unwind. The rules, and what cannot be interrupted, are in the\n"
    "documentation of limits. Also a decorator for plain functions: each call has a scope\n"
    "of its own.\n\n"
    "Parameters:\n"
    "    deadline: when to cancel, in seconds of time.monotonic().\n\n"
    "Raises:\n"
    "    ValueError: the deadline is no number.\n"
    "    RuntimeError: entered while entered; in a running event loop; left in another\n"
    "        thread or out of order.\n"
    "    OSError: entering, where the kernel has no timer or thread to give.\n\n"
    "Platform: Linux. Any thread. Source: trio.CancelScope.");

static PyType_Slot scope_slots[] = {
    {Py_tp_new, scope_new},
    {Py_tp_dealloc, scope_dealloc},
    {Py_tp_methods, scope_methods},
    {Py_tp_getset, scope_properties},
    {Py_tp_call, scope_call},
    {Py_tp_doc, (void *)scope_doc},
    {0, NULL},
};

static PyType_Spec scope_spec = {
    .name = "sigwright.limits.CancelScope",
    .basicsize = sizeof(Scope),
    .flags = Py_TPFLAGS_DEFAULT, /* no subclasses: see context.c */
    .slots = scope_slots,
};

static PyObject *after(PyObject *seconds, bool fails) {
    int64_t span_ns;
    return parse_span(seconds, &span_ns) ? (PyObject *)new_scope(scope_type, span_ns, 0, fails)
                                         : NULL;
}

static PyObject *at(PyObject *seconds, bool fails) {
    uint64_t deadline_ns;
    return parse_deadline(seconds, &deadline_ns)
               ? (PyObject *)new_scope(scope_type, -1, deadline_ns, fails)
               : NULL;
}

static PyObject *fail_after(PyObject *module, PyObject *seconds) {
    (void)module;
    return after(seconds, true);
}

static PyObject *fail_at(PyObject *module, PyObject *deadline) {
    (void)module;
    return at(deadline, true);
}

static PyObject *move_on_after(PyObject *module, PyObject *seconds) {
    (void)module;
    return after(seconds, false);
}

static PyObject *move_on_at(PyObject *module, PyObject *deadline) {
    (void)module;
    return at(deadline, false);
}

#define LIMIT_DOC(signature, first, parameter, source)                                             \
    signature "\n--\n\n" first "\n\nParameters:\n    " parameter                                   \
              "\n\nReturns:\n    A CancelScope, to enter as a block any number of times, or a "    \
              "decorator.\n\nRaises:\n    ValueError: it is no number, or negative.\n    "         \
              "TypeError: it is neither int nor float.\n\nPlatform: Linux. Any thread. Source: "   \
              "trio." source "."

PyMethodDef limits_methods[] = {
    {"set_enter_context", set_enter_context, METH_O,
     "set_enter_context(code, /)\n--\n\n"
     "Say which function enters sections on behalf of its caller: ExitStack.enter_context."},
    {"fail_after", fail_after, METH_O,
     LIMIT_DOC("fail_after(seconds, /)",
               "A block that ends with TimeoutError when it takes longer than so many seconds.",
               "seconds: int or float, counted from entering; 0: at the first safe point.",
               "fail_after()")},
    {"fail_at", fail_at, METH_O,
     LIMIT_DOC("fail_at(deadline, /)",
               "A block that ends with TimeoutError when it has not ended by then.",
               "deadline: seconds of time.monotonic(), int or float.", "fail_at()")},
    {"move_on_after", move_on_after, METH_O,
     LIMIT_DOC("move_on_after(seconds, /)",
               "A block that is left when it takes longer than so many seconds.",
               "seconds: int or float, counted from entering; 0: at the first safe point.",
               "move_on_after()")},
    {"move_on_at", move_on_at, METH_O,
     LIMIT_DOC("move_on_at(deadline, /)", "A block that is left when it has not ended by then.",
               "deadline: seconds of time.monotonic(), int or float.", "move_on_at()")},
    {NULL, NULL, 0, NULL},
};

bool limits_add_types(PyObject *module) {
    PyObject *scope = PyType_FromModuleAndSpec(module, &scope_spec, NULL);
    scope_type = (PyTypeObject *)scope;
    return scope != NULL && controls_prepare() && cancelled_add_type(module) &&
           add_context_methods(scope) && PyModule_AddObjectRef(module, "CancelScope", scope) == 0 &&
           PyModule_AddFunctions(module, limits_methods) == 0;
}
