/* sigaction(): POSIX's own way to set a handler, with flags and mask; and what the kernel does now.
 * Context: the main thread, with the GIL (reading: any thread, with the GIL).
 * Callers: Python, through actions.py. */
#include <errno.h>

#include "kernel_actions.h"
#include "sets.h"

#define KNOWN_FLAGS                                                                                \
    ((unsigned)SA_NOCLDSTOP | SA_NOCLDWAIT | SA_NODEFER | SA_ONSTACK | SA_RESETHAND | SA_RESTART | \
     SA_SIGINFO)

/* A C handler, as an opaque object that can be set again: the struct sigaction in a capsule. */
#define CAPSULE "sigwright._engine.c_handler"

static void free_c_handler(PyObject *capsule) {
    PyMem_Free(PyCapsule_GetPointer(capsule, CAPSULE));
}

static PyObject *new_c_handler(const struct sigaction *action) {
    struct sigaction *copy = PyMem_Malloc(sizeof *copy);
    if (copy == NULL) {
        return PyErr_NoMemory();
    }
    *copy = *action;
    PyObject *capsule = PyCapsule_New(copy, CAPSULE, free_c_handler);
    if (capsule == NULL) {
        PyMem_Free(copy);
    }
    return capsule;
}

static uint64_t to_bits(const sigset_t *set) {
    uint64_t bits = 0;
    for (int signum = 1; signum < SIGNALS; signum++) {
        bits |= sigismember(set, signum) == 1 ? signal_bit(signum) : 0;
    }
    return bits;
}

static PyObject *bits_to_python(uint64_t bits) {
    sigset_t set;
    sigemptyset(&set);
    FOR_EACH_SIGNAL (signum, bits) {
        sigaddset(&set, (int)signum);
    }
    return set_to_python(&set);
}

