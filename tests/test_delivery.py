"""Delivery, where it could go wrong: what waits behind a handler that raises; rings that cross."""

import asyncio
import ctypes
import functools
import gc
import os
import shutil
import signal as stdlib
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import sigwright as signal

REALTIME = signal.SIGRTMIN + 3


@pytest.fixture
def handlers():
    """Put back whatever a test sets."""
    before = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGUSR2, REALTIME)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def run(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, timeout=30
    )


@pytest.mark.usefixtures("handlers")
def test_what_waits_behind_a_handler_that_raises_interrupts_the_except_clause():
    """No safe point lies between `except` and the call in it: nothing but the timer rings there."""
    called = []

    def handler(signum, frame):
        called.append(time.monotonic())
        if len(called) == 1:
            signal.raise_signal(REALTIME)  # waits: a handler of this number runs
            raise KeyError

    signal.signal(REALTIME, handler)
    start = time.monotonic()
    try:
        os.kill(os.getpid(), REALTIME)
        time.sleep(1)
    except KeyError:
        time.sleep(1)
    assert len(called) == 2
    assert called[1] - start < 0.9


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("signum", [signal.Signals.SIGUSR1, signal.Signals(signal.SIGRTMIN)])
def test_a_handler_that_raises_does_not_come_between_enter_and_its_block(signum):
    """On CPython 3.14 a look for signals lies there: with the stdlib a lock stays taken."""

    def handler(signum, frame):
        raise KeyError

    class Section:  # a C function as __enter__ that ends with the arrival of a signal
        __enter__ = staticmethod(functools.partial(ctypes.CDLL(None)["raise"], signum))

        def __exit__(self, *exception):
            left.append(exception[0])

    signal.signal(signum, handler)
    left = []
    for _ in range(200):
        try:
            with Section():
                for _ in range(3):  # the interpreter looks at each turn
                    pass
        except KeyError:
            pass
    assert left == [KeyError] * 200


@pytest.mark.usefixtures("handlers")
def test_a_handler_that_raises_loses_nothing_of_what_is_queued():
    called = []

    def handler(signum, frame):
        called.append(signum)
        if len(called) == 500:
            raise ValueError

    signal.signal(REALTIME, handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, [REALTIME])
    for _ in range(1000):
        os.kill(os.getpid(), REALTIME)
    with pytest.raises(ValueError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [REALTIME])
    assert len(called) == 1000  # the rest ran at the next safe point, which was on the way here


@pytest.mark.usefixtures("handlers")
def test_rings_from_a_worker_that_cross_delivery_leave_no_signal_behind():
    """A ring that lands when all is done must allow the next one."""
    count = 0

    def handler(signum, frame):
        nonlocal count
        count += 1

    signal.signal(signal.SIGUSR1, handler)
    signal.siginterrupt(signal.SIGUSR1, False)  # the quiet door: no timer helps it along

    def send(times):
        for _ in range(times):
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    for _ in range(100):
        storm = threading.Thread(target=send, args=(300,))
        storm.start()
        storm.join()
        before, deadline = count, time.monotonic() + 5
        last = threading.Thread(target=send, args=(1,))
        last.start()
        while count == before and time.monotonic() < deadline:
            pass
        last.join()
        assert count > before, signal._engine.stats()[signal.SIGUSR1]


_STORM_AND_STAY = """
#include <signal.h>
#include <time.h>
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
void storm_and_stay(int signum, int times, double seconds) {
    for (int i = 0; i < times; i++) {
        raise(signum);
        for (double end = now() + 2e-4; now() < end;) {}
    }
    for (double end = now() + seconds; now() < end;) {}
}
"""


@pytest.mark.usefixtures("handlers")
@pytest.mark.skipif(shutil.which("cc") is None, reason="the storm is C, and there is no compiler")
@pytest.mark.parametrize("interrupting", [True, False])
def test_an_arrival_on_a_worker_does_not_hide_an_earlier_one_from_a_busy_main_thread(
    interrupting, tmp_path
):
    """On 3.11 and 3.12 CPython's own C handler clears the main thread's breaker from a worker.

    Nobody switches the GIL here (that would hide it): the worker is in C all the time.
    """
    (tmp_path / "storm.c").write_text(_STORM_AND_STAY)
    command = ["cc", "-O1", "-shared", "-fPIC", "storm.c", "-o", "storm.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    storm = ctypes.CDLL(str(tmp_path / "storm.so")).storm_and_stay
    storm.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_double)
    signal.signal(signal.SIGUSR1, lambda signum, frame: None)
    signal.siginterrupt(signal.SIGUSR1, interrupting)

    def arrived():
        return signal._engine.stats()[signal.SIGUSR1]["arrivals"]

    for _ in range(10):
        expected = arrived() + 200
        worker = threading.Thread(target=storm, args=(signal.SIGUSR1, 200, 0.15))
        worker.start()
        while arrived() < expected:
            pass
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
        assert signal._engine.stats()[signal.SIGUSR1]["waiting"] == 0
        worker.join()


def test_install_inside_a_running_loop_keeps_its_signal_handlers():
    async def main():
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR2, arrived.set)
        signal.install()
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(arrived.wait(), 10)
        assert loop.remove_signal_handler(signal.SIGUSR2)

    try:
        asyncio.run(main())
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.uninstall()
    assert stdlib.set_wakeup_fd(-1) == -1


def test_import_inside_a_running_loop_keeps_its_signal_handlers():
    done = run(
        """
        import asyncio, os, signal

        async def main():
            loop = asyncio.get_running_loop()
            arrived = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR2, arrived.set)
            import sigwright
            os.kill(os.getpid(), signal.SIGUSR2)
            await asyncio.wait_for(arrived.wait(), 10)

        asyncio.run(main())
        print("arrived")
        """
    )
    assert (done.stdout, done.stderr) == ("arrived\n", "")


def test_a_second_import_in_one_interpreter_finds_the_engine_running():
    done = run(
        """
        import sys
        import sigwright as first
        called = []
        handler = lambda signum, frame: called.append(signum)
        first.signal(first.SIGUSR1, handler)
        for name in [name for name in sys.modules if name.startswith("sigwright")]:
            del sys.modules[name]
        import sigwright as second
        assert second is not first
        assert second.getsignal(second.SIGUSR1) is handler
        second.raise_signal(second.SIGUSR1)
        first.raise_signal(first.SIGUSR1)
        print(len(called))
        """
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_bad_arguments_are_not_kept():
    unfit = object()
    before = sys.getrefcount(unfit)
    for _ in range(100):
        with pytest.raises(TypeError):
            signal.signal(unfit, print)
        with pytest.raises(TypeError):
            signal.signal(signal.SIGUSR1, unfit)
    gc.collect()
    assert sys.getrefcount(unfit) == before


_EXEC_UNDER_FIRE = """
import os, threading, time
import sigwright as signal
signal.signal(signal.SIGWINCH, lambda signum, frame: None)
for _ in range(3):
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
time.sleep(0.01)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])  # so that it lands on a worker
os.write(1, b"r")
os.execv("/bin/sh", ["sh", "-c", "exit 7"])
"""


def test_a_ring_that_is_under_way_at_exec_does_not_end_the_new_program():
    for _ in range(40):
        with subprocess.Popen([sys.executable, "-c", _EXEC_UNDER_FIRE], stdout=-1) as program:
            program.stdout.read(1)
            try:
                for _ in range(40):
                    os.kill(program.pid, signal.SIGWINCH)
            except ProcessLookupError:
                pass
            assert program.wait(timeout=10) == 7
