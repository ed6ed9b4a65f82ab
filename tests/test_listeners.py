"""Listeners, where it could go wrong: whose copy, full rings, closing, forking, ignored signals."""

import errno
import gc
import os
import queue
import random
import select
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import programs
import sigwright as signal
from programs import send

REALTIME = signal.SIGRTMIN + 4
SOON = 10  # seconds: more than anything here takes
A_WHILE = 0.2  # seconds in which what must not happen would have happened


USED = (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, REALTIME)


@pytest.fixture(autouse=True)
def _harmless():
    with programs.ignored(*USED):
        yield


PREAMBLE = "import os, sys, time, threading, queue\nimport sigwright as signal\n"


def run(source: str, **options: object) -> subprocess.CompletedProcess[str]:
    return programs.run(PREAMBLE, source, **options)


def said(source: str, **options: object) -> list[str]:
    """What a program that must end well has said, line by line."""
    return programs.succeed(PREAMBLE, source, **options).splitlines()


def enqueue(value: int) -> None:
    programs.enqueue(REALTIME, value)


def numbers(listener: signal.Listener) -> list[int]:
    return [info.si_signo for info in listener.drain()]


def caught(signum: int) -> bool:
    """Whether the kernel has a handler for it."""
    with open("/proc/self/status", encoding="ascii") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
    return bool(mask >> (signum - 1) & 1)


# --- a copy for each ----------------------------------------------------------------------------


def test_a_record_read_by_one_listener_is_not_missing_in_another():
    with signal.listen(signal.SIGUSR1) as one, signal.listen(signal.SIGUSR1, REALTIME) as other:
        send(signal.SIGUSR1, 3)
        send(REALTIME, 2)
        assert numbers(one) == [signal.SIGUSR1] * 3
        assert numbers(other) == [signal.SIGUSR1] * 3 + [REALTIME] * 2
        assert numbers(one) == []


def test_a_listener_has_nothing_from_before_it_was_opened():
    with signal.listen(signal.SIGUSR1) as one:
        send(signal.SIGUSR1)
        with signal.listen(signal.SIGUSR1) as late:
            send(signal.SIGUSR1)
            assert len(late.drain()) == 1
        assert len(one.drain()) == 2


def test_closing_one_listener_leaves_the_other_its_copies():
    with signal.listen(signal.SIGUSR1) as one:
        other = signal.listen(signal.SIGUSR1)
        send(signal.SIGUSR1)
        other.close()
        send(signal.SIGUSR1)
        assert len(one.drain()) == 2


def test_a_handler_of_signal_runs_beside_a_listener_and_is_what_getsignal_says():
    called = []

    def handler(signum, frame):
        called.append(signum)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with signal.listen(signal.SIGUSR1) as listener:
            assert signal.getsignal(signal.SIGUSR1) is handler
            send(signal.SIGUSR1)
            assert called == [signal.SIGUSR1] == numbers(listener)
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
            send(signal.SIGUSR1)  # and nobody dies of it
            assert called == [signal.SIGUSR1] == numbers(listener)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_for_another_thread_is_there_with_that_threads_number():
    ready, over = threading.Event(), threading.Event()

    def wait():
        ready.set()
        over.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    try:
        with signal.listen(signal.SIGUSR1) as listener:
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            assert listener.get(timeout=SOON).thread_id == thread.ident
    finally:
        over.set()
        thread.join()


def test_a_listener_opened_and_read_in_a_thread_works_while_the_main_thread_does_something_else():
    found = queue.SimpleQueue()

    def read():
        with signal.listen(signal.SIGUSR1) as listener:
            found.put("open")
            found.put(listener.get(timeout=SOON).si_signo)

    thread = threading.Thread(target=read)
    thread.start()
    assert found.get(timeout=SOON) == "open"
    send(signal.SIGUSR1)
    assert found.get(timeout=SOON) == signal.SIGUSR1
    thread.join()


