"""`sigwright run`: a program runs as under `python`, with sigwright in the place of `signal`."""

import os
import pwd
import re
import signal
import site
import subprocess
import sys
import textwrap
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import sigwright.cli

_SITE_DIRECTORIES = [*site.getsitepackages(), site.getusersitepackages()]
_PTH = [file for folder in _SITE_DIRECTORIES if (file := Path(folder, "sigwright.pth")).is_file()]
pytestmark = pytest.mark.skipif(
    not _PTH, reason="an editable install has no sigwright.pth, which all of this depends on"
)

PYTHON = [sys.executable]
SIGWRIGHT = [sys.executable, "-m", "sigwright.cli", "run"]
TRACED = [*SIGWRIGHT, "--trace"]
CHILDREN = [*SIGWRIGHT, "--children"]
IS_OURS = "import signal; print(signal.signal.__module__.partition('.')[0] == 'sigwright')"


def run(command, **options):
    options = {"capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run(command, **options)


def outcome(command, **options):
    done = run(command, **options)
    return done.returncode, done.stdout, done.stderr


def wait_until_asleep(process):
    """Until the program is in the wait that follows its "ready", with nothing left to do."""
    asleep = 0
    while asleep < 5:
        time.sleep(0.02)
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0


def program(code):
    return ["-c", textwrap.dedent(code)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of little programs, which is also the current one."""
    tell = "import sys\nprint(__name__, sys.argv, sys.path, sys.flags, sys.orig_argv[1:])\n"
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    for name in ("tell.py", "app/__main__.py", "app/tool.py", "-m"):
        (tmp_path / name).write_text(f"{tell}print(__file__, __spec__ and __spec__.name)\n")
    (tmp_path / "broken.py").write_text("print('not reached')\nif:\n")
    (tmp_path / "deep.py").write_text(
        "def outer(n):\n    inner(n - 1)\n\n\n"
        "def inner(n):\n    return 1 / n\n\n\n"
        "try:\n    outer(1)\nexcept ZeroDivisionError as error:\n"
        "    raise KeyError('x') from error\n"
    )
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", tell)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Each is what may follow `python`; the second of a pair is its standard input.
PROGRAMS = {
    "script": ["tell.py"],
    "script with arguments": ["tell.py", "a", "-b", "--", "--trace", "--children", "--help", "-m"],
    "script in a folder": ["app/tool.py", "x"],
    "folder": ["app", "x"],
    "zip file": ["app.zip", "x"],
    "script whose name is an option": ["--", "-m", "x"],
    "package": ["-m", "app", "--trace", "-c", "x"],
    "module": ["-m", "app.tool", "--children"],
    "module in one word": ["-mapp", "--trace"],
    "code": ["-c", "import sys; print(sys.argv, sys.path, sys.flags)", "--trace", "-m", "x"],
    "code in one word": ["-cimport sys; print(sys.argv)", "--children"],
    "script from stdin": (["-", "--trace"], "import sys; print(sys.argv, sys.stdin.read())"),
    "reads stdin": (["-c", "import sys; print(sys.stdin.read())"], "one\ntwo\n"),
    "interpreter options": ["-OX", "dev", "-W", "ignore", "-um", "app", "-X", "x"],
    "exit 0": ["-c", "raise SystemExit"],
    "exit 3": ["-c", "import sys; sys.exit(3)"],
    "exit -1": ["-c", "import sys; sys.exit(-1)"],
    "exit with text": ["-c", "import sys; sys.exit('went wrong')"],
    "os._exit": ["-c", "import os; print('lost in the buffer'); os._exit(7)"],
    "atexit": ["-c", "import atexit; atexit.register(print, 'bye'); print('hello')"],
    "no such script": ["missing.py"],
    "no such module": ["-m", "missing"],
    "syntax error": ["broken.py"],
    "traceback": ["deep.py", "x"],
    "traceback of code": ["-c", "import json\njson.loads('{')"],
    "KeyboardInterrupt": ["-c", "raise KeyboardInterrupt"],
    "SIGINT": program(
        """
        import os, signal, time
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        finally:
            print("finally")
        """
    ),
    "SIGTERM": ["-c", "import os, signal; print('x'); os.kill(os.getpid(), signal.SIGTERM)"],
    "SIGKILL": ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
    "SIGPIPE": ["-c", "import signal; print(repr(signal.getsignal(signal.SIGPIPE)))"],
    "a handler's traceback": program(
        """
        import signal
        def handler(signum, frame):
            raise OSError(f"{signum!r} {frame.f_lineno}")
        print(signal.signal(signal.SIGALRM, handler))
        def work():
            signal.raise_signal(signal.SIGALRM)
        work()
        """
    ),
    "a thread's traceback": program(
        """
        import sys, threading
        threading.excepthook = lambda hook: print(hook.exc_value, file=sys.stderr)
        thread = threading.Thread(target=lambda: [][1])
        thread.start()
        thread.join()
        """
    ),
    "environment": ["-c", "import os; print(sorted(os.environ.items()))"],
    "a child's environment": program(
        """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "import os; print(sorted(os.environ.items()))"])
        """
    ),
    "names of the module": ["-c", "import signal; print(dir(signal), signal.__doc__)"],
}


@pytest.mark.parametrize("how", [SIGWRIGHT, CHILDREN], ids=["run", "children"])
@pytest.mark.parametrize("words", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.usefixtures("folder")
def test_as_python_gives_it(words, how):
    words, stdin = words if isinstance(words, tuple) else (words, "")
    plain = outcome([*PYTHON, *words], input=stdin)
    code, output, errors = outcome([*how, *words], input=stdin)
    if how is CHILDREN and "environ" in words[-1]:
        # The one thing that --children must leave in sight.
        variable = "('SIGWRIGHT_RUN', 'standin,children')"
        assert output.count(variable) == 1
        output = output.replace(variable + ", ", "").replace(", " + variable, "")
    assert (code, output, errors) == plain


@pytest.mark.parametrize("words", [program(IS_OURS), ["-X", "dev", *program(IS_OURS)]])
def test_sigwright_stands_in(words):
    assert outcome([*SIGWRIGHT, *words]) == (0, "True\n", "")
    assert outcome([*PYTHON, *words]) == (0, "False\n", "")


def test_the_program_is_the_same_process():
    with subprocess.Popen(
        [*SIGWRIGHT, "-c", "import os; print(os.getpid())"], stdout=-1
    ) as process:
        assert int(process.communicate()[0]) == process.pid


def test_nothing_of_the_command_line_is_in_the_program():
    code = "import sys; print({'click', 'threading', 'subprocess'} & set(sys.modules))"
    assert outcome([*TRACED, "-c", code])[1] == outcome([*PYTHON, "-c", code])[1] == "set()\n"


ASYNCIO = """
import asyncio
async def main():
    try:
        print("ready", flush=True)
        await asyncio.sleep(60)
    finally:
        print("cleaned up", flush=True)
