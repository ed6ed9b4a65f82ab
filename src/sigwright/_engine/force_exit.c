/* force_exit(): giving the watch its orders, and the main thread a stack for signals.
 * Context: any thread, with the GIL.
 * Callers: Python; module.c at fork and exit. */
#include <errno.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"
#include "watch.h"

#define THREAD_STACK (256 * 1024) /* address space; what it uses is a few pages */
#define ALTERNATE_STACK (64 * 1024)

static uint64_t last_id;

/* False: no thread is to be had; errno says why. */
static bool start_thread(void) {
    if (atomic_exchange(&watching.running, true)) {
        return true;
    }
    atomic_store(&watching.alive_ns, monotonic_ns());
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, mask;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &mask); /* which it inherits */
    errno = pthread_create(&thread, &attributes, watch_run, NULL);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
        atomic_store(&watching.running, false);
        errno = error;
    }
    return error == 0;
}

/* --- the main thread's alternate stack -------------------------------------------------------- */

/* Without it a signal that finds the main thread's stack full ends the process by SIGSEGV: there is
 * no room for its frame. The stack stays for as long as the process. Where there is no memory for
 * it, only a full stack is not covered. */
static int give_stack(void *unused) {
    (void)unused;
    stack_t stack;
    if (sigaltstack(NULL, &stack) != 0 || !(stack.ss_flags & SS_DISABLE)) {
        return 0; /* somebody has seen to it: faulthandler, a library */
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t least = getauxval(AT_MINSIGSTKSZ); /* of this processor's frames; 0: an old kernel */
    size_t size = (ALTERNATE_STACK + least + page - 1) / page * page;
    char *memory = mmap(NULL, page + size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return 0;
    }
    stack = (stack_t){.ss_sp = memory + page, .ss_size = size}; /* the first page is a guard */
    if (mprotect(stack.ss_sp, size, PROT_READ | PROT_WRITE) != 0 ||
        sigaltstack(&stack, NULL) != 0) {
        munmap(memory, page + size);
    }
    return 0;
}

/* A thread's alternate stack is that thread's to set. */
static void need_alternate_stack(void) {
    if (engine.open && pthread_equal(pthread_self(), arrivals.main_thread)) {
        give_stack(NULL);
    } else {
        Py_AddPendingCall(give_stack, NULL);
    }
}

/* --- Python's side ---------------------------------------------------------------------------- */

static void recount_watched(void) {
    uint64_t signals = 0;
    for (struct watch *watch = atomic_load(&watching.orders); watch != NULL; watch = watch->next) {
        if (atomic_load(&watch->id) != 0 && atomic_load(&watch->end_ns) == NEVER) {
            signals |= atomic_load(&watch->signals);
        }
    }
    FOR_EACH_SIGNAL (signum, signals & ~atomic_load(&arrivals.watched)) {
        struct unanswered *unanswered = &arrivals.inbox->unanswered[signum];
        atomic_store(&unanswered->since_ns, 0); /* from when it was watched before */
        atomic_store(&unanswered->undone_ns, 0);
        atomic_store(&unanswered->presses, 0);
    }
    atomic_store(&arrivals.watched, signals);
}

static void learn_name(int signum) {
    PyObject *name = PyObject_GetAttrString(engine.members[signum], "name");
    const char *text = name == NULL ? NULL : PyUnicode_AsUTF8AndSize(name, NULL);
    if (text == NULL) { /* a real-time signal between the two that have names */
        PyErr_Clear();
        PyOS_snprintf(watching.names[signum], sizeof watching.names[signum], "SIGRTMIN+%d",
                      signum - SIGRTMIN);
    } else {
        PyOS_snprintf(watching.names[signum], sizeof watching.names[signum], "%s", text);
    }
    Py_XDECREF(name);
}

/* faulthandler gives its one alternate stack to each thread that registers a signal, whatever that
 * thread has: two threads with signals would then be on the same one. */
static void need_dump(void) {
    stack_t before, after;
    bool known = sigaltstack(NULL, &before) == 0;
    door_need_dump();
    if (known && sigaltstack(NULL, &after) == 0 && before.ss_sp != after.ss_sp) {
        sigaltstack(&before, NULL);
    }
}

static struct watch *free_place(void) {
    struct watch *first = atomic_load(&watching.orders);
    for (struct watch *watch = first; watch != NULL; watch = watch->next) {
        if (atomic_load(&watch->id) == 0) {
            return watch;
        }
    }
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    watch->next = first;
    atomic_store(&watching.orders, watch);
    return watch;
}

static PyObject *give(const struct order *order) {
    /* Whatever may run Python code comes before the first step. */
    if (order->dump) {
        need_dump(); /* it takes a number, perhaps one of these */
    }
    FOR_EACH_SIGNAL (signum, order->signals) {
        learn_name((int)signum);
    }
    if (!door_make_room(order->signals) || PyErr_CheckSignals() < 0) {
        return NULL;
    }
    if (engine.closing) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is ending");
        return NULL;
    }
    struct watch *watch = free_place();
    if (watch == NULL) {
        return NULL;
    }
    atomic_store(&watch->signals, order->signals);
    atomic_store(&watch->grace_ns, order->grace_ns);
    atomic_store(&watch->presses, order->presses);
    atomic_store(&watch->end_ns, order->end_ns);
    atomic_store(&watch->given_ns, order->given_ns);
    atomic_store(&watch->exit_code, order->exit_code);
    atomic_store(&watch->dump, order->dump);
    atomic_store(&watch->deferral_answers, order->deferral_answers);
    atomic_store(&watch->id, ++last_id);
    recount_watched();
    if (!start_thread()) {
        PyErr_Format(PyExc_RuntimeError, "can't start the watching thread: %s", strerror(errno));
        atomic_store(&watch->id, 0);
        recount_watched();
        return NULL;
    }
    need_alternate_stack();
    return PyLong_FromUnsignedLongLong(last_id);
}

