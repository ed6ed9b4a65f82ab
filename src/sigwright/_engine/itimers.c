/* Interval timers and the alarm: alarm(), setitimer(), getitimer().
 * Context: any thread, with the GIL.
 * Callers: Python. */
#include <sys/time.h>
#include <unistd.h>

#include "engine.h"

PyDoc_STRVAR(alarm_doc,
             "alarm(seconds, /)\n--\n\n"
             "Have SIGALRM sent to this process in some seconds; a previous alarm is cancelled.\n\n"
             "Parameters:\n"
             "    seconds: whole seconds from now; 0 for no alarm.\n\n"
             "Returns:\n"
             "    Seconds that were left of the previous alarm, or 0 where there was none.\n\n"
             "Raises:\n"
             "    TypeError: seconds is not an int.\n\n"
             "Platform: Unix. Any thread. It shares its timer with ITIMER_REAL. Source: POSIX\n"
             "alarm(); section 17.4: \"If time is non-zero, this function requests that a SIGALRM\n"
             "signal be sent to the process in time seconds.\"");

static PyObject *alarm_(PyObject *module, PyObject *argument) {
    (void)module;
    int seconds;
    if (!parse_int(argument, &seconds)) {
        return NULL;
    }
    return PyLong_FromLong((long)alarm((unsigned)seconds));
}

static bool parse_timeval(PyObject *seconds, struct timeval *value) {
    int64_t nanoseconds;
    if (!parse_seconds(seconds, &nanoseconds)) {
        return false;
    }
    /* Rounded up, and tv_usec never negative: the kernel is to see a negative time as one. */
    int64_t microseconds = nanoseconds / 1000 + (nanoseconds % 1000 > 0);
    int64_t whole = microseconds / 1000000 - (microseconds % 1000000 < 0);
    value->tv_sec = (time_t)whole;
    value->tv_usec = (suseconds_t)(microseconds - whole * 1000000);
    return true;
}

static PyObject *as_pair(const struct itimerval *timer) {
    PyObject *delay =
        PyFloat_FromDouble((double)timer->it_value.tv_sec + (double)timer->it_value.tv_usec / 1e6);
    PyObject *interval = PyFloat_FromDouble((double)timer->it_interval.tv_sec +
                                            (double)timer->it_interval.tv_usec / 1e6);
    PyObject *pair = delay == NULL || interval == NULL ? NULL : PyTuple_Pack(2, delay, interval);
    Py_XDECREF(delay);
    Py_XDECREF(interval);
    return pair;
}

PyDoc_STRVAR(
    setitimer_doc,
    "setitimer(which, seconds, interval=0.0, /)\n--\n\n"
    "Set an interval timer, and return what it was.\n\n"
    "Parameters:\n"
    "    which: ITIMER_REAL (counts real time, sends SIGALRM), ITIMER_VIRTUAL (counts the\n"
    "        process's own processor time, sends SIGVTALRM) or ITIMER_PROF (that and the\n"
    "        system's on its behalf, sends SIGPROF).\n"
    "    seconds: time to the first expiry, int or float; 0 clears the timer.\n"
    "    interval: seconds from one expiry to the next; 0 for one expiry only.\n"
    "        Both are rounded up to whole microseconds.\n\n"
    "Returns:\n"
    "    The old values, in seconds: (delay, interval).\n\n"
    "Raises:\n"
    "    ItimerError: no such timer, or a negative time.\n"
    "    TypeError, ValueError, OverflowError: a time that is no number, NaN, or too large.\n\n"
    "Platform: Unix. Any thread. Source: POSIX setitimer(); section 17.4: \"Sets given interval\n"
    "timer [...] to fire after seconds [...] and after that every interval seconds.\"");

static PyObject *setitimer_(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs < 2 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "setitimer expected %s arguments, got %zd",
                     nargs < 2 ? "at least 2" : "at most 3", nargs);
        return NULL;
    }
    int which;
    struct itimerval timer = {0};
    struct itimerval old;
    if (!parse_int(args[0], &which) || !parse_timeval(args[1], &timer.it_value) ||
        (nargs == 3 && !parse_timeval(args[2], &timer.it_interval))) {
        return NULL;
    }
    if (setitimer((__itimer_which_t)which, &timer, &old) != 0) {
        return PyErr_SetFromErrno(engine.itimer_error);
    }
    return as_pair(&old);
}

PyDoc_STRVAR(getitimer_doc,
             "getitimer(which, /)\n--\n\n"
             "Return the current values of an interval timer.\n\n"
             "Parameters:\n"
             "    which: ITIMER_REAL, ITIMER_VIRTUAL or ITIMER_PROF.\n\n"
             "Returns:\n"
             "    (delay, interval), in seconds: time to the next expiry (0.0: not set), and from\n"
             "    one to the next.\n\n"
             "Raises:\n"
             "    ItimerError: no such timer.\n\n"
             "Platform: Unix. Any thread. Source: POSIX getitimer(); section 17.4: \"Returns\n"
             "current value of a given interval timer specified by which.\"");

static PyObject *getitimer_(PyObject *module, PyObject *argument) {
    (void)module;
    int which;
    struct itimerval timer;
    if (!parse_int(argument, &which)) {
        return NULL;
    }
    if (getitimer((__itimer_which_t)which, &timer) != 0) {
        return PyErr_SetFromErrno(engine.itimer_error);
    }
    return as_pair(&timer);
}

PyMethodDef itimers_methods[] = {
    {"alarm", alarm_, METH_O, alarm_doc},
    {"setitimer", FUNCTION(setitimer_), METH_FASTCALL, setitimer_doc},
    {"getitimer", getitimer_, METH_O, getitimer_doc},
    {NULL, NULL, 0, NULL},
};