asyncio.run(main())
"""
SLEEPING = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.mark.parametrize("code", [ASYNCIO, SLEEPING], ids=["asyncio", "sleep"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_from_outside_ends_it_as_it_ends_python(code, signum):
    outcomes = []
    for how in (PYTHON, SIGWRIGHT):
        with subprocess.Popen([*how, "-c", code], stdout=-1, stderr=-1, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            wait_until_asleep(process)
            process.send_signal(signum)
            output, errors = process.communicate(timeout=60)
            outcomes.append((process.returncode, output, errors))
    assert outcomes[0] == outcomes[1]
    assert outcomes[1][0] == -signum


# The .pth file


def test_without_the_variable_nothing_is_imported():
    code = "import sys; print([name for name in sys.modules if name.startswith('sigwright')])"
    assert outcome([*PYTHON, "-c", code]) == (0, "[]\n", "")
    empty = {**os.environ, "SIGWRIGHT_RUN": ""}
    assert outcome([*PYTHON, "-c", code], env=empty) == (0, "[]\n", "")


def test_an_interpreter_without_sigwright_starts_and_says_one_line():
    code = (
        "import sys\nfor line in open(sys.argv[1]):\n  if line[0] != '#': exec(line)\nprint('up')"
    )
    done = run(
        [*PYTHON, "-ISc", code, str(_PTH[0])], env={**os.environ, "SIGWRIGHT_RUN": "standin"}
    )
    assert (done.returncode, done.stdout) == (0, "up\n")
    assert re.fullmatch(
        r"sigwright: cannot stand in for signal: ModuleNotFoundError.*\n", done.stderr
    )


@pytest.mark.parametrize("options", ["-S -c", "-OS -c", "-X dev -S -c", "-SXdev -c", "-Sc"])
def test_refuses_where_it_cannot_stand_in(options):
    code, output, errors = outcome([*SIGWRIGHT, *options.split(), "print('ran')"])
    assert (code, output) == (1, "")
    assert "does not read sigwright.pth" in errors


def test_says_what_is_missing():
    code, output, errors = outcome(SIGWRIGHT)
    assert (code, output) == (2, "")
    assert "SCRIPT | -m MODULE | -c CODE" in errors
    no_click = "import sys; sys.modules['click'] = None; from sigwright.cli import main; main()"
    code, output, errors = outcome([*PYTHON, "-c", no_click])
    assert (code, output) == (1, "")
    assert errors == "sigwright: the command line needs click; install sigwright[cli]\n"


# --children

SPAWNED = program(
    f"""
    import os, subprocess, sys
    subprocess.run([sys.executable, "-c", {IS_OURS!r}])
    os.environ.clear()
    subprocess.run([sys.executable, "-c", {IS_OURS!r}])
    """
)


def test_spawned_children():
    assert outcome([*CHILDREN, *SPAWNED]) == (0, "True\nFalse\n", "")
    assert outcome([*SIGWRIGHT, *SPAWNED]) == (0, "False\nFalse\n", "")


def test_a_nested_run_keeps_the_options_of_the_outer_one():
    grandchild = program(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {IS_OURS!r}])"
    )
    child = program(f"import subprocess\nsubprocess.run({[*SIGWRIGHT, *grandchild]!r})")
    assert outcome([*CHILDREN, *child]) == (0, "True\n", "")
    assert outcome([*SIGWRIGHT, *child]) == (0, "False\n", "")


FORKED = program(
    """
    import os, signal, sys
    signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
    signal.raise_signal(signal.SIGUSR1)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGUSR2, lambda *_: print("child's", flush=True))
        signal.raise_signal(signal.SIGUSR2)
        sys.exit()
    os.waitpid(child, 0)
    print(os.getpid(), child)
    """
)


def test_forked_children():
    code, output, errors = outcome([*TRACED, "--children", *FORKED])
    assert code == 0
    assert output.startswith("handled\nchild's\n")
    parent, child = output.split()[-2:]
    of_parent, of_child = (
        [line.split(": ", 1)[1] for line in errors.splitlines() if f"[{pid}]" in line]
        for pid in (parent, child)
    )
    assert [line.split()[0] for line in of_parent[1:]] == ["signal", "SIGUSR1"]
    assert [line.split()[0] for line in of_child[1:]] == ["signal", "SIGUSR2"]
    assert " SIGUSR1 from itself " in of_parent[0]
    assert " SIGUSR2 from itself " in of_child[0]


def test_without_the_option_forked_children_are_not_traced():
    code, output, errors = outcome([*TRACED, *FORKED])
    assert code == 0
    assert output.startswith("handled\nchild's\n")
    assert "SIGUSR2" not in errors
    assert errors.count("arrivals") == 1


MULTIPROCESSING = """
import multiprocessing, os, signal, sys

