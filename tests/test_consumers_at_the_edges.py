"""What a hostile reading of the consumers found: each a test.

They crashed, lost a signal or somebody's handler, or said something untrue, where a consumer meets
something else: the stdlib's own functions, a library's C handler, fork, garbage collection, an
import. Every scenario is a program of its own, in an interpreter of its own, so that a crash is an
exit status and a hang is a time limit.
"""

import os
import resource
import shutil
import signal as stdlib_signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "foreign" / "handler.c"
COMPILER = os.environ.get("CC", "cc").split()

# Sends a signal (argv[2]) to a process (argv[1]) whose only thread sleeps in the kernel.
SENDER = """
import os, sys, time
pid, signum = map(int, sys.argv[1:])
asleep = 0
while asleep < 5:   # not only for a moment
    with open(f"/proc/{pid}/stat") as file:
        state = file.read().rpartition(")")[2].split()[0]
    asleep = asleep + 1 if state == "S" else 0
    time.sleep(0.01)
os.kill(pid, signum)
"""

PRELUDE = f"""
import os, sys, threading, time
import signal as stdlib

S, S2 = stdlib.SIGUSR1, stdlib.SIGUSR2
A, B = stdlib.SIGRTMIN + 1, stdlib.SIGRTMIN + 2
me = os.getpid()

class Hit(Exception):
    "Raised by a handler."

def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)

def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def when_asleep(signum):
    "Have it sent to the main thread as soon as that waits for something."
    import subprocess
    return subprocess.Popen([sys.executable, "-c", {SENDER!r}, str(me), str(int(signum))])
"""
IMPORT = "import sigwright as signal\n"


def no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(script, *arguments, prelude=PRELUDE + IMPORT):
    return subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=no_core,
    )


def succeed(script, *arguments, prelude=PRELUDE + IMPORT):
    result = run(script, *arguments, prelude=prelude)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which(COMPILER[0]) is None:
        pytest.skip("needs a C compiler")
    path = tmp_path_factory.mktemp("foreign") / "foreign.so"
    command = [*COMPILER, "-std=gnu11", "-shared", "-fPIC", "-O1", "-pthread"]
    subprocess.run([*command, str(SOURCE), "-o", str(path)], check=True)
    return str(path)


LOAD = "import ctypes; foreign = ctypes.CDLL(sys.argv[1])\n"


# --- before the engine is ready ---


def test_a_listener_that_a_thread_opens_right_after_the_import_there_jumps_to_address_0():
    # The main thread has not opened the doors yet: CPython's own C handler is not known then.
    succeed(
        """
        def work():
            global signal, listener
            import sigwright as signal
            listener = signal.listen(S)
            stdlib.pthread_kill(threading.get_ident(), S)
        in_a_thread(work)
        os.kill(me, S)
        assert [listener.get(timeout=10).si_signo for _ in range(2)] == [S, S]
        listener.close()
        assert signal.dispositions()[S].kernel == "default"
        """,
        prelude=PRELUDE,
    )


def test_a_stdlib_handler_misses_what_comes_before_the_main_thread_is_ready():
    succeed(
        """
        calls = []
        stdlib.signal(S, lambda *args: calls.append(args[0]))
        def work():
            global listener
            import sigwright as signal
            listener = signal.listen(S)
            stdlib.pthread_kill(threading.get_ident(), S)
        in_a_thread(work)
        until(lambda: calls)
        os.kill(me, S)
        until(lambda: len(calls) == 2)
        assert len(listener.drain()) == 2
        listener.close()
        os.kill(me, S)
        until(lambda: len(calls) == 3)
        """,
        prelude=PRELUDE,
    )


@pytest.mark.parametrize("wakeup_fd", [False, True], ids=["", "wakeup fd in use"])
def test_a_c_handler_over_a_stdlib_one_at_import_has_arrivals_written_to_address_0(wakeup_fd):
    # Neither is adopted at import, but both are found at listen().
    succeed(
        f"""
        import faulthandler, socket, tempfile
        calls = []
        file = tempfile.TemporaryFile()
        stdlib.signal(S, lambda *args: calls.append(args[0]))
        if {wakeup_fd}:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            stdlib.set_wakeup_fd(ours.fileno())
            import sigwright as signal
        faulthandler.register(S, file=file, chain=True)
        import sigwright as signal
        with signal.listen(S) as listener:
            os.kill(me, S)
            assert len(listener.drain()) == 1
            until(lambda: calls)
            assert calls == [S]                     # through faulthandler's, and only so
            length = file.seek(0, 2)
            assert length > 0
        os.kill(me, S)
        until(lambda: len(calls) == 2)
        assert file.seek(0, 2) > length
        """,
        prelude=PRELUDE,
    )


