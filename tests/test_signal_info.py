"""SignalInfo for every origin that can be had, and the sender: alive, gone, or another by now."""

import ctypes
import ctypes.util
import enum
import fcntl
import os
import pwd
import resource
import select
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time

import pytest

import programs
import sigwright as signal
from sigwright import codes, siginfo

REALTIME = signal.SIGRTMIN + 7
SOON = 10  # seconds: more than anything here takes

FIELDS = [
    *("si_pid", "si_uid", "si_status", "si_utime", "si_stime", "si_value", "si_ptr", "si_band"),
    *("si_fd", "si_addr", "si_timerid", "si_overrun", "si_call_addr", "si_syscall", "si_arch"),
]

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(autouse=True)
def _harmless():
    with programs.ignored(signal.SIGUSR1, REALTIME):
        yield


def has(info: signal.SignalInfo) -> set[str]:
    """The fields that this origin has."""
    return {name for name in FIELDS if getattr(info, name) is not None}


def caught(signum: int, cause, *args) -> signal.SignalInfo:
    """The one arrival that something causes."""
    with signal.listen(signum) as listener:
        cause(*args)
        info = listener.get(timeout=SOON)
        assert listener.drain() == []
    assert info.si_signo == signum
    return info


def record(
    signum: int = signal.SIGUSR1,
    code: int = codes.SI_USER,
    fields: bytes = b"",
    monotonic_ns: int | None = None,
) -> signal.SignalInfo:
    """An arrival that never was."""
    when = time.monotonic_ns() if monotonic_ns is None else monotonic_ns
    return signal._engine.make_record(signum, code, 0, fields.ljust(32, b"\0"), when, 1)


def from_process(pid: int, uid: int = 0, **options: int) -> signal.SignalInfo:
    return record(fields=struct.pack("iI", pid, uid), **options)


# --- every origin -------------------------------------------------------------------------------


def test_kill_by_another_process():
    code = f"import os; os.kill({os.getpid()}, {int(signal.SIGUSR1)})"
    before = time.monotonic_ns()
    with signal.listen(signal.SIGUSR1) as listener:
        sender = subprocess.Popen([sys.executable, "-c", code])
        info = listener.get(timeout=SOON)
        sender.wait()
    assert info.si_signo is signal.SIGUSR1
    assert info.si_code is signal.SI_USER is codes.SiCodes.SI_USER
    assert (info.si_pid, info.si_uid, info.si_errno) == (sender.pid, os.getuid(), 0)
    assert has(info) == {"si_pid", "si_uid"}
    assert before < info.monotonic_ns < time.monotonic_ns()
    assert repr(info) == (f"<SignalInfo SIGUSR1 from kill(), pid {sender.pid}, uid {os.getuid()}>")


def test_one_thread_to_another():
    info = caught(signal.SIGUSR1, signal.pthread_kill, threading.get_ident(), signal.SIGUSR1)
    assert info.si_code is signal.SI_TKILL
    assert (info.si_pid, info.thread_id) == (os.getpid(), threading.get_ident())
    assert has(info) == {"si_pid", "si_uid"}
    assert " from tgkill(), pid " in repr(info)


