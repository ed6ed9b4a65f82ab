"""raise_system_exit() and can_set_handlers(): the ends of a program, and who may set handlers."""

import subprocess
import sys
import threading

import pytest

import programs
import sigwright as signal

PREAMBLE = "import os, sys, threading, time\nimport sigwright as signal\n"


def run(source: str, *arguments: object) -> str:
    return programs.succeed(PREAMBLE, source, arguments=arguments)


@pytest.mark.parametrize("how", ["signal", "add_handler"])
def test_term_ends_the_program_by_way_of_finally_and_atexit(how):
    code = (
        "import atexit, sys, sigwright as signal\n"
        "atexit.register(print, 'atexit')\n"
        "getattr(signal, sys.argv[1])(signal.SIGTERM, signal.raise_system_exit)\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    while True: signal.pause()\n"
        "finally:\n"
        "    print('finally')\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    assert program.communicate(timeout=20) == ("finally\natexit\n", "")
    assert program.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("signum", [1, signal.SIGTERM, signal.NSIG - 1])
def test_the_exit_status_is_a_plain_int(signum):
    with pytest.raises(SystemExit) as caught:
        signal.raise_system_exit(signum)
    assert caught.value.code == 128 + signum
    assert type(caught.value.code) is int


@pytest.mark.usefixtures("arrived")
def test_what_arrived_says_its_number_itself():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.raise_signal(signal.SIGUSR1)
    info = signal.sigwaitinfo([signal.SIGUSR1])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    with pytest.raises(SystemExit) as caught:
        signal.raise_system_exit(info)
    assert caught.value.code == 128 + signal.SIGUSR1


@pytest.mark.parametrize("signum", [0, -1, signal.NSIG])
def test_a_number_out_of_range_is_no_exit(signum):
    with pytest.raises(ValueError):
        signal.raise_system_exit(signum)


def test_the_answer_is_what_signal_would_do(arrived):
    assert signal.can_set_handlers() is True
    answers = []

    def worker():
        answers.append(signal.can_set_handlers())
        with pytest.raises(ValueError):
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    assert answers == [False]
    assert signal.getsignal(signal.SIGTERM) is handler  # asking changed nothing
    assert arrived == []


def test_the_worker_that_forks_is_the_childs_main_thread():
    out = run("""
        import warnings
        warnings.simplefilter("ignore")  # threads and fork: that is the question
        def worker():
            pid = os.fork()
            if pid == 0:
                os._exit(signal.can_set_handlers())
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), signal.can_set_handlers())
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
    """)
    assert out == "1 False\n"


def test_in_a_subinterpreter_nobody_can():
    out = run("""
        if sys.version_info >= (3, 13):
            import _interpreters as interpreters
        else:
            import _xxsubinterpreters as interpreters
        interpreter = interpreters.create()
        print(interpreters.run_string(interpreter, '''if True:
            import sigwright
            assert sigwright.can_set_handlers() is False
        '''))
        interpreters.destroy(interpreter)
        print(signal.can_set_handlers())
    """)
    assert out == "None\nTrue\n"


def test_at_exit_the_answer_is_still_true():
    out = run("""
        import atexit
        atexit.register(lambda: print(signal.can_set_handlers()))
    """)
    assert out == "True\n"
