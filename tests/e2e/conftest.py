"""How the end-to-end tests run a program: the same way under plain python and under sigwright.

Every test here runs twice, as `[python]` and as `[sigwright]`: what the program does without
sigwright is the oracle, so nothing is taken for the program's behaviour that is not. A test hands
what came of it to `same`, which compares the second run with the first, down to the exit status.

The programs say themselves whose signal module they have (apps/whose.py), and each test asks.
"""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time
import uuid
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

APPS = Path(__file__).parent / "apps"
HOWS = {
    "python": [sys.executable],
    "sigwright": [sys.executable, "-m", "sigwright.cli", "run", "--children"],
}
PATIENCE = 30  # seconds, for what takes one or two on an idle machine
_MARK = "E2E_PROGRAM"  # an environment variable that all processes of one program share


def pytest_collection_modifyitems(items):
    # The net below all the deadlines here, for a test that would hang by a mistake of its own.
    for item in items:
        item.add_marker(pytest.mark.timeout(4 * PATIENCE))


def wait_until(condition, what):
    """Wait until `condition()` is true, and return what it gave."""
    deadline = time.monotonic() + PATIENCE
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, f"in {PATIENCE} s there was no {what}"
        time.sleep(0.01)


class Request:
    """An HTTP request that runs beside the test, until somebody asks for the answer."""

    def __init__(self, server, path):
        self._answer = None
        self._thread = threading.Thread(target=self._ask, args=(server, path))
        self._thread.start()

    def _ask(self, server, path):
        connection = HTTPConnection(server, timeout=2 * PATIENCE)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            connection.request("GET", path, headers={"Connection": "close"})
            self._answer = connection.getresponse().read().decode()

    def answer(self):
        """The body, or None if the connection broke before it was complete."""
        self._thread.join(3 * PATIENCE)
        assert not self._thread.is_alive()
        return self._answer


