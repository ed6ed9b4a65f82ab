"""deferred(): handlers and limits wait, all of them run, once and in order, and none is held after.

What a section must survive: handlers that raise at any moment, suspension, threads, forks.
"""

import _thread
import asyncio
import contextlib
import inspect
import os
import queue
import subprocess
import threading
import time

import pytest

import sigwright as signal
from programs import UNTIL, enqueue, run, send, succeed
from sigwright import Cancelled, deferred, fail_after, move_on_after

REALTIME = signal.SIGRTMIN + 3


def until(condition, seconds=20):
    """Run Python code, in which a handler or a limit can strike, until that is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"


def spin(seconds):
    """Run Python code for that long: whatever is due has struck when this returns."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def in_a_worker(function):
    """Run it in another thread; what it raises is raised here."""
    raised = []

    def worker():
        try:
            function()
        except BaseException as error:  # a Cancelled is one
            raised.append(error)

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


ALL = (signal.SIGUSR1, signal.SIGUSR2, REALTIME)


def assert_nothing_is_deferred(arrived, signals=ALL):
    """A signal that is sent now has its handler run now."""
    for signum in signals:
        before = arrived.count(signum)
        send(signum)
        assert arrived.count(signum) == before + 1


# ---- what waits, and when it runs ----


def test_a_handler_waits_and_has_run_when_the_block_is_left(arrived):
    with deferred():
        send(signal.SIGUSR1)
        spin(0.02)
        assert arrived == []
    assert arrived == [signal.SIGUSR1]
    assert_nothing_is_deferred(arrived)


def test_a_handler_from_another_process_waits_too(arrived):
    with deferred():
        subprocess.run(["sh", "-c", f"kill -USR1 {os.getpid()}"], check=True)
        until(lambda: signal.stats()[signal.SIGUSR1].handler.waiting)
        spin(0.02)
        assert arrived == []
    assert arrived == [signal.SIGUSR1]


def test_what_waited_runs_in_the_order_of_arrival_once_each():
    with_values = []

    def handler(info):
        with_values.append((info.si_signo, info.si_value))

    calls = []
    signals = (signal.SIGUSR1, signal.SIGUSR2, REALTIME, REALTIME + 1)
    before = {signum: signal.getsignal(signum) for signum in signals}
    for signum in signals:
        signal.signal(signum, lambda signum, frame: calls.append(signum))
    try:
        with signal.add_handler(REALTIME, handler), deferred():
            enqueue(REALTIME, 1)
            send(signal.SIGUSR2)
            enqueue(REALTIME + 1, 2)
            enqueue(REALTIME, 3)
            send(signal.SIGUSR1)
            enqueue(REALTIME, 4)
            assert calls == with_values == []
        assert calls == [
            REALTIME,
            signal.SIGUSR2,
            REALTIME + 1,
            REALTIME,
            signal.SIGUSR1,
            REALTIME,
        ]
        assert with_values == [(REALTIME, 1), (REALTIME, 3), (REALTIME, 4)]
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def test_standard_signals_that_wait_merge_and_real_time_ones_queue(arrived):
    before = {signum: signal.stats()[signum].handler for signum in (signal.SIGUSR1, REALTIME)}
    with deferred():
        for _ in range(500):
            send(signal.SIGUSR1)
            send(REALTIME)
        assert arrived == []
    assert arrived.count(signal.SIGUSR1) == 1
    assert arrived.count(REALTIME) == 500
    after = {signum: signal.stats()[signum].handler for signum in (signal.SIGUSR1, REALTIME)}
    for signum, deliveries, merges in ((signal.SIGUSR1, 1, 499), (REALTIME, 500, 0)):
        assert after[signum].deliveries - before[signum].deliveries == deliveries
        assert after[signum].merges - before[signum].merges == merges
        assert after[signum].drops == before[signum].drops
        assert after[signum].waiting == 0


def test_an_inner_block_opens_nothing(arrived):
    section = deferred()
    with section:
        with section:
            with deferred():
                send(signal.SIGUSR1)
            assert arrived == []
        assert arrived == []
        send(signal.SIGUSR2)
    assert arrived == [signal.SIGUSR1, signal.SIGUSR2]
    assert_nothing_is_deferred(arrived)


