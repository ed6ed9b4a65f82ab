/* Sections: the base of blocked(), which holds signals back by the thread's mask.
 * Context: any thread, with the GIL.
 * Callers: sections.py; module.c adds the type.
 *
 * In C, since the first step of an __exit__ in Python is a safe point: the handler of another
 * signal that raises there would leave these blocked for ever. And its own masks, not Python's
 * sets: what was blocked comes back exactly. */
#include <errno.h>

#include "sets.h"

/* The mask from before, of one entry in one thread. */
struct entry {
    struct entry *before;
    pthread_t thread;
    sigset_t mask;
};

struct blocked_section {
    PyObject_HEAD sigset_t signals;
    struct entry *entries; /* of all threads, the newest first */
};

/* A door may have moved since the set was made. */
static void set_mask(int how, sigset_t signals, sigset_t *previous) {
    for (uint64_t hidden = door_hidden(); hidden != 0; hidden &= hidden - 1) {
        sigdelset(&signals, __builtin_ctzll(hidden) + 1);
    }
    pthread_sigmask(how, &signals, previous);
}

static PyObject *section_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    sigset_t signals;
    if (kwargs != NULL && PyDict_Size(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "blocked() takes no keyword arguments");
        return NULL;
    }
    if (PyTuple_Size(args) == 0) {
        sigfillset(&signals);
    } else if (!parse_set(args, &signals)) {
        return NULL;
    } else if (sigismember(&signals, SIGKILL) || sigismember(&signals, SIGSTOP)) {
        /* pthread_sigmask() takes them in silence; but a section promises to hold what it names. */
        PyObject *error =
            Py_BuildValue("(is)", EINVAL,
                          sigismember(&signals, SIGKILL) ? "SIGKILL cannot be blocked"
                                                         : "SIGSTOP cannot be blocked");
        PyErr_SetObject(PyExc_OSError, error);
        Py_XDECREF(error);
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct blocked_section *self = (struct blocked_section *)allocate(type, 0);
    if (self != NULL) {
        self->signals = signals;
        self->entries = NULL;
    }
    return (PyObject *)self;
}

static void section_dealloc(PyObject *object) {
    struct blocked_section *self = (struct blocked_section *)object;
    PyTypeObject *type = Py_TYPE(object);
    while (self->entries != NULL) { /* never left: their masks are the program's now */
        struct entry *entry = self->entries;
        self->entries = entry->before;
        PyMem_Free(entry);
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* False: this thread is not inside. */
static bool leave(struct blocked_section *self) {
    struct entry **place = &self->entries;
    while (*place != NULL && !pthread_equal((*place)->thread, pthread_self())) {
        place = &(*place)->before;
    }
    struct entry *entry = *place;
    if (entry == NULL) {
        return false;
    }
    *place = entry->before;
    sigset_t mask = entry->mask;
    PyMem_Free(entry);
    set_mask(SIG_SETMASK, mask, NULL);
    return true;
}

static PyObject *section_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    struct blocked_section *self = (struct blocked_section *)object;
    struct entry *entry = PyMem_Malloc(sizeof *entry);
    if (entry == NULL) {
        return PyErr_NoMemory();
    }
    entry->thread = pthread_self();
    entry->before = self->entries;
    self->entries = entry;
    set_mask(SIG_BLOCK, self->signals, &entry->mask);
    /* What has arrived until now is of the time before. */
    engine.entering = true;
    int looked = PyErr_CheckSignals();
    engine.entering = false;
    if (looked < 0) {
        leave(self);
        return NULL;
    }
    return Py_NewRef(object);
}

static PyObject *section_exit(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    (void)args;
    (void)nargs;
    if (!leave((struct blocked_section *)object)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "blocked() is left in a thread that has not entered it");
        return NULL;
    }
    if (PyErr_CheckSignals() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef section_methods[] = {
    {"__enter__", section_enter, METH_NOARGS, NULL},
    {"__exit__", FUNCTION(section_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot section_slots[] = {
    {Py_tp_new, section_new},
    {Py_tp_dealloc, section_dealloc},
    {Py_tp_methods, section_methods},
    {Py_tp_doc, "BlockedSection(*signums)\n--\n\nThe base of sigwright.blocked."},
    {0, NULL},
};

static PyType_Spec section_spec = {
    .name = "sigwright._engine.BlockedSection",
    .basicsize = sizeof(struct blocked_section),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = section_slots,
};

bool add_blocked_section(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &section_spec, NULL);
    bool added = type != NULL && PyModule_AddObjectRef(module, "BlockedSection", type) == 0;
    Py_XDECREF(type);
    return added;
}
