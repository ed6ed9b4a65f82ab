"""Listeners: queued signals from another process, and what listeners cost in time and in memory.

    python benchmarks/listening.py PID SIGNUM COUNT

is the other process: it queues numbered signals, once a line comes on its stdin.
"""

import contextlib
import ctypes
import gc
import itertools
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import handling
from harness import Peer, PeerError, Row, Times, both_peers, cost_row, in_turn, native, show_ns

COUNT = 100_000
ROOM = 131_072
RATE_LEAST = 0.8
LISTENERS = (0, 1, 2, 4, 8)
EACH_MOST = 500.0  # ns
# Of listeners that are open at the same time, by maxsize.
SIZES = {16: 100, 1024: 100, 65_536: 10}
FIXED_BYTES, SLOT_BYTES = 4096, 128


# --- queued signals -------------------------------------------------------------------------------


def send(pid: int, signum: int, count: int) -> None:
    library = native()
    assert library is not None
    print("ready", flush=True)
    sys.stdin.readline()
    if library.send_numbered(pid, signum, count) < 0:
        sys.exit(f"cannot queue signals to {pid}")


@contextlib.contextmanager
def sender(signum: int, count: int) -> Iterator[int]:
    """Another process, ready to send. It begins when a line is written to the fd."""
    arguments = [str(number) for number in (os.getpid(), signum, count)]
    with subprocess.Popen(
        [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.stdin.fileno()
    assert process.returncode == 0


def take_in_c(signal: ModuleType, count: int) -> float:
    """Nanoseconds for each signal, taken with sigwaitinfo() and its value stored."""
    library = native()
    assert library is not None
    library.take_numbered.restype = ctypes.c_longlong
    signum = int(signal.SIGRTMIN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
    values = (ctypes.c_int * count)()
    with sender(signum, count) as start:
        nanoseconds = library.take_numbered(start, signum, count, values)
    assert list(values) == list(range(count)), "not all, or not in order"
    return float(nanoseconds) / count


def take_in_python(signal: ModuleType, count: int) -> float:
    """The same with the stdlib's sigwaitinfo(), which does not tell the values."""
    signum = int(signal.SIGRTMIN)
    wait, signals = signal.sigwaitinfo, [signum]
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with sender(signum, count) as start:
        began = time.perf_counter_ns()
        os.write(start, b"\n")
        for _ in range(count):
            wait(signals)
        return (time.perf_counter_ns() - began) / count


def take_from_listener(signal: ModuleType, count: int) -> float:
    """The same with a listener, read by the thread that the signals interrupt."""
    signum = int(signal.SIGRTMIN)
    with sender(signum, count) as start, signal.listen(signum, maxsize=ROOM) as listener:
        began = time.perf_counter_ns()
        os.write(start, b"\n")
        values = [info.si_value for info in itertools.islice(listener, count)]
        nanoseconds = time.perf_counter_ns() - began
        assert listener.dropped == 0
    assert values == list(range(count)), "not all, or not in order"
    return nanoseconds / count


def measure_queued(quick: bool) -> Iterator[Row]:
    if native() is None:
        return
    rounds = 3 if quick else 12
    with both_peers() as (stdlib, sigwright):
        in_c, in_python, ours = in_turn(
            rounds,
            [
                lambda: [stdlib.call(take_in_c, COUNT)],
                lambda: [stdlib.call(take_in_python, COUNT)],
                lambda: [sigwright.call(take_from_listener, COUNT)],
            ],
        )
    for what, theirs, least in (
        ("C sigwaitinfo", in_c, RATE_LEAST),
        ("stdlib sigwaitinfo, which tells no values", in_python, None),
    ):
        ratio = round(Times.of(theirs).median / Times.of(ours).median, 2)
        yield Row(
            "listening",
            f"{COUNT:,} queued by another process, all received in order with their values: each",
            what,
            Times.of(theirs),
            Times.of(ours),
            f"{ratio:.2f} times the rate",
            "" if least is None else f"at least {least:g} times",
            None if least is None else ratio >= least,
        )


# --- what a listener costs an arrival -------------------------------------------------------------


def time_raise(signal: ModuleType, listeners: int, count: int) -> list[float]:
    """Nanoseconds for raise_signal(), with a handler and this many listeners: each of `count`.

    Every listener has been read when the next signal comes: each arrival has to wake its reader.
    """
    raise_signal, signum, clock = signal.raise_signal, signal.SIGUSR1, time.perf_counter_ns
    signal.signal(signum, _handler)
    times: list[float] = []
    gc.disable()
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(signal.listen(signum)) for _ in range(listeners)]
        drains = [listener.drain for listener in opened]
        for _ in range(count):
            start = clock()
            raise_signal(signum)
            times.append(clock() - start)
            for drain in drains:
                assert len(drain()) == 1
    gc.enable()
    return times


def _handler(signum: int, frame: object) -> None:
    pass


def measure_arrivals(quick: bool) -> Iterator[Row]:
    pairs, rounds, count = (2, 6, 200) if quick else (6, 20, 200)
    taken: list[list[float]] = [[] for _ in LISTENERS]
    for _ in range(pairs):
        peer = Peer("sigwright")
        sides = [partial(peer.call, time_raise, listeners, count) for listeners in LISTENERS]
        for times, more in zip(taken, in_turn(rounds, sides), strict=True):
            times.extend(more)
        peer.close()
    medians = [Times.of(times).median for times in taken]
    slope = statistics.linear_regression(LISTENERS, medians).slope
    # What each of n adds, over none: a line alone could hide that the first one is dear.
    each = [(medians[i] - medians[0]) / n for i, n in enumerate(LISTENERS) if n > 0]
    shown = ", ".join(f"{show_ns(ns)} (of {n})" for n, ns in zip(LISTENERS[1:], each, strict=True))
    yield Row(
        "listening",
        f"raise_signal(SIGUSR1) with a handler and {LISTENERS[-1]} listeners",
        "no listener",
        Times.of(taken[0]),
        Times.of(taken[-1]),
        f"{show_ns(slope)} for each listener, by a line through 0 to {LISTENERS[-1]} of them; "
        f"each costs {shown}",
        f"at most {EACH_MOST:g} ns for each",
        max(slope, *each) <= EACH_MOST,
    )


# --- memory ---------------------------------------------------------------------------------------


def measure_memory_of(signal: ModuleType, maxsize: int, count: int) -> list[float]:
    """Bytes for each of `count` listeners whose rings are full: resident; of them Python objects.

    Every slot has been written, so every page of a ring is there. One more listener is open before
    and after: what the engine needs for the first one, it needs once.
    """
    raise_signal, signum = signal.raise_signal, signal.SIGUSR1

    def fill() -> None:
        for _ in range(maxsize):
            raise_signal(signum)

    first = signal.listen(signum, maxsize=maxsize)
    fill()
    first.drain()
    opened = [first] * count
    gc.collect()
    before = _resident()
    for number in range(count):
        opened[number] = signal.listen(signum, maxsize=maxsize)
    fill()
    resident = _resident() - before
    for listener in opened:
        assert len(listener.drain()) == maxsize and listener.dropped == 0, "the ring was not full"
        listener.close()
    # Once more, counted: tracemalloc needs memory of its own.
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(count):
        opened[number] = signal.listen(signum, maxsize=maxsize)
    objects = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    first.close(discard=True)
    return [resident / count, objects / count]


def _resident() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    (line,) = (line for line in rollup.splitlines() if line.startswith("Rss:"))
    return int(line.split()[1]) * 1024


def measure_memory(quick: bool) -> Iterator[Row]:
    for maxsize, count in SIZES.items():
        rounds: list[list[float]] = []
        for _ in range(3 if quick else 8):
            peer = Peer("sigwright")
            rounds.append(peer.call(measure_memory_of, maxsize, count))
            peer.close()
        resident, objects = (statistics.median(values) for values in zip(*rounds, strict=True))
        # The objects may lie in pages that were there before: added, although most are in both.
        total, most = resident + objects, SLOT_BYTES * maxsize + FIXED_BYTES
        yield Row(
            "listening",
            f"memory of a listener with maxsize={maxsize:,} and a full ring",
            "the bound",
            f"{most:,} bytes",
            f"{total:,.0f} bytes",
            f"resident {resident:,.0f}, and its Python object's {objects:,.0f} once more",
            f"at most {SLOT_BYTES} bytes times maxsize plus 4 KiB",
            total <= most,
        )


# --- nothing for who does not listen --------------------------------------------------------------


def measure_against(site: str, quick: bool) -> Iterator[Row]:
    """From raise to the handler's end, without a listener, beside another build of sigwright.

    Two processes have the other build, so that the rows can say what difference means nothing.
    """
    groups, rounds, count = (3, 8, 300) if quick else (12, 25, 400)
    for way, what in handling.WAYS.items():
        taken: list[list[float]] = [[], [], []]
        ratios: list[list[float]] = [[], []]  # of medians: ours, and the other's second process
        for _ in range(groups):
            with _with_build(site) as other, _with_build(site) as again, _with_build(None) as now:
                sides = [
                    partial(peer.call, handling.time_handling, way, count)
                    for peer in (other, now, again)
                ]
                group = in_turn(rounds, sides)
            first, *rest = (Times.of(times).median for times in group)
            for all_ratios, median in zip(ratios, rest, strict=True):
                all_ratios.append(median / first)
            for all_times, times in zip(taken, group, strict=True):
                all_times.extend(times)
        ours, noise = Times.of(ratios[0]), Times.of(ratios[1])
        row = cost_row("against", what, "the other build", taken[0] + taken[2], taken[1], None)
        yield Row(
            row.group,
            f"{row.what}, no listener",
            row.beside,
            row.theirs,
            row.ours,
            f"takes {ours.median:.3f} ({ours.low:.3f}–{ours.high:.3f}) times as long; the other "
            f"beside itself {noise.median:.3f} ({noise.low:.3f}–{noise.high:.3f})",
            "as the other beside itself, within the spread",
            ours.median <= noise.high,
        )


@contextlib.contextmanager
def _with_build(site: str | None) -> Iterator[Peer]:
    """A peer with the build in the folder `site`; None: with the one that is installed."""
    with contextlib.ExitStack() as stack:
        if site is not None:
            before = os.environ.get("PYTHONPATH")
            os.environ["PYTHONPATH"] = site
            stack.callback(_put_back, before)
        peer = Peer("sigwright")
        stack.close()
        stack.callback(peer.close)
        if site is not None and not Path(peer.call(file_of)).is_relative_to(Path(site).resolve()):
            raise PeerError(f"no sigwright in {site}")
        yield peer


def _put_back(python_path: str | None) -> None:
    if python_path is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = python_path


def file_of(signal: ModuleType) -> str:
    return str(Path(str(signal.__file__)).resolve())


def measure(quick: bool) -> Iterator[Row]:
    yield from measure_queued(quick)
    yield from measure_arrivals(quick)
    yield from measure_memory(quick)


if __name__ == "__main__":
    send(*map(int, sys.argv[1:]))
