/* Delivery: from the inbox to the Python-level handlers.
 * Context: the main thread, with the GIL, at the interpreter's safe points.
 * Callers: CPython calls the dispatcher, through the loud door; module.c after a fork. */
#include "engine.h"

/* Handlers that may run inside one another. Without a limit a storm 30 microseconds apart ended the
 * interpreter: each level takes C stack. What waits is delivered by the level below, when its
 * handler returns. */
#define NESTED_MAX 64

static bool is_callable_handler(PyObject *handler) {
    return handler != NULL && handler != Py_None && handler != engine.sig_dfl &&
           handler != engine.sig_ign;
}

static void call_tracer(PyObject *arguments) {
    engine.in_tracer = true;
    PyObject *result = arguments == NULL ? NULL : PyObject_Call(engine.tracer, arguments, NULL);
    engine.in_tracer = false;
    if (result == NULL) {
        PyErr_WriteUnraisable(engine.tracer); /* a tracer's mistake is not the program's */
    }
    Py_XDECREF(result);
    Py_XDECREF(arguments);
    ring_if_work();
    for (; engine.simulated_in_tracer != 0;
         engine.simulated_in_tracer &= engine.simulated_in_tracer - 1) {
        arrivals.door_handler(__builtin_ctzll(engine.simulated_in_tracer) + 1);
    }
}

static void trace_arrival(int signum, const struct arrival_record *record, bool merged) {
    siginfo_t info;
    record_to_siginfo(record, signum, &info);
    /* A sender is there for kill() and its kin, and for a child; other origins use the same bytes.
     */
    bool has_sender = info.si_code <= 0 ? info.si_code != SI_TIMER : signum == SIGCHLD;
    call_tracer(Py_BuildValue(
        "(siiiIKKKO)", "arrival", signum, info.si_code, has_sender ? (int)info.si_pid : 0,
        has_sender ? (unsigned)info.si_uid : 0U, (unsigned long long)record->monotonic_ns,
        (unsigned long long)record->thread,
        (unsigned long long)(monotonic_ns() - record->monotonic_ns), merged ? Py_True : Py_False));
}

static void trace_raised(int signum) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    call_tracer(Py_BuildValue("(siO)", "raised", signum, value));
    PyErr_Restore(type, value, traceback);
}

/* Take what is to be one call: a real-time signal's oldest record, or all that wait of a standard
 * signal (POSIX merges those that are pending, so five presses of Ctrl+C are one
 * KeyboardInterrupt). Returns how many were folded into the first. */
static uint64_t take_for_one_call(int signum) {
    struct inbox_queue *queue = &arrivals.inbox->queues[signum];
    struct inbox_slot *slots = arrivals.slots[signum];
    struct arrival_record record;
    inbox_pop(arrivals.inbox, slots, signum, &record);
    if (engine.tracer != NULL) {
        trace_arrival(signum, &record, false);
    }
    if (signum >= arrivals.first_realtime) {
        return 0;
    }
    uint64_t merged = 0;
    /* Only what is there now: a storm must not keep the handler from its call. */
    uint64_t end = atomic_load(&queue->tail);
    while (atomic_load(&queue->head) != end && inbox_pop(arrivals.inbox, slots, signum, &record)) {
        merged++;
        if (engine.tracer != NULL) {
            trace_arrival(signum, &record, true);
        }
    }
    return merged;
}

static bool call_handler(int signum, PyObject *frame) {
    PyObject *handler = engine.handlers[signum];
    Py_INCREF(handler); /* it may replace itself */
    door_quiet();       /* the handler may run for long, or sleep */
    engine.depth++;
    PyObject *result = PyObject_CallFunctionObjArgs(handler, engine.numbers[signum], frame, NULL);
    engine.depth--;
    if (result == NULL && engine.tracer != NULL) {
        trace_raised(signum);
    }
    Py_DECREF(handler);
    Py_XDECREF(result);
    return result != NULL;
}

/* It arrived under a handler that was gone when its turn came: the stdlib's report, to the letter.
 */
static void report_race(int signum) {
    PyErr_Format(PyExc_OSError, "Signal %i ignored due to race condition", signum);
    report_unraisable(NULL, "Exception ignored while calling signal handler", 0x030E0000);
}

static bool deliver_one(int signum, PyObject *frame) {
    struct inbox_queue *queue = &arrivals.inbox->queues[signum];
    uint64_t merged = take_for_one_call(signum);
    if (!is_callable_handler(engine.handlers[signum])) {
        queue->dropped_late += merged + 1;
        report_race(signum);
        return true;
    }
    queue->deliveries++;
    queue->merges += merged;
    engine.deliveries++;
    if (signum < arrivals.first_realtime) {
        return call_handler(signum, frame);
    }
    /* While the handler of a real-time signal runs, later ones of that number wait: nested, they
     * would be handled in reverse. */
    atomic_fetch_or(&arrivals.held, signal_bit(signum));
    bool returned = call_handler(signum, frame);
    atomic_fetch_and(&arrivals.held, ~signal_bit(signum));
    return returned;
}

/* What is left rings again: a handler raised, or we were asked while nothing may be delivered. */
void ring_if_work(void) {
    if (engine.open && !engine.closed && arrivals_wait_for_delivery()) {
        arrivals.door_handler(atomic_load(&arrivals.doors[LOUD]));
        /* Between here and the interpreter's next look may lie a system call: `except` and the call
         * in it, on 3.11 and later. */
        if (arrivals_may_interrupt()) {
            arm_timer();
        }
    }
}

