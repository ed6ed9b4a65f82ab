"""Listeners in event loops, where it could go wrong: cancelling, closing, sharing, starving."""

import asyncio
import contextlib
import gc
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
import uvloop

import programs
import sigwright as signal

REALTIME = signal.SIGRTMIN + 5
SOON = 10  # seconds: more than anything here takes

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _harmless():
    with programs.ignored(signal.SIGUSR1, REALTIME):
        yield


def run_asyncio(loop: str, main: Callable[..., Awaitable], *args: object) -> object:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(asyncio.wait_for(main(*args), SOON))


def run_trio(main: Callable[..., Awaitable], *args: object) -> object:
    async def limited():
        with trio.fail_after(SOON):
            return await main(*args)

    return trio.run(limited)


class Aio:
    """What these tests need of asyncio, by names that trio has as well."""

    def __init__(self, loop: str) -> None:
        self.loop = loop

    def run(self, main, *args):
        return run_asyncio(self.loop, main, *args)

    @staticmethod
    async def turn():
        await asyncio.sleep(0)

    @staticmethod
    async def together(*functions):
        async with asyncio.TaskGroup() as group:
            for function in functions:
                group.create_task(function())

    @staticmethod
    @contextlib.asynccontextmanager
    async def cancelled_after(seconds):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                yield

    @staticmethod
    async def all_wait():
        for _ in range(10):
            await asyncio.sleep(0)


class Trio:
    """The same of trio."""

    @staticmethod
    def run(main, *args):
        return run_trio(main, *args)

    @staticmethod
    async def turn():
        await trio.lowlevel.checkpoint()

    @staticmethod
    async def together(*functions):
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)

    @staticmethod
    @contextlib.asynccontextmanager
    async def cancelled_after(seconds):
        with trio.move_on_after(seconds):
            yield

    @staticmethod
    async def all_wait():
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def backend(request):
    return Trio() if request.param == "trio" else Aio(request.param)


@pytest.fixture
def listener():
    with signal.listen(REALTIME, maxsize=8192) as listener:
        yield listener


def send(*values: int) -> None:
    for value in values:
        programs.enqueue(REALTIME, value)


PREAMBLE = "import asyncio, os, sys, threading, time\nimport sigwright\n"


def run(source: str) -> subprocess.CompletedProcess[str]:
    return programs.run(PREAMBLE, source)


def said(source: str) -> list[str]:
    return programs.succeed(PREAMBLE, source).splitlines()


# --- reading ------------------------------------------------------------------------------------


def test_what_waits_and_what_comes_is_read_in_order(backend, listener):
    async def main():
        send(1, 2)
        found = [(await listener.aget()).si_value]

        async def read():
            async for info in listener:
                found.append(info.si_value)
                if info.si_value == 100:
                    break

        async def write():
            for number in range(3, 101):
                await backend.all_wait()
                send(number)

        await backend.together(read, write)
        return found

    assert backend.run(main) == list(range(1, 101))


def test_a_signal_from_another_process_wakes_a_loop_that_sleeps(backend, listener):
    """Without a helper thread, and without the time-out of anything else."""

    async def main():
        code = f"import os, time; time.sleep(0.2); os.kill({os.getpid()}, {int(REALTIME)})"
        threads = len(os.listdir("/proc/self/task"))
        with subprocess.Popen([sys.executable, "-c", code]) as sender:
            info = await listener.aget()
            assert info.si_pid == sender.pid
        assert (time.monotonic_ns() - info.monotonic_ns) < SOON * 1e9
        assert len(os.listdir("/proc/self/task")) <= threads

    backend.run(main)


def test_a_signal_that_lands_on_another_thread_wakes_the_loop(backend, listener):
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()

    async def main():
        async def write():
            await backend.all_wait()
            signal.pthread_kill(thread.ident, REALTIME)

        async def read():
            assert (await listener.aget()).thread_id == thread.ident

        await backend.together(read, write)

    try:
        backend.run(main)
    finally:
        over.set()
        thread.join()


