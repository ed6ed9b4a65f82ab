"""What ended, hung or misled a process while the engine was designed: each a test.

Every scenario is a program of its own, in an interpreter of its own, so that a crash is an exit
status and a hang is a time limit. Each prints what the test looks at.
"""

import itertools
import os
import re
import resource
import shutil
import signal as stdlib_signal
import subprocess
import sys
import textwrap
import time

import pytest

PRELUDE = """
import ctypes, errno, itertools, os, select, sys, threading, time
import sigwright as signal

stats = signal._engine.stats
libc = ctypes.CDLL(None, use_errno=True)

def sigqueue(signum, pid=None):
    while libc.sigqueue(os.getpid() if pid is None else pid, signum, None) != 0:
        assert ctypes.get_errno() == errno.EAGAIN
        time.sleep(0.001)

def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)

class Worker(threading.Thread):
    "A thread on which signals can land. It sleeps where no Python handler could run."
    def __init__(self):
        super().__init__(daemon=True)
        self.stop, self.write = os.pipe()
        self.start()
    def run(self):
        os.read(self.stop, 1)
    def kill(self, signum):
        signal.pthread_kill(self.ident, signum)
    def end(self):
        os.close(self.write)
        self.join()

def hidden_signals():
    return set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) - signal.valid_signals()
"""

# Sends the signals (argv[2], comma-separated) to a process (argv[1]), so many times each (argv[3];
# 0: until it is killed), one every so many seconds (argv[4]).
SENDER = """
import itertools, os, sys, time
pid, signals, times, apart = sys.argv[1:]
signals = [int(signum) for signum in signals.split(",")]
for i in range(int(times)) if int(times) else itertools.count():
    for signum in signals:
        end = time.perf_counter() + float(apart)
        while time.perf_counter() < end:
            pass
        while True:
            try:
                os.kill(int(pid), signum)
                break
            except BlockingIOError:   # the kernel's queue is full
                time.sleep(0.001)
"""

START_SENDER = f"""
def start_sender(signals, times, apart):
    import subprocess
    numbers = ",".join(str(int(signum)) for signum in signals)
    arguments = [str(os.getpid()), numbers, str(times), str(apart)]
    return subprocess.Popen([sys.executable, "-c", {SENDER!r}, *arguments])
"""


def no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(script, *options, timeout=30, **keywords):
    program = PRELUDE + START_SENDER + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        timeout=timeout,
        preexec_fn=no_core,
        **keywords,
    )


def succeed(script, *options, **keywords):
    result = run(script, *options, **keywords)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stderr}"
    return result.stdout


# ---- the way to the main thread ----


def test_a_ring_while_cpythons_table_says_sig_dfl():
    # PyErr_SetInterruptEx() compared Python objects here, in signal context.
    succeed("""
        import _signal
        calls = 0
        def handler(signum, frame):
            global calls
            calls += 1
        signum = signal.SIGRTMIN + 1
        signal.signal(signum, handler)
        # Behind our back: the table says SIG_DFL, and the kernel's action is still (again) ours.
        sigaction = (ctypes.c_char * 256)()
        libc.sigaction(signum, None, sigaction)
        _signal.signal(signum, 0)
        libc.sigaction(signum, sigaction, None)
        worker = Worker()
        for _ in range(2000):
            os.kill(os.getpid(), signum)
            worker.kill(signum)
        until(lambda: stats()[signum]["deliveries"] == 4000)
        assert calls == stats()[signum]["arrivals"] == 4000, (calls, stats())
    """)


def test_a_busy_main_thread_does_not_see_what_lands_on_a_worker():
    # On 3.11 and 3.12 CPython sets the worker's breaker, not the main thread's.
    succeed("""
        handled = []
        signum = signal.SIGRTMIN + 1   # one call each
        signal.signal(signum, lambda *args: handled.append(time.monotonic()))
        worker = Worker()
        sent = []
        def send():
            for _ in range(20):
                time.sleep(0.005)
                sent.append(time.monotonic())
                worker.kill(signum)
        threading.Thread(target=send).start()
        deadline = time.monotonic() + 10
        while len(handled) < 20 and time.monotonic() < deadline:
            pass
        delays = sorted(b - a for a, b in zip(sent, handled, strict=True))
        assert delays[-1] < 1, delays
        assert delays[len(delays) // 2] < 0.1, delays
    """)


SLEEPS = {
    "sleep": "time.sleep(5)",
    "lock": "lock.acquire(timeout=5)",
    "lock without a limit": "alarm_clock(lambda: lock.release()); lock.acquire()",
    "read of a pipe": "alarm_clock(lambda: os.write(pipe[1], b'x')); os.read(pipe[0], 1)",
    "join": "sleeper.join(5)",
    "select": "select.select([pipe[0]], [], [], 5)",
    "wait for an event": "threading.Event().wait(5)",
}


