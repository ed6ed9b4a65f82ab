"""Critical sections: handlers and limits wait.

What holds them is the engine's (`_engine/deferral.c`), so that no safe point lies inside entering
and leaving. What is written here is the decorator.
"""

from __future__ import annotations

import functools
from contextlib import ExitStack

from ._engine import deferred, set_enter_context
from .sections import ASYNC_GENERATOR, COROUTINE, is_function, suspends

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["deferred"]

set_enter_context(ExitStack.enter_context.__code__)


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
