"""Handlers in C that are not ours: chained on the way in, restored on the way out, found again."""

import pytest

import programs

PRELUDE = f"""
import ctypes, os, sys, threading, time
import signal as stdlib
import _signal
import sigwright as signal

foreign = ctypes.CDLL(sys.argv[1])
S = signal.SIGUSR1
RT = signal.SIGRTMIN + 3

{programs.UNTIL}

def on_a_worker(signum):
    "Send it to a thread that is not the main one."
    started, over = threading.Event(), threading.Event()
    def work():
        started.set()
        over.wait()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    started.wait()
    signal.pthread_kill(thread.ident, signum)
    return thread, over
"""


@pytest.fixture
def succeed(foreign_library):
    def succeed(script, **keywords):
        return programs.succeed(PRELUDE, script, arguments=(foreign_library,), **keywords)

    return succeed


OPENINGS = {
    "listener": "consumer = signal.listen(S)",
    "added handler": "consumer = signal.add_handler(S, lambda info: None)",
    "thread": "consumer = signal.add_handler(S, lambda info: None, thread=True)",
}
CLOSINGS = {
    "listener": "consumer.close()",
    "added handler": "consumer.cancel()",
    "thread": "consumer.cancel()",
}


@pytest.mark.parametrize("kind", OPENINGS)
def test_a_library_loses_its_handler_to_a_consumer(succeed, kind):
    succeed(f"""
        foreign.foreign_install(S, 0)
        {OPENINGS[kind]}
        os.kill(os.getpid(), S)
        assert foreign.foreign_count(S) == 1
        assert foreign.foreign_last_pid() == os.getpid()
        assert signal.dispositions()[S].chained
        {CLOSINGS[kind]}
        assert foreign.foreign_is_installed(S)      # with its flags and its mask
        os.kill(os.getpid(), S)
        assert foreign.foreign_count(S) == 2
    """)


def test_a_listener_misses_what_a_library_handles(succeed):
    succeed("""
        foreign.foreign_install(RT, 0)
        listener = signal.listen(RT)
        signal.pthread_sigmask(signal.SIG_BLOCK, [RT])
        for value in range(100):
            signal.sigqueue(os.getpid(), RT, value)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [RT])
        assert [info.si_value for info in listener.drain()] == list(range(100))
        assert foreign.foreign_count(RT) == 100     # each of them: none is drained from under it
        assert foreign.foreign_last_value() == 99
    """)


def test_a_handler_without_siginfo_is_called_with_it(succeed):
    succeed("""
        foreign.foreign_install_plain(S)
        with signal.listen(S) as listener:
            os.kill(os.getpid(), S)
            assert listener.get_nowait().si_pid == os.getpid()
            assert foreign.foreign_count(S) == 1
        assert foreign.foreign_plain_is_installed(S)
    """)


def test_what_a_library_has_handled_is_raised_again_at_the_end(succeed):
    succeed("""
        foreign.foreign_install(S, 0)
        with signal.listen(S):
            os.kill(os.getpid(), S)                 # nobody reads it here, but the library has
        assert foreign.foreign_count(S) == 1
    """)


def test_handlers_that_call_each_other_never_come_to_an_end(succeed):
    # The library saves our handler and calls it; then we take the signal back, and call theirs.
    succeed("""
        listener = signal.listen(S)
        foreign.foreign_install(S, 1)
        os.kill(os.getpid(), S)
        assert foreign.foreign_count(S) == 1
        assert len(listener.drain()) == 1           # through the library's
        assert signal.dispositions()[S].replaced
        second = signal.listen(S)
        assert not signal.dispositions()[S].replaced
        os.kill(os.getpid(), S)
        assert foreign.foreign_count(S) == 2
        assert len(listener.drain()) == len(second.drain()) == 1
        listener.close()
        second.close()
        assert foreign.foreign_is_installed(S)
    """)


