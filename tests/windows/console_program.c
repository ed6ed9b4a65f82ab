/* What: drives the Windows engine in a console of its own and prints what happened, one line a
 * fact. Context: a program of its own, under Windows or Wine; no Python. Exits 0, or 1 if a fact is
 * wrong. Callers: test_windows.py, or a person: console_program.exe */

#include "windows_signals.h"

#include <fcntl.h>
#include <io.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

enum { PATIENCE_MS = 20000, THREADS = 4, RAISES = 200000, EVENTS = 20 };

static int failures;
static bool break_needed_help;
static atomic_int storming; /* threads that raise now */

static void expect(bool fact, const char *text) {
    printf("%s%s\n", fact ? "" : "WRONG: ", text);
    failures += !fact;
}

/* What CPython's own C handler does to whoever else is registered: it arms itself. */
static void usurper(int signum) { signal(signum, usurper); }

static void ring(int signum) {
    /* Fast in a storm, so that arrivals meet in the queue and not in the system. */
    if (atomic_load(&storming)) {
        return;
    }
    usurper(signum);
}

/* ---- children ---- */

static PROCESS_INFORMATION start(const char *role, DWORD flags) {
    char program[MAX_PATH], command[MAX_PATH + 100];
    GetModuleFileNameA(NULL, program, sizeof program);
    snprintf(command, sizeof command, "\"%s\" %s %lu", program, role, GetCurrentProcessId());
    STARTUPINFOA startup = {.cb = sizeof startup, .dwFlags = STARTF_USESTDHANDLES};
    startup.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    startup.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    startup.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    PROCESS_INFORMATION child = {0};
    if (!CreateProcessA(program, command, NULL, NULL, TRUE, flags, NULL, NULL, &startup, &child)) {
        printf("WRONG: cannot start %s: error %lu\n", role, GetLastError());
        exit(1);
    }
    return child;
}

static DWORD finish(PROCESS_INFORMATION child) {
    DWORD status = STILL_ACTIVE;
    if (WaitForSingleObject(child.hProcess, 3 * PATIENCE_MS) != WAIT_OBJECT_0) {
        TerminateProcess(child.hProcess, 99);
    }
    WaitForSingleObject(child.hProcess, PATIENCE_MS);
    GetExitCodeProcess(child.hProcess, &status);
    CloseHandle(child.hThread);
    CloseHandle(child.hProcess);
    return status;
}

static HANDLE ready_event(const char *role, const char *parent) {
    char name[100];
    snprintf(name, sizeof name, "sigwright-%s-%s", role, parent);
    return CreateEventA(NULL, TRUE, FALSE, name);
}

static PROCESS_INFORMATION start_and_wait_until_ready(const char *role, DWORD flags) {
    char self[20];
    snprintf(self, sizeof self, "%lu", GetCurrentProcessId());
    HANDLE ready = ready_event(role, self);
    PROCESS_INFORMATION child = start(role, flags);
    if (WaitForSingleObject(ready, PATIENCE_MS) != WAIT_OBJECT_0) {
        printf("WRONG: %s was not ready in time\n", role);
    }
    CloseHandle(ready);
    return child;
}

static bool take_in_time(struct windows_delivery *delivery) {
    for (int waited = 0; !windows_take(delivery); waited++) {
        if (waited == PATIENCE_MS) {
            return false;
        }
        Sleep(1);
    }
    return true;
}

/* Exits with the number of the first signal that it takes. */
static int answering_child(const char *parent) {
    windows_set_action(SIGBREAK, WINDOWS_DELIVER);
    SetEvent(ready_event("answer", parent));
    struct windows_delivery delivery;
    return take_in_time(&delivery) ? delivery.signum : 0;
}

static int sleeping_child(const char *parent) {
    SetEvent(ready_event("sleep", parent));
    Sleep(PATIENCE_MS);
    return 0;
}

static int faulting_child(void) {
    SetErrorMode(SEM_NOGPFAULTERRORBOX); /* no dialog, no debugger */
    windows_set_action(SIGSEGV, WINDOWS_DELIVER);
    volatile int *volatile nowhere = NULL; /* volatile twice, or -O2 drops the store */
    *nowhere = 1;
    return 0; /* a handler that repeats the fault never comes here; one that skips it does */
}

/* ---- the facts ---- */

static void check_which_signals(void) {
    for (int signum = -1; signum <= WINDOWS_NSIG; signum++) {
        const char *error = windows_signal_error(signum);
        char text[100];
        snprintf(text, sizeof text, "signal(%d): %s", signum, error ? error : "taken");
        /* The C runtime is asked too, but only for what the table takes: it knows numbers, such as
         * SIGABRT_COMPAT, that signal() refuses. */
        expect(error || (windows_set_action(signum, WINDOWS_DELIVER) &&
                         windows_set_action(signum, WINDOWS_DEFAULT)),
               text);
    }
}

