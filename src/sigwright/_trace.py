"""What `sigwright run --trace` writes to stderr: a line for each arrival, a summary at exit.

It runs in the program's own process and at moments that the program did not choose, so it
imports little (never `threading`: whether that is loaded is the program's affair), writes whole
lines straight to descriptor 2 (no buffer to interleave with, no lock to wait for), and raises
nothing.
"""

import atexit
import os
import signal
import sys
import time
from _thread import get_ident as _current_thread
from typing import Any

try:
    import pwd
except ImportError:  # Windows, and builds without it
    pwd = None  # type: ignore[assignment]

from . import _engine

__all__ = ["start"]

# Values of si_code, from Linux's <asm-generic/siginfo.h>.
_SI_KERNEL = 0x80
_FROM_A_PROCESS = {0, -1, -6}  # SI_USER (kill), SI_QUEUE (sigqueue), SI_TKILL (pthread_kill)
_CHILD_DID = {
    1: "has exited",
    2: "was killed",
    3: "dumped core",
    4: "was trapped",
    5: "was stopped",
    6: "was continued",
}
_FROM_A_SERVICE = {-2: "a POSIX timer", -3: "a message queue", -4: "asynchronous I/O"}

# SI_KERNEL says no more than "the kernel"; these numbers have one usual reason each.
_KERNEL_REASONS = {
    "timer": ("SIGALRM", "SIGVTALRM", "SIGPROF"),
    "terminal": ("SIGINT", "SIGQUIT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGHUP", "SIGWINCH"),
    "CPU time limit": ("SIGXCPU",),
    "I/O": ("SIGIO", "SIGURG"),
}

_COLUMNS = {  # head: key in _engine.stats()
    "arrivals": "arrivals",
    "calls": "deliveries",
    "merged": "merges",
    "dropped": "drops",
    "simulated": "simulated",
}


def start(*, children: bool) -> None:
    """Trace this process from now on, and with `children` those that it forks."""
    if sys.__stderr__ is None:
        # Started with stderr closed: number 2 is now, or will be, some file of the program's.
        return
    trace = _Trace(children)
    _engine.set_tracer(trace)
    # Registered before the program's first line, so it runs after all that the program
    # registers; and after an uncaught exception as well.
    atexit.register(trace.summary)
    os.register_at_fork(after_in_child=trace.after_fork)


