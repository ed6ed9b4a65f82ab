"""alarm, the three interval timers, and their remainders."""

import os
import tempfile
import time

from stage import attempt, burn, logger, safe_points, say, signal, until

TIMERS = (
    (signal.ITIMER_REAL, signal.SIGALRM),
    (signal.ITIMER_VIRTUAL, signal.SIGVTALRM),
    (signal.ITIMER_PROF, signal.SIGPROF),
)


def _near(value, expected):
    """A remainder, as the number that was set, if no more than a machine's delay is gone."""
    # The kernel rounds the two timers of processor time up to its tick, 10 ms at most.
    close = expected - 20 < value <= expected + 0.01
    return "%g" % expected if close else "%r is not near %r" % (value, expected)


def alarm_returns_what_was_left():
    say(signal.alarm(0))
    say(signal.alarm(1000))
    say(_near(signal.alarm(500), 1000), _near(signal.alarm(100), 500), _near(signal.alarm(0), 100))
    say(signal.alarm(0))


def alarm_sends_sigalrm_once():
    log, note = logger()
    signal.signal(signal.SIGALRM, note)
    start = time.time()
    signal.alarm(1)
    until(lambda: log)
    say(log, time.time() - start > 0.9, signal.alarm(0), signal.getitimer(signal.ITIMER_REAL))


def alarm_replaces_and_cancels():
    log, note = logger()
    signal.signal(signal.SIGALRM, note)
    signal.alarm(1)
    say(signal.alarm(2), signal.alarm(0))
    time.sleep(1.2)
    say(log)


def alarm_ends_an_open_that_blocks():
    # The document's own example, on a device that this scenario makes.
    def handler(signum, frame):
        say("Signal handler called with signal", signum)
        raise IOError("Couldn't open device!")

    directory = tempfile.mkdtemp()
    device = os.path.join(directory, "device")
    os.mkfifo(device)
    signal.signal(signal.SIGALRM, handler)
    signal.alarm(1)
    try:
        attempt("open", os.open, device, os.O_RDONLY)
    finally:
        os.remove(device)
        os.rmdir(directory)
    say(signal.alarm(0))


def alarm_and_itimer_real_are_one():
    signal.alarm(1000)
    delay, interval = signal.getitimer(signal.ITIMER_REAL)
    say(_near(delay, 1000), interval)
    delay, interval = signal.setitimer(signal.ITIMER_REAL, 500.9, 3.25)
    say(_near(delay, 1000), interval)
    say(_near(signal.alarm(0), 501), signal.getitimer(signal.ITIMER_REAL))


def timers_are_unset_at_start():
    for which, _ in TIMERS:
        say(which, signal.getitimer(which), signal.setitimer(which, 0))


def setitimer_returns_the_old_values():
    for which, _ in TIMERS:
        say(signal.setitimer(which, 1000))
        delay, interval = signal.setitimer(which, 500, 2.5)
        say(_near(delay, 1000), interval)
        delay, interval = signal.setitimer(which, 250.5, 0.125)
        say(_near(delay, 500), interval)
        delay, interval = signal.getitimer(which)
        say(_near(delay, 250.5), interval)
        delay, interval = signal.setitimer(which, 0)
        say(_near(delay, 250.5), interval, signal.getitimer(which))


def timers_do_not_disturb_each_other():
    for which, _ in TIMERS:
        signal.setitimer(which, 1000 + 100 * which, which + 0.5)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    for which, _ in TIMERS:
        delay, interval = signal.getitimer(which)
        say(_near(delay, 1000 + 100 * which) if delay else delay, interval)


def values_are_tuples_of_floats():
    for value in (signal.getitimer(0), signal.setitimer(0, 100), signal.setitimer(0, 0)):
        say(type(value).__name__, [type(item).__name__ for item in value])


def each_timer_sends_its_own_signal():
    for which, signum in TIMERS:
        log, note = logger()
        for _, other in TIMERS:
            signal.signal(other, note)
        signal.setitimer(which, 0.03)
        burn(lambda log=log: log)
        say(which, log == [signum], signal.getitimer(which))


def each_timer_repeats_with_an_interval():
    for which, signum in TIMERS:
        log, note = logger()
        signal.signal(signum, note)
        signal.setitimer(which, 0.01, 0.02)
        burn(lambda log=log: len(log) >= 4)
        delay, interval = signal.setitimer(which, 0)
        say(which, delay <= 0.03, interval)
        count = len(log)
        end = time.time() + 0.1
        burn(lambda end=end: time.time() > end)
        say("after it is cleared:", len(log) - count)


def virtual_and_prof_do_not_count_sleep():
    log, note = logger()
    signal.signal(signal.SIGVTALRM, note)
    signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.2)
    signal.setitimer(signal.ITIMER_PROF, 0.2)
    time.sleep(0.5)
    say("asleep:", log)
    burn(lambda: len(log) == 2)
    say("at work:", sorted(log))


def zero_seconds_clear_whatever_the_interval():
    log, note = logger()
    signal.signal(signal.SIGALRM, note)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    signal.setitimer(signal.ITIMER_REAL, 0, 5)
    say(signal.getitimer(signal.ITIMER_REAL)[0])
    time.sleep(0.15)
    say(log)


def a_tiny_time_does_not_clear():
    log, note = logger()
    signal.signal(signal.SIGALRM, note)
    for tiny in (1e-6, 1e-7, 1e-9, 1e-300):
        del log[:]
        signal.setitimer(signal.ITIMER_REAL, tiny)
        until(lambda: log)
        say(log)


def handler_that_arms_the_timer_again():
    times = []

    def handler(signum, frame):
        times.append(time.time())
        if len(times) < 3:
            signal.setitimer(signal.ITIMER_REAL, 0.02)

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    until(lambda: len(times) == 3)
    say(signal.getitimer(signal.ITIMER_REAL), len(times))


def handler_that_clears_a_repeating_timer():
    log = []

    def handler(signum, frame):
        log.append(signum)
        if len(log) == 3:
            log.append(signal.setitimer(signal.ITIMER_REAL, 0)[1])

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.25)
    until(lambda: len(log) >= 4)
    time.sleep(0.3)
    safe_points()
    say(log)


def exception_from_a_timer_ends_a_loop():
    class TimeIsUpError(Exception):
        pass

    def handler(signum, frame):
        raise TimeIsUpError("time is up")

    for which, signum in TIMERS:
        signal.signal(signum, handler)
        signal.setitimer(which, 0.03)
        try:
            burn(lambda: False)
        except TimeIsUpError as error:
            say(which, error)