def test_only_the_signals_that_are_named_wait(arrived):
    with deferred(signal.SIGUSR1, REALTIME):
        send(signal.SIGUSR1)
        send(signal.SIGUSR2)
        send(REALTIME)
        assert arrived == [signal.SIGUSR2]
    assert arrived == [signal.SIGUSR2, signal.SIGUSR1, REALTIME]


@pytest.mark.parametrize(
    "nesting",
    [
        ((signal.SIGUSR1,), (signal.SIGUSR2,)),
        ((signal.SIGUSR1,), ()),
        ((), (signal.SIGUSR1,)),
        ((signal.SIGUSR1,), (), (signal.SIGUSR2,)),
        ((signal.SIGUSR1, signal.SIGUSR2), (signal.SIGUSR2, REALTIME), (signal.SIGUSR1,)),
        ((signal.SIGUSR2,), (REALTIME,), (), (signal.SIGUSR1,), (signal.SIGUSR2,)),
    ],
    ids=lambda nesting: " ".join("+".join(map(str, map(int, each))) or "all" for each in nesting),
)
def test_a_signal_waits_until_the_outermost_block_that_defers_it(arrived, nesting):
    """Whatever is nested in what: each signal runs at once exactly where no block defers it."""

    def expected_open(level):
        held = {signum for names in nesting[:level] for signum in names or ALL}
        return [signum for signum in ALL if signum not in held]

    waiting = []

    def probe(level):
        arrived.clear()
        for signum in ALL:
            send(signum)
        assert arrived == expected_open(level)
        waiting.extend(signum for signum in ALL if signum not in arrived)

    def descend(level):
        probe(level)
        if level < len(nesting):
            with deferred(*nesting[level]):
                descend(level + 1)
            probe_left(level)

    def probe_left(level):
        # What the block that has just been left held, and no outer one does, has run.
        freed = [signum for signum in expected_open(level) if signum in waiting]
        assert {signum for signum in freed if signum not in arrived} == set()
        waiting[:] = [signum for signum in waiting if signum not in freed]
        probe(level)

    descend(0)
    assert waiting == []
    assert_nothing_is_deferred(arrived)


def test_run_pending_opens_the_outermost_block_for_a_moment_and_no_inner_one(arrived):
    with deferred() as section:
        assert section.run_pending() is True  # nothing waits, and that is no error
        send(signal.SIGUSR1)
        assert section.run_pending() is True
        assert arrived == [signal.SIGUSR1]
        send(signal.SIGUSR2)
        with deferred() as inner:
            assert inner.run_pending() is False
            assert section.run_pending() is False
            assert arrived == [signal.SIGUSR1]
        send(REALTIME)
        assert arrived == [signal.SIGUSR1]  # closed again
        assert section.run_pending() is True
        assert arrived == [signal.SIGUSR1, signal.SIGUSR2, REALTIME]
    assert arrived == [signal.SIGUSR1, signal.SIGUSR2, REALTIME]  # once


def test_run_pending_takes_no_account_of_blocks_that_are_suspended(arrived):
    def generator():
        with deferred() as section:
            send(signal.SIGUSR2)
            assert section.run_pending() is outermost
            assert arrived == ([signal.SIGUSR2] if outermost else [])
            yield

    outermost = True
    suspended = generator()
    next(suspended)
    arrived.clear()
    with deferred() as section:
        send(signal.SIGUSR1)
        assert section.run_pending() is True
        assert arrived == [signal.SIGUSR1]
        outermost = False
        arrived.clear()
        other = generator()
        next(other)
        assert arrived == []
    assert arrived == [signal.SIGUSR2]
    suspended.close()
    other.close()


def test_run_pending_runs_a_limit_that_is_due():
    raised = []

    def block():
        with fail_after(0.01), deferred() as section:
            spin(0.05)
            try:
                section.run_pending()
            except Cancelled:
                raised.append(True)
                raise
            raise AssertionError("the limit did not strike")

    with pytest.raises(TimeoutError):
        block()
    assert raised


@pytest.mark.usefixtures("arrived")
def test_an_exception_of_run_pending_leaves_the_block_in_force():
    def handler(signum, frame):
        raise KeyError(signum)

    calls = []
    signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR2, lambda signum, frame: calls.append(signum))
    with deferred() as section:
        send(signal.SIGUSR1)
        with pytest.raises(KeyError):
            section.run_pending()
        send(signal.SIGUSR2)
        spin(0.02)
        assert calls == []
    assert calls == [signal.SIGUSR2]


