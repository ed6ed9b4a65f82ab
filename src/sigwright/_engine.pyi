# What the engine (C) gives to the package.
from collections.abc import Callable, Iterable
from signal import Handlers, ItimerError, Sigmasks, Signals, default_int_handler, struct_siginfo
from types import FrameType
from typing import Any, Final, TypeAlias

__all__ = [
    "ITIMER_PROF",
    "ITIMER_REAL",
    "ITIMER_VIRTUAL",
    "NSIG",
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
    "SIG_BLOCK",
    "SIG_DFL",
    "SIG_IGN",
    "SIG_SETMASK",
    "SIG_UNBLOCK",
    "Handlers",
    "ItimerError",
    "Sigmasks",
    "Signals",
    "alarm",
    "default_int_handler",
    "getitimer",
    "getsignal",
    "pause",
    "pidfd_send_signal",
    "pthread_kill",
    "pthread_sigmask",
    "raise_signal",
    "set_wakeup_fd",
    "setitimer",
    "siginterrupt",
    "signal",
    "sigpending",
    "sigtimedwait",
    "sigwait",
    "sigwaitinfo",
    "strsignal",
    "struct_siginfo",
    "valid_signals",
]

_Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | Handlers | None

main_interpreter: bool

ITIMER_PROF: Final[int]
ITIMER_REAL: Final[int]
ITIMER_VIRTUAL: Final[int]
NSIG: Final[int]
SIGABRT: Final[Signals]
SIGALRM: Final[Signals]
SIGBUS: Final[Signals]
SIGCHLD: Final[Signals]
SIGCLD: Final[Signals]
SIGCONT: Final[Signals]
SIGFPE: Final[Signals]
SIGHUP: Final[Signals]
SIGILL: Final[Signals]
SIGINT: Final[Signals]
SIGIO: Final[Signals]
SIGIOT: Final[Signals]
SIGKILL: Final[Signals]
SIGPIPE: Final[Signals]
SIGPOLL: Final[Signals]
SIGPROF: Final[Signals]
SIGPWR: Final[Signals]
SIGQUIT: Final[Signals]
SIGRTMAX: Final[Signals]
SIGRTMIN: Final[Signals]
SIGSEGV: Final[Signals]
SIGSTKFLT: Final[Signals]
SIGSTOP: Final[Signals]
SIGSYS: Final[Signals]
SIGTERM: Final[Signals]
SIGTRAP: Final[Signals]
SIGTSTP: Final[Signals]
SIGTTIN: Final[Signals]
SIGTTOU: Final[Signals]
SIGURG: Final[Signals]
SIGUSR1: Final[Signals]
SIGUSR2: Final[Signals]
SIGVTALRM: Final[Signals]
SIGWINCH: Final[Signals]
SIGXCPU: Final[Signals]
SIGXFSZ: Final[Signals]
SIG_DFL: Final = Handlers.SIG_DFL
SIG_IGN: Final = Handlers.SIG_IGN
SIG_BLOCK: Final = Sigmasks.SIG_BLOCK
SIG_SETMASK: Final = Sigmasks.SIG_SETMASK
SIG_UNBLOCK: Final = Sigmasks.SIG_UNBLOCK

def alarm(seconds: int, /) -> int: ...
def getitimer(which: int, /) -> tuple[float, float]: ...
def getsignal(signalnum: int) -> _Handler: ...
def pause() -> None: ...
def pidfd_send_signal(
    pidfd: int, signalnum: int, siginfo: None = None, flags: int = 0, /
) -> None: ...
def pthread_kill(thread_id: int, signalnum: int, /) -> None: ...
def pthread_sigmask(how: int, mask: Iterable[int]) -> set[int | Signals]: ...
def raise_signal(signalnum: int, /) -> None: ...
def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int: ...
def setitimer(which: int, seconds: float, interval: float = 0.0, /) -> tuple[float, float]: ...
def siginterrupt(signalnum: int, flag: bool, /) -> None: ...
def signal(signalnum: int, handler: _Handler) -> _Handler: ...
def sigpending() -> set[int | Signals]: ...
def sigtimedwait(sigset: Iterable[int], timeout: float, /) -> struct_siginfo | None: ...
def sigwait(sigset: Iterable[int]) -> int | Signals: ...
def sigwaitinfo(sigset: Iterable[int], /) -> struct_siginfo: ...
def strsignal(signalnum: int, /) -> str | None: ...
def valid_signals() -> set[int | Signals]: ...

# For the package's own modules.
def adopt() -> None: ...
def set_tracer(tracer: Callable[..., object] | None, /) -> Callable[..., object] | None: ...
def set_zero_wakeup_fd(fd: int, /) -> int: ...
def stats() -> dict[int, dict[str, int]]: ...
