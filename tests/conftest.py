"""Fixtures that tests of several files use."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.register_assert_rewrite("programs")

COMPILER = os.environ.get("CC", "cc").split()


@pytest.fixture(scope="session")
def foreign_library(tmp_path_factory):
    """Somebody else's C handlers, compiled: foreign/handler.c. The path of a shared library."""
    if shutil.which(COMPILER[0]) is None:
        pytest.skip("somebody else's handler is C, and there is no compiler")
    source = Path(__file__).parent / "foreign" / "handler.c"
    path = tmp_path_factory.mktemp("foreign") / "foreign.so"
    command = [*COMPILER, "-std=gnu11", "-shared", "-fPIC", "-O1", "-pthread"]
    subprocess.run([*command, str(source), "-o", str(path)], check=True)
    return path


@pytest.fixture(scope="session", autouse=True)
def last_resort():
    """force_exit() is armed throughout: it does not fire by mistake. And a test that hangs ends."""
    try:
        import sigwright as signal
    except ImportError:  # the tests of the Windows parts run without it
        yield
        return
    # Its thread begins anew in each child, and the sanitizer's own locks do not stand that: a child
    # that is still Python when the next one is made waits for ever. (Seen: 1 of some thousand.)
    if "ASAN_OPTIONS" in os.environ:
        yield
        return
    # No stacks, which are pytest's affair: they take a third hidden signal, and tests count those.
    with signal.force_exit(signal.SIGTERM, signal.SIGINT, grace=60, dump=False) as watch:
        yield
        assert watch.active


@pytest.fixture
def arrived():
    """The numbers of the handlers that have run; the process is left as it was."""
    import sigwright as signal  # here: the tests of the Windows parts run without it
    from programs import mask

    numbers = []
    signals = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 3)
    before = {signum: signal.getsignal(signum) for signum in signals}
    mask_before = mask()
    for signum in before:
        signal.signal(signum, lambda signum, frame: numbers.append(signum))
    yield numbers
    assert mask() == mask_before
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture(params=["main thread", "worker"])
def here(request):
    """`here(FUNCTION)`: run it in that kind of thread, and see that nothing comes after it."""
    from blocks import in_a_worker, spin

    def run(function):
        result = function()
        spin(0.03)
        return result

    if request.param == "worker":
        return lambda function: in_a_worker(lambda: run(function))
    return run
