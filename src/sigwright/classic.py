"""Section 17.4 of Python 2.7's library reference, to the letter.

``from sigwright import classic as signal`` gives a program written for that text the module it
was written for: the names of 2.7.18's ``signal`` and no others, plain ints for every constant and
for ``SIG_DFL`` and ``SIG_IGN`` wherever they are returned, a zero byte on the wakeup fd, 2.7's
argument checks and its error types and messages. Where the text is silent, 2.7.18 decides; the
scenarios in ``tests/oracle`` were run under both.

The engine is sigwright's, and there is one table of handlers: what is set here is seen by
``sigwright``, and the other way round.

What differs from 2.7.18, because Python 3's interpreter rules it out:

* A handler that returns does not end a Python-level call such as ``os.read``, ``time.sleep`` or
  ``socket.recv``: the interpreter repeats it (PEP 475), whatever ``siginterrupt`` says. 2.7 raised
  ``IOError`` or ``OSError`` with EINTR, or slept less. A handler that raises ends the call in both.
  Calls made through ctypes or an extension are interrupted or restarted as the text says.
* A handler may run inside another one, at any safe point of it. In 2.7 most waited until the
  outer one had returned; only one that came from a blocking call, ``pause()`` say, ran at once.
* A KeyboardInterrupt that nothing catches ends the process by SIGINT, not with status 1.
* ``IOError``, ``OSError`` and ``select.error`` are one class, so ``ItimerError``, a subtype of
  IOError, is a subtype of OSError; its ``__name__`` is ``itimer_error``.
* ``default_int_handler`` is the interpreter's own object, as programs compare it by identity; it
  wants its two arguments, where 2.7's took any.
* TypeErrors for a wrong number of arguments have Python 3's wording, and the ITIMER constants,
  the timers' and the wakeup fd's numbers, long in 2.7, are int.

And because sigwright does not lose what 2.7 lost:

* Real-time signals that queued are one call each; in 2.7 they were one call in all.
* Signals that wait run in the order in which they arrived; in 2.7 by number. For those that the
  kernel held back and then lets through together, the two orders are the same.
* If a handler raises, the signals that wait behind it run at the next safe point; in 2.7 not
  before another signal arrived.
* A signal that lands on another thread has its handler begun at once, in the main thread, even
  where that thread is blocked in a system call; in 2.7 when that call ended.
* Each signal writes its byte to the wakeup fd, as the text says; 2.7 wrote one for all that came
  before a handler had run.
* ``setitimer`` rounds up to the microsecond; 2.7 cut off, so that 1.9 became 1.899999.
"""

import errno as _errno
import os as _os
from collections.abc import Callable as _Callable
from types import FrameType as _FrameType
from typing import Any as _Any

import sigwright as _sigwright
from sigwright import _engine

# Every public name is 2.7's, `from sigwright.classic import *` included: hence the underscores.

_Handler = _Callable[[int, _FrameType | None], _Any] | int | None

# The constants, for type checkers and the docs; the loop below gives those that the platform has
# their values. "Only those names defined by the system are defined by this module."

#: "One of two standard signal handling options; it will simply perform the default function for
#: the signal." 0.
SIG_DFL: int
#: "Another standard signal handler, which will simply ignore the given signal." 1.
SIG_IGN: int
#: "One more than the number of the highest signal number."
NSIG: int
#: "Decrements interval timer in real time, and delivers SIGALRM upon expiration."
ITIMER_REAL: int
#: "Decrements interval timer only when the process is executing, and delivers SIGVTALRM upon
#: expiration."
ITIMER_VIRTUAL: int
#: "Decrements interval timer both when the process executes and when the system is executing on
#: behalf of the process. [...] SIGPROF is delivered upon expiration."
ITIMER_PROF: int
#: "The signal corresponding to the Ctrl+C keystroke event. This signal can only be used with
#: os.kill()." Windows.
CTRL_C_EVENT: int
#: "The signal corresponding to the Ctrl+Break keystroke event. This signal can only be used with
#: os.kill()." Windows.
CTRL_BREAK_EVENT: int
SIGABRT: int
SIGALRM: int
SIGBUS: int
SIGCHLD: int
SIGCLD: int
SIGCONT: int
SIGFPE: int
SIGHUP: int
SIGILL: int
SIGINT: int
SIGIO: int
SIGIOT: int
SIGKILL: int
SIGPIPE: int
SIGPOLL: int
SIGPROF: int
SIGPWR: int
SIGQUIT: int
SIGRTMAX: int
SIGRTMIN: int
SIGSEGV: int
SIGSTOP: int
SIGSYS: int
SIGTERM: int
SIGTRAP: int
SIGTSTP: int
SIGTTIN: int
SIGTTOU: int
SIGURG: int
SIGUSR1: int
SIGUSR2: int
SIGVTALRM: int
SIGWINCH: int
SIGXCPU: int
SIGXFSZ: int
SIGBREAK: int

