"""Every arrival for everyone who asks: listeners, and handlers beside the one of `signal()`.

The engine gives each of them a ring of its own, which arrivals fill in signal context, and each
listener a file descriptor that is readable while something waits there. So a listener works with
whatever can wait for a descriptor, and needs no thread. What is written here is the waiting in
event loops, and the thread in which handlers with `thread=True` run.

**asyncio** (uvloop too). A listener has one reader in each loop, registered while tasks wait and
left there from one arrival to the next, so that `async for` does not pay two calls of `epoll_ctl`
for each. A task that waits is resumed by the reader itself, in the step of the loop that found the
descriptor readable, and takes its record there and then. With a future it would be resumed one step
later, which doubles the time, and a task that is cancelled between the two steps would have to hand
on what it was woken for. Nothing is cancelled between the two lines of one function.

**trio.** One task of a run waits for the descriptor, the others for its place: trio lets only one
wait, and its Lock is fair and knows how to be cancelled.

No event loop is imported here: a program that runs one has imported it.
"""

from __future__ import annotations

import sys
from _queue import Empty  # queue.Empty; the module queue imports threading
from _thread import RLock  # a handler may interrupt us, and come here itself
from types import coroutine

from . import _engine, siginfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncIterator, Callable, Generator, Iterable
    from contextvars import Context
    from signal import Signals
    from types import TracebackType
    from typing import Any, Self, TypeAlias, TypeVar

    from .siginfo import SignalInfo

    _Loop = TypeVar("_Loop", bound="_AsyncioLoop | _TrioRun")
    _Handler: TypeAlias = Callable[[SignalInfo], object]
    _AnyHandler = TypeVar("_AnyHandler", bound=_Handler)

__all__ = ["Listener", "Registration", "add_handler", "listen", "on"]

_IN_A_ROW = 64
"""So many records a loop's tasks take without a pause before the loop's other work has its turn."""


def listen(*signums: int, maxsize: int = 1024, inherit: bool = False) -> Listener:
    """Get a copy of every arrival of these signals, from now on.

    While a listener is open on a signal, the default action and `default_int_handler` do not act:
    no KeyboardInterrupt, no end of the process. Handlers that `signal()` set do.

    Parameters:
        signums: The signals, at least one.
        maxsize: How many arrivals may wait to be read; 64 bytes of memory are set aside for each,
            rounded up to a power of two. When so many wait, each signal has one more place; what
            comes then is dropped, and counted in `Listener.dropped`.
        inherit: Whether the listener stays open in forked children, where it is empty but for the
            child's own arrivals. Otherwise it is closed there.

    Returns:
        A `Listener`, open.

    Raises:
        TypeError: No signal is given, or one that is not an int.
        ValueError: A number out of range; a `maxsize` below 1 or above 16,777,216.
        OSError: EINVAL for a signal that cannot be caught (SIGKILL, SIGSTOP); EMFILE, ENFILE where
            there is no file descriptor left.

    Platform: Linux. Any thread.
    """
    return Listener(*signums, maxsize=maxsize, inherit=inherit)


