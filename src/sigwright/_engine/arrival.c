/* What happens when a signal arrives: the one file that runs in signal context.
 * Context: signal context, any thread, with or without the GIL, every signal blocked.
 * Callers: the kernel (arrival, door_landed); delivery.c, in the main thread, arms and asks.
 *
 * The rules here: nothing but POSIX's async-signal-safe functions, syscall() with the numbers
 * below, the engine's own data, no lock, no allocation, no thread-local storage except errno, no
 * Python. tests/test_arrival_symbols.py reads the object's undefined symbols, so that the rules
 * cannot rot.
 *
 * Every handler of ours has a full sa_mask: arrivals on one thread never nest. With an empty one,
 * five signals that are pending together arrive in reverse, each interrupting the one before. */
#include "watch.h"

#include <errno.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Real-time signals taken in one signal frame. From one frame to the next takes 35 us while the
 * sender runs on another processor: each signal that it sends in the instant in which they are
 * unblocked interrupts this one. So many that this does not count; few enough that others wait 1
 * ms. */
#define DRAIN_MAX 1024
/* The first repetition of a ring, doubling up to the longest. The first comes later than the
 * kernel's next tick (4 ms at most on common kernels): a timer that is not the next to expire costs
 * 0.2 us to set, one that is costs 2 us on a virtual machine. */
#define RING_FIRST_US 5000U
#define RING_LONGEST_US 100000U

struct arrival_state arrivals = {
    .timer = -1,
    .clock = -1,
    .wakeup = WAKEUP_NONE,
};

/* In flight. A writer that replaces something which arrivals read (an audience, the wakeup fd), or
 * that ends the engine, waits until the arrivals that may still use the old one are over. Two
 * counters and an epoch, as in SRCU: new arrivals count in the epoch's own counter, so that a storm
 * cannot keep the writer waiting. All operations are sequentially consistent: an arrival whose
 * increment the writer did not see comes after the writer's store, and so reads the new value.
 *
 * On the main thread, where nearly all signals land, plain stores do it: only that thread writes
 * them, and a writer in another thread has the kernel put the fence between them and what follows
 * (membarrier(2), in arrivals_end()). */
static bool on_main_thread(void) { return pthread_equal(pthread_self(), arrivals.main_thread); }

static void add_here(_Atomic uint32_t *counter, uint32_t amount) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount,
                          memory_order_release);
}

static uint32_t enter(void) {
    uint32_t parity = atomic_load(&arrivals.epoch) & 1;
    if (on_main_thread()) {
        add_here(&arrivals.main_depth, 1);
        atomic_signal_fence(memory_order_seq_cst); /* for the compiler; the rest is membarrier's */
    } else {
        atomic_fetch_add(&arrivals.inbox->in_flight[parity], 1);
    }
    return parity;
}

static void leave(uint32_t parity) {
    if (on_main_thread()) {
        add_here(&arrivals.main_depth, UINT32_MAX); /* one less */
        if (atomic_load_explicit(&arrivals.main_depth, memory_order_relaxed) == 0) {
            add_here(&arrivals.main_over, 1);
        }
    } else {
        atomic_fetch_sub(&arrivals.inbox->in_flight[parity], 1);
    }
}

static void set_timer(uint32_t delay_us) {
    /* Read in its own signal, on the thread that it is armed for. */
    atomic_store_explicit(&arrivals.inbox->timer_delay_us, delay_us, memory_order_relaxed);
    struct itimerspec when = {.it_value = {.tv_nsec = (long)delay_us * 1000}};
    syscall(SYS_timer_settime, atomic_load(&arrivals.timer), 0, &when, NULL);
}

void arm_timer(void) {
    _Atomic uint32_t *armed = &arrivals.inbox->timer_armed;
    if (atomic_load(&arrivals.timer) == -1 || atomic_load(armed) != 0) {
        return;
    }
    if (on_main_thread()) {
        /* Only this thread disarms it; a worker may arm it as well, and it is set twice. */
        atomic_store_explicit(armed, 1, memory_order_relaxed);
        set_timer(RING_FIRST_US);
    } else if (atomic_exchange(armed, 1) == 0) {
        set_timer(RING_FIRST_US);
    }
}

/* But for what handlers that run hold. */
static uint64_t waiting(void) {
    struct inbox *inbox = arrivals.inbox;
    return (atomic_load(&inbox->ready) | atomic_load(&inbox->added) |
            atomic_load(&inbox->simulated)) &
           ~atomic_load(&arrivals.held);
}

