"""sigqueue, sigsuspend, run_default, raise_system_exit, can_set_handlers."""

import builtins
import ctypes
import os
import re
import shutil
import signal as stdlib
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import sigwright as signal

REALTIME = signal.SIGRTMIN + 3
# The C library's own: nobody sets an action for these.
INTERNAL = set(range(1, signal.NSIG)) - {int(n) for n in stdlib.valid_signals()}


def execute(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys, threading, time\nimport sigwright as signal\n"
            + textwrap.dedent(source),
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )


def run(source: str, *arguments: object) -> str:
    done = execute(source, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def mask():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.fixture
def arrived():
    """The numbers of the handlers that have run; the process is left as it was."""
    numbers = []
    before = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGUSR2, REALTIME)}
    mask_before = mask()
    for signum in before:
        signal.signal(signum, lambda signum, frame: numbers.append(signum))
    yield numbers
    assert mask() == mask_before
    for signum, handler in before.items():
        signal.signal(signum, handler)


# ---- sigqueue ----


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


# ---- sigsuspend, and pause() in other threads ----

# Sends the signal that stands in each line it reads.
ON_DEMAND = """
import os, sys
pid, *numbers = map(int, sys.argv[1:])
for line in iter(lambda: os.read(0, 1), b""):
    for number in numbers:
        os.kill(pid, number)
"""


def start_on_demand(*signums):
    return subprocess.Popen(
        [sys.executable, "-c", ON_DEMAND, str(os.getpid()), *(str(int(n)) for n in signums)],
        stdin=subprocess.PIPE,
        bufsize=0,
    )


def test_a_signal_between_the_look_and_the_wait_is_never_lost(arrived):
    """The signal is asked for, then the condition is looked at: it comes before, or in between."""
    sender = start_on_demand(signal.SIGUSR1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    found_at_once = 0
    for attempt in range(1000):
        sender.stdin.write(b".")
        for _ in range(attempt % 50 * 40):  # from "not sent yet" to "long pending"
            pass
        found_at_once += signal.SIGUSR1 in signal.sigpending()
        while len(arrived) == attempt:
            assert signal.sigsuspend(before) is None
        assert len(arrived) == attempt + 1
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.communicate()
    assert found_at_once < 1000  # some came while we slept, or just before


def test_in_a_worker_no_signal_is_lost_between_the_look_and_the_wait(arrived):
    """No repeated ring helps there: what is lost sleeps for ever."""
    sender = start_on_demand(signal.SIGUSR1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    rounds = []

    def worker():
        signal.raise_signal(signal.SIGUSR1)  # pending already
        signal.sigsuspend(before)
        for attempt in range(1000):
            sender.stdin.write(b".")
            for _ in range(attempt % 50 * 40):
                pass
            signal.sigsuspend(before)
            rounds.append(attempt)

    thread = threading.Thread(target=worker, daemon=True)
    thread.start()
    thread.join(30)
    assert rounds == list(range(1000))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.communicate()
    assert len(arrived) > 0


def test_what_the_mask_names_does_not_end_the_sleep(arrived):
    sender = start_on_demand(signal.SIGUSR2, signal.SIGUSR1)
    both = {signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, both)
    for attempt in range(1, 101):
        sender.stdin.write(b".")
        signal.sigsuspend(before | {signal.SIGUSR2})
        assert arrived.count(signal.SIGUSR1) == attempt
        assert arrived.count(signal.SIGUSR2) == attempt - 1  # it was sent first
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        assert arrived.count(signal.SIGUSR2) == attempt
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.communicate()


def test_a_door_that_rings_for_nothing_does_not_end_the_sleep(arrived):
    doors = {*range(signal.SIGRTMIN, signal.SIGRTMAX + 1)} - {*map(int, signal.valid_signals())}
    code = (
        "import os, sys, time\n"
        "pid, last, *doors = map(int, sys.argv[1:])\n"
        "os.read(0, 1)\n"
        "for _ in range(50):\n"
        "    for door in doors: os.kill(pid, door)\n"
        "    time.sleep(0.001)\n"
        "os.kill(pid, last)\n"
    )
    for wait in (lambda: signal.sigsuspend(mask()), signal.pause):
        sender = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, [os.getpid(), int(signal.SIGUSR1), *doors])],
            stdin=subprocess.PIPE,
            bufsize=0,
        )
        sender.stdin.write(b".")
        wait()
        assert arrived.pop() == signal.SIGUSR1
        sender.communicate()


