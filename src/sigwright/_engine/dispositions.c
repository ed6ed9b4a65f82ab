/* The handler table: signal(), getsignal(), siginterrupt().
 * Context: the main thread, with the GIL (getsignal, siginterrupt: any thread, with the GIL).
 * Callers: Python; module.c at import and exit.
 *
 * Two tables must agree. Ours says what to call. CPython's own stays truthful: it holds SIG_DFL,
 * SIG_IGN or default_int_handler exactly when ours does (asyncio.run looks there), and otherwise
 * the dispatcher. So only a change of kind goes through _signal.signal(), which also sets the
 * kernel's action; a change from one callable to another costs one sigaction(). */
#include <errno.h>

#include "kernel_actions.h"

enum kind kind_of(PyObject *handler) {
    return handler == engine.sig_dfl               ? DEFAULT
           : handler == engine.sig_ign             ? IGNORE
           : handler == engine.default_int_handler ? INTERRUPT
           : handler == Py_None                    ? FOREIGN
                                                   : CALLABLE;
}

static bool need_slots(int signum) {
    if (arrivals.slots[signum] == NULL) {
        arrivals.slots[signum] = inbox_map_slots(signum);
        if (arrivals.slots[signum] == NULL) {
            PyErr_NoMemory();
            return false;
        }
    }
    return true;
}

/* A real fault cannot be answered by Python: keep the C handler that was there (faulthandler's, a
 * library's), which then goes first, and have all stacks at hand. */
static void prepare_for_faults(int signum) {
    struct sigaction now;
    if (sigaction(signum, NULL, &now) == 0 && !is_ours(&now)) {
        remember_previous(signum, &now);
    }
    door_need_dump();
}

/* signal() and set_wakeup_fd() are for the main thread of the main interpreter. After an import in
 * another thread the doors open here, at the latest. */
bool require_main_thread(const char *function) {
    if (!engine.open && !engine.closed && !engine_open()) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
            return false;
        }
        PyErr_Clear();
    } else if (pthread_equal(pthread_self(), arrivals.main_thread)) {
        return true;
    }
    PyErr_Format(PyExc_ValueError, "%s only works in main thread of the main interpreter",
                 function);
    return false;
}

/* The stdlib's signal() takes int(x) of whatever has one. Leaves a new reference. */
static bool as_number_or_self(PyObject **object) {
    PyObject *number = PyNumber_Long(*object);
    if (number == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError)) {
            return false;
        }
        PyErr_Clear();
        number = Py_NewRef(*object);
    }
    *object = number;
    return true;
}

/* The handler as the table keeps it, borrowed. The stdlib asks int(handler) first, so that a
 * callable with __int__ (a MagicMock, say) silently becomes SIG_IGN; a callable is a handler here.
 */
PyObject *read_handler(PyObject *handler) {
    if (handler == engine.sig_dfl || handler == engine.sig_ign || PyCallable_Check(handler)) {
        return handler;
    }
    PyObject *number = handler;
    if (!as_number_or_self(&number)) {
        return NULL;
    }
    long value = PyLong_Check(number) ? PyLong_AsLong(number) : -1;
    PyErr_Clear();
    Py_DECREF(number);
    if (value == 0 || value == 1) {
        return value == 0 ? engine.sig_dfl : engine.sig_ign;
    }
    PyErr_SetString(PyExc_TypeError, "signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a "
                                     "callable object");
    return NULL;
}

/* _signal.signal(), which knows SIG_DFL and SIG_IGN as plain ints only. */
bool set_stdlib_handler(int signum, PyObject *handler) {
    PyObject *old;
    if (handler == engine.sig_dfl || handler == engine.sig_ign) {
        old = PyObject_CallMethod(engine.stdlib, "signal", "il", signum, PyLong_AsLong(handler));
    } else {
        old = PyObject_CallMethod(engine.stdlib, "signal", "iO", signum, handler);
    }
    Py_XDECREF(old);
    return old != NULL;
}

/* In our table only: see taking.c. */
static bool change_beside_audience(int signum, enum kind kind) {
    engine.untold |= signal_bit(signum);
    engine.give_back &= ~signal_bit(signum);
    set_bit(&arrivals.chained, signum, false);
    set_bit(&arrivals.to_inbox, signum, kind == CALLABLE);
    return set_kernel_handler(signum);
}

