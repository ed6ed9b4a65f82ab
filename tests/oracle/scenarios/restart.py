"""Which system calls are interrupted, seen by read(2) itself, called through ctypes.

os.read would not show it: Python 3 repeats it (PEP 475).
"""

import ctypes
import errno
import os

from stage import await_sleep, child, libc, logger, safe_points, say, signal

SIGNUM = signal.SIGUSR1


def _read_while_a_signal_arrives():
    """read(2) from a pipe, into which a byte comes well after the signal."""
    reading, writing = os.pipe()
    parent = os.getpid()

    def other_side():
        await_sleep(parent)
        os.kill(parent, SIGNUM)
        await_sleep(parent)
        os.write(writing, b"!")

    wait = child(other_side)
    buffer = ctypes.create_string_buffer(10)
    result = libc.read(reading, buffer, 10)
    error = ctypes.get_errno() if result < 0 else 0
    safe_points()
    say("read", result, errno.errorcode.get(error, "no error"), list(bytearray(buffer.value)))
    if result < 0:
        # Else the other side would see this process asleep in waitpid, which is as good.
        say("then", libc.read(reading, buffer, 10), list(bytearray(buffer.value)))
    wait()
    os.close(reading)
    os.close(writing)


def _set_logging_handler():
    log, note = logger()
    signal.signal(SIGNUM, note)
    return log


def signal_makes_interruptible():
    log = _set_logging_handler()
    _read_while_a_signal_arrives()
    say(log)


def siginterrupt_false_restarts():
    log = _set_logging_handler()
    signal.siginterrupt(SIGNUM, False)
    _read_while_a_signal_arrives()
    say(log)


def siginterrupt_true_interrupts():
    log = _set_logging_handler()
    signal.siginterrupt(SIGNUM, False)
    signal.siginterrupt(SIGNUM, True)
    _read_while_a_signal_arrives()
    say(log)


def any_true_flag_interrupts():
    log = _set_logging_handler()
    signal.siginterrupt(SIGNUM, 0)
    signal.siginterrupt(SIGNUM, -5)
    _read_while_a_signal_arrives()
    say(log)


def signal_resets_to_interruptible():
    _set_logging_handler()
    signal.siginterrupt(SIGNUM, False)
    log = _set_logging_handler()
    _read_while_a_signal_arrives()
    say(log)


def siginterrupt_before_signal_is_reset():
    signal.siginterrupt(SIGNUM, False)
    log = _set_logging_handler()
    _read_while_a_signal_arrives()
    say(log)


def the_flag_stays_for_later_signals():
    log = _set_logging_handler()
    signal.siginterrupt(SIGNUM, False)
    _read_while_a_signal_arrives()
    _read_while_a_signal_arrives()
    say(log)


def the_flag_is_for_one_number():
    log = _set_logging_handler()
    signal.signal(signal.SIGUSR2, logger()[1])
    signal.siginterrupt(signal.SIGUSR2, False)
    _read_while_a_signal_arrives()
    say(log)


def getsignal_is_not_touched_by_the_flag():
    _set_logging_handler()
    for flag in (False, True):
        signal.siginterrupt(SIGNUM, flag)
        say(signal.getsignal(SIGNUM))
    signal.siginterrupt(signal.SIGUSR2, False)
    say(signal.getsignal(signal.SIGUSR2))


def an_ignored_signal_does_not_interrupt():
    signal.signal(SIGNUM, signal.SIG_IGN)
    _read_while_a_signal_arrives()


def a_handler_that_raises_ends_os_read():
    def handler(signum, frame):
        raise ValueError("enough")

    reading = os.pipe()[0]
    parent = os.getpid()

    def other_side():
        await_sleep(parent)
        os.kill(parent, SIGNUM)

    signal.signal(SIGNUM, handler)
    wait = child(other_side)
    try:
        os.read(reading, 1)
    except ValueError as error:
        say(error)
    say(wait())


def a_handler_that_raises_waits_for_a_restarted_read():
    def handler(signum, frame):
        raise ValueError("afterwards")

    reading, writing = os.pipe()
    parent = os.getpid()

    def other_side():
        await_sleep(parent)
        os.kill(parent, SIGNUM)
        await_sleep(parent)
        os.write(writing, b"!")

    signal.signal(SIGNUM, handler)
    signal.siginterrupt(SIGNUM, False)
    wait = child(other_side)
    try:
        os.read(reading, 1)
        safe_points()
    except ValueError as error:
        say(error)
    say(wait())
    import select

    say("the byte is taken:", select.select([reading], [], [], 0)[0])