@pytest.mark.parametrize("value", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_sigqueue_with_its_value(value):
    info = caught(REALTIME, signal.sigqueue, os.getpid(), REALTIME, value)
    assert info.si_code is signal.SI_QUEUE
    assert (info.si_pid, info.si_uid, info.si_value) == (os.getpid(), os.getuid(), value)
    assert info.si_ptr >= 0
    assert ctypes.c_int(info.si_ptr & 0xFFFFFFFF).value == value
    assert has(info) == {"si_pid", "si_uid", "si_value", "si_ptr"}
    assert repr(info).startswith("<SignalInfo SIGRTMIN+7 from sigqueue(), pid ")
    assert repr(info).endswith(f", value {value}>")


class _SigEvent(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("rest", ctypes.c_char * 44),
    ]


def _notify(signum: int, value: int) -> _SigEvent:
    """SIGEV_SIGNAL."""
    return _SigEvent(value, signum, 0)


def _notify_this_thread(signum: int, value: int) -> _SigEvent:
    """SIGEV_THREAD_ID: what this thread blocks, no other thread gets."""
    return _SigEvent(value, signum, 4, threading.get_native_id())


def _posix(name: str) -> object:
    """A function that older C libraries have in librt."""
    try:
        return getattr(libc, name)
    except AttributeError:
        return getattr(ctypes.CDLL(ctypes.util.find_library("rt"), use_errno=True), name)


def test_a_posix_timer_with_its_overruns():
    timer = ctypes.c_void_p()
    event = _notify_this_thread(REALTIME, 77)
    create, settime = _posix("timer_create"), _posix("timer_settime")
    assert create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0
    try:
        with signal.listen(REALTIME) as listener:
            signal.pthread_sigmask(signal.SIG_BLOCK, [REALTIME])
            every_millisecond = struct.pack("4q", 0, 1_000_000, 0, 1_000_000)
            assert settime(timer, 0, every_millisecond, None) == 0
            end = time.monotonic() + 0.05
            while time.monotonic() < end:
                pass
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [REALTIME])
            first = listener.get(timeout=SOON)
            settime(timer, 0, bytes(32), None)
            listener.drain()
    finally:
        _posix("timer_delete")(timer)
    assert first.si_code is signal.SI_TIMER
    assert first.si_value == 77 == first.si_ptr
    assert first.si_overrun >= 20
    assert isinstance(first.si_timerid, int)
    assert has(first) == {"si_timerid", "si_overrun", "si_value", "si_ptr"}
    assert repr(first) == (
        f"<SignalInfo SIGRTMIN+7 from a timer, value 77, overrun {first.si_overrun}>"
    )
    assert (first.sender().state, first.sender().origin) == ("none", "a timer")


def test_a_message_queue():
    name = f"/sigwright-{os.getpid()}".encode()
    mq_open = _posix("mq_open")
    mq_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    mq = mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, None)
    assert mq != -1, os.strerror(ctypes.get_errno())
    try:
        event = _notify(REALTIME, 5)
        assert _posix("mq_notify")(mq, ctypes.byref(event)) == 0
        info = caught(REALTIME, _posix("mq_send"), mq, b"x", 1, 0)
    finally:
        os.close(mq)
        _posix("mq_unlink")(name)
    assert info.si_code is signal.SI_MESGQ
    assert (info.si_pid, info.si_value) == (os.getpid(), 5)
    assert " from a message queue, pid " in repr(info)


@pytest.mark.parametrize("limit", [signal.ITIMER_REAL, signal.ITIMER_PROF])
def test_an_interval_timer_of_the_kernel(limit):
    signum = {signal.ITIMER_REAL: signal.SIGALRM, signal.ITIMER_PROF: signal.SIGPROF}[limit]
    with signal.listen(signum) as listener:
        signal.setitimer(limit, 0.01)
        end = time.monotonic() + SOON
        while not listener.qsize() and time.monotonic() < end:
            pass  # busy, as the one counts
        info = listener.get_nowait()
    assert info.si_code is signal.SI_KERNEL
    assert repr(info) == f"<SignalInfo {signum.name} from an interval timer>"
    assert str(info.sender()) == "no process, but an interval timer"


def test_ctrl_c_at_a_terminal():
    program = """
        import sigwright as signal
        with signal.listen(signal.SIGINT, signal.SIGWINCH) as listener:
            print("ready", flush=True)
            for _ in range(2):
                info = listener.get(timeout=20)
                print(info, info.si_code.name, info.sender().state, info.sender().pid, flush=True)
    """
    leader, follower = os.openpty()

    def take_the_terminal():
        os.setsid()
        fcntl.ioctl(follower, termios.TIOCSCTTY, 0)

    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=follower,
        stdout=subprocess.PIPE,
        preexec_fn=take_the_terminal,
        text=True,
    )
    try:
        assert child.stdout.readline() == "ready\n"
        os.write(leader, b"\x03")
        line = child.stdout.readline()
        assert line == "<SignalInfo SIGINT from the terminal> SI_KERNEL none None\n"
        fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("4H", 5, 5, 0, 0))
        line = child.stdout.readline()
        assert line == "<SignalInfo SIGWINCH from the terminal> SI_KERNEL none None\n"
        assert child.wait(SOON) == 0
    finally:
        child.kill()
        child.communicate()
        os.close(leader)
        os.close(follower)


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        (signal.SIGIO, "POLL_IN"),
        (REALTIME, "POLL_IN"),
        (signal.SIGCHLD, "SI_SIGIO"),  # as it has codes of its own
    ],
)
def test_a_file_descriptor_that_is_ready(signum, code):
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(reader, 10, int(signum))  # F_SETSIG
        flags = fcntl.fcntl(reader, fcntl.F_GETFL)
        fcntl.fcntl(reader, fcntl.F_SETFL, flags | fcntl.FASYNC)
        info = caught(signum, os.write, writer, b"x")
    finally:
        os.close(reader)
        os.close(writer)
    assert info.si_code is getattr(signal, code)
    assert info.si_fd == reader
    assert info.si_band & select.POLLIN
    assert has(info) == {"si_fd", "si_band"}
    what = "from a file descriptor" if code == "SI_SIGIO" else code
    name = siginfo.name_of(signum)
    assert repr(info) == (f"<SignalInfo {name} {what}, fd {reader}, band {hex(info.si_band)}>")
    assert info.sender().state == "none"


