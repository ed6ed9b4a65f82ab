"""The `signal` module for Python, built anew on an engine of its own.

Write ``import sigwright as signal``, and a program written for section 17.4 of Python's library
reference, or for the `signal` module of today's Python, runs unchanged; with three differences
that it will not miss. A handler runs when the signal lands on another thread than the main one,
while the main thread sleeps. Queued real-time signals are one call each, in order. And a real
fault (a segmentation fault, say) ends the program, with all stacks, where the stdlib's module
hangs.

Use it wherever `signal` is used: shutdown and reload of services, Ctrl+C in command-line tools,
time limits by `alarm()` and `setitimer()`, wake-ups of event loops. It is not a way for threads to
talk to each other: use queues and locks.

>>> import sigwright as signal
>>> def handler(signum, frame):
...     print("handler called with", signal.Signals(signum).name)
>>> old = signal.signal(signal.SIGUSR1, handler)
>>> signal.raise_signal(signal.SIGUSR1)
handler called with SIGUSR1
>>> signal.signal(signal.SIGUSR1, old) is handler
True

`sigwright.classic` is Python 2.7's module, to the letter; `install()` puts sigwright in the place
of `signal` for every library of the process.
"""

import sys as _sys

from . import _engine

# The stdlib's names, for this platform; a name that the platform lacks is absent here as well, so
# they cannot be listed one by one: the engine's __all__ lists them.
from ._engine import *  # noqa: F403
from .standin import install as install
from .standin import uninstall as uninstall

if _engine.main_interpreter:
    from ._engine import run_default as run_default  # a last resort must not have to import

# All else that is beyond the stdlib is imported when it is first named: who only wants a better
# `signal` does not wait for it. (`import typing` alone would take longer than all of this.)
TYPE_CHECKING = False
if TYPE_CHECKING:
    from .actions import CHandler as CHandler
    from .actions import SigAction as SigAction
    from .actions import sigaction as sigaction
    from .codes import *  # noqa: F403 - its __all__ lists them: some eighty constants
    from .deferral import deferred as deferred
    from .inspecting import ConsumerStats as ConsumerStats
    from .inspecting import Disposition as Disposition
    from .inspecting import SignalStats as SignalStats
    from .inspecting import dispositions as dispositions
    from .inspecting import stats as stats
    from .limits import Cancelled as Cancelled
    from .limits import CancelScope as CancelScope
    from .limits import fail_after as fail_after
    from .limits import fail_at as fail_at
    from .limits import move_on_after as move_on_after
    from .limits import move_on_at as move_on_at
    from .listening import Listener as Listener
    from .listening import Registration as Registration
    from .listening import add_handler as add_handler
    from .listening import listen as listen
    from .listening import on as on
    from .sections import blocked as blocked
    from .shutdown import GracefulShutdown as GracefulShutdown
    from .shutdown import graceful_shutdown as graceful_shutdown
    from .siginfo import Sender as Sender
    from .siginfo import SignalInfo as SignalInfo
    from .stopping import ForceExit as ForceExit
    from .stopping import can_set_handlers as can_set_handlers
    from .stopping import force_exit as force_exit
    from .stopping import raise_system_exit as raise_system_exit
    from .timers import TimerHandle as TimerHandle
    from .timers import call_at as call_at
    from .timers import call_every as call_every
    from .timers import call_later as call_later

_MODULES = {
    "codes": (),  # its own __all__: the constants of si_code and sigaction()
    "sections": ("blocked",),
    "stopping": ("can_set_handlers", "raise_system_exit"),
}
# In a subinterpreter the stock behaviour remains: no listeners, no handlers but the stdlib's.
if _engine.main_interpreter:
    _MODULES |= {
        "actions": ("CHandler", "SigAction", "sigaction"),
        "deferral": ("deferred",),
        "inspecting": ("ConsumerStats", "Disposition", "SignalStats", "dispositions", "stats"),
        "limits": (
            *("CancelScope", "Cancelled", "fail_after", "fail_at"),
            *("move_on_after", "move_on_at"),
        ),
        "listening": ("Listener", "Registration", "add_handler", "listen", "on"),
        "shutdown": ("GracefulShutdown", "graceful_shutdown"),
        "siginfo": ("Sender", "SignalInfo"),
        "stopping": ("ForceExit", "can_set_handlers", "force_exit", "raise_system_exit"),
        "timers": ("TimerHandle", "call_at", "call_every", "call_later"),
    }


def __getattr__(name: str) -> object:
    for module_name, names in _MODULES.items():
        if name in names or (module_name == "codes" and _is_code(name)):
            full_name = f"{__name__}.{module_name}"
            __import__(full_name)
            module = _sys.modules[full_name]
            if hasattr(module, name):
                globals()[name] = value = getattr(module, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_code(name: str) -> bool:
    # Without a look at the module: a question for any other name must not import it.
    kinds = ("BUS", "CLD", "FPE", "ILL", "POLL", "SA", "SEGV", "SI", "SYS", "TRAP")
    return name.split("_", 1)[0] in kinds or name.endswith("Codes") or name == "SaFlags"


def __dir__() -> list[str]:
    from . import codes

    lazy = [name for names in _MODULES.values() for name in names]
    return sorted({*globals(), *codes.__all__, *lazy})
