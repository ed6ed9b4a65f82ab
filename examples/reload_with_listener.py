"""A service that reads its settings again on SIGHUP and stops on SIGTERM, with a listener.

The same service as in reload_on_hup.py, without a handler: a listener gets a copy of each signal
and keeps it until the service asks, between two pieces of work.  So nothing runs in the middle of
anything, no list and no flag has to be shared with a handler, and the service may run in any
thread.  It prints:

    serving with greeting = hello
    reloaded after SIGHUP
    serving with greeting = good morning
    reloaded after SIGHUP
    serving with greeting = good night
    stopped after SIGTERM
"""

import os
import tempfile
from pathlib import Path

import sigwright as signal


def administrator(settings):
    """Edit the file, send a signal; one step for each call of next()."""
    for greeting in ("good morning", "good night"):
        settings.write_text(f"greeting = {greeting}\n")
        os.kill(os.getpid(), signal.SIGHUP)
        yield
    os.kill(os.getpid(), signal.SIGTERM)
    yield


def serve(settings, signals):
    steps = administrator(settings)
    current = settings.read_text().strip()
    while True:
        print("serving with", current)
        next(steps)
        for info in signals.drain():  # what has come since; `for info in signals` would wait
            if info.si_signo == signal.SIGTERM:
                print("stopped after", info.si_signo.name)
                return
            current = settings.read_text().strip()
            print("reloaded after", info.si_signo.name)


with tempfile.TemporaryDirectory() as directory:
    path = Path(directory, "settings.ini")
    path.write_text("greeting = hello\n")
    # Open before the first work is done: a signal that comes earlier would end the program.
    with signal.listen(signal.SIGHUP, signal.SIGTERM) as signals:
        serve(path, signals)
