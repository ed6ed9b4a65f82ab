/* The end of a process that does not answer: a line, all stacks, and death.
 * Context: the watch's thread (see watch.c), without the GIL, every signal blocked.
 * Callers: watch.c. */
#include "watch.h"

#include <sys/syscall.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* For the line and the stacks: stderr may be a pipe that nobody reads. */
#define LAST_WORDS_S 1

static struct {
    int signum;
    int exit_code;
    int timer; /* the kernel's number; made beforehand: RLIMIT_SIGPENDING may be reached; or -1 */
} end;

/* When the thread begins. */
void ending_prepare(void) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGSEGV};
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &end.timer) != 0) {
        end.timer = -1;
    }
}

/* When it ends well. */
void ending_forget(void) { syscall(SYS_timer_delete, end.timer); }

_Noreturn static void die(void) {
    if (end.exit_code != BY_SIGNAL) {
        _exit(end.exit_code);
    }
    if (!(HARMLESS & signal_bit(end.signum))) {
        const struct sigaction standard = {.sa_handler = SIG_DFL};
        sigset_t only_this;
        sigemptyset(&only_this);
        sigaddset(&only_this, end.signum);
        sigaction(end.signum, &standard, NULL);
        pthread_sigmask(SIG_UNBLOCK, &only_this, NULL);
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), end.signum);
        kill(getpid(), end.signum); /* RLIMIT_SIGPENDING lets nothing else through */
    }
    _exit(128 + end.signum); /* PID 1, which the kernel does not let die so */
}

/* The stacks of threads that run are read without a lock, and a look at one may fault; and who
 * writes to a full pipe waits. Neither keeps the process from its end. */
static void cut_short(int signum) {
    (void)signum;
    die();
}

static void limit_last_words(void) {
    struct sigaction action = {.sa_handler = cut_short};
    sigset_t faults;
    sigemptyset(&action.sa_mask);
    sigemptyset(&faults);
    sigaddset(&faults, SIGSEGV);
    sigaddset(&faults, SIGBUS);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    const struct itimerspec when = {.it_value = {.tv_sec = LAST_WORDS_S}};
    syscall(SYS_timer_settime, end.timer, 0, &when, NULL); /* rings with SIGSEGV, too */
    pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
}

struct line {
    char text[256];
    size_t length;
};

static void put(struct line *line, const char *text) {
    while (*text != '\0' && line->length < sizeof line->text) {
        line->text[line->length++] = *text++;
    }
}

static void put_number(struct line *line, uint64_t number) {
    char digits[24];
    char *first = &digits[sizeof digits - 1];
    *first = '\0';
    do {
        *--first = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    put(line, first);
}

static void put_seconds(struct line *line, uint64_t nanoseconds) {
    uint64_t hundredths = (nanoseconds + 5000000) / 10000000;
    put_number(line, hundredths / 100);
    put(line, hundredths % 100 < 10 ? ".0" : ".");
    put_number(line, hundredths % 100);
    put(line, " s");
}

static void write_line(const struct order *order, int signum, uint64_t since_ns, bool is_blocked) {
    struct line line = {.length = 0};
    put(&line, "sigwright: ");
    if (order->end_ns != NEVER) {
        put_seconds(&line, monotonic_ns() - since_ns);
        put(&line, " for an orderly end after ");
        put(&line, watching.names[signum]);
        put(&line, " are over");
    } else {
        uint64_t presses = atomic_load(&arrivals.inbox->unanswered[signum].presses);
        put(&line, watching.names[signum]);
        if (is_blocked) {
            put(&line, " is blocked, and");
        } else if (presses > 1) {
            put(&line, " came ");
            put_number(&line, presses);
            put(&line, " times, and");
        }
        put(&line, " was not answered for ");
        put_seconds(&line, monotonic_ns() - since_ns);
    }
    if (order->exit_code == BY_SIGNAL) {
        put(&line, ": the process ends by it\n");
    } else {
        put(&line, ": the process ends with exit status ");
        put_number(&line, (uint64_t)order->exit_code);
        put(&line, "\n");
    }
    ssize_t ignored = write(STDERR_FILENO, line.text, line.length);
    (void)ignored;
}

bool has_handler(int signum) {
    struct sigaction now;
    return sigaction(signum, NULL, &now) == 0 &&
           ((now.sa_flags & SA_SIGINFO) ||
            (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN));
}

/* faulthandler's own handler, in this thread: see door.c. */
static void dump_stacks(void) {
    int dump = atomic_load(&arrivals.dump_signal);
    if (dump == 0 || !has_handler(dump)) {
        return;
    }
    sigset_t only_dump;
    sigemptyset(&only_dump);
    sigaddset(&only_dump, dump);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), dump);
    pthread_sigmask(SIG_UNBLOCK, &only_dump, NULL); /* it runs before this returns */
}

_Noreturn void end_process(const struct order *order, int signum, uint64_t since_ns,
                           bool is_blocked) {
    end.signum = signum;
    end.exit_code = order->exit_code;
    limit_last_words();
    write_line(order, signum, since_ns, is_blocked);
    if (order->dump) {
        dump_stacks();
    }
    die();
}
