"""A look inside: what each signal does now, and what became of all that arrived.

Imported when it is first used: dataclasses would take longer than all the rest of the import.
"""

from __future__ import annotations

from dataclasses import dataclass
from signal import Signals
from typing import TYPE_CHECKING, Any, cast

from . import _engine
from .actions import CHandler, sigaction
from .codes import SaFlags

if TYPE_CHECKING:
    from collections.abc import Callable
    from signal import Handlers

    from .listening import Listener, Registration

__all__ = ["ConsumerStats", "Disposition", "SignalStats", "dispositions", "stats"]


@dataclass(frozen=True)
class Disposition:
    """What happens now when a signal arrives in this process."""

    kernel: str
    """What the kernel does: "default", "ignored", "ours" (sigwright's handler), "stdlib" (CPython's
    own C handler), "foreign" (another C handler), "door" (sigwright rings by it, hidden), or
    "unavailable" (the C library's own)."""
    handler: Callable[..., Any] | int | Handlers | CHandler | None
    """What `signal()` says: SIG_DFL, SIG_IGN or a callable; a `CHandler` where it is somebody
    else's in C, beneath our listeners too."""
    flags: SaFlags
    """The kernel's flags."""
    consumers: tuple[Listener | Registration, ...]
    """The open listeners and added handlers, in the order of their registration."""
    chained: bool
    """An earlier C handler is called as well, with each arrival."""
    replaced: bool
    """Somebody has put another action in the place of ours since: the next `signal()`, `listen()`
    or `add_handler()` takes the signal back."""
    blocked: bool
    """The calling thread blocks it."""
    pending: bool
    """It is pending for the calling thread, or for the process."""


def dispositions() -> dict[int | Signals, Disposition]:
    """Return, for every signal, what happens now when it arrives.

    sigwright's hidden signals are among them, as "door", and so are SIGKILL and SIGSTOP.

    Returns:
        A `Disposition` for each number of a signal, 1 to NSIG - 1.

    Platform: Linux. Any thread. Source: POSIX sigaction(), pthread_sigmask(), sigpending().
    """
    blocked = _engine.pthread_sigmask(_engine.SIG_BLOCK, ())
    pending = _engine.sigpending()
    consumers = _consumers()
    return {
        signum: _disposition(signum, blocked, pending, consumers)
        for signum in map(_as_member, range(1, _engine.NSIG))
    }


def _consumers() -> list[Listener | Registration]:
    return cast("list[Listener | Registration]", _engine.consumers())


def _as_member(number: int) -> int | Signals:
    try:
        return Signals(number)
    except ValueError:
        return number


def _disposition(
    signum: int,
    blocked: set[int | Signals],
    pending: set[int | Signals],
    consumers: list[Listener | Registration],
) -> Disposition:
    audience = tuple(consumer for consumer in consumers if signum in consumer.signals)
    handler: Any = _engine.getsignal(signum)
    try:
        kernel, flags, _mask, _address, chained = _engine.kernel_action(signum)
        if handler is None:
            handler = sigaction(signum).handler
    except OSError:
        kernel, flags, chained = "unavailable", 0, False
    wanted = bool(audience) or (callable(handler) and not isinstance(handler, (int, CHandler)))
    return Disposition(
        kernel=kernel,
        handler=handler,
        flags=SaFlags(flags & sum(SaFlags)),
        consumers=audience,
        chained=bool(chained),
        replaced=wanted and kernel in ("default", "ignored", "stdlib", "foreign"),
        blocked=signum in blocked,
        pending=signum in pending,
    )


@dataclass(frozen=True)
class ConsumerStats:
    """What became of a signal's arrivals for one of those who get it.

    Once no arrival is under way: arrivals = deliveries + merges + drops + waiting.
    """

    consumer: Listener | Registration | None
    """A listener or a registration; None: the handler of `signal()`."""
    arrivals: int
    """What came for it."""
    deliveries: int
    """Calls of the handler; arrivals that were read."""
    merges: int
    """Folded into a call with others (standard signals, the handler of `signal()`)."""
    drops: int
    """There was no room, or the handler was gone."""
    waiting: int
    """Not delivered yet."""
    latency: tuple[int, ...]
    """How long it took from arrival to delivery. latency[n] of them took 2**n to 2**(n+1) - 1
    nanoseconds. Of the calls of `signal()`'s handler the first 64 are timed, then one in 16, so
    that it pays nothing for this. All others are."""


@dataclass(frozen=True)
class SignalStats:
    """What became of a signal's arrivals, for each who gets it."""

    simulated: int
    """Calls of the handler that no arrival explains, as by `_thread.interrupt_main()`."""
    handler: ConsumerStats | None
    """For the handler of `signal()`; None: there never was one."""
    consumers: tuple[ConsumerStats, ...]
    """For the open listeners and added handlers. A listener of several signals counts them
    together."""


def stats() -> dict[int | Signals, SignalStats]:
    """Count what arrived and what became of it, since the start of the process or its fork.

    Returns:
        A `SignalStats` for each signal that has, or had, a handler or a listener.

    Platform: Linux. Any thread.
    """
    handlers = _engine.stats()
    latencies = _engine.latencies()
    consumers = _consumers()
    numbers = {int(signum) for consumer in consumers for signum in consumer.signals}
    result = {}
    for number in sorted(numbers | handlers.keys()):
        counts = dict(handlers.get(number, {}))
        simulated = counts.pop("simulated", 0)
        result[_as_member(number)] = SignalStats(
            simulated=simulated,
            handler=ConsumerStats(None, latency=tuple(latencies[number]), **counts)
            if counts
            else None,
            consumers=tuple(
                _consumer_stats(consumer) for consumer in consumers if number in consumer.signals
            ),
        )
    return result


def _consumer_stats(consumer: Listener | Registration) -> ConsumerStats:
    counts = consumer.stats()
    latency = tuple(counts.pop("latency"))
    return ConsumerStats(consumer, merges=0, latency=latency, **counts)
