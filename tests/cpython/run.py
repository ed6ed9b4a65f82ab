#!/usr/bin/env python3
"""Run CPython's own tests, unmodified, with sigwright standing in for `signal`.

    python3 tests/cpython/run.py --python python3.13

For one interpreter, which must have its `test` package: a virtual environment is made, sigwright
is installed into it, and the test modules run there twice: with the stock `signal`, and with a
`.pth` file beside sigwright that says `import sigwright; sigwright.install()`, so that the
stand-in is there before the first line of the test process and of every Python that it starts.
A test that passes with the stock module on this machine must pass with sigwright. Whatever the
stock module fails or skips here, we may too; anything else is in exceptions.toml, with its
reason, and an exception that is no longer needed is an error.

A test that differs is run again, alone, up to twice, with both; only one that keeps differing is
a failure, and each that did not keep differing is named. (Some of these tests are about timing.)
A test process that crashes or hangs has no second chance: all its tests have failed.

Where the stand-in does not reach: a child started with -S, which has no `site` and so reads no
`.pth` (none of these modules starts one); -I and -E do read it. That it is in the test process,
and in how many of its children, is not taken on trust: each process that has the stand-in signs
a journal, and a test process that did not sign fails the run.

Four tests of test_subprocess skip themselves in a virtual environment ("not venv-compatible").
They look for the interpreter by its path, and say nothing about signals.

Roads not taken: a second virtual environment for the stock module (the two would differ in more
than the one file); `unittest` instead of `-m test` (regrtest sets the environment that the tests
are written for, and its JUnit file has an exact result for each test); `-j`, since two of these
test modules side by side disturb each other's timing.

The last line is `N passed, N failed`; the exit status is 1 when anything failed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent

MODULES = (
    "test_signal",
    "test_threadsignals",
    "test_eintr",
    "test_asyncio.test_unix_events",
    "test_asyncio.test_runners",
    "test_subprocess",
    "test_faulthandler",
    "test_threading",
)
MODULE_SECONDS = 300
TEST_SECONDS = 120
TRIES_ALONE = 2

JOURNAL = "SIGWRIGHT_STANDIN_JOURNAL"
STANDIN_PTH = "import sigwright; sigwright.install(); import standin_journal\n"
STANDIN_JOURNAL = f"""\
import os, signal
journal = os.environ.get("{JOURNAL}")
if journal and signal.signal.__module__.partition(".")[0] == "sigwright":
    with open(journal, "ab") as file:  # text wants an encoding, and some tests watch for that
        file.write(b"%d\\n" % os.getpid())
