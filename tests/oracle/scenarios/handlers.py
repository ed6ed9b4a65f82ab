"""Setting handlers, and what happens when they run."""

import functools
import os
import sys
import traceback

from stage import (
    attempt,
    attempt_type,
    child,
    hold,
    logger,
    release,
    safe_points,
    say,
    send,
    signal,
)


def signal_returns_the_previous_handler():
    def first(signum, frame):
        pass

    def second(signum, frame):
        pass

    for handler in (first, second, signal.SIG_IGN, signal.SIG_DFL, second, second, signal.SIG_DFL):
        say(signal.signal(signal.SIGUSR1, handler), "then", signal.getsignal(signal.SIGUSR1))


def getsignal_returns_the_very_object():
    handlers = [lambda signum, frame: None, logger()[1], [].append, int, functools.partial(max, 1)]
    for handler in handlers:
        signal.signal(signal.SIGHUP, handler)
        say(signal.getsignal(signal.SIGHUP) is handler)
    say(signal.signal(signal.SIGHUP, signal.SIG_DFL) is handlers[-1])


def handlers_are_kept_for_each_number():
    log, note = logger()
    for signum in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(signum, note)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    say([signal.getsignal(signum) for signum in (1, 12, 15, 10)])
    for signum in (15, 12, 1):
        send(signum)
    say(log)


def handler_gets_number_and_frame():
    def handler(signum, frame):
        say(signum, type(signum).__name__, type(frame).__name__, frame.f_code.co_name)
        say("frame is the caller's:", frame is sys._getframe().f_back)
        say("its locals:", "marker" in frame.f_locals or "marker" in frame.f_back.f_locals)

    def interrupted():
        marker = 1
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(1000):
            pass
        return marker

    signal.signal(signal.SIGUSR1, handler)
    interrupted()


def handler_in_pause_gets_the_callers_frame():
    def handler(signum, frame):
        say(signum, frame.f_code.co_name)

    def waiting():
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        signal.pause()

    signal.signal(signal.SIGALRM, handler)
    waiting()


def handler_stays_until_reset():
    log, note = logger()
    signal.signal(signal.SIGUSR1, note)
    for _ in range(5):
        send(signal.SIGUSR1)
    say(log, signal.getsignal(signal.SIGUSR1))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    send(signal.SIGUSR1)
    say(log)


def every_kind_of_callable_is_called():
    log = []

    def note(*args):
        log.append(args[-2])

    class Callable(object):
        def __init__(self, *args):
            if args:
                log.append("made with %d arguments" % len(args))

        def __call__(self, signum, frame):
            log.append("called")

        def method(self, signum, frame):
            log.append("method")

        @staticmethod
        def static(signum, frame):
            log.append("static")

        @classmethod
        def of_class(cls, signum, frame):
            log.append(cls.__name__)

    kinds = (
        lambda signum, frame: log.append("lambda"),
        Callable(),
        Callable().method,
        Callable.static,
        Callable.of_class,
        Callable,
        functools.partial(note, "more"),
    )
    for kind in kinds:
        signal.signal(signal.SIGUSR1, kind)
        send(signal.SIGUSR1)
    say(*log)


def what_a_handler_returns_is_ignored():
    for value in (None, 1, "text", NotImplemented, False):
        signal.signal(signal.SIGUSR1, lambda signum, frame, value=value: value)
        send(signal.SIGUSR1)
        say("went on")


def ignored_signals_do_nothing():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    send(signal.SIGUSR1)
    log, note = logger()
    hold(signal.SIGUSR1)
    send(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, note)
    release(signal.SIGUSR1)
    safe_points()
    say("held while it was ignored, caught when released:", log)


def default_action_kills():
    def die():
        signal.signal(signal.SIGUSR1, logger()[1])
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        send(signal.SIGUSR1)

    say(child(die)())


def default_action_of_sigchld_is_to_ignore():
    log, note = logger()
    signal.signal(signal.SIGCHLD, note)
    send(signal.SIGCHLD)
    say(signal.signal(signal.SIGCHLD, signal.SIG_DFL))
    send(signal.SIGCHLD)
    say(log)


