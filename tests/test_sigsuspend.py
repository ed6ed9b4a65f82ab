"""sigsuspend(), and pause() in other threads: no wake-up is lost."""

import os
import subprocess
import sys
import threading

import pytest

import programs
import sigwright as signal
from programs import mask

PREAMBLE = "import os, sys, threading, time\nimport sigwright as signal\n"


def run(source: str, *arguments: object) -> str:
    return programs.succeed(PREAMBLE, source, arguments=arguments)


# Sends the signal that stands in each line it reads.
ON_DEMAND = """
import os, sys
pid, *numbers = map(int, sys.argv[1:])
for line in iter(lambda: os.read(0, 1), b""):
    for number in numbers:
        os.kill(pid, number)
"""


def start_on_demand(*signums):
    return subprocess.Popen(
        [sys.executable, "-c", ON_DEMAND, str(os.getpid()), *(str(int(n)) for n in signums)],
        stdin=subprocess.PIPE,
        bufsize=0,
    )


def test_a_signal_between_the_look_and_the_wait_is_never_lost(arrived):
    """The signal is asked for, then the condition is looked at: it comes before, or in between."""
    sender = start_on_demand(signal.SIGUSR1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    found_at_once = 0
    for attempt in range(1000):
        sender.stdin.write(b".")
        for _ in range(attempt % 50 * 40):  # from "not sent yet" to "long pending"
            pass
        found_at_once += signal.SIGUSR1 in signal.sigpending()
        while len(arrived) == attempt:
            assert signal.sigsuspend(before) is None
        assert len(arrived) == attempt + 1
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.communicate()
    assert found_at_once < 1000  # some came while we slept, or just before


def test_in_a_worker_no_signal_is_lost_between_the_look_and_the_wait(arrived):
    """No repeated ring helps there: what is lost sleeps for ever."""
    sender = start_on_demand(signal.SIGUSR1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    rounds = []

    def worker():
        signal.raise_signal(signal.SIGUSR1)  # pending already
        signal.sigsuspend(before)
        for attempt in range(1000):
            sender.stdin.write(b".")
            for _ in range(attempt % 50 * 40):
                pass
            signal.sigsuspend(before)
            rounds.append(attempt)

    thread = threading.Thread(target=worker, daemon=True)
    thread.start()
    thread.join(30)
    assert rounds == list(range(1000))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.communicate()
    assert len(arrived) > 0


def test_what_the_mask_names_does_not_end_the_sleep(arrived):
    sender = start_on_demand(signal.SIGUSR2, signal.SIGUSR1)
    both = {signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, both)
    for attempt in range(1, 101):
        sender.stdin.write(b".")
        signal.sigsuspend(before | {signal.SIGUSR2})
        assert arrived.count(signal.SIGUSR1) == attempt
        assert arrived.count(signal.SIGUSR2) == attempt - 1  # it was sent first
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        assert arrived.count(signal.SIGUSR2) == attempt
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.communicate()


def test_a_door_that_rings_for_nothing_does_not_end_the_sleep(arrived):
    hidden = {*range(signal.SIGRTMIN, signal.SIGRTMAX + 1)} - {*map(int, signal.valid_signals())}
    action = signal._engine.kernel_action
    doors = {n for n in hidden if action(n)[1] & signal.SA_SIGINFO}  # not faulthandler's, if any
    assert len(doors) == 2
    code = (
        "import os, sys, time\n"
        "pid, last, *doors = map(int, sys.argv[1:])\n"
        "os.read(0, 1)\n"
        "for _ in range(50):\n"
        "    for door in doors: os.kill(pid, door)\n"
        "    time.sleep(0.001)\n"
        "os.kill(pid, last)\n"
    )
    for wait in (lambda: signal.sigsuspend(mask()), signal.pause):
        sender = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, [os.getpid(), int(signal.SIGUSR1), *doors])],
            stdin=subprocess.PIPE,
            bufsize=0,
        )
        sender.stdin.write(b".")
        wait()
        assert arrived.pop() == signal.SIGUSR1
        sender.communicate()


@pytest.mark.usefixtures("arrived")
def test_the_mask_is_back_also_when_the_handler_raises():
    def handler(signum, frame):
        raise KeyError(mask())

    signal.signal(signal.SIGUSR1, handler)
    inside = mask() | {signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_SETMASK, inside)
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(KeyError) as caught:
        signal.sigsuspend(before)
    assert caught.value.args == (inside,)
    assert mask() == inside
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(
    ("numbers", "error"),
    [([0], ValueError), ([signal.NSIG], ValueError), (["x"], TypeError), (3, TypeError)],
)
def test_a_bad_mask_does_not_sleep(numbers, error):
    before = mask()
    with pytest.raises(error):
        signal.sigsuspend(numbers)
    assert mask() == before


def test_an_added_handler_ends_the_sleep_as_well():
    seen = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    with signal.add_handler(signal.SIGUSR1, seen.append):
        sender = start_on_demand(signal.SIGUSR1)
        for attempt in range(100):
            sender.stdin.write(b".")
            while len(seen) == attempt:
                signal.sigsuspend(before)
        sender.communicate()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert [info.si_pid for info in seen] == [sender.pid] * 100


def test_a_signal_that_lands_on_a_worker_ends_the_main_threads_sleep(arrived):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    for attempt in range(1, 51):
        thread = threading.Thread(target=unblock_and_raise)
        thread.start()
        while len(arrived) < attempt:
            signal.sigsuspend([*before, signal.SIGUSR1])
        thread.join()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_and_raise():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("function", ["sigsuspend", "pause"])
def test_a_worker_wakes_up_whatever_rings_in_the_main_thread(function):
    """A door that rang for nothing there must not send the worker back to sleep."""
    out = run(
        """
        function = sys.argv[1]
        main = threading.get_ident()
        doors = set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) - signal.valid_signals()
        signal.signal(signal.SIGUSR1, lambda signum, frame: None)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        woken = 0
        def worker():
            global woken
            if function == "pause":
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
            while True:
                signal.sigsuspend(before) if function == "sigsuspend" else signal.pause()
                woken += 1
        def ringing():
            while True:
                for door in doors:
                    signal.pthread_kill(main, door)
                time.sleep(0.0001)
        thread = threading.Thread(target=worker, daemon=True)
        thread.start()
        threading.Thread(target=ringing, daemon=True).start()
        def sleeps():  # the number of the system call that the worker is in
            with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
                return file.read().split()[0]
        time.sleep(0.1)
        asleep = sleeps()
        deadline = time.monotonic() + 30
        for attempt in range(1, 501):
            if function == "pause":  # where nothing is blocked, a signal before the sleep is lost
                while sleeps() != asleep:
                    time.sleep(0)
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            while woken < attempt and time.monotonic() < deadline:
                time.sleep(0)
        print(woken, flush=True)
        os._exit(0)
        """,
        function,
    )
    assert out == "500\n"
