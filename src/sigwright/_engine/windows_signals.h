/* What: signals on Windows: the table of names and rules, and the arrival of console events and
 * raise(). Context: nothing here needs Python or the GIL; each function says which thread it is
 * for. Callers: the engine's module on Windows; the table alone, also the tests on any platform. */

#ifndef SIGWRIGHT_WINDOWS_SIGNALS_H
#define SIGWRIGHT_WINDOWS_SIGNALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Windows' own numbers, spelt out so that the table compiles, and is tested, where <signal.h> has
 * others. windows_signals.c asserts each of them against the real header. */
enum {
    WINDOWS_CTRL_C_EVENT = 0,
    WINDOWS_CTRL_BREAK_EVENT = 1,
    WINDOWS_SIGINT = 2,
    WINDOWS_SIGILL = 4,
    WINDOWS_SIGFPE = 8,
    WINDOWS_SIGSEGV = 11,
    WINDOWS_SIGTERM = 15,
    WINDOWS_SIGBREAK = 21,
    WINDOWS_SIGABRT = 22,
    WINDOWS_NSIG = 23,
};

/* ---- windows_table.c: pure, any thread, any platform ---- */

enum windows_kind {
    WINDOWS_SIGNAL,        /* a member of Signals that signal() takes */
    WINDOWS_CONSOLE_EVENT, /* a member of Signals that only os.kill() takes */
    WINDOWS_HANDLER,       /* a member of Handlers */
    WINDOWS_LIMIT,         /* NSIG: a plain int */
};

struct windows_constant {
    const char *name;
    int value;
    enum windows_kind kind;
    const char *description; /* what strsignal() says, or NULL for None */
};

/* The constants of the module on Windows, one by one; NULL past the last. */
const struct windows_constant *windows_constant(size_t index);

/* Whether the module has this public name on Windows. What it lacks is absent, not a stub. */
bool windows_has(const char *name);

/* NULL where signal() takes the number, otherwise the text of its ValueError. */
const char *windows_signal_error(int signum);

/* The same for getsignal() and strsignal(), which answer for every number below NSIG. */
const char *windows_number_error(int signum);

/* What strsignal() says of a number, or NULL for None. */
const char *windows_description(int signum);

enum windows_kill_route {
    WINDOWS_GENERATE_CONSOLE_EVENT, /* GenerateConsoleCtrlEvent(signum, pid): pid names a group */
    WINDOWS_TERMINATE,              /* TerminateProcess: no handler runs, signum is the exit code */
};

enum windows_kill_route windows_kill_route(int signum);

/* ---- windows_signals.c: Windows only ---- */

enum windows_action { WINDOWS_DEFAULT, WINDOWS_IGNORE, WINDOWS_DELIVER };

enum windows_source { WINDOWS_FROM_RAISE, WINDOWS_FROM_CONSOLE };

struct windows_arrival {
    int64_t monotonic_ns;
    uint32_t thread_id; /* where it landed: threading.get_ident() of that thread */
    enum windows_source source;
};

struct windows_delivery {
    int signum;
    struct windows_arrival first;
    unsigned merged; /* later arrivals of the same signal, folded into this one call */
};

/* Once nothing is waiting: arrivals == deliveries + merges. */
struct windows_counts {
    uint64_t arrivals, deliveries, merges;
};

/* Main thread, once, before anything else. ring is called after each arrival, on the thread that it
 * landed on: it must be lock-free and must not touch Python objects. CPython's own C handler will
 * do. */
bool windows_start(void (*ring)(int signum));

/* Main thread. False, with errno, where the C runtime refuses. signum has passed
 * windows_signal_error. */
bool windows_set_action(int signum, enum windows_action action);

/* Main thread. The oldest that waits, with what waits of the same signal; false where nothing does.
 */
bool windows_take(struct windows_delivery *delivery);

/* Main thread. */
struct windows_counts windows_counts(int signum);

/* Any thread. 0, or -1 with errno, as raise(). */
int windows_raise(int signum);

/* Any thread. os.kill(): 0, or a Windows error code. */
unsigned long windows_kill(unsigned long pid, int signum);

/* Any thread. A manual-reset event that each SIGINT sets, for those who wait in
 * WaitForMultipleObjects; whoever waits resets it first. A HANDLE; void * spares <windows.h>. */
void *windows_sigint_event(void);

/* Main thread. Sleeps until the time is over (false) or a SIGINT waits to be taken (true). */
bool windows_sleep(unsigned long milliseconds);

#endif
