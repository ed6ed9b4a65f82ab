# What the engine (C) gives to the package.
from collections.abc import Callable, Iterable
from signal import Handlers, ItimerError, Sigmasks, Signals, default_int_handler, struct_siginfo
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, ParamSpec, Self, TypeAlias, TypeVar, TypeVarTuple, Unpack, final

from .siginfo import SignalInfo

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Ts = TypeVarTuple("_Ts")

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
    "sigqueue",
    "sigsuspend",
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
def sigqueue(pid: int, signalnum: int, value: int = 0, /) -> None: ...
def sigsuspend(mask: Iterable[int], /) -> None: ...
def sigpending() -> set[int | Signals]: ...
def sigtimedwait(sigset: Iterable[int], timeout: float, /) -> struct_siginfo | None: ...
def sigwait(sigset: Iterable[int]) -> int | Signals: ...
def sigwaitinfo(sigset: Iterable[int], /) -> struct_siginfo: ...
def strsignal(signalnum: int, /) -> str | None: ...
def valid_signals() -> set[int | Signals]: ...

# For the package's own modules.
SI_USER: Final[int]
SI_KERNEL: Final[int]
SI_QUEUE: Final[int]
SI_TIMER: Final[int]
SI_MESGQ: Final[int]
SI_ASYNCIO: Final[int]
SI_SIGIO: Final[int]
SI_TKILL: Final[int]
SI_DETHREAD: Final[int]
SI_ASYNCNL: Final[int]
CLD_EXITED: Final[int]
CLD_KILLED: Final[int]
CLD_DUMPED: Final[int]
CLD_TRAPPED: Final[int]
CLD_STOPPED: Final[int]
CLD_CONTINUED: Final[int]
POLL_IN: Final[int]
POLL_OUT: Final[int]
POLL_MSG: Final[int]
POLL_ERR: Final[int]
POLL_PRI: Final[int]
POLL_HUP: Final[int]
SEGV_MAPERR: Final[int]
SEGV_ACCERR: Final[int]
SEGV_BNDERR: Final[int]
SEGV_PKUERR: Final[int]
SEGV_ACCADI: Final[int]
SEGV_ADIDERR: Final[int]
SEGV_ADIPERR: Final[int]
SEGV_MTEAERR: Final[int]
SEGV_MTESERR: Final[int]
SEGV_CPERR: Final[int]
BUS_ADRALN: Final[int]
BUS_ADRERR: Final[int]
BUS_OBJERR: Final[int]
BUS_MCEERR_AR: Final[int]
BUS_MCEERR_AO: Final[int]
FPE_INTDIV: Final[int]
FPE_INTOVF: Final[int]
FPE_FLTDIV: Final[int]
FPE_FLTOVF: Final[int]
FPE_FLTUND: Final[int]
FPE_FLTRES: Final[int]
FPE_FLTINV: Final[int]
FPE_FLTSUB: Final[int]
FPE_FLTUNK: Final[int]
FPE_CONDTRAP: Final[int]
ILL_ILLOPC: Final[int]
ILL_ILLOPN: Final[int]
ILL_ILLADR: Final[int]
ILL_ILLTRP: Final[int]
ILL_PRVOPC: Final[int]
ILL_PRVREG: Final[int]
ILL_COPROC: Final[int]
ILL_BADSTK: Final[int]
ILL_BADIADDR: Final[int]
TRAP_BRKPT: Final[int]
TRAP_TRACE: Final[int]
TRAP_BRANCH: Final[int]
TRAP_HWBKPT: Final[int]
TRAP_UNK: Final[int]
TRAP_PERF: Final[int]
SYS_SECCOMP: Final[int]
SYS_USER_DISPATCH: Final[int]
SA_NOCLDSTOP: Final[int]
SA_NOCLDWAIT: Final[int]
SA_NODEFER: Final[int]
SA_ONSTACK: Final[int]
SA_RESETHAND: Final[int]
SA_RESTART: Final[int]
SA_SIGINFO: Final[int]
KIND_LISTENER: Final[int]
KIND_MAIN: Final[int]
KIND_THREAD: Final[int]

