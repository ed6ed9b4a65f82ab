"""What arrived, and who sent it: `SignalInfo` and `Sender`.

The engine makes a `SignalInfo` from what it noted in signal context. The fields are C's, and are
read from the kernel's union as Linux lays it out; here is what they mean.

A pid is all that the kernel keeps of a sender, and a pid is only a number: the process may end, and
another one may be given its number, before anybody looks. Holding on to the process (a pidfd) would
have to happen in signal context, once for each arrival, for a question that is seldom asked. So
`SignalInfo.sender()` compares two times instead, that of the arrival and that of the start of the
process that has the number now, and says what it could not find out.
"""

from __future__ import annotations

import os
import time

from . import _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from enum import IntEnum
    from typing import Literal, TypeAlias

    State: TypeAlias = Literal["running", "exited", "reused", "unknown", "none"]

__all__ = ["Sender", "SignalInfo"]

_ORIGINS = {
    _engine.SI_USER: "kill()",
    _engine.SI_KERNEL: "the kernel",
    _engine.SI_QUEUE: "sigqueue()",
    _engine.SI_TIMER: "a timer",
    _engine.SI_MESGQ: "a message queue",
    _engine.SI_ASYNCIO: "asynchronous input or output",
    _engine.SI_SIGIO: "a file descriptor",
    _engine.SI_TKILL: "tgkill()",
    _engine.SI_DETHREAD: "execve()",
    _engine.SI_ASYNCNL: "getaddrinfo_a()",
}

# What the kernel sends of itself, without more than the number, has one usual reason.
_KERNEL_ORIGINS = {
    _engine.SIGHUP: "the terminal",
    _engine.SIGINT: "the terminal",
    _engine.SIGQUIT: "the terminal",
    _engine.SIGTSTP: "the terminal",
    _engine.SIGTTIN: "the terminal",
    _engine.SIGTTOU: "the terminal",
    _engine.SIGWINCH: "the terminal",
    _engine.SIGALRM: "an interval timer",
    _engine.SIGVTALRM: "an interval timer",
    _engine.SIGPROF: "an interval timer",
    _engine.SIGXCPU: "a resource limit",
    _engine.SIGXFSZ: "a resource limit",
}


def name_of(signum: int) -> str:
    """SIGTERM, SIGRTMIN+3; the number itself where it is no signal's."""
    try:
        return _engine.Signals(signum).name
    except ValueError:
        above = signum - _engine.SIGRTMIN
        return f"SIGRTMIN+{above}" if 0 < above < 32 else str(signum)


class SignalInfo(_engine.ArrivalRecord):
    """One arrival of a signal, as POSIX's `siginfo_t` describes it, with the time and the thread.

    A field that this origin does not have is None: which ones there are follows from `si_signo` and
    `si_code`, as `sigaction(2)` says. `struct_siginfo`, which `sigwaitinfo()` returns, has fewer
    and fills them with zeroes.

    Attributes:
        si_signo: The signal, a member of `Signals` (a plain int for a real-time signal between
            SIGRTMIN and SIGRTMAX, which has no name of its own).
        si_errno: An error number; Linux leaves it 0 but for SIGSYS (the filter's own number).
        si_pid: The process that sent it; of SIGCHLD, the child.
        si_uid: The real user id of that process.
        si_status: SIGCHLD: the exit status, or the signal that ended, stopped or continued it.
        si_utime: SIGCHLD: the child's user time, in clock ticks (`os.sysconf("SC_CLK_TCK")`).
        si_stime: SIGCHLD: the child's system time, in clock ticks.
        si_value: The int that came with it (`sigqueue`, a timer, a message queue).
        si_ptr: The same value, as the unsigned address that it may be instead.
        si_band: SIGIO: what the descriptor is ready for, the bits of `poll()`.
        si_fd: SIGIO: the file descriptor.
        si_addr: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP: the address of the fault.
        si_timerid: A POSIX timer: the kernel's number for it.
        si_overrun: A POSIX timer: how many more times it had expired before this was delivered.
        si_call_addr: SIGSYS: the address of the system call's instruction.
        si_syscall: SIGSYS: the number of the system call.
        si_arch: SIGSYS: the architecture, an AUDIT_ARCH constant.
        monotonic_ns: When it arrived, in nanoseconds: comparable with `time.monotonic_ns()`.
        thread_id: The thread on which it landed: comparable with `threading.get_ident()`.

    Platform: Linux.

    Source: POSIX `<signal.h>`, `sigaction(2)`.
    """

    __slots__ = ()

    @property
    def si_code(self) -> IntEnum | int:
        """Where it came from: `SiCodes`, or the codes that this signal has of its own.

        A plain int where there is no name for it.
        """
        # Here, as the enums take longer to make than all the rest of sigwright's Python.
        from .codes import enum_of

        code = self.code
        try:
            return enum_of(self.si_signo, code)(code)
        except ValueError:
            return code

    def sender(self) -> Sender:
        """Look up the process that sent this, now; for SIGCHLD, the child.

        Ask soon: a process that has gone leaves no more than its pid and its user.
        """
        pid, uid = self.si_pid, self.si_uid
        if pid is None or uid is None or self.code == _engine.SI_KERNEL:
            return Sender(None, None, None, "none", self._origin())
        if pid == 0:
            # The kernel's way to say that this pid namespace has no number for it.
            return Sender(None, uid, None, "unknown", self._origin())
        return Sender(pid, uid, *_look_up(pid, self.monotonic_ns), self._origin())

    def _origin(self) -> str:
        code = self.code
        if code == _engine.SI_KERNEL:
            return _KERNEL_ORIGINS.get(self.si_signo, "the kernel")
        return _ORIGINS.get(code) or ("the kernel" if code > 0 else "an unknown origin")

    def __repr__(self) -> str:
        """Tell the origin, and whatever fields that one has."""
        code, name = self.si_code, name_of(self.si_signo)
        if code in _ORIGINS:
            parts = [f"{name} from {self._origin()}"]
        else:
            parts = [f"{name} {getattr(code, 'name', f'with code {code}')}"]
        if code != _engine.SI_KERNEL:
            parts += [f"{what} {value}" for what, value in self._details() if value is not None]
        return f"<{type(self).__name__} {', '.join(parts)}>"

    def _details(self) -> list[tuple[str, object]]:
        status: object = self.si_status
        if self.si_status is not None and self.code != _engine.CLD_EXITED:
            status = name_of(self.si_status)
        return [
            ("pid", self.si_pid),
            ("uid", self.si_uid),
            ("status", status),
            ("value", self.si_value),
            ("overrun", self.si_overrun),
            ("fd", self.si_fd),
            ("band", _in_hex(self.si_band)),
            ("address", _in_hex(self.si_addr)),
            ("system call", self.si_syscall),
        ]