def every_signal_that_may_be_caught_is():
    log, note = logger()
    for signum in range(1, signal.NSIG):
        try:
            signal.signal(signum, note)
        except RuntimeError as error:
            say(signum, error)
            continue
        del log[:]
        send(signum)
        say(signum, log, signal.signal(signum, signal.SIG_DFL), signal.getsignal(signum))


def every_signal_at_once():
    log, note = logger()
    signums = [n for n in range(1, signal.NSIG) if n not in (9, 19, 32, 33)]
    for signum in signums:
        signal.signal(signum, note)
    for signum in signums:
        send(signum)
    say(log == signums, len(log))


def exception_comes_out_where_the_program_is():
    def handler(signum, frame):
        raise IOError("Couldn't open device!")

    def working():
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(1000):
            pass
        say("not reached")

    signal.signal(signal.SIGUSR1, handler)
    for _ in range(3):
        try:
            working()
        except IOError as error:
            say(error, [entry[2] for entry in traceback.extract_tb(sys.exc_info()[2])])
    say(signal.getsignal(signal.SIGUSR1))


def exceptions_of_every_kind_pass():
    class OwnError(Exception):
        pass

    class Base(BaseException):
        pass

    for kind in (OwnError, Base, ValueError, OSError, SystemExit, KeyboardInterrupt, StopIteration):

        def handler(signum, frame, kind=kind):
            raise kind("said")

        signal.signal(signal.SIGUSR1, handler)
        try:
            send(signal.SIGUSR1)
        except BaseException as error:
            say(type(error) is kind, error.args)


def exception_runs_the_finally_blocks():
    def handler(signum, frame):
        raise ValueError("stop")

    signal.signal(signal.SIGTERM, handler)
    try:
        try:
            send(signal.SIGTERM)
            say("not reached")
        finally:
            say("finally")
    except ValueError:
        say("caught")
    else:
        say("not reached")


def uncaught_exception_ends_the_program():
    def handler(signum, frame):
        raise ValueError("boom")

    signal.signal(signal.SIGUSR1, handler)
    send(signal.SIGUSR1)
    say("not reached")


def exit_from_a_handler():
    import atexit

    atexit.register(say, "atexit ran")
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(7))
    try:
        send(signal.SIGTERM)
        say("not reached")
    finally:
        say("finally")


def handler_with_the_wrong_signature():
    for handler in (lambda: None, lambda signum: None, lambda a, b, c: None):
        signal.signal(signal.SIGUSR1, handler)
        attempt_type("sending", send, signal.SIGUSR1)


def handler_that_replaces_itself():
    def first(signum, frame):
        say("first", signal.signal(signum, second))

    def second(signum, frame):
        say("second", signal.signal(signum, signal.SIG_IGN))

    signal.signal(signal.SIGUSR1, first)
    for _ in range(3):
        send(signal.SIGUSR1)
    say(signal.getsignal(signal.SIGUSR1))


def handler_that_sends_another():
    log = []

    def outer(signum, frame):
        log.append("outer begins")
        os.kill(os.getpid(), signal.SIGUSR2)
        log.append("outer ends")

    # Whether the inner one runs inside the outer one is the interpreter's business, see classic.
    signal.signal(signal.SIGUSR1, outer)
    signal.signal(signal.SIGUSR2, lambda signum, frame: log.append("inner"))
    send(signal.SIGUSR1)
    say(*sorted(log))


def handler_inside_a_handler_that_pauses():
    def outer(signum, frame):
        say("outer begins")
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        signal.pause()
        say("outer ends")

    def inner(signum, frame):
        say("inner, called from", frame.f_code.co_name)

    signal.signal(signal.SIGUSR1, outer)
    signal.signal(signal.SIGALRM, inner)
    send(signal.SIGUSR1)


def exception_passes_through_an_outer_handler():
    def outer(signum, frame):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            signal.pause()
        finally:
            say("outer's finally")

    def inner(signum, frame):
        raise ValueError("from inside")

    signal.signal(signal.SIGUSR1, outer)
    signal.signal(signal.SIGALRM, inner)
    attempt("sending", send, signal.SIGUSR1)


