"""Critical sections, time limits and timers, each beside what a program has without sigwright.

    python benchmarks/control.py deferred|limit main|worker COUNT

is the program whose system calls strace counts: so many blocks, in that thread.
"""

import gc
import importlib.util
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness import Peer, Row, Times, both_peers, cost_row, faster_row, in_turn, show_ns

if TYPE_CHECKING:
    import asyncio  # where it is measured, and nowhere else: see LIMIT_BESIDE_LOOPS

# On 3.15 a lock is faster than it was.
NEW_LOCK = sys.version_info >= (3, 15)
DEFERRED_MOST = 1.2 if NEW_LOCK else 0.75
LIMIT_MOST = None if NEW_LOCK else 1.5
LEAST = 15.0
ROUND_SECONDS = 0.003


# --- what a block costs ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """One way to enter a block and leave it, as a program would write it."""

    what: str
    statement: str
    setup: str = "pass"
    needs: str = ""  # what has to be installed
    # For a limit that is not a `with` statement in plain code.
    loop: str = ""
    decorator: bool = False


LOCK = Use("`with` on an uncontended threading.Lock", "with lock: pass", "lock = module.Lock()")
# What the interpreter takes for the statement itself: entering and leaving do nothing there, in C.
NOTHING = Use(
    "`with` on a closed os.scandir(), which does nothing",
    "with iterator: pass",
    "import os\niterator = os.scandir(os.sep)\niterator.close()",
)
MASKS = Use(
    "stdlib: pthread_sigmask(SIG_BLOCK, [SIGINT]), and the old mask again",
    "old = mask(block, signals); mask(set_mask, old)",
    "mask, signals = module.pthread_sigmask, [module.SIGINT]\n"
    "block, set_mask = module.SIG_BLOCK, module.SIG_SETMASK",
)
DEFERRED = Use(
    "with deferred, entered and left", "with section: pass", "section = module.deferred()"
)
DEFERRED_ONE = Use(
    "with deferred(SIGINT), entered and left",
    "with section: pass",
    "section = module.deferred(module.SIGINT)",
)
LIMIT = Use(
    "with fail_after(5), made, entered and left",
    "with fail_after(5): pass",
    "fail_after = module.fail_after",
)
# A limit refuses to work inside a running event loop, so where there may be one it has to look.
LIMIT_BESIDE_LOOPS = [
    Use(
        f"{LIMIT.what}, {loop} imported",
        LIMIT.statement,
        f"import {loop}\n{LIMIT.setup}",
        needs=loop,
    )
    for loop in ("asyncio", "trio")
]
LIMIT_DECORATOR = Use(
    "a function under @fail_after(5), called",
    "f()",
    "@module.fail_after(5)\ndef f(): pass",
    decorator=True,
)
QUIET = "import warnings; warnings.simplefilter('ignore')"  # about pkg_resources, at import
OTHER_LIMITS = [
    Use("asyncio.timeout", "", loop="asyncio"),
    Use("trio.fail_after", "", needs="trio", loop="trio"),
    Use(
        "timeout-decorator",
        "f()",
        "from timeout_decorator import timeout\n@timeout(5)\ndef f(): pass",
        needs="timeout_decorator",
        decorator=True,
    ),
    Use(
        "stopit.ThreadingTimeout",
        "with timeout(5): pass",
        f"{QUIET}\nfrom stopit import ThreadingTimeout as timeout",
        needs="stopit",
    ),
    Use(
        "stopit.SignalTimeout",
        "with timeout(5): pass",
        f"{QUIET}\nfrom stopit import SignalTimeout as timeout",
        needs="stopit",
    ),
    Use(
        "interruptingcow",
        "with timeout(5, exception=RuntimeError): pass",
        "from interruptingcow import timeout",
        needs="interruptingcow",
    ),
    Use(
        "func-timeout",
        "timeout(5, f)",
        "from func_timeout import func_timeout as timeout\ndef f(): pass",
        needs="func_timeout",
        decorator=True,
    ),
    Use(
        "wrapt-timeout-decorator",
        "f()",
        "from wrapt_timeout_decorator import timeout\n@timeout(5)\ndef f(): pass",
        needs="wrapt_timeout_decorator",
        decorator=True,
    ),
]


