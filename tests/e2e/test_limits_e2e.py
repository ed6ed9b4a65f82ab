"""Limits in real programs: beside pytest-timeout's, and in the threads of gunicorn's workers."""

import re
import shutil
import signal
from pathlib import Path

import pytest

LIMITED = Path(__file__).parent / "apps" / "limited.py"
CONFIG = """
import signal

from whose import tell

bind = "127.0.0.1:0"
worker_class = "gthread"
workers = 2
threads = 4
graceful_timeout = 60
timeout = 60


def post_worker_init(worker):
    # It has its handlers now.
    tell(signal.SIGTERM)
"""


def test_limits_and_those_of_pytest_timeout_leave_each_other_alone(start, tmp_path, same):
    shutil.copy(LIMITED, tmp_path / "test_limited.py")
    (tmp_path / "pytest.ini").touch()  # or pytest would look for one further up
    plugin = ("--timeout", "30", "--timeout-method", "signal")
    program = start("-m", "pytest", "-s", "-rA", *plugin, "test_limited.py")
    assert len(program.whose()) == 1
    status = program.ends()
    results = re.findall(r"^(?:FAILED|PASSED|ERROR) [^\s:]+::(\S+)", program.output(), re.MULTILINE)
    passed = re.findall(r"^PASSED [^\s:]+::(\S+)", program.output(), re.MULTILINE)
    assert len(results) == 8
    assert sorted(passed) == [
        "test_good",
        "test_ours_is_first[asleep]",
        "test_ours_is_first[busy]",
        "test_ours_is_first_in_a_worker",
    ]
    assert program.said(r"^E +Failed: Timeout \(>0\.5s\) from pytest-timeout") == 4
    # The stdlib's handlers do not wait; those of a program under sigwright do.
    assert program.said("section: whole") == (1 if program.how == "sigwright" else 0)
    assert status == 1
    same(status, results, passed)


@pytest.fixture
def gunicorn(start, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    program = start("-m", "gunicorn", "--config", "config.py", "limits_wsgi:app")
    assert len(program.whose(2)) == 2
    return program


def address(program):
    return program.says(r"Listening at: http://(\S+)")[0][1]


def test_requests_in_a_threaded_worker_have_limits_of_their_own(gunicorn, same):
    server = address(gunicorn)
    paths = ["/spin", "/quick", "/sleep", "/quick"] * 5
    requests = [gunicorn.request(server, path) for path in paths]
    answers = [request.answer() for request in requests]
    assert answers == ["over the limit", "done"] * 10
    # The workers are as they were.
    assert gunicorn.request(server, "/quick").answer() == "done"
    gunicorn.kill(signal.SIGTERM)
    status = gunicorn.ends()
    assert status == 0
    assert gunicorn.said("Traceback") == 0
    same(status, answers)


def test_term_lets_a_limited_request_in_flight_finish(gunicorn, gate, same):
    server = address(gunicorn)
    request = gunicorn.request(server, f"/slow?{gate.path}")
    gunicorn.says("slow: begun")
    gunicorn.kill(signal.SIGTERM)
    gunicorn.says("Handling signal: term")
    gate.open()
    answer = request.answer()
    status = gunicorn.ends()
    assert (answer, status) == ("done", 0)
    same(status, answer)
