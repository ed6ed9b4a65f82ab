"""Where an arrival came from, by name: the values of `si_code`; and the flags of `sigaction`.

One enum for each signal that has codes of its own, and `SiCodes` for what any signal can have: the
numbers overlap, so a number alone says nothing. `SignalInfo.si_code` is a member of the right one.

The members are listed, one by one and twice, because type checkers and readers cannot see names
that are made when the program runs. The values are the platform's, from the engine.

Source: POSIX `<signal.h>`, `sigaction(2)`.
"""

from enum import IntEnum, IntFlag

from . import _engine

__all__ = [
    "BUS_ADRALN",
    "BUS_ADRERR",
    "BUS_MCEERR_AO",
    "BUS_MCEERR_AR",
    "BUS_OBJERR",
    "CLD_CONTINUED",
    "CLD_DUMPED",
    "CLD_EXITED",
    "CLD_KILLED",
    "CLD_STOPPED",
    "CLD_TRAPPED",
    "FPE_CONDTRAP",
    "FPE_FLTDIV",
    "FPE_FLTINV",
    "FPE_FLTOVF",
    "FPE_FLTRES",
    "FPE_FLTSUB",
    "FPE_FLTUND",
    "FPE_FLTUNK",
    "FPE_INTDIV",
    "FPE_INTOVF",
    "ILL_BADIADDR",
    "ILL_BADSTK",
    "ILL_COPROC",
    "ILL_ILLADR",
    "ILL_ILLOPC",
    "ILL_ILLOPN",
    "ILL_ILLTRP",
    "ILL_PRVOPC",
    "ILL_PRVREG",
    "POLL_ERR",
    "POLL_HUP",
    "POLL_IN",
    "POLL_MSG",
    "POLL_OUT",
    "POLL_PRI",
    "SA_NOCLDSTOP",
    "SA_NOCLDWAIT",
    "SA_NODEFER",
    "SA_ONSTACK",
    "SA_RESETHAND",
    "SA_RESTART",
    "SA_SIGINFO",
    "SEGV_ACCADI",
    "SEGV_ACCERR",
    "SEGV_ADIDERR",
    "SEGV_ADIPERR",
    "SEGV_BNDERR",
    "SEGV_CPERR",
    "SEGV_MAPERR",
    "SEGV_MTEAERR",
    "SEGV_MTESERR",
    "SEGV_PKUERR",
    "SI_ASYNCIO",
    "SI_ASYNCNL",
    "SI_DETHREAD",
    "SI_KERNEL",
    "SI_MESGQ",
    "SI_QUEUE",
    "SI_SIGIO",
    "SI_TIMER",
    "SI_TKILL",
    "SI_USER",
    "SYS_SECCOMP",
    "SYS_USER_DISPATCH",
    "TRAP_BRANCH",
    "TRAP_BRKPT",
    "TRAP_HWBKPT",
    "TRAP_PERF",
    "TRAP_TRACE",
    "TRAP_UNK",
    "BusCodes",
    "CldCodes",
    "FpeCodes",
    "IllCodes",
    "PollCodes",
    "SaFlags",
    "SegvCodes",
    "SiCodes",
    "SysCodes",
    "TrapCodes",
]


class SiCodes(IntEnum):
    """Origins that any signal can have."""

    SI_USER = _engine.SI_USER  #: kill(), raise(): a process
    SI_KERNEL = _engine.SI_KERNEL  #: the kernel: the terminal, an interval timer, a limit
    SI_QUEUE = _engine.SI_QUEUE  #: sigqueue(): a process, with a value
    SI_TIMER = _engine.SI_TIMER  #: a timer of timer_create() expired
    SI_MESGQ = _engine.SI_MESGQ  #: mq_notify(): a message came into an empty queue
    SI_ASYNCIO = _engine.SI_ASYNCIO  #: asynchronous input or output is done
    #: a file descriptor is ready, told by a signal that has codes of its own (F_SETSIG)
    SI_SIGIO = _engine.SI_SIGIO
    SI_TKILL = _engine.SI_TKILL  #: tgkill(), pthread_kill(): a process, to one thread
    SI_DETHREAD = _engine.SI_DETHREAD  #: execve() ends the other threads
    SI_ASYNCNL = _engine.SI_ASYNCNL  #: getaddrinfo_a() is done


