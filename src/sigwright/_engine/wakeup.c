/* The wakeup fd: set_wakeup_fd(), and the reports of what could not be written to it.
 * Context: the main thread, with the GIL (the bytes are written by arrival.c).
 * Callers: Python; delivery.c reports; module.c at exit. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "engine.h"

#define REPORTS_MAX 32 /* as many as CPython's queue of pending calls holds */

/* UnraisableHookArgs is nowhere to be had by name: let one pass by, and keep its type. */
static PyObject *hook_arguments_type(void) {
    static PyObject *type = NULL;
    if (type == NULL) {
        PyObject *seen = PyList_New(0);
        PyObject *hook = Py_XNewRef(PySys_GetObject("unraisablehook"));
        PyObject *catch = seen == NULL ? NULL : PyObject_GetAttrString(seen, "append");
        if (catch != NULL && hook != NULL && PySys_SetObject("unraisablehook", catch) == 0) {
            PyErr_SetNone(PyExc_OSError);
            PyErr_WriteUnraisable(NULL);
            PySys_SetObject("unraisablehook", hook);
            if (PyList_Size(seen) == 1) {
                type = Py_NewRef((PyObject *)Py_TYPE(PyList_GetItem(seen, 0)));
            }
        }
        Py_XDECREF(catch);
        Py_XDECREF(hook);
        Py_XDECREF(seen);
    }
    return type;
}

/* What PyErr_FormatUnraisable() does, which the limited API lacks: hand the exception that is set
 * to sys.unraisablehook with `message`, on a Python since `message_since`; before that, as then: a
 * raw line on stderr (or none), and the hook without a message. */
void report_unraisable(const char *raw_line, const char *message, unsigned long message_since) {
    PyObject *type, *value, *traceback;
    if (Py_Version >= message_since) {
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        PyObject *hook = PySys_GetObject("unraisablehook");
        PyObject *arguments_type = hook == NULL || hook == Py_None ? NULL : hook_arguments_type();
        PyObject *result = NULL;
        if (arguments_type != NULL) {
            Py_INCREF(hook);
            PyObject *arguments =
                PyObject_CallFunction(arguments_type, "((OOOsO))", type, value,
                                      traceback == NULL ? Py_None : traceback, message, Py_None);
            result = arguments == NULL ? NULL : PyObject_CallFunctionObjArgs(hook, arguments, NULL);
            Py_XDECREF(arguments);
            Py_DECREF(hook);
        }
        if (result != NULL) {
            Py_DECREF(result);
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(traceback);
            return;
        }
        PyErr_Clear();
        PyErr_Restore(type, value, traceback);
    } else if (raw_line != NULL) {
        PySys_WriteStderr("%s", raw_line);
    }
    PyErr_WriteUnraisable(NULL);
}

/* One report for each write that failed, as in the stdlib. */
void report_wakeup_failures(void) {
    uint32_t failures = atomic_exchange(&arrivals.inbox->wakeup_failures, 0);
    int error = atomic_load(&arrivals.inbox->wakeup_errno);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    for (uint32_t i = 0; i < failures && i < REPORTS_MAX; i++) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        report_unraisable("Exception ignored when trying to write to the signal wakeup fd:\n",
                          Py_Version >= 0x030E0000
                              ? "Exception ignored while trying to write to the signal wakeup fd"
                              : "Exception ignored when trying to write to the signal wakeup fd",
                          0x030C0000);
    }
    PyErr_Restore(type, value, traceback);
}

/* The old fd is out of use when this returns: an arrival on another thread that still read it has
 * written. (The stdlib can write into a file that got the number of a closed one.) */
static long exchange(uint64_t wakeup) {
    uint64_t old = atomic_exchange(&arrivals.wakeup, wakeup);
    if ((uint32_t)old != (uint32_t)wakeup && (uint32_t)old != (uint32_t)WAKEUP_NONE) {
        arrivals_end();
    }
    return (int)(uint32_t)old;
}

