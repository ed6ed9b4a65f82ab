/* The module: constants, opening at import, fork, and closing at exit.
 * Context: any thread, with the GIL; fork and exit: the main thread.
 * Callers: the interpreter; os.register_at_fork and atexit. */
#include <sys/time.h>

#include "engine.h"

struct engine engine;

/* From the platform's <signal.h>: names that it lacks are absent. The values become members of the
 * stdlib's own enums, where it has the name too. */
static const struct constant signal_constants[] = {
    CONSTANT(SIGHUP),    CONSTANT(SIGINT),  CONSTANT(SIGQUIT), CONSTANT(SIGILL),
    CONSTANT(SIGTRAP),   CONSTANT(SIGABRT), CONSTANT(SIGFPE),  CONSTANT(SIGKILL),
    CONSTANT(SIGBUS),    CONSTANT(SIGSEGV), CONSTANT(SIGSYS),  CONSTANT(SIGPIPE),
    CONSTANT(SIGALRM),   CONSTANT(SIGTERM), CONSTANT(SIGURG),  CONSTANT(SIGSTOP),
    CONSTANT(SIGTSTP),   CONSTANT(SIGCONT), CONSTANT(SIGCHLD), CONSTANT(SIGTTIN),
    CONSTANT(SIGTTOU),   CONSTANT(SIGXCPU), CONSTANT(SIGXFSZ), CONSTANT(SIGVTALRM),
    CONSTANT(SIGPROF),   CONSTANT(SIGUSR1), CONSTANT(SIGUSR2),
#ifdef SIGIOT
    CONSTANT(SIGIOT),
#endif
#ifdef SIGEMT
    CONSTANT(SIGEMT),
#endif
#ifdef SIGCLD
    CONSTANT(SIGCLD),
#endif
#ifdef SIGPWR
    CONSTANT(SIGPWR),
#endif
#ifdef SIGIO
    CONSTANT(SIGIO),
#endif
#ifdef SIGWINCH
    CONSTANT(SIGWINCH),
#endif
#ifdef SIGPOLL
    CONSTANT(SIGPOLL),
#endif
#ifdef SIGINFO
    CONSTANT(SIGINFO),
#endif
#ifdef SIGSTKFLT
    CONSTANT(SIGSTKFLT),
#endif
};

static const struct constant mask_constants[] = {
    CONSTANT(SIG_BLOCK),
    CONSTANT(SIG_UNBLOCK),
    CONSTANT(SIG_SETMASK),
};

