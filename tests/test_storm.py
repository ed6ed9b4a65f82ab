"""Short storms of signals, each accounted for. The long one: `python tests/storm/run.py`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

STORM = Path(__file__).with_name("storm") / "run.py"


def storm(signals, seed):
    # Its own time limit writes all stacks; ours is for a watchdog that hangs as well.
    command = [sys.executable, str(STORM), f"--signals={signals}", f"--seed={seed}", "--seconds=40"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("seed", [1, 2, int.from_bytes(os.urandom(2))])
def test_every_signal_of_a_storm_is_accounted_for(seed):
    result = storm(100_000, seed)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^[1-9]\d* children", result.stdout, re.MULTILINE), result.stdout


# Fills the inbox of one signal while its handler runs, so that delivery cannot empty it.
FULL_INBOX = """
import os, sys
sys.path.insert(0, {folder!r})
import run
import sigwright as signal

SLOTS = 65_536
calls = 0
signum = run.sender_signal(0)

def handler(signum, frame):
    global calls
    calls += 1
    if calls == 1:
        for number in range(SLOTS + {extra}):
            run.sigqueue_or_wait(os.getpid(), signum, number)

signal.signal(signum, handler)
signal.raise_signal(signum)
count = signal._engine.stats()[signum]
assert count["arrivals"] == SLOTS + {extra} + 1, count
assert count["drops"] == {extra}, count
assert count["deliveries"] == calls == SLOTS + 1, (count, calls)
assert count["waiting"] == 0, count
"""


@pytest.mark.parametrize("extra", [0, 1, 1000])
def test_a_full_inbox_drops_exactly_what_does_not_fit_and_says_so(extra):
    script = FULL_INBOX.format(folder=str(STORM.parent), extra=extra)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


# The same of a standard signal, whose handler may nest: here a section of C keeps it from running.
FULL_OF_STANDARD = """
import ctypes, os
import sigwright as signal

SENT = 70_000
calls = 0

def handler(signum, frame):
    global calls
    calls += 1

signal.signal(signal.SIGUSR1, handler)
raise_in_c = ctypes.PyDLL(None)["raise"]  # with the GIL: nothing is delivered in between
raise_many = map(raise_in_c, [int(signal.SIGUSR1)] * SENT)
{run}
for _ in range(3):
    pass  # a safe point: from 3.14 on there is none right after a C call
count = signal._engine.stats()[signal.SIGUSR1]
assert count["arrivals"] == SENT, count
assert count["drops"] == count["waiting"] == 0, count
assert count["deliveries"] + count["merges"] == SENT, count
assert count["deliveries"] == calls, (count, calls)
assert {calls}, calls
"""


@pytest.mark.parametrize(
    ("run", "calls"),
    [
        # One call of C code from beginning to end: all 70,000 wait together.
        ("import collections; collections.deque(raise_many, maxlen=0)", "calls == 1"),
        ("for _ in raise_many: pass", "1 < calls <= SENT"),
    ],
)
def test_standard_signals_beyond_the_inbox_merge_and_do_not_drop(run, calls):
    script = FULL_OF_STANDARD.format(run=run, calls=calls)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