# --- somebody else takes the signal, and gives it back ---

# How somebody takes S, and whether he has got it.
TAKEN = {
    "stdlib": ("stdlib.signal(S, lambda *args: calls.append(args[0]))", "calls"),
    "faulthandler": (
        "import faulthandler, tempfile; file = tempfile.TemporaryFile(); "
        "faulthandler.register(S, file=file)",
        "file.seek(0, 2) > 0",
    ),
    "asyncio": (
        "import asyncio; loop = asyncio.new_event_loop(); "
        "loop.add_signal_handler(S, calls.append, S)",
        "loop.run_until_complete(asyncio.sleep(0.001)) or calls",
    ),
}


@pytest.mark.parametrize("who", TAKEN)
@pytest.mark.parametrize("consumer", ["listen(S)", "add_handler(S, print)"])
def test_closing_the_last_consumer_puts_sig_dfl_over_a_strangers_handler(who, consumer):
    take, has_got_it = TAKEN[who]
    succeed(f"""
        calls = []
        consumer = signal.{consumer}
        {take}
        consumer.close() if hasattr(consumer, "close") else consumer.cancel()
        os.kill(me, S)
        until(lambda: {has_got_it})
    """)


@pytest.mark.parametrize("who", TAKEN)
def test_an_added_handler_that_goes_takes_a_signal_back_from_a_stranger(who):
    take, has_got_it = TAKEN[who]
    succeed(f"""
        calls = []
        listener = signal.listen(S)
        registration = signal.add_handler(S, print)
        {take}
        registration.cancel()                       # the listener stays, and system calls restart
        assert signal.dispositions()[S].replaced
        os.kill(me, S)
        until(lambda: {has_got_it})
        assert listener.drain() == []
    """)


def test_install_beside_a_listener_puts_sig_dfl_over_what_it_has_adopted_at_the_close():
    succeed("""
        calls = []
        listener = signal.listen(S)
        stdlib.signal(S, lambda *args: calls.append(args[0]))
        signal.install()
        os.kill(me, S)
        until(lambda: calls == [S])
        assert len(listener.drain()) == 1
        listener.close()
        assert signal.dispositions()[S].kernel == "ours"
        os.kill(me, S)
        assert calls == [S, S]
    """)


def test_a_handler_is_lost_once_a_library_has_saved_it_and_put_it_back():
    # What the stdlib gives it is our dispatcher: which then simulated itself, for ever.
    succeed("""
        calls = []
        def handler(signum, frame):
            calls.append(signum)
        signal.signal(S, handler)
        saved = stdlib.signal(S, stdlib.SIG_IGN)
        stdlib.signal(S, saved)
        for _ in range(2):
            with signal.listen(S) as listener:
                assert signal.getsignal(S) is signal.sigaction(S).handler is handler
                os.kill(me, S)
                assert len(listener.drain()) == 1
                until(lambda: calls)
            assert signal.getsignal(S) is handler
            os.kill(me, S)
            until(lambda: len(calls) == 2)
            assert calls == [S, S]
            calls.clear()
    """)


def test_sigaction_shows_our_own_dispatcher_as_the_handler():
    succeed("""
        def handler(signum, frame):
            pass
        signal.signal(S, handler)
        stdlib.signal(S, stdlib.signal(S, stdlib.SIG_IGN))
        assert signal.sigaction(S).handler is signal.getsignal(S) is handler
    """)


def test_cpythons_table_goes_on_naming_the_handler_before_the_last():
    # listen() has read f from it, so that g looked like one of two handlers of signal().
    succeed("""
        import _signal, _thread
        calls = []
        def f(*args):
            calls.append("f")
        def g(*args):
            calls.append("g")
        stdlib.signal(S, f)
        signal.listen(S).close()
        signal.signal(S, g)
        assert _signal.getsignal(S) is not f
        assert signal.getsignal(S) is g
        _thread.interrupt_main(S)
        until(lambda: calls)
        assert calls == ["g"]
    """)


def test_a_c_handler_put_back_beside_a_listener_is_a_type_error_in_some_later_close():
    # It came out of nowhere: whatever the main thread did next.
    succeed("""
        import faulthandler, tempfile
        file = tempfile.TemporaryFile()
        faulthandler.register(S, file=file)
        old = signal.sigaction(S)
        with signal.listen(S):
            signal.sigaction(S, old)
        with signal.listen(S2):
            signal.signal(S2, lambda *args: None)
        for _ in range(1000):
            pass
        os.kill(me, S)
        until(lambda: file.seek(0, 2) > 0)
    """)