static bool deliver(PyObject *frame) {
    struct inbox *inbox = arrivals.inbox;
    /* Before the first look: an arrival after it rings again. */
    for (int door = LOUD; door <= QUIET; door++) {
        if (atomic_load(&inbox->rung[door]) != 0) {
            atomic_store(&inbox->rung[door], 0);
        }
    }
    if (engine.in_tracer || engine.depth >= NESTED_MAX) {
        return true; /* whoever is at work goes on with it */
    }
    if (atomic_load(&inbox->wakeup_failures) != 0) {
        report_wakeup_failures();
    }
    uint64_t until = UINT64_MAX;
    for (bool first = true;; first = false) {
        int signum = inbox_oldest(inbox, arrivals.slots, ~atomic_load(&arrivals.held));
        if (signum == 0) {
            door_quiet();
            return true;
        }
        /* Only what is there when the first handler has run. A storm that is faster than its
         * handlers must not keep the program itself from its next step; it rings again at once. */
        if (!first && until == UINT64_MAX) {
            until = monotonic_ns();
        }
        if (inbox_head(inbox, arrivals.slots[signum], signum)->monotonic_ns > until) {
            ring_if_work();
            return true;
        }
        if (!deliver_one(signum, frame)) {
            ring_if_work();
            return false;
        }
    }
}

static bool simulate(int signum, PyObject *frame) {
    if (engine.in_tracer) {
        engine.simulated_in_tracer |= signal_bit(signum);
        return true;
    }
    write_wakeup_byte(signum); /* the stdlib's would have been written at once */
    arrivals.inbox->queues[signum].simulated++;
    engine.deliveries++;
    return call_handler(signum, frame);
}

static PyObject *dispatcher(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    int signum;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "the dispatcher takes a signal number and a frame");
        return NULL;
    }
    if (!parse_int(args[0], &signum)) {
        return NULL;
    }
    /* A call for another signal that has a handler is simulated (_thread.interrupt_main), or came
     * while CPython's own C handler stood in for an instant: it runs the handler once. Any other
     * number was the door's before it moved. */
    bool simulated = signum != atomic_load(&arrivals.doors[LOUD]) && signum >= 1 &&
                     signum < SIGNALS && is_callable_handler(engine.handlers[signum]);
    if (!(simulated ? simulate(signum, args[1]) : deliver(args[1]))) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef dispatcher_method = {
    "dispatcher", FUNCTION(dispatcher), METH_FASTCALL,
    "sigwright's entry in CPython's own table of handlers: runs the handlers of what has arrived."};

/* In the child. `other_thread`: the parent's main thread, with the handlers that it was in, does
 * not exist here. */
void delivery_after_fork(bool other_thread) {
    if (other_thread) {
        engine.depth = 0;
        engine.in_tracer = false;
        atomic_store(&arrivals.held, 0);
    }
    ring_if_work();
}

static PyObject *set_tracer(PyObject *module, PyObject *tracer) {
    (void)module;
    if (tracer != Py_None && !PyCallable_Check(tracer)) {
        PyErr_SetString(PyExc_TypeError, "a tracer must be callable, or None");
        return NULL;
    }
    PyObject *old = engine.tracer;
    engine.tracer = tracer == Py_None ? NULL : Py_NewRef(tracer);
    return old != NULL ? old : Py_NewRef(Py_None);
}

static PyObject *stats(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyObject *all = PyDict_New();
    for (int signum = 1; all != NULL && signum < SIGNALS; signum++) {
        if (arrivals.slots[signum] == NULL) {
            continue;
        }
        struct inbox_queue *queue = &arrivals.inbox->queues[signum];
        uint64_t merged_full = atomic_load(&queue->merged_full);
        uint64_t dropped_full = atomic_load(&queue->dropped_full);
        uint64_t tail = atomic_load(&queue->tail);
        PyObject *counts =
            Py_BuildValue("{sK sK sK sK sK sK}", "arrivals",
                          (unsigned long long)(tail + merged_full + dropped_full), "deliveries",
                          (unsigned long long)queue->deliveries, "merges",
                          (unsigned long long)(queue->merges + merged_full), "drops",
                          (unsigned long long)(queue->dropped_late + dropped_full), "waiting",
                          (unsigned long long)(tail - atomic_load(&queue->head)), "simulated",
                          (unsigned long long)queue->simulated);
        if (counts == NULL || PyDict_SetItem(all, engine.numbers[signum], counts) < 0) {
            Py_CLEAR(all);
        }
        Py_XDECREF(counts);
    }
    return all;
}

PyMethodDef delivery_methods[] = {
    {"set_tracer", set_tracer, METH_O,
     "set_tracer(tracer, /)\n--\n\n"
     "Have tracer called for each arrival that is delivered, or None to end it.\n\n"
     "Returns the tracer from before, or None."},
    {"stats", stats, METH_NOARGS,
     "stats()\n--\n\n"
     "Counts for each signal that ever had a handler of ours, since the start or the fork.\n\n"
     "arrivals = deliveries + merges + drops + waiting, once no arrival is under way."},
    {NULL, NULL, 0, NULL},
};