def a_handler_that_sends_its_own_signal():
    log = []

    def handler(signum, frame):
        log.append(len(log))
        if len(log) < 5:
            os.kill(os.getpid(), signum)

    signal.signal(signal.SIGUSR1, handler)
    send(signal.SIGUSR1)
    say(log)


def several_at_once_run_in_order():
    log, note = logger()
    signums = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, 40, 50)
    for signum in signums:
        signal.signal(signum, note)
    hold(*signums)
    for signum in reversed(signums):
        os.kill(os.getpid(), signum)
    safe_points()
    say("while held:", log)
    release(*signums)
    safe_points()
    say(log)


def the_same_signal_merges_while_it_waits():
    log, note = logger()
    signal.signal(signal.SIGUSR1, note)
    hold(signal.SIGUSR1)
    for _ in range(10):
        send(signal.SIGUSR1)
    release(signal.SIGUSR1)
    safe_points()
    say(log)


def none_is_lost_behind_an_exception():
    log, note = logger()

    def failing(signum, frame):
        log.append(signum)
        raise ValueError("first")

    signums = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    signal.signal(signal.SIGHUP, failing)
    signal.signal(signal.SIGUSR1, note)
    signal.signal(signal.SIGUSR2, note)
    signal.signal(signal.SIGTERM, note)
    hold(*signums)
    for signum in signums:
        os.kill(os.getpid(), signum)
    try:
        release(*signums)
        safe_points()
    except ValueError as error:
        say(error)
    # When the others run is not the same; with one more signal at the latest, they all have.
    send(signal.SIGTERM)
    say(sorted(log))


def handler_changed_for_a_signal_behind():
    log, note = logger()

    def first(signum, frame):
        log.append(signum)
        signal.signal(signal.SIGUSR2, later)

    def later(signum, frame):
        log.append(-signum)

    signums = (signal.SIGUSR1, signal.SIGUSR2)
    signal.signal(signal.SIGUSR1, first)
    signal.signal(signal.SIGUSR2, note)
    for _ in range(2):
        hold(*signums)
        for signum in signums:
            os.kill(os.getpid(), signum)
        release(*signums)
        safe_points()
        say("arrived:", len(log))
        send(signal.SIGUSR2)
        say("the new handler's from now on:", log[-1])
        del log[:]


def a_handler_is_kept_alive():
    import gc
    import weakref

    def set_one():
        def handler(signum, frame):
            say("alive")

        signal.signal(signal.SIGUSR1, handler)
        return weakref.ref(handler)

    reference = set_one()
    gc.collect()
    send(signal.SIGUSR1)
    say(reference() is signal.getsignal(signal.SIGUSR1))
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    gc.collect()
    say("let go:", reference() is None)


def sigint_is_a_keyboard_interrupt():
    try:
        send(signal.SIGINT)
        say("not reached")
    except KeyboardInterrupt as error:
        say("KeyboardInterrupt", error.args)
    say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)


def sigint_overridden():
    log, note = logger()
    say(signal.signal(signal.SIGINT, note))
    send(signal.SIGINT)
    say(log, signal.signal(signal.SIGINT, signal.SIG_IGN))
    send(signal.SIGINT)
    say(log, signal.signal(signal.SIGINT, signal.default_int_handler))
    try:
        send(signal.SIGINT)
    except KeyboardInterrupt:
        say("KeyboardInterrupt")


def sigint_by_default_action():
    def die():
        say(signal.signal(signal.SIGINT, signal.SIG_DFL))
        send(signal.SIGINT)

    say(child(die)())


def default_int_handler_for_another_signal():
    say(signal.signal(signal.SIGTERM, signal.default_int_handler))
    try:
        send(signal.SIGTERM)
    except KeyboardInterrupt as error:
        say("KeyboardInterrupt", error.args)
    try:
        signal.default_int_handler(signal.SIGTERM, None)
    except KeyboardInterrupt as error:
        say("KeyboardInterrupt", error.args)


def sigpipe_is_ignored():
    reading, writing = os.pipe()
    os.close(reading)
    attempt("writing", os.write, writing, b"x")
    log, note = logger()
    say(signal.signal(signal.SIGPIPE, note))
    attempt("writing", os.write, writing, b"x")
    say(log)