def _child(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


@pytest.mark.parametrize(
    ("code", "name", "status", "shown"),
    [
        ("raise SystemExit(3)", "CLD_EXITED", 3, "status 3"),
        ("import os; os.kill(os.getpid(), 9)", "CLD_KILLED", signal.SIGKILL, "status SIGKILL"),
        ("import os; os.abort()", None, signal.SIGABRT, "status SIGABRT"),
    ],
)
def test_a_child_that_ended(code, name, status, shown, tmp_path, monkeypatch):
    """Beside waitid(), which is told the same by the kernel in another way."""
    monkeypatch.chdir(tmp_path)  # for a core dump, if there is one
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limit[1], limit[1]))
    try:
        with signal.listen(signal.SIGCHLD) as listener:
            child = _child(code)
            info = listener.get(timeout=SOON)
            assert info.si_pid == child.pid
            sender = info.sender()
            waited = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            child.communicate()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limit)
    assert info.si_code is codes.CldCodes(waited.si_code)
    assert name is None or info.si_code is getattr(signal, name)
    assert info.si_status == waited.si_status == status
    assert info.si_uid == os.getuid()
    assert has(info) == {"si_pid", "si_uid", "si_status", "si_utime", "si_stime"}
    assert repr(info) == (
        f"<SignalInfo SIGCHLD {info.si_code.name}, pid {child.pid}, uid {os.getuid()}, {shown}>"
    )
    # The child is a zombie then: it has a name, but no command line.
    assert (sender.pid, sender.state) == (child.pid, "exited")
    assert sender.command in (os.path.basename(sys.executable), "python3", "python")


def test_a_child_that_was_stopped_and_goes_on():
    with signal.listen(signal.SIGCHLD) as listener:
        child = _child("input()")
        child.send_signal(signal.SIGSTOP)
        stopped = listener.get(timeout=SOON)
        sender = stopped.sender()
        child.send_signal(signal.SIGCONT)
        continued = listener.get(timeout=SOON)
        child.kill()
        killed = listener.get(timeout=SOON)
        child.communicate()
    assert stopped.si_code is signal.CLD_STOPPED
    assert (stopped.si_pid, stopped.si_status) == (child.pid, signal.SIGSTOP)
    assert (sender.state, sender.pid) == ("running", child.pid)
    assert sender.command.endswith("-c input()")
    assert continued.si_code is signal.CLD_CONTINUED
    assert (continued.si_pid, continued.si_status) == (child.pid, signal.SIGCONT)
    assert killed.si_code is signal.CLD_KILLED


def test_a_system_call_that_a_filter_refuses():
    program = """
        import ctypes, struct
        import sigwright as signal
        libc = ctypes.CDLL(None, use_errno=True)
        number = 5000  # no system call
        instruction = struct.Struct("HBBI")
        filter = ctypes.create_string_buffer(
            instruction.pack(0x20, 0, 0, 0)               # load the number
            + instruction.pack(0x15, 0, 1, number)        # this one?
            + instruction.pack(0x06, 0, 0, 0x00030000 + 7)  # trap, with 7 in si_errno
            + instruction.pack(0x06, 0, 0, 0x7FFF0000)    # all others: go on
        )
        program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(filter)))
        assert libc.prctl(38, 1, 0, 0, 0) == 0            # PR_SET_NO_NEW_PRIVS
        assert libc.prctl(22, 2, program, 0, 0) == 0      # PR_SET_SECCOMP
        with signal.listen(signal.SIGSYS) as listener:
            libc.syscall(number)
            info = listener.get(timeout=20)
        print(info.si_code is signal.SYS_SECCOMP, info.si_syscall, info.si_errno)
        print(info.si_arch > 0, info.si_call_addr > 0, info.si_pid, info.sender().state)
        print(info)
    """
    assert programs.succeed(program).splitlines() == [
        "True 5000 7",
        "True True None none",
        "<SignalInfo SIGSYS SYS_SECCOMP, system call 5000>",
    ]