def test_a_listener_that_nobody_refers_to_is_closed():
    listener = signal.listen(REALTIME)
    assert caught(REALTIME)
    del listener
    gc.collect()
    assert not caught(REALTIME)


def test_listeners_that_open_and_close_in_a_storm_have_no_gap():
    """Each has all that was sent between the first and the last it has, in order."""
    sender = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import os, sys
                import sigwright as signal
                pid, signum = map(int, sys.argv[1:])
                for number in range(20_000):
                    while True:
                        try:
                            signal.sigqueue(pid, signum, number)
                            break
                        except BlockingIOError:
                            os.sched_yield()
                """
            ),
            str(os.getpid()),
            str(int(REALTIME)),
        ]
    )
    seen = []

    def come_and_go(seed):
        choice = random.Random(seed)
        while sender.poll() is None:
            with signal.listen(REALTIME, maxsize=32_768) as listener:
                values = []
                for _ in range(choice.randrange(1, 400)):
                    try:
                        values.append(listener.get(timeout=0.05).si_value)
                    except queue.Empty:
                        break
                values += [info.si_value for info in listener.drain()]
                seen.append((values, listener.dropped))

    with signal.listen(REALTIME, maxsize=32_768) as always:
        threads = [threading.Thread(target=come_and_go, args=(seed,)) for seed in range(3)]
        # All land on the main thread: two threads that take one each may finish in either order.
        signal.pthread_sigmask(signal.SIG_BLOCK, [REALTIME])
        for thread in threads:
            thread.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [REALTIME])
        for thread in threads:
            thread.join()
        assert sender.wait() == 0
        assert [info.si_value for info in always.drain()] == list(range(20_000))
    longest = max(len(values) for values, _ in seen)
    assert len(seen) > 3 and longest > 10  # they did come and go; how often is the machine's affair
    for values, dropped in seen:
        assert dropped == 0
        assert values == list(range(values[0], values[-1] + 1)) if values else True


# --- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.05, 1e-9])
def test_get_gives_up_when_its_time_is_over_and_not_before(timeout):
    with signal.listen(REALTIME) as listener:
        start = time.monotonic()
        with pytest.raises(queue.Empty):
            listener.get(timeout=timeout)
        assert timeout <= time.monotonic() - start < SOON


def test_get_does_not_give_up_early_because_of_other_signals():
    interrupted = []

    def handler(signum, frame):
        interrupted.append(signum)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with signal.listen(REALTIME) as listener:
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            start = time.monotonic()
            with pytest.raises(queue.Empty):
                listener.get(timeout=0.2)
            assert time.monotonic() - start >= 0.2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(interrupted) > 3


def test_a_handler_that_raises_ends_a_blocked_get():
    def handler(signum, frame):
        raise KeyError(signum)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with signal.listen(REALTIME) as listener:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyError):
                listener.get(timeout=SOON)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (-1e-9, ValueError), (float("nan"), ValueError), ("1", TypeError)],
)
def test_a_bad_timeout_is_refused_even_where_a_record_waits(timeout, error):
    with signal.listen(REALTIME) as listener:
        send(REALTIME)
        with pytest.raises(error):
            listener.get(timeout=timeout)
        with pytest.raises(error):
            listener.get(timeout)
        assert len(listener.drain()) == 1


def test_a_timeout_beyond_the_clock_is_refused_as_the_stdlib_does():
    with signal.listen(REALTIME) as listener:
        send(REALTIME)
        for timeout in (float("inf"), 1e300):
            with pytest.raises(OverflowError):
                listener.get(timeout)
        assert listener.get(1e9).si_signo == REALTIME


def test_get_nowait_and_drain_do_not_wait():
    with signal.listen(REALTIME) as listener:
        with pytest.raises(queue.Empty):
            listener.get_nowait()
        assert listener.drain() == []
        send(REALTIME, 5)
        assert listener.get_nowait().si_signo == REALTIME
        assert len(listener.drain()) == 4
        assert listener.drain() == []


def test_iteration_takes_one_at_a_time_and_waits_for_the_next():
    with signal.listen(REALTIME, signal.SIGUSR1) as listener:
        send(REALTIME, 3)
        later = threading.Timer(0.05, send, (signal.SIGUSR1,))
        later.start()
        found = []
        for info in listener:
            found.append(info.si_signo)
            if info.si_signo == signal.SIGUSR1:
                break
        later.join()
    assert found == [REALTIME] * 3 + [signal.SIGUSR1]


def test_each_record_goes_to_one_of_the_threads_that_read():
    found = queue.SimpleQueue()

    def read(listener):
        for info in listener:
            found.put(info.si_value)

    with signal.listen(REALTIME, maxsize=8192) as listener:
        threads = [threading.Thread(target=read, args=(listener,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(5000):
            enqueue(number)
        values = [found.get(timeout=SOON) for _ in range(5000)]
    for thread in threads:
        thread.join()
    assert sorted(values) == list(range(5000))
    assert found.empty()


@pytest.mark.parametrize("wait", ["select", "poll", "epoll"])
def test_the_descriptor_is_readable_exactly_while_something_waits(wait):
    with signal.listen(REALTIME) as listener:

        def ready(timeout):
            if wait == "select":
                return bool(select.select([listener], [], [], timeout)[0])
            if wait == "poll":
                poll = select.poll()
                poll.register(listener, select.POLLIN)
                return bool(poll.poll(timeout * 1000))
            with select.epoll() as epoll:
                epoll.register(listener, select.EPOLLIN)
                return bool(epoll.poll(timeout))

        assert not ready(0)
        send(REALTIME, 3)
        assert ready(0)
        listener.get()
        assert ready(0)
        assert len(listener.drain()) == 2
        assert not ready(0)
        later = threading.Timer(0.05, send, (REALTIME,))
        later.start()
        assert ready(SOON)
        later.join()
        listener.get_nowait()
        with pytest.raises(queue.Empty):
            listener.get_nowait()
        assert not ready(0)


def test_an_edge_triggered_epoll_misses_nothing():
    with signal.listen(REALTIME, maxsize=4096) as listener, select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN | select.EPOLLET)
        sender = threading.Thread(target=send, args=(REALTIME, 2000))
        sender.start()
        found = 0
        while found < 2000:
            assert epoll.poll(SOON), found
            found += len(listener.drain())
        sender.join()


# --- a full ring --------------------------------------------------------------------------------


def test_a_flood_of_one_signal_does_not_hide_another():
    with signal.listen(signal.SIGHUP, signal.SIGTERM, maxsize=4) as listener:
        send(signal.SIGHUP, 100)
        send(signal.SIGTERM)
        assert numbers(listener) == [signal.SIGHUP] * 5 + [signal.SIGTERM]
        assert listener.dropped == 95


def test_what_does_not_fit_is_counted_and_nothing_older_is_overwritten():
    with signal.listen(REALTIME, maxsize=10) as listener, signal.listen(REALTIME) as roomy:
        for number in range(50):
            enqueue(number)
        values = [info.si_value for info in listener.drain()]
        assert values == list(range(11))  # and the reserved place
        assert listener.dropped == 39
        enqueue(50)
        assert listener.get().si_value == 50
        assert listener.dropped == 39
        assert len(roomy.drain()) == 51
        assert roomy.dropped == 0


def test_a_ring_of_one_works_round_and_round():
    with signal.listen(REALTIME, maxsize=1) as listener:
        for number in range(1000):
            enqueue(number)
            assert listener.get_nowait().si_value == number
        assert listener.dropped == 0


# --- bad arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maxsize", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (2**24 + 1, ValueError),
        (2**64, (ValueError, OverflowError)),
        (1.5, TypeError),
        ("8", TypeError),
        (None, TypeError),
    ],
)
def test_a_bad_maxsize_changes_nothing(maxsize, error):
    with pytest.raises(error):
        signal.listen(REALTIME, maxsize=maxsize)
    assert not caught(REALTIME)


@pytest.mark.parametrize(
    ("signum", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (65, ValueError),
        (2**40, (ValueError, OverflowError)),
        ("SIGTERM", TypeError),
        (1.0, TypeError),
        (None, TypeError),
        (signal.SIGKILL, OSError),
        (signal.SIGSTOP, OSError),
        (33, OSError),  # glibc's own
    ],
)
def test_a_bad_signal_changes_nothing_for_the_good_one_beside_it(signum, error):
    with pytest.raises(error) as raised:
        signal.listen(REALTIME, signum)
    assert not caught(REALTIME)
    if error is OSError:
        assert raised.value.errno == errno.EINVAL
        name = signum.name if isinstance(signum, signal.Signals) else str(signum)
        assert name in str(raised.value)


def test_a_listener_for_no_signal_is_a_mistake():
    with pytest.raises(TypeError):
        signal.listen()


def test_what_a_listener_says_of_itself():
    with signal.listen(signal.SIGTERM, signal.SIGHUP, signal.SIGHUP) as listener:
        assert listener.signals == frozenset({signal.SIGHUP, signal.SIGTERM})
        assert all(isinstance(signum, signal.Signals) for signum in listener.signals)
        assert (listener.closed, listener.dropped) == (False, 0)
        assert repr(listener) == "<Listener SIGHUP, SIGTERM, 0 waiting>"
    assert listener.closed
    assert repr(listener) == "<Listener SIGHUP, SIGTERM, closed>"
    assert listener.signals == frozenset({signal.SIGHUP, signal.SIGTERM})


# --- closing ------------------------------------------------------------------------------------


def test_after_close_nothing_can_be_read_and_closing_again_is_no_error():
    listener = signal.listen(REALTIME)
    send(REALTIME)
    listener.close(discard=True)
    listener.close()
    for use in (listener.get, listener.get_nowait, listener.drain, listener.fileno):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    with pytest.raises(RuntimeError, match="closed"):
        listener.get(timeout=0)
    assert list(listener) == []


@pytest.mark.parametrize("how", ["get", "get with a timeout", "for"])
def test_closing_wakes_every_thread_that_is_blocked(how):
    outcomes = queue.SimpleQueue()

    def read(listener):
        outcomes.put("reads")
        try:
            if how == "for":
                outcomes.put(list(listener))
            else:
                outcomes.put(listener.get(timeout=None if how == "get" else 60))
        except RuntimeError as error:
            outcomes.put(str(error))

    with signal.listen(REALTIME) as listener:
        threads = [threading.Thread(target=read, args=(listener,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert outcomes.get(timeout=SOON) == "reads"
        _until_blocked(threads)
        closer = threading.Thread(target=listener.close)
        closer.start()
        closer.join()
        expected = [] if how == "for" else "this listener is closed"
        assert [outcomes.get(timeout=SOON) for _ in threads] == [expected] * 3
        for thread in threads:
            thread.join()


def _until_blocked(threads):
    """Until all of them sleep in the kernel, where no look at a flag helps them."""
    deadline = time.monotonic() + SOON
    for thread in threads:
        while time.monotonic() < deadline:
            with open(f"/proc/self/task/{thread.native_id}/syscall", encoding="ascii") as call:
                if call.read().split()[0] == _PPOLL:
                    break
        else:
            pytest.fail("not blocked")


_PPOLL = "271" if os.uname().machine == "x86_64" else "73"  # of ppoll(), where Linux runs today


def test_a_term_that_nobody_read_ends_the_program_when_the_listener_closes():
    done = run(
        """
        with signal.listen(signal.SIGTERM):
            os.kill(os.getpid(), signal.SIGTERM)
            print("alive", flush=True)
        print("not reached")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "alive\n", "")


