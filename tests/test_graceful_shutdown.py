"""graceful_shutdown(): who asks is heard, once; what is to be done is done; and there is an end."""

import os
import re
import subprocess
import sys
import textwrap
import time

import pytest

import programs
import sigwright as signal

PREAMBLE = f"""
import math, os, sys, threading, time
import sigwright as signal
from sigwright import SIGINT, SIGTERM, graceful_shutdown
{programs.UNTIL}
def send(signum=SIGTERM):
    os.kill(os.getpid(), signum)
def say(*words, end="\\n"):
    os.write(1, (" ".join(map(str, words)) + end).encode())  # whole lines, from any thread
def patiently():
    "On a busy machine the last words may take longer."
    import sigwright.shutdown
    sigwright.shutdown._LAST_WORDS_NS = 30 * 10**9
    sigwright.shutdown._TURN = 0.5
def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread
def raises(kind, function, *args):
    try:
        function(*args)
    except kind as error:
        return str(error)
    raise AssertionError("it did not raise")
"""

LOOPS = """
import asyncio
def run_asyncio(main):
    asyncio.run(main())
def run_uvloop(main):
    import uvloop
    if sys.version_info >= (3, 12):
        uvloop.run(main())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
def run_trio(main):
    import trio
    trio.run(main)
async def sleep(seconds):
    if sys.argv[1] == "trio":
        import trio
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)
run_loop = globals()["run_" + sys.argv[1]]
"""

in_each_loop = pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])


def execute(source, *arguments, **keywords):
    return programs.run(PREAMBLE, source, arguments=arguments, **keywords)


def run(source, *arguments, **keywords):
    return programs.succeed(PREAMBLE, source, arguments=arguments, **keywords).splitlines()


def run_in(loop, source, *arguments):
    return programs.succeed(PREAMBLE, LOOPS, source, arguments=(loop, *arguments)).splitlines()


# --- the request ---------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_nothing_else_happens(signum):
    out = run(
        """
        signum = signal.Signals(int(sys.argv[1]))
        with graceful_shutdown() as stop:
            assert (stop.requested, stop.info, stop.remaining()) == (False, None, math.inf)
            send(signum)
            assert stop.requested and stop.wait() and stop.wait(0)
            assert (stop.info.si_signo, stop.info.si_pid) == (signum, os.getpid())
            assert 7 < stop.remaining() <= 8
            say("the block goes on")
        assert stop.requested and stop.info.si_signo == signum
        say("and so does the program")
        """,
        int(signum),
    )
    assert out == ["the block goes on", "and so does the program"]


def test_after_the_block_the_signal_acts_as_before():
    done = execute("""
        with graceful_shutdown() as stop:
            send()
        assert stop.requested
        send()
        time.sleep(60)
    """)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


def test_handlers_of_the_program_run_as_well_and_are_not_touched():
    out = run("""
        handler = lambda signum, frame: say("handler")
        signal.signal(SIGTERM, handler)
        with graceful_shutdown() as stop:
            assert signal.getsignal(SIGTERM) is handler
            send()
            assert stop.requested
        assert signal.getsignal(SIGTERM) is handler
        send()
    """)
    assert out == ["handler", "handler"]


@pytest.mark.parametrize("where", ["main", "worker"])
def test_who_waits_is_woken(where):
    out = run(
        """
        def work(stop):
            begun.set()
            say(stop.wait(60))
        begun = threading.Event()
        began = time.monotonic()
        with graceful_shutdown() as stop:
            if sys.argv[1] == "main":
                killer = in_thread(lambda: (begun.wait(), time.sleep(0.05), send()))
                work(stop)
                killer.join()
            else:
                workers = [in_thread(lambda: work(stop)) for _ in range(3)]
                begun.wait()
                time.sleep(0.05)
                send()
                for worker in workers:
                    worker.join()
        assert time.monotonic() - began < 30
        """,
        where,
    )
    assert out == ["True"] * (1 if where == "main" else 3)


