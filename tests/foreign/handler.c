/* Somebody else's C handler, as a library would install it: it counts, and can call the one from
 * before, or leave by siglongjmp() as cysignals does. And threads that send to themselves as fast
 * as they can.
 * Callers: tests/conftest.py compiles it; tests/test_foreign_handlers.py and
 * tests/test_consumers_and_strangers.py load it with ctypes. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t counts[65];
static volatile int last_pid, last_value;
static struct sigaction before[65];
static int calls_the_one_before;
static sigjmp_buf place;
static volatile sig_atomic_t jumps;

static void handler(int signum, siginfo_t *info, void *context) {
    counts[signum]++;
    last_pid = info->si_pid;
    last_value = info->si_value.sival_int;
    if (calls_the_one_before) {
        if (before[signum].sa_flags & SA_SIGINFO) {
            before[signum].sa_sigaction(signum, info, context);
        } else if (before[signum].sa_handler != SIG_DFL && before[signum].sa_handler != SIG_IGN) {
            before[signum].sa_handler(signum);
        }
    }
    if (jumps) {
        jumps = 0;
        siglongjmp(place, 1);
    }
}

static void plain_handler(int signum) { counts[signum]++; }

/* As readline does: the saved handler is called with one argument, whatever it takes. What the
 * other two would be is in their registers by chance; here it is made sure that it is no address.
 */
static void careless_handler(int signum) {
    counts[signum]++;
    void (*saved)(int, long, long) = (void (*)(int, long, long))before[signum].sa_sigaction;
    saved(signum, 0x1234, 0x5678);
}

int foreign_install_careless(int signum) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = careless_handler;
    return sigaction(signum, &action, &before[signum]);
}

int foreign_install(int signum, int call_before) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigaddset(&action.sa_mask, SIGUSR2);
    calls_the_one_before = call_before;
    return sigaction(signum, &action, &before[signum]);
}

int foreign_install_plain(int signum) { return signal(signum, plain_handler) == SIG_ERR; }

int foreign_reset(int signum) { return signal(signum, SIG_DFL) == SIG_ERR; }

int foreign_is_installed(int signum) {
    struct sigaction now;
    sigaction(signum, NULL, &now);
    return (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == handler &&
           (now.sa_flags & SA_RESTART) && sigismember(&now.sa_mask, SIGUSR2);
}

int foreign_plain_is_installed(int signum) {
    struct sigaction now;
    sigaction(signum, NULL, &now);
    return !(now.sa_flags & SA_SIGINFO) && now.sa_handler == plain_handler;
}

int foreign_count(int signum) { return counts[signum]; }
int foreign_last_pid(void) { return last_pid; }
int foreign_last_value(void) { return last_value; }

/* Raises the signal and is left from its handler by siglongjmp(): 1 if it was. */
int foreign_jump_out_of(int signum) {
    if (sigsetjmp(place, 1)) {
        return 1;
    }
    jumps = 1;
    raise(signum);
    return 0;
}

/* It counts what lands on several threads at once, and the kernel's flags for it are the caller's.
 */
static atomic_int concurrently;

static void counting_handler(int signum, siginfo_t *info, void *context) {
    (void)signum, (void)info, (void)context;
    concurrently++;
}

int foreign_install_counting(int signum, int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = counting_handler;
    action.sa_flags = SA_SIGINFO | flags;
    sigfillset(&action.sa_mask);
    return sigaction(signum, &action, NULL);
}

int foreign_ignore(int signum) { return signal(signum, SIG_IGN) == SIG_ERR; }
int foreign_counted(void) { return concurrently; }

#define THREADS_MOST 8
static pthread_t flooding[THREADS_MOST];
static int floods;
static atomic_int flood_is_over, sent_by_floods;

static void *flood(void *number) {
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    while (!flood_is_over) {
        sent_by_floods += pthread_kill(pthread_self(), (int)(long)number) == 0;
    }
    return NULL;
}

int foreign_flood(int signum) {
    return pthread_create(&flooding[floods++], NULL, flood, (void *)(long)signum);
}

/* How many were sent, by all of them. */
int foreign_end_floods(void) {
    flood_is_over = 1;
    while (floods > 0) {
        pthread_join(flooding[--floods], NULL);
    }
    return sent_by_floods;
}
