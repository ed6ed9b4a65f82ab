"""sigaction(): its flags and masks, which Python-level handlers obey as POSIX says."""

import os
import threading

import pytest

import programs
import sigwright as signal
from sigwright import SigAction

PRELUDE = "import os, sys, time\nimport sigwright as signal\nfrom sigwright import SigAction\n"


def run(script):
    return programs.run(PRELUDE, script)


def succeed(script):
    return programs.succeed(PRELUDE, script)


@pytest.fixture
def usr1():
    old = signal.sigaction(signal.SIGUSR1)
    yield signal.SIGUSR1
    signal.sigaction(signal.SIGUSR1, old)


@pytest.fixture
def realtime():
    signum = signal.SIGRTMIN + 5
    yield signum
    signal.signal(signum, signal.SIG_DFL)


def handler(signum, frame):
    """Do nothing."""


# --- what is said is what was set ---


def test_what_was_set_is_not_what_is_said(usr1):
    action = SigAction(handler, signal.SA_RESTART | signal.SA_NODEFER, [signal.SIGUSR2, 40])
    assert signal.sigaction(usr1, action) == SigAction(signal.SIG_DFL)
    assert signal.sigaction(usr1) == action
    assert signal.getsignal(usr1) is handler
    assert signal.sigaction(usr1, SigAction(signal.SIG_IGN)) == action
    assert signal.sigaction(usr1) == SigAction(signal.SIG_IGN)


def test_signal_keeps_flags_that_it_does_not_know(usr1):
    signal.sigaction(usr1, SigAction(handler, signal.SA_RESTART, [signal.SIGUSR2]))
    signal.signal(usr1, handler)
    assert signal.sigaction(usr1) == SigAction(handler)
    signal.siginterrupt(usr1, False)
    assert signal.sigaction(usr1) == SigAction(handler, signal.SA_RESTART)


def test_asking_changes_something(usr1):
    signal.signal(usr1, handler)
    for _ in range(3):
        assert signal.sigaction(usr1).handler is handler
    for signum in signal.valid_signals():
        signal.sigaction(signum)
    assert signal.getsignal(usr1) is handler


def test_it_cannot_be_asked_in_a_thread_or_be_set_there(usr1):
    seen = []

    def work():
        seen.append(signal.sigaction(usr1))
        try:
            signal.sigaction(usr1, SigAction(handler))
        except ValueError as error:
            seen.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[0] == SigAction(signal.SIG_DFL)
    assert "only works in main thread" in seen[1]
    assert signal.getsignal(usr1) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("signum", "make", "error"),
    [
        (0, lambda: SigAction(handler), ValueError),
        (65, lambda: SigAction(handler), ValueError),
        ("SIGUSR1", lambda: SigAction(handler), TypeError),
        (signal.SIGKILL, lambda: SigAction(handler), OSError),
        (signal.SIGSTOP, lambda: SigAction(signal.SIG_IGN), OSError),
        (signal.SIGUSR1, lambda: handler, TypeError),
        (signal.SIGUSR1, lambda: SigAction("handler"), TypeError),
        (signal.SIGUSR1, lambda: SigAction(None), TypeError),
        (signal.SIGUSR1, lambda: SigAction(handler, 1 << 20), ValueError),
        (signal.SIGUSR1, lambda: SigAction(handler, 0, [0]), ValueError),
        (signal.SIGUSR1, lambda: SigAction(handler, 0, [65]), ValueError),
        (signal.SIGUSR1, lambda: SigAction(handler, 0, ["x"]), TypeError),
        (signal.SIGUSR1, lambda: SigAction(handler, 0, 5), TypeError),
    ],
)
def test_bad_input_changes_something(usr1, signum, make, error):
    with pytest.raises(error):
        signal.sigaction(signum, make())
    assert signal.sigaction(usr1) == SigAction(signal.SIG_DFL)


def test_an_action_cannot_be_read_by_a_person():
    action = SigAction(signal.SIG_IGN, signal.SA_RESTART | signal.SA_NODEFER, [signal.SIGUSR2, 15])
    assert "SIG_IGN" in repr(action)
    assert "SA_NODEFER | SA_RESTART" in repr(action)
    assert "SIGUSR2" in repr(action)


# --- flags ---


def test_sa_siginfo_does_not_say_who(usr1):
    seen = []
    signal.sigaction(
        usr1, SigAction(lambda signum, info, frame: seen.append((signum, info)), signal.SA_SIGINFO)
    )
    os.kill(os.getpid(), usr1)
    [(signum, info)] = seen
    assert signum == usr1
    assert (info.si_pid, info.si_code) == (os.getpid(), signal.SI_USER)


def test_sa_siginfo_of_a_simulated_call_has_no_info():
    succeed("""
        import _thread
        seen = []
        signal.sigaction(signal.SIGINT, SigAction(lambda *args: seen.append(args),
                                                  signal.SA_SIGINFO))
        _thread.interrupt_main()
        time.sleep(0.01)
        assert [args[:2] for args in seen] == [(signal.SIGINT, None)]
    """)


def test_the_own_signal_interrupts_its_handler(usr1):
    order = []

    def nested(signum, frame):
        order.append("in")
        if len(order) == 1:
            os.kill(os.getpid(), usr1)
            order.append("not yet")
        order.append("out")

    signal.sigaction(usr1, SigAction(nested))
    os.kill(os.getpid(), usr1)
    assert order == ["in", "not yet", "out", "in", "out"]


