"""Places where the interpreter looks for signals, but no block around them would see an exception.

A loop that is the last statement of its `with` or `try` ends in a jump back that belongs to
neither, as CPython compiles it (its tracker, 108214), and 3.13 looks for signals just there
(130279): in any program there, Ctrl+C can pass by an `except KeyboardInterrupt`.
"""

import dis
import re
import sys
import textwrap
from pathlib import Path

import pytest

from programs import succeed

PLACES = Path(__file__).parent.parent / "src" / "sigwright" / "_engine" / "places.c"
LOOPS = {
    "while a name": "while flag: pass",
    "while a comparison": "while 0 < flag: pass",
    "while a call": "while time.monotonic(): pass",
    "while True": "while True: pass",
    "for": "for _ in itertools.repeat(None): pass",
    "while in while": "while flag:\n    while flag: time.monotonic()",
    "if in while": "while flag:\n    if not flag: break",
    "while with a long body": "while flag:\n" + "    also = flag\n" * 300,
    "for in while": "while flag:\n    for _ in range(3): pass",
    "two blocks": "with sigwright.move_on_after(3600):\n    while flag: pass",
    "a try": "try:\n    while flag: pass\nfinally:\n    finished.append(True)",
}
loops = pytest.mark.parametrize("loop", LOOPS)
# `block()` has the loop as the last statement of its own `with`, or `try`.
LIMITED = """
import itertools, os, sys, threading, time
import sigwright
finished = []
def block():
    flag = 1
    with sigwright.move_on_after(0.003) as scope:
{loop}
    return scope.cancelled_caught
"""
HANDLED = """
import itertools, os, time
import sigwright
import sigwright.limits  # now: what is raised inside an import may be lost there
finished = []
class Struck(Exception):
    pass
def handler(signum, frame):
    raise Struck
sigwright.signal(sigwright.SIGALRM, handler)
def block():
    flag = 1
    try:
        sigwright.setitimer(sigwright.ITIMER_REAL, 0.001)
{loop}
    except Struck:
        return True
"""
QUIET = """
def quiet():
    "Nothing is left to strike this code."
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
"""


def with_loop(program, loop):
    return program.format(loop=textwrap.indent(LOOPS[loop], " " * 8))


@pytest.mark.skipif(not PLACES.exists(), reason="compares with the source, which is not here")
def test_the_engine_knows_this_pythons_instructions():
    """It reads bytecode by numbers, which change from version to version."""
    source = PLACES.read_text()
    rows = dict(re.findall(r"case (0x\w+):\s+return \(struct opcodes\)\{([^}]*)\}", source))
    row = rows.get(f"0x{sys.version_info.major:02X}{sys.version_info.minor:02X}")
    if row is None:
        assert sys.version_info[:2] not in {(3, 12), (3, 13), (3, 14), (3, 15)}
        return
    numbers = map(int, row.split(","))
    call, load_special, jump_backward, jump_caches, extended_arg, resume = numbers
    assert jump_backward == dis.opmap["JUMP_BACKWARD"]
    assert extended_arg == dis.opmap["EXTENDED_ARG"]
    assert resume == (dis.opmap["RESUME"] if sys.version_info >= (3, 15) else 0)
    # Only 3.14 looks for signals between __enter__ and its block.
    assert bool(load_special) == (sys.version_info[:2] == (3, 14))
    assert load_special in {0, dis.opmap.get("LOAD_SPECIAL", 0)}
    assert call == (dis.opmap["CALL"] if load_special else 0)

    def loop(n):
        while n:
            n -= 1

    # The jump's own length, in instructions: its caches lie between it and the next one.
    jumps = [i for i in dis.get_instructions(loop) if i.opname == "JUMP_BACKWARD"]
    for jump in jumps:
        assert jump.argval == jump.offset + 2 * (1 + jump_caches) - 2 * jump.arg
    assert jumps or sys.version_info >= (3, 15)


@loops
def test_a_loop_that_is_the_last_statement_of_its_block_is_ended_by_the_blocks_limit(loop):
    """In the main thread and in a worker."""
    out = succeed(
        with_loop(LIMITED, loop),
        QUIET,
        """
        def run():
            outcomes.append({block() for _ in range(30)})
            quiet()
        outcomes = []
        run()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        quiet()
        print(outcomes)
        """,
    )
    assert out == "[{True}, {True}]\n"


@loops
def test_what_a_handler_raises_in_such_a_loop_is_caught_around_it(loop):
    out = succeed(
        with_loop(HANDLED, loop),
        QUIET,
        """
        print({block() for _ in range(60)})
        quiet()
        """,
    )
    assert out == "{True}\n"


def test_ctrl_c_in_such_a_loop_is_caught_around_it():
    out = succeed(
        """
        import itertools, os, threading, time
        import sigwright
        def block():
            flag = 1
            try:
                threading.Timer(0.002, os.kill, (os.getpid(), sigwright.SIGINT)).start()
                while flag:
                    pass
            except KeyboardInterrupt:
                return True
        print({block() for _ in range(30)})
        """
    )
    assert out == "{True}\n"


@pytest.mark.parametrize("tool", ["settrace", "setprofile"])
def test_under_a_tracer_or_profiler_it_is_no_different(tool):
    out = succeed(
        with_loop(LIMITED, "while a name"),
        f"""
        def function(frame, event, argument):
            return None
        sys.{tool}(function)
        outcomes = set()
        for _ in range(30):
            outcomes.add(block())
        assert sys.{tool.replace("set", "get")}() is function
        sys.{tool}(None)
        print(outcomes)
        """,
    )
    assert out == "{True}\n"


def test_many_threads_in_one_such_loop_are_ended_each_by_its_own_limit():
    out = succeed(
        with_loop(LIMITED, "while a name"),
        QUIET,
        """
        sys.setswitchinterval(1e-4)
        outcomes = []
        def worker():
            for _ in range(20):
                outcomes.append(block())
            quiet()
        threads = [threading.Thread(target=worker) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            outcomes.append(block())
        for thread in threads:
            thread.join()
        quiet()
        print(outcomes == [True] * 180)
        """,
    )
    assert out == "True\n"


def test_it_puts_off_nothing_to_somebody_else():
    """The loop ends by itself just when its limit does: what was put off is nobody's then."""
    out = succeed(
        """
        import sys, threading, time
        import sigwright
        def block(until):
            with sigwright.move_on_at(until) as scope:
                while time.monotonic() < until:
                    pass
            return scope.cancelled_caught
        def other(n):
            total = 0
            while n:
                n -= 1
                total += n
            return total
        def run():
            for _ in range(1500):
                outcomes.append(block(time.monotonic() + 20e-6))
                assert other(50) == 1225
            assert other(200_000) == 19999900000
        sys.setswitchinterval(1e-5)
        outcomes = []
        run()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        print(len(outcomes))
        """
    )
    assert out == "3000\n"
