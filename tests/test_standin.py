"""`install()` and `uninstall()`: sigwright in the stdlib module's own namespace."""

import asyncio
import importlib
import inspect
import os
import pickle
import pydoc
import signal
import subprocess
import sys
import types
from unittest import mock

import pytest

import sigwright


def _namespace() -> dict[str, object]:
    """What the module holds, but for the warnings that Python notes there."""
    return {name: value for name, value in vars(signal).items() if name != "__warningregistry__"}


_STDLIB = _namespace()
_FUNCTIONS = [
    name
    for name, value in _STDLIB.items()
    if callable(value)
    and not isinstance(value, type)
    and not name.startswith("_")
    and name != "default_int_handler"
]


@pytest.fixture
def installed():
    sigwright.install()
    yield
    sigwright.uninstall()
    assert _namespace() == _STDLIB


@pytest.fixture
def usr1():
    before = sigwright.getsignal(signal.SIGUSR1)
    yield signal.SIGUSR1
    sigwright.signal(signal.SIGUSR1, before)


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", _FUNCTIONS)
def test_every_function_of_the_stdlib_is_ours(name):
    assert getattr(signal, name) is getattr(sigwright, name)
    assert getattr(signal, name) is not _STDLIB[name]


@pytest.mark.usefixtures("installed")
def test_nothing_but_functions_changes():
    now = _namespace()
    assert list(now) == list(_STDLIB)
    assert {name for name in now if now[name] is not _STDLIB[name]} == set(_FUNCTIONS)


def test_uninstall_restores_the_very_objects():
    sigwright.install()
    sigwright.install()
    sigwright.uninstall()
    assert all(vars(signal)[name] is value for name, value in _STDLIB.items())
    sigwright.uninstall()
    assert all(vars(signal)[name] is value for name, value in _STDLIB.items())


def test_modules_that_imported_signal_earlier_call_sigwright(usr1):
    calls = []
    earlier = types.ModuleType("earlier")
    exec("import signal\ndef set_handler(*a): return signal.signal(*a)", vars(earlier))
    sigwright.install()
    try:
        earlier.set_handler(usr1, lambda *_: calls.append(1))
        signal.raise_signal(usr1)
    finally:
        sigwright.uninstall()
    assert calls == [1]
    assert sigwright.getsignal(usr1) is not signal.SIG_DFL


def test_handlers_stay_set_after_uninstall(usr1):
    calls = []
    sigwright.install()
    signal.signal(usr1, lambda signum, frame: calls.append((signum, frame.f_code.co_name)))
    sigwright.uninstall()
    os.kill(os.getpid(), usr1)
    assert calls == [(usr1, "test_handlers_stay_set_after_uninstall")]


def test_names_the_modules_that_hold_single_functions(monkeypatch):
    holder = types.ModuleType("holder")
    exec("from signal import alarm as ring, signal, SIGTERM, default_int_handler", vars(holder))
    monkeypatch.setitem(sys.modules, "holder", holder)
    monkeypatch.setitem(sys.modules, "not_a_module", None)
    try:
        assert {"holder.ring", "holder.signal"} == {
            name for name in sigwright.install() if name.startswith("holder.")
        }
        assert sigwright.install() == sigwright.install()
        assert not [name for name in sigwright.install() if name.startswith("sigwright")]
    finally:
        sigwright.uninstall()
    assert holder.ring is signal.alarm


def test_a_mock_over_the_stand_in_is_left_to_its_owner():
    with mock.patch("signal.alarm") as alarm:
        sigwright.install()
        assert signal.alarm is sigwright.alarm
        sigwright.uninstall()
        assert signal.alarm is alarm
    sigwright.install()
    try:
        with mock.patch("signal.alarm") as alarm:
            sigwright.install()
            assert signal.alarm is alarm
        assert signal.alarm is sigwright.alarm
        with mock.patch("signal.alarm") as alarm:
            sigwright.uninstall()
            assert signal.alarm is alarm
    finally:
        sigwright.uninstall()
        signal.alarm = _STDLIB["alarm"]
    assert _namespace() == _STDLIB


@pytest.mark.usefixtures("installed")
def test_pickles_agree():
    for value in (signal.SIGINT, signal.SIG_IGN, signal.Signals, signal.default_int_handler):
        pickled = pickle.dumps(value)
        assert pickle.loads(pickled) is value
        assert b"sigwright" not in pickled
    assert pickle.loads(pickle.dumps(signal.signal)) is sigwright.signal


@pytest.mark.usefixtures("installed")
def test_help_and_inspect_find_the_functions():
    for name in ("signal", "alarm", "getsignal"):
        assert inspect.isroutine(getattr(signal, name))
        assert getattr(signal, name).__module__.partition(".")[0] == "sigwright"
        assert getattr(signal, name).__name__ == name
        text = pydoc.plain(pydoc.render_doc(getattr(signal, name)))
        assert f"\n{name}(" in text


def test_a_reload_ends_it_and_install_begins_anew():
    done = run(
        "import importlib, signal, sigwright\n"
        "sigwright.install()\n"
        "importlib.reload(signal)\n"
        "assert signal.signal.__module__ == 'signal'\n"
        "reloaded = signal.signal\n"
        "sigwright.install()\n"
        "assert signal.signal is sigwright.signal\n"
        "sigwright.uninstall()\n"
        "assert signal.signal is reloaded\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


_IN_A_SUBINTERPRETER = """
import sys
code = '''
import signal, sigwright
before = dict(vars(signal))
print(sigwright.install(), vars(signal) == before, flush=True)
sigwright.uninstall()
print(vars(signal) == before, flush=True)
'''
if sys.version_info >= (3, 13):
    import _interpreters
    subinterpreter = _interpreters.create()
    failure = _interpreters.exec(subinterpreter, code)
    assert failure is None, failure
    _interpreters.destroy(subinterpreter)
else:
    import _xxsubinterpreters
    subinterpreter = _xxsubinterpreters.create()
    _xxsubinterpreters.run_string(subinterpreter, code)
    _xxsubinterpreters.destroy(subinterpreter)
"""


@pytest.mark.parametrize("main_too", [False, True])
def test_a_subinterpreter_keeps_the_stdlib(main_too):
    first = "import sigwright; sigwright.install()\n" if main_too else ""
    done = run(first + _IN_A_SUBINTERPRETER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "() True\nTrue\n", "")


@pytest.mark.usefixtures("installed")
def test_asyncio_signal_handlers(usr1):
    async def main():
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        loop.add_signal_handler(usr1, arrived.set)
        os.kill(os.getpid(), usr1)
        await asyncio.wait_for(arrived.wait(), 10)
        assert loop.remove_signal_handler(usr1)

    asyncio.run(main())
    assert signal.getsignal(usr1) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.usefixtures("installed")
def test_subprocess_sees_death_by_signal_and_restores_signals():
    code = "import signal; print(signal.getsignal(signal.SIGPIPE)); signal.raise_signal(15)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGTERM
    shell = subprocess.run(
        ["sh", "-c", "kill -PIPE $$; echo not reached"], capture_output=True, timeout=60
    )
    assert (shell.returncode, shell.stdout) == (-signal.SIGPIPE, b"")


def test_a_module_imported_afresh_is_ours_too():
    sigwright.install()
    try:
        assert importlib.import_module("signal").signal is sigwright.signal
    finally:
        sigwright.uninstall()