# ---- handlers that raise ----


@pytest.mark.usefixtures("arrived")
def test_a_handler_that_raises_does_so_on_the_way_out_with_the_blocks_own_as_context():
    def handler(signum, frame):
        raise KeyError(signum)

    signal.signal(signal.SIGUSR1, handler)
    whole = []

    def block():
        with deferred():
            send(signal.SIGUSR1)
            whole.append(True)
            raise ZeroDivisionError

    with pytest.raises(KeyError) as caught:
        block()
    assert whole
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert caught.value.__cause__ is None
    with pytest.raises(KeyError) as caught, deferred():
        send(signal.SIGUSR1)
    assert caught.value.__context__ is None


def test_the_blocks_own_exception_passes_unchanged_through_handlers_that_do_not_raise(arrived):
    error = ZeroDivisionError()

    def block():
        with deferred():
            send(signal.SIGUSR1)
            raise error

    with pytest.raises(ZeroDivisionError) as caught:
        block()
    assert caught.value is error
    assert error.__context__ is None
    assert arrived == [signal.SIGUSR1]


def test_what_waits_behind_a_handler_that_raises_runs_all_the_same(arrived):
    def handler(signum, frame):
        arrived.append(signum)
        raise KeyError(signum)

    signal.signal(signal.SIGUSR2, handler)
    waiting = [REALTIME, signal.SIGUSR2, signal.SIGUSR1, REALTIME]

    def block():
        with deferred():
            for signum in waiting:
                send(signum)

    with pytest.raises(KeyError):
        block()
    until(lambda: len(arrived) == len(waiting))
    spin(0.05)
    assert arrived == waiting


def test_a_handler_that_runs_at_the_exit_may_have_sections_of_its_own(arrived):
    order = []

    def handler(signum, frame):
        with deferred():
            send(signal.SIGUSR2)
            order.append("still alone")
        order.append("inner left")

    signal.signal(signal.SIGUSR1, handler)
    with deferred():
        send(signal.SIGUSR1)
        assert order == []
    until(lambda: arrived == [signal.SIGUSR2])
    assert order == ["still alone", "inner left"]
    assert_nothing_is_deferred(arrived, (signal.SIGUSR2, REALTIME))


def test_ctrl_c_waits():
    done = run("""
        import os, sigwright as signal
        with signal.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100_000):
                pass
            print("whole", flush=True)
        print("never")
    """)
    assert done.stdout == "whole\n"
    assert done.returncode == -signal.SIGINT
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_simulated_signals_wait_as_well(arrived):
    with deferred():
        _thread.interrupt_main(signal.SIGUSR1)
        spin(0.02)
        assert arrived == []
    assert arrived == [signal.SIGUSR1]
    with deferred(signal.SIGUSR2):
        _thread.interrupt_main(signal.SIGUSR2)
        _thread.interrupt_main(signal.SIGUSR1)
        spin(0.02)
        assert arrived == [signal.SIGUSR1] * 2
    assert arrived == [signal.SIGUSR1] * 2 + [signal.SIGUSR2]


def test_simulated_ctrl_c_is_pythons_own_and_leaves_no_depth():
    """CPython calls its own handler by itself: the engine is not asked. The page says so."""
    out = succeed("""
        import _thread, os, sigwright as signal
        calls = []
        signal.signal(signal.SIGUSR1, lambda signum, frame: calls.append(signum))
        try:
            with signal.deferred():
                os.kill(os.getpid(), signal.SIGUSR1)
                _thread.interrupt_main()
                for _ in range(100_000):
                    pass
                print("whole")
        except KeyboardInterrupt:
            print("left", len(calls))
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(100_000):
            pass
        print("once", len(calls))
    """)
    assert out == "left 1\nonce 2\n"


def test_with_the_stand_in_installed_the_handlers_of_others_wait():
    out = succeed("""
        import signal as stdlib, os
        import sigwright
        sigwright.install()
        calls = []
        stdlib.signal(stdlib.SIGUSR1, lambda signum, frame: calls.append(signum))
        with sigwright.deferred():
            stdlib.raise_signal(stdlib.SIGUSR1)
            os.kill(os.getpid(), stdlib.SIGUSR1)
            for _ in range(1000):
                pass
            print(calls)
        print(calls == [stdlib.SIGUSR1])
    """)
    assert out == "[]\nTrue\n"