def test_a_loop_that_does_not_run_in_the_main_thread_is_woken_too(backend, listener):
    found = queue.SimpleQueue()

    async def main():
        found.put("runs")
        found.put((await listener.aget()).si_value)

    thread = threading.Thread(target=backend.run, args=(main,))
    thread.start()
    assert found.get(timeout=SOON) == "runs"
    time.sleep(0.05)  # it sleeps in its selector by now, mostly
    send(7)
    assert found.get(timeout=SOON) == 7
    thread.join()


def test_each_record_goes_to_one_of_the_tasks(backend, listener):
    found = []

    async def main():
        async def read():
            async for info in listener:
                found.append(info.si_value)
                await backend.turn()

        async def write():
            for number in range(0, 1000, 10):
                send(*range(number, number + 10))
                await backend.turn()
            while len(found) < 1000:
                await backend.turn()
            listener.close()

        await backend.together(read, read, write, read, read)

    backend.run(main)
    assert sorted(found) == list(range(1000))


def test_every_waiting_task_is_woken_where_there_is_a_record_for_each(backend, listener):
    async def main():
        found = []

        async def read():
            found.append((await listener.aget()).si_value)

        async def write():
            await backend.all_wait()
            send(*range(20))

        await backend.together(*[read] * 20, write)
        return found

    assert sorted(backend.run(main)) == list(range(20))
    assert listener.drain() == []


def test_threads_and_loops_share_a_listener_and_nothing_is_lost_or_doubled(listener):
    found = queue.SimpleQueue()

    async def read():
        async for info in listener:
            found.put(info.si_value)

    def read_in_a_thread():
        for info in listener:
            found.put(info.si_value)

    async def two():
        await asyncio.gather(read(), read())

    threads = [
        threading.Thread(target=run_asyncio, args=("asyncio", two)),
        threading.Thread(target=run_asyncio, args=("uvloop", two)),
        threading.Thread(target=run_trio, args=(read,)),
        threading.Thread(target=read_in_a_thread),
    ]
    for thread in threads:
        thread.start()
    for number in range(0, 6000, 3):
        send(number, number + 1, number + 2)
        if number % 300 == 0:
            time.sleep(0.001)  # all go to sleep now and then
    values = [found.get(timeout=SOON) for _ in range(6000)]
    listener.close()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    assert sorted(values) == list(range(6000))


def test_the_last_record_of_a_burst_is_not_left_lying_because_another_loop_was_woken(listener):
    """One loop is told of two records, has a task for one, and must tell the other loop."""
    for _ in range(100):
        ready = threading.Barrier(3)

        async def one(ready=ready):
            await asyncio.to_thread(ready.wait)
            await listener.aget()

        threads = [threading.Thread(target=run_asyncio, args=("asyncio", one)) for _ in range(2)]
        for thread in threads:
            thread.start()
        ready.wait()
        send(1, 2)
        for thread in threads:
            thread.join(SOON)
            assert not thread.is_alive()
    assert listener.drain() == []


# --- cancelling ---------------------------------------------------------------------------------


def test_a_task_that_is_cancelled_while_it_waits_takes_nothing(backend, listener):
    async def main():
        async with backend.cancelled_after(0.01):
            await listener.aget()
            pytest.fail("nothing was sent")
        send(1)
        return (await listener.aget()).si_value

    assert backend.run(main) == 1


def test_a_record_that_comes_in_the_step_of_the_cancellation_is_not_lost(backend, listener):
    got = []

    async def main():
        for number in range(200):
            async with backend.cancelled_after(0.0005):
                while True:
                    got.append((await listener.aget()).si_value)
            send(number)
            async with backend.cancelled_after(0):
                got.append((await listener.aget()).si_value)

    backend.run(main)
    got.extend(info.si_value for info in listener.drain())
    assert got == list(range(200))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("first", ["send", "cancel"])
