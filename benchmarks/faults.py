"""A real segmentation fault in a program that has set a handler for SIGSEGV."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness import Row, Times

PROGRAM = """\
import ctypes, resource, sys, time
import {module} as signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.signal(signal.SIGSEGV, lambda signum, frame: None)
print(time.perf_counter_ns(), flush=True)
ctypes.string_at(0)
"""
GIVE_UP = 3.0
MOST = 1.0


@dataclass(frozen=True)
class End:
    status: int | None  # None: it did not end, and was killed
    seconds: float
    stacks: bool


def fault(module: str) -> End:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        began = int(process.stdout.readline())  # CLOCK_MONOTONIC, one clock for all processes
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(GIVE_UP)
        seconds = (time.perf_counter_ns() - began) / 1e9
        process.kill()
        return End(status, seconds, "most recent call first" in process.stderr.read())


def measure(quick: bool) -> Iterator[Row]:
    stdlib = fault("signal")
    ends = [fault("sigwright") for _ in range(3 if quick else 10)]
    times = Times.of([end.seconds * 1e9 for end in ends])
    dies = all(end.status == -signal.SIGSEGV for end in ends)
    yield Row(
        "faults",
        "a real SIGSEGV with a handler set: to the end of the process",
        "stdlib",
        f"hangs (killed after {GIVE_UP:g} s)"
        if stdlib.status is None
        else f"{stdlib.seconds:.3g} s, status {stdlib.status}",
        times,
        "dies by SIGSEGV" if dies else f"status {ends[0].status}",
        f"by SIGSEGV within {MOST:g} s",
        dies and max(end.seconds for end in ends) <= MOST,
    )
    stacks = sum(end.stacks for end in ends)
    yield Row(
        "faults",
        "stacks of the threads on stderr",
        "stdlib",
        "yes" if stdlib.stacks else "no",
        f"{stacks} of {len(ends)}",
        "",
        "always",
        stacks == len(ends),
    )
