"""Limits: blocks that a deadline or another thread can interrupt, in any thread.

Scopes, and what interrupts them, are the engine's (`_engine/limits.c`, `interrupting.c`), so that
no safe point lies inside entering and leaving. What is written here is the decorator.
"""

from __future__ import annotations

import functools
from contextlib import ExitStack

from ._engine import (
    Cancelled,
    CancelScope,
    fail_after,
    fail_at,
    move_on_after,
    move_on_at,
    set_enter_context,
)
from .sections import is_function, suspends

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["CancelScope", "Cancelled", "fail_after", "fail_at", "move_on_after", "move_on_at"]

set_enter_context(ExitStack.enter_context.__code__)


def _decorate(scope: CancelScope, function: Callable[P, R]) -> Callable[P, R | None]:
    """Limit each call of a plain function, by a scope of its own: calls may nest and overlap."""
    if not is_function(function):
        raise TypeError(f"a limit decorates functions, not {function!r}")
    if suspends(function):
        raise TypeError(
            f"a limit decorates plain functions, not {function!r}: a suspension cannot be limited; "
            "use asyncio.timeout() or trio.fail_after()"
        )

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R | None:
        with scope._copy():
            return function(*args, **kwargs)
        return None  # swallowed: the limit moves on

    return limited