static uint64_t deliverable(void) { return waiting() & ~atomic_load(&arrivals.deferred); }

static bool clock_waits(void) {
    return atomic_load(&arrivals.inbox->clock_due) != 0 && !atomic_load(&arrivals.clock_deferred);
}

/* Something waits that may be delivered now. */
bool arrivals_wait_for_delivery(void) { return deliverable() != 0 || clock_waits(); }

/* Of what waits, is there something that may interrupt system calls? */
bool arrivals_may_interrupt(void) {
    return (deliverable() & ~atomic_load(&arrivals.restart)) != 0 || clock_waits();
}

/* Our rings, from a thread or from the timers, carry these addresses: a program that handles every
 * real-time signal there is shares the door's number with us. */
static bool is_clock(const siginfo_t *info) {
    return info->si_code == SI_TIMER && info->si_ptr == &arrivals.clock;
}

static bool is_ring(const siginfo_t *info) {
    return (info->si_code == SI_TIMER && info->si_ptr == &arrivals) || is_clock(info);
}

/* It says that it comes from a timer, one that no kernel numbers so: a timer's signal that is
 * pending when the main thread calls exec() dies with the old program. As any other signal it would
 * reach the new one, which has no handler for it, and end it. */
#define NO_TIMER (-1)

static bool send_ring(enum door door) {
    siginfo_t info = {.si_code = SI_TIMER};
    info.si_signo = atomic_load(&arrivals.doors[door]);
    info.si_timerid = NO_TIMER;
    info.si_ptr = &arrivals;
    if (syscall(SYS_rt_tgsigqueueinfo, getpid(), atomic_load(&arrivals.main_tid), info.si_signo,
                &info) == 0) {
        return true;
    }
    /* RLIMIT_SIGPENDING is reached: only kill() is let through without a place in the queue. */
    return errno == EAGAIN && kill(getpid(), info.si_signo) == 0;
}

/* Make the main thread look at the inbox, now.
 *
 * On the main thread CPython's own C handler does it: it marks the door as tripped and sets the
 * interpreter's breaker. From another thread that is not enough: a main thread that sleeps does not
 * see it. And up to 3.12 it does harm there: it computes the breaker anew for the thread that it is
 * on, which may not handle signals, and so clears what the main thread had. So the main thread is
 * sent a door, which lands in door_landed() there and breaks its system call. One such ring is
 * under way at most.
 *
 * Between the interpreter's last look and a system call lies a gap in which a signal on the main
 * thread breaks nothing, and the call may sleep for ever. The timer closes it: it rings again until
 * delivery has run. It also works where a ring fails, with RLIMIT_SIGPENDING reached: the kernel
 * gave the timer its queue entry when it was made. Signals set to restart (siginterrupt) ask that
 * system calls go on: no timer for them, and the quiet door, which has SA_RESTART. */
static void tell_main_thread(enum door door) {
    struct inbox *inbox = arrivals.inbox;
    bool here = on_main_thread();
    if (atomic_load(&arrivals.doors[door]) == 0) {
        return; /* imported in another thread, and the main thread has not opened the doors yet */
    }
    if (here || arrivals.marks_anywhere) {
        arrivals.door_handler(atomic_load(&arrivals.doors[LOUD]));
    }
    arrivals.landed += here;
    if (!here && atomic_exchange(&inbox->rung[door], 1) == 0 && !send_ring(door)) {
        atomic_store(&inbox->rung[door], 0);
    }
}

/* For other than arrivals: with the GIL, any thread. */
void ring_main_thread(void) {
    tell_main_thread(LOUD);
    arm_timer();
}

static void ring(int signum) {
    bool restart = (atomic_load(&arrivals.restart) & signal_bit(signum)) != 0;
    tell_main_thread(restart ? QUIET : LOUD);
    if (!restart && !(arrivals.looks_soon && on_main_thread())) {
        arm_timer();
    }
}

/* One byte for each arrival, after the ring: who wakes up from it must find the signal marked. */
void write_wakeup_byte(int signum) {
    uint64_t wakeup = atomic_load(&arrivals.wakeup);
    int fd = (int)(uint32_t)wakeup;
    if (fd == -1) {
        return;
    }
    unsigned char byte = (wakeup & WAKEUP_ZERO_BYTE) ? 0 : (unsigned char)signum;
    ssize_t written;
    do {
        written = write(fd, &byte, 1);
    } while (written < 0 && errno == EINTR);
    if (written < 0 && !(wakeup & WAKEUP_SILENT) &&
        ((wakeup & WAKEUP_WARN_FULL) || (errno != EAGAIN && errno != EWOULDBLOCK))) {
        atomic_store(&arrivals.inbox->wakeup_errno, errno);
        atomic_fetch_add(&arrivals.inbox->wakeup_failures, 1);
        /* The main thread may have answered the ring before the write failed. */
        tell_main_thread(LOUD);
    }
}

