"""A storm of limits that race the end of their blocks: `python tests/storm/limits.py --blocks N`.

N blocks in the main thread, and as many in workers, with a limit that strikes up to 50 µs before or
after their end; a tenth of that cancelled by another thread at such a moment; and a tenth that are
deferred() while a signal's handler raises. Each block has to have been

    whole: it ran to its end, and nothing came of its limit, or
    struck: Cancelled arrived in it, and became what it should at its own edge

and nothing may strike the code after it, which is written so that it could: full of safe points.

When a limit strikes depends on the machine. So the sweep is around the moment at which half of them
struck lately, not around the deadline: it stays a race, whatever else the machine does.
"""

import argparse
import queue
import random
import signal as stdlib
import sys
import threading
import time
from collections import Counter

import processes

import sigwright
from sigwright import Cancelled, CancelScope, deferred, fail_at, move_on_at

SPAN_NS = 40_000  # from entering to the deadline
SWEEP_NS = 50_000
STEP_NS = 1_000  # by which the sweep follows the machine
LATEST_NS = 20_000_000
SWITCH_INTERVAL = 1e-5  # as long as whoever interrupts a worker waits for the GIL
now = time.monotonic_ns


class StrayError(AssertionError):
    """A block neither whole nor struck, or both where that cannot be."""


def spin_until(end_ns: int) -> None:
    while now() < end_ns:
        pass


class Block:
    """One block: when it ends, and what became of it."""

    def __init__(self, deadline_ns: int, end_ns: int) -> None:
        self.deadline = deadline_ns / 1e9
        self.end_ns = end_ns
        self.whole = False  # the last step inside was reached
        self.swallowed = False
        self.caught = False  # as the scope has it
        self.failed = False  # with TimeoutError

    def work(self) -> None:
        spin_until(self.end_ns)
        self.whole = True

    def check(self, fails: bool) -> bool:
        """Whether it was struck."""
        struck = self.caught or self.failed
        if struck and time.monotonic() < self.deadline:
            raise StrayError(f"struck before its deadline: {vars(self)}")
        if not struck and not self.whole:
            raise StrayError(f"interrupted, and nobody caught it: {vars(self)}")
        if self.swallowed and fails and not self.failed:
            raise StrayError(f"swallowed, and not told at the edge: {vars(self)}")
        if not fails and self.failed:
            raise StrayError(f"TimeoutError of a block that moves on: {vars(self)}")
        return struck or self.swallowed


# ---- kinds of blocks; what follows `with` in each of them is outside, and must not be struck ----


def fail(block: Block) -> bool:
    try:
        with fail_at(block.deadline):
            block.work()
    except TimeoutError:
        block.failed = True
    return block.check(fails=True)


def move_on(block: Block) -> bool:
    with move_on_at(block.deadline) as scope:
        block.work()
    block.caught = scope.cancelled_caught
    return block.check(fails=False)


def swallow(block: Block) -> bool:
    """Cancelled is swallowed inside; TimeoutError comes all the same, at the edge."""
    try:
        with fail_at(block.deadline):
            try:
                spin_until(block.end_ns)
            except Cancelled:
                block.swallowed = True
            block.whole = True
    except TimeoutError:
        block.failed = True
    return block.check(fails=True)


def swallow_and_move_on(block: Block) -> bool:
    with move_on_at(block.deadline) as scope:
        try:
            spin_until(block.end_ns)
        except Cancelled:
            block.swallowed = True
        block.whole = True
    block.caught = scope.cancelled_caught
    return block.check(fails=False)


def nested(block: Block) -> bool:
    with CancelScope(time.monotonic() + 3600) as outer:
        with move_on_at(block.deadline) as scope:
            block.work()
        block.caught = scope.cancelled_caught
    if outer.cancel_called:
        raise StrayError("the outer block was cancelled, whose time had not come")
    return block.check(fails=False)


