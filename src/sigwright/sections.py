"""Sections of a program in which signals wait."""

from __future__ import annotations

import functools

from . import _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["blocked"]

# code.co_flags of what only begins when it is called: inspect's names, whose import takes longer
# than all of this.
GENERATOR, COROUTINE, ITERABLE_COROUTINE, ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200


def suspends(function: Callable[..., object]) -> int:
    """Return the flags of a generator or coroutine function of any kind; 0 for a plain one."""
    flags: int = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return flags & (GENERATOR | COROUTINE | ITERABLE_COROUTINE | ASYNC_GENERATOR)


def is_function(function: object) -> bool:
    """Return whether it is something that a decorator can run inside a section."""
    return callable(function) and not isinstance(function, type)


class blocked(_engine.BlockedSection):  # noqa: N801 - lower case, as contextlib's are
    """Have the kernel hold these signals back while a block, or a function, runs.

    ::

        with blocked(SIGTERM):
            pid = os.fork()

    They stay pending until the block is left; then those that nothing else blocks arrive, and (in
    the main thread) their handlers have run when the block has been left. The mask from before is
    restored whatever happens, also when a handler raises: its exception leaves the block then.

    The mask is the calling thread's. In a program with several threads a signal that is sent to
    the process goes to one that does not block it, and its handler runs in the main thread, inside
    a block or not: threads that are started inside the block inherit its mask. Real faults are not
    held: the kernel ends a process that blocks one.

    A child that is forked inside the block is in it too: a signal that reaches it before it has set
    itself up is pending, not lost, when it leaves the block in its own time. `exec` keeps the mask.

    One object serves any number of times, nested, recursively, and in several threads at once. As
    a decorator it is for plain functions: a coroutine or generator would be over before it begins.

    Parameters:
        signums: numbers of the signals to hold; none: all of them.

    Raises:
        ValueError: a number out of range.
        OSError: SIGKILL or SIGSTOP is named (EINVAL): nothing holds those.
        RuntimeError: the block is left in a thread that has not entered it; nothing is changed.
        TypeError: decorating what is no plain function.
        Anything that a handler raises, on the way in (the block is then not entered, and nothing
            is held) or out.

    Platform: Unix. Any thread. Source: POSIX pthread_sigmask().
    """

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a plain function: it runs inside the block."""
        if not is_function(function) or suspends(function):
            raise TypeError(f"blocked() decorates plain functions, not {function!r}")

        @functools.wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return inside