/* True: the kernel raised it for what this thread's own instruction did. To return and go on as if
 * a Python handler could answer would raise it again, for ever. */
static bool is_fault(int signum, const siginfo_t *info) {
    if (info->si_code <= 0) {
        return false; /* kill(), raise(), sigqueue(): somebody sent it */
    }
    switch (signum) {
    case SIGSEGV:
    case SIGFPE:
    case SIGILL:
        return true;
    case SIGBUS:
        return info->si_code != BUS_MCEERR_AO; /* "action optional": no instruction of ours */
    default:
        return false;
    }
}

static size_t append(char *line, size_t length, const char *text) {
    while (*text != '\0') {
        line[length++] = *text++;
    }
    return length;
}

static void write_fault_line(int signum, const siginfo_t *info) {
    char line[160];
    const char *name = signum == SIGSEGV  ? "SIGSEGV"
                       : signum == SIGBUS ? "SIGBUS"
                       : signum == SIGFPE ? "SIGFPE"
                                          : "SIGILL";
    size_t length = append(line, 0, "sigwright: ");
    length = append(line, length, name);
    length = append(line, length, " at address 0x");
    uintptr_t address = (uintptr_t)info->si_addr;
    bool leading = true;
    for (int shift = (int)sizeof address * 8 - 4; shift >= 0; shift -= 4) {
        unsigned digit = (unsigned)(address >> shift) & 0xF;
        if (digit != 0 || !leading || shift == 0) {
            line[length++] = "0123456789abcdef"[digit];
            leading = false;
        }
    }
    length = append(line, length, ": a real fault, which no Python handler can answer\n");
    ssize_t ignored = write(STDERR_FILENO, line, length);
    (void)ignored;
}

/* A C handler from before ours goes first (faulthandler, a library's own); then a line, all stacks
 * where there was none to write them, and the default action, which acts when the instruction runs
 * again. A fault in here finds its signal blocked, and the kernel then ends the process by it:
 * there is no recursion. */
static void fault(int signum, siginfo_t *info, void *context) {
    uint32_t parity = enter();
    bool chained = (atomic_load(&arrivals.has_previous) & signal_bit(signum)) != 0;
    const struct sigaction previous = arrivals.previous[signum];
    leave(parity); /* before the call: it may be left by longjmp */
    if (chained) {
        if (previous.sa_flags & SA_SIGINFO) {
            previous.sa_sigaction(signum, info, context);
        } else {
            previous.sa_handler(signum);
        }
    }
    write_fault_line(signum, info);
    int dump = atomic_load(&arrivals.dump_signal);
    if (dump != 0 && !chained) {
        sigset_t only_dump;
        sigemptyset(&only_dump);
        sigaddset(&only_dump, dump);
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), dump);
        pthread_sigmask(SIG_UNBLOCK, &only_dump, NULL); /* it runs before this returns */
    }
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigemptyset(&standard.sa_mask);
    sigaction(signum, &standard, NULL);
}

/* Who gets the arrivals of one signal frame. */
struct receivers {
    bool inbox;
    bool chained;
    bool watched;
    const struct audience *audience; /* NULL: no consumer */
};

/* By Python code. A C handler from before that has it beside mere listeners answers by running. */
static bool is_to_be_answered(const struct receivers *receivers) {
    const struct audience *audience = receivers->audience;
    return receivers->inbox ||
           (audience != NULL && (audience->has_main_handler || !receivers->chained));
}

static void take(int signum, const siginfo_t *info, uint64_t thread,
                 const struct receivers *receivers) {
    const struct arrived arrived = {info, monotonic_ns(), thread};
    if (receivers->watched) {
        watch_arrival(signum, arrived.monotonic_ns);
    }
    if (receivers->inbox) {
        inbox_push(arrivals.inbox, arrivals.slots[signum], signum, &arrived);
    }
    if (receivers->audience != NULL) {
        bool handled = receivers->inbox || receivers->chained;
        for (int i = 0; i < receivers->audience->count; i++) {
            consumer_push(receivers->audience->consumers[i], signum, handled, &arrived);
        }
    }
}

