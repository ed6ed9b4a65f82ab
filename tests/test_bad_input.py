"""Bad input: the exception of the stdlib's function on the same input, and nothing changed.

Each call goes to sigwright and then to the stdlib's own function, in the same process.  The
strategies are kept to what cannot harm the process that runs them:

* each input has one argument, at least, that the stdlib refuses; nothing is sent, waited for or
  armed, and a call that is let through shows as a failure, not as a death;
* numbers for raise_signal(), pthread_kill() and pidfd_send_signal() are ones that no system has:
  32 and 33, which are glibc's own, would reach its handlers;
* thread ids are our own or not numbers at all: pthread_kill() may crash on an invented one, and
  3.14's goes on with one when __index__ raises;
* the three functions that wait get a bad set, or a bad time-out; pause() only wrong arguments.
"""

import functools
import inspect
import os
import signal as stdlib
import socket
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sigwright

# --- what is there to be changed -----------------------------------------------------------------

FDS = {}
TIMERS = (stdlib.ITIMER_REAL, stdlib.ITIMER_VIRTUAL, stdlib.ITIMER_PROF)


def handler(signum, frame):
    """Any handler: no signal is sent here."""


@pytest.fixture(autouse=True, scope="module")
def something_to_lose():
    """Handlers, a mask, timers and a wakeup fd, so that a change of any of them shows."""
    assert stdlib.alarm.__module__ == "_signal", "sigwright stands in: it would match itself"
    in_a_thread(int)  # with its first thread, glibc sets a handler of its own, for 33
    before = {n: sigwright.getsignal(n) for n in (stdlib.SIGUSR1, stdlib.SIGUSR2, stdlib.SIGHUP)}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    read_end, write_end = os.pipe()
    closed = os.dup(read_end)
    os.close(closed)
    with tempfile.TemporaryFile() as file, reader, writer:
        FDS.update(good=writer.fileno(), pipe=write_end, file=file.fileno(), closed=closed)
        FDS["pidfd"] = os.pidfd_open(os.getpid())
        sigwright.signal(stdlib.SIGUSR1, handler)
        sigwright.signal(stdlib.SIGUSR2, stdlib.SIG_IGN)
        sigwright.signal(stdlib.SIGHUP, stdlib.SIG_DFL)
        mask = sigwright.pthread_sigmask(stdlib.SIG_BLOCK, [stdlib.SIGWINCH])
        for timer in TIMERS:
            sigwright.setitimer(timer, 10_000, 500)
        sigwright.set_wakeup_fd(writer.fileno())
        yield
        sigwright.set_wakeup_fd(-1)
        for timer in TIMERS:
            sigwright.setitimer(timer, 0)
        sigwright.pthread_sigmask(stdlib.SIG_SETMASK, mask)
        for number, old in before.items():
            sigwright.signal(number, old)
    for fd in (read_end, write_end, FDS["pidfd"]):
        os.close(fd)


def wakeup_fd(module):
    fd = module.set_wakeup_fd(-1)
    if fd != -1:
        module.set_wakeup_fd(fd)
    return fd


def state():
    """All that a bad call could have changed, as both modules and as the kernel see it."""
    kernel = Path("/proc/self/status").read_text()
    return {
        "handlers": [sigwright.getsignal(n) for n in range(1, sigwright.NSIG)],
        "the stdlib's handlers": [stdlib.getsignal(n) for n in range(1, stdlib.NSIG)],
        "kernel": [
            line for line in kernel.splitlines() if line[:6] in ("SigBlk", "SigIgn", "SigCgt")
        ],
        "mask": sigwright.pthread_sigmask(stdlib.SIG_BLOCK, []),
        "timers": [(delay > 9_000, interval) for delay, interval in map(stdlib.getitimer, TIMERS)],
        "wakeup fds": (wakeup_fd(sigwright), wakeup_fd(stdlib)),
    }


# --- bad values ----------------------------------------------------------------------------------


class BadIndex:
    """An integer that raises when it is asked for its value."""

    def __index__(self):
        raise ZeroDivisionError("no value")

    def __repr__(self):
        return "BadIndex()"


class BadBool:
    def __bool__(self):
        raise ZeroDivisionError("no truth")

    def __repr__(self):
        return "BadBool()"


def broken_iterable():
    yield stdlib.SIGUSR1
    raise ZeroDivisionError("no more")


