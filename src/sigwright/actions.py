"""POSIX's sigaction(): a handler with its flags and its mask; and C handlers, to be put back."""

from __future__ import annotations

from . import (
    _engine,
    siginfo,  # noqa: F401 - it registers what a handler with SA_SIGINFO is given
)
from .codes import SaFlags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from signal import Handlers, Signals
    from typing import Any, ClassVar, TypeAlias

    _Handler: TypeAlias = "Callable[..., Any] | int | Handlers | CHandler | None"

__all__ = ["CHandler", "SigAction", "sigaction"]


class CHandler:
    """A handler in C that somebody else has set: faulthandler, a library. It can be set again.

    Made by `sigaction()`. It holds the whole of the kernel's action, flags and mask too.
    """

    __slots__ = ("_capsule",)

    def __init__(self, capsule: object) -> None:
        """Hold what the engine gave."""
        self._capsule = capsule

    def __repr__(self) -> str:
        """Tell that it is in C."""
        return f"<{type(self).__name__}>"


class SigAction:
    """What happens when a signal arrives: POSIX's struct sigaction.

    Two are equal if their handlers, flags and masks are.

    Parameters:
        handler: SIG_DFL, SIG_IGN, a callable, or a `CHandler` from an earlier `sigaction()`. A
            callable is called as handler(signum, frame), with SA_SIGINFO as
            handler(signum, info, frame): info is a SignalInfo, or None where the call is simulated
            (`_thread.interrupt_main`).
        flags: `SaFlags`. What they do to a Python-level handler:
            SA_RESTART: system calls go on where the signal interrupted them.
            SA_NODEFER: the handler may be interrupted by its own signal.
            SA_RESETHAND: the default action acts from the handler's call on.
            SA_SIGINFO: the handler is given a SignalInfo.
            SA_NOCLDSTOP, SA_NOCLDWAIT (SIGCHLD): no signal when a child stops; no zombies.
            SA_ONSTACK: always so.
        mask: signals whose Python-level handlers wait while this one runs. Its own does too,
            without SA_NODEFER.

    Raises:
        TypeError: the handler is none of these.
        ValueError: an unknown flag; a number out of range in mask.

    Platform: Unix. Source: POSIX sigaction(), <signal.h>.
    """

    __slots__ = ("flags", "handler", "mask")

    handler: _Handler
    """SIG_DFL, SIG_IGN, a callable, a `CHandler`; None: not set from Python."""
    flags: SaFlags
    mask: frozenset[int | Signals]

    def __init__(
        self, handler: _Handler, flags: int = 0, mask: Iterable[int | Signals] = ()
    ) -> None:
        """Check flags and mask; the handler is checked when it is set."""
        numbers = frozenset(mask)
        for signum in numbers:
            if not 0 < signum < _engine.NSIG:
                raise ValueError("signal number out of range")
        if flags & ~sum(SaFlags):
            raise ValueError(f"unknown flags: {flags & ~sum(SaFlags):#x}")
        self.handler = handler
        self.flags = SaFlags(flags)
        self.mask = numbers

    def __eq__(self, other: object) -> bool:
        """Compare handler, flags and mask."""
        if not isinstance(other, SigAction):
            return NotImplemented
        return (self.handler, self.flags, self.mask) == (other.handler, other.flags, other.mask)

    __hash__: ClassVar[None] = None  # type: ignore[assignment] # its attributes can be set

    def __repr__(self) -> str:
        """Tell all three, as they are given."""
        mask = ", ".join(sorted(getattr(signum, "name", str(signum)) for signum in self.mask))
        flags = " | ".join(flag.name or "" for flag in SaFlags if flag & self.flags) or "0"
        return f"SigAction({self.handler!r}, {flags}, {{{mask}}})"


def sigaction(signum: int, action: SigAction | None = None) -> SigAction:
    """Return the action of a signal, and set another one, if it is given.

    `signal()` is a part of it: no flags, and handlers of standard signals that may interrupt
    themselves. A handler in C, which `getsignal()` calls None, comes back as a `CHandler` and can
    be restored. While somebody listens to the signal, the action is the one beneath the listeners.

    Parameters:
        signum: the signal's number.
        action: the new one; None only asks.

    Returns:
        The action from before.

    Raises:
        ValueError: not in the main thread (to ask is possible in any), a number out of range.
        TypeError: the handler is none of SIG_DFL, SIG_IGN, a callable, a `CHandler`.
        OSError: SIGKILL or SIGSTOP (EINVAL).
        Anything that a handler raises which was waiting for its turn; nothing is changed then.

    Platform: Unix. Source: POSIX sigaction().
    """
    if action is None:
        handler, flags, mask = _engine.sigaction(signum)
    else:
        if not isinstance(action, SigAction):
            raise TypeError(f"an action must be a SigAction, not {action!r}")
        new: object = action.handler
        if isinstance(new, CHandler):
            new = new._capsule
        handler, flags, mask = _engine.sigaction(signum, new, int(action.flags), action.mask)
    if type(handler).__name__ == "PyCapsule":
        handler = CHandler(handler)
    return SigAction(handler, flags, mask)
