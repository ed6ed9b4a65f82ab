/* The doors: hidden real-time signals by which an arrival makes the main thread look at the inbox.
 * Context: the main thread, with the GIL (ringing them is arrival.c's).
 * Callers: module.c opens and closes; dispositions.c and masks.c make room; delivery.c disarms.
 *
 * The loud door is registered once through _signal.signal(), so that CPython's table holds our
 * dispatcher for it. Its C handler, whose address we read back, is then called by arrivals on the
 * main thread; the kernel's handler of the door becomes our door_landed. The quiet door has
 * SA_RESTART and is known to nobody but the kernel: it rings for signals whose system calls are to
 * be restarted.
 *
 * Not PyErr_SetInterruptEx(): it compares Python objects, and crashed from signal context where
 * CPython's table says SIG_DFL. Not Py_AddPendingCall(): it takes a lock up to 3.12.
 *
 * The numbers are hidden: masks, sigpending() and valid_signals() never show them, and whoever asks
 * for one by its number gets it: the door moves to another. */
#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define NEAR_TOP 2 /* SIGRTMAX itself and the one below are what programs like to use */

uint64_t door_hidden(void) {
    uint64_t hidden = 0;
    for (int door = LOUD; door <= QUIET; door++) {
        int signum = atomic_load(&arrivals.doors[door]);
        hidden |= signum != 0 ? signal_bit(signum) : 0;
    }
    int dump = atomic_load(&arrivals.dump_signal);
    return hidden | (dump != 0 ? signal_bit(dump) : 0);
}

static void sleep_a_little(void) {
    struct timespec pause = {0, 100000};
    nanosleep(&pause, NULL);
}

/* False: it has taken a second. */
static bool may_try_again(int *tries) {
    if (*tries < 100) {
        sched_yield();
    } else {
        sleep_a_little();
    }
    return ++*tries < 10000;
}

static bool wait_for_parity(void) {
    uint32_t parity = atomic_fetch_add(&arrivals.epoch, 1) & 1;
    int tries = 0;
    while (atomic_load(&arrivals.inbox->in_flight[parity]) != 0) {
        if (!may_try_again(&tries)) {
            return false;
        }
    }
    return true;
}

/* Every thread of the process has passed a fence when it returns. */
static bool fence_everywhere(void) {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) {
        return true;
    }
    /* The first time: EPERM. A kernel before 4.14, or a sandbox, has none of it. */
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
           syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

/* For writers in other threads: an arrival that the main thread was in is over. */
static bool wait_for_main(void) {
    if (!fence_everywhere()) {
        sleep_a_little(); /* until what the main thread had in its store buffer is seen */
    }
    uint32_t over = atomic_load(&arrivals.main_over);
    int tries = 0;
    while (atomic_load(&arrivals.main_depth) != 0 && atomic_load(&arrivals.main_over) == over) {
        if (!may_try_again(&tries)) {
            return false;
        }
    }
    return true;
}

/* After it, no arrival still uses what was replaced before it. Any thread; on the calling one every
 * arrival is over anyway. False: one did not end within a second; it is stuck in write() to a
 * wakeup fd that blocks. How arrivals are counted: see enter() in arrival.c. */
bool arrivals_end(void) {
    /* Twice, since an arrival may have read the epoch just before the flip and counted after it. */
    bool first = wait_for_parity();
    bool ended = wait_for_parity() && first;
    if (!pthread_equal(pthread_self(), arrivals.main_thread)) {
        ended = wait_for_main() && ended;
    }
    /* What they sent to this thread lands when a system call ends: here, under the old handler. */
    syscall(SYS_getpid);
    return ended;
}

