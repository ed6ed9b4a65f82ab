"""call_later(), call_at(), call_every(): each callback once, in order, in time, or never."""

import asyncio
import contextlib
import gc
import heapq
import itertools
import math
import os
import random
import select
import subprocess
import sys
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import programs
import sigwright as signal
from programs import send
from sigwright import call_at, call_every, call_later, deferred

FAR = 3600.0
# What a busy machine may take for what is due. A bound, not a promise: see benchmarks/control.py.
SOON = 20.0

PRELUDE = f"""
import os, sys, threading, time
import sigwright
from sigwright import call_at, call_every, call_later, deferred
{programs.UNTIL}
"""


def succeed(*parts: str, **keywords: object) -> str:
    return programs.succeed(PRELUDE, *parts, **keywords)


def until(condition, seconds=SOON):
    """Wait in Python code, so that nothing but a safe point is needed."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"


@pytest.fixture
def armed():
    """Arm with `armed(call_later, …)`: nothing is left armed for the next test."""
    handles = []

    def arm(function, *arguments):
        handles.append(function(*arguments))
        return handles[-1]

    yield arm
    for handle in handles:
        handle.cancel()


@pytest.fixture
def unraisable(monkeypatch):
    """What went to sys.unraisablehook: the exceptions."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: seen.append(told.exc_value))
    return seen


# --- order ----------------------------------------------------------------------------------------


def test_deadlines_decide_the_order_and_arming_where_they_are_equal():
    ran, lead, in_time = [], 0.25, False
    while not in_time:  # the machine may be busy
        lead *= 2
        ran.clear()
        begin = time.monotonic() + lead
        for number in range(500):
            rank = random.randrange(20)
            call_at(begin + rank / 1000, ran.append, (rank, number))
        in_time = time.monotonic() < begin
        until(lambda: len(ran) == 500)
    assert ran == sorted(ran)


def test_what_is_late_still_runs_in_the_order_of_the_deadlines():
    ran = []
    with deferred():
        now = time.monotonic()
        for late in random.sample(range(1000), 1000):
            call_at(now - late / 1000, ran.append, -late)
        call_at(-1.0, ran.append, -math.inf)
        assert ran == []
    until(lambda: len(ran) == 1001)
    assert ran == sorted(ran)


def test_an_earlier_timer_that_is_armed_later_is_not_kept_waiting(armed):
    ran = []
    armed(call_later, FAR, ran.append, "far")
    start = time.monotonic()
    armed(call_later, 0.05, ran.append, "near")
    until(lambda: ran)
    assert (ran, time.monotonic() - start >= 0.05) == (["near"], True)


def test_the_next_one_runs_in_time_when_the_first_is_cancelled(armed):
    ran = []
    first = armed(call_later, 0.03, ran.append, "first")
    armed(call_later, 0.06, ran.append, "second")
    first.cancel()
    until(lambda: ran)
    assert ran == ["second"]
    time.sleep(0.01)
    assert ran == ["second"]


def test_nothing_runs_before_its_time():
    early = []

    def check(handle):
        if time.monotonic() < handle[0].when():
            early.append(handle[0].when() - time.monotonic())
        ran.append(handle)

    ran = []
    for _ in range(300):
        handle = []
        handle.append(call_later(random.uniform(0, 0.2), check, handle))
    until(lambda: len(ran) == 300)
    assert early == []


# --- where the main thread is ---------------------------------------------------------------------


def test_a_sleep_is_interrupted_for_the_callback_and_goes_on(armed):
    ran = []
    start = time.monotonic()
    armed(call_later, 0.05, lambda: ran.append((time.monotonic(), threading.current_thread())))
    time.sleep(1)
    end = time.monotonic()
    ((at, thread),) = ran
    assert 0.05 <= at - start < 0.9
    assert end - start >= 1  # PEP 475
    assert thread is threading.main_thread()


def test_a_lock_that_only_the_callback_releases_is_acquired(armed):
    lock = threading.Lock()
    lock.acquire()
    armed(call_later, 0.05, lock.release)
    assert lock.acquire(timeout=SOON)


def test_a_pipe_that_only_the_callback_writes_to_is_read(armed):
    read, write = os.pipe()
    armed(call_later, 0.05, os.write, write, b"x")
    assert os.read(read, 1) == b"x"
    armed(call_later, 0.05, os.write, write, b"y")
    assert select.select([read], [], [], SOON)[0] == [read]
    os.close(read)
    os.close(write)


def test_a_thread_that_only_the_callback_lets_go_is_joined(armed):
    go = threading.Event()
    thread = threading.Thread(target=go.wait, args=[SOON])
    thread.start()
    armed(call_later, 0.05, go.set)
    start = time.monotonic()
    thread.join()
    assert time.monotonic() - start < SOON - 1


def test_a_busy_loop_is_interrupted(armed):
    ran = []
    armed(call_later, 0.02, ran.append, 1)
    end = time.monotonic() + SOON
    while not ran and time.monotonic() < end:
        pass
    assert ran == [1]


