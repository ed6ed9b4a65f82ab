"""sigqueue(): a value for whoever listens."""

import ctypes
import os
import subprocess
import sys
import threading

import pytest

import programs
import sigwright as signal

REALTIME = signal.SIGRTMIN + 3
PREAMBLE = "import os, sys, threading, time\nimport sigwright as signal\n"


def execute(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return programs.run(PREAMBLE, source, arguments=arguments)


def run(source: str, *arguments: object) -> str:
    return programs.succeed(PREAMBLE, source, arguments=arguments)


class Fields(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_int), ("uid", ctypes.c_uint), ("value", ctypes.c_void_p)]


class Siginfo(ctypes.Structure):
    """siginfo_t, as the C library declares it: what arrives is read without the engine."""

    _fields_ = [
        ("signo", ctypes.c_int),
        ("errno", ctypes.c_int),
        ("code", ctypes.c_int),
        ("fields", Fields),
        ("rest", ctypes.c_char * 128),
    ]


def take(signum):
    """One pending signal: its origin, the sender, and both views of its value."""
    libc = ctypes.CDLL(None, use_errno=True)
    info, sigset = Siginfo(), (ctypes.c_ulong * 16)()
    sigset[(signum - 1) // (8 * ctypes.sizeof(ctypes.c_ulong))] = 1 << (
        (signum - 1) % (8 * ctypes.sizeof(ctypes.c_ulong))
    )
    assert libc.sigwaitinfo(sigset, ctypes.byref(info)) == signum
    pointer = info.fields.value or 0
    return info.code, info.fields.pid, ctypes.c_int(pointer & 0xFFFFFFFF).value, pointer


@pytest.mark.usefixtures("arrived")
def test_values_arrive_in_order_from_another_process_with_its_number():
    values = [0, 1, -1, 2**31 - 1, -(2**31), *range(100)]
    signal.pthread_sigmask(signal.SIG_BLOCK, [REALTIME])
    code = (
        "import sys, sigwright\n"
        "for v in sys.argv[3:]: sigwright.sigqueue(*map(int, sys.argv[1:3]), int(v))"
    )
    sender = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, [os.getpid(), int(REALTIME), *values])]
    )
    taken = [take(REALTIME) for _ in values]
    assert sender.wait() == 0
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [REALTIME])
    si_queue = -1
    assert [(code, pid, value) for code, pid, value, _ in taken] == [
        (si_queue, sender.pid, value) for value in values
    ]
    # No stray bytes beyond the int.
    assert [pointer for *_, pointer in taken] == [value & 0xFFFFFFFF for value in values]


@pytest.mark.usefixtures("arrived")
def test_the_value_is_0_unless_said():
    signal.pthread_sigmask(signal.SIG_BLOCK, [REALTIME])
    signal.sigqueue(os.getpid(), REALTIME)
    assert take(REALTIME)[1:] == (os.getpid(), 0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [REALTIME])


def test_sent_to_oneself_the_handler_has_run(arrived):
    for signum in (signal.SIGUSR1, REALTIME):
        signal.sigqueue(os.getpid(), signum, 5)
        assert arrived.pop() == signum


@pytest.mark.usefixtures("arrived")
def test_sent_to_oneself_what_the_handler_raises_comes_from_the_call():
    def handler(signum, frame):
        raise KeyError(signum)

    signal.signal(signal.SIGUSR1, handler)
    with pytest.raises(KeyError):
        signal.sigqueue(os.getpid(), signal.SIGUSR1)


