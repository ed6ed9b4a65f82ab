"""What gunicorn serves here: requests with a time limit, in the threads of its workers."""

import json
import signal
import sys
import threading
import time

from whose import whose

import sigwright


def spin():
    while True:
        pass


def short_sleeps():
    while True:
        time.sleep(0.01)


def wait_at(gate):
    print("slow: begun", file=sys.stderr)
    with open(gate) as file:  # a FIFO: in this call until somebody writes
        file.read()


WORK = {"/spin": (0.3, spin), "/sleep": (0.3, short_sleeps), "/quick": (60, time.monotonic)}


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/":
        return [json.dumps(whose(signal.SIGTERM)).encode()]
    seconds, work = WORK.get(path, (600, lambda: wait_at(query)))
    assert threading.current_thread() is not threading.main_thread()
    try:
        with sigwright.fail_after(seconds):
            work()
    except TimeoutError:
        return [b"over the limit"]
    return [b"done"]
