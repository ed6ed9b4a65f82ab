"""What is put into blocks with limits, and where it is run."""

import time
from concurrent.futures import ThreadPoolExecutor

HANG = """
def hang():
    while True:
        pass
"""


def hang(seconds=30):
    """Python code that takes far longer than any limit here."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    raise AssertionError(f"nothing interrupted it in {seconds} s")


def again_and_again(step):
    while True:
        step()


def spin(seconds):
    """Python code: whatever is left to strike it does so here."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def in_a_worker(function):
    """Run it in another thread; what it returns or raises comes back."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(120)
