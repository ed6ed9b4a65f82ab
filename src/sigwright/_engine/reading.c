/* Reading a listener: get(), get_nowait(), drain(), iteration, fileno(); and what event loops use.
 * Context: any thread, with the GIL; who waits releases it.
 * Callers: Python; consumer_pop() also added_handlers.c. */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "consumer_object.h"

/* A new SignalInfo. NULL: nothing waits (any more), or, with an exception set, there was no memory
 * for it, and the record stays. Afterwards it may be closed: see new_info(). */
PyObject *consumer_pop(Consumer *self) {
    if (consumer_oldest(&self->consumer) == NULL) {
        return NULL;
    }
    PyObject *info = new_info();
    const struct ring_slot *slot =
        info != NULL && self->open ? consumer_oldest(&self->consumer) : NULL;
    if (slot == NULL) {
        Py_XDECREF(info);
        return NULL;
    }
    fill_info(info, slot->signum, &slot->record);
    note_answer(slot->signum, slot->record.monotonic_ns);
    count_latency(self->latency, monotonic_ns() - slot->record.monotonic_ns);
    self->deliveries++;
    consumer_let_go(&self->consumer, slot);
    return info;
}

static PyObject *raise_closed(const Consumer *self) {
    return PyErr_Format(PyExc_RuntimeError, "this %s is closed",
                        self->consumer.kind == LISTENER ? "listener" : "registration");
}

void close_fd_if_unused(Consumer *self) {
    if (!self->open && self->users == 0 && self->fd != -1) {
        close(self->fd);
        self->fd = -1;
    }
}

/* Wait until `fd` is readable, or the deadline (INT64_MAX: none). 1: look again; 0: the time is
 * over; -1: an exception is set, a handler's or an OSError. */
int wait_until_readable(int fd, int64_t deadline) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    struct timespec left, *timeout = NULL;
    if (deadline != INT64_MAX) {
        int64_t nanoseconds = deadline - (int64_t)monotonic_ns();
        nanoseconds = nanoseconds > 0 ? nanoseconds : 0;
        left = (struct timespec){nanoseconds / 1000000000, nanoseconds % 1000000000};
        timeout = &left;
    }
    int ready, error;
    Py_BEGIN_ALLOW_THREADS;
    ready = ppoll(&readable, 1, timeout, NULL);
    error = errno;
    Py_END_ALLOW_THREADS;
    if (ready < 0 && error != EINTR) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (ready < 0 && PyErr_CheckSignals() < 0) {
        return -1;
    }
    return ready != 0;
}

/* The next record, waiting for it. NULL: it is closed; or, with an exception set, queue.Empty or
 * what a handler raised. */
static PyObject *wait_and_pop(Consumer *self, int64_t deadline) {
    for (;;) {
        if (!self->open) {
            return NULL;
        }
        PyObject *info = consumer_pop(self);
        if (info != NULL || PyErr_Occurred()) {
            return info;
        }
        if (!self->open) {
            return NULL;
        }
        waker_clear(self->consumer.waker, self->fd);
        if (consumer_oldest(&self->consumer) != NULL) {
            raise_waker(self->consumer.waker); /* there may be more than we take, for others */
            continue;
        }
        self->users++;
        int again = wait_until_readable(self->fd, deadline);
        if (self->users > 0) { /* a handler may have forked, and be the child's */
            self->users--;
        }
        close_fd_if_unused(self);
        if (again < 0) {
            return NULL;
        }
        if (again == 0 && self->open && consumer_oldest(&self->consumer) == NULL) {
            PyErr_SetNone(queue_empty);
            return NULL;
        }
    }
}

static bool check_listener(Consumer *self) {
    if (self->consumer.kind != LISTENER) {
        PyErr_SetString(PyExc_TypeError, "an added handler is called, not read");
        return false;
    }
    if (!self->open) {
        raise_closed(self);
        return false;
    }
    return true;
}

PyDoc_STRVAR(get_doc, "get(timeout=None)\n--\n\n"
                      "Take the oldest arrival, waiting for it.\n\n"
                      "Parameters:\n"
                      "    timeout: seconds, int or float, at most; None for no limit.\n\n"
                      "Returns:\n"
                      "    A SignalInfo.\n\n"
                      "Raises:\n"
                      "    queue.Empty: nothing arrived within timeout.\n"
                      "    RuntimeError: the listener is closed, or was meanwhile.\n"
                      "    ValueError: a negative timeout, or NaN.\n"
                      "    Anything that a handler raises, in the main thread.\n\n"
                      "Platform: Unix. Any thread.");

static PyObject *listener_get(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
    Consumer *self = (Consumer *)object;
    PyObject *timeout = nargs == 1 ? args[0] : Py_None;
    static const char *const names[] = {"timeout"};
    if ((nargs > 1 || kwnames != NULL) &&
        !take_arguments("get", names, 1, args, nargs, kwnames, &timeout)) {
        return NULL;
    }
    int64_t deadline = INT64_MAX;
    if (timeout != Py_None) {
        int64_t nanoseconds;
        if (!parse_seconds(timeout, &nanoseconds)) {
            return NULL;
        }
        if (nanoseconds < 0) {
            PyErr_SetString(PyExc_ValueError, "timeout must be non-negative");
            return NULL;
        }
        if (__builtin_add_overflow((int64_t)monotonic_ns(), nanoseconds, &deadline)) {
            deadline = INT64_MAX;
        }
    }
    if (!check_listener(self)) {
        return NULL;
    }
    PyObject *info = wait_and_pop(self, deadline);
    return info != NULL || PyErr_Occurred() ? info : raise_closed(self);
}

