"""A time limit for each request, in the worker threads of a server.

alarm() is for the main thread only, and for one limit at a time.  fail_after() is for every thread:
here two requests of three come into an endless loop, each in a thread of its own, and each is ended
by its own limit.  The threads live on, and serve the next ones.  It prints:

    /hello: 200 hello
    /loop: 503 it took too long
    /parse: 503 it took too long
    /hello: 200 hello
    /hello: 200 hello
"""

from concurrent.futures import ThreadPoolExecutor

import sigwright as signal

SECONDS = 0.5


def loop():
    while True:
        pass


def parse():
    """Code that takes every error for a bad input; a limit is no Exception, and ends it."""
    while True:
        try:
            int("not a number")
        except Exception:
            continue


def hello():
    return "hello"


PAGES = {"/hello": hello, "/loop": loop, "/parse": parse}


def respond(path):
    try:
        with signal.fail_after(SECONDS):
            return f"{path}: 200 {PAGES[path]()}"
    except TimeoutError:
        return f"{path}: 503 it took too long"


with ThreadPoolExecutor(max_workers=2) as workers:
    for answer in workers.map(respond, ["/hello", "/loop", "/parse", "/hello", "/hello"]):
        print(answer)