def _in_hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


class Sender:
    """The process that sent a signal, as far as it could be found when `sender()` was called.

    Attributes:
        pid: Its process id. None where no process sent the signal, and where the process has no
            number in this pid namespace (a signal from outside of the container).
        uid: The real user id that it had when it sent the signal. None where there is no process.
        command: Its command line, as `ps` shows it. None where the process has gone; of a zombie,
            and of a thread of the kernel, the short name. A process may have started another
            program (`exec`) since it sent the signal: then it is that one's.
        state: What `pid` stands for now:

            - ``"running"``: the process that sent the signal.
            - ``"exited"``: that process, which has ended (a zombie, perhaps), and whose number no
              other one has.
            - ``"reused"``: another process, which started after the arrival; `command` is None.
            - ``"unknown"``: it could not be told. The machine was suspended around that time, so
              that the number may have been reused; or `/proc` does not show the process; or it is
              outside of this pid namespace.
            - ``"none"``: no process sent the signal, but the kernel: see `origin`.
        origin: What sent the signal, in words: "kill()", "the terminal", "a timer".

    The time of a process's start is known to a clock tick, 10 ms on most systems, and a process
    that started in the same tick as the arrival counts as the sender. A signal that waited, because
    it was blocked, arrives later than it was sent: a number that was reused in between is not
    found out.

    Platform: Linux, with `/proc`.

    Source: `proc_pid_stat(5)`, `proc_pid_cmdline(5)`.
    """

    __slots__ = ("command", "origin", "pid", "state", "uid")

    pid: int | None
    uid: int | None
    command: str | None
    state: State
    origin: str

    def __init__(
        self, pid: int | None, uid: int | None, command: str | None, state: State, origin: str
    ) -> None:
        """Made by `SignalInfo.sender()`."""
        self.pid = pid
        self.uid = uid
        self.command = command
        self.state = state
        self.origin = origin

    @property
    def user(self) -> str | None:
        """The name of the user `uid`, or None where it has none.

        Asked for when it is read: the answer may come over a network.

        Source: `getpwuid(3)`.
        """
        import pwd

        if self.uid is None:
            return None
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return None

    def __str__(self) -> str:
        """Tell it in words, for a log."""
        if self.state == "none":
            return f"no process, but {self.origin}"
        user = self.user
        who = f"uid {self.uid}" + (f" ({user})" if user else "")
        if self.pid is None:
            return f"a process outside of this pid namespace, {who}"
        process = f"pid {self.pid}, {who}"
        if self.state == "exited":
            was = f" (it was {self.command})" if self.command else ""
            return f"{process}, which has exited{was}"
        if self.state == "reused":
            return f"{process}, which has exited; another process has its number"
        if self.state == "unknown":
            number = f", or another process with its number: {self.command}" if self.command else ""
            return f"{process}{number}"
        return f"{process}: {self.command}"

    def __repr__(self) -> str:
        """Tell the same, recognizably an object."""
        return f"<{type(self).__name__} {self}>"


# Processes start in CLOCK_BOOTTIME, arrivals come in CLOCK_MONOTONIC, which stands still while the
# machine is suspended. How long that was up to an arrival nobody noted: at least as long as here,
_slept_at_import = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
# give or take that another program ran between those two readings: no suspension is as short.
_A_TICK_NS = 10_000_000


def _look_up(pid: int, monotonic_ns: int) -> tuple[str | None, State]:
    """What process `pid` is now, and whether that is the one that there was at an arrival."""
    try:
        # One descriptor for all reads: it stays with this process, whoever gets the number.
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None, "unknown" if _is_there(pid) else "exited"
    try:
        # 123 (name, which may hold anything) S 1 …
        before, _, after = _read("stat", directory).rpartition(")")
        fields = after.split()
        command = _read("cmdline", directory).rstrip("\0").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return None, "exited"
    except OSError:
        return None, "unknown"
    finally:
        os.close(directory)
    started = int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    # In this order: the other program that runs between the readings then makes it later.
    since_arrival = time.monotonic_ns() - monotonic_ns
    if started > time.clock_gettime_ns(time.CLOCK_BOOTTIME) - since_arrival:
        return None, "reused"
    command = command or before.partition("(")[2]
    if fields[0] in "ZX":
        return command, "exited"
    if started > monotonic_ns + _slept_at_import + _A_TICK_NS:
        return command, "unknown"
    return command, "running"


def _read(name: str, directory: int) -> str:
    fd = os.open(name, os.O_RDONLY, dir_fd=directory)
    with open(fd, encoding="utf-8", errors="replace") as file:
        return file.read()


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


_engine.set_info_type(SignalInfo)
