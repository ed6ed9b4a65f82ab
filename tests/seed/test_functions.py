"""The functions that section 17.4 lists."""

import ctypes
import errno
import os
import select
import signal as stdlib
import threading
import time
import types

import pytest

sentence = pytest.mark.sentence
libc = ctypes.CDLL(None, use_errno=True)


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture
def pipe():
    """Both ends of a pipe that does not block."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


# --- alarm ---------------------------------------------------------------------------------------


@sentence(
    "If time is non-zero, this function requests that a SIGALRM signal be sent to the process in "
    "time seconds.",
    "Availability: Unix.",
)
def test_alarm_sends_sigalrm(signal, wait_for):
    calls = []
    signal.signal(signal.SIGALRM, lambda signum, frame: calls.append((signum, time.monotonic())))
    began = time.monotonic()
    assert signal.alarm(1) == 0
    wait_for(lambda: calls)
    assert calls[0][0] == signal.SIGALRM
    assert calls[0][1] - began >= 1 - 0.01


@sentence(
    "Any previously scheduled alarm is canceled (only one alarm can be scheduled at any time).",
    "The returned value is then the number of seconds before any previously set alarm was to have "
    "been delivered.",
    "If time is zero, no alarm is scheduled, and any scheduled alarm is canceled.",
    "If the return value is zero, no alarm is currently scheduled.",
)
def test_there_is_one_alarm(signal):
    # The remainder is in whole seconds, rounded by the system.
    assert signal.alarm(1000) == 0
    assert signal.alarm(500) in (999, 1000)
    assert 499 <= signal.getitimer(signal.ITIMER_REAL)[0] <= 500
    assert signal.alarm(0) in (499, 500)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.alarm(0) == 0


# --- getsignal -----------------------------------------------------------------------------------


@sentence(
    "Return the current signal handler for the signal signalnum.",
    "The returned value may be a callable Python object, or one of the special values "
    "signal.SIG_IGN, signal.SIG_DFL or None.",
)
def test_getsignal_returns_what_is_set(signal):
    def handler(signum, frame):
        pass

    for value in (handler, signal.SIG_IGN, signal.SIG_DFL):
        signal.signal(signal.SIGUSR1, value)
        assert signal.getsignal(signal.SIGUSR1) == value
    assert signal.SIG_IGN != signal.SIG_DFL
    assert not callable(signal.SIG_IGN) and not callable(signal.SIG_DFL)


@sentence(
    "Here, signal.SIG_IGN means that the signal was previously ignored, signal.SIG_DFL means that "
    "the default way of handling the signal was previously in use, and None means that the "
    "previous signal handler was not installed from Python."
)
def test_getsignal_reports_what_was_there_before_python(run):
    # The parent ignores SIGUSR1, which a new program inherits; -X faulthandler sets a C handler
    # for SIGSEGV before any module is loaded.
    inherited = stdlib.signal(stdlib.SIGUSR1, stdlib.SIG_IGN)
    try:
        status, output, errors = run(
            """
