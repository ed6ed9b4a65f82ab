/* The clock: makes threads look when a deadline is reached, of a limit or of a timer.
 * Context: any thread, with the GIL; wait_for_workers runs in a thread of its own, without.
 * Callers: limits.c and timers.c say when to look; delivery.c looks, in the main thread.
 *
 * For the main thread one POSIX timer, aimed at it, with the loud door's number: its signal breaks
 * system calls, needs no thread, and leaves SIGALRM, alarm() and setitimer() to the program. For
 * workers, whom a signal does not make look, a native thread that waits for the earliest of their
 * deadlines, takes the GIL, and interrupts. Not a Python thread: it is in no list of the program's,
 * and waits without the interpreter.
 *
 * Both are lazy. A deadline later than what is set costs nothing; one that has gone is not unset:
 * the clock then rings once for nothing, and is set for what is next. Only where that ring is near
 * would it meet code that has no limit any more, and clock_idle() unsets it: see there. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "control.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static uint64_t set_to = NEVER; /* the main thread's timer; NEVER: it is not running */

static struct itimerspec at_time(uint64_t at_ns) {
    at_ns = at_ns == 0 ? 1 : at_ns; /* zero would mean: unset */
    return (struct itimerspec){.it_value = {.tv_sec = (time_t)(at_ns / 1000000000U),
                                            .tv_nsec = (long)(at_ns % 1000000000U)}};
}

static bool make_timer(void) {
    struct sigevent event = {0};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = atomic_load(&arrivals.doors[LOUD]);
    event.sigev_notify_thread_id = atomic_load(&arrivals.main_tid);
    event.sigev_value.sival_ptr = &arrivals.clock; /* so that door_landed() knows it */
    int timer;
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    atomic_store(&arrivals.clock, timer);
    return true;
}

static void set_timer(uint64_t at_ns) {
    struct itimerspec when = at_time(at_ns);
    syscall(SYS_timer_settime, atomic_load(&arrivals.clock), TIMER_ABSTIME, &when, NULL);
    set_to = at_ns;
}

static void unset_timer(void) {
    struct itimerspec never = {0};
    if (atomic_load(&arrivals.clock) != -1) {
        syscall(SYS_timer_settime, atomic_load(&arrivals.clock), 0, &never, NULL);
    }
    set_to = NEVER;
}

/* The main thread is to look at that time, or before. False with OSError set: the kernel has no
 * timer to give. */
bool clock_need(uint64_t at_ns) {
    if (at_ns >= set_to || atomic_load(&arrivals.closed)) {
        return true; /* after the end nothing is interrupted: the door has no handler any more */
    }
    if (atomic_load(&arrivals.clock) == -1 && !make_timer()) {
        return false;
    }
    door_need_timer(); /* repeats the ring, as for any signal */
    set_timer(at_ns);
    return true;
}

/* In the main thread or, with the GIL, in any other. */
void clock_look_now(void) {
    if (atomic_load(&arrivals.closed)) {
        return;
    }
    atomic_store(&arrivals.inbox->clock_due, 1);
    ring_main_thread();
}

/* In the main thread, at a safe point: what is due. False with an exception set. */
bool clock_deliver(PyObject *frame) {
    if (atomic_load(&arrivals.inbox->clock_due) == 0 ||
        atomic_load_explicit(&arrivals.clock_deferred, memory_order_relaxed)) {
        return true;
    }
    struct control *self = control_here();
    if (self == NULL) {
        PyErr_Clear();
        return true;
    }
    if (deferral_holds_limits(self, frame)) {
        return true; /* clock_due stays: the ring is repeated, or the section's end looks */
    }
    atomic_store(&arrivals.inbox->clock_due, 0);
    atomic_fetch_add(&arrivals.inbox->idle_rings, 1); /* no signal: pause() sleeps on */
    if (monotonic_ns() >= set_to) {
        set_to = NEVER; /* it has rung */
    }
    bool done = timers_run();
    done = done && limits_interrupt_main(frame);
    uint64_t next = timers_due();
    next = next < self->due_ns ? next : self->due_ns;
    if (next != NEVER && !clock_need(next)) {
        PyErr_Clear(); /* there was one just now: only a fork takes it away */
    }
    if (!done && next <= monotonic_ns()) {
        atomic_store(&arrivals.inbox->clock_due, 1); /* ring_if_work() rings again */
    }
    return done;
}

/* --- workers ---------------------------------------------------------------------------------- */

static struct {
    bool running;
    _Atomic bool stop;
    _Atomic uint64_t wake_at_ns; /* NEVER: only when told */
    _Atomic uint32_t told;       /* the futex */
} waiter = {.wake_at_ns = NEVER};

