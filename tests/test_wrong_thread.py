"""Signals that land on another thread, in waits, or under masks: what once was lost or late.

Every scenario is a program of its own, in an interpreter of its own: see programs.py.
"""

import os
import shutil
import subprocess

import pytest

from programs import succeed_with_engine as succeed

# ---- the way to the main thread ----


def test_a_ring_while_cpythons_table_says_sig_dfl():
    # PyErr_SetInterruptEx() compared Python objects here, in signal context.
    succeed("""
        import _signal
        calls = 0
        def handler(signum, frame):
            global calls
            calls += 1
        signum = signal.SIGRTMIN + 1
        signal.signal(signum, handler)
        # Behind our back: the table says SIG_DFL, and the kernel's action is still (again) ours.
        sigaction = (ctypes.c_char * 256)()
        libc.sigaction(signum, None, sigaction)
        _signal.signal(signum, 0)
        libc.sigaction(signum, sigaction, None)
        worker = Worker()
        for _ in range(2000):
            os.kill(os.getpid(), signum)
            worker.kill(signum)
        until(lambda: stats()[signum]["deliveries"] == 4000)
        assert calls == stats()[signum]["arrivals"] == 4000, (calls, stats())
    """)


def test_a_busy_main_thread_does_not_see_what_lands_on_a_worker():
    # On 3.11 and 3.12 CPython sets the worker's breaker, not the main thread's.
    succeed("""
        handled = []
        signum = signal.SIGRTMIN + 1   # one call each
        signal.signal(signum, lambda *args: handled.append(time.monotonic()))
        worker = Worker()
        sent = []
        def send():
            for _ in range(20):
                time.sleep(0.005)
                sent.append(time.monotonic())
                worker.kill(signum)
        threading.Thread(target=send).start()
        deadline = time.monotonic() + 10
        while len(handled) < 20 and time.monotonic() < deadline:
            pass
        delays = sorted(b - a for a, b in zip(sent, handled, strict=True))
        assert delays[-1] < 1, delays
        assert delays[len(delays) // 2] < 0.1, delays
    """)


SLEEPS = {
    "sleep": "time.sleep(5)",
    "lock": "lock.acquire(timeout=5)",
    "lock without a limit": "alarm_clock(lambda: lock.release()); lock.acquire()",
    "read of a pipe": "alarm_clock(lambda: os.write(pipe[1], b'x')); os.read(pipe[0], 1)",
    "join": "sleeper.join(5)",
    "select": "select.select([pipe[0]], [], [], 5)",
    "wait for an event": "threading.Event().wait(5)",
}


@pytest.mark.parametrize("sleep", SLEEPS)
def test_a_sleeping_main_thread_is_not_woken_by_what_lands_on_a_worker(sleep):
    script = """
        class Handled(Exception):
            pass
        def handler(signum, frame):
            raise Handled
        signal.signal(signal.SIGUSR1, handler)
        lock = threading.Lock()
        lock.acquire()
        pipe = os.pipe()
        def alarm_clock(function):
            timer = threading.Timer(5, function)
            timer.daemon = True
            timer.start()
        worker = Worker()
        sleeper = Worker()
        def send():
            time.sleep(0.2)
            send.time = time.monotonic()
            worker.kill(signal.SIGUSR1)
        threading.Thread(target=send).start()
        try:
            SLEEP
        except Handled:
            assert time.monotonic() - send.time < 1, time.monotonic() - send.time
        else:
            raise AssertionError("slept to the end")
        os._exit(0)
    """
    succeed(script.replace("SLEEP", SLEEPS[sleep]))


def test_a_signal_between_the_last_look_and_the_system_call_is_slept_over():
    # 300 signals at all moments around the beginning of a sleep; without the timer some are late.
    succeed("""
        delays = []
        class Handled(Exception):
            pass
        def handler(signum, frame):
            delays.append(time.monotonic() - sent)
            raise Handled
        signal.signal(signal.SIGALRM, handler)
        read, write = os.pipe()
        buffer = ctypes.create_string_buffer(1)
        raw_read = libc.read
        for i in range(300):
            delay = 20e-6 + i % 60 * 1e-6
            try:
                sent = time.monotonic() + delay
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    raw_read(read, buffer, 1)   # only a signal ends it; then the handler raises
            except Handled:
                pass
        assert len(delays) == 300
        assert max(delays) < 1, max(delays)
    """)


