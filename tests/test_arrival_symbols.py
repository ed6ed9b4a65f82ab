"""What arrival.c may call, read off its object file: the rule for signal context cannot rot.

And what the watch of force_exit() may, which runs where nothing else does.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "src" / "sigwright" / "_engine"
ARRIVAL = ENGINE / "arrival.c"

# POSIX's list of async-signal-safe functions (XSH 2.4.3; man page signal-safety(7)), as far as it
# is used, or an optimizer may use it in the place of a loop.
ASYNC_SIGNAL_SAFE = {
    "clock_gettime",
    "getpid",
    "kill",
    "memcpy",
    "memset",
    "pthread_self",
    "pthread_sigmask",
    "sigaction",
    "sigaddset",
    "sigemptyset",
    "sigfillset",
    "sigismember",
    "write",
}
# Not on that list: one compares two numbers (and is inlined in a release), one is the bare door to
# the kernel (for which numbers, the test below says), one is where errno is.
ALSO_SAFE = {"pthread_equal", "syscall", "__errno_location"}
# Put there by compilers and linkers.
OF_THE_COMPILER = {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
ALLOWED = ASYNC_SIGNAL_SAFE | ALSO_SAFE | OF_THE_COMPILER
SYSTEM_CALLS = {
    "SYS_gettid",
    "SYS_rt_sigtimedwait",
    "SYS_rt_tgsigqueueinfo",
    "SYS_tgkill",
    "SYS_timer_settime",
}

RELEASE = ("-O3", "-DNDEBUG", "-fPIC")
DEBUG = ("-O0", "-fPIC")

COMPILER = os.environ.get("CC", "cc").split()
TOOLS = (COMPILER[0], "nm", "readelf")
pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}"
)


def compiled(source: str, folder: Path, *flags: str) -> Path:
    file = folder / "arrival.c"
    file.write_text(source)
    command = [*COMPILER, "-std=c11", "-D_GNU_SOURCE", f"-I{ENGINE}", *flags, "-c", str(file)]
    subprocess.run([*command, "-o", str(folder / "arrival.o")], check=True)
    return folder / "arrival.o"


def output_of(*command: object) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True
    ).stdout


def undefined(binary: Path) -> set[str]:
    return {line.split()[-1] for line in output_of("nm", "-u", binary).splitlines()}


@pytest.mark.parametrize("flags", [RELEASE, DEBUG], ids=["release", "debug"])
def test_arrivals_call_nothing_that_is_not_safe_in_signal_context(flags, tmp_path):
    binary = compiled(ARRIVAL.read_text(), tmp_path, *flags)
    assert undefined(binary) - ALLOWED == set()
    assert {"syscall", "__errno_location", "write"} <= undefined(binary)  # it was read at all


@pytest.mark.parametrize("flags", [RELEASE, DEBUG], ids=["release", "debug"])
def test_arrivals_use_no_thread_local_storage(flags, tmp_path):
    # The first access of a thread can allocate it, under a lock.
    binary = compiled(ARRIVAL.read_text(), tmp_path, *flags)
    assert " TLS " not in output_of("readelf", "--symbols", "--wide", binary)
    assert "TLS" not in output_of("readelf", "--relocs", "--wide", binary)


def test_system_calls_are_a_closed_set():
    mentioned = set(re.findall(r"syscall\((\w+)", ARRIVAL.read_text()))
    assert mentioned == SYSTEM_CALLS


# The watch of force_exit() works in a process where everybody else is stuck: no Python, no lock, no
# memory to be allocated. What it calls are system calls, beside these.
OF_THE_WATCH = {
    *("_exit", "clock_gettime", "clock_nanosleep", "close", "getpid", "kill", "memset", "open"),
    *("prctl", "pthread_sigmask", "read", "sigaction", "sigaddset", "sigemptyset", "strstr"),
    *("syscall", "write", *OF_THE_COMPILER),
    *("arrivals", "end_process", "ending_forget", "ending_prepare", "has_handler", "watching"),
}


@pytest.mark.parametrize("name", ["watch.c", "ending.c"])
@pytest.mark.parametrize("flags", [RELEASE, DEBUG], ids=["release", "debug"])
def test_the_watch_of_force_exit_waits_for_nobody(flags, name, tmp_path):
    binary = compiled((ENGINE / name).read_text(), tmp_path, *flags)
    assert undefined(binary) - OF_THE_WATCH == set()
    assert {"syscall", "sigaction"} <= undefined(binary)  # it was read at all


BREACHES = {
    "malloc": ("int taken = 1;", "int taken = 1; keep = malloc(64);"),
    "PyErr_SetInterrupt": ("int taken = 1;", "int taken = 1; PyErr_SetInterrupt();"),
    "pthread_mutex_lock": ("int taken = 1;", "int taken = 1; pthread_mutex_lock(&lock);"),
    "nanosleep": ("int taken = 1;", "int taken = 1; nanosleep(&(struct timespec){1, 0}, NULL);"),
}


@pytest.mark.parametrize("flags", [RELEASE, DEBUG], ids=["release", "debug"])
@pytest.mark.parametrize("symbol", BREACHES)
def test_a_breach_is_seen(symbol, flags, tmp_path):
    old, new = BREACHES[symbol]
    source = ARRIVAL.read_text()
    assert old in source
    declarations = (
        "#include <pthread.h>\n#include <stdlib.h>\n"
        "extern void PyErr_SetInterrupt(void);\n"
        "void *keep;\n"
        "pthread_mutex_t lock;\n"
    )
    binary = compiled(declarations + source.replace(old, new), tmp_path, *flags)
    assert undefined(binary) - ALLOWED == {symbol}


def test_thread_local_storage_is_seen(tmp_path):
    source = ARRIVAL.read_text().replace("int taken = 1;", "int taken = 1; last = signum;")
    binary = compiled("_Thread_local int last;\n" + source, tmp_path, *RELEASE)
    assert " TLS " in output_of("readelf", "--symbols", "--wide", binary)