class _Consumer(_engine.Consumer):
    """What listeners and registrations have in common: `with` closes them."""

    __slots__ = ()

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it, cancel it."""
        self.close()


class Listener(_Consumer):
    """Reads the arrivals of some signals, each with its `SignalInfo`: see `listen()`.

    Threads block in `get()` or in a `for` loop; tasks of asyncio, uvloop and trio wait in `aget()`
    or `async for`; whatever else can wait for a file descriptor waits for `fileno()`. Any number of
    them may read one listener, in any threads and loops, and each arrival goes to one of them.

    A listener is a context manager, `with` and `async with`, which closes it. One that nobody
    refers to any more is closed, too.
    """

    __slots__ = ("_loops",)

    # Where tasks wait, or waited, by asyncio's loops and the tokens of trio's runs.
    _loops: dict[object, Any]

    def __new__(cls, *signums: int, maxsize: int = 1024, inherit: bool = False) -> Self:
        """Open it: see `listen()`."""
        self = super().__new__(cls, signums, maxsize, _engine.KIND_LISTENER, inherit, None)
        self._loops = {}
        return self

    def __repr__(self) -> str:
        """Tell the signals, and how many arrivals wait."""
        state = "closed" if self.closed else f"{self.qsize()} waiting"
        return f"<{type(self).__name__} {_names(self.signals)}, {state}>"

    async def __aenter__(self) -> Self:
        """Return the listener itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self, discard: bool = False) -> None:
        """Get no more copies. What waits cannot be read any more; who waits is woken.

        With the last listener or added handler of a signal, what `signal()` says acts again, and
        what nobody has read and no handler ran is raised again, once a number: a SIGTERM that came
        too late to be read ends the program. Closing twice is allowed.

        Parameters:
            discard: Do not raise again what waits here.

        Raises:
            Exception: Whatever a handler raises that what is raised again has run, in the main
                thread.

        Platform: Linux. Any thread.
        """
        try:
            super().close(discard)
        finally:
            # The descriptor has become readable, and stays so: that tells whoever waits.
            for loop in tuple(self._loops.values()):
                loop.let_go()

    async def aget(self) -> SignalInfo:
        """Take the oldest arrival; the task waits for it.

        A task that is cancelled while it waits takes nothing: no arrival is lost by that. Under
        trio this is always a checkpoint; under asyncio it is one when it has to wait, and else once
        in 64 calls, so that a storm of signals does not starve the loop.

        Returns:
            What arrived.

        Raises:
            RuntimeError: The listener is closed, or was closed meanwhile; no event loop runs here,
                or one that is neither asyncio's (uvloop's is) nor trio's.

        Platform: Linux. Any thread.
        """
        info = await self._next()
        if info is None:
            raise RuntimeError("this listener is closed")
        return info

    def __aiter__(self) -> AsyncIterator[SignalInfo]:
        """Iterate with `async for`, as `aget()`, until it is closed."""
        return self

    async def __anext__(self) -> SignalInfo:
        """Take the oldest arrival, or end the iteration where it is closed."""
        info = await self._next()
        if info is None:
            raise StopAsyncIteration
        return info

    @coroutine
    def _next(self) -> Generator[Any, Any, SignalInfo | None]:
        """Take the oldest arrival, waiting as the running loop does. None: it is closed."""
        # trio first: as a guest it runs inside another loop, asyncio's perhaps. (It may be there in
        # part: another thread imports it.)
        in_trio_task = getattr(sys.modules.get("trio.lowlevel"), "in_trio_task", None)
        if in_trio_task is not None and in_trio_task():
            return (yield from self._next_in_trio(sys.modules["trio"]).__await__())
        loop = _running_loop()
        if loop is None:
            raise RuntimeError(
                "a task of asyncio, uvloop or trio can wait for signals here, and none runs; "
                "elsewhere use get(), or fileno()"
            )
        here = self._loops.get(loop) or self._enter(loop, _AsyncioLoop(self, loop))
        while not self.closed:
            if here.in_a_row >= _IN_A_ROW:
                here.in_a_row = 0
                yield  # to the loop: asyncio goes on with this task in its next step
            elif (info := self._take()) is not None:
                here.in_a_row += 1
                return info
            elif here.start_reading():
                yield here.wait()
                try:
                    return self.get_nowait()  # without another look at anything: time counts here
                except (Empty, RuntimeError):
                    pass  # another reader was quicker, or it is closed
        return None

    async def _next_in_trio(self, trio: Any) -> SignalInfo | None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if (info := self._take()) is not None:
            # The record is taken: a cancellation must wait for the next checkpoint.
            await trio.lowlevel.cancel_shielded_checkpoint()
            return info
        token = trio.lowlevel.current_trio_token()
        here = self._loops.get(token) or self._enter(token, _TrioRun(self, token, trio))
        return await here.next()

    def _enter(self, key: object, loop: _Loop) -> _Loop:
        for other in tuple(self._loops.values()):
            other.let_go()
        self._loops[key] = loop
        return loop

    def _take(self) -> SignalInfo | None:
        if self.qsize():  # get_nowait() makes a system call before it says that there is nothing
            try:
                return self.get_nowait()
            except Empty:
                pass  # another thread was quicker
            except RuntimeError:
                if not self.closed:
                    raise
        return None


