"""Signals and threads: who may do what, and where handlers run."""

import ctypes
import os
import threading

from stage import attempt, libc, logger, pipe, say, send, signal, until


def _in_a_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


def signal_only_in_the_main_thread():
    note = logger()[1]
    for handler in (note, signal.SIG_IGN, signal.SIG_DFL):
        _in_a_thread(attempt, "in a thread", signal.signal, signal.SIGUSR1, handler)
    say(signal.getsignal(signal.SIGUSR1))
    attempt("in the main thread", signal.signal, signal.SIGUSR1, note)


def set_wakeup_fd_only_in_the_main_thread():
    writing = pipe()[1]
    for fd in (writing, -1):
        _in_a_thread(attempt, "in a thread", signal.set_wakeup_fd, fd)
    attempt("in the main thread", signal.set_wakeup_fd, writing)


def the_thread_is_the_first_complaint():
    _in_a_thread(attempt, "range", signal.signal, 0, signal.SIG_DFL)
    _in_a_thread(attempt, "handler", signal.signal, signal.SIGUSR1, None)
    _in_a_thread(attempt, "refused", signal.signal, signal.SIGKILL, signal.SIG_DFL)
    _in_a_thread(attempt, "fd", signal.set_wakeup_fd, 9999999)
    _in_a_thread(attempt, "type", signal.signal, "x", signal.SIG_DFL)
    _in_a_thread(attempt, "type", signal.set_wakeup_fd, "x")


def the_rest_in_any_thread():
    note = logger()[1]
    signal.signal(signal.SIGUSR1, note)
    _in_a_thread(attempt, "getsignal", signal.getsignal, signal.SIGUSR1)
    _in_a_thread(attempt, "siginterrupt", signal.siginterrupt, signal.SIGUSR1, False)
    _in_a_thread(attempt, "alarm", signal.alarm, 0)
    _in_a_thread(attempt, "setitimer", signal.setitimer, signal.ITIMER_REAL, 0)
    _in_a_thread(attempt, "getitimer", signal.getitimer, signal.ITIMER_PROF)


def alarm_set_in_a_thread_runs_in_the_main_one():
    log = []
    main = threading.current_thread()
    signal.signal(
        signal.SIGALRM, lambda signum, frame: log.append(threading.current_thread() is main)
    )
    _in_a_thread(signal.setitimer, signal.ITIMER_REAL, 0.05)
    until(lambda: log)
    say("in the main thread:", log)


def a_signal_sent_by_a_thread_runs_in_the_main_one():
    log = []
    main = threading.current_thread()
    signal.signal(
        signal.SIGUSR1, lambda signum, frame: log.append(threading.current_thread() is main)
    )
    _in_a_thread(send, signal.SIGUSR1)
    until(lambda: log)
    say("in the main thread:", log)


def a_signal_that_lands_on_a_thread_runs_in_the_main_one():
    log = []
    main = threading.current_thread()
    signal.signal(
        signal.SIGUSR1, lambda signum, frame: log.append(threading.current_thread() is main)
    )
    done = []

    def target():
        libc.pthread_kill(ctypes.c_ulong(threading.current_thread().ident), signal.SIGUSR1)
        until(lambda: log)
        done.append(True)

    _in_a_thread_that_the_main_one_watches(target, done)
    say("in the main thread:", log)


def _in_a_thread_that_the_main_one_watches(target, done):
    """Not join(), which keeps 2.7's main thread from its handlers."""
    thread = threading.Thread(target=target)
    thread.start()
    until(lambda: done)
    thread.join()


def signals_while_threads_work():
    log, note = logger()
    stop = []

    def work():
        while not stop:
            sum(range(100))

    signal.signal(signal.SIGUSR1, note)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for count in range(1, 6):
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda count=count: len(log) == count)
    stop.append(True)
    for thread in threads:
        thread.join()
    say(log)


def keyboard_interrupt_goes_to_the_main_thread():
    quiet = []

    def other():
        try:
            until(lambda: quiet)
            say("the other thread saw nothing")
        except KeyboardInterrupt:
            say("in the wrong thread")

    thread = threading.Thread(target=other)
    thread.start()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: False)
    except KeyboardInterrupt:
        say("KeyboardInterrupt in", type(threading.current_thread()).__name__)
    quiet.append(True)
    thread.join()


def pause_in_a_thread():
    log = []
    main = threading.current_thread()
    signal.signal(
        signal.SIGUSR1, lambda signum, frame: log.append(threading.current_thread() is main)
    )
    returned = []
    thread = threading.Thread(target=lambda: returned.append(signal.pause()))
    thread.start()
    while not returned:  # the first ones may come before it sleeps
        libc.pthread_kill(ctypes.c_ulong(thread.ident), signal.SIGUSR1)
        threading.Event().wait(0.01)
    thread.join()
    until(lambda: log)
    say("pause returned", returned, "handlers in the main thread:", all(log))