@pytest.mark.parametrize("sleep", SLEEPS)
def test_a_sleeping_main_thread_is_not_woken_by_what_lands_on_a_worker(sleep):
    script = """
        class Handled(Exception):
            pass
        def handler(signum, frame):
            raise Handled
        signal.signal(signal.SIGUSR1, handler)
        lock = threading.Lock()
        lock.acquire()
        pipe = os.pipe()
        def alarm_clock(function):
            timer = threading.Timer(5, function)
            timer.daemon = True
            timer.start()
        worker = Worker()
        sleeper = Worker()
        def send():
            time.sleep(0.2)
            send.time = time.monotonic()
            worker.kill(signal.SIGUSR1)
        threading.Thread(target=send).start()
        try:
            SLEEP
        except Handled:
            assert time.monotonic() - send.time < 1, time.monotonic() - send.time
        else:
            raise AssertionError("slept to the end")
        os._exit(0)
    """
    succeed(script.replace("SLEEP", SLEEPS[sleep]))


def test_a_signal_between_the_last_look_and_the_system_call_is_slept_over():
    # 300 signals at all moments around the beginning of a sleep; without the timer some are late.
    succeed("""
        delays = []
        class Handled(Exception):
            pass
        def handler(signum, frame):
            delays.append(time.monotonic() - sent)
            raise Handled
        signal.signal(signal.SIGALRM, handler)
        read, write = os.pipe()
        buffer = ctypes.create_string_buffer(1)
        raw_read = libc.read
        for i in range(300):
            delay = 20e-6 + i % 60 * 1e-6
            try:
                sent = time.monotonic() + delay
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    raw_read(read, buffer, 1)   # only a signal ends it; then the handler raises
            except Handled:
                pass
        assert len(delays) == 300
        assert max(delays) < 1, max(delays)
    """)


def test_a_restarting_signal_on_a_worker_breaks_the_main_threads_raw_read():
    succeed("""
        signum = signal.SIGRTMIN + 1
        calls = 0
        def handler(signum, frame):
            global calls
            calls += 1
        signal.signal(signum, handler)
        signal.siginterrupt(signum, False)
        read, write = os.pipe()
        worker = Worker()
        def send():
            time.sleep(0.2)
            for _ in range(50):
                worker.kill(signum)
                time.sleep(0.002)
            os.write(write, b"xy")
        threading.Thread(target=send).start()
        buffer = ctypes.create_string_buffer(2)
        result = libc.read(read, buffer, 2)
        assert result == 2, (result, ctypes.get_errno())
        until(lambda: calls == 50)
        assert stats()[signum]["arrivals"] == 50
    """)


def test_an_interrupting_signal_on_a_worker_leaves_the_main_threads_raw_read_alone():
    succeed("""
        signal.signal(signal.SIGUSR1, lambda *args: None)
        read, write = os.pipe()
        worker = Worker()
        def send():
            time.sleep(0.2)
            worker.kill(signal.SIGUSR1)
            time.sleep(5)
            os.write(write, b"x")
        threading.Thread(target=send, daemon=True).start()
        buffer = ctypes.create_string_buffer(1)
        started = time.monotonic()
        assert libc.read(read, buffer, 1) == -1
        assert ctypes.get_errno() == errno.EINTR
        assert time.monotonic() - started < 2
        os._exit(0)
    """)


def test_restarting_signals_lose_their_ring_and_wait_for_ever():
    # No timer repeats their ring, so a ring that is taken for one under way is never heard again.
    succeed("""
        calls = itertools.count()
        def handler(signum, frame):
            next(calls)
        signal.signal(signal.SIGRTMIN + 1, handler)
        signal.siginterrupt(signal.SIGRTMIN + 1, False)
        worker = Worker()
        sent = 0
        for round in range(300):
            for _ in range(20):
                worker.kill(signal.SIGRTMIN + 1)
                sent += 1
            deadline = time.monotonic() + 5
            while stats()[signal.SIGRTMIN + 1]["deliveries"] < sent:
                assert time.monotonic() < deadline, (round, stats())
        assert next(calls) == sent
    """)


def test_a_signal_after_deep_nesting_waits_for_ever():
    # At the limit of nesting the dispatcher returns at once; the ring that it answered is over.
    succeed("""
        depth = deepest = 0
        def nest(signum, frame):
            global depth, deepest
            depth += 1
            deepest = max(depth, deepest)
            if deepest < 1000 and calls[0] < 500:
                calls[0] += 1
                worker.kill(signal.SIGUSR1)
                end = time.monotonic() + 0.0005
                while time.monotonic() < end:
                    pass
            depth -= 1
        calls = [0]
        worker = Worker()
        signal.signal(signal.SIGUSR1, nest)
        signal.siginterrupt(signal.SIGUSR1, False)
        worker.kill(signal.SIGUSR1)
        until(lambda: depth == 0 and calls[0] == 500)
        late = []
        signal.signal(signal.SIGUSR2, lambda *args: late.append(1))
        signal.siginterrupt(signal.SIGUSR2, False)
        worker.kill(signal.SIGUSR2)
        deadline = time.monotonic() + 5
        while not late:
            assert time.monotonic() < deadline, "the ring is lost"
        assert 1 < deepest <= 64, deepest
    """)


