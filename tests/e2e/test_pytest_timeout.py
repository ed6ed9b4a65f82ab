"""pytest-timeout's two methods, as its documentation has them.

"signal": SIGALRM, by setitimer(), fails the test, and the next one runs. "thread": a thread shows
all stacks and ends the whole run, because Python has no other way from there.
"""

import re
import shutil
from pathlib import Path

import pytest

HANGS = Path(__file__).parent / "apps" / "hangs.py"


@pytest.fixture
def run(start, tmp_path):
    def run(method, *words):
        shutil.copy(HANGS, tmp_path / "test_hangs.py")
        (tmp_path / "pytest.ini").touch()  # or pytest would look for one further up
        plugin = ("--timeout", "0.5", "--timeout-method", method)
        program = start("-m", "pytest", "-s", "-rA", *plugin, *words, "test_hangs.py")
        assert len(program.whose()) == 1
        return program

    return run


def test_the_signal_method_fails_each_test_that_hangs(run, same):
    program = run("signal")
    status = program.ends()
    results = re.findall(r"^(?:FAILED|PASSED|ERROR) .*", program.output(), re.MULTILINE)
    assert status == 1
    assert len(results) == 6
    assert sum("Timeout (>0.5s) from pytest-timeout" in line for line in results) == 5
    assert "PASSED test_hangs.py::test_good" in results
    same(status, results)


@pytest.mark.parametrize("hang", ["sleep", "lock", "join", "busy", "setup"])
def test_the_thread_method_ends_the_run(run, hang, same):
    program = run("thread", "-k", f"{hang} or good")
    status = program.ends()
    assert status == 1
    # Where it hung, and nothing after that.
    assert program.said(r"\+ Timeout \+") == 2
    assert program.said(f", in test_{hang}$" if hang != "setup" else ", in slow$") == 1
    assert program.said("PASSED|FAILED|ERROR") == 0
    same(status)