def test_a_restarting_signal_on_a_worker_breaks_the_main_threads_raw_read():
    succeed("""
        signum = signal.SIGRTMIN + 1
        calls = 0
        def handler(signum, frame):
            global calls
            calls += 1
        signal.signal(signum, handler)
        signal.siginterrupt(signum, False)
        read, write = os.pipe()
        worker = Worker()
        def send():
            time.sleep(0.2)
            for _ in range(50):
                worker.kill(signum)
                time.sleep(0.002)
            os.write(write, b"xy")
        threading.Thread(target=send).start()
        buffer = ctypes.create_string_buffer(2)
        result = libc.read(read, buffer, 2)
        assert result == 2, (result, ctypes.get_errno())
        until(lambda: calls == 50)
        assert stats()[signum]["arrivals"] == 50
    """)


def test_an_interrupting_signal_on_a_worker_leaves_the_main_threads_raw_read_alone():
    succeed("""
        signal.signal(signal.SIGUSR1, lambda *args: None)
        read, write = os.pipe()
        worker = Worker()
        def send():
            time.sleep(0.2)
            worker.kill(signal.SIGUSR1)
            time.sleep(5)
            os.write(write, b"x")
        threading.Thread(target=send, daemon=True).start()
        buffer = ctypes.create_string_buffer(1)
        started = time.monotonic()
        assert libc.read(read, buffer, 1) == -1
        assert ctypes.get_errno() == errno.EINTR
        assert time.monotonic() - started < 2
        os._exit(0)
    """)


def test_restarting_signals_lose_their_ring_and_wait_for_ever():
    # No timer repeats their ring, so a ring that is taken for one under way is never heard again.
    succeed("""
        calls = itertools.count()
        def handler(signum, frame):
            next(calls)
        signal.signal(signal.SIGRTMIN + 1, handler)
        signal.siginterrupt(signal.SIGRTMIN + 1, False)
        worker = Worker()
        sent = 0
        for round in range(300):
            for _ in range(20):
                worker.kill(signal.SIGRTMIN + 1)
                sent += 1
            deadline = time.monotonic() + 5
            while stats()[signal.SIGRTMIN + 1]["deliveries"] < sent:
                assert time.monotonic() < deadline, (round, stats())
        assert next(calls) == sent
    """)


def test_a_signal_after_deep_nesting_waits_for_ever():
    # At the limit of nesting the dispatcher returns at once; the ring that it answered is over.
    succeed("""
        depth = deepest = 0
        def nest(signum, frame):
            global depth, deepest
            depth += 1
            deepest = max(depth, deepest)
            if deepest < 1000 and calls[0] < 500:
                calls[0] += 1
                worker.kill(signal.SIGUSR1)
                end = time.monotonic() + 0.0005
                while time.monotonic() < end:
                    pass
            depth -= 1
        calls = [0]
        worker = Worker()
        signal.signal(signal.SIGUSR1, nest)
        signal.siginterrupt(signal.SIGUSR1, False)
        worker.kill(signal.SIGUSR1)
        until(lambda: depth == 0 and calls[0] == 500)
        late = []
        signal.signal(signal.SIGUSR2, lambda *args: late.append(1))
        signal.siginterrupt(signal.SIGUSR2, False)
        worker.kill(signal.SIGUSR2)
        deadline = time.monotonic() + 5
        while not late:
            assert time.monotonic() < deadline, "the ring is lost"
        assert 1 < deepest <= 64, deepest
    """)


