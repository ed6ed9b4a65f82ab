"""Signals across fork, exec and the end of children."""

import os
import sys

from stage import (
    IMPORT,
    attempt,
    await_sleep,
    child,
    logger,
    safe_points,
    say,
    send,
    signal,
    until,
)


def _new_program(code, before=lambda: None):
    """Have a child become a new Python, one that has `signal` and runs the code."""
    program = IMPORT + "\nimport os, sys\n" + code

    def become():
        before()
        os.execv(sys.executable, [sys.executable, "-c", program])

    return child(become)()


def sigchld_when_a_child_ends():
    log, note = logger()
    signal.signal(signal.SIGCHLD, note)
    wait = child(lambda: None)
    until(lambda: log)
    say(log, wait())
    say(signal.getsignal(signal.SIGCHLD))


def sigchld_handler_may_wait_for_the_child():
    ended = []

    def handler(signum, frame):
        ended.append(os.WEXITSTATUS(os.waitpid(-1, os.WNOHANG)[1]))

    signal.signal(signal.SIGCHLD, handler)
    child(lambda: os._exit(3))
    until(lambda: ended)
    child(lambda: os._exit(4))
    until(lambda: len(ended) == 2)
    say(ended)


def sigchld_ignored_leaves_nothing_to_wait_for():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    wait = child(lambda: None)
    attempt("wait", wait)


def a_forked_child_has_the_handlers():
    def handler(signum, frame):
        say("handler in the", "parent" if os.getpid() == parent else "child")

    def check():
        say(signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2))
        send(signal.SIGUSR1)
        send(signal.SIGUSR2)

    parent = os.getpid()
    signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    say(child(check)())
    send(signal.SIGUSR1)


def a_forked_childs_changes_are_its_own():
    def change():
        say(signal.signal(signal.SIGUSR1, signal.SIG_DFL))
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        send(signal.SIGUSR1)

    log, note = logger()
    signal.signal(signal.SIGUSR1, note)
    say(child(change)())
    say(signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2))
    send(signal.SIGUSR1)
    say(log)


def a_forked_child_has_no_timers():
    def check():
        say([signal.getitimer(which) for which in (0, 1, 2)], signal.alarm(0))

    for which in (0, 1, 2):
        signal.setitimer(which, 1000, 5)
    say(child(check)())
    say([signal.getitimer(which)[1] for which in (0, 1, 2)])


def a_forked_child_catches_its_own_signals():
    log, note = logger()
    signal.signal(signal.SIGUSR1, note)

    def check():
        for _ in range(3):
            send(signal.SIGUSR1)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        signal.signal(signal.SIGALRM, note)
        until(lambda: len(log) == 4)
        say(log)

    say(child(check)(), "parent:", log)


def a_child_forked_in_a_thread_is_all_main():
    import threading

    log, note = logger()

    def fork_here():
        say(child(check)())

    def check():
        attempt("signal", signal.signal, signal.SIGUSR1, note)
        send(signal.SIGUSR1)
        say(log, signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=fork_here)
    thread.start()
    thread.join()


def a_child_forked_in_a_handler():
    def handler(signum, frame):
        say("handler", child(in_child)())

    def in_child():
        signal.signal(signal.SIGUSR2, logger()[1])
        os.kill(os.getpid(), signal.SIGUSR2)
        safe_points()
        say("child set", signal.getsignal(signal.SIGUSR2))

    signal.signal(signal.SIGUSR1, handler)
    send(signal.SIGUSR1)


def a_child_sends_to_its_parent():
    log, note = logger()
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, note)
    parent = os.getpid()

    def sender():
        os.kill(parent, signal.SIGUSR2)

    say(child(sender)())
    until(lambda: log)
    say(log)


def exec_keeps_what_is_ignored_and_resets_handlers():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, logger()[1])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    say(
        _new_program(
            "print([signal.getsignal(n) for n in (1, 10, 12, 13)])\n"
            "os.kill(os.getpid(), signal.SIGHUP)\n"
            "print(signal.signal(signal.SIGHUP, signal.SIG_DFL))\n"
            "sys.exit(5)"
        )
    )


def an_inherited_ignored_sigint_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say(
        _new_program(
            "print(signal.getsignal(signal.SIGINT))\n"
            "os.kill(os.getpid(), signal.SIGINT)\n"
            "print(signal.signal(signal.SIGINT, signal.default_int_handler))\n"
            "try:\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "    for _ in range(1000): pass\n"
            "except KeyboardInterrupt: print('KeyboardInterrupt')"
        )
    )


def an_inherited_handler_for_sigint_is_replaced():
    signal.signal(signal.SIGINT, logger()[1])
    say(_new_program("print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"))


def exec_keeps_the_alarm():
    say(_new_program("print(900 < signal.alarm(0) <= 1000)", before=lambda: signal.alarm(1000)))


def death_by_a_signal_is_seen_by_the_parent():
    for signum in (signal.SIGTERM, signal.SIGKILL, signal.SIGALRM, signal.SIGHUP, 40):
        say(child(lambda signum=signum: send(signum))())


def pause_returns_after_the_handler():
    log, note = logger()
    signal.signal(signal.SIGALRM, note)
    for _ in range(3):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        say(signal.pause(), log)


def pause_ends_by_the_handlers_exception():
    def handler(signum, frame):
        raise IOError("Couldn't open device!")

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    attempt("pause", signal.pause)


def pause_ends_by_a_keyboard_interrupt():
    parent = os.getpid()

    def sender():
        await_sleep(parent)
        os.kill(parent, signal.SIGINT)

    wait = child(sender)
    try:
        signal.pause()
    except KeyboardInterrupt:
        say("KeyboardInterrupt")
    say(wait())


def pause_sleeps_through_ignored_signals():
    parent = os.getpid()
    log, note = logger()

    def sender():
        for signum in (signal.SIGUSR1, signal.SIGHUP):
            await_sleep(parent)
            os.kill(parent, signum)

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, note)
    wait = child(sender)
    say(signal.pause(), log, wait())


def a_stopped_child_goes_on():
    log, note = logger()
    signal.signal(signal.SIGCONT, note)

    def check():
        until(lambda: log)
        say("went on", log)

    wait = child(check)
    await_sleep(wait.pid)
    os.kill(wait.pid, signal.SIGSTOP)
    say("stopped", os.WSTOPSIG(os.waitpid(wait.pid, os.WUNTRACED)[1]))
    os.kill(wait.pid, signal.SIGCONT)
    say(wait())
