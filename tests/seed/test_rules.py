"""The general rules, at the head of section 17.4."""

import collections
import ctypes
import errno
import operator
import os
import platform
import signal as stdlib
import threading
import time

import pytest

sentence = pytest.mark.sentence
libc = ctypes.CDLL(None, use_errno=True)


def in_a_thread(function):
    """Call the function in another thread; its result, or its exception."""
    outcome = []

    def body():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(20)
    return outcome[0]


@sentence("This module provides mechanisms to use signal handlers in Python.")
def test_a_python_function_is_called_for_a_signal(signal):
    calls = []
    signal.signal(signal.SIGUSR1, lambda signum, frame: calls.append(signum))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert calls == [signal.SIGUSR1]


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGALRM", "SIGCHLD"])
@sentence(
    "A handler for a particular signal, once set, remains installed until it is explicitly reset "
    "(Python emulates the BSD style interface regardless of the underlying implementation), with "
    "the exception of the handler for SIGCHLD, which follows the underlying implementation."
)
def test_a_handler_stays_until_it_is_reset(signal, name):
    # SIGCHLD too: Linux's sigaction, the underlying implementation, keeps every handler.
    number = getattr(signal, name)
    calls = []

    def handler(signum, frame):
        calls.append(signum)

    signal.signal(number, handler)
    for _ in range(3):
        os.kill(os.getpid(), number)
    assert calls == [number] * 3
    assert signal.getsignal(number) is handler
    signal.signal(number, signal.SIG_IGN)
    os.kill(os.getpid(), number)
    assert len(calls) == 3


@sentence(
    "There is no way to « block » signals temporarily from critical sections (since this is not "
    "supported by all Unix flavors)."
)
def test_the_seeds_module_cannot_block(classic):
    # Only the letter: sigwright itself has pthread_sigmask, as Python has had it since 3.3.
    names = set(dir(classic))
    assert names.isdisjoint({"pthread_sigmask", "sigpending", "sigwait", "SIG_BLOCK"})


def through_c_alone(steps):
    """Call each (function, argument) without one instruction of the interpreter in between."""
    functions, arguments = zip(*steps, strict=True)
    collections.deque(map(operator.call, functions, arguments), maxlen=0)


@sentence(
    "Although Python signal handlers are called asynchronously as far as the Python user is "
    "concerned, they can only occur between the « atomic » instructions of the Python interpreter.",
    "This means that signals arriving during long calculations implemented purely in C (such as "
    "regular expression matches on large bodies of text) may be delayed for an arbitrary amount "
    "of time.",
)
def test_a_calculation_in_c_is_not_interrupted(signal, wait_for):
    # raise(3) through PyDLL: it keeps the GIL and, unlike os.kill, does not look for signals
    # itself; so the signal has arrived in the middle, and its handler must wait for the end.
    send = ctypes.PyDLL(None)["raise"]
    log, lengths = [], []
    signal.signal(signal.SIGUSR1, lambda signum, frame: lengths.append(len(log)))
    half = [(log.append, None)] * 1000
    through_c_alone([*half, (send, int(signal.SIGUSR1)), *half])
    wait_for(lambda: lengths)
    assert lengths == [2000]


@sentence(
    "When a signal arrives during an I/O operation, it is possible that the I/O operation raises "
    "an exception after the signal handler returns."
)
def test_an_exception_ends_an_io_operation(signal):
    # Since PEP 475 the interpreter retries the operation, unless the handler itself raised.
    def handler(signum, frame):
        raise OSError("stop waiting")

    reader, writer = os.pipe()
    try:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(OSError, match="stop waiting"):
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


@sentence(
    "This is dependent on the underlying Unix system’s semantics regarding interrupted system "
    "calls."
)
def test_the_system_call_underneath_is_interrupted(signal):
    calls = []
    signal.signal(signal.SIGALRM, lambda signum, frame: calls.append(signum))
    reader, writer = os.pipe()
    try:
        # It repeats, so that one tick at least falls into the read.
        signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
        result = libc.read(reader, ctypes.create_string_buffer(1), 1)
        error = ctypes.get_errno()
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        os.close(reader)
        os.close(writer)
    assert (result, error) == (-1, errno.EINTR)
    assert calls