/* A real-time signal that nobody uses, not in `not_these`; 0 where there is none. */
static int find_free(uint64_t not_these) {
    not_these |= door_hidden();
    const int count = SIGRTMAX - SIGRTMIN + 1;
    for (int i = 0; i < count; i++) {
        int signum = SIGRTMIN + (2 * count - 1 - NEAR_TOP - i) % count;
        struct sigaction now;
        if (!(not_these & signal_bit(signum)) && engine.handlers[signum] == engine.sig_dfl &&
            sigaction(signum, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
            now.sa_handler == SIG_DFL) {
            return signum;
        }
    }
    return 0;
}

static void unblock(int signum) {
    sigset_t only_this;
    sigemptyset(&only_this);
    sigaddset(&only_this, signum);
    pthread_sigmask(SIG_UNBLOCK, &only_this, NULL);
}

static void land_at(int signum, int flags) {
    struct sigaction action = {
        .sa_sigaction = door_landed,
        .sa_flags = SA_SIGINFO | SA_ONSTACK | flags,
    };
    sigfillset(&action.sa_mask);
    sigaction(signum, &action, NULL);
    unblock(signum); /* a mask inherited from the parent process may hold it */
}

/* See is_whole() in arrival.c: by a signal that nobody else can chain. */
static void measure(int signum) {
    struct sigaction action = {.sa_sigaction = measure_frame, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigfillset(&action.sa_mask);
    sigaction(signum, &action, NULL);
    unblock(signum);
    raise(signum);
}

static bool open_loud(int signum) {
    if (!set_stdlib_handler(signum, engine.dispatcher)) {
        return false;
    }
    struct sigaction stdlib;
    sigaction(signum, NULL, &stdlib);
    arrivals.door_handler = stdlib.sa_handler;
    measure(signum);
    land_at(signum, 0);
    atomic_store(&arrivals.doors[LOUD], signum);
    return true;
}

/* False with an exception set: ValueError off the main thread. */
bool door_open(void) {
    int loud = find_free(0);
    int quiet = loud == 0 ? 0 : find_free(signal_bit(loud));
    if (quiet == 0) {
        PyErr_SetString(PyExc_OSError, "sigwright needs two real-time signals that nobody uses");
        return false;
    }
    arrivals.main_thread = pthread_self();
    arrivals.marks_anywhere = Py_Version >= 0x030D0000;
    atomic_store(&arrivals.main_tid, (pid_t)syscall(SYS_gettid));
    if (!open_loud(loud)) {
        return false;
    }
    land_at(quiet, SA_RESTART);
    atomic_store(&arrivals.doors[QUIET], quiet);
    engine.open = true;
    return true;
}

static void make_timer(void) {
    struct sigevent event = {0};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = atomic_load(&arrivals.doors[LOUD]);
    event.sigev_notify_thread_id = atomic_load(&arrivals.main_tid);
    event.sigev_value.sival_ptr = &arrivals; /* so that it is known for a ring */
    int timer;
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) == 0) {
        atomic_store(&arrivals.timer, timer);
    }
}

static void delete_timer(void) {
    int timer = atomic_exchange(&arrivals.timer, -1);
    if (timer != -1) {
        arrivals_end();
        syscall(SYS_timer_delete, timer);
        atomic_store(&arrivals.inbox->timer_armed, 0);
    }
}

/* From the first handler on. Where the kernel has no timer to give (RLIMIT_SIGPENDING), handlers
 * work without it, as the stdlib's do, and the next registration asks again. */
void door_need_timer(void) {
    if (atomic_load(&arrivals.timer) == -1) {
        make_timer();
    }
}

/* Nothing waits: no ring is to break the program's next system call. In this order: an arrival that
 * still finds the timer marked as armed does not arm it, but has published before, so that we see
 * its record and do; a later one arms it itself. */
void door_quiet(void) {
    if (!arrivals_wait_for_delivery() && atomic_load(&arrivals.inbox->timer_armed) != 0) {
        struct itimerspec never = {0};
        syscall(SYS_timer_settime, atomic_load(&arrivals.timer), 0, &never, NULL);
        atomic_store(&arrivals.inbox->timer_armed, 0);
        if (arrivals_wait_for_delivery()) {
            arm_timer();
        }
    }
}

/* The signal that makes faulthandler write all stacks, for real faults: faulthandler's own function
 * for it is outside the limited API. Without it (sys.stderr closed, no free number) a fault is
 * still reported in one line. */
static void register_dump(int signum) {
    PyObject *faulthandler = PyImport_ImportModule("faulthandler");
    PyObject *done = NULL;
    if (faulthandler != NULL) {
        done = PyObject_CallMethod(faulthandler, "register", "iiO", signum, STDERR_FILENO, Py_True);
    }
    if (done != NULL) {
        atomic_store(&arrivals.dump_signal, signum);
    } else {
        PyErr_Clear();
    }
    Py_XDECREF(done);
    Py_XDECREF(faulthandler);
}

static void unregister_dump(int signum) {
    PyObject *faulthandler = PyImport_ImportModule("faulthandler");
    PyObject *done = NULL;
    if (faulthandler != NULL) {
        done = PyObject_CallMethod(faulthandler, "unregister", "i", signum);
    }
    PyErr_Clear();
    Py_XDECREF(done);
    Py_XDECREF(faulthandler);
}

