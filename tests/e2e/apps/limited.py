"""Tests that set limits of their own, beside pytest-timeout's. Copied to where it is run."""

import signal
import threading
import time

import pytest
from whose import tell

import sigwright

signal.signal(signal.SIGUSR1, print)
tell(signal.SIGUSR1)


def hang():
    while True:
        pass


def left():
    """What is left of pytest-timeout's own time."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


@pytest.mark.parametrize("what", [hang, lambda: time.sleep(600)], ids=["busy", "asleep"])
def test_ours_is_first(what):
    with pytest.raises(TimeoutError), sigwright.fail_after(0.1):
        what()
    assert 0 < left() < 30


def test_ours_is_first_in_a_worker():
    outcomes = []

    def worker():
        with sigwright.move_on_after(0.1) as scope:
            hang()
        outcomes.append(scope.cancelled_caught)

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    assert outcomes == [True]
    assert 0 < left() < 30


@pytest.mark.timeout(0.5)
@pytest.mark.parametrize("what", [hang, lambda: time.sleep(600)], ids=["busy", "asleep"])
def test_theirs_is_first(what):
    with sigwright.fail_after(600), sigwright.move_on_after(500):
        what()


@pytest.mark.timeout(0.5)
def test_theirs_waits_for_a_section():
    with sigwright.deferred():
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass
        print("section: whole")
    hang()


@pytest.mark.timeout(0.5)
def test_theirs_is_the_only_one():
    hang()


def test_good():
    with sigwright.fail_after(60):
        time.sleep(0.01)
    assert signal.getsignal(signal.SIGUSR1) is print
