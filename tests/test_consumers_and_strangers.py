"""Whose the signal is: consumers beside the stdlib's own functions and handlers in C.

Each test is what a hostile reading of the consumers found. Every scenario is a program of its own,
in an interpreter of its own, so that a crash is an exit status and a hang is a time limit.
"""

import pytest

import programs
import sigwright as signal

PRELUDE = f"""
import os, sys, time
import signal as stdlib
import sigwright as signal

S, S2 = stdlib.SIGUSR1, stdlib.SIGUSR2
A = stdlib.SIGRTMIN + 1
me = os.getpid()

{programs.UNTIL}
"""


def run(*parts, argument=""):
    return programs.run(PRELUDE, *parts, arguments=(argument,), timeout=30)


def succeed(*parts, argument=""):
    return programs.succeed(PRELUDE, *parts, arguments=(argument,), timeout=30)


LOAD = "import ctypes; foreign = ctypes.CDLL(sys.argv[1])\n"


# --- somebody else takes the signal, and gives it back ---

STRANGERS = """
import asyncio, faulthandler, tempfile
calls = []
file = tempfile.TemporaryFile()
loop = asyncio.new_event_loop()
"""
# How somebody takes S, and whether he has got it.
TAKEN = {
    "stdlib": ("stdlib.signal(S, lambda *args: calls.append(args[0]))", "calls"),
    "faulthandler": ("faulthandler.register(S, file=file)", "file.seek(0, 2) > 0"),
    "asyncio": (
        "loop.add_signal_handler(S, calls.append, S)",
        "loop.run_until_complete(asyncio.sleep(0.001)) or calls",
    ),
}


@pytest.mark.parametrize("who", TAKEN)
@pytest.mark.parametrize("consumer", ["listen(S)", "add_handler(S, print)"])
def test_closing_the_last_consumer_puts_sig_dfl_over_a_strangers_handler(who, consumer):
    take, has_got_it = TAKEN[who]
    close = "close" if "listen" in consumer else "cancel"
    succeed(
        STRANGERS,
        f"""
        consumer = signal.{consumer}
        {take}
        consumer.{close}()
        os.kill(me, S)
        until(lambda: {has_got_it})
        """,
    )


@pytest.mark.parametrize("who", TAKEN)
def test_an_added_handler_that_goes_takes_a_signal_back_from_a_stranger(who):
    take, has_got_it = TAKEN[who]
    succeed(
        STRANGERS,
        f"""
        listener = signal.listen(S)
        registration = signal.add_handler(S, print)
        {take}
        registration.cancel()                       # the listener stays, and system calls restart
        assert signal.dispositions()[S].replaced
        os.kill(me, S)
        until(lambda: {has_got_it})
        assert listener.drain() == []
        """,
    )


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
        class Hit(Exception):
            pass
        def handler(signum, frame):
            raise Hit
        stdlib.signal(S, handler)
        listener = signal.listen(S)
        r, w = os.pipe()
        sender = os.fork()
        if sender == 0:
            asleep = 0
            while asleep < 5:                       # in read(), and not only for a moment
                state = open(f"/proc/{me}/stat").read().rpartition(")")[2].split()[0]
                asleep = asleep + 1 if state == "S" else 0
                time.sleep(0.01)
            os.kill(me, S)
            time.sleep(3)
            os.write(w, b"late")
            os._exit(0)
        start = time.monotonic()
        try:
            os.read(r, 4)
        except Hit:
            print("called in time" if time.monotonic() - start < 3 else "late")
        os.kill(sender, stdlib.SIGKILL)
        os.waitpid(sender, 0)
        assert len(listener.drain()) == 1
    """)
    assert said == "called in time\n"


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
        ZOMBIE,
        """
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
        """,
    )


@pytest.mark.parametrize("handler", ["signal.SIG_DFL", "lambda *args: None"])
def test_sa_nocldwait_is_lost(handler):
    succeed(
        ZOMBIE,
        f"""
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
        """,
    )


def test_a_c_handlers_sa_nocldwait_is_lost_while_somebody_listens(foreign_library):
    succeed(
        LOAD,
        ZOMBIE,
        """
        C = stdlib.SIGCHLD
        foreign.foreign_install_counting(C, int(signal.SA_NOCLDWAIT))
        assert not zombie()
        with signal.listen(C):
            assert not zombie()
        assert not zombie()
        assert foreign.foreign_counted() == 3
        """,
        argument=foreign_library,
    )


# --- an arrival on its way while the main thread changes what is there ---

# On one processor, the main thread that wakes up stops the other wherever it is. It changes
# everything then, and the other goes on: once in a few hundred times in the few instructions in
# question.
STOP_THE_OTHER = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
foreign.foreign_install_counting(A, 0)
foreign.foreign_flood(A)
def rounds():
    end = time.monotonic() + 2
    while time.monotonic() < end:
        yield
def let_the_other_run():
    time.sleep(0.00001)
"""


def test_the_c_handler_beneath_changes_while_an_arrival_is_on_its_way_to_it(foreign_library):
    # One thread was about to call it, and another put SIG_IGN in its place: a call of address 1.
    succeed(
        LOAD,
        STOP_THE_OTHER,
        """
        for _ in rounds():
            foreign.foreign_install_counting(A, 0)
            with signal.listen(A, maxsize=1) as listener:
                let_the_other_run()
                listener.close(discard=True)
            foreign.foreign_ignore(A)
            with signal.listen(A, maxsize=1) as listener:
                let_the_other_run()
                listener.close(discard=True)
        assert foreign.foreign_end_floods() > 0
        assert foreign.foreign_counted() > 0
        """,
        argument=foreign_library,
    )


def test_an_arrival_on_its_way_to_the_last_listener_is_nobodys_when_that_closes(foreign_library):
    succeed(
        LOAD,
        STOP_THE_OTHER,
        """
        for _ in rounds():
            with signal.listen(A, maxsize=1):
                let_the_other_run()
            let_the_other_run()
        sent = foreign.foreign_end_floods()
        assert sent > 0
        assert foreign.foreign_counted() == sent
        """,
        argument=foreign_library,
    )


@pytest.mark.parametrize("ignored", [False, True])
def test_ours_that_a_stranger_puts_back_when_nobody_listens_goes_round_for_ever(ignored):
    # In signal context: not even SIGTERM came through.
    result = run(f"""
        import faulthandler, tempfile
        file = tempfile.TemporaryFile()
        if {ignored}:
            signal.signal(S, signal.SIG_IGN)
        listener = signal.listen(S)
        faulthandler.register(S, file=file)
        listener.close()
        faulthandler.unregister(S)          # puts back what it saved: ours
        os.kill(me, S)
        print("alive")
    """)
    expected = (0, "alive\n") if ignored else (-signal.SIGUSR1, "")
    assert (result.returncode, result.stdout) == expected


def test_ctrl_c_is_dead_where_a_stranger_puts_ours_back_when_nobody_listens():
    succeed("""
        import faulthandler, tempfile
        file = tempfile.TemporaryFile()
        listener = signal.listen(signal.SIGINT)
        faulthandler.register(signal.SIGINT, file=file)
        listener.close()
        faulthandler.unregister(signal.SIGINT)
        try:
            os.kill(me, signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            os._exit(0)
        os._exit(1)
    """)
