"""Queued real-time signals: how many calls of the handler, in which order, with which values."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType

from harness import Row, both_peers, native

COUNT = 1000


def handled_when_unblocked(signal: ModuleType, count: int) -> list[float]:
    """Queues signals while they are blocked. Calls of the handler, and nanoseconds for all."""
    calls = 0

    def handler(signum: int, frame: object) -> None:
        nonlocal calls
        calls += 1

    signal.signal(signal.SIGRTMIN, handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    for _ in range(count):
        os.kill(os.getpid(), signal.SIGRTMIN)
    start = time.perf_counter_ns()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGRTMIN])
    return [calls, time.perf_counter_ns() - start]


def handled_from_outside(signal: ModuleType, count: int) -> int:
    """Another process sends, as fast as it can, while this one runs Python."""
    calls = 0

    def handler(signum: int, frame: object) -> None:
        nonlocal calls
        calls += 1

    signal.signal(signal.SIGRTMIN, handler)
    code = "import os, sys\nfor _ in range(int(sys.argv[3])): os.kill(*map(int, sys.argv[1:3]))"
    numbers = [str(number) for number in (os.getpid(), int(signal.SIGRTMIN), count)]
    sender = subprocess.Popen([sys.executable, "-c", code, *numbers])
    while sender.poll() is None:
        pass
    until = time.monotonic() + 0.05
    while time.monotonic() < until:
        pass
    return calls


def values_in_order(signal: ModuleType, count: int) -> list[int]:
    """What each call of the handler was for, by the number that its sender gave it.

    A Python-level handler is not told; sigwright's tracer is, just before the call, and says who
    the sender was. Each signal's number is there and in si_value beside it.
    """
    from sigwright import _engine

    library = native()
    assert library is not None
    latest = -1
    values: list[int] = []

    def tracer(event: str, *details: int) -> None:
        nonlocal latest
        latest = details[3]  # si_uid

    signal.signal(signal.SIGRTMIN, lambda signum, frame: values.append(latest))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    queued = library.queue_numbered(int(signal.SIGRTMIN), count)
    assert queued == count, f"the kernel queued only {queued}"
    _engine.set_tracer(tracer)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGRTMIN])
    _engine.set_tracer(None)
    return values


def measure(quick: bool) -> Iterator[Row]:
    del quick  # it is short
    with both_peers() as (stdlib, sigwright):
        theirs, _ = stdlib.call(handled_when_unblocked, COUNT)
        ours, our_ns = sigwright.call(handled_when_unblocked, COUNT)
        yield Row(
            "queued",
            f"{COUNT:,} queued while blocked: handler calls",
            "stdlib",
            f"{theirs:,}",
            f"{ours:,}",
            f"{our_ns / ours / 1e3:.1f} µs a call",
            f"{COUNT:,} calls",
            ours == COUNT,
        )
        their_calls = stdlib.call(handled_from_outside, COUNT)
        our_calls = sigwright.call(handled_from_outside, COUNT)
        yield Row(
            "queued",
            f"{COUNT:,} sent by another process: handler calls",
            "stdlib",
            f"{their_calls:,}",
            f"{our_calls:,}",
            "",
            f"{COUNT:,} calls",
            our_calls == COUNT,
        )
        if native() is None:
            return
        values = sigwright.call(values_in_order, COUNT)
        in_order = values == list(range(COUNT))
        yield Row(
            "queued",
            f"{COUNT:,} numbered by their sender: calls in the order of the numbers",
            "stdlib",
            "cannot see",
            f"{len(values):,}",
            "in order" if in_order else "out of order",
            f"0 to {COUNT - 1}, in order",
            in_order,
        )