# --- codes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signum", "code", "expected"),
    [
        (signal.SIGSEGV, 1, "SEGV_MAPERR"),
        (signal.SIGBUS, 1, "BUS_ADRALN"),
        (signal.SIGFPE, 1, "FPE_INTDIV"),
        (signal.SIGILL, 1, "ILL_ILLOPC"),
        (signal.SIGTRAP, 1, "TRAP_BRKPT"),
        (signal.SIGCHLD, 1, "CLD_EXITED"),
        (signal.SIGIO, 1, "POLL_IN"),
        (signal.SIGSYS, 1, "SYS_SECCOMP"),
        (signal.SIGTERM, 1, "POLL_IN"),  # F_SETSIG
        (REALTIME, 6, "POLL_HUP"),
        (signal.SIGSEGV, 0x80, "SI_KERNEL"),
        (signal.SIGSEGV, 0, "SI_USER"),
        (signal.SIGCHLD, 0, "SI_USER"),
        (signal.SIGCHLD, -1, "SI_QUEUE"),
        (signal.SIGIO, -5, "SI_SIGIO"),
        (signal.SIGFPE, 15, "FPE_CONDTRAP"),
        (signal.SIGFPE, 10, 10),  # between the known ones
        (signal.SIGTERM, 7, 7),
        (signal.SIGBUS, 6, 6),  # SIGIO's, but it has its own
        (signal.SIGSEGV, 99, 99),
        (signal.SIGTERM, -99, -99),
        (signal.SIGTERM, 0x81, 0x81),
    ],
)
def test_the_same_number_is_another_code_for_another_signal(signum, code, expected):
    info = record(signum, code)
    if isinstance(expected, int):
        assert info.si_code == code
        assert type(info.si_code) is int
        assert f" with code {code}" in repr(info)
    else:
        assert info.si_code is getattr(signal, expected)
        assert info.si_code == code
    assert info.code == code
    assert info.sender().state in ("none", "unknown")


def test_the_address_of_a_fault():
    info = record(signal.SIGSEGV, codes.SEGV_MAPERR, struct.pack("P", 0x10))
    assert info.si_addr == 0x10
    assert has(info) == {"si_addr"}
    assert repr(info) == "<SignalInfo SIGSEGV SEGV_MAPERR, address 0x10>"
    high = record(signal.SIGSEGV, codes.SEGV_ACCERR, b"\xff" * 8)
    assert high.si_addr == 2**64 - 1


def test_every_code_is_a_name_of_the_module_too():
    enums = [codes.SiCodes, codes.CldCodes, codes.PollCodes, codes.SegvCodes, codes.BusCodes]
    enums += [codes.FpeCodes, codes.IllCodes, codes.TrapCodes, codes.SysCodes]
    for one in (*enums, codes.SaFlags):
        assert getattr(signal, one.__name__) is one
        assert one.__name__ in codes.__all__
        for name, member in one.__members__.items():
            assert getattr(signal, name) is member is getattr(codes, name)
            assert name == member.name  # no two names for one number
            assert name in codes.__all__
    assert all(issubclass(one, enum.IntEnum) for one in enums)
    assert codes.CLD_EXITED == os.CLD_EXITED and codes.CLD_CONTINUED == os.CLD_CONTINUED
    assert isinstance(codes.SA_RESTART | codes.SA_SIGINFO, codes.SaFlags)
    assert all(flag > 0 for flag in codes.SaFlags)


# --- the sender ---------------------------------------------------------------------------------

_STAY = "import os, sys; os.kill(int(sys.argv[1]), int(sys.argv[2])); input()"


