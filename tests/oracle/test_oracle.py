"""sigwright.classic against an oracle: Python 2.7.18 and its `signal`.

Every scenario runs under this Python with `from sigwright import classic as signal`, and must say
word for word what it said under 2.7.18. That is kept in `transcripts.txt`; where a Python 2.7 can
be found, it is asked again, so that the recording cannot drift from the scenarios.
"""

import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest

_recorder = runpy.run_path(str(Path(__file__).with_name("record.py")), run_name="record")
scenario_names = _recorder["scenario_names"]
is_python27 = _recorder["is_python27"]
transcripts = _recorder["transcripts"]
RECORDED = _recorder["recorded"]()


@pytest.fixture(scope="module")
def said(request: pytest.FixtureRequest) -> dict[str, str]:
    """What classic says, for the scenarios of this run: two at a time, as they mostly sleep."""
    wanted = [
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_classic_says_what_2_7_18_said
    ]
    transcribed: dict[str, str] = transcripts(sys.executable, wanted)
    return transcribed


@pytest.mark.parametrize("name", scenario_names())
def test_classic_says_what_2_7_18_said(name: str, said: dict[str, str]) -> None:
    assert said[name] == RECORDED[name]


def test_every_scenario_is_recorded_and_no_other() -> None:
    assert list(RECORDED) == scenario_names()
    assert len(RECORDED) >= 40


def python27() -> str | None:
    """A Python 2.7 that runs: $SIGWRIGHT_PYTHON27, else the one on PATH."""
    named = os.environ.get("SIGWRIGHT_PYTHON27")
    candidate = named or shutil.which("python2.7")
    if candidate is None:
        return None
    if is_python27(candidate):
        return candidate
    if named:
        pytest.fail(f"SIGWRIGHT_PYTHON27 is {named}, which is no Python 2.7 that runs")
    return None  # a version manager's "python2.7", say, that only tells how to install one


def test_2_7_still_says_what_was_recorded() -> None:
    python = python27()
    if python is None:
        pytest.skip("no Python 2.7 here: classic was compared with the recording from 2.7.18")
    assert transcripts(python, scenario_names()) == RECORDED
