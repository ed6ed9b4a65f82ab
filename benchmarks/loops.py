"""From kill to the user's code in an event loop: asyncio; uvloop and trio where they are installed.

The same two points on both sides: the clock just before `os.kill(os.getpid(), SIGUSR1)`, and the
first line of the user's code that runs because of it. Nothing else is ready in the loop.

Who sends? *The loop's own thread*, in a callback that then returns (trio: in a task that then
waits): the loop goes into its selector and finds there what the arrival left. All that lies between
the two points is work of Python, of the loop and of the signal module, and none of it is waiting:
so this is the number with a bar.

The other way round is measured too: *another thread* sends, in C and without the GIL, when the loop
has been asleep in its selector for a while. That is what a signal from outside looks like, but most
of it is the kernel waking a processor, which takes equally long for everyone and differently each
time. A child process as the sender would add its own scheduling to that.

Between two signals the loop turns a few times, so that nobody's clearing up is in the next time.
"""

import asyncio
import contextlib
import ctypes
import gc
import importlib.util
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

from harness import Peer, Row, both_peers, cost_row, in_turn, native

MOST = 0.5
STDLIB = "add_signal_handler"
ASYNCIO_WAYS = {
    "add_reader": "add_reader(listener.fileno(), …), get_nowait() until it is empty",
    "async for": "async for info in listener",
    "aget": "await listener.aget()",
}
TRIO_WAYS = {way: ASYNCIO_WAYS[way] for way in ("async for", "aget")}
# By the name of what has to be installed: whom each is beside, and our ways.
LOOPS = {
    "asyncio": ("loop.add_signal_handler", ASYNCIO_WAYS),
    "uvloop": ("loop.add_signal_handler", ASYNCIO_WAYS),
    "trio": ("trio.open_signal_receiver", TRIO_WAYS),
}
IDLE_US = 300  # the loop is asleep by then
TURNS = 4


def time_to_code(
    signal: ModuleType, loop: str, way: str, from_thread: bool, count: int
) -> list[float]:
    """Nanoseconds from kill to the user's first line: each of `count`."""
    warm_up = count // 10
    sender = (SenderThread if from_thread else Sender)(int(signal.SIGUSR1), warm_up + count)
    gc.disable()
    if loop == "trio":
        import trio

        seen = trio.run(_in_trio, signal, way, sender)
    else:
        if loop == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        else:
            factory = asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            seen = runner.run(_in_asyncio(signal, way, sender))
    gc.enable()
    sent = sender.close()
    times = [after - before for before, after in zip(sent, seen, strict=True)]
    assert min(times) > 0, "seen before it was sent"
    return times[warm_up:]


class Sender:
    """Sends in the thread that calls it."""

    in_thread = False

    def __init__(self, signum: int, count: int) -> None:
        self.signum, self.count = signum, count
        self.sent: list[int] = []

    def send(self) -> None:
        clock, kill, pid, signum = time.perf_counter_ns, os.kill, os.getpid(), self.signum
        start = clock()
        kill(pid, signum)
        self.sent.append(start)

    def close(self) -> list[int]:
        return self.sent


class SenderThread:
    """Sends from another thread, a little after it was asked to."""

    def __init__(self, signum: int, count: int) -> None:
        library = native()
        assert library is not None
        self.count = count
        self._asked = ctypes.c_int(0)
        self._sent = (ctypes.c_longlong * count)()
        arguments = [signum, count, IDLE_US, ctypes.byref(self._asked), self._sent]
        self._thread = threading.Thread(target=library.send_when_asked, args=arguments, daemon=True)
        self._thread.start()

    def send(self) -> None:
        self._asked.value += 1

    def close(self) -> list[int]:
        self._thread.join()
        return list(self._sent)


async def _in_asyncio(signal: ModuleType, way: str, sender: Sender | SenderThread) -> list[int]:
    loop = asyncio.get_running_loop()
    clock = time.perf_counter_ns
    over = asyncio.Event()
    seen: list[int] = []

    def note() -> None:
        now = clock()
        seen.append(now)
        over.set()

    async with _asyncio_receiver(signal, way, note):
        for _ in range(sender.count):
            over.clear()
            loop.call_soon(sender.send)
            await over.wait()
            for _ in range(TURNS):
                await asyncio.sleep(0)
    return seen


@contextlib.asynccontextmanager
async def _asyncio_receiver(
    signal: ModuleType, way: str, note: Callable[[], None]
) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    if way == STDLIB:
        loop.add_signal_handler(signal.SIGUSR1, note)
        yield
        loop.remove_signal_handler(signal.SIGUSR1)
        return
    with signal.listen(signal.SIGUSR1) as listener:
        if way == "add_reader":
            get_nowait = listener.get_nowait

            def readable() -> None:
                try:
                    while True:
                        get_nowait()
                        note()
                except queue.Empty:
                    pass  # not readable any more

            loop.add_reader(listener.fileno(), readable)
            yield
            loop.remove_reader(listener.fileno())
            return
        task = loop.create_task(_receive(listener, way, note))
        await asyncio.sleep(0)  # it waits from here on
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _receive(source: Any, way: str, note: Callable[[], None]) -> None:
    """A task that waits for signals, as a program would write it. The same for trio's receiver."""
    if way == "aget":
        aget: Callable[[], Awaitable[object]] = source.aget
        while True:
            await aget()
            note()
    async for _ in source:
        note()


async def _in_trio(signal: ModuleType, way: str, sender: Sender | SenderThread) -> list[int]:
    import trio
    import trio.testing

    clock = time.perf_counter_ns
    over = trio.Event()
    seen: list[int] = []

    def note() -> None:
        now = clock()
        seen.append(now)
        over.set()

    receiver = trio.open_signal_receiver if way == STDLIB else signal.listen
    async with trio.open_nursery() as nursery:
        with receiver(signal.SIGUSR1) as source:
            nursery.start_soon(_receive, source, way, note)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(sender.count):
                over = trio.Event()
                sender.send()
                await over.wait()
                for _ in range(TURNS):
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    return seen


def measure(quick: bool) -> Iterator[Row]:
    pairs, rounds = (1, 4) if quick else (4, 10)
    loops = [name for name in LOOPS if importlib.util.find_spec(name)]
    # By loop, by who sends: the stdlib's or trio's times, and those of each of our ways.
    taken: dict[tuple[str, bool], list[list[float]]] = {
        (loop, from_thread): [[] for _ in (STDLIB, *LOOPS[loop][1])]
        for loop in loops
        for from_thread in (False, True)
        if not from_thread or native() is not None
    }
    for _ in range(pairs):
        with both_peers() as (stdlib, sigwright):
            for (loop, from_thread), all_times in taken.items():
                count = 60 if from_thread else 300
                sides = [
                    partial(_time, stdlib, loop, STDLIB, from_thread, count),
                    *(
                        partial(_time, sigwright, loop, way, from_thread, count)
                        for way in LOOPS[loop][1]
                    ),
                ]
                for times, more in zip(all_times, in_turn(rounds, sides), strict=True):
                    times.extend(more)
    for (loop, from_thread), (theirs, *all_ours) in taken.items():
        beside, ways = LOOPS[loop]
        who = "another thread kills, the loop sleeps" if from_thread else "the loop's thread kills"
        most = None if from_thread else MOST
        for way, ours in zip(ways.values(), all_ours, strict=True):
            yield cost_row("loops", f"{loop}, {who}: {way}", beside, theirs, ours, most)


def _time(peer: Peer, loop: str, way: str, from_thread: bool, count: int) -> list[float]:
    times: list[float] = peer.call(time_to_code, loop, way, from_thread, count)
    return times