def test_a_handler_that_changes_meanwhile_is_the_new_one(arrived):
    with deferred():
        send(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, lambda signum, frame: arrived.append("new"))
    assert arrived == ["new"]


def test_a_system_call_inside_is_not_cut_short(arrived):
    """It goes on, as PEP 475 has it: nothing is there to raise."""
    threading.Timer(0.05, lambda: send(signal.SIGUSR1)).start()
    started = time.monotonic()
    with deferred():
        time.sleep(0.3)
        assert time.monotonic() - started >= 0.3
        assert arrived == []
    assert arrived == [signal.SIGUSR1]


# ---- who does not wait ----


def test_a_listener_gets_its_copy_at_once(arrived):
    with signal.listen(signal.SIGUSR1) as listener, deferred():
        send(signal.SIGUSR1)
        assert listener.get(timeout=20).si_signo == signal.SIGUSR1
        with pytest.raises(queue.Empty):
            listener.get_nowait()
        assert arrived == []
    assert arrived == [signal.SIGUSR1]


@pytest.mark.usefixtures("arrived")
def test_added_handlers_wait_and_those_with_a_thread_of_their_own_do_not():
    here, there = [], queue.SimpleQueue()
    with (
        signal.add_handler(signal.SIGUSR2, here.append),
        signal.add_handler(signal.SIGUSR2, there.put, thread=True),
    ):
        with deferred():
            send(signal.SIGUSR2)
            assert there.get(timeout=20).si_signo == signal.SIGUSR2
            assert here == []
        assert [info.si_signo for info in here] == [signal.SIGUSR2]


def test_a_section_in_a_worker_does_not_hold_the_main_threads_handlers(arrived):
    inside, leave = threading.Event(), threading.Event()

    def worker():
        with deferred():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=worker)
    thread.start()
    inside.wait(60)
    try:
        assert_nothing_is_deferred(arrived)
        thread_id = thread.ident
        signal.pthread_kill(thread_id, signal.SIGUSR1)
        until(lambda: arrived.count(signal.SIGUSR1) == 2)
    finally:
        leave.set()
        thread.join()


def test_a_section_in_the_main_thread_does_not_hold_a_workers_limit():
    struck = []

    def worker():
        with move_on_after(0.01):
            until(lambda: False)
        struck.append(True)

    with deferred():
        in_a_worker(worker)
        assert struck


@pytest.mark.parametrize("where", ["main thread", "worker"])
def test_in_every_thread_a_limit_waits(where):
    whole = []

    def block():
        with fail_after(0.01):
            with deferred(), deferred():
                spin(0.1)
                whole.append(True)
            until(lambda: False)

    with pytest.raises(TimeoutError):
        block() if where == "main thread" else in_a_worker(block)
    assert whole


@pytest.mark.parametrize("where", ["main thread", "worker"])
def test_a_section_for_some_signals_holds_no_limit(where):
    def block():
        with pytest.raises(TimeoutError), fail_after(0.01), deferred(signal.SIGUSR1):
            until(lambda: False)

    block() if where == "main thread" else in_a_worker(block)


# ---- every moment ----

