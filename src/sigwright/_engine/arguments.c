/* Reading arguments as the stdlib's module reads them, with its exceptions.
 * Context: any thread, with the GIL.
 * Callers: the files that hold Python functions. */
#include <limits.h>
#include <math.h>

#include "engine.h"

/* A C int, as CPython's argument clinic reads one: __index__ counts, a float does not. */
bool parse_int(PyObject *object, int *value) {
    long number = PyLong_AsLong(object);
    if (number == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
        }
        return false;
    }
    if (number > INT_MAX || number < INT_MIN) {
        PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
        return false;
    }
    *value = (int)number;
    return true;
}

bool in_range(int signum) {
    if (signum < 1 || signum >= SIGNALS) {
        PyErr_SetString(PyExc_ValueError, "signal number out of range");
        return false;
    }
    return true;
}

bool parse_signal_number(PyObject *object, int *signum) {
    return parse_int(object, signum) && in_range(*signum);
}

/* Seconds, int or float, to nanoseconds, rounded up: a time limit must not end early. */
bool parse_seconds(PyObject *object, int64_t *nanoseconds) {
    if (!PyFloat_Check(object)) {
        long long seconds = PyLong_AsLongLong(object);
        if (seconds == -1 && PyErr_Occurred()) {
            if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
                PyErr_SetString(PyExc_OverflowError,
                                "timestamp too large to convert to C PyTime_t");
                return false;
            }
            /* From 3.15 on the stdlib takes whatever has __float__. */
            if (Py_Version < 0x030F0000 || !PyErr_ExceptionMatches(PyExc_TypeError)) {
                return false;
            }
            PyErr_Clear();
        } else {
            if (__builtin_mul_overflow(seconds, 1000000000LL, nanoseconds)) {
                PyErr_SetString(PyExc_OverflowError,
                                "timestamp too large to convert to C PyTime_t");
                return false;
            }
            return true;
        }
    }
    double seconds = PyFloat_AsDouble(object);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return false;
    }
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "Invalid value NaN (not a number)");
        return false;
    }
    seconds = ceil(seconds * 1e9);
    if (!(seconds >= -0x1p63 && seconds < 0x1p63)) {
        PyErr_SetString(PyExc_OverflowError, "timestamp out of range for platform time_t");
        return false;
    }
    *nanoseconds = (int64_t)seconds;
    return true;
}

static bool is_negative(PyObject *number) {
    PyObject *zero = PyLong_FromLong(0);
    int negative = zero == NULL ? -1 : PyObject_RichCompareBool(number, zero, Py_LT);
    Py_XDECREF(zero);
    PyErr_Clear();
    return negative == 1;
}

/* `what` is named in the error. */
bool parse_positive_seconds(PyObject *object, const char *what, int64_t *nanoseconds) {
    bool parsed = parse_seconds(object, nanoseconds);
    if (parsed && *nanoseconds >= 0) {
        return true;
    }
    if (parsed || PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        bool negative = is_negative(object);
        PyErr_Restore(type, value, traceback);
        if (negative) {
            PyErr_Format(PyExc_ValueError, "%s must not be negative", what);
        }
    }
    return false;
}

/* Exactly `count` arguments, each by position or by name: what a Python function would take. */
bool take_arguments(const char *function, const char *const *names, int count,
                    PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **values) {
    if (nargs > count) {
        PyErr_Format(PyExc_TypeError, "%s() takes %d positional argument%s but %zd were given",
                     function, count, count == 1 ? "" : "s", nargs);
        return false;
    }
    for (int i = 0; i < count; i++) {
        values[i] = i < nargs ? args[i] : NULL;
    }
    Py_ssize_t keywords = kwnames == NULL ? 0 : PyTuple_Size(kwnames);
    for (Py_ssize_t k = 0; k < keywords; k++) {
        PyObject *keyword = PyTuple_GetItem(kwnames, k);
        int i = 0;
        while (i < count && PyUnicode_CompareWithASCIIString(keyword, names[i]) != 0) {
            i++;
        }
        if (i == count) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function,
                         keyword);
            return false;
        }
        if (values[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", function,
                         names[i]);
            return false;
        }
        values[i] = args[nargs + k];
    }
    for (int i = 0; i < count; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", function,
                         names[i]);
            return false;
        }
    }
    return true;
}