class Program:
    """A program of one or more processes: its output, the signals it gets, and its end."""

    def __init__(self, how, words, folder, terminal):
        self.how = how
        self._mark = uuid.uuid4().hex
        self._output = folder / f"output-{self._mark}"
        self._requests = []
        self._terminal = None
        environment = {
            **os.environ,
            "PYTHONPATH": str(APPS),
            "PYTHONUNBUFFERED": "1",
            # The pytest around is no business of the program's, and neither is the user's home:
            # gunicorn, for one, makes a folder in it.
            "PYTEST_ADDOPTS": "",
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            _MARK: self._mark,
        }
        environment.pop("SIGWRIGHT_RUN", None)  # plain is plain, whatever the pytest around is
        stdin, prepare = subprocess.DEVNULL, None
        if terminal:
            self._terminal, stdin = os.openpty()
            os.set_blocking(self._terminal, False)
            prepare = _take_terminal
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [*HOWS[how], *words],
                cwd=folder,
                env=environment,
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=prepare,
            )
        self.pid = self._process.pid
        if terminal:
            os.close(stdin)

    # --- what it says

    def output(self):
        return self._output.read_text(errors="replace")

    def says(self, pattern, times=1):
        """Wait until a pattern has appeared in the output so often; the matches."""

        def found():
            matches = list(re.finditer(pattern, self.output(), re.MULTILINE))
            return matches if len(matches) >= times else None

        return self._or_show(lambda: wait_until(found, f"{pattern!r} in the output"))

    def said(self, pattern):
        return len(re.findall(pattern, self.output(), re.MULTILINE))

    def whose(self, times=1):
        """Wait for so many of the lines that apps/whose.py writes; all have to be of one kind."""
        reports = [json.loads(match[1]) for match in self.says(r"^whose: (.*)$", times)]
        for report in reports:
            self.check_whose(report)
        return {report["pid"]: report for report in reports}

    def check_whose(self, report):
        ours = self.how == "sigwright"
        assert report["module"].partition(".")[0] == ("sigwright" if ours else "signal"), report
        assert report["engine"] == ours, report

    def check_processes(self):
        """Has each of its processes the engine? Also those where no line of ours can run.

        A process that has just been started needs a moment.
        """
        ours = self.how == "sigwright"

        def mapped(pid):
            with contextlib.suppress(OSError):
                return "sigwright/_engine" in Path(f"/proc/{pid}/maps").read_text()
            return ours  # it has ended in the meantime

        wait_until(
            lambda: all(mapped(pid) == ours for pid in self.processes()),
            f"moment with {'the' if ours else 'no'} engine in all processes",
        )

    # --- what it is asked

    def kill(self, signum, pid=None):
        os.kill(pid or self.pid, signum)

    def type_control_c(self):
        """Return when the terminal has sent SIGINT, which it does before it shows ^C."""
        os.write(self._terminal, b"\x03")
        wait_until(self._echo, "^C on the terminal")

    def _echo(self):
        try:
            return os.read(self._terminal, 100)
        except BlockingIOError:
            return None
        except OSError:  # EIO: so quickly has the program ended
            return b"^C"

    def request(self, server, path):
        self._requests.append(Request(server, path))
        return self._requests[-1]

    # --- its processes

    def processes(self):
        """Each living process of the program: its pid, and its parent's."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{_MARK}={self._mark}".encode() in (folder / "environ").read_bytes():
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    if fields[0] != "Z":
                        found[int(folder.name)] = int(fields[1])
        return found

    def children(self, of=None):
        return {pid for pid, parent in self.processes().items() if parent == (of or self.pid)}

    def exits(self):
        """Wait for the end of the process that was started; its status as subprocess has it."""
        return self._or_show(lambda: self._process.wait(PATIENCE))

    def ends(self):
        """The same, and of all the others: nobody may be left behind."""
        status = self.exits()
        self._or_show(lambda: wait_until(lambda: not self.processes(), "end of the last process"))
        return status

    def _or_show(self, wait):
        try:
            return wait()
        except (subprocess.TimeoutExpired, AssertionError):
            print(self.output(), self.processes(), sep="\n")
            raise

    def end(self):
        """Whatever happened, nothing of it stays."""
        self._process.kill()
        self._process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        # A child that was just being started shows in the next round.
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._terminal is not None:
            os.close(self._terminal)
        for request in self._requests:
            request.answer()


def _take_terminal():
    """In the new session leader: its stdin becomes its terminal, and it the foreground."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture(params=HOWS)
def how(request):
    """How the program of this test is run; the plain python comes first."""
    return request.param


@pytest.fixture
def until():
    """`until(CONDITION, WHAT)`: wait, but not for ever, and return what the condition gave."""
    return wait_until


@pytest.fixture
def start(how, tmp_path):
    """`start(WORD...)`: run what would follow `python`, in an empty folder."""
    programs = []

    def start(*words, terminal=False):
        program = Program(how, [str(word) for word in words], tmp_path, terminal)
        programs.append(program)
        return program

    yield start
    for program in programs:
        program.end()


_outcomes = {}


@pytest.fixture
def same(request, how):
    """`same(OUTCOME)`: under sigwright, it has to be what it was under plain python."""

    def same(*outcome):
        others = {key: x for key, x in request.node.callspec.params.items() if key != "how"}
        test = (request.node.path, request.node.originalname, str(others))
        if how == "python":
            _outcomes[test] = outcome
        assert test in _outcomes, "the same test under plain python has to run (and pass) before"
        assert outcome == _outcomes[test]

    return same


class Gate:
    """Where a program waits until the test lets it go on: it opens a FIFO, as `cat` would.

    One system call, that has no time-out, so that a signal finds the program inside it.
    """

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)

    def open(self):
        """Let go who waits; as soon as somebody does."""
        os.close(wait_until(self._writer, "program at the gate"))

    def _writer(self):
        with contextlib.suppress(OSError):  # ENXIO: nobody has it open to read
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return None


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / "gate")
