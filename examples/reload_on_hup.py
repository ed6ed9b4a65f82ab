"""A service that reads its settings again on SIGHUP, as daemons do.

The handler only notes that it was asked; the service reloads where it suits it, between two
pieces of work, so that no request ever sees half of the old settings and half of the new.  Here
the program is its own administrator: it edits its file and sends itself SIGHUP twice, and then
SIGTERM, the polite request to stop.  It prints:

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

asked = []


def note(signum, frame):
    asked.append(signal.Signals(signum))


def administrator(settings):
    """Edit the file, send a signal; one step for each call of next()."""
    for greeting in ("good morning", "good night"):
        settings.write_text(f"greeting = {greeting}\n")
        os.kill(os.getpid(), signal.SIGHUP)
        yield
    os.kill(os.getpid(), signal.SIGTERM)
    yield


def serve(settings):
    steps = administrator(settings)
    current = settings.read_text().strip()
    while True:
        print("serving with", current)
        next(steps)
        while asked:
            request = asked.pop(0)
            if request == signal.SIGTERM:
                print("stopped after", request.name)
                return
            current = settings.read_text().strip()
            print("reloaded after", request.name)


signal.signal(signal.SIGHUP, note)
signal.signal(signal.SIGTERM, note)
with tempfile.TemporaryDirectory() as directory:
    path = Path(directory, "settings.ini")
    path.write_text("greeting = hello\n")
    serve(path)