def test_many_that_nobody_read_are_raised_again_once_a_number_and_as_they_came():
    assert said(
        """
        called = []
        listener = signal.listen(signal.SIGUSR1, signal.SIGUSR2)
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        watch = signal.listen(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, lambda *args: called.append(args[0]))
        signal.signal(signal.SIGUSR2, lambda *args: called.append(args[0]))
        watch.close()
        assert not called
        listener.close()
        print([int(signum) for signum in called])
        """
    ) == [str([int(signal.SIGUSR1), int(signal.SIGUSR2)])]


@pytest.mark.parametrize(
    "answer",
    [
        "listener.close(discard=True)",
        "listener.drain(); listener.close()",
        "other.get(); listener.close(); other.close()",
        "other.get(); other.close(); listener.close()",
        "listener.close(); other.get(); other.close()",
    ],
)
def test_a_term_that_was_answered_is_not_raised_again(answer):
    lines = said(
        f"""
        listener, other = signal.listen(signal.SIGTERM), signal.listen(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        if "other" not in {answer!r}:
            other.get()
            other.close()
        {answer}
        print("alive", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        """
    )
    assert lines == ["alive True"]


def test_a_term_that_a_handler_had_is_not_raised_again():
    assert said(
        """
        signal.signal(signal.SIGTERM, lambda *args: print("handled"))
        listener = signal.listen(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        listener.close()
        print("alive")
        """
    ) == ["handled", "alive"]


