"""systemd's notify protocol: what a service tells its manager, through $NOTIFY_SOCKET.

Each message is one datagram, of lines NAME=VALUE. `GracefulShutdown` sends those of a service's
life; `notify()` sends any. Where the variable is not set nobody has asked, and nothing is sent.

Roads not taken. The package systemd-python, which binds libsystemd: this is a socket and a
sendto(). To unset $NOTIFY_SOCKET after the first message, as sd_notify() can: a service sends more
than one. A pinging thread for the watchdog: it would go on while the program hangs, and that is
what the watchdog is to find out.
"""

from __future__ import annotations

import errno
import os

__all__ = ["notify"]

_PATIENCE = 1.0
"""Seconds that a message waits for room in the manager's queue."""


def notify(**fields: object) -> bool:
    """Tell the service manager: `notify(READY=1)`, `notify(STATUS="half done", MAINPID=42)`.

    Parameters:
        fields: The names that the protocol has (READY, STATUS, ERRNO, MAINPID, ...) or that begin
            with ``X_``, and their values; `str()` of each is sent. All of a call are one message.

    Returns:
        Whether a manager wants to know: False where $NOTIFY_SOCKET is not set, and nothing is done.

    Raises:
        ValueError: No field; a value of more than one line.
        OSError: The message cannot be sent. EAFNOSUPPORT where the address is neither a path nor
            an abstract name; TimeoutError where the manager does not read for a second.

    Platform: Linux. Any thread; not from where it may not wait, as in an event loop that counts
    milliseconds. Source: man page sd_notify(3).
    """
    return send(fields, _PATIENCE)


def send(fields: dict[str, object], patience: float) -> bool:
    """`notify()`, which waits so many seconds for room in the manager's queue; 0: not at all."""
    lines = [f"{name}={value}" for name, value in fields.items()]
    if not lines or any("\n" in line for line in lines):
        raise ValueError("a message has at least one field, and a field is one line")
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address[0] not in "/@":
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT), address)
    import socket  # here: most programs are never asked

    where = os.fsencode(address)
    if where.startswith(b"@"):
        where = b"\0" + where[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(patience)
        channel.sendto("\n".join(lines).encode(), where)
    return True


def prepare() -> None:
    """Import what `send()` needs, where that is still safe: a handler may interrupt an import."""
    if os.environ.get("NOTIFY_SOCKET"):
        import socket  # noqa: F401 - so that send() finds it imported


def watchdog_period() -> float | None:
    """Return how often to send WATCHDOG=1, in seconds: twice in the time that the manager allows.

    None: it does not ask, or it asks another process than this one ($WATCHDOG_PID).

    Source: man page sd_watchdog_enabled(3), which recommends half the time.
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(os.environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return microseconds / 2e6 if microseconds > 0 else None