@pytest.mark.usefixtures("arrived")
def test_the_mask_is_back_also_when_the_handler_raises():
    def handler(signum, frame):
        raise KeyError(mask())

    signal.signal(signal.SIGUSR1, handler)
    inside = mask() | {signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_SETMASK, inside)
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(KeyError) as caught:
        signal.sigsuspend(before)
    assert caught.value.args == (inside,)
    assert mask() == inside
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(
    ("numbers", "error"),
    [([0], ValueError), ([signal.NSIG], ValueError), (["x"], TypeError), (3, TypeError)],
)
def test_a_bad_mask_does_not_sleep(numbers, error):
    before = mask()
    with pytest.raises(error):
        signal.sigsuspend(numbers)
    assert mask() == before


def test_an_added_handler_ends_the_sleep_as_well():
    seen = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    with signal.add_handler(signal.SIGUSR1, seen.append):
        sender = start_on_demand(signal.SIGUSR1)
        for attempt in range(100):
            sender.stdin.write(b".")
            while len(seen) == attempt:
                signal.sigsuspend(before)
        sender.communicate()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert [info.si_pid for info in seen] == [sender.pid] * 100


def test_a_signal_that_lands_on_a_worker_ends_the_main_threads_sleep(arrived):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    for attempt in range(1, 51):
        thread = threading.Thread(target=unblock_and_raise)
        thread.start()
        while len(arrived) < attempt:
            signal.sigsuspend([*before, signal.SIGUSR1])
        thread.join()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_and_raise():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("function", ["sigsuspend", "pause"])
def test_a_worker_wakes_up_whatever_rings_in_the_main_thread(function):
    """A door that rang for nothing there must not send the worker back to sleep."""
    out = run(
        """
        function = sys.argv[1]
        main = threading.get_ident()
        doors = set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) - signal.valid_signals()
        signal.signal(signal.SIGUSR1, lambda signum, frame: None)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        woken = 0
        def worker():
            global woken
            if function == "pause":
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
            while True:
                signal.sigsuspend(before) if function == "sigsuspend" else signal.pause()
                woken += 1
        def ringing():
            while True:
                for door in doors:
                    signal.pthread_kill(main, door)
                time.sleep(0.0001)
        thread = threading.Thread(target=worker, daemon=True)
        thread.start()
        threading.Thread(target=ringing, daemon=True).start()
        def sleeps():  # the number of the system call that the worker is in
            with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
                return file.read().split()[0]
        time.sleep(0.1)
        asleep = sleeps()
        deadline = time.monotonic() + 30
        for attempt in range(1, 501):
            if function == "pause":  # where nothing is blocked, a signal before the sleep is lost
                while sleeps() != asleep:
                    time.sleep(0)
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            while woken < attempt and time.monotonic() < deadline:
                time.sleep(0)
        print(woken, flush=True)
        os._exit(0)
        """,
        function,
    )
    assert out == "500\n"


# ---- run_default ----

DEFAULTS = """
import ctypes, resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
libc = ctypes.CDLL(None, use_errno=True)
class Action(ctypes.Structure):  # as the C library declares it; the kernel fills 64 bits of mask
    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_ubyte * 8),
                ("beyond", ctypes.c_ubyte * 120), ("flags", ctypes.c_int),
                ("restorer", ctypes.c_void_p)]
def action(signum):
    old = Action()
    libc.sigaction(signum, None, ctypes.byref(old))
    return old.handler, bytes(old.mask), old.flags, old.restorer
def ends(child):  # how a child ends, and what stopped it meanwhile
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)  # its parent is of another group: so it can be stopped
        try:
            child()
        except BaseException as error:
            os.write(2, f"{error!r}\\n".encode())
        finally:
            os._exit(99)
    stops = []
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return stops, os.waitstatus_to_exitcode(status)
        stops.append(os.WSTOPSIG(status))
        os.kill(pid, signal.SIGCONT)
"""


