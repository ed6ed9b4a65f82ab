/* Delivery: from the inbox to the Python-level handlers.
 * Context: the main thread, with the GIL, at the interpreter's safe points.
 * Callers: CPython calls the dispatcher, through the loud door; module.c after a fork. */
#include "engine.h"
#include "watch.h"

/* Handlers that may run inside one another. Without a limit a storm 30 microseconds apart ended the
 * interpreter: each level takes C stack. What waits is delivered by the level below, when its
 * handler returns. */
#define NESTED_MAX 64

/* A look at the clock is a fiftieth of the way from the kernel to a handler: the first calls are
 * timed, and then one in so many. */
#define LATENCY_ALL 64
#define LATENCY_EACH 16

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
static uint64_t take_for_one_call(int signum, struct arrival_record *first,
                                  struct arrival_record *last) {
    struct ring *ring = &arrivals.inbox->queues[signum].ring;
    struct ring_slot *slots = arrivals.slots[signum];
    inbox_pop(arrivals.inbox, slots, signum, first);
    *last = *first;
    if (engine.tracer != NULL) {
        trace_arrival(signum, first, false);
    }
    if (signum >= arrivals.first_realtime) {
        return 0;
    }
    uint64_t merged = 0;
    /* Only what is there now: a storm must not keep the handler from its call. */
    uint64_t end = atomic_load(&ring->tail);
    while (atomic_load(&ring->head) != end && inbox_pop(arrivals.inbox, slots, signum, last)) {
        merged++;
        if (engine.tracer != NULL) {
            trace_arrival(signum, last, true);
        }
    }
    return merged;
}

/* While a handler runs, what it holds waits: later ones of a real-time signal's own number (nested,
 * they would be handled in reverse), and whatever sigaction() was told. Takes over the reference to
 * `handler`. */
static bool call_holding(int signum, uint64_t hold, PyObject *handler, PyObject *argument,
                         PyObject *second, PyObject *third) {
    uint64_t held = atomic_load(&arrivals.held);
    if (hold & ~held) {
        atomic_store(&arrivals.held, held | hold);
    }
    door_quiet(); /* the handler may run for long, or sleep */
    engine.depth++;
    engine.deliveries++;
    PyObject *result = PyObject_CallFunctionObjArgs(handler, argument, second, third, NULL);
    engine.depth--;
    if (hold & ~held) {
        atomic_store(&arrivals.held, held);
    }
    if (result == NULL && engine.tracer != NULL) {
        trace_raised(signum);
    }
    Py_DECREF(handler);
    Py_XDECREF(result);
    return result != NULL;
}

static uint64_t own_number_if_realtime(int signum) {
    return signum >= arrivals.first_realtime ? signal_bit(signum) : 0;
}

/* A handler that sigaction() has set. What POSIX's kernel does at the arrival is done here, at the
 * call: to a Python-level handler that is the same. */
static bool call_by_action(int signum, struct action action, PyObject *handler, PyObject *frame,
                           const struct arrival_record *record) {
    uint64_t hold = action.mask;
    if (!(action.flags & SA_NODEFER)) {
        hold |= signal_bit(signum);
    }
    if ((action.flags & SA_RESETHAND) && !reset_disposition(signum)) {
        Py_DECREF(handler);
        return false;
    }
    if (!(action.flags & SA_SIGINFO)) {
        return call_holding(signum, hold, handler, engine.numbers[signum], frame, NULL);
    }
    PyObject *info = record == NULL ? Py_NewRef(Py_None) : make_info(signum, record);
    if (info == NULL) {
        Py_DECREF(handler);
        return false;
    }
    bool returned = call_holding(signum, hold, handler, engine.numbers[signum], info, frame);
    Py_DECREF(info);
    return returned;
}

/* The handler of signal(). `record`: NULL where nothing arrived (simulated). */
static bool call_handler(int signum, PyObject *frame, const struct arrival_record *record) {
    PyObject *handler = Py_NewRef(engine.handlers[signum]); /* it may replace itself */
    const struct action action = engine.actions[signum];
    if (!action.posix) {
        return call_holding(signum, own_number_if_realtime(signum), handler, engine.numbers[signum],
                            frame, NULL);
    }
    return call_by_action(signum, action, handler, frame, record);
}

/* It arrived under a handler that was gone when its turn came: the stdlib's report, to the letter.
 */