void door_need_dump(void) {
    int free_number = atomic_load(&arrivals.dump_signal) == 0 ? find_free(0) : 0;
    if (free_number == 0) {
        return;
    }
    if (!pthread_equal(pthread_self(), arrivals.main_thread)) {
        register_dump(free_number);
        return;
    }
    /* It imports a module: what a handler raised in there would be taken for a failed import. */
    uint64_t held = atomic_exchange(&arrivals.held, UINT64_MAX);
    register_dump(free_number);
    atomic_store(&arrivals.held, held);
    ring_if_work();
}

static bool move_loud(int to) {
    int from = atomic_load(&arrivals.doors[LOUD]);
    bool had_timer = atomic_load(&arrivals.timer) != -1;
    if (!open_loud(to)) {
        return false;
    }
    delete_timer(); /* it rings the old number */
    arrivals_end();
    /* _signal.signal() looks for pending signals first: a ring on the old number ends in delivery.
     */
    sigset_t only_from, mask;
    sigemptyset(&only_from);
    sigaddset(&only_from, from);
    pthread_sigmask(SIG_BLOCK, &only_from, &mask); /* SIG_DFL is in for an instant */
    bool moved = set_stdlib_handler(from, engine.sig_dfl);
    if (atomic_load(&arrivals.audiences[from]) != NULL && !disposition_keep(from)) {
        moved = false;
    }
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    if (had_timer) {
        make_timer();
    }
    clock_move();
    return moved;
}

static void move_quiet(int to) {
    land_at(to, SA_RESTART); /* before anybody rings there */
    int from = atomic_exchange(&arrivals.doors[QUIET], to);
    arrivals_end();
    if (atomic_load(&arrivals.audiences[from]) == NULL || !disposition_keep(from)) {
        signal(from, SIG_DFL);
    }
}

static void move_dump(int to) {
    int from = atomic_exchange(&arrivals.dump_signal, 0);
    arrivals_end();
    unregister_dump(from);
    if (to != 0) {
        register_dump(to);
    }
}

/* The program sets the handler of a door's number, and there was no other number to move to: the
 * two share it. A real arrival with the default action then does nothing but make us look. */
void door_share(int signum) {
    land_at(signum, signum == atomic_load(&arrivals.doors[QUIET]) ? SA_RESTART : 0);
}

/* Somebody asks for these signals by number: move what stands in their way. Whoever asks for all
 * real-time signals at once (range(1, NSIG)) means those that it can have: the doors stay, hidden.
 * False with an exception set: a handler ran meanwhile, and raised. */
bool door_make_room(uint64_t asked) {
    if ((asked & door_hidden()) == 0 || PyInterpreterState_GetID(PyInterpreterState_Get()) != 0) {
        return true; /* a subinterpreter must not touch what is the main one's */
    }
    int dump = atomic_load(&arrivals.dump_signal);
    if (dump != 0 && (asked & signal_bit(dump))) {
        move_dump(find_free(asked));
    }
    if (!pthread_equal(pthread_self(), arrivals.main_thread)) {
        return true; /* a listener then shares a door's number */
    }
    for (int door = LOUD; door <= QUIET; door++) {
        if (asked & signal_bit(atomic_load(&arrivals.doors[door]))) {
            int to = find_free(asked);
            if (to == 0) {
                return true;
            }
            if (door == QUIET) {
                move_quiet(to);
            } else if (!move_loud(to)) {
                return false;
            }
        }
    }
    return true;
}

/* In the child: the thread that forked is the main thread now, and timers are not inherited. */
void door_after_fork(void) {
    arrivals.main_thread = pthread_self();
    atomic_store(&arrivals.main_depth, 0); /* the parent's may have been in one */
    atomic_store(&arrivals.main_tid, (pid_t)syscall(SYS_gettid));
    atomic_store(&arrivals.inbox->timer_armed, 0);
    if (atomic_exchange(&arrivals.timer, -1) != -1) {
        make_timer();
    }
}

/* Ringing has stopped (arrivals.closed). The doors keep their C handler, which does nothing any
 * more: a ring that is still on its way must not end the process. */
void door_close(void) {
    /* Nor does the interpreter set their action back, where its table says SIG_IGN: on 3.15 workers
     * are sent the loud one, and one that has not run since would be ended by it. */
    int loud = atomic_load(&arrivals.doors[LOUD]);
    if (Py_Version >= 0x030F0000 && set_stdlib_handler(loud, engine.sig_ign)) {
        land_at(loud, 0);
    }
    PyErr_Clear();
    delete_timer();
    arrivals_end();
}
