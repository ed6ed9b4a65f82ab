"""Ctrl+C at a terminal, where the program and its pool of processes are in the foreground."""

import signal
from pathlib import Path

import pytest

POOL = Path(__file__).parent / "apps" / "pool.py"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("kind", ["pool", "pool whose workers ignore SIGINT", "executor"])
def test_ctrl_c_ends_the_program_and_all_its_processes(start, kind, method, same):
    program = start(POOL, kind, method, terminal=True)
    program.says("work: begun", 2)
    assert len(program.whose(3)) == 3

    program.type_control_c()
    status = program.ends()
    assert status == -signal.SIGINT
    assert program.said("parent: KeyboardInterrupt") == 1
    same(status)
