"""Added handlers, where it could go wrong: order, cancelling, exceptions, the thread, fork."""

import ctypes
import gc
import inspect
import os
import queue
import subprocess
import sys
import threading
import time

import pytest

import programs
import sigwright as signal
from programs import enqueue, send

REALTIME = signal.SIGRTMIN + 6
USED = (signal.SIGUSR1, signal.SIGUSR2, REALTIME)
SOON = 10  # seconds: more than anything here takes


@pytest.fixture(autouse=True)
def _harmless():
    """What a test that fails leaves behind does not end all tests."""
    with programs.ignored(*USED):
        yield
        for consumer in signal._engine.consumers():
            consumer.close(discard=True)


PREAMBLE = f"""
import os, sys, time, threading
import sigwright as signal
REALTIME = {int(REALTIME)}
{inspect.getsource(programs.enqueue)}
sigwright = signal
"""
# From 3.12 on, os.fork() warns of the threads that there are; here they are the point.
QUIET = ("-W", "ignore::DeprecationWarning")


def run(source: str) -> subprocess.CompletedProcess[str]:
    return programs.run(PREAMBLE, source, options=QUIET)


def said(source: str) -> list[str]:
    return programs.succeed(PREAMBLE, source, options=QUIET).splitlines()


def until(condition, *args) -> None:
    deadline = time.monotonic() + SOON
    while not condition(*args):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.001)


# --- in the main thread -------------------------------------------------------------------------


def test_handlers_run_in_the_order_of_their_registration_beside_the_one_of_signal():
    called = []
    signal.signal(signal.SIGUSR1, lambda *args: called.append("signal()"))
    with (
        signal.add_handler(signal.SIGUSR1, lambda info: called.append("first")),
        signal.add_handler(signal.SIGUSR1, lambda info: called.append("second")),
        signal.add_handler(signal.SIGUSR1, lambda info: called.append("third")),
    ):
        send(signal.SIGUSR1)
        assert sorted(called) == ["first", "second", "signal()", "third"]
        assert [name for name in called if name != "signal()"] == ["first", "second", "third"]
    del called[:]
    send(signal.SIGUSR1)
    assert called == ["signal()"]


def test_a_handler_is_given_what_is_known_of_the_arrival():
    given = []
    with signal.add_handler(signal.SIGUSR1, given.append):
        send(signal.SIGUSR1)
    (info,) = given
    assert isinstance(info, signal.SignalInfo)
    assert (info.si_signo, info.si_code, info.si_pid, info.thread_id) == (
        signal.SIGUSR1,
        signal.SI_USER,
        os.getpid(),
        threading.get_ident(),
    )


