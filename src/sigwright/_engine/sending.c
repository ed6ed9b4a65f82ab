/* Sending: raise_signal(), pthread_kill(), pidfd_send_signal(), sigqueue().
 * Context: any thread, with the GIL.
 * Callers: Python. */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"

static bool make_room_for(int signum) {
    return signum < 1 || signum >= SIGNALS || door_make_room(signal_bit(signum));
}

PyDoc_STRVAR(
    raise_signal_doc,
    "raise_signal(signalnum, /)\n--\n\n"
    "Send a signal to the calling thread; in the main thread its handler has run when this\n"
    "returns.\n\n"
    "Parameters:\n"
    "    signalnum: the signal's number.\n\n"
    "Raises:\n"
    "    OSError: there is no such signal. Anything that the handler raises.\n\n"
    "Platform: all. Source: ISO C raise().");

/* A system call, and not the cheapest. Kept where the kernel wipes it at a fork, so that it is
 * never the parent's. */
static pid_t own_pid(void) {
    pid_t pid = atomic_load_explicit(&arrivals.inbox->pid, memory_order_relaxed);
    if (pid == 0) {
        pid = getpid();
        if (engine.wiped_on_fork) {
            atomic_store_explicit(&arrivals.inbox->pid, pid, memory_order_relaxed);
        }
    }
    return pid;
}

/* raise() asks the kernel for the thread's number each time; we know it. After a fork that Python
 * was not told of we do not: no such thread in this process. */
static int raise_on_main_thread(int signum) {
    if (syscall(SYS_tgkill, own_pid(), atomic_load(&arrivals.main_tid), signum) == 0) {
        return 0;
    }
    return errno == ESRCH ? raise(signum) : -1;
}

