"""Stand in for the stdlib's `signal` in the whole process, and step aside again.

The functions are put into the stdlib module's own namespace, so that every module that said
`import signal`, earlier or later, calls sigwright: asyncio, subprocess and every library too.
The other way, `sys.modules["signal"] = sigwright`, reaches only those who import it later.

Only functions change places. The enums, their members, `ItimerError`, `struct_siginfo` and
`default_int_handler` are the stdlib's own objects in both modules, so what was pickled or
compared before agrees with what comes after; and sigwright's further names are not added, so
that `dir(signal)` stays what it was. `_signal` is not touched: it is where CPython itself looks.

What shows: `signal.signal.__module__` says sigwright, and so does a pickle of the function
itself; `help(signal)` leaves them out from 3.13 on, where pydoc goes by that name (`help` of the
function shows it). A copy of the stdlib's function that somebody kept cannot be pickled in the
meantime, as pickle looks it up by name. `importlib.reload(signal)` brings the stdlib's functions
back, as reload must; `install()` again after it.
"""

from __future__ import annotations

import signal
import sys

import sigwright

from . import _engine

# `import typing` would take longer than all the rest of sigwright's import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["install", "uninstall"]

_originals: dict[str, Callable[..., object]] = {}


def install() -> tuple[str, ...]:
    """Put sigwright's functions into the `signal` module.

    Returns the names, as "module.name", that still hold one of the stdlib's functions because
    their module said `from signal import ...` before: calls through those pass sigwright by.
    (Copies elsewhere, in a class or a default argument, are not found.) Handlers and a wakeup fd
    that were set through the stdlib's functions become sigwright's. Calling it again only looks
    again. In a subinterpreter it does nothing: there the stdlib's behaviour remains.

    Raises:
        ValueError: not in the main thread, as from `signal.signal`.
    """
    if not _engine.main_interpreter:
        return ()
    _engine.adopt()
    stdlib, ours = vars(signal), vars(sigwright)
    for name, function in list(stdlib.items()):
        if not (name in ours and _is_function(name, function)) or function is ours[name]:
            continue
        # After a reload the stdlib's functions are back, and are replaced again. What another
        # library has put over ours since is not: it would be taken for an original.
        if name not in _originals or function.__module__ in ("signal", "_signal"):
            _originals[name] = function
            stdlib[name] = ours[name]
    return tuple(_holders())


def uninstall() -> None:
    """Put the stdlib's functions back. Handlers that are set stay set.

    A function that somebody else has put in sigwright's place since (a mock, a monkey patch) is
    theirs to take away, and stays.
    """
    stdlib, ours = vars(signal), vars(sigwright)
    while _originals:
        name, original = _originals.popitem()
        if stdlib.get(name) is ours[name]:
            stdlib[name] = original


def _is_function(name: str, value: object) -> bool:
    return callable(value) and not isinstance(value, type) and not name.startswith("_")


def _holders() -> list[str]:
    """The module-level names, outside the two modules themselves, that hold an original."""
    originals = {id(function) for function in _originals.values()}
    found = []
    for module_name, module in list(sys.modules.items()):
        if module_name in ("signal", "_signal") or module_name.partition(".")[0] == "sigwright":
            continue
        # vars(), not dir() and getattr(): a lazy module must not be made to import anything.
        namespace = getattr(module, "__dict__", {})
        found += [
            f"{module_name}.{name}"
            for name, value in list(namespace.items())
            if id(value) in originals
        ]
    return sorted(found)
