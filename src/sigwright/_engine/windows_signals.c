/* What: how signals arrive on Windows (console events, raise(), faults), and how they are taken.
 * Context: arrivals on any thread, without the GIL; all else where windows_signals.h says.
 * Callers: the system and the C runtime (arrivals); the engine's module on Windows. */

#include "windows_signals.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <windows.h>

_Static_assert(WINDOWS_CTRL_C_EVENT == CTRL_C_EVENT, "CTRL_C_EVENT");
_Static_assert(WINDOWS_CTRL_BREAK_EVENT == CTRL_BREAK_EVENT, "CTRL_BREAK_EVENT");
_Static_assert(WINDOWS_SIGINT == SIGINT, "SIGINT");
_Static_assert(WINDOWS_SIGILL == SIGILL, "SIGILL");
_Static_assert(WINDOWS_SIGFPE == SIGFPE, "SIGFPE");
_Static_assert(WINDOWS_SIGSEGV == SIGSEGV, "SIGSEGV");
_Static_assert(WINDOWS_SIGTERM == SIGTERM, "SIGTERM");
_Static_assert(WINDOWS_SIGBREAK == SIGBREAK, "SIGBREAK");
_Static_assert(WINDOWS_SIGABRT == SIGABRT, "SIGABRT");
_Static_assert(WINDOWS_NSIG == NSIG, "NSIG");

/* Nobody queues signals on Windows, and what does not fit merges, so a short ring does. */
enum { SLOTS = 256 };

/* The queue of inbox.h, without its siginfo_t and its mapping, which Windows lacks. lap is even:
 * free for the arrival of that lap; odd: written, not yet taken. So an arrival claims its place
 * with one compare-and-swap and never waits for anybody. */
struct slot {
    atomic_uint_fast64_t lap;
    struct windows_arrival arrival;
};

static struct inbox {
    atomic_int action;         /* enum windows_action */
    atomic_uint_fast64_t tail; /* the next place to write */
    uint64_t head;             /* the next place to take from; main thread only */
    struct slot slots[SLOTS];
    atomic_uint_fast64_t arrivals;
    atomic_uint_fast64_t overflows; /* found the ring full: merged into what waits there */
    uint64_t deliveries, merges;    /* main thread only */
} inboxes[WINDOWS_NSIG];

static void (*ring_main_thread)(int signum);
static HANDLE sigint_event;
static LARGE_INTEGER ticks_per_second;

static int64_t monotonic_ns(void) {
    LARGE_INTEGER now;
    QueryPerformanceCounter(&now);
    /* Whole seconds apart from the rest: ticks * 10**9 overflows after 15 minutes at 10 MHz. */
    int64_t rest = now.QuadPart % ticks_per_second.QuadPart;
    return now.QuadPart / ticks_per_second.QuadPart * 1000000000 +
           rest * 1000000000 / ticks_per_second.QuadPart;
}

static bool put(struct inbox *inbox, struct windows_arrival arrival) {
    uint64_t place = atomic_load_explicit(&inbox->tail, memory_order_relaxed);
    for (;;) {
        struct slot *slot = &inbox->slots[place % SLOTS];
        uint64_t lap = atomic_load_explicit(&slot->lap, memory_order_acquire);
        uint64_t free_lap = place / SLOTS * 2;
        if (lap < free_lap) {
            return false;
        }
        if (lap > free_lap) {
            place = atomic_load_explicit(&inbox->tail, memory_order_relaxed);
        } else if (atomic_compare_exchange_weak_explicit(&inbox->tail, &place, place + 1,
                                                         memory_order_relaxed,
                                                         memory_order_relaxed)) {
            slot->arrival = arrival;
            atomic_store_explicit(&slot->lap, free_lap + 1, memory_order_release);
            return true;
        }
    }
}

static struct slot *first_waiting(struct inbox *inbox) {
    struct slot *slot = &inbox->slots[inbox->head % SLOTS];
    uint64_t written = inbox->head / SLOTS * 2 + 1;
    return atomic_load_explicit(&slot->lap, memory_order_acquire) == written ? slot : NULL;
}