static bool change(int signum, PyObject *handler) {
    enum kind kind = kind_of(handler);
    PyObject *old = engine.handlers[signum];
    bool arrives = kind == INTERRUPT || kind == CALLABLE;
    if (arrives && (FAULT_SIGNALS & signal_bit(signum))) {
        prepare_for_faults(signum);
    }
    if (arrives) {
        door_need_timer();
        if (!need_slots(signum)) {
            return false;
        }
    }
    bool was_served = is_served(signum);
    engine.served = (engine.served & ~signal_bit(signum)) | (arrives ? signal_bit(signum) : 0);
    if (audience_of(signum) != NULL) {
        return change_beside_audience(signum, kind);
    }
    if (door_hidden() & signal_bit(signum)) {
        door_share(signum); /* the stdlib's table keeps the door's entry */
    } else if (kind != kind_of(old) || !arrives || !was_served ||
               (engine.untold & signal_bit(signum))) {
        if (!set_stdlib_handler(signum, kind == CALLABLE ? engine.dispatcher : handler)) {
            return false;
        }
        engine.untold &= ~signal_bit(signum);
        if (!arrives && (engine.actions[signum].flags & (SA_NOCLDSTOP | SA_NOCLDWAIT))) {
            struct sigaction standard = standard_action(signum, kind);
            sigaction(signum, &standard, NULL);
        }
    }
    if (arrives) {
        set_bit(&arrivals.to_inbox, signum, true);
        return set_kernel_handler(signum);
    }
    return true;
}

/* What the stdlib's table says, as ours would. */
PyObject *stdlib_handler(int signum) {
    PyObject *handler = PyObject_CallMethod(engine.stdlib, "getsignal", "i", signum);
    if (handler != NULL && PyLong_Check(handler)) {
        PyObject *member = PyLong_AsLong(handler) == 0 ? engine.sig_dfl : engine.sig_ign;
        Py_DECREF(handler);
        return Py_NewRef(member);
    }
    return handler;
}

/* After the interpreter's end has begun: the stdlib's own handler serves what is left. */
static PyObject *signal_after_close(int signum, PyObject *handler) {
    PyObject *old = stdlib_handler(signum);
    if (old != NULL && !set_stdlib_handler(signum, handler)) {
        Py_CLEAR(old);
    }
    return old;
}

/* Main thread; the handler is one that read_handler() gave. Returns the handler from before. */
PyObject *set_disposition(int signum, PyObject *handler, struct action action) {
    if (engine.closed) {
        return signal_after_close(signum, handler);
    }
    /* What has arrived belongs to the handler that is set now. */
    if (PyErr_CheckSignals() < 0 || !door_make_room(signal_bit(signum))) {
        return NULL;
    }
    struct action old_action = engine.actions[signum];
    engine.actions[signum] = action;
    engine.reset &= ~signal_bit(signum);
    if (!change(signum, handler)) {
        engine.actions[signum] = old_action;
        return NULL;
    }
    PyObject *old = engine.handlers[signum];
    engine.handlers[signum] = Py_NewRef(handler);
    if (signum == SIGCHLD && audience_of(signum) != NULL) {
        set_kernel_handler(signum); /* SIG_IGN has a flag of its own there */
    }
    return old;
}

/* SA_RESETHAND: the handler is about to be called, for the last time. Nothing is delivered
 * meanwhile: what else waits is to meet the default action. */
bool reset_disposition(int signum) {
    uint64_t held = atomic_exchange(&arrivals.held, UINT64_MAX);
    engine.actions[signum] = (struct action){0};
    bool changed = change(signum, engine.sig_dfl);
    atomic_store(&arrivals.held, held);
    if (changed) {
        engine.reset |= signal_bit(signum);
        replace_reference(&engine.handlers[signum], Py_NewRef(engine.sig_dfl));
    }
    return changed;
}