# An alarm that is swept in steps across entering and leaving; its handler raises. After each round
# no depth may be left over, and what was sent must have run.
STORM = """
import os, sys, time
import sigwright as signal

class Struck(Exception):
    pass

armed = False
probes = struck = 0

def strike(signum, frame):
    global armed, struck
    armed = False
    struck += 1
    raise Struck

def probe(signum, frame):
    global probes
    probes += 1

signal.signal(signal.SIGALRM, strike)
signal.signal(signal.SIGUSR2, probe)
names = {"all": (), "the alarm": (signal.SIGALRM,), "another": (signal.SIGUSR2,)}[sys.argv[1]]
section = signal.deferred(*names)
"""
SHAPES = {
    "with": """
        def block():
            with section:
                with section:
                    inside = 1
    """,
    "decorator": """
        @section
        def block():
            for _ in range(3):
                pass
    """,
    "generator": """
        def generator():
            with section:
                yield 1
                yield 2
        def block():
            for _ in generator():
                pass
    """,
    "decorated generator": """
        @section
        def generator():
            yield 1
            yield 2
        def block():
            for _ in generator():
                pass
    """,
    "coroutine": """
        class Suspend:
            def __await__(self):
                yield
        @section
        async def coroutine():
            with section:
                await Suspend()
        def block():
            running = coroutine()
            try:
                while True:
                    running.send(None)
            except StopIteration:
                pass
            finally:
                running.close()
    """,
    "run_pending": """
        def block():
            with section:
                section.run_pending()
    """,
    "many objects": """
        def block():
            with signal.deferred(*names), signal.deferred(), section:
                pass
    """,
}
ROUNDS = """
def until_struck():
    while armed:
        block()
for step in range(1000):
    delay = 1e-6 * (1 + step % 150)
    before = struck
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, delay)
        until_struck()
    except Struck:
        pass
    assert struck == before + 1, "exactly once"
    signal.raise_signal(signal.SIGUSR2)
    for _ in range(3):
        pass
    assert probes == step + 1, f"a depth is left over: step {step}"
try:
    section.__exit__(None, None, None)
except RuntimeError:
    print("none left over")
"""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("names", ["all", "the alarm", "another"])
def test_handlers_that_raise_at_any_moment_leave_no_depth_behind(names, shape):
    # A generator that is struck while it is dropped can only say so.
    may_complain = "generator" in shape or shape == "coroutine"
    keywords = {"arguments": (names,), "may_complain": may_complain}
    assert succeed(STORM, SHAPES[shape], ROUNDS, **keywords) == "none left over\n"


def test_of_a_storm_from_another_process_nothing_runs_inside_and_nothing_is_lost():
    out = succeed(
        UNTIL,
        """
        import os, subprocess, sys
        import sigwright as signal
        SENDER = '''if True:
            import sys, sigwright as signal
            pid, first = map(int, sys.argv[1:])
            for number in range(20_000):
                while True:
                    try:
                        signal.sigqueue(pid, first + number % 2, number)
                        break
                    except BlockingIOError:
                        pass
        '''
        first = signal.SIGRTMIN + 1
        inside = False
        numbers, wrong = [[], []], 0
        def handler(info):
            global wrong
            numbers[info.si_signo - first].append(info.si_value)
            wrong += inside
        signal.add_handler(first, handler)
        signal.add_handler(first + 1, handler)
        sender = subprocess.Popen([sys.executable, "-c", SENDER, str(os.getpid()), str(first)])
        section, blocks = signal.deferred(), 0
        deadline = time.monotonic() + 50
        while sum(map(len, numbers)) < 20_000 and time.monotonic() < deadline:
            with section:
                inside = True
                for _ in range(50):
                    pass
                inside = False
            blocks += 1
        sender.wait()
        print(wrong, blocks > 100)
        print(numbers == [list(range(0, 20_000, 2)), list(range(1, 20_000, 2))])
    """,
    )
    assert out == "0 True\nTrue\n"


# ---- generators and coroutines ----


def test_a_suspended_generator_holds_nobody(arrived):
    def generator():
        with deferred():
            send(signal.SIGUSR1)
            assert arrived == []
            yield "what waited runs now"
            send(signal.SIGUSR2)
            spin(0.02)
            assert arrived.count(signal.SIGUSR2) == 1
            yield "in force again, and suspended again"

    suspended = generator()
    next(suspended)
    until(lambda: arrived == [signal.SIGUSR1])
    assert_nothing_is_deferred(arrived)
    next(suspended)
    until(lambda: arrived.count(signal.SIGUSR2) == 2)
    assert_nothing_is_deferred(arrived)
    suspended.close()
    assert_nothing_is_deferred(arrived)


def test_what_had_waited_at_a_suspension_comes_soon_also_into_a_sleep(arrived):
    """Nothing rings for it again but the engine: the main thread is in a system call."""

    def generator():
        with deferred():
            send(signal.SIGUSR1)
            yield

    times = []
    signal.signal(signal.SIGUSR1, lambda signum, frame: times.append(time.monotonic()))
    suspended = generator()
    next(suspended)
    started = time.monotonic()
    time.sleep(2)
    assert [when - started < 1.5 for when in times] == [True]
    suspended.close()