def test_the_default_action_does_not_act_and_getsignal_still_names_it():
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    called = []
    with signal.add_handler(signal.SIGUSR1, called.append):
        send(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert len(called) == 1


def test_a_standard_signal_that_comes_again_before_it_is_handled_is_a_call_each():
    calls, added = [], []
    signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
    with signal.add_handler(signal.SIGUSR1, added.append):
        # All of it is one bytecode, and the GIL is held: nothing is handled in between.
        list(map(ctypes.PyDLL(None)["raise"], [int(signal.SIGUSR1)] * 3))
    assert len(added) == 3
    assert len(calls) == 1  # signal()'s, as POSIX has it


def test_queued_real_time_signals_are_one_call_each_in_order_with_their_values():
    assert said(
        """
        values = []
        signal.add_handler(REALTIME, lambda info: values.append(info.si_value))
        signal.pthread_sigmask(signal.SIG_BLOCK, [REALTIME])
        for number in range(1000):
            enqueue(REALTIME, number)
        print(values)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [REALTIME])
        print(values == list(range(1000)))
        """
    ) == ["[]", "True"]


def test_a_handler_added_in_a_thread_runs_in_the_main_thread_even_while_that_sleeps():
    called = queue.SimpleQueue()

    def add():
        signal.add_handler(
            signal.SIGUSR1, lambda info: called.put((threading.get_ident(), time.monotonic()))
        )

    thread = threading.Thread(target=add)
    thread.start()
    thread.join()
    start = time.monotonic()
    sender = threading.Timer(0.05, lambda: signal.raise_signal(signal.SIGUSR1))  # lands on it
    sender.start()
    time.sleep(1)
    ident, when = called.get(timeout=0)
    assert ident == threading.main_thread().ident
    assert when - start < 0.8
    sender.join()


def test_a_registration_that_nobody_keeps_stays():
    called = []
    signal.add_handler(signal.SIGUSR1, called.append)
    gc.collect()
    send(signal.SIGUSR1)
    assert len(called) == 1


def test_the_decorator_returns_the_function_and_serves_all_its_signals():
    called = []

    def handler(info):
        called.append(info.si_signo)

    assert signal.on(signal.SIGUSR1, signal.SIGUSR2)(handler) is handler
    send(signal.SIGUSR1)
    send(signal.SIGUSR2)
    assert called == [signal.SIGUSR1, signal.SIGUSR2]


def test_what_a_registration_says_of_itself():
    def handler(info):
        pass

    registration = signal.add_handler(signal.SIGUSR1, handler)
    assert (registration.signal, registration.handler) == (signal.SIGUSR1, handler)
    assert isinstance(registration.signal, signal.Signals)
    assert registration.active
    assert repr(registration).startswith("<Registration SIGUSR1: <function")
    registration.cancel()
    registration.cancel()
    assert not registration.active
    assert repr(registration).endswith("cancelled>")
    assert registration.signal == signal.SIGUSR1


@pytest.mark.parametrize(
    ("signum", "handler", "error"),
    [
        (signal.SIGUSR1, None, TypeError),
        (signal.SIGUSR1, signal.SIG_IGN, TypeError),
        (signal.SIGUSR1, "handler", TypeError),
        ("SIGUSR1", print, TypeError),
        (0, print, ValueError),
        (65, print, ValueError),
        (signal.SIGKILL, print, OSError),
        (signal.SIGSTOP, print, OSError),
    ],
)
@pytest.mark.parametrize("thread", [False, True])
def test_bad_arguments_add_nothing(signum, handler, error, thread):
    with pytest.raises(error):
        signal.add_handler(signum, handler, thread=thread)
    with pytest.raises(error):
        signal.on(signal.SIGUSR2, signum, thread=thread)(handler)
    assert signal._engine.consumers() == []


def test_the_decorator_without_a_signal_is_a_mistake():
    with pytest.raises(TypeError):
        signal.on()(print)


# --- cancelling ---------------------------------------------------------------------------------


def test_a_handler_may_cancel_itself():
    called = []

    def once(info):
        called.append("once")
        registration.cancel()

    registration = signal.add_handler(signal.SIGUSR1, once)
    signal.add_handler(signal.SIGUSR1, lambda info: called.append("always"))
    send(signal.SIGUSR1, 2)
    assert called == ["once", "always", "always"]


def test_a_handler_may_cancel_the_next_one():
    called = []
    signal.add_handler(signal.SIGUSR1, lambda info: second.cancel())
    second = signal.add_handler(signal.SIGUSR1, lambda info: called.append("second"))
    third = signal.add_handler(signal.SIGUSR1, lambda info: called.append("third"))
    send(signal.SIGUSR1, 2)
    assert called == ["third", "third"]
    assert third.active


def test_a_handler_may_add_another_one_that_has_no_part_in_what_was_before():
    called = []

    def first(info):
        called.append("first")
        if len(called) == 1:
            signal.add_handler(signal.SIGUSR1, lambda info: called.append("second"))

    signal.add_handler(signal.SIGUSR1, first)
    send(signal.SIGUSR1)
    assert called == ["first"]
    send(signal.SIGUSR1)
    assert called == ["first", "first", "second"]


def test_cancelling_in_a_thread_while_signals_come_loses_nothing_of_the_others():
    kept, fleeting = [], []
    signal.add_handler(REALTIME, lambda info: kept.append(info.si_value))

    def come_and_go():
        for _ in range(200):
            with signal.add_handler(REALTIME, fleeting.append):
                time.sleep(0)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    for number in range(2000):
        enqueue(REALTIME, number)
    thread.join()
    until(lambda: len(kept) == 2000)
    # Two threads that take one each may finish in either order.
    assert sorted(kept) == list(range(2000))


def test_the_last_one_to_go_leaves_what_signal_says():
    assert said(
        """
        called = []
        registration = signal.add_handler(signal.SIGTERM, called.append)
        os.kill(os.getpid(), signal.SIGTERM)
        registration.cancel()
        print(len(called), flush=True)
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    ) == ["1", "-15"]


def test_a_term_that_no_handler_was_called_for_ends_the_program_when_the_last_one_goes():
    """In a thread: the main thread has had no chance to run the handler."""
    done = run(
        """
        signal.add_handler(signal.SIGTERM, print)
        registration = signal._engine.consumers()[0]
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        first = signal.add_handler(signal.SIGTERM, lambda info: print("not called"))
        os.kill(os.getpid(), signal.SIGTERM)
        registration.cancel(), first.cancel()
        print("blocked", flush=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        print("not reached")
        """
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "blocked\n")


# --- exceptions ---------------------------------------------------------------------------------


def test_a_handler_that_raises_does_not_take_the_others_copies():
    called = []

    def fail(info):
        called.append("fail")
        raise KeyError(info.si_value)

    signal.signal(REALTIME, lambda *args: called.append("signal()"))
    signal.add_handler(REALTIME, fail)
    signal.add_handler(REALTIME, lambda info: called.append("after"))
    with pytest.raises(KeyError):
        enqueue(REALTIME, 5)
    until(lambda: len(called) == 3)
    assert sorted(called) == ["after", "fail", "signal()"]


def test_a_handler_that_raises_loses_nothing_of_its_own_that_is_queued():
    assert said(
        """
        values = []

        def handler(info):
            values.append(info.si_value)
            if info.si_value == 500:
                raise KeyError

        signal.add_handler(REALTIME, handler)
        signal.pthread_sigmask(signal.SIG_BLOCK, [REALTIME])
        for number in range(1000):
            enqueue(REALTIME, number)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [REALTIME])
        except KeyError:
            print("raised")
        print(values == list(range(1000)))
        """
    ) == ["raised", "True"]


# --- in sigwright's thread ----------------------------------------------------------------------


def test_the_thread_runs_a_handler_while_the_main_thread_is_in_c_without_the_gil():
    library = ctypes.CDLL(None)  # releases the GIL
    called = []
    signal.add_handler(
        signal.SIGUSR1,
        lambda info: called.append((time.monotonic(), threading.current_thread())),
        thread=True,
    )
    sender = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; os.kill({os.getpid()}, {int(signal.SIGUSR1)})"]
    )
    # A call that the signal would interrupt is repeated: the main thread does not come out of it.
    end = time.monotonic() + 2
    while not called and time.monotonic() < end:
        library.usleep(1_000_000)
    sender.wait()
    (_, thread) = called[0]
    assert (thread.name, thread.daemon) == ("sigwright", True)
    assert thread is not threading.main_thread()


def test_the_thread_does_not_wait_for_a_main_thread_that_never_comes_back_to_python():
    """It is joined in C, with all signals blocked: no safe point until the handler has run."""
    assert said(
        """
        import ctypes, subprocess
        libc = ctypes.CDLL(None)
        read, write = os.pipe()
        signal.add_handler(signal.SIGUSR1, lambda info: os.write(write, b"x"), thread=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        kill = f"import os; os.kill({os.getpid()}, {int(signal.SIGUSR1)})"
        subprocess.Popen([sys.executable, "-c", kill])
        buffer = ctypes.create_string_buffer(1)
        while libc.read(read, buffer, 1) != 1:   # nothing but the handler ends this
            pass
        print(buffer.raw)
        """
    ) == ["b'x'"]


def test_no_signal_lands_on_the_thread_while_it_waits():
    assert (
        said(
            """
        import queue
        landed = queue.SimpleQueue()
        for thread in range(2):
            signal.add_handler(REALTIME, lambda info: landed.put(info.thread_id), thread=True)
            signal.pthread_sigmask(signal.SIG_BLOCK, [REALTIME])
            os.kill(os.getpid(), REALTIME)
            try:
                landed.get(timeout=0.1)
            except queue.Empty:
                print("nothing")
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [REALTIME])
            print({landed.get(timeout=10) for _ in range(thread + 1)} == {threading.get_ident()})
        """
        )
        == ["nothing", "True"] * 2
    )


def test_a_program_that_a_handler_in_the_thread_starts_is_not_deaf():
    """The thread blocks all signals while it waits, and a program inherits its starter's mask."""
    assert said(
        """
        import subprocess
        done = threading.Event()

        def handler(info):
            sleeper = subprocess.Popen(["sleep", "20"])
            sleeper.terminate()
            print(sleeper.wait())
            done.set()

        signal.add_handler(signal.SIGUSR1, handler, thread=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        done.wait()
        """
    ) == ["-15"]


def test_an_exception_in_the_thread_goes_to_threadings_hook_and_the_next_signal_is_handled(
    monkeypatch,
):
    hooked = queue.SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", hooked.put)

    def fail(info):
        raise KeyError(info.si_value)

    signal.add_handler(REALTIME, fail, thread=True)
    for number in range(3):
        enqueue(REALTIME, number)
    for number in range(3):
        arguments = hooked.get(timeout=SOON)
        assert arguments.exc_type is KeyError
        assert arguments.exc_value.args == (number,)
        assert arguments.exc_traceback.tb_next.tb_frame.f_code is fail.__code__
        assert arguments.thread.name == "sigwright"


def test_a_hook_that_fails_and_an_exit_do_not_end_the_thread():
    done = run(
        """
        called = []

        def fail(info):
            called.append(info.si_value)
            if info.si_value < 2:
                raise [KeyError, SystemExit][info.si_value]

        def hook(args):
            raise ZeroDivisionError

        threading.excepthook = hook
        signal.add_handler(REALTIME, fail, thread=True)
        for number in range(3):
            enqueue(REALTIME, number)
        while len(called) < 3:
            time.sleep(0.001)
        """
    )
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr


def test_by_default_the_exception_is_printed_as_any_threads():
    done = run(
        """
        done = threading.Event()
        signal.add_handler(signal.SIGUSR1, lambda info: 1 / 0, thread=True)
        signal.add_handler(signal.SIGUSR1, lambda info: done.set(), thread=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        done.wait()
        """
    )
    assert done.returncode == 0
    assert done.stderr.startswith("Exception in thread sigwright:\nTraceback")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_the_thread_handles_queued_signals_in_order_one_after_the_other():
    values, inside = [], []

    def handler(info):
        inside.append(1)
        assert len(inside) == 1
        values.append(info.si_value)
        inside.pop()

    signal.add_handler(REALTIME, handler, thread=True)
    for number in range(2000):
        enqueue(REALTIME, number)
    until(lambda: len(values) == 2000)
    assert values == list(range(2000))


def test_many_that_start_the_thread_at_once_start_one():
    assert said(
        """
        class Slow(threading.Thread):  # others have the time to begin the same
            def __init__(self, **options):
                time.sleep(0.05)
                super().__init__(**options)

        start = threading.Barrier(20)

        def add():
            start.wait()
            signal.add_handler(signal.SIGUSR1, lambda info: None, thread=True)

        threads = [threading.Thread(target=add) for _ in range(20)]
        threading.Thread = Slow
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print([thread.name for thread in threading.enumerate()])
        """
    ) == ["['MainThread', 'sigwright']"]


def test_without_a_handler_for_it_there_is_no_thread():
    assert said(
        """
        signal.add_handler(signal.SIGUSR1, print)
        signal.listen(signal.SIGUSR1)
        print(len(os.listdir("/proc/self/task")))
        """
    ) == ["1"]


def test_the_program_ends_while_a_handler_in_the_thread_still_runs():
    assert said(
        """
        started = threading.Event()

        def handler(info):
            started.set()
            time.sleep(20)

        signal.add_handler(signal.SIGUSR1, handler, thread=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        started.wait()
        print("ends")
        """
    ) == ["ends"]


def test_a_handler_in_the_thread_may_cancel_itself():
    called = []

    def once(info):
        called.append(info)
        registration.cancel()

    registration = signal.add_handler(REALTIME, once, thread=True)
    last = signal.add_handler(REALTIME, lambda info: called.append("last"), thread=True)
    send(REALTIME, 3)
    until(lambda: called.count("last") == 3)
    assert len(called) == 4
    last.cancel()


# --- forked children ----------------------------------------------------------------------------


@pytest.mark.parametrize("thread", [False, True])
def test_a_child_does_not_run_its_parents_shutdown_where_it_is_not_to_inherit_it(thread):
    assert said(
        f"""
        called = []
        signal.add_handler(signal.SIGTERM, called.append, thread={thread}, inherit=False)
        ends = set()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                time.sleep(20)
                os._exit(1)
            os.kill(pid, signal.SIGTERM)
            ends.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(ends, called)
        os.kill(os.getpid(), signal.SIGTERM)
        while not called:
            time.sleep(0.001)
        print(len(called))
        """
    ) == ["{-15} []", "1"]


@pytest.mark.parametrize("thread", [False, True])
def test_a_child_that_inherits_a_handler_runs_it_however_early_the_signal_comes(thread):
    assert said(
        f"""
        def handler(info):
            name = threading.current_thread().name
            assert ({thread} and name == "sigwright") or name == "MainThread"
            os._exit(7)

        signal.add_handler(signal.SIGTERM, handler, thread={thread})
        ends = set()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                time.sleep(20)
                os._exit(1)
            os.kill(pid, signal.SIGTERM)
            ends.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(ends)
        """
    ) == ["{7}"]


def test_a_child_forked_in_the_thread_has_a_thread_of_its_own():
    assert said(
        """
        import queue
        ends = queue.SimpleQueue()

        def handler(info):
            pid = os.fork()
            if pid == 0:
                called = []
                signal.add_handler(signal.SIGUSR2, called.append, thread=True)
                os.kill(os.getpid(), signal.SIGUSR2)
                deadline = time.monotonic() + 5
                while not called and time.monotonic() < deadline:
                    time.sleep(0.001)
                os._exit(len(called))
            ends.put(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        signal.add_handler(signal.SIGUSR1, handler, thread=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        print(ends.get(timeout=10))
        """
    ) == ["1"]


def test_a_pool_of_processes_does_not_inherit_its_parents_handler():
    assert said(
        """
        import multiprocessing
        called = []
        signal.add_handler(signal.SIGTERM, called.append, inherit=False)
        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            print(pool.map(abs, [-1, 2]))
        # Pool.__exit__ has sent SIGTERM to its workers: they have not run the handler, and ended.
        print(called)
        """
    ) == ["[1, 2]", "[]"]
