"""How a program ends by a signal, even one that is stuck; and where it may say so."""

from __future__ import annotations

import operator

from . import _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import NoReturn, Self, SupportsIndex

    from .siginfo import SignalInfo

__all__ = ["ForceExit", "can_set_handlers", "force_exit", "raise_system_exit"]

_NO_EXIT_CODE = -1
_LONGEST = 9e9  # seconds: 285 years, of the 292 that the engine's clock can count


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


class ForceExit:
    """What `force_exit()` returns: in force until `cancel()`, or the end of its `with` block."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        """Only `force_exit()` makes them."""
        self._number = number

    @property
    def active(self) -> bool:
        """Whether it is in force: not cancelled, and the interpreter is not ending."""
        return _engine.is_watching(self._number)

    def cancel(self) -> None:
        """Take it back. Any thread; again and again, if you like."""
        _engine.unwatch(self._number)

    def __enter__(self) -> Self:
        """It is in force already; the end of the block cancels it."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take it back."""
        self.cancel()

    def __repr__(self) -> str:
        """Tell whether it is in force."""
        return f"<{type(self).__name__} {'active' if self.active else 'cancelled'}>"


def force_exit(
    *signums: int,
    grace: float,
    presses: SupportsIndex | None = None,
    exit_code: SupportsIndex | None = None,
    dump: bool = True,
) -> ForceExit:
    """End the process if it does not answer a signal: the last resort.

    ::

        force_exit(SIGTERM, SIGINT, grace=5, presses=3)

    A Python handler runs between two steps of the interpreter. A program that is inside a long call
    of C code, in a deadlock, or out of memory never gets there, and no handler can help. This can:
    a native thread that needs no GIL, no lock and no memory. When a signal was not answered for
    `grace` seconds, it writes one line and the stacks of all threads to stderr, and the process
    dies by that signal; or it exits with `exit_code`.

    Answered means: a handler of the signal has started (`signal()`'s or an added one), a listener
    has read it, or a `deferred` block holds it and the program is alive. Then the time, and the
    count of presses, start again with the next arrival. The program's handlers stay as they are;
    where there is none (SIG_DFL, SIG_IGN), nothing is changed: the kernel acts, or the signal is
    ignored. A signal that every thread blocks counts as unanswered, too. Time in which the whole
    process was stopped does not count.

    It is in force until it is cancelled; as a context manager, until the block is left. There may
    be several, for the same signals too, and each acts for itself. A forked child has them as well.

    Parameters:
        signums: numbers of the signals to watch; none: SIGTERM and SIGINT.
        grace: seconds without an answer, int or float; at the end of them it waits for another 0.05
            seconds. `math.inf`: only `presses` counts.
        presses: also at the arrival of so many of one signal, none of which was answered; 2 or
            more. Those less than 0.05 seconds apart are one: wrappers deliver one Ctrl+C twice, and
            a key that is held down repeats.
        exit_code: the exit status, 0 to 255; None: die by the signal, as a shell and a parent see
            it (128 + the number where it cannot, as PID 1 of a container).
        dump: whether to write the stacks (with the line, which is always written).

    Returns:
        A ForceExit.

    Raises:
        ValueError: a number out of range; a negative grace, or NaN; presses below 2; exit_code not
            from 0 to 255.
        OSError: SIGKILL or SIGSTOP is named (EINVAL): nothing watches those.
        TypeError: what should be a number is none.
        RuntimeError: no thread can be started; or the interpreter is ending.

    Platform: Linux. Any thread; from another than the main one, the main thread's alternate stack,
    on which signals land when its own is full, is set up at its next safe point.
    Source: POSIX sigaction(), "default action"; man page sigaltstack(2).
    """
    if not grace >= 0:  # NaN is not, either
        raise ValueError(f"grace must be non-negative, not {grace!r}")
    least_presses = 0 if presses is None else operator.index(presses)
    if presses is not None and least_presses < 2:
        raise ValueError(f"presses must be at least 2, not {least_presses}")
    status = _NO_EXIT_CODE if exit_code is None else operator.index(exit_code)
    if exit_code is not None and not 0 <= status <= 255:
        raise ValueError(f"exit_code must be from 0 to 255, not {status}")
    number = _engine.watch(
        signums or (_engine.SIGTERM, _engine.SIGINT),
        int(min(grace, _LONGEST) * 1e9),
        min(least_presses, 2**31 - 1),
        status,
        dump,
        True,  # who defers a signal at a safe point is alive
    )
    return ForceExit(number)