def test_a_stdlib_handler_beneath_a_listener_waits_until_the_system_call_is_over():
    # CPython's own C handler needs EINTR to have the Python one called.
    said = succeed("""
        def handler(signum, frame):
            raise Hit
        stdlib.signal(S, handler)
        listener = signal.listen(S)
        r, w = os.pipe()
        sender = when_asleep(S)
        watchdog = os.fork()
        if watchdog == 0:
            time.sleep(3)
            os.write(w, b"late")
            os._exit(0)
        try:
            print(os.read(r, 4))
        except Hit:
            print("interrupted")
        os.kill(watchdog, stdlib.SIGKILL)
        os.waitpid(watchdog, 0)
        sender.wait()
        assert len(listener.drain()) == 1
    """)
    assert said == "interrupted\n"


# --- SIGCHLD: whether there are zombies ---

ZOMBIE = """
def zombie():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:    # where there is no zombie this waits for the child's end, and fails
        return os.waitpid(pid, 0)[0] == pid
    except ChildProcessError:
        return False
"""


def test_sig_ign_of_sigchld_does_not_reap_beside_a_listener():
    succeed(
        ZOMBIE
        + textwrap.dedent("""
        C = stdlib.SIGCHLD
        signal.signal(C, signal.SIG_IGN)
        assert not zombie()
        with signal.listen(C) as listener:
            assert not zombie()
            signal.signal(C, signal.SIG_DFL)
            assert zombie()
            signal.signal(C, signal.SIG_IGN)
            assert not zombie()
            assert len(listener.drain()) == 3
        assert not zombie()
        signal.signal(C, signal.SIG_DFL)
        assert zombie()
        """)
    )


@pytest.mark.parametrize("handler", ["signal.SIG_DFL", "lambda *args: None"])
def test_sa_nocldwait_is_lost(handler):
    succeed(
        ZOMBIE
        + textwrap.dedent(f"""
        C = stdlib.SIGCHLD
        signal.sigaction(C, signal.SigAction({handler}, signal.SA_NOCLDWAIT))
        assert signal.sigaction(C).flags & signal.SA_NOCLDWAIT
        assert not zombie()
        with signal.listen(C) as listener:
            assert not zombie()
            assert len(listener.drain()) == 1
        assert not zombie()
        signal.sigaction(C, signal.SigAction({handler}))
        assert zombie()
        """)
    )


def test_a_c_handlers_sa_nocldwait_is_lost_while_somebody_listens(library):
    succeed(
        LOAD
        + ZOMBIE
        + textwrap.dedent("""
        C = stdlib.SIGCHLD
        foreign.foreign_install_counting(C, int(signal.SA_NOCLDWAIT))
        assert not zombie()
        with signal.listen(C):
            assert not zombie()
        assert not zombie()
        assert foreign.foreign_counted() == 3
        """),
        library,
    )


# --- a race with a C handler beneath ---


def test_the_c_handler_beneath_changes_while_an_arrival_is_on_its_way_to_it(library):
    # One thread was about to call it, and another put SIG_IGN in its place: a call of address 1.
    succeed(
        LOAD
        + textwrap.dedent("""
        foreign.foreign_install_counting(A, 0)
        for _ in range(3):
            foreign.foreign_flood(A)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            foreign.foreign_install_counting(A, 0)
            signal.listen(A, maxsize=1).close(discard=True)
            foreign.foreign_ignore(A)
            signal.listen(A, maxsize=1).close(discard=True)
        assert foreign.foreign_end_floods() > 0
        assert foreign.foreign_counted() > 0
        """),
        library,
    )


# --- sigwright's own hidden signals ---


@pytest.mark.parametrize("door", [0, 1])
@pytest.mark.parametrize(
    "name_it",
    ["signal.pthread_sigmask(stdlib.SIG_UNBLOCK, [door])", "other = signal.listen(door)"],
    ids=["mask", "listen"],
)
def test_a_door_that_moves_leaves_sig_dfl_beneath_a_listener(door, name_it):
    # Opened in a thread, where a door cannot move; the main thread then names the number.
    succeed(f"""
        doors = [n for n, what in signal.dispositions().items() if what.kernel == "door"]
        assert len(doors) == 2
        door = doors[{door}]
        def work():
            global listener
            listener = signal.listen(door)
        in_a_thread(work)
        {name_it}
        for _ in range(3):
            os.kill(me, door)
            assert listener.get(timeout=10).si_signo == door
        if "other" in globals():
            assert len(other.drain()) == 3
            other.close()
        listener.close()
        assert signal.dispositions()[door].kernel == "default"
    """)


