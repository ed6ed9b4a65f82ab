/* Waiting for signals: pause(), sigsuspend(), sigwait(), sigwaitinfo(), sigtimedwait().
 * Context: any thread, with the GIL (released while waiting).
 * Callers: Python. */
#include <errno.h>
#include <unistd.h>

#include "sets.h"

/* A door that rang too late is no signal of the program's: sleep on. Doors land in the main thread
 * only; what ends the sleep of another one is the program's, whatever rang elsewhere meanwhile. */
static bool only_a_door_rang(uint64_t deliveries, uint32_t idle_rings) {
    return pthread_equal(pthread_self(), arrivals.main_thread) && engine.deliveries == deliveries &&
           atomic_load(&arrivals.inbox->idle_rings) != idle_rings;
}

PyDoc_STRVAR(pause_doc,
             "pause()\n--\n\n"
             "Sleep until a signal arrives and its handler has been called.\n\n"
             "In the main thread a signal that lands on another thread counts as well.\n\n"
             "Raises:\n"
             "    Anything that the handler raises.\n\n"
             "Platform: Unix. Source: POSIX pause(); section 17.4: \"Cause the process to sleep\n"
             "until a signal is received; the appropriate handler will then be called.\"");

static PyObject *pause_(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    uint64_t deliveries = engine.deliveries;
    uint32_t idle_rings;
    do {
        idle_rings = atomic_load(&arrivals.inbox->idle_rings);
        Py_BEGIN_ALLOW_THREADS;
        pause();
        Py_END_ALLOW_THREADS;
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    } while (only_a_door_rang(deliveries, idle_rings));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    sigsuspend_doc,
    "sigsuspend(mask, /)\n--\n\n"
    "Sleep with another mask until a signal has arrived and its handler been called.\n\n"
    "Exactly the signals of mask are blocked meanwhile, and what was blocked before afterwards.\n"
    "The change and the sleep are one step: what is blocked until then, and not in mask, cannot\n"
    "slip in between. The safe way to wait for a condition that a handler changes::\n\n"
    "    old = pthread_sigmask(SIG_BLOCK, [SIGUSR1])\n"
    "    while not condition:\n"
    "        sigsuspend(old)\n"
    "    pthread_sigmask(SIG_SETMASK, old)\n\n"
    "In the main thread a signal that lands on another thread counts as well. In another thread "
    "the\n"
    "handler runs in the main thread, maybe after this has returned.\n\n"
    "Parameters:\n"
    "    mask: the numbers of the signals to block meanwhile, in any iterable.\n\n"
    "Raises:\n"
    "    ValueError: a number out of range.\n"
    "    Anything that a handler raises, in the main thread. The mask is back by then.\n\n"
    "Platform: Unix. Any thread. Source: POSIX sigsuspend().");

static PyObject *sigsuspend_(PyObject *module, PyObject *numbers) {
    (void)module;
    sigset_t mask;
    /* What has arrived before has its handler called before, as in C: it is not what we wait for.
     */
    if (!parse_set(numbers, &mask) || PyErr_CheckSignals() < 0) {
        return NULL;
    }
    uint64_t deliveries = engine.deliveries;
    uint32_t idle_rings;
    do {
        idle_rings = atomic_load(&arrivals.inbox->idle_rings);
        Py_BEGIN_ALLOW_THREADS;
        sigsuspend(&mask);
        Py_END_ALLOW_THREADS;
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    } while (only_a_door_rang(deliveries, idle_rings));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    sigwait_doc,
    "sigwait(sigset)\n--\n\n"
    "Wait for one of some signals, take it, and return its number. No handler is called.\n\n"
    "Parameters:\n"
    "    sigset: signal numbers, in any iterable; they should be blocked in every thread.\n\n"
    "Returns:\n"
    "    The signal's number: a Signals member where it has a name.\n\n"
    "Raises:\n"
    "    ValueError: a number out of range.\n\n"
    "Platform: Unix. Source: POSIX sigwait().");

static PyObject *sigwait_(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames) {
    (void)module;
    static const char *const names[] = {"sigset"};
    PyObject *value;
    sigset_t set;
    if (!take_arguments("sigwait", names, 1, args, nargs, kwnames, &value) ||
        !parse_set(value, &set)) {
        return NULL;
    }
    int error, signum;
    Py_BEGIN_ALLOW_THREADS;
    error = sigwait(&set, &signum);
    Py_END_ALLOW_THREADS;
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_NewRef(engine.members[signum]);
}

