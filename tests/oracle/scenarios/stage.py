"""What every scenario stands on: the `signal` to be tried, and a way to say what was seen.

Scenarios run under Python 2.7 and under Python 3, so they are written in what the two share, and
they say only what is meant to be equal. Deliberately made alike here:

* IOError, OSError and select.error, three classes in Python 2 and one in Python 3: "OSError";
* ItimerError, whose class Python 3 calls itimer_error: "ItimerError";
* int and long: digits; floats: rounded to a hundredth.

A signal's way to its handler takes no fixed time, so nothing here waits for one: it waits until
a thing has happened (`until`), for a long time if it must.
"""

import ctypes
import os
import select
import signal as _startup_signal
import sys
import time
import types

libc = ctypes.CDLL(None, use_errno=True)

# Whoever started the tests may have ignored or blocked signals (nohup, a shell's "&"); every
# scenario begins as if nobody had. Done before sigwright looks.
for _signum in range(1, _startup_signal.NSIG):
    if _startup_signal.getsignal(_signum) == _startup_signal.SIG_IGN and _signum not in (
        _startup_signal.SIGPIPE,
        _startup_signal.SIGXFSZ,
    ):
        _startup_signal.signal(
            _signum,
            _startup_signal.default_int_handler
            if _signum == _startup_signal.SIGINT
            else _startup_signal.SIG_DFL,
        )

SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = 0, 1, 2  # of Linux's <signal.h>; 2.7 has no names for them


def _set_mask(how, signums):
    signal_set = (ctypes.c_ulong * 16)()
    libc.sigemptyset(signal_set)
    for signum in signums:
        libc.sigaddset(signal_set, signum)
    libc.pthread_sigmask(how, signal_set, None)


_set_mask(SIG_SETMASK, [])

if sys.version_info[0] == 2:
    IMPORT = "import signal"
    import signal
else:
    IMPORT = "from sigwright import classic as signal"
    from sigwright import classic as signal

ODD_ERRORS = (IOError, OSError, select.error)  # one class under Python 3


def say(*words):
    sys.stdout.write(" ".join([shown(word) for word in words]) + "\n")
    sys.stdout.flush()


def shown(thing):
    if isinstance(thing, str):
        return thing
    if isinstance(thing, float):
        return "%.2f" % thing
    if isinstance(thing, (list, tuple)):
        return "(" + ", ".join([shown(item) for item in thing]) + ")"
    if thing is None or thing is True or thing is False:
        return str(thing)
    if isinstance(thing, BaseException):
        return error_name(thing) + shown(thing.args)
    if isinstance(thing, (types.FunctionType, types.BuiltinFunctionType)):
        return thing.__name__
    if "%d" % thing == str(thing):  # an enum's member says its name, in some versions
        return "%d" % thing
    return repr(thing)


def error_name(error):
    if isinstance(error, signal.ItimerError):
        return "ItimerError"
    if isinstance(error, ODD_ERRORS):
        return "OSError"
    return type(error).__name__


def attempt(label, function, *args):
    """Say what the call returns or raises."""
    try:
        result = function(*args)
    except Exception as error:
        say(label, "raises", error)
    else:
        say(label, "is", result)


def attempt_type(label, function, *args, **keywords):
    """Say what the call returns, or the type of what it raises, where wordings differ."""
    try:
        result = function(*args, **keywords)
    except Exception as error:
        say(label, "raises", error_name(error))
    else:
        say(label, "is", result)


def until(condition):
    """Wait, with safe points, until the condition holds; a minute at most."""
    end = time.time() + 60
    while not condition():
        if time.time() > end:
            say("NEVER HAPPENED")
            sys.stdout.flush()
            os._exit(99)
        time.sleep(0.001)


def safe_points():
    for _ in range(1000):
        pass


def send(signum):
    """Send the signal to this process and let its handler run."""
    os.kill(os.getpid(), signum)
    safe_points()


def hold(*signums):
    """Have the kernel keep the signals pending."""
    _set_mask(SIG_BLOCK, signums)


def release(*signums):
    """Have the kernel deliver what it kept."""
    _set_mask(SIG_UNBLOCK, signums)


def logger():
    """A list, and a handler that notes in it the numbers of the signals that arrive."""
    log = []

    def note(signum, frame):
        log.append(signum)

    return log, note


def pipe():
    """A pipe whose two ends do not block, as a wakeup fd must not."""
    import fcntl

    ends = os.pipe()
    for end in ends:
        fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_NONBLOCK)
    return ends


def child(function):
    """Run the function in a forked child; return a function that waits for the child's end."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException as error:
            say("child raises", error)
        finally:
            os._exit(98)

    def wait():
        while True:
            try:
                status = os.waitpid(pid, 0)[1]
            except OSError as error:
                if error.args[0] != 4:  # EINTR, which Python 2 does not retry
                    raise
            else:
                break
        if os.WIFSIGNALED(status):
            return "killed by %d" % os.WTERMSIG(status)
        return "exit %d" % os.WEXITSTATUS(status)

    wait.pid = pid
    return wait


def await_sleep(pid):
    """Wait until the process sleeps in a system call, and still does a moment later."""
    asleep = 0
    while asleep < 3:
        stat = open("/proc/%d/stat" % pid)
        asleep = asleep + 1 if stat.read().rpartition(")")[2].split()[0] == "S" else 0
        stat.close()
        time.sleep(0.01)


def burn(condition):
    """Use processor time until the condition holds."""
    end = time.time() + 60
    while not condition():
        safe_points()
        if time.time() > end:
            say("NEVER HAPPENED")
            os._exit(99)
