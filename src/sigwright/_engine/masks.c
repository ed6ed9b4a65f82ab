/* Signal masks: pthread_sigmask(), sigpending(), valid_signals(), strsignal(), and sets of signals.
 * Context: any thread, with the GIL.
 * Callers: Python; waiting.c for the sets. */
#include <errno.h>
#include <string.h>

#include "sets.h"

static bool add_number(PyObject *item, sigset_t *set, uint64_t *asked) {
    int overflow;
    long signum = PyLong_AsLongAndOverflow(item, &overflow);
    if (signum <= 0 || signum >= SIGNALS) {
        if (overflow || !PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "signal number %ld out of range [1; %i]", signum,
                         SIGNALS - 1);
        }
        return false;
    }
    if (sigaddset(set, (int)signum) != 0) {
        /* The C library keeps these for itself; range(1, NSIG) is a common idiom. */
        return PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                                "invalid signal number %ld, please use valid_signals()",
                                signum) == 0;
    }
    *asked |= signal_bit((int)signum);
    return true;
}

bool parse_set(PyObject *numbers, sigset_t *set) {
    uint64_t asked = 0;
    sigemptyset(set);
    PyObject *iterator = PyObject_GetIter(numbers);
    if (iterator == NULL) {
        return false;
    }
    PyObject *item;
    while ((item = PyIter_Next(iterator)) != NULL) {
        bool added = add_number(item, set, &asked);
        Py_DECREF(item);
        if (!added) {
            break;
        }
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred() || ((asked & door_hidden()) != 0 && !door_make_room(asked))) {
        return false;
    }
    uint64_t hidden = asked & door_hidden();
    for (; hidden != 0; hidden &= hidden - 1) {
        sigdelset(set, __builtin_ctzll(hidden) + 1);
    }
    return true;
}

PyObject *set_to_python(const sigset_t *set) {
    PyObject *result = PySet_New(NULL);
    uint64_t hidden = door_hidden();
    for (int signum = 1; result != NULL && signum < SIGNALS; signum++) {
        if (sigismember(set, signum) == 1 && !(hidden & signal_bit(signum)) &&
            PySet_Add(result, engine.members[signum]) < 0) {
            Py_CLEAR(result);
        }
    }
    return result;
}

PyDoc_STRVAR(
    pthread_sigmask_doc,
    "pthread_sigmask(how, mask)\n--\n\n"
    "Read and change which signals the calling thread blocks.\n\n"
    "A blocked signal stays pending until it is unblocked, waited for, or its thread ends.\n"
    "Handlers of signals that this unblocks run before it returns (in the main thread).\n\n"
    "Parameters:\n"
    "    how: SIG_BLOCK (block these as well), SIG_UNBLOCK (no longer) or SIG_SETMASK (exactly\n"
    "        these).\n"
    "    mask: signal numbers, in any iterable.\n\n"
    "Returns:\n"
    "    The set of signals that were blocked before.\n\n"
    "Raises:\n"
    "    OSError: no such how. ValueError: a number out of range.\n"
    "    Anything that a handler raises.\n\n"
    "Platform: Unix. Source: POSIX pthread_sigmask().");

static PyObject *pthread_sigmask_(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *kwnames) {
    (void)module;
    static const char *const names[] = {"how", "mask"};
    PyObject *values[2];
    int how;
    sigset_t mask, previous;
    if (!take_arguments("pthread_sigmask", names, 2, args, nargs, kwnames, values) ||
        !parse_int(values[0], &how) || !parse_set(values[1], &mask)) {
        return NULL;
    }
    errno = pthread_sigmask(how, &mask, &previous);
    if (errno != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (PyErr_CheckSignals() < 0) {
        return NULL;
    }
    return set_to_python(&previous);
}

PyDoc_STRVAR(sigpending_doc,
             "sigpending()\n--\n\n"
             "Return the set of signals that are pending: sent to the process or to this thread,\n"
             "and blocked.\n\n"
             "Platform: Unix. Source: POSIX sigpending().");

static PyObject *sigpending_(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    sigset_t pending;
    if (sigpending(&pending) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return set_to_python(&pending);
}

PyDoc_STRVAR(valid_signals_doc,
             "valid_signals()\n--\n\n"
             "Return the set of signals of this platform that a program may use.\n\n"
             "The C library's own are not among them, nor the ones that sigwright rings by.\n\n"
             "Platform: all. Source: POSIX sigfillset().");

static PyObject *valid_signals(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    sigset_t all;
    sigfillset(&all);
    return set_to_python(&all);
}

PyDoc_STRVAR(
    strsignal_doc,
    "strsignal(signalnum, /)\n--\n\n"
    "Return the system's description of a signal, such as \"Interrupt\", or None where it\n"
    "has none.\n\n"
    "Parameters:\n"
    "    signalnum: the signal's number.\n\n"
    "Raises:\n"
    "    ValueError: signalnum out of range.\n\n"
    "Platform: all. Source: POSIX strsignal().");

static PyObject *strsignal_(PyObject *module, PyObject *argument) {
    (void)module;
    int signum;
    if (!parse_signal_number(argument, &signum)) {
        return NULL;
    }
    errno = 0;
    const char *description = strsignal(signum);
    if (errno != 0 || description == NULL || strstr(description, "Unknown signal") != NULL) {
        Py_RETURN_NONE;
    }
    return PyUnicode_DecodeLocale(description, "surrogateescape");
}

PyMethodDef masks_methods[] = {
    {"pthread_sigmask", FUNCTION(pthread_sigmask_), METH_FASTCALL | METH_KEYWORDS,
     pthread_sigmask_doc},
    {"sigpending", sigpending_, METH_NOARGS, sigpending_doc},
    {"valid_signals", valid_signals, METH_NOARGS, valid_signals_doc},
    {"strsignal", strsignal_, METH_O, strsignal_doc},
    {NULL, NULL, 0, NULL},
};