def test_pause_is_woken_by_a_ring():
    succeed("""
        handled = []
        signal.signal(signal.SIGUSR1, lambda *args: handled.append(time.monotonic()))
        doors = hidden_signals()
        assert len(doors) == 2, doors
        def send():
            time.sleep(0.2)
            for _ in range(20):
                for door in doors:   # as a ring that comes late, when there is nothing to do
                    libc.syscall(TGKILL, os.getpid(), threading.main_thread().native_id, door)
                    time.sleep(0.002)
            send.time = time.monotonic()
            os.kill(os.getpid(), signal.SIGUSR1)
        TGKILL = {"x86_64": 234, "aarch64": 131, "riscv64": 131}[os.uname().machine]
        threading.Thread(target=send).start()
        signal.pause()
        assert len(handled) == 1
        assert handled[0] >= send.time
    """)


# ---- order and nesting ----


def test_real_time_signals_30_microseconds_apart_with_a_slow_handler():
    # Unbounded nesting handled them in reverse, and ended the interpreter at this distance.
    succeed("""
        running = deepest = 0
        numbers = []
        def tracer(event, signum, *details):
            if event == "arrival":
                numbers.append(details[3])   # when it arrived
        signal._engine.set_tracer(tracer)
        def handler(signum, frame):
            global running, deepest
            running += 1
            deepest = max(running, deepest)
            end = time.perf_counter() + 100e-6
            while time.perf_counter() < end:
                pass
            running -= 1
        signal.signal(signal.SIGRTMIN + 1, handler)
        sender = start_sender([signal.SIGRTMIN + 1], 10_000, 30e-6)
        assert sender.wait() == 0
        until(lambda: stats()[signal.SIGRTMIN + 1]["deliveries"] == 10_000)
        counts = stats()[signal.SIGRTMIN + 1]
        assert counts["arrivals"] == counts["deliveries"] == len(numbers) == 10_000, counts
        assert numbers == sorted(numbers)
        assert deepest == 1
    """)


def test_different_signals_nest_without_end():
    succeed("""
        running = deepest = 0
        calls = itertools.count()
        def handler(signum, frame):
            global running, deepest
            running += 1
            deepest = max(running, deepest)
            next(calls)
            end = time.perf_counter() + 100e-6
            while time.perf_counter() < end:
                pass
            running -= 1
        for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 1, signal.SIGRTMIN + 2):
            signal.signal(signum, handler)
        senders = [
            start_sender([signal.SIGUSR1, signal.SIGRTMIN + 1], 3_000, 30e-6),
            start_sender([signal.SIGUSR2, signal.SIGRTMIN + 2], 3_000, 30e-6),
        ]
        while any(sender.poll() is None for sender in senders):
            time.sleep(0.01)
        until(lambda: not any(count["waiting"] for count in stats().values()))
        assert running == 0
        assert deepest <= 64, deepest
        deliveries = sum(count["deliveries"] for count in stats().values())
        assert deliveries == next(calls)
    """)


def test_a_handler_that_raises_in_the_middle_of_a_queue_loses_the_rest():
    succeed("""
        class Third(Exception):
            pass
        calls = raised = 0
        def handler(signum, frame):
            global calls, raised
            calls += 1
            if calls % 3 == 0:
                raised += 1
                raise Third
        # What is left comes at once, perhaps outside this `try` already, but inside the next one.
        def catch(levels):
            while calls < 1000:
                try:
                    if levels > 0:
                        catch(levels - 1)
                    elif raised == 0:
                        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
                    assert time.monotonic() < deadline, (calls, stats())
                except Third:
                    pass
        signum = signal.SIGRTMIN + 1
        signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
        for _ in range(1000):
            sigqueue(signum)
        deadline = time.monotonic() + 10
        catch(500)
        assert calls == stats()[signum]["deliveries"] == 1000, stats()
        assert raised == 333, raised
    """)