static void check_raise(int signum, int (*how)(int), const char *name) {
    struct windows_delivery delivery;
    windows_set_action(signum, WINDOWS_DELIVER);
    how(signum);
    bool first = windows_take(&delivery) && delivery.signum == signum && delivery.merged == 0 &&
                 delivery.first.source == WINDOWS_FROM_RAISE &&
                 delivery.first.thread_id == GetCurrentThreadId();
    /* Had the runtime's reset stood, the first of these would end the process. */
    how(signum);
    how(signum);
    how(signum);
    bool again = windows_take(&delivery) && delivery.signum == signum && delivery.merged == 2;
    bool no_more = !windows_take(&delivery);
    windows_set_action(signum, WINDOWS_DEFAULT);
    char text[100];
    snprintf(text, sizeof text, "%s(%d): 1 call, then 3 raised before it ran: 1 call, 2 merged",
             name, signum);
    expect(first && again && no_more, text);
}

static void check_order(void) {
    struct windows_delivery delivery;
    static const int order[] = {SIGTERM, SIGINT, SIGABRT, SIGBREAK};
    bool right = true;
    for (int i = 0; i < 4; i++) {
        windows_set_action(order[i], WINDOWS_DELIVER);
        windows_raise(order[i]);
        Sleep(1); /* so that the stamps differ */
    }
    for (int i = 0; i < 4; i++) {
        right = windows_take(&delivery) && delivery.signum == order[i] && right;
    }
    for (int i = 0; i < 4; i++) {
        windows_set_action(order[i], WINDOWS_DEFAULT);
    }
    expect(right, "four signals are taken in the order of their arrival");
}

static void check_ignore(void) {
    struct windows_delivery delivery;
    windows_set_action(SIGTERM, WINDOWS_IGNORE);
    expect(windows_raise(SIGTERM) == 0 && !windows_take(&delivery), "an ignored SIGTERM: nothing");
    windows_set_action(SIGTERM, WINDOWS_DEFAULT);
}

static DWORD WINAPI raise_often(void *gate) {
    WaitForSingleObject(gate, PATIENCE_MS);
    for (int i = 0; i < RAISES; i++) {
        windows_raise(SIGTERM);
    }
    atomic_fetch_sub(&storming, 1);
    return 0;
}

static void check_storm(void) {
    struct windows_delivery delivery;
    struct windows_counts before = windows_counts(SIGTERM);
    windows_set_action(SIGTERM, WINDOWS_DELIVER);
    atomic_store(&storming, THREADS);
    HANDLE gate = CreateEventA(NULL, TRUE, FALSE, NULL);
    for (int i = 0; i < THREADS; i++) {
        CloseHandle(CreateThread(NULL, 0, raise_often, gate, 0, NULL));
    }
    SetEvent(gate); /* or the first would be done before the last has started */
    while (atomic_load(&storming)) {
        windows_take(&delivery);
        Sleep(1); /* leave the cores to those who are to race */
    }
    while (windows_take(&delivery)) {
    }
    windows_set_action(SIGTERM, WINDOWS_DEFAULT);
    struct windows_counts after = windows_counts(SIGTERM);
    expect(after.arrivals - before.arrivals == THREADS * RAISES,
           "4 threads raise 200000 each: 800000 arrivals");
    expect(after.arrivals == after.deliveries + after.merges, "arrivals = deliveries + merges");
}

/* Wine 8 cannot generate CTRL_BREAK_EVENT. There the system's own routine, which runs the
 * chain of console handlers in a thread made for the event, is started in the receiver directly. */
static bool send_break(DWORD group, HANDLE receiver) {
    DWORD error = windows_kill(group, CTRL_BREAK_EVENT);
    if (error == 0) {
        return true;
    }
    if (!GetProcAddress(GetModuleHandleA("ntdll"), "wine_get_version")) {
        return false;
    }
    /* By way of the one function type that every other may be cast from and to. */
    void (*routine)(void) =
        (void (*)(void))GetProcAddress(GetModuleHandleA("kernelbase"), "CtrlRoutine");
    HANDLE thread = CreateRemoteThread(receiver, NULL, 0, (LPTHREAD_START_ROUTINE)routine,
                                       (void *)(uintptr_t)CTRL_BREAK_EVENT, 0, NULL);
    if (!thread) {
        return false;
    }
    CloseHandle(thread);
    break_needed_help = true;
    return true;
}

static bool came_from_console(int signum) {
    struct windows_delivery delivery;
    return take_in_time(&delivery) && delivery.signum == signum &&
           delivery.first.source == WINDOWS_FROM_CONSOLE &&
           delivery.first.thread_id != GetCurrentThreadId();
}

