"""Programs that tests run, each in an interpreter of its own.

So a crash is an exit status, and a hang is a time limit. A program is put together from parts:
source text, of which each is dedented by itself.
"""

import os
import resource
import shutil
import signal as stdlib
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sigwright

UNTIL = """
import time

def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)
"""

# Sends the signals (argv[2], comma-separated) to a process (argv[1]), so many times each (argv[3];
# 0: until it is killed), one every so many seconds (argv[4]).
SENDER = """
import itertools, os, sys, time
pid, signals, times, apart = sys.argv[1:]
signals = [int(signum) for signum in signals.split(",")]
for i in range(int(times)) if int(times) else itertools.count():
    for signum in signals:
        end = time.perf_counter() + float(apart)
        while time.perf_counter() < end:
            pass
        while True:
            try:
                os.kill(int(pid), signum)
                break
            except BlockingIOError:   # the kernel's queue is full
                time.sleep(0.001)
"""

ENGINE = f"""
import ctypes, errno, itertools, os, select, sys, threading
import sigwright as signal
{UNTIL}
stats = signal._engine.stats
libc = ctypes.CDLL(None, use_errno=True)

def sigqueue(signum, pid=None):
    while libc.sigqueue(os.getpid() if pid is None else pid, signum, None) != 0:
        assert ctypes.get_errno() == errno.EAGAIN
        time.sleep(0.001)

class Worker(threading.Thread):
    "A thread on which signals can land. It sleeps where no Python handler could run."
    def __init__(self):
        super().__init__(daemon=True)
        self.stop, self.write = os.pipe()
        self.start()
    def run(self):
        os.read(self.stop, 1)
    def kill(self, signum):
        signal.pthread_kill(self.ident, signum)
    def end(self):
        os.close(self.write)
        self.join()

def hidden_signals():
    return set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) - signal.valid_signals()

def start_sender(signals, times, apart):
    import subprocess
    numbers = ",".join(str(int(signum)) for signum in signals)
    arguments = [str(os.getpid()), numbers, str(times), str(apart)]
    return subprocess.Popen([sys.executable, "-c", {SENDER!r}, *arguments])
"""
"""What tests of the engine's inside need."""


def as_from_a_shell() -> None:
    """Leave no core file, and ignore no signal that only the tests ignore."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for signum in stdlib.valid_signals() - {stdlib.SIGPIPE, stdlib.SIGXFSZ}:  # Python's own choice
        if stdlib.getsignal(signum) is stdlib.SIG_IGN:
            stdlib.signal(signum, stdlib.SIG_DFL)


def run(
    *parts: str,
    arguments: tuple[object, ...] = (),
    options: tuple[str, ...] = (),
    timeout: float = 60,
    **keywords: object,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is. `options` are the interpreter's."""
    program = "\n".join(textwrap.dedent(part) for part in parts)
    keywords.setdefault("preexec_fn", as_from_a_shell)
    return subprocess.run(
        [sys.executable, *options, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        **keywords,
    )


def succeed(*parts: str, may_complain: bool = False, **keywords: object) -> str:
    """Run a program that must end well, without a word on stderr. Returns what it printed."""
    done = run(*parts, **keywords)
    stderr = "" if may_complain else done.stderr
    assert (done.returncode, stderr) == (0, ""), done.stderr
    return done.stdout


def run_with_engine(
    script: str, *options: str, timeout: float = 30, **keywords: object
) -> subprocess.CompletedProcess[str]:
    """Run a program that looks inside: see ENGINE."""
    return run(ENGINE, script, options=options, timeout=timeout, **keywords)


def succeed_with_engine(script: str, *options: str, **keywords: object) -> str:
    """Run such a program, which may complain on stderr but must end well."""
    keywords.setdefault("timeout", 30)
    return succeed(ENGINE, script, options=options, may_complain=True, **keywords)


def send(signum: int, times: int = 1) -> None:
    """Send a signal to this process, from itself."""
    for _ in range(times):
        os.kill(os.getpid(), signum)


def enqueue(signum: int, value: int) -> None:
    """Queue one for this process; how many may wait is limited for the user, not the process."""
    while True:
        try:
            return sigwright.sigqueue(os.getpid(), signum, value)
        except BlockingIOError:
            time.sleep(0.001)


def mask() -> set[int]:
    """What the calling thread blocks."""
    return sigwright.pthread_sigmask(sigwright.SIG_BLOCK, ())


@contextmanager
def ignored(*signals: int) -> Iterator[None]:
    """What a test that fails leaves unread does not end all tests."""
    before = [sigwright.signal(signum, sigwright.SIG_IGN) for signum in signals]
    yield
    for signum, handler in zip(signals, before, strict=True):
        sigwright.signal(signum, handler)


def own_namespace():
    """The command that makes a process PID 1, or None."""
    for command in (
        ["unshare", "--pid", "--fork", "--mount-proc"],
        ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"],
    ):
        if (
            shutil.which("unshare")
            and not subprocess.run([*command, "true"], capture_output=True).returncode
        ):
            return command
    return None
