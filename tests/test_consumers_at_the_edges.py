"""What a hostile reading of the consumers found: each a test.

They crashed, lost a signal, or said something untrue, where a consumer meets fork, an import,
garbage collection, a handler that raises, or the interpreter's first and last moments. (The
stdlib's own functions and handlers in C: test_consumers_and_strangers.py.) Every scenario is a
program of its own, in an interpreter of its own, so that a crash is an exit status and a hang is a
time limit.
"""

import signal as stdlib_signal

import pytest

import programs

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

{programs.UNTIL}

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


def run(*parts, prelude=PRELUDE + IMPORT):
    return programs.run(prelude, *parts, timeout=30)


def succeed(*parts, prelude=PRELUDE + IMPORT):
    return programs.succeed(prelude, *parts, timeout=30)


# --- before the engine is ready ---


def test_a_listener_that_a_thread_opens_right_after_the_import_there_jumps_to_address_0():
    # The main thread has not opened the doors yet: CPython's own C handler is not known then.
    succeed(
        """
        def work():
            global signal, listener
            time.sleep(0.05)                        # the main thread has come to join()
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
            time.sleep(0.05)
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


# --- sigwright's own hidden signals ---


@pytest.mark.parametrize("door", [0, 1])
@pytest.mark.parametrize(
    "name_it",
    ["signal.pthread_sigmask(stdlib.SIG_UNBLOCK, [door])", "signal.sigtimedwait([door], 0)"],
    ids=["mask", "wait"],
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
        listener.close(discard=True)
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
    found = False
    def find_spec(self, name, path=None, target=None):
        if name == "faulthandler" and not self.found:
            self.found = True
            meanwhile()
sys.modules.pop("faulthandler", None)
sys.meta_path.insert(0, Finder())
"""


def test_a_listener_opened_while_another_one_is_being_opened_gets_nothing():
    # That of a fault signal imports faulthandler.
    succeed(
        FINDER,
        """
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
        """,
    )


@pytest.mark.parametrize("signum", ["SIGINT", "SIGUSR2"])
def test_what_a_handler_raises_while_a_listener_is_being_opened_is_lost(signum):
    said = succeed(
        FINDER,
        f"""
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
        """,
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


@pytest.mark.parametrize(
    "who", ["weakref.ref(listener, look)", "End()"], ids=["weakref", "attribute"]
)
def test_a_listener_that_is_being_deallocated_is_handed_out(who):
    # To whatever Python code runs meanwhile and asks; and it was freed twice then.
    succeed(f"""
        import weakref
        class Mine(signal.Listener):
            pass
        class End:
            def __del__(self):
                look()
        kept, looks = [], 0
        def look(_=None):
            global looks
            looks += 1
            kept.extend(signal._engine.consumers())
            signal.stats()
            signal.dispositions()
        for _ in range(100):
            listener = Mine(S)
            listener.end = {who}
            del listener
        assert looks == 100
        assert kept == []
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


# --- the end, and other interpreters ---


def test_a_handler_that_runs_at_the_end_opens_a_listener_that_stays_open_and_deaf():
    # A last signal is raised again when the engine closes the listeners; SIGTERM then did nothing.
    result = run(
        """
        import atexit
        def late():
            os.kill(me, stdlib.SIGTERM)
            time.sleep(10)
        atexit.register(late)                       # runs after sigwright's own
        import sigwright as signal
        def handler(signum, frame):
            try:
                kept.append(signal.listen(stdlib.SIGTERM))
            except RuntimeError as error:
                print(error, flush=True)
        kept = [signal.listen(S)]
        os.kill(me, S)                              # nobody reads it, and no handler runs
        signal.signal(S, handler)
        """,
        prelude=PRELUDE,
    )
    assert (result.returncode, result.stderr) == (-stdlib_signal.SIGTERM, "")
    assert result.stdout == "the interpreter is ending\n"


@pytest.mark.parametrize("kind", ["legacy", "own GIL"])
def test_a_subinterpreter_that_blocks_a_doors_number_moves_the_main_ones_door(kind):
    # "signal only works in main thread of the main interpreter", blocked() said.
    succeed(f"""
        doors = [n for n, what in signal.dispositions().items() if what.kernel == "door"]
        assert len(doors) == 2
        code = "import sigwright\\nwith sigwright.blocked(%d, %d): pass" % tuple(doors)
        if sys.version_info >= (3, 13):
            import _interpreters
            interpreter = _interpreters.create("isolated" if {kind!r} == "own GIL" else "legacy")
            assert _interpreters.exec(interpreter, code) is None
            _interpreters.destroy(interpreter)
        else:
            import _xxsubinterpreters
            interpreter = _xxsubinterpreters.create(isolated={kind!r} == "own GIL")
            assert _xxsubinterpreters.run_string(interpreter, code) is None
            _xxsubinterpreters.destroy(interpreter)
        assert all(signal.dispositions()[door].kernel == "door" for door in doors)
    """)