PyDoc_STRVAR(get_nowait_doc, "get_nowait()\n--\n\n"
                             "Take the oldest arrival, if there is one.\n\n"
                             "Returns:\n"
                             "    A SignalInfo.\n\n"
                             "Raises:\n"
                             "    queue.Empty: nothing waits.\n"
                             "    RuntimeError: the listener is closed.\n\n"
                             "Platform: Unix. Any thread.");

/* Emptied: fileno() is not readable any more. */
static PyObject *pop_or_clear(Consumer *self) {
    PyObject *info = consumer_pop(self);
    if (info == NULL && !PyErr_Occurred() && self->open) {
        waker_clear(self->consumer.waker, self->fd);
        if (consumer_oldest(&self->consumer) != NULL) {
            raise_waker(self->consumer.waker); /* there may be more than we take, for others */
            info = consumer_pop(self);
        }
    }
    return info;
}

static PyObject *listener_get_nowait(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    if (!check_listener(self)) {
        return NULL;
    }
    PyObject *info = pop_or_clear(self);
    if (info == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(queue_empty);
    }
    return info;
}

PyDoc_STRVAR(drain_doc, "drain()\n--\n\n"
                        "Take all arrivals that wait.\n\n"
                        "Returns:\n"
                        "    A list of SignalInfo, the oldest first; empty where nothing waits.\n\n"
                        "Raises:\n"
                        "    RuntimeError: the listener is closed.\n\n"
                        "Platform: Unix. Any thread.");

static PyObject *listener_drain(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    PyObject *list = PyList_New(0); /* first: the garbage that it may collect may close us */
    if (list == NULL || !check_listener(self)) {
        Py_XDECREF(list);
        return NULL;
    }
    /* As many as wait now: a storm must not keep the caller here. */
    uint64_t most = consumer_waiting(&self->consumer) + 1;
    while (list != NULL && self->open && most-- > 0) {
        PyObject *info = pop_or_clear(self);
        if (info == NULL && !PyErr_Occurred()) {
            break;
        }
        if (info == NULL || PyList_Append(list, info) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(info);
    }
    return list;
}

PyObject *consumer_next(PyObject *object) {
    Consumer *self = (Consumer *)object;
    if (self->consumer.kind != LISTENER) {
        check_listener(self);
        return NULL;
    }
    return wait_and_pop(self, INT64_MAX); /* closed: the iteration ends */
}

PyDoc_STRVAR(fileno_doc,
             "fileno()\n--\n\n"
             "A file descriptor that is readable while arrivals wait, for select(), poll(),\n"
             "epoll() and event loops. Never read from it: get_nowait() and drain() do.\n\n"
             "Raises:\n"
             "    RuntimeError: the listener is closed.\n\n"
             "Platform: Linux. Source: man page eventfd(2).");

static PyObject *listener_fileno(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    return check_listener(self) ? PyLong_FromLong(self->fd) : NULL;
}

static PyObject *listener_qsize(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    return PyLong_FromUnsignedLongLong(self->open ? consumer_waiting(&self->consumer) : 0);
}

/* --- for event loops -------------------------------------------------------------------------- */

static PyObject *listener_acknowledge(PyObject *object, PyObject *unused) {
    Consumer *self = (Consumer *)object;
    if (self->open && self->consumer.kind == LISTENER) {
        waker_clear(self->consumer.waker, self->fd);
    }
    return listener_qsize(object, unused);
}

static PyObject *listener_rearm(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    if (self->open && self->consumer.kind == LISTENER && consumer_waiting(&self->consumer) != 0) {
        raise_waker(self->consumer.waker);
    }
    Py_RETURN_NONE;
}

static PyObject *listener_hold(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    if (!check_listener(self)) {
        return NULL;
    }
    self->users++;
    Py_RETURN_NONE;
}

static PyObject *listener_release(PyObject *object, PyObject *unused) {
    (void)unused;
    Consumer *self = (Consumer *)object;
    if (self->users > 0) {
        self->users--;
    }
    close_fd_if_unused(self);
    Py_RETURN_NONE;
}

PyMethodDef reading_methods[] = {
    {"get", FUNCTION(listener_get), METH_FASTCALL | METH_KEYWORDS, get_doc},
    {"get_nowait", listener_get_nowait, METH_NOARGS, get_nowait_doc},
    {"drain", listener_drain, METH_NOARGS, drain_doc},
    {"fileno", listener_fileno, METH_NOARGS, fileno_doc},
    {"qsize", listener_qsize, METH_NOARGS,
     "qsize()\n--\n\nHow many arrivals wait now; 0 once it is closed."},
    {"_acknowledge", listener_acknowledge, METH_NOARGS,
     "_acknowledge()\n--\n\nfileno() is not readable any more; returns how many wait."},
    {"_rearm", listener_rearm, METH_NOARGS,
     "_rearm()\n--\n\nMake fileno() readable again, if something waits."},
    {"_hold", listener_hold, METH_NOARGS,
     "_hold()\n--\n\nKeep the number of fileno() in use until _release(), also when closed."},
    {"_release", listener_release, METH_NOARGS, "_release()\n--\n\nSee _hold()."},
    {NULL, NULL, 0, NULL},
};