/* The stdlib's struct_siginfo: seven fields, whatever the origin left in them. */
static PyObject *as_struct_siginfo(const siginfo_t *info) {
    PyObject *fields =
        Py_BuildValue("(iiiiIil)", info->si_signo, info->si_code, info->si_errno, (int)info->si_pid,
                      (unsigned)info->si_uid, info->si_status, (long)info->si_band);
    PyObject *result =
        fields == NULL ? NULL : PyObject_CallFunctionObjArgs(engine.struct_siginfo, fields, NULL);
    Py_XDECREF(fields);
    return result;
}

PyDoc_STRVAR(
    sigwaitinfo_doc,
    "sigwaitinfo(sigset, /)\n--\n\n"
    "Wait for one of some signals, take it, and say what is known of it. No handler of it\n"
    "is called; handlers of others are, and the wait goes on.\n\n"
    "Parameters:\n"
    "    sigset: signal numbers, in any iterable; they should be blocked in every thread.\n\n"
    "Returns:\n"
    "    A struct_siginfo: si_signo, si_code, si_errno, si_pid, si_uid, si_status, si_band.\n\n"
    "Raises:\n"
    "    ValueError: a number out of range. Anything that a handler raises.\n\n"
    "Platform: Unix. Source: POSIX sigwaitinfo(); PEP 475.");

static PyObject *sigwaitinfo_(PyObject *module, PyObject *argument) {
    (void)module;
    sigset_t set;
    siginfo_t info;
    int signum;
    if (!parse_set(argument, &set)) {
        return NULL;
    }
    for (;;) {
        Py_BEGIN_ALLOW_THREADS;
        signum = sigwaitinfo(&set, &info);
        Py_END_ALLOW_THREADS;
        if (signum != -1) {
            return as_struct_siginfo(&info);
        }
        if (errno != EINTR) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    }
}

PyDoc_STRVAR(
    sigtimedwait_doc,
    "sigtimedwait(sigset, timeout, /)\n--\n\n"
    "As sigwaitinfo(), for a limited time.\n\n"
    "Parameters:\n"
    "    sigset: signal numbers, in any iterable; they should be blocked in every thread.\n"
    "    timeout: seconds, int or float, not negative; 0 to look once.\n\n"
    "Returns:\n"
    "    A struct_siginfo, or None when the time is over.\n\n"
    "Raises:\n"
    "    ValueError: a number out of range, or a negative timeout.\n"
    "    Anything that a handler raises.\n\n"
    "Platform: Unix. Source: POSIX sigtimedwait(); PEP 475.");

static PyObject *sigtimedwait_(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    sigset_t set;
    int64_t timeout, deadline;
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "sigtimedwait expected 2 arguments, got %zd", nargs);
        return NULL;
    }
    if (!parse_set(args[0], &set) || !parse_seconds(args[1], &timeout)) {
        return NULL;
    }
    if (timeout < 0) {
        PyErr_SetString(PyExc_ValueError, "timeout must be non-negative");
        return NULL;
    }
    if (__builtin_add_overflow((int64_t)monotonic_ns(), timeout, &deadline)) {
        deadline = INT64_MAX;
    }
    for (;;) {
        struct timespec left = {timeout / 1000000000, timeout % 1000000000};
        siginfo_t info;
        int signum;
        Py_BEGIN_ALLOW_THREADS;
        signum = sigtimedwait(&set, &info, &left);
        Py_END_ALLOW_THREADS;
        if (signum != -1) {
            return as_struct_siginfo(&info);
        }
        if (errno == EAGAIN) {
            Py_RETURN_NONE;
        }
        if (errno != EINTR) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
        timeout = deadline - (int64_t)monotonic_ns();
        timeout = timeout > 0 ? timeout : 0;
    }
}

PyMethodDef waiting_methods[] = {
    {"pause", pause_, METH_NOARGS, pause_doc},
    {"sigsuspend", sigsuspend_, METH_O, sigsuspend_doc},
    {"sigwait", FUNCTION(sigwait_), METH_FASTCALL | METH_KEYWORDS, sigwait_doc},
    {"sigwaitinfo", sigwaitinfo_, METH_O, sigwaitinfo_doc},
    {"sigtimedwait", FUNCTION(sigtimedwait_), METH_FASTCALL, sigtimedwait_doc},
    {NULL, NULL, 0, NULL},
};
