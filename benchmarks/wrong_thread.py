"""A signal that lands on a worker thread while the main thread waits in a call."""

import contextlib
import itertools
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType

from harness import Row, Times, both_peers

WAITS = {
    "sleep": "time.sleep()",
    "lock": "lock.acquire()",
    "read": "os.read() of a pipe",
    "join": "thread.join()",
}
FREE_MOST = 1e6  # ns, the median
BOUND = 1.0  # seconds after which the call ends by itself: the stdlib's handler runs then
SETTLE = {
    False: 0.003,
    True: 0.02,
}  # the main thread is in its call by then; by whether another is busy


class HandledError(Exception):
    """Raised by the handler, so that a sleep ends with it."""


def time_to_handler(
    signal: ModuleType, wait: str, busy: bool, bound: float, count: int
) -> list[float]:
    """Nanoseconds from pthread_kill(worker) to the handler's first line."""
    stop = threading.Event()
    if busy:
        threading.Thread(target=_spin, args=[stop], daemon=True).start()
    try:
        return [_once(signal, wait, SETTLE[busy], bound) for _ in range(count)]
    finally:
        stop.set()


def _spin(stop: threading.Event) -> None:
    while not stop.is_set():
        for _ in range(1000):
            pass


def _once(signal: ModuleType, wait: str, settle: float, bound: float) -> float:
    handled_at = sent_at = 0

    def handler(signum: int, frame: object) -> None:
        nonlocal handled_at
        handled_at = time.perf_counter_ns()
        os.write(over_w, b".")
        # Nothing else ends a sleep. The rest is let go by the sender: what a handler raises in
        # join() makes 3.11 take the thread for ended (bpo-45274).
        if wait == "sleep":
            raise HandledError

    def send() -> None:
        nonlocal sent_at
        os.read(ready_r, 1)
        time.sleep(settle)
        sent_at = time.perf_counter_ns()
        signal.pthread_kill(worker.ident, signal.SIGUSR1)
        # The handler has run, or it has had its time.
        select.select([over_r], [], [], bound)
        lock.release()
        os.write(release_w, b"..")  # for the worker, and for the main thread where it reads

    signal.signal(signal.SIGUSR1, handler)
    pipes = [os.pipe() for _ in range(3)]
    (release_r, release_w), (ready_r, ready_w), (over_r, over_w) = pipes
    lock = threading.Lock()
    lock.acquire()
    worker = threading.Thread(target=os.read, args=[release_r, 1])
    worker.start()
    sender = threading.Thread(target=send)
    sender.start()
    with contextlib.suppress(HandledError):
        os.write(ready_w, b".")
        if wait == "sleep":
            time.sleep(settle + bound)
        elif wait == "lock":
            lock.acquire()
        elif wait == "read":
            os.read(release_r, 1)
        else:
            worker.join()
    sender.join()
    worker.join()
    for fd in itertools.chain(*pipes):
        os.close(fd)
    assert handled_at, "the handler never ran"
    return handled_at - sent_at


def measure(quick: bool) -> Iterator[Row]:
    bound, rounds, each = (0.3, 2, 15) if quick else (BOUND, 4, 30)
    switch_interval = sys.getswitchinterval() * 1e9
    with both_peers() as (stdlib, sigwright):
        for busy in (False, True):
            most = FREE_MOST + (switch_interval if busy else 0)
            others = "another thread is busy in Python" if busy else "the GIL is free"
            for wait, call in WAITS.items():
                theirs: list[float] = []
                ours: list[float] = []
                for _ in range(rounds):
                    # Once a round is enough of the stdlib, which waits for the call's end.
                    theirs += stdlib.call(time_to_handler, wait, busy, bound, 1)
                    ours += sigwright.call(time_to_handler, wait, busy, bound, each)
                times = Times.of(ours)
                yield Row(
                    "wrong_thread",
                    f"main thread in {call}, {others}",
                    "stdlib",
                    Times.of(theirs),
                    times,
                    f"99th percentile {times.p99 / 1e6:.2f} ms",
                    f"median at most {most / 1e6:g} ms",
                    times.median <= most,
                )
