"""What every group of benchmarks shares: two peers, rounds in turn, and what the rounds amount to.

A peer is a process that holds one module, the stdlib's `signal` or sigwright, and times what it is
told to over a pipe. Both peers live through a whole group and only one works at a time. Not both
modules in one process: each wants the signal's handler and CPython's table for itself, and what one
leaves behind would be charged to the other. A process can be lucky in its memory layout, so where a
few percent count a group takes several pairs of peers, one after the other.
"""

import contextlib
import ctypes
import functools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class PeerError(RuntimeError):
    """A peer that raised, died, or did not answer in time."""


class Peer:
    """A process with one of the two modules; call() runs a function of a group's module in it."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "peer.py"), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, function: Callable[..., Any], *args: Any, timeout: float = 30) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"module": function.__module__, "function": function.__name__, "args": args}
        watchdog = threading.Timer(timeout, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            watchdog.cancel()
        if not answer:
            status = self._process.wait()
            raise PeerError(f"{self.module}: {function.__name__} ended the process: {status}")
        reply = json.loads(answer)
        if "error" in reply:
            raise PeerError(f"{self.module}: {function.__name__}: {reply['error']}")
        return reply["result"]

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=10)


@contextlib.contextmanager
def both_peers() -> Iterator[tuple[Peer, Peer]]:
    peers = Peer("signal"), Peer("sigwright")
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()


def in_turn(rounds: int, sides: Sequence[Callable[[], Sequence[float]]]) -> list[list[float]]:
    """One round of each side after the other; who begins changes, so that nobody always follows."""
    taken: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for side in order:
            taken[side].extend(sides[side]())
    return taken


@dataclass(frozen=True)
class Times:
    """Nanoseconds: the median, its spread, and the slow end."""

    median: float
    low: float  # the quartiles
    high: float
    p99: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Times":
        percentiles = statistics.quantiles(values, n=100, method="inclusive")
        return cls(percentiles[49], percentiles[24], percentiles[74], percentiles[98], len(values))

    def __str__(self) -> str:
        size, unit = _unit(self.median)
        middle, low, high = (_plain(ns / size) for ns in (self.median, self.low, self.high))
        return f"{middle} {unit} ({low}–{high})"


def _unit(nanoseconds: float) -> tuple[float, str]:
    """Nanoseconds up to 10 µs: what differs there are tens of them."""
    for least, size, unit in ((1e9, 1e9, "s"), (1e6, 1e6, "ms"), (1e4, 1e3, "µs")):
        if nanoseconds >= least:
            return size, unit
    return 1, "ns"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:#.3g}"


def show_ns(nanoseconds: float) -> str:
    size, unit = _unit(nanoseconds)
    return f"{_plain(nanoseconds / size)} {unit}"


@dataclass(frozen=True)
class Row:
    """One line of the table. `met` is None where there is no bar, and nobody fails by one."""

    group: str
    what: str
    beside: str  # whom sigwright is measured beside
    theirs: Times | str
    ours: Times | str
    result: str
    bar: str = ""
    met: bool | None = None


# A bar for faster_row. Where both are one system call, who is ahead by a percent is up to the day:
# a median that lies within the stdlib's own spread is not slower.
NOT_SLOWER = 0.0


def faster_row(
    group: str,
    what: str,
    theirs: Sequence[float],
    ours: Sequence[float],
    bar: float | None,
    beside: str = "stdlib",
) -> Row:
    """How many times as fast as the other. Compared as printed, with two decimals."""
    their_times, our_times = Times.of(theirs), Times.of(ours)
    ratio = round(their_times.median / our_times.median, 2)
    met: bool | None = None
    wanted = ""
    if bar == NOT_SLOWER:
        wanted, met = "not slower, within the spread", our_times.median <= their_times.high
    elif bar is not None:
        wanted, met = f"at least {bar:g} times", ratio >= bar
    result = f"{ratio:.2f} times as fast"
    return Row(group, what, beside, their_times, our_times, result, wanted, met)


def cost_row(
    group: str,
    what: str,
    beside: str,
    theirs: Sequence[float],
    ours: Sequence[float],
    bar: float | None,
) -> Row:
    """How much longer than the other. Compared as printed, with two decimals."""
    their_times, our_times = Times.of(theirs), Times.of(ours)
    ratio = round(our_times.median / their_times.median, 2)
    wanted = "" if bar is None else f"at most {bar:g} times"
    met = None if bar is None else ratio <= bar
    result = f"takes {ratio:.2f} times as long"
    return Row(group, what, beside, their_times, our_times, result, wanted, met)


@functools.cache
def native() -> ctypes.CDLL | None:
    """The bare C beside which the engine is measured; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "native.so"
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "native.c")],
            check=True,
        )
        return ctypes.CDLL(str(library))
