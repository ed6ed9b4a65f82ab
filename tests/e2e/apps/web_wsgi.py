"""What gunicorn serves here: who serves it, and a request that takes as long as the test likes."""

import json
import os
import signal
import sys

from whose import whose

worker = None  # gunicorn's own object; config.py puts it here


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/slow":
        print("slow: begun", file=sys.stderr)
        with open(environ["QUERY_STRING"]) as gate:  # a FIFO: in this call until somebody writes
            gate.read()
        # What the worker's signal handler did in the meantime.
        return [b"done by a worker that goes on" if worker.alive else b"done by a worker that ends"]
    return [json.dumps({**whose(signal.SIGTERM), "tag": os.environ.get("TAG")}).encode()]
