/* Added handlers: which is to be called next, in the main thread or in sigwright's own.
 * Context: main_handler_*: the main thread, with the GIL; next_for_thread: sigwright's own thread.
 * Callers: delivery.c; Python. */
#include <stddef.h>

#include "consumer_object.h"

int thread_fd = -1;

#define OWNER(pointer) ((Consumer *)((char *)(pointer) - offsetof(Consumer, consumer)))

/* The added handler of the main thread that is to be called next, if its arrival is older than
 * `*monotonic_ns`; of the same age, the one that registered first. A new reference, or NULL. */
PyObject *main_handler_oldest(uint64_t may_run, int *signum, uint64_t *monotonic_ns) {
    struct inbox *inbox = arrivals.inbox;
    Consumer *next = NULL;
    FOR_EACH_SIGNAL (number, atomic_load(&inbox->added) & may_run) {
        const struct audience *audience = atomic_load(&arrivals.audiences[number]);
        bool something = false;
        /* Twice: what is published after the first look has set the bit before we cleared it,
         * or will set it. */
        for (int look = 0; look < 2 && !something; look++) {
            for (int i = 0; audience != NULL && i < audience->count; i++) {
                const struct consumer *consumer = audience->consumers[i];
                const struct ring_slot *slot =
                    consumer->kind == MAIN_HANDLER ? consumer_oldest(consumer) : NULL;
                something = something || slot != NULL;
                if (slot != NULL && (may_run & signal_bit(slot->signum)) &&
                    slot->record.monotonic_ns < *monotonic_ns) {
                    *monotonic_ns = slot->record.monotonic_ns;
                    *signum = slot->signum; /* it may have several signals, in one ring */
                    next = OWNER(consumer);
                }
            }
            if (!something && look == 0) {
                atomic_fetch_and(&inbox->added, ~signal_bit((int)number));
            } else if (something && look == 1) {
                atomic_fetch_or(&inbox->added, signal_bit((int)number));
            }
        }
    }
    return Py_XNewRef((PyObject *)next);
}

/* What main_handler_oldest() found, for delivery.c to call. */
PyObject *main_handler_take(PyObject *registration, PyObject **handler) {
    Consumer *self = (Consumer *)registration;
    PyObject *info = consumer_pop(self);
    *handler = info == NULL ? NULL : Py_NewRef(self->handler);
    return info;
}

static Consumer *thread_handler_oldest(void) {
    Consumer *next = NULL;
    uint64_t oldest_ns = UINT64_MAX;
    for (int i = 0; i < consumer_list.count; i++) {
        Consumer *candidate = consumer_list.all[i];
        if (candidate->consumer.kind == THREAD_HANDLER && candidate->open) {
            const struct ring_slot *slot = consumer_oldest(&candidate->consumer);
            if (slot != NULL && slot->record.monotonic_ns < oldest_ns) {
                oldest_ns = slot->record.monotonic_ns;
                next = candidate;
            }
        }
    }
    return next;
}

static PyObject *next_for_thread(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    if (thread_fd == -1) {
        Py_RETURN_NONE;
    }
    for (;;) {
        if (engine.closed) {
            Py_RETURN_NONE;
        }
        Consumer *next = thread_handler_oldest();
        if (next == NULL) {
            waker_clear(&arrivals.inbox->thread, thread_fd);
            next = thread_handler_oldest();
        }
        if (next != NULL) {
            Py_INCREF((PyObject *)next);
            PyObject *info = consumer_pop(next);
            PyObject *pair = info == NULL ? NULL : Py_BuildValue("(OO)", next, info);
            Py_XDECREF(info);
            Py_DECREF((PyObject *)next);
            if (pair != NULL || PyErr_Occurred()) {
                return pair;
            }
            continue;
        }
        if (wait_until_readable(thread_fd, INT64_MAX) < 0) {
            return NULL;
        }
    }
}

PyMethodDef added_handlers_methods[] = {
    {"next_for_thread", next_for_thread, METH_NOARGS,
     "next_for_thread()\n--\n\n"
     "Wait for the next arrival for a handler of sigwright's own thread.\n\n"
     "Returns:\n"
     "    A registration and its SignalInfo; None: the interpreter is ending."},
    {NULL, NULL, 0, NULL},
};