def test_a_door_that_moves_kills_a_process_to_whose_listener_signals_come():
    # There must be no instant of the default action, either.
    succeed("""
        import subprocess
        door = max(n for n, what in signal.dispositions().items() if what.kernel == "door")
        def work():
            global listener
            listener = signal.listen(door, maxsize=1 << 20)
        in_a_thread(work)
        sending = "import os, sys\\nwhile True:\\n try: os.kill(*map(int, sys.argv[1:]))\\n" \\
                  " except BlockingIOError: pass"
        sender = subprocess.Popen([sys.executable, "-c", sending, str(me), str(int(door))])
        until(lambda: listener.qsize() > 100)
        signal.pthread_sigmask(stdlib.SIG_UNBLOCK, [door])
        before = listener.qsize() + listener.dropped
        until(lambda: listener.qsize() + listener.dropped > before + 100)
        sender.kill()
        sender.wait()
    """)


# --- a record too many, a record too early ---


def test_a_held_signal_is_handled_inside_its_own_handler_when_another_waits_behind_it():
    succeed("""
        depth, log = 0, []
        @signal.on(A, B)
        def handler(info):
            global depth
            depth += 1
            log.append((info.si_signo, info.si_value, depth))
            if info.si_value == 1:
                signal.sigqueue(me, A, 2)
                signal.sigqueue(me, B, 3)
                for _ in range(1000):
                    pass
            depth -= 1
        signal.sigqueue(me, A, 1)
        until(lambda: len(log) == 3)
        assert (A, 1, 1) in log and (A, 2, 1) in log, log
        assert (B, 3) in [entry[:2] for entry in log], log
    """)


def test_what_waits_behind_sa_resethand_comes_to_a_listener_twice():
    succeed("""
        calls = []
        action = signal.SigAction(lambda *args: calls.append(args[0]), signal.SA_RESETHAND)
        signal.sigaction(A, action)
        listener = signal.listen(A)
        with signal.blocked(A):
            for value in range(3):
                signal.sigqueue(me, A, value)
        assert calls == [A]
        assert [info.si_value for info in listener.drain()] == [0, 1, 2]
        for _ in range(1000):
            pass
        assert listener.drain() == []
        listener.close()                            # all were read: nothing is raised again
    """)


def test_what_waits_behind_sa_resethand_and_nobody_reads_is_lost():
    result = run("""
        signal.sigaction(A, signal.SigAction(lambda *args: print("once"), signal.SA_RESETHAND))
        listener = signal.listen(A)
        with signal.blocked(A):
            for value in range(3):
                signal.sigqueue(me, A, value)
        sys.stdout.flush()
        listener.close()
        time.sleep(10)
    """)
    assert (result.returncode, result.stderr) == (-(stdlib_signal.SIGRTMIN + 1), "")
    assert result.stdout == "once\n"


# --- Python code in the middle ---

FINDER = """
import sigwright as signal
class Finder:
    "Stands for another thread's turn, or a handler's, in the middle of an import."
    def find_spec(self, name, path=None, target=None):
        if name == "faulthandler":
            sys.meta_path.remove(self)
            meanwhile()
sys.modules.pop("faulthandler", None)
sys.meta_path.insert(0, Finder())
"""


def test_a_listener_opened_while_another_one_is_being_opened_gets_nothing():
    # That of a fault signal imports faulthandler.
    succeed(
        FINDER
        + textwrap.dedent("""
        def meanwhile():
            global inner
            inner = signal.listen(S)
        outer = signal.listen(stdlib.SIGBUS, S)
        os.kill(me, S)
        assert len(outer.drain()) == len(inner.drain()) == 1
        outer.close()
        os.kill(me, S)
        assert len(inner.drain()) == 1
        inner.close()
        assert signal.dispositions()[S].kernel == "default"
        """)
    )