/* Make a waker's file descriptor readable, once until its reader has cleared it. */
void raise_waker(struct waker *waker) {
    static const uint64_t one = 1;
    if (atomic_load(&waker->fd_plus_1) != 0 && atomic_exchange(&waker->raised, 1) == 0) {
        ssize_t ignored = write(atomic_load(&waker->fd_plus_1) - 1, &one, sizeof one);
        (void)ignored; /* an eventfd that is full is readable */
    }
}

static void wake_consumers(int signum, const struct audience *audience) {
    if (audience->has_main_handler) {
        atomic_fetch_or(&arrivals.inbox->added, signal_bit(signum));
    }
    for (int i = 0; i < audience->count; i++) {
        if (audience->consumers[i]->waker != NULL) {
            raise_waker(audience->consumers[i]->waker);
        }
    }
}

/* A signal frame is dear, a look at the kernel's queue is not: take what else is queued of this one
 * real-time signal. Not where the interrupted context has it blocked: there sigsuspend() or
 * pselect() unblocked it for one arrival, and the rest is to stay pending. */
static int drain(int signum, const ucontext_t *context, uint64_t thread,
                 const struct receivers *receivers) {
    if (sigismember(&context->uc_sigmask, signum)) {
        return 0;
    }
    const uint64_t only_this = signal_bit(signum);
    const struct timespec at_once = {0, 0};
    siginfo_t info;
    int taken = 0;
    while (taken < DRAIN_MAX &&
           syscall(SYS_rt_sigtimedwait, &only_this, &info, &at_once, sizeof only_this) == signum) {
        if (!is_ring(&info)) { /* a ring on a number that is shared: we ring in any case */
            take(signum, &info, thread, receivers);
            taken++;
        }
    }
    return taken;
}

/* A chained C handler may call us in its turn, as whoever saved our action with sigaction() does:
 * it hands on the siginfo_t that it got, with this mark where the kernel puts zeroes. */
static bool is_marked(const siginfo_t *info) {
    const void *mark;
    memcpy(&mark, (const char *)(info + 1) - sizeof mark, sizeof mark);
    return mark == &arrivals;
}

static void mark(siginfo_t *info) {
    const void *mark = &arrivals;
    memcpy((char *)(info + 1) - sizeof mark, &mark, sizeof mark);
}

/* The C handler that was there before the first consumer goes on working. CPython's own (the
 * stdlib's module was called directly) is for the main thread: see tell_main_thread(). */
static void chain(const struct sigaction *previous, int signum, siginfo_t *info, void *context) {
    if (previous->sa_flags & SA_SIGINFO) {
        mark(info);
        previous->sa_sigaction(signum, info, context);
    } else if (previous->sa_handler != arrivals.door_handler) {
        previous->sa_handler(signum);
    } else if (on_main_thread()) {
        arrivals.door_handler(signum);
    } else {
        atomic_fetch_or(&arrivals.inbox->stdlib, signal_bit(signum));
        tell_main_thread(LOUD);
    }
}

/* The kernel puts siginfo_t and ucontext_t into one frame, always the same way apart. Whoever saved
 * only the address of our handler, as readline does, calls it with one argument, and the other two
 * are whatever was in their registers. */
static bool is_whole(const siginfo_t *info, const void *context) {
    return arrivals.frame == 0 || (const char *)context - (const char *)info == arrivals.frame;
}

void measure_frame(int signum, siginfo_t *info, void *context) {
    (void)signum;
    arrivals.frame = (const char *)context - (const char *)info;
    arrivals.restorer = __builtin_return_address(0);
}

/* Nobody wants it. The kernel had sent this thread on its way to us when the last who did left: it
 * arrives again, under the action that holds now. Only what comes from the kernel: a stranger's
 * handler that calls ours has had the signal, and might get it for ever.
 *
 * Or a stranger had replaced our action while somebody listened, has saved it, and has put it back
 * when nobody did any more: then the one that was beneath the listeners is due. */
static void late(int signum, siginfo_t *info, const struct sigaction *beneath) {
    struct sigaction now;
    if (sigaction(signum, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
        now.sa_sigaction == arrival && !(atomic_load(&arrivals.to_inbox) & signal_bit(signum)) &&
        atomic_load(&arrivals.audiences[signum]) == NULL) {
        sigaction(signum, beneath, NULL);
    }
    if (syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), signum, info) != 0) {
        kill(getpid(), signum);
    }
}