def test_sa_nodefer_defers(usr1):
    order = []

    def nested(signum, frame):
        order.append("in")
        if len(order) == 1:
            os.kill(os.getpid(), usr1)
        order.append("out")

    signal.sigaction(usr1, SigAction(nested, signal.SA_NODEFER))
    os.kill(os.getpid(), usr1)
    assert order == ["in", "in", "out", "out"]


@pytest.mark.parametrize("raises", [False, True])
def test_the_mask_does_not_hold_or_holds_for_ever(usr1, raises):
    order = []

    def first(signum, frame):
        os.kill(os.getpid(), signal.SIGUSR2)
        order.append("first")
        if raises:
            raise OSError("from the handler")

    signal.sigaction(usr1, SigAction(first, 0, [signal.SIGUSR2]))
    old = signal.signal(signal.SIGUSR2, lambda *args: order.append("second"))
    try:
        try:
            os.kill(os.getpid(), usr1)
        except OSError:
            assert raises
        for _ in range(10):
            pass  # a safe point
        assert order == ["first", "second"]
    finally:
        signal.signal(signal.SIGUSR2, old)


def test_sa_resethand_leaves_the_handler_or_loses_the_first_call():
    result = run("""
        calls = []
        signal.sigaction(signal.SIGUSR1, SigAction(lambda *args: calls.append(1),
                                                   signal.SA_RESETHAND))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert calls == [1]
        assert signal.sigaction(signal.SIGUSR1) == SigAction(signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGUSR1)
    """)
    assert (result.returncode, result.stderr) == (-signal.SIGUSR1, "")


def test_what_waits_behind_sa_resethand_is_lost():
    # POSIX: the second one meets the default action, and here that is the end.
    result = run("""
        number = signal.SIGRTMIN + 5
        signal.sigaction(number, SigAction(lambda *args: print("once", flush=True),
                                           signal.SA_RESETHAND))
        with signal.blocked(number):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        time.sleep(10)
    """)
    assert (result.returncode, result.stdout) == (-(signal.SIGRTMIN + 5), "once\n")


def test_sa_resethand_beside_a_listener_ends_the_process():
    succeed("""
        calls = []
        with signal.listen(signal.SIGUSR1) as listener:
            signal.sigaction(signal.SIGUSR1, SigAction(lambda *args: calls.append(1),
                                                       signal.SA_RESETHAND))
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert calls == [1]
            assert len(listener.drain()) == 2
    """)


def test_sa_restart_does_not_restart(usr1):
    # A read in C, without Python's own loop around it, tells the two apart.
    succeed("""
        import ctypes, errno, threading
        libc = ctypes.CDLL(None, use_errno=True)
        for flags, expected in ((0, (-1, errno.EINTR)), (signal.SA_RESTART, (1, 0))):
            r, w = os.pipe()
            signal.sigaction(signal.SIGUSR1, SigAction(lambda *args: None, flags))
            main = threading.get_ident()
            def work():
                time.sleep(0.1)
                signal.pthread_kill(main, signal.SIGUSR1)
                time.sleep(0.1)
                os.write(w, b"x")
            thread = threading.Thread(target=work)
            thread.start()
            buffer = ctypes.create_string_buffer(1)
            ctypes.set_errno(0)
            got = libc.read(r, buffer, 1)
            assert (got, ctypes.get_errno()) == expected, (flags, got, ctypes.get_errno())
            thread.join()
    """)


def test_sa_nocldwait_leaves_zombies_and_sa_nocldstop_tells_of_stops():
    succeed("""
        seen = []
        def handler(signum, info, frame):
            seen.append(info.si_code)
        def child():
            pid = os.fork()
            if pid == 0:
                time.sleep(30)
            os.kill(pid, signal.SIGSTOP)
            deadline = time.monotonic() + 10
            while open(f"/proc/{pid}/stat").read().split(")")[1].split()[0] != "T":
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(0.02)
            os.kill(pid, signal.SIGKILL)
            return pid

        signal.sigaction(signal.SIGCHLD, SigAction(handler, signal.SA_SIGINFO))
        os.waitpid(child(), 0)
        assert seen == [signal.CLD_STOPPED, signal.CLD_KILLED], seen
        seen.clear()
        flags = signal.SA_SIGINFO | signal.SA_NOCLDSTOP | signal.SA_NOCLDWAIT
        signal.sigaction(signal.SIGCHLD, SigAction(handler, flags))
        assert signal.sigaction(signal.SIGCHLD).flags == flags
        pid = child()
        try:
            os.waitpid(pid, 0)
            raise AssertionError("a zombie was left")
        except ChildProcessError:
            pass
        time.sleep(0.001)                           # a safe point
        assert seen == [signal.CLD_KILLED], seen
        with signal.listen(signal.SIGCHLD):         # the flags survive a listener
            assert signal.dispositions()[signal.SIGCHLD].flags & signal.SA_NOCLDSTOP
        assert signal.dispositions()[signal.SIGCHLD].flags & signal.SA_NOCLDWAIT
    """)


def test_real_time_signals_are_called_out_of_order_by_an_action(realtime):
    seen = []
    signal.sigaction(
        realtime, SigAction(lambda n, info, f: seen.append(info.si_value), signal.SA_SIGINFO)
    )
    with signal.blocked(realtime):
        for value in range(200):
            signal.sigqueue(os.getpid(), realtime, value)
    assert seen == list(range(200))