def test_a_term_that_came_while_another_listener_was_read_is_raised_again():
    """What was read before says nothing of what came later."""
    done = run(
        """
        listener, other = signal.listen(signal.SIGTERM), signal.listen(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        listener.get(), other.get()
        os.kill(os.getpid(), signal.SIGTERM)
        other.close()
        print("alive", flush=True)
        listener.close()
        """
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "alive\n")


# --- the default action -------------------------------------------------------------------------


def test_ctrl_c_is_a_keyboard_interrupt_again_when_the_listener_is_closed():
    assert said(
        """
        with signal.listen(signal.SIGINT) as listener:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            print(listener.get(timeout=0).si_signo.name)
            print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            print("interrupted")
        """
    ) == ["SIGINT", "True", "interrupted"]


def test_a_ctrl_c_that_nobody_read_is_a_keyboard_interrupt_when_the_listener_closes():
    assert said(
        """
        listener = signal.listen(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        try:
            listener.close()
            time.sleep(5)
        except KeyboardInterrupt:
            print("interrupted", listener.closed)
        """
    ) == ["interrupted True"]


@pytest.mark.parametrize("signum", [signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU])
def test_a_signal_that_stops_a_process_does_not_while_somebody_listens(signum):
    assert said(
        f"""
        os.setpgid(0, 0)
        with signal.listen({int(signum)}, signal.SIGCONT) as listener:
            os.kill(os.getpid(), {int(signum)})
            os.kill(os.getpid(), signal.SIGCONT)
            print(*sorted(info.si_signo.name for info in listener.drain()))
        """
    ) == [" ".join(sorted([signum.name, "SIGCONT"]))]