def test_a_worker_learns_of_it_while_the_main_thread_is_stuck_in_c():
    """No handler runs there: neither without the GIL, nor in a section that defers it."""
    out = run("""
        import ctypes
        libc = ctypes.CDLL(None)
        def worker():
            assert stop.wait(30)
            heard.append(time.monotonic())
            assert stop.requested and stop.info.si_signo == SIGTERM and stop.remaining() < 20
        for how in ("C", "deferred"):
            heard = []
            with graceful_shutdown(grace=20) as stop:
                thread = in_thread(worker)
                time.sleep(0.05)
                if how == "C":
                    in_thread(lambda: (time.sleep(0.1), send()))
                    for _ in range(4):              # each is broken by the signal, at most once
                        libc.usleep(250_000)
                else:
                    with signal.deferred():
                        send()
                        until(lambda: heard)
                end = time.monotonic()
                thread.join()
            say(how, heard[0] < end)
    """)
    assert out == ["C True", "deferred True"]


def test_waiting_has_its_limits():
    out = run("""
        stop = graceful_shutdown()
        say(raises(RuntimeError, stop.wait))
        with stop:
            say(stop.wait(0), stop.wait(0.01))
            raises(ValueError, stop.wait, -1)
            raises(ValueError, stop.wait, math.nan)
            said = []
            thread = in_thread(lambda: said.append(raises(RuntimeError, stop.wait)))
            until(lambda: stop._waiting)
        thread.join()
        say(*said)
        say(raises(RuntimeError, stop.wait, 1))
        say(len(signal._engine.consumers()))        # nobody is left who keeps TERM to himself
    """)
    not_entered = "this shutdown's block is not entered"
    left = "this shutdown's block was left without a request"
    assert out == [not_entered, "False False", left, not_entered, "0"]


def test_what_is_ignored_stays_ignored():
    """As for a program under nohup, or in the background of a shell script."""
    out = run("""
        signal.signal(SIGINT, signal.SIG_IGN)
        with graceful_shutdown() as stop:
            send(SIGINT)
            say(stop.requested, stop.wait(0.05))
            send(SIGTERM)
            say(stop.requested)
        assert signal.getsignal(SIGINT) is signal.SIG_IGN
        with graceful_shutdown(SIGINT, cancel=True) as stop:    # nothing is left
            send(SIGINT)
            say(stop.requested, stop.wait(0.05))
        send(SIGINT)
    """)
    assert out == ["False False", "True", "False False"]


def test_bad_arguments_change_nothing():
    out = run("""
        raises(TypeError, graceful_shutdown, "TERM")
        raises(ValueError, graceful_shutdown, 0)
        raises(ValueError, graceful_shutdown, 100_000)
        say(raises(OSError, graceful_shutdown, signal.SIGKILL))
        for grace in (-1, -0.001, math.nan):
            raises(ValueError, lambda: graceful_shutdown(grace=grace))
        raises(TypeError, lambda: graceful_shutdown(grace="8"))
        raises(TypeError, lambda: graceful_shutdown(exit="kill"))
        raises(TypeError, lambda: graceful_shutdown(exit=1.0))
        stop = graceful_shutdown(signal.SIGRTMIN + 2, SIGTERM, grace=1.5)
        assert repr(stop) == "<GracefulShutdown SIGRTMIN+2, SIGTERM, grace 1.5 s, not entered>"
        with stop:
            say(raises(RuntimeError, stop.__enter__))
            send()
            say(stop.requested)
        with stop:                                  # again, anew
            say(stop.requested)
    """)
    assert out[0].startswith("[Errno 22] Invalid argument") and "SIGKILL" in out[0]
    assert out[1:] == ["this shutdown is entered already", "True", "False"]


# --- the callbacks -------------------------------------------------------------------------------


def test_callbacks_run_at_the_end_the_last_one_first_in_the_blocks_thread():
    out = run("""
        def body():
            with graceful_shutdown() as stop:
                @stop.callback
                def decorated():
                    say("first", threading.get_ident() == here)
                assert stop.callback(say, "second", end="!\\n") is say
                stop.callback(lambda: stop.callback(say, "third, by the second last"))
                here = threading.get_ident()
                send()
                assert stop.wait(10)
                time.sleep(0.05)
                say("not yet")
            say("done")
        body()
        in_thread(body).join()
    """)
    once = ["not yet", "third, by the second last", "second!", "first True", "done"]
    assert out == once * 2