static PyObject *watch_(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *numbers;
    long long grace_ns;
    int presses, exit_code, dump, deferral_answers;
    uint64_t signals = 0;
    if (!PyArg_ParseTuple(args, "OLiipp", &numbers, &grace_ns, &presses, &exit_code, &dump,
                          &deferral_answers) ||
        !parse_signals(numbers, &signals)) {
        return NULL;
    }
    const struct order order = {
        .signals = signals,
        .grace_ns = (uint64_t)grace_ns,
        .presses = (uint64_t)presses,
        .end_ns = NEVER,
        .given_ns = monotonic_ns(),
        .exit_code = exit_code,
        .dump = dump,
        .deferral_answers = deferral_answers,
    };
    return give(&order);
}

static PyObject *watch_until(PyObject *module, PyObject *args) {
    (void)module;
    long long end_ns;
    int signum, exit_code, dump;
    if (!PyArg_ParseTuple(args, "Liip", &end_ns, &signum, &exit_code, &dump) || !in_range(signum)) {
        return NULL;
    }
    const struct order order = {
        .signals = signal_bit(signum),
        .end_ns = (uint64_t)end_ns,
        .given_ns = monotonic_ns(),
        .exit_code = exit_code,
        .dump = dump,
    };
    return give(&order);
}

static struct watch *find(PyObject *number) {
    unsigned long long id = PyLong_AsUnsignedLongLong(number);
    struct watch *watch = PyErr_Occurred() || id == 0 ? NULL : atomic_load(&watching.orders);
    while (watch != NULL && atomic_load(&watch->id) != id) {
        watch = watch->next;
    }
    return watch;
}

static PyObject *unwatch(PyObject *module, PyObject *number) {
    (void)module;
    struct watch *watch = find(number);
    if (watch != NULL) {
        atomic_store(&watch->id, 0);
        recount_watched();
    }
    return PyErr_Occurred() ? NULL : PyBool_FromLong(watch != NULL);
}

static PyObject *is_watching(PyObject *module, PyObject *number) {
    (void)module;
    struct watch *watch = find(number);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(watch != NULL);
}

/* In the child, whose first thread may be any of the parent's. What force_exit() watches is watched
 * here as well. The end of the parent's graceful_shutdown() is its own, as its timers are. */
void watch_after_fork(void) {
    for (struct watch *watch = atomic_load(&watching.orders); watch != NULL; watch = watch->next) {
        if (atomic_load(&watch->end_ns) != NEVER) {
            atomic_store(&watch->id, 0);
        }
    }
    atomic_store(&watching.running, false);
    if (anything_to_watch()) {
        start_thread();
        need_alternate_stack();
    }
}

/* The interpreter ends, and with it our knowledge of who answers. */
void watch_close(void) {
    for (struct watch *watch = atomic_load(&watching.orders); watch != NULL; watch = watch->next) {
        atomic_store(&watch->id, 0);
    }
    atomic_store(&arrivals.watched, 0);
}

PyMethodDef force_exit_methods[] = {
    {"watch", watch_, METH_VARARGS,
     "watch(signums, grace_ns, presses, exit_code, dump, deferral_answers, /)\n--\n\n"
     "End the process when one of these has not been answered for so long, or when it came so\n"
     "often (presses; 0: however often); with exit_code, or by the signal (-1). Does a safe point\n"
     "at which deferred() holds it count as an answer?\n\n"
     "Returns:\n"
     "    A number for unwatch()."},
    {"watch_until", watch_until, METH_VARARGS,
     "watch_until(monotonic_ns, signum, exit_code, dump, /)\n--\n\n"
     "End the process at that time of CLOCK_MONOTONIC, whatever was answered. Not inherited by a\n"
     "forked child.\n\n"
     "Returns:\n"
     "    A number for unwatch()."},
    {"unwatch", unwatch, METH_O,
     "unwatch(number, /)\n--\n\nTake it back; False: it was not in force any more. Any thread."},
    {"is_watching", is_watching, METH_O, "is_watching(number, /)\n--\n\nIs it still in force?"},
    {NULL, NULL, 0, NULL},
};
