"""What every test of the seed uses: the module in both its forms, a clean slate, children.

The seed is Python 2.7's text.  `sigwright` is the same module as Python 3 spells it, and
`sigwright.classic` is the text to the letter; nearly every sentence holds in both, so a test that
takes the `signal` fixture runs once with each.
"""

import importlib
import resource
import signal as stdlib
import subprocess
import sys
import time

import pytest

MODULES = {
    "sigwright": "import sigwright as signal",
    "classic": "from sigwright import classic as signal",
}
TIMERS = (stdlib.ITIMER_REAL, stdlib.ITIMER_VIRTUAL, stdlib.ITIMER_PROF)


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "sentence(*texts): the sentences of section 17.4 that the test holds, word by word",
    )


@pytest.fixture(params=MODULES)
def form(request):
    """Which of the two forms this run of the test is about."""
    return request.param


@pytest.fixture
def signal(form):
    """The module under test."""
    return importlib.import_module("sigwright" if form == "sigwright" else "sigwright.classic")


@pytest.fixture
def classic():
    """The module under test, where only the letter of the seed holds."""
    return importlib.import_module("sigwright.classic")


@pytest.fixture
def wait_for():
    """Let the main thread pass safe points until a condition holds."""

    def wait(condition, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.002)

    return wait


@pytest.fixture(autouse=True)
def clean_slate():
    """Leave no handler, timer, restart flag or wakeup fd behind, whatever the test did."""
    import sigwright

    used = (
        sigwright.SIGALRM,
        sigwright.SIGCHLD,
        sigwright.SIGPROF,
        sigwright.SIGTERM,
        sigwright.SIGUSR1,
        sigwright.SIGUSR2,
        sigwright.SIGVTALRM,
    )
    before = {number: sigwright.getsignal(number) for number in used}
    yield
    for timer in TIMERS:
        stdlib.setitimer(timer, 0)
    sigwright.set_wakeup_fd(-1)
    for number, handler in before.items():
        sigwright.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def no_core_dumps():
    """Some children die by signals that dump core; none may leave a file behind."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.fixture
def child(form):
    """Start a Python child whose first statement gives it the module under test as `signal`."""

    def start(script, *arguments, options=(), **popen):
        # A caught signal becomes SIG_DFL over exec, an ignored one stays ignored; a test run in
        # the background of a shell has SIGINT ignored, and the child must not inherit that.
        inherited = stdlib.signal(stdlib.SIGINT, stdlib.default_int_handler)
        try:
            return subprocess.Popen(
                [sys.executable, *options, "-c", f"{MODULES[form]}\n{script}", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **popen,
            )
        finally:
            stdlib.signal(stdlib.SIGINT, inherited)

    return start


@pytest.fixture
def run(child):
    """Run such a child to its end: (exit status, output, errors)."""

    def run_to_the_end(script, *arguments, timeout=20, **popen):
        with child(script, *arguments, **popen) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, output, errors

    return run_to_the_end