print(signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN)
print(signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL)
print(signal.getsignal(signal.SIGSEGV))
""",
            options=["-X", "faulthandler"],
        )
    finally:
        stdlib.signal(stdlib.SIGUSR1, inherited)
    assert (status, output.split()) == (0, ["True", "True", "None"]), errors


# --- pause ---------------------------------------------------------------------------------------


@sentence(
    "Cause the process to sleep until a signal is received; the appropriate handler will then be "
    "called.",
    "Returns nothing.",
)
def test_pause(signal):
    calls = []
    signal.signal(signal.SIGALRM, lambda signum, frame: calls.append(signum))
    # It repeats: a single one might come before pause() on a busy machine.
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    assert signal.pause() is None
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert calls and set(calls) == {signal.SIGALRM}


# --- setitimer and getitimer ---------------------------------------------------------------------


@sentence(
    "signal.setitimer(which, seconds[, interval])",
    "Sets given interval timer (one of signal.ITIMER_REAL, signal.ITIMER_VIRTUAL or "
    "signal.ITIMER_PROF) specified by which to fire after seconds (float is accepted, different "
    "from alarm()) and after that every interval seconds.",
    "When an interval timer fires, a signal is sent to the process.",
    "The signal sent is dependent on the timer being used; signal.ITIMER_REAL will deliver "
    "SIGALRM, signal.ITIMER_VIRTUAL sends SIGVTALRM, and signal.ITIMER_PROF will deliver SIGPROF.",
    "Availability: Unix.",
)
@pytest.mark.parametrize(
    ("timer", "name"),
    [("ITIMER_REAL", "SIGALRM"), ("ITIMER_VIRTUAL", "SIGVTALRM"), ("ITIMER_PROF", "SIGPROF")],
)
def test_setitimer_fires_once_and_then_at_its_interval(signal, timer, name):
    which, number = getattr(signal, timer), getattr(signal, name)
    calls = []
    signal.signal(number, lambda signum, frame: calls.append(signum))

    def work_until(count):
        deadline = time.monotonic() + 20
        while len(calls) < count and time.monotonic() < deadline:
            sum(range(1000))

    signal.setitimer(which, 0.01)
    work_until(1)
    assert signal.getitimer(which) == (0.0, 0.0)  # no interval: it does not fire again
    signal.setitimer(which, 0.01, 0.02)
    work_until(4)
    signal.setitimer(which, 0)
    assert len(calls) >= 4 and set(calls) == {number}
    with pytest.raises(TypeError):
        signal.alarm(0.5)


@sentence("The interval timer specified by which can be cleared by setting seconds to zero.")
def test_setitimer_clears_with_zero(signal):
    calls = []
    signal.signal(signal.SIGALRM, lambda signum, frame: calls.append(signum))
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    signal.setitimer(signal.ITIMER_REAL, 0, 0.2)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
    time.sleep(0.3)
    assert calls == []


@sentence("The old values are returned as a tuple: (delay, interval).")
def test_setitimer_returns_the_old_values(signal):
    assert signal.setitimer(signal.ITIMER_REAL, 1000.5, 7.25) == (0.0, 0.0)
    old = signal.setitimer(signal.ITIMER_REAL, 0)
    assert type(old) is tuple and len(old) == 2
    delay, interval = old
    assert 990 < delay <= 1000.5 and interval == 7.25


@sentence("Attempting to pass an invalid interval timer will cause an ItimerError.")
@pytest.mark.parametrize("which", [-1, 3, 99])
def test_setitimer_refuses_an_invalid_timer(signal, which):
    with pytest.raises(signal.ItimerError) as caught:
        signal.setitimer(which, 0)
    assert caught.value.errno == errno.EINVAL


@sentence(
    "Returns current value of a given interval timer specified by which.",
    "Availability: Unix.",
)
@pytest.mark.parametrize("name", ["ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"])
def test_getitimer(signal, name):
    which = getattr(signal, name)
    assert signal.getitimer(which) == (0.0, 0.0)
    signal.setitimer(which, 1000, 12.5)
    delay, interval = signal.getitimer(which)
    assert 990 < delay <= 1000.1 and interval == 12.5  # the processor's timers round up to a tick


# --- set_wakeup_fd -------------------------------------------------------------------------------


@sentence("Set the wakeup fd to fd.")
def test_a_byte_for_each_signal(signal, pipe):
    signal.signal(signal.SIGUSR1, lambda signum, frame: None)
    signal.set_wakeup_fd(pipe[1])
    send(signal.SIGUSR1)
    send(signal.SIGUSR1)
    assert len(os.read(pipe[0], 100)) == 2


@sentence(r"When a signal is received, a '\0' byte is written to the fd.")
def test_the_byte_is_zero(classic, pipe):
    # Only the letter: since Python 3.3, and so in sigwright, the byte is the signal's number.
    classic.signal(classic.SIGUSR1, lambda signum, frame: None)
    classic.set_wakeup_fd(pipe[1])
    send(classic.SIGUSR1)
    assert os.read(pipe[0], 100) == b"\0"


@sentence(
    "This can be used by a library to wakeup a poll or select call, allowing the signal to be "
    "fully processed.",
    "It is up to the library to remove any bytes from fd before calling poll or select again.",
)
def test_it_wakes_a_select(signal, pipe, wait_for):
    calls = []
    signal.signal(signal.SIGALRM, lambda signum, frame: calls.append(signum))
    signal.set_wakeup_fd(pipe[1])
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    began = time.monotonic()
    assert select.select([pipe[0]], [], [], 20)[0] == [pipe[0]]
    assert time.monotonic() - began < 10
    wait_for(lambda: calls)
    assert calls == [signal.SIGALRM]
    # Nobody has removed the byte, so the next select returns at once; then it would wait.
    assert select.select([pipe[0]], [], [], 0)[0] == [pipe[0]]
    os.read(pipe[0], 1)
    assert select.select([pipe[0]], [], [], 0)[0] == []


@sentence(
    "The old wakeup fd is returned (or -1 if file descriptor wakeup was not enabled).",
    "If fd is -1, file descriptor wakeup is disabled.",
)
def test_the_old_fd_is_returned(signal, pipe):
    signal.signal(signal.SIGUSR1, lambda signum, frame: None)
    assert signal.set_wakeup_fd(-1) == -1
    assert signal.set_wakeup_fd(pipe[1]) == -1
    assert signal.set_wakeup_fd(pipe[1]) == pipe[1]
    assert signal.set_wakeup_fd(-1) == pipe[1]
    send(signal.SIGUSR1)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 1)


@sentence("If not -1, fd must be non-blocking.")
def test_the_fd_must_not_block(signal, form, pipe):
    os.set_blocking(pipe[1], True)
    if form == "classic":  # 2.7 leaves it to the caller, so the letter of the seed does too
        assert signal.set_wakeup_fd(pipe[1]) == -1
    else:
        with pytest.raises(ValueError, match="must be in non-blocking mode"):
            signal.set_wakeup_fd(pipe[1])
        assert signal.set_wakeup_fd(-1) == -1


def value_error_in_a_thread(function, *arguments):
    """Whether the function raises ValueError when another thread calls it."""
    outcome = []

    def body():
        try:
            function(*arguments)
        except ValueError as error:
            outcome.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(20)
    return len(outcome) == 1


@sentence(
    "When threads are enabled, this function can only be called from the main thread; attempting "
    "to call it from other threads will cause a ValueError exception to be raised."
)
def test_set_wakeup_fd_belongs_to_the_main_thread(signal, pipe):
    assert value_error_in_a_thread(signal.set_wakeup_fd, pipe[1])
    assert value_error_in_a_thread(signal.set_wakeup_fd, -1)
    assert signal.set_wakeup_fd(-1) == -1


# --- siginterrupt --------------------------------------------------------------------------------


def read_under_signals(signal):
    """read(2) from a pipe that gets its byte after 0.4 s, under a SIGALRM each 0.05 s.

    Through ctypes, because os.read restarts by itself (PEP 475) whatever the system does.
    """
    reader, writer = os.pipe()
    late = threading.Timer(0.4, os.write, (writer, b"x"))
    late.start()
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    result = libc.read(reader, ctypes.create_string_buffer(1), 1)
    error = ctypes.get_errno() if result < 0 else None
    signal.setitimer(signal.ITIMER_REAL, 0)
    late.join()
    os.close(reader)
    os.close(writer)
    return "interrupted" if error == errno.EINTR else "restarted" if result == 1 else error


@sentence(
    "signal.siginterrupt(signalnum, flag)",
    "Change system call restart behaviour: if flag is False, system calls will be restarted when "
    "interrupted by signal signalnum, otherwise system calls will be interrupted.",
    "Returns nothing.",
    "Availability: Unix (see the man page siginterrupt(3) for further information).",
)
def test_siginterrupt(signal):
    calls = []
    signal.signal(signal.SIGALRM, lambda signum, frame: calls.append(signum))
    assert signal.siginterrupt(signal.SIGALRM, False) is None
    assert read_under_signals(signal) == "restarted"
    assert calls, "the signals arrived, and did not interrupt"
    assert signal.siginterrupt(signal.SIGALRM, True) is None
    assert read_under_signals(signal) == "interrupted"


@sentence(
    "Note that installing a signal handler with signal() will reset the restart behaviour to "
    "interruptible by implicitly calling siginterrupt() with a true flag value for the given "
    "signal."
)
def test_signal_makes_interruptible_again(signal):
    def handler(signum, frame):
        pass

    signal.signal(signal.SIGALRM, handler)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.signal(signal.SIGALRM, handler)
    assert read_under_signals(signal) == "interrupted"


# --- signal --------------------------------------------------------------------------------------


@sentence(
    "signal.signal(signalnum, handler)",
    "Set the handler for signal signalnum to the function handler.",
    "handler can be a callable Python object taking two arguments (see below), or one of the "
    "special values signal.SIG_IGN or signal.SIG_DFL.",
    "The previous signal handler will be returned (see the description of getsignal() above).",
)
def test_signal_returns_the_previous_handler(signal):
    calls = []

    class Callable:
        def __call__(self, signum, frame):
            calls.append(signum)

    first, second = Callable(), calls.append
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert signal.signal(signal.SIGUSR1, first) == signal.SIG_DFL
    send(signal.SIGUSR1)
    assert calls == [signal.SIGUSR1]
    assert signal.signal(signal.SIGUSR1, signal.SIG_IGN) is first
    assert signal.signal(signal.SIGUSR1, second) == signal.SIG_IGN
    assert signal.signal(signal.SIGUSR1, signal.SIG_DFL) == second
    with pytest.raises(TypeError):
        signal.signal(signal.SIGUSR1, "not callable")


@sentence(
    "When threads are enabled, this function can only be called from the main thread; attempting "
    "to call it from other threads will cause a ValueError exception to be raised."
)
def test_signal_belongs_to_the_main_thread(signal):
    before = signal.getsignal(signal.SIGUSR1)
    assert value_error_in_a_thread(signal.signal, signal.SIGUSR1, lambda signum, frame: None)
    assert value_error_in_a_thread(signal.signal, signal.SIGUSR1, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGUSR1) == before


@sentence(
    "The handler is called with two arguments: the signal number and the current stack frame (None "
    "or a frame object; for a description of frame objects, see the description in the type "
    "hierarchy or see the attribute descriptions in the inspect module)."
)
def test_the_handlers_arguments(signal):
    calls = []
    signal.signal(signal.SIGUSR1, lambda *arguments: calls.append(arguments))
    send(signal.SIGUSR1)
    ((number, frame),) = calls
    assert number == signal.SIGUSR1
    assert isinstance(frame, types.FrameType)
    # The frame that was interrupted: here, or in the little function that sent the signal.
    assert frame.f_code.co_name in ("send", "test_the_handlers_arguments")
