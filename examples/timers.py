"""The three interval timers, and what each of them counts.

ITIMER_REAL counts real time and sends SIGALRM, ITIMER_VIRTUAL the processor time of the program
itself and sends SIGVTALRM, ITIMER_PROF that and the kernel's on the program's behalf, and sends
SIGPROF.  Each one ticks until it has done so three times, while the program sleeps or computes;
the last two stand still while it sleeps.  It prints:

    ITIMER_REAL, asleep: SIGALRM SIGALRM SIGALRM
    ITIMER_VIRTUAL, asleep: nothing
    ITIMER_VIRTUAL, computing: SIGVTALRM SIGVTALRM SIGVTALRM
    ITIMER_PROF, asleep: nothing
    ITIMER_PROF, computing: SIGPROF SIGPROF SIGPROF
"""

import time

import sigwright as signal

FIRST, INTERVAL = 0.05, 0.05
PATIENCE = 1.0


def sleep(ticks):
    """Sleep until three ticks have come, or long enough to know that none will."""
    end = time.monotonic() + PATIENCE
    while len(ticks) < 3 and time.monotonic() < end:
        time.sleep(PATIENCE / 2)


def compute(ticks):
    while len(ticks) < 3:
        sum(range(1000))


def run(timer, number, name, work):
    ticks = []

    def tick(signum, frame):
        ticks.append(signal.Signals(signum).name)
        if len(ticks) == 3:
            signal.setitimer(timer, 0)

    signal.signal(number, tick)
    signal.setitimer(timer, FIRST, INTERVAL)
    work(ticks)
    signal.setitimer(timer, 0)
    doing = "asleep" if work is sleep else "computing"
    print(f"{name}, {doing}:", " ".join(ticks) or "nothing")


run(signal.ITIMER_REAL, signal.SIGALRM, "ITIMER_REAL", sleep)
run(signal.ITIMER_VIRTUAL, signal.SIGVTALRM, "ITIMER_VIRTUAL", sleep)
run(signal.ITIMER_VIRTUAL, signal.SIGVTALRM, "ITIMER_VIRTUAL", compute)
run(signal.ITIMER_PROF, signal.SIGPROF, "ITIMER_PROF", sleep)
run(signal.ITIMER_PROF, signal.SIGPROF, "ITIMER_PROF", compute)
