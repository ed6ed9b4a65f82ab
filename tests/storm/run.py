"""A storm of signals, every one accounted for: `python tests/storm/run.py --signals 10000000`.

Three kinds of process, forked from one that waits: the receiver, which has sigwright's handlers,
and senders. They send standard signals by kill() and real-time ones by sigqueue(), while the
receiver replaces its handlers, collects garbage, starts threads that end at once, sends signals to
its own threads, and forks children that go through a small storm of their own.

Then everything must add up, for each signal:
    arrivals = deliveries + merges + drops, and nothing waits
    deliveries = calls of the handler, as the handlers counted them
    drops = 0, as no sender is ever more than OUTSTANDING signals ahead
    arrivals = signals sent, for real-time ones; 1 ... that many for standard ones, since the kernel
        merges them before they arrive
Before that, while one thread receives, the real-time signals come in the order they were sent in.
"""

import ctypes
import errno
import gc
import itertools
import os
import platform
import random
import signal
import sys
import threading
import time
import warnings

import processes
from processes import READY, STOP

SENDERS = 2
OUTSTANDING = 20_000  # under the inbox's 65,536 by far: whatever drops below that is a bug
CHILD_SECONDS = 60  # a child that takes longer hangs, and dies of SIGALRM
ORDERED_SHARE = 10  # one signal in so many is sent in the first part, for the order

# Fields of the memory that all processes share, after those of `processes`.
ORDERED_HANDLED, SENT, HANDLED, STANDARD_SENT = 2, 10, 20, 30

_SYS_RT_SIGQUEUEINFO = {"x86_64": 129, "aarch64": 138, "riscv64": 138}
_SI_QUEUE = -1


