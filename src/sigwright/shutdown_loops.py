"""graceful_shutdown() in event loops: blocks in a task of asyncio, uvloop or trio.

A place is where such a block is: it takes the request to the loop, cancels the block, and limits
the callbacks, each by the loop's own means. The loop is not imported here: it runs.
"""

from __future__ import annotations

import math
import sys
from contextlib import suppress

from .listening import _running_loop
from .stopping import can_set_handlers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Timeout
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Any

    from .shutdown import GracefulShutdown

__all__ = ["AsyncioPlace", "TrioPlace", "take_sigint_from_loop"]


class AsyncioPlace:
    """A block in a task of asyncio: cancelled as asyncio.timeout() does it."""

    def __init__(self, shutdown: GracefulShutdown) -> None:
        """Note which task and loop this is."""
        loop = _running_loop()
        if loop is None:
            raise RuntimeError(
                "`async with` needs a task of asyncio, uvloop or trio, and none runs"
            )
        self._asyncio = sys.modules["asyncio"]
        self._loop = loop
        self._task = self._asyncio.current_task()
        self._cancelling = self._task.cancelling()
        self._shutdown = shutdown
        self._cancels = shutdown._cancel
        self._cancelled = False
        self._limit: Timeout | None = None

    def ask(self) -> None:
        """The request has come: in any thread, perhaps in the middle of the loop's own code."""
        with suppress(RuntimeError):  # closed, and so is the block
            self._loop.call_soon_threadsafe(self._asked)

    def _asked(self) -> None:
        if self._limit is not None:
            if not self._limit.expired():
                self._limit.reschedule(self._loop.time() + self._shutdown._turn())
        elif self._cancels:
            self._cancelled = True
            self._task.cancel()

    def enter(self) -> None:
        """Begin the block."""

    def leave(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """End it. Returns whether it was left by our cancellation, which then ends here."""
        self._cancels = False
        return (
            self._cancelled
            and self._task.uncancel() <= self._cancelling
            and exc_type is not None
            and issubclass(exc_type, self._asyncio.CancelledError)
        )

    async def limited(self, awaitable: Awaitable[object]) -> None:
        """Await a callback, within what is left of the grace, also if the request comes in it."""
        turn = self._shutdown._turn()
        limit = self._asyncio.timeout(None if turn == math.inf else turn)
        try:
            async with limit as self._limit:
                await awaitable
        finally:
            self._limit = None


class TrioPlace:
    """A block in a task of trio: cancelled by a scope of trio's."""

    def __init__(self, shutdown: GracefulShutdown) -> None:
        """Note which task and loop this is."""
        self._trio = sys.modules["trio"]
        self._token = self._trio.lowlevel.current_trio_token()
        self._shutdown = shutdown
        self._scope = self._trio.CancelScope()
        self._limit: Any = None

    def ask(self) -> None:
        """The request has come: in any thread, perhaps in the middle of trio's own code."""
        with suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(self._asked)

    def _asked(self) -> None:
        if self._limit is not None:
            self._set_limit()
        elif self._shutdown._cancel:
            self._scope.cancel()

    def _set_limit(self) -> None:
        # An orderly end is not for who cancels from further out to cut short: grace limits it.
        self._limit.deadline = self._trio.current_time() + self._shutdown._turn()
        self._limit.shield = self._shutdown.requested

    def enter(self) -> None:
        """Begin the block."""
        self._scope.__enter__()

    def leave(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """End it. Returns whether it was left by our cancellation, which then ends here."""
        return bool(self._scope.__exit__(exc_type, exc_value, traceback))

    async def limited(self, awaitable: Awaitable[object]) -> None:
        """Await a callback, within what is left of the grace, also if the request comes in it."""
        try:
            with self._trio.fail_after(math.inf) as self._limit:
                self._set_limit()
                await awaitable
        finally:
            self._limit = None


def take_sigint_from_loop(signums: tuple[int, ...]) -> Callable[[], object]:
    """Have Ctrl+C ask, and nothing else, inside of asyncio.run() and trio.run().

    They set a handler of their own for SIGINT, which cancels the main task or raises
    KeyboardInterrupt: beside ours, the second answer to one question. Theirs alone is taken away,
    and it is back after the block; a handler of the program's stays. Returns what gives it back.
    """
    import signal as stdlib  # what they have called: also where sigwright stands in for it

    handler = stdlib.getsignal(stdlib.SIGINT)
    module = getattr(getattr(handler, "func", handler), "__module__", None)
    if (
        stdlib.SIGINT not in signums
        or module not in ("asyncio.runners", "trio._core._ki")
        or not can_set_handlers()
    ):
        return _nothing
    stdlib.signal(stdlib.SIGINT, stdlib.default_int_handler)

    def give_back() -> None:
        if stdlib.getsignal(stdlib.SIGINT) is stdlib.default_int_handler:
            stdlib.signal(stdlib.SIGINT, handler)

    return give_back


def _nothing() -> None:
    pass