_ADDED_AFTER_2_7 = {"SIGSTKFLT", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK"}

for _name, _value in vars(_sigwright).items():
    if (
        _name.startswith(("SIG", "ITIMER_", "NSIG", "CTRL_"))
        and isinstance(_value, int)
        and _name not in _ADDED_AFTER_2_7
    ):
        globals()[_name] = int(_value)
del _name, _value

#: SIGINT's handler unless a program sets another: "SIGINT is translated into a KeyboardInterrupt
#: exception."
default_int_handler: _Callable[[int, _FrameType | None], _Any] = _sigwright.default_int_handler


def signal(signalnum: int, handler: _Handler, /) -> _Handler:
    """Set the handler for signal *signalnum* to the function *handler*.

    *handler* "can be a callable Python object taking two arguments [...], or one of the special
    values signal.SIG_IGN or signal.SIG_DFL. The previous signal handler will be returned". It is
    called with the signal's number, an int, and the current stack frame, or None. System calls
    that the signal interrupts are not restarted; see siginterrupt().

    Returns the previous handler: a callable, 0 (SIG_DFL), 1 (SIG_IGN), or None if it "was not
    installed from Python".

    Raises ValueError for a number out of range and when called outside the main thread: "When
    threads are enabled, this function can only be called from the main thread". TypeError if
    *handler* is neither callable nor one of the two values; RuntimeError with EINVAL, as 2.7.18,
    if the system refuses: SIGKILL, SIGSTOP.

    Availability: Unix, Windows. "On Windows, signal() can only be called with SIGABRT, SIGFPE,
    SIGILL, SIGINT, SIGSEGV, or SIGTERM. A ValueError will be raised in any other case."
    """
    signum = _c_int(signalnum)
    if not (callable(handler) or type(handler) is int or isinstance(handler, _sigwright.Handlers)):
        handler = None  # 1.0 and True equal SIG_IGN, but 2.7 went by identity; None is an error too
    try:
        return _plain(_sigwright.signal(signum, handler))
    except (ValueError, OSError) as error:
        _raise_as_2_7_did(error)
        raise


def getsignal(signalnum: int, /) -> _Handler:
    """Return the current signal handler for the signal *signalnum*.

    "The returned value may be a callable Python object, or one of the special values
    signal.SIG_IGN, signal.SIG_DFL or None", which are 1, 0, and "the previous signal handler was
    not installed from Python".

    Raises ValueError for a number out of range. Any thread. Availability: Unix, Windows.
    """
    return _plain(_sigwright.getsignal(_c_int(signalnum)))


def siginterrupt(signalnum: int, flag: int, /) -> None:
    """Change system call restart behaviour.

    "If flag is False, system calls will be restarted when interrupted by signal signalnum,
    otherwise system calls will be interrupted. [...] Note that installing a signal handler with
    signal() will reset the restart behaviour to interruptible". Python 3 repeats its own calls in
    either case; see the module's description.

    Returns None. Raises ValueError for a number out of range, RuntimeError with EINVAL, as
    2.7.18, if the system refuses. Any thread. Availability: Unix.
    """
    signum, interrupt = _c_int(signalnum), _c_int(flag)
    try:
        _sigwright.siginterrupt(signum, bool(interrupt))
    except OSError as error:
        _raise_as_2_7_did(error)
        raise


def alarm(time: int, /) -> int:
    """Have a SIGALRM sent to the process in *time* seconds; zero sends none.

    "Any previously scheduled alarm is canceled (only one alarm can be scheduled at any time). The
    returned value is then the number of seconds before any previously set alarm was to have been
    delivered. [...] If the return value is zero, no alarm is currently scheduled."

    *time* is a whole number: TypeError for a float. The timer is ITIMER_REAL's. Any thread.
    Availability: Unix.
    """
    return _sigwright.alarm(_c_int(time))


def setitimer(which: int, seconds: float, interval: float = 0.0, /) -> tuple[float, float]:
    """Set the timer *which*: ITIMER_REAL, ITIMER_VIRTUAL or ITIMER_PROF.

    It fires "after seconds (float is accepted, different from alarm()) and after that every
    interval seconds. The interval timer specified by which can be cleared by setting seconds to
    zero." It sends SIGALRM, SIGVTALRM and SIGPROF respectively.

    "The old values are returned as a tuple: (delay, interval)", both in seconds.

    Raises ItimerError with EINVAL for "an invalid interval timer or a negative time", NaN and
    infinity; nothing changes then. Times beyond 292 years are 292 years: the kernel keeps no more.
    Any thread. Availability: Unix.
    """
    timer, times = _c_int(which), (_c_double(seconds), _c_double(interval))
    if not all(0 <= time < 2**63 for time in times):
        raise ItimerError(_errno.EINVAL, _os.strerror(_errno.EINVAL))
    delay, period = (min(time, _LONGEST_TIME) for time in times)
    return _sigwright.setitimer(timer, delay, period)


def getitimer(which: int, /) -> tuple[float, float]:
    """Return the "current value of a given interval timer specified by which".

    That is (delay, interval), in seconds; (0.0, 0.0) if it is not set. Raises ItimerError with
    EINVAL for an invalid timer. Any thread. Availability: Unix.
    """
    return _sigwright.getitimer(_c_int(which))


def set_wakeup_fd(fd: int, /) -> int:
    r"""Set the wakeup fd to *fd*, -1 for none.

    "When a signal is received, a '\0' byte is written to the fd. This can be used by a library
    to wakeup a poll or select call [...]. If not -1, fd must be non-blocking. It is up to the
    library to remove any bytes from fd before calling poll or select again." As in 2.7.18, that
    it does not block is for the caller to see to, and a full pipe is not reported.

    "The old wakeup fd is returned (or -1 if file descriptor wakeup was not enabled)."

    Raises ValueError if *fd* is not open, and when called outside the main thread.
    Availability: Unix, Windows.
    """
    descriptor = _c_int(fd)
    try:
        return _engine.set_zero_wakeup_fd(descriptor)
    except ValueError as error:
        _raise_as_2_7_did(error)
        raise


if hasattr(_sigwright, "alarm"):
    #: "Raised to signal an error from the underlying setitimer() or getitimer() implementation.
    #: Expect this error if an invalid interval timer or a negative time is passed to setitimer().
    #: This error is a subtype of IOError." Unix.
    ItimerError = _sigwright.ItimerError
    #: "Cause the process to sleep until a signal is received; the appropriate handler will then be
    #: called. Returns nothing." Whatever that handler raises comes out of the call. Unix.
    #:
    #: The engine's own function: one of Python's would be in the frame that the handler gets.
    pause: _Callable[[], None] = _sigwright.pause
else:  # Windows
    del siginterrupt, alarm, setitimer, getitimer


_LONGEST_TIME = 9_223_372_036.0  # whole seconds in 2**63 nanoseconds


def _plain(handler: _Handler) -> _Handler:
    return int(handler) if isinstance(handler, _sigwright.Handlers) else handler


def _raise_as_2_7_did(error: ValueError | OSError) -> None:
    """Raise what 2.7.18 raised where the engine raised *error*; return if that is the same.

    An OSError with a deeper traceback is not the engine's but comes from a handler of the user's,
    run at a safe point in the call: that one stays what it is.
    """
    traceback = error.__traceback__
    if isinstance(error, OSError):
        if error.errno == _errno.EINVAL and traceback is not None and traceback.tb_next is None:
            raise RuntimeError(*error.args) from None
    elif str(error).endswith(_LATER_ENDING):
        raise ValueError(str(error).removesuffix(_LATER_ENDING)) from None


_LATER_ENDING = " of the main interpreter"


# 2.7's argument parser ("i" and "d" of PyArg_ParseTuple), with its messages.


def _c_int(value: object) -> int:
    if isinstance(value, float):
        raise TypeError("integer argument expected, got float")
    convert = getattr(type(value), "__int__", None)
    if convert is None:
        raise TypeError("an integer is required")
    number = int(convert(value))
    if not -(2**63) <= number < 2**63:
        raise OverflowError("Python int too large to convert to C long")
    if number >= 2**31:
        raise OverflowError("signed integer is greater than maximum")
    if number < -(2**31):
        raise OverflowError("signed integer is less than minimum")
    return number


def _c_double(value: object) -> float:
    convert = getattr(type(value), "__float__", None)
    if convert is None:
        raise TypeError("a float is required")
    return float(convert(value))