def test_an_outer_block_stays_in_force_while_an_inner_generator_is_suspended(arrived):
    def generator():
        with deferred():
            yield

    suspended = generator()
    with deferred():
        next(suspended)
        send(signal.SIGUSR1)
        spin(0.02)
        assert arrived == []
        next(suspended, None)
        assert arrived == []
    assert arrived == [signal.SIGUSR1]


def test_a_generator_that_is_dropped_while_suspended_leaves_no_depth(arrived):
    def generator():
        with deferred():
            yield

    for _ in range(100):
        suspended = generator()
        next(suspended)
        del suspended
    assert_nothing_is_deferred(arrived)


def test_generators_that_share_one_object_are_left_in_any_order(arrived):
    section = deferred()

    def generator():
        with section:
            send(signal.SIGUSR1)
            yield
            before = len(arrived)
            send(signal.SIGUSR2)
            spin(0.005)
            assert len(arrived) == before

    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)):
        generators = [generator() for _ in order]
        for suspended in generators:
            arrived.clear()
            next(suspended)
            until(lambda: arrived == [signal.SIGUSR1])
        for number in order:
            arrived.clear()
            next(generators[number], None)
            assert arrived == [signal.SIGUSR2]
            assert_nothing_is_deferred(arrived)


def test_a_section_around_yield_from_is_in_force_only_while_the_chain_runs(arrived):
    def inner():
        send(signal.SIGUSR1)
        spin(0.01)
        assert arrived == []
        yield
        before = len(arrived)
        send(signal.SIGUSR2)
        spin(0.01)
        assert len(arrived) == before

    def outer():
        with deferred():
            yield from inner()

    suspended = outer()
    next(suspended)
    until(lambda: arrived == [signal.SIGUSR1])
    assert_nothing_is_deferred(arrived)
    arrived.clear()
    next(suspended, None)
    assert arrived == [signal.SIGUSR2]


def test_decorated_generators_and_coroutines_run_inside_and_are_what_they_were(arrived):
    @deferred()
    def generator(n):
        """Count."""
        got = []
        for i in range(n):
            send(signal.SIGUSR1)
            before = len(arrived)
            spin(0.005)
            assert len(arrived) == before
            got.append((yield i))
        return got

    assert inspect.isgeneratorfunction(generator)
    assert (generator.__name__, generator.__doc__) == ("generator", "Count.")
    running = generator(2)
    assert next(running) == 0
    until(lambda: arrived == [signal.SIGUSR1])
    assert running.send("sent") == 1
    until(lambda: len(arrived) == 2)
    with pytest.raises(StopIteration) as stopped:
        running.send("too")
    assert stopped.value.value == ["sent", "too"]

    @deferred()
    async def coroutine(a, *, b):
        """Add."""
        send(signal.SIGUSR2)
        before = len(arrived)
        spin(0.005)
        assert len(arrived) == before
        await asyncio.sleep(0)
        return a + b

    assert inspect.iscoroutinefunction(coroutine)
    assert (coroutine.__name__, coroutine.__doc__) == ("coroutine", "Add.")
    arrived.clear()
    assert asyncio.run(coroutine(1, b=2)) == 3
    assert arrived == [signal.SIGUSR2]
    assert_nothing_is_deferred(arrived)


def test_an_exception_thrown_into_a_decorated_generator_reaches_it(arrived):
    @deferred()
    def generator():
        try:
            yield
        except KeyError:
            send(signal.SIGUSR1)
            before = len(arrived)
            spin(0.005)
            assert len(arrived) == before
            yield "caught"

    running = generator()
    next(running)
    assert running.throw(KeyError()) == "caught"
    running.close()
    until(lambda: arrived == [signal.SIGUSR1])
    assert_nothing_is_deferred(arrived)


def test_tasks_that_share_one_object_hold_only_their_own_steps(arrived):
    section = deferred()
    handled = 0

    async def task(number):
        nonlocal handled
        for _ in range(20):
            with section:
                before = len(arrived)
                send(REALTIME)
                spin(0.0002)
                assert len(arrived) == before
                await asyncio.sleep(0.0001 * (number % 3))
                before = len(arrived)
                send(REALTIME)
                spin(0.0002)
                assert len(arrived) == before
            handled += 2

    async def main():
        await asyncio.gather(*(task(number) for number in range(10)))

    asyncio.run(main())
    until(lambda: len(arrived) == handled == 400)
    assert_nothing_is_deferred(arrived)


