"""What a call of each function costs."""

import functools
import timeit
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType

from harness import PYTHON, Peer, Row, both_peers, cost_row, faster_row, native

# Locals, so that no statement pays for finding its names. The numbers are given as programs give
# them: as members of the enums.
SETUP = """\
getsignal, signal, alarm = module.getsignal, module.signal, module.alarm
setitimer, getitimer, pthread_sigmask = module.setitimer, module.getitimer, module.pthread_sigmask
usr1, real, block, unblock = (
    module.SIGUSR1, module.ITIMER_REAL, module.SIG_BLOCK, module.SIG_UNBLOCK
)
def f(signum, frame): pass
def g(signum, frame): pass
signal(usr1, f)
"""
ROUND_SECONDS = 0.003
SIGACTION_MOST = 1.6


@dataclass(frozen=True)
class Call:
    what: str
    statement: str
    calls: int = 1  # in the statement
    bars: dict[str, float] = field(default_factory=dict)  # times as fast as the stdlib, by Python


NOT_SLOWER = {"3.11": 1.0, "3.12": 1.0, "3.13": 1.0}
CALLS = [
    Call("getsignal(SIGUSR1)", "getsignal(usr1)", bars={"3.11": 40, "3.13": 2.5}),
    Call(
        "signal(SIGUSR1, f), callable to callable",
        "signal(usr1, f); signal(usr1, g)",
        2,
        {"3.11": 8, "3.13": 3},
    ),
    Call("alarm(100), alarm(0)", "alarm(100); alarm(0)", 2, NOT_SLOWER),
    Call(
        "setitimer(ITIMER_REAL, 100.0), and 0",
        "setitimer(real, 100.0); setitimer(real, 0)",
        2,
        NOT_SLOWER,
    ),
    Call("getitimer(ITIMER_REAL)", "getitimer(real)", 1, NOT_SLOWER),
    Call("pthread_sigmask(SIG_BLOCK, [])", "pthread_sigmask(block, [])", 1, NOT_SLOWER),
    Call(
        "pthread_sigmask: block SIGUSR1, unblock it",
        "pthread_sigmask(block, [usr1]); pthread_sigmask(unblock, [usr1])",
        2,
        NOT_SLOWER,
    ),
]


@functools.cache
def _timer(signal: ModuleType, statement: str) -> timeit.Timer:
    return timeit.Timer(statement, SETUP, globals={"module": signal})


def time_statement(signal: ModuleType, statement: str) -> float:
    """Nanoseconds for one run of the statement, the loop around it included."""
    timer = _timer(signal, statement)
    warm_up = 200
    number = max(warm_up, int(warm_up * ROUND_SECONDS / timer.timeit(warm_up)))
    return timer.timeit(number) / number * 1e9


def time_sigaction(signal: ModuleType) -> float | None:
    library = native()
    if library is None:
        return None
    import ctypes

    library.sigaction_ns.restype = ctypes.c_double
    library.sigaction_ns(int(signal.SIGUSR2), 200)
    return float(library.sigaction_ns(int(signal.SIGUSR2), 10_000))


def _take(peer: Peer, call: Call, into: list[float]) -> None:
    into.append(peer.call(time_statement, call.statement) / call.calls)


def measure(quick: bool) -> Iterator[Row]:
    pairs, rounds = (2, 10) if quick else (4, 25)
    theirs: dict[str, list[float]] = {call.what: [] for call in CALLS}
    ours: dict[str, list[float]] = {call.what: [] for call in CALLS}
    bare: list[float] = []
    for _ in range(pairs):
        with both_peers() as (stdlib, sigwright):
            for number in range(rounds):
                for call in CALLS:
                    sides = [(stdlib, theirs), (sigwright, ours)]
                    for peer, taken in sides if number % 2 == 0 else reversed(sides):
                        _take(peer, call, taken[call.what])
                floor = stdlib.call(time_sigaction)
                if floor is not None:
                    bare.append(floor)
    for call in CALLS:
        yield faster_row(
            "calls", call.what, theirs[call.what], ours[call.what], call.bars.get(PYTHON)
        )
        if call.what.startswith("signal(") and bare:
            yield cost_row(
                "calls", call.what, "C sigaction", bare, ours[call.what], SIGACTION_MOST
            )