@pytest.mark.parametrize("where", ["main thread", "worker", "handler", "blocked"])
def test_every_default_action_is_the_kernels_and_who_survives_finds_all_as_it_was(where):
    out = run(
        DEFAULTS
        + """
where, internal = sys.argv[1], eval(sys.argv[2])
called = []
def handler(signum, frame):
    called.append(signum)
def check(signum, settable):
    before = action(signum), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.run_default(signum)
    assert (action(signum), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before
    assert called == []
    if settable:
        assert signal.getsignal(signum) is handler
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
        signal.raise_signal(signum)
        for _ in range(2000):
            if called: break
            time.sleep(0.001)
        assert called == [signum]
    os._exit(77)
def ours(signum):
    settable = signum not in (signal.SIGKILL, signal.SIGSTOP)
    if settable:
        signal.signal(signum, handler)
        signal.siginterrupt(signum, where == "worker")  # restarting, join() goes on to wait
    if where == "blocked":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if where == "worker":
        thread = threading.Thread(target=check, args=(signum, settable))
        thread.start()
        thread.join()
    elif where == "handler":
        other = signal.SIGUSR1 if signum != signal.SIGUSR1 else signal.SIGUSR2
        signal.signal(other, lambda *_: check(signum, settable))
        signal.raise_signal(other)
    else:
        check(signum, settable)
def kernels(signum):
    if signum not in (signal.SIGKILL, signal.SIGSTOP):
        libc.signal(signum, None)
    os.kill(os.getpid(), signum)
    os._exit(77)
kinds = set()
for signum in range(1, signal.NSIG):
    if signum in internal:
        continue
    expected, seen = ends(lambda: kernels(signum)), ends(lambda: ours(signum))
    if expected != seen:
        print(signum, expected, seen)
    kinds.add((bool(expected[0]), expected[1] == 77))
print(sorted(kinds))
""",
        where,
        INTERNAL,
    )
    # Some end it, some stop it, some do nothing.
    assert out == "[(False, False), (False, True), (True, True)]\n"


@pytest.mark.parametrize("where", ["main", "worker"])
def test_a_hidden_number_of_the_engines_has_its_default_action_too(where):
    done = execute(
        """
        signal.signal(signal.SIGUSR1, lambda *_: None)  # there is something to ring for
        hidden = max(set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) - signal.valid_signals())
        print(hidden, flush=True)
        if sys.argv[1] == "worker":
            thread = threading.Thread(target=signal.run_default, args=(hidden,))
            thread.start()
            thread.join()
        signal.run_default(hidden)
        """,
        where,
    )
    assert (done.returncode, done.stderr) == (-int(done.stdout), "")


def test_a_stop_in_its_own_handler_as_editors_do_works_again_and_again():
    out = run(
        DEFAULTS
        + """
def child():
    called = 0
    def handler(signum, frame):
        nonlocal called
        called += 1
        signal.run_default(signum)
    signal.signal(signal.SIGTSTP, handler)
    for _ in range(30):
        os.kill(os.getpid(), signal.SIGTSTP)
    os._exit(called)
print(ends(child) == ([int(signal.SIGTSTP)] * 30, 30))
"""
    )
    assert out == "True\n"


def test_handlers_of_what_came_while_it_was_stopped_run_when_it_goes_on():
    out = run(
        DEFAULTS
        + """
def child():
    continued = []
    signal.signal(signal.SIGCONT, lambda *_: continued.append(1))
    signal.run_default(signal.SIGSTOP)
    os._exit(len(continued))
print(ends(child) == ([int(signal.SIGSTOP)], 1))
"""
    )
    assert out == "True\n"


def test_an_orphaned_group_is_not_stopped_by_the_terminals_signals():
    """Nobody could continue it. The action is back all the same."""
    out = run("""
        pid = os.fork()
        if pid == 0:
            os.setsid()
            called = []
            signal.signal(signal.SIGTSTP, lambda *_: called.append(1))
            signal.run_default(signal.SIGTSTP)
            signal.raise_signal(signal.SIGTSTP)
            os._exit(len(called))
        print(os.waitpid(pid, os.WUNTRACED)[1] == 1 << 8)
    """)
    assert out == "True\n"