@pytest.mark.parametrize("number", ["S", "RT", "signal.SIGSEGV"])
def test_whoever_calls_ours_with_one_argument_crashes_us(succeed, number):
    # readline saves the address of the handler only, and calls it as if it took the number only.
    succeed(f"""
        calls = []
        signal.signal({number}, lambda *args: calls.append(args[0]))
        listener = signal.listen({number})
        foreign.foreign_install_careless({number})
        if {number} != signal.SIGSEGV:
            os.kill(os.getpid(), {number})
            info = listener.get_nowait()
            assert (info.si_signo, info.si_pid, info.si_code) == ({number}, 0, signal.SI_KERNEL)
            assert calls == [{number}]
        second = signal.listen({number})            # takes it back: we call theirs, theirs ours
        os.kill(os.getpid(), {number})
        assert listener.get_nowait().si_pid == second.get_nowait().si_pid == os.getpid()
        assert listener.qsize() == second.qsize() == 0
    """)


def test_a_handler_that_never_returns_stops_the_ones_who_close(succeed):
    # It leaves by siglongjmp(): nothing of ours may wait for its return.
    succeed("""
        foreign.foreign_install(S, 0)
        for _ in range(100):
            with signal.listen(S) as listener:
                assert foreign.foreign_jump_out_of(S) == 1
                assert len(listener.drain()) == 1
                os.kill(os.getpid(), S)
                assert len(listener.drain()) == 1
        assert foreign.foreign_count(S) == 200
    """)


def test_signal_leaves_a_librarys_handler_chained(succeed):
    # signal() replaces, as POSIX has it; listeners are beside.
    succeed("""
        calls = []
        foreign.foreign_install(S, 0)
        listener = signal.listen(S)
        assert signal.signal(S, lambda *args: calls.append(args[0])) in (None, signal.SIG_DFL)
        os.kill(os.getpid(), S)
        assert (foreign.foreign_count(S), calls) == (0, [S])
        listener.close()
        os.kill(os.getpid(), S)
        assert (foreign.foreign_count(S), calls) == (0, [S, S])
    """)


def test_somebody_in_c_replaces_ours_and_nobody_notices(succeed):
    succeed("""
        calls = []
        def handler(signum, frame):
            calls.append(signum)
        signal.signal(S, handler)
        assert not signal.dispositions()[S].replaced
        foreign.foreign_reset(S)
        shown = signal.dispositions()[S]
        assert (shown.kernel, shown.handler, shown.replaced) == ("default", handler, True)
        signal.signal(S, handler)                   # callable to callable: taken back
        assert not signal.dispositions()[S].replaced
        os.kill(os.getpid(), S)
        assert calls == [S]
        foreign.foreign_install_plain(S)
        assert signal.dispositions()[S].kernel == "foreign"
        with signal.listen(S) as listener:          # taken back too, and both act
            os.kill(os.getpid(), S)
            assert calls == [S, S]
            assert foreign.foreign_count(S) == 1
            assert len(listener.drain()) == 1
    """)


def test_an_opaque_handler_cannot_be_put_back(succeed):
    succeed("""
        foreign.foreign_install(S, 0)
        old = signal.sigaction(S, signal.SigAction(signal.SIG_DFL))
        assert isinstance(old.handler, signal.CHandler), old
        assert old.flags == signal.SA_SIGINFO | signal.SA_RESTART
        assert old.mask == {signal.SIGUSR2}
        assert signal.getsignal(S) is signal.SIG_DFL
        assert not foreign.foreign_is_installed(S)
        assert signal.sigaction(S, old).handler is signal.SIG_DFL
        assert foreign.foreign_is_installed(S)
        assert signal.getsignal(S) is None
        os.kill(os.getpid(), S)
        assert foreign.foreign_count(S) == 1
    """)


