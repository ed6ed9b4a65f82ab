"""Orderly shutdown: a block that a signal asks to end, and what is put in order at its end.

Two consumers get the signals while the block is entered. An added handler acts on them in the main
thread: it begins the shutdown, and ends the program on the second press. A listener, which nobody
reads before the first arrival is asked for, makes `requested` true from the arrival on, for every
thread, also while the main thread is stuck in C or inside of `deferred`. So whoever waits in
`wait()` needs no main thread either. No thread is started, and no handler of `signal()` is touched.

Two of the engine's watches see to it that grace ends: one for a signal that nobody answers (no
handler runs while C code holds the GIL, or inside of a section), and from the request on an
unconditional one.

Roads not taken:

- A handler with `thread=True`, which would run at once: it cancels blocks of the main thread, and
  would do it from a thread that competes with them for the GIL.
- threading.Event: a handler that sets it can interrupt its own thread inside of the event's lock.
- To run the callbacks in the handler, or when the signal comes: the block still uses what they
  close.
- The end by the signal (`exit="signal"`) in the decorated function's wrapper: event loops, blocks
  and atexit functions further out would not see their end. It is the process's last act.
"""

from __future__ import annotations

import atexit
import errno
import math
import os
import sys
import time
from _queue import Empty  # queue.Empty; the module queue imports threading
from _thread import RLock, get_ident
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from types import CoroutineType

from . import _engine, siginfo, systemd
from .limits import Cancelled, CancelScope, fail_at
from .listening import Listener, Registration, _running_loop
from .sections import ASYNC_GENERATOR, COROUTINE, GENERATOR, is_function, suspends

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType
    from typing import Any, Literal, ParamSpec, Self, TypeAlias, TypeVar

    from .siginfo import SignalInfo

    P = ParamSpec("P")
    R = TypeVar("R")
    _Exit: TypeAlias = int | Literal["signal"] | None
    _Callback: TypeAlias = tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]

__all__ = ["GracefulShutdown", "graceful_shutdown"]

_AGAIN_NS = 500_000_000
"""A second press. What comes sooner is the first one again: wrappers (npm, uv, a terminal's process
group and the parent that forwards to it) deliver Ctrl+C twice within milliseconds."""

_LAST_WORDS_NS = 100_000_000
"""From the end of the grace, which is the callbacks' limit, to the unconditional one: the program
may still end by itself, and say what took so long."""

_TURN = 0.01
"""Seconds that a callback has at least: to remove a file, say, after one that took all the time."""

_undisturbed = _engine.deferred()
"""No handler and no limit interrupts what must be done in full, or not at all."""


def graceful_shutdown(
    *signums: int,
    grace: float = 8.0,
    cancel: bool = False,
    exit: _Exit = "signal",  # noqa: A002 - what the process does
    reap: bool = False,
    watchdog: bool = True,
) -> GracefulShutdown:
    """Let a block end in order when a signal asks for it, within so many seconds.

    ::

        with graceful_shutdown() as stop:
            stop.callback(database.close)
            while not stop.requested:
                work()

    The first signal asks: `requested` is true, `wait()` returns, and with `cancel` the block is
    cancelled. Whenever the block is left, with or without a signal, the callbacks run in its
    thread, the last one first, each with what is left of the grace as its limit.

    A second one of the same signal, half a second after the first or later, is answered with its
    default action: it ends the process at once. (What comes sooner is the same press of a key,
    forwarded twice.) When the grace is over and the block not left the process is ended, whatever
    it does: with all stacks on stderr, and by the signal.

    A signal that is ignored when the block is entered (nohup) stays ignored. Handlers of `signal()`
    run as well; the default action and `default_int_handler` do not act in the block. Forked
    children are not in it: there the signals do what they would do without.

    `async with` is for asyncio, uvloop and trio: `cancel` then is the loop's own cancellation, and
    callbacks may be coroutine functions. As a decorator of a function, `async def` too, it also
    ends the process, when a signal has asked for that: see `exit`.

    Parameters:
        signums: The signals; none: SIGTERM and SIGINT.
        grace: Seconds from the first signal's arrival to the end; math.inf: for ever.
        cancel: Cancel the block at the first signal: it is interrupted and left, and goes on after
            its end. The block is then not left with an exception.
        exit: How the decorated function ends the process after a request. "signal": it raises
            SystemExit(128 + number), and the process's last act, after the atexit functions, is to
            end by the signal: the parent sees it, and a shell says 128 + number. A number:
            SystemExit with that. None: not at all, it returns. `with` never ends the process.
        reap: Wait for orphans, of which process 1 of a container is the parent.
        watchdog: Send systemd's watchdog its WATCHDOG=1, where it asks for that.

    Returns:
        A `GracefulShutdown`: `with`, `async with` or a decorator. It can be entered again.

    Raises:
        TypeError: A signal that is not an int; a grace that is no number.
        ValueError: A number out of range; a grace that is negative or NaN.
        OSError: EINVAL for a signal that cannot be caught (SIGKILL, SIGSTOP).

    Platform: Linux. Any thread. Source: systemd's daemon(7) on SIGTERM; docker stop, and
    Kubernetes' termination of pods: SIGTERM, a grace period, SIGKILL.
    """
    return GracefulShutdown(
        *signums, grace=grace, cancel=cancel, exit=exit, reap=reap, watchdog=watchdog
    )