static PyObject *kernel_action(PyObject *module, PyObject *argument) {
    (void)module;
    static const char *const actors[] = {"default", "ignored", "ours", "stdlib", "foreign"};
    int signum;
    struct sigaction now;
    if (!parse_signal_number(argument, &signum)) {
        return NULL;
    }
    if (sigaction(signum, NULL, &now) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    enum actor actor = actor_of(&now);
    bool hidden = (door_hidden() & signal_bit(signum)) != 0;
    PyObject *mask = set_to_python(&now.sa_mask);
    return mask == NULL
               ? NULL
               : Py_BuildValue("(sINKi)", hidden ? "door" : actors[actor], (unsigned)now.sa_flags,
                               mask, (unsigned long long)(uintptr_t)now.sa_handler,
                               (atomic_load(&arrivals.chained) & signal_bit(signum)) != 0);
}

/* Takes over both references; either may be NULL, with an exception set. */
static PyObject *describe(PyObject *handler, unsigned flags, PyObject *mask) {
    PyObject *described =
        handler == NULL || mask == NULL ? NULL : Py_BuildValue("(OIO)", handler, flags, mask);
    Py_XDECREF(handler);
    Py_XDECREF(mask);
    return described;
}

/* (handler, flags, mask) as sigaction() knows them: a C handler is a capsule. */
static PyObject *current_action(int signum) {
    struct sigaction now;
    if (sigaction(signum, NULL, &now) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (is_ours(&now) && (engine.give_back & signal_bit(signum))) {
        now = arrivals.previous[signum]; /* beneath the consumers */
    }
    PyObject *handler;
    switch (actor_of(&now)) {
    case FOREIGN_C:
        handler = new_c_handler(&now);
        break;
    case STDLIB:
        handler = PyObject_CallMethod(engine.stdlib, "getsignal", "i", signum);
        if (handler == engine.dispatcher) { /* somebody has saved it, and put it back */
            replace_reference(&handler, Py_NewRef(engine.handlers[signum]));
        }
        break;
    case IGNORED:
    case BY_DEFAULT:
        if (!(door_hidden() & signal_bit(signum))) {
            handler = Py_NewRef(now.sa_handler == SIG_IGN ? engine.sig_ign : engine.sig_dfl);
            break;
        }
        /* fall through */
    default:
        return describe(Py_NewRef(engine.handlers[signum]), engine.actions[signum].flags,
                        bits_to_python(engine.actions[signum].mask));
    }
    if (!is_c_handler(&now)) {
        now.sa_flags &= SA_NOCLDSTOP | SA_NOCLDWAIT; /* the others mean nothing there */
    }
    return describe(handler, (unsigned)now.sa_flags & KNOWN_FLAGS, set_to_python(&now.sa_mask));
}

/* Put a C handler (back) in its place: beneath the consumers, where there are any. */
static bool set_c_handler(int signum, const struct sigaction *action) {
    /* CPython's table must not go on naming a Python handler, and SIG_DFL in between is the price
     * of its having no other way in: for this thread at least, no signal falls into that instant.
     */
    sigset_t all, mask;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mask);
    PyObject *old = set_disposition(signum, engine.sig_dfl, (struct action){0});
    bool set = old != NULL && sigaction(signum, action, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    if (!set) {
        if (old != NULL) {
            PyErr_SetFromErrno(PyExc_OSError);
            Py_DECREF(old);
        }
        return false;
    }
    Py_DECREF(old);
    replace_reference(&engine.handlers[signum], Py_NewRef(Py_None));
    engine.untold &= ~signal_bit(signum);
    return atomic_load(&arrivals.audiences[signum]) == NULL || disposition_take(signum, true);
}

static bool set_action(int signum, PyObject *handler, unsigned flags, const sigset_t *mask) {
    if (PyCapsule_IsValid(handler, CAPSULE)) {
        struct sigaction action = *(struct sigaction *)PyCapsule_GetPointer(handler, CAPSULE);
        return set_c_handler(signum, &action);
    }
    PyObject *known = read_handler(handler);
    if (known == NULL) {
        return false;
    }
    struct action action = {.posix = true, .flags = flags, .mask = to_bits(mask)};
    /* POSIX: the mask without these two; SIGKILL and SIGSTOP cannot wait. */
    action.mask &= ~(signal_bit(SIGKILL) | signal_bit(SIGSTOP));
    PyObject *old = set_disposition(signum, known, action);
    Py_XDECREF(old);
    return old != NULL;
}

static PyObject *sigaction_(PyObject *module, PyObject *args) {
    (void)module;
    int signum;
    unsigned flags = 0;
    PyObject *handler = NULL, *numbers = NULL;
    sigset_t mask;
    if (!PyArg_ParseTuple(args, "i|OIO", &signum, &handler, &flags, &numbers) ||
        !in_range(signum)) {
        return NULL;
    }
    if (handler != NULL) {
        if (numbers == NULL || !parse_set(numbers, &mask) || !require_main_thread("sigaction")) {
            return NULL;
        }
        if (flags & ~KNOWN_FLAGS) {
            PyErr_Format(PyExc_ValueError, "unknown flags: %#x", flags & ~KNOWN_FLAGS);
            return NULL;
        }
        if (signum == SIGKILL || signum == SIGSTOP) {
            errno = EINVAL;
            return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, engine.members[signum]);
        }
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    }
    PyObject *old = current_action(signum);
    if (old != NULL && handler != NULL && !set_action(signum, handler, flags, &mask)) {
        Py_CLEAR(old);
    }
    return old;
}

PyMethodDef actions_methods[] = {
    {"sigaction", sigaction_, METH_VARARGS,
     "sigaction(signum, handler=..., flags=0, mask=(), /)\n--\n\n"
     "The action now, as (handler, flags, mask), and set another, if a handler is given."},
    {"kernel_action", kernel_action, METH_O,
     "kernel_action(signum, /)\n--\n\n"
     "What the kernel does on a signal: (actor, flags, mask, address, chained)."},
    {NULL, NULL, 0, NULL},
};