class _Trace:
    """The tracer that the engine calls, in the main thread, when it delivers."""

    def __init__(self, children: bool) -> None:
        self._children = children
        self._users: dict[int, str] = {}
        self._is_child = False
        self._begin()

    def _begin(self) -> None:
        self._pid: int | None = os.getpid()
        self._before = _engine.stats()
        self._raised: dict[int, int] = {}
        # With children several processes write to one stderr.
        self._prefix = f"sigwright[{self._pid}]: " if self._children else "sigwright: "

    def __call__(self, event: str, signum: int, *details: Any) -> None:
        try:
            if event == "arrival":
                self._write(self._arrival(signum, *details))
            elif event == "raised":
                self._raised[signum] = self._raised.get(signum, 0) + 1
                self._write(f"    {_name(signum)}'s handler raised {_describe(details[0])}")
        except Exception as error:
            self._write(f"{_name(signum)} (not traced: {type(error).__name__})")

    def _arrival(
        self,
        signum: int,
        code: int,
        pid: int,
        uid: int,
        monotonic_ns: int,
        thread_id: int,
        delay_ns: int,
        merged: bool,
    ) -> str:
        sender = self._sender(signum, code, pid, uid)
        thread = _thread(thread_id)
        when = f"{_clock(monotonic_ns)} {_name(signum)} from {sender} on {thread}"
        merger = " (merged: one call for this and the line above)" if merged else ""
        return f"{when}, handler after {_span(delay_ns)}{merger}"

    def _sender(self, signum: int, code: int, pid: int, uid: int) -> str:
        if code in _FROM_A_PROCESS:
            return self._process(pid, uid)
        if signum == signal.SIGCHLD and code in _CHILD_DID:
            return f"child {self._process(pid, uid)}, which {_CHILD_DID[code]},"
        if code == _SI_KERNEL:
            name = _name(signum)
            for reason, names in _KERNEL_REASONS.items():
                if name in names:
                    return f"the kernel ({reason})"
        return _FROM_A_SERVICE.get(code, "the kernel")

    def _process(self, pid: int, uid: int) -> str:
        if pid == os.getpid():
            return "itself"
        if pid == 0:
            # The kernel says so of both; with its queue full (RLIMIT_SIGPENDING) it knows no more.
            return "an unknown process (another PID namespace's, or the kernel's queue is full)"
        return f"pid {pid} ({_command(pid)}, user {self._user(uid)})"

    def _user(self, uid: int) -> str:
        if uid not in self._users:
            try:
                self._users[uid] = pwd.getpwuid(uid).pw_name
            except (AttributeError, KeyError):
                self._users[uid] = str(uid)
        return self._users[uid]

    def summary(self) -> None:
        """The counts of this process; nothing in a fork that is not traced, and only once."""
        if self._pid != os.getpid():
            return
        self._pid = None
        rows = self._rows()
        if rows:
            for row in _aligned(rows):
                self._write(row)
        elif not self._is_child:
            self._write("no signal arrived")

    def _rows(self) -> list[list[str]]:
        counts: dict[int, dict[str, int]] = {}
        for signum, now in sorted(_engine.stats().items()):
            # What the parent counted before the fork is the parent's.
            before = self._before.get(signum, {})
            count = {head: now.get(key, 0) - before.get(key, 0) for head, key in _COLUMNS.items()}
            if any(count.values()):
                counts[signum] = {**count, "raised": self._raised.get(signum, 0)}
        heads = [*_COLUMNS, "raised"]
        if not any(count["simulated"] for count in counts.values()):
            heads.remove("simulated")  # rare: worth a column only where it happened
        body = [
            [_name(signum), *(str(count[head]) for head in heads)]
            for signum, count in counts.items()
        ]
        return [["signal", *heads], *body] if body else []

    def after_fork(self) -> None:
        """In the child of a fork: begin anew, or fall silent."""
        if not self._children:
            _engine.set_tracer(None)
            return
        self._is_child = True
        self._begin()
        # multiprocessing's forked children leave by os._exit, and on 3.13 forget what atexit
        # held; but they run these. Its hooks are cleared first, so the way in is its own hook.
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.register_after_fork(self, _finalize_in_child)

    def _write(self, text: str) -> None:
        try:
            os.write(2, f"{self._prefix}{text}\n".encode(errors="backslashreplace"))
        except OSError:
            return  # closed, full or gone: the program comes first


def _finalize_in_child(trace: _Trace) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, trace.summary, exitpriority=-1000)


def _name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"SIGRTMIN+{signum - signal.SIGRTMIN}"


def _clock(monotonic_ns: int) -> str:
    """The wall-clock time of a moment on the monotonic clock."""
    since_epoch = time.time_ns() - time.monotonic_ns() + monotonic_ns
    seconds, rest = divmod(since_epoch, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1000:06}"


def _span(nanoseconds: int) -> str:
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1e3:.0f} µs"
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1e6:.1f} ms"
    return f"{nanoseconds / 1e9:.2f} s"


def _command(pid: int) -> str:
    """What the sender runs. It may be gone by now, or be a zombie (no command line, a name)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).rstrip(b"\0").split(b"\0")
        if words == [b""]:
            with open(f"/proc/{pid}/comm", "rb") as file:
                words = [file.read()[:-1]]
    except (FileNotFoundError, ProcessLookupError):
        return "gone by now"
    except OSError:
        return "unknown command"
    words[0] = os.path.basename(words[0]) or words[0]
    return _one_line(os.fsdecode(b" ".join(words)))


def _thread(thread_id: int) -> str:
    threading = sys.modules.get("threading")
    # enumerate() takes threading's lock, a re-entrant one, so this cannot block on ourselves.
    for thread in getattr(threading, "enumerate", list)():
        if thread.ident == thread_id:
            return _one_line(thread.name)
    # The tracer runs in the main thread.
    return "the main thread" if thread_id == _current_thread() else f"thread {thread_id}"


def _describe(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:
        message = "(its text cannot be had)"
    name = type(error).__qualname__
    return _one_line(f"{name}: {message}" if message else name)


def _one_line(text: str, limit: int = 80) -> str:
    """Other people's text, made harmless for a terminal and for a line of ours."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