def test_a_handler_that_replaces_itself_is_freed_while_it_runs():
    succeed("""
        import gc, weakref
        class Handler:
            def __init__(self, number):
                self.number = number
            def __call__(self, signum, frame):
                order.append(self.number)
                if self.number < 500:
                    signal.signal(signum, Handler(self.number + 1))
                    gc.collect(0)
                self.number   # still there
        order = []
        signum = signal.SIGRTMIN + 1
        signal.signal(signum, Handler(0))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
        for _ in range(501):
            sigqueue(signum)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
        until(lambda: len(order) == 501)
        assert order == list(range(501))
        signal.signal(signal.SIGUSR1, lambda s, f: signal.signal(s, signal.SIG_IGN))
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    """)


# ---- the interpreter's other entries ----


def test_interrupt_main_runs_a_handler_twice_or_counts_as_an_arrival():
    succeed("""
        import _thread
        calls = []
        signal.signal(signal.SIGUSR1, lambda signum, frame: calls.append(signum))
        traced = []
        signal._engine.set_tracer(lambda *args: traced.append(args))
        for _ in range(3):
            _thread.interrupt_main(signal.SIGUSR1)
            time.sleep(0)
        threads = threading.Thread(target=_thread.interrupt_main, args=(signal.SIGUSR1,))
        threads.start()
        threads.join()
        until(lambda: len(calls) == 4)
        time.sleep(0.05)
        assert calls == [signal.SIGUSR1] * 4, calls
        assert all(type(number) is int for number in calls)
        count = stats()[signal.SIGUSR1]
        assert count["simulated"] == 4 and count["arrivals"] == count["deliveries"] == 0, count
        assert not traced, traced
        try:
            _thread.interrupt_main()
            time.sleep(1)
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("no KeyboardInterrupt")
    """)


@pytest.mark.parametrize("handler", ["SIG_DFL", "SIG_IGN"])
def test_interrupt_main_of_a_signal_without_a_handler_does_something(handler):
    succeed(f"""
        import _thread
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
        calls = []
        signal.signal(signal.SIGUSR1, signal.{handler})
        _thread.interrupt_main(signal.SIGUSR1)
        time.sleep(0.05)
        assert not calls
    """)