# Not digits, whose text some versions of the stdlib take for a number, and no finite float.
not_a_number = st.one_of(
    st.none(),
    st.text(st.sampled_from("abcXYZ -é"), max_size=8),
    st.binary(max_size=4).map(lambda data: b"x" + data),
    st.just(float("nan")),
    st.complex_numbers(max_magnitude=100),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
    st.builds(object),
)
not_an_integer = st.one_of(not_a_number, st.floats(-1e6, 1e6), st.builds(BadIndex))
too_big_for_c = st.one_of(st.integers(min_value=2**63), st.integers(max_value=-(2**63) - 1))
above_every_signal = st.integers(stdlib.NSIG, 2**31 - 1)
below_every_signal = st.integers(-(2**31), -1)
no_such_signal = st.one_of(above_every_signal, below_every_signal)
not_settable = st.sampled_from([stdlib.SIGKILL, stdlib.SIGSTOP, 0, 32, 33])
number = st.sampled_from([stdlib.SIGUSR1, stdlib.SIGUSR2, stdlib.SIGHUP, 10, stdlib.SIGRTMIN])
bad_number = st.one_of(not_an_integer, too_big_for_c, no_such_signal)
which = st.sampled_from(TIMERS)
bad_which = st.one_of(
    not_an_integer, too_big_for_c, st.integers(3, 2**31 - 1), st.integers(-(2**31), -1)
)
seconds = st.just(10_000)
bad_seconds = st.one_of(
    not_a_number,
    st.floats(max_value=-1e-3, allow_nan=False),
    st.integers(max_value=-1),
    st.floats(min_value=1e20, allow_nan=False),
    st.integers(min_value=2**63),
)
good_set = st.just({stdlib.SIGUSR1})
bad_set = st.one_of(
    not_a_number.filter(lambda value: not isinstance(value, (list, dict, str)) or len(value)),
    st.integers(),
    st.lists(bad_number, min_size=1, max_size=3),
    st.tuples(number, bad_number),
    st.just([0]),
    st.builds(broken_iterable),
)
bad_fd = st.one_of(
    not_an_integer,
    too_big_for_c,
    st.integers(-(2**31), -2),
    st.integers(2**30, 2**31 - 1),
    st.sampled_from(["closed", "pipe", "file"]).map(FDS.get),
)
good_handler = st.sampled_from([handler, print, stdlib.SIG_DFL, stdlib.SIG_IGN])
bad_handler = st.one_of(not_a_number, st.integers(2, 1000), st.integers(max_value=-1))
own_thread = st.builds(threading.get_ident)
pidfd = st.builds(lambda: FDS["pidfd"])

# For each function, tuples of arguments of which one at least is bad.
BAD_ARGUMENTS = {
    "signal": st.one_of(
        st.tuples(bad_number.filter(lambda n: not isinstance(n, float)), good_handler),
        st.tuples(not_settable, good_handler),
        st.tuples(number, bad_handler),
        st.tuples(not_settable, bad_handler),
    ),
    "getsignal": st.tuples(
        st.one_of(not_a_number, too_big_for_c, no_such_signal, st.just(0), st.builds(BadIndex))
    ),
    "alarm": st.tuples(st.one_of(not_an_integer, too_big_for_c)),
    "setitimer": st.one_of(
        st.tuples(bad_which, seconds),
        st.tuples(bad_which, seconds, seconds),
        st.tuples(which, bad_seconds),
        st.tuples(which, bad_seconds, seconds),
        st.tuples(which, seconds, bad_seconds),
        st.tuples(bad_which, bad_seconds, bad_seconds),
    ),
    "getitimer": st.tuples(bad_which),
    "pause": st.tuples(not_an_integer),
    "set_wakeup_fd": st.tuples(bad_fd),
    "siginterrupt": st.one_of(
        st.tuples(bad_number, st.booleans()),
        st.tuples(not_settable, st.booleans()),
        st.tuples(number, st.one_of(not_an_integer, too_big_for_c)),
    ),
    "raise_signal": st.tuples(bad_number),
    "strsignal": st.tuples(st.one_of(bad_number, st.just(0))),
    "valid_signals": st.tuples(not_an_integer),
    "pthread_kill": st.one_of(
        st.tuples(own_thread, bad_number),
        st.tuples(st.one_of(not_a_number, st.floats(-1e6, 1e6)), number),
    ),
    "pthread_sigmask": st.one_of(
        st.tuples(st.sampled_from(stdlib.Sigmasks), bad_set),
        st.tuples(st.one_of(not_an_integer, too_big_for_c, st.integers(3, 99)), good_set),
        st.tuples(st.one_of(not_an_integer, st.integers(3, 99)), bad_set),
    ),
    "sigpending": st.tuples(not_an_integer),
    "sigwait": st.tuples(bad_set),
    "sigwaitinfo": st.tuples(bad_set),
    "sigtimedwait": st.one_of(
        st.tuples(bad_set, seconds),
        st.tuples(good_set, bad_seconds),
        st.tuples(bad_set, bad_seconds),
    ),
    "pidfd_send_signal": st.one_of(
        st.tuples(st.one_of(not_an_integer, too_big_for_c, st.integers(2**30, 2**31 - 1)), number),
        st.tuples(pidfd, bad_number),
        st.tuples(pidfd, st.just(0), st.one_of(st.text(), st.integers(), st.builds(object))),
        st.tuples(pidfd, st.just(0), st.none(), not_an_integer),
        st.tuples(pidfd, st.just(0), st.none(), st.sampled_from([2**16, 2**20, 2**30])),
    ),
}
# default_int_handler is the stdlib's own object.
FUNCTIONS = [
    name
    for name in dir(stdlib)
    if inspect.isroutine(getattr(stdlib, name))
    and not name.startswith("_")
    and name != "default_int_handler"
]


