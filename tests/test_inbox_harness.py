"""The inbox's lock-free queues, raced in C: see sanitizers/inbox_harness.c."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENGINE = HERE.parent / "src" / "sigwright" / "_engine"
HARNESS = HERE / "sanitizers" / "inbox_harness.c"
COMPILER = os.environ.get("CC", "cc").split()

pytestmark = pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="needs a C compiler")


def compiled(folder, *flags, change=None):
    sources = [HARNESS, ENGINE / "inbox.c"]
    if change is not None:
        old, new = change
        for name in ("ring.h", "inbox.h", "inbox.c"):
            text = (ENGINE / name).read_text()
            (folder / name).write_text(text.replace(old, new))
        assert old in (ENGINE / "ring.h").read_text()
        (folder / HARNESS.name).write_text(HARNESS.read_text())
        sources = [folder / HARNESS.name, folder / "inbox.c"]
    program = folder / "harness"
    command = [*COMPILER, "-std=c11", "-D_GNU_SOURCE", "-pthread", "-g", "-Wall", "-Wextra"]
    command += ["-Werror", *flags, *(() if change else (f"-I{ENGINE}",)), *map(str, sources)]
    subprocess.run([*command, "-o", str(program)], check=True, capture_output=True)
    return program


def run(program, records, seconds=60):
    return subprocess.run(
        [program, str(records), str(seconds)], capture_output=True, text=True, timeout=seconds + 10
    )


def tsan(folder, **keywords):
    try:
        program = compiled(folder, "-O1", "-fsanitize=thread", **keywords)
    except subprocess.CalledProcessError as error:
        if b"tsan" not in error.stderr and b"fsanitize" not in error.stderr:
            raise
        pytest.skip(f"the compiler has no ThreadSanitizer: {error.stderr.decode()[-200:]}")
    if "FATAL: ThreadSanitizer" in (result := run(program, 1)).stderr:
        pytest.skip(f"ThreadSanitizer does not start here: {result.stderr[-200:]}")
    return program


@pytest.mark.parametrize("optimization", ["-O0", "-O3"])
def test_a_record_is_lost_torn_doubled_or_out_of_order(optimization, tmp_path):
    result = run(compiled(tmp_path, optimization), 400_000)
    assert result.returncode == 0, result.stderr


def test_the_queue_has_a_data_race(tmp_path):
    result = run(tsan(tmp_path), 60_000)
    assert result.returncode == 0, result.stderr
    assert "WARNING: ThreadSanitizer" not in result.stderr


# The harness, and TSan, must be able to fail.


def test_a_position_that_is_not_claimed_is_seen(tmp_path):
    header = (ENGINE / "ring.h").read_text()
    claim = re.search(
        r"atomic_compare_exchange_weak_explicit\(&ring->tail.*?\)", header, re.DOTALL
    )
    change = (claim[0], "(atomic_store(&ring->tail, position + 1), true)")
    result = run(compiled(tmp_path, "-O3", change=change), 400_000, seconds=3)
    assert result.returncode != 0  # a check, or the hang's SIGALRM


def test_a_slot_that_is_handed_on_without_release_is_seen(tmp_path):
    text = (ENGINE / "ring.h").read_text()
    hand_over = re.search(r"atomic_store_explicit\(&[^;]*\+ 2,\s*memory_order_release\)", text)
    change = (hand_over[0], hand_over[0].replace("release", "relaxed"))
    result = run(tsan(tmp_path, change=change), 60_000)
    assert "WARNING: ThreadSanitizer: data race" in result.stderr