class CldCodes(IntEnum):
    """What became of a child: SIGCHLD."""

    CLD_EXITED = _engine.CLD_EXITED  #: it exited; si_status is its exit status
    CLD_KILLED = _engine.CLD_KILLED  #: a signal ended it; si_status is the signal, as in all below
    CLD_DUMPED = _engine.CLD_DUMPED  #: the same, with a core dump
    CLD_TRAPPED = _engine.CLD_TRAPPED  #: it is traced, and has trapped
    CLD_STOPPED = _engine.CLD_STOPPED  #: it was stopped
    CLD_CONTINUED = _engine.CLD_CONTINUED  #: it goes on


class PollCodes(IntEnum):
    """What a file descriptor is ready for: SIGIO, or the signal that F_SETSIG asked for."""

    POLL_IN = _engine.POLL_IN  #: there is something to read
    POLL_OUT = _engine.POLL_OUT  #: there is room to write
    POLL_MSG = _engine.POLL_MSG  #: there is a message to read
    POLL_ERR = _engine.POLL_ERR  #: an error
    POLL_PRI = _engine.POLL_PRI  #: there is something urgent to read
    POLL_HUP = _engine.POLL_HUP  #: the other end has hung up


class SegvCodes(IntEnum):
    """What was wrong with an access to memory: SIGSEGV."""

    SEGV_MAPERR = _engine.SEGV_MAPERR  #: nothing is mapped there
    SEGV_ACCERR = _engine.SEGV_ACCERR  #: not allowed there
    SEGV_BNDERR = _engine.SEGV_BNDERR  #: outside of the bounds that were set
    SEGV_PKUERR = _engine.SEGV_PKUERR  #: a protection key forbids it
    SEGV_ACCADI = _engine.SEGV_ACCADI  #: SPARC: the mapping has no ADI
    SEGV_ADIDERR = _engine.SEGV_ADIDERR  #: SPARC: a disrupting MCD error
    SEGV_ADIPERR = _engine.SEGV_ADIPERR  #: SPARC: a precise MCD exception
    SEGV_MTEAERR = _engine.SEGV_MTEAERR  #: ARM: a memory tag differs, found later
    SEGV_MTESERR = _engine.SEGV_MTESERR  #: ARM: a memory tag differs, found at once
    SEGV_CPERR = _engine.SEGV_CPERR  #: a return address is not the one that was called from


class BusCodes(IntEnum):
    """What was wrong with an access to memory: SIGBUS."""

    BUS_ADRALN = _engine.BUS_ADRALN  #: a misaligned address
    #: there is no such physical address, as beyond the end of a mapped file
    BUS_ADRERR = _engine.BUS_ADRERR
    BUS_OBJERR = _engine.BUS_OBJERR  #: an error of the hardware
    BUS_MCEERR_AR = _engine.BUS_MCEERR_AR  #: memory is broken, and was used: action required
    BUS_MCEERR_AO = _engine.BUS_MCEERR_AO  #: memory is broken, and was not used: action optional


class FpeCodes(IntEnum):
    """What was wrong with a calculation: SIGFPE."""

    FPE_INTDIV = _engine.FPE_INTDIV  #: an integer division by zero
    FPE_INTOVF = _engine.FPE_INTOVF  #: an integer overflow
    FPE_FLTDIV = _engine.FPE_FLTDIV  #: a floating-point division by zero
    FPE_FLTOVF = _engine.FPE_FLTOVF  #: a floating-point overflow
    FPE_FLTUND = _engine.FPE_FLTUND  #: a floating-point underflow
    FPE_FLTRES = _engine.FPE_FLTRES  #: an inexact result
    FPE_FLTINV = _engine.FPE_FLTINV  #: an invalid operation
    FPE_FLTSUB = _engine.FPE_FLTSUB  #: a subscript out of range
    FPE_FLTUNK = _engine.FPE_FLTUNK  #: the processor does not say what
    FPE_CONDTRAP = _engine.FPE_CONDTRAP  #: a conditional trap


