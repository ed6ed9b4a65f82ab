"""The wakeup fd: which bytes are written, when, and what is not reported."""

import os
import select

from stage import attempt, child, hold, logger, pipe, release, safe_points, say, send, signal


def _received(fd):
    try:
        return list(bytearray(os.read(fd, 4096)))
    except OSError:
        return []


def returns_the_old_fd():
    first, second = pipe()[1], pipe()[1]
    say(signal.set_wakeup_fd(-1))
    say(signal.set_wakeup_fd(first))
    say(signal.set_wakeup_fd(second) == first, signal.set_wakeup_fd(second) == second)
    say(signal.set_wakeup_fd(-1) == second, signal.set_wakeup_fd(-1))


def zero_bytes_are_written():
    reading, writing = pipe()
    log, note = logger()
    signal.set_wakeup_fd(writing)
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, 40):
        signal.signal(signum, note)
        send(signum)
        say(signum, _received(reading))
    for _ in range(3):
        send(signal.SIGUSR1)
    say(_received(reading), log)


def bytes_are_not_written_without_a_handler():
    reading, writing = pipe()
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    send(signal.SIGUSR1)
    send(signal.SIGCHLD)
    say(_received(reading))


def minus_one_ends_it():
    reading, writing = pipe()
    log, note = logger()
    signal.signal(signal.SIGUSR1, note)
    signal.set_wakeup_fd(writing)
    send(signal.SIGUSR1)
    signal.set_wakeup_fd(-1)
    send(signal.SIGUSR1)
    say(log, _received(reading))


def only_the_newest_fd_is_written_to():
    old, new = pipe(), pipe()
    signal.signal(signal.SIGUSR1, logger()[1])
    signal.set_wakeup_fd(old[1])
    signal.set_wakeup_fd(new[1])
    send(signal.SIGUSR1)
    say(_received(old[0]), _received(new[0]))


def signals_at_once_wake_at_least_once():
    reading, writing = pipe()
    log, note = logger()
    signal.set_wakeup_fd(writing)
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, note)
    hold(signal.SIGUSR1, signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    say("while held:", _received(reading))
    release(signal.SIGUSR1, signal.SIGUSR2)
    safe_points()
    # The document says a byte for each signal; 2.7.18 wrote one until the handlers had run.
    written = _received(reading)
    say(log, len(written) in (1, 2), not any(written))


def the_byte_comes_before_the_handler():
    reading, writing = pipe()
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGUSR1, lambda signum, frame: say("in the handler", _received(reading)))
    send(signal.SIGUSR1)
    say("after it", _received(reading))


def the_byte_is_written_though_the_handler_raises():
    def handler(signum, frame):
        raise ValueError("no")

    reading, writing = pipe()
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGUSR1, handler)
    for _ in range(2):
        attempt("sending", send, signal.SIGUSR1)
        say(_received(reading))


def keyboard_interrupt_writes_too():
    reading, writing = pipe()
    signal.set_wakeup_fd(writing)
    try:
        send(signal.SIGINT)
    except KeyboardInterrupt:
        say("KeyboardInterrupt")
    say(_received(reading))


def select_wakes():
    reading, writing = pipe()
    log, note = logger()
    signal.signal(signal.SIGALRM, note)
    signal.set_wakeup_fd(writing)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        select.select([reading], [], [], 60)
    except select.error as error:
        # Python 2 says EINTR, Python 3 looks again; the byte is there in both.
        if error.args[0] != 4:
            raise
    say(select.select([reading], [], [], 0)[0] == [reading], _received(reading), log)


def a_full_pipe_is_not_reported():
    writing = pipe()[1]
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except OSError:
        pass
    log, note = logger()
    signal.signal(signal.SIGUSR1, note)
    signal.set_wakeup_fd(writing)
    send(signal.SIGUSR1)
    send(signal.SIGUSR1)
    say(log, signal.set_wakeup_fd(-1) == writing)


def a_closed_fd_is_not_reported():
    writing = pipe()[1]
    log, note = logger()
    signal.signal(signal.SIGUSR1, note)
    signal.set_wakeup_fd(writing)
    os.close(writing)
    send(signal.SIGUSR1)
    say(log, signal.set_wakeup_fd(-1) == writing)


def a_reader_that_is_gone_is_not_reported():
    reading, writing = pipe()
    log, note = logger()
    signal.signal(signal.SIGUSR1, note)
    signal.set_wakeup_fd(writing)
    os.close(reading)
    send(signal.SIGUSR1)
    say(log)


def whether_it_blocks_is_not_checked():
    reading, writing = os.pipe()
    signal.signal(signal.SIGUSR1, logger()[1])
    say(signal.set_wakeup_fd(writing))
    send(signal.SIGUSR1)
    say(_received(reading))


def a_refused_fd_leaves_the_old_one():
    reading, writing = pipe()
    gone = os.dup(writing)
    os.close(gone)
    signal.signal(signal.SIGUSR1, logger()[1])
    signal.set_wakeup_fd(writing)
    attempt("closed", signal.set_wakeup_fd, gone)
    send(signal.SIGUSR1)
    say(_received(reading), signal.set_wakeup_fd(-1) == writing)


def a_forked_child_writes_to_the_same():
    reading, writing = pipe()
    signal.signal(signal.SIGUSR1, logger()[1])
    signal.set_wakeup_fd(writing)
    say(child(lambda: send(signal.SIGUSR1))(), _received(reading))