def test_callbacks_run_without_a_signal_too_and_have_no_limit():
    out = run("""
        with graceful_shutdown(grace=0.01) as stop:
            stop.callback(lambda: (time.sleep(0.2), say(stop.requested, stop.remaining())))
        try:
            with stop:
                stop.callback(say, "after the error")
                raise KeyError("the block's")
        except KeyError as error:
            say(repr(error))
    """)
    assert out == ["False inf", "after the error", 'KeyError("the block\'s")']


def test_each_callback_has_what_is_left_of_the_grace():
    """And who is late does not take away the others' turn."""
    out = run("""
        patiently()
        began = time.monotonic()
        try:
            with graceful_shutdown(grace=1) as stop:
                stop.callback(say, "the last one, still")
                stop.callback(time.sleep, 60)
                stop.callback(lambda: (time.sleep(0.3), say(0.2 < stop.remaining() < 0.75)))
                send()
        except TimeoutError as error:
            say("too late", 0.9 < time.monotonic() - began < 10, stop.remaining())
    """)
    assert out == ["True", "the last one, still", "too late True 0.0"]


def test_a_signal_that_comes_while_a_callback_runs_limits_it():
    out = run("""
        patiently()
        began = time.monotonic()
        try:
            with graceful_shutdown(grace=0.5) as stop:
                def clean_up():
                    say(stop.remaining())
                    send()
                    time.sleep(60)
                stop.callback(clean_up)
        except TimeoutError:
            say(stop.requested, time.monotonic() - began < 30)
    """)
    assert out == ["inf", "True True"]


def test_no_exception_of_a_callback_keeps_the_others_from_running():
    out = run("""
        def fail(error):
            raise error
        try:
            with graceful_shutdown() as stop:
                stop.callback(fail, KeyError("c"))
                stop.callback(say, "in between")
                stop.callback(fail, KeyError("b"))
                raise KeyError("a")
        except KeyError as error:
            while error is not None:
                say(error)
                error = error.__context__
        try:
            with graceful_shutdown() as stop:       # the block itself is well
                for name in "zyx":
                    stop.callback(fail, KeyError(name))
        except KeyError as error:
            say(error, error.__context__, error.__context__.__context__)
        async def cleanup(): pass
        def block():
            with graceful_shutdown() as stop:
                stop.callback(cleanup)
        say("needs `async with`" in raises(TypeError, block))
    """)
    assert out == ["in between", "'c'", "'b'", "'a'", "'z' 'y' 'x'", "True"]


# --- cancel=True ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["main", "worker"])
def test_the_block_is_cancelled_and_left_without_an_exception(where):
    out = run(
        """
        def block():
            with graceful_shutdown(cancel=True) as stop:
                stop.callback(lambda: (time.sleep(0.05), say("cleaned up")))
                try:
                    in_thread(lambda: (time.sleep(0.1), send()))
                    while True:
                        time.sleep(0.01 if sys.argv[1] == "worker" else 60)
                finally:
                    say("finally")
            say("after", stop.requested)
        if sys.argv[1] == "main":
            block()
        else:
            in_thread(block).join()
        """,
        where,
    )
    assert out == ["finally", "cleaned up", "after True"]


def test_a_block_that_swallows_it_is_cancelled_again():
    out = run("""
        with graceful_shutdown(cancel=True) as stop:
            for _ in range(3):
                try:
                    if not stop.requested:
                        send()
                    time.sleep(30)
                except BaseException as error:
                    say(type(error).__name__)
            time.sleep(30)
        say("left")
    """)
    assert out == ["Cancelled"] * 3 + ["left"]