def test_a_cancelled_task_among_others_hands_its_record_on(loop, first, listener):
    async def main():
        tasks = [asyncio.create_task(listener.aget()) for _ in range(3)]
        await asyncio.sleep(0)
        for act in (send, tasks[0].cancel) if first == "send" else (tasks[0].cancel, send):
            act(1) if act is send else act()
        done, waiting = await asyncio.wait(tasks[1:], return_when="FIRST_COMPLETED")
        assert [task.result().si_value for task in done] == [1]
        assert tasks[0].cancelled() and len(waiting) == 1
        send(2)
        assert (await waiting.pop()).si_value == 2

    run_asyncio(loop, main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_that_is_cancelled_when_its_loop_has_already_seen_the_signal(loop, listener):
    """The task resumes in the very step that finds the signal: there is nothing to cancel then."""

    async def main():
        task = asyncio.create_task(listener.aget())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(send, 1)
        while not task.done():
            await asyncio.sleep(0)
        assert not task.cancel()
        assert (await task).si_value == 1

    run_asyncio(loop, main)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_message_of_a_cancellation_comes_through(loop, listener):
    async def main():
        task = asyncio.create_task(listener.aget())
        await asyncio.sleep(0)
        assert task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        swallowed = asyncio.create_task(_swallow_one_cancellation(listener))
        await asyncio.sleep(0)
        swallowed.cancel()
        await asyncio.sleep(0)
        send(3)
        assert (await swallowed).si_value == 3

    run_asyncio(loop, main)


async def _swallow_one_cancellation(listener):
    try:
        return await listener.aget()
    except asyncio.CancelledError:
        return await listener.aget()


def test_a_task_cancelled_in_trio_while_others_queue_behind_it_leaves_them_woken(listener):
    async def main():
        found = []

        async def read():
            found.append((await listener.aget()).si_value)

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def doomed():
                with scope:
                    await listener.aget()

            nursery.start_soon(doomed)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read)
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            send(1, 2)
        return found

    assert sorted(run_trio(main)) == [1, 2]


def test_aget_is_a_checkpoint_in_trio_even_where_a_record_waits(listener):
    async def main():
        send(1, 2)
        with trio.testing.assert_checkpoints():
            await listener.aget()
        with trio.CancelScope() as scope:
            scope.cancel()
            await listener.aget()
        assert scope.cancelled_caught

    run_trio(main)
    assert [info.si_value for info in listener.drain()] == [2]


# --- closing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["in a task", "in a thread"])
def test_closing_ends_async_for_and_makes_aget_raise(backend, where):
    outcomes = []

    async def main():
        listener = signal.listen(REALTIME)

        async def iterate():
            outcomes.append([info async for info in listener])

        async def ask():
            try:
                await listener.aget()
            except RuntimeError as error:
                outcomes.append(str(error))

        async def close():
            await backend.all_wait()
            if where == "in a task":
                listener.close()
            else:
                thread = threading.Thread(target=listener.close)
                thread.start()
                thread.join()

        await backend.together(iterate, ask, iterate, ask, close)
        with pytest.raises(RuntimeError, match="closed"):
            await listener.aget()
        assert [info async for info in listener] == []

    backend.run(main)
    assert sorted(outcomes, key=str) == [[], [], *["this listener is closed"] * 2]


def test_async_with_closes_it(backend):
    async def main():
        async with signal.listen(REALTIME) as listener:
            assert not listener.closed
            send(1)
            assert (await listener.aget()).si_value == 1
        assert listener.closed

    backend.run(main)


def test_a_descriptor_that_a_loop_still_watches_is_not_given_to_another_file(backend):
    """It is closed in a thread, while the loop has no time to hear of it."""

    async def main():
        listener = signal.listen(REALTIME)
        number = listener.fileno()

        async def read():
            assert [info async for info in listener] == []

        async def close():
            await backend.all_wait()
            thread = threading.Thread(target=listener.close)
            thread.start()
            thread.join()
            pipe = os.pipe()
            try:
                assert number not in pipe
                await backend.all_wait()
                await backend.all_wait()
                assert not select.select([pipe[0]], [], [], 0)[0]
            finally:
                for fd in pipe:
                    os.close(fd)

        await backend.together(read, close)

    backend.run(main)


def test_no_descriptor_is_left_behind(backend):
    async def wait_and_close(how):
        listener = signal.listen(REALTIME)
        async with backend.cancelled_after(0.001):
            await listener.aget()
        if how == "close":
            listener.close()
        elif how == "close in a thread":
            thread = threading.Thread(target=listener.close)
            thread.start()
            thread.join()

    def descriptors():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    backend.run(wait_and_close, "close")
    before = descriptors()
    for how in ("close", "close in a thread", "forget"):
        for _ in range(3):
            backend.run(wait_and_close, how)
        assert descriptors() == before, how