def test_after_an_import_in_a_thread_handlers_do_not_work():
    program = """
import os, sys, threading, time
thread = threading.Thread(target=__import__, args=("sigwright",))
thread.start()
thread.join()
calls = []
WAIT
import sigwright as signal
signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
os.kill(os.getpid(), signal.SIGUSR1)
assert len(calls) == 1
read, write = os.pipe()
worker = threading.Thread(target=os.read, args=(read, 1))
worker.start()
signal.pthread_kill(worker.ident, signal.SIGUSR1)
deadline = time.monotonic() + 5
while len(calls) < 2:
    assert time.monotonic() < deadline
os.write(write, b"x")
worker.join()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
except KeyboardInterrupt:
    sys.exit(7)
"""
    for wait in ("", "time.sleep(0.05)"):
        result = subprocess.run(
            [sys.executable, "-c", program.replace("WAIT", wait)],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert result.returncode == 7, result.stderr


SUBINTERPRETER = """
import signal as stock
import sigwright
import sigwright as signal
assert not sigwright._engine.main_interpreter
assert signal.getsignal(signal.SIGUSR1) == stock.getsignal(signal.SIGUSR1)
assert signal.valid_signals() == stock.valid_signals()
for function in (signal.signal, signal.set_wakeup_fd):
    try:
        function(signal.SIGUSR1, signal.SIG_IGN) if function is signal.signal else function(-1)
    except ValueError as error:
        assert "main interpreter" in str(error)
    else:
        raise AssertionError("no ValueError")
sigwright.install()
sigwright.uninstall()
assert stock.signal is signal.signal
"""


@pytest.mark.parametrize("kind", ["legacy", "own GIL"])
def test_import_in_a_subinterpreter_takes_the_main_interpreters_signals(kind):
    script = f"""
        KIND, CODE = {kind!r}, {SUBINTERPRETER!r}
        if sys.version_info >= (3, 13):
            import _interpreters
            interpreter = _interpreters.create("isolated" if KIND == "own GIL" else "legacy")
            def execute():
                failure = _interpreters.exec(interpreter, CODE)
                assert failure is None, failure
            destroy = lambda: _interpreters.destroy(interpreter)
        else:
            import _xxsubinterpreters as subinterpreters
            interpreter = subinterpreters.create(isolated=KIND == "own GIL")
            def execute():
                failure = subinterpreters.run_string(interpreter, CODE)
                assert failure is None, failure
            destroy = lambda: subinterpreters.destroy(interpreter)
        calls = []
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
        execute()
        assert len(calls) == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert len(calls) == 1
        destroy()
        os.kill(os.getpid(), signal.SIGUSR1)
        worker = Worker()
        worker.kill(signal.SIGUSR1)
        until(lambda: len(calls) == 3)
        assert signal.getsignal(signal.SIGUSR1) is not None
        worker.end()
    """
    succeed(script)


def test_a_first_import_in_a_subinterpreter_is_the_end_of_the_main_ones():
    # Nothing of the main interpreter's may be set up from the other one.
    program = """
import os, sys
CODE = sys.argv[1]
if sys.version_info >= (3, 13):
    import _interpreters
    interpreter = _interpreters.create("legacy")
    failure = _interpreters.exec(interpreter, CODE)
    assert failure is None, failure
    _interpreters.destroy(interpreter)
else:
    import _xxsubinterpreters as subinterpreters
    interpreter = subinterpreters.create(isolated=False)
    subinterpreters.run_string(interpreter, CODE)
    subinterpreters.destroy(interpreter)
import sigwright as signal
calls = []
signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
os.kill(os.getpid(), signal.SIGUSR1)
assert len(calls) == 1
"""
    result = subprocess.run(
        [sys.executable, "-c", program, SUBINTERPRETER], capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0, result.stderr


# ---- the end of the interpreter ----


def storm_at_exit(signals, count):
    """Start interpreters that end in the middle of a storm, and return their exit statuses."""
    program = """
import os, sys, threading
import sigwright as signal
calls = 0
def handler(signum, frame):
    global calls
    calls += 1
for name in sys.argv[1].split(","):
    signal.signal(int(name), handler)
read, write = os.pipe()
for _ in range(2):
    threading.Thread(target=os.read, args=(read, 1), daemon=True).start()
os.write(1, b"r")
while calls < 50:
    pass
sys.exit(7)
"""
    numbers = ",".join(str(int(signum)) for signum in signals)
    statuses = []
    for _ in range(count):
        process = subprocess.Popen(
            [sys.executable, "-c", program, numbers],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=no_core,
        )
        assert process.stdout.read(1) == b"r", process.stderr.read()
        # For a while: a flood faster than it can be handled keeps any program from its next step.
        deadline = time.monotonic() + 5
        for signum in itertools.cycle(signals):
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended or time.monotonic() > deadline:
                break
            os.kill(process.pid, signum)
            time.sleep(20e-6)
        try:
            errors = process.communicate(timeout=20)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert errors == b"", errors.decode()
        statuses.append(process.returncode)
    return statuses


def test_signals_during_finalization_change_the_exit_status():
    # By default these are ignored, so that nothing may happen after the handlers are gone.
    statuses = storm_at_exit(
        [stdlib_signal.SIGURG, stdlib_signal.SIGCHLD, stdlib_signal.SIGWINCH], count=30
    )
    assert set(statuses) == {7}


def test_signals_during_finalization_crash():
    # These end a process that has no handler any more, as with the stock module; and by them alone.
    realtime = stdlib_signal.SIGRTMIN + 3
    statuses = storm_at_exit([stdlib_signal.SIGUSR1, realtime], count=30)
    assert set(statuses) <= {7, -stdlib_signal.SIGUSR1, -realtime}


def test_a_signal_in_the_last_atexit_function_is_lost():
    # Ours is the last to be called: what programs registered runs with handlers that work.
    out = succeed("""
        import atexit
        def late():
            os.kill(os.getpid(), signal.SIGUSR1)
            print("calls:", len(calls), flush=True)
        calls = []
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
        atexit.register(late)
    """)
    assert out == "calls: 1\n"


# ---- waits and masks ----


def test_the_drain_takes_more_than_the_one_signal_that_pselect_lets_in():
    succeed("""
        signum = signal.SIGRTMIN + 1
        calls = []
        signal.signal(signum, lambda *args: calls.append(args))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
        for _ in range(5):
            sigqueue(signum)
        mask = (ctypes.c_ulong * 16)()   # nothing blocked
        class Timespec(ctypes.Structure):
            _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]
        waits = {
            "pselect": lambda: libc.pselect(0, None, None, None, ctypes.byref(Timespec(5)), mask),
            "ppoll": lambda: libc.ppoll(None, 0, ctypes.byref(Timespec(5)), mask),
            "sigsuspend": lambda: libc.sigsuspend(mask),
        }
        for expected, (name, wait) in enumerate(waits.items(), 1):
            assert wait() == -1 and ctypes.get_errno() == errno.EINTR, name
            until(lambda: len(calls) == expected)
            time.sleep(0.02)
            assert len(calls) == expected, (name, len(calls))
            assert signum in signal.sigpending(), name
        for left in (1, 0):
            assert signal.sigtimedwait([signum], 0) is not None
        assert signum not in signal.sigpending()
        assert stats()[signum]["arrivals"] == 3
    """)


def test_a_door_is_in_the_way_of_who_asks_for_it_by_number():
    succeed("""
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
        calls = []
        worker = Worker()
        def still_works():
            before = len(calls)
            worker.kill(signal.SIGUSR1)
            until(lambda: len(calls) == before + 1)
        for door in hidden_signals():
            got = []
            signal.signal(door, lambda *args: got.append(args))
            assert door not in hidden_signals()
            os.kill(os.getpid(), door)
            worker.kill(door)
            until(lambda: len(got) == 2)
            still_works()
        assert len(hidden_signals()) == 2
        for door in hidden_signals():
            signal.pthread_sigmask(signal.SIG_BLOCK, [door])
            assert door in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            assert door not in hidden_signals()
            still_works()
    """)


@pytest.mark.parametrize(
    "wait", ["sigwait({door})", "sigwaitinfo({door})", "sigtimedwait({door}, 5)"]
)
def test_a_wait_for_exactly_a_doors_number_never_ends(wait):
    succeed(f"""
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
        calls = []
        for _ in range(2):
            for number in sorted(hidden_signals()):
                door = [number]
                signal.pthread_sigmask(signal.SIG_BLOCK, door)
                threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
                result = signal.{wait.format(door="door")}
                assert number in (result, getattr(result, "si_signo", None))
                os.kill(os.getpid(), signal.SIGUSR1)
                assert calls.pop()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, door)
    """)


@pytest.mark.parametrize("numbers", ["range(1, signal.NSIG)", "signal.valid_signals()"])
def test_a_mask_of_all_signals_blocks_the_doors(numbers):
    succeed(f"""
        import warnings
        warnings.simplefilter("ignore", RuntimeWarning)   # the C library's own two
        calls = []
        worker = Worker()
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
        doors = hidden_signals()
        signal.pthread_sigmask(signal.SIG_BLOCK, {numbers})
        assert hidden_signals() == doors
        worker.kill(signal.SIGUSR1)
        until(lambda: len(calls) == 1)
        assert signal.sigpending() == set()
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, [])
        assert blocked == signal.valid_signals() - {{signal.SIGKILL, signal.SIGSTOP}}
        assert not blocked & doors
    """)


def test_a_storm_while_the_door_moves_loses_signals():
    succeed("""
        calls = itertools.count()
        signal.signal(signal.SIGRTMIN + 1, lambda *args: next(calls))
        worker = Worker()
        stop = False
        sent = 0
        def send():
            global sent
            while not stop:
                try:
                    worker.kill(signal.SIGRTMIN + 1)
                    sent += 1
                except BlockingIOError:
                    time.sleep(0.001)
        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(500):
            door = max(hidden_signals())
            signal.signal(door, lambda *args: None)
            assert door not in hidden_signals()
            signal.signal(door, signal.SIG_DFL)
            time.sleep(0.0002)
        stop = True
        sender.join()
        counts = lambda: stats()[signal.SIGRTMIN + 1]
        until(lambda: counts()["deliveries"] == sent)
        assert next(calls) == counts()["arrivals"] == sent > 500, (counts(), sent)
    """)


def test_a_queue_limit_that_is_reached_keeps_handlers_from_running():
    # tgkill() of a door then fails; the kernel gave the timer its entry when it was made.
    succeed("""
        import resource
        calls = []
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(time.monotonic()))
        filler = signal.SIGRTMIN + 5
        signal.pthread_sigmask(signal.SIG_BLOCK, [filler])
        worker = Worker()
        for line in open("/proc/self/status"):
            if line.startswith("SigQ:"):
                queued = int(line.split()[1].split("/")[0])
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (queued + 100, queued + 100))
        full = 0
        while libc.sigqueue(os.getpid(), filler, None) == 0:
            full += 1
        assert ctypes.get_errno() == errno.EAGAIN
        def send():
            for _ in range(10):
                time.sleep(0.05)
                sent.append(time.monotonic())
                worker.kill(signal.SIGUSR1)
        sent = []
        threading.Thread(target=send, daemon=True).start()
        deadline = time.monotonic() + 10
        while len(calls) < 10:
            assert time.monotonic() < deadline, (len(calls), len(sent))
            time.sleep(1.2)   # it is not cut short, but handlers run meanwhile
        assert max(b - a for a, b in zip(sent, calls, strict=True)) < 1
    """)


# Between the look at which fd it is and the write lie nanoseconds: here, a millisecond.
SLOW_WRITE = """
#include <sys/syscall.h>
#include <unistd.h>

ssize_t write(int fd, const void *bytes, size_t count) {
    if (count == 1) {
        usleep(1000);
    }
    return syscall(SYS_write, fd, bytes, count);
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_old_wakeup_fd_is_written_after_set_wakeup_fd_returned(tmp_path):
    # The stock module can write into whatever file got the number of a closed one.
    source, library = tmp_path / "slow_write.c", tmp_path / "slow_write.so"
    source.write_text(SLOW_WRITE)
    compiler = ["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(compiler, check=True)
    preload = [*filter(None, [os.environ.get("LD_PRELOAD")]), str(library)]
    script = """
        def new_pipe():
            pipe = os.pipe()
            for fd in pipe:
                os.set_blocking(fd, False)
            return pipe
        def read_all(fd):
            total = 0
            try:
                while data := os.read(fd, 65536):
                    total += len(data)
            except BlockingIOError:
                return total
        signal.signal(signal.SIGUSR1, lambda *args: None)
        workers = [Worker() for _ in range(2)]
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])   # it lands on the workers
        sender = start_sender([signal.SIGUSR1], 0, 0.0002)
        pipes = [new_pipe(), new_pipe()]
        spare = [os.dup(write) for read, write in pipes]
        victim_read, victim = new_pipe()
        written = strays = 0
        signal.set_wakeup_fd(pipes[0][1])
        until(lambda: read_all(pipes[0][0]))
        for i in range(1, 101):
            new, old = i % 2, 1 - i % 2
            assert signal.set_wakeup_fd(pipes[new][1]) == pipes[old][1]
            os.dup2(victim, pipes[old][1])   # another file gets its number
            time.sleep(0.003)
            strays += read_all(victim_read)
            os.dup2(spare[old], pipes[old][1])
            written += read_all(pipes[old][0])
        signal.set_wakeup_fd(-1)
        sender.kill()
        sender.wait()
        assert strays == 0
        assert written >= 100, written
    """
    succeed(script, env=dict(os.environ, LD_PRELOAD=":".join(preload)))


# ---- fork ----


def test_after_a_fork_in_a_worker_nobody_is_the_main_thread():
    succeed("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        signal.signal(signal.SIGUSR1, lambda *args: None)
        def in_worker():
            pid = os.fork()
            if pid:
                results.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                return
            try:
                signal.alarm(20)
                calls = []
                signal.signal(signal.SIGUSR1, lambda *args: calls.append(time.monotonic()))
                os.kill(os.getpid(), signal.SIGUSR1)
                assert len(calls) == 1
                worker = Worker()
                started = time.monotonic()
                threading.Timer(0.1, worker.kill, (signal.SIGUSR1,)).start()
                time.sleep(1.5)   # it is not cut short, but the handler runs meanwhile
                assert len(calls) == 2 and calls[1] - started < 1
                read, write = os.pipe()
                os.set_blocking(write, False)
                signal.set_wakeup_fd(write)
                worker.kill(signal.SIGUSR1)
                until(lambda: len(calls) == 3)
                assert os.read(read, 9) == bytes([signal.SIGUSR1])
            except BaseException as error:
                __import__("traceback").print_exc()
                os._exit(1)
            os._exit(0)
        results = []
        for _ in range(2):
            thread = threading.Thread(target=in_worker)
            thread.start()
            thread.join()
        assert results == [0, 0], results
    """)