def test_listeners_and_added_handlers_do_not_see_it_and_see_the_next():
    out = run(
        DEFAULTS
        + """
def child():
    seen = []
    with signal.listen(signal.SIGTSTP) as listener, signal.add_handler(signal.SIGTSTP, seen.append):
        before = action(signal.SIGTSTP)
        signal.run_default(signal.SIGTSTP)
        assert (listener.drain(), seen, action(signal.SIGTSTP)) == ([], [], before)
        signal.raise_signal(signal.SIGTSTP)
        assert (len(listener.drain()), len(seen)) == (1, 1)
        signal.listen(signal.SIGTERM)
        signal.run_default(signal.SIGTERM)
print(ends(child) == ([int(signal.SIGTSTP)], -signal.SIGTERM))
"""
    )
    assert out == "True\n"


def test_a_foreign_c_handler_is_back_after_a_stop():
    out = run(
        DEFAULTS
        + """
import faulthandler
def child():
    faulthandler.register(signal.SIGTTIN, file=2, all_threads=False)
    before = action(signal.SIGTTIN)
    signal.run_default(signal.SIGTTIN)
    os._exit(action(signal.SIGTTIN) == before)
print(ends(child) == ([int(signal.SIGTTIN)], 1))
"""
    )
    assert out == "True\n"


def test_what_is_ignored_by_default_loses_nothing_that_is_pending():
    """To set SIG_DFL, even for an instant, would make the kernel forget it."""
    out = run("""
        called = []
        for signum in (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH):
            signal.signal(signum, lambda signum, frame: called.append(signum))
            signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
            signal.raise_signal(signum)
            signal.run_default(signum)
            print(signum in signal.sigpending(), called)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
            print(called.pop() == signum)
    """)
    assert out == "True []\nTrue\n" * 4