def test_a_listener_outlives_the_loops_that_read_it(backend, listener):
    async def one(value):
        async with backend.cancelled_after(0.001):
            await listener.aget()  # leaves a reader in this loop
        send(value)
        return (await listener.aget()).si_value

    for value in range(20):
        assert backend.run(one, value) == value
    assert len(listener._loops) <= 2  # those that have ended are let go


@pytest.mark.parametrize("loop", LOOPS)
def test_closing_as_the_last_thing_that_a_loop_does(loop):
    listener = signal.listen(REALTIME)
    number = listener.fileno()
    running = LOOPS[loop]()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.aget(), 0.001)
        listener.close()
        with pytest.raises(OSError):
            os.fstat(number)

    running.run_until_complete(main())
    running.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_closing_when_the_loop_is_closed_already(loop):
    listener = signal.listen(REALTIME)
    number = listener.fileno()

    async def main():
        task = asyncio.create_task(listener.aget())
        await asyncio.sleep(0)
        task.cancel()

    run_asyncio(loop, main)
    listener.close()
    with pytest.raises(OSError):
        os.fstat(number)


# --- other work of the loop ---------------------------------------------------------------------


def test_a_storm_does_not_starve_the_loop(backend, listener):
    send(*range(2000))
    turns = 0

    async def main():
        found = 0

        async def read():
            nonlocal found
            async for _ in listener:
                found += 1
                if found == 2000:
                    break

        async def other_work():
            nonlocal turns
            while found < 2000:
                turns += 1
                await backend.turn()

        await backend.together(read, other_work)

    backend.run(main)
    assert turns > 20


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.Loop])
def counting(request, listener):
    """A loop that counts how often the listener is registered, and called for."""

    class Loop(request.param):
        added = called = 0

        def add_reader(self, fd, callback, *args):
            def counted():
                self.called += 1
                callback(*args)

            if fd == listener.fileno():
                self.added += 1
                super().add_reader(fd, counted)
            else:
                super().add_reader(fd, callback, *args)

    return Loop


def test_async_for_does_not_register_anew_for_every_signal(counting, listener):
    async def main():
        async def read():
            found = []
            async for info in listener:
                found.append(info.si_value)
                if len(found) == 100:
                    break
            return found

        task = asyncio.create_task(read())
        for number in range(100):
            await Aio.all_wait()
            send(number)
        assert await task == list(range(100))
        loop = asyncio.get_running_loop()
        return loop.added, loop.called

    with asyncio.Runner(loop_factory=counting) as runner:
        assert runner.run(asyncio.wait_for(main(), SOON)) == (1, 100)


def test_a_reader_that_nobody_waits_for_does_not_keep_the_loop_busy(counting, listener):
    async def main():
        task = asyncio.create_task(listener.aget())
        await asyncio.sleep(0)
        task.cancel()
        send(1)
        await asyncio.sleep(0.05)
        assert asyncio.get_running_loop().called == 1
        assert (await listener.aget()).si_value == 1

    with asyncio.Runner(loop_factory=counting) as runner:
        runner.run(asyncio.wait_for(main(), SOON))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_that_fails_when_it_is_resumed_does_not_take_the_others_wake_up(loop, listener):
    async def main():
        async def fail():
            await listener.aget()
            raise KeyError

        tasks = [asyncio.create_task(fail()), asyncio.create_task(listener.aget())]
        await asyncio.sleep(0)
        send(1, 2)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], KeyError)
        assert results[1].si_value == 2

    run_asyncio(loop, main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_that_is_resumed_may_cancel_or_close_what_others_wait_for(loop):
    async def main(act):
        listener = signal.listen(REALTIME)
        tasks = []

        async def first():
            await listener.aget()
            act(listener, tasks)

        async def second():
            return [info async for info in listener]

        tasks += [asyncio.create_task(first()), asyncio.create_task(second())]
        await asyncio.sleep(0)
        send(1, 2)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        listener.close(discard=True)
        return results

    cancelled = run_asyncio(loop, main, lambda _, tasks: tasks[1].cancel())
    assert isinstance(cancelled[1], asyncio.CancelledError)
    assert run_asyncio(loop, main, lambda listener, _: listener.close(True)) == [None, []]


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_resumed_task_knows_of_itself(loop, listener):
    """It is resumed out of order, and must not notice."""
    import contextvars

    variable = contextvars.ContextVar("variable")

    async def read(value):
        variable.set(value)
        await listener.aget()
        assert variable.get() == value
        assert asyncio.current_task().get_name() == value
        await asyncio.sleep(0)
        return value

    async def main():
        # The loop's reader is this task's, not one of those that it resumes.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.aget(), 0.001)
        tasks = [asyncio.create_task(read(name), name=name) for name in ("a", "b", "c")]
        await asyncio.sleep(0)
        send(1, 2, 3)
        assert await asyncio.gather(*tasks) == ["a", "b", "c"]

    run_asyncio(loop, main)


def test_asyncios_debug_mode_finds_nothing_wrong(listener):
    async def main():
        asyncio.get_running_loop().call_later(0.01, send, 1)
        assert (await listener.aget()).si_value == 1

    asyncio.run(main(), debug=True)


_EAGER = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_FACTORIES = {
    "in Python": lambda loop, coro, **options: asyncio.tasks._PyTask(coro, loop=loop),
    # Not asyncio's own factory: not every uvloop knows how to call it.
    "eager": lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **_EAGER),
}