# --- the second one ------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_second_one_of_the_same_signal_ends_it_at_once(signum):
    done = execute(
        """
        signum = int(sys.argv[1])
        with graceful_shutdown(grace=300) as stop:
            for _ in range(5):
                send(signum)                        # a wrapper's copies of the first
            say(stop.requested)
            time.sleep(0.51)
            send(SIGINT if signum == SIGTERM else SIGTERM)     # the first of its number
            say("still here")
            send(signum)
            time.sleep(60)
        """,
        int(signum),
    )
    assert (done.returncode, done.stderr) == (-signum, "")
    assert done.stdout == "True\nstill here\n"


def test_the_second_one_works_while_callbacks_run():
    done = execute("""
        with graceful_shutdown(grace=300) as stop:
            stop.callback(time.sleep, 60)
            stop.callback(lambda: in_thread(lambda: (time.sleep(0.6), send())))
            send()
    """)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


# --- the end of the grace ------------------------------------------------------------------------

ENDLESS = {
    "a loop that catches everything": """
        with graceful_shutdown(grace=0.5, cancel=True) as stop:
            while True:
                try:
                    if not stop.requested:
                        send()
                    while True:
                        time.sleep(0.01)
                except BaseException:
                    continue
    """,
    "C that holds the GIL": """
        with graceful_shutdown(grace=0.5) as stop:
            from itertools import repeat
            threading.Timer(0.2, send).start()
            time.sleep(0.1)
            sys.setswitchinterval(1e-6)
            import subprocess
            subprocess.Popen(["sh", "-c", f"sleep 0.3; kill {os.getpid()}"])
            sum(repeat(1))
    """,
    "C without the GIL": """
        import ctypes
        with graceful_shutdown(grace=0.5) as stop:
            threading.Timer(0.2, send).start()
            while True:
                ctypes.CDLL(None).usleep(900_000)
    """,
    "a callback": """
        def stuck():
            while True:
                try:
                    time.sleep(1)
                except BaseException:
                    pass
        with graceful_shutdown(grace=0.5) as stop:
            stop.callback(stuck)
            send()
    """,
    "a section that defers": """
        with graceful_shutdown(grace=0.5) as stop, signal.deferred():
            send()
            while True:
                time.sleep(0.1)
    """,
    "a section that defers, and a worker that waits": """
        with graceful_shutdown(grace=0.5) as stop, signal.deferred():
            in_thread(stop.wait)
            time.sleep(0.1)
            send()
            time.sleep(60)
    """,
    "a block in a worker": """
        def block():
            with graceful_shutdown(grace=0.5) as stop:
                send()
                time.sleep(60)
        in_thread(block).join()
    """,
    "a task": """
        import asyncio
        async def main():
            async with graceful_shutdown(grace=0.5, cancel=True) as stop:
                send()
                while True:
                    try:
                        await asyncio.sleep(1)
                    except BaseException:
                        pass
        asyncio.run(main())
    """,
}


@pytest.mark.parametrize("how", ENDLESS)
def test_a_block_that_is_not_left_ends_with_the_grace(how):
    done = execute(ENDLESS[how], timeout=50)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert "most recent call first" in done.stderr  # all stacks
    assert "SIGTERM" in done.stderr


def test_a_block_that_is_left_in_time_is_not_ended():
    out = run("""
        for _ in range(3):
            with graceful_shutdown(grace=0.1) as stop:
                send()
                assert stop.requested
        time.sleep(0.5)
        say("still here")
    """)
    assert out == ["still here"]


# --- several, and children -----------------------------------------------------------------------


def test_several_are_asked_by_one_signal_and_each_does_its_own():
    out = run("""
        with graceful_shutdown(grace=100) as outer:
            outer.callback(say, "outer")
            with graceful_shutdown(SIGTERM, grace=50) as inner:
                inner.callback(say, "inner")
                send()
                assert inner.requested and outer.requested
                assert inner.info.monotonic_ns == outer.info.monotonic_ns
                assert inner.remaining() < 51 < outer.remaining()
            with graceful_shutdown(cancel=True) as late:        # it is under way
                assert late.requested and late.info.si_signo == SIGTERM
                time.sleep(60)
            with graceful_shutdown(SIGINT) as other:
                assert not other.requested
            say("late was cancelled")
    """)
    assert out == ["inner", "late was cancelled", "outer"]