def work():
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.raise_signal(signal.SIGUSR1)
    print("child", os.getpid(), signal.signal.__module__.partition(".")[0], flush=True)

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=work)
    process.start()
    process.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(MULTIPROCESSING)
    code, output, errors = outcome([*TRACED, "--children", str(script), method])
    assert code == 0
    _, child, module = output.split()
    assert module == "sigwright"
    of_child = [line for line in errors.splitlines() if line.startswith(f"sigwright[{child}]: ")]
    assert len(of_child) == 3, errors
    assert " SIGUSR1 from itself on MainThread, handler after " in of_child[0]
    assert of_child[2].split()[1:] == ["SIGUSR1", "1", "1", "0", "0", "0"]


# --trace

CLOCK = r"sigwright: \d\d:\d\d:\d\d\.\d{6} "
SOON = r" on (the main thread|MainThread), handler after \d+(\.\d+)? (µs|ms|s)$"


def trace(code, *arguments, **options):
    """The lines that tracing a program wrote: those of arrivals, and the summary's cells."""
    done = run([*TRACED, *program(code), *arguments], **options)
    lines = done.stderr.splitlines()
    where = next(i for i, line in enumerate(lines) if line.startswith("sigwright: signal "))
    ours = [line for line in lines[:where] if line.startswith("sigwright: ")]
    return ours, [line.split()[1:] for line in lines[where:]], done


