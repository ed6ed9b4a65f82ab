"""force_exit(): a program that is stuck ends; and no other one does."""

import contextlib
import errno
import functools
import itertools
import math
import os
import re
import select
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import programs
import sigwright as signal
from sigwright import ForceExit, force_exit

GRACE = 0.2
# Within grace + 0.2 s on an idle machine, as the example shows. Here only: it ends, by far before
# the program would by itself, which is never.
SOON = 30

COMPILER = os.environ.get("CC", "cc").split()

# What a program says and gets stuck in comes from C code, with no step of the interpreter in
# between: after "stuck" no handler can run. (`map` calls functions of C from C.)
PREAMBLE = """
import ctypes, collections, itertools, math, os, sys, threading, time
import sigwright as signal
from sigwright import force_exit
holding, letting_go = ctypes.PyDLL(None), ctypes.CDLL(None)  # the GIL
def say(word):
    line = word.encode() + b"\\n"
    return map(holding.write, [1], [line], [len(line)])
def in_c(*iterators):
    collections.deque(itertools.chain(*iterators), maxlen=0)
def stuck():
    in_c(say("stuck"), itertools.repeat(None))
def answer(signum, frame):
    os.write(1, b"answered\\n")
"""


@dataclass
class Ended:
    status: int  # as subprocess has it
    said: str
    stderr: str
    seconds: float  # from the first signal on


class Program:
    """A program that runs meanwhile; what it says comes line by line."""

    def __init__(self, *parts, command=(sys.executable,), **keywords):
        source = "\n".join(textwrap.dedent(part) for part in (PREAMBLE, *parts))
        self.process = subprocess.Popen(
            [*command, "-c", source],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=programs.as_from_a_shell,
            **keywords,
        )
        self.first = None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def line(self):
        """What it says next."""
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([self.process.stdout], [], [], SOON)
            assert readable, "it says nothing"
            byte = os.read(self.process.stdout.fileno(), 1)
            assert byte, self.process.communicate()[1].decode()
            line += byte
        return line.decode().strip()

    def kill(self, signum, pid=None):
        if self.first is None:
            self.first = time.monotonic()
        os.kill(self.process.pid if pid is None else pid, signum)

    def runs(self, seconds):
        """For so long, at least, it does not end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is None

    def end(self):
        said, stderr = self.process.communicate(timeout=SOON)
        seconds = time.monotonic() - (self.first or 0)
        return Ended(self.process.returncode, said.decode(), stderr.decode(), seconds)


def ended(*parts, signum=signal.SIGTERM, **keywords):
    """A program that says that it is stuck, gets a signal, and ends."""
    with Program(*parts, **keywords) as program:
        assert program.line() == "stuck"
        program.kill(signum)
        return program.end()


def assert_forced(end, signum=signal.SIGTERM, grace=GRACE, status=None, stack="in <module>"):
    """It was ended in due time, by the watch, which said so and showed where it was."""
    assert end.status == (-signum if status is None else status), end
    assert end.seconds >= grace
    how = "by it" if status is None or status > 128 else f"with exit status {status}"
    assert re.match(
        rf"sigwright: {signum.name}.* was not answered for \d+\.\d\d s: "
        rf"the process ends {how}\n",
        end.stderr,
    ), end
    assert "(most recent call first):" in end.stderr
    assert stack in end.stderr
    assert end.said == ""


def status_of(pid, field):
    text = Path(f"/proc/{pid}/status").read_text()
    return re.search(rf"^{field}:\s*(\S+)", text, re.MULTILINE)[1]


# In this process no stacks: they take a third hidden signal, and other tests count those.
quiet = functools.partial(force_exit, dump=False)


# --- stuck programs ------------------------------------------------------------------------------

ANSWERING = "signal.signal(signal.SIGTERM, answer)"
ARMED = f"""
{ANSWERING}
watch = force_exit(grace={GRACE})
"""

WAYS = {
    "in C code that holds the GIL": "in_c(say('stuck'), itertools.repeat(None))",
    "in a long sum": "sum(itertools.chain(say('stuck'), range(10**12)))",
    "in C code without the GIL": (
        "in_c(say('stuck'), map(letting_go.usleep, itertools.repeat(100_000)))"
    ),
    "in a deadlock that holds the GIL": """
        mutex = ctypes.create_string_buffer(64)
        in_c(say("stuck"), map(holding.pthread_mutex_lock, [mutex, mutex]))
        """,
    "in a deadlock without the GIL": """
        mutex = ctypes.create_string_buffer(64)
        in_c(say("stuck"), map(letting_go.pthread_mutex_lock, [mutex, mutex]))
        """,
    "without memory": """
        import resource
        calls = say("stuck"), itertools.repeat(None)
        holding.malloc.restype = ctypes.c_void_p
        resource.setrlimit(resource.RLIMIT_AS, (0, 0))
        for size in (1 << 24, 1 << 16, 1 << 12):  # a little, for the next line
            while holding.malloc(size): pass
        in_c(*calls)
        """,
    "without file descriptors": """
        os.closerange(3, 1000)
        while True:
            try: os.open("/dev/null", os.O_RDONLY)
            except OSError: break
        stuck()
        """,
    "with a worker that holds the GIL": """
        threading.Thread(target=stuck).start()
        while True: time.sleep(1)
        """,
    "in a thread pool": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(3) as pool:
            pool.submit(time.sleep, 0.01)
            pool.submit(stuck).result()
        """,
    "at the interpreter's exit": """
        import atexit
        atexit.register(stuck)
        sys.exit(0)
        """,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_is_stuck_ends_with_its_stacks_by_the_signal(way):
    if way == "without memory" and "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer itself ends a program that has no memory left")
    end = ended(ARMED, WAYS[way])
    where = {
        "with a worker that holds the GIL": "in stuck",
        "in a thread pool": "in stuck",
        "at the interpreter's exit": "in stuck",
    }
    assert_forced(end, stack=where.get(way, "in <module>"))