def time_use(signal: ModuleType, name: str, in_worker: bool) -> float:
    """Nanoseconds for one block, the loop around it included."""
    if not in_worker:
        return _time_use(signal, name)
    taken: list[float] = []
    thread = threading.Thread(target=lambda: taken.append(_time_use(signal, name)))
    thread.start()
    thread.join()
    return taken[0]


def _time_use(signal: ModuleType, name: str) -> float:
    run = _runner(signal, name)
    warm_up = 50
    number = max(warm_up, int(warm_up * ROUND_SECONDS / run(warm_up)))
    return run(number) / number * 1e9


@cache
def _runner(signal: ModuleType, name: str) -> Callable[[int], float]:
    """Runs the statement so many times; the seconds."""
    (use,) = (use for use in _all_uses() if use.what == name)
    if use.loop == "asyncio":
        import asyncio

        return lambda number: asyncio.run(_in_asyncio(asyncio.timeout, number))
    if use.loop == "trio":
        import trio

        return lambda number: float(trio.run(_in_trio, trio.fail_after, number))
    module: Any = threading if use is LOCK else signal
    return timeit.Timer(use.statement, use.setup, globals={"module": module}).timeit


def _all_uses() -> list[Use]:
    ours = [DEFERRED, DEFERRED_ONE, LIMIT, LIMIT_DECORATOR, *LIMIT_BESIDE_LOOPS]
    return [LOCK, NOTHING, MASKS, *ours, *OTHER_LIMITS]


def _installed(uses: Iterable[Use]) -> list[Use]:
    return [use for use in uses if not use.needs or importlib.util.find_spec(use.needs)]


async def _in_asyncio(
    timeout: Callable[[float], AbstractAsyncContextManager[Any]], number: int
) -> float:
    repeated = itertools.repeat(None, number)
    gc.disable()
    start = time.perf_counter()
    for _ in repeated:
        async with timeout(5):
            pass
    taken = time.perf_counter() - start
    gc.enable()
    return taken


async def _in_trio(
    fail_after: Callable[[float], AbstractContextManager[Any]], number: int
) -> float:
    repeated = itertools.repeat(None, number)
    gc.disable()
    start = time.perf_counter()
    for _ in repeated:
        with fail_after(5):
            pass
    taken = time.perf_counter() - start
    gc.enable()
    return taken


def measure_blocks(quick: bool) -> Iterator[Row]:
    pairs, rounds = (2, 8) if quick else (5, 20)
    others, beside_loops = _installed(OTHER_LIMITS), _installed(LIMIT_BESIDE_LOOPS)
    # What is sigwright's runs in sigwright's process, and so does the lock: whatever luck that
    # process has with its memory, both have it.
    in_main = [LOCK, NOTHING, DEFERRED, DEFERRED_ONE, LIMIT, LIMIT_DECORATOR]
    in_worker = [LOCK, DEFERRED, LIMIT]
    theirs = [MASKS, *others]
    taken: dict[tuple[str, bool], list[float]] = {}
    for _ in range(pairs):
        with both_peers() as (stdlib, sigwright), ExitStack() as stack:
            # What is imported stays imported: each of these has a process of its own.
            loaded = [stack.enter_context(closing(Peer("sigwright"))) for _ in beside_loops]
            sides = {
                **{
                    (use.what, False): partial(_time, peer, use, False)
                    for use, peer in zip(beside_loops, loaded, strict=True)
                },
                **{(use.what, False): partial(_time, sigwright, use, False) for use in in_main},
                **{(use.what, True): partial(_time, sigwright, use, True) for use in in_worker},
                **{(use.what, False): partial(_time, stdlib, use, False) for use in theirs},
            }
            results = in_turn(rounds, list(sides.values()))
            for side, times in zip(sides, results, strict=True):
                taken.setdefault(side, []).extend(times)

    def longer_than(use: Use, in_worker: bool, bar: float | None, other: Use = LOCK) -> Row:
        where = ", in a worker thread" if in_worker else ""
        their_times, our_times = taken[other.what, in_worker], taken[use.what, in_worker]
        return cost_row("control", use.what + where, other.what, their_times, our_times, bar)

    def faster_than(use: Use, other: Use, bar: float | None = LEAST) -> Row:
        their_times, our_times = taken[other.what, False], taken[use.what, False]
        return faster_row("control", use.what, their_times, our_times, bar, other.what)

    yield longer_than(DEFERRED, False, DEFERRED_MOST)
    yield longer_than(DEFERRED, True, None)
    yield longer_than(DEFERRED_ONE, False, None)
    yield longer_than(DEFERRED, False, None, NOTHING)
    yield faster_than(DEFERRED, MASKS)
    yield longer_than(LIMIT, False, LIMIT_MOST)
    yield longer_than(LIMIT, True, LIMIT_MOST)
    yield longer_than(LIMIT, False, None, NOTHING)
    for use in beside_loops:
        yield longer_than(use, False, None)
    for other in others:
        yield faster_than(LIMIT, other)
        if other.decorator:
            yield faster_than(LIMIT_DECORATOR, other, None)


