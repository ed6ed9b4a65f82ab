"""blocked(): nothing gets in, nothing is lost, and the mask from before always comes back."""

import contextlib
import errno
import inspect
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import programs
import sigwright as signal
from programs import mask
from sigwright import blocked

# Not to be blocked: the kernel does not let it.
NEVER = {signal.SIGKILL, signal.SIGSTOP}


def run(source: str) -> str:
    return programs.succeed("import sigwright as signal", source)


def from_another_process(*signums):
    """Send these from a process that has ended when this returns."""
    code = "import os, sys\nfor n in sys.argv[2:]: os.kill(int(sys.argv[1]), int(n))"
    numbers = [str(int(n)) for n in signums]
    subprocess.run([sys.executable, "-c", code, str(os.getpid()), *numbers], check=True)


def test_a_signal_waits_outside_and_its_handler_has_run_when_the_block_is_left(arrived):
    with blocked(signal.SIGUSR1):
        from_another_process(signal.SIGUSR1, signal.SIGUSR2)
        assert arrived == [signal.SIGUSR2]
        assert signal.SIGUSR1 in signal.sigpending()
    assert arrived == [signal.SIGUSR2, signal.SIGUSR1]


@pytest.mark.usefixtures("arrived")
def test_none_named_means_all_and_the_hidden_ones_stay_open():
    with blocked():
        assert mask() == signal.valid_signals() - NEVER
        held = re.search(r"SigBlk:\s*(\w+)", Path("/proc/thread-self/status").read_text())
        realtime = {
            n
            for n in range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
            if not int(held[1], 16) >> (n - 1) & 1
        }
        assert realtime == {*range(signal.SIGRTMIN, signal.SIGRTMAX + 1)} - signal.valid_signals()
        assert len(realtime) in (2, 3)


def test_what_was_blocked_before_stays_blocked(arrived):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        with blocked(signal.SIGUSR1, signal.SIGUSR2):
            from_another_process(signal.SIGUSR1, signal.SIGUSR2)
        assert arrived == [signal.SIGUSR2]
        assert mask() == before | {signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert arrived == [signal.SIGUSR2, signal.SIGUSR1]


@pytest.mark.usefixtures("arrived")
def test_a_block_undoes_what_was_done_to_the_mask_inside_it():
    with blocked(signal.SIGUSR1):
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGUSR2])
    assert signal.SIGUSR2 not in mask()


def test_one_object_serves_again_and_inside_itself(arrived):
    section = blocked(signal.SIGUSR1)

    @section
    def countdown(n):
        assert signal.SIGUSR1 in mask()
        if n == 0:
            from_another_process(signal.SIGUSR1)
            return
        countdown(n - 1)
        assert arrived == []  # leaving an inner one opens nothing

    countdown(5)
    assert arrived == [signal.SIGUSR1]
    with section as inside:
        assert inside is section
    countdown(0)
    assert arrived == [signal.SIGUSR1] * 2


def test_a_handler_that_raises_on_the_way_out_leaves_the_mask_restored(arrived):
    def handler(signum, frame):
        raise KeyError(signum)

    signal.signal(signal.SIGUSR1, handler)

    @blocked(signal.SIGUSR1, signal.SIGUSR2)
    def fails():
        from_another_process(signal.SIGUSR1)
        raise ZeroDivisionError

    with pytest.raises(KeyError) as caught:
        fails()
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert mask().isdisjoint({signal.SIGUSR1, signal.SIGUSR2})
    assert arrived == []


def test_handlers_that_raise_at_any_moment_leave_nothing_blocked():
    """Also in the first step of leaving, where a Python __exit__ could be struck before it acts."""
    out = run("""
        import os, subprocess, sys
        class Struck(Exception): pass
        def handler(signum, frame):
            if armed:
                raise Struck
        armed = False
        signal.signal(signal.SIGUSR2, handler)
        CODE = '''if True:
            import os, sys, time
            while os.getppid() == int(sys.argv[1]):
                os.kill(int(sys.argv[1]), int(sys.argv[2]))
                until = time.perf_counter_ns() + 20000
                while time.perf_counter_ns() < until: pass
        '''
        sender = subprocess.Popen(
            [sys.executable, "-c", CODE, str(os.getpid()), str(int(signal.SIGUSR2))]
        )
        section = signal.blocked(signal.SIGUSR1)
        inside = struck = rounds = 0
        @section
        def decorated():
            pass
        while struck < 3000:
            rounds += 1
            try:
                armed = True
                with section:
                    inside += 1
                decorated()
                armed = False
            except Struck:
                armed = False
                struck += 1
            if signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
                print("left blocked after", struck)
                break
        sender.kill()
        sender.wait()
        try:
            section.__exit__(None, None, None)
        except RuntimeError:
            print("none left over")
    """)
    assert out == "none left over\n"


def test_each_thread_gets_its_own_mask_back():
    section = blocked(signal.SIGUSR1)
    entered, leave = threading.Barrier(5), threading.Barrier(5)
    masks = {}

    def worker(name, own):
        signal.pthread_sigmask(signal.SIG_BLOCK, [own])
        before = mask()
        with section:
            entered.wait(20)
            with section:
                inside = mask()
            leave.wait(20)
        masks[name] = (before, inside, mask())

    threads = [threading.Thread(target=worker, args=(n, signal.SIGRTMIN + n)) for n in range(1, 5)]
    before = mask()
    for thread in threads:
        thread.start()
    entered.wait(20)
    assert mask() == before  # theirs are not ours
    with section:
        leave.wait(20)
    for thread in threads:
        thread.join()
    assert mask() == before
    for name in range(1, 5):
        own, inside, after = masks[name]
        assert own == after == before | {signal.SIGRTMIN + name}
        assert inside == own | {signal.SIGUSR1}