def test_while_all_tasks_are_suspended_inside_a_signal_is_handled():
    out = succeed("""
        import asyncio, os, sigwright as signal
        times = []
        async def main():
            loop = asyncio.get_running_loop()
            handled = asyncio.Event()
            def handler(signum, frame):
                loop.call_soon_threadsafe(handled.set)
            signal.signal(signal.SIGUSR1, handler)
            async def task():
                with signal.deferred():
                    await asyncio.wait_for(handled.wait(), 30)
            loop.call_later(0.1, os.kill, os.getpid(), signal.SIGUSR1)
            await asyncio.gather(task(), task())
            print("handled")
        asyncio.run(main())
    """)
    assert out == "handled\n"


def test_async_generators_cannot_be_decorated():
    async def async_generator():
        yield

    with pytest.raises(TypeError):
        deferred()(async_generator)


@pytest.mark.parametrize("wrong", [int, 3, None, "name"])
def test_what_is_no_function_cannot_be_decorated(wrong):
    with pytest.raises(TypeError):
        deferred()(wrong)


def test_a_decorated_function_is_the_same_function(arrived):
    @deferred(signal.SIGUSR1)
    def add(a, b=2, *, c=3):
        """Add."""
        send(signal.SIGUSR1)
        assert arrived == []
        return a + b + c

    assert add(1, c=0) == 3
    assert arrived == [signal.SIGUSR1]
    assert (add.__name__, add.__doc__) == ("add", "Add.")

    class Account:
        @deferred()
        def held(self):
            send(signal.SIGUSR2)
            assert signal.SIGUSR2 not in arrived
            return self

        @deferred()
        def fails(self):
            raise ZeroDivisionError

    account = Account()
    assert account.held() is account
    with pytest.raises(ZeroDivisionError):
        account.fails()
    assert_nothing_is_deferred(arrived)


def test_recursion_runs_what_waited_once_at_the_outermost_exit(arrived):
    section = deferred()

    @section
    def countdown(n):
        if n == 0:
            send(signal.SIGUSR1)
            return
        with section:
            countdown(n - 1)
        assert arrived == []

    countdown(150)
    assert arrived == [signal.SIGUSR1]
    assert_nothing_is_deferred(arrived)


# ---- threads and processes ----


def test_leaving_without_having_entered_is_an_error_that_changes_nothing(arrived):
    section = deferred()
    with pytest.raises(RuntimeError):
        section.__exit__(None, None, None)
    raised = []

    def worker():
        try:
            section.__exit__(None, None, None)
        except RuntimeError:
            raised.append(True)

    with section:
        in_a_worker(worker)
        assert raised == [True]
        send(signal.SIGUSR1)
        assert arrived == []
    assert arrived == [signal.SIGUSR1]
    with pytest.raises(RuntimeError):
        section.__exit__(None, None, None)
    assert_nothing_is_deferred(arrived)


def test_a_generator_that_goes_on_in_another_thread_is_told_when_it_leaves(arrived):
    def generator():
        with deferred():
            yield

    suspended = generator()
    next(suspended)

    def worker():
        with pytest.raises(RuntimeError):
            next(suspended)

    in_a_worker(worker)
    assert_nothing_is_deferred(arrived)


def test_one_object_serves_several_threads_at_once(arrived):
    section = deferred()
    inside = threading.Barrier(5)
    outcomes = []

    def worker():
        for _ in range(10):
            with move_on_after(0.0005) as limit:
                with section:
                    spin(0.001)
                    outcomes.append("whole")
                until(lambda: False)
            assert limit.cancelled_caught
        inside.wait(60)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    with section:
        send(signal.SIGUSR1)
        inside.wait(60)
        assert arrived == []
    assert arrived == [signal.SIGUSR1]
    for thread in threads:
        thread.join()
    assert outcomes == ["whole"] * 40


def test_threads_that_die_inside_leave_nothing_to_those_who_come_after(arrived):
    """A thread's number is used again, at once as a rule, by the next one that starts."""
    sections = [deferred() for _ in range(100)]
    for section in sections:
        in_a_worker(section.__enter__)
        in_a_worker(section.__enter__)
    assert_nothing_is_deferred(arrived)

    def limited():
        with pytest.raises(TimeoutError), fail_after(0.01):
            until(lambda: False)

    for _ in range(3):
        in_a_worker(limited)
    with pytest.raises(RuntimeError):
        sections[0].__exit__(None, None, None)
    arrived.clear()
    with sections[0]:
        send(signal.SIGUSR1)
        assert arrived == []
    assert arrived == [signal.SIGUSR1]


