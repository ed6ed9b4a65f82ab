"""What every function says to every kind of bad argument."""

import decimal
import os
import time

from stage import attempt, attempt_type, logger, pipe, say, signal


class HasInt(object):
    def __int__(self):
        return 10


class HasIndex(object):
    def __index__(self):
        return 10


class HasFloat(object):
    def __float__(self):
        return 20.0


class Raises(object):
    def __int__(self):
        raise KeyError("own")

    __float__ = __int__


NOT_INTS = (
    ("float", 1.0),
    ("nan", float("nan")),
    ("str", "1"),
    ("None", None),
    ("list", []),
    ("tuple", ()),
    ("dict", {}),
    ("function", len),
    ("type", int),
    ("object with __index__ only", HasIndex()),
    ("object whose __int__ raises", Raises()),
    ("2**31", 2**31),
    ("-2**31-1", -(2**31) - 1),
    ("2**40", 2**40),
    ("2**70", 2**70),
    ("-2**70", -(2**70)),
)
BAD_SIGNUMS = NOT_INTS + (("0", 0), ("-1", -1), ("NSIG", signal.NSIG), ("2**31-1", 2**31 - 1))
ODD_SIGNUMS = (("True", True), ("__int__", HasInt()), ("Decimal", decimal.Decimal("10.5")))


def signal_with_bad_numbers():
    for label, bad in BAD_SIGNUMS:
        attempt(label, signal.signal, bad, signal.SIG_DFL)


def signal_with_numbers_of_a_kind():
    for label, odd in ODD_SIGNUMS:
        attempt(label, signal.signal, odd, signal.SIG_DFL)


def signal_that_the_system_refuses():
    for signum in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
        for handler in (signal.SIG_DFL, signal.SIG_IGN, logger()[1]):
            attempt(signum, signal.signal, signum, handler)
        attempt("then", signal.getsignal, signum)


def signal_with_bad_handlers():
    for label, bad in (
        ("None", None),
        ("2", 2),
        ("-1", -1),
        ("True", True),
        ("False", False),
        ("0.0", 0.0),
        ("1.0", 1.0),
        ("str", "SIG_DFL"),
        ("list", []),
        ("object", object()),
        ("object that is an int", HasInt()),
        ("2**70", 2**70),
    ):
        attempt(label, signal.signal, signal.SIGUSR1, bad)


def signal_reports_the_first_fault():
    attempt("number out of range, bad handler", signal.signal, 0, None)
    attempt("not a number, bad handler", signal.signal, "x", None)
    attempt("refused, bad handler", signal.signal, signal.SIGKILL, None)


def a_failed_call_changes_nothing():
    note = logger()[1]
    signal.signal(signal.SIGUSR1, note)
    for args in ((signal.SIGUSR1, None), (signal.SIGUSR1, "x"), (0, note), (65, note)):
        attempt_type(len(args), signal.signal, *args)
        say(signal.getsignal(signal.SIGUSR1) is note)
    signal.setitimer(signal.ITIMER_REAL, 100, 7)
    for args in ((0, -1), (0, 1, -1), (0, float("nan")), (0, "x"), (9, 1), (0, float("inf"))):
        attempt_type(len(args), signal.setitimer, *args)
        delay, interval = signal.getitimer(signal.ITIMER_REAL)
        say(90 < delay <= 100, interval)
    attempt_type("alarm", signal.alarm, 1.5)
    say(90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100)


def getsignal_with_bad_numbers():
    for label, bad in BAD_SIGNUMS:
        attempt(label, signal.getsignal, bad)
    for label, odd in ODD_SIGNUMS:
        attempt(label, signal.getsignal, odd)


def siginterrupt_with_bad_numbers():
    for label, bad in BAD_SIGNUMS:
        attempt(label, signal.siginterrupt, bad, True)
    for label, odd in ODD_SIGNUMS:
        attempt(label, signal.siginterrupt, odd, True)
    for signum in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
        attempt(signum, signal.siginterrupt, signum, True)
        attempt(signum, signal.siginterrupt, signum, False)


def siginterrupt_with_bad_flags():
    for label, bad in NOT_INTS:
        attempt(label, signal.siginterrupt, signal.SIGUSR1, bad)
    for flag in (True, False, 0, 1, 2, -1, HasInt()):
        attempt("flag", signal.siginterrupt, signal.SIGUSR1, flag)