@pytest.mark.parametrize("factory", _FACTORIES)
@pytest.mark.parametrize("loop", LOOPS)
def test_tasks_of_another_make_are_resumed_too(loop, factory, listener):
    """The one in Python uses what it awaits otherwise; an eager one begins inside another task."""

    async def main():
        running = asyncio.get_running_loop()
        running.set_task_factory(_FACTORIES[factory])
        tasks = [running.create_task(listener.aget()) for _ in range(2)]
        await asyncio.sleep(0)
        send(1)
        assert (await tasks[0]).si_value == 1
        tasks[1].cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        send(2)
        assert (await running.create_task(listener.aget())).si_value == 2
        running.set_task_factory(None)  # an eager task needs a loop that runs: not at its end

    run_asyncio(loop, main)


# --- which loop ---------------------------------------------------------------------------------


def test_without_an_event_loop_the_error_says_what_is_supported(listener):
    send(1)
    for coroutine in (listener.aget(), listener.__anext__()):
        with pytest.raises(RuntimeError, match=r"asyncio, uvloop or trio.*get\(\)"):
            coroutine.send(None)
    assert len(listener.drain()) == 1


def test_no_event_loop_is_imported_by_us():
    assert said(
        """
        before = set(sys.modules)
        program = '''
        import sys, sigwright
        with sigwright.listen(sigwright.SIGUSR1) as listener:
            sigwright.raise_signal(sigwright.SIGUSR1)
            listener.get()
            try:
                listener.aget().send(None)
            except RuntimeError:
                pass
        print(sorted({"asyncio", "trio", "uvloop", "threading", "typing"} & set(sys.modules)))
        '''
        import subprocess, textwrap
        subprocess.run([sys.executable, "-S", "-c", textwrap.dedent(program)], check=True,
                       env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])})
        """
    ) == ["[]"]


def test_trio_as_a_guest_of_asyncio_and_asyncio_itself_each_get_their_own():
    """Both run in one thread; each waits in its own way."""
    assert said(
        """
        import trio
        R = sigwright.SIGRTMIN + 5
        mine, yours = sigwright.listen(R), sigwright.listen(R)

        async def in_trio():
            return [(await yours.aget()).si_signo == R for _ in range(5)]

        async def main():
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            trio.lowlevel.start_guest_run(
                in_trio,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=ended.set_result,
            )
            for _ in range(5):
                loop.call_later(0.005, os.kill, os.getpid(), R)
                await mine.aget()
            print(await ended)

        asyncio.run(asyncio.wait_for(main(), 20))
        """
    ) == ["Value([True, True, True, True, True])"]


# --- beside the loops' own signal handling ------------------------------------------------------

# Without install(), the loops call the stdlib's functions, which know nothing of listeners: what
# they set first is chained, and what they set later replaces the listener's handler.