static void report_race(int signum) {
    PyErr_Format(PyExc_OSError, "Signal %i ignored due to race condition", signum);
    report_unraisable(NULL, "Exception ignored while calling signal handler", 0x030E0000);
}

static bool deliver_one(int signum, PyObject *frame) {
    struct inbox_queue *queue = &arrivals.inbox->queues[signum];
    struct arrival_record record, last;
    uint64_t merged = take_for_one_call(signum, &record, &last);
    if (!is_callable_handler(engine.handlers[signum])) {
        queue->dropped_late += merged + 1;
        if ((engine.reset & signal_bit(signum)) &&
            atomic_load(&arrivals.audiences[signum]) != NULL) {
            note_unanswered(signum, &last);
        } else if (engine.reset & signal_bit(signum)) {
            send_again(signum, &record); /* POSIX: it met the default action */
        } else {
            note_answer(signum, last.monotonic_ns);
            report_race(signum);
        }
        return true;
    }
    note_answer(signum, last.monotonic_ns);
    if (queue->deliveries < LATENCY_ALL || queue->deliveries % LATENCY_EACH == 0) {
        count_latency(queue->latency, monotonic_ns() - record.monotonic_ns);
    }
    queue->deliveries++;
    queue->merges += merged;
    return call_handler(signum, frame, &record);
}

static bool deliver_to_added_handler(PyObject *registration, int signum) {
    PyObject *handler;
    PyObject *info = main_handler_take(registration, &handler);
    if (info == NULL) {
        return !PyErr_Occurred(); /* cancelled meanwhile, by a finalizer */
    }
    bool returned = call_holding(signum, own_number_if_realtime(signum), handler, info, NULL, NULL);
    Py_DECREF(info);
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

/* Whose is it? See timers_run(). */
static void note_raised(void) {
    if (timers_are_running()) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        replace_reference(&engine.raised, Py_XNewRef(value));
        PyErr_Restore(type, value, traceback);
    }
}

/* Delivery ends with an exception. */
static bool give_way(void) {
    note_raised();
    ring_if_work();
    door_quiet();
    return false;
}

/* Those that had to wait. */
static bool run_simulated(uint64_t may_run, PyObject *frame) {
    FOR_EACH_SIGNAL (signum, atomic_load(&arrivals.inbox->simulated) & may_run) {
        atomic_fetch_and(&arrivals.inbox->simulated, ~signal_bit((int)signum));
        if (is_callable_handler(engine.handlers[signum]) &&
            !call_handler((int)signum, frame, NULL)) {
            return false;
        }
    }
    return true;
}

static bool deliver(PyObject *frame) {
    struct inbox *inbox = arrivals.inbox;
    if (!inbox->settled) {
        settle_after_fork(); /* in a child, before our hook: the hooks before it are Python, too */
    }
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
    /* Deadlines first: a storm of signals must not keep a limit from its block. */
    if (!clock_deliver(frame)) {
        return give_way();
    }
    const uint64_t loose = deferral_held_loosely(frame);
    watch_deferred(atomic_load(&arrivals.deferred) | loose);
    if (!run_simulated(~(atomic_load(&arrivals.held) | atomic_load(&arrivals.deferred) | loose),
                       frame)) {
        return give_way();
    }
    uint64_t until = UINT64_MAX;
    for (bool first = true;; first = false) {
        uint64_t may_run = ~(atomic_load(&arrivals.held) | atomic_load(&arrivals.deferred) | loose);
        int signum = inbox_oldest(inbox, arrivals.slots, may_run);
        uint64_t arrived = signum == 0
                               ? UINT64_MAX
                               : inbox_head(inbox, arrivals.slots[signum], signum)->monotonic_ns;
        PyObject *registration = atomic_load(&inbox->added) == 0
                                     ? NULL
                                     : main_handler_oldest(may_run, &signum, &arrived);
        if (signum == 0) {
            door_quiet();
            if (arrivals_wait_for_delivery()) {
                arm_timer(); /* held by a block that may be suspended at any moment */
            }
            return true;
        }
        /* Only what is there when the first handler has run. A storm that is faster than its
         * handlers must not keep the program itself from its next step; it rings again at once. */
        if (!first && until == UINT64_MAX) {
            until = monotonic_ns();
        }
        if (arrived > until) {
            Py_XDECREF(registration);
            ring_if_work();
            return true;
        }
        bool returned = registration == NULL ? deliver_one(signum, frame)
                                             : deliver_to_added_handler(registration, signum);
        Py_XDECREF(registration);
        if (!returned) {
            return give_way();
        }
    }
}