def together(block: Block) -> bool:
    """Two of one deadline: the outer one ends, whichever of the two is noticed first."""
    with move_on_at(block.deadline) as outer:
        with move_on_at(block.deadline) as inner:
            block.work()
        if inner.cancelled_caught:
            raise StrayError("the inner block kept what was the outer one's as well")
    block.caught = outer.cancelled_caught
    return block.check(fails=False)


def decorated(block: Block) -> bool:
    @fail_at(block.deadline)
    def work() -> str:
        block.work()
        return "done"

    try:
        if work() != "done":
            raise StrayError("a decorated function lost what it returned")
    except TimeoutError:
        block.failed = True
    return block.check(fails=True)


def section(block: Block) -> bool:
    """A limit that falls due in a deferred() strikes when that has been left."""
    began = False
    with move_on_at(block.deadline) as scope:
        with deferred():
            began = True
            spin_until(block.end_ns)
            block.whole = True
        spin_until(block.end_ns + 5_000)
    block.caught = scope.cancelled_caught
    if began and not block.whole:
        raise StrayError("a deferred() was interrupted")
    return block.check(fails=False)


def asleep(block: Block) -> bool:
    with move_on_at(block.deadline) as scope:
        time.sleep(max(0, block.end_ns - now()) / 1e9)
        block.whole = True
    block.caught = scope.cancelled_caught
    return block.check(fails=False)


KINDS = (fail, move_on, swallow, swallow_and_move_on, nested, together, decorated, section, asleep)
SPANS_NS = {asleep: 200_000}  # the kernel wakes late


def sweep(count: int, seed: int, outcomes: Counter) -> None:
    """Run so many blocks in this thread."""
    numbers = random.Random(seed)
    late_ns = dict.fromkeys(KINDS, SWEEP_NS)  # from the deadline to the middle of the sweep
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        span_ns = SPANS_NS.get(kind, SPAN_NS)
        deadline_ns = now() + span_ns
        offset_ns = late_ns[kind] + numbers.randrange(-SWEEP_NS, SWEEP_NS)
        struck = kind(Block(deadline_ns, deadline_ns + offset_ns))
        # The code after: whatever is still on its way strikes here, and ends the storm.
        for _ in range(100):
            pass
        if number % 100 == 0:
            spin_until(now() + 1_000_000)
        step_ns = -STEP_NS if struck else STEP_NS
        late_ns[kind] = min(max(late_ns[kind] + step_ns, -span_ns), LATEST_NS)
        outcomes[kind.__name__, struck] += 1
    spin_until(now() + 50_000_000)


def cancelled(count: int, seed: int, outcomes: Counter) -> None:
    """The same for cancel(), called by a thread of its own."""
    numbers = random.Random(seed)
    orders: queue.SimpleQueue = queue.SimpleQueue()

    def canceller() -> None:
        while (order := orders.get()) is not None:
            scope, ready, delay_ns = order
            at_ns = now() + delay_ns
            ready.append(at_ns)
            spin_until(at_ns)
            scope.cancel()

    thread = threading.Thread(target=canceller)
    thread.start()
    late_ns = SWEEP_NS
    try:
        for number in range(count):
            scope, ready = CancelScope(), []
            orders.put((scope, ready, SPAN_NS))
            while not ready:
                pass
            at_ns = ready[0]
            offset_ns = late_ns + numbers.randrange(-SWEEP_NS, SWEEP_NS)
            block = Block(0, at_ns + offset_ns)
            with scope:
                block.work()
            block.caught = scope.cancelled_caught
            struck = block.check(fails=False)
            for _ in range(100):
                pass
            if number % 100 == 0:
                spin_until(now() + 1_000_000)
            late_ns = min(max(late_ns + (-STEP_NS if struck else STEP_NS), -SPAN_NS), LATEST_NS)
            outcomes["cancel", struck] += 1
    finally:
        orders.put(None)
        thread.join()
    spin_until(now() + 50_000_000)


