"""Random programs of blocks, sections and cancellations, against the rules written down once more.

No time passes in them: a block is over when cancel() says so, and what is swallowed comes again to
a program that waits for it.
"""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigwright import Cancelled, CancelScope, deferred, fail_after, move_on_after

# A program is a tuple of steps; a step is a tuple: its kind, and what belongs to it.
MAKERS = {
    "scope": CancelScope,
    "fail": lambda: fail_after(3600),
    "move on": lambda: move_on_after(3600),
}
BLOCKS = [*MAKERS, *MAKERS, "section", "swallow", "cleanup", "catch"]


@st.composite
def programs(draw, depth=5):
    program = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["cancel", "cancel", "mark", "raise", *BLOCKS, *BLOCKS]))
        if kind == "cancel":
            program.append((kind, draw(st.integers(0, 3))))
        elif kind in BLOCKS and depth > 0:
            program.append((kind, draw(programs(depth - 1))))
        else:
            program.append(("raise",) if kind == "raise" else ("mark",))
    return tuple(program)


class Machine:
    """Runs a program; `log` says what happened. How it is done is left to the two below."""

    def __init__(self):
        self.log = []
        self.scopes = []  # that are entered, the outermost first

    def run(self, program):
        for kind, *what in program:
            if kind == "mark":
                self.log.append("mark")
            elif kind == "raise":
                raise KeyError
            elif kind == "cancel":
                (level,) = what
                if level < len(self.scopes):
                    self.cancel(self.scopes[level])
            elif kind in MAKERS:
                self.block(kind, *what)
            else:
                getattr(self, kind)(*what)

    def cleanup(self, program):
        try:
            self.run(program)
        finally:
            self.log.append("cleaned up")

    def catch(self, program):
        try:
            self.run(program)
        except (KeyError, TimeoutError) as error:
            self.log.append(("caught", type(error)))

    def whole(self, program):
        try:
            self.run(program)
        except (KeyError, TimeoutError) as error:
            self.log.append(type(error).__name__)
        return self.log


class Real(Machine):
    def cancel(self, scope):
        scope.cancel()
        self.step()

    def step(self):
        """A safe point, on all versions."""

    def section(self, program):
        with deferred():
            self.run(program)
        self.step()

    def swallow(self, program):
        try:
            self.run(program)
        except Cancelled:
            self.log.append("swallowed")
            end = time.monotonic() + 30  # it comes again
            while time.monotonic() < end:
                self.step()
            self.log.append("it did not come again")

    def block(self, kind, program):
        scope = MAKERS[kind]()
        self.scopes.append(scope)
        try:
            with scope:
                self.run(program)
        finally:
            with deferred():  # on a busy machine it could come again already
                self.log.append((kind, scope.cancel_called, scope.cancelled_caught))
                self.scopes.remove(scope)


class Model(Machine):
    """The rules."""

    def __init__(self):
        super().__init__()
        self.sections = 0
        self.due = False  # something is over, and nothing was raised since

    def cancel(self, scope):
        if not scope.over:
            scope.over = self.due = True
            self.look()

    def look(self):
        """One Cancelled is for all that are over. Not in a section: it looks at its end."""
        if self.due and self.sections == 0:
            self.due = False
            for scope in self.scopes:
                scope.struck = scope.struck or scope.over
            raise Stop

    def section(self, program):
        self.sections += 1
        try:
            self.run(program)
        finally:
            self.sections -= 1
            self.look()

    def swallow(self, program):
        try:
            self.run(program)
        except Stop:
            self.log.append("swallowed")
            self.due = True
            self.look()

    def block(self, kind, program):
        scope = Block()
        self.scopes.append(scope)
        ended_by = None
        try:
            self.run(program)
        except (Stop, KeyError, TimeoutError) as error:
            ended_by = error
        self.scopes.pop()
        outer_is_over = any(outer.over for outer in self.scopes)
        self.due = self.due and outer_is_over
        stopped = isinstance(ended_by, Stop)
        mine = scope.struck and stopped and not outer_is_over
        self.log.append((kind, scope.over, mine))
        if kind == "fail" and (mine or (scope.struck and ended_by is None)):
            raise TimeoutError
        if ended_by is not None and not mine:
            raise ended_by


class Block:
    over = struck = False


class Stop(BaseException):
    """Cancelled, in the model."""


@pytest.fixture
def _no_collector():
    """Hypothesis has a callback in it: where a limit strikes there, it is lost."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("where", ["main thread", "worker"])
def test_what_a_program_does_is_what_the_rules_say(where):
    @settings(max_examples=100, deadline=None)
    @given(programs())
    def check(program):
        expected = Model().whole(program)
        if where == "worker":
            with ThreadPoolExecutor(1) as pool:
                log = pool.submit(Real().whole, program).result(60)
        else:
            log = Real().whole(program)
        assert log == expected

    check()
