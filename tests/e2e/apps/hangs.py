"""Tests that hang, each in a way of its own, and one that does not. Copied to where it is run."""

import signal
import threading
import time

import pytest
from whose import tell

signal.signal(signal.SIGUSR1, print)
tell(signal.SIGUSR1)


def test_sleep():
    time.sleep(600)


def test_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def test_join():
    thread = threading.Thread(target=time.sleep, args=(600,), daemon=True)
    thread.start()
    thread.join()


def test_busy():
    while True:
        pass


@pytest.fixture
def slow():
    time.sleep(600)


def test_setup(slow):
    raise AssertionError("not reached")


def test_good():
    assert signal.getsignal(signal.SIGUSR1) is print
