"""gunicorn's signals, as its documentation has them (docs.gunicorn.org, "Signal Handling")."""

import json
import re
import signal

import pytest

CONFIG = """
import signal

import web_wsgi
from whose import tell

bind = "127.0.0.1:0"
worker_class = "{worker_class}"
threads = {threads}
workers = {workers}
raw_env = ["TAG={tag}"]
pidfile = "master.pid"
errorlog = "{errorlog}"
accesslog = "access.log"
graceful_timeout = {graceful_timeout}


def when_ready(server):
    tell(signal.SIGHUP)


def post_worker_init(worker):
    # It has its handlers now: from here on it may be sent what it knows.
    web_wsgi.worker = worker
    tell(signal.SIGTERM)
"""
DEFAULTS = {"workers": 2, "tag": "old", "errorlog": "-", "graceful_timeout": 30}


class Gunicorn:
    def __init__(self, start, worker_class, folder):
        self._start = start
        self._worker_class = worker_class
        self._folder = folder

    def configure(self, **changes):
        threads = 4 if self._worker_class == "gthread" else 1
        settings = {**DEFAULTS, "worker_class": self._worker_class, "threads": threads, **changes}
        (self._folder / "config.py").write_text(CONFIG.format(**settings))

    def __call__(self, terminal=False, **changes):
        self.configure(**changes)
        words = ("-m", "gunicorn", "--config", "config.py", "web_wsgi:app")
        program = self._start(*words, terminal=terminal)
        everybody = 1 + changes.get("workers", 2)
        assert len(program.whose(everybody)) == everybody
        return program


@pytest.fixture(params=["sync", "gthread"])
def gunicorn(request, start, tmp_path):
    """`gunicorn(SETTING=VALUE...)`: start one, with two workers if not told otherwise."""
    return Gunicorn(start, request.param, tmp_path)


def address(program):
    return program.says(r"Listening at: http://(\S+)")[0][1]


def about(program):
    """What one of the workers says of itself."""
    report = json.loads(program.request(address(program), "/").answer())
    program.check_whose(report)
    return report


def begin_slow_request(program, gate):
    request = program.request(address(program), f"/slow?{gate.path}")
    program.says("slow: begun")
    return request


def events(program):
    """What its log says, without who and when; as a set, because the order is the scheduler's.

    So is what is left out: whether a worker that gets TERM twice (the master repeats itself) dies
    of the second one on its last metres, when it has no handlers any more; and what the thread of
    the control socket says of the forks.
    """
    lines = re.findall(r"^\[.*\] \[\d+\] \[(\w+)\] (.*)$", program.output(), re.MULTILINE)
    chance = re.compile(r"was sent SIGTERM|[Cc]ontrol socket")
    return {
        f"{level} {re.sub('[0-9]+', 'N', text)}" for level, text in lines if not chance.search(text)
    }


def test_hup_replaces_the_workers_and_reads_the_configuration_again(gunicorn, gate, until, same):
    program = gunicorn()
    old = program.children()
    assert about(program)["tag"] == "old"
    request = begin_slow_request(program, gate)

    gunicorn.configure(workers=3, tag="new")
    program.kill(signal.SIGHUP)
    program.says("Handling signal: hup")
    new = program.whose(3 + 3).keys() - old - {program.pid}
    assert len(new) == 3
    until(lambda: len(program.children() & old) == 1, "end of the old worker that was idle")
    assert about(program)["tag"] == "new"
    gate.open()
    assert request.answer() == "done by a worker that ends"
    until(lambda: program.children() == new, "end of the last old worker")

    program.kill(signal.SIGTERM)
    status = program.ends()
    assert status == 0
    same(status, events(program))


def test_ttin_and_ttou_add_and_remove_a_worker(gunicorn, until, same):
    program = gunicorn()
    workers = [2]

    def send(signum, number):
        name = signum.name.removeprefix("SIG").lower()
        times = program.said(f"Handling signal: {name}$") + 1
        program.kill(signum)
        program.says(f"Handling signal: {name}$", times)
        until(lambda: len(program.children()) == number, f"{number} workers")
        workers.append(number)

    send(signal.SIGTTIN, 3)
    program.whose(4)
    send(signal.SIGTTIN, 4)
    program.whose(5)
    for number in (3, 2, 1, 1):  # the last one stays
        send(signal.SIGTTOU, number)
    about(program)

    program.kill(signal.SIGTERM)
    status = program.ends()
    assert status == 0
    same(status, workers, events(program))


def test_term_lets_a_request_in_flight_finish(gunicorn, gate, until, same):
    program = gunicorn()
    request = begin_slow_request(program, gate)

    program.kill(signal.SIGTERM)
    program.says("Handling signal: term")
    until(lambda: len(program.children()) == 1, "end of the idle worker")
    gate.open()
    assert request.answer() == "done by a worker that ends"

    status = program.ends()
    assert status == 0
    same(status, events(program))


# A thread that serves a request cannot be ended from outside: the master kills its worker, after
# `graceful_timeout` seconds.


def test_quit_does_not_wait_for_a_request_in_flight(gunicorn, gate, same):
    program = gunicorn(graceful_timeout=1)
    request = begin_slow_request(program, gate)

    program.kill(signal.SIGQUIT)
    program.says("Handling signal: quit")
    status = program.ends()
    assert status == 0
    answer = request.answer()  # an error 500, or none at all
    assert "done" not in (answer or "")
    same(status, answer, events(program))


def test_ctrl_c_does_not_wait_for_a_request_in_flight(gunicorn, gate, same):
    program = gunicorn(graceful_timeout=1, terminal=True)
    request = begin_slow_request(program, gate)

    program.type_control_c()
    program.says("Handling signal: int")
    status = program.ends()
    assert status == 0
    # The worker gets INT from the terminal and QUIT from the master. How far it comes with the
    # first before the second is chance, and so are its last words.
    assert "done" not in (request.answer() or "")
    same(status)


def test_usr1_reopens_the_log_files(gunicorn, tmp_path, until, same):
    program = gunicorn(workers=1)
    log, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    about(program)
    log.rename(rotated)

    program.kill(signal.SIGUSR1)
    requests = 1

    def arrives_in_the_new_file():
        nonlocal requests
        about(program)
        requests += 1
        return log.exists() and log.read_text()

    def lines():
        return (rotated.read_text() + log.read_text()).count("\n")

    until(arrives_in_the_new_file, "line in the new file")
    until(lambda: lines() == requests, "line for each request")

    program.kill(signal.SIGTERM)
    status = program.ends()
    assert status == 0
    same(status, events(program))


def test_usr2_and_term_hand_over_to_a_new_master(gunicorn, tmp_path, until, same):
    program = gunicorn()
    program.kill(signal.SIGUSR2)
    assert len(program.whose(3 + 3)) == 6
    new = int((tmp_path / "master.pid.2").read_text())
    assert new in program.children()

    program.kill(signal.SIGTERM)
    status = program.exits()
    assert status == 0
    program.says("Master has been promoted")
    assert about(program)["pid"] in program.children(new)

    program.kill(signal.SIGTERM, new)
    assert program.ends() == status
    same(status, events(program))
