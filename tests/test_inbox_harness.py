"""The lock-free rings, raced in C: see sanitizers/inbox_harness.c and consumer_harness.c."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENGINE = HERE.parent / "src" / "sigwright" / "_engine"
HARNESSES = {"inbox": ("inbox.c",), "consumer": ("inbox.c", "consumer_rings.c")}
COMPILER = os.environ.get("CC", "cc").split()

pytestmark = pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="needs a C compiler")


def compiled(folder, *flags, harness="inbox", change=None):
    """Build a harness with the engine's files; `change`: (file, old, new), to see that it fails."""
    names = {"ring.h", "inbox.h", "consumers.h", "inbox.c", "consumer_rings.c"}
    for name in names:
        text = (ENGINE / name).read_text()
        if change is not None and change[0] == name:
            assert change[1] in text
            text = text.replace(*change[1:])
        (folder / name).write_text(text)
    source = HERE / "sanitizers" / f"{harness}_harness.c"
    sources = [source, *(folder / name for name in HARNESSES[harness])]
    program = folder / "harness"
    command = [*COMPILER, "-std=c11", "-D_GNU_SOURCE", "-pthread", "-g", "-Wall", "-Wextra"]
    command += ["-Werror", *flags, f"-I{folder}", *map(str, sources)]
    subprocess.run([*command, "-o", str(program)], check=True, capture_output=True)
    return program


def run(program, records, seconds=60):
    command = [program, str(records), str(seconds)]
    for _ in range(20):
        result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 10)
        if result.returncode != 3:  # it did not race: the machine is busy
            break
    return result


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


@pytest.mark.parametrize("harness", HARNESSES)
@pytest.mark.parametrize("optimization", ["-O0", "-O3"])
def test_a_record_is_lost_torn_doubled_or_out_of_order(optimization, harness, tmp_path):
    result = run(compiled(tmp_path, optimization, harness=harness), 400_000)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("harness", HARNESSES)
def test_the_queue_has_a_data_race(harness, tmp_path):
    result = run(tsan(tmp_path, harness=harness), 60_000)
    assert result.returncode == 0, result.stderr
    assert "WARNING: ThreadSanitizer" not in result.stderr


# The harnesses, and TSan, must be able to fail.


def test_a_position_that_is_not_claimed_is_seen(tmp_path):
    header = (ENGINE / "ring.h").read_text()
    claim = re.search(r"atomic_compare_exchange_weak_explicit\(&ring->tail.*?\)", header, re.DOTALL)
    change = ("ring.h", claim[0], "(atomic_store(&ring->tail, position + 1), true)")
    result = run(compiled(tmp_path, "-O3", change=change), 400_000, seconds=3)
    assert result.returncode != 0  # a check, or the hang's SIGALRM


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_slot_that_is_handed_on_without_release_is_seen(harness, tmp_path):
    text = (ENGINE / "ring.h").read_text()
    hand_over = re.search(r"atomic_store_explicit\(&[^;]*\+ 2,\s*memory_order_release\)", text)
    change = ("ring.h", hand_over[0], hand_over[0].replace("release", "relaxed"))
    program = tsan(tmp_path, change=change, harness=harness)
    # On a busy machine the threads may come one after another: then there is no race.
    reports = (run(program, 60_000).stderr for _ in range(10))
    assert any("WARNING: ThreadSanitizer: data race" in report for report in reports)


CONSUMER_MUTANTS = {
    "the reserve is not compared with the head": (
        "consumer_rings.c",
        "head->record.monotonic_ns <= reserved->record.monotonic_ns",
        "false",
    ),
    "the reserve is given away twice": (
        "consumers.h",
        "if (!atomic_compare_exchange_strong(&slot->lap, &free_slot, 1)) {",
        "if (atomic_load(&slot->lap) == 1 && free_slot == 0) {",
    ),
    "a reserved record is not counted": (
        "consumers.h",
        "atomic_fetch_add(&consumer->shared->ever_reserved, 1);",
        "",
    ),
}


@pytest.mark.parametrize("name", CONSUMER_MUTANTS)
def test_a_mistake_in_a_consumers_ring_is_not_seen(name, tmp_path):
    program = compiled(tmp_path, "-O3", harness="consumer", change=CONSUMER_MUTANTS[name])
    results = [run(program, 400_000, seconds=20).returncode for _ in range(5)]
    assert any(results), results
