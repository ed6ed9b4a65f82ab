"""A wakeup fd: signals wake a select(), like any other input of an event loop.

Python waits in select() again by itself when a signal's handler returns (PEP 475), so a loop
would sleep on although its handler has something for it to do.  The wakeup fd ends that: for
each signal a byte, its number, is written to it.  It is up to the loop to read the bytes before
it calls select() again.  The alarm rings while the loop waits; the other two signals have come
before it waits, and select() returns at once.  It prints:

    woken by SIGALRM
    woken by SIGUSR1 SIGUSR2
    nothing left to read
"""

import os
import select
import socket

import sigwright as signal


def do_nothing(signum, frame):
    """A handler there must be: a signal without one acts by its default, and wakes nobody."""


for number in (signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, do_nothing)

reader, writer = socket.socketpair()
with reader, writer:
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())

    signal.setitimer(signal.ITIMER_REAL, 0.2)
    select.select([reader], [], [])
    print("woken by", *(signal.Signals(byte).name for byte in reader.recv(100)))

    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    select.select([reader], [], [])
    print("woken by", *(signal.Signals(byte).name for byte in reader.recv(100)))

    readable, _, _ = select.select([reader], [], [], 0)
    print("something" if readable else "nothing", "left to read")
    signal.set_wakeup_fd(-1)