PyDoc_STRVAR(
    set_wakeup_fd_doc,
    "set_wakeup_fd(fd, /, *, warn_on_full_buffer=True)\n--\n\n"
    "Have a byte, the signal's number, written to fd for each arrival.\n\n"
    "A library wakes its select() or poll() with it. Only signals with a Python-level handler\n"
    "count. Main thread only.\n\n"
    "Parameters:\n"
    "    fd: a file descriptor in non-blocking mode, or -1 for none. Its reader takes the bytes.\n"
    "    warn_on_full_buffer: report on sys.stderr when fd is full; other errors always are.\n\n"
    "Returns:\n"
    "    The fd from before, or -1. It is not written to any more.\n\n"
    "Raises:\n"
    "    ValueError: not in the main thread, or fd is in blocking mode.\n"
    "    OSError: fd is not open.\n\n"
    "Platform: all. Source: section 17.4: \"Set the wakeup fd to fd.\"");

static PyObject *set_wakeup_fd(PyObject *module, PyObject *args, PyObject *keywords) {
    (void)module;
    static char *names[] = {"", "warn_on_full_buffer", NULL};
    PyObject *number;
    int fd;
    int warn = 1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$p:set_wakeup_fd", names, &number, &warn) ||
        !parse_int(number, &fd) || !require_main_thread("set_wakeup_fd")) {
        return NULL;
    }
    if (engine.closed) {
        return PyObject_Call(PyObject_GetAttrString(engine.stdlib, "set_wakeup_fd"), args,
                             keywords);
    }
    if (fd != -1) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        if (!(flags & O_NONBLOCK)) {
            PyErr_Format(PyExc_ValueError, "the fd %i must be in non-blocking mode", fd);
            return NULL;
        }
    }
    return PyLong_FromLong(exchange((uint32_t)fd | (warn ? WAKEUP_WARN_FULL : 0)));
}

PyObject *set_zero_wakeup_fd(PyObject *module, PyObject *number) {
    (void)module;
    int fd;
    struct stat status;
    if (!parse_int(number, &fd) || !require_main_thread("set_wakeup_fd")) {
        return NULL;
    }
    if (fd != -1 && fstat(fd, &status) != 0) {
        PyErr_SetString(PyExc_ValueError, "invalid fd");
        return NULL;
    }
    return PyLong_FromLong(exchange((uint32_t)fd | WAKEUP_ZERO_BYTE | WAKEUP_SILENT));
}

PyMethodDef wakeup_methods[] = {
    {"set_wakeup_fd", FUNCTION(set_wakeup_fd), METH_VARARGS | METH_KEYWORDS, set_wakeup_fd_doc},
    {NULL, NULL, 0, NULL},
};

/* The stdlib's module has a wakeup fd already (asyncio's, say). A handler that becomes ours must
 * then write to that fd, and who set it must reach us to take it back: through install() it does.
 * So at import such handlers are left alone (`in_use`), and install() takes over both. */
bool wakeup_take_over(bool at_import, bool *in_use) {
    PyObject *old = PyObject_CallMethod(engine.stdlib, "set_wakeup_fd", "i", -1);
    if (old == NULL) {
        return false;
    }
    long fd = PyLong_AsLong(old);
    Py_DECREF(old);
    *in_use = fd != -1;
    if (fd != -1 && at_import) {
        Py_XDECREF(PyObject_CallMethod(engine.stdlib, "set_wakeup_fd", "l", fd));
        return !PyErr_Occurred();
    }
    if (fd != -1) {
        exchange((uint32_t)fd | WAKEUP_WARN_FULL);
    }
    return true;
}

/* At exit: the stdlib's module goes on writing to the same fd. */
void wakeup_hand_over(void) {
    uint64_t wakeup = atomic_exchange(&arrivals.wakeup, WAKEUP_NONE);
    if ((uint32_t)wakeup == (uint32_t)WAKEUP_NONE || (wakeup & WAKEUP_ZERO_BYTE)) {
        return;
    }
    PyObject *function = PyObject_GetAttrString(engine.stdlib, "set_wakeup_fd");
    PyObject *args = Py_BuildValue("(i)", (int)(uint32_t)wakeup);
    PyObject *keywords = Py_BuildValue("{sO}", "warn_on_full_buffer",
                                       (wakeup & WAKEUP_WARN_FULL) ? Py_True : Py_False);
    PyObject *old = function == NULL || args == NULL || keywords == NULL
                        ? NULL
                        : PyObject_Call(function, args, keywords);
    if (old == NULL) {
        PyErr_Clear(); /* closed meanwhile: nothing to hand over */
    }
    Py_XDECREF(old);
    Py_XDECREF(keywords);
    Py_XDECREF(args);
    Py_XDECREF(function);
}