PyDoc_STRVAR(
    signal_doc,
    "signal(signalnum, handler)\n--\n\n"
    "Set the handler for a signal, and return the one from before.\n\n"
    "The handler stays until it is replaced, and the signal interrupts system calls again\n"
    "(siginterrupt(signalnum, True)). Main thread only.\n\n"
    "Parameters:\n"
    "    signalnum: the signal's number, or its Signals member.\n"
    "    handler: SIG_DFL, SIG_IGN, or a callable. It is called in the main thread, between two\n"
    "        steps of the interpreter, as handler(signalnum, frame): the number as an int, and\n"
    "        the interrupted frame, or None.\n\n"
    "Returns:\n"
    "    What getsignal() said before.\n\n"
    "Raises:\n"
    "    ValueError: not in the main thread, or signalnum out of range.\n"
    "    TypeError: handler is none of these.\n"
    "    OSError: the system does not let this signal be handled (SIGKILL, SIGSTOP).\n"
    "    Anything that a handler raises which was waiting for its turn; nothing is changed "
    "then.\n\n"
    "Platform: all. Source: POSIX sigaction(); section 17.4: \"Set the handler for signal\n"
    "signalnum to the function handler.\"");

static PyObject *signal_(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames) {
    (void)module;
    static const char *const names[] = {"signalnum", "handler"};
    PyObject *values[2];
    if (nargs == 2 && kwnames == NULL) {
        values[0] = args[0];
        values[1] = args[1];
    } else if (!take_arguments("signal", names, 2, args, nargs, kwnames, values)) {
        return NULL;
    }
    int signum;
    if (PyLong_Check(values[0])) {
        if (!parse_int(values[0], &signum)) {
            return NULL;
        }
    } else {
        PyObject *number = values[0];
        if (!as_number_or_self(&number)) {
            return NULL;
        }
        bool parsed = parse_int(number, &signum);
        Py_DECREF(number);
        if (!parsed) {
            return NULL;
        }
    }
    if (!require_main_thread("signal")) {
        return NULL;
    }
    if (!in_range(signum)) {
        return NULL;
    }
    PyObject *handler = read_handler(values[1]);
    if (handler == NULL) {
        return NULL;
    }
    return set_disposition(signum, handler, (struct action){0});
}

PyDoc_STRVAR(
    getsignal_doc,
    "getsignal(signalnum)\n--\n\n"
    "Return what a signal's handler is now.\n\n"
    "Parameters:\n"
    "    signalnum: the signal's number.\n\n"
    "Returns:\n"
    "    A callable, SIG_DFL, SIG_IGN, or None: the handler was not set from Python.\n\n"
    "Raises:\n"
    "    ValueError: signalnum out of range.\n\n"
    "Platform: all. Any thread. Source: section 17.4: \"Return the current signal handler for\n"
    "the signal signalnum.\"");

static PyObject *getsignal(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames) {
    (void)module;
    static const char *const names[] = {"signalnum"};
    PyObject *value;
    int signum;
    if (nargs == 1 && kwnames == NULL) {
        value = args[0];
    } else if (!take_arguments("getsignal", names, 1, args, nargs, kwnames, &value)) {
        return NULL;
    }
    if (!parse_signal_number(value, &signum)) {
        return NULL;
    }
    if (engine.closed) {
        return stdlib_handler(signum);
    }
    return Py_NewRef(engine.handlers[signum]);
}

PyDoc_STRVAR(
    siginterrupt_doc,
    "siginterrupt(signalnum, flag, /)\n--\n\n"
    "Say whether a signal interrupts system calls, or they go on after its handler.\n\n"
    "signal() sets this back to interrupting. Python's own functions go on in any case, once the\n"
    "Python-level handler has run (PEP 475); what differs for them is when it runs.\n\n"
    "Parameters:\n"
    "    signalnum: the signal's number.\n"
    "    flag: true: system calls are interrupted; false: they are restarted.\n\n"
    "Raises:\n"
    "    ValueError: signalnum out of range.\n"
    "    OSError: the system refuses (SIGKILL, SIGSTOP).\n\n"
    "Platform: Unix. Source: POSIX siginterrupt(); section 17.4: \"Change system call restart\n"
    "behaviour\".");