def test_pause_is_woken_by_a_ring():
    succeed("""
        handled = []
        signal.signal(signal.SIGUSR1, lambda *args: handled.append(time.monotonic()))
        doors = hidden_signals()
        assert len(doors) == 2, doors
        def send():
            time.sleep(0.2)
            for _ in range(20):
                for door in doors:   # as a ring that comes late, when there is nothing to do
                    libc.syscall(TGKILL, os.getpid(), threading.main_thread().native_id, door)
                    time.sleep(0.002)
            send.time = time.monotonic()
            os.kill(os.getpid(), signal.SIGUSR1)
        TGKILL = {"x86_64": 234, "aarch64": 131, "riscv64": 131}[os.uname().machine]
        threading.Thread(target=send).start()
        signal.pause()
        assert len(handled) == 1
        assert handled[0] >= send.time
    """)


# ---- waits and masks ----


def test_the_drain_takes_more_than_the_one_signal_that_pselect_lets_in():
    succeed("""
        signum = signal.SIGRTMIN + 1
        calls = []
        signal.signal(signum, lambda *args: calls.append(args))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
        for _ in range(5):
            sigqueue(signum)
        mask = (ctypes.c_ulong * 16)()   # nothing blocked
        class Timespec(ctypes.Structure):
            _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]
        waits = {
            "pselect": lambda: libc.pselect(0, None, None, None, ctypes.byref(Timespec(5)), mask),
            "ppoll": lambda: libc.ppoll(None, 0, ctypes.byref(Timespec(5)), mask),
            "sigsuspend": lambda: libc.sigsuspend(mask),
        }
        for expected, (name, wait) in enumerate(waits.items(), 1):
            assert wait() == -1 and ctypes.get_errno() == errno.EINTR, name
            until(lambda: len(calls) == expected)
            time.sleep(0.02)
            assert len(calls) == expected, (name, len(calls))
            assert signum in signal.sigpending(), name
        for left in (1, 0):
            assert signal.sigtimedwait([signum], 0) is not None
        assert signum not in signal.sigpending()
        assert stats()[signum]["arrivals"] == 3
    """)


def test_a_door_is_in_the_way_of_who_asks_for_it_by_number():
    succeed("""
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
        calls = []
        worker = Worker()
        def still_works():
            before = len(calls)
            worker.kill(signal.SIGUSR1)
            until(lambda: len(calls) == before + 1)
        for door in hidden_signals():
            got = []
            signal.signal(door, lambda *args: got.append(args))
            assert door not in hidden_signals()
            os.kill(os.getpid(), door)
            worker.kill(door)
            until(lambda: len(got) == 2)
            still_works()
        assert len(hidden_signals()) == 2
        for door in hidden_signals():
            signal.pthread_sigmask(signal.SIG_BLOCK, [door])
            assert door in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            assert door not in hidden_signals()
            still_works()
    """)


@pytest.mark.parametrize(
    "wait", ["sigwait({door})", "sigwaitinfo({door})", "sigtimedwait({door}, 5)"]
)
def test_a_wait_for_exactly_a_doors_number_never_ends(wait):
    succeed(f"""
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
        calls = []
        for _ in range(2):
            for number in sorted(hidden_signals()):
                door = [number]
                signal.pthread_sigmask(signal.SIG_BLOCK, door)
                threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
                result = signal.{wait.format(door="door")}
                assert number in (result, getattr(result, "si_signo", None))
                os.kill(os.getpid(), signal.SIGUSR1)
                assert calls.pop()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, door)
    """)


@pytest.mark.parametrize("numbers", ["range(1, signal.NSIG)", "signal.valid_signals()"])
def test_a_mask_of_all_signals_blocks_the_doors(numbers):
    succeed(f"""
        import warnings
        warnings.simplefilter("ignore", RuntimeWarning)   # the C library's own two
        calls = []
        worker = Worker()
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(args))
        doors = hidden_signals()
        signal.pthread_sigmask(signal.SIG_BLOCK, {numbers})
        assert hidden_signals() == doors
        worker.kill(signal.SIGUSR1)
        until(lambda: len(calls) == 1)
        assert signal.sigpending() == set()
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, [])
        assert blocked == signal.valid_signals() - {{signal.SIGKILL, signal.SIGSTOP}}
        assert not blocked & doors
    """)