def _running_loop() -> AbstractEventLoop | None:
    try:
        loop: AbstractEventLoop = sys.modules["asyncio"].get_running_loop()
    except (KeyError, AttributeError, RuntimeError):
        return None  # not imported, or not yet in full, or not running
    return loop


class _AsyncioLoop:
    """A listener in one asyncio loop: its reader there, and the tasks that wait."""

    __slots__ = ("fd", "in_a_row", "listener", "loop", "waiting")

    def __init__(self, listener: Listener, loop: AbstractEventLoop) -> None:
        self.listener = listener
        self.loop = loop
        self.fd = -1  # not registered
        self.in_a_row = 0
        from collections import deque  # which asyncio has imported; from 3.13 on we would be first

        self.waiting: deque[_Waiting] = deque()

    def start_reading(self) -> bool:
        """False: the listener is closed."""
        if self.fd == -1:
            try:
                self.listener._hold()  # whoever closes it from now on leaves the descriptor open
            except RuntimeError:
                return False
            try:
                fd = self.listener.fileno()
                self.loop.add_reader(fd, self.readable)
            except BaseException:
                self.listener._release()
                if self.listener.closed:
                    return False
                raise
            self.fd = fd
        return True

    def stop_reading(self) -> None:
        fd, self.fd = self.fd, -1
        if fd != -1:
            self.loop.remove_reader(fd)
            self.listener._release()

    def wait(self) -> _Waiting:
        """What a task yields, to be resumed when it is its turn."""
        waiting = _Waiting(self)
        self.waiting.append(waiting)
        return waiting

    def readable(self) -> None:
        """Called by the loop: something waits, or the listener is closed."""
        if not self.waiting:
            # It stays readable, for others; and would call us again at once.
            self.stop_reading()
            return
        self.in_a_row = 0
        try:
            # Time counts until the task has its record: all else comes after.
            self.waiting.popleft().resume()
        finally:
            # One call for each task that waits: there is seldom more than one.
            if self.listener._acknowledge():
                self.listener._rearm()

    def end(self) -> None:
        """Tell those who wait that the listener is closed."""
        while self.waiting:
            self.waiting.popleft().resume()

    def let_go(self) -> None:
        """Do not keep what is of no more use; in any thread."""
        if self.loop.is_closed():
            # It has forgotten its readers.
            self.listener._loops.pop(self.loop, None)
            fd, self.fd = self.fd, -1
            if fd != -1:
                self.listener._release()
        elif self.listener.closed and self.loop is _running_loop():
            # At once: it may be the last thing that this loop does.
            self.stop_reading()
            self.loop.call_soon(self.end)


class _Waiting:
    """What a task of asyncio waits for: like a future, but it resumes the task at once.

    These are the methods by which asyncio's tasks use what is awaited.
    """

    __slots__ = ("_asyncio_future_blocking", "callback", "cancelled", "context", "place")

    def __init__(self, place: _AsyncioLoop) -> None:
        self._asyncio_future_blocking = True  # asyncio's mark of `await`, not a bare `yield`
        self.place = place
        self.cancelled: tuple[object, ...] | None = None

    def get_loop(self) -> AbstractEventLoop:
        return self.place.loop

    def add_done_callback(
        self, callback: Callable[[_Waiting], object], *, context: Context
    ) -> None:
        self.callback = callback
        self.context = context

    def resume(self) -> None:
        self.context.run(self.callback, self)

    def cancel(self, msg: object = None) -> bool:
        try:
            self.place.waiting.remove(self)
        except ValueError:
            return False  # it is resumed
        self.cancelled = () if msg is None else (msg,)
        # Not at once: who cancels may be a task that is running.
        self.place.loop.call_soon(self.callback, self, context=self.context)
        return True

    def result(self) -> None:
        if self.cancelled is not None:
            raise sys.modules["asyncio"].CancelledError(*self.cancelled)


