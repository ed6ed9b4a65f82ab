"""A storm around listeners: `python tests/storm/listeners.py --signals 10000000`.

Four processes queue numbered real-time signals, a signal each, and now and then a SIGUSR1; now one
by one, now as a flood. In the receiver, at the same time:
    six threads open and close listeners at random, small ones and large ones, and read them in all
        the ways there are
    two threads run event loops (asyncio's, and uvloop's where it is installed), each with three
        tasks: one reads a listener for as long as the storm lasts, one opens and closes as above,
        one shares a listener with the other loop and with a thread
    the main thread looks after a small listener now and then, for as long as the storm lasts
    handlers come and go: by signal(), added in the main thread, added in sigwright's thread
    children are forked, which see nothing of the parent's arrivals, and all of their own

Every listener's books must balance: received + dropped = sent, from the first number that it got of
each sender to the last; those of the loops and of the handlers that stay must have every number.
`accounts.py` says how. In the first part each sender's signal lands on one thread, so that its
numbers come in order everywhere; these threads are the main one, two of the readers and a loop's.
In a second, shorter part any thread takes any signal.
"""

import asyncio
import contextlib
import gc
import itertools
import math
import os
import queue
import random
import resource
import select
import sys
import threading
import time
import traceback
import warnings
from signal import SIGUSR1

import processes
from accounts import (
    LABEL_BITS,
    SENDERS,
    Account,
    Jumble,
    Life,
    Shares,
    eventually,
)
from children import be_child
from processes import READY
from sending import (
    CALM,
    LANES,
    LOOPS,
    PACERS,
    PIDS,
    READERS,
    SENT,
    SIGNALS,
    TALLIES,
    WIDEST,
    compiled_sender,
    parts,
    progress,
    send,
)

try:
    from uvloop import new_event_loop as other_loop
except ImportError:
    other_loop = asyncio.new_event_loop

LOOP_FACTORIES = [asyncio.new_event_loop, other_loop]
TIMEOUTS = (0, 0.0001, 0.01)  # seconds
# On whom a sender's signal lands in the first part.
LANDING = ["main", "reader 0", "loop 0", "reader 1"]
SMALL, LARGE = (1, 8, 64), (1024, 65_536)
QUEUED = 1000  # RLIMIT_SIGPENDING, so that senders run into it; and others who test here do not


def read_by_iteration(listener, life: Life, rng) -> None:
    for info in listener:
        life.account.take(info)
        if life.may_end():
            return


def read_by_get(listener, life: Life, rng) -> None:
    while not life.may_end():
        try:
            life.account.take(listener.get(timeout=rng.choice([*TIMEOUTS, None])))
        except queue.Empty:
            pass


def read_by_poll(listener, life: Life, rng) -> None:
    poller = select.poll()
    poller.register(listener.fileno(), select.POLLIN)
    while not life.may_end():
        poller.poll(50)  # a file descriptor that somebody else closes wakes nobody
        if rng.random() < 0.5:
            for info in listener.drain():
                life.account.take(info)
            continue
        try:
            while True:
                life.account.take(listener.get_nowait())
        except queue.Empty:
            pass


async def read_by_async_iteration(listener, life: Life, rng) -> None:
    async for info in listener:
        life.account.take(info)
        if life.may_end():
            return


async def read_with_cancellations(listener, life: Life, rng) -> None:
    while not life.may_end():
        try:
            async with asyncio.timeout(rng.choice(TIMEOUTS)):
                life.account.take(await listener.aget())
        except TimeoutError:
            pass


READ = [read_by_iteration, read_by_get, read_by_poll]
READ_IN_LOOP = [read_by_async_iteration, read_with_cancellations]


