"""Windows' rows of the seed: the table on any platform, the rest under Wine where there is one.

None of this has run under a Windows Python. What runs here is the part of the engine that needs no
Python: its table as a shared object of this platform, and its arrival, cross-compiled, in a program
of its own (console_program.c).
"""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENGINE = HERE.parents[1] / "src" / "sigwright" / "_engine"
TABLE = ENGINE / "windows_table.c"
SIGNALS = ENGINE / "windows_signals.c"
PROGRAM = HERE / "console_program.c"

STRICT = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ENGINE}"]
MINGW = "x86_64-w64-mingw32-gcc"

SIX = {"SIGABRT": 22, "SIGFPE": 8, "SIGILL": 4, "SIGINT": 2, "SIGSEGV": 11, "SIGTERM": 15}
SIGBREAK = 21
NSIG = 23

SKIP_NO_MINGW = f"{MINGW} is not on PATH (Debian: gcc-mingw-w64-x86-64-win32)"
SKIP_NO_WINE = "wine is not on PATH (Debian: wine and wine64)"


class Kind(IntEnum):
    SIGNAL = 0
    CONSOLE_EVENT = 1
    HANDLER = 2
    LIMIT = 3


class Route(IntEnum):
    GENERATE_CONSOLE_EVENT = 0
    TERMINATE = 1