def test_a_forked_child_is_in_no_block():
    out = run("""
        import warnings
        # From 3.12 on os.fork() warns where there is a second thread: the watch is one.
        warnings.simplefilter("ignore", DeprecationWarning)
        with graceful_shutdown(grace=0.5) as stop:
            stop.callback(say, "callback")
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                assert not stop.requested
                raises(RuntimeError, stop.wait, 0)
                os.write(write, b"x")
                time.sleep(60)
                os._exit(1)
            os.read(read, 1)
            os.kill(pid, SIGTERM)
            say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -SIGTERM, stop.requested)
            send()
            assert stop.requested
            pid = os.fork()                         # during a shutdown: its end is not the child's
            if pid == 0:
                time.sleep(0.8)
                os._exit(7)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    assert out == ["True False", "callback", "7"]


# --- a main function -----------------------------------------------------------------------------

MAIN = """
    import atexit
    atexit.register(say, "atexit")
    stop = graceful_shutdown(exit=eval(sys.argv[1]))
    @stop
    def main(words, *, more):
        "Says it."
        stop.callback(say, "callback")
        if more:
            send()
        assert stop.wait(0.05) == more
        sys.stdout.write("not flushed\\n")
        return words
    try:
        assert (main.__name__, main.__doc__) == ("main", "Says it.")
        say(main("returned", more=sys.argv[2] == "signal"))
    finally:
        say("further out")
"""


@pytest.mark.parametrize(
    ("exit_", "status"), [("'signal'", -signal.SIGTERM), ("0", 0), ("7", 7), ("None", 0)]
)
def test_a_decorated_function_ends_the_process_as_it_was_told(exit_, status):
    done = execute(MAIN, exit_, "signal")
    returned = ["returned"] if exit_ == "None" else []
    # Where it is buffered, what sys.stdout has is flushed at the very end.
    words = done.stdout.replace("not flushed\n", "", 1).split()
    assert words == ["callback", *returned, "further", "out", "atexit"]
    assert "not flushed\n" in done.stdout
    assert (done.returncode, done.stderr) == (status, "")


def test_a_decorated_function_that_nobody_interrupts_returns():
    done = execute(MAIN, "'signal'", "none")
    assert (done.returncode, done.stderr) == (0, "")
    assert "returned" in done.stdout


HANGING = {
    "a thread": "threading.Thread(target=time.sleep, args=(60,)).start()",
    "atexit": "import atexit; atexit.register(time.sleep, 60)",
}


@pytest.mark.parametrize("what", HANGING)
@pytest.mark.parametrize("exit_", ["'signal'", "0"])
def test_what_hangs_after_a_decorated_function_has_what_is_left_of_the_grace(what, exit_):
    done = execute(
        f"""
        @graceful_shutdown(grace=0.5, exit={exit_})
        def main():
            {HANGING[what]}
            send()
        main()
        """
    )
    assert done.returncode == -signal.SIGTERM
    assert "most recent call first" in done.stderr


def test_a_shell_sees_128_and_the_number():
    program = textwrap.dedent("""
        import os, sigwright as signal
        @signal.graceful_shutdown(cancel=True)
        def main():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        main()
    """)
    script = '"$0" -c "$1"; echo $?'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "143\n"


def test_the_functions_own_exception_is_more_important():
    done = execute("""
        @graceful_shutdown()
        def main():
            send()
            raise KeyError("what went wrong")
        main()
    """)
    assert done.returncode == 1
    assert "what went wrong" in done.stderr


@in_each_loop
def test_a_decorated_coroutine_function_too(loop):
    done = programs.run(
        PREAMBLE,
        LOOPS,
        """
        stop = graceful_shutdown(cancel=True)
        @stop
        async def main():
            send()
            try:
                await sleep(60)
            finally:
                say("finally")
        try:
            run_loop(main)
        finally:
            say("the loop is closed")
        """,
        arguments=(loop,),
    )
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
    assert done.stdout.splitlines() == ["finally", "the loop is closed"]


def test_what_is_no_function_is_not_decorated():
    run("""
        def generator():
            yield
        async def asynchronous():
            yield
        for thing in (generator, asynchronous, int, 7, None):
            raises(TypeError, graceful_shutdown(), thing)
    """)


# --- event loops ---------------------------------------------------------------------------------


@in_each_loop
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_in_a_loop_the_first_signal_asks_and_nothing_else_happens(loop, signum):
    """Also Ctrl+C, for which asyncio.run() and trio.run() have an answer of their own."""
    out = run_in(
        loop,
        """
        import signal as stdlib
        signum = int(sys.argv[2])
        async def main():
            before = stdlib.getsignal(SIGINT)
            async with graceful_shutdown() as stop:
                in_thread(lambda: (time.sleep(0.05), send(signum)))
                await stop.async_wait()
                await stop.async_wait()
                say(stop.requested, stop.info.si_signo == signum)
                await sleep(0.05)
            assert stdlib.getsignal(SIGINT) is before
            await sleep(0.01)
            say("the end")
        run_loop(main)
        """,
        int(signum),
    )
    assert out == ["True True", "the end"]


@in_each_loop
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_in_a_loop_the_block_is_cancelled(loop, signum):
    out = run_in(
        loop,
        """
        signum = int(sys.argv[2])
        async def main():
            async with graceful_shutdown(cancel=True) as stop:
                @stop.callback
                async def close():
                    await sleep(0.01)
                    say("closed")
                stop.callback(say, "plain")
                send(signum)
                try:
                    await sleep(60)
                finally:
                    await_me = say("finally")
            say("after", stop.requested)
            await sleep(0.01)                       # nothing is left of it
            if sys.argv[1] != "trio":
                assert asyncio.current_task().cancelling() == 0
            async with graceful_shutdown(cancel=True) as stop:
                await sleep(0.01)
            say("not again")
        run_loop(main)
        """,
        int(signum),
    )
    assert out == ["finally", "plain", "closed", "after True", "not again"]


@in_each_loop
def test_in_a_loop_each_callback_has_what_is_left_of_the_grace(loop):
    out = run_in(
        loop,
        """
        async def main():
            patiently()
            began = time.monotonic()
            too_late = sys.modules["trio"].TooSlowError if sys.argv[1] == "trio" else TimeoutError
            try:
                async with graceful_shutdown(grace=0.3) as stop:
                    stop.callback(say, "the last one, still")
                    stop.callback(sleep, 60)        # it has its turn, and no more
                    async def clean_up():
                        say(stop.remaining())
                        send()
                        await sleep(60)
                    stop.callback(clean_up)
            except too_late as error:
                said = 0
                while error is not None:
                    said += isinstance(error, too_late)
                    error = error.__context__
                say(said, time.monotonic() - began < 30)
            async with stop:                        # without a signal there is no limit
                stop.callback(sleep, 0.35)
            say("unlimited")
        run_loop(main)
        """,
    )
    assert out == ["inf", "the last one, still", "2 True", "unlimited"]


@in_each_loop
def test_tasks_and_threads_may_all_wait(loop):
    out = run_in(
        loop,
        """
        done = []
        async def wait(stop):
            await stop.async_wait()
            done.append(1)
        async def main():
            async with graceful_shutdown() as stop:
                thread = in_thread(lambda: (stop.wait(), done.append(1)))
                if sys.argv[1] == "trio":
                    import trio
                    async with trio.open_nursery() as nursery:
                        for _ in range(3):
                            nursery.start_soon(wait, stop)
                        await sleep(0.05)
                        send()
                else:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(3):
                            group.create_task(wait(stop))
                        await sleep(0.05)
                        send()
                thread.join()
            say(len(done))
        run_loop(main)
        """,
    )
    assert out == ["4"]


@in_each_loop
def test_a_loop_in_another_thread(loop):
    out = run_in(
        loop,
        """
        async def main():
            async with graceful_shutdown(cancel=True) as stop:
                stop.callback(say, "callback", threading.current_thread().name)
                begun.set()
                await sleep(60)
            say("left", stop.requested)
        begun = threading.Event()
        thread = threading.Thread(target=lambda: run_loop(main), name="the loop's")
        thread.start()
        begun.wait()
        send()
        thread.join()
        """,
    )
    assert out == ["callback the loop's", "left True"]


@in_each_loop
def test_each_form_has_its_place(loop):
    out = run_in(
        loop,
        """
        async def main():
            try:
                with graceful_shutdown():
                    say("no")
            except RuntimeError as error:
                say(error)
        run_loop(main)
        async def nowhere():
            async with graceful_shutdown():
                say("no")
        try:
            nowhere().send(None)
        except RuntimeError as error:
            say(error)
        """,
    )
    assert out == [
        "an event loop runs in this thread: use `async with`",
        "`async with` needs a task of asyncio, uvloop or trio, and none runs",
    ]


@in_each_loop
def test_a_cancellation_from_outside_is_not_swallowed(loop):
    out = run_in(
        loop,
        """
        async def block(left):
            try:
                async with graceful_shutdown(cancel=True) as stop:
                    stop.callback(say, "callback")
                    await sleep(60)
            finally:
                left.append(stop.requested)
        async def main():
            left = []
            if sys.argv[1] == "trio":
                import trio
                with trio.move_on_after(0.05) as scope:
                    await block(left)
                say(scope.cancelled_caught, left)
            else:
                task = asyncio.create_task(block(left))
                await sleep(0.05)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    say(task.cancelled(), left)
        run_loop(main)
        """,
    )
    assert out == ["callback", "True [False]"]


# --- at every moment -----------------------------------------------------------------------------

STORM = """
import asyncio
from collections import Counter
kind, rounds = sys.argv[1], int(sys.argv[2])
def child(tell, reports):
    ran = []
    stop = graceful_shutdown(cancel=kind.startswith("cancel") or kind == "asyncio")
    stop.callback(ran.append, 1)                    # here: the block may be cancelled at once
    def work():
        for _ in range(30):
            os.getpid()
    def block():
        with stop:
            work()
    async def task():
        async with stop:
            for _ in range(3):
                work()
                await asyncio.sleep(0)
    os.write(tell, b"x")
    began = time.perf_counter()
    if kind == "asyncio":
        asyncio.run(task())
    elif kind.endswith("worker"):
        in_thread(block).join()
    else:
        block()
    took = time.perf_counter() - began
    assert ran == [1], ran
    if stop.requested:
        os.write(reports, b"R")
        time.sleep(0.005)                           # not ended by it as well
        os._exit(0)
    os.write(reports, str(took).encode())
    time.sleep(30)                                  # it must come, or has been lost
    os._exit(3)
def start():
    told, tell = os.pipe()
    report, reports = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(tell, reports)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(4)
    os.close(reports)
    os.read(told, 1)
    os.close(told)
    os.close(tell)
    return pid, report
def end(pid, report):
    os.kill(pid, SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = os.read(report, 100)
    os.close(report)
    return said, status
def undisturbed():
    pid, report = start()
    took = float(os.read(report, 100))
    end(pid, report)
    return took
span = 1.5 * sorted(undisturbed() for _ in range(9))[4]
outcomes = Counter()
for i in range(rounds):
    pid, report = start()
    until_ = time.perf_counter() + span * i / rounds
    while time.perf_counter() < until_:
        pass
    said, status = end(pid, report)
    outcomes["asked" if said == b"R" else "acted", status] += 1
print(dict(outcomes))
assert set(outcomes) <= {("asked", 0), ("acted", -SIGTERM)}, outcomes
"""


@pytest.mark.parametrize("kind", ["plain", "cancel", "worker", "cancel worker", "asyncio"])
def test_at_every_moment_of_a_blocks_life_it_either_asks_or_acts(kind):
    """Never neither, never both, never a traceback: entering, in the block, leaving."""
    out = programs.succeed(PREAMBLE, STORM, arguments=(kind, 100), timeout=120)
    # Both must have been met, or the sweep has missed the block.
    assert "asked" in out and "acted" in out


# --- process 1 of a container --------------------------------------------------------------------


@pytest.fixture
def container():
    """`container(PROGRAM)`: its process, as PID 1."""
    command = programs.own_namespace()
    if command is None:
        pytest.skip("a PID namespace needs unshare(1), and privileges that this user lacks")
    started = []

    def container(source, *options):
        words = [*command, *options, sys.executable, "-c", PREAMBLE + source]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield container
    for process in started:
        process.kill()
        process.communicate()


def child_of(process):
    """The pid, out here, of the process that unshare(1) has forked: PID 1 in there."""
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(children) as file:
        return int(file.read().split()[0])


def stop_as_docker_does(process, patience):
    """TERM, wait, KILL. Returns what came of it."""
    os.kill(child_of(process), signal.SIGTERM)
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        os.kill(child_of(process), signal.SIGKILL)
        process.communicate()
        return "it had to be killed"
    return process.returncode, out, err


def test_without_a_shutdown_process_1_has_to_be_killed(container):
    """So that what the others show is ours."""
    process = container("say('ready'); time.sleep(300)")
    assert process.stdout.readline() == "ready\n"
    assert stop_as_docker_does(process, 1) == "it had to be killed"


def test_process_1_ends_in_order_and_says_143(container):
    process = container(
        """
@graceful_shutdown(cancel=True)
def main():
    assert os.getpid() == 1
    say("ready")
    time.sleep(60)
main()
"""
    )
    assert process.stdout.readline() == "ready\n"
    assert stop_as_docker_does(process, 30) == (143, "", "")


def test_process_1_that_hangs_is_ended_by_its_own_grace(container):
    process = container(
        """
with graceful_shutdown(grace=0.5) as stop:
    assert os.getpid() == 1
    say("ready")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
    )
    assert process.stdout.readline() == "ready\n"
    status, out, err = stop_as_docker_does(process, 30)
    assert (status, out) == (143, "")
    assert "most recent call first" in err


def test_a_second_term_ends_process_1(container):
    process = container(
        """
with graceful_shutdown(grace=300) as stop:
    assert os.getpid() == 1
    say("ready")
    stop.wait()
    say("asked")
    time.sleep(300)
"""
    )
    assert process.stdout.readline() == "ready\n"
    os.kill(child_of(process), signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    time.sleep(0.6)
    assert stop_as_docker_does(process, 30) == (143, "", "")


ORPHANS = """
import subprocess, multiprocessing
def zombies():
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] == "Z":
                found.add(int(name))
    return found
def make_orphan():
    # A child whose child outlives it, for a moment.
    subprocess.run(["sh", "-c", "sleep 0.1 & sleep 0.01"])
def work():
    os._exit(6)
assert os.getpid() == 1
with graceful_shutdown(reap=True) as stop:
    late = subprocess.Popen(["sh", "-c", "exit 5"])     # asked for its status much later
    forked = multiprocessing.get_context("fork").Process(target=work)
    forked.start()
    quick = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 4"], os.environ)
    say(os.waitstatus_to_exitcode(os.waitpid(quick, 0)[1]))
    for _ in range(5):
        make_orphan()
    until(lambda: len(zombies()) == 7)
    until(lambda: zombies() == {late.pid, forked.pid}, 30)
    time.sleep(1.5)
    make_orphan()
    until(lambda: len(zombies()) == 3)
    until(lambda: zombies() == {late.pid, forked.pid}, 30)
    forked.join()
    say(late.wait(), forked.exitcode)
"""


def test_orphans_are_reaped_and_no_status_is_stolen(container):
    process = container(ORPHANS)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (0, "4\n5 6\n", "")


def test_every_public_name_has_its_documentation():
    for name in dir(signal.GracefulShutdown):
        if not name.startswith("_"):
            assert re.search(r"\w", getattr(signal.GracefulShutdown, name).__doc__)
