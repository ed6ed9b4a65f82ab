"""What ended, hung or misled a process while the engine was designed: each a test.

Every scenario is a program of its own, in an interpreter of its own: see programs.py.
"""

import itertools
import os
import re
import signal as stdlib_signal
import subprocess
import sys
import time

import pytest

import programs
from programs import run_with_engine as run
from programs import succeed_with_engine as succeed

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
            preexec_fn=programs.as_from_a_shell,
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
        [sys.executable, "-c", programs.ENGINE + script, str(tmp_path / "file")],
        capture_output=True,
        timeout=20,
        preexec_fn=programs.as_from_a_shell,
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