static void tell_waiter(void) {
    atomic_fetch_add(&waiter.told, 1);
    syscall(SYS_futex, &waiter.told, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int looking;

/* Records of threads must not be freed now. */
bool clock_is_looking(void) { return looking != 0; }

void clock_look(bool begins) { looking += begins ? 1 : -1; }

/* All workers whose time has come. Leaves the earliest time of the others. */
static void look_at_workers(void) {
    clock_look(true);
    atomic_store(&waiter.wake_at_ns, NEVER);
    uint64_t earliest = NEVER;
    for (struct control *worker = controls; worker != NULL; worker = worker->next) {
        if (worker->is_main || atomic_load(&worker->ended)) {
            continue;
        }
        if (worker->due_ns <= monotonic_ns()) {
            limits_interrupt_worker(worker);
        }
        earliest = worker->due_ns < earliest ? worker->due_ns : earliest;
    }
    if (earliest < atomic_load(&waiter.wake_at_ns)) {
        atomic_store(&waiter.wake_at_ns, earliest);
    }
    clock_look(false);
}

static void *wait_for_workers(void *unused) {
    (void)unused;
    while (!atomic_load(&waiter.stop)) {
        uint32_t told = atomic_load(&waiter.told);
        uint64_t at_ns = atomic_load(&waiter.wake_at_ns);
        if (at_ns > monotonic_ns()) {
            struct timespec when = at_time(at_ns).it_value;
            syscall(SYS_futex, &waiter.told, FUTEX_WAIT_BITSET_PRIVATE, told,
                    at_ns == NEVER ? NULL : &when, NULL, FUTEX_BITSET_MATCH_ANY);
            continue;
        }
        PyGILState_STATE state = PyGILState_Ensure();
        if (!atomic_load(&waiter.stop)) {
            look_at_workers();
        }
        PyGILState_Release(state);
    }
    return NULL;
}

static bool start_waiter(void) {
    atomic_store(&waiter.stop, false);
    sigset_t all, before;
    sigfillset(&all);
    pthread_t thread;
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, wait_for_workers, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    pthread_detach(thread);
    waiter.running = true;
    return true;
}

bool clock_need_for_worker(uint64_t at_ns) {
    if (at_ns >= atomic_load_explicit(&waiter.wake_at_ns, memory_order_relaxed) ||
        atomic_load(&arrivals.closed)) {
        return true;
    }
    if (!waiter.running && (engine.closing || !start_waiter())) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "the interpreter is ending");
        }
        return false;
    }
    atomic_store(&waiter.wake_at_ns, at_ns);
    tell_waiter();
    return true;
}

/* The thread has no limit any more. A ring that is still set is harmless to Python code, but it
 * breaks the system calls of the main thread, of which C libraries may know nothing: one that would
 * come within NEAR_NS is unset. (A coarse clock, since this is the fast path.) */
#define NEAR_NS UINT64_C(50000000)

void clock_idle(struct control *self) {
    if (!self->is_main || set_to == NEVER) {
        return;
    }
    struct timespec coarse;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &coarse);
    uint64_t now = (uint64_t)coarse.tv_sec * 1000000000U + (uint64_t)coarse.tv_nsec;
    if (set_to < now + NEAR_NS && timers_due() > set_to) {
        unset_timer();
        atomic_store(&arrivals.inbox->clock_due, 0);
        uint64_t next = timers_due();
        if (next != NEVER && !clock_need(next)) {
            PyErr_Clear();
        }
    }
}

/* The doors are open now: for what other threads have armed before. */
void clock_start(void) {
    if (timers_due() != NEVER && !clock_need(timers_due())) {
        PyErr_Clear(); /* the next who arms hears of it */
    }
}

/* In the child: no timer, no thread, no deadline. */
void clock_after_fork(void) {
    atomic_store(&arrivals.clock, -1);
    set_to = NEVER;
    waiter.running = false;
    looking = 0;
    atomic_store(&waiter.wake_at_ns, NEVER);
    controls_after_fork();
    timers_drop_all();
}

/* The door has moved: the timer rings the old number. */
void clock_move(void) {
    uint64_t was = set_to;
    int timer = atomic_exchange(&arrivals.clock, -1);
    if (timer != -1) {
        syscall(SYS_timer_delete, timer);
        set_to = NEVER;
        if (was != NEVER && !clock_need(was)) {
            PyErr_Clear();
        }
    }
}

/* The interpreter ends: nothing is interrupted any more. */
void clock_close(void) {
    atomic_store(&waiter.stop, true);
    tell_waiter();
    int timer = atomic_exchange(&arrivals.clock, -1);
    if (timer != -1) {
        syscall(SYS_timer_delete, timer);
    }
    set_to = NEVER;
}