class ArrivalRecord:
    @property
    def si_signo(self) -> Signals: ...
    @property
    def code(self) -> int: ...
    @property
    def si_errno(self) -> int: ...
    @property
    def si_pid(self) -> int | None: ...
    @property
    def si_uid(self) -> int | None: ...
    @property
    def si_status(self) -> int | None: ...
    @property
    def si_utime(self) -> int | None: ...
    @property
    def si_stime(self) -> int | None: ...
    @property
    def si_value(self) -> int | None: ...
    @property
    def si_ptr(self) -> int | None: ...
    @property
    def si_band(self) -> int | None: ...
    @property
    def si_fd(self) -> int | None: ...
    @property
    def si_addr(self) -> int | None: ...
    @property
    def si_timerid(self) -> int | None: ...
    @property
    def si_overrun(self) -> int | None: ...
    @property
    def si_call_addr(self) -> int | None: ...
    @property
    def si_syscall(self) -> int | None: ...
    @property
    def si_arch(self) -> int | None: ...
    @property
    def monotonic_ns(self) -> int: ...
    @property
    def thread_id(self) -> int: ...

class Consumer:
    def __new__(
        cls,
        signals: Iterable[int],
        maxsize: int,
        kind: int,
        inherit: bool,
        handler: Callable[[Any], object] | None,
    ) -> Self: ...
    def get(self, timeout: float | None = None) -> SignalInfo: ...
    def get_nowait(self) -> SignalInfo: ...
    def drain(self) -> list[SignalInfo]: ...
    def fileno(self) -> int: ...
    def close(self, discard: bool = False) -> None: ...
    def qsize(self) -> int: ...
    def stats(self) -> dict[str, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> SignalInfo: ...
    def _acknowledge(self) -> int: ...
    def _rearm(self) -> None: ...
    def _hold(self) -> None: ...
    def _release(self) -> None: ...
    @property
    def dropped(self) -> int: ...
    @property
    def signals(self) -> frozenset[int | Signals]: ...
    @property
    def closed(self) -> bool: ...
    @property
    def handler(self) -> Callable[[Any], object] | None: ...
    @property
    def kind(self) -> int: ...

class BlockedSection:
    def __new__(cls, *signums: int) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class deferred:  # noqa: N801
    def __new__(cls, *signums: int) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    def __call__(self, function: Callable[_P, _R], /) -> Callable[_P, _R]: ...
    def run_pending(self) -> bool: ...

class Cancelled(BaseException): ...

@final
class CancelScope:
    def __new__(cls, deadline: float = ...) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool: ...
    def __call__(self, function: Callable[_P, _R], /) -> Callable[_P, _R | None]: ...
    def cancel(self) -> None: ...
    def _copy(self) -> Self: ...
    deadline: float
    @property
    def cancel_called(self) -> bool: ...
    @property
    def cancelled_caught(self) -> bool: ...

class TimerHandle:
    def cancel(self) -> None: ...
    def cancelled(self) -> bool: ...
    def when(self) -> float: ...
    @property
    def skipped(self) -> int: ...

def set_enter_context(code: CodeType, /) -> None: ...
def fail_after(seconds: float, /) -> CancelScope: ...
def fail_at(deadline: float, /) -> CancelScope: ...
def move_on_after(seconds: float, /) -> CancelScope: ...
def move_on_at(deadline: float, /) -> CancelScope: ...
def call_later(
    delay: float, callback: Callable[[Unpack[_Ts]], object], /, *args: *_Ts
) -> TimerHandle: ...
def call_at(
    when: float, callback: Callable[[Unpack[_Ts]], object], /, *args: *_Ts
) -> TimerHandle: ...
def call_every(
    period: float, callback: Callable[[Unpack[_Ts]], object], /, *args: *_Ts
) -> TimerHandle: ...
def adopt() -> None: ...
def consumers() -> list[Consumer]: ...
def is_watching(number: int, /) -> bool: ...
def kernel_action(signum: int, /) -> tuple[str, int, set[int | Signals], int, int]: ...
def latencies() -> dict[int, list[int]]: ...
def make_record(
    signum: int, code: int, errno: int, fields: bytes, monotonic_ns: int, thread_id: int, /
) -> ArrivalRecord: ...
def next_for_thread() -> tuple[Consumer, SignalInfo] | None: ...
def run_default(signalnum: int, /) -> None: ...
def set_info_type(subclass: type[ArrivalRecord], /) -> None: ...
def set_tracer(tracer: Callable[..., object] | None, /) -> Callable[..., object] | None: ...
def set_zero_wakeup_fd(fd: int, /) -> int: ...
def sigaction(
    signum: int, handler: object = ..., flags: int = 0, mask: Iterable[int] = (), /
) -> tuple[Any, int, set[int | Signals]]: ...
def stats() -> dict[int, dict[str, int]]: ...
def unwatch(number: int, /) -> bool: ...
def watch(
    signums: Iterable[int],
    grace_ns: int,
    presses: int,
    exit_code: int,
    dump: bool,
    deferral_answers: bool,
    /,
) -> int: ...
def watch_until(monotonic_ns: int, signum: int, exit_code: int, dump: bool, /) -> int: ...