@pytest.mark.parametrize("signum", ["SIGINT", "SIGUSR2"])
def test_what_a_handler_raises_while_a_listener_is_being_opened_is_lost(signum):
    said = succeed(
        FINDER
        + textwrap.dedent(f"""
        def handler(signum, frame):
            raise Hit
        if stdlib.{signum} == S2:
            signal.signal(S2, handler)
        def meanwhile():
            os.kill(me, stdlib.{signum})
            for _ in range(1000):
                pass
        try:
            listener = signal.listen(stdlib.SIGBUS)
            until(lambda: False, seconds=5)
        except (Hit, KeyboardInterrupt):
            print("raised")
        assert "faulthandler" in sys.modules
        """)
    )
    assert said == "raised\n"


@pytest.mark.parametrize("error", ["RuntimeError", "RecursionError", "NotImplementedError"])
def test_an_exception_of_a_handler_that_closes_the_listener_ends_its_iteration_without_a_word(
    error,
):
    succeed(f"""
        listener = signal.listen(S)
        def handler(signum, frame):
            listener.close(discard=True)
            raise {error}("the handler's")
        signal.signal(S2, handler)
        sender = when_asleep(S2)
        try:
            for _ in listener:
                pass
        except {error} as raised:
            assert str(raised) == "the handler's"
        else:
            raise AssertionError("swallowed")
        sender.wait()
    """)


# --- memory ---


def test_a_listener_that_is_being_deallocated_is_handed_out():
    # By whatever Python code runs meanwhile and asks; and it was freed twice then.
    succeed("""
        import weakref
        class Mine(signal.Listener):
            pass
        kept, calls = [], 0
        def collected(_):
            global calls
            calls += 1
            kept.extend(signal._engine.consumers())
            signal.stats()
            signal.dispositions()
        for _ in range(100):
            listener = Mine(S)
            reference = weakref.ref(listener, collected)
            del listener
        assert calls == 100
        assert kept == []
    """)


def test_the_end_of_an_event_loop_sees_the_listener_that_is_its_last_owner():
    succeed("""
        import asyncio, gc
        kept = []
        class End:
            def __del__(self):
                kept.append(signal._engine.consumers())
                signal.stats()
        async def wait(listener):
            asyncio.get_running_loop().end = End()
            try:
                await asyncio.wait_for(listener.aget(), 0.01)
            except asyncio.TimeoutError:
                pass
        listener = signal.listen(S)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(wait(listener))
        loop.close()
        del loop
        del listener
        gc.collect()
        assert kept == [[]], kept
    """)


@pytest.mark.parametrize("thread", [False, True])
def test_the_owner_of_a_cancelled_registration_is_never_collected(thread):
    succeed(f"""
        import gc, weakref
        class Application:
            def __init__(self):
                self.calls = 0
                self.registration = signal.add_handler(S, self.handle, thread={thread})
            def handle(self, info):
                self.calls += 1
        application = Application()
        reference = weakref.ref(application)
        registration = application.registration
        del application
        gc.collect()
        os.kill(me, S)                              # an open one keeps its handler
        until(lambda: reference().calls == 1)
        registration.cancel()
        del registration
        until(lambda: gc.collect() is not None and reference() is None)
    """)


# --- fork ---


def test_a_child_forked_with_no_descriptor_to_be_had_reads_its_parents():
    # The parent then slept for ever beside what waited for it.
    succeed("""
        import resource, select
        def readable():
            return bool(select.select([listener.fileno()], [], [], 0)[0])
        listener = signal.listen(S, inherit=True)
        os.kill(me, S)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (listener.fileno() + 1, hard))
        pid = os.fork()
        if pid == 0:
            assert listener.drain() == []
            os.kill(os.getpid(), S)
            assert listener.get(timeout=10).si_pid == os.getpid()
            listener.drain()
            os._exit(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert os.waitpid(pid, 0)[1] == 0
        assert readable() and listener.qsize() == 1
        os.kill(me, S)
        assert readable() and len(listener.drain()) == 2
        assert not readable()
    """)


def test_a_child_forked_by_a_handler_inside_get_cannot_close_the_descriptor():
    succeed("""
        import queue
        listener = signal.listen(S, inherit=True)
        pid = None
        def handler(signum, frame):
            global pid
            pid = os.fork()
        signal.signal(S2, handler)
        sender = when_asleep(S2)
        try:
            listener.get(timeout=1)
        except queue.Empty:
            pass
        assert pid is not None                      # it ran inside
        fd = listener.fileno()
        listener.close()
        try:
            os.fstat(fd)
        except OSError:
            closed = True
        else:
            closed = False
        if pid == 0:
            os._exit(0 if closed else 3)
        assert closed
        assert os.waitpid(pid, 0)[1] == 0
        sender.wait()
    """)