static bool simulate(int signum, PyObject *frame) {
    write_wakeup_byte(signum); /* the stdlib's would have been written at once */
    arrivals.inbox->queues[signum].simulated++;
    uint64_t deferred = atomic_load(&arrivals.deferred) | deferral_held_loosely(frame);
    if (engine.in_tracer || (deferred & signal_bit(signum)) != 0) {
        atomic_fetch_or(&arrivals.inbox->simulated, signal_bit(signum));
        return true;
    }
    return call_handler(signum, frame, NULL);
}

/* Between __enter__ and its block; or in an __enter__ that waits, for a lock perhaps, and has not
 * returned. Both look the same. But what has returned has its next look elsewhere, and at once;
 * what waits comes back to the same place when something has landed and broken its system call. */
static bool must_not_run_yet(PyObject *frame) {
    static PyObject *refused; /* compared, never followed */
    static uint32_t landed;
    if (engine.entering || !is_entering(frame)) {
        engine.entering = false;
        refused = NULL;
        return false;
    }
    if (refused == frame && landed != arrivals.landed) {
        refused = NULL;
        return false;
    }
    refused = frame;
    landed = arrivals.landed;
    return true;
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
    if (signum >= 1 && signum < SIGNALS && must_not_run_yet(args[1])) {
        arrivals.door_handler(signum); /* for the interpreter's next look */
        arm_timer();
        Py_RETURN_NONE;
    }
    /* A call for another signal that has a handler is simulated (_thread.interrupt_main), or came
     * while CPython's own C handler stood in for an instant: it runs the handler once. Any other
     * number was the door's before it moved. */
    bool simulated = signum != atomic_load(&arrivals.doors[LOUD]) && signum >= 1 &&
                     signum < SIGNALS && is_callable_handler(engine.handlers[signum]);
    if (!(simulated ? simulate(signum, args[1]) : deliver(args[1])) &&
        !put_off_if_in_hole(args[1])) {
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

PyObject *latency_list(const uint64_t buckets[LATENCY_BUCKETS]) {
    PyObject *list = PyList_New(LATENCY_BUCKETS);
    for (int i = 0; list != NULL && i < LATENCY_BUCKETS; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(buckets[i]);
        if (count == NULL || PyList_SetItem(list, i, count) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *counts_of(int signum) {
    struct inbox_queue *queue = &arrivals.inbox->queues[signum];
    uint64_t refused = atomic_load(&queue->ring.refused);
    uint64_t tail = atomic_load(&queue->ring.tail);
    bool merges = signum < arrivals.first_realtime; /* where there is no room */
    return Py_BuildValue("{sK sK sK sK sK sK}", "arrivals", (unsigned long long)(tail + refused),
                         "deliveries", (unsigned long long)queue->deliveries, "merges",
                         (unsigned long long)(queue->merges + (merges ? refused : 0)), "drops",
                         (unsigned long long)(queue->dropped_late + (merges ? 0 : refused)),
                         "waiting", (unsigned long long)(tail - atomic_load(&queue->ring.head)),
                         "simulated", (unsigned long long)queue->simulated);
}

static PyObject *latency_of(int signum) {
    return latency_list(arrivals.inbox->queues[signum].latency);
}

/* A dict, by the numbers of the signals that ever had a handler of ours. */
static PyObject *for_each_queue(PyObject *(*value_of)(int)) {
    PyObject *all = PyDict_New();
    for (int signum = 1; all != NULL && signum < SIGNALS; signum++) {
        if (arrivals.slots[signum] == NULL) {
            continue;
        }
        PyObject *value = value_of(signum);
        if (value == NULL || PyDict_SetItem(all, engine.numbers[signum], value) < 0) {
            Py_CLEAR(all);
        }
        Py_XDECREF(value);
    }
    return all;
}

static PyObject *stats(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return for_each_queue(counts_of);
}

static PyObject *latencies(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return for_each_queue(latency_of);
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
    {"latencies", latencies, METH_NOARGS,
     "latencies()\n--\n\n"
     "For the same signals, how long it took from arrival to the handler's call: how many took "
     "2**n\n"
     "to 2**(n+1) - 1 nanoseconds, by n. The first 64 calls are timed, then one in 16."},
    {NULL, NULL, 0, NULL},
};