class GracefulShutdown:
    """A block that ends in order: see `graceful_shutdown()`.

    Several may be entered at once, one inside the other or side by side in threads. Each is asked
    by the same signal, runs its own callbacks, and has its own grace, from the same arrival: the
    shortest ends the process. One that is entered during a shutdown is asked from the start.
    """

    def __init__(
        self,
        *signums: int,
        grace: float = 8.0,
        cancel: bool = False,
        exit: _Exit = "signal",  # noqa: A002
        reap: bool = False,
        watchdog: bool = True,
    ) -> None:
        """Check the arguments: see `graceful_shutdown()`."""
        self._signums = signums or (_engine.SIGTERM, _engine.SIGINT)
        for signum in self._signums:
            _engine.getsignal(signum)  # TypeError, ValueError
            if signum in (_engine.SIGKILL, _engine.SIGSTOP):
                name = _engine.Signals(signum)
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        if not grace >= 0:
            raise ValueError("grace must not be negative")
        if exit not in ("signal", None) and not isinstance(exit, int):
            raise TypeError(f"exit is a number, 'signal' or None, not {exit!r}")
        self._grace = float(grace)
        self._cancel = cancel
        self._exit: _Exit = exit
        self._reap = reap
        self._watchdog = watchdog

        self._lock = RLock()
        self._in_force = False
        self._info: SignalInfo | None = None
        self._arrivals: Listener | None = None
        self._waiting: set[Listener] = set()  # who waits
        self._watches: list[int] = []  # to be taken back when the block is left
        self._ends_process = False
        self._callbacks: list[_Callback] = []

    def __repr__(self) -> str:
        """Tell the signals, and whether one has come."""
        names = ", ".join(siginfo.name_of(signum) for signum in self._signums)
        state = "requested" if self.requested else "in force" if self._in_force else "not entered"
        return f"<{type(self).__name__} {names}, grace {self._grace:g} s, {state}>"

    # --- what came -----------------------------------------------------------------------------

    @property
    def requested(self) -> bool:
        """Whether a signal has asked for the end: from its arrival on, in any thread."""
        return self.info is not None

    @property
    def info(self) -> SignalInfo | None:
        """What asked for the end, and who sent it; None: nothing has, yet."""
        if self._info is None and self._in_force:
            with _undisturbed, self._lock:
                if self._in_force and self._arrivals is not None:
                    for info in self._arrivals.drain():
                        self._begin(info)
        return self._info

    def remaining(self) -> float:
        """Return what is left of the grace, in seconds, never below 0; before a request inf."""
        info = self.info
        if info is None:
            return math.inf
        return max(0.0, info.monotonic_ns / 1e9 + self._grace - time.monotonic())

    def _turn(self) -> float:
        """The limit of a callback, from now on."""
        return max(self.remaining(), _TURN)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the end is asked for.

        Parameters:
            timeout: Seconds, at most; None for no limit.

        Returns:
            Whether it has been: False when the time is over.

        Raises:
            ValueError: A negative timeout, or NaN.
            RuntimeError: The block is not entered, or was left meanwhile, without a request.
            Anything that a handler raises, in the main thread.

        Platform: Linux. Any thread; not where an event loop runs: `async_wait()`.
        """
        if self.requested:
            return True
        with self._waiter() as arrivals, suppress(Empty):
            if not self.requested:
                arrivals.get(timeout)
        return self.requested

    async def async_wait(self) -> None:
        """Wait until the end is asked for, in a task of asyncio, uvloop or trio.

        Raises:
            RuntimeError: As `wait()`; no such event loop runs here.

        Platform: Linux. Any thread, any loop, also another one than the block's.
        """
        if not self.requested:
            with self._waiter() as arrivals:
                if not self.requested:
                    await arrivals.aget()

    @contextmanager
    def _waiter(self) -> Iterator[Listener]:
        """A listener of one's own. Opened before the look at `requested`: nothing is missed."""
        with _undisturbed, self._lock:
            if not self._in_force:
                raise RuntimeError("this shutdown's block is not entered")
            arrivals = Listener(*self._listened, maxsize=1)
            self._waiting.add(arrivals)
        try:
            yield arrivals
        except RuntimeError:
            if not arrivals.closed:
                raise
            if not self.requested:
                raise RuntimeError("this shutdown's block was left without a request") from None
        finally:
            self._waiting.discard(arrivals)
            arrivals.close(discard=True)

    def callback(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Callable[P, R]:
        """Have a function called when the block is left, as `contextlib.ExitStack.callback()` does.

        The last one first; in the block's thread, never in a handler. If a shutdown is requested,
        each has what is then left of the grace: what takes longer ends with TimeoutError, and the
        others still have their turn, of 10 ms when there is nothing left. An exception does not
        keep the others from running either; the last one leaves the block, the ones before are its
        context.

        In `async with` a coroutine function is awaited, under the loop's own timeout. Any other is
        called in the loop's thread, without a limit of its own.

        Parameters:
            function: What to call; args, kwargs: with what.

        Returns:
            The function: this is a decorator as well.

        Platform: Linux. Any thread.
        """
        self._callbacks.append((function, args, kwargs))
        return function

    # --- the service manager -------------------------------------------------------------------

    def ready(self, **fields: object) -> bool:
        """Tell systemd that the service is up: READY=1, and what else is to be told (STATUS=...).

        See `systemd.notify()` for what it returns and raises.
        """
        return systemd.notify(READY=1, **fields)

    def status(self, text: str) -> bool:
        """Tell systemd what the service does: STATUS, one line that `systemctl status` shows.

        See `systemd.notify()` for what it returns and raises.
        """
        return systemd.notify(STATUS=text)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell systemd that the service reads its settings anew, while a block runs.

        RELOADING=1 with MONOTONIC_USEC, as `Type=notify-reload` wants it; after the block READY=1,
        whether or not it has failed: the service runs on with the old settings.

        See `systemd.notify()` for what it raises.
        """
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        systemd.notify(RELOADING=1, MONOTONIC_USEC=microseconds)
        try:
            yield
        finally:
            systemd.notify(READY=1)

    # --- entering and leaving ------------------------------------------------------------------

    def _open(self, act: Callable[[], object], scope: CancelScope | None = None) -> None:
        """From here on the signals are ours. `act` is called when the first one has come."""
        with _undisturbed, self._lock:
            if self._in_force:
                raise RuntimeError("this shutdown is entered already")
            self._info = None
            self._act = act
            self._scope = scope
            self._limit: CancelScope | None = None  # of the callback that runs
            self._thread = get_ident()
            self._pressed: dict[int, int] = {}  # when first, in nanoseconds, by signal
            with ExitStack() as undo:
                signals = self._take(undo)
                self._closing = undo.pop_all()
            self._in_force = True
            for other in tuple(_entered):
                if other._info is not None and other._info.si_signo in signals:
                    self._begin(other._info)
            _entered.append(self)

    def _take(self, undo: ExitStack) -> tuple[int, ...]:
        signals = tuple(s for s in self._signums if _engine.getsignal(s) is not _engine.SIG_IGN)
        # Where all are ignored, who waits listens to what does nothing by default: a listener to
        # nothing does not exist.
        self._listened = signals or (_engine.SIGURG,)
        undo.callback(self._unwatch)
        if signals:
            # When they close, after a request nothing is left to be said. Without one, what has
            # come too late for both is nobody's, and the last one's closing raises it again.
            self._arrivals = arrivals = Listener(*signals, maxsize=1)
            undo.callback(lambda: arrivals.close(discard=self._info is not None))
            handler = Registration(*signals, handler=self._arrived, inherit=False)
            undo.callback(lambda: handler.close(discard=self._info is not None))
            if self._grace < math.inf:
                # Not answered by deferred(): a section that never ends has no more than the grace.
                grace_ns = round(self._grace * 1e9)
                self._watches.append(_engine.watch(signals, grace_ns, 0, -1, True, False))
        systemd.prepare()
        if self._reap:
            from .reaping import Reaper

            undo.callback(Reaper().close)
        period = systemd.watchdog_period() if self._watchdog else None
        if period is not None:
            from .timers import call_every

            undo.callback(call_every(period, _ping).cancel)
        return signals

    def _unwatch(self) -> None:
        while self._watches:
            _engine.unwatch(self._watches.pop())

    def _close(self) -> None:
        with _undisturbed:
            with self._lock:
                _ = self.requested  # the last look: what has come by now is a request
                self._in_force = False
                waiting, self._waiting = self._waiting, set()
            if self in _entered:  # not in a forked child
                _entered.remove(self)
            for listener in waiting:
                listener.close(discard=True)
            self._closing.close()
            self._arrivals = None
            self._ends_process = False

    def _arrived(self, info: SignalInfo) -> None:
        """The added handler: in the main thread, at a safe point."""
        first = self._pressed.setdefault(info.si_signo, info.monotonic_ns)
        if info.monotonic_ns - first >= _AGAIN_NS:
            _engine.run_default(info.si_signo)
        self._begin(info)

    def _begin(self, info: SignalInfo) -> None:
        """The first one: in the main thread, or in any that asks before the handler has run."""
        with _undisturbed, self._lock:
            if self._info is not None:
                return
            self._info = info
            if not self._in_force:
                return  # while the block was being left, in a worker
            if self._grace < math.inf:
                end_ns = info.monotonic_ns + round(self._grace * 1e9) + _LAST_WORDS_NS
                end = _engine.watch_until(end_ns, info.si_signo, -1, True)
                if not self._ends_process:
                    self._watches.append(end)
            with suppress(OSError):  # the shutdown goes on without the manager's knowing
                systemd.send(self._stopping(), 0)
            self._act()

    def _stopping(self) -> dict[str, object]:
        # Once, and for all of the grace: it never makes the manager's own time-out shorter. A
        # second more, so that the watch ends the process and not the manager.
        fields: dict[str, object] = {"STOPPING": 1}
        if self._grace < math.inf:
            fields["EXTEND_TIMEOUT_USEC"] = round((self._grace + 1) * 1e6)
        return fields

    # --- with ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Begin: from here on the signals ask, and do not act.

        Raises:
            RuntimeError: It is entered already; an event loop runs here: use `async with`.
        """
        if _in_trio() or _running_loop() is not None:
            raise RuntimeError("an event loop runs in this thread: use `async with`")
        scope = CancelScope() if self._cancel else None
        self._open(self._interrupt, scope)
        self._leave = _stay if scope is None else scope.__exit__
        try:
            if scope is not None:
                scope.__enter__()
        except Cancelled:
            pass  # too early: here is no block yet to be left. It comes again, inside of it
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Run the callbacks, and let the signals act again."""
        left = False
        try:
            # Nothing that can be interrupted comes before it, and nothing of ours interrupts after.
            left = bool(self._leave(exc_type, exc_value, traceback))
        finally:
            try:
                errors = _Errors(exc_value)
                while self._callbacks:
                    with errors:
                        self._call_one()
                errors.throw()
            finally:
                self._close()
        return left

    def _interrupt(self) -> None:
        """What the request does to a block of `with`: cancel it, or limit the callback it is in."""
        if self._limit is not None:
            self._limit.deadline = time.monotonic() + self._turn()
        elif self._scope is not None and not self._is_leaving():
            self._scope.cancel()

    def _is_leaving(self) -> bool:
        """Whether the block's thread stands at the first step of __exit__.

        Interrupted there, it has no `try` yet to see to the rest; and nothing is left to cancel.
        (Another thread than this one waits for the GIL, and goes on where it was.)
        """
        frame: FrameType | None
        if self._thread == get_ident():
            frame = sys._getframe()
        else:
            frame = sys._current_frames().get(self._thread)
        leaving = GracefulShutdown.__exit__.__code__
        while frame is not None and frame.f_globals is globals() and frame.f_code is not leaving:
            frame = frame.f_back
        return frame is not None and frame.f_code is leaving

    def _call_one(self) -> None:
        function, args, kwargs = self._callbacks.pop()
        self._limit = fail_at(math.inf)
        # Not before: from here on _interrupt() sees to it.
        self._limit.deadline = time.monotonic() + self._turn()
        with self._limit:
            result = function(*args, **kwargs)
        if isinstance(result, CoroutineType):
            result.close()
            raise TypeError(f"{function!r} is async: that needs `async with`")

    # --- async with ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin, in a task of asyncio, uvloop or trio.

        Raises:
            RuntimeError: It is entered already; no such event loop runs here.
        """
        from .shutdown_loops import AsyncioPlace, TrioPlace, take_sigint_from_loop

        place = TrioPlace(self) if _in_trio() else AsyncioPlace(self)
        give_sigint_back = take_sigint_from_loop(self._signums)
        try:
            self._open(place.ask)
        except BaseException:
            give_sigint_back()
            raise
        self._give_sigint_back = give_sigint_back
        self._place = place
        place.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Run the callbacks, and let the signals act again."""
        left = False
        try:
            left = self._place.leave(exc_type, exc_value, traceback)
        finally:
            try:
                errors = _Errors(exc_value)
                while self._callbacks:
                    with errors:
                        await self._await_one()
                errors.throw()
            finally:
                self._close()
                self._give_sigint_back()
        return left

    async def _await_one(self) -> None:
        function, args, kwargs = self._callbacks.pop()
        result = function(*args, **kwargs)
        if hasattr(result, "__await__"):
            await self._place.limited(result)

    # --- a decorator ---------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a main function, plain or `async def`: it runs inside of the block.

        After a request it ends the process, as `exit` says; an exception of the function's own is
        more important, and leaves it as ever. The grace then is the whole process's: a thread that
        is no daemon, or an atexit function, does not keep it for longer. To use the shutdown
        inside, give it a name::

            stop = graceful_shutdown()

            @stop
            def main():
                while not stop.wait(1.0):
                    work()

        Cancelled (`cancel`), with `exit=None`, the function returns None. A coroutine function
        remains one: run it with `asyncio.run()` or `trio.run()`.

        Raises:
            TypeError: What is decorated is no function, or a generator.
        """
        flags = suspends(function)
        if not is_function(function) or flags & (GENERATOR | ASYNC_GENERATOR):
            raise TypeError(f"a shutdown decorates functions, not {function!r}")

        async def coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            result = None
            self._ends_process = self._exit is not None
            async with self:
                result = await function(*args, **kwargs)  # type: ignore[misc] # by its flags
            self._end()
            return result

        def plain(*args: P.args, **kwargs: P.kwargs) -> Any:
            result = None
            self._ends_process = self._exit is not None
            with self:
                result = function(*args, **kwargs)
            self._end()
            return result

        main: Callable[P, Any] = coroutine if flags & COROUTINE else plain
        return wraps(function)(main)

    def _end(self) -> None:
        if self._info is None or self._exit is None:
            return
        if self._exit != "signal":
            raise SystemExit(self._exit)
        signum = self._info.si_signo
        atexit.register(_end_by, signum)
        raise SystemExit(128 + signum)


class _Errors:
    """What callbacks raise: kept until all have run, and each the next one's context.

    As of nested blocks, then. (An ExitStack loses all but the last one where the block itself has
    not raised.)
    """

    def __init__(self, block: BaseException | None) -> None:
        self._block = block
        self._all: list[BaseException] = []

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if exc_value is not None:
            end = exc_value
            while not self._has(end) and (context := end.__context__) is not None:
                if context is self._block:
                    break
                end = context
            if self._all and not self._has(end) and end is not self._block:  # no circles
                end.__context__ = self._all[-1]
            self._all.append(exc_value)
        return True

    def _has(self, error: BaseException) -> bool:
        return any(error is one for one in self._all)

    def throw(self) -> None:
        """Raise the last one, if there is one."""
        if self._all:
            last = self._all[-1]
            context = last.__context__
            try:
                raise last
            finally:
                last.__context__ = context  # `raise` has put the block's in its place


def _end_by(signum: int) -> None:
    """The process's last act. Registered last it is called first, and calls the others itself."""
    atexit.unregister(_end_by)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):  # as the interpreter would
        with suppress(Exception):
            stream.flush()
    _engine.run_default(signum)


def _ping() -> None:
    with suppress(OSError):  # the manager will miss it, and say so
        systemd.send({"WATCHDOG": 1}, 0)


def _stay(*_: object) -> bool:
    return False


def _in_trio() -> bool:
    """Whether a task of trio's runs here; trio may be there in part, while a thread imports it."""
    in_trio_task = getattr(sys.modules.get("trio.lowlevel"), "in_trio_task", None)
    return in_trio_task is not None and bool(in_trio_task())


_entered: list[GracefulShutdown] = []
"""The blocks that are in force in this process, the oldest first."""


def _forget() -> None:
    """In a forked child: its consumers are closed there, and it is in no block."""
    for shutdown in _entered:
        shutdown._lock = RLock()  # another thread of the parent may have held it
        shutdown._waiting = set()
        shutdown._in_force = False
        shutdown._unwatch()
    _entered.clear()


os.register_at_fork(after_in_child=_forget)