def test_a_worker_sends_to_the_process_and_the_main_thread_handles(arrived):
    thread = threading.Thread(target=signal.sigqueue, args=(os.getpid(), REALTIME, 1))
    thread.start()
    thread.join()
    assert arrived == [REALTIME]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        ((0,), TypeError),
        (("own", signal.SIGUSR1, 1, 1), TypeError),
        (("own", signal.SIGUSR1, 1.0), TypeError),
        (("own", signal.SIGUSR1, None), TypeError),
        (("own", "SIGUSR1"), TypeError),
        (("own", 10.0), TypeError),
        ((1.0, signal.SIGUSR1), TypeError),
        (("own", signal.SIGUSR1, 2**31), OverflowError),
        (("own", signal.SIGUSR1, -(2**31) - 1), OverflowError),
        (("own", 2**31), OverflowError),
        ((2**31, signal.SIGUSR1), OverflowError),
        (("own", -1), ValueError),
        (("own", signal.NSIG), ValueError),
        ((0, signal.SIGUSR1), ValueError),  # to kill(): the own group
        ((-1, 0), ValueError),  # to kill(): every process that there is
        (("group", signal.SIGUSR1), ValueError),
    ],
)
def test_bad_arguments_of_sigqueue_send_nothing(arrived, arguments, error):
    who = {"own": os.getpid(), "group": -os.getpgrp()}
    with pytest.raises(error):
        signal.sigqueue(*[who.get(a, a) if isinstance(a, str) else a for a in arguments])
    assert arrived == []


def test_who_means_a_group_is_told_where_to_go():
    with pytest.raises(ValueError, match=r"os\.kill\(\) sends to groups"):
        signal.sigqueue(0, 0)


def test_signal_0_asks_whether_the_process_is_there():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert signal.sigqueue(child.pid, 0) is None
    child.communicate(b"\n")
    assert child.returncode == 0  # nothing arrived
    with pytest.raises(ProcessLookupError):
        signal.sigqueue(child.pid, 0)
    with pytest.raises(ProcessLookupError):
        signal.sigqueue(child.pid, signal.SIGUSR1, 3)


def test_a_process_that_is_not_ours_is_a_permission_error():
    out = run("""
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            os.kill(1, 0)
        except PermissionError:
            pass
        else:
            print("ours")
            sys.exit()
        try:
            signal.sigqueue(1, signal.SIGTERM, 1)
        except PermissionError as error:
            print(error.errno)
    """)
    if out == "ours\n":
        pytest.skip("process 1 belongs to the user who runs the tests")
    assert out == "1\n"


def test_a_full_queue_is_a_blocking_error_and_sending_goes_on_when_there_is_room():
    out = run("""
        import resource
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (30, 30))
        realtime = signal.SIGRTMIN + 3
        if os.geteuid() == 0:
            os.setuid(64321)  # the limit counts what a user has queued everywhere
        signal.pthread_sigmask(signal.SIG_BLOCK, [realtime, signal.SIGUSR1])
        sent = 0
        try:
            while sent < 100:
                signal.sigqueue(os.getpid(), realtime, sent)
                sent += 1
        except BlockingIOError as error:
            print(error.strerror)
        print(0 < sent <= 30)
        signal.sigqueue(os.getpid(), signal.SIGUSR1, 7)  # a standard signal always gets through
        print(signal.SIGUSR1 in signal.sigpending())
        signal.sigwaitinfo([realtime])
        signal.sigqueue(os.getpid(), realtime, sent)
    """)
    assert out == "Resource temporarily unavailable\nTrue\nTrue\n"


def test_the_engines_hidden_numbers_are_the_programs_as_any_other():
    """With a handler it runs, without one the default action acts: ours do not swallow it."""
    out = run("""
        arrived = []
        realtime = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
        hidden = set(realtime) - signal.valid_signals()
        assert len(hidden) == 2
        for signum in realtime:
            signal.signal(signum, lambda signum, frame: arrived.append(signum))
            signal.sigqueue(os.getpid(), signum, 1)
            signal.signal(signum, signal.SIG_DFL)
        print(arrived == list(realtime))
    """)
    assert out == "True\n"
    done = execute("""
        hidden = set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) - signal.valid_signals()
        print(max(hidden), flush=True)
        signal.sigqueue(os.getpid(), max(hidden))
        print("alive")
    """)
    assert done.returncode == -int(done.stdout)


def test_the_value_reaches_a_listener_with_the_senders_number():
    with signal.listen(REALTIME) as listener:
        code = "import sys, sigwright; sigwright.sigqueue(*map(int, sys.argv[1:]))"
        arguments = [str(n) for n in (os.getpid(), int(REALTIME), -42)]
        sender = subprocess.Popen([sys.executable, "-c", code, *arguments])
        info = listener.get(20)
        assert sender.wait() == 0
    assert (info.si_value, info.si_pid, info.si_code) == (-42, sender.pid, signal.SI_QUEUE)