static void drop_first(struct inbox *inbox) {
    struct slot *slot = &inbox->slots[inbox->head % SLOTS];
    uint64_t next_lap = inbox->head / SLOTS * 2 + 2;
    inbox->head++;
    atomic_store_explicit(&slot->lap, next_lap, memory_order_release);
}

static void on_runtime_signal(int signum);

/* Has the C runtime do what the action says, whichever thread changes it meanwhile: whoever reads
 * an old action looks again afterwards, and windows_set_action stores before it comes here. */
static bool arm(int signum) {
    int action;
    bool taken;
    do {
        action = atomic_load(&inboxes[signum].action);
        void (*handler)(int) = action == WINDOWS_DEFAULT  ? SIG_DFL
                               : action == WINDOWS_IGNORE ? SIG_IGN
                                                          : on_runtime_signal;
        taken = signal(signum, handler) != SIG_ERR;
    } while (atomic_load(&inboxes[signum].action) != action);
    return taken;
}

static void arrive(int signum, enum windows_source source) {
    int saved_errno = errno;
    DWORD saved_error = GetLastError();
    struct inbox *inbox = &inboxes[signum];
    struct windows_arrival arrival = {monotonic_ns(), GetCurrentThreadId(), source};

    atomic_fetch_add(&inbox->arrivals, 1);
    if (!put(inbox, arrival)) {
        atomic_fetch_add(&inbox->overflows, 1);
    }
    /* After the record, so that a sleeper that wakes finds it. */
    if (signum == SIGINT) {
        SetEvent(sigint_event);
    }
    ring_main_thread(signum);
    /* Where the ring is CPython's own C handler, that has put itself in our place. */
    arm(signum);

    SetLastError(saved_error);
    errno = saved_errno;
}

static bool is_fault(int signum) {
    return signum == SIGSEGV || signum == SIGFPE || signum == SIGILL;
}

static void say_fault(int signum) {
    const char *text = signum == SIGSEGV  ? "sigwright: a real SIGSEGV; the process ends by it\n"
                       : signum == SIGFPE ? "sigwright: a real SIGFPE; the process ends by it\n"
                                          : "sigwright: a real SIGILL; the process ends by it\n";
    DWORD written;
    WriteFile(GetStdHandle(STD_ERROR_HANDLE), text, (DWORD)strlen(text), &written, NULL);
}

/* The C runtime's way: raise() by C code, abort(), and faults, on the thread that caused them.
 * The runtime has set SIG_DFL before it calls; the seed has a handler stay until it is reset. */
static void on_runtime_signal(int signum) {
    /* Windows raises these three of itself for faults only, and windows_raise does not come by
     * here. To arm again would repeat the fault for ever; unarmed, it ends the process when we
     * return. */
    if (is_fault(signum)) {
        say_fault(signum);
        return;
    }
    arm(signum);
    arrive(signum, WINDOWS_FROM_RAISE);
}

/* The console's way: the system makes a thread for each event and calls this on it. The C runtime
 * would bring console events as SIGINT and SIGBREAK too, but resets the handler first: a second
 * Ctrl+C before it is armed again ends the process. Answered here there is no such gap. */
static BOOL WINAPI on_console_event(DWORD event) {
    if (event != CTRL_C_EVENT && event != CTRL_BREAK_EVENT) {
        return FALSE; /* closing, logging off: not signals to the stdlib either */
    }
    int signum = event == CTRL_C_EVENT ? SIGINT : SIGBREAK;
    switch (atomic_load(&inboxes[signum].action)) {
    case WINDOWS_DELIVER:
        arrive(signum, WINDOWS_FROM_CONSOLE);
        return TRUE;
    case WINDOWS_IGNORE:
        return TRUE;
    default:
        return FALSE;
    }
}