def test_a_signal_that_was_ignored_is_heard_while_a_listener_is_open_and_ignored_again():
    assert said(
        """
        print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGHUP)
        with signal.listen(signal.SIGHUP) as listener:
            os.kill(os.getpid(), signal.SIGHUP)
            print(len(listener.drain()))
            print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGHUP)     # unread: raised again, and ignored
        os.kill(os.getpid(), signal.SIGHUP)
        print("alive", signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
        """,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) == ["True", "1", "True", "alive True"]


def test_a_program_started_under_nohup_passes_it_on_after_its_listener_is_closed():
    shell = "kill -HUP $$; echo alive"
    assert said(
        f"""
        import subprocess
        with signal.listen(signal.SIGHUP):
            pass
        print(subprocess.run(["sh", "-c", {shell!r}], stdout=subprocess.PIPE).stdout.decode())
        """,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )[:1] == ["alive"]


def test_a_blocked_signal_arrives_when_it_is_let_through():
    with signal.listen(REALTIME) as listener:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [REALTIME])
        try:
            for _ in range(3):
                signal.raise_signal(REALTIME)  # for this thread: another one may not block it
            assert listener.drain() == []
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert len(listener.drain()) == 3


# --- fork and exit ------------------------------------------------------------------------------


def test_a_child_has_no_listener_but_those_it_inherits_and_nothing_of_its_parents():
    assert said(
        """
        R = signal.SIGRTMIN + 4
        mine, ours = signal.listen(R), signal.listen(R, inherit=True)
        os.kill(os.getpid(), R)
        pid = os.fork()
        if pid == 0:
            assert mine.closed and not ours.closed
            assert ours.drain() == []
            os.kill(os.getpid(), R)
            assert ours.get(timeout=5).si_pid == os.getpid()
            assert ours.dropped == 0
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(len(mine.drain()), len(ours.drain()))
        """
    ) == ["7", "1 1"]


