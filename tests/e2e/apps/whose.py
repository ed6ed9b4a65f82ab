"""Whose signal module does this process have? What the tests ask every program."""

import _signal
import json
import os
import signal


def whose(signum):
    """A report about this process, in which the program has set a handler for `signum`.

    The name of the function could be a leftover; that CPython's own table holds something else
    than the program's handler shows that an engine stands between the two.
    """
    return {
        "pid": os.getpid(),
        "module": signal.signal.__module__,
        "engine": _signal.getsignal(signum) != signal.getsignal(signum),
    }


def tell(signum):
    """The report as a line that starts with "whose:", in one write among many processes."""
    os.write(2, f"whose: {json.dumps(whose(signum))}\n".encode())