static PyObject *siginterrupt_(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    int signum, flag;
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "siginterrupt expected 2 arguments, got %zd", nargs);
        return NULL;
    }
    if (!parse_int(args[0], &signum) || !parse_int(args[1], &flag) || !in_range(signum) ||
        !door_make_room(signal_bit(signum))) {
        return NULL;
    }
    if (door_hidden() & signal_bit(signum)) {
        Py_RETURN_NONE; /* from another thread the door cannot move; it is not to change either */
    }
    struct sigaction action;
    if (sigaction(signum, NULL, &action) == 0) {
        if (is_ours(&action)) {
            uint32_t *flags = &engine.actions[signum].flags;
            *flags = flag ? *flags & ~SA_RESTART : *flags | SA_RESTART;
            if (!disposition_refresh(signum)) {
                return NULL;
            }
            Py_RETURN_NONE;
        }
        action.sa_flags = flag ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
        if (sigaction(signum, &action, NULL) == 0) {
            Py_RETURN_NONE;
        }
    }
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyMethodDef dispositions_methods[] = {
    {"signal", FUNCTION(signal_), METH_FASTCALL | METH_KEYWORDS, signal_doc},
    {"getsignal", FUNCTION(getsignal), METH_FASTCALL | METH_KEYWORDS, getsignal_doc},
    {"siginterrupt", FUNCTION(siginterrupt_), METH_FASTCALL, siginterrupt_doc},
    {NULL, NULL, 0, NULL},
};

/* What the stdlib's module says becomes ours too, where it was not our dispatcher that it was told.
 */
void dispositions_read(void) {
    uint64_t hidden = door_hidden();
    for (int signum = 1; signum < SIGNALS; signum++) {
        PyObject *handler = stdlib_handler(signum);
        if (handler == NULL) {
            PyErr_Clear();
            handler = Py_NewRef(Py_None);
        }
        if (handler == engine.dispatcher || ((hidden | engine.untold) & signal_bit(signum))) {
            Py_DECREF(handler);
        } else {
            if (handler != engine.handlers[signum]) {
                engine.served &= ~signal_bit(signum);
            }
            replace_reference(&engine.handlers[signum], handler);
        }
    }
}

/* Handlers that the stdlib's module serves (SIGINT's, at least) become ours. */
bool dispositions_adopt(void) {
    for (int signum = 1; signum < SIGNALS; signum++) {
        enum kind kind = kind_of(engine.handlers[signum]);
        struct sigaction now;
        if ((kind != INTERRUPT && kind != CALLABLE) || sigaction(signum, NULL, &now) != 0) {
            continue;
        }
        bool beside = audience_of(signum) != NULL;
        if (beside && is_ours(&now) && (engine.give_back & signal_bit(signum))) {
            now = arrivals.previous[signum]; /* somebody listens, and the stdlib's is chained */
        }
        if (actor_of(&now) != STDLIB) {
            continue;
        }
        if (!need_slots(signum)) {
            return false;
        }
        engine.actions[signum] = (struct action){.flags = (unsigned)now.sa_flags & SA_RESTART};
        engine.served |= signal_bit(signum);
        if (beside) {
            if (!change_beside_audience(signum, kind)) {
                return false;
            }
            continue;
        }
        if (kind == CALLABLE && !set_stdlib_handler(signum, engine.dispatcher)) {
            return false;
        }
        set_bit(&arrivals.to_inbox, signum, true);
        if (!set_kernel_handler(signum)) {
            return false;
        }
    }
    return true;
}

/* At exit: handlers that are ours become the stdlib's again, as it would have them. */
void dispositions_hand_over(void) {
    for (int signum = 1; signum < SIGNALS; signum++) {
        PyObject *handler = engine.handlers[signum];
        struct sigaction now;
        if ((kind_of(handler) != INTERRUPT && kind_of(handler) != CALLABLE) ||
            sigaction(signum, NULL, &now) != 0 || !is_ours(&now)) {
            continue;
        }
        if (!set_stdlib_handler(signum, handler)) {
            /* A handler that was pending raised. Say so, and once more without it. */
            PyErr_WriteUnraisable(handler);
            if (!set_stdlib_handler(signum, handler)) {
                PyErr_Clear();
            }
        }
        if (now.sa_flags & SA_RESTART) {
            Py_XDECREF(PyObject_CallMethod(engine.stdlib, "siginterrupt", "ii", signum, 0));
            PyErr_Clear();
        }
    }
}

/* And our table lets go of them. */
void dispositions_let_go(void) {
    for (int signum = 1; signum < SIGNALS; signum++) {
        replace_reference(&engine.handlers[signum], Py_NewRef(Py_None));
    }
}