@pytest.fixture(scope="module")
def full_stack(tmp_path_factory):
    """C functions that fill the stack of their thread, and stay there, or go beyond its end."""
    if shutil.which(COMPILER[0]) is None:
        pytest.skip("to fill a stack to the last page takes C, and there is no compiler")
    folder = tmp_path_factory.mktemp("full_stack")
    source = folder / "full_stack.c"
    source.write_text("""
        #define _GNU_SOURCE
        #include <pthread.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static void fill(const char *end) {
            volatile char frame[64] = {0};
            if ((const char *)frame - end > 512) {
                fill(end); /* no room for a signal's frame is left */
            } else {
                if (syscall(SYS_write, 1, "stuck\\n", 6) == 6) for (;;) frame[1]++;
            }
            frame[0]++;
        }
        int overflow(int depth) {
            volatile char frame[64] = {0};
            frame[depth % 64] = 1;
            return overflow(depth + 1) + frame[(depth + 1) % 64];
        }
        void fill_stack(void) {
            pthread_attr_t attributes;
            void *end;
            size_t size;
            pthread_getattr_np(pthread_self(), &attributes);
            pthread_attr_getstack(&attributes, &end, &size);
            fill(end);
        }
    """)
    library = folder / "full_stack.so"
    options = ["-std=gnu11", "-shared", "-fPIC", "-O1", "-fno-optimize-sibling-calls", "-pthread"]
    subprocess.run([*COMPILER, *options, str(source), "-o", str(library)], check=True)
    return library


@pytest.mark.parametrize("armed_in", ["main thread", "worker"])
def test_a_signal_that_finds_the_main_stack_full_is_not_a_segmentation_fault(full_stack, armed_in):
    arm = {
        "main thread": "arm()",
        # Its alternate stack is the main thread's own affair: it sees to it at its next safe point.
        "worker": "t = threading.Thread(target=arm); t.start(); t.join(); time.sleep(0)",
    }
    end = ended(
        f"""
        def arm(): force_exit(signal.SIGTERM, grace={GRACE})
        signal.signal(signal.SIGTERM, answer)
        {arm[armed_in]}
        ctypes.CDLL({str(full_stack)!r}).fill_stack()
        """
    )
    assert_forced(end)


def test_without_a_watch_it_is_one(full_stack):
    """The test above proves something."""
    end = ended(f"""
        signal.signal(signal.SIGTERM, answer)
        ctypes.CDLL({str(full_stack)!r}).fill_stack()
    """)
    assert end.status == -signal.SIGSEGV


def test_a_stack_that_overflows_is_told_of_with_the_stacks(full_stack):
    """What handles a real fault needs a stack to run on, too."""
    with Program(f"""
        force_exit(grace=5)
        signal.signal(signal.SIGSEGV, answer)
        ctypes.CDLL({str(full_stack)!r}).overflow(0)
    """) as program:
        end = program.end()
    assert end.status == -signal.SIGSEGV
    assert end.stderr.startswith("sigwright: SIGSEGV at address 0x")
    assert "in <module>" in end.stderr