bool windows_start(void (*ring)(int signum)) {
    ring_main_thread = ring;
    QueryPerformanceFrequency(&ticks_per_second);
    sigint_event = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (!sigint_event) {
        return false;
    }
    /* The console asks the handler added last first. The C runtime adds its own with the first
     * signal() for a console signal, so make it do that before ours. */
    void (*previous)(int) = signal(SIGBREAK, SIG_DFL);
    signal(SIGBREAK, previous);
    return SetConsoleCtrlHandler(on_console_event, TRUE);
}

bool windows_set_action(int signum, enum windows_action action) {
    int previous = atomic_exchange(&inboxes[signum].action, (int)action);
    if (arm(signum)) {
        return true;
    }
    atomic_store(&inboxes[signum].action, previous);
    return false;
}

bool windows_take(struct windows_delivery *delivery) {
    int oldest = 0;
    int64_t oldest_ns = 0;
    for (int signum = 1; signum < WINDOWS_NSIG; signum++) {
        struct slot *slot = first_waiting(&inboxes[signum]);
        if (slot && (!oldest || slot->arrival.monotonic_ns < oldest_ns)) {
            oldest = signum;
            oldest_ns = slot->arrival.monotonic_ns;
        }
    }
    if (!oldest) {
        return false;
    }

    struct inbox *inbox = &inboxes[oldest];
    *delivery = (struct windows_delivery){oldest, first_waiting(inbox)->arrival, 0};
    drop_first(inbox);
    inbox->deliveries++;
    /* Not for ever: under a flood, what arrives during this loop may be the next call's. */
    while (delivery->merged < SLOTS && first_waiting(inbox)) {
        drop_first(inbox);
        delivery->merged++;
    }
    inbox->merges += delivery->merged;
    return true;
}

struct windows_counts windows_counts(int signum) {
    struct inbox *inbox = &inboxes[signum];
    return (struct windows_counts){atomic_load(&inbox->arrivals), inbox->deliveries,
                                   inbox->merges + atomic_load(&inbox->overflows)};
}

/* Not through the C runtime's raise() where we would be its handler: that resets the handler for
 * the whole process first, so two threads that raise at once could end it. */
int windows_raise(int signum) {
    if (!windows_signal_error(signum) && atomic_load(&inboxes[signum].action) == WINDOWS_DELIVER) {
        arrive(signum, WINDOWS_FROM_RAISE);
        return 0;
    }
    return raise(signum) == 0 ? 0 : -1;
}

unsigned long windows_kill(unsigned long pid, int signum) {
    /* The stdlib of 3.11 goes on to TerminateProcess where the console event fails, and so may end
     * what it was to interrupt; here a failure is a failure. */
    if (windows_kill_route(signum) == WINDOWS_GENERATE_CONSOLE_EVENT) {
        return GenerateConsoleCtrlEvent((DWORD)signum, pid) ? 0 : GetLastError();
    }
    /* Less than the stdlib's PROCESS_ALL_ACCESS, which is refused for more processes. */
    HANDLE process = OpenProcess(PROCESS_TERMINATE, FALSE, pid);
    if (!process) {
        return GetLastError();
    }
    unsigned long error = TerminateProcess(process, (UINT)signum) ? 0 : GetLastError();
    CloseHandle(process);
    return error;
}

void *windows_sigint_event(void) { return sigint_event; }

bool windows_sleep(unsigned long milliseconds) {
    int64_t deadline = monotonic_ns() + (int64_t)milliseconds * 1000000;
    for (;;) {
        /* Reset, then look: an arrival between the two sets the event again. The other way round a
         * Ctrl+C in the gap would sleep through. */
        ResetEvent(sigint_event);
        if (first_waiting(&inboxes[SIGINT])) {
            return true;
        }
        int64_t left = deadline - monotonic_ns();
        if (left <= 0) {
            return false;
        }
        /* And look again after it: the event may be late, of a SIGINT that was already taken. */
        WaitForSingleObject(sigint_event, (DWORD)((left + 999999) / 1000000));
    }
}