def _time(peer: Peer, use: Use, in_worker: bool) -> list[float]:
    return [peer.call(time_use, use.what, in_worker)]


# --- system calls ---------------------------------------------------------------------------------

PLACES = {"main": "", "worker": ", in a worker thread"}
TRACED = {"deferred": DEFERRED, "limit": LIMIT}
BLOCKS = 100_000
CALLS_MOST = 0.005  # a block: none, as printed


def enter_blocks(kind: str, place: str, count: int) -> None:
    """The program under strace."""
    import sigwright

    def work() -> None:
        section = sigwright.deferred()
        for _ in range(count):
            with section if kind == "deferred" else sigwright.fail_after(5):
                pass

    if place == "main":
        work()
        return
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _system_calls(kind: str, place: str, count: int) -> int | None:
    """How many the whole program makes; None: it cannot be traced here."""
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary"
        trace = ["strace", "-f", "-c", "-U", "calls,name", "-o", str(summary)]
        program = [sys.executable, __file__, kind, place, str(count)]
        if subprocess.run([*trace, *program], check=False, stderr=subprocess.DEVNULL).returncode:
            return None
        *_, total = summary.read_text(encoding="ascii").splitlines()
        calls, name = total.split()
        assert name == "total"
        return int(calls)


def measure_system_calls() -> Iterator[Row]:
    if shutil.which("strace") is None:
        return
    for kind, use in TRACED.items():
        for place, where in PLACES.items():
            with_blocks, without = (_system_calls(kind, place, count) for count in (BLOCKS, 0))
            if with_blocks is None or without is None:
                continue
            each = (with_blocks - without) / BLOCKS
            yield Row(
                "control",
                f"system calls of {BLOCKS:,} blocks, {use.what}{where}",
                "the same program with 0 blocks",
                f"{without:,}",
                f"{with_blocks:,}",
                f"{each:.2f} a block (strace)",
                "none on average",
                each < CALLS_MOST,
            )


# --- how late a limit is --------------------------------------------------------------------------

FREE_MOST = 200e3  # ns, the median
BOUND = 0.5  # seconds after which a wait ends by itself: the limit was not raised


class LimitError(Exception):
    """What the stdlib's handler raises."""


def time_expiry(signal: ModuleType, where: str, busy: bool, count: int) -> list[float]:
    """Nanoseconds from the deadline to the first line that runs because of it: each of `count`."""
    stop = threading.Event()
    if busy:
        threading.Thread(target=_spin, args=[stop], daemon=True).start()
    once = _once_limit if hasattr(signal, "fail_after") else _once_itimer
    # Not at the same point of a busy thread's switch interval each time.
    limits = [random.uniform(0.02, 0.03) for _ in range(count)]
    late: list[float] = []

    def work() -> None:
        late.extend(once(signal, seconds, where != "asleep") for seconds in limits)

    try:
        if where == "worker":
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        else:
            work()
    finally:
        stop.set()
    return late


def _spin(stop: threading.Event) -> None:
    while not stop.is_set():
        for _ in range(1000):
            pass


def _wait(in_python: bool) -> None:
    if in_python:
        end = time.monotonic() + BOUND
        while time.monotonic() < end:
            pass
    else:
        time.sleep(BOUND)


def _once_limit(signal: ModuleType, seconds: float, in_python: bool) -> float:
    raised = 0
    try:
        with signal.fail_after(seconds) as scope:
            try:
                _wait(in_python)
            finally:
                raised = time.monotonic_ns()
    except TimeoutError:
        return raised - float(scope.deadline) * 1e9
    raise AssertionError("no limit")