class _TrioRun:
    """A listener in one run of trio."""

    __slots__ = ("listener", "lock", "token", "trio")

    def __init__(self, listener: Listener, token: Any, trio: Any) -> None:
        self.listener = listener
        self.token = token
        self.trio = trio
        self.lock = trio.Lock()  # whose holder waits for the descriptor

    async def next(self) -> SignalInfo | None:
        listener = self.listener
        try:
            self.lock.acquire_nowait()
        except self.trio.WouldBlock:
            await self.lock.acquire()
        try:
            listener._hold()  # whoever closes it from now on leaves the descriptor open
            try:
                while True:
                    await self.trio.lowlevel.wait_readable(listener.fileno())
                    listener._acknowledge()
                    info = listener._take()
                    listener._rearm()  # for others, if something is left
                    if info is not None:
                        return info
            finally:
                listener._release()
        except RuntimeError:
            if not listener.closed:
                raise
            return None
        finally:
            self.lock.release()

    def let_go(self) -> None:
        """Do not keep what is of no more use; in any thread."""
        try:
            self.token.run_sync_soon(_nothing)
        except self.trio.RunFinishedError:
            self.listener._loops.pop(self.token, None)


def _nothing() -> None:
    pass


def add_handler(
    signum: int, handler: _Handler, *, thread: bool = False, inherit: bool = True
) -> Registration:
    """Call a function for every arrival of a signal, beside whoever else gets it.

    Handlers are called one after the other, in the order of their registration; the one that
    `signal()` set, if any, is called as well. As with a listener, the default action and
    `default_int_handler` do not act meanwhile.

    Parameters:
        signum: The signal.
        handler: Called with one argument, the `SignalInfo`. What it raises surfaces in the main
            thread, as from a handler of `signal()`; the other handlers are called all the same.
        thread: Call it in sigwright's own thread, and at once, even while the main thread is inside
            a C call that has released the GIL. That is one daemon thread for all such handlers,
            started with the first; what they raise goes to `threading.excepthook`.
        inherit: Whether forked children have the handler, too.

    Returns:
        A `Registration`. The handler stays until its `cancel()`, also if nobody refers to it.

    Raises:
        TypeError: `handler` is not callable, or `signum` not an int.
        ValueError: A number out of range.
        OSError: EINVAL for a signal that cannot be caught (SIGKILL, SIGSTOP).
        RuntimeError: No thread can be started.

    Platform: Linux. Any thread.
    """
    return Registration(signum, handler=handler, thread=thread, inherit=inherit)


def on(
    *signums: int, thread: bool = False, inherit: bool = True
) -> Callable[[_AnyHandler], _AnyHandler]:
    """Add the decorated function as a handler of these signals, for as long as the program runs.

    Parameters:
        signums: The signals, at least one.
        thread: As for `add_handler()`.
        inherit: As for `add_handler()`.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        TypeError: What is decorated is not callable; no signal is given, or one that is not an int.
        ValueError: A number out of range.
        OSError: EINVAL for a signal that cannot be caught (SIGKILL, SIGSTOP).
        RuntimeError: No thread can be started.

    Platform: Linux. Any thread.
    """

    def decorate(handler: _AnyHandler) -> _AnyHandler:
        Registration(*signums, handler=handler, thread=thread, inherit=inherit)
        return handler

    return decorate


