/* The watch: ends a process that does not answer. For force_exit() and graceful_shutdown().
 * Context: run() and what it calls: a native thread of its own, without the GIL, every signal
 *     blocked; the rest: any thread, with the GIL.
 * Callers: Python; module.c at fork and exit.
 *
 * The thread must work in a process in which nothing else does: it takes no lock, allocates
 * nothing, needs no file descriptor and no Python, and waits for nobody. What it reads are atomics;
 * what it calls are bare system calls.
 *
 * It looks ten times a second, and sleeps exactly until the next time is up; with nothing to watch
 * there is no thread. Arrivals only leave a mark (watch.h), they do not wake it. A signal that
 * every thread blocks does not even arrive, and can only be looked for. (A signalfd would tell, and
 * an eventfd could wake: but a program that makes itself a daemon closes all files that it does not
 * know, and the number is then another file, which we would read.)
 *
 * What does not count is time in which the watch itself did not run: the process was stopped
 * (Ctrl+Z, a debugger, a paused container), and nobody could have answered. */
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"

#define MS UINT64_C(1000000)
#define LOOK_NS (100 * MS)
/* When the time is up: wait so much longer, and look again, so often. */
#define HESITATION_NS (50 * MS)
#define GLANCE_NS (5 * MS)
/* So late, the process had been stopped; or the machine is so busy that it is as good as that. */
#define LATE_NS (50 * MS)
#define MOST_HESITATIONS 4
#define THREAD_STACK (256 * 1024) /* address space; what it uses is a few pages */
#define ALTERNATE_STACK (64 * 1024)

/* The orders in force: a list that only grows. A place whose order is over (id 0) is used again,
 * perhaps while the thread reads it. No id is used twice: who finds the same one before and after
 * has read one whole order. */
struct watch {
    struct watch *next;
    _Atomic uint64_t id;
    _Atomic uint64_t signals, grace_ns, presses, end_ns, given_ns;
    _Atomic int exit_code;
    _Atomic bool dump;
};

static _Atomic(struct watch *) watches;
static uint64_t last_id;
static _Atomic bool running;    /* the thread is there, or is about to be */
char signal_names[SIGNALS][16]; /* "SIGTERM", for the line on stderr */

static bool read_order(const struct watch *watch, struct order *order, uint64_t *id) {
    *id = atomic_load(&watch->id);
    order->signals = atomic_load(&watch->signals);
    order->grace_ns = atomic_load(&watch->grace_ns);
    order->presses = atomic_load(&watch->presses);
    order->end_ns = atomic_load(&watch->end_ns);
    order->given_ns = atomic_load(&watch->given_ns);
    order->exit_code = atomic_load(&watch->exit_code);
    order->dump = atomic_load(&watch->dump);
    return *id != 0 && atomic_load(&watch->id) == *id;
}

static bool anything_to_watch(void) {
    for (struct watch *watch = atomic_load(&watches); watch != NULL; watch = watch->next) {
        if (atomic_load(&watch->id) != 0) {
            return true;
        }
    }
    return false;
}

/* --- the thread ------------------------------------------------------------------------------- */

/* Signals that the process has pending, since every thread blocks them: seen so at each look, and
 * none arrived meanwhile. */
static struct {
    uint64_t since_ns;
    uint32_t arrivals;
} blocked[SIGNALS];

/* What the process's first thread blocks, the main one. What it does not block is pending only
 * until it runs, which on a busy machine is soon enough. All, where the kernel does not say: there
 * may be no file descriptor left. */
static uint64_t blocked_by_main(void) {
    static const char field[] = "SigBlk:\t";
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        return UINT64_MAX;
    }
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    const char *digit = strstr(text, field);
    if (digit == NULL) {
        return UINT64_MAX;
    }
    uint64_t mask = 0;
    for (digit += sizeof field - 1; *digit > ' '; digit++) {
        mask = mask << 4 | (uint64_t)(*digit <= '9' ? *digit - '0' : *digit - 'a' + 10);
    }
    return mask;
}