def test_a_storm_while_the_door_moves_loses_signals():
    succeed("""
        calls = itertools.count()
        signal.signal(signal.SIGRTMIN + 1, lambda *args: next(calls))
        worker = Worker()
        stop = False
        sent = 0
        def send():
            global sent
            while not stop:
                try:
                    worker.kill(signal.SIGRTMIN + 1)
                    sent += 1
                except BlockingIOError:
                    time.sleep(0.001)
        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(500):
            door = max(hidden_signals())
            signal.signal(door, lambda *args: None)
            assert door not in hidden_signals()
            signal.signal(door, signal.SIG_DFL)
            time.sleep(0.0002)
        stop = True
        sender.join()
        counts = lambda: stats()[signal.SIGRTMIN + 1]
        until(lambda: counts()["deliveries"] == sent)
        assert next(calls) == counts()["arrivals"] == sent > 500, (counts(), sent)
    """)


def test_a_queue_limit_that_is_reached_keeps_handlers_from_running():
    # tgkill() of a door then fails; the kernel gave the timer its entry when it was made.
    succeed("""
        import resource
        calls = []
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(time.monotonic()))
        filler = signal.SIGRTMIN + 5
        signal.pthread_sigmask(signal.SIG_BLOCK, [filler])
        worker = Worker()
        for line in open("/proc/self/status"):
            if line.startswith("SigQ:"):
                queued = int(line.split()[1].split("/")[0])
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (queued + 100, queued + 100))
        full = 0
        while libc.sigqueue(os.getpid(), filler, None) == 0:
            full += 1
        assert ctypes.get_errno() == errno.EAGAIN
        def send():
            for _ in range(10):
                time.sleep(0.05)
                sent.append(time.monotonic())
                worker.kill(signal.SIGUSR1)
        sent = []
        threading.Thread(target=send, daemon=True).start()
        deadline = time.monotonic() + 10
        while len(calls) < 10:
            assert time.monotonic() < deadline, (len(calls), len(sent))
            time.sleep(1.2)   # it is not cut short, but handlers run meanwhile
        assert max(b - a for a, b in zip(sent, calls, strict=True)) < 1
    """)


# Between the look at which fd it is and the write lie nanoseconds: here, a millisecond.
SLOW_WRITE = """
#include <sys/syscall.h>
#include <unistd.h>

ssize_t write(int fd, const void *bytes, size_t count) {
    if (count == 1) {
        usleep(1000);
    }
    return syscall(SYS_write, fd, bytes, count);
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_old_wakeup_fd_is_written_after_set_wakeup_fd_returned(tmp_path):
    # The stock module can write into whatever file got the number of a closed one.
    source, library = tmp_path / "slow_write.c", tmp_path / "slow_write.so"
    source.write_text(SLOW_WRITE)
    compiler = ["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(compiler, check=True)
    preload = [*filter(None, [os.environ.get("LD_PRELOAD")]), str(library)]
    script = """
        def new_pipe():
            pipe = os.pipe()
            for fd in pipe:
                os.set_blocking(fd, False)
            return pipe
        def read_all(fd):
            total = 0
            try:
                while data := os.read(fd, 65536):
                    total += len(data)
            except BlockingIOError:
                return total
        signal.signal(signal.SIGUSR1, lambda *args: None)
        workers = [Worker() for _ in range(2)]
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])   # it lands on the workers
        sender = start_sender([signal.SIGUSR1], 0, 0.0002)
        pipes = [new_pipe(), new_pipe()]
        spare = [os.dup(write) for read, write in pipes]
        victim_read, victim = new_pipe()
        written = strays = 0
        signal.set_wakeup_fd(pipes[0][1])
        until(lambda: read_all(pipes[0][0]))
        for i in range(1, 101):
            new, old = i % 2, 1 - i % 2
            assert signal.set_wakeup_fd(pipes[new][1]) == pipes[old][1]
            os.dup2(victim, pipes[old][1])   # another file gets its number
            time.sleep(0.003)
            strays += read_all(victim_read)
            os.dup2(spare[old], pipes[old][1])
            written += read_all(pipes[old][0])
        signal.set_wakeup_fd(-1)
        sender.kill()
        sender.wait()
        assert strays == 0
        assert written >= 100, written
    """
    succeed(script, env=dict(os.environ, LD_PRELOAD=":".join(preload)))