def test_an_opaque_handler_that_is_put_back_beneath_a_listener_cuts_it_off(succeed):
    succeed("""
        foreign.foreign_install(S, 0)
        old = signal.sigaction(S, signal.SigAction(lambda *args: None))
        with signal.listen(S) as listener:
            signal.sigaction(S, old)
            assert isinstance(signal.sigaction(S).handler, signal.CHandler)
            os.kill(os.getpid(), S)
            assert foreign.foreign_count(S) == 1
            assert len(listener.drain()) == 1
        assert foreign.foreign_is_installed(S)
    """)


def test_faulthandlers_own_signal_stops_working(succeed):
    assert "most recent call first" in succeed("""
        import faulthandler, tempfile
        with tempfile.TemporaryFile("w+") as file:
            faulthandler.register(S, file)
            with signal.listen(S) as listener:
                os.kill(os.getpid(), S)
                assert len(listener.drain()) == 1
            file.seek(0)
            print(file.read())
            length = file.tell()
            os.kill(os.getpid(), S)                 # and again, without us
            assert file.seek(0, 2) > length
            faulthandler.unregister(S)
    """)


# --- the stdlib's own functions, called directly ---


@pytest.mark.parametrize("kind", OPENINGS)
@pytest.mark.parametrize("where", ["main", "worker"])
def test_a_handler_of_the_stdlibs_is_not_called_any_more(succeed, kind, where):
    send = "os.kill(os.getpid(), S)" if where == "main" else "thread, over = on_a_worker(S)"
    wait = "" if where == "main" else "over.set(); thread.join()"
    succeed(f"""
        calls = []
        def handler(signum, frame):
            calls.append(signum)
        _signal.signal(S, handler)
        {OPENINGS[kind]}
        assert signal.getsignal(S) is handler
        {send}
        until(lambda: calls)
        {wait}
        assert calls == [S]
        {CLOSINGS[kind]}
        assert _signal.getsignal(S) is handler
        os.kill(os.getpid(), S)
        until(lambda: len(calls) == 2)
    """)


def test_asyncios_wakeup_fd_is_not_written(succeed):
    # Set through the stdlib before sigwright came: asyncio's loop gets its bytes from CPython's
    # own C handler, on whatever thread the signal lands.
    succeed("""
        import asyncio
        async def main():
            arrived = asyncio.Queue()
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(S, arrived.put_nowait, "asyncio")
            with signal.listen(S) as listener:
                for _ in range(100):
                    os.kill(os.getpid(), S)
                    assert await asyncio.wait_for(arrived.get(), 10) == "asyncio"
                    assert (await asyncio.wait_for(listener.aget(), 10)).si_signo == S
                for _ in range(20):
                    thread, over = on_a_worker(S)
                    assert await asyncio.wait_for(arrived.get(), 10) == "asyncio"
                    assert (await asyncio.wait_for(listener.aget(), 10)).si_signo == S
                    over.set()
                    thread.join()
            os.kill(os.getpid(), S)
            assert await asyncio.wait_for(arrived.get(), 10) == "asyncio"
        asyncio.run(main())
    """)


def test_the_default_handler_of_sigint_acts_beside_a_listener(succeed):
    # A wakeup fd was in use when we were imported: SIGINT was left to the stdlib then.
    succeed("""
        import importlib, socket
        a, b = socket.socketpair()
        a.setblocking(False)
        stdlib.set_wakeup_fd(a.fileno())
        _signal.signal(stdlib.SIGINT, stdlib.default_int_handler)
        with signal.listen(signal.SIGINT) as listener:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            assert len(listener.drain()) == 1
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("no KeyboardInterrupt")
    """)


def test_install_beside_a_listener_loses_the_stdlibs_handler(succeed):
    succeed("""
        calls = []
        def handler(signum, frame):
            calls.append(signum)
        _signal.signal(S, handler)
        listener = signal.listen(S)
        signal.install()
        assert stdlib.getsignal(S) is handler
        os.kill(os.getpid(), S)
        until(lambda: calls == [S])
        assert len(listener.drain()) == 1
        listener.close()
        os.kill(os.getpid(), S)
        until(lambda: calls == [S, S])
        assert stdlib.signal(S, signal.SIG_DFL) is handler
    """)