@pytest.mark.parametrize("handler", ["answer", "signal.SIG_DFL"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_program_that_blocks_all_signals_ends(handler, threads):
    end = ended(f"""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        signal.signal(signal.SIGTERM, {handler})
        force_exit(signal.SIGTERM, grace={GRACE})
        for _ in range({threads - 1}):
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        in_c(say("stuck"))
        while True: time.sleep(1000)
    """)
    assert_forced(end)
    assert " is blocked, and was not answered" in end.stderr


def test_a_program_that_is_stuck_in_its_handler_ends_at_the_next_signal():
    with Program(f"""
        def handler(signum, frame):
            stuck()
        signal.signal(signal.SIGTERM, handler)
        force_exit(grace={GRACE})
        in_c(say("ready"))
        while True: time.sleep(1000)
    """) as program:
        assert program.line() == "ready"
        program.kill(signal.SIGTERM)
        assert program.line() == "stuck"
        assert program.runs(GRACE + 0.5)  # it was answered: a handler has started
        program.first = None
        program.kill(signal.SIGTERM)
        assert_forced(program.end(), stack="in handler")


def test_ctrl_c_that_is_not_answered_by_the_default_handler_ends_it():
    end = ended(f"force_exit(grace={GRACE}); stuck()", signum=signal.SIGINT)
    assert_forced(end, signal.SIGINT)


@pytest.mark.parametrize(
    "signum", [signal.SIGHUP, signal.SIGALRM, signal.SIGQUIT, signal.Signals.SIGRTMIN]
)
def test_any_signal_can_be_watched(signum):
    end = ended(
        f"""
        signal.signal({int(signum)}, answer)
        force_exit({int(signum)}, grace={GRACE})
        stuck()
        """,
        signum=signum,
    )
    assert_forced(end, signum)


def test_a_signal_whose_default_does_not_end_a_process_ends_it_with_128_and_its_number():
    for signum in (signal.SIGCHLD, signal.SIGTSTP):
        end = ended(
            f"""
            signal.signal({int(signum)}, answer)
            force_exit({int(signum)}, grace={GRACE})
            stuck()
            """,
            signum=signum,
        )
        assert end.status == 128 + signum, end


def test_an_exit_code_is_the_exit_status():
    end = ended(f"{ARMED}\nforce_exit(grace=0.1, exit_code=7); stuck()")
    assert_forced(end, grace=0.1, status=7)
    assert_forced(ended(f"{ARMED}\nforce_exit(grace=0, exit_code=0); stuck()"), grace=0, status=0)


def test_without_dump_there_is_one_line():
    end = ended(f"""
        signal.signal(signal.SIGTERM, answer)
        force_exit(grace={GRACE}, dump=False)
        stuck()
    """)
    assert end.status == -signal.SIGTERM
    assert end.stderr.count("\n") == 1
    assert end.stderr.startswith("sigwright: SIGTERM was not answered for 0.")


def test_the_stacks_of_all_threads_are_there():
    end = ended(
        ARMED,
        """
        def waiting_in_vain():
            with ready: ready.notify()
            threading.Event().wait()
        ready = threading.Condition()
        with ready:
            threading.Thread(target=waiting_in_vain).start()
            ready.wait()
        stuck()
        """,
    )
    assert_forced(end, stack="in waiting_in_vain")
    assert "in stuck" in end.stderr


def test_a_stderr_that_nobody_reads_does_not_keep_it_alive():
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(65536))
    os.set_blocking(write, True)
    with Program(ARMED, f"os.dup2({write}, 2); stuck()", pass_fds=[write]) as program:
        assert program.line() == "stuck"
        program.kill(signal.SIGTERM)
        assert program.end().status == -signal.SIGTERM
    os.close(read)
    os.close(write)


def test_a_closed_stderr_does_not_keep_it_alive():
    assert ended(ARMED, "os.close(2); stuck()").status == -signal.SIGTERM


def test_under_sigwright_run_with_the_stdlibs_module():
    end = ended(
        f"""
        import signal as stdlib
        stdlib.signal(stdlib.SIGTERM, answer)
        signal.force_exit(grace={GRACE})
        stuck()
        """,
        command=(sys.executable, "-m", "sigwright.cli", "run"),
    )
    assert_forced(end)


# --- presses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("presses", [2, 3])
def test_the_given_press_ends_it_and_none_before(presses):
    with Program(f"force_exit(grace=math.inf, presses={presses}); stuck()") as program:
        assert program.line() == "stuck"
        for _ in range(presses - 1):
            program.kill(signal.SIGINT)
            assert program.runs(0.3)
        program.kill(signal.SIGINT)
        end = program.end()
    assert end.status == -signal.SIGINT
    assert end.stderr.startswith(f"sigwright: SIGINT came {presses} times, and was not answered")


def test_presses_of_two_signals_are_not_added_up():
    with Program("force_exit(grace=math.inf, presses=2)", ANSWERING, "stuck()") as program:
        assert program.line() == "stuck"
        program.kill(signal.SIGTERM)
        time.sleep(0.1)
        program.kill(signal.SIGINT)
        assert program.runs(0.5)
        program.kill(signal.SIGTERM)
        assert program.end().status == -signal.SIGTERM


def test_one_ctrl_c_that_a_wrapper_delivers_twice_is_one_press():
    with Program("force_exit(grace=math.inf, presses=2); stuck()") as program:
        assert program.line() == "stuck"
        for _ in range(20):  # a key that is held down, too
            program.kill(signal.SIGINT)
            began = time.monotonic()
            program.kill(signal.SIGINT)
            if time.monotonic() - began > 0.03:
                pytest.skip("this machine is too busy to press twice within 30 ms")
        assert program.runs(0.4)


def test_an_answer_starts_the_count_again():
    with Program("""
        signal.signal(signal.SIGINT, answer)
        force_exit(grace=math.inf, presses=2)
        in_c(say("ready"))
        for line in iter(sys.stdin.readline, ""):
            stuck()
    """, stdin=subprocess.PIPE) as program:  # fmt: skip
        assert program.line() == "ready"
        for _ in range(5):
            time.sleep(0.06)
            program.kill(signal.SIGINT)
            assert program.line() == "answered"
        program.process.stdin.write(b"\n")
        program.process.stdin.flush()
        assert program.line() == "stuck"
        time.sleep(0.06)
        program.kill(signal.SIGINT)
        assert program.runs(0.3)
        program.kill(signal.SIGINT)
        assert program.end().status == -signal.SIGINT


# --- it does not fire by mistake -----------------------------------------------------------------


def lives(*parts, signum=signal.SIGTERM, seconds=0.8, **keywords):
    """A program that says it is ready gets a signal, and goes on."""
    with Program(*parts, **keywords) as program:
        assert program.line() == "ready"
        program.kill(signum)
        assert program.runs(seconds), program.end()
        program.process.kill()
        return program.end().said


READY = "in_c(say('ready'))\n"
WAIT = "while True: time.sleep(0.05)\n"


def test_a_handler_that_has_started_in_time_may_take_long():
    said = lives(
        """
        def handler(signum, frame):
            answer(signum, frame)
            time.sleep(1000)
        signal.signal(signal.SIGTERM, handler)
        force_exit(grace=0.4)
        """,
        READY,
        WAIT,
    )
    assert said == "answered\n"


def test_a_late_answer_is_one():
    said = lives(
        """
        signal.signal(signal.SIGTERM, answer)
        force_exit(grace=5)
        in_c(say("ready"), itertools.takewhile(lambda _: time.sleep(0.3), [0]))
        """,
        WAIT,
    )
    assert said == "answered\n"


def test_what_a_listener_reads_is_answered():
    lives(
        """
        force_exit(grace=0.4)
        def read():
            for _ in listener: answer(0, None)
        listener = signal.listen(signal.SIGTERM)
        threading.Thread(target=read).start()
        """,
        READY,
        "letting_go.usleep(900_000)\n" * 5,
    )


def test_what_a_listener_does_not_read_is_not():
    end = ended(f"listener = signal.listen(signal.SIGTERM); force_exit(grace={GRACE})", "stuck()")
    assert_forced(end)


@pytest.mark.parametrize("thread", [False, True])
def test_an_added_handler_answers(thread):
    busy = "letting_go.usleep(900_000)\n" * 5 if thread else WAIT
    said = lives(
        f"""
        force_exit(grace=0.4)
        signal.add_handler(signal.SIGTERM, lambda info: answer(0, None), thread={thread})
        """,
        READY,
        busy,
    )
    assert said == "answered\n"


def test_an_added_handler_that_does_not_start_does_not_answer():
    end = ended(f"""
        force_exit(grace={GRACE})
        signal.add_handler(signal.SIGTERM, lambda info: answer(0, None))
        stuck()
    """)
    assert_forced(end)


def test_a_deferred_section_answers_though_it_is_longer_than_the_grace():
    said = lives(
        """
        force_exit(grace=0.4)
        signal.signal(signal.SIGTERM, answer)
        with signal.deferred():
            in_c(say("ready"))
            while True: time.sleep(0.05)
        """,
    )
    assert said == ""


def test_an_ignored_signal_is_left_alone_and_watched_when_a_handler_is_set():
    with Program(f"""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        force_exit(grace={GRACE})
        in_c(say("ready"))
        sys.stdin.readline()
        signal.signal(signal.SIGTERM, answer)
        stuck()
    """, stdin=subprocess.PIPE) as program:  # fmt: skip
        assert program.line() == "ready"
        program.kill(signal.SIGTERM)
        assert program.runs(GRACE + 0.3)
        program.process.stdin.write(b"\n")
        program.process.stdin.flush()
        assert program.line() == "stuck"
        assert program.runs(GRACE + 0.3)  # what came before is over
        program.first = None
        program.kill(signal.SIGTERM)
        assert_forced(program.end())


def test_an_ignored_signal_that_is_blocked_is_left_alone():
    lives(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        force_exit(grace=0.4)
        """,
        READY,
        WAIT,
    )


def test_where_there_is_no_handler_the_kernel_acts_at_once_and_nothing_is_written():
    end = ended("force_exit(grace=1000); stuck()")
    assert (end.status, end.stderr) == (-signal.SIGTERM, "")


def test_a_thread_that_waits_for_blocked_signals_answers():
    """The classical pattern: every thread blocks them, and one takes them with sigwait()."""
    said = lives(
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        force_exit(grace=0.4)
        def wait():
            while signal.sigwait([signal.SIGTERM]): answer(0, None)
        threading.Thread(target=wait).start()
        """,
        READY,
        "letting_go.usleep(900_000)\n" * 5,
    )
    assert said == "answered\n"


@pytest.mark.parametrize("discard", [False, True])
def test_what_a_closed_listener_had_not_read_does_not_fire_later(discard):
    """It is thrown away, or it comes again, to a handler that answers it."""
    lives(
        f"""
        force_exit(grace=0.4)
        listener = signal.listen(signal.SIGTERM)
        in_c(say("ready"))
        while not listener.qsize(): time.sleep(0.01)
        signal.signal(signal.SIGTERM, signal.SIG_IGN if {discard} else answer)
        listener.close(discard={discard})
        signal.signal(signal.SIGTERM, answer)
        """,
        WAIT,
    )


def test_cancelled_in_time_it_does_not_fire():
    with Program(
        ARMED,
        """
        in_c(say("ready"), map(letting_go.usleep, [200_000]))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        """,
        "in_c(say('cancelled')) if not watch.cancel() and not watch.active else None",
        "stuck()",
    ) as program:
        assert program.line() == "ready"
        assert program.line() == "cancelled"
        assert program.line() == "stuck"
        program.kill(signal.SIGTERM)
        assert program.runs(GRACE + 0.4)


def test_cancelled_while_the_time_runs_it_does_not_fire():
    with Program(
        """
        signal.signal(signal.SIGTERM, answer)
        watch = force_exit(grace=0.4)
        def cancel():
            sys.stdin.readline()
            watch.cancel()
        threading.Thread(target=cancel, daemon=True).start()
        in_c(say("stuck"), map(letting_go.usleep, itertools.repeat(10_000)))
        """,
        stdin=subprocess.PIPE,
    ) as program:
        assert program.line() == "stuck"
        program.kill(signal.SIGTERM)
        program.process.stdin.write(b"\n")
        program.process.stdin.flush()
        if time.monotonic() - program.first > 0.4:
            pytest.skip("this machine is too busy to cancel within the grace")
        assert program.runs(0.9)


@pytest.mark.parametrize("until", [False, True])
def test_a_stopped_process_gets_its_time_when_it_goes_on(until):
    """Ctrl+Z, a debugger, a paused container: nobody could have answered."""
    with Program(
        ANSWERING,
        f"until = {until}",
        """
        force_exit(grace=0.7)
        if until:
            at = time.monotonic_ns() + 700_000_000
            number = signal._engine.watch_until(at, signal.SIGTERM, -1, True)
        in_c(say("stuck"), map(letting_go.usleep, itertools.repeat(10_000, 20)))
        if until:
            signal._engine.unwatch(number)
        while True: time.sleep(0.05)
        """,
    ) as program:
        assert program.line() == "stuck"
        program.kill(signal.SIGTERM)
        program.kill(signal.SIGSTOP)
        until_state(program.process.pid, "T")
        time.sleep(1)  # longer than the grace
        program.kill(signal.SIGCONT)
        assert program.line() == "answered"
        assert program.runs(0.9)


def until_state(pid, state):
    deadline = time.monotonic() + SOON
    while status_of(pid, "State") != state:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_storm_from_four_processes_with_prompt_handlers_never_fires():
    with Program(
        """
        calls = 0
        def handler(signum, frame):
            global calls
            calls += 1
        signal.signal(signal.SIGTERM, handler)
        force_exit(signal.SIGTERM, grace=0.05)
        in_c(say("ready"))
        sys.stdin.readline()
        os.write(1, b"%d\\n" % calls)
        """,
        stdin=subprocess.PIPE,
    ) as program:
        assert program.line() == "ready"
        storm = [str(program.process.pid), str(int(signal.SIGTERM)), "3000", "0.0001"]
        sender = [sys.executable, "-c", programs.SENDER]
        senders = [subprocess.Popen([*sender, *storm]) for _ in range(4)]
        for sender in senders:
            assert sender.wait(2 * SOON) == 0
        program.process.stdin.write(b"\n")
        program.process.stdin.flush()
        assert int(program.line()) > 1000
        assert program.end().status == 0


def test_orders_come_and_go_in_four_threads_and_the_right_ones_remain():
    with Program(f"""
        signal.signal(signal.SIGTERM, answer)
        def churn():
            for _ in range(3000):
                with force_exit(signal.SIGTERM, signal.SIGUSR1, grace=1000) as watch:
                    assert watch.active
                assert not watch.active
        threads = [threading.Thread(target=churn) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        force_exit(grace={GRACE})
        stuck()
    """) as program:
        assert program.line() == "stuck"
        program.kill(signal.SIGTERM)
        assert_forced(program.end())


# --- fork, exec, exit ----------------------------------------------------------------------------


def test_a_forked_child_is_watched_too_and_its_parent_is_not_ended_with_it():
    with Program(
        ARMED,
        """
        pid = os.fork()
        if pid == 0:
            stuck()
        os.write(1, b"%d\\n" % pid)
        os.write(1, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
        command=(sys.executable, "-W", "ignore::DeprecationWarning"),
    ) as program:
        lines = {program.line(), program.line()}
        assert "stuck" in lines
        program.kill(signal.SIGTERM, pid=int((lines - {"stuck"}).pop()))
        assert program.line() == "-15"
        assert program.end().status == 0


def test_what_the_parent_had_not_answered_is_not_the_childs():
    with Program(
        ANSWERING,
        """
        force_exit(grace=0.6)
        read, write = os.pipe()
        def fork():  # when the parent is stuck, with a signal that it has not answered
            os.read(read, 1)
            pid = os.fork()
            if pid == 0:
                letting_go.usleep(900_000)
                os.write(1, b"alive\\n")
                os._exit(0)
            os.waitpid(pid, 0)
        threading.Thread(target=fork).start()
        tell = map(holding.write, [write], [b"x"], [1])
        ten_ms = itertools.repeat(10_000)
        in_c(say("stuck"), map(letting_go.usleep, [100_000]), tell, map(letting_go.usleep, ten_ms))
        """,
        command=(sys.executable, "-W", "ignore::DeprecationWarning"),
    ) as program:
        assert program.line() == "stuck"
        program.kill(signal.SIGTERM)
        assert program.line() == "alive"
        assert program.process.wait(SOON) == -signal.SIGTERM


def test_an_interpreter_that_ends_in_time_just_ends():
    out = programs.succeed(
        PREAMBLE,
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        watch = force_exit(grace=0)
        import atexit
        atexit.register(lambda: print(watch.active))
        os.kill(os.getpid(), signal.SIGTERM)
        """,
    )
    assert out == "True\n"


@pytest.mark.parametrize("status", [None, 7])
def test_process_1_of_a_container_ends_though_the_kernel_withholds_it(status):
    command = programs.own_namespace()
    if command is None:
        pytest.skip("a PID namespace needs unshare(1), and privileges that this user lacks")
    end = ended(
        f"""
        assert os.getpid() == 1
        signal.signal(signal.SIGTERM, answer)
        force_exit(grace={GRACE}, exit_code={status})
        if os.fork() == 0:
            # The parent has said "stuck" by the time that this sees it in C code: a process of the
            # namespace sends it the signal, unshare(1) itself ignores it.
            time.sleep(0.3)
            os.kill(1, signal.SIGTERM)
            os._exit(0)
        stuck()
        """,
        signum=signal.SIGCONT,
        command=(*command, sys.executable, "-W", "ignore::DeprecationWarning"),
    )
    assert_forced(end, status=143 if status is None else status)


# --- the end that a deadline brings --------------------------------------------------------------

UNTIL = f"""
def until(seconds, exit_code=-1):
    at = time.monotonic_ns() + int(seconds * 1e9)
    return signal._engine.watch_until(at, signal.SIGTERM, exit_code, True)
GRACE = {GRACE}
"""


@pytest.mark.parametrize("status", [-15, 9])
def test_an_endless_loop_that_swallows_everything_ends_at_the_deadline(status):
    with Program(
        UNTIL,
        f"""
        def handler(signum, frame):
            until(GRACE, {status if status > 0 else -1})
            raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, handler)
        ready = say("ready")
        while True:
            try:
                in_c(ready)
                while True: pass
            except BaseException:
                continue
        """,
    ) as program:
        assert program.line() == "ready"
        program.kill(signal.SIGTERM)
        end = program.end()
    assert end.status == status
    assert end.seconds >= GRACE
    assert re.match(r"sigwright: \d+\.\d\d s for an orderly end after SIGTERM are over", end.stderr)
    assert "in <module>" in end.stderr


def test_a_deadline_that_is_taken_back_does_not_end_it_nor_the_child_of_one_that_is_ended():
    with Program(
        UNTIL,
        """
        number = until(0.2)
        assert signal._engine.is_watching(number)
        assert signal._engine.unwatch(number) and not signal._engine.unwatch(number)
        in_c(say("taken back"), map(letting_go.usleep, [400_000]))
        number = until(0.3)
        if os.fork() == 0:
            assert not signal._engine.is_watching(number)
            time.sleep(0.6)
            os.write(1, b"alive\\n")
            os._exit(0)
        stuck()
        """,
        command=(sys.executable, "-W", "ignore::DeprecationWarning"),
    ) as program:
        assert program.line() == "taken back"
        assert program.line() == "stuck"
        assert program.line() == "alive"
        assert program.end().status == -signal.SIGTERM


# --- what it costs, and what it leaves behind ----------------------------------------------------


def test_no_thread_before_the_first_and_none_after_the_last():
    out = programs.succeed(
        PREAMBLE,
        programs.UNTIL,
        """
        def name_of(tid):
            try:
                return open(f"/proc/self/task/{tid}/comm").read().strip()
            except OSError:
                return "just gone"
        def names():
            return sorted(map(name_of, os.listdir("/proc/self/task")))
        fds = os.listdir("/proc/self/fd")
        before = names()
        assert len(before) == 1
        with force_exit(grace=1), force_exit(signal.SIGHUP, grace=1):
            until(lambda: len(names()) == 2 and "sigwright-watch" in names())
            assert os.listdir("/proc/self/fd") == fds
        until(lambda: names() == before)
        again = force_exit(grace=1)
        until(lambda: len(names()) == 2)
        again.cancel()
        until(lambda: names() == before)
        print("none")
        """,
    )
    assert out == "none\n"


def test_its_thread_blocks_every_signal():
    with quiet(grace=1000):
        tasks = Path("/proc/self/task")
        masks = {
            (task / "comm").read_text().strip(): re.search(
                r"SigBlk:\s*(\w+)", (task / "status").read_text()
            )[1]
            for task in tasks.iterdir()
        }
    everything = (1 << 64) - 1
    for internal in (32, 33, signal.SIGKILL, signal.SIGSTOP):
        everything &= ~(1 << (internal - 1))
    assert int(masks["sigwright-watch"], 16) & everything == everything


@pytest.mark.parametrize("whose", ["theirs", "none"])
def test_an_alternate_stack_of_somebody_else_is_left_alone_and_workers_get_none(whose):
    """Two threads on one such stack, faulthandler's, would end badly."""
    out = programs.succeed(
        PREAMBLE,
        """
        class Stack(ctypes.Structure):
            _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
        def stack():
            now = Stack()
            assert holding.sigaltstack(None, ctypes.byref(now)) == 0
            return now.sp, now.flags, now.size
        def worker():
            before = stack()
            force_exit(grace=1).cancel()
            print(stack() == before)
        thread = threading.Thread(target=worker)
        memory = ctypes.create_string_buffer(1 << 15)
        if sys.argv[1] == "theirs":
            theirs = Stack(ctypes.addressof(memory), 0, len(memory))
            assert holding.sigaltstack(ctypes.byref(theirs), None) == 0
        before = stack()
        force_exit(grace=1).cancel()
        after = stack()
        force_exit(grace=1).cancel()
        thread.start()
        thread.join()
        print(stack() == after, after[1], before == after, after[2] >= 1 << 16)
        """,
        arguments=(whose,),
    )
    assert out == f"True\nTrue 0 {whose == 'theirs'} {whose != 'theirs'}\n"


# --- the interface -------------------------------------------------------------------------------


def test_it_is_in_force_until_it_is_cancelled_and_then_no_more():
    watch = quiet(signal.SIGUSR1, grace=1000)
    assert isinstance(watch, ForceExit)
    assert watch.active
    assert repr(watch) == "<ForceExit active>"
    threads = [threading.Thread(target=watch.cancel) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not watch.active
    assert repr(watch) == "<ForceExit cancelled>"
    watch.cancel()
    with quiet(grace=1000) as inside:
        assert inside.active
    assert not inside.active


def test_it_can_be_armed_in_any_thread():
    watches = []
    thread = threading.Thread(target=lambda: watches.append(quiet(grace=1000)))
    thread.start()
    thread.join()
    assert watches[0].active
    watches[0].cancel()


NAN = float("nan")


@pytest.mark.parametrize(
    ("signums", "keywords", "error"),
    [
        ((), {}, TypeError),
        ((), {"grace": -1}, ValueError),
        ((), {"grace": -0.001}, ValueError),
        ((), {"grace": NAN}, ValueError),
        ((), {"grace": -math.inf}, ValueError),
        ((), {"grace": "1"}, TypeError),
        ((), {"grace": None}, TypeError),
        ((), {"grace": 1, "presses": 1}, ValueError),
        ((), {"grace": 1, "presses": 0}, ValueError),
        ((), {"grace": 1, "presses": -2}, ValueError),
        ((), {"grace": 1, "presses": 2.0}, TypeError),
        ((), {"grace": 1, "exit_code": -1}, ValueError),
        ((), {"grace": 1, "exit_code": 256}, ValueError),
        ((), {"grace": 1, "exit_code": "1"}, TypeError),
        ((0,), {"grace": 1}, ValueError),
        ((-1,), {"grace": 1}, ValueError),
        ((signal.NSIG,), {"grace": 1}, ValueError),
        ((2**80,), {"grace": 1}, OverflowError),
        (("SIGTERM",), {"grace": 1}, TypeError),
        (([signal.SIGTERM],), {"grace": 1}, TypeError),
        ((signal.SIGTERM, signal.NSIG), {"grace": 1}, ValueError),
    ],
)
def test_bad_arguments_arm_nothing(signums, keywords, error):
    before = watched()
    with pytest.raises(error):
        force_exit(*signums, **keywords)
    assert watched() == before


def watched():
    """How many orders there are: their numbers are given in turn."""
    probe = signal._engine.watch([signal.SIGUSR2], 10**12, 0, -1, False, True)
    signal._engine.unwatch(probe)
    return [number for number in range(1, probe) if signal._engine.is_watching(number)]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_what_nothing_can_watch_is_refused_by_name(signum):
    with pytest.raises(OSError, match=signum.name) as caught:
        force_exit(signal.SIGTERM, signum, grace=1)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("grace", [math.inf, 10**400, 1e300, 2**70])
def test_a_grace_without_end_is_one(grace):
    with quiet(signal.SIGUSR1, grace=grace, presses=10**30) as watch:
        assert watch.active


def test_watches_by_the_hundred_are_all_there():
    with contextlib.ExitStack() as stack:
        watches = [
            stack.enter_context(quiet(signum, grace=1000))
            for signum in itertools.islice(itertools.cycle(signal.valid_signals() - {9, 19}), 500)
        ]
        assert all(watch.active for watch in watches)
    assert not any(watch.active for watch in watches)