static PyObject *raise_signal(PyObject *module, PyObject *argument) {
    (void)module;
    int signum;
    if (!parse_int(argument, &signum) || !make_room_for(signum)) {
        return NULL;
    }
    /* With the GIL: raise() does not block, and our arrival takes microseconds at most. The stdlib
     * releases it, for nothing that we could find. */
    bool failed;
    if (engine.open && pthread_equal(pthread_self(), arrivals.main_thread)) {
        arrivals.looks_soon = 1;
        failed = raise_on_main_thread(signum) != 0;
        arrivals.looks_soon = 0;
    } else {
        failed = raise(signum) != 0;
    }
    if (failed) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (PyErr_CheckSignals() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static bool audit_pthread_kill(unsigned long thread, int signum) {
    PyObject *audit = PySys_GetObject("audit");
    if (audit == NULL) {
        return true;
    }
    PyObject *result = PyObject_CallFunction(audit, "ski", "signal.pthread_kill", thread, signum);
    Py_XDECREF(result);
    return result != NULL;
}

PyDoc_STRVAR(
    pthread_kill_doc,
    "pthread_kill(thread_id, signalnum, /)\n--\n\n"
    "Send a signal to a thread of this process. Its Python-level handler runs in the main "
    "thread.\n\n"
    "Parameters:\n"
    "    thread_id: threading.get_ident() of a thread that has not ended (the C library may crash\n"
    "        on any other number).\n"
    "    signalnum: the signal's number; 0 only asks whether the thread is there.\n\n"
    "Raises:\n"
    "    OSError: no such signal; ProcessLookupError: no such thread.\n"
    "    Anything that a handler raises, in the main thread.\n\n"
    "Platform: Unix. Source: POSIX pthread_kill().");

static PyObject *pthread_kill_(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    int signum;
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "pthread_kill expected 2 arguments, got %zd", nargs);
        return NULL;
    }
    if (!PyLong_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "pthread_kill() argument 1 must be int");
        return NULL;
    }
    unsigned long thread = PyLong_AsUnsignedLongMask(args[0]);
    if (PyErr_Occurred() || !parse_int(args[1], &signum) || !make_room_for(signum) ||
        !audit_pthread_kill(thread, signum)) {
        return NULL;
    }
    errno = pthread_kill((pthread_t)thread, signum);
    if (errno != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (PyErr_CheckSignals() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(pidfd_send_signal_doc,
             "pidfd_send_signal(pidfd, signalnum, siginfo=None, flags=0, /)\n--\n\n"
             "Send a signal to the process that a pidfd stands for.\n\n"
             "Parameters:\n"
             "    pidfd: from os.pidfd_open().\n"
             "    signalnum: the signal's number.\n"
             "    siginfo: must be None.\n"
             "    flags: the system call's, 0 for none.\n\n"
             "Raises:\n"
             "    OSError: no such process, signal or fd. TypeError: siginfo is not None.\n\n"
             "Platform: Linux 5.1 and later. Source: man page pidfd_send_signal(2).");

static PyObject *pidfd_send_signal(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    int pidfd, signum;
    int flags = 0;
    if (nargs < 2 || nargs > 4) {
        PyErr_Format(PyExc_TypeError, "pidfd_send_signal expected %s arguments, got %zd",
                     nargs < 2 ? "at least 2" : "at most 4", nargs);
        return NULL;
    }
    if (!parse_int(args[0], &pidfd) || !parse_int(args[1], &signum) ||
        (nargs == 4 && !parse_int(args[3], &flags))) {
        return NULL;
    }
    if (nargs >= 3 && args[2] != Py_None) {
        PyErr_SetString(PyExc_TypeError, "siginfo must be None");
        return NULL;
    }
    if (syscall(SYS_pidfd_send_signal, pidfd, signum, NULL, flags) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    sigqueue_doc,
    "sigqueue(pid, signum, value=0, /)\n--\n\n"
    "Send a signal to a process, with a number for its handler: SignalInfo.si_value there.\n\n"
    "Real-time signals (SIGRTMIN to SIGRTMAX) queue: each arrives, in order, with its own value.\n"
    "Of a standard signal that is pending already a second one is lost, value and all; and where\n"
    "the receiver's queue is full it arrives without its value. Sent to the own process from the\n"
    "main thread, its handler has run when this returns.\n\n"
    "Parameters:\n"
    "    pid: one process, 1 or more. (Not a group: os.kill() sends to groups.)\n"
    "    signum: the signal's number; 0 only asks whether the process is there (and ours).\n"
    "    value: any C int, -2**31 to 2**31 - 1.\n\n"
    "Raises:\n"
    "    BlockingIOError: as many signals are queued as the receiver's user may have\n"
    "        (RLIMIT_SIGPENDING): try again later.\n"
    "    ProcessLookupError: no such process. PermissionError: not one that we may send to.\n"
    "    ValueError: pid is less than 1, or signum out of range.\n"
    "    OverflowError: value is no C int.\n"
    "    Anything that a handler raises, in the main thread.\n\n"
    "Platform: Linux. Any thread. Source: POSIX sigqueue(); man pages sigqueue(3), signal(7).");

static PyObject *sigqueue_(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    int pid, signum;
    int number = 0;
    if (nargs < 2 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "sigqueue expected %s arguments, got %zd",
                     nargs < 2 ? "at least 2" : "at most 3", nargs);
        return NULL;
    }
    if (!parse_int(args[0], &pid) || !parse_int(args[1], &signum) ||
        (nargs == 3 && !parse_int(args[2], &number)) || (signum != 0 && !in_range(signum))) {
        return NULL;
    }
    /* The kernel says ESRCH. But 0 and less are groups to os.kill(), and who means one is to be
     * told so, not that it has gone. */
    if (pid < 1) {
        PyErr_Format(PyExc_ValueError, "pid must be 1 or more, not %d: os.kill() sends to groups",
                     pid);
        return NULL;
    }
    if (pid == getpid() && !make_room_for(signum)) {
        return NULL;
    }
    union sigval value = {.sival_ptr = NULL}; /* the bytes beyond the int, too */
    value.sival_int = number;
    if (sigqueue(pid, signum, value) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (PyErr_CheckSignals() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef sending_methods[] = {
    {"raise_signal", raise_signal, METH_O, raise_signal_doc},
    {"pthread_kill", FUNCTION(pthread_kill_), METH_FASTCALL, pthread_kill_doc},
    {"pidfd_send_signal", FUNCTION(pidfd_send_signal), METH_FASTCALL, pidfd_send_signal_doc},
    {"sigqueue", FUNCTION(sigqueue_), METH_FASTCALL, sigqueue_doc},
    {NULL, NULL, 0, NULL},
};
