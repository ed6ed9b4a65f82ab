"""Critical sections: handlers and limits wait.

What holds them is the engine's (`_engine/deferral.c`), so that no safe point lies inside entering
and leaving. What is written here is the decorator.
"""

from __future__ import annotations

import functools

from . import _engine
from .sections import ASYNC_GENERATOR, COROUTINE, is_function, suspends

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["deferred"]


class deferred(_engine.DeferredSection):  # noqa: N801 - lower case, as contextlib's are
    """Let Python handlers and limits wait while a block, or a function, runs: a critical section.

    ::

        with deferred():
            os.replace(new, name)
            index[name] = entry

    Inside, no handler of `signal()` and `add_handler()`, no timer's callback and no limit
    interrupts this thread. What arrives waits in the engine, nothing is lost, and at the end of the
    outermost block it runs, in the order of arrival, each once, before the block has been left: a
    handler that raises leaves it with its exception. Signals that are named wait alone; limits and
    timers then go on. No system call is made, and nothing that the kernel does is changed: system
    calls are interrupted as ever and begun again, listeners and handlers with `thread=True` get
    theirs at once, and a signal with the default action still ends the process. For that there is
    `blocked()`.

    Handlers run in the main thread, so in another thread the section holds that thread's limits.
    `force_exit()` is not held: it is for programs that do not come to an end.

    One object serves any number of times, nested, recursively, and in several threads at once. A
    block inside a generator or coroutine is in force while that runs, not while it is suspended:
    what has waited until then runs within 0.1 s, and other code is interrupted as ever. As a
    decorator it is for plain functions, generator functions and `async def` functions.

    Parameters:
        signums: numbers of the signals whose handlers wait; none: all, and limits and timers.

    Raises:
        ValueError: a number out of range.
        OSError: SIGKILL or SIGSTOP is named (EINVAL): they have no handlers.
        RuntimeError: the block is left in a thread that has not entered it; nothing is changed.
        TypeError: decorating what is no function, or an async generator function.
        Anything that a handler raises, at the end of the block.

    Platform: Linux. Any thread. Source: section 17.4 lacks it: "there is no way to block signals
    temporarily from critical sections"; Java and POSIX call it deferred cancellation.
    """

    __slots__ = ()


def _decorate(section: deferred, function: Callable[P, R]) -> Callable[P, R]:
    """Have a function, a generator function or an `async def` function run inside the section."""
    if not is_function(function) or suspends(function) & ASYNC_GENERATOR:
        raise TypeError(
            f"deferred() decorates functions, generators and coroutines, not {function!r}"
        )
    kind = suspends(function)
    wrapped: Callable[..., Any] = function
    inside: Callable[..., Any]
    if kind & COROUTINE:

        async def inside(*args: P.args, **kwargs: P.kwargs) -> Any:
            with section:
                return await wrapped(*args, **kwargs)

    elif kind:

        def inside(*args: P.args, **kwargs: P.kwargs) -> Any:
            with section:
                return (yield from wrapped(*args, **kwargs))

    else:

        def inside(*args: P.args, **kwargs: P.kwargs) -> Any:
            with section:
                return wrapped(*args, **kwargs)

    return functools.wraps(function)(inside)
