"""Functions that are called later, now and then, and no more: timers without a thread or a loop.

The callbacks run in the main thread, also while it sleeps; the sleep goes on afterwards.  What is
late is called once, and the periods that were missed are counted, not made up for.  It prints:

    later
    tick 1
    tick 2
    tick 3
    a bad callback was reported: ZeroDivisionError
    busy for seven periods: called once for all of them, 6 or more left out
    nothing was called after cancel()
"""

import sys
import threading
import time

import sigwright as signal

PERIOD = 0.05


def tick():
    ticks.append(time.monotonic())
    print("tick", len(ticks))
    if len(ticks) == 3:
        every.cancel()  # in the callback itself; any thread may


def sleep_until(condition):
    while not condition():
        time.sleep(10 * PERIOD)


signal.call_later(0.01, print, "later")
ticks: list[float] = []
every = signal.call_every(PERIOD, tick)
sleep_until(every.cancelled)

# What a callback raises does not surface in code that has nothing to do with it.
reported: list[str] = []
sys.unraisablehook = lambda report: reported.append(report.exc_type.__name__)
signal.call_later(0, divmod, 1, 0)
sleep_until(lambda: reported)
print("a bad callback was reported:", reported[0])


def late():
    calls.append(time.monotonic())
    if len(calls) == 2:
        every.cancel()


calls = []
every = signal.call_every(PERIOD, late)
with signal.deferred():  # nothing interrupts it: as a long call of C would do
    time.sleep(7.5 * PERIOD)
sleep_until(every.cancelled)
left_out = "6 or more" if every.skipped >= 6 else every.skipped
print(f"busy for seven periods: called once for all of them, {left_out} left out")

calls.clear()
timer = signal.call_later(10 * PERIOD, calls.append, "called")
canceller = threading.Thread(target=timer.cancel)
canceller.start()
canceller.join()
time.sleep(12 * PERIOD)
print("something was called" if calls else "nothing was called after cancel()")