class Struck(Exception):  # noqa: N818 - as in "struck"
    pass


def held(count: int, seed: int, outcomes: Counter) -> None:
    """Sections, and an alarm whose handler raises: never inside, once each, and no depth after."""
    numbers = random.Random(seed)
    inside = armed = False
    rung = probes = 0

    def strike(signum: int, frame: object) -> None:
        nonlocal rung, armed
        if inside:
            raise StrayError("a handler ran inside a deferred()")
        rung += 1
        armed = False
        raise Struck

    def probe(signum: int, frame: object) -> None:
        nonlocal probes
        probes += 1

    sigwright.signal(stdlib.SIGALRM, strike)
    sigwright.signal(stdlib.SIGUSR2, probe)
    sections = (deferred(), deferred(stdlib.SIGALRM), deferred(stdlib.SIGALRM, stdlib.SIGUSR2))
    for number in range(count):
        entered = left = False
        mine = sections[number % len(sections)]
        try:
            armed = True
            sigwright.setitimer(sigwright.ITIMER_REAL, numbers.randrange(1, 60) * 1e-6)
            with mine:
                inside = entered = True
                with mine:
                    for _ in range(numbers.randrange(2000)):
                        pass
                inside = False
            left = True
            while armed:
                pass
            raise StrayError("the alarm did not ring, or its handler's exception was lost")
        except Struck:
            pass
        sigwright.raise_signal(stdlib.SIGUSR2)
        for _ in range(3):
            pass  # a safe point: from 3.14 on there is none right after a C call
        if (rung, probes) != (number + 1, number + 1):
            raise StrayError(f"{rung} alarms and {probes} probes in {number + 1} rounds")
        outcomes["deferred", entered and not left] += 1


# ---- the storm ----


def workers(count: int, seed: int, outcomes: Counter) -> None:
    in_threads([(sweep, count // 2, seed), (sweep, count - count // 2, seed + 1)], outcomes)


def cancel(count: int, seed: int, outcomes: Counter) -> None:
    cancelled(count // 2, seed, outcomes)
    in_threads([(cancelled, count - count // 2, seed + 1)], outcomes)


def in_threads(tasks: list[tuple], outcomes: Counter) -> None:
    failures: list[BaseException] = []

    def run(function, *arguments) -> None:
        mine: Counter = Counter()
        try:
            function(*arguments, mine)
        except BaseException as error:
            failures.append(error)
        outcomes.update(mine)

    threads = [threading.Thread(target=run, args=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def storm(blocks: int, seed: int) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL)
    parts = {
        "main thread": (sweep, blocks),
        "workers": (workers, blocks),
        "cancel": (cancel, max(blocks // 10, 500)),
        "deferred": (held, max(blocks // 10, 500)),
    }
    for name, (part, count) in parts.items():
        started = time.monotonic()
        outcomes: Counter = Counter()
        part(count, seed, outcomes)
        struck = sum(outcomes[key] for key in outcomes if key[1])
        if outcomes.total() != count:
            raise StrayError(f"{name}: {outcomes.total()} of {count} blocks")
        seconds = time.monotonic() - started
        print(f"{name}: {seconds:.1f} s, {count - struck} whole, {struck} struck", flush=True)
        if name in {"main thread", "workers"}:
            kinds = (f"{kind.__name__} {outcomes[kind.__name__, True]}" for kind in KINDS)
            print(f"    struck: {', '.join(kinds)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--blocks", type=int, default=100_000, help="how many in each kind of thread"
    )
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--seconds", type=float, default=None, help="a storm longer than this hangs"
    )
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    limit = options.seconds or 60 + options.blocks / 200
    print(f"{options.blocks} blocks, seed {seed}", flush=True)
    try:
        processes.watched(limit, storm, options.blocks, seed)
    except BaseException:
        print(f"FAILED with seed {seed}", flush=True)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