def test_after_a_fork_in_a_worker_the_parents_running_handler_holds_back_the_childs_signals():
    succeed("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        signum = signal.SIGRTMIN + 1
        parent = os.getpid()
        running, forked = threading.Event(), threading.Event()
        def handler(signum, frame):
            if os.getpid() != parent:
                os._exit(0)
            running.set()
            assert forked.wait(20)
        def fork():
            global status
            running.wait()
            pid = os.fork()
            if pid == 0:
                sigqueue(signum)
                time.sleep(10)
                os._exit(1)
            status = os.waitpid(pid, 0)[1]
            forked.set()
        signal.signal(signum, handler)
        thread = threading.Thread(target=fork)
        thread.start()
        sigqueue(signum)
        thread.join()
        assert status == 0
    """)


def test_after_a_fork_inside_a_handler_the_child_waits_for_it_for_ever():
    succeed("""
        signum = signal.SIGRTMIN + 1
        children = []
        calls = itertools.count(1)
        def handler(signum, frame):
            call = next(calls)
            if os.getpid() == parent and call <= 5:
                pid = os.fork()
                children.append(pid)
                if pid == 0:
                    children.clear()
                    own.append(call)
                    signal.alarm(20)
                    # Its turn comes when this handler, which the child is in as well, returns.
                    for _ in range(3):
                        sigqueue(signum)
            elif os.getpid() != parent:
                own.append(call)
        own = []
        parent = os.getpid()
        signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
        for _ in range(10):
            sigqueue(signum)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
        if os.getpid() != parent:
            until(lambda: len(own) == 4)
            time.sleep(0.02)
            count = stats()[signum]
            os._exit(0 if len(own) == 4 and count["arrivals"] == 3 == count["deliveries"] else 1)
        until(lambda: stats()[signum]["deliveries"] == 10)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        assert codes == [0] * 5, codes
    """)


@pytest.mark.parametrize("waiting", [0, 1, 100])
def test_the_parents_waiting_signals_arrive_in_the_child(waiting):
    # They wait in the inbox: their handler runs, and it is this handler that forks.
    succeed(f"""
        signum = signal.SIGRTMIN + 1
        calls = 0
        def handler(number, frame):
            global calls, pid
            calls += 1
            if calls == 1:
                for _ in range({waiting}):
                    signal.raise_signal(signum)
                assert stats()[signum]["waiting"] == {waiting}
                pid = os.fork()
        signal.signal(signum, handler)
        signal.raise_signal(signum)
        if pid == 0:
            time.sleep(0.02)
            os._exit(0 if calls == 1 and not any(stats()[signum].values()) else 1)
        assert calls == 1 + {waiting}
        assert os.waitpid(pid, 0)[1] == 0
    """)


def test_a_fork_in_a_storm_gives_the_child_signals_of_the_parents():
    succeed("""
        signals = [signal.SIGUSR1, signal.SIGRTMIN + 1]
        calls = {signum: itertools.count() for signum in signals}
        for signum in signals:
            signal.signal(signum, lambda number, frame: next(calls[number]))
        sender = start_sender([signal.SIGUSR1, signal.SIGRTMIN + 1], 0, 20e-6)
        until(lambda: stats()[signal.SIGUSR1]["arrivals"] > 100)
        for _ in range(100):
            pid = os.fork()
            if pid == 0:
                time.sleep(0.001)
                os._exit(any(count["arrivals"] for count in stats().values()))
            assert os.waitpid(pid, 0)[1] == 0
        sender.kill()
        sender.wait()
        until(lambda: not any(count["waiting"] for count in stats().values()))
        for signum in signals:
            assert stats()[signum]["deliveries"] == next(calls[signum]), stats()
    """)


# ---- real faults ----

FAULTS = {
    "SIGSEGV": "ctypes.string_at(0)",
    "SIGBUS": """
file = open(sys.argv[1], "w+b")
file.truncate(4096)
import mmap
memory = mmap.mmap(file.fileno(), 4096)
file.truncate(0)
memory[0]
""",
    "SIGFPE": "execute(DIVIDE)",
    "SIGILL": "execute(ILLEGAL)",
}

MACHINE_CODE = """
import mmap
CODE = {
    "x86_64": (bytes.fromhex("31c9 31d2 b801000000 f7f9 c3"), bytes.fromhex("0f0b")),
}
DIVIDE, ILLEGAL = CODE.get(os.uname().machine, (None, None))
def execute(code):
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""


@pytest.mark.parametrize("thread", ["main", "worker"])
@pytest.mark.parametrize("faulthandler", ["not at all", "before", "after"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_real_fault_with_a_handler_hangs(name, faulthandler, thread, tmp_path):
    if name in {"SIGFPE", "SIGILL"} and os.uname().machine != "x86_64":
        pytest.skip("the instructions that fault are written down for x86_64 only")
    enable = "import faulthandler; faulthandler.enable()"
    script = f"""
{MACHINE_CODE}
def the_function_that_faults():
    exec(FAULT)
FAULT = {FAULTS[name]!r}
{enable if faulthandler == "before" else ""}
signal.signal(signal.{name}, lambda *args: os.write(1, b"handled"))
{enable if faulthandler == "after" else ""}
os.kill(os.getpid(), signal.{name})   # sent, it is a signal as any other
time.sleep(0)
worker = Worker()
if {thread == "worker"}:
    thread = threading.Thread(target=the_function_that_faults)
    thread.start()
    thread.join()
else:
    the_function_that_faults()
"""
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, str(tmp_path / "file")],
        capture_output=True,
        timeout=20,
        preexec_fn=no_core,
    )
    took = time.monotonic() - started
    errors = result.stderr.decode()
    assert result.returncode == -getattr(stdlib_signal, name), errors
    assert took < 5, took  # with the interpreter's start, on a machine that is busy
    assert "the_function_that_faults" in errors
    assert result.stdout == b"handled"


def test_the_death_by_a_real_fault_takes_more_than_a_second():
    script = """
        signal.signal(signal.SIGSEGV, lambda *args: None)
        print(time.monotonic(), flush=True)
        ctypes.string_at(0)
    """
    result = run(script)
    assert time.monotonic() - float(result.stdout) < 1
    assert result.returncode == -stdlib_signal.SIGSEGV
    lines = result.stderr.splitlines()
    assert re.fullmatch(r"sigwright: SIGSEGV at address 0x0: .*", lines[0]), lines
    assert any(line.startswith("Current thread 0x") for line in lines)


def test_a_real_fault_in_a_child_of_fork_hangs():
    succeed("""
        signal.signal(signal.SIGSEGV, lambda *args: None)
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            ctypes.string_at(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSEGV
    """)