# --- CPython's own table ---


@pytest.mark.parametrize("where", ["main", "worker"])
def test_cpythons_table_is_not_told_what_signal_said_beside_a_listener(succeed, where):
    close = {
        "main": "listener.close()",
        "worker": "thread = threading.Thread(target=listener.close); thread.start(); thread.join()",
    }[where]
    succeed(f"""
        def handler(signum, frame):
            calls.append(signum)
        calls = []
        for kind in (handler, signal.SIG_IGN, signal.SIG_DFL):
            listener = signal.listen(S)
            signal.signal(S, kind)
            assert signal.getsignal(S) is kind
            {close}
            if kind is handler:
                until(lambda: callable(_signal.getsignal(S)))
                os.kill(os.getpid(), S)
                until(lambda: calls == [S])
            else:
                until(lambda: _signal.getsignal(S) == int(kind))
            kernel = signal.dispositions()[S].kernel
            assert kernel == {{handler: "ours", signal.SIG_IGN: "ignored",
                               signal.SIG_DFL: "default"}}[kind]
    """)


def test_signal_sig_dfl_beside_a_listener_ends_the_process(succeed):
    # From another process, all the while: there must be no instant of the default action.
    # An arrival whose handler is gone when its turn comes is reported, as by the stdlib.
    script = """
        import subprocess
        sending = "import os, sys\\nwhile True: os.kill(int(sys.argv[1]), int(sys.argv[2]))"
        arguments = [sys.executable, "-c", sending, str(os.getpid()), str(int(S))]
        listener = signal.listen(S, maxsize=1 << 20)
        sender = subprocess.Popen(arguments)
        until(lambda: listener.qsize() > 0)
        for _ in range(2000):
            signal.signal(S, signal.SIG_DFL)
            signal.signal(S, lambda *args: None)
            signal.signal(S, signal.SIG_IGN)
        sender.kill()
        sender.wait()
        assert listener.dropped == 0
        assert signal.getsignal(S) is signal.SIG_IGN
    """
    succeed(script, may_complain=True)


# --- sigwright's own hidden signals ---


def test_a_listener_in_a_thread_takes_a_doors_number_from_it(succeed):
    # From another thread a door cannot move: the two share the number.
    succeed("""
        doors = [n for n, what in signal.dispositions().items() if what.kernel == "door"]
        assert len(doors) == 2
        listeners = []
        def work():
            listeners.extend(signal.listen(door) for door in doors)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        calls = []
        signal.signal(S, lambda *args: calls.append(time.monotonic()))
        for restart in (True, False):
            signal.siginterrupt(S, restart)
            sleeper, over = on_a_worker(S)          # rings
            until(lambda: calls)
            calls.clear()
            over.set()
            sleeper.join()
        r, w = os.pipe()
        threading.Timer(0.1, on_a_worker, [S]).start()
        threading.Timer(3, os.write, [w, b"late"]).start()
        signal.siginterrupt(S, True)
        def raise_(*args):
            raise InterruptedError
        signal.signal(S, raise_)
        start = time.monotonic()
        try:
            os.read(r, 4)                           # a ring must break it
        except InterruptedError:
            assert time.monotonic() - start < 2, "the main thread was not woken"
        else:
            raise AssertionError("the handler did not run")
        for listener in listeners:
            assert listener.qsize() == 0            # no ring is an arrival
        for door, listener in zip(doors, listeners):
            os.kill(os.getpid(), door)
            assert listener.get(10).si_signo == door
            listener.close()
        shown = signal.dispositions()
        assert all(shown[door].kernel == "door" for door in doors)
        calls.clear()
        signal.signal(S, lambda *args: calls.append(1))
        sleeper, over = on_a_worker(S)
        until(lambda: calls)
        os._exit(0)
    """)