@sentence(
    "Because the C signal handler always returns, it makes little sense to catch synchronous "
    "errors like SIGFPE or SIGSEGV."
)
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("SIGSEGV", "ctypes.string_at(0)"),
        pytest.param(
            "SIGFPE",
            "ctypes.CDLL(None).div(1, 0)",
            marks=pytest.mark.skipif(
                platform.machine() not in ("x86_64", "AMD64", "i686"),
                reason="only x86 processors trap an integer division by zero",
            ),
        ),
    ],
)
def test_a_synchronous_error_kills_where_the_same_signal_sent_is_handled(signal, run, name, fault):
    # A C handler that returns to the faulting instruction faults again, for ever; it makes so
    # little sense that sigwright lets the process die by its error.
    number = getattr(signal, name)
    status, output, errors = run(
        f"""
import ctypes, os
signal.signal(signal.{name}, lambda signum, frame: print("handled", int(signum), flush=True))
os.kill(os.getpid(), signal.{name})
{fault}
print("survived", flush=True)
""",
        timeout=8,
    )
    assert output == f"handled {int(number)}\n"
    assert status == -number, errors


@sentence(
    "Python installs a small number of signal handlers by default: SIGPIPE is ignored (so write "
    "errors on pipes and sockets can be reported as ordinary Python exceptions) and SIGINT is "
    "translated into a KeyboardInterrupt exception."
)
def test_the_handlers_set_by_default(run):
    status, output, errors = run(
        """
import os
print(signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN)
reader, writer = os.pipe()
os.close(reader)
try:
    os.write(writer, b"x")
except OSError as error:
    print(type(error).__name__)
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""
    )
    assert output.splitlines() == ["True", "BrokenPipeError", "KeyboardInterrupt"]
    assert status == 0, errors


@sentence("All of these can be overridden.")
def test_the_handlers_set_by_default_can_be_overridden(run):
    status, output, errors = run(
        """
import os
signal.signal(signal.SIGINT, lambda signum, frame: print("SIGINT handled", flush=True))
os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
reader, writer = os.pipe()
os.close(reader)
os.write(writer, b"x")
print("survived")
"""
    )
    assert output == "SIGINT handled\n"
    assert status == -stdlib.SIGPIPE, errors


@sentence(
    "The fundamental thing to remember in using signals and threads simultaneously is: always "
    "perform signal() operations in the main thread of execution."
)
def test_a_handler_is_set_in_the_main_thread_or_not_at_all(signal):
    before = signal.getsignal(signal.SIGUSR1)
    outcome = in_a_thread(lambda: signal.signal(signal.SIGUSR1, lambda signum, frame: None))
    assert isinstance(outcome, ValueError)
    assert signal.getsignal(signal.SIGUSR1) == before


@sentence(
    "Any thread can perform an alarm(), getsignal(), pause(), setitimer() or getitimer(); only "
    "the main thread can set a new signal handler, and the main thread will be the only one to "
    "receive signals (this is enforced by the Python signal module, even if the underlying thread "
    "implementation supports sending signals to individual threads).",
    "This means that signals can’t be used as a means of inter-thread communication.",
)
def test_any_thread_may_ask_but_only_the_main_thread_receives(signal, wait_for):
    receivers = []

    def handler(signum, frame):
        receivers.append((signum, threading.current_thread()))

    signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGALRM, handler)
    assert in_a_thread(lambda: signal.getsignal(signal.SIGUSR1)) is handler
    assert in_a_thread(lambda: signal.alarm(100)) == 0
    assert in_a_thread(lambda: signal.alarm(0)) in (99, 100)
    assert in_a_thread(lambda: signal.setitimer(signal.ITIMER_REAL, 0.02)) == (0.0, 0.0)
    assert in_a_thread(lambda: len(signal.getitimer(signal.ITIMER_REAL))) == 2
    assert isinstance(
        in_a_thread(lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)), ValueError
    )

    # A signal sent to this very thread ends its pause(), yet its handler runs in the main thread.
    paused = threading.Event()

    def pause():
        paused.set()
        signal.pause()

    worker = threading.Thread(target=pause)
    worker.start()
    assert paused.wait(20)
    deadline = time.monotonic() + 20
    while worker.is_alive() and time.monotonic() < deadline:
        stdlib.pthread_kill(worker.ident, signal.SIGUSR1)
        worker.join(0.02)
    assert not worker.is_alive()
    wait_for(lambda: {signal.SIGUSR1, signal.SIGALRM} <= {number for number, _ in receivers})
    assert {thread for _, thread in receivers} == {threading.main_thread()}
