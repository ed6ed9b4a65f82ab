"""Waiting for orphans: what process 1 of a container has to do for children that are not its own.

A process whose parent has ended becomes a child of process 1 (or of the nearest subreaper, prctl's
PR_SET_CHILD_SUBREAPER), and stays in the table of processes as a zombie until that waits for it.
The kernel does not tell an orphan from a child of one's own, and a child's status is gone once
somebody has waited for it. So:

- What `subprocess` and `multiprocessing` (and with them asyncio and concurrent.futures) have
  started and not waited for yet is left to them, however late they do.
- Anything else has a second, from when it was first seen dead, in which whoever started it may
  wait: code that calls os.fork() or os.posix_spawn() itself, uvloop. Then it is taken.

Roads not taken. waitid(P_ALL) takes whatever comes first. SIG_IGN for SIGCHLD has the kernel throw
away every status. A small process 1 in front, as tini is, needs none of this; whoever can have it
should. To note each fork of one's own: there is no hook that gives the pid.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from contextlib import suppress

from . import _engine
from .listening import Registration
from .timers import call_later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .siginfo import SignalInfo

__all__ = ["Reaper"]

_WAIT = 1.0
"""Seconds that a dead child is left to whoever may have started it."""


class Reaper:
    """Waits for orphans until it is closed, at safe points of the main thread."""

    def __init__(self) -> None:
        """Begin; also with those that are dead already."""
        self._dead: dict[int, float] = {}  # since when, by pid
        self._handler: Registration | None = None
        self._timer = call_later(0, self._look)
        # Ignored, the kernel waits for all of them by itself.
        if _engine.getsignal(_engine.SIGCHLD) is not _engine.SIG_IGN:
            self._handler = Registration(_engine.SIGCHLD, handler=self._child_died, inherit=False)

    def close(self) -> None:
        """End it; what is dead by then is nobody's, and process 1's end is theirs."""
        self._timer.cancel()
        if self._handler is not None:
            self._handler.cancel()

    def _child_died(self, info: SignalInfo) -> None:
        # Soon, not now: who waits in a handler of SIGCHLD comes first, and one look is for many.
        self._look_in(_WAIT / 10)

    def _look_in(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = call_later(seconds, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self._dead = {pid: self._dead.get(pid, now) for pid in _zombies()}
        due = {pid for pid, since in self._dead.items() if now - since >= _WAIT}
        for pid in due - _waited_for() if due else ():
            with suppress(ChildProcessError):  # somebody was quicker
                os.waitpid(pid, os.WNOHANG)
            del self._dead[pid]
        if self._dead:
            self._look_in(_WAIT)


def _zombies() -> Iterator[int]:
    """The children of this process that are dead, and that nobody has waited for."""
    me = str(os.getpid())
    try:
        names = os.listdir("/proc") if os.readlink("/proc/self") == me else None
    except OSError:
        names = None
    if names is None:
        # No /proc, or one of another PID namespace: the first is all that can be seen.
        with suppress(ChildProcessError):
            first = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if first is not None:
                yield first.si_pid
        return
    for name in names:
        if name.isdecimal():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
                # After the command's name, which may contain anything.
                state, parent = stat.read().rpartition(b")")[2].split()[:2]
                if state == b"Z" and parent == me.encode():
                    yield int(name)


def _waited_for() -> set[int]:
    """The children that the stdlib has started, and has not waited for yet."""
    pids: set[int] = set()
    if subprocess := sys.modules.get("subprocess"):
        # They are in no list while somebody has them. type(): an isinstance() may run any code.
        for candidate in gc.get_objects():
            if issubclass(type(candidate), subprocess.Popen) and candidate.returncode is None:
                pids.add(getattr(candidate, "pid", 0))
    if process := sys.modules.get("multiprocessing.process"):
        pids.update(child._popen.pid for child in tuple(process._children) if child._popen)
    for module, helper, pid in (
        ("resource_tracker", "_resource_tracker", "_pid"),
        ("forkserver", "_forkserver", "_forkserver_pid"),
    ):
        helper_module = sys.modules.get(f"multiprocessing.{module}")
        pids.add(getattr(getattr(helper_module, helper, None), pid, None) or 0)
    return pids