_BESIDE = """
    import signal
    if {install}:
        sigwright.install()

    async def main():
        loop = asyncio.get_running_loop()
        called = []
        loop.add_signal_handler(signal.SIGUSR1, called.append, "loop")
        loop.add_signal_handler(signal.SIGHUP, called.append, "loop's HUP")
        with sigwright.listen(signal.SIGUSR1, signal.SIGUSR2) as listener:
            added = sigwright.add_handler(signal.SIGUSR1, lambda info: called.append("added"))
            for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                loop.call_later(0.01, os.kill, os.getpid(), signum)
            names = [(await listener.aget()).si_signo.name for _ in range(2)]
            while len(called) < 3:
                await asyncio.sleep(0.001)
            print(sorted(names), sorted(called))
            added.cancel()
            del called[:]
            if {install}:  # the loop's handler comes and goes while the listener is open
                loop.remove_signal_handler(signal.SIGUSR1)
                os.kill(os.getpid(), signal.SIGUSR1)
                await listener.aget()
                await asyncio.sleep(0.01)
                assert called == []
                loop.add_signal_handler(signal.SIGUSR1, called.append, "loop")
            os.kill(os.getpid(), signal.SIGUSR1)
            await listener.aget()
            while not called:
                await asyncio.sleep(0.001)
        # And it stays when the listener has gone.
        os.kill(os.getpid(), signal.SIGUSR1)
        while len(called) < 2:
            await asyncio.sleep(0.001)
        print(called)

    with asyncio.Runner(loop_factory=__import__({module!r}).new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 20))
    """


@pytest.mark.parametrize("install", [False, True])
@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
def test_the_loops_own_signal_handlers_work_beside_a_listener(module, install):
    assert said(_BESIDE.format(module=module, install=install)) == [
        "['SIGUSR1', 'SIGUSR2'] ['added', 'loop', \"loop's HUP\"]",
        "['loop', 'loop']",
    ]


@pytest.mark.parametrize("install", [False, True])
@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
def test_asyncio_cancels_the_main_task_on_ctrl_c_beside_a_listener(module, install):
    assert said(
        f"""
        import signal
        if {install}:
            sigwright.install()
            listener = sigwright.listen(signal.SIGINT)

        async def main():
            global listener
            if not {install}:
                listener = sigwright.listen(signal.SIGINT)
            asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(20)

        try:
            with asyncio.Runner(loop_factory=__import__({module!r}).new_event_loop) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted", [info.si_signo.name for info in listener.drain()])
        """
    ) == ["interrupted ['SIGINT']"]


@pytest.mark.parametrize("install", [False, True])
def test_trios_signal_receiver_works_beside_a_listener(install):
    assert said(
        f"""
        import signal, trio
        if {install}:
            sigwright.install()

        async def main():
            with trio.open_signal_receiver(signal.SIGUSR1) as receiver:
                with sigwright.listen(signal.SIGUSR1) as listener:
                    os.kill(os.getpid(), signal.SIGUSR1)
                    async for signum in receiver:
                        print(signum == (await listener.aget()).si_signo)
                        break
                os.kill(os.getpid(), signal.SIGUSR1)
                async for signum in receiver:
                    print(signal.Signals(signum).name)
                    break

        trio.run(main)
        """
    ) == ["True", "SIGUSR1"]


@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
def test_a_listener_that_the_stdlib_has_cut_off_is_back_with_the_next_one(module):
    assert said(
        f"""
        async def main():
            loop = asyncio.get_running_loop()
            called = []
            with sigwright.listen(sigwright.SIGUSR1) as first:
                loop.add_signal_handler(sigwright.SIGUSR1, called.append, "loop")
                os.kill(os.getpid(), sigwright.SIGUSR1)
                while not called:
                    await asyncio.sleep(0.001)
                print(len(first.drain()))
                with sigwright.listen(sigwright.SIGUSR1) as second:
                    os.kill(os.getpid(), sigwright.SIGUSR1)
                    await second.aget()
                    await first.aget()
                    while len(called) < 2:
                        await asyncio.sleep(0.001)
            print(called)

        with asyncio.Runner(loop_factory=__import__({module!r}).new_event_loop) as runner:
            runner.run(asyncio.wait_for(main(), 20))
        """
    ) == ["0", "['loop', 'loop']"]