class IllCodes(IntEnum):
    """What was wrong with an instruction: SIGILL."""

    ILL_ILLOPC = _engine.ILL_ILLOPC  #: an illegal opcode
    ILL_ILLOPN = _engine.ILL_ILLOPN  #: an illegal operand
    ILL_ILLADR = _engine.ILL_ILLADR  #: an illegal addressing mode
    ILL_ILLTRP = _engine.ILL_ILLTRP  #: an illegal trap
    ILL_PRVOPC = _engine.ILL_PRVOPC  #: a privileged opcode
    ILL_PRVREG = _engine.ILL_PRVREG  #: a privileged register
    ILL_COPROC = _engine.ILL_COPROC  #: an error of the coprocessor
    ILL_BADSTK = _engine.ILL_BADSTK  #: an error of the internal stack
    ILL_BADIADDR = _engine.ILL_BADIADDR  #: the instruction's own address


class TrapCodes(IntEnum):
    """What trapped: SIGTRAP."""

    TRAP_BRKPT = _engine.TRAP_BRKPT  #: a breakpoint
    TRAP_TRACE = _engine.TRAP_TRACE  #: one step was traced
    TRAP_BRANCH = _engine.TRAP_BRANCH  #: a branch was traced
    TRAP_HWBKPT = _engine.TRAP_HWBKPT  #: a breakpoint or watchpoint of the hardware
    TRAP_UNK = _engine.TRAP_UNK  #: the processor does not say what
    TRAP_PERF = _engine.TRAP_PERF  #: an event of perf_event_open()


class SysCodes(IntEnum):
    """What became of a system call: SIGSYS."""

    SYS_SECCOMP = _engine.SYS_SECCOMP  #: a seccomp filter refused it
    SYS_USER_DISPATCH = _engine.SYS_USER_DISPATCH  #: it was turned over to user space (prctl)


class SaFlags(IntFlag):
    """How `sigaction` is to treat a signal."""

    #: SIGCHLD only for children that end, not for those that stop or go on
    SA_NOCLDSTOP = _engine.SA_NOCLDSTOP
    SA_NOCLDWAIT = _engine.SA_NOCLDWAIT  #: children leave no zombies
    SA_NODEFER = _engine.SA_NODEFER  #: a handler does not block its own signal
    SA_ONSTACK = _engine.SA_ONSTACK  #: run on the stack of sigaltstack()
    SA_RESETHAND = _engine.SA_RESETHAND  #: back to the default action with the first arrival
    SA_RESTART = _engine.SA_RESTART  #: system calls go on where the signal interrupted them
    SA_SIGINFO = _engine.SA_SIGINFO  #: the handler is given a siginfo_t


_OWN: dict[int, type[IntEnum]] = {
    _engine.SIGBUS: BusCodes,
    _engine.SIGCHLD: CldCodes,
    _engine.SIGFPE: FpeCodes,
    _engine.SIGILL: IllCodes,
    _engine.SIGIO: PollCodes,
    _engine.SIGSEGV: SegvCodes,
    _engine.SIGSYS: SysCodes,
    _engine.SIGTRAP: TrapCodes,
}


def enum_of(signum: int, code: int) -> type[IntEnum]:
    """Which enum a code belongs to: `siginfo_layout()` in Linux's kernel/signal.c."""
    if not SiCodes.SI_USER < code < SiCodes.SI_KERNEL:
        return SiCodes
    # A signal without codes of its own can tell of a file descriptor (F_SETSIG) with SIGIO's.
    return _OWN.get(signum, PollCodes)


SI_USER = SiCodes.SI_USER
SI_KERNEL = SiCodes.SI_KERNEL
SI_QUEUE = SiCodes.SI_QUEUE
SI_TIMER = SiCodes.SI_TIMER
SI_MESGQ = SiCodes.SI_MESGQ
SI_ASYNCIO = SiCodes.SI_ASYNCIO
SI_SIGIO = SiCodes.SI_SIGIO
SI_TKILL = SiCodes.SI_TKILL
SI_DETHREAD = SiCodes.SI_DETHREAD
SI_ASYNCNL = SiCodes.SI_ASYNCNL