class Constant(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("value", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("description", ctypes.c_char_p),
    )


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("table") / "table.so"
    built = run("cc", *STRICT, "-shared", "-fPIC", TABLE, "-o", library)
    assert built.returncode == 0, built.stderr
    table = ctypes.CDLL(str(library))
    table.windows_constant.restype = ctypes.POINTER(Constant)
    table.windows_constant.argtypes = (ctypes.c_size_t,)
    table.windows_has.restype = ctypes.c_bool
    for function in ("windows_signal_error", "windows_number_error", "windows_description"):
        getattr(table, function).restype = ctypes.c_char_p
    return table


@pytest.fixture(scope="module")
def constants(table: ctypes.CDLL) -> dict[str, tuple[int, Kind]]:
    found = {}
    while entry := table.windows_constant(len(found)):
        constant = entry.contents
        found[constant.name.decode()] = (constant.value, Kind(constant.kind))
    return found


class TestTable:
    def test_the_six_signals(self, table: ctypes.CDLL) -> None:
        """The last paragraph on signal(), its first sentence.

        On Windows, signal() can only be called with SIGABRT, SIGFPE, SIGILL, SIGINT, SIGSEGV, or
        SIGTERM.
        """
        for number in SIX.values():
            assert table.windows_signal_error(number) is None

    def test_any_other_case(self, table: ctypes.CDLL) -> None:
        """A ValueError will be raised in any other case."""
        taken = {*SIX.values(), SIGBREAK}
        for number in {*range(-300, 300), -(2**31), 2**31 - 1} - taken:
            assert table.windows_signal_error(number) == b"invalid signal value"

    def test_sigbreak_is_the_stdlibs_seventh(self, table: ctypes.CDLL) -> None:
        """Beyond the seed, as in the stdlib since 2.7 (CPython issue 10003)."""
        assert table.windows_signal_error(SIGBREAK) is None

    def test_ctrl_c_event(self, table: ctypes.CDLL, constants: dict[str, tuple[int, Kind]]) -> None:
        """The signal corresponding to the Ctrl+C keystroke event.

        This signal can only be used with os.kill().
        """
        assert constants["CTRL_C_EVENT"] == (0, Kind.CONSOLE_EVENT)
        assert table.windows_signal_error(0) == b"invalid signal value"
        assert table.windows_kill_route(0) == Route.GENERATE_CONSOLE_EVENT

    def test_ctrl_break_event(
        self, table: ctypes.CDLL, constants: dict[str, tuple[int, Kind]]
    ) -> None:
        """The signal corresponding to the Ctrl+Break keystroke event.

        This signal can only be used with os.kill().
        """
        assert constants["CTRL_BREAK_EVENT"] == (1, Kind.CONSOLE_EVENT)
        assert table.windows_signal_error(1) == b"invalid signal value"
        assert table.windows_kill_route(1) == Route.GENERATE_CONSOLE_EVENT

    def test_what_else_kill_takes_ends_the_process(self, table: ctypes.CDLL) -> None:
        for number in {*range(-1, 300)} - {0, 1}:
            assert table.windows_kill_route(number) == Route.TERMINATE

    def test_only_those_names_defined_by_the_system(
        self, constants: dict[str, tuple[int, Kind]]
    ) -> None:
        """The paragraph on SIG*, its last sentence.

        Note that not all systems define the same set of signal names; only those names defined by
        the system are defined by this module.
        """
        signals = {name: value for name, (value, kind) in constants.items() if kind == Kind.SIGNAL}
        assert signals == {**SIX, "SIGBREAK": SIGBREAK}
        rest = {name for name, (_, kind) in constants.items() if kind != Kind.SIGNAL}
        assert rest == {"CTRL_C_EVENT", "CTRL_BREAK_EVENT", "SIG_DFL", "SIG_IGN", "NSIG"}

    def test_nsig(self, constants: dict[str, tuple[int, Kind]]) -> None:
        """One more than the number of the highest signal number."""
        highest = max(value for value, kind in constants.values() if kind == Kind.SIGNAL)
        assert constants["NSIG"] == (highest + 1, Kind.LIMIT) == (NSIG, Kind.LIMIT)

    def test_handlers(self, constants: dict[str, tuple[int, Kind]]) -> None:
        assert constants["SIG_DFL"] == (signal.SIG_DFL, Kind.HANDLER)
        assert constants["SIG_IGN"] == (signal.SIG_IGN, Kind.HANDLER)

    @pytest.mark.parametrize(
        "name",
        [
            "pause",  # "Not on Windows."
            *("alarm", "setitimer", "getitimer", "siginterrupt"),  # "Availability: Unix."
            *("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF", "ItimerError"),
            *("SIGALRM", "SIGHUP", "SIGCHLD", "SIGKILL", "SIGUSR1", "SIGRTMIN"),
            *("pthread_kill", "pthread_sigmask", "sigpending", "sigwait", "sigwaitinfo"),
            *("sigtimedwait", "struct_siginfo", "pidfd_send_signal"),
            *("Sigmasks", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK"),
            *("", "sig", "SIGINT "),
        ],
    )
    def test_absent(self, table: ctypes.CDLL, name: str) -> None:
        assert not table.windows_has(name.encode())

    def test_present(self, table: ctypes.CDLL, constants: dict[str, tuple[int, Kind]]) -> None:
        functions = {"signal", "getsignal", "default_int_handler", "set_wakeup_fd"}
        functions |= {"raise_signal", "strsignal", "valid_signals", "Signals", "Handlers"}
        assert all(table.windows_has(name.encode()) for name in functions | set(constants))
        # and the stdlib has each of these functions on every platform
        assert functions <= set(dir(signal))

    def test_getsignal_answers_below_nsig(self, table: ctypes.CDLL) -> None:
        for number in range(1, NSIG):
            assert table.windows_number_error(number) is None
        for number in (-1, 0, NSIG, 300):
            assert table.windows_number_error(number) == b"signal number out of range"

    def test_strsignal(self, table: ctypes.CDLL) -> None:
        described = {number: table.windows_description(number) for number in range(-1, 30)}
        assert {number: text for number, text in described.items() if text} == {
            2: b"Interrupt",
            4: b"Illegal instruction",
            8: b"Floating point exception",
            11: b"Segmentation fault",
            15: b"Terminated",
            22: b"Aborted",
        }


@pytest.fixture(scope="module")
def console_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cross-compiled: windows_signals.c asserts the table's numbers against Windows' headers."""
    if not shutil.which(MINGW):
        pytest.skip(SKIP_NO_MINGW)
    program = tmp_path_factory.mktemp("program") / "console_program.exe"
    built = run(MINGW, *STRICT, TABLE, SIGNALS, PROGRAM, "-o", program)
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture
def wine(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a Wine that nobody sees: its own prefix, no display, no dialogs."""
    if not shutil.which("wine"):
        pytest.skip(SKIP_NO_WINE)
    # Not pytest's folder, which outlives the run: a prefix is large.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        hidden = ("DISPLAY", "WAYLAND_DISPLAY", "WINEARCH", "WINELOADER", "WINESERVER")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {
            "HOME": home,
            "WINEPREFIX": f"{home}/prefix",
            "WINEDEBUG": "-all",
            # no .NET, no HTML, no menu entries, no debugger at the fault that a test wants
            "WINEDLLOVERRIDES": "mscoree,mshtml=;winemenubuilder.exe,winedbg.exe=d",
        }
        yield environment
        # Its services linger for seconds, and would write into the folder that we remove.
        for server in filter(shutil.which, ("wineserver", "wineserver-stable")):
            run(server, "-k", env=environment)
            run(server, "-w", env=environment)
            break


def test_it_needs_no_python(console_program: Path) -> None:
    """It cross-compiles and links against the system and the C runtime alone."""
    listing = run(MINGW.replace("gcc", "objdump"), "-p", console_program)
    assert listing.returncode == 0, listing.stderr
    libraries = {
        line.split()[-1].lower() for line in listing.stdout.splitlines() if "DLL Name" in line
    }
    assert libraries == {"kernel32.dll", "msvcrt.dll"}


def test_console_events_and_handlers(console_program: Path, wine: dict[str, str]) -> None:
    """Each line of the transcript is a fact; it is deterministic but for who sent Ctrl+Break."""
    ran = run("wine", console_program, env=wine)
    *facts, sender, verdict = ran.stdout.splitlines() or ["", ""]
    assert facts == (HERE / "console_program.txt").read_text().splitlines(), ran.stderr
    assert sender.removeprefix("CTRL_BREAK_EVENT was sent by ") in {
        "GenerateConsoleCtrlEvent",
        "CtrlRoutine",  # the system's own routine, started by hand: Wine 8 cannot generate it
    }
    assert (verdict, ran.returncode) == ("0 wrong", 0)
    # one fault, in the child made for it; a second line would mean that it came again
    assert ran.stderr.count("sigwright: a real SIGSEGV; the process ends by it") == 1