def _me() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def test_a_sender_that_is_still_there():
    with signal.listen(signal.SIGUSR1) as listener:
        command = [sys.executable, "-c", _STAY, str(os.getpid()), str(int(signal.SIGUSR1))]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            sender = listener.get(timeout=SOON).sender()
        finally:
            process.communicate(b"\n")
    assert isinstance(sender, signal.Sender)
    assert (sender.pid, sender.uid, sender.user) == (process.pid, os.getuid(), _me())
    assert (sender.state, sender.command) == ("running", " ".join(command))
    assert sender.origin == "kill()"
    assert str(sender) == (f"pid {process.pid}, uid {os.getuid()} ({_me()}): {' '.join(command)}")
    assert repr(sender) == f"<Sender {sender}>"


def test_a_sender_that_has_gone():
    with signal.listen(signal.SIGUSR1) as listener:
        shell = subprocess.run(
            ["sh", "-c", f"kill -USR1 {os.getpid()}; echo $$"], check=True, stdout=subprocess.PIPE
        )
        sender = listener.get(timeout=SOON).sender()
    assert (sender.pid, sender.user) == (int(shell.stdout), _me())
    assert (sender.state, sender.command) == ("exited", None)
    assert str(sender).endswith(", which has exited")


def test_a_sender_whose_name_looks_like_the_line_that_it_stands_in():
    """A zombie: the short name is all that there is."""
    name = "a) R 1 (b"
    code = (
        f"import os; open('/proc/self/comm', 'w').write({name!r}); "
        f"os.kill({os.getpid()}, {int(signal.SIGUSR1)})"
    )
    with signal.listen(signal.SIGUSR1) as listener:
        process = subprocess.Popen([sys.executable, "-c", code])
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        sender = listener.get(timeout=SOON).sender()
        process.wait()
    assert (sender.state, sender.command) == ("exited", name)
    assert str(sender).endswith(f", which has exited (it was {name})")


def test_a_number_that_another_process_has_by_now():
    """This process started after that arrival."""
    sender = from_process(os.getpid(), os.getuid(), monotonic_ns=1).sender()
    assert (sender.pid, sender.uid) == (os.getpid(), os.getuid())
    assert (sender.state, sender.command) == ("reused", None)
    assert str(sender).endswith(", which has exited; another process has its number")


def test_a_sender_that_had_only_just_started_is_not_taken_for_another():
    """Its start is known to a hundredth of a second only."""
    for _ in range(10):
        with signal.listen(signal.SIGUSR1) as listener:
            pid = os.posix_spawn(
                "/bin/sh", ["sh", "-c", f"kill -USR1 {os.getpid()}; sleep 20"], os.environ
            )
            sender = listener.get(timeout=SOON).sender()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert (sender.pid, sender.state) == (pid, "running")


def test_after_a_suspension_it_is_not_claimed_to_be_the_same_process(monkeypatch):
    """How long the machine had slept at the time of the arrival is not known then."""
    ten_years = 10 * 365 * 86400 * 10**9
    monkeypatch.setattr(siginfo, "_slept_at_import", siginfo._slept_at_import - ten_years)
    sender = from_process(os.getpid()).sender()
    assert sender.state == "unknown"
    assert sender.command
    assert "or another process with its number" in str(sender)


def test_a_process_that_proc_does_not_show(monkeypatch):
    """Mounted with hidepid."""
    real_open = os.open

    def hidden(path, *args, **options):
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(path)
        return real_open(path, *args, **options)

    monkeypatch.setattr(os, "open", hidden)
    sender = from_process(os.getpid(), os.getuid()).sender()
    assert (sender.state, sender.command, sender.user) == ("unknown", None, _me())
    assert str(sender) == f"pid {os.getpid()}, uid {os.getuid()} ({_me()})"


def test_a_process_outside_of_the_container():
    sender = from_process(0, os.getuid()).sender()
    assert (sender.pid, sender.state, sender.user) == (None, "unknown", _me())
    assert str(sender).startswith("a process outside of this pid namespace, uid ")


def test_a_user_without_a_name():
    sender = from_process(os.getpid(), 4_242_424).sender()
    assert (sender.uid, sender.user) == (4_242_424, None)
    assert f"pid {os.getpid()}, uid 4242424: " in str(sender)


def test_the_program_itself_is_a_sender_like_any_other():
    sender = caught(signal.SIGUSR1, signal.raise_signal, signal.SIGUSR1).sender()
    assert (sender.pid, sender.state, sender.origin) == (os.getpid(), "running", "tgkill()")
    with open("/proc/self/cmdline", encoding="utf-8") as file:
        assert sender.command == file.read().rstrip("\0").replace("\0", " ")
