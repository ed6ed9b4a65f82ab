"""What a call of each function costs."""

import ctypes
import timeit
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from types import ModuleType

from harness import NOT_SLOWER, PYTHON, Peer, Row, both_peers, cost_row, faster_row, in_turn, native

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
    # How many times as fast as the stdlib, by Python. Without: not slower, on any.
    bars: dict[str, float] = field(default_factory=dict)
    beside_sigaction: bool = False


CALLS = [
    Call("getsignal(SIGUSR1)", "getsignal(usr1)", bars={"3.11": 40, "3.13": 2.5}),
    Call(
        "signal(SIGUSR1, f), callable to callable",
        "signal(usr1, f); signal(usr1, g)",
        2,
        {"3.11": 8, "3.13": 3},
        beside_sigaction=True,
    ),
    Call("alarm(100), alarm(0)", "alarm(100); alarm(0)", 2),
    Call(
        "setitimer(ITIMER_REAL, 100.0), and 0",
        "setitimer(real, 100.0); setitimer(real, 0)",
        2,
    ),
    Call("getitimer(ITIMER_REAL)", "getitimer(real)"),
    Call("pthread_sigmask(SIG_BLOCK, [])", "pthread_sigmask(block, [])"),
    Call(
        "pthread_sigmask: block SIGUSR1, unblock it",
        "pthread_sigmask(block, [usr1]); pthread_sigmask(unblock, [usr1])",
        2,
    ),
]


@cache
def _timer(signal: ModuleType, statement: str) -> timeit.Timer:
    return timeit.Timer(statement, SETUP, globals={"module": signal})


def time_statement(signal: ModuleType, statement: str) -> float:
    """Nanoseconds for one run of the statement, the loop around it included."""
    timer = _timer(signal, statement)
    warm_up = 200
    number = max(warm_up, int(warm_up * ROUND_SECONDS / timer.timeit(warm_up)))
    return timer.timeit(number) / number * 1e9


def time_sigaction(signal: ModuleType, count: int) -> float:
    library = native()
    assert library is not None
    library.sigaction_ns.restype = ctypes.c_double
    return float(library.sigaction_ns(int(signal.SIGUSR2), count))


def measure(quick: bool) -> Iterator[Row]:
    pairs, rounds = (2, 10) if quick else (4, 25)
    # For each call: the stdlib's times, sigwright's, and bare C's where that is asked for.
    taken: dict[str, list[list[float]]] = {call.what: [[], [], []] for call in CALLS}
    for _ in range(pairs):
        with both_peers() as (stdlib, sigwright):
            for call in CALLS:
                sides = [
                    partial(_time, stdlib, call.statement, call.calls),
                    partial(_time, sigwright, call.statement, call.calls),
                ]
                if call.beside_sigaction and native() is not None:
                    sides.append(partial(_floor, stdlib))
                for all_times, times in zip(taken[call.what], in_turn(rounds, sides), strict=False):
                    all_times.extend(times)
    for call in CALLS:
        theirs, ours, bare = taken[call.what]
        bar = call.bars.get(PYTHON) if call.bars else NOT_SLOWER
        yield faster_row("calls", call.what, theirs, ours, bar)
        if bare:
            yield cost_row("calls", call.what, "C sigaction", bare, ours, SIGACTION_MOST)


def _time(peer: Peer, statement: str, calls: int) -> list[float]:
    return [peer.call(time_statement, statement) / calls]


def _floor(peer: Peer) -> list[float]:
    return [peer.call(time_sigaction, 10_000)]
