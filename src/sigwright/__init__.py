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

# The stdlib's names, for this platform; a name that the platform lacks is absent here as well, so
# they cannot be listed one by one: the engine's __all__ lists them.
from ._engine import *  # noqa: F403
from .standin import install as install
from .standin import uninstall as uninstall