# --- the comparison ------------------------------------------------------------------------------


def outcome(function, arguments):
    """The exception: its type, and its message where that is the module's own."""
    try:
        result = function(*arguments)
    except (TypeError, OverflowError) as error:
        # The words of whatever converts the arguments, which change from version to version;
        # but the two below are the module's.
        own = str(error).startswith(("signal handler must be", "siginfo must be"))
        return type(error), str(error) if own else None
    except Exception as error:
        return type(error), str(error)
    return "returned", result


def in_a_thread(function):
    """The function's result, from another thread."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def fresh(arguments):
    """A generator can be used up only once: each module gets one of its own."""
    return tuple(broken_iterable() if inspect.isgenerator(a) else a for a in arguments)


def compare(name, arguments, where):
    before = state()
    ours = where(functools.partial(outcome, getattr(sigwright, name), fresh(arguments)))
    assert state() == before
    theirs = where(functools.partial(outcome, getattr(stdlib, name), fresh(arguments)))
    assert theirs[0] != "returned", "the stdlib takes this: no bad input"
    assert ours == theirs


some = settings(
    max_examples=60,
    deadline=None,  # a thread or a garbage collection may take its time
    derandomize=True,  # the same inputs in every run
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_no_function_is_forgotten():
    assert sorted(BAD_ARGUMENTS) == sorted(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
@some
@given(data=st.data())
def test_bad_arguments(name, data):
    compare(name, data.draw(BAD_ARGUMENTS[name]), where=lambda call: call())


@pytest.mark.parametrize("name", FUNCTIONS)
@some
@given(data=st.data())
def test_bad_arguments_in_another_thread(name, data):
    compare(name, data.draw(BAD_ARGUMENTS[name]), where=in_a_thread)


@some
@given(arguments=st.tuples(number, good_handler))
def test_signal_in_another_thread(arguments):
    compare("signal", arguments, where=in_a_thread)


@pytest.mark.parametrize("fd", ["good", "none"])
def test_set_wakeup_fd_in_another_thread(fd):
    compare("set_wakeup_fd", (FDS.get(fd, -1),), where=in_a_thread)


@pytest.mark.parametrize("number", [32, 33])
@pytest.mark.parametrize("module", [sigwright, stdlib], ids=["sigwright", "stdlib"])
def test_a_set_with_a_number_that_is_glibcs_own(module, number):
    # A warning, no error: programs say range(1, NSIG).
    before = state()
    expected = rf"invalid signal number {number}, please use valid_signals\(\)"
    with pytest.warns(RuntimeWarning, match=expected):
        module.pthread_sigmask(stdlib.SIG_BLOCK, [number])
    assert state() == before


@pytest.mark.parametrize("module", [sigwright, stdlib], ids=["sigwright", "stdlib"])
def test_an_option_without_a_truth_value(module):
    before = state()
    with pytest.raises(ZeroDivisionError):
        module.set_wakeup_fd(FDS["good"], warn_on_full_buffer=BadBool())
    assert state() == before


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_wrong_number_of_arguments(name):
    # The type only: the words are those of whatever parses the arguments.
    before = state()
    # No function takes five; and those that can be called without any would wait, or return.
    for arguments in [(None,) * 5, *([()] if name not in CALLED_WITH_NOTHING else [])]:
        for module in (sigwright, stdlib):
            with pytest.raises(TypeError):
                getattr(module, name)(*arguments)
    for module in (sigwright, stdlib):
        with pytest.raises(TypeError):
            getattr(module, name)(no_such_argument=1)
    assert state() == before


CALLED_WITH_NOTHING = {"pause", "sigpending", "valid_signals"}