CLD_EXITED = CldCodes.CLD_EXITED
CLD_KILLED = CldCodes.CLD_KILLED
CLD_DUMPED = CldCodes.CLD_DUMPED
CLD_TRAPPED = CldCodes.CLD_TRAPPED
CLD_STOPPED = CldCodes.CLD_STOPPED
CLD_CONTINUED = CldCodes.CLD_CONTINUED

POLL_IN = PollCodes.POLL_IN
POLL_OUT = PollCodes.POLL_OUT
POLL_MSG = PollCodes.POLL_MSG
POLL_ERR = PollCodes.POLL_ERR
POLL_PRI = PollCodes.POLL_PRI
POLL_HUP = PollCodes.POLL_HUP

SEGV_MAPERR = SegvCodes.SEGV_MAPERR
SEGV_ACCERR = SegvCodes.SEGV_ACCERR
SEGV_BNDERR = SegvCodes.SEGV_BNDERR
SEGV_PKUERR = SegvCodes.SEGV_PKUERR
SEGV_ACCADI = SegvCodes.SEGV_ACCADI
SEGV_ADIDERR = SegvCodes.SEGV_ADIDERR
SEGV_ADIPERR = SegvCodes.SEGV_ADIPERR
SEGV_MTEAERR = SegvCodes.SEGV_MTEAERR
SEGV_MTESERR = SegvCodes.SEGV_MTESERR
SEGV_CPERR = SegvCodes.SEGV_CPERR

BUS_ADRALN = BusCodes.BUS_ADRALN
BUS_ADRERR = BusCodes.BUS_ADRERR
BUS_OBJERR = BusCodes.BUS_OBJERR
BUS_MCEERR_AR = BusCodes.BUS_MCEERR_AR
BUS_MCEERR_AO = BusCodes.BUS_MCEERR_AO

FPE_INTDIV = FpeCodes.FPE_INTDIV
FPE_INTOVF = FpeCodes.FPE_INTOVF
FPE_FLTDIV = FpeCodes.FPE_FLTDIV
FPE_FLTOVF = FpeCodes.FPE_FLTOVF
FPE_FLTUND = FpeCodes.FPE_FLTUND
FPE_FLTRES = FpeCodes.FPE_FLTRES
FPE_FLTINV = FpeCodes.FPE_FLTINV
FPE_FLTSUB = FpeCodes.FPE_FLTSUB
FPE_FLTUNK = FpeCodes.FPE_FLTUNK
FPE_CONDTRAP = FpeCodes.FPE_CONDTRAP

ILL_ILLOPC = IllCodes.ILL_ILLOPC
ILL_ILLOPN = IllCodes.ILL_ILLOPN
ILL_ILLADR = IllCodes.ILL_ILLADR
ILL_ILLTRP = IllCodes.ILL_ILLTRP
ILL_PRVOPC = IllCodes.ILL_PRVOPC
ILL_PRVREG = IllCodes.ILL_PRVREG
ILL_COPROC = IllCodes.ILL_COPROC
ILL_BADSTK = IllCodes.ILL_BADSTK
ILL_BADIADDR = IllCodes.ILL_BADIADDR

TRAP_BRKPT = TrapCodes.TRAP_BRKPT
TRAP_TRACE = TrapCodes.TRAP_TRACE
TRAP_BRANCH = TrapCodes.TRAP_BRANCH
TRAP_HWBKPT = TrapCodes.TRAP_HWBKPT
TRAP_UNK = TrapCodes.TRAP_UNK
TRAP_PERF = TrapCodes.TRAP_PERF

SYS_SECCOMP = SysCodes.SYS_SECCOMP
SYS_USER_DISPATCH = SysCodes.SYS_USER_DISPATCH

SA_NOCLDSTOP = SaFlags.SA_NOCLDSTOP
SA_NOCLDWAIT = SaFlags.SA_NOCLDWAIT
SA_NODEFER = SaFlags.SA_NODEFER
SA_ONSTACK = SaFlags.SA_ONSTACK
SA_RESETHAND = SaFlags.SA_RESETHAND
SA_RESTART = SaFlags.SA_RESTART
SA_SIGINFO = SaFlags.SA_SIGINFO