static void check_ctrl_c(void) {
    bool woken = true, taken = true;
    windows_set_action(SIGINT, WINDOWS_DELIVER);
    for (int i = 0; i < EVENTS; i++) {
        woken = woken && windows_kill(0, CTRL_C_EVENT) == 0 && windows_sleep(PATIENCE_MS);
        taken = taken && came_from_console(SIGINT);
    }
    expect(woken, "20 CTRL_C_EVENTs, one by one: each wakes the sleeper");
    expect(taken, "20 CTRL_C_EVENTs, one by one: each is a SIGINT that lands on another thread");
    expect(!windows_sleep(50), "a sleep that nobody wakes ends by its time");
    windows_set_action(SIGINT, WINDOWS_DEFAULT);
}

/* Twenty at once. The system may fold some of them together, so only the sum is a fact; that the
 * process lives is one too, for the C runtime's own way of console events can end it here. */
static void check_flood(void) {
    struct windows_delivery delivery;
    struct windows_counts before = windows_counts(SIGINT);
    windows_set_action(SIGINT, WINDOWS_DELIVER);
    for (int i = 0; i < EVENTS; i++) {
        windows_kill(0, CTRL_C_EVENT);
    }
    do {
        while (windows_take(&delivery)) {
        }
    } while (windows_sleep(500));
    windows_set_action(SIGINT, WINDOWS_IGNORE); /* not the default: a straggler would end us */
    struct windows_counts after = windows_counts(SIGINT);
    expect(after.arrivals > before.arrivals && after.arrivals == after.deliveries + after.merges,
           "20 CTRL_C_EVENTs at once: arrivals = deliveries + merges");
}

static void check_ctrl_break(void) {
    struct windows_delivery delivery;
    bool taken = true;
    windows_set_action(SIGBREAK, WINDOWS_DELIVER);
    for (int i = 0; i < EVENTS; i++) {
        taken = taken && send_break(0, GetCurrentProcess()) && came_from_console(SIGBREAK);
    }
    expect(taken,
           "20 CTRL_BREAK_EVENTs, one by one: each is a SIGBREAK that lands on another thread");
    windows_set_action(SIGBREAK, WINDOWS_IGNORE);
    bool sent = send_break(0, GetCurrentProcess());
    Sleep(500);
    expect(sent && !windows_take(&delivery),
           "an ignored CTRL_BREAK_EVENT: nothing, and the process lives");
    windows_set_action(SIGBREAK, WINDOWS_DEFAULT);
}

static void check_kill(void) {
    PROCESS_INFORMATION child = start_and_wait_until_ready("answer", CREATE_NEW_PROCESS_GROUP);
    bool sent = send_break(child.dwProcessId, child.hProcess);
    expect(sent && finish(child) == SIGBREAK,
           "kill(group, CTRL_BREAK_EVENT): its SIGBREAK handler");

    child = start_and_wait_until_ready("sleep", 0);
    sent = windows_kill(child.dwProcessId, SIGTERM) == 0;
    expect(sent && finish(child) == SIGTERM, "kill(pid, SIGTERM): TerminateProcess, exit code 15");

    expect(windows_kill(0xfffffff0, SIGTERM) == ERROR_INVALID_PARAMETER,
           "kill(no such pid): error 87");
    expect(finish(start("fault", 0)) == EXCEPTION_ACCESS_VIOLATION, "a real SIGSEGV: dies by it");
}

static int session(void) {
    check_which_signals();
    static const int by_program[] = {SIGINT, SIGTERM, SIGBREAK, SIGABRT};
    for (int i = 0; i < 4; i++) {
        check_raise(by_program[i], raise, "raise");
    }
    for (int signum = 1; signum < WINDOWS_NSIG; signum++) {
        if (!windows_signal_error(signum)) {
            check_raise(signum, windows_raise, "windows_raise");
        }
    }
    check_order();
    check_ignore();
    check_storm();
    check_ctrl_c();
    check_flood();
    check_ctrl_break();
    check_kill();
    printf("CTRL_BREAK_EVENT was sent by %s\n",
           break_needed_help ? "CtrlRoutine" : "GenerateConsoleCtrlEvent");
    printf("%d wrong\n", failures);
    return failures != 0;
}

int main(int argc, char **argv) {
    _setmode(_fileno(stdout), _O_BINARY);
    setvbuf(stdout, NULL, _IONBF, 0);
    /* Events need a console, and a session without a screen has none: the system makes one without
     * a window for a child that asks for it. */
    if (argc == 1) {
        return (int)finish(start("session", CREATE_NO_WINDOW));
    }

    SetConsoleCtrlHandler(NULL, FALSE); /* a parent may have had us ignore Ctrl+C */
    if (!windows_start(ring)) {
        printf("WRONG: windows_start\n");
        return 1;
    }
    if (strcmp(argv[1], "answer") == 0) {
        return answering_child(argv[2]);
    }
    if (strcmp(argv[1], "sleep") == 0) {
        return sleeping_child(argv[2]);
    }
    if (strcmp(argv[1], "fault") == 0) {
        return faulting_child();
    }
    return session();
}
