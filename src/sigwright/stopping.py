"""How a program ends by a signal; and where it may say so."""

from __future__ import annotations

from . import _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

    from .siginfo import SignalInfo

__all__ = ["can_set_handlers", "raise_system_exit"]


def raise_system_exit(signum: int | SignalInfo, frame: FrameType | None = None) -> NoReturn:
    """Handle a signal by raising SystemExit(128 + its number), as shells count.

    So the program ends as by `sys.exit()`: every `finally`, `with` and `atexit` on the way out
    runs, where SIGTERM's default action would end it on the spot::

        signal(SIGTERM, raise_system_exit)

    For `signal()` and `add_handler()`. Not for `add_handler(..., thread=True)`: there it would end
    that handler, not the program.

    Parameters:
        signum: the signal's number, or its SignalInfo.
        frame: the interrupted frame; not used.

    Raises:
        SystemExit: always; its code is 128 + the number, 143 for SIGTERM.
        ValueError: a number out of range.

    Platform: all. Source: POSIX, XCU 2.8.2 (a shell says more than 128 of who ended by a signal).
    """
    number = signum if isinstance(signum, int) else signum.si_signo
    if not 0 < number < _engine.NSIG:
        raise ValueError("signal number out of range")
    raise SystemExit(128 + number)


def can_set_handlers() -> bool:
    """Return whether `signal()` may be called here: in the main thread of the main interpreter.

    Elsewhere it raises ValueError, and so do `set_wakeup_fd()` and all that is built upon them.
    `add_handler()` and `listen()` work in any thread.

    Platform: all. Any thread, any interpreter. Source: section 17.4, "only works in main thread".
    """
    try:
        # signal() itself is asked, with what is no handler: so the two cannot disagree.
        _engine.signal(_engine.SIGTERM, None)
    except ValueError:
        return False
    except TypeError:
        pass
    return True