def test_a_listener_that_a_child_inherits_does_not_wake_its_parent():
    assert said(
        """
        import select
        R = signal.SIGRTMIN + 4
        ours = signal.listen(R, inherit=True)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), R)
            assert select.select([ours], [], [], 5)[0]
            os.write(write, b"x")
            os.read(os.open("/dev/null", os.O_RDONLY), 1)
            os._exit(len(ours.drain()))
        os.read(read, 1)
        print(select.select([ours], [], [], 0)[0])
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.kill(os.getpid(), R)
        print(len(ours.drain()))
        """
    ) == ["[]", "1", "1"]


def test_a_term_for_a_child_that_has_only_just_been_forked_ends_it():
    """The listener is not the child's: nothing but the default action is."""
    assert said(
        """
        ends = set()
        with signal.listen(signal.SIGTERM) as listener:
            for _ in range(50):
                pid = os.fork()
                if pid == 0:
                    time.sleep(20)
                    os._exit(1)
                os.kill(pid, signal.SIGTERM)
                ends.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            print(ends, listener.drain())
        """
    ) == ["{-15} []"]


def test_a_term_for_a_child_that_inherits_the_listener_is_there_however_early_it_comes():
    assert said(
        """
        ends = set()
        with signal.listen(signal.SIGTERM, inherit=True) as listener:
            for _ in range(50):
                pid = os.fork()
                if pid == 0:
                    os._exit(listener.get(timeout=20).si_signo)
                os.kill(pid, signal.SIGTERM)
                ends.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            print(ends, listener.drain())
        """
    ) == ["{15} []"]


@pytest.mark.parametrize("inherit", [False, True])
def test_a_program_that_a_child_becomes_has_the_default_action(inherit):
    assert said(
        f"""
        import subprocess
        with signal.listen(signal.SIGUSR1, inherit={inherit}):
            print(subprocess.run(["sh", "-c", "kill -USR1 $$"]).returncode)
        """
    ) == [str(-signal.SIGUSR1)]


def test_the_interpreter_ends_well_with_a_listener_open():
    assert (
        said(
            """
            listener = signal.listen(signal.SIGUSR1)
            other = signal.listen(signal.SIGUSR1, inherit=True)
            threading.Thread(target=lambda: list(listener), daemon=True).start()
            os.kill(os.getpid(), signal.SIGUSR1)
            other.get()
            """
        )
        == []
    )


def test_a_thread_that_is_not_a_daemon_ends_with_the_listener_it_reads():
    assert said(
        """
        listener = signal.listen(signal.SIGUSR1)
        thread = threading.Thread(target=lambda: print(list(listener)))
        thread.start()
        listener.close()
        """
    ) == ["[]"]