"""

Results = dict[str, str]
"""Test id -> "passed", "skipped", or what went wrong."""


@dataclass
class Run:
    """What one test process did."""

    results: Results = field(default_factory=dict)
    ended: str = ""  # how it ended, where it ended out of order
    seconds: float = 0.0
    children: int = 0  # processes with the stand-in that it started
    standin: bool = False  # whether the test process itself had it


class Laboratory:
    """A virtual environment in which the stand-in can be switched on and off."""

    def __init__(self, folder: Path, python: str, package: Path) -> None:
        self.folder = folder = folder.resolve()  # the tests run elsewhere
        subprocess.run([python, "-m", "venv", "--clear", folder / "venv"], check=True)
        self.python = folder / "venv" / "bin" / "python"
        subprocess.run([self.python, "-m", "pip", "install", "--quiet", package], check=True)
        self.site = Path(self.ask("import sysconfig; print(sysconfig.get_path('platlib'))"))
        (self.site / "standin_journal.py").write_text(STANDIN_JOURNAL)
        self.identity = self.ask("import sys, os; print(sys.version, os.uname(), os.getuid())")

    def ask(self, code: str, *flags: str) -> str:
        command = [str(self.python), *flags, "-c", code]
        return subprocess.check_output(command, text=True, env=environment()).strip()

    def switch(self, standin: bool) -> None:
        pth = self.site / "standin.pth"
        if standin:
            pth.write_text(STANDIN_PTH)
        else:
            pth.unlink(missing_ok=True)

    def prove_the_switch(self) -> None:
        """Die unless the stand-in is there when it should be, and only then."""
        question = "import signal; print(signal.signal.__module__.partition('.')[0])"
        for standin, expected in (False, "signal"), (True, "sigwright"):
            self.switch(standin)
            for flags in (), ("-I",), ("-E",), ("-s",):
                found = self.ask(question, *flags)
                if found != expected:
                    sys.exit(
                        f"{' '.join(('python', *flags))}: signal.signal is {found}'s, "
                        f"not {expected}'s: nothing was tested"
                    )

    def run(self, module: str, *, standin: bool, only: str | None = None) -> Run:
        """Run one module of CPython's tests, or one test of it, in a process of its own."""
        self.switch(standin)
        name = f"{module}-{'sigwright' if standin else 'stock'}{'-alone' if only else ''}"
        junit = self.folder / f"{name}.xml"
        junit.unlink(missing_ok=True)
        journal = self.folder / f"{name}.pids"
        journal.write_text("")
        command = [str(self.python), "-m", "test", "-v", "-u", "all", "--junit-xml", str(junit)]
        command += ["-m", only] if only else []
        run = Run()
        started = time.monotonic()
        with (
            tempfile.TemporaryDirectory() as cwd,
            open(self.folder / f"{name}.log", "wb") as log,
        ):
            process = subprocess.Popen(
                [*command, module],
                cwd=cwd,
                env=environment() | {JOURNAL: str(journal)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(TEST_SECONDS if only else MODULE_SECONDS)
                # It can also die after the last test, in its own end.
                if status < 0 or not junit.exists():
                    run.ended = f"ended with status {status}"
            except subprocess.TimeoutExpired:
                # regrtest has faulthandler on: SIGABRT writes every thread's stack into the log.
                process.send_signal(signal.SIGABRT)
                time.sleep(1)
                run.ended = "did not end"
            finally:
                kill_session(process)
        run.seconds = time.monotonic() - started
        if run.ended:
            run.ended += f"; its last lines were\n{tail(self.folder / f'{name}.log')}"
        else:
            run.results = read_junit(junit)
        pids = set(journal.read_text().split())
        run.standin = str(process.pid) in pids
        run.children = len(pids - {str(process.pid)})
        if run.standin != standin:
            sys.exit(f"{name}: the stand-in was {'not ' * standin}in the test process")
        return run


def environment() -> dict[str, str]:
    """Ours, without what would tell the interpreter or sigwright to be different."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "SIGWRIGHT"))
    }


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """End the test process and whatever it left behind in its process group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def read_junit(file: Path) -> Results:
    results = {}
    for case in ET.parse(file).iter("testcase"):
        name = case.get("name")
        if name is None:  # regrtest leaves a test unnamed when a subtest of it failed
            continue
        trouble = next(
            (found for kind in ("error", "failure") if (found := case.find(kind)) is not None), None
        )
        if trouble is not None:
            results[name] = trouble.text or trouble.get("message") or "failed"
        elif case.get("outcome") == "UNEXPECTED_SUCCESS":
            results[name] = "unexpected success"
        else:
            results[name] = "skipped" if case.find("skipped") is not None else "passed"
    return results


def tail(file: Path, lines: int = 40) -> str:
    """The last lines of a log, without the frames of the test runner that end every stack."""
    runner = re.compile(r'^  File ".*(/unittest/|/libregrtest/|/test/__main__\.py|<frozen runpy>)')
    log = [line for line in file.read_text(errors="replace").splitlines() if not runner.match(line)]
    return "\n".join("    " + line for line in log[-lines:])


def stock_results(
    laboratory: Laboratory, modules: Iterable[str], cache: Path | None
) -> dict[str, Results]:
    """What the stock module does on this machine, from the cache where that is of this machine."""
    known: dict[str, Results] = {}
    if cache and cache.exists():
        stored = json.loads(cache.read_text())
        if stored["identity"] == laboratory.identity:
            known = stored["results"]
    for module in modules:
        if module not in known:
            run = laboratory.run(module, standin=False)
            if run.ended:
                sys.exit(f"{module} with the stock signal module {run.ended}")
            known[module] = run.results
            report(f"stock     {module}", run)
    if cache:
        cache.write_text(json.dumps({"identity": laboratory.identity, "results": known}, indent=1))
    return known


def keeps_differing(laboratory: Laboratory, module: str, test: str) -> str:
    """Run one test alone with both, and return what went wrong, or "" where nothing did."""
    trouble = ""
    for attempt in range(1, TRIES_ALONE + 1):
        alone = laboratory.run(module, standin=True, only=test)
        if alone.ended:
            return alone.ended
        trouble = alone.results.get(test, "no result: a subtest or a fixture failed")
        if trouble == "passed":
            print(f"  differed once: {test} passed alone, try {attempt}", flush=True)
            return ""
        stock = laboratory.run(module, standin=False, only=test)
        if stock.results.get(test) != "passed":
            print(f"  flaky here: {test} alone fails with the stock module too", flush=True)
            return ""
    return trouble


def report(what: str, run: Run) -> None:
    outcomes = list(run.results.values())
    passed, skipped = outcomes.count("passed"), outcomes.count("skipped")
    print(
        f"{what:<42} {passed:4} passed {skipped:3} skipped {len(outcomes) - passed - skipped:3} "
        f"other {run.seconds:6.1f} s, {run.children} children had the stand-in",
        flush=True,
    )


def examine(
    laboratory: Laboratory, module: str, stock: Results, excepted: set[str]
) -> tuple[int, int]:
    """Run one module with sigwright; how many of the tests due passed, and how many failed."""
    due = {test for test, outcome in stock.items() if outcome == "passed"}
    run = laboratory.run(module, standin=True)
    report(f"sigwright {module}", run)
    if run.ended:  # no second chance for a process that crashes or hangs
        print(f"  FAILED: {module}, with {len(due)} tests, {run.ended}", flush=True)
        return 0, len(due)
    differing = {test for test in due if run.results.get(test) != "passed"}
    failed = set()
    for test in sorted(due & excepted - differing):
        failed.add(test)
        print(f"  FAILED: {test} passes; take it out of exceptions.toml")
    for test in sorted(differing & excepted):
        print(f"  excepted: {test}")
    for test in sorted(differing - excepted):
        if trouble := keeps_differing(laboratory, module, test):
            failed.add(test)
            print(f"  FAILED: {test}\n{re.sub('(?m)^', '    ', trouble.strip())}", flush=True)
    return len(due - failed - (differing & excepted)), len(failed)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="The rest is at the top of this file.",
    )
    parser.add_argument("modules", nargs="*", default=MODULES, help="test modules; default: all")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to test with")
    parser.add_argument("--wheel", type=Path, default=CHECKOUT, help="default: built from here")
    parser.add_argument("--venv", type=Path, help="a folder for all this, kept; default: none is")
    parser.add_argument("--baseline", type=Path, help="a JSON file to keep the stock results in")
    arguments = parser.parse_args()
    exceptions = tomllib.loads((HERE / "exceptions.toml").read_text()).get("exception", [])
    excepted = {exception["test"] for exception in exceptions}
    with tempfile.TemporaryDirectory() as throw_away:
        folder = arguments.venv or Path(throw_away)
        folder.mkdir(parents=True, exist_ok=True)
        laboratory = Laboratory(folder, arguments.python, arguments.wheel)
        print(laboratory.identity, flush=True)
        laboratory.prove_the_switch()
        stock = stock_results(laboratory, arguments.modules, arguments.baseline)
        passed = failed = 0
        for module in arguments.modules:
            counts = examine(laboratory, module, stock[module], excepted)
            passed, failed = passed + counts[0], failed + counts[1]
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