class Registration(_Consumer):
    """A handler that was added with `add_handler()`.

    A context manager, too, which cancels it in the end.
    """

    __slots__ = ()

    def __new__(
        cls, *signums: int, handler: _Handler, thread: bool = False, inherit: bool = True
    ) -> Self:
        """Add the handler: see `add_handler()`."""
        kind = _engine.KIND_THREAD if thread else _engine.KIND_MAIN
        # How many may wait is the engine's choice: as many as for a handler of signal().
        self = super().__new__(cls, signums, 1, kind, inherit, handler)
        if thread:
            try:
                _start_thread()
            except BaseException:
                self.cancel()
                raise
        return self

    def __repr__(self) -> str:
        """Tell the signals and the handler."""
        state = "" if self.active else ", cancelled"
        return f"<{type(self).__name__} {_names(self.signals)}: {self.handler!r}{state}>"

    @property
    def signal(self) -> int:
        """The signal that it handles, a member of `Signals`; of several (`on`), the lowest."""
        return min(self.signals)

    @property
    def active(self) -> bool:
        """Whether the handler is called: until `cancel()`, or the end of the interpreter."""
        return not self.closed

    def cancel(self) -> None:
        """Call the handler no more; the others stay. Cancelling twice is allowed.

        A call that has begun, in another thread perhaps, goes on. With the last handler or listener
        of a signal, what `signal()` says acts again, and an arrival that no handler was called for
        and no listener read is raised again.

        Raises:
            Exception: Whatever a handler raises that what is raised again has run, in the main
                thread.

        Platform: Linux. Any thread, and the handler itself.
        """
        self.close()


def _names(signals: Iterable[int]) -> str:
    return ", ".join(siginfo.name_of(signum) for signum in sorted(signals))


# --- the thread of thread=True ------------------------------------------------------------------

# While it waits it blocks all signals: they are for the threads that the program knows of, and one
# that the main thread blocks must not land here instead. While a handler runs it blocks no more
# than the thread that started it: a program that the handler starts inherits the mask, and would
# be deaf to SIGTERM.
_NOT_BLOCKED = {_engine.SIGSEGV, _engine.SIGBUS, _engine.SIGFPE, _engine.SIGILL}  # real faults

_thread: threading.Thread | None = None
_hooked = False
_starting = RLock()


def _start_thread() -> None:
    """Start sigwright's own thread, unless it runs."""
    global _thread, _hooked  # noqa: PLW0603 - one for the process
    import os
    import threading

    with _starting:
        if not _hooked:
            # threading's own hook, which was registered with its import, runs before this one.
            os.register_at_fork(after_in_child=_start_thread_in_child)
            _hooked = True
        if _thread is None or not _thread.is_alive():
            mask = _block_all()
            try:
                _thread = threading.Thread(
                    target=_call_handlers, args=(mask,), name="sigwright", daemon=True
                )
                _thread.start()
            finally:
                _engine.pthread_sigmask(_engine.SIG_SETMASK, mask)


def _start_thread_in_child() -> None:
    global _thread, _starting
    _thread, _starting = None, RLock()  # another thread of the parent may have held it
    if any(consumer.kind == _engine.KIND_THREAD for consumer in _engine.consumers()):
        _start_thread()


def _block_all() -> set[int | Signals]:
    everything = _engine.valid_signals() - _NOT_BLOCKED
    return _engine.pthread_sigmask(_engine.SIG_SETMASK, everything)


def _call_handlers(mask: set[int | Signals]) -> None:
    import threading

    while (pair := _engine.next_for_thread()) is not None:
        registration, info = pair
        assert registration.handler is not None
        _engine.pthread_sigmask(_engine.SIG_SETMASK, mask)
        try:
            registration.handler(info)
        except BaseException as error:
            hook_arguments = threading.ExceptHookArgs(
                (type(error), error, error.__traceback__, threading.current_thread())
            )
            try:
                threading.excepthook(hook_arguments)
            except Exception:  # as threading does
                sys.excepthook(*sys.exc_info())
            del hook_arguments
        _block_all()
        del pair, registration, info  # whatever they hold on to is not held until the next signal