def alarm_with_bad_times():
    for label, bad in NOT_INTS:
        attempt(label, signal.alarm, bad)
    say(signal.alarm(0))
    for label, odd in ODD_SIGNUMS:
        attempt(label, signal.alarm, odd)
        say("set to", signal.alarm(0))


def alarm_with_a_negative_time():
    # C's alarm() takes an unsigned int: -1 is 136 years.
    say(signal.alarm(-1))
    say(signal.alarm(0) > 10**9)


def setitimer_with_bad_timers():
    for label, bad in NOT_INTS + (("-1", -1), ("3", 3), ("99", 99), ("2**31-1", 2**31 - 1)):
        attempt(label, signal.setitimer, bad, 0)


def setitimer_with_bad_times():
    for label, bad in (
        ("-1", -1),
        ("-0.5", -0.5),
        ("-1e-9", -1e-9),
        ("-1e300", -1e300),
        ("nan", float("nan")),
        ("inf", float("inf")),
        ("-inf", -float("inf")),
        ("1e300", 1e300),
        ("2**70", 2**70),
        ("str", "1"),
        ("None", None),
        ("list", []),
        ("__int__ only", HasInt()),
        ("__index__ only", HasIndex()),
        ("raises", Raises()),
    ):
        attempt(label, signal.setitimer, signal.ITIMER_REAL, bad)
        attempt(label + " as interval", signal.setitimer, signal.ITIMER_REAL, 0, bad)
    say(signal.getitimer(signal.ITIMER_REAL))


def setitimer_with_numbers_of_a_kind():
    for label, odd in (
        ("int", 20),
        ("True", True),
        ("Decimal", decimal.Decimal("20.5")),
        ("__float__", HasFloat()),
        ("-0.0", -0.0),
    ):
        signal.setitimer(signal.ITIMER_REAL, odd, odd)
        delay, interval = signal.setitimer(signal.ITIMER_REAL, 0)
        say(label, interval - 1 < delay <= interval, interval)


def setitimer_with_a_long_time():
    signal.setitimer(signal.ITIMER_REAL, 1e12)
    delay, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    say("more than a century:", delay > 3.2e9, interval)


def getitimer_with_bad_timers():
    for label, bad in NOT_INTS + (("-1", -1), ("3", 3), ("99", 99), ("2**31-1", 2**31 - 1)):
        attempt(label, signal.getitimer, bad)


def set_wakeup_fd_with_bad_fds():
    say(signal.set_wakeup_fd(-1))
    reading, writing = pipe()
    os.close(reading)
    os.close(writing)
    for label, bad in NOT_INTS + (
        ("-2", -2),
        ("closed", writing),
        ("9999999", 9999999),
        ("2**31-1", 2**31 - 1),
    ):
        attempt(label, signal.set_wakeup_fd, bad)
    say("still none:", signal.set_wakeup_fd(-1))


def wrong_counts_of_arguments():
    # The wording is the interpreter's.
    for function in (
        signal.signal,
        signal.getsignal,
        signal.siginterrupt,
        signal.alarm,
        signal.setitimer,
        signal.getitimer,
        signal.set_wakeup_fd,
    ):
        attempt_type(function.__name__, function)
        attempt_type(function.__name__, function, 1, 1, 1, 1)
    attempt_type("signal", signal.signal, 10)
    attempt_type("setitimer", signal.setitimer, 0)
    attempt_type("pause", signal.pause, 1)


def keywords_are_not_taken():
    # The wording is the interpreter's.
    attempt_type("signal", signal.signal, signalnum=10, handler=0)
    attempt_type("getsignal", signal.getsignal, signalnum=10)
    attempt_type("siginterrupt", signal.siginterrupt, signalnum=10, flag=1)
    attempt_type("alarm", signal.alarm, time=0)
    attempt_type("setitimer", signal.setitimer, which=0, seconds=0)
    attempt_type("setitimer", signal.setitimer, 0, 0, interval=0)
    attempt_type("getitimer", signal.getitimer, which=0)
    attempt_type("set_wakeup_fd", signal.set_wakeup_fd, fd=-1)


def functions_return_nothing_where_the_text_says_so():
    say(signal.siginterrupt(signal.SIGALRM, False), signal.siginterrupt(signal.SIGALRM, True))
    signal.signal(signal.SIGALRM, logger()[1])
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    say(signal.pause())
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(0)
