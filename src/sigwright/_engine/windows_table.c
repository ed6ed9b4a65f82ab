/* What: the names, numbers and rules of the signal module on Windows, as plain data.
 * Context: any thread, no GIL, any platform: no system header, no state.
 * Callers: windows_signals.c, the engine's module on Windows, the tests. */

#include "windows_signals.h"

#include <string.h>

/* The descriptions are the stdlib's for a platform without strsignal(3), where SIGBREAK has none.
 */
static const struct windows_constant constants[] = {
    {"CTRL_C_EVENT", WINDOWS_CTRL_C_EVENT, WINDOWS_CONSOLE_EVENT, NULL},
    {"CTRL_BREAK_EVENT", WINDOWS_CTRL_BREAK_EVENT, WINDOWS_CONSOLE_EVENT, NULL},
    {"SIGINT", WINDOWS_SIGINT, WINDOWS_SIGNAL, "Interrupt"},
    {"SIGILL", WINDOWS_SIGILL, WINDOWS_SIGNAL, "Illegal instruction"},
    {"SIGFPE", WINDOWS_SIGFPE, WINDOWS_SIGNAL, "Floating point exception"},
    {"SIGSEGV", WINDOWS_SIGSEGV, WINDOWS_SIGNAL, "Segmentation fault"},
    {"SIGTERM", WINDOWS_SIGTERM, WINDOWS_SIGNAL, "Terminated"},
    /* The seed names six signals. SIGBREAK is a seventh: CTRL_BREAK_EVENT arrives as it, and the
     * stdlib has taken it since 2.7 (CPython issue 10003). To refuse it would break programs. */
    {"SIGBREAK", WINDOWS_SIGBREAK, WINDOWS_SIGNAL, NULL},
    {"SIGABRT", WINDOWS_SIGABRT, WINDOWS_SIGNAL, "Aborted"},
    {"SIG_DFL", 0, WINDOWS_HANDLER, NULL},
    {"SIG_IGN", 1, WINDOWS_HANDLER, NULL},
    {"NSIG", WINDOWS_NSIG, WINDOWS_LIMIT, NULL},
};

enum { CONSTANTS = sizeof constants / sizeof constants[0] };

/* Everything else of the module. A list of what is there, not of what is missing: a name that a
 * later Python adds for Unix is then absent by itself. */
static const char *const others[] = {
    "Handlers", "Signals",       "default_int_handler", "getsignal",     "raise_signal",
    "signal",   "set_wakeup_fd", "strsignal",           "valid_signals",
};

const struct windows_constant *windows_constant(size_t index) {
    return index < CONSTANTS ? &constants[index] : NULL;
}

bool windows_has(const char *name) {
    for (size_t i = 0; i < CONSTANTS; i++) {
        if (strcmp(constants[i].name, name) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (strcmp(others[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* By kind as well as by number: 0 and 1 are also SIG_DFL and SIG_IGN, 2 is nothing but SIGINT. */
static const struct windows_constant *find_signal(int signum) {
    for (size_t i = 0; i < CONSTANTS; i++) {
        if (constants[i].kind == WINDOWS_SIGNAL && constants[i].value == signum) {
            return &constants[i];
        }
    }
    return NULL;
}

const char *windows_signal_error(int signum) {
    return find_signal(signum) ? NULL : "invalid signal value";
}

const char *windows_number_error(int signum) {
    return signum >= 1 && signum < WINDOWS_NSIG ? NULL : "signal number out of range";
}

const char *windows_description(int signum) {
    const struct windows_constant *found = find_signal(signum);
    return found ? found->description : NULL;
}

/* So kill(pid, 0), Unix's question whether a process lives, is a Ctrl+C here, as in the stdlib. */
enum windows_kill_route windows_kill_route(int signum) {
    return signum == WINDOWS_CTRL_C_EVENT || signum == WINDOWS_CTRL_BREAK_EVENT
               ? WINDOWS_GENERATE_CONSOLE_EVENT
               : WINDOWS_TERMINATE;
}