static const struct constant plain_constants[] = {
    {"NSIG", SIGNALS},
    CONSTANT(ITIMER_REAL),
    CONSTANT(ITIMER_VIRTUAL),
    CONSTANT(ITIMER_PROF),
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static bool add_member(PyObject *module, PyObject *type, const char *name, long value) {
    PyObject *member = PyObject_GetAttrString(type, name);
    if (member == NULL) {
        PyErr_Clear(); /* this Python's stdlib does not know the name */
        return true;
    }
    if (PyLong_AsLong(member) != value) {
        PyErr_Format(PyExc_ImportError, "the stdlib says %s is %R, this platform says %ld", name,
                     member, value);
        Py_DECREF(member);
        return false;
    }
    bool added = PyModule_AddObjectRef(module, name, member) == 0;
    Py_DECREF(member);
    return added;
}

static bool add_constants(PyObject *module, PyObject *signals, PyObject *sigmasks) {
    for (size_t i = 0; i < COUNT(signal_constants); i++) {
        if (!add_member(module, signals, signal_constants[i].name, signal_constants[i].value)) {
            return false;
        }
    }
    for (size_t i = 0; i < COUNT(mask_constants); i++) {
        if (!add_member(module, sigmasks, mask_constants[i].name, mask_constants[i].value)) {
            return false;
        }
    }
    for (size_t i = 0; i < COUNT(plain_constants); i++) {
        if (PyModule_AddIntConstant(module, plain_constants[i].name, plain_constants[i].value) <
            0) {
            return false;
        }
    }
    return add_member(module, signals, "SIGRTMIN", SIGRTMIN) &&
           add_member(module, signals, "SIGRTMAX", SIGRTMAX);
}

/* The names that are the stdlib's own objects. */
static const char *const shared_names[] = {"Signals",
                                           "Handlers",
                                           "Sigmasks",
                                           "SIG_DFL",
                                           "SIG_IGN",
                                           "ItimerError",
                                           "default_int_handler",
                                           "struct_siginfo"};

static PyMethodDef *const public_methods[] = {
    dispositions_methods, itimers_methods, masks_methods,
    sending_methods,      waiting_methods, wakeup_methods,
};

/* What the package's own modules use. */
static PyMethodDef *const inner_methods[] = {
    actions_methods, added_handlers_methods, consumers_methods,  delivery_methods,
    info_methods,    run_default_methods,    force_exit_methods,
};

static bool share(PyObject *module, PyObject *stdlib, const char *name) {
    PyObject *object = PyObject_GetAttrString(stdlib, name);
    bool shared = object != NULL && PyModule_AddObjectRef(module, name, object) == 0;
    Py_XDECREF(object);
    return shared;
}

static bool load_numbers(PyObject *signals) {
    for (int signum = 1; signum < SIGNALS; signum++) {
        PyObject *number = PyLong_FromLong(signum);
        if (number == NULL) {
            return false;
        }
        PyObject *member = PyObject_CallFunctionObjArgs(signals, number, NULL);
        if (member == NULL) {
            PyErr_Clear();
            member = Py_NewRef(number);
        }
        replace_reference(&engine.numbers[signum], number);
        replace_reference(&engine.members[signum], member);
    }
    return true;
}

static bool load_stdlib(PyObject *stdlib, PyObject *module) {
    replace_reference(&engine.stdlib, PyImport_ImportModule("_signal"));
    replace_reference(&engine.sig_dfl, PyObject_GetAttrString(stdlib, "SIG_DFL"));
    replace_reference(&engine.sig_ign, PyObject_GetAttrString(stdlib, "SIG_IGN"));
    replace_reference(&engine.default_int_handler,
                      PyObject_GetAttrString(stdlib, "default_int_handler"));
    replace_reference(&engine.itimer_error, PyObject_GetAttrString(stdlib, "ItimerError"));
    replace_reference(&engine.struct_siginfo, PyObject_GetAttrString(stdlib, "struct_siginfo"));
    replace_reference(&engine.dispatcher, PyCFunction_NewEx(&dispatcher_method, module, NULL));
    return engine.stdlib != NULL && engine.sig_dfl != NULL && engine.sig_ign != NULL &&
           engine.default_int_handler != NULL && engine.itimer_error != NULL &&
           engine.struct_siginfo != NULL && engine.dispatcher != NULL;
}

/* In a child: what is not inherited goes, and what is its own begins. */
void settle_after_fork(void) {
    if (!engine.wiped_on_fork) {
        inbox_wipe(arrivals.inbox, arrivals.slots);
    }
    arrivals.inbox->settled = true;
    if (engine.open && !engine.closed) {
        bool other_thread = !pthread_equal(pthread_self(), arrivals.main_thread);
        clock_after_fork();
        door_after_fork();
        delivery_after_fork(other_thread);
    }
    if (!engine.closed) {
        consumers_after_fork(engine.wiped_on_fork);
        watch_after_fork();
    }
}

static PyObject *after_fork_in_child(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    if (!engine.wiped_on_fork || !arrivals.inbox->settled) {
        settle_after_fork();
    }
    Py_RETURN_NONE;
}

/* The interpreter ends: from here on CPython's own C handler serves the handlers that are set, for
 * it knows when the interpreter is gone. Nothing is taken back after this. */
static PyObject *close_engine(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    if (engine.closed) {
        Py_RETURN_NONE;
    }
    PyObject *type, *value, *traceback;
    (void)PyErr_CheckSignals(); /* what a handler raises now is atexit's to report */
    PyErr_Fetch(&type, &value, &traceback);
    engine.closing = true;
    timers_drop_all();
    watch_close();
    consumers_close_all();
    if (engine.open) {
        dispositions_hand_over();
        arrivals_end(); /* the last that are ours have published */
        if (arrivals_wait_for_delivery()) {
            ring_if_work();
            if (PyErr_CheckSignals() < 0) {
                PyErr_WriteUnraisable(engine.dispatcher);
            }
        }
        atomic_store(&arrivals.closed, true);
        clock_close();
        door_close();
        wakeup_hand_over();
    }
    engine.closed = true;
    dispositions_let_go();
    Py_CLEAR(engine.tracer);
    if (type != NULL) {
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Main thread. False with an exception set: ValueError anywhere else. */
bool engine_open(void) {
    bool wakeup_in_use;
    if (!door_open() || !wakeup_take_over(true, &wakeup_in_use) ||
        !(wakeup_in_use || dispositions_adopt())) {
        return false;
    }
    uint64_t stdlib = atomic_exchange(&arrivals.inbox->stdlib, 0);
    FOR_EACH_SIGNAL (signum, stdlib) {
        arrivals.door_handler((int)signum);
    }
    clock_start();
    if (atomic_load(&arrivals.inbox->added) != 0) { /* for handlers added by another thread */
        door_need_timer();
        ring_if_work();
    }
    return true;
}

/* For install(): from now on the stdlib module's functions are ours, so that what was set through
 * them so far becomes ours too. */
static PyObject *adopt(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    bool wakeup_in_use;
    if (!engine.closed && require_main_thread("install")) {
        dispositions_read();
        if (!wakeup_take_over(false, &wakeup_in_use) || !dispositions_adopt()) {
            return NULL;
        }
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef private_methods[] = {
    {"adopt", adopt, METH_NOARGS,
     "adopt()\n--\n\n"
     "Take over the handlers and the wakeup fd that the stdlib's module was given; main thread "
     "only."},
    {"set_zero_wakeup_fd", set_zero_wakeup_fd, METH_O,
     "set_zero_wakeup_fd(fd, /)\n--\n\n"
     "Python 2.7's set_wakeup_fd(), for sigwright.classic: the byte is '\\0', nothing is "
     "reported."},
    {"_after_fork_in_child", after_fork_in_child, METH_NOARGS, NULL},
    {"_close", close_engine, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static bool register_hooks(PyObject *module) {
    PyObject *os = PyImport_ImportModule("os");
    PyObject *atexit = PyImport_ImportModule("atexit");
    PyObject *register_at_fork = os == NULL ? NULL : PyObject_GetAttrString(os, "register_at_fork");
    PyObject *child = PyObject_GetAttrString(module, "_after_fork_in_child");
    PyObject *close = PyObject_GetAttrString(module, "_close");
    PyObject *nothing = PyTuple_New(0);
    PyObject *keywords = child == NULL ? NULL : Py_BuildValue("{sO}", "after_in_child", child);
    PyObject *forked = NULL, *exited = NULL;
    if (register_at_fork != NULL && keywords != NULL && nothing != NULL && atexit != NULL &&
        close != NULL) {
        forked = PyObject_Call(register_at_fork, nothing, keywords);
        exited = forked == NULL ? NULL : PyObject_CallMethod(atexit, "register", "O", close);
    }
    bool registered = exited != NULL;
    Py_XDECREF(exited);
    Py_XDECREF(forked);
    Py_XDECREF(keywords);
    Py_XDECREF(nothing);
    Py_XDECREF(close);
    Py_XDECREF(child);
    Py_XDECREF(register_at_fork);
    Py_XDECREF(atexit);
    Py_XDECREF(os);
    return registered;
}

/* Imported off the main thread: the main thread opens the doors at its next safe point. */
static int open_later(void *unused) {
    (void)unused;
    return engine.open || engine.closed || engine_open() ? 0 : -1;
}

static bool open_or_defer(void) {
    if (engine_open()) {
        return true;
    }
    if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
        return false;
    }
    PyErr_Clear();
    if (Py_AddPendingCall(open_later, NULL) < 0) {
        PyErr_SetString(PyExc_ImportError, "the interpreter's queue of pending calls is full");
        return false;
    }
    return true;
}

static bool start(PyObject *module, PyObject *stdlib, PyObject *signals) {
    if (engine.dispatcher != NULL && !engine.closed) {
        return true; /* imported anew in the same interpreter: the engine is running */
    }
    if (arrivals.inbox == NULL) {
        arrivals.inbox = inbox_map(&engine.wiped_on_fork);
        if (arrivals.inbox == NULL) {
            PyErr_NoMemory();
            return false;
        }
        arrivals.inbox->settled = true;
    }
    arrivals.first_realtime = SIGRTMIN;
    /* A second start in one process: an embedding program that ended its first interpreter. */
    engine.closing = engine.closed = false;
    engine.open = false;
    atomic_store(&arrivals.closed, false);
    atomic_store(&arrivals.doors[LOUD], 0);
    atomic_store(&arrivals.doors[QUIET], 0);
    if (!load_stdlib(stdlib, module) || !load_numbers(signals)) {
        return false;
    }
    dispositions_read();
    return register_hooks(module) && open_or_defer();
}

/* For codes.py, which makes enums of them: not among the public names. */
static bool add_codes(PyObject *module) {
    for (const struct constant *code = code_constants; code->name != NULL; code++) {
        if (PyModule_AddIntConstant(module, code->name, code->value) < 0) {
            return false;
        }
    }
    return true;
}

/* In a subinterpreter the stock behaviour remains: the functions are the stdlib's. */
static bool share_functions(PyObject *module, PyObject *stdlib) {
    for (size_t i = 0; i < COUNT(public_methods); i++) {
        for (const PyMethodDef *method = public_methods[i]; method->ml_name != NULL; method++) {
            if (PyObject_HasAttrString(stdlib, method->ml_name) &&
                !share(module, stdlib, method->ml_name)) {
                return false;
            }
        }
    }
    return true;
}

/* __all__: what the package's face shows; the names of its own use come after this. */
static bool list_public_names(PyObject *module) {
    PyObject *names = PyObject_Dir(module);
    PyObject *all = PyList_New(0);
    bool listed = names != NULL && all != NULL;
    for (Py_ssize_t i = 0; listed && i < PyList_Size(names); i++) {
        PyObject *name = PyList_GetItem(names, i);
        if (PyUnicode_ReadChar(name, 0) != '_') {
            listed = PyList_Append(all, name) == 0;
        }
    }
    listed = listed && PyModule_AddObjectRef(module, "__all__", all) == 0;
    Py_XDECREF(all);
    Py_XDECREF(names);
    return listed;
}

static int execute(PyObject *module) {
    PyObject *stdlib = PyImport_ImportModule("signal");
    PyObject *signals = stdlib == NULL ? NULL : PyObject_GetAttrString(stdlib, "Signals");
    PyObject *sigmasks = stdlib == NULL ? NULL : PyObject_GetAttrString(stdlib, "Sigmasks");
    bool main_interpreter = PyInterpreterState_GetID(PyInterpreterState_Get()) == 0;
    bool done = signals != NULL && sigmasks != NULL && add_constants(module, signals, sigmasks);
    for (size_t i = 0; done && i < COUNT(shared_names); i++) {
        done = share(module, stdlib, shared_names[i]);
    }
    if (main_interpreter) {
        for (size_t i = 0; done && i < COUNT(public_methods); i++) {
            done = PyModule_AddFunctions(module, public_methods[i]) == 0;
        }
    } else {
        done = done && share_functions(module, stdlib);
    }
    done = done && list_public_names(module) && add_codes(module) && add_blocked_section(module) &&
           PyModule_AddObjectRef(module, "main_interpreter",
                                 main_interpreter ? Py_True : Py_False) == 0;
    if (main_interpreter) {
        done = done && PyModule_AddFunctions(module, private_methods) == 0;
        for (size_t i = 0; done && i < COUNT(inner_methods); i++) {
            done = PyModule_AddFunctions(module, inner_methods[i]) == 0;
        }
        done = done && info_add_type(module) && consumers_add_type(module) &&
               deferral_add_type(module) && limits_add_types(module) && timers_add_type(module) &&
               start(module, stdlib, signals);
    }
    Py_XDECREF(sigmasks);
    Py_XDECREF(signals);
    Py_XDECREF(stdlib);
    return done ? 0 : -1;
}

/* The last two entries are filled in where this Python knows them. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "sigwright._engine",
    .m_doc = "The engine of sigwright: arrival, inbox, doors and delivery of signals.",
    .m_size = 0,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__engine(void) {
    if (Py_Version >= 0x030C0000) {
        slots[1].slot = 3;          /* Py_mod_multiple_interpreters: newer than the limited API */
        slots[1].value = (void *)2; /* Py_MOD_PER_INTERPRETER_GIL_SUPPORTED */
    }
    return PyModuleDef_Init(&definition);
}