static void sleep_until(uint64_t at_ns) {
    const struct timespec at = {(time_t)(at_ns / 1000000000), (long)(at_ns % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* Ignored it would be, or nothing would come of it, if it were not blocked. */
static bool comes_to_nothing(int signum) {
    struct sigaction now;
    return sigaction(signum, NULL, &now) != 0 ||
           (!(now.sa_flags & SA_SIGINFO) &&
            (now.sa_handler == SIG_IGN ||
             (now.sa_handler == SIG_DFL && (HARMLESS & signal_bit(signum)))));
}

static void look_for_blocked(uint64_t signals) {
    uint64_t pending = 0;
    syscall(SYS_rt_sigpending, &pending, sizeof pending);
    if ((pending & signals) != 0) {
        pending &= blocked_by_main();
    }
    FOR_EACH_SIGNAL (signum, signals) {
        uint32_t arrived = atomic_load(&arrivals.inbox->unanswered[signum].arrivals);
        if (!(pending & signal_bit((int)signum)) || comes_to_nothing((int)signum)) {
            blocked[signum].since_ns = 0;
        } else if (blocked[signum].since_ns == 0 || blocked[signum].arrivals != arrived) {
            /* Since some time after the last look. The hesitation is not to come on top of that. */
            blocked[signum].since_ns = monotonic_ns() - HESITATION_NS;
            blocked[signum].arrivals = arrived;
        }
    }
}

/* 0: it is answered. */
static uint64_t unanswered_since(int signum) {
    struct unanswered *unanswered = &arrivals.inbox->unanswered[signum];
    uint64_t since_ns = atomic_load(&unanswered->since_ns);
    if (since_ns != 0 && has_handler(signum)) {
        return since_ns;
    }
    /* It is SIG_DFL or SIG_IGN by now: what came before that is over. */
    atomic_compare_exchange_strong(&unanswered->since_ns, &since_ns, 0);
    return blocked[signum].since_ns;
}

/* So late was the watch itself: it does not count. */
static void give_back(uint64_t late_ns) {
    uint64_t now_ns = monotonic_ns();
    FOR_EACH_SIGNAL (signum, atomic_load(&arrivals.watched)) {
        _Atomic uint64_t *since = &arrivals.inbox->unanswered[signum].since_ns;
        uint64_t since_ns = atomic_load(since);
        uint64_t later_ns = since_ns + late_ns < now_ns ? since_ns + late_ns : now_ns;
        if (since_ns != 0) {
            atomic_compare_exchange_strong(since, &since_ns, later_ns);
        }
        if (blocked[signum].since_ns != 0) {
            blocked[signum].since_ns += late_ns;
        }
    }
}

/* The time is up: does nobody answer in the next 50 ms either? */
static bool stays_unanswered(const struct watch *watch, uint64_t id, int signum,
                             uint64_t since_ns) {
    for (int i = 0; i < MOST_HESITATIONS; i++) {
        uint64_t until_ns = monotonic_ns() + HESITATION_NS;
        for (uint64_t now_ns = 0; now_ns < until_ns; now_ns = monotonic_ns()) {
            sleep_until(monotonic_ns() + GLANCE_NS);
            look_for_blocked(signal_bit(signum));
            if (atomic_load(&watch->id) != id || unanswered_since(signum) != since_ns) {
                return false;
            }
        }
        if (monotonic_ns() - until_ns < LATE_NS) {
            break;
        }
    }
    return true;
}

/* From here on it cannot be taken back. */
static bool claim(struct watch *watch, uint64_t id) {
    return atomic_compare_exchange_strong(&watch->id, &id, 0);
}

/* When to look again. */
static uint64_t judge(struct watch *watch, uint64_t id, const struct order *order) {
    uint64_t next_ns = order->end_ns;
    uint64_t now_ns = monotonic_ns();
    if (order->end_ns <= now_ns && claim(watch, id)) {
        end_process(order, __builtin_ctzll(order->signals) + 1, order->given_ns);
    }
    if (order->end_ns != NEVER) {
        return next_ns;
    }
    FOR_EACH_SIGNAL (signum, order->signals) {
        uint64_t since_ns = unanswered_since((int)signum);
        if (since_ns == 0) {
            continue;
        }
        uint64_t presses = atomic_load(&arrivals.inbox->unanswered[signum].presses);
        bool pressed = order->presses != 0 && presses >= order->presses;
        uint64_t over_ns = order->grace_ns < NEVER - since_ns ? since_ns + order->grace_ns : NEVER;
        if (!pressed && now_ns < over_ns) {
            next_ns = over_ns < next_ns ? over_ns : next_ns;
        } else if (stays_unanswered(watch, id, (int)signum, since_ns) && claim(watch, id)) {
            end_process(order, (int)signum, since_ns);
        }
    }
    return next_ns;
}

/* NEVER: there is nothing to watch. */
static uint64_t look(void) {
    look_for_blocked(atomic_load(&arrivals.watched));
    uint64_t next_ns = NEVER;
    for (struct watch *watch = atomic_load(&watches); watch != NULL; watch = watch->next) {
        struct order order;
        uint64_t id;
        if (read_order(watch, &order, &id)) {
            uint64_t then_ns = judge(watch, id, &order);
            next_ns = then_ns < next_ns ? then_ns : next_ns;
            uint64_t look_ns = monotonic_ns() + LOOK_NS;
            next_ns = look_ns < next_ns ? look_ns : next_ns;
        }
    }
    return next_ns;
}

static void *run(void *unused) {
    (void)unused;
    prctl(PR_SET_NAME, "sigwright-watch");
    ending_prepare();
    do {
        memset(blocked, 0, sizeof blocked);
        for (uint64_t next_ns; (next_ns = look()) != NEVER;) {
            sleep_until(next_ns);
            uint64_t late_ns = monotonic_ns() - next_ns;
            if (late_ns >= LATE_NS && late_ns < NEVER / 2) {
                give_back(late_ns);
            }
        }
        ending_forget();
        atomic_store(&running, false);
        /* Somebody may have given an order in the meantime, and have found us running. */
    } while (anything_to_watch() && !atomic_exchange(&running, true) && (ending_prepare(), true));
    return NULL;
}

/* False: no thread is to be had; errno says why. */
static bool start_thread(void) {
    if (atomic_exchange(&running, true)) {
        return true;
    }
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, mask;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &mask); /* which it inherits */
    errno = pthread_create(&thread, &attributes, run, NULL);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
        atomic_store(&running, false);
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
    for (struct watch *watch = atomic_load(&watches); watch != NULL; watch = watch->next) {
        if (atomic_load(&watch->id) != 0 && atomic_load(&watch->end_ns) == NEVER) {
            signals |= atomic_load(&watch->signals);
        }
    }
    FOR_EACH_SIGNAL (signum, signals & ~atomic_load(&arrivals.watched)) {
        struct unanswered *unanswered = &arrivals.inbox->unanswered[signum];
        atomic_store(&unanswered->since_ns, 0); /* from when it was watched before */
        atomic_store(&unanswered->presses, 0);
    }
    atomic_store(&arrivals.watched, signals);
}

static void learn_name(int signum) {
    PyObject *name = PyObject_GetAttrString(engine.members[signum], "name");
    const char *text = name == NULL ? NULL : PyUnicode_AsUTF8AndSize(name, NULL);
    if (text == NULL) { /* a real-time signal between the two that have names */
        PyErr_Clear();
        PyOS_snprintf(signal_names[signum], sizeof signal_names[signum], "SIGRTMIN+%d",
                      signum - SIGRTMIN);
    } else {
        PyOS_snprintf(signal_names[signum], sizeof signal_names[signum], "%s", text);
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
    struct watch *first = atomic_load(&watches);
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
    atomic_store(&watches, watch);
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
    int presses, exit_code, dump;
    uint64_t signals = 0;
    if (!PyArg_ParseTuple(args, "OLiip", &numbers, &grace_ns, &presses, &exit_code, &dump) ||
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
    struct watch *watch = PyErr_Occurred() || id == 0 ? NULL : atomic_load(&watches);
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
    for (struct watch *watch = atomic_load(&watches); watch != NULL; watch = watch->next) {
        if (atomic_load(&watch->end_ns) != NEVER) {
            atomic_store(&watch->id, 0);
        }
    }
    atomic_store(&running, false);
    if (anything_to_watch()) {
        start_thread();
        need_alternate_stack();
    }
}

/* The interpreter ends, and with it our knowledge of who answers. */
void watch_close(void) {
    for (struct watch *watch = atomic_load(&watches); watch != NULL; watch = watch->next) {
        atomic_store(&watch->id, 0);
    }
    atomic_store(&arrivals.watched, 0);
}

PyMethodDef watch_methods[] = {
    {"watch", watch_, METH_VARARGS,
     "watch(signums, grace_ns, presses, exit_code, dump, /)\n--\n\n"
     "End the process when one of these has not been answered for so long, or when it came so\n"
     "often (presses; 0: however often); with exit_code, or by the signal (-1).\n\n"
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