def _once_itimer(signal: ModuleType, seconds: float, in_python: bool) -> float:
    def handler(signum: int, frame: object) -> None:
        raise LimitError

    signal.signal(signal.SIGALRM, handler)
    raised = 0
    deadline = time.monotonic_ns() + seconds * 1e9
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            _wait(in_python)
        finally:
            raised = time.monotonic_ns()
    except LimitError:
        return raised - deadline
    raise AssertionError("no alarm")


def measure_expiry(quick: bool) -> Iterator[Row]:
    rounds, count = (2, 15) if quick else (6, 30)
    two_intervals = 2 * sys.getswitchinterval() * 1e9
    cases = {
        "main thread asleep, the GIL is free": ("asleep", False, FREE_MOST),
        "main thread asleep, one worker busy in Python": ("asleep", True, two_intervals),
        "main thread busy in Python": ("in Python", False, None),
        "a worker's limit, the worker busy in Python": ("worker", False, two_intervals),
        "a worker's limit, the worker and one more busy in Python": ("worker", True, None),
    }
    with both_peers() as (stdlib, sigwright):
        for what, (where, busy, most) in cases.items():
            sides = [partial(sigwright.call, time_expiry, where, busy, count)]
            if where != "worker":
                sides.append(partial(stdlib.call, time_expiry, where, busy, count))
            ours, *theirs = in_turn(rounds, sides)
            times = Times.of(ours)
            yield Row(
                "control",
                f"late after its deadline: {what}",
                "stdlib setitimer",
                Times.of(theirs[0]) if theirs else "only in the main thread",
                times,
                f"99th percentile {times.p99 / 1e6:.2f} ms",
                "" if most is None else f"median at most {show_ns(most)}",
                None if most is None else times.median <= most,
            )


# --- timers ---------------------------------------------------------------------------------------

FEW, MANY, VERY_MANY = 100, 100_000, 1_000_000
BATCH_LEAST, BATCH_MOST = 1000, 100_000
TIMER_MOST = 500.0  # ns
GROWTH_MOST = 2.5
THREADS_LEAST = 100.0

_held: list[Any] = []  # the handles of what is armed while others are measured


def _nothing() -> None:
    pass


@cache
def _loop() -> "asyncio.AbstractEventLoop":
    import asyncio

    return asyncio.new_event_loop()


async def _turn() -> None:
    pass


def hold(signal: ModuleType, count: int) -> float:
    """Arm so many timers at random times, far away. Nanoseconds each."""
    call_later = _call_later(signal)
    delays = _delays(count)
    gc.disable()
    start = time.perf_counter_ns()
    _held.extend([call_later(delay, _nothing) for delay in delays])
    taken = time.perf_counter_ns() - start
    gc.enable()
    return taken / count


def _call_later(signal: ModuleType) -> Callable[..., Any]:
    """That of sigwright where that is the module, and otherwise that of an asyncio loop."""
    ours: Callable[..., Any] | None = getattr(signal, "call_later", None)
    return ours or _loop().call_later


def _delays(count: int) -> list[float]:
    return [random.uniform(1_000, 100_000) for _ in range(count)]


def time_timers(signal: ModuleType, held: int) -> list[float]:
    """Nanoseconds to arm a timer, and to cancel one, beside so many armed ones.

    Both leave a cancelled timer where it is, and clear up when half are such: as many are armed and
    cancelled as there are, so that clearing up is in the time. asyncio does it when the loop turns.
    """
    if len(_held) != held:
        assert not _held
        hold(signal, held)
    batch = min(max(BATCH_LEAST, held), BATCH_MOST)
    call_later, delays = _call_later(signal), _delays(batch)
    clock = time.perf_counter_ns
    gc.disable()
    start = clock()
    handles = [call_later(delay, _nothing) for delay in delays]
    arm = clock() - start
    random.shuffle(handles)
    start = clock()
    for handle in handles:
        handle.cancel()
    if not hasattr(signal, "call_later"):
        _loop().run_until_complete(_turn())
    cancel = clock() - start
    gc.enable()
    return [arm / batch, cancel / batch]


