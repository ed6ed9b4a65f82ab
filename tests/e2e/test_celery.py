"""The signals of celery's worker, as its documentation has them ("Workers Guide").

Each worker takes seconds to end: between two looks for a signal it listens to the broker for two.
So what does not depend on the pool runs with one of them.
"""

import re
import signal
import sysconfig
from pathlib import Path

import pytest

CELERY = Path(sysconfig.get_path("scripts"), "celery")
POOLS = pytest.mark.parametrize("pool", ["prefork", "threads"])


@pytest.fixture
def worker(start, gate):
    """`worker(POOL)`: start one, and return when it is in a task that waits at the gate."""

    def worker(pool="prefork", terminal=False):
        options = ("--pool", pool, "--concurrency", "2", "--loglevel", "INFO", "-n", "w@here")
        program = start(CELERY, "--app", "tasks", "worker", *options, terminal=terminal)
        program.says("task: begun")
        # The worker has told, and then the process that has the task.
        assert len(program.whose(2)) == (2 if pool == "prefork" else 1)
        return program

    return worker


def events(program):
    """What the worker says of itself and of its task, but for names and times."""
    said = r"^worker: .*|^Restarting celery worker|task: \w+|Task .* (?:received|succeeded)"
    lines = re.findall(said, program.output(), re.MULTILINE)
    return sorted(re.sub(r"\[.*\]", "", line) for line in lines)


@POOLS
def test_term_lets_the_running_task_finish(worker, pool, gate, same):
    program = worker(pool)
    program.kill(signal.SIGUSR1)  # shows the stacks of all threads, and nothing else happens
    program.says(r"^MainThread\n=+\n")

    program.kill(signal.SIGTERM)
    program.says("Warm shutdown")
    gate.open()
    program.says(r"Task .* succeeded")
    status = program.ends()
    assert status == 0
    same(status, events(program))


@POOLS
def test_quit_does_not_wait_for_the_running_task(worker, pool, gate, same):
    program = worker(pool)
    program.kill(signal.SIGQUIT)
    program.says("terminate all running tasks")
    if pool == "threads":
        # A thread cannot be ended from outside. celery does not, and ends with an error.
        gate.open()
    status = program.ends()
    assert program.said("task: done") == (1 if pool == "threads" else 0)
    same(status, events(program))


def test_ctrl_c_is_term_and_a_second_one_is_quit(worker, same):
    program = worker(terminal=True)
    program.type_control_c()
    program.says("Warm shutdown")
    program.type_control_c()
    status = program.ends()
    assert program.said("task: done") == 0
    same(status, events(program))


def test_hup_restarts_the_worker(worker, gate, same):
    program = worker()
    program.kill(signal.SIGHUP)
    program.says("Restarting celery worker")
    gate.open()
    # The task was finished, and the same process is a new worker (exec), with a task again.
    program.says("task: begun", 2)
    assert program.said("task: done") == 1
    assert len(program.whose(2 + 2)) == 3

    program.kill(signal.SIGTERM)
    program.says("Warm shutdown")
    gate.open()
    status = program.ends()
    assert program.said("task: done") == 2
    assert status == 0
    same(status, events(program))