def test_the_end_is_at_once_nothing_is_flushed_and_nobody_is_asked():
    done = execute("""
        import atexit
        atexit.register(lambda: os.write(1, b"atexit"))
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"handler"))
        buffered = open(1, "w", closefd=False)
        buffered.write("never flushed")
        os.write(1, b"written")
        try:
            signal.run_default(signal.SIGTERM)
        finally:
            os.write(1, b"finally")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "written", "")


@pytest.mark.parametrize("signum", [REALTIME, signal.SIGTERM])
def test_a_full_queue_of_signals_does_not_keep_it_from_its_end(signum):
    done = execute(
        """
        import resource
        if os.geteuid() == 0:
            os.setuid(64322)
        signal.signal(int(sys.argv[1]), lambda *_: os.write(1, b"handler"))
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, 0))
        signal.run_default(int(sys.argv[1]))
        """,
        int(signum),
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signum, "", "")


def own_namespace():
    """The command that makes a process PID 1, or None."""
    for command in (
        ["unshare", "--pid", "--fork", "--mount-proc"],
        ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"],
    ):
        if (
            shutil.which("unshare")
            and not subprocess.run([*command, "true"], capture_output=True).returncode
        ):
            return command
    return None


@pytest.mark.parametrize(
    ("signum", "status"),
    [
        (signal.SIGTERM, 128 + signal.SIGTERM),
        (signal.SIGKILL, 128 + signal.SIGKILL),
        (signal.SIGQUIT, 128 + signal.SIGQUIT),
        (REALTIME, 128 + REALTIME),
        (signal.SIGSTOP, 7),
        (signal.SIGTSTP, 7),
        (signal.SIGCHLD, 7),
    ],
)
@pytest.mark.parametrize("where", ["main", "worker"])
def test_process_1_of_a_container_ends_though_the_kernel_withholds_it(signum, status, where):
    command = own_namespace()
    if command is None:
        pytest.skip("a PID namespace needs unshare(1), and privileges that this user lacks")
    code = (
        "import os, sys, threading, sigwright as signal\n"
        "assert os.getpid() == 1\n"
        "signum = int(sys.argv[1])\n"
        "if signum not in (signal.SIGKILL, signal.SIGSTOP):\n"
        "    signal.signal(signum, lambda *_: os._exit(3))\n"
        "if sys.argv[2] == 'main':\n"
        "    signal.run_default(signum)\n"
        "else:\n"
        "    thread = threading.Thread(target=signal.run_default, args=(signum,))\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "os._exit(7)\n"
    )
    done = subprocess.run(
        [*command, sys.executable, "-c", code, str(int(signum)), where], timeout=30
    )
    assert done.returncode == status


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        ((signal.SIGTERM, None), TypeError),
        (("SIGTERM",), TypeError),
        ((15.0,), TypeError),
        ((2**40,), OverflowError),
        ((0,), ValueError),
        ((-1,), ValueError),
        ((signal.NSIG,), ValueError),
        *(((n,), OSError) for n in sorted(INTERNAL)),
    ],
)
def test_bad_arguments_of_run_default_end_nothing(arguments, error):
    before = mask()
    with pytest.raises(error):
        signal.run_default(*arguments)
    assert mask() == before


# ---- raise_system_exit ----


@pytest.mark.parametrize("how", ["signal", "add_handler"])
def test_term_ends_the_program_by_way_of_finally_and_atexit(how):
    code = (
        "import atexit, sys, sigwright as signal\n"
        "atexit.register(print, 'atexit')\n"
        "getattr(signal, sys.argv[1])(signal.SIGTERM, signal.raise_system_exit)\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    while True: signal.pause()\n"
        "finally:\n"
        "    print('finally')\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    assert program.communicate(timeout=20) == ("finally\natexit\n", "")
    assert program.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("signum", [1, signal.SIGTERM, signal.NSIG - 1])
def test_the_exit_status_is_a_plain_int(signum):
    with pytest.raises(SystemExit) as caught:
        signal.raise_system_exit(signum)
    assert caught.value.code == 128 + signum
    assert type(caught.value.code) is int


@pytest.mark.usefixtures("arrived")
def test_what_arrived_says_its_number_itself():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.raise_signal(signal.SIGUSR1)
    info = signal.sigwaitinfo([signal.SIGUSR1])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    with pytest.raises(SystemExit) as caught:
        signal.raise_system_exit(info)
    assert caught.value.code == 128 + signal.SIGUSR1


@pytest.mark.parametrize("signum", [0, -1, signal.NSIG])
def test_a_number_out_of_range_is_no_exit(signum):
    with pytest.raises(ValueError):
        signal.raise_system_exit(signum)


# ---- can_set_handlers ----


def test_the_answer_is_what_signal_would_do(arrived):
    assert signal.can_set_handlers() is True
    answers = []

    def worker():
        answers.append(signal.can_set_handlers())
        with pytest.raises(ValueError):
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    assert answers == [False]
    assert signal.getsignal(signal.SIGTERM) is handler  # asking changed nothing
    assert arrived == []


def test_the_worker_that_forks_is_the_childs_main_thread():
    out = run("""
        import warnings
        warnings.simplefilter("ignore")  # threads and fork: that is the question
        def worker():
            pid = os.fork()
            if pid == 0:
                os._exit(signal.can_set_handlers())
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), signal.can_set_handlers())
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
    """)
    assert out == "1 False\n"


def test_in_a_subinterpreter_nobody_can():
    out = run("""
        if sys.version_info >= (3, 13):
            import _interpreters as interpreters
        else:
            import _xxsubinterpreters as interpreters
        interpreter = interpreters.create()
        print(interpreters.run_string(interpreter, '''if True:
            import sigwright
            assert sigwright.can_set_handlers() is False
        '''))
        interpreters.destroy(interpreter)
        print(signal.can_set_handlers())
    """)
    assert out == "None\nTrue\n"


def test_at_exit_the_answer_is_still_true():
    out = run("""
        import atexit
        atexit.register(lambda: print(signal.can_set_handlers()))
    """)
    assert out == "True\n"


# ---- the page that lists <signal.h> ----

PAGE = Path(__file__).parents[1] / "docs" / "posix.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| `")
]


def test_the_page_promises_only_what_is_there():
    promised = {
        name
        for row in ROWS
        if not row[1].startswith("none")
        for name in re.findall(r"`([A-Za-z_][\w.]*)(?:\(\))?`", row[1].partition(":")[0])
    }
    assert {"sigqueue", "os.kill", "SIGTERM", "SI_USER", "SignalInfo.si_pid"} <= promised
    elsewhere = {"os": os, "threading": threading, "set": set}
    missing = []
    for name in sorted(promised):
        owner, dot, attribute = name.rpartition(".")
        found = (
            hasattr(elsewhere.get(owner) or getattr(signal, owner), attribute)
            if dot
            else hasattr(signal, name) or hasattr(builtins, name)
        )
        if not found:
            missing.append(name)
    assert missing == []