def time_threads(signal: ModuleType, count: int) -> list[float]:
    """Nanoseconds to make and start a threading.Timer, and to cancel it: each of `count`."""
    clock = time.perf_counter_ns
    times: list[float] = []
    for _ in range(count):
        start = clock()
        timer = threading.Timer(1_000, _nothing)
        timer.start()
        armed = clock()
        timer.cancel()
        times += [armed - start, clock() - armed]
        timer.join()
    return times


def run_all(signal: ModuleType, count: int) -> list[float]:
    """Arm so many, all due within the second that follows, and wait. How many ran; ns each."""
    ran: list[None] = []
    note, call_at = partial(ran.append, None), signal.call_at
    gc.disable()
    begin = time.monotonic() + count * 2e-6  # armed by then, or late; it is the same here
    deadlines = [begin + random.random() for _ in range(count)]
    before = time.process_time_ns()
    for deadline in deadlines:
        call_at(deadline, note)
    end = time.monotonic() + 60
    while len(ran) < count and time.monotonic() < end:
        time.sleep(0.1)
    gc.enable()
    return [len(ran), (time.process_time_ns() - before) / count]


def measure_timers(quick: bool) -> Iterator[Row]:
    pairs, rounds = (1, 10) if quick else (3, 25)
    populations = (FEW, MANY, VERY_MANY)
    taken: dict[tuple[str, int], list[float]] = {}
    threads: list[float] = []
    for pair in range(pairs):
        # A process for each population. The million, which takes asyncio its time, once.
        for held in populations if pair == 0 else populations[:-1]:
            with both_peers() as (stdlib, sigwright):
                for peer in (stdlib, sigwright):
                    peer.call(time_timers, held, timeout=120)
                sides = [
                    partial(stdlib.call, time_timers, held),
                    partial(sigwright.call, time_timers, held),
                    partial(stdlib.call, time_threads, 20 if held == FEW else 0),
                ]
                theirs, ours, more = in_turn(rounds, sides)
                taken.setdefault(("asyncio", held), []).extend(theirs)
                taken.setdefault(("sigwright", held), []).extend(ours)
                threads += more
    timed = {
        (what, held): taken["sigwright", held][which::2]
        for which, what in enumerate(("arm", "cancel"))
        for held in populations
    }
    for what in ("arm", "cancel"):
        few, many = timed[what, FEW], timed[what, MANY]
        median = Times.of(many).median
        yield Row(
            "control",
            f"{what} a timer, {MANY:,} armed at random times",
            "the bound",
            show_ns(TIMER_MOST),
            Times.of(many),
            "",
            f"at most {show_ns(TIMER_MOST)}",
            median <= TIMER_MOST,
        )
        yield cost_row(
            "control", f"{what} a timer, {MANY:,} armed", f"{FEW} armed", few, many, GROWTH_MOST
        )
    for held in populations:
        for which, what in enumerate(("arm", "cancel")):
            yield faster_row(
                "control",
                f"{what} a timer, {held:,} armed",
                taken["asyncio", held][which::2],
                timed[what, held],
                1.0 if what == "arm" else None,
                "asyncio's call_later" if what == "arm" else "asyncio's TimerHandle.cancel",
            )
    for which, what in enumerate(("arm", "cancel")):
        yield faster_row(
            "control",
            f"{what} a timer, {MANY:,} armed",
            threads[which::2],
            timed[what, MANY],
            THREADS_LEAST if what == "arm" else None,
            "threading.Timer, none armed",
        )
    peer = Peer("sigwright")
    ran, each = peer.call(run_all, VERY_MANY, timeout=120)
    peer.close()
    yield Row(
        "control",
        f"{VERY_MANY:,} timers armed, all due within a second",
        "the bound",
        f"{VERY_MANY:,} callbacks",
        f"{ran:,.0f} callbacks",
        f"{show_ns(each)} of processor time each, to arm and to run",
        "all",
        ran == VERY_MANY,
    )


def measure(quick: bool) -> Iterator[Row]:
    yield from measure_blocks(quick)
    yield from measure_system_calls()
    yield from measure_expiry(quick)
    yield from measure_timers(quick)


if __name__ == "__main__":
    enter_blocks(sys.argv[1], sys.argv[2], int(sys.argv[3]))