def test_a_child_is_inside_as_well_and_has_none_of_what_waited_in_the_parent():
    out = succeed("""
        import os, sigwright as signal
        calls = []
        for signum in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(signum, lambda signum, frame: calls.append((os.getpid(), signum)))
        with signal.deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
            pid = os.fork()
            if pid == 0:
                os.kill(os.getpid(), signal.SIGUSR2)
            for _ in range(1000):
                pass
            assert calls == []
        if pid == 0:
            right = calls == [(os.getpid(), signal.SIGUSR2)]
            os.kill(os.getpid(), signal.SIGUSR1)
            right = right and calls[1:] == [(os.getpid(), signal.SIGUSR1)]
            os._exit(0 if right else 1)
        assert os.waitpid(pid, 0)[1] == 0
        print(calls == [(os.getpid(), signal.SIGUSR1)])
    """)
    assert out == "True\n"


def test_a_worker_that_forks_inside_is_a_main_thread_in_which_handlers_wait():
    out = succeed(
        UNTIL,
        """
        import os, threading, sigwright as signal
        calls = []
        signal.signal(signal.SIGUSR1, lambda signum, frame: calls.append(signum))
        def worker():
            with signal.deferred():
                pid = os.fork()
                if pid == 0:
                    os.kill(os.getpid(), signal.SIGUSR1)
                    for _ in range(1000):
                        pass
                    inside = list(calls)
            if pid == 0:
                for _ in range(3):
                    pass
                os._exit(0 if (inside, calls) == ([], [signal.SIGUSR1]) else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
        # And where the main thread is inside when a worker forks, the child is not.
        def forks():
            pid = os.fork()
            if pid == 0:
                os.kill(os.getpid(), signal.SIGUSR1)
                try:
                    until(lambda: calls, 5)
                finally:
                    os._exit(0 if calls else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        with signal.deferred():
            thread = threading.Thread(target=forks)
            thread.start()
            thread.join()
    """,
        options=("-W", "ignore::DeprecationWarning"),  # 3.12 on: of forks beside threads
    )
    assert out == "0\n0\n"


def test_the_end_of_the_interpreter_inside_is_no_trouble():
    done = run("""
        import atexit, os, sys, sigwright as signal
        signal.signal(signal.SIGUSR1, lambda signum, frame: print("handled", flush=True))
        atexit.register(print, "over", flush=True)
        section = signal.deferred()
        section.__enter__()
        os.kill(os.getpid(), signal.SIGUSR1)
        print("inside", flush=True)
        sys.exit(3)
    """)
    assert done.returncode == 3
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "inside"
    assert "over" in done.stdout


# ---- as an object ----


def test_an_exit_stack_can_hold_it(arrived):
    with contextlib.ExitStack() as stack:
        assert isinstance(stack.enter_context(deferred()), deferred)
        send(signal.SIGUSR1)
        spin(0.02)
        assert arrived == []
    assert arrived == [signal.SIGUSR1]
    assert_nothing_is_deferred(arrived)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0,), ValueError),
        ((-1,), ValueError),
        ((signal.NSIG,), ValueError),
        ((2**80,), ValueError),
        ((signal.SIGUSR1, 1000), ValueError),
        (("SIGUSR1",), TypeError),
        ((1.0,), TypeError),
        ((None,), TypeError),
        (([signal.SIGUSR1],), TypeError),
    ],
)
def test_bad_arguments_are_refused(arguments, error):
    with pytest.raises(error):
        deferred(*arguments)


def test_there_are_no_keywords():
    with pytest.raises(TypeError):
        deferred(signum=signal.SIGUSR1)
    assert str(inspect.signature(deferred)) == "(*signums)"


def test_a_million_entries_leave_nothing_in_memory():
    out = succeed("""
        import gc, resource, sigwright as signal
        section = signal.deferred()
        def used():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        def work(n):
            for _ in range(n):
                with section, section:
                    pass
                with signal.deferred(signal.SIGUSR1):
                    pass
        work(10_000)
        before = used()
        work(300_000)
        print(used() - before < 4096)  # kilobytes
    """)
    assert out == "True\n"
