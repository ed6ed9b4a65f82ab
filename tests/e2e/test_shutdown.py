"""graceful_shutdown() around servers with requests in flight: none is lost, and there is an end.

The programs import sigwright themselves. `[python]` and `[sigwright]` are then the engine beside
the stdlib's `signal`, which asyncio uses, and the engine in its place.
"""

import signal
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

APPS = Path(__file__).parent / "apps"
SERVERS = pytest.mark.parametrize("kind", ["threads", "asyncio"])


@pytest.fixture
def server(start):
    """`server(KIND, GRACE)`: start one; the program, and its address."""

    def server(kind, grace=60, terminal=False):
        program = start(APPS / f"shutdown_{kind}.py", grace, terminal=terminal)
        return program, program.says(r"Listening at: http://(\S+)")[0][1]

    return server


def begin_slow_requests(program, address, gate, count):
    requests = [program.request(address, f"/slow?{gate.path}") for _ in range(count)]
    program.says("slow: begun", count)
    return requests


@SERVERS
@pytest.mark.parametrize("key", ["TERM by kill", "INT by Ctrl+C"])
def test_every_request_in_flight_is_answered(server, gate, kind, key, same):
    program, address = server(kind, terminal=True)
    requests = begin_slow_requests(program, address, gate, 4)

    if key == "TERM by kill":
        program.kill(signal.SIGTERM)
    else:
        program.type_control_c()
    program.says("stopping")
    assert program.said("callback") == 0
    gate.open()
    assert [request.answer() for request in requests] == ["slow: done"] * 4

    # It has done its work, and says what ended it: a shell sees 128 + the number.
    status = program.ends()
    assert status == (-signal.SIGTERM if key == "TERM by kill" else -signal.SIGINT)
    assert program.said("callback: all requests are answered") == 1
    assert program.said("Traceback|KeyboardInterrupt") == 0
    same(status)


class Client(threading.Thread):
    """Asks without a pause until nobody listens. What came of each request, and when it began."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        self.answered = 0
        self.lost = []  # when they had been accepted
        self.start()

    def run(self):
        while True:
            connection = HTTPConnection(self.address, timeout=60)
            try:
                connection.connect()
            except OSError:
                return  # the server has gone
            accepted = time.monotonic()
            try:
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"quick: done"
                self.answered += 1
            except Exception:
                self.lost.append(accepted)
            finally:
                connection.close()


@SERVERS
def test_no_request_is_lost_that_was_accepted_before_the_signal(server, kind, until):
    program, address = server(kind)
    clients = [Client(address) for _ in range(4)]
    until(lambda: sum(client.answered for client in clients) > 300, "stream of requests")

    sent = time.monotonic()
    program.kill(signal.SIGTERM)
    assert program.ends() == -signal.SIGTERM
    for client in clients:
        client.join()
        assert [accepted for accepted in client.lost if accepted < sent] == []
    assert program.said("callback: all requests are answered") == 1


@SERVERS
def test_a_request_that_does_not_end_is_ended_with_the_grace(server, gate, kind):
    program, address = server(kind, grace=1)
    (request,) = begin_slow_requests(program, address, gate, 1)
    program.kill(signal.SIGTERM)
    status = program.ends()
    assert request.answer() is None
    # The callback that waits for the request has its TimeoutError. Then the loop would wait for the
    # request's thread, or the interpreter would: the grace ends that, and the stacks say where it
    # hangs. (Before 3.13 an interrupted join() takes the thread for ended, and nobody waits.)
    joined = sys.version_info < (3, 13) and kind == "threads" and status == 1
    if joined:
        assert program.said("^TimeoutError") == 1
    else:
        assert (status, program.said("most recent call first") > 0) == (-signal.SIGTERM, True)


@SERVERS
def test_a_second_ctrl_c_does_not_wait(server, gate, kind):
    program, address = server(kind, grace=600, terminal=True)
    (request,) = begin_slow_requests(program, address, gate, 1)
    program.type_control_c()
    program.says("stopping")
    program.type_control_c()  # at once: the same press, as a wrapper forwards it
    time.sleep(0.6)
    program.type_control_c()
    assert program.ends() == -signal.SIGINT
    assert request.answer() is None
    assert program.said("callback") == 0