class _SigInfo(ctypes.Structure):
    """siginfo_t as sigqueue() fills it, 128 bytes."""

    _fields_ = (
        ("signo", ctypes.c_int),
        ("errno", ctypes.c_int),
        ("code", ctypes.c_int),
        ("pad", ctypes.c_int),
        ("pid", ctypes.c_int),
        ("uid", ctypes.c_uint),
        ("value", ctypes.c_void_p),
        ("rest", ctypes.c_char * 96),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_syscall_number = _SYS_RT_SIGQUEUEINFO.get(platform.machine())


def sigqueue(pid: int, signum: int, number: int) -> bool:
    """Queue a signal that carries a number; False: the kernel's queue is full, try again.

    The number travels where sigqueue() itself puts the sender's user id: there a handler's tracer
    sees it. (The system call takes the whole siginfo_t from its caller.)
    """
    info = _SigInfo(signo=signum, code=_SI_QUEUE, pid=os.getpid(), uid=number, value=number)
    if _libc.syscall(_syscall_number, pid, signum, ctypes.byref(info)) == 0:
        return True
    error = ctypes.get_errno()
    if error != errno.EAGAIN:
        raise OSError(error, os.strerror(error))
    return False


def sigqueue_or_wait(pid: int, signum: int, number: int) -> None:
    while not sigqueue(pid, signum, number):
        time.sleep(0.0002)


# ---- senders: no sigwright in these processes ----


def send(shared: memoryview, index: int, receiver: int, total: int, seed: int) -> None:
    """A sender's whole life."""
    rng = random.Random(seed * 1000 + index)
    realtime = ordered_signal() if index == 0 else None
    while not shared[READY]:
        time.sleep(0.001)
    if realtime is not None:
        for number in range(total // ORDERED_SHARE):
            while number - shared[ORDERED_HANDLED] > OUTSTANDING:
                time.sleep(0.0002)
            sigqueue_or_wait(receiver, realtime, number)
    while shared[READY] < 2:
        time.sleep(0.001)
    realtime = sender_signal(index)
    standards = standard_signals()
    for number in range((total - total // ORDERED_SHARE) // (2 * SENDERS)):
        if number % 64 == 0:
            while shared[SENT + index] - shared[HANDLED + index] > OUTSTANDING:
                time.sleep(0.0002)
            if rng.random() < 0.02:
                time.sleep(rng.random() * 0.002)  # let the receiver fall asleep now and then
        sigqueue_or_wait(receiver, realtime, number)
        shared[SENT + index] = number + 1
        which = rng.randrange(len(standards))
        os.kill(receiver, standards[which])
        shared[STANDARD_SENT + index * len(standards) + which] += 1


def ordered_signal() -> int:
    return signal.SIGRTMIN + 1


def sender_signal(index: int) -> int:
    return signal.SIGRTMIN + 2 + index


def thread_signal() -> int:
    return signal.SIGRTMIN + 2 + SENDERS


def standard_signals() -> list[int]:
    return [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP]


# ---- the receiver ----


class Receiver:
    def __init__(self, shared: memoryview, total: int, seed: int) -> None:
        import sigwright

        self.signal = sigwright
        self.engine = sigwright._engine
        self.shared = shared
        self.total = total
        self.rng = random.Random(seed)
        self.calls = {}  # of handlers, by signal; a count() adds up even where handlers nest
        self.thread_sent = 0
        self.children = {}  # pid: started by
        self.forks = 0
        self.forks_wanted = min(10 + total // 50_000, 100)

    def replace_handler(self, signum: int) -> None:
        calls = self.calls.setdefault(signum, itertools.count(1))
        index = signum - sender_signal(0)
        if 0 <= index < SENDERS:

            def handler(signum, frame, shared=self.shared, place=HANDLED + index):
                shared[place] = next(calls)
        else:

            def handler(signum, frame):
                next(calls)

        handler.cycle = handler  # only the collector gets rid of it
        self.signal.signal(signum, handler)
        if self.rng.random() < 0.3:
            self.signal.siginterrupt(signum, False)  # the quiet door, and no timer

    def run(self) -> None:
        self.receive_in_order()
        self.receive_all()
        self.check()

    def receive_in_order(self) -> None:
        """Only the main thread, and a tracer that sees the numbers."""
        expected = self.total // ORDERED_SHARE
        numbers = []

        def tracer(event, signum, *details):
            if event == "arrival":
                numbers.append(details[2])

        def handler(signum, frame):
            self.shared[ORDERED_HANDLED] += 1

        self.engine.set_tracer(tracer)
        self.signal.signal(ordered_signal(), handler)
        self.shared[READY] = 1
        while self.shared[ORDERED_HANDLED] < expected:
            time.sleep(0.001)
        self.engine.set_tracer(None)
        self.signal.signal(ordered_signal(), self.signal.SIG_IGN)
        assert numbers == list(range(expected)), first_difference(numbers)

    def receive_all(self) -> None:
        self.signals = [
            *standard_signals(),
            *(sender_signal(index) for index in range(SENDERS)),
            thread_signal(),
        ]
        for signum in self.signals:
            self.replace_handler(signum)
        stop = threading.Event()
        idle = [threading.Thread(target=stop.wait) for _ in range(2)]
        for thread in idle:
            thread.start()
        busy = threading.Thread(target=self.send_to_threads, args=(idle, stop))
        busy.start()
        self.shared[READY] = 2
        for step in itertools.count():
            self.step(step)
            if self.shared[STOP]:
                break
        stop.set()
        for thread in [busy, *idle]:
            thread.join()
        processes.reap(self.children, block=True)
        while any(count["waiting"] for count in self.engine.stats().values()):
            time.sleep(0.001)  # for ever, where one is lost: the watchdog speaks then

    def step(self, step: int) -> None:
        action = self.rng.random()
        if action < 0.6:
            self.replace_handler(self.rng.choice(self.signals))
        elif action < 0.75:
            gc.collect(self.rng.randrange(2))
        elif action < 0.9:
            time.sleep(self.rng.random() * 0.0005)
        else:
            threading.Thread(target=len, args=((),)).start()
        handled = sum(self.shared[HANDLED + index] for index in range(SENDERS))
        if self.forks < self.forks_wanted * handled // (self.total // 2):
            self.forks += 1
            if self.forks % 2:
                self.fork("the main thread")
            else:
                worker = threading.Thread(target=self.fork, args=("a worker",))
                worker.start()
                worker.join()
        processes.reap(self.children, block=False)

    def send_to_threads(self, idle, stop) -> None:
        """A thread that sends to the others, to itself, and to the main thread."""
        targets = [thread.ident for thread in [*idle, threading.main_thread()]]
        targets.append(threading.get_ident())
        while not stop.is_set():
            for target in targets:
                try:
                    self.signal.pthread_kill(target, thread_signal())
                except BlockingIOError:
                    continue  # EAGAIN: the kernel's queue is full
                self.thread_sent += 1
            time.sleep(0.0005)

    def fork(self, who: str) -> None:
        self.children[processes.start(self.be_child)] = who

    def be_child(self) -> None:
        """Of what came to the parent nothing is here; of our own storm, all is."""
        # No faulthandler.dump_traceback_later() here: it would wait for a thread of the parent's.
        self.signal.alarm(CHILD_SECONDS)
        calls = dict.fromkeys(self.signals, 0)

        def handler(signum, frame):
            calls[signum] += 1

        before = [sum(count.values()) for count in self.engine.stats().values()]
        assert not any(before), f"the parent's arrivals are in the child: {before}"
        for signum in self.signals:
            self.signal.signal(signum, handler)
        realtime = [signum for signum in self.signals if signum >= self.signal.SIGRTMIN]
        sent = 200

        def send_to_process():
            for number in range(sent):
                for signum in realtime:
                    sigqueue_or_wait(os.getpid(), signum, number)

        thread = threading.Thread(target=send_to_process)
        thread.start()
        for _ in range(sent):
            os.kill(os.getpid(), self.signal.SIGUSR1)
        thread.join()
        while min(calls[signum] for signum in realtime) < sent:
            time.sleep(0.0005)
        for signum, count in self.engine.stats().items():
            assert_adds_up(signum, count)
            if signum in realtime:
                assert count["arrivals"] == count["deliveries"] == calls[signum] == sent, count

    def check(self) -> None:
        stats = self.engine.stats()
        standards = standard_signals()
        for signum in self.signals:
            count = stats[signum]
            assert_adds_up(signum, count)
            calls = next(self.calls[signum]) - 1
            assert count["deliveries"] + count["simulated"] == calls, (signum, count, calls)
            arrivals = count["arrivals"] + count["simulated"]
            if signum == thread_signal():
                assert arrivals == self.thread_sent, (signum, count, self.thread_sent)
            elif signum in standards:
                offset = STANDARD_SENT + standards.index(signum)
                sent = sum(self.shared[offset + i * len(standards)] for i in range(SENDERS))
                assert 0 < arrivals <= sent, (signum, count, sent)
            else:
                sent = self.shared[SENT + signum - sender_signal(0)]
                assert arrivals == sent, (signum, count, sent)
            print(f"signal {signum:2}: {describe(count)}, {calls} calls")
        print(f"{self.forks} children, each with its own counts", flush=True)


def assert_adds_up(signum, count) -> None:
    parts = count["deliveries"] + count["merges"] + count["drops"]
    assert count["arrivals"] == parts, (signum, count)
    assert count["drops"] == 0, (signum, count)
    assert count["waiting"] == 0, (signum, count)


def describe(count) -> str:
    return ", ".join(f"{value} {name}" for name, value in count.items() if value)


def first_difference(numbers) -> str:
    for place, number in enumerate(numbers):
        if place != number:
            return f"place {place} of {len(numbers)} has number {number}"
    return f"only {len(numbers)} came"


def receive(shared: memoryview, total: int, seed: int) -> None:
    # From 3.12 on a fork beside threads warns; here it is what is tested.
    warnings.simplefilter("ignore", DeprecationWarning)
    Receiver(shared, total, seed).run()


if __name__ == "__main__":
    if _syscall_number is None:
        print(f"the number of rt_sigqueueinfo is not known here for {platform.machine()}")
        sys.exit(2)
    sys.exit(processes.main(__doc__.splitlines()[0], SENDERS, receive, send))