def test_leaving_in_another_thread_is_an_error_that_changes_nothing():
    section = blocked(signal.SIGUSR1)
    with pytest.raises(RuntimeError, match="has not entered"):
        section.__exit__(None, None, None)
    seen = []

    def worker():
        before = mask()
        try:
            section.__exit__(None, None, None)
        except RuntimeError:
            seen.append(mask() == before)

    with section:
        inside = mask()
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
        assert seen == [True]
        assert mask() == inside
        assert signal.SIGUSR1 in inside
    assert signal.SIGUSR1 not in mask()


def test_a_generator_that_is_closed_in_another_thread_says_so():
    def generator():
        with blocked(signal.SIGUSR1):
            yield

    suspended = generator()
    next(suspended)
    errors = []

    def close():
        with pytest.raises(RuntimeError) as caught:
            suspended.close()
        errors.append(caught.value)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert signal.SIGUSR1 in mask()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])


def test_a_decorated_function_is_the_same_function(arrived):
    @blocked(signal.SIGUSR1)
    def add(a, b=2, *, c=3):
        """Add."""
        from_another_process(signal.SIGUSR1)
        assert arrived == []
        return a + b + c

    assert add(1, c=0) == 3
    assert arrived == [signal.SIGUSR1]
    assert (add.__name__, add.__doc__) == ("add", "Add.")

    class Account:
        @blocked(signal.SIGUSR1)
        def held(self):
            return self, mask()

        @blocked()
        def fails(self):
            raise ZeroDivisionError

    account = Account()
    assert account.held()[0] is account
    assert signal.SIGUSR1 in account.held()[1]
    with pytest.raises(ZeroDivisionError):
        account.fails()
    assert signal.SIGUSR1 not in mask()


def test_what_begins_later_is_not_decorated():
    async def coroutine():
        pass

    async def async_generator():
        yield

    def generator():
        yield

    for wrong in (coroutine, async_generator, generator, int, 3, None):
        with pytest.raises(TypeError, match="plain functions"):
            blocked(signal.SIGUSR1)(wrong)


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
def test_bad_arguments_change_nothing(arguments, error):
    before = mask()
    with pytest.raises(error):
        blocked(*arguments)
    assert mask() == before


@pytest.mark.parametrize("signum", sorted(NEVER))
def test_what_nothing_can_hold_is_refused_by_name(signum):
    with pytest.raises(OSError, match=signum.name) as caught:
        blocked(signal.SIGUSR1, signum)
    assert caught.value.errno == errno.EINVAL


def test_there_are_no_keywords():
    with pytest.raises(TypeError):
        blocked(signum=signal.SIGUSR1)
    assert str(inspect.signature(blocked)) == "(*signums)"


def test_objects_that_are_never_left_are_freed_and_their_masks_stay():
    out = run("""
        import gc
        for _ in range(1000):
            signal.blocked(signal.SIGUSR1).__enter__()
        gc.collect()
        print(signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """)
    assert out == "True\n"


def test_a_door_that_moves_meanwhile_is_not_blocked_by_the_mask_that_comes_back():
    """Its old number was free to be blocked; the mask from before must not shut the new one."""
    out = run("""
        import threading, time
        realtime = set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with signal.blocked(*realtime):
            pass
        called = []
        with signal.blocked():
            for hidden in realtime - signal.valid_signals():  # whoever asks for it gets it
                signal.signal(hidden, lambda signum, frame: None)
        signal.signal(signal.SIGUSR1, lambda signum, frame: called.append(time.monotonic()))
        def worker():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
            signal.raise_signal(signal.SIGUSR1)
        thread = threading.Thread(target=worker)
        start = time.monotonic()
        thread.start()
        time.sleep(1)
        print(len(called), called[0] - start < 0.9)
    """)
    assert out == "1 True\n"


def test_a_child_that_is_signalled_before_it_has_set_itself_up_loses_nothing():
    """Every other child even waits until the signal is there, and sets itself up only then."""
    out = run("""
        import os
        ends = []
        for attempt in range(400):
            with signal.blocked(signal.SIGTERM):
                pid = os.fork()
                if pid == 0:
                    while attempt % 2 and signal.SIGTERM not in signal.sigpending():
                        pass
                    signal.signal(signal.SIGTERM, lambda signum, frame: os._exit(42))
            if pid == 0:
                while True:
                    signal.pause()
            os.kill(pid, signal.SIGTERM)
            ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(len(ends), set(ends), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """)
    assert out == "400 {42} set()\n"


def test_parent_and_child_leave_the_block_each_for_itself():
    out = run("""
        import os
        seen = []
        signal.signal(signal.SIGUSR1, lambda signum, frame: seen.append(os.getpid()))
        with signal.blocked(signal.SIGUSR1):
            os.kill(os.getpid(), signal.SIGUSR1)  # the parent's: not the child's
            pid = os.fork()
            if pid == 0:
                inherited = signal.sigpending()
        assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        if pid == 0:
            os._exit(0 if not inherited and not seen else 1)
        assert os.waitpid(pid, 0)[1] == 0
        print(seen == [os.getpid()])
    """)
    assert out == "True\n"


def test_an_exit_stack_can_hold_it(arrived):
    with contextlib.ExitStack() as stack:
        stack.enter_context(blocked(signal.SIGUSR1))
        from_another_process(signal.SIGUSR1)
        assert arrived == []
    assert arrived == [signal.SIGUSR1]
