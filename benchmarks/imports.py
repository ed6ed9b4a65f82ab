"""What `import sigwright` costs over `import signal`, in fresh processes, and what it starts."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

from harness import Row, Times, in_turn

MOST = 3e6  # ns
TIMED = """\
import time
start = time.perf_counter_ns()
import {module}
print(time.perf_counter_ns() - start)
"""
# What there is of each kind, by name; the kernel may have been built without the list of timers.
STARTED = """\
import json, os, signal
def there():
    timers = "/proc/self/timers"
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "fds": len(os.listdir("/proc/self/fd")),
        "timers": open(timers).read().count("ID:") if os.path.exists(timers) else 0,
    }
before = there()
import sigwright
after = there()
import sys
print(json.dumps([before, after, "threading" in sys.modules]))
"""


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def _import(module: str) -> list[float]:
    return [float(_run(TIMED.format(module=module)))]


def _process(module: str) -> list[float]:
    start = time.perf_counter_ns()
    _run(f"import {module}")
    return [time.perf_counter_ns() - start]


def measure(quick: bool) -> Iterator[Row]:
    rounds = 10 if quick else 100
    for what, one in (("the import statement", _import), ("a whole process", _process)):
        theirs, ours = in_turn(rounds, [partial(one, "signal"), partial(one, "sigwright")])
        over = Times.of(ours).median - Times.of(theirs).median
        yield Row(
            "imports",
            f"{what}, beside `import signal`",
            "stdlib",
            Times.of(theirs),
            Times.of(ours),
            f"{over / 1e6:+.2f} ms",
            f"at most {MOST / 1e6:g} ms more",
            over <= MOST,
        )
    before, after, has_threading = json.loads(_run(STARTED))
    started = [f"{after[kind] - before[kind]} {kind}" for kind in before]
    yield Row(
        "imports",
        "what the import starts",
        "stdlib",
        "nothing",
        ", ".join(started) + (", imports threading" if has_threading else ""),
        "",
        "nothing",
        before == after and not has_threading,
    )
