/* run_default(): a signal's default action, now.
 * Context: any thread, with the GIL.
 * Callers: Python. */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"

enum default_action { END, STOP, NOTHING };

static enum default_action default_action(int signum) {
    switch (signum) {
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
        return STOP;
    case SIGCHLD:
    case SIGCONT: /* continues who is stopped; who calls this is not */
    case SIGURG:
    case SIGWINCH:
        return NOTHING;
    default:
        return END;
    }
}

/* The signal is sent while this thread blocks it, and acts when it no longer does: so the action
 * must be SIG_DFL for two system calls only, and for as long as the process is stopped. Any shorter
 * is not possible: an action belongs to the whole process, and another arrival meanwhile, in any
 * thread, takes it too. SIGSTOP in the place of the others would need no SIG_DFL; but it also stops
 * an orphaned process group, which nobody can continue, and the shell would report another signal.
 */
static void take_default(int signum, const sigset_t *only_this) {
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    struct sigaction previous;
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, only_this, &mask);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signum);
    bool changed = sigaction(signum, &standard, &previous) == 0; /* not for SIGKILL and SIGSTOP */
    pthread_sigmask(SIG_UNBLOCK, only_this, NULL);               /* here it acts */
    if (default_action(signum) == END) {
        /* Still here: RLIMIT_SIGPENDING is reached, where only kill() gets a real-time signal
         * through; or we are PID 1 of a container, which the kernel does not let be killed so. */
        kill(getpid(), signum);
        _exit(128 + signum);
    }
    if (sigismember(&mask, signum)) {
        pthread_sigmask(SIG_BLOCK, only_this, NULL);
    }
    if (changed) {
        sigaction(signum, &previous, NULL);
    }
}

PyDoc_STRVAR(
    run_default_doc,
    "run_default(signum, /)\n--\n\n"
    "Perform a signal's default action now, whatever is set for it.\n\n"
    "That is to end the process by that signal (with a core dump, for those that have one), to\n"
    "stop it, or nothing. For the end of a handler that has put things in order: the parent then\n"
    "sees how the process really ended.\n\n"
    "A process that ends by it ends at once: no finally, no atexit, and nothing is flushed, not\n"
    "even sys.stdout. A process that it stops goes on from here when it is continued, with its\n"
    "action, handler and mask as they were, and the handler has not run. The terminal's stops\n"
    "(SIGTSTP, SIGTTIN, SIGTTOU) do nothing in an orphaned process group, as POSIX has it. PID 1\n"
    "of a container, which the kernel does not let a default action end or stop, ends with the\n"
    "exit status 128 + signum where another process would end by the signal.\n\n"
    "From just before the stop to just after it, another arrival of the same signal, in any\n"
    "thread, takes the default action too. (If it ends the process, there is nothing after.)\n\n"
    "Parameters:\n"
    "    signum: the signal's number; also SIGKILL and SIGSTOP.\n\n"
    "Raises:\n"
    "    ValueError: signum out of range. OSError: a signal of the C library's own.\n"
    "    Anything that a handler raises, of a signal that came while the process was stopped.\n\n"
    "Platform: Unix. Any thread. Source: POSIX <signal.h>, the table of default actions.");

static PyObject *run_default(PyObject *module, PyObject *argument) {
    (void)module;
    int signum;
    sigset_t only_this;
    sigemptyset(&only_this);
    if (!parse_signal_number(argument, &signum)) {
        return NULL;
    }
    if (sigaddset(&only_this, signum) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    /* To ignore it takes no doing; and to set SIG_DFL would lose what is pending of it. */
    if (default_action(signum) != NOTHING) {
        take_default(signum, &only_this);
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyMethodDef run_default_methods[] = {
    {"run_default", run_default, METH_O, run_default_doc},
    {NULL, NULL, 0, NULL},
};
