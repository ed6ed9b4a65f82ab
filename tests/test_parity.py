"""Every public name of the stdlib's signal module is here, and means the same."""

import enum
import inspect
import platform
import re
import signal as stdlib
from pathlib import Path

import pytest

import sigwright

PUBLIC = sorted(name for name in dir(stdlib) if not name.startswith("_"))
ROUTINES = [name for name in PUBLIC if inspect.isroutine(getattr(stdlib, name))]


def signature(function):
    try:
        return inspect.signature(function)
    except ValueError:  # 3.11's and 3.12's set_wakeup_fd has none
        return None


WITH_SIGNATURE = [name for name in ROUTINES if signature(getattr(stdlib, name))]


def recorded_names():
    """The names that some version from 3.11 to 3.15 has, with those versions."""
    text = (Path(__file__).parent / "stdlib_names.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: versions.split() for name, versions in (line.split(": ") for line in lines)}


def test_there_is_something_to_compare():
    assert {"signal", "SIGHUP", "ItimerError", "Signals"} <= set(PUBLIC)
    assert {"signal", "setitimer", "default_int_handler"} <= set(WITH_SIGNATURE)


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - set(ROUTINES)))
def test_a_constant_or_class_is_the_very_same(name):
    ours, theirs = getattr(sigwright, name), getattr(stdlib, name)
    if isinstance(theirs, (enum.Enum, type)):
        assert ours is theirs
    else:
        assert (type(ours), ours) == (type(theirs), theirs)


def test_the_default_int_handler_is_the_very_same():
    assert sigwright.default_int_handler is stdlib.default_int_handler


@pytest.mark.parametrize("name", ROUTINES)
def test_a_function_has_its_name_and_its_documentation(name):
    function = getattr(sigwright, name)
    assert inspect.isroutine(function)
    assert function.__name__ == name
    assert inspect.getdoc(function)


@pytest.mark.parametrize("name", WITH_SIGNATURE)
def test_a_function_has_the_same_signature(name):
    assert signature(getattr(sigwright, name)) == signature(getattr(stdlib, name))


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14", "3.15"])
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the names were recorded with glibc's <signal.h>"
)
def test_the_names_of_each_version_are_here(version):
    names = {name for name, versions in recorded_names().items() if version in versions}
    assert len(names) > 60
    assert names - set(dir(sigwright)) == set()


def test_no_signal_that_the_stdlib_lacks():
    def signals(module):
        return {name for name in dir(module) if re.match("SIG|ITIMER|CTRL|NSIG", name)}

    assert signals(sigwright) == signals(stdlib)


def test_what_begins_with_sig_is_a_signal():
    # Programs list the signals so: [n for n in dir(signal) if n.startswith("SIG")].
    for name in dir(sigwright):
        if name.startswith("SIG_"):
            assert isinstance(getattr(sigwright, name), (stdlib.Handlers, stdlib.Sigmasks))
        elif name.startswith("SIG"):
            assert isinstance(getattr(sigwright, name), stdlib.Signals)


def test_a_star_import_gives_all_of_it():
    namespace = {}
    exec("from sigwright import *", namespace)
    assert set(PUBLIC) - set(namespace) == set()