def test_the_line_of_a_timer_and_of_what_the_handler_raised():
    lines, summary, done = trace(
        """
        import signal, time
        def handler(signum, frame):
            raise OSError("Couldn't\\x1b open\\ndevice!")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(60)
        """
    )
    assert re.match(CLOCK + r"SIGALRM from the kernel \(timer\)" + SOON, lines[0])
    assert lines[1] == "sigwright:     SIGALRM's handler raised OSError: Couldn't? open?device!"
    assert summary == [
        ["signal", "arrivals", "calls", "merged", "dropped", "raised"],
        ["SIGALRM", "1", "1", "0", "0", "1"],
    ]
    assert done.returncode == 1
    assert "device!\n" in done.stderr


def test_the_line_of_another_process():
    code = """
    import signal
    signal.signal(signal.SIGUSR1, lambda *_: None)
    print("ready", flush=True)
    signal.pause()
    """
    with subprocess.Popen([*TRACED, *program(code)], stdout=-1, stderr=-1, text=True) as process:
        process.stdout.readline()
        wait_until_asleep(process)
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=60)
    user = pwd.getpwuid(os.getuid()).pw_name
    assert re.match(CLOCK + rf"SIGUSR1 from pid {os.getpid()} \(.+, user {user}\)", errors)
    assert re.search(SOON, errors.splitlines()[0])


def test_a_sender_that_has_gone():
    lines, _, _ = trace(
        """
        import signal, subprocess
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        subprocess.run(["sh", "-c", "kill -USR1 $PPID"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        """
    )
    assert re.match(CLOCK + r"SIGUSR1 from pid \d+ \(gone by now, user .+\)" + SOON, lines[0])


def test_a_child_that_ended():
    lines, _, _ = trace(
        """
        import signal, subprocess
        signal.signal(signal.SIGCHLD, lambda *_: None)
        subprocess.run(["true"])
        """
    )
    assert re.match(
        CLOCK + r"SIGCHLD from child pid \d+ \(.+\), which has exited," + SOON, lines[0]
    )


def test_the_terminal():
    code = """
    import os, signal, sys
    os.open(sys.argv[1], os.O_RDWR)  # a session leader's first terminal is its own
    signal.signal(signal.SIGINT, lambda *_: print("handled", flush=True))
    print("ready", flush=True)
    signal.pause()
    """
    master, slave = os.openpty()
    with subprocess.Popen(
        [*TRACED, *program(code), os.ttyname(slave)],
        stdout=-1,
        stderr=-1,
        text=True,
        start_new_session=True,
    ) as process:
        process.stdout.readline()
        wait_until_asleep(process)
        os.write(master, b"\x03")
        output, errors = process.communicate(timeout=60)
    os.close(master)
    os.close(slave)
    assert output == "handled\n"
    assert re.match(CLOCK + r"SIGINT from the kernel \(terminal\)", errors)