def test_waiting_for_signals_goes_on_when_a_timer_has_run(armed, arrived):
    ran = []
    armed(call_later, 0.02, ran.append, 1)
    armed(call_later, 0.1, send, signal.SIGUSR1)
    signal.pause()
    assert (ran, arrived) == ([1], [signal.SIGUSR1])
    with signal.fail_after(0.1):  # left unreached: what rings then rings for nobody
        pass
    armed(call_later, 0.15, send, signal.SIGUSR1)
    signal.sigsuspend([])
    assert len(arrived) == 2
    armed(call_every, 0.005, ran.append, 2)
    with signal.blocked(signal.SIGUSR2):
        start = time.monotonic()
        assert signal.sigtimedwait([signal.SIGUSR2], 0.1) is None
        assert time.monotonic() - start >= 0.1
        armed(call_later, 0.02, send, signal.SIGUSR2)
        assert signal.sigwaitinfo([signal.SIGUSR2]).si_signo == signal.SIGUSR2
    assert len(ran) > 2


def test_a_subprocess_is_waited_for_and_knows_nothing_of_timers(armed):
    ran = []
    armed(call_every, 0.001, ran.append, 1)
    for _ in range(5):
        done = subprocess.run(["sleep", "0.05"], capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
    assert len(ran) > 5


def test_worker_threads_arm_and_the_main_thread_runs():
    ran = []

    def work(name):
        for number in range(200):
            call_later(number / 20_000, lambda: ran.append((name, threading.current_thread())))

    threads = [threading.Thread(target=work, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(ran) == 800)
    assert {thread for _, thread in ran} == {threading.main_thread()}
    assert all(sum(name == who for who, _ in ran) == 200 for name in range(4))


def test_a_worker_arms_what_wakes_a_main_thread_that_sleeps_for_longer(armed):
    """The deadline is earlier than the one that the kernel was told of."""
    ran = []
    armed(call_later, FAR, ran.append, "far")
    ready, go = os.pipe()

    def work():
        os.read(ready, 1)
        time.sleep(0.05)  # asleep by then, most likely; it must hold either way
        call_later(0, lambda: ran.append(time.monotonic()))

    thread = threading.Thread(target=work)
    thread.start()
    start = time.monotonic()
    os.write(go, b"x")
    time.sleep(1)
    thread.join()
    (at,) = ran
    assert at - start < 0.9
    os.close(ready)
    os.close(go)


def test_signals_that_are_blocked_block_no_timer(armed):
    ran = []
    with signal.blocked():
        armed(call_later, 0.02, ran.append, 1)
        until(lambda: ran)
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        armed(call_later, 0.02, ran.append, 2)
        until(lambda: len(ran) == 2)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_an_event_loop_that_sleeps_is_woken_and_goes_on(armed):
    async def main():
        loop = asyncio.get_running_loop()
        start = time.monotonic()
        armed(call_later, 0.05, lambda: ran.append(time.monotonic() - start))
        # From a callback of ours into the loop, as from a signal handler.
        armed(call_later, 0.05, loop.call_soon_threadsafe, woken.set)
        await asyncio.wait_for(woken.wait(), SOON)
        await asyncio.sleep(0.01)
        return "over"

    ran, woken = [], asyncio.Event()
    assert asyncio.run(main()) == "over"
    assert 0.05 <= ran[0] < SOON


@pytest.mark.parametrize("how", ["call_later(0, again)", "call_at(0, again)"])
def test_timers_that_are_due_at_once_for_ever_do_not_keep_the_program_from_its_next_step(how):
    out = succeed(
        """
        runs = 0
        def again():
            global runs
            runs += 1
            if going:
                ARM
        going = True
        again()
        steps = 0
        while steps < 5_000 or runs < 100:
            steps += 1
        with deferred():
            pass
        going = False
        print(steps >= 5_000, runs >= 100)
    """.replace("ARM", how)
    )
    assert out == "True True\n"


# --- while sections defer -------------------------------------------------------------------------


def test_deferred_holds_timers_until_its_end():
    ran = []
    section = deferred()
    with section:
        call_later(0.01, ran.append, "first")
        call_later(0.02, ran.append, "second")
        with section:
            time.sleep(0.05)
        assert section.run_pending() is True
        assert ran == ["first", "second"]
        call_later(0, ran.append, "third")
        end = time.monotonic() + 0.03
        while time.monotonic() < end:
            pass
        assert ran == ["first", "second"]
        cancelled = call_later(0, ran.append, "never")
        cancelled.cancel()
    assert ran == ["first", "second", "third"]


def test_a_section_of_named_signals_holds_no_timer(armed):
    ran = []
    with deferred(signal.SIGUSR1):
        armed(call_later, 0.01, ran.append, 1)
        until(lambda: ran)


def test_a_section_of_a_worker_holds_no_timer(armed):
    ran, entered, leave = [], threading.Event(), threading.Event()

    def work():
        with deferred():
            entered.set()
            leave.wait(SOON)

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(SOON)
    armed(call_later, 0.01, ran.append, 1)
    try:
        until(lambda: ran)
    finally:
        leave.set()
        thread.join()


# --- beside handlers, alarms and limits -----------------------------------------------------------


def test_handlers_and_timers_interleave_and_neither_is_lost(arrived):
    ran = []
    for number in range(300):
        call_later(number / 3000, ran.append, number)
        send(signal.SIGRTMIN + 3)
    until(lambda: len(ran) == 300 and len(arrived) == 300)
    assert ran == sorted(ran)


def test_a_handler_runs_while_a_callback_is_busy(arrived):
    order = []

    def busy():
        order.append("callback")
        send(signal.SIGUSR1)
        until(lambda: arrived)
        order.append("handled")

    call_later(0, busy)
    until(lambda: len(order) == 2)
    assert (order, arrived) == (["callback", "handled"], [signal.SIGUSR1])


def test_alarms_and_interval_timers_stay_the_users(armed):
    alarms = []
    before = signal.signal(signal.SIGALRM, lambda signum, frame: alarms.append(time.monotonic()))
    try:
        ran = []
        armed(call_every, 0.005, ran.append, 1)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        until(lambda: len(ran) >= 3)
        for late in (0, 0.001, FAR):
            armed(call_later, late, ran.append, 1)
        assert signal.getitimer(signal.ITIMER_REAL)[1] == 0.0
        until(lambda: alarms)
        assert alarms[0] - start >= 0.2
        time.sleep(0.05)
        assert len(alarms) == 1
        assert signal.alarm(1000) == 0
        armed(call_later, 0, ran.append, 1)
        assert signal.alarm(0) in (999, 1000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_callbacks_that_wait_for_long_all_run_and_are_not_piled_up():
    """Deeper than delivery nests, if each ran inside the one before."""
    ran, depth, deepest = [], 0, 0

    def slow(number):
        nonlocal depth, deepest
        ran.append(number)
        depth += 1
        deepest = max(deepest, depth)
        time.sleep(0.001)
        depth -= 1

    for number in range(300):
        call_later(number / 10_000, slow, number)
    until(lambda: len(ran) == 300 and depth == 0)
    assert ran == sorted(ran)
    assert deepest == 1


def test_a_limit_that_expires_while_a_callback_runs_still_ends_its_block(unraisable):
    def busy():
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass

    start = time.monotonic()
    with signal.move_on_after(0.05) as scope:
        call_later(0, busy)
        time.sleep(SOON)
    assert scope.cancelled_caught
    assert time.monotonic() - start < SOON - 1
    assert [error for error in unraisable if not isinstance(error, signal.Cancelled)] == []


def test_a_limit_inside_a_callback_ends_its_block_there():
    seen = []

    def callback():
        with signal.move_on_after(0.02) as scope:
            time.sleep(SOON)
        seen.append(scope.cancelled_caught)

    with signal.move_on_after(FAR) as outer:
        call_later(0, callback)
        until(lambda: seen)
    assert (seen, outer.cancelled_caught) == ([True], False)


def test_no_thread_is_started_and_no_descriptor_opened():
    out = succeed("""
        def there():
            return [len(os.listdir(f"/proc/self/{what}")) for what in ("task", "fd")]
        before = there()
        for number in range(1000):
            call_later(3600 + number, print)
        ran = []
        call_later(0.01, ran.append, 1)
        every = call_every(0.001, ran.append, 2)
        until(lambda: len(ran) > 10)
        print(before == there(), "threading" in sys.modules and threading.active_count())
    """)
    assert out == "True 1\n"


# --- cancelling -----------------------------------------------------------------------------------


def test_cancelled_never_runs_and_says_so(armed):
    ran = []
    handle = armed(call_later, 0.01, ran.append, 1)
    assert handle.cancelled() is False
    assert handle.cancel() is None
    assert handle.cancelled() is True
    handle.cancel()
    time.sleep(0.05)
    assert ran == []


def test_cancelling_after_the_call_is_nothing():
    ran = []
    handle = call_later(0, ran.append, 1)
    until(lambda: ran)
    handle.cancel()
    handle.cancel()
    assert (ran, handle.cancelled()) == ([1], False)


def test_a_callback_may_cancel_its_own_timer_and_keeps_its_arguments():
    class Argument:
        pass

    seen = []

    def callback(argument):
        (handle,) = handles
        handle.cancel()
        gc.collect()
        seen.append(type(argument))

    handles = [call_later(0, lambda: None)]
    handles[:] = [call_later(0.01, callback, Argument())]
    until(lambda: seen)
    assert seen == [Argument]


def test_a_callback_cancels_another_that_is_due_at_the_same_time():
    ran = []
    with deferred():
        now = time.monotonic()
        handles = []
        call_at(now - 2, lambda: (ran.append("first"), handles[0].cancel()))
        handles.append(call_at(now - 1, ran.append, "second"))
        call_at(now - 0.5, ran.append, "third")
    until(lambda: len(ran) >= 2)
    assert ran == ["first", "third"]
    assert handles[0].cancelled()


def test_cancel_against_expiry_runs_once_or_never():
    """From three threads: who has cancelled before the call sees none after it."""
    out = succeed("""
        import random
        sys.setswitchinterval(2e-5)
        EACH = 2000
        handles = {}
        log = []   # a list's append is one step: from taking the timer to the note nothing runs
        def work(name):
            chance = random.Random(name)
            for number in range(EACH):
                key = name, number
                handle = call_later(chance.uniform(0, 4e-4), log.append, ("ran", key))
                end = time.perf_counter() + chance.uniform(0, 4e-4)
                while time.perf_counter() < end:
                    pass
                if number % 4:
                    handle.cancel()
                    log.append(("cancelled", key))
                handles[key] = handle
        threads = [threading.Thread(target=work, args=[name]) for name in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.0001)
        until(lambda: sum(what == "ran" for what, key in log if not key[1] % 4) == 3 * EACH // 4)
        time.sleep(0.05)
        runs, cancelled = {}, set()
        for what, key in log:
            if what == "cancelled":
                cancelled.add(key)
            else:
                assert key not in cancelled, "ran after it was cancelled"
                runs[key] = runs.get(key, 0) + 1
        assert set(runs.values()) == {1}
        assert all(handle.cancelled() is (key not in runs) for key, handle in handles.items())
        print(len(cancelled), len(cancelled - set(runs)) > 0, len(cancelled & set(runs)) > 0)
    """)
    assert out == "4500 True True\n"


def test_cancelling_from_threads_ends_a_periodic_timer_for_good():
    out = succeed("""
        sys.setswitchinterval(2e-5)
        strays = 0
        def work():
            global strays
            for _ in range(300):
                log = []
                handle = call_every(2e-4, log.append, "ran")
                end = time.perf_counter() + 3e-4
                while time.perf_counter() < end:
                    pass
                handle.cancel()
                log.append("cancelled")
                end = time.perf_counter() + 3e-4
                while time.perf_counter() < end:
                    pass
                strays += log[-1] != "cancelled"
                counts.append(len(log) - 1)
        counts = []
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.0001)
        print(strays, len(counts), sum(counts) > 0)
    """)
    assert out == "0 900 True\n"


# --- call_every -----------------------------------------------------------------------------------


def test_a_periodic_timer_does_not_drift(armed):
    ran = []
    before = time.monotonic()
    handle = armed(call_every, 0.004, lambda: ran.append(time.monotonic()))
    with deferred():
        first = handle.when()  # of the first call: one period from now
        calls = len(ran) + handle.skipped
    first -= calls * 0.004
    assert before + 0.004 - 1e-6 <= first <= time.monotonic() + 0.004
    for wanted in (1, 5, 50):
        until(lambda wanted=wanted: len(ran) >= wanted)
        with deferred():
            periods = (handle.when() - first) / 0.004
            assert periods == pytest.approx(round(periods), abs=0.001)
            assert round(periods) == len(ran) + handle.skipped
    for number, at in enumerate(ran):
        assert at >= first + number * 0.004 - 1e-6


def test_late_periods_are_skipped_and_counted_and_never_piled_up(armed):
    ran = []
    handle = armed(call_every, 0.01, lambda: ran.append(time.monotonic()))
    with deferred():
        calls, skipped = len(ran), handle.skipped
        time.sleep(0.2)
    with deferred():
        now = time.monotonic()
        missed = handle.skipped - skipped
        # One call for all that were missed, and what has become due since.
        assert len(ran) - calls <= 2 + (now - ran[calls]) / 0.01
        assert missed >= 18


def test_a_periodic_callback_that_takes_longer_than_its_period_is_never_inside_itself(armed):
    depth = deepest = calls = 0

    def slow():
        nonlocal depth, deepest, calls
        depth += 1
        deepest = max(deepest, depth)
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
        depth -= 1
        calls += 1

    start = time.monotonic()
    handle = armed(call_every, 0.005, slow)
    steps = 0
    while calls < 5 and time.monotonic() - start < SOON:
        steps += 1
    handle.cancel()
    assert (calls >= 5, deepest) == (True, 1)
    assert handle.skipped >= 3 * (calls - 1)


def test_a_period_shorter_than_its_callback_leaves_the_program_its_steps():
    out = succeed("""
        calls = 0
        def callback():
            global calls
            calls += 1
            end = time.perf_counter() + 1e-4
            while time.perf_counter() < end:
                pass
        handle = call_every(1e-6, callback)
        steps = 0
        while steps < 1000 or calls < 100:
            steps += 1
        handle.cancel()
        print(steps >= 1000, handle.skipped > 100)
    """)
    assert out == "True True\n"


def test_a_periodic_timer_is_cancelled_inside_its_callback(armed):
    ran = []

    def third_time():
        ran.append(1)
        if len(ran) == 3:
            handle.cancel()

    handle = armed(call_every, 0.002, third_time)
    until(lambda: len(ran) == 3)
    time.sleep(0.02)
    assert len(ran) == 3
    assert handle.cancelled()


def test_a_periodic_timer_goes_on_after_its_callback_raised(armed, unraisable):
    def fails():
        raise KeyError(next(numbers))

    numbers = itertools.count()
    armed(call_every, 0.002, fails)
    until(lambda: len(unraisable) >= 3)
    assert [error.args[0] for error in unraisable[:3]] == [0, 1, 2]


# --- exceptions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, StopIteration, SystemExit, GeneratorExit])
def test_an_exception_of_a_callback_is_reported_and_reaches_nobody(unraisable, error):
    def fails(number):
        raise error(number)

    ran = []
    try:
        for number in range(3):
            call_later(0.001 * number, fails, number)
            call_later(0.001 * number, ran.append, number)
        until(lambda: len(ran) == 3 and len(unraisable) == 3)
        call_later(0.01, fails, 3)
        time.sleep(0.03)
    except error as stray:
        pytest.fail(f"{stray!r} reached the main program")
    assert [(type(each), each.args) for each in unraisable] == [(error, (n,)) for n in range(4)]
    assert unraisable[0].__traceback__.tb_frame.f_code is fails.__code__


@pytest.mark.parametrize("whose", ["sigwright", "asyncio"])
def test_ctrl_c_works_while_a_callback_runs(arrived, unraisable, whose):
    """And so does any handler that raises, in the program, not in the callback alone."""

    def busy(signum):
        began.append(signum)
        send(signum)
        time.sleep(SOON)

    began = []
    if whose == "asyncio":  # which puts the handler back through the stdlib's own module
        asyncio.run(asyncio.sleep(0))
    signal.signal(signal.SIGUSR1, signal.default_int_handler)
    for signum in (signal.SIGINT, signal.SIGUSR1):
        ran = []
        when = time.monotonic() + 0.05
        call_at(when, busy, signum)
        call_at(when, ran.append, "behind it")
        with pytest.raises(KeyboardInterrupt):
            time.sleep(SOON)
        until(lambda ran=ran: ran)
    assert (began, unraisable) == ([signal.SIGINT, signal.SIGUSR1], [])
    # The next one is reported as ever.
    call_later(0, int, "x")
    until(lambda: unraisable)
    assert [type(error) for error in unraisable] == [ValueError]


def test_what_a_callback_raises_by_itself_after_a_handler_raised_is_still_reported(
    arrived, unraisable
):
    def callback():
        with contextlib.suppress(KeyboardInterrupt):
            send(signal.SIGUSR1)
            time.sleep(SOON)
        caught.append(1)
        raise KeyError

    caught = []
    signal.signal(signal.SIGUSR1, signal.default_int_handler)
    call_later(0.01, callback)
    until(lambda: unraisable)
    time.sleep(0.01)
    assert (caught, [type(error) for error in unraisable]) == ([1], [KeyError])


def test_an_exception_that_is_being_handled_stays_so(unraisable):
    def fails():
        raise KeyError

    error = ZeroDivisionError()
    try:
        raise error
    except ZeroDivisionError:
        call_later(0, fails)
        until(lambda: unraisable)
        assert sys.exception() is error
    assert error.__context__ is None


def test_the_default_hook_names_the_callback_and_the_program_goes_on():
    done = programs.run(
        PRELUDE,
        """
        def unlucky():
            raise KeyError("of the callback")
        call_later(0, unlucky)
        time.sleep(0.05)
        print("went on")
        """,
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "unlucky" in done.stderr
    assert "KeyError: 'of the callback'" in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_a_hook_that_fails_fails_alone():
    done = programs.run(
        PRELUDE,
        """
        def hook(told):
            raise RuntimeError("of the hook")
        sys.unraisablehook = hook
        ran = []
        call_later(0, lambda: 1 / 0)
        call_later(0.001, ran.append, 1)
        until(lambda: ran)
        print("went on")
        """,
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "of the hook" in done.stderr


# --- fork, exec, exit -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["the main thread", "a worker"])
def test_a_forked_child_has_no_timer_of_its_parent_and_can_have_its_own(where):
    out = succeed(
        f"IN_WORKER = {where == 'a worker'}",
        """
        ran = []
        handles = [call_later(0.05, ran.append, "parent's") for _ in range(50)]
        every = call_every(0.01, ran.append, "parent's")
        pids = []
        def fork():
            pids.append(os.fork())
            if pids[-1]:
                return
            ran.clear()
            time.sleep(0.2)
            inherited = list(ran)
            for handle in (*handles, every):
                handle.cancel()
                handle.when()
            start = time.monotonic()
            call_later(0.05, ran.append, "child's")
            cancelled = call_later(0.01, ran.append, "never")
            cancelled.cancel()
            time.sleep(0.2)
            print(inherited, ran, flush=True)
            os._exit(0)
        if IN_WORKER:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        else:
            fork()
        until(lambda: len(ran) >= 52)
        every.cancel()
        assert os.waitpid(pids[0], 0)[1] == 0
        print(set(ran))
        """,
        options=("-W", "ignore:This process:DeprecationWarning"),
    )
    assert sorted(out.splitlines()) == ['[] ["child\'s"]', '{"parent\'s"}']


def test_a_callback_that_forks_goes_on_in_the_parent_alone():
    out = succeed("""
        parent, ran, pids = os.getpid(), [], []
        def fork(what):
            ran.append((what, os.getpid()))
            if not pids:
                pids.append(os.fork())
                if pids[0] == 0:
                    ran.clear()
        with deferred():
            every = call_every(0.001, fork, "every")
            for number in range(100):
                call_later(0.001 + number / 10_000, ran.append, (number, os.getpid()))
            time.sleep(0.05)
        if pids[0] == 0:
            time.sleep(0.1)
            os._exit(0 if ran == [] else 1)
        until(lambda: len(ran) > 150)
        every.cancel()
        print(os.waitpid(pids[0], 0)[1], sum(what != "every" for what, _ in ran))
    """)
    assert out == "0 100\n"


def test_what_a_timer_has_rung_for_does_not_end_the_program_that_follows():
    """The kernel deletes the timer when exec succeeds; its signal may be pending by then."""
    out = succeed(
        """
        call_every(0.0002, list)
        end = time.monotonic() + 0.01 + os.getpid() % 7 / 1000
        while time.monotonic() < end:
            pass
        left = int(os.environ.get("LEFT", "10"))
        if left:
            os.environ["LEFT"] = str(left - 1)
            os.execv(sys.executable, sys.orig_argv)
        print("alive")
        """
    )
    assert out == "alive\n"


@pytest.mark.parametrize(
    ("end", "status", "stderr"),
    [
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("os._exit(4)", 4, ""),
        ("import gc; del call_every, handles; sigwright.__dict__.clear(); gc.collect()", 0, ""),
    ],
)
def test_a_program_ends_with_timers_armed(end, status, stderr):
    done = programs.run(
        PRELUDE,
        """
        import atexit
        atexit.register(time.sleep, 0.02)   # runs while they come due
        class Argument:
            def __del__(self):
                try:
                    call_later(0, list)
                except RuntimeError:  # the interpreter is ending
                    pass
        handles = [call_later(0.0001 * number, len, [Argument()]) for number in range(2000)]
        handles.append(call_every(0.0003, list))
        handles.append(handles)
        time.sleep(0.005)
        """,
        end,
    )
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (status, [stderr] if stderr else [])


def test_threads_that_arm_until_the_very_end_crash_nothing():
    for _ in range(3):
        succeed("""
            def work():
                while True:
                    handle = call_later(0.0001, list)
                    call_later(0.0005, list)
                    handle.cancel()
            for _ in range(3):
                threading.Thread(target=work, daemon=True).start()
            time.sleep(0.05)
        """)


# --- memory ---------------------------------------------------------------------------------------


class Argument:
    """Can be referred to weakly."""


def test_callback_and_arguments_live_as_long_as_the_timer_and_no_longer():
    def alive():
        gc.collect()
        return [reference() is not None for reference in references]

    def make():
        argument, callback = Argument(), lambda *arguments: seen.append(len(arguments))
        references[:] = [weakref.ref(argument), weakref.ref(callback)]
        return callback, argument, 2, 3

    seen, references = [], []
    # Nobody else holds them; after the call nothing does.
    with deferred():
        call_later(0, *make())
        assert alive() == [True, True]
    until(lambda: seen)
    assert seen == [3]
    assert alive() == [False, False]
    # Cancelling lets go of them, though the handle is there.
    handle = call_later(FAR, *make())
    assert alive() == [True, True]
    handle.cancel()
    assert alive() == [False, False]
    # So does having run.
    handle = call_later(0, *make())
    until(lambda: len(seen) == 2)
    assert alive() == [False, False]
    # A periodic one holds them until it is cancelled.
    handle = call_every(0.001, *make())
    until(lambda: len(seen) >= 5)
    assert alive() == [True, True]
    handle.cancel()
    assert alive() == [False, False]


def test_a_timer_that_nobody_holds_runs():
    ran = []
    call_later(0.01, ran.append, 1)
    gc.collect()
    until(lambda: ran)


def test_cycles_through_a_handle_are_collected():
    references, ran = [], []
    for _ in range(3):
        argument = Argument()
        argument.handle = call_later(0.01, ran.append, argument)
        references.append(weakref.ref(argument))
    argument.handle.cancel()
    del argument
    until(lambda: len(ran) == 2)
    ran.clear()
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_reference_counts_are_what_they_were():
    def callback(*arguments):
        nonlocal calls
        calls += 1

    calls, argument = 0, Argument()
    handles = []
    before = sys.getrefcount(argument), sys.getrefcount(callback)
    for number in range(600):
        handle = call_later((0.001, FAR)[number % 2], callback, argument, argument)
        if number % 2:
            handle.cancel()
        elif number % 3 == 0:
            handles.append(handle)
    until(lambda: calls == 300)
    assert (sys.getrefcount(argument), sys.getrefcount(callback)) == before


def test_arming_and_cancelling_for_ever_takes_no_memory():
    out = succeed("""
        import tracemalloc
        def many(count):
            for number in range(count):
                call_later(3600 + number % 100, list, number).cancel()
        def traced():
            return tracemalloc.get_traced_memory()[0]
        tracemalloc.start()
        before = traced()
        held = [call_later(3600 + number, list) for number in range(10_000)]
        each = (traced() - before) / len(held)
        many(20_000)
        before = traced()
        many(100_000)
        print(each < 300, traced() - before < 1_000_000)
    """)
    assert out == "True True\n"


def test_a_million_timers():
    out = succeed(
        """
        import random
        COUNT = 1_000_000
        chance = random.Random(1)
        now = time.monotonic()
        ran = []
        with deferred():
            # All due when the section ends, but for every tenth, which is far away and cancelled.
            handles = [
                call_at(now + 3600 + chance.random(), ran.append, 2.0)
                if number % 10 == 0
                else call_at(now - (late := chance.randrange(10**6) / 1e6), ran.append, -late)
                for number in range(COUNT)
            ]
        until(lambda: len(ran) == COUNT * 9 // 10, seconds=60)
        for handle in handles:
            handle.cancel()
        assert all(earlier <= later for earlier, later in zip(ran, ran[1:]))
        time.sleep(0.01)
        print(len(ran))
        """,
        timeout=180,
    )
    assert out == "900000\n"


# --- handles and arguments ------------------------------------------------------------------------


def test_a_handle_tells_its_deadline_on_the_clock_of_monotonic(armed):
    before = time.monotonic()
    handle = armed(call_later, 50, list)
    assert before + 50 - 1e-6 <= handle.when() <= time.monotonic() + 50 + 1e-6
    handle = armed(call_at, before + 12.5, list)
    assert isinstance(handle.when(), float)
    assert handle.when() == pytest.approx(before + 12.5, abs=1e-6)
    handle.cancel()
    assert handle.when() == pytest.approx(before + 12.5, abs=1e-6)
    assert not handle.skipped


@pytest.mark.parametrize("seconds", [0, 0.0, 1e-9, 5e-324, -0.0, False])
def test_the_smallest_delays_run_at_once(seconds):
    ran = []
    call_later(seconds, ran.append, 1)
    until(lambda: ran)


@pytest.mark.parametrize("seconds", [1e6, 10**8, 1e9])
def test_a_delay_of_years_is_armed_and_runs_nothing(armed, seconds):
    ran = []
    handle = armed(call_later, seconds, ran.append, 1)
    assert handle.when() == pytest.approx(time.monotonic() + seconds, abs=60)
    armed(call_later, 0.01, ran.append, 2)
    until(lambda: ran)
    assert ran == [2]


@pytest.mark.parametrize("function", [call_later, call_at, call_every])
@pytest.mark.parametrize("seconds", [math.inf, 1e300, 1e10, 10**30])
def test_a_time_beyond_the_clocks_range_is_refused_as_the_stdlib_does(function, seconds):
    with pytest.raises(OverflowError):
        function(seconds, list)


@pytest.mark.parametrize("function", [call_later, call_every])
@pytest.mark.parametrize("seconds", [-1, -1e-9, -1e300, -math.inf, math.nan])
def test_negative_and_nan_are_refused(function, seconds):
    ran = []
    with pytest.raises(ValueError):
        function(seconds, ran.append, 1)
    time.sleep(0.005)
    assert ran == []


def test_a_time_that_is_nan_is_refused():
    with pytest.raises(ValueError):
        call_at(math.nan, list)


@pytest.mark.parametrize("period", [0, 0.0, -0.0])
def test_a_period_of_nothing_is_refused(period):
    with pytest.raises(ValueError):
        call_every(period, list)


@pytest.mark.parametrize("function", [call_later, call_at, call_every])
@pytest.mark.parametrize("seconds", ["1", None, [], 1j, object(), b"1"])
def test_a_time_that_is_no_number_is_refused(function, seconds):
    with pytest.raises(TypeError):
        function(seconds, list)


def test_keywords_are_refused():
    with pytest.raises(TypeError):
        call_later(0, print, end="")


def test_a_handle_shows_what_it_is(armed):
    handle = armed(call_later, FAR, max, 1)
    assert "built-in function max" in repr(handle)
    assert f"{handle.when()}" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


def test_a_kernel_without_a_timer_to_give_is_an_error_that_arms_nothing():
    out = succeed("""
        import resource
        _, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, hard))
        ran = []
        try:
            call_later(0.01, ran.append, "not armed")
        except OSError as error:
            print(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (hard, hard))
        time.sleep(0.05)
        call_later(0.01, ran.append, "armed")
        until(lambda: ran)
        print(ran)
    """)
    assert out == "BlockingIOError\n['armed']\n"


@pytest.mark.parametrize("function", [call_later, call_at, call_every])
@pytest.mark.parametrize("arguments", [(), (FAR,), (FAR, None), (FAR, "f"), (FAR, 3, list)])
def test_what_cannot_be_called_is_refused(function, arguments):
    with pytest.raises(TypeError):
        function(*arguments)


def test_a_handle_is_not_made_by_hand():
    handle = call_later(FAR, list)
    handle.cancel()
    with pytest.raises(TypeError):
        type(handle)()
    with pytest.raises(TypeError):
        handle.cancel(1)


def test_whoever_asks_for_the_doors_number_moves_it_with_timers_armed():
    out = succeed("""
        ran = []
        call_later(0.05, ran.append, 1)
        every = call_every(0.01, ran.append, 2)
        realtime = set(range(sigwright.SIGRTMIN, sigwright.SIGRTMAX + 1))
        for hidden in realtime - sigwright.valid_signals():
            sigwright.signal(hidden, lambda signum, frame: ran.append("stray"))
        start = time.monotonic()
        time.sleep(0.3)
        print(ran.count(1), ran.count(2) > 3, ran.count("stray"))
    """)
    assert out == "1 True 0\n"


# --- elsewhere ------------------------------------------------------------------------------------


def test_a_first_import_in_a_worker_still_runs_them_in_the_main_thread():
    out = programs.succeed(
        "import threading, time",
        programs.UNTIL,
        """
        ran = []
        def work():
            import sigwright
            sigwright.call_later(0.01, lambda: ran.append(threading.current_thread().name))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        until(lambda: ran)
        print(ran)
        """,
    )
    assert out == "['MainThread']\n"


def test_under_sigwright_run():
    out = succeed(
        """
        import signal
        ran = []
        call_later(0.02, ran.append, "later")
        every = call_every(0.01, ran.append, "every")
        signal.signal(signal.SIGALRM, lambda signum, frame: ran.append("alarm"))
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        time.sleep(0.2)
        print(ran.count("later"), ran.count("alarm"), ran.count("every") > 3)
        """,
        options=("-m", "sigwright.cli", "run"),
    )
    assert out == "1 1 True\n"


@pytest.mark.parametrize("kind", ["legacy", "own GIL"])
def test_a_subinterpreter_has_none(kind):
    succeed(
        f"KIND = {kind!r}",
        """
        code = "import sigwright; assert not hasattr(sigwright, 'call_later')"
        ran = []
        call_later(0.01, ran.append, 1)
        if sys.version_info >= (3, 13):
            import _interpreters
            interpreter = _interpreters.create("isolated" if KIND == "own GIL" else "legacy")
            assert _interpreters.exec(interpreter, code) is None
            _interpreters.destroy(interpreter)
        else:
            import _xxsubinterpreters
            interpreter = _xxsubinterpreters.create(isolated=KIND == "own GIL")
            assert _xxsubinterpreters.run_string(interpreter, code) is None
            _xxsubinterpreters.destroy(interpreter)
        until(lambda: ran)
        """,
    )


# --- a random program beside a model --------------------------------------------------------------

# A timer is due (this many ms late) or far away; when it runs, it may do something.
LATE = st.integers(min_value=0, max_value=3)
OTHER = st.integers(min_value=0, max_value=15)  # which timer; taken modulo how many there are
DEEDS = st.one_of(st.just(("nothing",)), st.tuples(st.just("cancel"), OTHER), st.just(("raise",)))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("due"), LATE, DEEDS),
        st.tuples(st.just("far"), LATE),
        st.tuples(st.just("cancel"), OTHER),
        st.just(("look",)),
    ),
    max_size=40,
)


class Model:
    """A heap of (when, number), as asyncio's is."""

    def __init__(self):
        self.heap, self.deeds, self.gone, self.ran = [], [], set(), []

    def arm(self, when, deed):
        heapq.heappush(self.heap, (when, len(self.deeds)))
        self.deeds.append(deed)

    def cancel(self, number):
        self.gone.add(number)

    def look(self, now):
        while self.heap and self.heap[0][0] <= now:
            _, number = heapq.heappop(self.heap)
            if number in self.gone:
                continue
            self.ran.append(number)
            deed = self.deeds[number]
            if deed[0] == "cancel":
                self.cancel(deed[1] % len(self.deeds))


@contextlib.contextmanager
def errors_counted():
    errors, before = [], sys.unraisablehook
    sys.unraisablehook = lambda told: errors.append(type(told.exc_value))
    yield errors
    sys.unraisablehook = before


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_any_program_of_arming_and_cancelling_does_as_a_heap_does(steps):
    model, handles, deeds, ran = Model(), [], [], []

    def run(number):
        ran.append(number)
        deed = deeds[number]
        if deed[0] == "cancel":
            handles[deed[1] % len(handles)].cancel()
        elif deed[0] == "raise":
            raise KeyError

    begin = time.monotonic() - 1
    with errors_counted() as errors, deferred() as section:
        for step, *rest in steps:
            if step in ("due", "far"):
                when = begin - rest[0] / 1000 + (FAR if step == "far" else 0)
                deeds.append(rest[1] if step == "due" else ("nothing",))
                handles.append(call_at(when, run, len(handles)))
                model.arm(when, deeds[-1])
            elif step == "cancel" and handles:
                number = rest[0] % len(handles)
                handles[number].cancel()
                model.cancel(number)
            elif step == "look":
                assert section.run_pending()
                model.look(begin + 1)
                assert ran == model.ran
    model.look(begin + 1)
    assert ran == model.ran
    assert len(errors) == sum(deeds[number][0] == "raise" for number in ran)
    for handle in handles:
        handle.cancel()
