"""uvicorn's signals, as its documentation has them ("Server Behavior", "Deployment").

Alone it has TERM and INT, the second INT does not wait; as the manager of several processes HUP,
TTIN and TTOU as well.
"""

import json
import re
import signal
import sys

import pytest


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request):
    return request.param


@pytest.fixture
def uvicorn(start, loop):
    """`uvicorn(WORD...)`: start one, on this loop."""

    def uvicorn(*words, processes=1):
        program = start(
            *("-m", "uvicorn", "--port", "0", "--no-use-colors", "--loop", loop, *words),
            "web_asgi:app",
            terminal=True,
        )
        assert len(program.whose(processes)) == processes
        program.says("Application startup complete", processes)
        program.check_processes()
        return program

    return uvicorn


def address(program):
    return program.says(r"Uvicorn running on http://([\d.:]+)")[0][1]


def about(program):
    report = json.loads(program.request(address(program), "/").answer())
    program.check_whose(report)
    return report


def workers(program):
    """Its children that serve; multiprocessing has a helper process beside them."""
    return program.children() & program.whose().keys()


def begin_slow_request(program, gate):
    request = program.request(address(program), f"/slow?{gate.path}")
    program.says("slow: begun")
    return request


def events(program):
    """What it says, without the numbers, which are those of processes and ports."""
    lines = re.findall(r"^(?:[A-Z]+:|lifespan:|slow:) .*$", program.output(), re.MULTILINE)
    return sorted(re.sub("[0-9]+", "N", line) for line in lines)


@pytest.mark.parametrize("key", ["TERM by kill", "INT by Ctrl+C"])
def test_the_first_signal_lets_a_request_in_flight_finish(uvicorn, loop, gate, key, same):
    program = uvicorn()
    assert about(program)["loop"] == loop
    request = begin_slow_request(program, gate)

    if key == "TERM by kill":
        program.kill(signal.SIGTERM)
    else:
        program.type_control_c()
    program.says("Waiting for connections to close")
    gate.open()
    assert request.answer() == "slow: done"

    status = program.ends()
    assert program.said("lifespan: shutdown") == 1
    same(status, events(program))


@pytest.mark.parametrize("first", ["TERM by kill", "INT by Ctrl+C"])
def test_a_second_int_does_not_wait_for_a_request_in_flight(uvicorn, loop, gate, first, same):
    program = uvicorn()
    request = begin_slow_request(program, gate)

    if first == "TERM by kill":
        program.kill(signal.SIGTERM)
    else:
        program.type_control_c()
    program.says("Waiting for connections to close")
    program.type_control_c()
    # On asyncio from 3.12 on, Server.wait_closed() waits for the connections that uvicorn has just
    # given up. That the second INT came shows there too: the lifespan is not ended in order.
    waits = loop == "asyncio" and sys.version_info >= (3, 12)
    if waits:
        gate.open()

    status = program.ends()
    answer = request.answer()  # else an error 500, or none at all
    assert ("slow: done" in (answer or "")) == waits
    assert program.said("lifespan: shutdown") == 0
    same(status, answer, events(program))


def test_a_second_term_still_waits(uvicorn, gate, same):
    program = uvicorn()
    request = begin_slow_request(program, gate)

    program.kill(signal.SIGTERM)
    program.says("Waiting for connections to close")
    program.kill(signal.SIGTERM)
    gate.open()
    assert request.answer() == "slow: done"

    same(program.ends(), events(program))


def test_hup_ttin_and_ttou_manage_the_processes(uvicorn, until, same):
    # On a very busy machine a worker may not answer its manager in 5 seconds, and be replaced.
    patient = ("--timeout-worker-healthcheck", "60")
    program = uvicorn("--workers", "2", *patient, processes=2)
    old = workers(program)

    program.kill(signal.SIGHUP)
    program.whose(4)
    until(lambda: len(workers(program)) == 2 and not workers(program) & old, "new workers")
    program.kill(signal.SIGTTIN)
    program.whose(5)
    until(lambda: len(workers(program)) == 3, "third worker")
    program.kill(signal.SIGTTOU)
    until(lambda: len(workers(program)) == 2, "end of the third worker")
    program.check_processes()
    about(program)

    program.kill(signal.SIGTERM)
    same(program.ends(), events(program))