void arrival(int signum, siginfo_t *info, void *context) {
    siginfo_t unknown;
    if (!is_whole(info, context)) {
        if (atomic_load(&arrivals.chained) & signal_bit(signum)) {
            return; /* the one that we have called in its turn calls us: see chain() */
        }
        unknown = (siginfo_t){.si_signo = signum, .si_code = SI_KERNEL};
        info = &unknown;
        context = NULL;
    }
    if (is_ring(info)) {
        door_landed(signum, info, context);
        return;
    }
    int saved_errno = errno;
    if (is_fault(signum, info)) {
        fault(signum, info, context);
        errno = saved_errno;
        return;
    }
    if (is_marked(info)) {
        return;
    }
    uint32_t parity = enter();
    struct receivers receivers = {
        .inbox = (atomic_load(&arrivals.to_inbox) & signal_bit(signum)) != 0,
        .chained = (atomic_load(&arrivals.chained) & signal_bit(signum)) != 0,
        .audience = atomic_load(&arrivals.audiences[signum]),
    };
    if (!atomic_load(&arrivals.closed)) {
        uint64_t thread = (uint64_t)pthread_self();
        int taken = 1;
        receivers.watched = is_watched(signum) && is_to_be_answered(&receivers);
        take(signum, info, thread, &receivers);
        if (signum >= arrivals.first_realtime && !receivers.chained && context != NULL) {
            taken += drain(signum, context, thread, &receivers);
        }
        if (receivers.audience != NULL) {
            wake_consumers(signum, receivers.audience);
        }
        if (receivers.inbox ||
            (receivers.audience != NULL && receivers.audience->has_main_handler)) {
            ring(signum);
            while (taken-- > 0) {
                write_wakeup_byte(signum);
            }
        }
    }
    bool nobody = !receivers.inbox && !receivers.chained && receivers.audience == NULL;
    if ((nobody && !atomic_load(&arrivals.closed)) || receivers.chained) {
        const struct sigaction previous = arrivals.previous[signum];
        leave(parity); /* before the call: it may be left by longjmp */
        if (receivers.chained) {
            chain(&previous, signum, info, context);
        } else if (__builtin_return_address(0) == arrivals.restorer) {
            late(signum, info, &previous);
        }
    } else {
        leave(parity);
    }
    errno = saved_errno;
}

/* What deferred() holds counts: delivery finds out whether its block is in force. */
static bool is_work(void) {
    struct inbox *inbox = arrivals.inbox;
    return waiting() != 0 || atomic_load(&inbox->clock_due) != 0 ||
           atomic_load(&inbox->wakeup_failures) != 0;
}

/* A door: our own ring from another thread, or the timer's. (A stranger's kill() with the door's
 * number does no more than make us look.) */
void door_landed(int signum, siginfo_t *info, void *context) {
    (void)signum;
    (void)context;
    int saved_errno = errno;
    uint32_t parity = enter();
    struct inbox *inbox = arrivals.inbox;
    if (!atomic_load(&arrivals.closed) && on_main_thread()) {
        arrivals.landed++;
        uint64_t stdlib = atomic_exchange(&inbox->stdlib, 0);
        for (uint64_t left = stdlib; left != 0; left &= left - 1) {
            arrivals.door_handler(__builtin_ctzll(left) + 1);
        }
        if (is_clock(info)) {
            atomic_store(&inbox->clock_due, 1);
            arm_timer();
        }
        bool timer = is_ring(info) && !is_clock(info) && info->si_timerid != NO_TIMER;
        bool work = is_work();
        if (!work) {
            /* First allow the next ring, then look again: an arrival publishes before it rings.
             * (With work, delivery allows it: until then one ring is enough.) */
            atomic_store(&inbox->rung[LOUD], 0);
            atomic_store(&inbox->rung[QUIET], 0);
            if (timer) {
                atomic_store(&inbox->timer_armed, 0);
            }
            work = is_work();
            if (work && timer) {
                arm_timer();
            }
        } else if (timer) {
            uint32_t delay_us = atomic_load(&inbox->timer_delay_us) * 2;
            set_timer(delay_us < RING_LONGEST_US ? delay_us : RING_LONGEST_US);
        }
        if (work) {
            arrivals.door_handler(atomic_load(&arrivals.doors[LOUD]));
        } else if (stdlib == 0) {
            atomic_fetch_add(&inbox->idle_rings, 1);
        }
    }
    leave(parity);
    errno = saved_errno;
}
