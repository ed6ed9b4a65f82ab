"""Each example, run as its reader would run it, prints what its docstring promises."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = sorted(Path(__file__).parent.parent.glob("examples/*.py"))


def run(path):
    return subprocess.run(
        [sys.executable, str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def promised_output(path):
    """The indented lines at the end of the module's docstring, after "prints:"."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return re.sub("^    ", "", docstring.partition("prints:\n\n")[2] + "\n", flags=re.MULTILINE)


def test_the_examples_are_found():
    assert "open_with_alarm.py" in [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_prints_what_it_promises(path):
    began = time.monotonic()
    ended = run(path)
    assert promised_output(path).strip()
    assert ended.stdout == promised_output(path)
    if path.stem == "open_with_alarm":
        # The seed's example ends as the seed leaves it: nobody catches the handler's exception.
        lines = ended.stderr.splitlines()
        assert (lines[0], lines[-1]) == (
            "Traceback (most recent call last):",
            "OSError: Couldn't open device!",
        )
        assert ended.returncode == 1
        assert time.monotonic() - began >= 4.9
    else:
        assert (ended.returncode, ended.stderr) == (0, "")