class Part:
    """One of the storm's two parts, from quiet to quiet."""

    def __init__(self, shared: memoryview, total: int, part: int, rng: random.Random) -> None:
        import sigwright

        self.signal = sigwright
        self.engine = sigwright._engine
        self.shared = shared
        self.part = part
        self.ordered = part == 1
        self.start, self.stop = parts(total)[part - 1]
        self.rng = rng
        self.forks_wanted = min(10 + total // 50_000, 100) // part
        self.landing = [0] * SENDERS  # the threads that the senders' signals land on
        self.barrier = threading.Barrier(1 + READERS + LOOPS + 1)
        self.calls = {signum: itertools.count(self.start + 1) for signum in SIGNALS}
        self.calls[SIGUSR1] = itertools.count(1)
        self.over = False
        self.open_lives: dict[str, Life] = {}
        self.ended = Tally()
        self.cut = Tally()
        self.visitors: list = []  # added handlers that come and go, each with its Account
        self.gone: list = []
        self.children: dict[int, str] = {}
        self.forks = self.forks_with_arrivals = 0

    # ---- from beginning to end ----

    def run(self) -> None:
        began = time.monotonic()
        # New threads inherit this: a signal must not land on one that is not to have it.
        self.signal.pthread_sigmask(self.signal.SIG_BLOCK, SIGNALS)
        threads = [self.new_thread(f"reader {i}", self.read, i) for i in range(READERS)]
        threads += [self.new_thread(f"loop {i}", self.loop, i) for i in range(LOOPS)]
        threads.append(self.new_thread("sharer", self.share))
        self.let_in("main", self.open_stayers)
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (QUEUED, QUEUED))
        self.shared[READY] = self.part
        while not all(self.shared[SENT + sender] == self.stop for sender in range(SENDERS)):
            self.step()
        self.settle(threads)
        self.check()
        self.describe(time.monotonic() - began)

    def new_thread(self, name: str, function, *args) -> threading.Thread:
        def body():
            try:
                function(*args)
            except BaseException as error:
                give_up(error)

        thread = threading.Thread(target=body, name=name)
        with self.signal.blocked(*SIGNALS):
            thread.start()
        return thread

    def let_in(self, name: str, when_all_are_known=None) -> None:
        """On the calling thread, which is called so, signals land from now on."""
        mine = [i for i in range(SENDERS) if not self.ordered or LANDING[i] == name]
        for sender in mine:
            self.landing[sender] = threading.get_ident()
        self.barrier.wait()
        if when_all_are_known is not None:
            when_all_are_known()
        self.barrier.wait()
        self.signal.pthread_sigmask(self.signal.SIG_UNBLOCK, [SIGNALS[i] for i in mine])

    def new_account(self) -> Account | Jumble:
        pids = self.shared[PIDS : PIDS + SENDERS]
        if self.ordered:
            return Account(list(zip(SIGNALS, pids, self.landing, strict=True)))
        return Jumble(list(zip(SIGNALS, pids, strict=True)), self.start, self.stop)

    def settle(self, threads: list[threading.Thread]) -> None:
        """All has been sent. Wait until it is where it belongs, and end what still reads."""
        fields = [progress(i, pacer) for i in range(SENDERS) for pacer in range(len(PACERS))]
        eventually(
            lambda: all(self.shared[field] == self.stop for field in fields),
            lambda: f"not all are at {self.stop}: {[self.shared[field] for field in fields]}",
        )
        self.over = True
        for listener in (*self.loop_listeners, self.shared_listener):
            listener.close()
        eventually(
            lambda: not self.close_lives() and not any(thread.is_alive() for thread in threads),
            lambda: f"still reading: {self.open_lives}",
        )
        processes.reap(self.children, block=True)

    def close_lives(self) -> int:
        """Those that have all they are to have; they are closed while somebody waits in them."""
        lives = list(self.open_lives.values())
        for life in lives:
            if not self.ordered or life.owed(self.stop) == 0:
                life.listener.close()
        return len(lives)

    # ---- those who stay, and get everything ----

    def open_stayers(self) -> None:
        self.before = self.engine.stats()
        self.tallies_before = self.shared[TALLIES : TALLIES + 2 * SENDERS].tolist()
        for signum in (*SIGNALS, SIGUSR1):
            self.replace_handler(signum)
        self.stayers = {name: self.new_account() for name in PACERS[1:]}
        self.stayers["shared"] = Shares(self.start, self.stop)
        takers = {name: self.taker(name) for name in PACERS[1:]}
        self.loop_listeners = [
            self.signal.listen(*SIGNALS, maxsize=SENDERS << WIDEST, inherit=False)
            for _ in range(LOOPS)
        ]
        self.loop_takers = [takers[f"loop {i}"] for i in range(LOOPS)]
        self.shared_listener = self.signal.listen(*SIGNALS, maxsize=SENDERS << WIDEST)
        self.share_taker = takers["shared"]
        self.registrations = [
            self.signal.add_handler(signum, takers[name], thread=name == "thread", inherit=False)
            for signum in SIGNALS
            for name in ("added", "thread")
        ]
        self.small_listener = self.signal.listen(*SIGNALS, maxsize=SMALL[1])
        self.small_account = self.new_account()
        self.standard_listener = self.signal.listen(SIGUSR1)
        self.standard_received = 0
        self.standard_calls = itertools.count()
        self.standard_registration = self.signal.add_handler(
            SIGUSR1, lambda info: next(self.standard_calls), inherit=False
        )

    def replace_handler(self, signum: int) -> None:
        """By signal(). It is not told the numbers, only how many."""
        calls = self.calls[signum]
        if signum in SIGNALS:
            shared, place = self.shared, progress(SIGNALS.index(signum), PACERS.index("signal()"))

            def handler(signum, frame):
                shared[place] = next(calls)
        else:

            def handler(signum, frame):
                next(calls)

        self.signal.signal(signum, handler)

    def taker(self, name: str):
        account = self.stayers[name]
        places = [progress(sender, PACERS.index(name)) for sender in range(SENDERS)]
        counts = [self.start] * SENDERS
        shared = self.shared
        # Several read the one that is shared. (Handlers nest, and must not wait for each other.)
        one_at_a_time = threading.Lock() if name == "shared" else contextlib.nullcontext()

        def take(info):
            sender = info.si_value >> LABEL_BITS
            with one_at_a_time:
                account.take(info)
                counts[sender] += 1
                shared[places[sender]] = counts[sender]

        return take

    # ---- the readers ----

    def new_life(self, name: str, rng: random.Random) -> Life:
        senders = sorted(rng.sample(range(SENDERS), rng.randint(1, SENDERS)))
        maxsize = rng.choice(SMALL if rng.random() < 0.5 else LARGE)
        account = self.new_account()
        listener = self.signal.listen(
            *(SIGNALS[sender] for sender in senders), maxsize=maxsize, inherit=rng.random() < 0.5
        )
        goal = round(math.exp(rng.uniform(0, math.log(1_000))))
        life = Life(listener, account, senders, goal, self.asker_for_calm(name))
        self.open_lives[name] = life
        return life

    def asker_for_calm(self, name: str):
        place = CALM + LANES.index(name)

        def ask_for_calm(wanted: bool) -> None:
            self.shared[place] = wanted

        return ask_for_calm

    def end(self, name: str, life: Life) -> None:
        del self.open_lives[name]
        life.ask_for_calm(False)
        stats = life.listener.stats()
        assert stats["deliveries"] == life.account.received, (stats, life.account.received)
        if life.ended:
            # What came after it had read enough was not read.
            assert stats["arrivals"] >= stats["deliveries"] + stats["drops"], stats
            self.ended.add(life)
            return
        assert self.over and life.listener.closed
        if self.ordered:
            life.check(life.account.sent_until(self.stop), life.listener.dropped)
            assert stats["arrivals"] == stats["deliveries"] + stats["drops"], stats
        self.cut.add(life)

    def read(self, index: int) -> None:
        name = f"reader {index}"
        rng = random.Random(self.rng.random())
        self.let_in(name)
        while not self.over:
            life = self.new_life(name, rng)
            with life.listener as listener:
                try:
                    rng.choice(READ)(listener, life, rng)
                except RuntimeError:
                    if not listener.closed:
                        raise
            self.end(name, life)

    def loop(self, index: int) -> None:
        name = f"loop {index}"
        rng = random.Random(self.rng.random())
        self.let_in(name)
        with asyncio.Runner(loop_factory=LOOP_FACTORIES[index]) as runner:
            runner.run(self.tasks(index, name, rng))

    async def tasks(self, index: int, name: str, rng: random.Random) -> None:
        await asyncio.gather(
            self.stay(index), self.read_in_loop(name, rng), self.share_in_loop(index, rng)
        )

    async def stay(self, index: int) -> None:
        take = self.loop_takers[index]
        async for info in self.loop_listeners[index]:
            take(info)

    def share(self) -> None:
        self.let_in("sharer")
        own = self.new_account()
        for info in self.shared_listener:
            own.take(info)
            self.share_taker(info)

    async def share_in_loop(self, index: int, rng: random.Random) -> None:
        listener, own = self.shared_listener, self.new_account()
        no_limit = contextlib.nullcontext()
        while not listener.closed:
            now_and_then = index and rng.random() < 0.1
            limit = asyncio.timeout(rng.choice(TIMEOUTS)) if now_and_then else no_limit
            try:
                async with limit:
                    info = await listener.aget()
            except TimeoutError:
                continue
            except RuntimeError:
                if listener.closed:
                    return
                raise
            own.take(info)
            self.share_taker(info)

    async def read_in_loop(self, name: str, rng: random.Random) -> None:
        while not self.over:
            life = self.new_life(name, rng)
            async with life.listener as listener:
                try:
                    await rng.choice(READ_IN_LOOP)(listener, life, rng)
                except RuntimeError:
                    if not listener.closed:
                        raise
            self.end(name, life)

    # ---- the main thread, meanwhile ----

    def step(self) -> None:
        action = self.rng.random()
        if action < 0.2:
            self.replace_handler(self.rng.choice([*SIGNALS, SIGUSR1]))
        elif action < 0.3:
            self.come_or_go(True)
        elif action < 0.35:
            self.new_thread("visitor", self.come_or_go, False).join()
        elif action < 0.4:
            gc.collect(self.rng.randrange(2))
        elif action < 0.5:
            self.signal.stats()
            self.signal.dispositions()
        else:
            time.sleep(self.rng.random() * 0.002)
        self.read_here()
        if any(self.shared[SENT + sender] == self.stop for sender in range(SENDERS)):
            # Who waits for one more from a sender that is through will not get it, calm or not.
            for place in range(CALM, CALM + len(LANES)):
                self.shared[place] = False
        handled = sum(self.shared[progress(sender)] - self.start for sender in range(SENDERS))
        if self.forks <= self.forks_wanted * handled // (SENDERS * (self.stop - self.start)):
            self.forks += 1
            if self.forks % 2:
                self.fork("the main thread")
            else:
                self.new_thread("forker", self.fork, "a worker").join()
        processes.reap(self.children, block=False)

    def read_here(self) -> None:
        self.standard_received += len(self.standard_listener.drain())
        for info in self.small_listener.drain():
            self.small_account.take(info)

    def come_or_go(self, in_main_thread: bool) -> None:
        """A handler is added, or one that was goes."""
        if len(self.visitors) < 4 and self.rng.random() < 0.6:
            account = self.new_account()
            thread = self.rng.random() < 0.5
            registration = self.signal.add_handler(
                self.rng.choice(SIGNALS), account.take, thread=thread, inherit=False
            )
            self.visitors.append((registration, account, thread))
            self.rng.shuffle(self.visitors)
        elif self.visitors:
            self.go(in_main_thread)

    def go(self, in_main_thread: bool) -> None:
        registration, account, thread = self.visitors.pop()
        registration.cancel()
        assert not registration.active
        # Here and now nothing is under way of what is called in the main thread: it had its last.
        last = in_main_thread and not thread
        self.gone.append((registration, account, account.received if last else None))

    # ---- children ----

    def fork(self, who: str) -> None:
        """With one consumer of each kind that the child is to have, and one that it is not."""
        calls = {name: [] for name in ("main", "thread", "not inherited")}
        kept = self.signal.listen(*SIGNALS, maxsize=SENDERS << WIDEST, inherit=True)
        gone = self.signal.listen(*SIGNALS, maxsize=SENDERS << WIDEST, inherit=False)
        handlers = [
            self.signal.add_handler(
                SIGNALS[0],
                lambda info, calls=calls[name]: calls.append((os.getpid(), info.si_pid)),
                thread=name == "thread",
                inherit=name != "not inherited",
            )
            for name in calls
        ]
        # Something should wait for the child to see wrongly. Nothing comes at the storm's end.
        self.forks_with_arrivals += all(
            select.select([one], [], [], 0.1)[0] for one in (kept, gone)
        )
        pid = processes.start(be_child, self.signal, kept, gone, handlers, calls)
        self.children[pid] = who
        for one in (kept, gone):
            one.close()
        for handler in handlers:
            handler.cancel()

    # ---- the end ----

    def check(self) -> None:
        sent = SENDERS * (self.stop - self.start)
        for name, account in self.stayers.items():
            assert account.received == sent, (name, account.received, sent)
        self.read_here()
        small = self.small_account.received, self.small_listener.dropped
        assert sum(small) == sent, (small, sent)
        self.small_listener.close()
        for consumer in (*self.loop_listeners, self.shared_listener, *self.registrations):
            assert consumer.stats()["drops"] == 0, consumer
        for registration in self.registrations:
            registration.cancel()
        while self.visitors:
            self.go(in_main_thread=True)
        eventually(  # sigwright's thread may still be in a call
            lambda: all(
                registration.stats()["deliveries"] == account.received
                for registration, account, _ in self.gone
            ),
            lambda: str([(one.stats(), account.received) for one, account, _ in self.gone]),
        )
        for registration, account, received in self.gone:
            assert received in (account.received, None), (account.received, received)
            if self.ordered and not registration.stats()["drops"]:
                assert account.sent() == account.received, (account.sent(), account.received)
        self.check_handlers_of_signal()

    def check_handlers_of_signal(self) -> None:
        """Also that a standard signal's arrivals are the same for all, however many there were."""

        def since_start(signum) -> dict[str, int]:
            before = self.before.get(signum, {})
            return {
                name: count - before.get(name, 0)
                for name, count in self.engine.stats()[signum].items()
                if isinstance(count, int)
            }

        def standard_is_settled() -> bool:
            self.standard_received += len(self.standard_listener.drain())
            count = since_start(SIGUSR1)
            added = self.standard_registration.stats()
            return SIGUSR1 not in self.signal.sigpending() and (
                count["arrivals"]
                == count["deliveries"] + count["merges"]
                == self.standard_received + self.standard_listener.dropped
                == added["deliveries"] + added["drops"]
            )

        eventually(
            standard_is_settled,
            lambda: (
                f"SIGUSR1: {since_start(SIGUSR1)}, received {self.standard_received}, "
                f"{self.standard_listener.stats()}, {self.standard_registration.stats()}"
            ),
        )
        for signum in SIGNALS:
            count = since_start(signum)
            sent = self.stop - self.start
            assert count["arrivals"] == count["deliveries"] == sent, (signum, count, sent)
            assert count["drops"] == count["waiting"] == count["merges"] == 0, (signum, count)
            assert next(self.calls[signum]) - self.start - 1 == sent
        count = since_start(SIGUSR1)
        _, killed = self.tallies()
        assert 0 < count["arrivals"] <= killed, (count, killed)
        assert next(self.calls[SIGUSR1]) - 1 == count["deliveries"], count
        added = self.standard_registration.stats()
        assert next(self.standard_calls) == added["deliveries"], added
        self.standard_listener.close()
        self.standard_registration.cancel()

    def tallies(self) -> tuple[int, int]:
        """Of this part: sendings that were retried, and SIGUSR1s that were sent."""
        now = self.shared[TALLIES : TALLIES + 2 * SENDERS].tolist()
        since = [count - before for count, before in zip(now, self.tallies_before, strict=True)]
        return sum(since[::2]), sum(since[1::2])

    def describe(self, seconds: float) -> None:
        sent = SENDERS * (self.stop - self.start)
        how = "a thread for each sender's signal" if self.ordered else "any thread takes any signal"
        retried, _ = self.tallies()
        print(f"part {self.part}, {how}: {sent} sent in {seconds:.1f} s, {retried} EAGAIN retried")
        print(f"    {self.ended} ended in the storm, in {self.ended.tries} tries")
        print(f"    {self.cut} were read until its end")
        print(f"    {len(self.gone)} handlers came and went")
        print(
            f"    {self.forks} children, {self.forks_with_arrivals} while arrivals waited",
            flush=True,
        )


