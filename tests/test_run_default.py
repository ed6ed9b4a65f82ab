"""run_default(): the default action, now, in any thread; and everything as before."""

import signal as stdlib
import subprocess
import sys

import pytest

import programs
import sigwright as signal
from programs import mask

REALTIME = signal.SIGRTMIN + 3
# The C library's own: nobody sets an action for these.
INTERNAL = set(range(1, signal.NSIG)) - {int(n) for n in stdlib.valid_signals()}
PREAMBLE = "import os, sys, threading, time\nimport sigwright as signal\n"


def execute(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return programs.run(PREAMBLE, source, arguments=arguments)


def run(source: str, *arguments: object) -> str:
    return programs.succeed(PREAMBLE, source, arguments=arguments)


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
    command = programs.own_namespace()
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