def test_the_thread_that_it_landed_on():
    lines, _, _ = trace(
        """
        import signal, threading, time
        signal.signal(signal.SIGUSR1, lambda *_: None)
        def work():
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            time.sleep(0.5)
        worker = threading.Thread(target=work, name="the worker")
        worker.start()
        worker.join()
        """
    )
    assert re.match(CLOCK + r"SIGUSR1 from itself on the worker, handler after ", lines[0])


def test_merged_arrivals_are_marked_and_counted():
    lines, summary, _ = trace(
        """
        import ctypes, signal
        signal.signal(signal.SIGUSR1, lambda *_: None)
        # PyDLL keeps the GIL, so all three arrive before the interpreter can look.
        system = ctypes.PyDLL(None).system
        system(b"for i in 1 2 3; do kill -USR1 $PPID; sleep .1; done")
        """
    )
    assert re.match(CLOCK + r"SIGUSR1 from pid \d+ \(.+, user .+\)" + SOON, lines[0])
    assert ["(merged: one call" in line for line in lines] == [False, True, True]
    assert summary[1] == ["SIGUSR1", "3", "1", "2", "0", "0"]


def test_real_time_signals_have_a_line_each():
    lines, summary, _ = trace(
        """
        import signal
        signal.signal(signal.SIGRTMIN + 1, lambda *_: None)
        signal.raise_signal(signal.SIGRTMIN + 1)
        signal.raise_signal(signal.SIGRTMIN + 1)
        """
    )
    assert all(re.match(CLOCK + r"SIGRTMIN\+1 from itself" + SOON, line) for line in lines)
    assert summary[1] == ["SIGRTMIN+1", "2", "2", "0", "0", "0"]


def test_no_signal_arrived():
    assert outcome([*TRACED, "-c", "print('x')"]) == (0, "x\n", "sigwright: no signal arrived\n")


SIGNALS_AND_THEN = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
{}
signal.raise_signal(signal.SIGUSR1)
print("done")
"""


def test_stderr_closed_by_the_program():
    code = SIGNALS_AND_THEN.format("os.close(2)")
    assert outcome([*TRACED, "-c", code]) == (0, "done\n", "")


def test_stderr_closed_from_the_start(tmp_path):
    # The first file that such a program opens gets number 2, and must not get our lines.
    code = SIGNALS_AND_THEN.format("file = open(sys.argv[1], 'w'); assert file.fileno() == 2")
    file = tmp_path / "file"
    command = [*TRACED, "-c", code, str(file)]
    assert outcome(["sh", "-c", 'exec "$@" 2>&-', "sh", *command]) == (0, "done\n", "")
    assert file.read_text() == ""


def test_stderr_is_a_broken_pipe():
    code = SIGNALS_AND_THEN.format("")
    reader, writer = os.pipe()
    os.close(reader)
    done = run([*TRACED, "-c", code], capture_output=False, stdout=-1, stderr=writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_an_exception_whose_text_cannot_be_had():
    lines, _, _ = trace(
        """
        import signal
        class Odd(Exception):
            def __str__(self):
                raise ValueError
        def handler(signum, frame):
            raise Odd
        signal.signal(signal.SIGUSR1, handler)
        try:
            signal.raise_signal(signal.SIGUSR1)
        except Odd:
            pass
        """
    )
    assert lines[1] == "sigwright:     SIGUSR1's handler raised Odd: (its text cannot be had)"


def test_the_command_is_installed():
    (script,) = metadata.entry_points(group="console_scripts", name="sigwright")
    assert script.load() is sigwright.cli.main
    expected = f"sigwright, version {metadata.version('sigwright')}\n"
    assert outcome([*SIGWRIGHT[:-1], "--version"]) == (0, expected, "")