class Tally:
    """What became of lives."""

    def __init__(self) -> None:
        self.lives = self.with_drops = self.received = self.dropped = self.tries = 0

    def add(self, life: Life) -> None:
        self.lives += 1
        self.with_drops += life.listener.dropped > 0
        self.received += life.account.received
        self.dropped += life.listener.dropped
        self.tries += life.tries

    def __str__(self) -> str:
        return (
            f"{self.lives} listeners ({self.with_drops} of them dropped): "
            f"{self.received} received, {self.dropped} dropped;"
        )


def give_up(error: BaseException) -> None:
    """What goes wrong in any thread ends the storm."""
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


def receive(shared: memoryview, total: int, seed: int) -> None:
    # From 3.12 on a fork beside threads warns; here it is what is tested.
    warnings.simplefilter("ignore", DeprecationWarning)
    threading.excepthook = lambda args: give_up(args.exc_value)
    sys.setswitchinterval(0.0005)  # more turns, more interleavings
    rng = random.Random(seed)
    while not all(shared[PIDS + sender] for sender in range(SENDERS)):
        time.sleep(0.001)
    for part in (1, 2):
        Part(shared, total, part, rng).run()


if __name__ == "__main__":
    compiled_sender()
    sys.exit(processes.main(__doc__.splitlines()[0], SENDERS, receive, send))
