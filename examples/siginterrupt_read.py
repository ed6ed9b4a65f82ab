"""siginterrupt(): whether a signal interrupts a system call or lets the system restart it.

The call is read(2), from a pipe that stays empty for half a second, while SIGALRM comes each 0.1
seconds.  It is called through ctypes, because os.read() and its like restart by themselves
whatever the system does (PEP 475).  signal() makes a signal interrupting again.  It prints:

    after signal(): interrupted, EINTR
    after siginterrupt(SIGALRM, False): restarted, read b'x'
    after siginterrupt(SIGALRM, True): interrupted, EINTR
    after siginterrupt(SIGALRM, False): restarted, read b'x'
    after signal(): interrupted, EINTR
"""

import ctypes
import errno
import os
import threading

import sigwright as signal

libc = ctypes.CDLL(None, use_errno=True)


def handler(signum, frame):
    pass


def read_one_byte():
    reader, writer = os.pipe()
    late = threading.Timer(0.5, os.write, (writer, b"x"))
    late.start()
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    buffer = ctypes.create_string_buffer(1)
    count = libc.read(reader, buffer, 1)
    error = ctypes.get_errno()
    signal.setitimer(signal.ITIMER_REAL, 0)
    late.join()
    os.close(reader)
    os.close(writer)
    if count == 1:
        return f"restarted, read {buffer.raw!r}"
    return f"interrupted, {errno.errorcode[error]}"


signal.signal(signal.SIGALRM, handler)
print("after signal():", read_one_byte())
for flag in (False, True, False):
    signal.siginterrupt(signal.SIGALRM, flag)
    print(f"after siginterrupt(SIGALRM, {flag}):", read_one_byte())
signal.signal(signal.SIGALRM, handler)
print("after signal():", read_one_byte())
