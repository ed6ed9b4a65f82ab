"""From raise to the handler's end: a signal that the main thread sends to itself."""

import ctypes
import gc
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

from harness import Peer, Row, Times, both_peers, cost_row, in_turn, native, show_ns

MEDIAN_MOST = 1.03
WAYS = {"raise_signal": "raise_signal(SIGUSR1)", "kill": "os.kill(os.getpid(), SIGUSR1)"}


def time_handling(signal: ModuleType, way: str, count: int) -> list[float]:
    """Nanoseconds from before the call until its handler has returned: each of `count`."""
    handled = 0

    def handler(signum: int, frame: object) -> None:
        nonlocal handled
        handled += 1

    signal.signal(signal.SIGUSR1, handler)
    send = _raise if way == "raise_signal" else _kill
    send(signal, count // 10)
    handled = 0
    gc.disable()
    times = send(signal, count)
    gc.enable()
    assert handled == count, f"{handled} of {count} handled when the calls had returned"
    return times


# Two loops, and not one that is given the sender: the indirect call would be measured with it.
def _raise(signal: ModuleType, count: int) -> list[float]:
    raise_signal, signum, clock = signal.raise_signal, signal.SIGUSR1, time.perf_counter_ns
    times: list[float] = []
    for _ in range(count):
        start = clock()
        raise_signal(signum)
        times.append(clock() - start)
    return times


def _kill(signal: ModuleType, count: int) -> list[float]:
    kill, pid, signum, clock = os.kill, os.getpid(), signal.SIGUSR1, time.perf_counter_ns
    times: list[float] = []
    for _ in range(count):
        start = clock()
        kill(pid, signum)
        times.append(clock() - start)
    return times


def time_bare_raise(signal: ModuleType, count: int) -> list[float]:
    library = native()
    assert library is not None
    each = (ctypes.c_longlong * count)()
    library.raise_ns(int(signal.SIGUSR2), count, each)
    return list(each)


def measure(quick: bool) -> Iterator[Row]:
    pairs, rounds, count = (3, 8, 300) if quick else (8, 25, 400)
    taken: dict[str, list[list[float]]] = {way: [[], [], []] for way in WAYS}
    for _ in range(pairs):
        with both_peers() as (stdlib, sigwright):
            for way, all_times in taken.items():
                sides: list[Callable[[], list[float]]] = [
                    partial(_time, stdlib, way, count),
                    partial(_time, sigwright, way, count),
                ]
                if native() is not None:
                    sides.append(partial(stdlib.call, time_bare_raise, count))
                for times, more in zip(all_times, in_turn(rounds, sides), strict=False):
                    times.extend(more)
    for way, what in WAYS.items():
        theirs, ours, _ = taken[way]
        yield cost_row("handling", what, "stdlib", theirs, ours, MEDIAN_MOST)
        their_p99, our_p99 = Times.of(theirs).p99, Times.of(ours).p99
        yield Row(
            "handling",
            f"{what}, 99th percentile",
            "stdlib",
            show_ns(their_p99),
            show_ns(our_p99),
            f"takes {our_p99 / their_p99:.2f} times as long",
        )
    _, ours, bare = taken["raise_signal"]
    if bare:
        yield cost_row("handling", WAYS["raise_signal"], "C raise and handler", bare, ours, None)


def _time(peer: Peer, way: str, count: int) -> list[float]:
    times: list[float] = peer.call(time_handling, way, count)
    return times
